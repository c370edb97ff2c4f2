//! Databases whose log does not simply go on: put back, copied, with files missing, converted, rolled back.

use crate::common::{content, copy_tree, fill, options, sample};
use crate::harness::*;
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::log_backup::attach::{TakeOver, attach, detach};
use morphkv::log_backup::head::Cause;
use morphkv::log_backup::segment::Payload;
use morphkv::log_backup::shipper::{Pass, ShipOptions, Shipper};
use morphkv::{Engine, ErrorKind, Keep, manage};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An attached database with some content, shipped, with its base snapshot.
fn attached(bench: &Bench) -> Engine {
    let engine = Engine::open(bench.path(), creating()).unwrap();
    fill(&engine, &sample(60));
    engine.close().unwrap();
    let engine = attach(bench.path(), options(), &bench.archive, TakeOver::No).unwrap();
    bench.shipper(&engine).ship_once().unwrap();
    write(&engine, "first");
    bench.shipper(&engine).ship_once().unwrap();
    engine
}

fn write(engine: &Engine, word: &str) {
    for number in 0..20 {
        engine.put(format!("/{word}/{number}"), word).unwrap();
    }
}

fn causes(pass: &Pass) -> Vec<Cause> {
    pass.begun.iter().map(|(cause, _)| *cause).collect()
}

fn replace(path: &Path, copy: &Path) {
    std::fs::remove_dir_all(path).unwrap();
    copy_tree(copy, path);
}

#[test]
fn a_database_that_was_put_back_to_an_older_copy_begins_a_new_timeline() {
    for writes in [0, 1, 40] {
        let bench = Bench::in_memory();
        let engine = attached(&bench);
        let timeline = current(&bench.archive).id;
        engine.close().unwrap();
        let copy = bench.directory.path().join("copy");
        copy_tree(&bench.path(), &copy);
        let engine = bench.open();
        write(&engine, "after the copy");
        bench.shipper(&engine).ship_once().unwrap();
        let all = frames(&bench.archive, timeline).0;
        engine.close().unwrap();
        replace(&bench.path(), &copy);
        let engine = bench.open();
        for number in 0..writes {
            engine.put(format!("another history {number}"), "x").unwrap();
        }
        let pass = bench.shipper(&engine).ship_once().unwrap();
        assert_eq!((causes(&pass), pass.base_snapshot.is_some()), (vec![Cause::Diverged], true), "{writes}");
        assert_eq!(frames(&bench.archive, timeline).0, all, "the old timeline was touched");
        assert_eq!(current(&bench.archive).parent.unwrap().timeline, timeline);
        assert_shipped(&bench.archive, &engine);
        write(&engine, "later");
        let pass = bench.shipper(&engine).ship_once().unwrap();
        assert!(pass.begun.is_empty());
        assert_shipped(&bench.archive, &engine);
    }
}

#[test]
fn a_copy_that_ships_beside_the_original_is_refused() {
    let bench = Bench::in_memory();
    let engine = attached(&bench);
    engine.close().unwrap();
    let copy = bench.directory.path().join("copy");
    copy_tree(&bench.path(), &copy);
    let (original, copy) = (bench.open(), Engine::open(&copy, options()).unwrap());
    let (mut first, mut second) = (bench.shipper(&original), bench.shipper(&copy));
    first.ship_once().unwrap();
    // Where the first one ships a segment that tells of the time alone, the second takes it for its own: nothing differs.
    second.ship_once().unwrap();
    write(&original, "original");
    write(&copy, "copy");
    first.ship_once().unwrap();
    for _ in 0..2 {
        assert_eq!(second.ship_once().unwrap_err().kind(), ErrorKind::Conflict);
    }
    write(&original, "more");
    first.ship_once().unwrap();
    assert_shipped(&bench.archive, &original);
    // Opened again it is a database with another history: it takes over, and the original is shut out, loudly.
    let pass = bench.shipper(&copy).ship_once().unwrap();
    assert_eq!(causes(&pass), [Cause::Diverged]);
    assert_shipped(&bench.archive, &copy);
    write(&original, "too late");
    assert_eq!(first.ship_once().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(bench.shipper(&original).ship_once().unwrap_err().kind(), ErrorKind::Conflict);
    assert_shipped(&bench.archive, &copy);
}

/// A database with several archived WAL files that are not shipped, closed.
fn with_files() -> (Bench, Vec<std::path::PathBuf>) {
    let bench = Bench::in_memory();
    let mut engine = attached(&bench);
    for round in 0..4 {
        write(&engine, &format!("unshipped {round}"));
        engine.flush().unwrap();
        engine.close().unwrap();
        engine = bench.open();
    }
    engine.close().unwrap();
    let files = std::fs::read_dir(bench.path().join("archive")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    (bench, files)
}

#[test]
fn a_wal_file_that_is_gone_is_a_gap_whichever_it_is() {
    let count = with_files().1.len();
    assert!(count >= 4, "{count}");
    let mut gaps = 0;
    for nth in 0..count {
        let (bench, files) = with_files();
        let removed = std::fs::read(&files[nth]).unwrap();
        std::fs::remove_file(&files[nth]).unwrap();
        let engine = bench.open();
        let pass = bench.shipper(&engine).ship_once().unwrap();
        let lost = !removed.is_empty();
        assert_eq!(causes(&pass), if lost { vec![Cause::Gap] } else { vec![] }, "file {nth} of {count}");
        gaps += usize::from(lost);
        assert_shipped(&bench.archive, &engine);
        write(&engine, "later");
        assert_eq!(bench.shipper(&engine).ship_once().unwrap().begun, [], "file {nth}");
        assert_shipped(&bench.archive, &engine);
    }
    println!("files {count}, gaps {gaps}");
    assert!(gaps >= 4);
}

#[test]
fn wal_files_go_when_they_are_shipped_or_too_many() {
    let (bench, files) = with_files();
    let engine = bench.open();
    bench.shipper(&engine).ship_once().unwrap();
    // Where the last write ends; behind that, there are files that hold nothing.
    let left = files.iter().filter(|file| std::fs::metadata(file).is_ok_and(|found| found.len() > 0)).count();
    assert!(left <= 1, "{left} of {} WAL files are kept", files.len());

    let (bench, files) = with_files();
    let engine = bench.open();
    let limited = ShipOptions { max_retained_wal: Some(0), ..ship_options() };
    let mut shipper = Shipper::new(engine.clone(), bench.archive.clone(), limited);
    bench
        .store
        .plan(&[(morphkv::log_backup::fault_store::When::From(0), morphkv::log_backup::fault_store::Effect::Fail)]);
    shipper.ship_once().unwrap_err();
    let holds = |file: &&std::path::PathBuf| std::fs::metadata(file).is_ok_and(|found| found.len() > 0);
    let left: Vec<_> = files.iter().filter(holds).collect();
    assert!(left.is_empty(), "more is kept than is allowed: {left:?} of {files:?}");
    bench.store.plan(&[]);
    let pass = shipper.ship_once().unwrap();
    assert_eq!(causes(&pass), [Cause::Gap]);
    assert_shipped(&bench.archive, &engine);
}

/// One that is shut out ships no more; its limit holds all the same.
#[test]
fn the_limit_of_the_wal_holds_where_nothing_is_shipped_any_more() {
    let (bench, _) = with_files();
    let engine = bench.open();
    let limited = ShipOptions { max_retained_wal: Some(0), ..ship_options() };
    let mut shipper = Shipper::new(engine.clone(), bench.archive.clone(), limited);
    shipper.ship_once().unwrap();
    let other = bench.directory.path().join("other");
    let another = Engine::open(&other, creating()).unwrap();
    another.close().unwrap();
    attach(&other, options(), &bench.archive, TakeOver::Yes).unwrap().close().unwrap();
    write(&engine, "nobody takes this");
    assert_eq!(shipper.ship_once().unwrap_err().kind(), ErrorKind::Conflict);
    for word in ["once", "twice", "three times"] {
        write(&engine, word);
        engine.flush().unwrap();
    }
    let kept = || {
        let files = std::fs::read_dir(bench.path().join("archive")).into_iter().flatten();
        files.filter(|file| file.as_ref().unwrap().metadata().unwrap().len() > 0).count()
    };
    assert!(kept() > 0);
    assert_eq!(shipper.ship_once().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(kept(), 0, "more is kept than is allowed");
}

/// The record that says that a load has ended lies behind the reader when its files turn out to be gone, and frames before
/// it fill a segment: the gap must not be forgotten with that.
#[test]
fn a_load_whose_files_are_gone_is_a_gap_also_behind_other_frames() {
    let bench = Bench::in_memory();
    let engine = attached(&bench);
    engine.ingest((0..300).map(|number| Ok((format!("loaded/{number:04}"), "loaded")))).unwrap();
    for group in std::fs::read_dir(bench.path().join("pending_ingest")).unwrap() {
        std::fs::remove_file(group.unwrap().path().join("000000.sst")).unwrap();
    }
    let mut shipper = bench.shipper(&engine);
    let pass = shipper.ship_once().unwrap();
    assert_eq!((causes(&pass), pass.base_snapshot.is_some()), (vec![Cause::Gap], true));
    assert_restorable(&bench.archive, &engine);
    write(&engine, "goes on");
    assert_eq!(causes(&shipper.ship_once().unwrap()), []);
    assert_restorable(&bench.archive, &engine);
}

/// A database that once had another family gave ours another id than the database that a conversion makes of it.
#[test]
fn a_load_is_handed_over_whatever_id_the_family_of_its_records_had() {
    let bench = Bench::in_memory();
    let path = bench.path();
    let mut foreign = rocksdb::Options::default();
    foreign.create_if_missing(true);
    let mut database = rocksdb::DB::open(&foreign, &path).unwrap();
    database.create_cf("once", &rocksdb::Options::default()).unwrap();
    database.drop_cf("once").unwrap();
    database.put("/before", "1").unwrap();
    drop(database);
    let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
    manage::adopt(&path, &natural, &options()).unwrap();
    let engine = attach(&path, options(), &bench.archive, TakeOver::No).unwrap();
    bench.shipper(&engine).ship_once().unwrap();
    let parent = current(&bench.archive).id;
    engine.ingest((0..300).map(|number| Ok((format!("loaded/{number:04}"), "loaded")))).unwrap();
    write(&engine, "after the load");
    let before = content(&engine);
    engine.close().unwrap();
    let engine = Engine::open(&path, options().encoding(Hierarchical)).unwrap();
    let pass = bench.shipper(&engine).ship_once().unwrap();
    assert!(pass.begun.is_empty() && pass.base_snapshot.is_none(), "{pass:?}");
    let (frames, _) = frames(&bench.archive, parent);
    assert!(frames.iter().any(|frame| matches!(frame.payload, Payload::Group(_))), "the load is not in the log");
    assert_eq!(restored(&bench.archive, parent, u64::MAX), before);
    assert_restorable(&bench.archive, &engine);
}

#[test]
fn a_conversion_hands_over_and_its_timeline_goes_on_from_the_parents_end() {
    let bench = Bench::in_memory();
    let engine = attached(&bench);
    let parent = current(&bench.archive).id;
    write(&engine, "unshipped");
    engine.ingest((0..300).map(|number| Ok((format!("loaded/{number:04}"), "loaded")))).unwrap();
    write(&engine, "after the load");
    let before = content(&engine);
    engine.close().unwrap();
    let engine = Engine::open(bench.path(), options().encoding(Hierarchical)).unwrap();
    assert!(bench.path().join("unshipped").exists());
    let pass = bench.shipper(&engine).ship_once().unwrap();
    assert!(pass.begun.is_empty() && pass.base_snapshot.is_none(), "{pass:?}");
    assert!(!bench.path().join("unshipped").exists());
    let timeline = current(&bench.archive);
    assert_eq!((timeline.cause, timeline.encoding.name.as_str()), (Cause::Conversion, "hierarchical"));
    let (frames, successor) = frames(&bench.archive, parent);
    assert_eq!(successor, Some(timeline.id));
    assert!(frames.iter().any(|frame| matches!(frame.payload, Payload::Group(_))));
    assert_eq!(restored(&bench.archive, parent, u64::MAX), before);
    write(&engine, "in the new one");
    bench.shipper(&engine).ship_once().unwrap();
    assert_restorable(&bench.archive, &engine);
    // And once more, back.
    engine.close().unwrap();
    let engine = Engine::open(bench.path(), options().encoding(Natural)).unwrap();
    write(&engine, "natural again");
    let pass = bench.shipper(&engine).ship_once().unwrap();
    assert!(pass.begun.is_empty() && pass.base_snapshot.is_none(), "{pass:?}");
    assert_eq!(head(&bench.archive).timelines.len(), 3);
    assert_restorable(&bench.archive, &engine);
}

/// Without one of its own, each restore would go through all of the log since the last one of the timeline before.
#[test]
fn after_a_conversion_a_base_snapshot_is_taken_again_when_it_is_due() {
    let bench = Bench::in_memory();
    attached(&bench).close().unwrap();
    let engine = Engine::open(bench.path(), options().encoding(Hierarchical)).unwrap();
    write(&engine, "in the new one");
    assert!(bench.shipper(&engine).ship_once().unwrap().base_snapshot.is_none());
    write(&engine, "later");
    let due = ShipOptions { base_after: Duration::ZERO, ..ship_options() };
    let pass = Shipper::new(engine.clone(), bench.archive.clone(), due).ship_once().unwrap();
    assert!(pass.base_snapshot.is_some() && pass.begun.is_empty(), "{pass:?}");
    assert!(bench.shipper(&engine).ship_once().unwrap().base_snapshot.is_none());
    assert_restorable(&bench.archive, &engine);
}

#[test]
fn a_conversion_before_anything_was_shipped_takes_a_base_snapshot() {
    let bench = Bench::in_memory();
    let engine = Engine::open(bench.path(), creating()).unwrap();
    fill(&engine, &sample(60));
    engine.close().unwrap();
    let engine = attach(bench.path(), options(), &bench.archive, TakeOver::No).unwrap();
    write(&engine, "never shipped by itself");
    engine.close().unwrap();
    let engine = Engine::open(bench.path(), options().encoding(Hierarchical)).unwrap();
    let pass = bench.shipper(&engine).ship_once().unwrap();
    assert!(pass.base_snapshot.is_some());
    assert_restorable(&bench.archive, &engine);
}

#[test]
fn a_rollback_after_the_end_begins_a_new_timeline() {
    for written in [false, true] {
        let bench = Bench::in_memory();
        attached(&bench).close().unwrap();
        let parent = current(&bench.archive).id;
        let keeping = options().keep_backup(Keep::Yes);
        let engine = Engine::open(bench.path(), keeping.encoding(Hierarchical)).unwrap();
        write(&engine, "lost by the rollback");
        bench.shipper(&engine).ship_once().unwrap();
        assert!(frames(&bench.archive, parent).1.is_some());
        engine.close().unwrap();
        manage::rollback(bench.path(), &options()).unwrap();
        let engine = bench.open();
        if written {
            write(&engine, "rolled back");
        }
        let pass = bench.shipper(&engine).ship_once().unwrap();
        assert_eq!((causes(&pass), pass.base_snapshot.is_some()), (vec![Cause::Diverged], true));
        assert_restorable(&bench.archive, &engine);
        write(&engine, "later");
        assert!(bench.shipper(&engine).ship_once().unwrap().begun.is_empty());
        assert_restorable(&bench.archive, &engine);
    }
}

#[test]
fn an_archive_has_one_database_and_a_database_one_archive() {
    let bench = Bench::in_memory();
    let engine = attached(&bench);
    let other = bench.directory.path().join("other");
    Engine::open(&other, creating()).unwrap().close().unwrap();
    let refused = attach(&other, options(), &bench.archive, TakeOver::No).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(!other.join("LOG_BACKUP").exists());
    let unattached = Engine::open(&other, options()).unwrap();
    assert_eq!(bench.shipper(&unattached).ship_once().unwrap_err().kind(), ErrorKind::Refused);
    unattached.close().unwrap();

    let second = file_archive(bench.directory.path());
    engine.close().unwrap();
    assert_eq!(attach(bench.path(), options(), &second, TakeOver::Yes).unwrap_err().kind(), ErrorKind::Conflict);
    let engine = bench.open();
    assert_eq!(
        Shipper::new(engine.clone(), second.clone(), ship_options()).ship_once().unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    let mut shipper = bench.shipper(&engine);
    shipper.ship_once().unwrap();

    let taken = attach(&other, options(), &bench.archive, TakeOver::Yes).unwrap();
    taken.put("mine", "now").unwrap();
    bench.shipper(&taken).ship_once().unwrap();
    assert_shipped(&bench.archive, &taken);
    write(&engine, "shut out");
    assert_eq!(shipper.ship_once().unwrap_err().kind(), ErrorKind::Conflict);
    drop(shipper);
    engine.close().unwrap();

    let detached = detach(bench.path(), options()).unwrap().unwrap();
    assert_eq!(detached, bench.archive.url());
    assert!(detach(bench.path(), options()).unwrap().is_none());
    let archived = std::fs::read_dir(bench.path().join("archive")).unwrap().count();
    assert_eq!((bench.path().join("LOG_BACKUP").exists(), archived), (false, 0));
    let engine = attach(bench.path(), options(), &second, TakeOver::No).unwrap();
    Shipper::new(engine.clone(), second.clone(), ship_options()).ship_once().unwrap();
    assert_shipped(&second, &engine);
}

/// The next start compares the last write that was shipped with the log: without its WAL file there would be a gap.
#[test]
fn the_file_of_the_last_write_shipped_is_kept() {
    let bench = Bench::in_memory();
    let engine = attached(&bench);
    write(&engine, "shipped");
    engine.flush().unwrap();
    engine.close().unwrap();
    for _ in 0..2 {
        let engine = bench.open();
        let pass = bench.shipper(&engine).ship_once().unwrap();
        assert_eq!(pass.begun, []);
        assert_shipped(&bench.archive, &engine);
        engine.close().unwrap();
    }
}
