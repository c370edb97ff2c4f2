//! Every name that reaches disk, in one place. Names here are for ever.

use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The marker file inside a database directory.
pub const MARKER: &str = "KEY_ENCODING";
/// The file that says a database is attached to a log archive.
pub const LOG_BACKUP: &str = "LOG_BACKUP";
/// The owner file of a directory that a change built: the id of that change.
pub const OWNER: &str = "OWNER";
/// How far a conversion has come, inside staging while it is built.
pub const PROGRESS: &str = "PROGRESS";
/// SST files that are written and not ingested, inside staging.
pub const OUTPUT: &str = "output";
/// Files of a bulk load under way, inside live. The name is ours alone: what is in it goes at the next open.
pub const INGEST: &str = "morphkv.ingest";
/// SST files that were loaded into a database with a log backup and are not shipped, inside live or `unshipped`: a folder
/// for each load, named by its id, and with [`TEMPORARY_SUFFIX`] until the log knows of it.
pub const PENDING_INGEST: &str = "pending_ingest";
/// The parent timeline's WAL files after a conversion of an attached database.
pub const UNSHIPPED: &str = "unshipped";
/// What a control file is called while it is written.
pub const TEMPORARY_SUFFIX: &str = ".new";
/// What the directory of a shard is called, before its number.
pub const SHARD_PREFIX: &str = "shard-";
/// What a restore was asked for, inside its folder.
#[cfg(feature = "log-backup")]
pub const RESTORE_SPEC: &str = "SPEC";
/// What a restore reads.
#[cfg(feature = "log-backup")]
pub const RESTORE_PLAN: &str = "PLAN";
/// How far a restore has come.
pub const RESTORE_STATUS: &str = "STATUS";
/// The lock of whoever works on a restore.
#[cfg(feature = "log-backup")]
pub const RESTORE_LOCK: &str = "LOCK";
/// The runs of a restore in two phases, a folder for each, named by the phase's number.
#[cfg(feature = "log-backup")]
pub const RESTORE_RUNS: &str = "runs";
/// Whose run it is, inside that of a phase.
#[cfg(feature = "log-backup")]
pub const RESTORE_RUN: &str = "RUN";
/// How a run has ended.
#[cfg(feature = "log-backup")]
pub const RESTORE_RESULT: &str = "RESULT";
/// The database that a restore makes.
#[cfg(feature = "log-backup")]
pub const RESTORE_DATABASE: &str = "db";
/// Files of a bulk load that a restore is to take in.
#[cfg(feature = "log-backup")]
pub const RESTORE_LOADS: &str = "loads";
/// How far the log was applied to a database that is being restored; inside that database alone.
#[cfg(feature = "log-backup")]
pub const INTERNAL_RESTORE: &[u8] = b"e/restore";
/// RocksDB's own names.
pub const ROCKSDB_CURRENT: &str = "CURRENT";
/// RocksDB's lock file.
pub const ROCKSDB_LOCK: &str = "LOCK";
/// RocksDB's log of messages.
const ROCKSDB_LOG: &str = "LOG";
/// What that log is called once the next one has begun, before a number.
const ROCKSDB_OLD_LOG: &str = "LOG.old.";
/// RocksDB's identity file.
pub const ROCKSDB_IDENTITY: &str = "IDENTITY";
/// RocksDB's folder of WAL files that are no longer needed for recovery.
pub const ROCKSDB_ARCHIVE: &str = "archive";

/// The column family of internal records.
pub const INTERNAL_FAMILY: &str = "morphkv.internal";
/// The caller's column family.
pub const DATA_FAMILY: &str = "default";
/// The engine's own half of the internal column family.
pub const INTERNAL_ENGINE: &[u8] = b"e/";
/// The caller's half of the internal column family.
pub const INTERNAL_USER: &[u8] = b"u/";
/// The last bulk load of a database with a log backup, and how far it has come.
pub const INTERNAL_INGEST: &[u8] = b"e/ingest";
/// The identity, equal to the marker's.
pub const INTERNAL_IDENTITY: &[u8] = b"e/identity";

/// The longest name of a database directory, in bytes: the suffixes must fit into 255.
pub const NAME_BYTES_MAX: usize = 230;

/// The suffixes of a database's siblings, reserved: no database may have a name that ends in one.
pub const RESERVED_SUFFIXES: [&str; 9] =
    [".lock", ".conversion", ".conversion.new", ".converting", ".backup", ".trash", ".restore", ".probe", ".tmp"];

/// Whether RocksDB leaves a file of that name where it was told to open a database that is not there: it makes the
/// directory, its log and its lock before it looks.
pub fn is_left_by_a_failed_open(name: &str) -> bool {
    name == ROCKSDB_LOG || name == ROCKSDB_LOCK || name.starts_with(ROCKSDB_OLD_LOG)
}

/// The paths of one database: its directory and the siblings beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The live RocksDB directory.
    pub live: PathBuf,
    /// The directory that holds them all.
    pub parent: PathBuf,
    /// The lock, never deleted.
    pub lock: PathBuf,
    /// The journal of the change under way.
    pub journal: PathBuf,
    /// The journal while it is written.
    pub journal_temporary: PathBuf,
    /// Where the new database is built.
    pub staging: PathBuf,
    /// The old database, whole.
    pub backup_dir: PathBuf,
    /// What is being removed.
    pub trash: PathBuf,
    /// A restore under way.
    pub restore: PathBuf,
    /// The preflight's probe.
    pub probe: PathBuf,
    /// What RocksDB calls a checkpoint while it makes it at the name of staging.
    pub checkpoint_temporary: PathBuf,
}

impl Layout {
    /// The paths for a database at `path`; makes nothing, looks at nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a path without a plain UTF-8 name, a name over 230 bytes, or one with a reserved suffix.
    pub fn new(path: &Path) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidArgument, "name a database", message).at(path);
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(invalid("a path cannot hold the byte 0".into()));
        }
        let name = path.file_name().ok_or_else(|| invalid("the path must end in a name".into()))?;
        let name = name.to_str().ok_or_else(|| invalid("the name must be UTF-8".into()))?;
        if name.len() > NAME_BYTES_MAX {
            return Err(invalid(format!("the name has {} bytes, {NAME_BYTES_MAX} are allowed", name.len())));
        }
        if let Some(suffix) = RESERVED_SUFFIXES.iter().find(|suffix| name.ends_with(**suffix)) {
            return Err(invalid(format!(
                "names that end in `{suffix}` are reserved for what stands beside a database"
            )));
        }
        let parent = crate::fs::parent_of(path)?.to_path_buf();
        let live = parent.join(name);
        let beside = |suffix: &str| parent.join(format!("{name}{suffix}"));
        Ok(Layout {
            lock: beside(".lock"),
            journal: beside(".conversion"),
            journal_temporary: beside(".conversion.new"),
            staging: beside(".converting"),
            backup_dir: beside(".backup"),
            trash: beside(".trash"),
            restore: beside(".restore"),
            probe: beside(".probe"),
            checkpoint_temporary: beside(".converting.tmp"),
            live,
            parent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_stand_in_one_parent() {
        let layout = Layout::new(Path::new("/data/ns/shard-7")).unwrap();
        assert_eq!(layout.staging, Path::new("/data/ns/shard-7.converting"));
        assert_eq!(layout.parent, Path::new("/data/ns"));
        assert_eq!(Layout::new(Path::new("shard-7/")).unwrap().journal, Path::new("./shard-7.conversion"));
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(231);
        for name in ["/", "..", "a/..", "", "x.backup", "x.converting", "x.conversion.new", "a\0b", long.as_str()] {
            let error = Layout::new(Path::new(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
        }
        assert!(Layout::new(Path::new(&"x".repeat(230))).is_ok());
    }
}
