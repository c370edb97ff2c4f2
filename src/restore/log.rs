//! The log of an archive, as a plan reads it.

use crate::error::{ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::names;
use crate::log_backup::segment_reader::SegmentReader;
use crate::log_backup::tail::{self, Ends};
use crate::restore::plan::{Limit, Log, Reached};
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
}

impl Log for ArchiveLog<'_> {
    fn ends(&self, timeline: Uuid, number: u64) -> Result<Option<Ends>> {
        match tail::ends(self.archive, timeline, number) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            ends => ends.map(Some),
        }
    }

    fn last_within(&self, timeline: Uuid, number: u64, limit: Limit) -> Result<Option<Reached>> {
        let name = names::segment(timeline, number)?;
        let bytes = tail::whole(self.archive, timeline, number)?;
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
