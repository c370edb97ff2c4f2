//! Workers that stand still, longer than their pin lives: what protected their work is gone when they go on, and so may be
//! what they have read and stored. They find out, and nothing wrong comes of what they do then.

use crate::common::figures::Figures;
use crate::common::{options, scratch};
use crate::runs::{compactions, files, request, small};
use crate::source::{Source, check};
use morphkv::log_backup::archive::Archive;
use morphkv::log_backup::compact::{Report, State, compact};
use morphkv::log_backup::fsck::{ORPHAN_AGE, fsck};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::pin::TTL;
use morphkv::log_backup::truncate::{TruncateOptions, Truncated, truncate};
use morphkv::log_backup::{compaction, verify};
use morphkv::restore::moment::Moment;
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

const NAME: &str = "paused";
const SHARDS: u32 = 2;
const AT_ONCE: TruncateOptions = TruncateOptions { grace: Duration::ZERO, dry_run: false };

fn shard(archive: &Archive, shard: u32) -> Result<Report> {
    compact(archive, &request(NAME, shard, SHARDS, scratch().path()), &options())
}

/// A worker of the first shard that stands still at a trap.
struct Paused {
    file: PathBuf,
    worker: JoinHandle<Result<Report>>,
}

impl Paused {
    fn at(source: &Source, trap: Trap) -> Paused {
        let file = source.directory.path().join("pause");
        let plan = TrapPlan::new().with(trap, 1, TrapAction::Pause(file.clone()));
        let vfs = Arc::new(RealVfs::with_traps(Arc::new(plan)));
        let archive = source.archive.clone();
        let worker = std::thread::spawn(move || {
            let scratch = scratch();
            compact(&archive, &request(NAME, 1, SHARDS, scratch.path()), &options().vfs(vfs))
        });
        while !file.exists() {
            assert!(!worker.is_finished(), "{} is not met", trap.name());
            std::thread::sleep(Duration::from_millis(1));
        }
        Paused { file, worker }
    }

    fn goes_on(self) -> Result<Report> {
        std::fs::remove_file(&self.file).unwrap();
        self.worker.join().unwrap()
    }
}

/// What stands in a folder of the archive was written that long before.
fn age(source: &Source, folder: &str, by: Duration) {
    let folder = source.directory.path().join("archive").join(folder);
    for path in if folder.exists() { files(&folder) } else { Vec::new() } {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }
}

/// The pin's time to live is over, and its holder does not know: its clock stood still with it.
fn pins_expire(source: &Source) {
    age(source, "v1/pins", TTL + Duration::from_secs(1));
}

/// All that was compacted is truncated, and deleted at once.
fn truncate_all(source: &mut Source) -> Truncated {
    source.put("/later", "1");
    source.snapshot();
    source.put("/later", "2");
    source.ship(None);
    let truncated = truncate(&source.archive, Until::Latest, AT_ONCE).unwrap();
    assert!(truncated.doomed_objects > 5, "{truncated:?}");
    truncated
}

/// Objects of the compaction, without the folder of all of them.
fn objects(source: &Source) -> Vec<String> {
    let root = source.directory.path().join("archive/v1/compactions").join(NAME);
    let all = if root.exists() { files(&root) } else { Vec::new() };
    all.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
}

/// Restores are right, and nothing that HEAD speaks of is missing.
fn assert_harmless(source: &Source, what: &str) {
    assert_eq!(verify::verify(&source.archive).unwrap().faults, [], "{what}");
    let found = check(source, Moment::Latest, options(), source.states.last().unwrap(), what);
    assert_eq!(found.status.left_out, [], "{what}");
}

/// Whatever is left goes once it is old.
fn assert_swept(source: &Source, what: &str) {
    age(source, "v1/compactions", ORPHAN_AGE * 2);
    age(source, "v1/pins", TTL * 2);
    let swept = fsck(&source.archive, true).unwrap();
    assert!(swept.is_sound() && swept.unknown.is_empty(), "{what}: {swept:?}");
    assert!(objects(source).iter().all(|name| name == "SPEC"), "{what}: {:?}", objects(source));
}

fn traps() -> impl Iterator<Item = Trap> {
    Trap::ALL.iter().copied().filter(|trap| trap.name().starts_with("morphkv-trap-compact-"))
}

#[test]
fn a_worker_that_stands_still_while_its_segments_are_deleted() {
    let figures = Figures::new("compaction-pauses");
    let (mut pauses, mut lost) = (0, 0);
    for trap in traps() {
        for sweeps in [false, true] {
            let what = format!("{}, swept: {sweeps}", trap.name());
            let mut source = small();
            if trap != Trap::CompactPinned {
                shard(&source.archive, 2).unwrap();
            }
            let paused = Paused::at(&source, trap);
            pins_expire(&source);
            let truncated = truncate_all(&mut source);
            assert_eq!(truncated.pending, [], "{what}");
            if sweeps {
                pins_expire(&source);
                age(&source, "v1/compactions", ORPHAN_AGE * 2);
                assert!(fsck(&source.archive, true).unwrap().is_sound(), "{what}");
            }
            let done = paused.goes_on();
            pauses += 1;
            match &done {
                Err(error) if trap == Trap::CompactPinned => assert_eq!(error.kind(), ErrorKind::NotFound, "{what}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Lost, "{what}: {error:?}"),
                // Nothing was to be done any more but to give the pin back.
                Ok(report) => assert!(trap == Trap::CompactCommitted, "{what}: {report:?}"),
            }
            lost += u64::from(done.is_err());
            assert_eq!(compactions(&source), [], "{what}");
            assert_harmless(&source, &what);
            assert_swept(&source, &what);
        }
    }
    figures.with("pauses", pauses).with("ended with an error", lost).with("wrong", 0).print();
}

/// Nothing is truncated, but all that the worker had stored was swept as a dead one's: it must not be referred to.
#[test]
fn a_worker_that_stands_still_while_what_it_has_stored_is_swept() {
    for trap in [
        Trap::CompactPartStored,
        Trap::CompactNoteBefore,
        Trap::CompactNoteAfter,
        Trap::CompactResultBefore,
        Trap::CompactResultAfter,
        Trap::CompactEnded,
    ] {
        for sleeps in [true, false] {
            let what = format!("{}, sleeps: {sleeps}", trap.name());
            let source = small();
            shard(&source.archive, 2).unwrap();
            let paused = Paused::at(&source, trap);
            if sleeps {
                pins_expire(&source);
            } else {
                // `archive locks --break`
                std::fs::remove_dir_all(source.directory.path().join("archive/v1/pins")).unwrap();
            }
            age(&source, "v1/compactions", ORPHAN_AGE * 2);
            assert!(fsck(&source.archive, true).unwrap().removed > 2, "{what}");
            assert_eq!(objects(&source), ["SPEC"], "{what}");
            let error = paused.goes_on().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Lost, "{what}: {error:?}");
            assert_harmless(&source, &what);
            // Others do it again.
            for number in 1..=SHARDS {
                assert!(shard(&source.archive, number).unwrap().failure.is_none(), "{what}");
            }
            assert_eq!(compactions(&source).len(), 1, "{what}");
            assert_harmless(&source, &what);
        }
    }
}

/// Another has done the same shard meanwhile, and all the others.
#[test]
fn a_worker_that_stands_still_while_another_does_its_shard() {
    for truncated in [None, Some(false), Some(true)] {
        let what = format!("truncated, and the pin expired: {truncated:?}");
        let mut source = small();
        let paused = Paused::at(&source, Trap::CompactResultBefore);
        assert!(!shard(&source.archive, 1).unwrap().was_done, "{what}");
        assert_eq!(shard(&source.archive, 2).unwrap().state, State::Complete, "{what}");
        if truncated == Some(true) {
            pins_expire(&source);
        }
        if let Some(expired) = truncated {
            let pending = truncate_all(&mut source).pending;
            assert_eq!(pending.is_empty(), expired, "{what}: {pending:?}");
        }
        let done = paused.goes_on();
        match truncated {
            None => {
                let report = done.unwrap();
                assert!(report.was_done && report.state == State::Complete, "{what}: {report:?}");
                // What it had stored itself is gone, and all of the other's stands.
                let body = &compactions(&source)[0];
                let complete = compaction::read(&source.archive, body).unwrap();
                let referred = complete.runs.iter().flat_map(|run| run.own_objects()).count();
                let stored = objects(&source).iter().filter(|name| name.starts_with("data/")).count();
                assert_eq!(stored, referred, "{what}");
                assert_eq!(fsck(&source.archive, false).unwrap().orphans, [], "{what}");
                assert_harmless(&source, &what);
                continue;
            }
            Some(false) => {
                assert_eq!(done.unwrap().state, State::Outdated, "{what}");
                // What had to wait for its pin.
                assert_eq!(truncate(&source.archive, Until::Latest, AT_ONCE).unwrap().pending, [], "{what}");
            }
            Some(true) => assert_eq!(done.unwrap_err().kind(), ErrorKind::Lost, "{what}"),
        }
        assert_eq!(compactions(&source), [], "{what}");
        assert_harmless(&source, &what);
        assert_swept(&source, &what);
    }
}
