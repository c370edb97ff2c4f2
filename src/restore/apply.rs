//! The log, applied to the database that is being made: segment after segment, timeline after timeline.
//!
//! How far it has come stands in that database itself (`parts.rs` says how and when); what is applied twice after a crash does
//! no harm.
//!
//! Invariants: a segment is the one that was planned (timeline, number, encoding, its place in the chain of hashes), and
//! no frame is left out or cut; what is the engine's own in the log is not restored, what is the caller's is.

use crate::encoding::{EncodingId, KeyEncoding};
use crate::engine::{Options, manage};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::Layout;
use crate::log_backup::archive::Archive;
use crate::log_backup::group::GroupReference;
use crate::log_backup::names::{ContentHash, ObjectReference};
use crate::log_backup::segment::{Frame, Header, Payload, Trailer};
use crate::log_backup::transfer::{each_in_flight, get_file};
use crate::marker;
use crate::place::journal::{self, JournalState};
use crate::restore::folder::{Folder, Found};
use crate::restore::parts::Parts;
use crate::restore::plan::{FIRST_SEGMENT, Leg};
use crate::restore::position::Position;
use crate::restore::runs::LeftOut;
use crate::restore::segments::{Piece, Segments};
use crate::rocks::batch_decoder::Batch;
use crate::rocks::{Database, Settings};
use crate::trap::trap;
use std::path::PathBuf;
use std::sync::Arc;

const STEP: &str = "apply the log";

/// What applying the log needs.
pub(super) struct Applier<'a> {
    pub vfs: &'a dyn Vfs,
    pub archive: &'a Archive,
    pub folder: &'a Folder,
    pub found: &'a Found,
    pub options: &'a Options,
    /// Asked now and then: the way to hear of a lost pin.
    pub go_on: &'a dyn Fn() -> Result<()>,
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, STEP, message)
}

impl Applier<'_> {
    /// Applies what is left of the plan, and brings the database into the encoding that was asked for. Says which planned
    /// compactions could not be used.
    ///
    /// # Errors
    /// Those of the archive and of the database; the next call goes on.
    pub fn apply(&self) -> Result<Vec<LeftOut>> {
        let (plan, spec) = (&self.found.plan, &self.found.spec);
        manage::recover(&self.folder.database, &self.own_options(), false)?;
        let begun = self.look()?;
        for (index, leg) in plan.legs.iter().enumerate().skip(begun.leg) {
            self.convert(&leg.encoding)?;
            self.leg(index, leg)?;
            trap!(self.vfs, RestoreLegApplied);
        }
        let end = self.look()?;
        // After a long idle time only a later time than that of the last frame is known to the plan.
        if end.sequence != plan.reached.sequence || end.time > plan.reached.time {
            let message = format!(
                "it ends at sequence number {} ({}), and was to end at {} ({})",
                end.sequence, end.time, plan.reached.sequence, plan.reached.time
            );
            return Err(corrupt(message).at(self.archive.url()));
        }
        if let Some(encoding) = &spec.encoding {
            self.convert(encoding)?;
        }
        Ok(end.left_out)
    }

    /// The options for the database that is being made, whatever the caller wants in the end.
    fn own_options(&self) -> Options {
        Options { encoding: None, ..self.options.clone() }
    }

    /// It is written in bulk, and compacted only where too much comes together.
    fn settings(&self) -> Settings {
        Settings { keep_wal: false, bulk: true, ..self.options.settings() }
    }

    /// Reads the position without writing: a conversion of it may be under way.
    fn look(&self) -> Result<Position> {
        let database = Database::open_read_only(self.vfs, &self.folder.database, &self.settings())?;
        Position::read(&database, self.found)
    }

    /// Brings the database into an encoding; an interrupted conversion is gone on with.
    fn convert(&self, to: &EncodingId) -> Result<()> {
        let layout = Layout::new(&self.folder.database)?;
        let marker = marker::read(self.vfs, &layout.live)?;
        let settled = journal::read(self.vfs, &layout)? == JournalState::None;
        if settled && marker.is_some_and(|marker| marker.encoding == *to) {
            return Ok(());
        }
        (self.go_on)()?;
        let encoding: Arc<dyn KeyEncoding> = self.options.encodings()?.get(to)?;
        manage::convert(&self.folder.database, &self.own_options().encoding(encoding))?;
        trap!(self.vfs, RestoreConverted);
        Ok(())
    }

    fn leg(&self, index: usize, leg: &Leg) -> Result<()> {
        let database = Database::open(self.vfs, &self.folder.database, &self.settings())?;
        let mut position = Position::read(&database, self.found)?;
        let mut parts = Parts::new(&database, self.vfs, self.folder, self.options.memory_bytes, position.clone())?;
        while position.next_segment < leg.end_segment {
            if let Some(run) = self.run_at(leg, &position) {
                (self.go_on)()?;
                self.take_run(leg, index, run, &mut position, &mut parts)?;
                parts.reached(&position);
                parts.note_now_and_then()?;
                trap!(self.vfs, RestoreRunEnded);
                continue;
            }
            let next = leg.runs.iter().map(|run| run.body.first_segment).find(|first| *first > position.next_segment);
            let end = next.unwrap_or(leg.end_segment).min(leg.end_segment);
            let mut segments = Segments::new(self.archive, leg.timeline, position.next_segment..end)?;
            while position.next_segment < end {
                (self.go_on)()?;
                self.segment(leg, index, &mut segments, &mut position, &mut parts)?;
                parts.reached(&position);
                trap!(self.vfs, RestoreSegmentRead);
            }
        }
        let plan = &self.found.plan;
        if let Some(next) = plan.legs.get(index + 1) {
            if position.sequence != leg.limit.sequence {
                let message =
                    format!("the timeline {} goes on from a place that its log does not reach", next.timeline);
                return Err(corrupt(message).at(self.archive.url()));
            }
            (position.next_segment, position.chain) = (next.first_segment, None);
        }
        position.leg = index + 1;
        // All of it is in before the position says so.
        parts.settle()?;
        parts.reached(&position);
        parts.finish()?;
        drop(parts);
        database.close()
    }

    fn segment(
        &self,
        leg: &Leg,
        index: usize,
        segments: &mut Segments,
        position: &mut Position,
        parts: &mut Parts<'_>,
    ) -> Result<()> {
        let number = position.next_segment;
        let name = crate::log_backup::names::segment(leg.timeline, number)?;
        let place = |error: Error| if error.path().is_some() { error } else { error.at(self.archive.place(&name)) };
        let Piece::Begin(ends) = segments.next().map_err(place)? else {
            return Err(place(corrupt("it does not begin where the one before it ends")));
        };
        let (header, trailer) = *ends;
        self.check_start(leg, index, position, &header).map_err(place)?;
        let last = number + 1 == leg.end_segment;
        if last && leg.chain != Some(trailer.chain) {
            return Err(place(corrupt("it is not the segment that the restore was planned with")));
        }
        if index > 0 && position.chain.is_none() {
            // Sequence numbers begin anew with a timeline.
            position.sequence = header.start.first_sequence - 1;
        }
        self.frames(leg, index, (last, &trailer), segments, position, parts).map_err(place)
    }

    fn frames(
        &self,
        leg: &Leg,
        index: usize,
        (last, trailer): (bool, &Trailer),
        segments: &mut Segments,
        position: &mut Position,
        parts: &mut Parts<'_>,
    ) -> Result<()> {
        let skip = if index == 0 { self.found.plan.snapshot.sequence } else { 0 };
        'segment: while let Piece::Frames(frames) = segments.next()? {
            for frame in frames {
                let end = (frame.first_sequence + u64::from(frame.operations)).saturating_sub(1);
                if frame.first_sequence <= skip {
                    if end > skip {
                        return Err(corrupt("the base snapshot ends within a batch"));
                    }
                    continue;
                }
                if !leg.limit.holds(frame.first_sequence, frame.operations, frame.time) {
                    if !last {
                        return Err(corrupt("it goes beyond the moment, and later ones were planned"));
                    }
                    break 'segment;
                }
                self.frame(&frame, parts)?;
                (position.sequence, position.time) = (end, frame.time);
            }
        }
        (position.next_segment, position.chain) = (position.next_segment + 1, Some(trailer.chain));
        Ok(())
    }

    /// A segment must be the one that comes next.
    fn check_start(&self, leg: &Leg, index: usize, position: &Position, header: &Header) -> Result<()> {
        let start = &header.start;
        if (start.timeline, start.number, &start.encoding) != (leg.timeline, position.next_segment, &leg.encoding) {
            return Err(corrupt("it is another segment than its name says, or in another encoding"));
        }
        let follows = match position.chain {
            Some(chain) => chain == start.chain,
            None if start.number == FIRST_SEGMENT => start.chain == ContentHash(0),
            None => true,
        };
        let reaches = index > 0 || start.first_sequence <= position.sequence.saturating_add(1);
        if follows && reaches { Ok(()) } else { Err(corrupt("it does not go on where the log before it ends")) }
    }

    fn frame(&self, frame: &Frame, parts: &mut Parts<'_>) -> Result<()> {
        match &frame.payload {
            Payload::Batch(bytes) => {
                let batch = Batch::new(bytes)?;
                if (batch.sequence, batch.count) != (frame.first_sequence, frame.operations) {
                    return Err(corrupt("a batch is not the one that its frame speaks of"));
                }
                batch.operations().try_for_each(|operation| parts.add(operation?))
            }
            Payload::Group(group) => self.load(group, parts),
        }
    }

    /// Takes the files of a bulk load in.
    fn load(&self, group: &GroupReference, parts: &mut Parts<'_>) -> Result<()> {
        parts.settle()?;
        let objects: Vec<_> = group.files.iter().map(|file| &file.object).collect();
        let files = self.fetch(self.archive, &objects, parts)?;
        trap!(self.vfs, RestoreLoadFetched);
        parts.ingest(&files, objects.iter().map(|object| object.size).sum())?;
        trap!(self.vfs, RestoreLoadTaken);
        Ok(())
    }

    /// Files to be taken in together. Those of the log so far must be in.
    ///
    /// # Errors
    /// Those of the archive and of the disk: some of them may stand, and go when others are fetched.
    pub(super) fn fetch(
        &self,
        archive: &Archive,
        objects: &[&ObjectReference],
        parts: &Parts<'_>,
    ) -> Result<Vec<PathBuf>> {
        parts.clear()?;
        let path = |number: usize| self.folder.loads.join(format!("{number:06}.sst"));
        let files: Vec<_> = (0..).zip(objects).map(|(number, object)| (path(number), *object)).collect();
        each_in_flight(&files, self.go_on, |(path, object)| get_file(archive, object, self.vfs, path))?;
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }
}
