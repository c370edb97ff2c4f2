//! What an open database says of itself: its SST files, its memtables, what it estimates.

use super::{Database, Family};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;

/// An SST file of the database.
#[derive(Debug, Clone)]
pub struct LiveFile {
    /// Its name within the database directory.
    pub name: String,
    /// The family that it belongs to.
    pub family: String,
    /// Its level.
    pub level: i32,
    /// Bytes on disk.
    pub bytes: u64,
    /// Its smallest encoded key.
    pub smallest: Vec<u8>,
    /// Its largest encoded key.
    pub largest: Vec<u8>,
}

/// Figures of an open database, as RocksDB estimates them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Entries, roughly: overwritten and deleted ones may count.
    pub entries_estimate: u64,
    /// Bytes in SST files that hold live data.
    pub live_bytes_estimate: u64,
    /// Bytes in memtables.
    pub memtable_bytes: u64,
    /// Bytes that compaction still owes.
    pub pending_compaction_bytes: u64,
    /// Files at level 0.
    pub level0_files: u64,
    /// The last sequence number.
    pub last_sequence: u64,
}

/// The step at which RocksDB may fail without a reason.
pub const READ_FIGURES: &str = "read the properties of the SST files";

/// Sums over the properties of every SST file of the caller's family. Exact, but they count what the files hold: an
/// overwritten or deleted entry counts until compaction drops it, and what lies in a memtable does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableFigures {
    /// Entries of any sort, point deletions and merge operands too.
    pub entries: u64,
    /// Point deletions.
    pub deletions: u64,
    /// Merge operands.
    pub merge_operands: u64,
    /// Range deletions.
    pub range_deletions: u64,
    /// Bytes of keys before compression; RocksDB adds 8 to each.
    pub raw_key_bytes: u64,
    /// Bytes of values before compression.
    pub raw_value_bytes: u64,
}

impl TableFigures {
    /// Reads RocksDB's text: `name=value; name=value; ...`.
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        Some(TableFigures {
            entries: value("# entries")?,
            deletions: value("# deletions")?,
            merge_operands: value("# merge operands")?,
            range_deletions: value("# range deletions")?,
            raw_key_bytes: value("raw key size")?,
            raw_value_bytes: value("raw value size")?,
        })
    }

    /// Bytes of keys and values before compression.
    pub fn logical_bytes(&self) -> u64 {
        let sequence_bytes = self.entries.saturating_mul(8);
        self.raw_key_bytes.saturating_sub(sequence_bytes).saturating_add(self.raw_value_bytes)
    }
}

impl Database {
    /// Every SST file.
    ///
    /// # Errors
    /// `Io`.
    pub fn live_files(&self) -> Result<Vec<LiveFile>> {
        let files = self.db.live_files().map_err(|source| self.error("list the SST files", source))?;
        Ok(files
            .into_iter()
            .map(|file| LiveFile {
                name: file.name.trim_start_matches('/').to_owned(),
                family: file.column_family_name,
                level: file.level,
                bytes: file.size as u64,
                smallest: file.start_key.unwrap_or_default(),
                largest: file.end_key.unwrap_or_default(),
            })
            .collect())
    }

    /// Entries that were replayed from the WAL, or written since, and lie in memtables.
    ///
    /// # Errors
    /// `Io`.
    pub fn memtable_entries(&self) -> Result<u64> {
        let internal = if self.has_internal() { self.memtable_entries_of(Family::Internal)? } else { 0 };
        Ok(internal + self.memtable_entries_of(Family::Data)?)
    }

    /// Those of one family.
    ///
    /// # Errors
    /// `Io`, `Refused` if the family does not exist.
    pub fn memtable_entries_of(&self, family: Family) -> Result<u64> {
        let mut entries = 0;
        for name in ["rocksdb.num-entries-active-mem-table", "rocksdb.num-entries-imm-mem-tables"] {
            let value = self.db.property_int_value_cf(self.family(family)?, name);
            entries += value.map_err(|source| self.error("read a property", source))?.unwrap_or(0);
        }
        Ok(entries)
    }

    /// Whether every SST file that the MANIFEST speaks of stands there in its length. RocksDB itself looks at some of
    /// them when it opens a database, and at the others when they are read.
    ///
    /// # Errors
    /// `Io`.
    pub fn files_are_there(&self, vfs: &dyn Vfs) -> Result<bool> {
        for file in self.live_files()? {
            match vfs.stat(&self.path().join(&file.name))? {
                Some(stat) if stat.len == file.bytes => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// A figure of RocksDB, for the caller's family or for all.
    pub(super) fn figure(&self, name: &str) -> Result<u64> {
        let value = self.db.property_int_value(name).map_err(|source| self.error("read a property", source))?;
        Ok(value.unwrap_or(0))
    }

    /// Files at level 0, in the family that has more of them.
    pub fn level0_files(&self) -> Result<u64> {
        let mut most = 0;
        let families = [Family::Data, Family::Internal];
        for family in families.into_iter().filter(|family| *family == Family::Data || self.has_internal()) {
            let value = self.db.property_value_cf(self.family(family)?, "rocksdb.num-files-at-level0");
            let value = value.map_err(|source| self.error("read a property", source))?;
            most = most.max(value.and_then(|text| text.parse().ok()).unwrap_or(0));
        }
        Ok(most)
    }

    /// Figures of the caller's family.
    ///
    /// # Errors
    /// `Io`.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats {
            entries_estimate: self.figure("rocksdb.estimate-num-keys")?,
            live_bytes_estimate: self.figure("rocksdb.estimate-live-data-size")?,
            memtable_bytes: self.figure("rocksdb.cur-size-all-mem-tables")?,
            pending_compaction_bytes: self.figure("rocksdb.estimate-pending-compaction-bytes")?,
            level0_files: self.property("rocksdb.num-files-at-level0")?.and_then(|text| text.parse().ok()).unwrap_or(0),
            last_sequence: self.last_sequence(),
        })
    }

    /// A property of RocksDB of the caller's family, as text.
    ///
    /// # Errors
    /// `Io`.
    pub fn property(&self, name: &str) -> Result<Option<String>> {
        self.db.property_value(name).map_err(|source| self.error("read a property", source))
    }

    /// Bytes on disk of the encoded key ranges, roughly.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn approximate_sizes(&self, ranges: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u64>> {
        let ranges: Vec<_> = ranges.iter().map(|(from, to)| rocksdb::Range::new(from, to)).collect();
        Ok(self.db.get_approximate_sizes_cf(self.family(Family::Data)?, &ranges))
    }

    /// What the SST files of the caller's family say of themselves. Reads the footer of every one of them.
    ///
    /// # Errors
    /// `Corrupt`, `Io`: some file could not be asked.
    pub fn table_figures(&self) -> Result<TableFigures> {
        let text = self.property("rocksdb.aggregated-table-properties")?;
        text.as_deref().and_then(TableFigures::parse).ok_or_else(|| {
            // RocksDB gives no reason here: it answers with nothing when a file cannot be read.
            Error::new(ErrorKind::Io, READ_FIGURES, "RocksDB did not give them").at(self.path())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rocks::{Durability, Family, Settings};

    #[test]
    fn figures_are_those_of_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(directory.path(), &Settings::default()).unwrap();
        assert_eq!(database.table_figures().unwrap(), TableFigures::default());
        for key in [b"a", b"b", b"c"] {
            database.put(Family::Data, key, b"value", Durability::Buffered).unwrap();
        }
        database.delete(Family::Data, b"d", Durability::Buffered).unwrap();
        database.flush().unwrap();
        let figures = database.table_figures().unwrap();
        assert_eq!((figures.entries, figures.deletions, figures.logical_bytes()), (4, 1, 4 + 15));
        assert_eq!((figures.merge_operands, figures.range_deletions), (0, 0));
    }
}
