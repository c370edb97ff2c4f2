//! Reading a segment: everything is checked before it is used, and nothing is allocated on its word alone.

use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::group::GroupReference;
use crate::log_backup::names::{ContentHash, SEGMENT_NUMBERS};
use crate::log_backup::segment::{
    BODY_BYTES_MAX, ENCODING_NAME_BYTES, FRAME_HEAD_BYTES, Fields, Frame, FrameHead, HEADER_BYTES, Header, KIND_BATCH,
    KIND_GROUP, MAGIC, PAYLOAD_BYTES_MAX, Payload, Progress, SEGMENT_FORMAT, SegmentStart, TRAILER_BYTES,
    TRAILER_MAGIC, Trailer, is_encoding_name,
};
use std::io::Read;
use uuid::Uuid;

const READ: &str = "read a segment of the log";

/// Decompression needs at most 8 MiB for its window, whatever the body claims.
const WINDOW_LOG_MAX: u32 = 23;

/// Reads the first [`HEADER_BYTES`] of a segment.
///
/// # Errors
/// `Corrupt`; `Unsupported` for a later format.
pub fn read_header(bytes: &[u8]) -> Result<Header> {
    let bytes: &[u8; HEADER_BYTES] = bytes.try_into().map_err(|_| corrupt("its header has another length"))?;
    if !bytes.starts_with(MAGIC) {
        return Err(corrupt("it does not begin as a segment does"));
    }
    check_crc(bytes, "the checksum of its header does not fit")?;
    let mut fields = Fields(&bytes[MAGIC.len()..]);
    let format = u32::from_le_bytes(fields.take());
    if format != SEGMENT_FORMAT {
        let message = format!("it has format {format}, this version knows format {SEGMENT_FORMAT}");
        return Err(Error::new(ErrorKind::Unsupported, READ, message));
    }
    let frames = u32::from_le_bytes(fields.take());
    let timeline = Uuid::from_bytes(fields.take());
    let [number, first_sequence, floor] = std::array::from_fn(|_| u64::from_le_bytes(fields.take()));
    let chain = ContentHash::from_bytes(fields.take());
    let [stored_bytes, raw_bytes] = std::array::from_fn(|_| u64::from_le_bytes(fields.take()));
    let name: [u8; ENCODING_NAME_BYTES] = fields.take();
    let revision = u32::from_le_bytes(fields.take());
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let (name, padding) = name.split_at(len);
    let name = str::from_utf8(name).unwrap_or_default().to_string();
    if padding.iter().any(|byte| *byte != 0) || !is_encoding_name(&name) {
        return Err(corrupt("its encoding has no sound name"));
    }
    let sound = number < SEGMENT_NUMBERS && (1..u64::MAX).contains(&first_sequence);
    if !sound || stored_bytes > BODY_BYTES_MAX || raw_bytes > BODY_BYTES_MAX {
        return Err(corrupt("its number, its first sequence number or its length is out of bounds"));
    }
    let encoding = EncodingId { name, revision };
    let start = SegmentStart { timeline, number, encoding, first_sequence, floor, chain };
    Ok(Header { start, stored_bytes, raw_bytes, frames })
}

/// Reads the last [`TRAILER_BYTES`] of a segment, alone.
///
/// # Errors
/// `Corrupt`.
pub fn read_trailer(bytes: &[u8]) -> Result<Trailer> {
    let bytes: &[u8; TRAILER_BYTES] = bytes.try_into().map_err(|_| corrupt("its trailer has another length"))?;
    if !bytes.starts_with(TRAILER_MAGIC) {
        return Err(corrupt("it does not end as a segment does"));
    }
    check_crc(bytes, "the checksum of its trailer does not fit")?;
    let mut fields = Fields(&bytes[TRAILER_MAGIC.len()..]);
    let [last_sequence, last_time, resolved] = std::array::from_fn(|_| u64::from_le_bytes(fields.take()));
    let chain = ContentHash::from_bytes(fields.take());
    let ends = u32::from_le_bytes(fields.take());
    let successor = Uuid::from_bytes(fields.take());
    let body = ContentHash::from_bytes(fields.take());
    let successor = match ends {
        0 if successor.is_nil() => None,
        1 => Some(successor),
        _ => return Err(corrupt("it neither ends its timeline nor does not")),
    };
    if last_sequence >= u64::MAX - 1 || resolved == u64::MAX {
        return Err(corrupt("its last sequence number or its time is out of bounds"));
    }
    Ok(Trailer { last_sequence, last_time, resolved, chain, successor, body })
}

/// The crc32 in the last four bytes, of all before them.
fn check_crc(bytes: &[u8], message: &'static str) -> Result<()> {
    let (content, crc) = bytes.split_at(bytes.len() - 4);
    if crc32fast::hash(content).to_le_bytes() == crc { Ok(()) } else { Err(corrupt(message)) }
}

/// A whole segment whose checksums fit; yields its frames, decompressing as it goes.
pub struct SegmentReader<'b> {
    header: Header,
    trailer: Trailer,
    body: Option<zstd::stream::read::Decoder<'static, &'b [u8]>>,
    progress: Progress,
}

impl<'b> SegmentReader<'b> {
    /// Checks header, trailer and the hash of the body.
    ///
    /// # Errors
    /// `Corrupt`; `Unsupported` for a later format.
    pub fn new(bytes: &'b [u8]) -> Result<Self> {
        let torn = || corrupt("it is shorter than a segment can be");
        let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(torn)?;
        let header = read_header(head)?;
        let (body, tail) = rest.split_last_chunk::<TRAILER_BYTES>().ok_or_else(torn)?;
        let trailer = read_trailer(tail)?;
        let crc_of_header = &tail[TRAILER_BYTES - 8..TRAILER_BYTES - 4];
        if header.object_bytes() != bytes.len() as u64 || crc_of_header != &head[HEADER_BYTES - 4..] {
            return Err(corrupt("its header and its trailer do not belong together"));
        }
        if ContentHash::of(body) != trailer.body {
            return Err(corrupt("the hash of its body does not fit"));
        }
        if trailer.resolved.saturating_add(1) < header.start.floor {
            return Err(corrupt("what is resolved lies before its floor"));
        }
        let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?.single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
        let progress = Progress::at(&header.start);
        Ok(SegmentReader { header, trailer, body: Some(decoder), progress })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The trailer.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// The chain after the frames that were read so far.
    pub fn chain(&self) -> ContentHash {
        self.progress.chain
    }

    fn read_frame(&mut self, body: &mut impl Read) -> Result<Frame> {
        let mut head = [0; FRAME_HEAD_BYTES];
        body.read_exact(&mut head).map_err(broken)?;
        let parsed = FrameHead::from_bytes(&head);
        let room = self.header.raw_bytes - self.progress.raw_bytes;
        let needed = FRAME_HEAD_BYTES as u64 + u64::from(parsed.payload_bytes) + 4;
        if needed > room || parsed.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(corrupt("a frame is longer than the body"));
        }
        // It grows as bytes come, so a lie about the length costs nothing.
        let mut payload = Vec::new();
        let len = body.take(u64::from(parsed.payload_bytes)).read_to_end(&mut payload).map_err(broken)?;
        let mut expected = [0; 4];
        body.read_exact(&mut expected).map_err(broken)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(&payload);
        if len != parsed.payload_bytes as usize || crc.finalize().to_le_bytes() != expected {
            return Err(corrupt("the checksum of a frame does not fit"));
        }
        self.progress.take(&parsed, &payload).map_err(corrupt)?;
        let payload = match parsed.kind {
            KIND_BATCH => Payload::Batch(payload),
            KIND_GROUP => Payload::Group(GroupReference::from_bytes(&payload)?),
            _ => return Err(corrupt("a frame is of no known kind")),
        };
        let FrameHead { first_sequence, time, operations, .. } = parsed;
        Ok(Frame { first_sequence, time, operations, payload })
    }

    /// After the last frame nothing may be left, and all that was said must have come true.
    fn check_end(&self, mut body: zstd::stream::read::Decoder<'static, &'b [u8]>) -> Result<()> {
        let more = body.read(&mut [0; 1]).map_err(broken)?;
        if more != 0 || !body.finish().is_empty() {
            return Err(corrupt("something follows its last frame"));
        }
        let Progress { next_sequence, time, chain, raw_bytes, .. } = self.progress;
        let Trailer { last_sequence, last_time, .. } = self.trailer;
        let agrees = (next_sequence - 1, time, chain) == (last_sequence, last_time, self.trailer.chain);
        if !agrees || raw_bytes != self.header.raw_bytes {
            return Err(corrupt("its frames are not those that its trailer speaks of"));
        }
        Ok(())
    }
}

impl Iterator for SegmentReader<'_> {
    type Item = Result<Frame>;

    /// The next frame. An error is the last item; only with `None` after the last frame is the whole segment proven.
    fn next(&mut self) -> Option<Self::Item> {
        let mut body = self.body.take()?;
        if self.progress.frames == self.header.frames {
            return self.check_end(body).err().map(Err);
        }
        let frame = self.read_frame(&mut body);
        if frame.is_ok() {
            self.body = Some(body);
        }
        Some(frame)
    }
}

fn corrupt(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, READ, message)
}

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Corrupt, READ, format!("its body cannot be decompressed: {error}")).because(error)
}
