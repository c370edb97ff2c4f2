//! A segment: a stretch of a timeline's log, as one object. Pure.
//!
//! ```text
//! header   160 bytes   what it is, how long its body is, a crc32 of the header
//! body                 frames, one after the other, as one zstd frame
//! trailer   92 bytes   how it ends, a hash of the body, the header's crc32, a crc32 of the trailer
//! frame                first sequence u64, time u64, operations u32, kind u8, length u32, payload, crc32 of all that
//! ```
//!
//! Numbers are little-endian. Header and trailer have fixed lengths, so that either can be read by a ranged get; what they
//! say is checksummed before it is used. The *chain* is a hash over all frames of the timeline from its first, whatever
//! segments they were cut into and whatever times they were given: two writers of one log have equal chains wherever they
//! stand.
//!
//! Invariants: sequence numbers go on without a gap from frame to frame; time never goes back and never below the floor;
//! a segment that ends its timeline names the successor. Bytes that break one were never written so, and are refused.

use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::group::GroupReference;
use crate::log_backup::names::{ContentHash, SEGMENT_NUMBERS};
use std::io::Write;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

/// The version of the format that this code writes, and the only one that it reads.
pub const SEGMENT_FORMAT: u32 = 1;
/// The length of the header.
pub const HEADER_BYTES: usize = 160;
/// The length of the trailer.
pub const TRAILER_BYTES: usize = 92;
/// The longest body, before compression and after it: a batch of RocksDB is shorter than 4 GiB, ours are far shorter.
pub const BODY_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// The longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: u32 = 1024 * 1024 * 1024;
/// The longest segment.
pub const SEGMENT_BYTES_MAX: u64 = BODY_BYTES_MAX + (HEADER_BYTES + TRAILER_BYTES) as u64;

pub(super) const MAGIC: &[u8; 8] = b"morphseg";
pub(super) const TRAILER_MAGIC: &[u8; 8] = b"morphend";
pub(super) const FRAME_HEAD_BYTES: usize = 25;
pub(super) const ENCODING_NAME_BYTES: usize = 64;
const LEVEL: i32 = 1;
const WRITE: &str = "write a segment of the log";

/// What a segment begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStart {
    /// The timeline.
    pub timeline: Uuid,
    /// The segment's number in it.
    pub number: u64,
    /// How the keys in it are encoded.
    pub encoding: EncodingId,
    /// The sequence number that comes next.
    pub first_sequence: u64,
    /// No frame in it is older.
    pub floor: u64,
    /// The chain before its first frame; 0 at the beginning of a timeline.
    pub chain: ContentHash,
}

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the segment begins with.
    pub start: SegmentStart,
    /// The length of the body as it is stored.
    pub stored_bytes: u64,
    /// The length of the body when it is decompressed.
    pub raw_bytes: u64,
    /// The number of frames.
    pub frames: u32,
}

/// The trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The last sequence number in the segment; the one before its first if it has none.
    pub last_sequence: u64,
    /// The time of the last frame; the floor if it has none.
    pub last_time: u64,
    /// No frame after this segment is of this time or older, so the log can be restored to it.
    pub resolved: u64,
    /// The chain after the last frame.
    pub chain: ContentHash,
    /// The timeline that follows, if this is the last segment of its own.
    pub successor: Option<Uuid>,
    /// The hash of the body as it is stored.
    pub body: ContentHash,
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A RocksDB write batch, as the WAL holds it.
    Batch(Vec<u8>),
    /// A group of ingested files, which stand outside; without a file, sequence numbers that were taken for nothing.
    Group(GroupReference),
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The sequence number of its first operation.
    pub first_sequence: u64,
    /// Its time, in microseconds of the Unix epoch.
    pub time: u64,
    /// How many sequence numbers it takes.
    pub operations: u32,
    /// What it holds.
    pub payload: Payload,
}

/// A segment, ready to be created as an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSegment {
    /// The object's contents.
    pub bytes: Vec<u8>,
    /// Its header.
    pub header: Header,
    /// Its trailer.
    pub trailer: Trailer,
}

impl EncodedSegment {
    /// What the next segment of the timeline begins with.
    pub fn next(&self) -> SegmentStart {
        self.trailer.next(&self.header)
    }
}

impl Trailer {
    /// What the segment after the one with this trailer begins with.
    pub fn next(&self, header: &Header) -> SegmentStart {
        SegmentStart {
            number: header.start.number + 1,
            first_sequence: self.last_sequence + 1,
            floor: self.last_time.max(self.resolved.saturating_add(1)),
            chain: self.chain,
            ..header.start.clone()
        }
    }
}

/// Builds a segment, frame by frame.
pub struct SegmentWriter {
    start: SegmentStart,
    body: zstd::stream::write::Encoder<'static, Vec<u8>>,
    progress: Progress,
}

/// Where writing or reading stands: what the next frame must fit.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) next_sequence: u64,
    pub(super) time: u64,
    pub(super) chain: ContentHash,
    pub(super) raw_bytes: u64,
    pub(super) frames: u32,
}

impl Progress {
    pub(super) fn at(start: &SegmentStart) -> Self {
        let SegmentStart { first_sequence, floor, chain, .. } = *start;
        Progress { next_sequence: first_sequence, time: floor, chain, raw_bytes: 0, frames: 0 }
    }

    /// Goes on by a frame, or says why it cannot follow.
    pub(super) fn take(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), &'static str> {
        if head.first_sequence != self.next_sequence {
            return Err("its sequence numbers have a gap");
        }
        if head.time < self.time {
            return Err("its time goes back");
        }
        let next = self.next_sequence.checked_add(u64::from(head.operations));
        self.next_sequence = next.filter(|next| *next < u64::MAX).ok_or("its sequence numbers end")?;
        self.raw_bytes += (FRAME_HEAD_BYTES + payload.len() + 4) as u64;
        if self.raw_bytes > BODY_BYTES_MAX {
            return Err("it is too long");
        }
        self.frames = self.frames.checked_add(1).ok_or("it has too many frames")?;
        self.time = head.time;
        self.chain = chain_after(self.chain, head, payload);
        Ok(())
    }
}

pub(super) struct FrameHead {
    pub(super) first_sequence: u64,
    pub(super) time: u64,
    pub(super) operations: u32,
    pub(super) kind: u8,
    pub(super) payload_bytes: u32,
}

pub(super) const KIND_BATCH: u8 = 1;
pub(super) const KIND_GROUP: u8 = 2;

impl FrameHead {
    fn to_bytes(&self) -> [u8; FRAME_HEAD_BYTES] {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        bytes[..8].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.operations.to_le_bytes());
        bytes[20] = self.kind;
        bytes[21..].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; FRAME_HEAD_BYTES]) -> Self {
        let mut fields = Fields(bytes);
        FrameHead {
            first_sequence: u64::from_le_bytes(fields.take()),
            time: u64::from_le_bytes(fields.take()),
            operations: u32::from_le_bytes(fields.take()),
            kind: fields.take::<1>()[0],
            payload_bytes: u32::from_le_bytes(fields.take()),
        }
    }
}

/// The time is left out: another cut of the same log may give another one.
fn chain_after(before: ContentHash, head: &FrameHead, payload: &[u8]) -> ContentHash {
    let mut hasher = Xxh3::new();
    hasher.update(&before.to_bytes());
    hasher.update(&head.first_sequence.to_le_bytes());
    hasher.update(&head.operations.to_le_bytes());
    hasher.update(&[head.kind]);
    hasher.update(&head.payload_bytes.to_le_bytes());
    hasher.update(payload);
    ContentHash(hasher.digest128())
}

impl SegmentWriter {
    /// Begins a segment.
    ///
    /// # Errors
    /// `InvalidArgument`: a number or a name is out of bounds.
    pub fn new(start: SegmentStart) -> Result<Self> {
        let sound = start.number < SEGMENT_NUMBERS && (1..u64::MAX).contains(&start.first_sequence);
        if !sound || !is_encoding_name(&start.encoding.name) {
            return Err(invalid("its number, its first sequence number or its encoding is out of bounds"));
        }
        let body = zstd::stream::write::Encoder::new(vec![0; HEADER_BYTES], LEVEL).map_err(failed)?;
        let progress = Progress::at(&start);
        Ok(SegmentWriter { start, body, progress })
    }

    /// Adds a batch: its bytes as the WAL holds them, and how many sequence numbers it takes.
    ///
    /// # Errors
    /// `InvalidArgument`: it does not follow what came before; `Unsupported`: it is too long. The segment is as before.
    pub fn push_batch(&mut self, first_sequence: u64, time: u64, operations: u32, batch: &[u8]) -> Result<()> {
        self.push(KIND_BATCH, first_sequence, time, operations, batch)
    }

    /// Adds a group of ingested files, all of which must be durable already. `operations` is how many sequence numbers the
    /// database spent on it, which may be none.
    ///
    /// # Errors
    /// As [`SegmentWriter::push_batch`].
    pub fn push_group(
        &mut self,
        first_sequence: u64,
        time: u64,
        operations: u32,
        group: &GroupReference,
    ) -> Result<()> {
        self.push(KIND_GROUP, first_sequence, time, operations, &group.to_bytes()?)
    }

    fn push(&mut self, kind: u8, first_sequence: u64, time: u64, operations: u32, payload: &[u8]) -> Result<()> {
        let payload_bytes = u32::try_from(payload.len()).ok().filter(|len| *len <= PAYLOAD_BYTES_MAX);
        let payload_bytes = payload_bytes.ok_or_else(|| {
            let message = format!("a frame of {} bytes is over {PAYLOAD_BYTES_MAX}", payload.len());
            Error::new(ErrorKind::Unsupported, WRITE, message)
        })?;
        let head = FrameHead { first_sequence, time, operations, kind, payload_bytes };
        let mut progress = self.progress.clone();
        progress.take(&head, payload).map_err(invalid)?;
        let bytes = head.to_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        crc.update(payload);
        let parts = [&bytes, payload, &crc.finalize().to_le_bytes()];
        for part in parts {
            // It writes into memory; should it fail, the segment is lost with its writer.
            self.body.write_all(part).map_err(failed)?;
        }
        self.progress = progress;
        Ok(())
    }

    /// The length of the frames so far, before compression: what a cut by size goes by.
    pub fn raw_bytes(&self) -> u64 {
        self.progress.raw_bytes
    }

    /// The frames so far.
    pub fn frames(&self) -> u32 {
        self.progress.frames
    }

    /// The sequence number that the next frame must begin with.
    pub fn next_sequence(&self) -> u64 {
        self.progress.next_sequence
    }

    /// The time that no further frame may be older than.
    pub fn time(&self) -> u64 {
        self.progress.time
    }

    /// The chain after the frames so far.
    pub fn chain(&self) -> ContentHash {
        self.progress.chain
    }

    /// Ends the segment. Up to the time `resolved` the log is complete; `successor` ends the timeline.
    ///
    /// # Errors
    /// `InvalidArgument`: something was resolved before that no longer is.
    pub fn finish(self, resolved: u64, successor: Option<Uuid>) -> Result<EncodedSegment> {
        let SegmentWriter { start, body, progress } = self;
        if resolved.saturating_add(1) < start.floor || resolved == u64::MAX {
            return Err(invalid("what is resolved lies before the floor, or at the end of time"));
        }
        let mut bytes = body.finish().map_err(failed)?;
        let stored_bytes = (bytes.len() - HEADER_BYTES) as u64;
        if stored_bytes > BODY_BYTES_MAX {
            return Err(invalid("it is too long"));
        }
        let header = Header { start, stored_bytes, raw_bytes: progress.raw_bytes, frames: progress.frames };
        let trailer = Trailer {
            last_sequence: progress.next_sequence - 1,
            last_time: progress.time,
            resolved,
            chain: progress.chain,
            successor,
            body: ContentHash::of(&bytes[HEADER_BYTES..]),
        };
        let head = header.to_bytes();
        bytes[..HEADER_BYTES].copy_from_slice(&head);
        bytes.extend_from_slice(&trailer.to_bytes(&head));
        Ok(EncodedSegment { bytes, header, trailer })
    }
}

impl Header {
    /// The whole object's length.
    pub fn object_bytes(&self) -> u64 {
        self.stored_bytes + (HEADER_BYTES + TRAILER_BYTES) as u64
    }

    fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let Header { start, stored_bytes, raw_bytes, frames } = self;
        let SegmentStart { timeline, number, encoding, first_sequence, floor, chain } = start;
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&frames.to_le_bytes());
        bytes.extend_from_slice(timeline.as_bytes());
        for number in [number, first_sequence, floor] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&chain.to_bytes());
        bytes.extend_from_slice(&stored_bytes.to_le_bytes());
        bytes.extend_from_slice(&raw_bytes.to_le_bytes());
        let mut name = [0; ENCODING_NAME_BYTES];
        name[..encoding.name.len()].copy_from_slice(encoding.name.as_bytes());
        bytes.extend_from_slice(&name);
        bytes.extend_from_slice(&encoding.revision.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.try_into().expect("the fields fill the header")
    }
}

impl Trailer {
    fn to_bytes(self, header: &[u8; HEADER_BYTES]) -> [u8; TRAILER_BYTES] {
        let Trailer { last_sequence, last_time, resolved, chain, successor, body } = self;
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.extend_from_slice(TRAILER_MAGIC);
        for number in [last_sequence, last_time, resolved] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&chain.to_bytes());
        bytes.extend_from_slice(&u32::from(successor.is_some()).to_le_bytes());
        bytes.extend_from_slice(successor.unwrap_or_default().as_bytes());
        bytes.extend_from_slice(&body.to_bytes());
        bytes.extend_from_slice(&header[HEADER_BYTES - 4..]);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.try_into().expect("the fields fill the trailer")
    }
}

/// As `KeyEncoding::name` says.
pub(super) fn is_encoding_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=ENCODING_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// Fields of a fixed length that is known to be there.
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the fields lie within the bytes");
        self.0 = rest;
        *field
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, WRITE, message)
}

fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, WRITE, error.to_string()).because(error)
}
