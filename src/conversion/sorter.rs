//! Sorting more than fits into memory: sorted spill files, and one merge of all of them.
//!
//! A spill file is a sequence of blocks: length of the payload and its crc32, both `u32` little-endian, then the
//! payload: for each entry the lengths of key and value, both `u32` little-endian, the key, the value. It lives inside
//! staging and dies with it, so its format binds nobody. Not compressed.

use super::buffer::SortBuffer;
use super::heads::Heads;
use super::output::duplicate;
use crate::encoding::KeyEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use std::path::{Path, PathBuf};

/// The payload of a block, unless one entry is longer.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 8;
const ENTRY_HEADER_BYTES: usize = 8;

/// A sorted spill file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spill {
    pub(super) path: PathBuf,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Writes one spill file.
struct SpillWriter<'j> {
    vfs: &'j dyn Vfs,
    spill: Spill,
    block: Vec<u8>,
}

impl<'j> SpillWriter<'j> {
    fn create(vfs: &'j dyn Vfs, path: PathBuf) -> Result<Self> {
        vfs.create_file(&path, &[])?;
        Ok(SpillWriter { vfs, spill: Spill { path, entries: 0, bytes: 0 }, block: vec![0; HEADER_BYTES] })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
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

    fn finish(mut self) -> Result<Spill> {
        if self.block.len() > HEADER_BYTES {
            self.end_block()?;
        }
        Ok(self.spill)
    }
}

/// Reads one spill file from the beginning to the end.
struct SpillReader<'j> {
    vfs: &'j dyn Vfs,
    spill: Spill,
    /// Where the next block begins.
    offset: u64,
    block: Vec<u8>,
    /// Where in the block the entry stands: its key, its value, and what follows.
    key: std::ops::Range<usize>,
    end: usize,
    read: u64,
}

impl<'j> SpillReader<'j> {
    fn open(vfs: &'j dyn Vfs, spill: Spill) -> Self {
        SpillReader { vfs, spill, offset: 0, block: Vec::new(), key: 0..0, end: 0, read: 0 }
    }

    fn entry(&self) -> (&[u8], &[u8]) {
        (&self.block[self.key.clone()], &self.block[self.key.end..self.end])
    }

    /// To the next entry; false at the end.
    fn advance(&mut self) -> Result<bool> {
        if self.end == self.block.len() {
            if self.offset == self.spill.bytes {
                let all = self.read == self.spill.entries;
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

/// Merges sorted spill files and a buffer into one ascending sequence.
pub(super) struct Merge<'j> {
    pub(super) vfs: &'j dyn Vfs,
    pub(super) folder: &'j Path,
    /// Names the error when a key comes twice.
    pub(super) encoding: &'j dyn KeyEncoding,
    /// How many spill files are read at a time: each takes a block of memory.
    pub(super) spills_at_once: usize,
}

impl Merge<'_> {
    /// Passes every entry to `sink`, in ascending order of keys, and removes the spill files.
    pub(super) fn run(
        &self,
        mut spills: Vec<Spill>,
        mut memory: SortBuffer,
        mut sink: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut merged = 0;
        while spills.len() > self.spills_at_once.max(2) {
            // The small ones first: what is merged twice should be little.
            spills.sort_by_key(|spill| spill.bytes);
            let surplus = spills.len() - self.spills_at_once.max(2) + 1;
            let group: Vec<Spill> = spills.drain(..surplus.min(self.spills_at_once.max(2))).collect();
            merged += 1;
            let mut writer = SpillWriter::create(self.vfs, self.folder.join(format!("merged-{merged:06}.spill")))?;
            self.merge(group, &SortBuffer::default(), |key, value| writer.put(key, value))?;
            spills.push(writer.finish()?);
        }
        memory.sort();
        self.merge(spills, &memory, &mut sink)
    }

    fn merge(
        &self,
        spills: Vec<Spill>,
        memory: &SortBuffer,
        mut sink: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut readers = Vec::with_capacity(spills.len());
        let paths: Vec<PathBuf> = spills.iter().map(|spill| spill.path.clone()).collect();
        for spill in spills {
            let mut reader = SpillReader::open(self.vfs, spill);
            if reader.advance()? {
                readers.push(reader);
            }
        }
        let mut heads = Heads::new(readers.len(), |left, right| readers[left].entry().0 < readers[right].entry().0);
        let mut at = 0;
        let mut last: Option<Vec<u8>> = None;
        loop {
            let from_memory = (at < memory.len()).then(|| memory.entry(at));
            let from_spill = heads.first().map(|head| (head, readers[head].entry()));
            let (head, (key, value)) = match (from_memory, from_spill) {
                (Some(entry), Some((head, spilled))) if spilled.0 < entry.0 => (Some(head), spilled),
                (Some(entry), _) => (None, entry),
                (None, Some((head, spilled))) => (Some(head), spilled),
                (None, None) => break,
            };
            match &mut last {
                Some(last) if last.as_slice() >= key => return Err(duplicate(self.encoding, key)),
                Some(last) => {
                    last.clear();
                    last.extend_from_slice(key);
                }
                None => last = Some(key.to_vec()),
            }
            sink(key, value)?;
            match head {
                None => at += 1,
                Some(head) => {
                    let more = readers[head].advance()?;
                    heads.changed(more, |left, right| readers[left].entry().0 < readers[right].entry().0);
                }
            }
        }
        paths.iter().try_for_each(|path| self.vfs.remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Natural;
    use crate::fs::RealVfs;

    type Entries = Vec<(Vec<u8>, Vec<u8>)>;

    fn spilled(vfs: &dyn Vfs, folder: &Path, entries: &[(Vec<u8>, Vec<u8>)], each: usize) -> (Vec<Spill>, SortBuffer) {
        let mut sorter = Sorter::new(vfs, folder, "test", SortBuffer::default());
        for chunk in entries.chunks(each) {
            sorter.spill().unwrap();
            chunk.iter().for_each(|(key, value)| sorter.buffer.push(key, value));
        }
        sorter.finish()
    }

    fn merged(folder: &Path, spills: Vec<Spill>, memory: SortBuffer, spills_at_once: usize) -> Result<Entries> {
        let mut seen = Vec::new();
        let merge = Merge { vfs: &RealVfs::default(), folder, encoding: &Natural, spills_at_once };
        merge.run(spills, memory, |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(seen)
    }

    /// Distinct keys in no order; among the values one that is longer than a block.
    fn entries() -> Entries {
        let key = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
        let value = |at: u64| vec![at as u8; if at == 500 { 2 * BLOCK_BYTES } else { at as usize % 700 }];
        (0..2000).map(|at| (key(at), value(at))).collect()
    }

    #[test]
    fn whatever_the_passes_all_comes_back_in_order() {
        let entries = entries();
        let mut sorted = entries.clone();
        sorted.sort();
        for (each, spills_at_once) in [(5000, 8), (300, 8), (97, 8), (97, 2), (20, 3), (20, 0), (1000, 1)] {
            let directory = tempfile::tempdir().unwrap();
            let (spills, memory) = spilled(&RealVfs::default(), directory.path(), &entries, each);
            assert_eq!(spills.len(), entries.len().div_ceil(each) - 1);
            assert!(merged(directory.path(), spills, memory, spills_at_once).unwrap() == sorted, "{each}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "spill files are removed");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_an_error() {
        let mut entries = entries();
        entries.push(entries[3].clone());
        for each in [100, 5000] {
            let directory = tempfile::tempdir().unwrap();
            let (spills, memory) = spilled(&RealVfs::default(), directory.path(), &entries, each);
            let error = merged(directory.path(), spills, memory, 8).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unrepresentable);
            assert!(error.to_string().contains("natural r1"), "{error}");
        }
    }

    #[test]
    fn damage_is_never_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let entries = &entries()[..400];
        let (spills, _) = spilled(&RealVfs::default(), directory.path(), entries, 399);
        let path = spills[0].path.clone();
        let whole = std::fs::read(&path).unwrap();
        let tried = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            merged(directory.path(), spills.clone(), SortBuffer::default(), 8)
        };
        for at in [0, 3, 4, 7, 8, 12, 100, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert_eq!(tried(&flipped).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        }
        for len in [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 1] {
            assert_eq!(tried(&whole[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
        }
        assert_eq!(tried(&whole).unwrap().len(), 399);
    }

    #[test]
    fn a_file_that_ends_between_two_blocks_is_not_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (mut spills, _) = spilled(&RealVfs::default(), directory.path(), &entries(), 1999);
        let head = std::fs::read(&spills[0].path).unwrap();
        spills[0].bytes = (HEADER_BYTES + number(&head, 0).unwrap()) as u64;
        assert!(spills[0].bytes < head.len() as u64, "more than one block");
        let error = merged(directory.path(), spills, SortBuffer::default(), 8).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("missing"), "{error}");
    }
}
