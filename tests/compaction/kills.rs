//! Workers that die, or fail, at each trap of a compaction: the next ones bring it to the same end.

use crate::common::figures::Figures;
use crate::common::{options, scratch};
use crate::runs::{compactions, request, small};
use crate::source::{self, Source, open_archive};
use morphkv::log_backup::compact::{State, compact};
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{ErrorKind, Options, Result};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const DIRECTORY: &str = "MORPHKV_TEST_DIRECTORY";
const SHARDS: u32 = 3;

/// Works all shards; with one `vfs` for all, so that hits are counted through.
fn work_all(directory: &Path, options: &Options) -> Result<State> {
    let scratch = scratch();
    let archive = open_archive(&directory.join("archive"));
    let mut state = State::Running;
    for shard in 1..=SHARDS {
        state = compact(&archive, &request("killed", shard, SHARDS, scratch.path()), options)?.state;
    }
    Ok(state)
}

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let vfs = Arc::new(RealVfs::new().unwrap());
    work_all(Path::new(&directory), &options().vfs(vfs)).unwrap();
}

pub fn die(source: &Source, trap: Trap, nth: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["kills::child", "--exact", "--quiet", "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::null());
    child.stderr(Stdio::null()).env(DIRECTORY, source.directory.path());
    child.env("MORPHKV_TRAP", format!("{}@{nth}=abort", trap.name()));
    let status = child.status().unwrap();
    assert!(status.signal().is_some(), "{} {nth}: it did not die: {status}", trap.name());
}

fn check(source: &Source, what: &str) {
    assert_eq!(work_all(source.directory.path(), &options()).unwrap(), State::Complete, "{what}");
    assert_eq!(compactions(source).len(), 1, "{what}");
    assert_eq!(verify(&source.archive).unwrap().faults, [], "{what}");
    let found = source::check(source, Moment::Latest, options(), source.states.last().unwrap(), what);
    assert_eq!((found.plan.runs().count(), found.status.left_out.len()), (1, 0), "{what}");
}

#[test]
fn a_worker_that_dies_or_fails_at_any_trap_is_run_again() {
    let figures = Figures::new("compaction-kills");
    let plan = Arc::new(TrapPlan::new());
    let vfs = Arc::new(RealVfs::with_traps(plan.clone()));
    work_all(small().directory.path(), &options().vfs(vfs)).unwrap();
    let hits = plan.hits();
    let met: BTreeSet<_> = hits.iter().map(|trap| trap.name()).collect();
    let of_it = Trap::ALL.iter().map(|trap| trap.name()).filter(|name| name.starts_with("morphkv-trap-compact-"));
    let missed: Vec<_> = of_it.filter(|name| !met.contains(name)).collect();
    assert!(missed.is_empty(), "traps that no compaction meets: {missed:?}");
    let nth = |index: usize| hits[..=index].iter().filter(|other| **other == hits[index]).count();
    let points: Vec<_> = (0..hits.len()).map(|index| (hits[index], nth(index))).collect();
    let half = |points: &[(Trap, usize)]| {
        for &(trap, nth) in points {
            let what = format!("{} {nth}", trap.name());
            let source = small();
            die(&source, trap, nth);
            check(&source, &format!("killed at {what}"));
            let source = small();
            let failing = TrapPlan::new().with(trap, nth as u32, TrapAction::Error(ErrorKind::Io));
            let vfs = Arc::new(RealVfs::with_traps(Arc::new(failing)));
            let error = work_all(source.directory.path(), &options().vfs(vfs)).unwrap_err();
            assert!(error.kind() == ErrorKind::Io && error.message().contains(trap.name()), "{what}: {error:?}");
            // One that is killed leaves its pin to expire; one that fails gives it back.
            let pins = source.directory.path().join("archive/v1/pins");
            assert_eq!(std::fs::read_dir(pins).map_or(0, Iterator::count), 0, "{what}: a pin is left");
            check(&source, &format!("failed at {what}"));
        }
    };
    std::thread::scope(|scope| {
        let (a, b) = points.split_at(points.len() / 2);
        let other = scope.spawn(|| half(b));
        half(a);
        other.join().unwrap();
    });
    figures
        .with("traps", met.len())
        .with("kills", points.len())
        .with("failures", points.len())
        .with("wrong", 0)
        .print();
}
