//! The coordinator of a restore in two phases: looks, decides by the table in `state.rs`, does it, and looks again.
//!
//! It is whoever has `LOCK` locked, and the only writer of STATUS. Workers are started through a launcher that the caller
//! supplies: processes, threads, whatever; one that is alive when the coordinator dies goes on, and is found again.
//!
//! | effect | after a crash here |
//! |---|---|
//! | STATUS is replaced | the table goes on from there |
//! | the record of a run is made | the next pass finds it, and starts a worker |
//! | a worker is started | it is found by its lock, or started again |
//! | the database is moved in | the target carries the restore's id |

use crate::engine::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::lock::PlaceLock;
use crate::log_backup::archive::Archive;
use crate::log_backup::names;
use crate::log_backup::pin::Pin;
use crate::place::restore_phase::RestorePhase;
use crate::restore::folder::{Folder, Found, TwoPhase};
use crate::restore::phases::{Part, worker};
use crate::restore::record::{Record, Standing};
use crate::restore::sighting;
use crate::restore::state::{
    Action, Cause, Change, Compaction, Mode, Observed, Persisted, RESTARTS_MAX, Run, Step, Waiting, WorkerPhase, next,
};
use crate::restore::worker::{self as steps, Request, Work};
use crate::trap::trap;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STEP: &str = "coordinate the restore";

/// A worker that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCall {
    /// The target of the restore.
    pub target: PathBuf,
    /// The phase.
    pub phase: WorkerPhase,
}

impl fmt::Display for WorkerCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "morphkv restore worker {} --phase {}", self.target.display(), self.phase.number())
    }
}

/// What a pass has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// It is over.
    Over,
    /// Nothing can be done now.
    Waits(Waiting),
    /// STATUS was replaced.
    Wrote(Change),
    /// The record of a phase's run was made.
    Made(WorkerPhase),
    /// A worker is to be started; it would be the nth, from 1 on.
    Launches(WorkerCall, u32),
}

/// A pass: what it has come to, and what it has seen of the compaction, if it has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// What it has come to.
    pub did: Did,
    /// The compaction.
    pub compaction: Option<Compaction>,
}

impl Passed {
    /// A few words of it, for people.
    pub fn describe(&self) -> String {
        let did = match &self.did {
            Did::Over => "it is over".into(),
            Did::Waits(Waiting::Worker(phase)) => format!("the worker of phase {} is at it", phase.number()),
            Did::Waits(Waiting::Compaction) => "it waits for the compaction".into(),
            Did::Waits(Waiting::Foreign(phase)) => {
                format!("the record of another restore stands in runs/{}; remove it", phase.number())
            }
            Did::Waits(Waiting::Unknown) => "its STATUS says what this version does not know".into(),
            Did::Wrote(change) => change.describe(),
            Did::Made(phase) => format!("the run of phase {} is made", phase.number()),
            Did::Launches(call, attempt) => format!("a worker is to be started (attempt {attempt}): {call}"),
        };
        match &self.compaction {
            None | Some(Compaction::Complete(_) | Compaction::Failed(..) | Compaction::Mismatch(..)) => did,
            Some(Compaction::Absent) => format!("{did}; there is no compaction of that name yet"),
            Some(Compaction::Running(_)) => format!("{did}; the compaction is under way"),
            Some(Compaction::Unknown(message)) => format!("{did}; the compaction: {message}"),
        }
    }
}

/// Starts workers.
pub trait Launcher {
    /// Starts one, and does not wait for it.
    ///
    /// # Errors
    /// It was not started.
    fn launch(&mut self, call: &WorkerCall) -> Result<()>;

    /// Whether the last one that was started has not ended.
    fn is_running(&mut self) -> bool;

    /// Hears of each pass that differs from the one before.
    fn passed(&mut self, _passed: &Passed) {}
}

/// How fast a coordinator goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How often it looks while it waits.
    pub poll: Duration,
    /// How long it waits before a worker is started again, the first time; twice as long each time after.
    pub restart: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { poll: Duration::from_millis(500), restart: Duration::from_secs(1) }
    }
}

/// Workers as threads of this process.
pub struct Threads {
    archive: Archive,
    options: Options,
    thread: Option<JoinHandle<()>>,
}

impl Threads {
    /// They read this archive, with these options.
    pub fn new(archive: &Archive, options: &Options) -> Self {
        Threads { archive: archive.clone(), options: options.clone(), thread: None }
    }
}

impl Launcher for Threads {
    fn launch(&mut self, call: &WorkerCall) -> Result<()> {
        let (archive, options, call) = (self.archive.clone(), self.options.clone(), call.clone());
        let work = move || {
            if let Err(error) = worker(&call.target, &archive, Part::Phase(call.phase), &options) {
                tracing::warn!(%error, "a worker of the restore has stopped");
            }
        };
        let thread = std::thread::Builder::new().name("morphkv-restore".into()).spawn(work);
        self.thread = Some(thread.map_err(|error| Error::io("start a worker", Path::new("thread"), error))?);
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Threads {
    /// A thread that is left behind would work on what its process has given up.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Begins a restore to `target` in two phases, as [`crate::restore::start`] does: no pass is done yet.
///
/// # Errors
/// As [`crate::restore::start`]; `InvalidArgument` for the name of the compaction.
pub fn start(
    target: &Path,
    archive: &Archive,
    request: &Request,
    two_phase: &TwoPhase,
    options: &Options,
) -> Result<Found> {
    names::compaction_spec(&two_phase.compaction)?;
    let vfs = options.file_operations()?;
    steps::begin(&vfs, &Folder::of(target)?, archive, request, Some(two_phase), options).map(|(found, _)| found)
}

/// Does one pass: at most one write, and no worker is started.
///
/// # Errors
/// `NotFound`: none has begun; `Locked`: there is a coordinator; `InvalidArgument`: it is an ordinary one, or reads another
/// archive; what the pass meets. The next one goes on.
pub fn step(target: &Path, archive: &Archive, options: &Options) -> Result<(Passed, Found)> {
    let mut coordinator = Coordinator::new(target, archive, options)?;
    let passed = coordinator.pass()?;
    Ok((passed, coordinator.found))
}

/// Coordinates a restore that has begun, until the database is at its place.
///
/// # Errors
/// As [`step`]; `Refused`: it has failed for good, as its status says, or the record of another restore stands in its way;
/// `Io`: a worker does not come up.
pub fn run(
    target: &Path,
    archive: &Archive,
    options: &Options,
    launcher: &mut dyn Launcher,
    pace: &Pace,
) -> Result<Found> {
    let mut coordinator = Coordinator::new(target, archive, options)?;
    coordinator.pin()?;
    let mut last = None;
    let mut launches = Launches::default();
    loop {
        let passed = coordinator.pass()?;
        if last.as_ref() != Some(&passed) {
            launcher.passed(&passed);
        }
        match &passed.did {
            Did::Over => return coordinator.over(),
            Did::Wrote(_) | Did::Made(_) => {}
            Did::Waits(waiting @ (Waiting::Foreign(_) | Waiting::Unknown)) => {
                let kind = if *waiting == Waiting::Unknown { ErrorKind::Unsupported } else { ErrorKind::Refused };
                return Err(Error::new(kind, STEP, passed.describe()).at(&coordinator.folder.path));
            }
            Did::Waits(_) => std::thread::sleep(coordinator.until_next(pace.poll)),
            Did::Launches(call, attempt) => {
                if !launcher.is_running() && launches.may(call.phase, *attempt, pace)? {
                    launcher.launch(call)?;
                }
                // It is not seen before it has its lock.
                std::thread::sleep(coordinator.until_next(pace.poll.min(Duration::from_millis(50))));
            }
        }
        last = Some(passed);
    }
}

/// When a worker may be started again.
#[derive(Default)]
struct Launches {
    of: Option<(WorkerPhase, u32)>,
    /// How often this one was started.
    times: u32,
    not_before: Option<Instant>,
}

impl Launches {
    fn may(&mut self, phase: WorkerPhase, attempt: u32, pace: &Pace) -> Result<bool> {
        if self.of != Some((phase, attempt)) {
            let pause = if attempt > 1 { pace.restart * 2u32.pow((attempt - 2).min(16)) } else { Duration::ZERO };
            (self.of, self.times, self.not_before) = (Some((phase, attempt)), 0, Some(Instant::now() + pause));
        }
        if self.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return Ok(false);
        }
        self.times += 1;
        if self.times > RESTARTS_MAX + 1 {
            let message = format!(
                "the worker of phase {} was started {RESTARTS_MAX} times and more, and does not come up",
                phase.number()
            );
            return Err(Error::new(ErrorKind::Io, STEP, message));
        }
        self.not_before = Some(Instant::now() + pace.restart);
        Ok(true)
    }
}

struct Coordinator<'a> {
    vfs: Arc<dyn Vfs>,
    folder: Folder,
    archive: &'a Archive,
    options: &'a Options,
    found: Found,
    two_phase: TwoPhase,
    pin: Option<Pin>,
    _lock: PlaceLock,
}

impl<'a> Coordinator<'a> {
    fn new(target: &Path, archive: &'a Archive, options: &'a Options) -> Result<Self> {
        let vfs = options.file_operations()?;
        let folder = Folder::of(target)?;
        let none = || {
            Error::new(ErrorKind::NotFound, STEP, "no restore to this place has begun")
                .at(target)
                .next(format!("morphkv restore start {} --two-phase ...", target.display()))
        };
        if !folder.stands(&*vfs)? {
            return Err(none());
        }
        let lock = folder.lock(&*vfs)?;
        let found = folder.read(&*vfs)?.ok_or_else(none)?;
        steps::require_archive(&folder, &found, archive)?;
        let Some(two_phase) = found.spec.two_phase.clone() else {
            let message = "it is an ordinary restore, which has no coordinator";
            return Err(Error::new(ErrorKind::InvalidArgument, STEP, message).at(&folder.path));
        };
        Ok(Coordinator { vfs, folder, archive, options, found, two_phase, pin: None, _lock: lock })
    }

    /// Holds what the workers will read, also while none is at it.
    fn pin(&mut self) -> Result<()> {
        if matches!(self.found.status.step, Step::Begin | Step::Fetch | Step::Apply) {
            self.pin = steps::take_pin(&self.folder, &self.found, self.archive)?;
        }
        Ok(())
    }

    fn record(&self, phase: WorkerPhase) -> Record<'_> {
        Record::of(&*self.vfs, &self.folder, self.found.spec.restore, phase)
    }

    /// Looks at as much as counts.
    fn observe(&self) -> Result<(Observed, bool)> {
        let status = &self.found.status;
        let looks = matches!(status.step, Step::Begin | Step::Fetch)
            && status.markers.compaction_settled.is_none()
            && !status.phase.is_over();
        let compaction =
            if looks { sighting::look(self.archive, &self.found.plan, &self.two_phase) } else { Compaction::Absent };
        let run = match status.step {
            _ if status.phase.is_over() => Run::Absent,
            // Its run need not be there any more.
            Step::Fetch if status.markers.snapshot_restored.is_some() => Run::Absent,
            Step::Fetch => self.record(WorkerPhase::Snapshot).observe()?,
            Step::Apply => self.record(WorkerPhase::Log).observe()?,
            _ => Run::Absent,
        };
        Ok((Observed { now: steps::now(), compaction, run }, looks))
    }

    fn pass(&mut self) -> Result<Passed> {
        if let Some(pin) = &self.pin {
            pin.check()?;
        }
        let (observed, looked) = self.observe()?;
        let (created, wait_timeout) = (self.found.spec.created, self.two_phase.wait_timeout);
        let action = next(&Persisted { status: &self.found.status, created, wait_timeout }, &observed);
        let did = match action {
            Action::Nothing => {
                if self.found.is_complete() {
                    steps::clear(&*self.vfs, &self.folder)?;
                    trap!(self.vfs, RestoreCleared);
                }
                Did::Over
            }
            Action::Wait(waiting) => Did::Waits(waiting),
            Action::Write(change) => self.write(change, observed.now)?,
            Action::Create(phase) => self.create(phase)?,
            Action::Launch(phase) => {
                let attempt = if let Run::Idle { attempts, .. } = observed.run { attempts + 1 } else { 1 };
                Did::Launches(WorkerCall { target: self.folder.target.live.clone(), phase }, attempt)
            }
            Action::Install => self.install()?,
        };
        Ok(Passed { did, compaction: looked.then_some(observed.compaction) })
    }

    fn write(&mut self, change: Change, now: u64) -> Result<Did> {
        // Told before it is written: a write that is lost leaves a trace.
        match &change {
            Change::Fail(_) => tracing::warn!("{}", change.describe()),
            _ => tracing::info!("{}", change.describe()),
        }
        let made = change.clone();
        self.folder.note(&*self.vfs, &mut self.found, |status| made.make(status, now))?;
        if self.found.status.step > Step::Apply {
            self.pin = None;
        }
        Ok(Did::Wrote(change))
    }

    fn create(&mut self, phase: WorkerPhase) -> Result<Did> {
        let mode = match (phase, &self.found.status.markers.compaction_settled) {
            (WorkerPhase::Log, Some(settled)) => {
                let mode = sighting::choose_mode(self.archive, &self.found.plan, &self.two_phase, settled)?;
                if let Mode::Raw(reason) = &mode {
                    tracing::warn!(compaction = %self.two_phase.compaction, %reason, "the log is gone through without the compaction");
                }
                Some(mode)
            }
            _ => None,
        };
        self.record(phase).create(&self.found, mode)?;
        Ok(Did::Made(phase))
    }

    fn install(&mut self) -> Result<Did> {
        let work = Work {
            vfs: &self.vfs,
            folder: &self.folder,
            archive: self.archive,
            options: steps::own_options(self.options),
            pin: None,
        };
        if let Err(error) = work.work(&self.found) {
            return Err(work.failed(&mut self.found, error));
        }
        self.write(Change::Complete, steps::now())
    }

    /// How long to wait: not beyond the moment at which the wait for the compaction is over.
    fn until_next(&self, poll: Duration) -> Duration {
        let wait = self.two_phase.wait_timeout.and_then(|wait| u64::try_from(wait).ok()).filter(|wait| *wait > 0);
        let (Some(wait), None) = (wait, &self.found.status.markers.compaction_settled) else { return poll };
        let deadline = self.found.spec.created.saturating_add(wait).saturating_add(1);
        let left = Duration::from_micros(deadline.saturating_sub(steps::now()).max(1));
        poll.min(left)
    }

    fn over(self) -> Result<Found> {
        if self.found.status.phase != RestorePhase::Failed {
            return Ok(self.found);
        }
        let failure = self.found.status.failure.as_ref();
        let why = failure.map_or_else(String::new, |failure| format!(": {} ({})", failure.message, failure.kind));
        let next = format!("morphkv restore abort {}", self.folder.target.live.display());
        Err(Error::new(ErrorKind::Refused, STEP, format!("the restore has failed for good{why}"))
            .at(&self.folder.path)
            .next(next))
    }
}

/// What stands of the run of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunView {
    /// 1 or 2.
    pub phase: u32,
    /// `foreign`, `waiting`, `died`, `alive`, `ok` or `failed`.
    pub state: &'static str,
    /// How often a worker has begun.
    pub attempts: u32,
    /// Why it has failed, or what the last worker that could say something said.
    pub failure: Option<Cause>,
    /// How it goes through the log.
    pub mode: Option<Mode>,
}

/// What stands of the runs of a restore in two phases; none once it is complete.
///
/// # Errors
/// `Corrupt`, `Unsupported`, `Io`.
pub fn runs(found: &Found, target: &Path, options: &Options) -> Result<Vec<RunView>> {
    let vfs = options.file_operations()?;
    let folder = Folder::of(target)?;
    let mut runs = Vec::new();
    for phase in [WorkerPhase::Snapshot, WorkerPhase::Log] {
        let record = Record::of(&*vfs, &folder, found.spec.restore, phase);
        let observed = record.observe()?;
        let (mut attempts, mut failure, mut mode) = (0, None, None);
        if let Standing::Ours(run) = record.run()? {
            (attempts, failure, mode) = (run.attempts, run.failure, run.mode);
        }
        let state = match observed {
            Run::Absent => continue,
            Run::Foreign => "foreign",
            Run::Idle { attempts: 0, .. } => "waiting",
            Run::Idle { .. } => "died",
            Run::Alive => "alive",
            Run::Ok { .. } => "ok",
            Run::Failed(cause) => {
                failure = Some(cause);
                "failed"
            }
        };
        runs.push(RunView { phase: phase.number(), state, attempts, failure, mode });
    }
    Ok(runs)
}
