//! RocksDB's write-ahead log, read from its files.
//!
//! RocksDB's own iterator over the log is not to be relied on: it says nothing at the end and nothing at an error, may
//! begin after the position that it was asked for, and reads every file from its start at each poll. So the files are
//! read here, as `db/log_format.h` of RocksDB describes them: blocks of 32 KiB; in them fragments with a masked crc32c,
//! a length and a type; one or several fragments make a record; a record is the representation of a write batch.
//!
//! Invariants: a record is given out only if all its checksums hold and it begins at the sequence number after the last
//! one; whatever is left out is said, as a gap or as damage. Nothing here panics for any bytes, and nothing is allocated
//! by a length that a file claims.

use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::ROCKSDB_ARCHIVE;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A block: no fragment crosses its end.
const BLOCK_BYTES: u64 = 32 << 10;
/// Before each fragment: crc32c (4), length (2), type (1).
const HEADER_BYTES: usize = 7;
/// The same in a recycled file, with the file's number (4).
const RECYCLED_HEADER_BYTES: usize = 11;
/// What is read from a file at once: some blocks.
const READ_BYTES: usize = 256 << 10;
/// Of the room that a long record took, so much is kept for the next one.
const KEPT_BYTES: usize = 2 << 20;
/// A longer record is not read.
const RECORD_BYTES_MAX: usize = u32::MAX as usize;
/// The header of a write batch: sequence number (8), count (4).
pub const BATCH_HEADER_BYTES: usize = 12;
/// The greatest sequence number.
pub const SEQUENCE_MAX: u64 = (1 << 56) - 1;

const STEP: &str = "read the write-ahead log";

/// A place in the log: between records, or at the end of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The number of the WAL file.
    pub file: u64,
    /// Bytes from its start.
    pub offset: u64,
}

/// One record of the log: a write batch, or several that were written as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'r> {
    /// The sequence number of its first operation.
    pub sequence: u64,
    /// How many sequence numbers it takes, as its header says.
    pub count: u32,
    /// The representation of the batch, header and all.
    pub batch: &'r [u8],
    /// Where the next record begins, or will.
    pub end: Position,
}

/// The log does not go on where it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The sequence number that was to come.
    pub expected: u64,
    /// The one that came.
    pub found: u64,
    /// Where the record with it ends.
    pub at: Position,
}

/// What comes next in the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'r> {
    /// A record.
    Record(Record<'r>),
    /// Nothing yet; whoever knows the last sequence number of the database knows whether that is all. `torn`: part of a record is there, which may still grow, or was being written at a crash.
    End {
        /// Bytes are there that are no whole record.
        torn: bool,
    },
    /// Something is missing. The reader stays where it is.
    Gap(Gap),
}

/// A record that does not begin where the log ended, of which the caller has to say whether a noted ingest explains it.
#[derive(Debug, Clone, Copy)]
pub struct Jump<'r> {
    /// The sequence number that was to come.
    pub expected: u64,
    /// The record that came.
    pub record: Record<'r>,
}

/// Reads the WAL files of one directory, those in its `archive/` too, in the order of their numbers.
#[derive(Debug)]
pub struct WalReader {
    directory: PathBuf,
    /// Where the next record begins.
    at: Position,
    /// Its sequence number; `None` until the first one is read.
    expected: Option<u64>,
    /// The file has been moved to the archive.
    archived: bool,
    /// A newer file was seen, and after that the end of this one.
    left: bool,
    /// The file before this one ended in damage. That is nothing, if RocksDB has dropped the same records.
    damage: Option<(Position, &'static str)>,
    window: Window,
    /// Fragments of the record that is read.
    assembled: Vec<u8>,
}

/// A part of a file.
#[derive(Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    start: u64,
}

impl Window {
    /// What is there of the file from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        let skip = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }
}

/// Where the bytes of a record are.
enum Found {
    InWindow(Range<usize>),
    Assembled,
}

/// What stands at the place where a record is to begin.
enum Raw {
    Record { found: Found, end: u64 },
    End { torn: bool },
    Damage { offset: u64, reason: &'static str },
}

/// What a fragment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    First,
    Middle,
    Last,
    /// Nothing that is to be read: the trailer of a block, or a note of RocksDB to itself.
    Skip,
}

/// What stands at one place of a file.
#[derive(Debug, PartialEq, Eq)]
enum Physical {
    /// A fragment, the bytes of its payload relative to where it begins, and how far the next one is.
    Fragment {
        kind: Kind,
        payload: Range<usize>,
        len: usize,
    },
    /// More bytes are needed to tell.
    Incomplete,
    /// Zeros, where a fragment would begin.
    Zeros,
    Damage(&'static str),
    /// A format that is not read, and which.
    Unsupported(&'static str),
}

/// Reads what stands at `offset` of a file whose bytes from there on are `bytes`.
fn physical(bytes: &[u8], offset: u64) -> Physical {
    let room = (BLOCK_BYTES - offset % BLOCK_BYTES) as usize;
    if room < HEADER_BYTES {
        // Too little for a header: the trailer of the block.
        return if bytes.len() < room {
            Physical::Incomplete
        } else {
            Physical::Fragment { kind: Kind::Skip, payload: 0..0, len: room }
        };
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Physical::Incomplete };
    if *header == [0; HEADER_BYTES] {
        return Physical::Zeros;
    }
    let [c0, c1, c2, c3, l0, l1, tag] = *header;
    let recycled = matches!(tag, 5..=8 | 11 | 131);
    let start = if recycled { RECYCLED_HEADER_BYTES } else { HEADER_BYTES };
    let len = start + usize::from(u16::from_le_bytes([l0, l1]));
    if len > room {
        return Physical::Damage("a fragment that would cross the end of its block");
    }
    let Some(fragment) = bytes.get(..len) else { return Physical::Incomplete };
    if unmask(u32::from_le_bytes([c0, c1, c2, c3])) != crc32c::crc32c(&fragment[6..]) {
        return Physical::Damage("a checksum that does not match");
    }
    let kind = match tag {
        1 => Kind::Full,
        2 => Kind::First,
        3 => Kind::Middle,
        4 => Kind::Last,
        _ if recycled => return Physical::Unsupported("a recycled WAL file"),
        9 => return Physical::Unsupported("a compressed WAL file"),
        10 => return Physical::Unsupported("keys with user-defined timestamps"),
        // RocksDB too ignores what it does not know of these, the note on the file before this one among them.
        128.. => Kind::Skip,
        _ => return Physical::Unsupported("a type of fragment that is not known"),
    };
    Physical::Fragment { kind, payload: start..len, len }
}

/// RocksDB stores checksums masked, since the log may hold what is itself a log with checksums.
fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// The header of a batch: its first sequence number, and how many it takes.
pub fn batch_header(batch: &[u8]) -> Option<(u64, u32)> {
    let (sequence, rest) = batch.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(*sequence);
    let count = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    (sequence.checked_add(u64::from(count))? <= SEQUENCE_MAX).then_some((sequence, count))
}

/// The number of a WAL file with that name.
pub fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The name of the WAL file of that number.
pub fn file_name(number: u64) -> String {
    format!("{number:06}.log")
}

/// The numbers of the WAL files in a directory, ascending; none if there is no such directory.
///
/// # Errors
/// `Io`. Changes nothing.
pub fn file_numbers(vfs: &dyn Vfs, directory: &Path) -> Result<Vec<u64>> {
    let names = match vfs.list(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl WalReader {
    /// Reads the log of `directory` from `at` on, where the record with the sequence number `expected` begins; the
    /// default of both is the oldest record there is.
    pub fn new(directory: impl Into<PathBuf>, at: Position, expected: Option<u64>) -> Self {
        WalReader {
            directory: directory.into(),
            at,
            expected,
            archived: false,
            left: false,
            damage: None,
            window: Window::default(),
            assembled: Vec::new(),
        }
    }

    /// Reads the log of `directory` from the record on that begins at `sequence`, or from what comes instead of it.
    ///
    /// # Errors
    /// As [`WalReader::next`].
    pub fn from_sequence(vfs: &dyn Vfs, directory: impl Into<PathBuf>, sequence: u64) -> Result<Self> {
        let mut reader = WalReader::new(directory, Position::default(), None);
        // From the newest back to the last file that begins at or before it. Files without a record say nothing.
        let mut start = Position::default();
        for file in reader.files(vfs)?.into_iter().rev() {
            reader.go_to(Position { file, offset: 0 });
            if let Raw::Record { found, .. } = reader.raw(vfs)?
                && let Some((first, _)) = batch_header(reader.bytes(&found))
            {
                start = reader.at;
                if first <= sequence {
                    break;
                }
            }
        }
        reader.go_to(start);
        while let Raw::Record { found, end } = reader.raw(vfs)? {
            match batch_header(reader.bytes(&found)) {
                Some((first, _)) if first < sequence => reader.at.offset = end,
                _ => break,
            }
        }
        reader.expected = Some(sequence);
        Ok(reader)
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The sequence number of the next record; `None` before the first one.
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// As [`WalReader::next_within`], to the end of the log.
    ///
    /// # Errors
    /// As [`WalReader::next_within`].
    #[cfg(any(test, feature = "traps"))]
    pub fn next(&mut self, vfs: &dyn Vfs, noted: impl FnOnce(&Jump<'_>) -> bool) -> Result<Next<'_>> {
        self.next_within(vfs, SEQUENCE_MAX, noted)
    }

    /// The next record that ends at or before the sequence number `limit`: a later one may not be durable. `noted` is asked
    /// where one begins after what was expected: whether an ingest, which takes sequence numbers without a record, explains
    /// exactly that.
    ///
    /// # Errors
    /// `Corrupt`: damage, with the file and the place in it; `Unsupported`: the log is written in a way that is not read
    /// here; `Io`. The reader stays where it is.
    pub fn next_within(
        &mut self,
        vfs: &dyn Vfs,
        limit: u64,
        noted: impl FnOnce(&Jump<'_>) -> bool,
    ) -> Result<Next<'_>> {
        let (found, end) = loop {
            match self.raw(vfs)? {
                Raw::Record { found, end } => break (found, end),
                Raw::End { torn } => {
                    if !self.leave(vfs, None)? {
                        return Ok(Next::End { torn });
                    }
                }
                Raw::Damage { offset, reason } => {
                    let at = Position { offset, ..self.at };
                    if !self.leave(vfs, Some((at, reason)))? {
                        return Err(self.damaged(at, reason));
                    }
                }
            }
        };
        let Some((sequence, count)) = batch_header(self.bytes(&found)) else {
            return Err(self.damaged(self.at, "a record that is no write batch"));
        };
        if sequence + u64::from(count) > limit.saturating_add(1) {
            return Ok(Next::End { torn: false });
        }
        let end = Position { offset: end, ..self.at };
        let expected = self.expected.unwrap_or(sequence);
        if sequence != expected {
            if let Some((at, reason)) = self.damage {
                return Err(self.damaged(at, reason));
            }
            let record = Record { sequence, count, batch: self.bytes(&found), end };
            if sequence < expected || !noted(&Jump { expected, record }) {
                return Ok(Next::Gap(Gap { expected, found: sequence, at: end }));
            }
        }
        // An empty batch takes no number: RocksDB writes one after a recovery that dropped something.
        self.expected = Some(sequence + u64::from(count));
        self.damage = None;
        self.at = end;
        self.left = false;
        Ok(Next::Record(Record { sequence, count, batch: self.bytes(&found), end }))
    }

    fn damaged(&self, at: Position, reason: &str) -> Error {
        let message = format!("{} has {reason} at byte {}", file_name(at.file), at.offset);
        Error::new(ErrorKind::Corrupt, STEP, message).at(&self.directory)
    }

    fn bytes(&self, found: &Found) -> &[u8] {
        match found {
            Found::InWindow(range) => self.window.bytes.get(range.clone()).unwrap_or_default(),
            Found::Assembled => &self.assembled,
        }
    }

    fn go_to(&mut self, at: Position) {
        self.at = at;
        self.archived = false;
        self.left = false;
        self.window = Window { bytes: std::mem::take(&mut self.window.bytes), start: 0 };
        self.window.bytes.clear();
    }

    /// The numbers of the files that are there, ascending.
    fn files(&self, vfs: &dyn Vfs) -> Result<Vec<u64>> {
        // Files go from the first directory to the second: in this order none is missed.
        let mut files = file_numbers(vfs, &self.directory)?;
        files.extend(file_numbers(vfs, &self.directory.join(ROCKSDB_ARCHIVE))?);
        files.sort_unstable();
        files.dedup();
        Ok(files)
    }

    /// At the end of a file: goes to the next one, if there is one. Says whether there is more to look at.
    fn leave(&mut self, vfs: &dyn Vfs, damage: Option<(Position, &'static str)>) -> Result<bool> {
        let Some(newer) = self.files(vfs)?.into_iter().find(|number| *number > self.at.file) else { return Ok(false) };
        if !self.left && damage.is_none() {
            // This file is complete now; since its end was seen, it may have grown for the last time.
            self.left = true;
            return Ok(true);
        }
        self.damage = self.damage.or(damage);
        self.go_to(Position { file: newer, offset: 0 });
        Ok(true)
    }

    /// Reads the record that begins at `self.at`, and moves nothing.
    fn raw(&mut self, vfs: &dyn Vfs) -> Result<Raw> {
        self.assembled.clear();
        self.assembled.shrink_to(KEPT_BYTES);
        let mut offset = self.at.offset;
        let mut begun = false;
        loop {
            let bytes = self.window.from(offset);
            let mut there = physical(bytes, offset);
            if there == Physical::Incomplete {
                self.fill(vfs, offset)?;
                there = physical(self.window.from(offset), offset);
            }
            let damage = move |reason| Ok(Raw::Damage { offset, reason });
            let (kind, payload, len) = match there {
                Physical::Fragment { kind, payload, len } => (kind, payload, len),
                Physical::Incomplete => {
                    return Ok(Raw::End { torn: begun || !self.window.from(offset).is_empty() });
                }
                Physical::Zeros if self.only_zeros(vfs, offset)? => return Ok(Raw::End { torn: true }),
                Physical::Zeros => return damage("zeros where a record was to begin"),
                Physical::Damage(reason) => return damage(reason),
                Physical::Unsupported(what) => {
                    let message = format!("{} is {what}, at byte {offset}", file_name(self.at.file));
                    return Err(Error::new(ErrorKind::Unsupported, STEP, message).at(&self.directory));
                }
            };
            let skipped = (offset - self.window.start) as usize;
            let payload = payload.start + skipped..payload.end + skipped;
            offset += len as u64;
            match (kind, begun) {
                (Kind::Skip, _) => continue,
                (Kind::Full, false) => return Ok(Raw::Record { found: Found::InWindow(payload), end: offset }),
                (Kind::First, false) | (Kind::Middle | Kind::Last, true) => {}
                (Kind::Full | Kind::First, true) => return damage("a record that begins within another"),
                (Kind::Middle | Kind::Last, false) => return damage("a record without its beginning"),
            }
            begun = true;
            if self.assembled.len() + payload.len() > RECORD_BYTES_MAX {
                let message = format!("{} has a record over {RECORD_BYTES_MAX} bytes", file_name(self.at.file));
                return Err(Error::new(ErrorKind::Unsupported, STEP, message).at(&self.directory));
            }
            self.assembled.extend_from_slice(self.window.bytes.get(payload).unwrap_or_default());
            if kind == Kind::Last {
                return Ok(Raw::Record { found: Found::Assembled, end: offset });
            }
        }
    }

    /// Whether the file holds zeros alone from `offset` on: room that was given to it, whose bytes a crash has taken.
    fn only_zeros(&mut self, vfs: &dyn Vfs, mut offset: u64) -> Result<bool> {
        loop {
            self.fill(vfs, offset)?;
            if self.window.bytes.is_empty() {
                return Ok(true);
            }
            if self.window.bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += self.window.bytes.len() as u64;
        }
    }

    /// Fills the window from `offset` of the file on. A file that is not there has no bytes.
    fn fill(&mut self, vfs: &dyn Vfs, offset: u64) -> Result<()> {
        self.window.start = offset;
        let name = file_name(self.at.file);
        if !self.archived {
            match vfs.read_range(&self.directory.join(&name), offset, READ_BYTES, &mut self.window.bytes) {
                Err(error) if error.kind() == ErrorKind::NotFound => self.archived = true,
                done => return done,
            }
        }
        let path = self.directory.join(ROCKSDB_ARCHIVE).join(&name);
        match vfs.read_range(&path, offset, READ_BYTES, &mut self.window.bytes) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The position before the first file, or one that was removed: what comes next shows what is missing.
                self.window.bytes.clear();
                self.archived = false;
                Ok(())
            }
            done => done,
        }
    }
}
