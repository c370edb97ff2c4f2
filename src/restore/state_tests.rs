//! The table of a two-phase restore, row by row, and a model that drives it through random interleavings.

use super::state::{
    Action, Cause, Change, Compaction, Markers, Observed, Persisted, RESTARTS_MAX, Reason, Run, Settled, Status, Step,
    Waiting, WorkerPhase, next,
};
use crate::place::restore_phase::RestorePhase;
use std::collections::BTreeMap;
use uuid::Uuid;

const ID: Uuid = Uuid::from_u128(7);
const CREATED: u64 = 1_000;

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

fn phase_of(step: Step) -> RestorePhase {
    match step {
        Step::Begin | Step::Unknown => RestorePhase::Pending,
        Step::Fetch => RestorePhase::SnapshotRestore,
        Step::Apply => RestorePhase::LogRestore,
        Step::Install => RestorePhase::Running,
        Step::Clear => RestorePhase::Complete,
    }
}

fn cause() -> Cause {
    Cause { kind: "Corrupt".into(), message: "why".into() }
}

fn ok() -> Run {
    Run::Ok { left_out: Vec::new(), mode: None }
}

fn idle(attempts: u32) -> Run {
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

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A run's directory, as it is.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    foreign: bool,
    attempts: u32,
    alive: bool,
    result: Option<bool>,
}

/// What the oracle knows of a restore; it never sees STATUS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    /// 0 nothing, 1 phase 1, 2 phase 2, 3 moving in.
    stage: usize,
    restored: bool,
    settled: bool,
    over: bool,
}

struct World {
    status: Status,
    wait: Option<i64>,
    now: u64,
    compaction: usize,
    records: [Option<Record>; 2],
    /// Workers that were started and have not taken their lock yet.
    starting: [bool; 2],
    known: Known,
    done: BTreeMap<&'static str, u64>,
}

impl World {
    fn run(&self, at: usize) -> Run {
        match self.records[at] {
            None => Run::Absent,
            Some(record) if record.foreign => Run::Foreign,
            Some(Record { result: Some(true), .. }) => ok(),
            Some(Record { result: Some(false), .. }) => Run::Failed(cause()),
            Some(Record { alive: true, .. }) => Run::Alive,
            Some(record) => idle(record.attempts),
        }
    }

    fn observed(&self) -> Observed {
        let compaction = match self.compaction {
            0 => Compaction::Absent,
            1 => Compaction::Running(ID),
            2 => Compaction::Unknown(String::new()),
            3 => Compaction::Complete(ID),
            4 => Compaction::Failed(ID, String::new()),
            _ => Compaction::Mismatch(ID, String::new()),
        };
        let at = usize::from(self.status.step == Step::Apply);
        Observed { now: self.now, compaction, run: self.run(at) }
    }

    /// What a pass has to do, from what has happened; and what is known then.
    fn oracle(&self) -> (&'static str, Known) {
        let mut known = self.known;
        if known.over {
            return ("nothing", known);
        }
        let waited = self.wait.is_some_and(|wait| wait > 0 && self.now > CREATED + wait as u64);
        if known.stage < 2 && !known.settled && (self.compaction >= 3 || waited) {
            known.settled = true;
            return ("settle", known);
        }
        if known.stage == 0 || (known.stage == 1 && known.restored) {
            let open = known.stage == 0 || known.settled;
            known.stage += usize::from(open);
            return (if open { "step" } else { "wait" }, known);
        }
        if known.stage == 3 {
            known.over = true;
            return ("install", known);
        }
        let Some(record) = self.records[known.stage - 1] else { return ("create", known) };
        match record {
            Record { foreign: true, .. } => return ("wait", known),
            Record { result: Some(true), .. } if known.stage == 1 => known.restored = true,
            Record { result: Some(true), .. } => known.stage = 3,
            Record { result: Some(false), .. } => known.over = true,
            Record { alive: true, .. } => return ("wait", known),
            Record { attempts, .. } if attempts < 4 => return ("launch", known),
            _ => known.over = true,
        }
        (
            if known.over {
                "fail"
            } else if known.stage == 3 {
                "step"
            } else {
                "restored"
            },
            known,
        )
    }

    /// A pass that may die before its effect.
    fn pass(&mut self, dies: bool) {
        let (expected, known) = self.oracle();
        let observed = self.observed();
        let action = next(&Persisted { status: &self.status, created: CREATED, wait_timeout: self.wait }, &observed);
        let found = match &action {
            Action::Nothing => "nothing",
            Action::Wait(_) => "wait",
            Action::Create(_) => "create",
            Action::Launch(_) => "launch",
            Action::Install => "install",
            Action::Write(Change::Settle(..)) => "settle",
            Action::Write(Change::Restored) => "restored",
            Action::Write(Change::Fail(_)) => "fail",
            Action::Write(_) => "step",
        };
        assert_eq!(found, expected, "{action:?}: {:?} {:?} {:?}", self.status, self.known, self.records);
        *self.done.entry(if dies { "dies" } else { found }).or_default() += 1;
        if dies {
            return;
        }
        let (step, over) = (self.status.step, self.status.phase.is_over());
        let (restored, settled) =
            (self.status.markers.snapshot_restored, self.status.markers.compaction_settled.clone());
        let open = self.status.markers.open_the_gate();
        let change = match action {
            Action::Write(change) => Some(change),
            Action::Install => Some(Change::Complete),
            Action::Create(phase) => {
                let at = (phase.number() - 1) as usize;
                assert!(self.records[at].is_none() && (at == 0 || open), "a run of phase 2 before both markers");
                self.records[at] = Some(Record::default());
                None
            }
            Action::Launch(phase) => {
                assert!(phase == WorkerPhase::Snapshot || open, "phase 2 begins before both markers");
                self.starting[(phase.number() - 1) as usize] = true;
                None
            }
            Action::Nothing | Action::Wait(_) => None,
        };
        if let Some(change) = change {
            assert!(!over, "{change:?} after the end");
            change.make(&mut self.status, self.now);
        }
        self.known = known;
        let after = &self.status;
        assert!(after.step >= step, "the step goes back");
        assert!(restored.is_none() || after.markers.snapshot_restored == restored, "a marker changes");
        assert!(settled.is_none() || after.markers.compaction_settled == settled, "a marker changes");
        // What readers see: of a restore that has not failed the phase is that of the step.
        assert!(after.phase == RestorePhase::Failed || after.phase == phase_of(after.step), "{after:?}");
        assert!(after.step < Step::Apply || after.markers.open_the_gate());
    }

    fn event(&mut self, random: &mut Random) {
        let at = random.below(2) as usize;
        match random.below(16) {
            0..=5 => self.pass(false),
            6 => self.pass(true),
            7 => self.now += 1 + random.below(8),
            8 => self.compaction = random.below(6) as usize,
            9 => self.starting[at] = false,
            10 if random.below(6) == 0 => self.records[at] = None,
            11 if random.below(12) == 0 => {
                self.records[at] = Some(Record { foreign: true, result: Some(true), ..Record::default() })
            }
            _ => self.work(at, random),
        }
    }

    /// A worker begins, dies, or ends.
    fn work(&mut self, at: usize, random: &mut Random) {
        let starts = std::mem::take(&mut self.starting[at]);
        let Some(record) = &mut self.records[at] else { return };
        if record.foreign || record.result.is_some() {
            return;
        }
        if record.alive {
            match random.below(4) {
                0 => record.alive = false,
                1 if random.below(3) == 0 => (record.alive, record.result) = (false, Some(false)),
                2 => (record.alive, record.result) = (false, Some(true)),
                _ => {}
            }
        } else if starts {
            (record.alive, record.attempts) = (true, record.attempts + 1);
            assert!(record.attempts <= RESTARTS_MAX + 1, "it is started too often");
        }
    }
}

/// From wherever it has come, it ends when all that it waits for comes.
fn finish(world: &mut World) -> u64 {
    for passes in 0..40 {
        if world.status.phase.is_over() {
            return passes;
        }
        world.pass(false);
        world.compaction = world.compaction.max(3);
        for record in world.records.iter_mut() {
            match record {
                Some(record) if record.foreign => *record = Record { result: Some(false), ..Record::default() },
                Some(record) => record.result = record.result.or(Some(true)),
                None => {}
            }
        }
    }
    panic!("it does not end: {:?} {:?}", world.status, world.records);
}

#[test]
fn random_interleavings_agree_with_the_oracle() {
    const INTERLEAVINGS: u64 = 120_000;
    let began = std::time::Instant::now();
    let (mut done, mut events, mut by_itself) = (BTreeMap::new(), 0, 0);
    let mut ends = BTreeMap::new();
    for seed in 0..INTERLEAVINGS {
        let mut random = Random(seed);
        let wait = [None, Some(-1), Some(0), Some(5), Some(20)][random.below(5) as usize];
        let mut world = World {
            status: Status::new(ID, true),
            wait,
            now: CREATED,
            compaction: random.below(3) as usize,
            records: [None; 2],
            starting: [false; 2],
            known: Known::default(),
            done,
        };
        let length = 10 + random.below(50);
        for _ in 0..length {
            world.event(&mut random);
        }
        events += length;
        by_itself += u64::from(world.status.phase.is_over());
        finish(&mut world);
        *ends.entry((world.status.phase.name(), world.status.step.name())).or_insert(0u64) += 1;
        done = world.done;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "two-phase-model: interleavings: {INTERLEAVINGS}, events: {events}, over by themselves: {by_itself}, passes: {done:?}, ends: {ends:?}, wrong: 0, seconds: {seconds:.1}"
    );
    for what in ["nothing", "wait", "create", "launch", "install", "settle", "restored", "fail", "step", "dies"] {
        assert!(done[what] > INTERLEAVINGS / 20, "{what}: {done:?}");
    }
    assert_eq!(ends.len(), 3, "complete, failed in phase 1, failed in phase 2: {ends:?}");
}
