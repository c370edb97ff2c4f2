//! Lists of doomed objects: what may be deleted once no pin can need it. Pure but for the two calls at the end.
//!
//! A list is an object that is written before the commit of HEAD that dooms what is in it; until then it means nothing. A
//! doomed name is never used again.

use crate::control;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::names::{self, ContentHash, ObjectName, ObjectReference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The version of the format.
pub const DOOM_FORMAT: u32 = 1;
/// The longest list, in bytes.
pub const DOOM_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Segments of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRange {
    /// The timeline.
    pub timeline: Uuid,
    /// The first.
    pub first: u64,
    /// The one after the last.
    pub end: u64,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoomList {
    /// [`DOOM_FORMAT`].
    pub format: u32,
    /// Its id: that of its entry in HEAD, and the end of its name.
    pub id: Uuid,
    /// Objects.
    pub objects: BTreeSet<ObjectName>,
    /// Segments.
    pub segments: Vec<SegmentRange>,
}

impl DoomList {
    /// A list under a new id.
    pub fn new(objects: BTreeSet<ObjectName>, segments: Vec<SegmentRange>) -> Self {
        DoomList { format: DOOM_FORMAT, id: Uuid::new_v4(), objects, segments }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// `InvalidArgument`: it is too long; doom less at a time.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        control::encode_within("write a list of doomed objects", self, DOOM_BYTES_MAX)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let step = "read a list of doomed objects";
        let list: DoomList = control::decode_within(step, bytes, DOOM_FORMAT, DOOM_BYTES_MAX)?;
        if list.segments.iter().any(|range| range.first >= range.end) {
            return Err(Error::new(ErrorKind::Corrupt, step, "a range of segments is empty"));
        }
        Ok(list)
    }
}

/// Writes a list; HEAD can refer to it from then on.
///
/// # Errors
/// It may stand, and means nothing.
pub fn write(archive: &Archive, list: &DoomList) -> Result<ObjectReference> {
    let bytes = list.to_bytes()?;
    let (name, size) = (names::gc(list.id), bytes.len() as u64);
    let reference = ObjectReference { name, size, hash: ContentHash::of(&bytes) };
    archive.put_create(&reference.name, bytes)?;
    Ok(reference)
}

/// Reads a list that HEAD refers to.
///
/// # Errors
/// `NotFound`, `Corrupt`, `Unsupported`, `Io`.
pub fn read(archive: &Archive, reference: &ObjectReference) -> Result<DoomList> {
    let bytes = archive.get_verified(reference, DOOM_BYTES_MAX)?;
    DoomList::from_bytes(&bytes).map_err(|error| error.at(archive.place(&reference.name)))
}
