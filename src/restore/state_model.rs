//! A model that drives the table of a two-phase restore through random interleavings of passes, workers, compactions and
//! crashes, beside an oracle.

use super::state::{
    Action, Change, Compaction, Observed, Persisted, RESTARTS_MAX, Run, Status, Step, WorkerPhase, next,
};
use super::state_tests::{CREATED, ID, cause, idle, ok, phase_of};
use crate::place::restore_phase::RestorePhase;
use std::collections::BTreeMap;

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
