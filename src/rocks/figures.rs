//! What the SST files say of themselves, added up.

use super::Database;
use crate::error::{Error, ErrorKind, Result};

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
    /// What the SST files of the caller's family say of themselves. Reads the footer of every one of them.
    ///
    /// # Errors
    /// `Corrupt`, `Io`: some file could not be asked.
    pub fn table_figures(&self) -> Result<TableFigures> {
        let text = self.property("rocksdb.aggregated-table-properties")?;
        text.as_deref().and_then(TableFigures::parse).ok_or_else(|| {
            // RocksDB gives no reason here: it answers with nothing when a file cannot be read.
            Error::new(ErrorKind::Io, "read the properties of the SST files", "RocksDB did not give them")
                .at(self.path())
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
