//! What stands of the run of a phase, in `<target>.restore/runs/<1|2>/`.
//!
//! | file | holds | written |
//! |---|---|---|
//! | `RUN` | whose run it is, of which SPEC and PLAN, in which mode; how often a worker has begun | once by the coordinator, then by the worker |
//! | `LOCK` | nothing; the worker has it locked as long as it lives | never |
//! | `RESULT` | how the run has ended | once, by the worker, before it ends |
//!
//! Invariants: both files carry the restore's id, and those of another restore are never read as ours and never replaced; a
//! run without `RESULT` whose `LOCK` nobody holds has no worker.

use crate::control;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, write_atomic};
use crate::layout::{RESTORE_LOCK, RESTORE_RESULT, RESTORE_RUN, RESTORE_RUNS, TEMPORARY_SUFFIX};
use crate::lock::PlaceLock;
use crate::log_backup::names::ContentHash;
use crate::place::restore_phase::RESTORE_FORMAT;
use crate::restore::folder::{Folder, Found};
use crate::restore::runs::LeftOut;
use crate::restore::state::{Cause, Mode, Run, WorkerPhase};
use crate::trap::trap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use uuid::Uuid;

const READ: &str = "read the state of a run of the restore";
const WRITE: &str = "write the state of a run of the restore";
/// The longest of these files, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// Whose run it is, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// The version of the format.
    pub format: u32,
    /// The restore.
    pub restore: Uuid,
    /// The phase.
    pub phase: WorkerPhase,
    /// What was asked for, as a hash.
    pub spec: ContentHash,
    /// What is read, as a hash.
    pub plan: ContentHash,
    /// How the log is gone through; of phase 2 alone.
    pub mode: Option<Mode>,
    /// How often a worker has begun.
    pub attempts: u32,
    /// What the last one said that could say something.
    pub failure: Option<Cause>,
}

/// How a run has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All was done; compactions that could not be used.
    Ok(Vec<LeftOut>),
    /// It cannot be done.
    Failed(Cause),
}

/// The file RESULT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultFile {
    /// The version of the format.
    pub format: u32,
    /// The restore.
    pub restore: Uuid,
    /// The phase.
    pub phase: WorkerPhase,
    /// The attempt that has ended it, from 1 on.
    pub attempt: u32,
    /// How it has ended.
    pub outcome: Outcome,
}

/// The directory of a phase's run.
pub struct Record<'a> {
    vfs: &'a dyn Vfs,
    /// The directory.
    pub path: PathBuf,
    restore: Uuid,
    phase: WorkerPhase,
}

/// What stands in the directory.
pub enum Standing<T> {
    /// Nothing.
    None,
    /// A file of another restore.
    Foreign,
    /// Ours.
    Ours(T),
}

impl<T> Standing<T> {
    fn ours(self) -> Option<T> {
        match self {
            Standing::Ours(file) => Some(file),
            Standing::None | Standing::Foreign => None,
        }
    }
}

impl<'a> Record<'a> {
    /// Of a phase of the restore in that folder; makes nothing, looks at nothing.
    pub fn of(vfs: &'a dyn Vfs, folder: &Folder, restore: Uuid, phase: WorkerPhase) -> Self {
        let path = folder.path.join(RESTORE_RUNS).join(phase.number().to_string());
        Record { vfs, path, restore, phase }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path.join(name);
        if self.vfs.stat(&path)?.is_none() {
            return Ok(None);
        }
        let bytes = self.vfs.read(&path, BYTES_MAX)?;
        let read = control::decode_within(READ, &bytes, RESTORE_FORMAT, BYTES_MAX);
        read.map(Some).map_err(|error| error.at(&path))
    }

    fn judge<T>(&self, file: T, restore: Uuid, phase: WorkerPhase, name: &str) -> Result<Standing<T>> {
        if restore != self.restore {
            return Ok(Standing::Foreign);
        }
        if phase != self.phase {
            let message = "it is one of another phase";
            return Err(Error::new(ErrorKind::Corrupt, READ, message).at(self.path.join(name)));
        }
        Ok(Standing::Ours(file))
    }

    /// RUN.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    pub fn run(&self) -> Result<Standing<RunFile>> {
        let Some(file) = self.read::<RunFile>(RESTORE_RUN)? else { return Ok(Standing::None) };
        let (restore, phase) = (file.restore, file.phase);
        self.judge(file, restore, phase, RESTORE_RUN)
    }

    /// RESULT.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    pub fn result(&self) -> Result<Standing<ResultFile>> {
        let Some(file) = self.read::<ResultFile>(RESTORE_RESULT)? else { return Ok(Standing::None) };
        let (restore, phase) = (file.restore, file.phase);
        self.judge(file, restore, phase, RESTORE_RESULT)
    }

    fn write<T: Serialize>(&self, name: &str, file: &T) -> Result<()> {
        let bytes = control::encode_within(WRITE, file, BYTES_MAX)?;
        let temporary = self.path.join(format!("{name}{TEMPORARY_SUFFIX}"));
        write_atomic(self.vfs, &self.path.join(name), &temporary, &bytes)
    }

    /// Takes the right to be the worker.
    ///
    /// # Errors
    /// `Locked`: there is one; or somebody has looked whether there is, so repeat.
    pub fn lock(&self) -> Result<PlaceLock> {
        PlaceLock::acquire_file(self.vfs, &self.path.join(RESTORE_LOCK), &self.path)
    }

    /// Whether a worker lives.
    ///
    /// # Errors
    /// `Refused`, `Io`.
    pub fn is_alive(&self) -> Result<bool> {
        if self.vfs.stat(&self.path.join(RESTORE_LOCK))?.is_none() {
            return Ok(false);
        }
        match self.lock() {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Locked => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What the run looks like.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    pub fn observe(&self) -> Result<Run> {
        let run = self.run()?;
        if matches!(run, Standing::Foreign) || matches!(self.result()?, Standing::Foreign) {
            return Ok(Run::Foreign);
        }
        // Asked first: who ends in between has written its result.
        let alive = self.is_alive()?;
        let (Some(run), result) = (run.ours(), self.result()?.ours()) else {
            return Ok(if alive { Run::Alive } else { Run::Absent });
        };
        Ok(match result.map(|result| result.outcome) {
            Some(Outcome::Ok(left_out)) => Run::Ok { left_out, mode: run.mode },
            Some(Outcome::Failed(cause)) => Run::Failed(cause),
            None if alive => Run::Alive,
            None => self.idle(run)?,
        })
    }

    /// Nobody is at it; read again, since a worker may have come and gone since it was read.
    fn idle(&self, run: RunFile) -> Result<Run> {
        let run = self.run()?.ours().unwrap_or(run);
        Ok(Run::Idle { attempts: run.attempts, failure: run.failure })
    }

    /// Makes the record of a run that has not begun.
    ///
    /// # Errors
    /// There is none, or it stands.
    pub fn create(&self, found: &Found, mode: Option<Mode>) -> Result<()> {
        let runs = self.path.parent().unwrap_or(&self.path);
        for directory in [runs, &self.path] {
            if self.vfs.stat(directory)?.is_none() {
                self.vfs.make_dir(directory)?;
                self.vfs.sync_dir(directory.parent().unwrap_or(directory))?;
            }
        }
        // Where a record was removed, what its run came to is not known any more.
        self.vfs.remove_file(&self.path.join(RESTORE_RESULT))?;
        self.vfs.sync_dir(&self.path)?;
        let (spec, plan) = found.hashes()?;
        let (format, restore, phase) = (RESTORE_FORMAT, self.restore, self.phase);
        let file = RunFile { format, restore, phase, spec, plan, mode, attempts: 0, failure: None };
        self.write(RESTORE_RUN, &file)?;
        trap!(self.vfs, PhaseRunMade);
        Ok(())
    }

    /// Replaces RUN; for the worker.
    ///
    /// # Errors
    /// The old one stands, or the new one.
    pub fn replace(&self, file: &RunFile) -> Result<()> {
        self.write(RESTORE_RUN, file)
    }

    /// Ends the run; for the worker.
    ///
    /// # Errors
    /// It has ended, or it has not.
    pub fn end(&self, attempt: u32, outcome: Outcome) -> Result<()> {
        let (format, restore, phase) = (RESTORE_FORMAT, self.restore, self.phase);
        self.write(RESTORE_RESULT, &ResultFile { format, restore, phase, attempt, outcome })
    }
}

/// Makes sure that no worker is at the restore in that folder.
///
/// # Errors
/// `Locked`: one is; `Io`.
pub fn require_no_worker(vfs: &dyn Vfs, folder: &Folder) -> Result<()> {
    for phase in [WorkerPhase::Snapshot, WorkerPhase::Log] {
        let record = Record::of(vfs, folder, Uuid::nil(), phase);
        if record.is_alive()? {
            let message = format!("the worker of phase {} is at it; end it first", phase.number());
            return Err(Error::new(ErrorKind::Locked, WRITE, message).at(&record.path));
        }
    }
    Ok(())
}
