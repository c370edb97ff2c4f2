//! The segments of a stretch of a timeline, fetched and decoded ahead of whoever goes through them.
//!
//! One thread fetches, one decodes: a segment and a few frames wait before whoever goes through them, never more. What is
//! wrong with a segment comes out where its turn is, and is the last that does.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::names;
use crate::log_backup::segment::{Frame, Header, Payload, SEGMENT_BYTES_MAX, Trailer};
use crate::log_backup::segment_reader::SegmentReader;
use bytes::Bytes;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use uuid::Uuid;

const STEP: &str = "read the log";
/// Longer ones are fetched when it is their turn.
const AHEAD_BYTES_MAX: u64 = 64 << 20;
/// Frames are handed on together, up to so many bytes.
const FRAMES_BYTES: usize = 1 << 20;

/// What comes of a segment, in this order.
pub(super) enum Piece {
    /// Its checksums fit.
    Begin(Box<(Header, Trailer)>),
    /// Some of its frames.
    Frames(Vec<Frame>),
    /// Those were all, and all that the trailer says is true.
    End,
}

/// The segments, in order.
pub(super) struct Segments {
    /// Taken when it ends, so that the threads do.
    pieces: Option<Receiver<Result<Piece>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Segments {
    /// Of these numbers.
    ///
    /// # Errors
    /// `Io`: the system gives no thread.
    pub(super) fn new(archive: &Archive, timeline: Uuid, numbers: Range<u64>) -> Result<Self> {
        // The one that waits is handed over, and not kept as well.
        let (fetched, to_decode) = sync_channel(0);
        let (decoded, pieces) = sync_channel(1);
        let mut segments = Segments { pieces: Some(pieces), threads: Vec::new() };
        let reader = Reader { archive: archive.clone(), timeline };
        segments.start("fetch", move || reader.fetch(numbers, &fetched))?;
        let reader = Reader { archive: archive.clone(), timeline };
        segments.start("decode", move || reader.decode(&to_decode, &decoded))?;
        Ok(segments)
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(format!("morphkv-{name}")).spawn(work);
        self.threads.push(thread.map_err(|error| Error::new(ErrorKind::Io, STEP, error.to_string()).because(error))?);
        Ok(())
    }

    /// The next piece.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Unsupported`, `Io`: nothing comes after it.
    pub(super) fn next(&mut self) -> Result<Piece> {
        let next = self.pieces.as_ref().and_then(|pieces| pieces.recv().ok());
        next.unwrap_or_else(|| Err(Error::new(ErrorKind::Io, STEP, "a thread that reads it has ended")))
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.pieces = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Reader {
    archive: Archive,
    timeline: Uuid,
}

/// A number, and the segment; `None`: it was not fetched, since it is too long to wait.
type Fetched = (u64, Result<Option<Bytes>>);

impl Reader {
    fn get(&self, number: u64, bytes_max: u64) -> Result<Bytes> {
        Ok(self.archive.get(&names::segment(self.timeline, number)?, bytes_max)?.bytes)
    }

    fn fetch(&self, numbers: Range<u64>, fetched: &SyncSender<Fetched>) {
        for number in numbers {
            let segment = match self.get(number, AHEAD_BYTES_MAX) {
                Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
                other => other.map(Some),
            };
            let failed = segment.is_err();
            if fetched.send((number, segment)).is_err() || failed {
                return;
            }
        }
    }

    fn decode(&self, fetched: &Receiver<Fetched>, decoded: &SyncSender<Result<Piece>>) {
        while let Ok((number, segment)) = fetched.recv() {
            let bytes = match segment {
                Ok(None) => self.get(number, SEGMENT_BYTES_MAX),
                Ok(Some(bytes)) => Ok(bytes),
                Err(error) => Err(error),
            };
            let end = match bytes.and_then(|bytes| self.pieces(number, &bytes, decoded)) {
                Ok(true) => continue,
                // Nobody wants it any more.
                Ok(false) => return,
                Err(error) => error,
            };
            let _ = decoded.send(Err(end));
            return;
        }
    }

    /// Says whether somebody wants more.
    fn pieces(&self, number: u64, bytes: &[u8], decoded: &SyncSender<Result<Piece>>) -> Result<bool> {
        let name = names::segment(self.timeline, number)?;
        let place = |error: Error| if error.path().is_some() { error } else { error.at(self.archive.place(&name)) };
        let mut reader = SegmentReader::new(bytes).map_err(place)?;
        let give = |piece| decoded.send(Ok(piece)).is_ok();
        if !give(Piece::Begin(Box::new((reader.header().clone(), *reader.trailer())))) {
            return Ok(false);
        }
        let (mut frames, mut len) = (Vec::new(), 0);
        for frame in reader.by_ref() {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    // What comes before it may be all that is wanted.
                    give(Piece::Frames(frames));
                    return Err(place(error));
                }
            };
            len += match &frame.payload {
                Payload::Batch(bytes) => bytes.len(),
                Payload::Group(_) => 0,
            };
            frames.push(frame);
            if len >= FRAMES_BYTES {
                len = 0;
                if !give(Piece::Frames(std::mem::take(&mut frames))) {
                    return Ok(false);
                }
            }
        }
        Ok(give(Piece::Frames(frames)) && give(Piece::End))
    }
}
