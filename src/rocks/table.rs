//! RocksDB's SST files, read without RocksDB.
//!
//! Its iterator finds the newest of several versions of a key in memtables and on all levels. Where there is one version
//! alone, in files that do not overlap, that costs more than reading does. So such files are read here, as
//! `table/format.cc` and `table/block_based/` of RocksDB describe format version 5: a footer says where the index and
//! the metaindex lie, the metaindex where the properties; blocks have a compression type and a checksum each.
//!
//! Invariants: nothing is given out of a block whose checksum does not hold; what this file does not know, it declines
//! ([`Table::open`]) before anything is read from it, so that RocksDB reads it; nothing here panics for any bytes, and
//! nothing is allocated by a length that a file claims, beyond what LZ4 can make of the bytes that are there.

use super::block::{Entries, varint};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Checksum type (1), handles (40), format version (4), magic number (8).
const FOOTER_BYTES: u64 = 53;
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const FORMAT_VERSION: u32 = 5;
const CHECKSUM_XXH3: u8 = 4;
/// After each block: compression type (1), checksum (4).
const TRAILER_BYTES: usize = 5;
const NOT_COMPRESSED: u8 = 0;
const LZ4: u8 = 4;
/// LZ4 makes at most so many bytes of one.
const LZ4_EXPANSION_MAX: usize = 255;
/// An index that is read here, compressed and not: whoever reads a file holds all of it. Files of ours have 8 MiB.
const INDEX_BYTES_MAX: u64 = 16 << 20;
/// Behind each key of an entry: its sort, and seven bytes of its sequence number.
pub(super) const SEQUENCE_BYTES: usize = 8;
/// Metaindex and properties are far shorter.
const META_BYTES_MAX: u64 = 1 << 20;
/// A longer name is none of those that are looked for. Names share bytes, so a short block could make many long ones.
const NAME_BYTES_MAX: usize = 256;
/// A piece need not begin at a key, and a short place is as good.
const PLACE_BYTES_MAX: usize = 256;
/// What is read of a file's end at once: footer, metaindex and properties, as a rule the index too.
const TAIL_BYTES: usize = 32 << 10;

pub(super) const STEP: &str = "read an SST file";

/// Where a block lies in its file, without its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Handle {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Handle {
    /// Reads one from the front of `bytes`.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Handle { offset: varint(bytes)?, bytes: varint(bytes)? })
    }

    /// Where what follows the block and its trailer begins.
    pub(super) fn end(self) -> Option<u64> {
        self.offset.checked_add(self.bytes)?.checked_add(TRAILER_BYTES as u64)
    }
}

/// A file, of which a part is in memory.
pub(super) struct Window<'v> {
    vfs: &'v dyn Vfs,
    /// Reads go past the page cache.
    direct: bool,
    /// What is read at once, in bytes.
    read_bytes: usize,
    bytes: Vec<u8>,
    /// Where in `bytes` the part lies.
    part: Range<usize>,
    /// Where in the file it begins.
    start: u64,
}

impl<'v> Window<'v> {
    pub(super) fn new(vfs: &'v dyn Vfs, direct: bool, read_bytes: usize) -> Self {
        Window { vfs, direct, read_bytes, bytes: Vec::new(), part: 0..0, start: 0 }
    }

    /// Forgets the part: another file comes.
    pub(super) fn clear(&mut self) {
        self.part = 0..0;
    }

    /// `len` bytes of the file from `offset` on, which reads more if they are not in memory; fewer where it ends.
    fn get(&mut self, path: &Path, offset: u64, len: usize) -> Result<&[u8]> {
        let here = |window: &Self| {
            let begin = usize::try_from(offset.checked_sub(window.start)?).ok()?;
            let end = begin.checked_add(len)?;
            (end <= window.part.len()).then_some(window.part.start + begin..window.part.start + end)
        };
        if let Some(range) = here(self) {
            return Ok(&self.bytes[range]);
        }
        let read_bytes = len.max(self.read_bytes);
        self.part = if self.direct {
            self.vfs.read_device(path, offset, read_bytes, &mut self.bytes)?
        } else {
            self.vfs.read_range(path, offset, read_bytes, &mut self.bytes)?;
            0..self.bytes.len()
        };
        self.start = offset;
        let end = self.part.end.min(self.part.start + len);
        Ok(&self.bytes[self.part.start..end])
    }

    /// Reads a block of `table` into `block`: what was compressed, without its trailer.
    pub(super) fn read_block(&mut self, table: &Table, handle: Handle, block: &mut Vec<u8>) -> Result<()> {
        let end = handle.end().filter(|&end| end <= table.bytes);
        let len = end.and_then(|end| usize::try_from(end - handle.offset).ok());
        let Some(len) = len else { return Err(table.damaged(handle, "a block reaches beyond the file")) };
        let stored = self.get(&table.path, handle.offset, len)?;
        let Some((payload, trailer)) = stored.split_at_checked(len - TRAILER_BYTES).filter(|_| stored.len() == len)
        else {
            return Err(table.damaged(handle, "the file is shorter than it was"));
        };
        let kind = trailer[0];
        let sum = xxh3_64(payload) as u32 ^ u32::from(kind).wrapping_mul(0x6b90_83d9);
        if trailer[1..] != sum.to_le_bytes() {
            return Err(table.damaged(handle, "a block is not what was written"));
        }
        match kind {
            NOT_COMPRESSED => {
                block.clear();
                block.extend_from_slice(payload);
            }
            LZ4 => decompress(payload, block).ok_or_else(|| table.damaged(handle, "a block cannot be decompressed"))?,
            _ => return Err(table.damaged(handle, "a block is compressed in another way than its file says")),
        }
        Ok(())
    }
}

fn decompress(mut payload: &[u8], block: &mut Vec<u8>) -> Option<()> {
    let bytes = usize::try_from(varint(&mut payload)?).ok()?;
    let length = i32::try_from(bytes).ok().filter(|_| bytes <= payload.len().saturating_mul(LZ4_EXPANSION_MAX))?;
    // What stands there is overwritten: of a block as long as the last one nothing need be zeroed.
    block.resize(bytes, 0);
    (lz4::block::decompress_to_buffer(payload, Some(length), block).ok()? == bytes).then_some(())
}

/// A part of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins: a key, or bytes between two keys.
    pub position: Vec<u8>,
    /// Bytes of SST files.
    pub bytes: u64,
}

/// A file whose format is known here.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) index: Handle,
    /// Keys of the index have no sequence number.
    pub(super) index_of_user_keys: bool,
    /// Of handles in the index those that share bytes with the one before have their difference alone.
    pub(super) index_of_deltas: bool,
    /// Entries, as RocksDB counted them when it wrote the file.
    pub(super) entries: u64,
    /// All of them are values that were put: none is a deletion or a merge.
    pub(super) is_plain: bool,
}

impl Table {
    /// Looks at a file; `None` if it has anything that is not read here: another version, comparator, checksum,
    /// compression or sort of index than RocksDB writes unless told otherwise.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(super) fn open(vfs: &dyn Vfs, direct: bool, path: PathBuf, bytes: u64) -> Result<Option<Self>> {
        let mut table = Table {
            path,
            bytes,
            index: Handle::default(),
            index_of_user_keys: false,
            index_of_deltas: false,
            entries: 0,
            is_plain: true,
        };
        let mut window = Window::new(vfs, direct, TAIL_BYTES);
        let Some(metaindex) = table.read_footer(&mut window)? else { return Ok(None) };
        let mut block = Vec::new();
        window.read_block(&table, metaindex, &mut block)?;
        let mut properties = None;
        if block.len() as u64 > META_BYTES_MAX {
            return Ok(None);
        }
        for (name, mut value) in named(&block).ok_or_else(|| table.damaged(metaindex, "the metaindex"))? {
            match name.as_slice() {
                b"rocksdb.properties" => properties = Handle::read(&mut value),
                b"rocksdb.range_del" => table.is_plain = false,
                b"rocksdb.compression_dict" => return Ok(None),
                _ => {}
            }
        }
        let Some(properties) = properties.filter(|handle| handle.bytes <= META_BYTES_MAX) else { return Ok(None) };
        window.read_block(&table, properties, &mut block)?;
        if block.len() as u64 > META_BYTES_MAX {
            return Ok(None);
        }
        let properties = named(&block).ok_or_else(|| table.damaged(properties, "the properties"))?;
        if !table.take_properties(&properties) {
            return Ok(None);
        }
        // Only a data block says whether they have an index of hashes.
        let mut index = Index::default();
        index.load(&table, &mut window)?;
        if index.block.len() as u64 > INDEX_BYTES_MAX {
            return Ok(None);
        }
        if index.next(&table)? {
            window.read_block(&table, index.handle, &mut block)?;
            if Entries::new(&block).is_none() {
                return Ok(None);
            }
        }
        Ok(Some(table))
    }

    /// Notes where the index lies, and returns where the metaindex does; `None` for another format.
    fn read_footer(&mut self, window: &mut Window<'_>) -> Result<Option<Handle>> {
        let Some(begin) = self.bytes.checked_sub(FOOTER_BYTES) else { return Ok(None) };
        // The tail is read with it.
        window.get(&self.path, self.bytes.saturating_sub(TAIL_BYTES as u64), TAIL_BYTES.min(self.bytes as usize))?;
        let footer = window.get(&self.path, begin, FOOTER_BYTES as usize)?;
        let Some(footer) = footer.first_chunk::<{ FOOTER_BYTES as usize }>() else {
            return Err(self.damaged(Handle::default(), "the file is shorter than it was"));
        };
        let known = footer[0] == CHECKSUM_XXH3
            && footer[41..45] == FORMAT_VERSION.to_le_bytes()
            && footer[45..] == MAGIC.to_le_bytes();
        let mut handles = &footer[1..41];
        let (metaindex, index) = (Handle::read(&mut handles), Handle::read(&mut handles));
        self.index = index.unwrap_or_default();
        let read = known && self.index.bytes <= INDEX_BYTES_MAX;
        Ok(metaindex.filter(|metaindex| read && metaindex.bytes <= META_BYTES_MAX))
    }

    /// Notes what the properties say; whether all of it is known here.
    fn take_properties(&mut self, properties: &[(Vec<u8>, &[u8])]) -> bool {
        let text = |name: &str| properties.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| *value);
        let number = |name: &str| text(name).and_then(|mut value| varint(&mut value));
        let Some(entries) = number("rocksdb.num.entries") else { return false };
        self.entries = entries;
        self.index_of_user_keys = number("rocksdb.index.key.is.user.key") == Some(1);
        self.index_of_deltas = number("rocksdb.index.value.is.delta.encoded") == Some(1);
        let others = ["rocksdb.deleted.keys", "rocksdb.merge.operands", "rocksdb.num.range-deletions"];
        self.is_plain &= others.iter().all(|name| number(name) == Some(0));
        let absent = [
            "rocksdb.index.partitions",
            "rocksdb.udi.is.primary.index",
            "rocksdb.user.defined.timestamps.persisted",
            "rocksdb.timestamp_min",
        ];
        absent.iter().all(|name| text(name).is_none())
            && matches!(number("rocksdb.separate.key.value.in.data.block"), None | Some(0))
            && matches!(text("rocksdb.block.based.table.index.type"), Some([0, 0, 0, 0]))
            && matches!(text("rocksdb.comparator"), Some(b"leveldb.BytewiseComparator"))
            && matches!(text("rocksdb.compression"), Some(b"LZ4" | b"NoCompression"))
    }

    /// Its data in pieces of about `piece_bytes`. The first one begins where the file does, which the caller knows.
    pub(super) fn pieces(&self, window: &mut Window<'_>, piece_bytes: u64) -> Result<Vec<Piece>> {
        let mut index = Index::default();
        index.load(self, window)?;
        // Behind which bytes a piece may begin, a block more or less, and where: the shortest that lies between the keys.
        let mut places: Vec<(u64, Vec<u8>)> = Vec::new();
        let (mut bytes, mut before) = (0, Vec::new());
        while index.next(self)? {
            let key = &index.key()[..index.key().len().min(PLACE_BYTES_MAX)];
            let common = key.iter().zip(&before).take_while(|(one, other)| one == other).count();
            places.push((bytes, key[..key.len().min(common + 1)].to_vec()));
            bytes += index.handle.bytes;
            before.clear();
            before.extend_from_slice(key);
        }
        let (near, far) = (piece_bytes / 2, piece_bytes.saturating_add(piece_bytes / 2));
        let (mut pieces, mut begin) = (vec![Piece { position: Vec::new(), bytes }], 0);
        // All places lie within the file, so its length bounds these sums.
        while bytes - begin > far {
            let from = places.partition_point(|place| place.0 <= begin + near);
            let to = places.partition_point(|place| place.0 <= begin + far).max(from + 1);
            // A short key lies between keys that have little in common, as those of two large directories have.
            let best = places.get(from..to.min(places.len())).and_then(|some| some.iter().min_by_key(|at| at.1.len()));
            let Some((end, key)) = best else { break };
            if let Some(last) = pieces.last_mut() {
                last.bytes = end - begin;
            }
            pieces.push(Piece { position: key.clone(), bytes: bytes - end });
            begin = *end;
        }
        Ok(pieces)
    }

    #[cold]
    pub(super) fn damaged(&self, handle: Handle, what: &str) -> Error {
        let message = format!("{what} (block of {} bytes at {})", handle.bytes, handle.offset);
        Error::new(ErrorKind::Corrupt, STEP, message).at(&self.path)
    }
}

/// The index of a table: for each data block a key that is not before any of its keys.
#[derive(Debug, Default)]
pub(super) struct Index {
    block: Vec<u8>,
    entries: Entries,
    /// The key of the entry that was read last, as the index has it.
    key: Vec<u8>,
    /// Bytes of it that are the key of an entry.
    user_key_bytes: usize,
    /// Where the data block is.
    pub(super) handle: Handle,
}

impl Index {
    /// Reads the index of a table, and stands before its first entry.
    pub(super) fn load(&mut self, table: &Table, window: &mut Window<'_>) -> Result<()> {
        window.read_block(table, table.index, &mut self.block)?;
        self.entries = Entries::new(&self.block).ok_or_else(|| table.damaged(table.index, "the index"))?;
        self.key.clear();
        self.handle = Handle::default();
        Ok(())
    }

    /// The key of the entry that was read last.
    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.user_key_bytes]
    }

    /// To the next data block; false after the last.
    pub(super) fn next(&mut self, table: &Table) -> Result<bool> {
        self.step(table).ok_or_else(|| table.damaged(table.index, "the index"))
    }

    fn step(&mut self, table: &Table) -> Option<bool> {
        let before = self.handle;
        let entry = if table.index_of_deltas {
            let handle = &mut self.handle;
            self.entries.next_of_index(&self.block, |shared, value| {
                *handle = match shared {
                    0 => Handle::read(value)?,
                    _ => Handle { offset: before.end()?, bytes: before.bytes.checked_add_signed(signed(value)?)? },
                };
                Some(())
            })?
        } else {
            let entry = self.entries.next(&self.block)?;
            if let Some(entry) = &entry {
                self.handle = Handle::read(&mut &self.block[entry.value.clone()])?;
            }
            entry
        };
        let Some(entry) = entry else { return Some(false) };
        // Blocks lie one behind the other, maybe with room between them, and within the file.
        (before == Handle::default() || before.end()? <= self.handle.offset).then_some(())?;
        (self.handle.end()? <= table.bytes).then_some(())?;
        (entry.shared <= self.key.len()).then_some(())?;
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(&self.block[entry.delta]);
        let sequence_bytes = if table.index_of_user_keys { 0 } else { SEQUENCE_BYTES };
        self.user_key_bytes = self.key.len().checked_sub(sequence_bytes)?;
        Some(true)
    }
}

/// Reads a number whose lowest bit is its sign.
fn signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = varint(bytes)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

/// The entries of a metaindex or of properties, but for those with long names; `None` unless they are whole.
pub(super) fn named(block: &[u8]) -> Option<Vec<(Vec<u8>, &[u8])>> {
    let mut entries = Entries::new(block)?;
    let (mut name, mut all) = (Vec::new(), Vec::new());
    while let Some(entry) = entries.next(block)? {
        name.truncate(entry.shared);
        (name.len() == entry.shared).then_some(())?;
        name.extend_from_slice(&block[entry.delta]);
        if name.len() <= NAME_BYTES_MAX {
            all.push((name.clone(), &block[entry.value]));
        }
    }
    Some(all)
}
