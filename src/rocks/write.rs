//! Batches, and how durable a write is when its call returns.

use super::{Database, Family};
use crate::error::{Error, ErrorKind, Result};
use rocksdb::WriteOptions;
use std::time::{Duration, Instant};

/// How durable a write is when its call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On the disk: survives a power cut. The default.
    #[default]
    Sync,
    /// In the operating system: survives the process, the last moments may be lost in a power cut, never a middle part.
    Buffered,
    /// In memory until the next flush: a crash loses what was not flushed.
    NoWal,
}

impl Durability {
    pub(super) fn options(self) -> WriteOptions {
        let mut options = WriteOptions::default();
        // See `Wait`.
        options.set_no_slowdown(true);
        match self {
            Durability::Sync => options.set_sync(true),
            Durability::Buffered => {}
            Durability::NoWal => options.disable_wal(true),
        }
        options
    }
}

/// Operations on encoded keys that are written together.
#[derive(Default)]
pub struct WriteBatch {
    pub(super) inner: rocksdb::WriteBatch,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn put(&mut self, database: &Database, family: Family, key: &[u8], value: &[u8]) -> Result<()> {
        self.inner.put_cf(database.family(family)?, key, value);
        Ok(())
    }

    /// Adds a deletion.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn delete(&mut self, database: &Database, family: Family, key: &[u8]) -> Result<()> {
        self.inner.delete_cf(database.family(family)?, key);
        Ok(())
    }

    /// Adds the deletion of all keys from `from` to before `to`.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn delete_range(&mut self, database: &Database, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        self.inner.delete_range_cf(database.family(family)?, from, to);
        Ok(())
    }

    /// Adds bytes that reach the WAL and nothing else.
    pub fn log_data(&mut self, bytes: &[u8]) {
        self.inner.put_log_data(bytes);
    }

    /// Whether it has no operation.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

/// How long a stopped writer waits before it tries again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));
/// How often it asks whether there is anything to wait for.
const LOOKS: Duration = Duration::from_millis(100);
/// How long it waits while RocksDB has met an error and does nothing.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How many times it sees RocksDB's background work fail. RocksDB tries again after a second, for ever.
const FAILURES_MAX: u64 = 2;

/// The wait of a writer that RocksDB has too much unfinished work for.
///
/// RocksDB itself would let it wait at the head of the queue of writers. If the flush that it waits for fails for lack of
/// room, the repeated flush has to pass that queue, and neither comes to an end, however much room there is by then (its
/// issue 9876). So RocksDB is told to answer at once, and writers wait out here, as long as there is something to wait for.
pub(super) struct Wait<'d> {
    database: &'d Database,
    pause: Duration,
    looked: Instant,
    /// Failures of background work, ever, when the wait began.
    failures: Option<u64>,
    idle_since: Option<Instant>,
}

impl<'d> Wait<'d> {
    pub(super) fn new(database: &'d Database) -> Self {
        Wait { database, pause: PAUSES.0, looked: Instant::now(), failures: None, idle_since: None }
    }

    /// Waits a moment.
    ///
    /// # Errors
    /// `NoSpace` or another failure of background work that has to be done first.
    pub(super) fn a_moment(&mut self, step: &'static str) -> Result<()> {
        std::thread::sleep(self.pause);
        self.pause = PAUSES.1.min(self.pause * 2);
        if self.failures.is_some() && self.looked.elapsed() < LOOKS {
            return Ok(());
        }
        self.looked = Instant::now();
        let failures = self.database.figure("rocksdb.background-errors")?;
        if failures >= *self.failures.get_or_insert(failures) + FAILURES_MAX {
            // Only this failure leaves writers stopped without an error of its own.
            let message = "writes are stopped: there is no room to compact what was written; reading goes on";
            return Err(Error::new(ErrorKind::NoSpace, step, message).at(self.database.path()));
        }
        let running = self.database.figure("rocksdb.num-running-flushes")?
            + self.database.figure("rocksdb.num-running-compactions")?;
        let failed = if running == 0 { self.database.background_error() } else { None };
        match failed {
            None => self.idle_since = None,
            Some(failed) if self.idle_since.get_or_insert(self.looked).elapsed() >= IDLE_MAX => {
                return Err(self.database.error(step, failed));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl Database {
    /// Does a write, as soon as RocksDB takes it.
    pub(super) fn patiently(
        &self,
        step: &'static str,
        mut write: impl FnMut() -> Result<(), rocksdb::Error>,
    ) -> Result<()> {
        let mut wait = None;
        loop {
            match write() {
                Err(stopped) if stopped.kind() == rocksdb::ErrorKind::Incomplete => {}
                done => return done.map_err(|source| self.error(step, source)),
            }
            wait.get_or_insert_with(|| Wait::new(self)).a_moment(step)?;
        }
    }
}
