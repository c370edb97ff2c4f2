//! Who may write what: the coordinator alone STATUS, a worker its run and the database; and what a reader sees meanwhile.

use crate::common::options;
use crate::source::{Source, open_archive};
use crate::world::{PACE, check, compact_all, folder, go_on, log, start, target, waits};
use morphkv::ErrorKind;
use morphkv::log_backup::compact::Until;
use morphkv::restore::coordinator::{self, Did, Threads};
use morphkv::restore::moment::Moment;
use morphkv::restore::state::WorkerPhase;
use morphkv::restore::{self, Part};
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn ready() -> (Source, PathBuf) {
    let source = log(true);
    compact_all(&source, "compaction", Until::Latest);
    let target = target(&source);
    start(&source, &target, Moment::Latest, &waits("compaction", None));
    (source, target)
}

fn status_bytes(target: &Path) -> Vec<u8> {
    std::fs::read(folder(target).join("STATUS")).unwrap()
}

fn next_worker(source: &Source, target: &Path) -> Option<WorkerPhase> {
    loop {
        let (passed, _) = coordinator::step(target, &source.archive, &options()).unwrap();
        match passed.did {
            Did::Launches(call, _) => return Some(call.phase),
            Did::Over => return None,
            _ => {}
        }
    }
}

#[test]
fn a_worker_writes_its_run_and_the_database_alone() {
    let (source, target) = ready();
    while let Some(phase) = next_worker(&source, &target) {
        let before = status_bytes(&target);
        let names = |path: &Path| -> BTreeSet<String> {
            let entries = std::fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let beside = names(&folder(&target));
        restore::worker(&target, &source.archive, Part::Phase(phase), &options()).unwrap();
        assert_eq!(status_bytes(&target), before);
        let made: Vec<_> = names(&folder(&target)).difference(&beside).cloned().collect();
        assert!(made.iter().all(|name| name.starts_with("db")), "{made:?}");
    }
    let done = restore::status(&target, &options()).unwrap().unwrap();
    check(&source, &target, &done, Moment::Latest, "step by step");
}

#[test]
fn a_reader_sees_legal_pairs_alone_and_generations_that_rise_by_one() {
    let (source, target) = ready();
    let (done, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut pairs, mut last) = (BTreeSet::new(), 0);
            while !done.load(Ordering::Relaxed) {
                let found = restore::status(&target, &options()).unwrap().unwrap();
                assert!(found.status.generation >= last);
                last = found.status.generation;
                pairs.insert((found.status.phase.name(), found.status.step.name()));
                seen.store(true, Ordering::Relaxed);
            }
            pairs
        });
        while !seen.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let mut generation = 1;
        loop {
            let before = status_bytes(&target);
            let (passed, found) = coordinator::step(&target, &source.archive, &options()).unwrap();
            let wrote = found.status.generation - generation;
            assert_eq!((wrote > 0, wrote <= 1), (status_bytes(&target) != before, true), "{passed:?}");
            generation = found.status.generation;
            match passed.did {
                Did::Launches(call, _) => {
                    restore::worker(&target, &source.archive, Part::Phase(call.phase), &options()).unwrap();
                }
                Did::Over => break,
                _ => {}
            }
        }
        done.store(true, Ordering::Relaxed);
        let legal = [
            ("pending", "begin"),
            ("snapshot-restore", "fetch"),
            ("log-restore", "apply"),
            ("running", "install"),
            ("complete", "clear"),
        ];
        let pairs = reader.join().unwrap();
        assert!(pairs.iter().all(|pair| legal.contains(pair)) && pairs.len() > 1, "{pairs:?}");
    });
    let done = go_on(&source, &target);
    check(&source, &target, &done, Moment::Latest, "read meanwhile");
}

/// A worker that waits where a trap has it wait; it goes on when the file goes.
fn paused(
    source: &Source,
    target: &Path,
    phase: i64,
    trap: Trap,
) -> (PathBuf, std::thread::JoinHandle<morphkv::Result<()>>) {
    let file = source.directory.path().join("pause");
    let plan = TrapPlan::new().with(trap, 1, TrapAction::Pause(file.clone()));
    let pausing = options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan))));
    let (archive, target) = (open_archive(&source.directory.path().join("archive")), target.to_owned());
    let work = move || restore::worker(&target, &archive, Part::new(phase).unwrap(), &pausing).map(drop);
    let worker = std::thread::spawn(work);
    while !file.exists() {
        assert!(!worker.is_finished());
        std::thread::sleep(Duration::from_millis(1));
    }
    (file, worker)
}

#[test]
fn while_a_worker_lives_nobody_else_is_started_and_nothing_is_given_up() {
    let (source, target) = ready();
    for phase in [1, 2] {
        assert_eq!(next_worker(&source, &target).unwrap().number(), phase);
        let trap = if phase == 1 { Trap::RestoreFetched } else { Trap::RestoreSegmentRead };
        let (pause, worker) = paused(&source, &target, phase.into(), trap);
        let (passed, _) = coordinator::step(&target, &source.archive, &options()).unwrap();
        assert!(matches!(passed.did, Did::Waits(_)), "{passed:?}");
        let second = restore::worker(&target, &source.archive, Part::new(phase.into()).unwrap(), &options());
        assert_eq!(second.unwrap_err().kind(), ErrorKind::Locked);
        let refused = restore::abort(&target, &options()).unwrap_err();
        assert!(refused.kind() == ErrorKind::Locked && refused.message().contains("worker of phase"), "{refused:?}");
        let found = restore::status(&target, &options()).unwrap().unwrap();
        let runs = coordinator::runs(&found, &target, &options()).unwrap();
        let run = runs.iter().find(|run| run.phase == phase).unwrap();
        assert_eq!((run.state, run.attempts), ("alive", 1));
        std::fs::remove_file(pause).unwrap();
        worker.join().unwrap().unwrap();
    }
    let done = go_on(&source, &target);
    check(&source, &target, &done, Moment::Latest, "nobody else");
}

/// A coordinator that comes back while the worker of the one before is at it.
#[test]
fn a_worker_that_outlives_its_coordinator_is_found_again() {
    let (source, target) = ready();
    assert_eq!(next_worker(&source, &target).unwrap().number(), 1);
    let (pause, worker) = paused(&source, &target, 1, Trap::RestoreFetched);
    let done = std::thread::scope(|scope| {
        let coordinator = scope.spawn(|| {
            let mut threads = Threads::new(&source.archive, &options());
            coordinator::run(&target, &source.archive, &options(), &mut threads, &PACE)
        });
        std::thread::sleep(Duration::from_millis(50));
        // There is one coordinator.
        let second = coordinator::step(&target, &source.archive, &options()).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Locked);
        assert_eq!(restore::abort(&target, &options()).unwrap_err().kind(), ErrorKind::Locked);
        std::fs::remove_file(pause).unwrap();
        coordinator.join().unwrap().unwrap()
    });
    worker.join().unwrap().unwrap();
    check(&source, &target, &done, Moment::Latest, "found again");
}

/// A STATUS that somebody else has replaced meanwhile is not written over.
#[test]
fn a_write_over_another_generation_is_refused() {
    let (source, target) = ready();
    let found = coordinator::step(&target, &source.archive, &options()).unwrap().1;
    let old = status_bytes(&target);
    assert_eq!(next_worker(&source, &target).unwrap().number(), 1);
    let mut stale = morphkv::restore::folder::Folder::of(&target).unwrap();
    let vfs = RealVfs::default();
    let mut behind = found;
    stale.loads = target.clone();
    let refused = stale.note(&vfs, &mut behind, |status| status.failure = None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_ne!(status_bytes(&target), old);
}
