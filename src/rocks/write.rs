//! Batches, and how durable a write is when its call returns.

use super::{Database, Family};
use crate::error::Result;
use rocksdb::WriteOptions;

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
