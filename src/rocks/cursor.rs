//! Cursors that cannot mistake an error for the end.

use super::{Database, Family, PinnedValue, error};
use crate::error::Result;
use rocksdb::{DB, DBRawIterator, ReadOptions};
use std::path::{Path, PathBuf};

/// A position in a column family. Every movement that ends beyond the data asks RocksDB whether that is the end or an
/// error.
pub struct Cursor<'d> {
    raw: DBRawIterator<'d>,
    path: PathBuf,
}

impl<'d> Cursor<'d> {
    pub(super) fn new(raw: DBRawIterator<'d>, path: &Path) -> Self {
        Cursor { raw, path: path.to_path_buf() }
    }

    #[inline]
    fn checked(&self) -> Result<()> {
        if self.raw.valid() { Ok(()) } else { self.status() }
    }

    /// What RocksDB says of the movements so far.
    ///
    /// # Errors
    /// `Corrupt`, `Io`: what was read so far is not all there is.
    pub fn status(&self) -> Result<()> {
        self.raw.status().map_err(|source| error("read the database", &self.path, source))
    }

    /// To the first entry.
    ///
    /// # Errors
    /// As [`Cursor::status`].
    pub fn seek_first(&mut self) -> Result<()> {
        self.raw.seek_to_first();
        self.checked()
    }

    /// To the last entry.
    ///
    /// # Errors
    /// As [`Cursor::status`].
    pub fn seek_last(&mut self) -> Result<()> {
        self.raw.seek_to_last();
        self.checked()
    }

    /// To the first entry at or after `key`.
    ///
    /// # Errors
    /// As [`Cursor::status`].
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.raw.seek(key);
        self.checked()
    }

    /// To the last entry at or before `key`.
    ///
    /// # Errors
    /// As [`Cursor::status`].
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        self.raw.seek_for_prev(key);
        self.checked()
    }

    /// To the next entry; beyond the end it stays there.
    ///
    /// # Errors
    /// As [`Cursor::status`].
    #[inline]
    #[allow(clippy::should_implement_trait)] // Not an `Iterator`: it lends what it stands on.
    pub fn next(&mut self) -> Result<()> {
        self.raw.next();
        self.checked()
    }

    /// To the entry before; beyond the beginning it stays there.
    ///
    /// # Errors
    /// As [`Cursor::status`].
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        self.raw.prev();
        self.checked()
    }

    /// To the next entry, which is returned; `None` beyond the end. The same as [`Cursor::next`] and [`Cursor::entry`],
    /// with fewer calls into RocksDB.
    ///
    /// # Errors
    /// As [`Cursor::status`].
    #[inline]
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.raw.next();
        match self.raw.item() {
            None => self.status().map(|()| None),
            entry => Ok(entry),
        }
    }

    /// Encoded key and value; `None` beyond either end.
    #[inline]
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.raw.item()
    }

    /// The encoded key.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.raw.key()
    }
}

/// A state of the database that stays readable while writes go on.
pub struct Snapshot<'d> {
    database: &'d Database,
    snapshot: rocksdb::SnapshotWithThreadMode<'d, DB>,
}

impl<'d> Snapshot<'d> {
    pub(super) fn new(database: &'d Database, snapshot: rocksdb::SnapshotWithThreadMode<'d, DB>) -> Self {
        Snapshot { database, snapshot }
    }

    /// The last sequence number that it shows.
    pub fn sequence(&self) -> u64 {
        self.snapshot.sequence_number()
    }

    /// Reads a value.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<PinnedValue<'_>>> {
        self.database.get_at(family, key, &self.snapshot)
    }

    /// A cursor over the encoded keys of the state from `from` to before `to` (`None`: no end).
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn cursor_within(&self, family: Family, from: &[u8], to: Option<&[u8]>) -> Result<Cursor<'_>> {
        let options = bounded_options(from, to);
        let raw = self.snapshot.raw_iterator_cf_opt(self.database.family(family)?, options);
        Ok(Cursor::new(raw, self.database.path()))
    }
}

fn checked_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// RocksDB reads no block and skips no tombstone beyond its bounds.
fn bounded_options(from: &[u8], to: Option<&[u8]>) -> ReadOptions {
    let mut options = checked_options();
    if !from.is_empty() {
        options.set_iterate_lower_bound(from);
    }
    if let Some(to) = to {
        options.set_iterate_upper_bound(to);
    }
    options
}

impl Database {
    /// A cursor over the encoded keys from `from` to before `to` (`None`: no end), on the state of this moment.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn cursor_within(&self, family: Family, from: &[u8], to: Option<&[u8]>) -> Result<Cursor<'_>> {
        let raw = self.db.raw_iterator_cf_opt(self.family(family)?, bounded_options(from, to));
        Ok(Cursor::new(raw, self.path()))
    }

    fn get_at<'s>(
        &'s self,
        family: Family,
        key: &[u8],
        snapshot: &'s rocksdb::SnapshotWithThreadMode<'_, DB>,
    ) -> Result<Option<PinnedValue<'s>>> {
        let found = snapshot.get_pinned_cf(self.family(family)?, key);
        Ok(found.map_err(|source| self.error("read a key", source))?.map(PinnedValue::new))
    }
}
