//! A child is killed at every file operation, and at random instants under load.
//!
//! `SIGKILL`, as the kernel's own memory killer sends it: nothing of the child runs any more, no thread of RocksDB either.
//! The traps of the sweep stand where we thought of one; here the process dies after each operation that it did.

mod load;
pub mod steps;

use super::common::figures::Figures;
use super::common::{self, options};
use super::scenario::{self, Scenario};
use super::sweep::{CHILD_DIRECTORY, CHILD_SCENARIO, child_that_runs, on_two_threads};
use morphkv::Options;
use morphkv::testing::{Operation, RealVfs, RecordingVfs};
use rustix::process::{Signal, getpid, kill_process};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const CHILD_OPERATION: &str = "MORPHKV_TEST_OPERATION";
pub const SIGKILL: i32 = 9;

/// Options whose nth file operation is the last thing that the process does. The count goes up with each operation.
fn killed_after(nth: usize, count: Arc<AtomicUsize>) -> Options {
    let witness = move |operation: &Operation| {
        if !matches!(operation, Operation::Trap(_)) && count.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    };
    options().vfs(Arc::new(RecordingVfs::watched(Arc::new(RealVfs::default()), witness)))
}

/// Not a test of its own: what the children run. Without the variables it has nothing to do.
#[test]
fn child() {
    let Ok(nth) = std::env::var(CHILD_OPERATION) else { return };
    let scenario = scenario::named(&std::env::var(CHILD_SCENARIO).unwrap());
    let directory = std::env::var(CHILD_DIRECTORY).unwrap();
    let options = killed_after(nth.parse().unwrap(), Arc::new(AtomicUsize::new(0)));
    (scenario.act)(Path::new(&directory), options).unwrap();
}

/// A scenario, how the place looks before, and after how many operations it is killed.
struct Point<'a> {
    scenario: &'a Scenario,
    before: &'a Path,
    nth: usize,
}

/// What is left is opened with no encoding named, and for each of two.
const REQUESTS: usize = 3;

/// Kills at the point and compares. How many databases were opened and held what they had to.
fn kill(point: &Point<'_>) -> usize {
    let crashed = common::scratch();
    common::copy_tree(point.before, crashed.path());
    let what = format!("killed after file operation {}", point.nth);
    let status = child_that_runs("kills::child")
        .env(CHILD_SCENARIO, point.scenario.name)
        .env(CHILD_DIRECTORY, crashed.path())
        .env(CHILD_OPERATION, point.nth.to_string())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{}: not {what}: {status}", point.scenario.name);
    scenario::check(point.scenario, crashed.path(), &what);
    REQUESTS
}

/// How many operations the scenario does when nothing happens to it.
fn operations(scenario: &Scenario, before: &Path) -> usize {
    let trial = common::scratch();
    common::copy_tree(before, trial.path());
    let count = Arc::new(AtomicUsize::new(0));
    (scenario.act)(trial.path(), killed_after(0, count.clone())).unwrap();
    count.load(Ordering::SeqCst)
}

#[test]
fn after_every_file_operation() {
    let figures = Figures::new("kills");
    let prepared: Vec<(Scenario, TempDir)> = scenario::all()
        .into_iter()
        .map(|scenario| {
            let before = common::scratch();
            (scenario.prepare)(before.path());
            (scenario, before)
        })
        .collect();
    let counts = on_two_threads(&prepared, |(scenario, before)| operations(scenario, before.path()));
    let mut points = Vec::new();
    for ((scenario, before), count) in prepared.iter().zip(&counts) {
        println!("{}: {count} file operations", scenario.name);
        points.extend((1..=*count).map(|nth| Point { scenario, before: before.path(), nth }));
    }
    let whole = on_two_threads(&points, kill);
    assert!(whole.len() >= 200, "only {} kills", whole.len());
    let opened: usize = whole.iter().sum();
    figures
        .with("points", points.len())
        .with("kills", whole.len())
        .with("opened", opened)
        .with("lost", points.len() * REQUESTS - opened)
        .print();
}
