//! What a two-phase restore does next: a pure function of what stands in its files and of what is seen.
//!
//! Phase 1 fetches the base snapshot while a compaction of the log may be at work; phase 2 applies the log once both *markers*
//! stand: `snapshot_restored` and `compaction_settled`. A compaction settles in whatever way it ends, or when the wait is
//! over: it saves time, and must never fail a restore. The first row that fits is taken; each is at most one write.
//!
//! | # | step | seen | action |
//! |---|---|---|---|
//! | 1 | any | it is over: complete, or failed | nothing |
//! | 2 | begin, fetch | the compaction is not settled, and is complete, has failed, or does not fit the plan | marker `compaction_settled` |
//! | 3 | begin, fetch | it is not settled otherwise, and more than the wait has passed since the restore was created | marker `compaction_settled` |
//! | 4 | begin | | phase `snapshot-restore`, step fetch |
//! | 5 | fetch | both markers | phase `log-restore`, step apply |
//! | 6 | fetch | `snapshot_restored` alone | wait for the compaction |
//! | 7 | apply, install | a marker is missing | warn, wait: nothing of ours leads here |
//! | 8 | fetch, apply | no record of the phase's run | make it |
//! | 9 | fetch, apply | a record of another restore | warn, wait until it is removed |
//! | 10 | fetch | the run has ended, ok | marker `snapshot_restored` |
//! | 11 | apply | the run has ended, ok | phase `running`, step install |
//! | 12 | fetch, apply | the run has ended, failed | phase `failed`; the step stays |
//! | 13 | fetch, apply | the run is alive | wait for it |
//! | 14 | fetch, apply | it is not, and was begun at most [`RESTARTS_MAX`] times | start its worker |
//! | 15 | fetch, apply | it is not, and was begun more often | phase `failed`; the step stays |
//! | 16 | install | | move the database in, then phase `complete`, step clear |
//! | 17 | else | | warn, wait |
//!
//! Invariants: what is done depends on step and markers; of the phase only whether it is over is asked. Phase, condition and
//! step move together in one write; markers are only ever set, and never move the phase. Nothing but row 1 comes before
//! the end, and nothing after it.

use crate::place::restore_phase::{RESTORE_FORMAT, RestorePhase};
use crate::restore::runs::{LeftOut, PlannedRun};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A worker that dies is started again so many times.
pub const RESTARTS_MAX: u32 = 3;

/// What a restore does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Nothing has begun yet; of a two-phase restore alone.
    Begin,
    /// Download the base snapshot: phase 1.
    Fetch,
    /// Apply the log: phase 2.
    Apply,
    /// Move it in.
    Install,
    /// Remove what was needed on the way.
    Clear,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Step {
    /// Its name for people and for `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Step::Begin => "begin",
            Step::Fetch => "fetch",
            Step::Apply => "apply",
            Step::Install => "install",
            Step::Clear => "clear",
            Step::Unknown => "unknown",
        }
    }
}

/// Why the last attempt has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The step that it was at.
    pub step: Step,
    /// The kind of the error.
    pub kind: String,
    /// What it said.
    pub message: String,
}

/// In what way a compaction has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// All its shards are ok.
    Complete,
    /// A shard of it has failed.
    Failed,
    /// It was not there, or not at its end, when the wait was over.
    WaitTimeout,
    /// It is not one of what the plan reads.
    Mismatch,
}

impl Reason {
    /// Its name for people and for `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Complete => "complete",
            Reason::Failed => "failed",
            Reason::WaitTimeout => "wait-timeout",
            Reason::Mismatch => "mismatch",
        }
    }
}

/// The marker that a compaction is not waited for any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// In what way.
    pub reason: Reason,
    /// More of it, for people.
    pub message: String,
    /// The id of the compaction, if one was seen.
    pub compaction: Option<Uuid>,
    /// When, in microseconds of the Unix epoch.
    pub at: u64,
}

/// What opens the gate between the phases. Each is set once, and stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Markers {
    /// When phase 1 was seen to have ended well, in microseconds of the Unix epoch.
    pub snapshot_restored: Option<u64>,
    /// The compaction is not waited for any more.
    pub compaction_settled: Option<Settled>,
}

impl Markers {
    fn are_none(&self) -> bool {
        *self == Markers::default()
    }

    /// Whether phase 2 may begin.
    pub fn open_the_gate(&self) -> bool {
        self.snapshot_restored.is_some() && self.compaction_settled.is_some()
    }
}

/// A phase that was reached, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The phase.
    pub phase: RestorePhase,
    /// A word for programs.
    pub reason: String,
    /// When, in microseconds of the Unix epoch.
    pub at: u64,
}

/// How phase 2 goes through the log; chosen once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The compaction stands for its segments.
    Fast(PlannedRun),
    /// The compaction is not used, for this reason.
    Raw(String),
}

/// How far a restore has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The version of the format.
    pub format: u32,
    /// The restore's id.
    pub restore: Uuid,
    /// How often it was written.
    pub generation: u64,
    /// Where it stands, for people; only whether it is over counts for what comes next.
    pub phase: RestorePhase,
    /// What comes next.
    pub step: Step,
    /// What the last attempt failed of; going on clears it.
    pub failure: Option<Failure>,
    /// Planned compactions that could not be used; the log was gone through instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// What opens the gate of a two-phase restore.
    #[serde(default, skip_serializing_if = "Markers::are_none")]
    pub markers: Markers,
    /// The phases that a two-phase restore has reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How phase 2 has gone through the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

impl Status {
    /// Of a restore that begins.
    pub fn new(restore: Uuid, two_phase: bool) -> Self {
        let (phase, step) =
            if two_phase { (RestorePhase::Pending, Step::Begin) } else { (RestorePhase::Running, Step::Fetch) };
        Status {
            format: RESTORE_FORMAT,
            restore,
            generation: 1,
            phase,
            step,
            failure: None,
            left_out: Vec::new(),
            markers: Markers::default(),
            conditions: Vec::new(),
            mode: None,
        }
    }
}

/// A phase of a restore that a worker of its own does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerPhase {
    /// Phase 1: fetch the base snapshot.
    Snapshot,
    /// Phase 2: apply the log.
    Log,
}

impl WorkerPhase {
    /// 1 or 2.
    pub fn number(self) -> u32 {
        match self {
            WorkerPhase::Snapshot => 1,
            WorkerPhase::Log => 2,
        }
    }

    /// The step that waits for it.
    pub fn step(self) -> Step {
        match self {
            WorkerPhase::Snapshot => Step::Fetch,
            WorkerPhase::Log => Step::Apply,
        }
    }
}

/// What stands in the files of a restore.
#[derive(Debug, Clone, Copy)]
pub struct Persisted<'a> {
    /// STATUS.
    pub status: &'a Status,
    /// When it was created, in microseconds of the Unix epoch.
    pub created: u64,
    /// How long the compaction is waited for, in microseconds; none, or none above 0: for ever.
    pub wait_timeout: Option<i64>,
}

/// What is seen of the compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compaction {
    /// There is none of that name.
    Absent,
    /// It has begun, and has no end.
    Running(Uuid),
    /// All its shards are ok.
    Complete(Uuid),
    /// A shard of it has failed.
    Failed(Uuid, String),
    /// It is not one of what the plan reads, for this reason.
    Mismatch(Uuid, String),
    /// Its objects cannot be read, or not by this version; the reason.
    Unknown(String),
}

/// Why an attempt has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// The kind of the error.
    pub kind: String,
    /// What it said.
    pub message: String,
}

/// What is seen of a phase's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// It has no record.
    Absent,
    /// Its record is one of another restore.
    Foreign,
    /// Nobody is at it, and it has not ended.
    Idle {
        /// How often a worker has begun.
        attempts: u32,
        /// What the last of them has said.
        failure: Option<Cause>,
    },
    /// A worker is at it.
    Alive,
    /// It has ended well.
    Ok {
        /// Compactions that could not be used.
        left_out: Vec<LeftOut>,
        /// How the log was gone through.
        mode: Option<Mode>,
    },
    /// It has ended for good.
    Failed(Cause),
}

/// What is seen beside the files of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The clock, in microseconds of the Unix epoch.
    pub now: u64,
    /// The compaction; counts only while it is not settled.
    pub compaction: Compaction,
    /// The run of the phase that the step is of; counts for no other step.
    pub run: Run,
}

/// A write of STATUS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Phase 1 begins.
    Start,
    /// Phase 1 has ended.
    Restored,
    /// The compaction is not waited for any more.
    Settle(Reason, String, Option<Uuid>),
    /// Phase 2 begins.
    OpenGate,
    /// Phase 2 has ended.
    Applied(Vec<LeftOut>, Option<Mode>),
    /// The database is at its place.
    Complete,
    /// It has failed for good.
    Fail(Cause),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The worker of a phase.
    Worker(WorkerPhase),
    /// The compaction.
    Compaction,
    /// That somebody removes the record of another restore.
    Foreign(WorkerPhase),
    /// That somebody looks: the files say what this version never writes.
    Unknown,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is over.
    Nothing,
    /// Nothing can be done now.
    Wait(Waiting),
    /// Replace STATUS.
    Write(Change),
    /// Make the record of a phase's run.
    Create(WorkerPhase),
    /// Start a worker; nothing is written.
    Launch(WorkerPhase),
    /// Move the database in; then [`Change::Complete`].
    Install,
}

/// Decides what comes next, by the table above.
pub fn next(persisted: &Persisted<'_>, observed: &Observed) -> Action {
    let Status { step, phase, markers, .. } = persisted.status;
    if phase.is_over() {
        return Action::Nothing;
    }
    if matches!(step, Step::Begin | Step::Fetch)
        && markers.compaction_settled.is_none()
        && let Some(settle) = settle(persisted, observed)
    {
        return Action::Write(settle);
    }
    match step {
        Step::Begin => Action::Write(Change::Start),
        Step::Fetch if markers.open_the_gate() => Action::Write(Change::OpenGate),
        // Before the run: its record may be gone by now, and it need not be done again.
        Step::Fetch if markers.snapshot_restored.is_some() => Action::Wait(Waiting::Compaction),
        Step::Apply | Step::Install if !markers.open_the_gate() => Action::Wait(Waiting::Unknown),
        Step::Fetch => by_run(WorkerPhase::Snapshot, &observed.run),
        Step::Apply => by_run(WorkerPhase::Log, &observed.run),
        Step::Install => Action::Install,
        Step::Clear | Step::Unknown => Action::Wait(Waiting::Unknown),
    }
}

/// How the compaction settles; `None`: it is waited for.
fn settle(persisted: &Persisted<'_>, observed: &Observed) -> Option<Change> {
    let what = match &observed.compaction {
        Compaction::Complete(id) => {
            return Some(Change::Settle(Reason::Complete, "all its shards are ok".into(), Some(*id)));
        }
        Compaction::Failed(id, message) => return Some(Change::Settle(Reason::Failed, message.clone(), Some(*id))),
        Compaction::Mismatch(id, message) => return Some(Change::Settle(Reason::Mismatch, message.clone(), Some(*id))),
        Compaction::Absent => ("it is not there", None),
        Compaction::Running(id) => ("it has not ended", Some(*id)),
        Compaction::Unknown(message) => (message.as_str(), None),
    };
    let wait = persisted.wait_timeout.and_then(|wait| u64::try_from(wait).ok()).filter(|wait| *wait > 0)?;
    let over = observed.now.saturating_sub(persisted.created) > wait;
    over.then(|| Change::Settle(Reason::WaitTimeout, what.0.to_owned(), what.1))
}

fn by_run(phase: WorkerPhase, run: &Run) -> Action {
    match run {
        Run::Absent => Action::Create(phase),
        Run::Foreign => Action::Wait(Waiting::Foreign(phase)),
        Run::Alive => Action::Wait(Waiting::Worker(phase)),
        Run::Ok { .. } if phase == WorkerPhase::Snapshot => Action::Write(Change::Restored),
        Run::Ok { left_out, mode } => Action::Write(Change::Applied(left_out.clone(), mode.clone())),
        Run::Failed(cause) => Action::Write(Change::Fail(cause.clone())),
        Run::Idle { attempts, .. } if *attempts <= RESTARTS_MAX => Action::Launch(phase),
        Run::Idle { attempts, failure } => {
            let last = failure.as_ref().map_or_else(String::new, |cause| format!("; the last said: {}", cause.message));
            let kind = failure.as_ref().map_or("Lost", |cause| cause.kind.as_str()).to_owned();
            let message = format!("its worker has died {attempts} times{last}");
            Action::Write(Change::Fail(Cause { kind, message }))
        }
    }
}

impl Change {
    /// Makes it, at that time. The generation is the business of whoever writes.
    pub fn make(self, status: &mut Status, now: u64) {
        let mut reach = |phase: RestorePhase, reason: &str| {
            status.phase = phase;
            status.conditions.retain(|condition| condition.phase != phase);
            status.conditions.push(Condition { phase, reason: reason.to_owned(), at: now });
        };
        match self {
            Change::Start => {
                reach(RestorePhase::SnapshotRestore, "started");
                status.step = Step::Fetch;
            }
            Change::Restored => {
                status.markers.snapshot_restored.get_or_insert(now);
            }
            Change::Settle(reason, message, compaction) => {
                // Repeated, it tells more; it was settled when it was settled first.
                let at = status.markers.compaction_settled.as_ref().map_or(now, |settled| settled.at);
                status.markers.compaction_settled = Some(Settled { reason, message, compaction, at });
            }
            Change::OpenGate => {
                reach(RestorePhase::LogRestore, "gate-passed");
                status.step = Step::Apply;
            }
            Change::Applied(left_out, mode) => {
                reach(RestorePhase::Running, "log-applied");
                (status.step, status.left_out, status.mode) = (Step::Install, left_out, mode);
            }
            Change::Complete => {
                reach(RestorePhase::Complete, "installed");
                (status.step, status.failure) = (Step::Clear, None);
            }
            Change::Fail(Cause { kind, message }) => {
                let during = status.step;
                let reason = if during == Step::Apply { "log-restore-failed" } else { "snapshot-restore-failed" };
                reach(RestorePhase::Failed, reason);
                status.failure = Some(Failure { step: during, kind, message });
            }
        }
    }

    /// A few words of it, for people.
    pub fn describe(&self) -> String {
        match self {
            Change::Start => "phase 1 begins".into(),
            Change::Restored => "the base snapshot is restored".into(),
            Change::Settle(reason, message, _) => format!("the compaction has settled: {} ({message})", reason.name()),
            Change::OpenGate => "the gate is open: phase 2 begins".into(),
            Change::Applied(..) => "the log is applied".into(),
            Change::Complete => "the database is at its place".into(),
            Change::Fail(cause) => format!("the restore has failed: {}", cause.message),
        }
    }
}
