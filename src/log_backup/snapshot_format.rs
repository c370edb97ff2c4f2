//! The manifest of a base snapshot: which files a copy of the database is made of, and where in the log it stands. Pure.

use crate::control;
use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{LOG_BACKUP, MARKER, ROCKSDB_CURRENT, ROCKSDB_IDENTITY};
use crate::log_backup::names::{ContentHash, ObjectName, ObjectReference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The version of the format.
pub const MANIFEST_FORMAT: u32 = 1;
/// The longest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most files of a snapshot.
pub const SNAPSHOT_FILES_MAX: usize = 250_000;

const READ: &str = "read a base snapshot's manifest";

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFile {
    /// Its name in the database directory.
    pub file: String,
    /// The object that holds it.
    pub object: ObjectReference,
}

/// What a snapshot is of, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotPlace {
    /// The snapshot's id.
    pub id: Uuid,
    /// The timeline.
    pub timeline: Uuid,
    /// The last sequence number in it.
    pub sequence: u64,
    /// The time of that, in the log.
    pub time: u64,
    /// The first segment that may hold a later sequence number.
    pub next_segment: u64,
    /// How its keys are encoded.
    pub encoding: EncodingId,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// What it is of.
    pub place: SnapshotPlace,
    /// Its files, in the order of their names.
    pub files: Vec<SnapshotFile>,
}

impl Manifest {
    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |bytes, file| bytes.saturating_add(file.object.size))
    }

    /// An object with these contents, if the snapshot has one.
    pub fn object_with(&self, size: u64, hash: ContentHash) -> Option<&ObjectName> {
        let same = self.files.iter().find(|file| (file.object.size, file.object.hash) == (size, hash));
        same.map(|file| &file.object.name)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// `InvalidArgument`: it would not be read again.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let step = "write a base snapshot's manifest";
        self.check().map_err(|message| Error::new(ErrorKind::InvalidArgument, step, message))?;
        control::encode_within(step, self, MANIFEST_BYTES_MAX)
    }

    /// Reads a manifest. Every file name in it is one that RocksDB or this crate gives to a file.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let manifest: Manifest = control::decode_within(READ, bytes, MANIFEST_FORMAT, MANIFEST_BYTES_MAX)?;
        manifest.check().map_err(|message| Error::new(ErrorKind::Corrupt, READ, message))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.files.len() > SNAPSHOT_FILES_MAX {
            return Err(format!("it has over {SNAPSHOT_FILES_MAX} files"));
        }
        if let Some(file) = self.files.iter().find(|file| !is_database_file(&file.file)) {
            let name = crate::error::show_key(file.file.as_bytes());
            return Err(format!("`{name}` is no name of a file in a database"));
        }
        if !self.files.windows(2).all(|pair| pair[0].file < pair[1].file) {
            return Err("its files are out of order, or one is in it twice".into());
        }
        let names: BTreeSet<_> = self.files.iter().map(|file| file.file.as_str()).collect();
        if !names.contains(ROCKSDB_CURRENT) || !names.contains(MARKER) {
            return Err(format!("a database has a {ROCKSDB_CURRENT} and a {MARKER}"));
        }
        Ok(())
    }
}

/// Whether a file in a database directory may have this name. Whatever a manifest says, no other file is ever made.
pub fn is_database_file(name: &str) -> bool {
    let number = |digits: &str| (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = |prefix: &str, suffix: &str| {
        name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)).is_some_and(number)
    };
    [ROCKSDB_CURRENT, ROCKSDB_IDENTITY, MARKER, LOG_BACKUP].contains(&name)
        || numbered("MANIFEST-", "")
        || numbered("OPTIONS-", "")
        || numbered("", ".sst")
        || numbered("", ".log")
}
