//! What the engine asks of whoever stands above it.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a layer above the engine may answer or learn. Every method has a default, so that it is safe to add some.
///
/// They are called on the caller's threads, in the middle of writes: they must be quick and must not call the engine.
pub trait Hooks: Send + Sync + fmt::Debug {
    /// The time of a batch that is about to be written to a database with a log backup, in microseconds of the Unix
    /// epoch; `None`: the system's clock. Asked for such databases alone.
    fn stamp(&self) -> Option<u64> {
        None
    }
}

/// The last reading of the clock in this process: closing and opening a database must not turn it back.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// The time that each batch of a database with a log backup ends with; it never goes back.
#[derive(Debug)]
pub(super) struct Stamps {
    last: Mutex<u64>,
    hooks: Option<Arc<dyn Hooks>>,
}

impl Stamps {
    pub(super) fn new(hooks: Option<Arc<dyn Hooks>>) -> Self {
        Stamps { last: Mutex::new(0), hooks }
    }

    /// The log data of the next batch: microseconds of the Unix epoch, 8 bytes, little-endian.
    pub(super) fn next(&self) -> [u8; 8] {
        let now = self.hooks.as_ref().and_then(|hooks| hooks.stamp()).unwrap_or_else(clock);
        let mut last = self.last.lock();
        *last = now.max(*last);
        last.to_le_bytes()
    }

    /// No stamp is below `floor` from now on.
    #[cfg(any(test, feature = "log-backup", feature = "traps"))]
    pub(super) fn raise(&self, floor: u64) {
        let mut last = self.last.lock();
        *last = floor.max(*last);
    }
}

fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    CLOCK.fetch_max(now, Ordering::Relaxed).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Backwards(AtomicU64);

    impl Hooks for Backwards {
        fn stamp(&self) -> Option<u64> {
            Some(self.0.fetch_sub(10, Ordering::Relaxed))
        }
    }

    #[test]
    fn a_clock_that_goes_back_is_not_believed() {
        let stamps = Stamps::new(Some(Arc::new(Backwards(AtomicU64::new(1000)))));
        assert_eq!([stamps.next(), stamps.next()], [1000u64.to_le_bytes(); 2]);
    }

    #[test]
    fn no_stamp_is_below_the_floor() {
        let stamps = Stamps::new(Some(Arc::new(Backwards(AtomicU64::new(1000)))));
        stamps.raise(5000);
        assert_eq!(stamps.next(), 5000u64.to_le_bytes());
        stamps.raise(7);
        assert_eq!(stamps.next(), 5000u64.to_le_bytes());
    }

    #[test]
    fn the_systems_clock_is_the_default() {
        let stamps = Stamps::new(None);
        let first = u64::from_le_bytes(stamps.next());
        assert!(first > 1_700_000_000_000_000 && u64::from_le_bytes(stamps.next()) >= first);
    }
}
