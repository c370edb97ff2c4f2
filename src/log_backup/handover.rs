//! After a conversion, or a restore over an attached database: the log from before it is shipped to its end, out of
//! `unshipped/`, and the new timeline begins.
//!
//! Steps, each of which can be repeated: the rest of the earlier log, the last segment naming the successor; the new
//! timeline in HEAD; `unshipped/` goes. A conversion's timeline goes on from the end of the earlier one; where that log cannot
//! be brought to its end, it goes on from where that stopped, and needs a base snapshot of its own. A restore's timeline goes on
//! from the place that was restored to, which is in the archive whatever becomes of the log after it.

use crate::attachment::{ANY_INTERNAL, Attachment, Cause, Parent, Restored};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, remove_tree};
use crate::layout::{PENDING_INGEST, UNSHIPPED};
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::load;
use crate::log_backup::continuity::{Continuity, LocalLog, resume};
use crate::log_backup::head::{self, Head, LogPosition, Timeline};
use crate::log_backup::loads::Loads;
use crate::log_backup::names::ContentHash;
use crate::log_backup::segment::SegmentStart;
use crate::log_backup::stream::{Cut, Published, Step, Stream};
use crate::log_backup::timelines::{commit_timeline, end_of, first_time, floor_of, may_follow, taken};
use crate::trap::trap;

const STEP: &str = "ship the log that was handed over";

/// A log that was handed over.
pub(super) struct Handover<'a> {
    pub archive: &'a Archive,
    pub engine: &'a Engine,
    pub vfs: &'a dyn Vfs,
    pub own: &'a Attachment,
    /// A segment is ended when its frames have so many bytes.
    pub segment_bytes: u64,
    /// Told of each segment.
    pub published: &'a mut dyn FnMut(&Published),
}

impl Handover<'_> {
    /// Brings it to its end, if there is one.
    ///
    /// # Errors
    /// `Conflict`: another database writes the archive. After any other error, repeat.
    pub fn finish(mut self) -> Result<()> {
        let unshipped = self.engine.path().join(UNSHIPPED);
        if self.vfs.stat(&unshipped)?.is_none() {
            return Ok(());
        }
        let head = load(self.archive)?.head;
        if !head.timelines.iter().any(|timeline| timeline.id == self.own.timeline) {
            self.hand_over(&head)?;
        }
        trap!(self.vfs, ShipHandoverCommitted);
        remove_tree(self.vfs, &unshipped)?;
        self.vfs.sync_dir(self.engine.path())?;
        trap!(self.vfs, ShipUnshippedRemoved);
        Ok(())
    }

    fn hand_over(&mut self, head: &Head) -> Result<()> {
        let Some(parent) = self.own.parent else {
            let message = "a log was handed over, and the attachment does not say whose";
            return Err(Error::new(ErrorKind::Corrupt, STEP, message).at(self.engine.path()));
        };
        let Some(known) = head.timelines.iter().find(|timeline| timeline.id == parent.timeline) else {
            return Err(taken(self.archive, head, self.own.timeline));
        };
        if !may_follow(self.archive, head, parent.timeline)? {
            return Err(taken(self.archive, head, self.own.timeline));
        }
        let cause = self.ship_parent(head, known, parent)?;
        trap!(self.vfs, ShipParentEnded);
        let (parent, cause) = match self.own.restored {
            Some(restored) => (Some(place_of(&restored)), Cause::Restore),
            None => (end_of(self.archive, head, parent.timeline)?, cause),
        };
        let timeline = Timeline { id: self.own.timeline, parent, encoding: self.engine.encoding(), cause };
        commit_timeline(self.archive, &timeline, head).map(|_| ())
    }

    /// Says how a conversion's timeline relates to the parent.
    fn ship_parent(&mut self, head: &Head, known: &Timeline, parent: Parent) -> Result<Cause> {
        let directory = self.engine.path().join(UNSHIPPED);
        // It was written by the database from before, which may have given its internal family another id.
        let internal = ANY_INTERNAL;
        let log = LocalLog { directory, limit: parent.end_sequence, internal };
        let number = floor_of(head, parent.timeline)?;
        let begins_after = self.own.restored.map(|restored| restored.replaced_after);
        if begins_after.is_none() && end_of(self.archive, head, parent.timeline)?.is_none() {
            tracing::warn!("nothing was shipped of the log that was handed over; a base snapshot follows");
            return Ok(Cause::Gap);
        }
        let first = SegmentStart {
            timeline: parent.timeline,
            number,
            encoding: known.encoding.clone(),
            first_sequence: begins_after.unwrap_or(0) + 1,
            floor: first_time(self.archive, known)?,
            chain: ContentHash(0),
        };
        match resume(self.archive, self.vfs, &log, first)? {
            Continuity::Goes(stream) => self.ship_rest(*stream, &log),
            Continuity::Ended(ends) if ends.trailer.successor == Some(self.own.timeline) => Ok(Cause::Conversion),
            Continuity::Ended(_) => {
                tracing::warn!("the log that was handed over went on where it had ended; a base snapshot follows");
                Ok(Cause::Diverged)
            }
            Continuity::Diverged(why) => {
                tracing::warn!(why, "the log that was handed over is another than was shipped");
                Ok(Cause::Diverged)
            }
            Continuity::Gap(why) => {
                tracing::warn!(why, "the log that was handed over has a gap");
                Ok(Cause::Gap)
            }
        }
    }

    fn ship_rest(&mut self, mut stream: Stream, log: &LocalLog) -> Result<Cause> {
        let cut = Cut {
            limit: log.limit,
            time: 0,
            bytes: self.segment_bytes,
            idle: false,
            successor: Some(self.own.timeline),
        };
        let loads = Loads {
            archive: self.archive,
            vfs: self.vfs,
            folder: log.directory.join(PENDING_INGEST),
            live: self.engine.path(),
            timeline: stream.next().timeline,
        };
        loop {
            let step = stream.step(self.vfs, self.archive, cut, &mut |load, sequence| loads.store(load, sequence))?;
            match step {
                Step::Published(published) => (self.published)(&published),
                Step::Done => return Ok(Cause::Conversion),
                Step::Loading => return Ok(Cause::Gap),
                Step::Gap(why) => {
                    tracing::warn!(why, "the log that was handed over has a gap");
                    return Ok(Cause::Gap);
                }
                Step::Taken(error) => return Err(error),
            }
        }
    }
}

/// The place that was restored to.
fn place_of(restored: &Restored) -> head::Parent {
    let Restored { timeline, segment, sequence, time, .. } = *restored;
    head::Parent { timeline, end: LogPosition { segment, sequence, time } }
}
