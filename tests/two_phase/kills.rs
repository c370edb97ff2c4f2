//! Coordinator and workers that die at every trap, in a child; it goes on to the same STATUS and the same data.

use crate::common::figures::Figures;
use crate::common::options;
use crate::source::{Source, open_archive};
use crate::world::{Inline, PACE, check, compact_all, essence, folder, go_on, log, start, target, waits};
use morphkv::log_backup::compact::Until;
use morphkv::restore::coordinator::{self, Launcher, WorkerCall};
use morphkv::restore::folder::Found;
use morphkv::restore::moment::Moment;
use morphkv::restore::state::RESTARTS_MAX;
use morphkv::restore::{self, Part};
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{Engine, ErrorKind, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const ORDERS: &str = "MORPHKV_TEST_TWO_PHASE";

/// With a compaction that is used, and one that is not there.
fn ready(fast: bool) -> Source {
    let source = log(fast);
    if fast {
        compact_all(&source, "compaction", Until::Latest);
    }
    source
}

fn begin(source: &Source) -> PathBuf {
    let target = target(source);
    start(source, &target, Moment::Latest, &waits("compaction", Some(1)));
    target
}

fn wipe(target: &Path) {
    drop(Engine::destroy(target, options()));
    drop(std::fs::remove_dir_all(folder(target)));
}

/// The traps that a whole restore meets, its workers in line, each with how often it was met until then; and its end.
fn whole(source: &Source) -> (Vec<(Trap, usize)>, String) {
    let target = begin(source);
    let plan = Arc::new(TrapPlan::new());
    let traced = options().vfs(Arc::new(RealVfs::with_traps(plan.clone())));
    let mut launcher = Inline::new(source, traced.clone());
    let found = coordinator::run(&target, &source.archive, &traced, &mut launcher, &PACE).unwrap();
    check(source, &target, &found, Moment::Latest, "undisturbed");
    (numbered(&plan.hits()), essence(&found))
}

fn numbered(hits: &[Trap]) -> Vec<(Trap, usize)> {
    let nth = |index: usize| hits[..=index].iter().filter(|other| **other == hits[index]).count();
    (0..hits.len()).map(|index| (hits[index], nth(index))).collect()
}

/// A process that does what an order says; the trap kills it there.
pub fn child_of(source: &Source, target: &Path, phase: u32, trap: Option<(Trap, usize)>) -> Command {
    let orders = json!({"directory": source.directory.path(), "target": target, "phase": phase});
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["kills::child", "--exact", "--quiet", "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::null());
    child.stderr(Stdio::null()).env(ORDERS, orders.to_string()).env_remove("MORPHKV_TRAP");
    if let Some((trap, nth)) = trap {
        child.env("MORPHKV_TRAP", format!("{}@{nth}=abort", trap.name()));
    }
    child
}

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Value = serde_json::from_str(&orders).unwrap();
    let directory = PathBuf::from(orders["directory"].as_str().unwrap());
    let target = PathBuf::from(orders["target"].as_str().unwrap());
    let archive = open_archive(&directory.join("archive"));
    // One for all that it does, so that hits are counted through.
    let options = options().vfs(Arc::new(RealVfs::new().unwrap()));
    match orders["phase"].as_u64().unwrap() {
        0 => {
            struct Here(morphkv::log_backup::archive::Archive, morphkv::Options);
            impl Launcher for Here {
                fn launch(&mut self, call: &WorkerCall) -> Result<()> {
                    restore::worker(&call.target, &self.0, Part::Phase(call.phase), &self.1).map(drop)
                }
                fn is_running(&mut self) -> bool {
                    false
                }
            }
            let mut launcher = Here(archive.clone(), options.clone());
            coordinator::run(&target, &archive, &options, &mut launcher, &PACE).unwrap();
        }
        phase => drop(restore::worker(&target, &archive, Part::new(phase as i64).unwrap(), &options).unwrap()),
    }
}

#[test]
fn whoever_dies_at_any_trap_it_ends_the_same() {
    let figures = Figures::new("two-phase-kills");
    let half = |fast: bool| {
        let source = ready(fast);
        let (hits, expected) = whole(&source);
        let mut kills = 0;
        for (index, &(trap, nth)) in hits.iter().enumerate() {
            let own = ["-restore-", "-phase-", "-control-"].iter().any(|part| trap.name().contains(part));
            // Those of a change of a place are swept elsewhere too.
            if !own && index % 4 != 0 {
                continue;
            }
            let what = format!("fast {fast}, {} {nth}", trap.name());
            let target = begin(&source);
            let status = child_of(&source, &target, 0, Some((trap, nth))).status().unwrap();
            // How many files a database has is RocksDB's business: the last one may not be there each time.
            assert!(status.signal().is_some() || trap == Trap::RestoreFileLinked, "{what}: it did not die: {status}");
            kills += usize::from(status.signal().is_some());
            if index % 3 == 0 {
                // Once more, on its way on.
                let (again, nth) = hits[index / 2 + (index * 7) % (hits.len() / 2)];
                let plan = TrapPlan::new().with(again, nth as u32, TrapAction::Error(ErrorKind::Io));
                let failing = options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan))));
                let mut launcher = Inline::new(&source, failing.clone());
                drop(coordinator::run(&target, &source.archive, &failing, &mut launcher, &PACE));
            }
            let found = go_on(&source, &target);
            assert_eq!(essence(&found), expected, "{what}");
            assert!(!folder(&target).join("runs").exists() && !folder(&target).join("db").exists(), "{what}");
            check(&source, &target, &found, Moment::Latest, &what);
        }
        (kills, hits.iter().map(|(trap, _)| trap.name()).collect::<BTreeSet<_>>())
    };
    let ((fast, met), (raw, _)) = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(false));
        (half(true), other.join().unwrap())
    });
    let of_it = Trap::ALL.iter().map(|trap| trap.name()).filter(|name| name.contains("-trap-phase-"));
    let missed: Vec<_> = of_it.filter(|name| !met.contains(name)).collect();
    assert!(missed.is_empty(), "traps that no restore in two phases meets: {missed:?}");
    figures.with("kills", fast + raw).with("traps", met.len()).with("wrong", 0).print();
}

/// Workers as children; the first one of a phase dies at a trap, or all do.
struct Children<'a> {
    source: &'a Source,
    phase: u32,
    trap: (Trap, usize),
    deaths: u32,
    child: Option<Child>,
    calls: u32,
}

impl Launcher for Children<'_> {
    fn launch(&mut self, call: &WorkerCall) -> Result<()> {
        let phase = call.phase.number();
        let dies = phase == self.phase && self.calls < self.deaths;
        self.calls += u32::from(phase == self.phase);
        let trap = dies.then_some(self.trap);
        self.child = Some(child_of(self.source, &call.target, phase, trap).spawn().unwrap());
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }
}

fn with_deaths(source: &Source, phase: u32, trap: (Trap, usize), deaths: u32) -> (Result<Found>, u32) {
    let target = target(source);
    let mut children = Children { source, phase, trap, deaths, child: None, calls: 0 };
    let found = coordinator::run(&target, &source.archive, &options(), &mut children, &PACE);
    (found, children.calls)
}

/// The traps that the worker of a phase meets.
fn hits_of(source: &Source, phase: u32) -> Vec<(Trap, usize)> {
    struct Traced<'a>(&'a Source, u32, Arc<TrapPlan>);
    impl Launcher for Traced<'_> {
        fn launch(&mut self, call: &WorkerCall) -> Result<()> {
            let vfs = Arc::new(RealVfs::with_traps(self.2.clone()));
            let traced = if call.phase.number() == self.1 { options().vfs(vfs) } else { options() };
            restore::worker(&call.target, &self.0.archive, Part::Phase(call.phase), &traced).map(drop)
        }
        fn is_running(&mut self) -> bool {
            false
        }
    }
    let target = begin(source);
    let plan = Arc::new(TrapPlan::new());
    coordinator::run(&target, &source.archive, &options(), &mut Traced(source, phase, plan.clone()), &PACE).unwrap();
    wipe(&target);
    numbered(&plan.hits())
}

#[test]
fn a_worker_that_dies_is_started_again_by_the_same_coordinator() {
    let figures = Figures::new("two-phase-workers");
    let mut kills = 0;
    let source = ready(true);
    let (_, expected) = whole(&source);
    for phase in [1, 2] {
        for (trap, nth) in hits_of(&source, phase) {
            let what = format!("phase {phase}, {} {nth}", trap.name());
            let target = begin(&source);
            let (found, calls) = with_deaths(&source, phase, (trap, nth), 1);
            let found = found.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            // One that has written its result had nothing left to do.
            let ended = trap == Trap::PhaseWorkerEnded;
            let last_write = trap == Trap::ControlFileRenamed && calls == 1;
            assert!(calls == if ended || last_write { 1 } else { 2 }, "{what}: {calls}");
            assert_eq!(essence(&found), expected, "{what}");
            check(&source, &target, &found, Moment::Latest, &what);
            kills += 1;
        }
    }
    figures.with("kills", kills).with("wrong", 0).print();
}

#[test]
fn a_worker_that_always_dies_fails_the_restore_and_keeps_the_step() {
    let source = ready(true);
    for (phase, step) in [(1, "fetch"), (2, "apply")] {
        let target = begin(&source);
        let (failed, calls) = with_deaths(&source, phase, (Trap::PhaseWorkerDone, 1), 99);
        assert_eq!((failed.unwrap_err().kind(), calls), (ErrorKind::Refused, RESTARTS_MAX + 1));
        let found = restore::status(&target, &options()).unwrap().unwrap();
        assert_eq!((found.status.phase.name(), found.status.step.name()), ("failed", step));
        // Terminal: nothing is done any more, nothing is written, and the place stays closed until it is given up.
        let before = std::fs::read(folder(&target).join("STATUS")).unwrap();
        assert_eq!(with_deaths(&source, phase, (Trap::PhaseWorkerDone, 1), 0).1, 0);
        assert_eq!(std::fs::read(folder(&target).join("STATUS")).unwrap(), before);
        let refused = Engine::open(&target, options().create_if_missing(true)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        assert!(restore::abort(&target, &options()).unwrap());
        Engine::open(&target, options().create_if_missing(true)).unwrap().close().unwrap();
        wipe(&target);
    }
}

/// What a worker says that cannot go on is kept; what may be mended is tried again, and then fails with its reason.
#[test]
fn an_error_is_tried_again_and_its_reason_is_kept() {
    let source = ready(true);
    let target = begin(&source);
    let mut launcher = Inline::new(&source, options());
    for action in [ErrorKind::NoSpace, ErrorKind::Io] {
        let plan = TrapPlan::new().with(Trap::RestoreDetached, 1, TrapAction::Error(action));
        launcher.options = options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan))));
        loop {
            let (passed, _) = coordinator::step(&target, &source.archive, &options()).unwrap();
            if let coordinator::Did::Launches(call, _) = &passed.did {
                launcher.launch(call).unwrap();
                break;
            }
        }
        let found = restore::status(&target, &options()).unwrap().unwrap();
        let runs = coordinator::runs(&found, &target, &options()).unwrap();
        assert_eq!((runs[0].state, runs[0].failure.as_ref().unwrap().kind.as_str()), ("died", action.name()));
    }
    let found = go_on(&source, &target);
    check(&source, &target, &found, Moment::Latest, "tried again");
    // For good: an encoding that nobody knows is not tried again.
    let target = begin(&source);
    let plan = TrapPlan::new().with(Trap::RestoreDetached, 1, TrapAction::Error(ErrorKind::Unsupported));
    let mut launcher = Inline::new(&source, options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan)))));
    let error = coordinator::run(&target, &source.archive, &options(), &mut launcher, &PACE).unwrap_err();
    assert_eq!((error.kind(), &launcher.calls[..]), (ErrorKind::Refused, &[1][..]), "{error:?}");
    assert!(error.message().contains("restore-detached"), "{error:?}");
    assert!(restore::abort(&target, &options()).unwrap());
}

/// What was applied before a death is not applied again.
#[test]
fn a_worker_goes_on_from_where_it_had_come() {
    let source = ready(false);
    let (hits, _) = whole(&source);
    let all = hits.iter().filter(|(trap, _)| *trap == Trap::RestoreSegmentRead).count();
    let target = begin(&source);
    // The end of a leg is durable; the last leg is behind it. Here there is one: nothing is skipped, nothing is wrong.
    let plan = Arc::new(TrapPlan::new());
    let (found, _) = with_deaths(&source, 2, (Trap::PhaseWorkerDone, 1), 1);
    let found = found.unwrap();
    check(&source, &target, &found, Moment::Latest, "in one go");
    let target = begin(&source);
    struct Second<'a>(&'a Source, Arc<TrapPlan>, u32);
    impl Launcher for Second<'_> {
        fn launch(&mut self, call: &WorkerCall) -> Result<()> {
            if call.phase.number() == 2 && self.2 == 0 {
                self.2 += 1;
                let dying = child_of(self.0, &call.target, 2, Some((Trap::PhaseWorkerDone, 1))).status().unwrap();
                assert!(dying.signal().is_some());
                return Ok(());
            }
            let traced = options().vfs(Arc::new(RealVfs::with_traps(self.1.clone())));
            restore::worker(&call.target, &self.0.archive, Part::Phase(call.phase), &traced).map(drop)
        }
        fn is_running(&mut self) -> bool {
            false
        }
    }
    let found = coordinator::run(&target, &source.archive, &options(), &mut Second(&source, plan.clone(), 0), &PACE);
    check(&source, &target, &found.unwrap(), Moment::Latest, "goes on");
    let again = plan.hits().iter().filter(|trap| **trap == Trap::RestoreSegmentRead).count();
    assert!(again < all, "{again} of {all} segments were applied again");
}
