//! The worker of a phase: does its part of a restore in two phases, and writes nothing but its run's directory and the
//! database that is being made.

use crate::engine::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::RESTORE_LOADS;
use crate::lock::PlaceLock;
use crate::log_backup::archive::Archive;
use crate::restore::folder::{Folder, Found};
use crate::restore::record::{Outcome, Record, RunFile, Standing};
use crate::restore::sighting;
use crate::restore::state::{Cause, RESTARTS_MAX, Step, WorkerPhase};
use crate::restore::worker::{self, Work};
use crate::trap::trap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const STEP: &str = "do a phase of the restore";
/// Who asks whether a worker lives holds its lock for an instant.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// What a worker is to do: all of an ordinary restore, or a phase of one in two phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// 0: an ordinary restore.
    Whole,
    /// 1, 2.
    Phase(WorkerPhase),
}

impl Part {
    /// By its number.
    ///
    /// # Errors
    /// `InvalidArgument`: it is not 0, 1 or 2.
    pub fn new(number: i64) -> Result<Self> {
        match number {
            0 => Ok(Part::Whole),
            1 => Ok(Part::Phase(WorkerPhase::Snapshot)),
            2 => Ok(Part::Phase(WorkerPhase::Log)),
            _ => {
                let message = format!("there is no phase {number}: it is 1 or 2, or 0 for an ordinary restore");
                Err(Error::new(ErrorKind::InvalidArgument, STEP, message))
            }
        }
    }
}

/// Does a part of the restore to `target`.
///
/// # Errors
/// `NotFound`: none has begun, or the run of that phase was not made; `Conflict`: it is not this phase's turn; `Locked`: another
/// worker is at it; `Refused`: the run is one of another restore; whatever the phase meets, which is noted in its run.
pub fn worker(target: &Path, archive: &Archive, part: Part, options: &Options) -> Result<Found> {
    match part {
        Part::Whole => worker::go_on(target, archive, options),
        Part::Phase(phase) => {
            let vfs = options.file_operations()?;
            let mut folder = Folder::of(target)?;
            let found = require_turn(&*vfs, &folder, phase)?;
            worker::require_archive(&folder, &found, archive)?;
            let loads = Record::of(&*vfs, &folder, found.spec.restore, phase).path.join(RESTORE_LOADS);
            folder.loads = loads;
            let record = Record::of(&*vfs, &folder, found.spec.restore, phase);
            Worker { vfs: &vfs, folder: &folder, archive, options, record, phase }.run(found)
        }
    }
}

/// The restore, if it is that phase's turn.
fn require_turn(vfs: &dyn Vfs, folder: &Folder, phase: WorkerPhase) -> Result<Found> {
    let found = if folder.stands(vfs)? { folder.read(vfs)? } else { None };
    let error = |kind, message: String| Err(Error::new(kind, STEP, message).at(&folder.path));
    let Some(found) = found else { return error(ErrorKind::NotFound, "no restore to this place has begun".into()) };
    if found.spec.two_phase.is_none() {
        return error(ErrorKind::InvalidArgument, "it is an ordinary restore, which has the one phase 0".into());
    }
    let status = &found.status;
    let gate = phase == WorkerPhase::Snapshot || status.markers.open_the_gate();
    if status.phase.is_over() || status.step != phase.step() || !gate {
        let message = format!(
            "it is not the turn of phase {}: the restore is {}, its step is {}",
            phase.number(),
            status.phase.name(),
            status.step.name()
        );
        return error(ErrorKind::Conflict, message);
    }
    Ok(found)
}

struct Worker<'a> {
    vfs: &'a Arc<dyn Vfs>,
    folder: &'a Folder,
    archive: &'a Archive,
    options: &'a Options,
    record: Record<'a>,
    phase: WorkerPhase,
}

impl Worker<'_> {
    fn run(&self, found: Found) -> Result<Found> {
        // Before the lock, so that nothing is made beside what is not ours.
        self.own(&found)?;
        let _lock = self.lock()?;
        let mut run = self.own(&found)?;
        match self.record.result()? {
            Standing::Ours(_) => return Ok(found),
            Standing::Foreign => return Err(self.foreign()),
            Standing::None => {}
        }
        if run.attempts > RESTARTS_MAX {
            let message = format!("{} workers have died at it already", run.attempts);
            return Err(Error::new(ErrorKind::Conflict, STEP, message).at(&self.record.path));
        }
        run.attempts += 1;
        self.record.replace(&run)?;
        trap!(self.vfs, PhaseWorkerBegun);
        let outcome = match self.work(&found, &run) {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.failed(&mut run, error)),
        };
        trap!(self.vfs, PhaseWorkerDone);
        self.record.end(run.attempts, outcome)?;
        trap!(self.vfs, PhaseWorkerEnded);
        Ok(found)
    }

    fn lock(&self) -> Result<PlaceLock> {
        for _ in 1..LOCK_ATTEMPTS {
            match self.record.lock() {
                Err(error) if error.kind() == crate::error::ErrorKind::Locked => std::thread::sleep(LOCK_PAUSE),
                taken => return taken,
            }
        }
        self.record.lock()
    }

    fn foreign(&self) -> Error {
        let message = "it is the run of another restore; nothing was touched";
        Error::new(ErrorKind::Refused, STEP, message).at(&self.record.path)
    }

    /// The record, if it is one of this restore as it was asked for and planned.
    fn own(&self, found: &Found) -> Result<RunFile> {
        let error = |kind, message: &str| Error::new(kind, STEP, message).at(&self.record.path);
        match self.record.run()? {
            Standing::Foreign => Err(self.foreign()),
            Standing::None => {
                let next = format!("morphkv restore step {}", self.folder.target.live.display());
                Err(error(ErrorKind::NotFound, "the run of this phase was not made yet").next(next))
            }
            Standing::Ours(run) if (run.spec, run.plan) != found.hashes()? => {
                Err(error(ErrorKind::Corrupt, "it was made for another SPEC or PLAN"))
            }
            Standing::Ours(run) => Ok(run),
        }
    }

    fn work(&self, found: &Found, run: &RunFile) -> Result<Outcome> {
        let mut found = found.clone();
        if let Some(mode) = &run.mode {
            found.plan = sighting::planned(&found.plan, mode);
        }
        found.status.step = self.phase.step();
        debug_assert!(matches!(found.status.step, Step::Fetch | Step::Apply));
        let pin = worker::take_pin(self.folder, &found, self.archive)?;
        let (vfs, folder, archive) = (self.vfs, self.folder, self.archive);
        let options = worker::own_options(self.options);
        Work { vfs, folder, archive, options, pin }.work(&found).map(Outcome::Ok)
    }

    /// Notes why it cannot go on: for good, or for whoever goes on.
    fn failed(&self, run: &mut RunFile, error: Error) -> Error {
        let cause = Cause { kind: error.kind().name().into(), message: error.to_string() };
        let noted = if is_for_good(&error) || run.attempts > RESTARTS_MAX {
            self.record.end(run.attempts, Outcome::Failed(cause))
        } else {
            run.failure = Some(cause);
            self.record.replace(run)
        };
        if let Err(second) = noted {
            tracing::warn!(%second, "why the phase has stopped could not be noted");
        }
        error
    }
}

/// Whether it comes to the same however often it is tried.
fn is_for_good(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unsupported
            | ErrorKind::UnknownEncoding
            | ErrorKind::Unrepresentable
            | ErrorKind::InvalidArgument
            | ErrorKind::Refused
    )
}
