//! The last steps: a worker that is killed in the middle of phase 2 while what it reads goes away, and the write of STATUS that
//! fails when all else is done.

use crate::common::{content, options};
use crate::kills::child_of;
use crate::source::Source;
use crate::world::{Inline, PACE, check, compact_all, folder, go_on, is_fast, log, start, target, waits};
use morphkv::log_backup::compact::Until;
use morphkv::restore::coordinator::{self, Did, Launcher, Passed, WorkerCall};
use morphkv::restore::folder::Found;
use morphkv::restore::moment::Moment;
use morphkv::restore::state::{RESTARTS_MAX, Waiting, WorkerPhase};
use morphkv::restore::{self, Part};
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{Engine, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "compaction";

fn ready() -> (Source, PathBuf) {
    let source = log(true);
    compact_all(&source, NAME, Until::Latest);
    let target = target(&source);
    start(&source, &target, Moment::Latest, &waits(NAME, None));
    (source, target)
}

fn remove(source: &Source, what: &str) {
    std::fs::remove_dir_all(source.directory.path().join("archive/v1").join(what)).unwrap();
}

/// The first worker of phase 2 stops at a trap. Once the coordinator has seen it alive, these go from the archive, and then it
/// is killed. All other workers run in line.
struct Killed<'a> {
    source: &'a Source,
    at: Trap,
    goes: &'a [&'a str],
    child: Option<Child>,
    calls: Vec<u32>,
    was_seen_alive: bool,
}

impl<'a> Killed<'a> {
    fn new(source: &'a Source, at: Trap, goes: &'a [&'a str]) -> Self {
        Killed { source, at, goes, child: None, calls: Vec::new(), was_seen_alive: false }
    }
}

impl Launcher for Killed<'_> {
    fn launch(&mut self, call: &WorkerCall) -> Result<()> {
        let phase = call.phase.number();
        let first = phase == 2 && !self.calls.contains(&2);
        self.calls.push(phase);
        if !first {
            drop(restore::worker(&call.target, &self.source.archive, Part::Phase(call.phase), &options()));
            return Ok(());
        }
        let file = self.source.directory.path().join("stopped");
        let mut command = child_of(self.source, &call.target, phase, None);
        let mut child =
            command.env("MORPHKV_TRAP", format!("{}=pause:{}", self.at.name(), file.display())).spawn().unwrap();
        while !file.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it never came to {}", self.at.name());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child = Some(child);
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        self.child.is_some()
    }

    fn passed(&mut self, passed: &Passed) {
        if passed.did != Did::Waits(Waiting::Worker(WorkerPhase::Log)) {
            return;
        }
        self.was_seen_alive = true;
        self.goes.iter().for_each(|what| remove(self.source, what));
        let mut child = self.child.take().expect("nobody else is at it");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn with_kill(source: &Source, target: &Path, at: Trap, goes: &[&str]) -> Result<Found> {
    let mut launcher = Killed::new(source, at, goes);
    let found = coordinator::run(target, &source.archive, &options(), &mut launcher, &PACE);
    assert!(launcher.was_seen_alive, "{}: the coordinator never saw the worker", at.name());
    let again = if found.is_ok() { 1 } else { RESTARTS_MAX as usize };
    assert_eq!(launcher.calls, [&[1, 2][..], &vec![2; again][..]].concat(), "{}", at.name());
    found
}

/// Nothing but the coordinator's own look tells of the death: nobody waits for the compaction any more.
#[test]
fn a_worker_that_is_killed_while_the_compaction_is_deleted_is_noticed() {
    for at in [
        Trap::PhaseWorkerBegun,
        Trap::RestoreRunFetched,
        Trap::RestoreRunTaken,
        Trap::RestoreRunEnded,
        Trap::PhaseWorkerDone,
    ] {
        let (source, target) = ready();
        let found = with_kill(&source, &target, at, &["compactions"]).unwrap();
        // The mode stays what it was; what is not in goes through the log, and that is told.
        let left_out = usize::from(at != Trap::PhaseWorkerDone);
        assert_eq!((is_fast(&found.status), found.status.left_out.len()), (true, left_out), "{}", at.name());
        check(&source, &target, &found, Moment::Latest, at.name());
    }
}

/// With the log gone, too, there is nothing to restore from: it fails, and says why.
#[test]
fn a_worker_that_is_killed_while_all_that_it_reads_is_deleted_fails_the_restore_with_the_reason() {
    let (source, target) = ready();
    let failed = with_kill(&source, &target, Trap::PhaseWorkerBegun, &["compactions", "log"]).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Refused, "{failed:?}");
    let found = restore::status(&target, &options()).unwrap().unwrap();
    let failure = found.status.failure.clone().unwrap();
    assert_eq!((found.status.phase.name(), found.status.step.name()), ("failed", "apply"));
    assert_eq!(failure.kind, ErrorKind::NotFound.name(), "{failure:?}");
    assert!(failed.message().contains(&failure.message) && failure.message.contains("v1/log/"), "{failed:?}");
    assert!(Engine::open(&target, options().create_if_missing(true)).is_err(), "an empty database was made");
}

/// STATUS says running: the log is applied, and the coordinator dies while the database is moved in. The archive is not
/// needed any more.
#[test]
fn what_is_applied_is_moved_in_although_the_archive_is_gone() {
    for at in [Trap::RestoreIdentityWritten, Trap::RestoreInstalled] {
        let (source, target) = ready();
        let mut launcher = Inline::new(&source, options());
        loop {
            let (passed, found) = coordinator::step(&target, &source.archive, &options()).unwrap();
            if let Did::Launches(call, _) = &passed.did {
                launcher.launch(call).unwrap();
            }
            if found.status.phase.name() == "running" {
                break;
            }
        }
        remove(&source, "compactions");
        remove(&source, "log");
        let plan = Arc::new(TrapPlan::new().with(at, 1, TrapAction::Error(ErrorKind::Io)));
        let failing = options().vfs(Arc::new(RealVfs::with_traps(plan)));
        coordinator::step(&target, &source.archive, &failing).unwrap_err();
        let mut launcher = Inline::new(&source, options());
        let found = coordinator::run(&target, &source.archive, &options(), &mut launcher, &PACE).unwrap();
        assert_eq!((&launcher.calls[..], &found.status.left_out[..]), (&[][..], &[][..]), "{}", at.name());
        check(&source, &target, &found, Moment::Latest, at.name());
    }
}

/// How often a coordinator whose workers are other processes meets a trap, from the beginning to the end.
fn count(trap: Trap) -> u32 {
    let (source, target) = ready();
    let plan = Arc::new(TrapPlan::new());
    let watched = options().vfs(Arc::new(RealVfs::with_traps(plan.clone())));
    let mut launcher = Inline::new(&source, options());
    coordinator::run(&target, &source.archive, &watched, &mut launcher, &PACE).unwrap();
    plan.hits().iter().filter(|hit| **hit == trap).count() as u32
}

#[test]
fn a_last_write_of_status_that_fails_is_repeated_and_nothing_else_is() {
    for (trap, last, stands) in [
        (Trap::ControlFileWritten, count(Trap::ControlFileWritten), false),
        (Trap::ControlFileSynced, count(Trap::ControlFileSynced), false),
        (Trap::ControlFileRenamed, count(Trap::ControlFileRenamed), true),
        (Trap::RestoreStatusWritten, count(Trap::RestoreStatusWritten), true),
    ] {
        let (source, target) = ready();
        let failing = |nth: u32| {
            let plan = Arc::new(TrapPlan::new().with(trap, nth, TrapAction::Error(ErrorKind::NoSpace)));
            options().vfs(Arc::new(RealVfs::with_traps(plan)))
        };
        let mut launcher = Inline::new(&source, options());
        let error = coordinator::run(&target, &source.archive, &failing(last), &mut launcher, &PACE).unwrap_err();
        assert_eq!(
            (error.kind(), &launcher.calls[..]),
            (ErrorKind::NoSpace, &[1, 2][..]),
            "{}: {error:?}",
            trap.name()
        );
        // The data is at its place, whatever STATUS says.
        let restored = Engine::open_read_only(&target, options()).unwrap();
        assert!(content(&restored) == source.content, "{}", trap.name());
        restored.close().unwrap();
        let marker = std::fs::read(target.join("KEY_ENCODING")).unwrap();
        let found = restore::status(&target, &options()).unwrap().unwrap();
        assert_eq!(found.is_complete(), stands, "{}: {:?}", trap.name(), found.status);
        let generation = found.status.generation;
        // It fails again and again, and goes on once it does not.
        for _ in 0..if stands { 0 } else { 3 } {
            let error = coordinator::step(&target, &source.archive, &failing(1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{}: {error:?}", trap.name());
            let found = restore::status(&target, &options()).unwrap().unwrap();
            assert_eq!((found.status.phase.name(), found.status.generation), ("running", generation));
        }
        let found = go_on_without_workers(&source, &target);
        assert_eq!(found.status.generation, generation + u64::from(!stands), "{}", trap.name());
        assert_eq!(std::fs::read(target.join("KEY_ENCODING")).unwrap(), marker, "it was moved in twice");
        assert!(!folder(&target).join("db").exists() && !folder(&target).join("runs").exists());
        check(&source, &target, &found, Moment::Latest, trap.name());
    }
}

fn go_on_without_workers(source: &Source, target: &Path) -> Found {
    let mut launcher = Inline::new(source, options());
    let found = coordinator::run(target, &source.archive, &options(), &mut launcher, &PACE).unwrap();
    assert_eq!(launcher.calls, [0u32; 0]);
    assert_eq!(go_on(source, target), found, "what is complete stays as it is");
    found
}
