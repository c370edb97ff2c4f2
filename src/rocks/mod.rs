//! The only user of the `rocksdb` crate: options, opening, iterators whose status is checked, SST files.
//!
//! Rules kept here, for everyone above:
//! - the crate makes the directory of a database on *every* open, read-only ones too, so `CURRENT` is looked for
//!   first, and `create_if_missing` is set by [`Database::create`] alone, which staging alone uses;
//! - an iterator that is not valid has its status asked, each time: an error is never taken for the end;
//! - errors are sorted into our kinds here and nowhere else, since the crate knows them by their text.

#[cfg(any(test, feature = "log-backup", feature = "traps"))]
pub mod batch_decoder;
#[cfg(test)]
mod batch_decoder_tests;
mod block;
mod cursor;
mod database;
mod describe;
mod figures;
mod settings;
mod sst;
mod table;
mod table_cursor;
#[cfg(test)]
mod table_tests;
#[cfg(any(test, feature = "log-backup", feature = "traps"))]
pub mod wal;
#[cfg(test)]
mod wal_damage_tests;
#[cfg(test)]
mod wal_tests;
mod write;

pub use cursor::{Cursor, Snapshot};
pub use database::{Database, Family, PinnedValue};
pub use describe::describe;
pub use figures::{LiveFile, READ_FIGURES, Stats};
pub use settings::{Compression, Settings, SharedMemory, WalRecovery};
pub use sst::{SstOptions, SstWriter};
pub use table::Piece;
pub use table_cursor::{TableCursor, TableFiles};
pub use write::{Durability, WriteBatch};

use crate::error::{Error, ErrorKind};
use std::path::Path;

/// Whether somebody holds RocksDB's lock; other failures to take it are failures of the disk.
fn is_held_lock(text: &str) -> bool {
    let held = |text: &str| text.contains("Resource temporarily unavailable") || text.contains("Permission denied");
    text.contains("lock hold by current process") || text.contains("While lock file") && held(text)
}

/// Sorts an error of RocksDB into our kinds.
fn error(step: &'static str, path: &Path, source: rocksdb::Error) -> Error {
    use rocksdb::ErrorKind as Rocks;
    let text = source.to_string();
    let kind = match source.kind() {
        _ if text.contains("No space left on device") || text.contains("Disk quota exceeded") => ErrorKind::NoSpace,
        // RocksDB calls a file that it cannot open (too many open files, no permission) a corruption, too.
        Rocks::Corruption if text.contains("IO error") && !text.contains("No such file") => ErrorKind::Io,
        // A file of the database that is missing is damage; nothing will bring it back.
        Rocks::Corruption => ErrorKind::Corrupt,
        Rocks::IOError if text.contains("No such file or directory") => ErrorKind::Corrupt,
        Rocks::NotFound => ErrorKind::NotFound,
        Rocks::InvalidArgument if text.contains("does not match existing comparator") => ErrorKind::Refused,
        Rocks::InvalidArgument if text.contains("Column families not opened") => ErrorKind::Refused,
        // The same the other way round: one that we need is not there.
        Rocks::InvalidArgument if text.contains("Column family not found") => ErrorKind::Refused,
        // At every open RocksDB tries a file with its options and without direct reads, and calls any failure of that so.
        Rocks::InvalidArgument if text.contains("Direct I/O is not supported") => ErrorKind::Io,
        Rocks::InvalidArgument if text.contains("options incompatible with filesystem") => ErrorKind::Io,
        Rocks::InvalidArgument => ErrorKind::InvalidArgument,
        Rocks::NotSupported => ErrorKind::Unsupported,
        Rocks::IOError if is_held_lock(&text) => ErrorKind::Locked,
        Rocks::Busy => ErrorKind::Locked,
        _ => ErrorKind::Io,
    };
    Error::new(kind, step, text).at(path).because(source)
}
