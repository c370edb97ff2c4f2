//! A number of like pieces of work, done by a few threads.

use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
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
