//! The marker: the file `KEY_ENCODING` inside a database directory, which says in which encoding its keys lie.
//!
//! Invariants:
//! - it is written once, last, when everything else in the directory is durable (a directory with a valid marker is
//!   *sealed*), and never rewritten: opening a database only reads it;
//! - the same identity stands inside the database (`e/identity` in `morphkv.internal`), and both must agree;
//! - an unknown, torn, foreign or later marker is an error, and nothing is ever written because of it.

use crate::control;
use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, write_atomic};
use crate::layout::{MARKER, TEMPORARY_SUFFIX};
use serde::{Deserialize, Serialize};
use std::path::Path;
use uuid::Uuid;

/// The version of the marker's format that this code writes, and the only one that it reads.
pub const MARKER_FORMAT: u32 = 1;

/// What made the directory that a marker stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginKind {
    /// A new, empty database.
    Create,
    /// A conversion.
    Convert,
    /// A snapshot or a restore that was moved in.
    Install,
    /// A plain RocksDB database that was taken over.
    Adopt,
    /// A checkpoint of another database.
    Checkpoint,
}

/// The change that made a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// What sort of change.
    pub kind: OriginKind,
    /// The id of that one change, never used again: two directories with the same origin id are copies.
    pub id: Uuid,
}

/// The number of entries and their digest, as a rewrite counted them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// Entries in the caller's column family.
    pub entries: u64,
    /// Their digest, `xxh3-128-sum/1:` and 32 hex digits.
    pub digest: String,
}

/// The marker's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// [`MARKER_FORMAT`].
    pub format: u32,
    /// The database: kept by conversions.
    pub database_id: Uuid,
    /// This copy of the database: kept by conversions, new in a checkpoint.
    pub instance_id: Uuid,
    /// How keys are encoded.
    pub encoding: EncodingId,
    /// What made this directory.
    pub origin: Origin,
    /// RocksDB's last sequence number when it was sealed.
    pub sealed_sequence: u64,
    /// What was in it when it was sealed, if it was counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sealed: Option<Sealed>,
}

/// The identity inside the database: the marker's fields that must agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// [`MARKER_FORMAT`].
    pub format: u32,
    /// As in the marker.
    pub database_id: Uuid,
    /// As in the marker.
    pub instance_id: Uuid,
    /// As in the marker.
    pub encoding: EncodingId,
    /// As in the marker.
    pub origin: Origin,
}

impl Marker {
    /// The identity to be stored inside the database.
    pub fn identity(&self) -> Identity {
        Identity {
            format: self.format,
            database_id: self.database_id,
            instance_id: self.instance_id,
            encoding: self.encoding.clone(),
            origin: self.origin,
        }
    }
}

impl Identity {
    /// The bytes of `e/identity`.
    ///
    /// # Errors
    /// `InvalidArgument` if the encoding's name is absurdly long.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        control::encode("write the identity", self)
    }

    /// Reads `e/identity`.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        control::decode("read the identity", bytes, MARKER_FORMAT)
    }
}

/// The bytes of a marker file.
///
/// # Errors
/// `InvalidArgument` if the encoding's name is absurdly long.
pub fn to_bytes(marker: &Marker) -> Result<Vec<u8>> {
    control::encode("write the marker", marker)
}

/// Reads the bytes of a marker file.
///
/// # Errors
/// `Corrupt` or `Unsupported`.
pub fn from_bytes(bytes: &[u8]) -> Result<Marker> {
    control::decode("read the marker", bytes, MARKER_FORMAT)
}

/// Reads the marker of the database directory `directory`; `None` if there is none.
///
/// # Errors
/// `Corrupt` (torn, damaged, no regular file), `Unsupported` (of a later version), `Io`. Nothing was changed.
pub fn read(vfs: &dyn Vfs, directory: &Path) -> Result<Option<Marker>> {
    let path = directory.join(MARKER);
    if vfs.stat(&path)?.is_none() {
        return Ok(None);
    }
    let bytes = vfs.read(&path, control::BYTES_MAX).map_err(|error| match error.kind() {
        // It was there a moment ago.
        ErrorKind::NotFound => Error::new(ErrorKind::Io, "read the marker", "it vanished while being read").at(&path),
        _ => error,
    })?;
    from_bytes(&bytes).map(Some).map_err(|error| error.at(&path))
}

/// Seals a directory: writes its marker, durably. Everything else in it must be durable already.
///
/// # Errors
/// The directory is sealed or not; a marker is never torn. A temporary file may be left.
pub fn write(vfs: &dyn Vfs, directory: &Path, marker: &Marker) -> Result<()> {
    let path = directory.join(MARKER);
    if vfs.stat(&path)?.is_some() {
        return Err(Error::new(ErrorKind::Conflict, "write the marker", "there is one already").at(path));
    }
    write_atomic(vfs, &path, &directory.join(format!("{MARKER}{TEMPORARY_SUFFIX}")), &to_bytes(marker)?)
}
