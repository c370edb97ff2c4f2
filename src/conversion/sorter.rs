//! Sorting more than fits into memory: sorted spill files, and one merge of all of them.
//!
//! A spill file is a sequence of blocks: length of the payload and its crc32, both `u32` little-endian, then the
//! payload: the length of the entries as `u32`, and the entries compressed with LZ4. An entry is the lengths of key and
//! value, both `u32` little-endian, the key, the value. It lives inside staging and dies with it; whoever goes on with a
//! conversion of another version is kept from reading it by [`PROGRESS_FORMAT`](super::record::PROGRESS_FORMAT).
//!
//! What is sorted at a time is cut into files, so that a merge can give back what it has read.

use super::buffer::SortBuffer;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use std::path::{Path, PathBuf};

/// The entries of a block, unless one entry is longer.
pub(super) const BLOCK_BYTES: usize = 128 << 10;
/// What is read at a time.
const READ_BYTES: usize = 256 << 10;
/// Memory of whoever reads a spill file.
pub(super) const READER_BYTES: usize = BLOCK_BYTES + READ_BYTES;
const HEADER_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;
const ENTRY_HEADER_BYTES: usize = 8;
/// LZ4 makes no byte of more than so many.
const EXPANSION_MAX: usize = 255;

/// A sorted spill file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Spill {
    pub(super) path: PathBuf,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// It goes on where the file before it ends.
    pub(super) follows: bool,
}

/// Writes one spill file.
pub(super) struct SpillWriter<'j> {
    vfs: &'j dyn Vfs,
    spill: Spill,
    entries: Vec<u8>,
    stored: Vec<u8>,
}

impl<'j> SpillWriter<'j> {
    pub(super) fn create(vfs: &'j dyn Vfs, path: PathBuf) -> Result<Self> {
        vfs.create_file(&path, &[])?;
        let spill = Spill { path, ..Spill::default() };
        Ok(SpillWriter { vfs, spill, entries: Vec::new(), stored: Vec::new() })
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let entry_bytes = ENTRY_HEADER_BYTES + key.len() + value.len();
        if !self.entries.is_empty() && self.entries.len() + entry_bytes > BLOCK_BYTES {
            self.end_block()?;
        }
        self.entries.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.entries.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.entries.extend_from_slice(key);
        self.entries.extend_from_slice(value);
        self.spill.entries += 1;
        Ok(())
    }

    /// Bytes so far, about.
    fn bytes(&self) -> u64 {
        self.spill.bytes + self.entries.len() as u64
    }

    fn end_block(&mut self) -> Result<()> {
        let begin = HEADER_BYTES + LENGTH_BYTES;
        let compressed = lz4::block::compress_bound(self.entries.len()).and_then(|bound| {
            self.stored.resize(begin + bound, 0);
            lz4::block::compress_to_buffer(&self.entries, None, false, &mut self.stored[begin..])
        });
        let compressed = compressed.map_err(|source| {
            Error::new(ErrorKind::Lost, "write a spill file", "a block cannot be compressed")
                .at(&self.spill.path)
                .because(source)
        })?;
        self.stored.truncate(begin + compressed);
        self.stored[HEADER_BYTES..begin].copy_from_slice(&(self.entries.len() as u32).to_le_bytes());
        let payload = &self.stored[HEADER_BYTES..];
        let (length, crc) = (payload.len() as u32, crc32fast::hash(payload));
        self.stored[..4].copy_from_slice(&length.to_le_bytes());
        self.stored[4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.vfs.append(&self.spill.path, &self.stored)?;
        self.spill.bytes += self.stored.len() as u64;
        self.entries.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Spill> {
        if !self.entries.is_empty() {
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
    /// The entries of the block.
    block: Vec<u8>,
    /// A part of the file, and where it begins.
    part: (u64, Vec<u8>),
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
        let (block, part) = (Vec::new(), (0, Vec::new()));
        SpillReader { vfs, spill, begin: offset, offset, block, part, key: 0..0, end: 0, read: 0, whole }
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
        self.fetch(HEADER_BYTES)?;
        let (Some(length), Some(crc)) = (number(self.fetched(), 0), number(self.fetched(), 4)) else {
            return Err(self.damaged("a block is cut off"));
        };
        let block_bytes = HEADER_BYTES + length;
        if self.offset + block_bytes as u64 > self.spill.bytes {
            return Err(self.damaged("a block reaches beyond the file"));
        }
        self.fetch(block_bytes)?;
        let mut block = std::mem::take(&mut self.block);
        let payload = self.fetched().get(HEADER_BYTES..block_bytes);
        let Some(payload) = payload.filter(|payload| crc32fast::hash(payload) as usize == crc) else {
            return Err(self.damaged("a block is not what was written"));
        };
        let stored = payload.get(LENGTH_BYTES..).unwrap_or_default();
        let entries = number(payload, 0).filter(|&bytes| bytes <= stored.len().saturating_mul(EXPANSION_MAX));
        block.resize(entries.unwrap_or(0), 0);
        let length = entries.and_then(|bytes| i32::try_from(bytes).ok());
        let restored = length.and_then(|_| lz4::block::decompress_to_buffer(stored, length, &mut block).ok());
        self.block = block;
        if entries.is_none() || restored != entries {
            return Err(self.damaged("a block cannot be decompressed"));
        }
        self.begin = self.offset;
        self.offset += block_bytes as u64;
        self.end = 0;
        Ok(())
    }

    /// What has been read of the file from the block on.
    fn fetched(&self) -> &[u8] {
        let (begin, bytes) = &self.part;
        let skip = self.offset.checked_sub(*begin).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| bytes.get(skip..)).unwrap_or_default()
    }

    /// Reads the file from the block on, unless so many bytes of it have been read.
    fn fetch(&mut self, bytes: usize) -> Result<()> {
        if self.fetched().len() < bytes {
            self.part.0 = self.offset;
            self.vfs.read_range(&self.spill.path, self.offset, bytes.max(READ_BYTES), &mut self.part.1)?;
        }
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
    file_bytes: u64,
    pub(super) buffer: SortBuffer,
    spills: Vec<Spill>,
}

impl<'j> Sorter<'j> {
    /// Spills go to `folder`, into files of about `file_bytes`; their names begin with `prefix`, which is unique there.
    pub(super) fn new(vfs: &'j dyn Vfs, folder: &Path, prefix: &str, file_bytes: u64, buffer: SortBuffer) -> Self {
        Sorter { vfs, folder: folder.into(), prefix: prefix.into(), file_bytes, buffer, spills: Vec::new() }
    }

    fn create(&self) -> Result<SpillWriter<'j>> {
        let path = self.folder.join(format!("{}-{:06}.spill", self.prefix, self.spills.len() + 1));
        SpillWriter::create(self.vfs, path)
    }

    /// Writes what is in memory to spill files.
    pub(super) fn spill(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.buffer.sort();
        let (first, mut writer) = (self.spills.len(), self.create()?);
        for at in 0..self.buffer.len() {
            if writer.bytes() >= self.file_bytes {
                self.spills.push(writer.finish()?);
                writer = self.create()?;
            }
            let (key, value) = self.buffer.entry(at);
            writer.put(key, value)?;
        }
        self.spills.push(writer.finish()?);
        self.spills[first + 1..].iter_mut().for_each(|spill| spill.follows = true);
        self.buffer.clear();
        Ok(())
    }

    /// The spill files, and what is left in memory.
    pub(super) fn finish(self) -> (Vec<Spill>, SortBuffer) {
        (self.spills, self.buffer)
    }
}
