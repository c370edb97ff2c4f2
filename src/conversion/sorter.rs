//! Sorting more than fits into memory: sorted spill files, and one merge of all of them.
//!
//! A spill file is a sequence of blocks: length of the payload and its crc32, both `u32` little-endian, then the
//! payload: for each entry the lengths of key and value, both `u32` little-endian, the key, the value. It lives inside
//! staging and dies with it, so its format binds nobody. Not compressed.

use super::buffer::SortBuffer;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use std::path::{Path, PathBuf};

/// The payload of a block, unless one entry is longer.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 8;
const ENTRY_HEADER_BYTES: usize = 8;

/// A sorted spill file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Spill {
    pub(super) path: PathBuf,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Writes one spill file.
pub(super) struct SpillWriter<'j> {
    vfs: &'j dyn Vfs,
    spill: Spill,
    block: Vec<u8>,
}

impl<'j> SpillWriter<'j> {
    pub(super) fn create(vfs: &'j dyn Vfs, path: PathBuf) -> Result<Self> {
        vfs.create_file(&path, &[])?;
        Ok(SpillWriter { vfs, spill: Spill { path, entries: 0, bytes: 0 }, block: vec![0; HEADER_BYTES] })
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let entry_bytes = ENTRY_HEADER_BYTES + key.len() + value.len();
        if self.block.len() > HEADER_BYTES && self.block.len() + entry_bytes > HEADER_BYTES + BLOCK_BYTES {
            self.end_block()?;
        }
        self.block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.spill.entries += 1;
        Ok(())
    }

    fn end_block(&mut self) -> Result<()> {
        let payload = &self.block[HEADER_BYTES..];
        let (length, crc) = (payload.len() as u32, crc32fast::hash(payload));
        self.block[..4].copy_from_slice(&length.to_le_bytes());
        self.block[4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.vfs.append(&self.spill.path, &self.block)?;
        self.spill.bytes += self.block.len() as u64;
        self.block.truncate(HEADER_BYTES);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Spill> {
        if self.block.len() > HEADER_BYTES {
            self.end_block()?;
        }
        Ok(self.spill)
    }
}

/// Reads one spill file from the beginning, or a block, to the end.
pub(super) struct SpillReader<'j> {
    vfs: &'j dyn Vfs,
    spill: Spill,
    /// Where the block begins, and the next one.
    begin: u64,
    offset: u64,
    block: Vec<u8>,
    /// Where in the block the entry stands: its key, its value, and what follows.
    key: std::ops::Range<usize>,
    end: usize,
    read: u64,
    /// It began at the beginning, so that all entries must come.
    whole: bool,
}

impl<'j> SpillReader<'j> {
    /// Begins at the block at `offset`.
    pub(super) fn open_at(vfs: &'j dyn Vfs, spill: Spill, offset: u64) -> Self {
        let whole = offset == 0;
        SpillReader { vfs, spill, begin: offset, offset, block: Vec::new(), key: 0..0, end: 0, read: 0, whole }
    }

    /// Where the block of the entry begins.
    pub(super) fn block_begins(&self) -> u64 {
        self.begin
    }

    pub(super) fn entry(&self) -> (&[u8], &[u8]) {
        (&self.block[self.key.clone()], &self.block[self.key.end..self.end])
    }

    /// To the next entry; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        if self.end == self.block.len() {
            if self.offset == self.spill.bytes {
                let all = self.read == self.spill.entries || !self.whole;
                return if all { Ok(false) } else { Err(self.damaged("entries are missing")) };
            }
            self.next_block()?;
        }
        let rest = &self.block[self.end..];
        let (Some(key_bytes), Some(value_bytes)) = (number(rest, 0), number(rest, 4)) else {
            return Err(self.damaged("an entry is cut off"));
        };
        let begin = self.end + ENTRY_HEADER_BYTES;
        let end = begin + key_bytes + value_bytes;
        if end > self.block.len() {
            return Err(self.damaged("an entry reaches beyond its block"));
        }
        (self.key, self.end) = (begin..begin + key_bytes, end);
        self.read += 1;
        Ok(true)
    }

    fn next_block(&mut self) -> Result<()> {
        self.vfs.read_range(&self.spill.path, self.offset, HEADER_BYTES + BLOCK_BYTES, &mut self.block)?;
        let (Some(length), Some(crc)) = (number(&self.block, 0), number(&self.block, 4)) else {
            return Err(self.damaged("a block is cut off"));
        };
        let block_bytes = HEADER_BYTES + length;
        if self.offset + block_bytes as u64 > self.spill.bytes {
            return Err(self.damaged("a block reaches beyond the file"));
        }
        if block_bytes > self.block.len() {
            self.vfs.read_range(&self.spill.path, self.offset, block_bytes, &mut self.block)?;
        }
        self.block.truncate(block_bytes);
        let whole = self.block.len() == block_bytes;
        if !whole || crc32fast::hash(&self.block[HEADER_BYTES..]) as usize != crc {
            return Err(self.damaged("a block is not what was written"));
        }
        self.begin = self.offset;
        self.offset += block_bytes as u64;
        self.end = HEADER_BYTES;
        Ok(())
    }

    #[cold]
    fn damaged(&self, what: &str) -> Error {
        let message = format!("{what}; the source is untouched");
        Error::new(ErrorKind::Corrupt, "read a spill file", message).at(&self.spill.path)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

/// Sorts entries in bounded memory; its owner decides when to spill.
pub(super) struct Sorter<'j> {
    vfs: &'j dyn Vfs,
    folder: PathBuf,
    prefix: String,
    pub(super) buffer: SortBuffer,
    spills: Vec<Spill>,
}

impl<'j> Sorter<'j> {
    /// Spills go to `folder`; their names begin with `prefix`, which is unique there.
    pub(super) fn new(vfs: &'j dyn Vfs, folder: &Path, prefix: &str, buffer: SortBuffer) -> Self {
        Sorter { vfs, folder: folder.into(), prefix: prefix.into(), buffer, spills: Vec::new() }
    }

    /// Writes what is in memory to a spill file.
    pub(super) fn spill(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.buffer.sort();
        let path = self.folder.join(format!("{}-{:06}.spill", self.prefix, self.spills.len() + 1));
        let mut writer = SpillWriter::create(self.vfs, path)?;
        for at in 0..self.buffer.len() {
            let (key, value) = self.buffer.entry(at);
            writer.put(key, value)?;
        }
        self.spills.push(writer.finish()?);
        self.buffer.clear();
        Ok(())
    }

    /// The spill files, and what is left in memory.
    pub(super) fn finish(self) -> (Vec<Spill>, SortBuffer) {
        (self.spills, self.buffer)
    }
}
