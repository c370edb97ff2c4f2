//! The table of a two-phase restore, row by row.

use super::state::{
    Action, Cause, Change, Compaction, Markers, Observed, Persisted, RESTARTS_MAX, Reason, Run, Settled, Status, Step,
    Waiting, WorkerPhase, next,
};
use crate::place::restore_phase::RestorePhase;
use uuid::Uuid;

pub(super) const ID: Uuid = Uuid::from_u128(7);
pub(super) const CREATED: u64 = 1_000;

fn status(step: Step, restored: bool, settled: Option<Reason>) -> Status {
    let mut status = Status::new(ID, true);
    status.step = step;
    status.phase = phase_of(step);
    status.markers = Markers {
        snapshot_restored: restored.then_some(1),
        compaction_settled: settled.map(|reason| Settled { reason, message: "m".into(), compaction: None, at: 2 }),
    };
    status
}

pub(super) fn phase_of(step: Step) -> RestorePhase {
    match step {
        Step::Begin | Step::Unknown => RestorePhase::Pending,
        Step::Fetch => RestorePhase::SnapshotRestore,
        Step::Apply => RestorePhase::LogRestore,
        Step::Install => RestorePhase::Running,
        Step::Clear => RestorePhase::Complete,
    }
}

pub(super) fn cause() -> Cause {
    Cause { kind: "Corrupt".into(), message: "why".into() }
}

pub(super) fn ok() -> Run {
    Run::Ok { left_out: Vec::new(), mode: None }
}

pub(super) fn idle(attempts: u32) -> Run {
    Run::Idle { attempts, failure: None }
}

fn seen(compaction: Compaction, run: Run) -> Observed {
    Observed { now: CREATED, compaction, run }
}

/// What comes next, and what then stands in STATUS.
fn pass(status: &Status, wait: Option<i64>, observed: &Observed) -> (Action, Status) {
    let action = next(&Persisted { status, created: CREATED, wait_timeout: wait }, observed);
    let mut after = status.clone();
    if let Action::Write(change) = &action {
        change.clone().make(&mut after, observed.now);
    }
    (action, after)
}

const STEPS: [Step; 6] = [Step::Begin, Step::Fetch, Step::Apply, Step::Install, Step::Clear, Step::Unknown];

fn every_compaction() -> Vec<Compaction> {
    let text = String::new;
    vec![
        Compaction::Absent,
        Compaction::Running(ID),
        Compaction::Complete(ID),
        Compaction::Failed(ID, text()),
        Compaction::Mismatch(ID, text()),
        Compaction::Unknown(text()),
    ]
}

fn every_run() -> Vec<Run> {
    vec![Run::Absent, Run::Foreign, idle(0), idle(9), Run::Alive, ok(), Run::Failed(cause())]
}

#[test]
fn what_is_over_stays_as_it_is() {
    for phase in [RestorePhase::Complete, RestorePhase::Failed] {
        for step in STEPS {
            for compaction in every_compaction() {
                for run in every_run() {
                    let over = Status { phase, ..status(step, false, None) };
                    assert_eq!(pass(&over, Some(1), &seen(compaction.clone(), run)).0, Action::Nothing);
                }
            }
        }
    }
}

#[test]
fn phase_condition_and_step_move_in_one_write() {
    let (action, after) = pass(&status(Step::Begin, false, None), None, &seen(Compaction::Absent, Run::Absent));
    assert_eq!(action, Action::Write(Change::Start));
    assert_eq!((after.step, after.phase, after.conditions.len()), (Step::Fetch, RestorePhase::SnapshotRestore, 1));
    for reason in [Reason::Complete, Reason::Failed, Reason::WaitTimeout, Reason::Mismatch] {
        let (action, after) =
            pass(&status(Step::Fetch, true, Some(reason)), None, &seen(Compaction::Absent, Run::Absent));
        assert_eq!(action, Action::Write(Change::OpenGate), "{reason:?}");
        assert_eq!((after.step, after.phase, after.conditions.len()), (Step::Apply, RestorePhase::LogRestore, 1));
    }
    let (action, after) = pass(&status(Step::Apply, true, Some(Reason::Failed)), None, &seen(Compaction::Absent, ok()));
    assert_eq!(action, Action::Write(Change::Applied(Vec::new(), None)));
    assert_eq!((after.step, after.phase), (Step::Install, RestorePhase::Running));
    let install = status(Step::Install, true, Some(Reason::Failed));
    assert_eq!(pass(&install, None, &seen(Compaction::Absent, Run::Absent)).0, Action::Install);
    let mut done = install;
    Change::Complete.make(&mut done, 5);
    assert_eq!((done.step, done.phase), (Step::Clear, RestorePhase::Complete));
}

#[test]
fn a_compaction_that_is_missing_or_unfinished_is_waited_for_and_holds_nothing_up() {
    let unfinished = [Compaction::Absent, Compaction::Running(ID), Compaction::Unknown("invented".into())];
    for compaction in unfinished {
        // None, nothing, less than nothing: for ever. Exactly over is not over.
        for (wait, passed) in [(None, u64::MAX), (Some(0), u64::MAX), (Some(-5), u64::MAX), (Some(10), 10)] {
            let observed = Observed { now: CREATED.saturating_add(passed), ..seen(compaction.clone(), Run::Absent) };
            assert_eq!(pass(&status(Step::Begin, false, None), wait, &observed).0, Action::Write(Change::Start));
            let fetch = status(Step::Fetch, false, None);
            assert_eq!(pass(&fetch, wait, &observed).0, Action::Create(WorkerPhase::Snapshot), "{compaction:?}");
            let restored = status(Step::Fetch, true, None);
            assert_eq!(pass(&restored, wait, &observed).0, Action::Wait(Waiting::Compaction), "{compaction:?}");
        }
        // Long after its creation, in the first pass, and later ones.
        for step in [Step::Begin, Step::Fetch] {
            let observed = Observed { now: CREATED + 11, ..seen(compaction.clone(), Run::Alive) };
            let (action, after) = pass(&status(step, false, None), Some(10), &observed);
            assert!(matches!(action, Action::Write(Change::Settle(Reason::WaitTimeout, ..))), "{action:?}");
            assert_eq!((after.step, after.phase), (step, phase_of(step)));
        }
        // A clock that is behind.
        let observed = Observed { now: 0, ..seen(compaction, Run::Alive) };
        assert_eq!(pass(&status(Step::Begin, false, None), Some(1), &observed).0, Action::Write(Change::Start));
    }
}

#[test]
fn a_compaction_that_ends_or_does_not_fit_settles_and_moves_nothing_else() {
    let ended = [
        (Compaction::Complete(ID), Reason::Complete),
        (Compaction::Failed(ID, "shard 2".into()), Reason::Failed),
        (Compaction::Mismatch(ID, "its timeline".into()), Reason::Mismatch),
    ];
    for (compaction, reason) in ended {
        for (step, run) in [(Step::Begin, Run::Absent), (Step::Fetch, Run::Alive), (Step::Fetch, ok())] {
            let before = status(step, false, None);
            let (action, after) = pass(&before, None, &seen(compaction.clone(), run));
            assert!(matches!(action, Action::Write(Change::Settle(..))), "{action:?}");
            let settled = after.markers.compaction_settled.clone().unwrap();
            assert_eq!((settled.reason, settled.compaction, settled.at), (reason, Some(ID), CREATED));
            assert_eq!(Status { markers: before.markers.clone(), ..after }, before);
        }
        // It is not looked at any more, whatever has become of it.
        let settled = status(Step::Fetch, false, Some(Reason::WaitTimeout));
        assert_eq!(
            pass(&settled, None, &seen(compaction, Run::Alive)).0,
            Action::Wait(Waiting::Worker(WorkerPhase::Snapshot))
        );
    }
}

#[test]
fn a_repeated_marker_tells_more_and_keeps_its_time() {
    let mut status = status(Step::Fetch, false, None);
    Change::Settle(Reason::Failed, "a".into(), None).make(&mut status, 5);
    Change::Settle(Reason::Failed, "b".into(), Some(ID)).make(&mut status, 9);
    let settled = status.markers.compaction_settled.clone().unwrap();
    assert_eq!((settled.at, settled.message.as_str(), settled.compaction), (5, "b", Some(ID)));
    Change::Restored.make(&mut status, 6);
    Change::Restored.make(&mut status, 7);
    assert_eq!((status.markers.snapshot_restored, status.phase), (Some(6), RestorePhase::SnapshotRestore));
}

#[test]
fn runs_are_made_once_started_again_and_judged() {
    let of = |step: Step| match step {
        Step::Fetch => (WorkerPhase::Snapshot, status(step, false, None), "snapshot-restore-failed"),
        _ => (WorkerPhase::Log, status(step, true, Some(Reason::Mismatch)), "log-restore-failed"),
    };
    for step in [Step::Fetch, Step::Apply] {
        let (phase, before, failed) = of(step);
        // Whatever a phase says that no write of ours has left behind: the step counts.
        for said in
            [RestorePhase::Pending, RestorePhase::SnapshotRestore, RestorePhase::LogRestore, RestorePhase::Running]
        {
            let before = Status { phase: said, ..before.clone() };
            let act = |run: Run| pass(&before, None, &seen(Compaction::Absent, run));
            assert_eq!(act(Run::Absent).0, Action::Create(phase));
            assert_eq!(act(Run::Foreign).0, Action::Wait(Waiting::Foreign(phase)));
            assert_eq!(act(Run::Alive).0, Action::Wait(Waiting::Worker(phase)));
            for attempts in 0..=RESTARTS_MAX {
                assert_eq!(act(idle(attempts)).0, Action::Launch(phase));
            }
            for run in [idle(RESTARTS_MAX + 1), Run::Failed(cause())] {
                let (action, after) = act(run);
                assert!(matches!(action, Action::Write(Change::Fail(_))), "{action:?}");
                // Which phase has failed is seen from the step, and the cause is kept.
                assert_eq!((after.step, after.phase), (step, RestorePhase::Failed));
                assert_eq!(after.conditions.last().unwrap().reason, failed);
                assert_eq!(after.failure.unwrap().step, step);
            }
        }
        let dead = Run::Idle { attempts: RESTARTS_MAX + 1, failure: Some(cause()) };
        let after = pass(&before, None, &seen(Compaction::Absent, dead)).1;
        assert!(after.failure.unwrap().message.ends_with("the last said: why"));
    }
    let (action, after) = pass(&of(Step::Fetch).1, None, &seen(Compaction::Absent, ok()));
    assert_eq!(action, Action::Write(Change::Restored));
    assert_eq!((after.markers.snapshot_restored, after.phase), (Some(CREATED), RestorePhase::SnapshotRestore));
}

#[test]
fn the_gate_needs_both_markers_and_a_phase_that_is_done_is_not_done_again() {
    for run in every_run() {
        let restored = status(Step::Fetch, true, None);
        assert_eq!(pass(&restored, None, &seen(Compaction::Absent, run.clone())).0, Action::Wait(Waiting::Compaction));
        // The record of phase 1 may be gone, foreign, failed: it has been seen to end well.
        let both = status(Step::Fetch, true, Some(Reason::Complete));
        assert_eq!(pass(&both, None, &seen(Compaction::Absent, run.clone())).0, Action::Write(Change::OpenGate));
        for step in [Step::Apply, Step::Install] {
            for (restored, settled) in [(false, None), (true, None), (false, Some(Reason::Complete))] {
                let broken = status(step, restored, settled);
                assert_eq!(
                    pass(&broken, Some(1), &seen(Compaction::Absent, run.clone())).0,
                    Action::Wait(Waiting::Unknown)
                );
            }
        }
        let settled = status(Step::Fetch, false, Some(Reason::Complete));
        assert!(!matches!(pass(&settled, None, &seen(Compaction::Absent, run)).0, Action::Write(Change::OpenGate)));
    }
}

#[test]
fn an_unknown_step_is_left_alone() {
    let text = serde_json::to_string(&status(Step::Fetch, true, None)).unwrap().replace("\"fetch\"", "\"invented\"");
    let unknown: Status = serde_json::from_str(&text).unwrap();
    assert_eq!(unknown.step, Step::Unknown);
    for run in every_run() {
        assert_eq!(pass(&unknown, Some(1), &seen(Compaction::Complete(ID), run)).0, Action::Wait(Waiting::Unknown));
    }
}
