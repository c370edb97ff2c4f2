//! A compaction, taken in instead of the segments that it stands for.
//!
//! It must never fail a restore: whatever is wrong with its objects, the segments are gone through instead. That is right
//! also after a part of it was taken in, since every segment that it stands for is then applied from its first operation on,
//! and what the part has touched they touch again.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::compaction::{self, Complete, Part};
use crate::log_backup::names::ContentHash;
use crate::log_backup::net_effect::{OPERATIONS_BYTES_MAX, operations_from_bytes};
use crate::restore::apply::Applier;
use crate::restore::parts::Parts;
use crate::restore::plan::{FIRST_SEGMENT, Leg};
use crate::restore::position::Position;
use crate::restore::runs::{LeftOut, PlannedRun};
use crate::trap::trap;

/// Why taking a compaction in ended.
enum Stop {
    /// Something is wrong with it.
    Run(Error),
    /// The restore cannot go on.
    Restore(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Restore(error)
    }
}

/// What goes wrong with objects of the compaction alone.
fn of_run(error: Error) -> Stop {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::Corrupt
        | ErrorKind::Unsupported
        | ErrorKind::InvalidArgument
        | ErrorKind::Io => Stop::Run(error),
        _ => Stop::Restore(error),
    }
}

impl Applier<'_> {
    /// The compaction that stands for the segment that comes next and those after it.
    pub(super) fn run_at<'l>(&self, leg: &'l Leg, position: &Position) -> Option<&'l PlannedRun> {
        let here = leg.runs.iter().find(|run| run.body.first_segment == position.next_segment);
        here.filter(|run| position.left_out.iter().all(|left| left.id != run.id))
    }

    /// Takes a compaction in, or notes that it is left out.
    pub(super) fn take_run(
        &self,
        leg: &Leg,
        index: usize,
        run: &PlannedRun,
        position: &mut Position,
        parts: &mut Parts<'_>,
    ) -> Result<()> {
        match self.run(leg, index, run, position, parts) {
            Ok(complete) => {
                if let Some((sequence, time)) = complete.last() {
                    (position.sequence, position.time) = (sequence, time);
                } else if let Some(begin) = complete.begin() {
                    position.sequence = begin.next_sequence.saturating_sub(1);
                }
                (position.next_segment, position.chain) = (run.body.end_segment, Some(complete.spec.chain));
                Ok(())
            }
            Err(Stop::Restore(error)) => Err(error),
            Err(Stop::Run(error)) => {
                tracing::warn!(%error, compaction = %run.body.name, "a compaction cannot be used; its segments are");
                let (name, reason) = (run.body.name.clone(), error.to_string());
                position.left_out.push(LeftOut { id: run.id, name, reason });
                Ok(())
            }
        }
    }

    fn run(
        &self,
        leg: &Leg,
        index: usize,
        run: &PlannedRun,
        position: &Position,
        parts: &mut Parts<'_>,
    ) -> Result<Complete, Stop> {
        let archive = run.place(self.archive).map_err(of_run)?;
        let complete = compaction::read(&archive, &run.body).map_err(of_run)?;
        self.check_run(leg, index, position, &complete).map_err(|message| {
            let error = Error::new(ErrorKind::Corrupt, "take a compaction in", message);
            Stop::Run(error.at(archive.place(&run.body.result.name)))
        })?;
        for part in complete.runs.iter().flat_map(|run| &run.parts) {
            (self.go_on)()?;
            self.part(&archive, part, parts)?;
        }
        Ok(complete)
    }

    /// It must be one of what comes next in the log, and begin after the base snapshot.
    fn check_run(&self, leg: &Leg, index: usize, position: &Position, complete: &Complete) -> Result<(), &'static str> {
        let spec = &complete.spec;
        if spec.encoding != leg.encoding {
            return Err("it is in another encoding than its timeline");
        }
        let begin = complete.begin().ok_or("it holds no segment")?;
        let follows = match position.chain {
            Some(chain) => chain == begin.chain,
            None if spec.first_segment == FIRST_SEGMENT => begin.chain == ContentHash(0),
            None => true,
        };
        let reaches = index > 0 || begin.next_sequence <= position.sequence.saturating_add(1);
        if !follows || !reaches {
            return Err("it does not go on where the log before it ends");
        }
        if index == 0 && begin.next_sequence <= self.found.plan.snapshot.sequence {
            return Err("it begins before the base snapshot does");
        }
        if spec.end_segment == leg.end_segment && leg.chain != Some(spec.chain) {
            return Err("it does not end as the log does that the restore was planned with");
        }
        Ok(())
    }

    fn part(&self, archive: &Archive, part: &Part, parts: &mut Parts<'_>) -> Result<(), Stop> {
        if let Some(operations) = &part.operations {
            let bytes = archive.get_verified(operations, OPERATIONS_BYTES_MAX).map_err(of_run)?;
            // Something wrong with one of them may come out after others are in, and that is no harm.
            for operation in operations_from_bytes(&bytes).map_err(of_run)?.operations() {
                parts.add(operation.map_err(of_run)?)?;
            }
        }
        if part.files.is_empty() {
            return Ok(());
        }
        // A bulk load's files stand with the log.
        let archive = if part.load.is_some() { self.archive } else { archive };
        parts.settle()?;
        let objects: Vec<_> = part.files.iter().map(|file| &file.object).collect();
        let files = self.fetch(archive, &objects, parts).map_err(of_run)?;
        trap!(self.vfs, RestoreRunFetched);
        parts.ingest(&files, objects.iter().map(|object| object.size).sum()).map_err(of_run)?;
        trap!(self.vfs, RestoreRunTaken);
        Ok(())
    }
}
