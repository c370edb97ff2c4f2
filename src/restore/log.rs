//! The log of an archive, as a plan reads it: the two ends of a segment by ranged reads, and one segment whole.

use crate::error::{ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::names;
use crate::log_backup::segment::{HEADER_BYTES, SEGMENT_BYTES_MAX, TRAILER_BYTES};
use crate::log_backup::segment_reader::{SegmentReader, read_header, read_trailer};
use crate::restore::plan::{Ends, Limit, Log, Reached, corrupt};
use bytes::Bytes;
use uuid::Uuid;

/// The segments of an archive.
pub struct ArchiveLog<'a> {
    archive: &'a Archive,
}

impl<'a> ArchiveLog<'a> {
    /// Of this archive.
    pub fn new(archive: &'a Archive) -> Self {
        ArchiveLog { archive }
    }

    /// A whole segment. It is not checked.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Corrupt`: it is longer than a segment can be.
    pub fn segment(&self, timeline: Uuid, number: u64) -> Result<Bytes> {
        Ok(self.archive.get(&names::segment(timeline, number)?, SEGMENT_BYTES_MAX)?.bytes)
    }
}

impl Log for ArchiveLog<'_> {
    fn ends(&self, timeline: Uuid, number: u64) -> Result<Option<Ends>> {
        let name = names::segment(timeline, number)?;
        let place = || self.archive.place(&name);
        let head = match self.archive.get_range(&name, 0, HEADER_BYTES as u32) {
            Ok(head) => head,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = read_header(&head).map_err(|error| error.at(place()))?;
        let offset = header.object_bytes() - TRAILER_BYTES as u64;
        let tail = self.archive.get_range(&name, offset, TRAILER_BYTES as u32)?;
        let trailer = read_trailer(&tail).map_err(|error| error.at(place()))?;
        // The trailer repeats the header's checksum.
        let together = tail[TRAILER_BYTES - 8..TRAILER_BYTES - 4] == head[HEADER_BYTES - 4..];
        if !together || (header.start.timeline, header.start.number) != (timeline, number) {
            return Err(corrupt("it is not the segment that its name says").at(place()));
        }
        Ok(Some(Ends { header, trailer }))
    }

    fn last_within(&self, timeline: Uuid, number: u64, limit: Limit) -> Result<Option<Reached>> {
        let name = names::segment(timeline, number)?;
        let bytes = self.segment(timeline, number)?;
        let read = || {
            let mut last = None;
            for frame in SegmentReader::new(&bytes)? {
                let frame = frame?;
                if !limit.holds(frame.first_sequence, frame.operations, frame.time) {
                    break;
                }
                let sequence = (frame.first_sequence + u64::from(frame.operations)).saturating_sub(1);
                last = Some(Reached { sequence, time: frame.time });
            }
            Ok(last)
        };
        read().map_err(|error: crate::error::Error| error.at(self.archive.place(&name)))
    }
}
