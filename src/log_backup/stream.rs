//! One timeline's log on its way from WAL files into segments.
//!
//! Invariants: a segment is built once and kept until it stands, so a put that is repeated has the same bytes; nothing
//! beyond the limit, which is durable, is ever read; what a load brought is durable before the segment that speaks of it.

use crate::attachment::{Load, LoadState};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::log_backup::archive::Archive;
use crate::log_backup::frames::{Entry, LogReader, TimedFrame};
use crate::log_backup::group::GroupReference;
use crate::log_backup::names;
use crate::log_backup::segment::{EncodedSegment, SegmentStart, SegmentWriter};
use crate::rocks::wal::{BATCH_HEADER_BYTES, Position};
use crate::trap::trap;
use uuid::Uuid;

const STEP: &str = "ship the log";

/// Makes objects of the files of a load that comes after this sequence number. `Lost`: the files are gone.
pub(super) type Groups<'g> = &'g mut dyn FnMut(&Load, u64) -> Result<GroupReference>;

/// A segment that is built and maybe not stored yet.
#[derive(Debug)]
struct Built {
    segment: EncodedSegment,
    end: Position,
    groups: Vec<Uuid>,
}

/// A segment that stands.
#[derive(Debug)]
pub(super) struct Published {
    /// Where the last record ends that is stored; the start of all if that is not known.
    pub end: Position,
    /// The loads whose files are not needed any more.
    pub groups: Vec<Uuid>,
    /// The length of the object.
    pub bytes: u64,
    /// The sequence numbers in it.
    pub sequences: u64,
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Step {
    /// A segment was stored.
    Published(Published),
    /// All up to the limit is stored.
    Done,
    /// A bulk load is under way within the limit: the rest comes later.
    Loading,
    /// The log does not go on, and why.
    Gap(String),
    /// Another segment stands where ours was to be.
    Taken(Error),
}

/// How segments are cut and ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// The last sequence number that may be read.
    pub limit: u64,
    /// Frames that are not within the limit are not before this time.
    pub time: u64,
    /// A segment is ended when its frames have so many bytes.
    pub bytes: u64,
    /// A last segment is stored even if it has no frame.
    pub idle: bool,
    /// The timeline ends at the limit, and this one follows.
    pub successor: Option<Uuid>,
}

#[derive(Debug)]
pub(super) struct Stream {
    reader: LogReader,
    next: SegmentStart,
    built: Option<Built>,
    /// Where the last record ends that was read. The reader itself may have gone on to a file without any.
    read: Position,
    times: (u64, u64),
    ended: bool,
    /// Why the log does not go on. The record that says so may lie behind the reader, which would not meet it again.
    broken: Option<String>,
}

enum Filled {
    Full,
    Done,
    Loading,
    Gap(String),
}

impl Stream {
    /// Goes on with segment `next`; the reader stands where it begins, and the record before that ends at `read`, if that is
    /// known.
    pub fn new(mut reader: LogReader, read: Option<Position>, next: SegmentStart) -> Self {
        reader.raise(next.floor);
        let read = read.unwrap_or_default();
        let times = (next.floor, next.floor.saturating_sub(1));
        Stream { reader, next, built: None, read, times, ended: false, broken: None }
    }

    /// What the next segment begins with.
    pub fn next(&self) -> &SegmentStart {
        &self.next
    }

    /// The last sequence number that is stored.
    pub fn shipped(&self) -> u64 {
        self.next.first_sequence - 1
    }

    /// The time of the last frame that is stored (the floor if there is none), and up to when the log is complete.
    pub fn times(&self) -> (u64, u64) {
        self.times
    }

    /// Whether it can go on after an error.
    pub fn is_sound(&self) -> bool {
        self.built.is_some()
    }

    /// Where the reader stands.
    pub fn position(&self) -> Position {
        self.reader.position()
    }

    /// Stores the next segment, if there is one to be.
    ///
    /// # Errors
    /// Those of the archive: the segment may stand, and the next call goes on with it. After any other error
    /// ([`Stream::is_sound`] says no) frames may have been read and lost: make another stream.
    pub fn step(&mut self, vfs: &dyn Vfs, archive: &Archive, cut: Cut, groups: Groups<'_>) -> Result<Step> {
        if self.built.is_none() {
            match self.build(vfs, cut, groups)? {
                Ok(built) => self.built = Some(built),
                Err(step) => return Ok(step),
            }
        }
        let Some(built) = &self.built else { return Ok(Step::Done) };
        let name = names::segment(built.segment.header.start.timeline, built.segment.header.start.number)?;
        trap!(vfs, ShipSegmentBefore);
        match archive.put_create(&name, built.segment.bytes.clone()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(Step::Taken(error)),
            Err(error) => return Err(error),
        }
        trap!(vfs, ShipSegmentAfter);
        let sequences = built.segment.trailer.last_sequence + 1 - built.segment.header.start.first_sequence;
        self.next = built.segment.next();
        self.times = (built.segment.trailer.last_time, built.segment.trailer.resolved);
        self.reader.raise(self.next.floor);
        self.ended |= built.segment.trailer.successor.is_some();
        let Some(Built { segment, end, groups }) = self.built.take() else { return Ok(Step::Done) };
        Ok(Step::Published(Published { end, groups, bytes: segment.bytes.len() as u64, sequences }))
    }

    fn build(&mut self, vfs: &dyn Vfs, cut: Cut, groups: Groups<'_>) -> Result<Result<Built, Step>> {
        if let Some(why) = &self.broken {
            return Ok(Err(Step::Gap(why.clone())));
        }
        let mut writer = SegmentWriter::new(self.next.clone())?;
        let mut loads = Vec::new();
        let filled = self.fill(vfs, cut, groups, &mut writer, &mut loads)?;
        if let Filled::Gap(why) = &filled {
            self.broken = Some(why.clone());
        }
        let wanted = match &filled {
            Filled::Done => cut.idle || (cut.successor.is_some() && !self.ended),
            _ => false,
        };
        if writer.frames() == 0 && !wanted {
            return Ok(Err(match filled {
                Filled::Full | Filled::Done => Step::Done,
                Filled::Loading => Step::Loading,
                Filled::Gap(why) => Step::Gap(why),
            }));
        }
        let last = matches!(filled, Filled::Done);
        // A timeline that has ended has no later frame, whatever its time.
        let successor = cut.successor.filter(|_| last);
        let known = if last { writer.time().max(cut.time) } else { writer.time() };
        let resolved = if successor.is_some() { writer.time() } else { known.saturating_sub(1) };
        let segment = writer.finish(resolved, successor)?;
        Ok(Ok(Built { segment, end: self.read, groups: loads }))
    }

    fn fill(
        &mut self,
        vfs: &dyn Vfs,
        cut: Cut,
        groups: Groups<'_>,
        writer: &mut SegmentWriter,
        loads: &mut Vec<Uuid>,
    ) -> Result<Filled> {
        let mut payload = Vec::new();
        while writer.raw_bytes() < cut.bytes {
            let entry = match self.reader.next(vfs, cut.limit) {
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Filled::Gap(error.to_string())),
                entry => entry?,
            };
            let (batch, frames, load, end) = match entry {
                Entry::Record { batch, frames, load, end } => (batch, frames, load, end),
                Entry::Done => return Ok(Filled::Done),
                Entry::Loading => return Ok(Filled::Loading),
                Entry::Gap(gap) => {
                    let message = format!("the log goes on at {} where {} was to come", gap.found, gap.expected);
                    return Ok(Filled::Gap(message));
                }
                Entry::Short { expected } => {
                    return Ok(Filled::Gap(format!("the log ends before {expected}, up to {} was written", cut.limit)));
                }
            };
            if let (Some(load), Some(first)) = (&load, frames.first()) {
                match push_load(writer, load, first, groups, loads) {
                    Err(error) if error.kind() == ErrorKind::Lost => return Ok(Filled::Gap(error.to_string())),
                    pushed => pushed?,
                }
            }
            self.read = end;
            for frame in &frames {
                whole_batch(&mut payload, batch, frame);
                writer.push_batch(frame.sequence, frame.time, frame.operations, &payload)?;
            }
        }
        Ok(Filled::Full)
    }
}

/// A load that has ended stands before the record that says so, and takes the numbers up to it.
fn push_load(
    writer: &mut SegmentWriter,
    load: &Load,
    first: &TimedFrame,
    groups: Groups<'_>,
    loads: &mut Vec<Uuid>,
) -> Result<()> {
    let done = match load.state {
        LoadState::Begun => return Ok(()),
        LoadState::Done { .. } => true,
        LoadState::Failed { .. } => false,
    };
    let sequence = writer.next_sequence();
    let taken = first.sequence.saturating_sub(sequence);
    let operations = u32::try_from(taken)
        .map_err(|_| Error::new(ErrorKind::Unsupported, STEP, format!("a bulk load took {taken} sequence numbers")))?;
    if done {
        let group = groups(load, sequence - 1)?;
        writer.push_group(sequence, first.time, operations, &group)?;
        loads.push(load.group);
    } else if operations > 0 {
        let nothing = GroupReference { group: load.group, files: Vec::new() };
        writer.push_group(sequence, first.time, operations, &nothing)?;
    }
    Ok(())
}

/// A frame as a batch of its own.
pub(super) fn whole_batch(out: &mut Vec<u8>, batch: &[u8], frame: &TimedFrame) {
    out.clear();
    out.reserve(BATCH_HEADER_BYTES + frame.bytes.len());
    out.extend_from_slice(&frame.sequence.to_le_bytes());
    out.extend_from_slice(&frame.operations.to_le_bytes());
    out.extend_from_slice(batch.get(frame.bytes.clone()).unwrap_or_default());
}
