//! The sweep over every trap.

use super::common::figures::{Figures, torture};
use super::common::{self, options};
use super::scenario::{self, Scenario, database};
use morphkv::testing::{RealVfs, Trap, TrapPlan};
use morphkv::{Engine, Options};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const CHILD_SCENARIO: &str = "MORPHKV_TEST_SCENARIO";
pub const CHILD_DIRECTORY: &str = "MORPHKV_TEST_DIRECTORY";

/// This test binary as a child that runs one of its tests, `module::name`, and is silent.
pub fn child_that_runs(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--quiet"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Does `work` for each item, on two threads, and gives the results in the order of the items.
pub fn on_two_threads<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        let mut all = run();
        all.extend(other.join().unwrap());
        all
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Not a test of its own: what the children run. Without the variables it has nothing to do.
#[test]
fn child() {
    let (Ok(name), Ok(directory)) = (std::env::var(CHILD_SCENARIO), std::env::var(CHILD_DIRECTORY)) else { return };
    let directory = Path::new(&directory);
    if name == "open" {
        let _ = Engine::open(database(directory), options());
        return;
    }
    (scenario::named(&name).act)(directory, options()).unwrap();
}

/// How a child dies: as if killed, or with what it had not synced.
const DEATHS: [&str; 2] = ["abort", "power-cut"];

/// Runs a child that dies at the `nth` hit of `trap`. Whether it did.
pub fn crash(name: &str, directory: &Path, (trap, nth): (Trap, usize), death: &str) -> bool {
    let status = child_that_runs("sweep::child")
        .env(CHILD_SCENARIO, name)
        .env(CHILD_DIRECTORY, directory)
        .env("MORPHKV_TRAP", format!("{}@{nth}={death}", trap.name()))
        .status()
        .unwrap();
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(6)
}

/// The traps that `act` meets, in order.
fn hits(act: impl FnOnce(Options)) -> Vec<Trap> {
    let plan = Arc::new(TrapPlan::new());
    act(options().vfs(Arc::new(RealVfs::with_traps(plan.clone()))));
    plan.hits()
}

/// Each hit as (trap, how many-th hit of that trap).
fn numbered(hits: &[Trap]) -> Vec<(Trap, usize)> {
    hits.iter()
        .enumerate()
        .map(|(index, trap)| (*trap, hits[..=index].iter().filter(|other| *other == trap).count()))
        .collect()
}

struct Tally {
    crashes: usize,
    second_crashes: usize,
    opened: usize,
    met: BTreeSet<String>,
}

fn sweep(scenario: &Scenario, tally: &mut Tally) {
    let before = common::scratch();
    (scenario.prepare)(before.path());
    let trial = common::scratch();
    common::copy_tree(before.path(), trial.path());
    let met = hits(|options| (scenario.act)(trial.path(), options).unwrap());
    tally.met.extend(met.iter().map(|trap| trap.name().to_owned()));
    for (index, (trap, nth)) in numbered(&met).into_iter().enumerate() {
        // In the small size one death after the other.
        let deaths = DEATHS.into_iter().enumerate().filter(|(way, _)| torture() || way % 2 == index / 2 % 2);
        for (_, death) in deaths {
            let crashed = common::scratch();
            common::copy_tree(before.path(), crashed.path());
            let what = format!("{death} at {} ({nth})", trap.name());
            assert!(crash(scenario.name, crashed.path(), (trap, nth), death), "{}: no {what}", scenario.name);
            tally.crashes += 1;
            scenario::check(scenario, crashed.path(), &what);
            tally.opened += 3;
            if death == "abort" || torture() {
                crash_again(scenario, crashed.path(), &what, death, tally);
            }
        }
    }
}

/// Crashes at every trap inside the recovery from `crashed`.
fn crash_again(scenario: &Scenario, crashed: &Path, what: &str, death: &str, tally: &mut Tally) {
    let trial = common::scratch();
    common::copy_tree(crashed, trial.path());
    let met = hits(|options| drop(Engine::open(database(trial.path()), options)));
    for (trap, nth) in numbered(&met).into_iter().filter(|(trap, _)| *trap != Trap::LockTaken) {
        let again = common::scratch();
        common::copy_tree(crashed, again.path());
        assert!(
            crash("open", again.path(), (trap, nth), death),
            "{}: {what}, not again at {}",
            scenario.name,
            trap.name()
        );
        tally.second_crashes += 1;
        let what = format!("{what}, and in recovery at {} ({nth})", trap.name());
        let copy = common::scratch();
        common::copy_tree(again.path(), copy.path());
        scenario::check_unset(scenario, copy.path(), &what);
        tally.opened += 1;
    }
}

#[test]
fn every_trap_of_every_change() {
    let figures = Figures::new("trap-kills");
    let scenarios = scenario::all();
    let (even, odd): (Vec<_>, Vec<_>) = scenarios.iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let run = |half: Vec<(usize, &Scenario)>| {
        let mut tally = Tally { crashes: 0, second_crashes: 0, opened: 0, met: BTreeSet::new() };
        for (_, scenario) in half {
            sweep(scenario, &mut tally);
        }
        tally
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(odd));
        (run(even), other.join().unwrap())
    });
    let met: BTreeSet<_> = a.met.union(&b.met).cloned().collect();
    // Those of the log backup, of a restore, of one in two phases, of a truncation and of a compaction are swept by
    // `tests/log_backup/`, `tests/restore/`, `tests/two_phase/`, `tests/archive/` and `tests/compaction/`.
    let elsewhere = |name: &str| {
        let others = ["ship-", "restore-", "phase-", "truncate-", "compact-"];
        others.iter().any(|part| name.starts_with(&format!("morphkv-trap-{part}")))
    };
    let swept: Vec<_> = Trap::ALL.iter().map(|trap| trap.name()).filter(|name| !elsewhere(name)).collect();
    let missed: Vec<_> = swept.iter().filter(|name| !met.contains(**name)).collect();
    figures
        .with("traps", format!("{} of {}", swept.len() - missed.len(), swept.len()))
        .with("kills", a.crashes + b.crashes)
        .with("kills inside recovery", a.second_crashes + b.second_crashes)
        .with("opened and compared", a.opened + b.opened)
        .print();
    assert!(missed.is_empty(), "traps that no change meets: {missed:?}");
}
