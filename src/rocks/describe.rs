//! What can be known of a RocksDB directory without opening it for writing.

use super::{Settings, error};
use crate::encoding::Comparator;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::{INTERNAL_FAMILY, ROCKSDB_CURRENT};
use rocksdb::{DB, Options};
use std::path::Path;

/// A RocksDB directory as its own files describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The recorded comparator; `None` if it is none that we know.
    pub comparator: Option<Comparator>,
    /// The recorded comparator's name, or what RocksDB said instead of it.
    pub comparator_name: String,
    /// Its column families.
    pub families: Vec<String>,
}

impl Description {
    /// The column families that are neither the caller's nor ours.
    pub fn foreign_families(&self) -> Vec<&str> {
        let ours = |name: &&str| *name != crate::layout::DATA_FAMILY && *name != INTERNAL_FAMILY;
        self.families.iter().map(String::as_str).filter(ours).collect()
    }
}

/// The column families of the database at `path`, from its MANIFEST.
pub(super) fn list_families(path: &Path) -> Result<Vec<String>> {
    DB::list_cf(&Options::default(), path).map_err(|source| error("list the column families", path, source))
}

/// Describes the RocksDB directory at `path`; opens it read only to learn its comparator.
///
/// # Errors
/// `NotFound` if there is none; `Corrupt`, `Io`. Nothing was changed.
pub fn describe(vfs: &dyn Vfs, path: &Path) -> Result<Description> {
    if vfs.stat(&path.join(ROCKSDB_CURRENT))?.is_none() {
        return Err(
            Error::new(ErrorKind::NotFound, "look at the database", "no RocksDB database stands there").at(path)
        );
    }
    let families = list_families(path)?;
    let opened = super::Database::open_read_only(vfs, path, &Settings { bulk: true, ..Settings::default() });
    let (comparator, comparator_name) = match opened {
        Ok(_) => (Some(Comparator::Bytewise), Comparator::Bytewise.name().to_owned()),
        // There is no call that tells the name; the error of a mismatch does.
        Err(error) if error.kind() == ErrorKind::Refused => match error.message().rsplit_once("existing comparator ") {
            Some((_, name)) if name.trim() == Comparator::SlashSpans.name() => {
                (Some(Comparator::SlashSpans), Comparator::SlashSpans.name().to_owned())
            }
            Some((_, name)) => (None, name.trim().to_owned()),
            None => return Err(error),
        },
        Err(error) => return Err(error),
    };
    Ok(Description { comparator, comparator_name, families })
}
