//! A database that is attached to a log archive: nothing that is to be shipped may be lost, whatever build opens it, and
//! its log tells all that was done to it.
#![cfg(feature = "traps")]

mod common;
#[path = "crash/scenario.rs"]
#[allow(dead_code)]
mod scenario;

use common::{Content, content, make, options, sample, scratch};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::testing::attachment::{Load, LoadState};
use morphkv::testing::batch_decoder::{Batch, DEFAULT_FAMILY, Operation};
use morphkv::testing::wal::{Next, Position, WalReader};
use morphkv::testing::{Cause, RealVfs, Trap, TrapAction, TrapPlan, attachment};
use morphkv::{Durability, Engine, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn wal_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
}

/// The bytes of every WAL file that is still there, archived ones too.
fn logged(database: &Path) -> Vec<u8> {
    let files = wal_files(database).into_iter().chain(wal_files(&database.join("archive")));
    files.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

fn written(attached: bool) -> (tempfile::TempDir, PathBuf) {
    let directory = scratch();
    let path = directory.path().join("db");
    make(&path, Arc::new(Natural), &sample(30));
    if attached {
        scenario::attach(&path);
    }
    for round in 0..3 {
        let engine = Engine::open(&path, options()).unwrap();
        engine.put(format!("/round/{round}"), format!("logged-{round}")).unwrap();
        engine.flush().unwrap();
        engine.close().unwrap();
    }
    drop(Engine::open(&path, options()).unwrap());
    (directory, path)
}

#[test]
fn wal_files_are_kept_through_flushes_and_openings() {
    let (_directory, path) = written(true);
    let bytes = logged(&path);
    assert!((0..3).all(|round| holds(&bytes, &format!("logged-{round}"))), "a WAL file was deleted");
    // The same without LOG_BACKUP: RocksDB removes what it does not need, so the test can fail.
    let (_directory, path) = written(false);
    let bytes = logged(&path);
    assert!(!(0..3).all(|round| holds(&bytes, &format!("logged-{round}"))));
}

#[test]
fn a_conversion_hands_the_log_over() {
    let (_directory, path) = written(true);
    let before = attachment::read(&RealVfs::default(), &path).unwrap().unwrap();
    let sequence = {
        let engine = Engine::open(&path, options()).unwrap();
        engine.put("last before the conversion", "last-words").unwrap();
        engine.last_sequence()
    };
    let engine = Engine::open(&path, options().encoding(Hierarchical)).unwrap();
    assert_eq!(content(&engine).len(), sample(30).len() + 4);
    let bytes: Vec<u8> =
        wal_files(&path.join("unshipped")).into_iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    assert!((0..3).all(|round| holds(&bytes, &format!("logged-{round}"))) && holds(&bytes, "last-words"));
    let after = attachment::read(&RealVfs::default(), &path).unwrap().unwrap();
    assert_ne!(after.timeline, before.timeline);
    assert_eq!((after.cause, after.archive), (Cause::Conversion, before.archive));
    let parent = after.parent.unwrap();
    assert_eq!((parent.timeline, parent.end_sequence), (before.timeline, sequence));
    // Nobody has shipped it: another conversion would leave it behind, and is refused before it does anything.
    engine.close().unwrap();
    let names = common::bytes_below(path.parent().unwrap()).into_keys().collect::<Vec<_>>();
    assert_eq!(Engine::open(&path, options().encoding(Natural)).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(common::bytes_below(path.parent().unwrap()).into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn what_would_lose_the_log_is_refused() {
    let (_directory, path) = written(true);
    let error = Engine::open(&path, options().durability(Durability::NoWal)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let file = path.join("LOG_BACKUP");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, &good[..good.len() - 1]).unwrap();
    assert_eq!(Engine::open(&path, options()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(Engine::open(&path, options().encoding(Hierarchical)).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(&file, good).unwrap();
    Engine::open(&path, options()).unwrap();
}

/// What the log of a database says that is in it, in natural encoding: `start`, and what its records do to that; a load is
/// `loaded`. Fails at a gap, at a batch without a stamp, and at a load that does not explain its place.
fn replayed(directory: &Path, start: &Content, loaded: &Content, internal: u32) -> (Content, u64) {
    let mut content = start.clone();
    let mut reader = WalReader::new(directory, Position::default(), None);
    loop {
        let explained = |record: &[u8], expected, found| {
            Load::in_batch(record, internal).unwrap().is_some_and(|load| load.explains(expected, found))
        };
        let noted =
            |jump: &morphkv::testing::wal::Jump<'_>| explained(jump.record.batch, jump.expected, jump.record.sequence);
        let record = match reader.next(&RealVfs::default(), noted).unwrap() {
            Next::Record(record) => record,
            Next::End { torn } => {
                assert!(!torn);
                return (content, reader.expected().unwrap() - 1);
            }
            Next::Gap(gap) => panic!("{gap:?}"),
        };
        for operation in Batch::new(record.batch).unwrap().operations().map(Result::unwrap) {
            match operation {
                Operation::Put { family: DEFAULT_FAMILY, key, value } => {
                    content.insert(key.to_vec(), value.to_vec());
                }
                Operation::Delete { family: DEFAULT_FAMILY, key } => drop(content.remove(key)),
                Operation::DeleteRange { family: DEFAULT_FAMILY, from, to } => {
                    content.retain(|key, _| key.as_slice() < from || key.as_slice() >= to);
                }
                Operation::Put { key: b"e/ingest", value, .. } => {
                    if matches!(Load::from_bytes(value).unwrap().state, LoadState::Done { .. }) {
                        content.extend(loaded.clone());
                    }
                }
                _ => {}
            }
        }
    }
}

fn to_load() -> Content {
    let old = sample(30).into_keys().step_by(2).map(|key| (key, b"loaded".to_vec()));
    old.chain((0..40).map(|number| (format!("/loaded/{number:02}").into_bytes(), b"loaded".to_vec()))).collect()
}

/// A load that the log calls begun, and of which nothing is in.
fn interrupt_a_load(path: &Path) {
    let plan = Arc::new(TrapPlan::new().with(Trap::LoadIntended, 1, TrapAction::Error(ErrorKind::Io)));
    let engine = Engine::open(path, options().vfs(Arc::new(RealVfs::with_traps(plan)))).unwrap();
    engine.ingest([Ok(("key", "loaded"))]).unwrap_err();
    engine.close().unwrap();
}

/// An attached database with nothing in its log but what comes now, and its content.
fn fresh(directory: &Path) -> (PathBuf, Content) {
    let path = directory.join("db");
    make(&path, Arc::new(Natural), &Content::new());
    scenario::attach(&path);
    (path, Content::new())
}

fn folders(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path.join("pending_ingest")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_log_tells_all_that_was_done_loads_too() {
    let directory = scratch();
    let (path, start) = fresh(directory.path());
    let mut engine = Engine::open(&path, options()).unwrap();
    let internal = engine.internal_family_id().unwrap();
    let loaded = to_load();
    for round in 0..4 {
        for (key, value) in sample(30) {
            engine.put(key, value).unwrap();
        }
        engine.delete_range("/key/1".."/key/2").unwrap();
        assert_eq!(engine.ingest(loaded.clone().into_iter().map(Ok)).unwrap(), loaded.len() as u64);
        engine.delete("/loaded/07").unwrap();
        if round == 2 {
            engine.flush().unwrap();
            engine.close().unwrap();
            engine = Engine::open(&path, options()).unwrap();
        }
        let (told, last) = replayed(&path, &start, &loaded, internal);
        assert!(told == content(&engine) && last == engine.last_sequence(), "round {round}");
        let names = folders(&path);
        assert_eq!(names.len(), round + 1);
        assert!(names.iter().all(|name| path.join("pending_ingest").join(name).join("000000.sst").is_file()));
    }
    // Nothing is loaded, nothing is noted.
    let before = engine.last_sequence();
    assert_eq!(engine.ingest(Vec::<morphkv::Result<(&str, &str)>>::new()).unwrap(), 0);
    assert_eq!(engine.last_sequence(), before);
    for name in folders(&path) {
        engine.remove_loaded_files(name.parse().unwrap()).unwrap();
    }
    assert!(folders(&path).is_empty());
    let told = content(&engine);
    engine.close().unwrap();
    assert_eq!(
        content(&Engine::open(&path, options()).unwrap()),
        told,
        "a load was repeated, or its files were missed"
    );
}

#[test]
fn a_load_that_fails_is_in_or_not_and_the_log_says_which() {
    let failing = [
        (Trap::LoadLinked, false, false),
        (Trap::LoadIntended, true, true),
        (Trap::LoadNamed, false, false),
        (Trap::LoadTaken, true, true),
        (Trap::LoadNoted, false, true),
    ];
    for (trap, closed, is_in) in failing {
        let directory = scratch();
        let (path, start) = fresh(directory.path());
        let plan = Arc::new(TrapPlan::new().with(trap, 1, TrapAction::Error(ErrorKind::NoSpace)));
        let engine = Engine::open(&path, options().vfs(Arc::new(RealVfs::with_traps(plan)))).unwrap();
        let internal = engine.internal_family_id().unwrap();
        engine.put("/loaded/00", "before").unwrap();
        let loaded = to_load();
        let error = engine.ingest(loaded.clone().into_iter().map(Ok)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{trap:?}");
        let after = engine.put("/loaded/01", "after");
        assert_eq!(after.as_ref().err().map(|error| error.kind()), closed.then_some(ErrorKind::Closed), "{trap:?}");
        if closed {
            let copy = engine.copy_for_base_snapshot(&directory.path().join("copy")).unwrap_err();
            assert_eq!(copy.kind(), ErrorKind::Closed);
        }
        engine.close().unwrap();
        for _ in 0..2 {
            let engine = Engine::open(&path, options()).unwrap();
            engine.put("/opened", "again").unwrap();
            let found = content(&engine);
            assert_eq!(found.len(), if is_in { loaded.len() + 1 } else { 3 }, "{trap:?}");
            let (told, last) = replayed(&path, &start, &loaded, internal);
            assert_eq!((told, last), (found, engine.last_sequence()), "{trap:?}");
            assert_eq!(folders(&path).len(), usize::from(is_in), "{trap:?}");
            assert!(!path.join("morphkv.ingest/again").exists());
            engine.close().unwrap();
        }
    }
}

#[test]
fn nobody_writes_while_a_load_is_noted() {
    let directory = scratch();
    let (path, start) = fresh(directory.path());
    let engine = Engine::open(&path, options()).unwrap();
    let (loaded, done) = (to_load(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (engine, done) = (&engine, &done);
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    engine.put(format!("/loaded/{:02}", number % 40), format!("{thread}/{number}")).unwrap();
                    number += 1;
                }
            });
        }
        for _ in 0..20 {
            engine.ingest(loaded.clone().into_iter().map(Ok)).unwrap();
            engine.put("/between", "loads").unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let (told, last) = replayed(&path, &start, &loaded, engine.internal_family_id().unwrap());
    assert!(told == content(&engine) && last == engine.last_sequence());
}

#[test]
fn an_interrupted_load_is_in_before_a_conversion_and_its_files_go_with_the_log() {
    let directory = scratch();
    let (path, start) = fresh(directory.path());
    let plan = Arc::new(TrapPlan::new().with(Trap::LoadTaken, 2, TrapAction::Error(ErrorKind::Io)));
    let engine = Engine::open(&path, options().vfs(Arc::new(RealVfs::with_traps(plan)))).unwrap();
    let internal = engine.internal_family_id().unwrap();
    let loaded = to_load();
    engine.ingest(loaded.clone().into_iter().map(Ok)).unwrap();
    engine.ingest(loaded.clone().into_iter().map(Ok)).unwrap_err();
    engine.close().unwrap();
    let engine = Engine::open(&path, options().encoding(Hierarchical)).unwrap();
    assert_eq!(content(&engine), loaded);
    let unshipped = path.join("unshipped");
    assert_eq!(folders(&unshipped).len(), 2);
    assert!(!path.join("pending_ingest").exists());
    // The log that was handed over is read as any other, to the end that the new timeline names.
    let parent = attachment::read(&RealVfs::default(), &path).unwrap().unwrap().parent.unwrap();
    assert_eq!(replayed(&unshipped, &start, &loaded, internal), (loaded.clone(), parent.end_sequence));
    engine.close().unwrap();
    let engine = Engine::open(&path, options()).unwrap();
    assert_eq!(content(&engine), loaded, "the old load was repeated in another encoding");
}

#[test]
fn an_interrupted_load_is_ended_also_where_nobody_is_attached_any_more() {
    let directory = scratch();
    let (path, _) = fresh(directory.path());
    interrupt_a_load(&path);
    std::fs::remove_file(path.join("LOG_BACKUP")).unwrap();
    let engine = Engine::open(&path, options()).unwrap();
    assert_eq!(engine.get("key").unwrap().unwrap(), "loaded");
    engine.put("key", "written since").unwrap();
    engine.close().unwrap();
    scenario::attach(&path);
    let engine = Engine::open(&path, options()).unwrap();
    assert_eq!(engine.get("key").unwrap().unwrap(), "written since");
}

#[test]
fn a_load_whose_files_are_gone_is_damage() {
    let directory = scratch();
    let (path, _) = fresh(directory.path());
    interrupt_a_load(&path);
    std::fs::remove_file(path.join("pending_ingest").join(&folders(&path)[0]).join("000000.sst")).unwrap();
    for encoding in [None, Some(Hierarchical)] {
        let options = encoding.map_or_else(options, |encoding| options().encoding(encoding));
        assert_eq!(Engine::open(&path, options).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn archived_files_go_up_to_the_one_that_is_named_while_checkpoints_are_made() {
    let directory = scratch();
    let (path, _) = fresh(directory.path());
    let engine = Engine::open(&path, options()).unwrap();
    let mut reader = WalReader::new(&path, Position::default(), None);
    std::thread::scope(|scope| {
        let copies = scope.spawn(|| {
            for number in 0..25 {
                let copy = directory.path().join(format!("copy-{number}"));
                engine.copy_for_base_snapshot(&copy).unwrap();
                std::fs::remove_dir_all(copy).unwrap();
            }
        });
        let (mut rounds, mut file) = (0, 0);
        while !copies.is_finished() || rounds < 25 {
            engine.put("key", format!("{rounds}")).unwrap();
            engine.flush().unwrap();
            while let Next::Record(record) = reader.next(&RealVfs::default(), |_| false).unwrap() {
                file = record.end.file;
            }
            let removed = engine.remove_archived_wal_files(file).unwrap();
            assert!(removed.iter().all(|removed| *removed < file));
            assert!(engine.archived_wal_files().unwrap().iter().all(|kept| *kept >= file));
            rounds += 1;
        }
    });
    engine.put("key", "last").unwrap();
    assert!(matches!(reader.next(&RealVfs::default(), |_| false), Ok(Next::Record(_))));
    let last = engine.last_sequence();
    let mut again = WalReader::from_sequence(&RealVfs::default(), &path, last - 1).unwrap();
    assert!(
        matches!(again.next(&RealVfs::default(), |_| false), Ok(Next::Record(record)) if record.sequence == last - 1)
    );
}

#[test]
fn times_of_the_log_never_go_back() {
    let directory = scratch();
    let (path, _) = fresh(directory.path());
    let engine = Engine::open(&path, options()).unwrap();
    let now = engine.log_time().unwrap();
    engine.raise_log_time(now + 1_000_000_000);
    engine.put("key", "value").unwrap();
    engine.raise_log_time(5);
    let floor = engine.log_time().unwrap();
    assert!(floor >= now + 1_000_000_000);
    let mut reader = WalReader::new(&path, Position::default(), None);
    let mut stamps = Vec::new();
    while let Next::Record(record) = reader.next(&RealVfs::default(), |_| false).unwrap() {
        stamps.extend(Batch::new(record.batch).unwrap().frames().map(|frame| frame.unwrap().stamp.unwrap_or(0)));
    }
    assert_eq!(stamps.last(), Some(&floor));
    engine.flush_wal().unwrap();
    // A database that is not attached has no such time.
    make(&directory.path().join("other"), Arc::new(Natural), &Content::new());
    assert_eq!(Engine::open(directory.path().join("other"), options()).unwrap().log_time(), None);
}
