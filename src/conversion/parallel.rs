//! A number of like pieces of work, done by a few threads.

use crate::error::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Says whether the work has become pointless because another part of it failed.
pub(super) struct Stop(AtomicBool);

impl Stop {
    /// `Err` if it has; to be asked now and then. The error reaches nobody.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Lost, "go on", "another thread failed"));
        }
        Ok(())
    }
}

/// Turns to compute, fewer than there are workers: whoever waits for the disk lends its turn to another.
pub(super) struct Turns {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'t>(&'t Turns);

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        Turns { free: Mutex::new(count), given_back: Condvar::new() }
    }

    /// Waits for a turn.
    pub(super) fn take(&self) -> Turn<'_> {
        self.acquire();
        Turn(self)
    }

    /// Lends the turn of this thread to another one while `wait` waits.
    pub(super) fn lend<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.give_back();
        let waited = wait();
        self.acquire();
        waited
    }

    fn acquire(&self) {
        let mut free = self.free.lock();
        self.given_back.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
    }

    fn give_back(&self) {
        *self.free.lock() += 1;
        self.given_back.notify_one();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// Does the pieces `0..count`, begun in this order, and returns their results in this order; or the first error.
pub(super) fn in_parallel<T: Send>(
    threads: usize,
    count: usize,
    work: impl Fn(usize, &Stop) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let stop = Stop(AtomicBool::new(false));
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let results: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let worker = || {
        while stop.check().is_ok() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            match work(index, &stop) {
                Ok(result) => results.lock().push((index, result)),
                Err(error) => {
                    // Before the flag: whoever stops because of it must come second.
                    failed.lock().get_or_insert(error);
                    stop.0.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            // A system that has no more threads gets by with fewer.
            let _ = std::thread::Builder::new().spawn_scoped(scope, worker);
        }
        worker();
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let mut results = results.into_inner();
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_each_piece_is_done_once() {
        for threads in [0, 1, 3] {
            let results = in_parallel(threads, 100, |index, _| Ok(index * 2)).unwrap();
            assert_eq!(results, (0..100).map(|index| index * 2).collect::<Vec<_>>());
        }
        assert!(in_parallel(2, 0, |index, _| Ok(index)).unwrap().is_empty());
    }

    #[test]
    fn no_more_compute_than_there_are_turns_and_who_waits_is_not_among_them() {
        let turns = Turns::new(2);
        let (computing, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Two compute at a time, and all four wait at a time, so that those that wait have no turns; or it takes for ever.
        let (two_compute, all_wait) = (std::sync::Barrier::new(2), std::sync::Barrier::new(4));
        let compute = || {
            most.fetch_max(computing.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            two_compute.wait();
            computing.fetch_sub(1, Ordering::SeqCst);
        };
        in_parallel(4, 4, |_, _| {
            let _turn = turns.take();
            compute();
            turns.lend(|| all_wait.wait());
            compute();
            Ok(())
        })
        .unwrap();
        assert_eq!(most.into_inner(), 2);
        assert_eq!(turns.free.into_inner(), 2);
    }

    #[test]
    fn the_first_error_stops_all() {
        let begun = AtomicUsize::new(0);
        let failed = in_parallel(2, 1000, |index, stop| {
            begun.fetch_add(1, Ordering::Relaxed);
            if index == 5 {
                return Err(Error::new(ErrorKind::NoSpace, "work", "full"));
            }
            // Goes on until it is told not to.
            if index > 5 {
                loop {
                    stop.check()?
                }
            } else {
                Ok(())
            }
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::NoSpace);
        assert!(begun.into_inner() < 10);
    }
}
