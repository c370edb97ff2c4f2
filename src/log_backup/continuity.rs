//! Whether a database's log goes on where the archive's log of it ends. What was shipped last is looked for in the WAL files
//! and compared byte for byte: a database that was put back to an older copy gives the same numbers to other writes.

use crate::error::{ErrorKind, Result};
use crate::fs::Vfs;
use crate::log_backup::archive::Archive;
use crate::log_backup::frames::{Entry, LogReader, TimedFrame};
use crate::log_backup::segment::{Header, Payload, SegmentStart};
use crate::log_backup::segment_reader::SegmentReader;
use crate::log_backup::stream::{Stream, whole_batch};
use crate::log_backup::tail::{self, Ends};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A log as it lies on the disk.
#[derive(Debug, Clone)]
pub(super) struct LocalLog {
    /// Where its WAL files are.
    pub directory: PathBuf,
    /// The last sequence number that is durable.
    pub limit: u64,
    /// The id of the internal family.
    pub internal: u32,
}

/// How a log and the archive's log of it meet.
#[derive(Debug)]
pub(super) enum Continuity {
    /// It goes on.
    Goes(Box<Stream>),
    /// The archive's log has ended, for a successor.
    Ended(Ends),
    /// The database has another history, and how that shows.
    Diverged(String),
    /// What was shipped last is not there any more, so that nothing can be said.
    Gap(String),
}

/// Finds where to go on. `first` is what segment `floor` begins with if there is none yet.
///
/// # Errors
/// Those of the archive and of reading. Nothing was changed.
pub(super) fn resume(archive: &Archive, vfs: &dyn Vfs, log: &LocalLog, first: SegmentStart) -> Result<Continuity> {
    let (timeline, floor) = (first.timeline, first.number);
    let Some(last) = tail::last_number(archive, timeline, floor)? else {
        if floor > 0 {
            return Ok(Continuity::Gap(format!("the archive has no segment from {floor} on, though it had some")));
        }
        let LocalLog { directory, internal, limit } = log;
        if *limit + 1 < first.first_sequence {
            return Ok(Continuity::Diverged(format!("it ends at {limit}, before its timeline began")));
        }
        let (expected, time) = (first.first_sequence, first.floor);
        let reader = LogReader::from_sequence(vfs, directory, expected, time, *internal)?;
        return Ok(Continuity::Goes(Box::new(Stream::new(reader, None, first))));
    };
    let end = tail::ends(archive, timeline, last)?;
    if end.trailer.successor.is_some() {
        return Ok(Continuity::Ended(end));
    }
    let next = end.next();
    let shipped = end.trailer.last_sequence;
    if log.limit < shipped {
        let message = format!("it ends at {}, and {shipped} was shipped already", log.limit);
        return Ok(Continuity::Diverged(message));
    }
    let Some(number) = tail::holding(archive, timeline, floor, last, shipped)? else {
        // Nothing but the time was ever shipped.
        let reader = LogReader::from_sequence(vfs, &log.directory, shipped + 1, next.floor, log.internal)?;
        return Ok(Continuity::Goes(Box::new(Stream::new(reader, None, next))));
    };
    let bytes = tail::whole(archive, timeline, number)?;
    let segment = SegmentReader::new(&bytes)?;
    let header = segment.header().clone();
    let batches = batches(segment)?;
    compare(vfs, log, &header, &batches, next)
}

/// The batches of a segment by their first sequence numbers. Groups come from files, and are not compared.
fn batches(segment: SegmentReader<'_>) -> Result<BTreeMap<u64, Vec<u8>>> {
    let mut batches = BTreeMap::new();
    for frame in segment {
        let frame = frame?;
        if let Payload::Batch(bytes) = frame.payload {
            batches.insert(frame.first_sequence, bytes);
        }
    }
    Ok(batches)
}

fn compare(
    vfs: &dyn Vfs,
    log: &LocalLog,
    header: &Header,
    batches: &BTreeMap<u64, Vec<u8>>,
    next: SegmentStart,
) -> Result<Continuity> {
    let shipped = next.first_sequence - 1;
    let open = |sequence| LogReader::from_sequence(vfs, &log.directory, sequence, header.start.floor, log.internal);
    let mut reader = open(header.start.first_sequence)?;
    let (mut compared, mut at) = (None, None);
    loop {
        let missing = || format!("the write {shipped}, shipped last, is not in the log any more");
        let entry = match reader.next(vfs, shipped) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Continuity::Gap(error.to_string())),
            entry => entry?,
        };
        match entry {
            Entry::Record { batch, frames, end, .. } => {
                at = Some(end);
                for frame in &frames {
                    if !is_same(batches, batch, frame) {
                        return Ok(Continuity::Diverged(format!(
                            "the write {} is not the one shipped",
                            frame.sequence
                        )));
                    }
                    compared = Some(frame.sequence + u64::from(frame.operations).saturating_sub(1));
                }
            }
            // Its beginning was shipped and removed.
            Entry::Gap(gap) if compared.is_none() && gap.found <= shipped => reader = open(gap.found)?,
            Entry::Done if compared == Some(shipped) => {
                return Ok(Continuity::Goes(Box::new(Stream::new(reader, at, next))));
            }
            Entry::Done | Entry::Loading | Entry::Gap(_) | Entry::Short { .. } => {
                return Ok(Continuity::Gap(missing()));
            }
        }
    }
}

fn is_same(batches: &BTreeMap<u64, Vec<u8>>, batch: &[u8], frame: &TimedFrame) -> bool {
    let mut payload = Vec::new();
    whole_batch(&mut payload, batch, frame);
    batches.get(&frame.sequence) == Some(&payload)
}
