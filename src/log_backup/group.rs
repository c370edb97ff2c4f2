//! A group of files that were ingested into a database: what stands for it in the log. Pure.
//!
//! ```text
//! group 16 bytes, count u32, then for each file:
//! name u16 + bytes, size u64, hash 16 bytes, entries u64, smallest key u32 + bytes, largest key u32 + bytes
//! ```
//!
//! Numbers are little-endian. Keys are encoded keys. The files stand in the order of their keys and do not overlap.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::names::{ContentHash, NAME_BYTES_MAX, ObjectName, ObjectReference};
use uuid::Uuid;

/// The most files of a group.
pub const GROUP_FILES_MAX: usize = 65_536;
/// The longest encoding of a group, in bytes.
pub const GROUP_BYTES_MAX: usize = 256 * 1024 * 1024;

const READ: &str = "read a group of ingested files";

/// A file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFile {
    /// The SST file, as an object.
    pub object: ObjectReference,
    /// How many entries it has.
    pub entries: u64,
    /// Its smallest encoded key.
    pub smallest: Vec<u8>,
    /// Its largest encoded key.
    pub largest: Vec<u8>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReference {
    /// Its id.
    pub group: Uuid,
    /// Its files. None: a load that took sequence numbers and left nothing.
    pub files: Vec<GroupFile>,
}

impl GroupReference {
    /// The group's bytes.
    ///
    /// # Errors
    /// `InvalidArgument`: too many files, too long, or files that overlap.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let invalid =
            |message: &str| Error::new(ErrorKind::InvalidArgument, "write a group of ingested files", message);
        self.check().map_err(invalid)?;
        let mut bytes = self.group.as_bytes().to_vec();
        bytes.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        for GroupFile { object: ObjectReference { name, size, hash }, entries, smallest, largest } in &self.files {
            bytes.extend_from_slice(&(name.as_str().len() as u16).to_le_bytes());
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&hash.to_bytes());
            bytes.extend_from_slice(&entries.to_le_bytes());
            for key in [smallest, largest] {
                let len = u32::try_from(key.len()).map_err(|_| invalid("a key is over 4 GiB long"))?;
                bytes.extend_from_slice(&len.to_le_bytes());
                bytes.extend_from_slice(key);
            }
            if bytes.len() > GROUP_BYTES_MAX {
                return Err(invalid("it is too long"));
            }
        }
        Ok(bytes)
    }

    /// Reads a group.
    ///
    /// # Errors
    /// `Corrupt`. Nothing is allocated for a length before that many bytes are there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = |message: &str| Error::new(ErrorKind::Corrupt, READ, message);
        let group = GroupReference::parse(bytes).ok_or_else(|| corrupt("its fields do not fit its length"))?;
        group.check().map_err(corrupt)?;
        Ok(group)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = (bytes.len() <= GROUP_BYTES_MAX).then_some(bytes)?;
        let group = Uuid::from_bytes(take(&mut rest)?);
        let count = u32::from_le_bytes(take(&mut rest)?) as usize;
        let mut files = Vec::new();
        for _ in 0..(count <= GROUP_FILES_MAX).then_some(count)? {
            let len = usize::from(u16::from_le_bytes(take(&mut rest)?));
            let name = take_bytes(&mut rest, (len <= NAME_BYTES_MAX).then_some(len)?)?;
            let name = ObjectName::new(str::from_utf8(name).ok()?).ok()?;
            let size = u64::from_le_bytes(take(&mut rest)?);
            let hash = ContentHash::from_bytes(take(&mut rest)?);
            let entries = u64::from_le_bytes(take(&mut rest)?);
            let mut key = || {
                let len = u32::from_le_bytes(take(&mut rest)?) as usize;
                take_bytes(&mut rest, len).map(<[u8]>::to_vec)
            };
            let (smallest, largest) = (key()?, key()?);
            files.push(GroupFile { object: ObjectReference { name, size, hash }, entries, smallest, largest });
        }
        rest.is_empty().then_some(GroupReference { group, files })
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.files.len() > GROUP_FILES_MAX {
            return Err("it has too many files");
        }
        if self.files.iter().any(|file| file.smallest > file.largest || file.entries == 0) {
            return Err("a file has no entry, or its smallest key is above its largest");
        }
        if self.files.windows(2).any(|pair| pair[0].largest >= pair[1].smallest) {
            return Err("its files overlap, or are not in the order of their keys");
        }
        Ok(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*field)
}

fn take_bytes<'b>(rest: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    let (field, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(field)
}
