//! What is asked for when an interrupted conversion is met: the same, something else, nothing; and a source that is not
//! what it was.

use super::{Sandbox, encoding, few, options, to};
use morphkv::encoding::Natural;
use morphkv::testing::{Database, Family, RealVfs, Settings, journal};
use morphkv::{Durability, Engine, ErrorKind, Keep, OnMismatch, Phase, Progress, Verify, inspect, manage};
use std::sync::{Arc, Mutex};

/// Killed when half of the tasks were done.
fn half_done() -> Sandbox {
    let sandbox = few().killed("hierarchical", "progress-line-after", 3);
    let (done, all) = sandbox.tasks();
    assert!(done == 3 && all > 4, "{done} of {all}");
    sandbox
}

fn bytes_of_staging(sandbox: &Sandbox) -> std::collections::BTreeMap<String, Vec<u8>> {
    super::common::bytes_below(&sandbox.staging())
}

#[test]
fn another_target_drops_what_was_built() {
    let sandbox = half_done();
    let report = sandbox.convert("reversed", |options| options).unwrap();
    assert!(!report.resumed);
    sandbox.require_whole("reversed", "another target");
}

#[test]
fn its_own_encoding_and_none_drop_what_was_built() {
    for wanted in [options().encoding(Natural), options()] {
        let sandbox = half_done();
        Engine::open(&sandbox.path, wanted).unwrap().close().unwrap();
        assert!(!sandbox.staging().exists() && !sandbox.path.with_extension("conversion").exists());
        sandbox.require_whole("natural", "not converted");
        assert!(!sandbox.convert("hierarchical", |options| options).unwrap().resumed);
    }
}

/// Whoever does not get a handle that writes leaves it as it is.
#[test]
fn readers_and_refused_requests_leave_it_to_be_gone_on_with() {
    let sandbox = half_done();
    let before = bytes_of_staging(&sandbox);
    let reader = Engine::open_read_only(&sandbox.path, options()).unwrap();
    assert!(super::common::content(&reader) == sandbox.content);
    drop(reader);
    let refused = options().encoding(encoding("hierarchical")).on_mismatch(OnMismatch::Refuse);
    assert_eq!(Engine::open(&sandbox.path, refused).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(manage::create(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::Conflict);
    let plan = manage::plan_conversion(&sandbox.path, &options().encoding(encoding("hierarchical"))).unwrap().unwrap();
    let other = manage::plan_conversion(&sandbox.path, &options().encoding(encoding("reversed"))).unwrap().unwrap();
    assert!(plan.needed_bytes < other.needed_bytes, "what is built needs no room any more");
    assert_eq!(inspect::inspect(&sandbox.path, &options()).unwrap().state, "building");
    let recovery = manage::recover(&sandbox.path, &options(), false).unwrap();
    assert_eq!((recovery.state.as_str(), recovery.actions.len()), ("building", 0));
    assert_eq!(bytes_of_staging(&sandbox), before);
    assert!(sandbox.convert("hierarchical", |options| options).unwrap().resumed);
    sandbox.require_whole("hierarchical", "gone on with");
}

#[test]
fn abandoning_drops_what_was_built() {
    let sandbox = half_done();
    let recovery = manage::recover(&sandbox.path, &options(), true).unwrap();
    assert_eq!(recovery.state, "whole");
    sandbox.require_whole("natural", "abandoned");
}

#[test]
fn an_error_before_any_work_gives_nothing_up() {
    use rustix::fs::{FlockOperation, fcntl_lock};
    let sandbox = half_done();
    let before = bytes_of_staging(&sandbox);
    // Another process that has the source open: only such a one counts for the kernel.
    let lock = sandbox.path.join("LOCK");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    let ended = to(&sandbox.path, "hierarchical").run();
    assert!(ended.report.is_none() && !ended.killed && ended.errors.contains("Locked"), "{}", ended.errors);
    assert_eq!(bytes_of_staging(&sandbox), before);
    drop(file);
    assert!(sandbox.convert("hierarchical", |options| options).unwrap().resumed);
    sandbox.require_whole("hierarchical", "gone on with");
}

#[test]
fn a_source_that_was_written_to_is_converted_from_the_beginning() {
    for trap in [("progress-line-after", 3), ("progress-line-after", 8), ("seal-after", 1)] {
        let mut sandbox = few().killed("hierarchical", trap.0, trap.1);
        let source = Database::open(&RealVfs::default(), &sandbox.path, &Settings::default()).unwrap();
        source.put(Family::Data, b"/users/0/", b"written by others", Durability::Sync).unwrap();
        source.close().unwrap();
        sandbox.content.insert(b"/users/0/".to_vec(), b"written by others".to_vec());
        assert!(!sandbox.convert("hierarchical", |options| options).unwrap().resumed, "{trap:?}");
        sandbox.require_whole("hierarchical", "a changed source");
    }
}

#[test]
fn verifying_and_keeping_are_as_they_were_begun() {
    let sandbox = few();
    let mut orders = to(&sandbox.path, "hierarchical").dying_at("progress-line-after", 3);
    (orders.verify, orders.keep) = ("counts", true);
    assert!(orders.run().killed);
    let report = sandbox.convert("hierarchical", |options| options.verify(Verify::Full).keep_backup(Keep::No)).unwrap();
    assert!(report.resumed && report.verify == Verify::Counts, "{report:?}");
    assert!(sandbox.path.with_extension("backup").join("CURRENT").exists(), "the old database is kept");
    manage::rollback(&sandbox.path, &options()).unwrap();
    sandbox.require_whole("natural", "rolled back");
}

/// A kept database that is to give way when the new one is Ready does so whenever that is.
#[test]
fn an_older_kept_database_is_replaced_by_a_conversion_that_was_interrupted() {
    let sandbox = few();
    let report = sandbox.convert("hierarchical", |options| options.keep_backup(Keep::Yes)).unwrap();
    assert!(!report.resumed);
    let wanted = |options: morphkv::Options| options.keep_backup(Keep::Replace);
    let file = sandbox.path.with_extension("pause");
    let plan = format!("progress-line-after@3=pause:{}", file.display());
    let vfs = RealVfs::with_traps(Arc::new(morphkv::testing::TrapPlan::parse(&plan).unwrap()));
    let crashed = std::thread::scope(|scope| {
        let sandbox = &sandbox;
        let converting = scope.spawn(move || sandbox.convert("natural", |options| wanted(options).vfs(Arc::new(vfs))));
        while !file.exists() {
            assert!(!converting.is_finished());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let crashed = sandbox.copy();
        std::fs::remove_file(&file).unwrap();
        converting.join().unwrap().unwrap();
        crashed
    });
    let report = crashed.convert("natural", |options| options).unwrap();
    assert!(report.resumed);
    let backup = crashed.path.with_extension("backup");
    let marker = morphkv::testing::marker::read(&RealVfs::default(), &backup).unwrap().unwrap();
    assert_eq!(marker.encoding.name, "hierarchical", "the older one gave way to the newer one");
}

#[test]
fn the_plan_stays_whatever_the_means() {
    let sandbox = half_done();
    let plan = sandbox.lines("plan");
    for (threads, memory_bytes, zstd) in [(1, 8 << 20, false), (4, 1 << 20, true), (3, 64 << 20, false)] {
        let mut orders = to(&sandbox.path, "hierarchical").dying_at("progress-line-after", 2);
        (orders.threads, orders.memory_bytes, orders.zstd) = (threads, memory_bytes, zstd);
        let (done, all) = sandbox.tasks();
        assert!(orders.run().killed);
        assert_eq!(sandbox.lines("plan"), plan);
        assert_eq!(sandbox.tasks(), ((done + 2).min(all), all), "{threads} threads");
    }
    let report = to(&sandbox.path, "hierarchical").finish();
    assert_eq!(report["resumed"], true);
    sandbox.require_whole("hierarchical", "other means");
}

#[test]
fn progress_begins_at_what_was_done() {
    let sandbox = half_done();
    let done: u64 = sandbox
        .lines("task")
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(&line[9..]).unwrap()["task"]["bytes_read"].as_u64().unwrap()
        })
        .sum();
    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let sink = seen.clone();
    let callback = Arc::new(move |progress: &Progress| sink.lock().unwrap().push(*progress));
    let report = sandbox.convert("hierarchical", |options| options.progress(callback)).unwrap();
    let seen = seen.lock().unwrap();
    let rewriting: Vec<&Progress> = seen.iter().filter(|progress| progress.phase == Phase::Rewrite).collect();
    // The phase is announced, and then what is done.
    assert!(rewriting[1..].iter().all(|progress| progress.bytes_done >= done), "{rewriting:?}");
    let last = rewriting.last().unwrap();
    assert_eq!((last.bytes_done, last.entries), (report.bytes_read, report.entries), "{last:?}");
    assert_eq!(report.entries, sandbox.content.len() as u64);
}

/// The ids of a database from before the marker are made by the attempt that builds the new one.
#[test]
fn a_legacy_database_is_gone_on_with() {
    let directory = super::common::scratch();
    let path = directory.path().join("db");
    std::fs::create_dir(&path).unwrap();
    let settings = Settings { comparator: morphkv::encoding::Comparator::SlashSpans, ..Settings::default() };
    let database = Database::create_data_only(&path, &settings).unwrap();
    let content = super::common::sample(2_000);
    for (key, value) in &content {
        database.put(Family::Data, key, value, Durability::Buffered).unwrap();
    }
    database.close().unwrap();
    for trap in ["staging-closed", "verify-after", "seal-after", "progress-removed"] {
        let before = Sandbox { directory: super::common::scratch(), path: path.clone(), content: content.clone() };
        super::common::copy_tree(directory.path(), before.directory.path());
        let before = Sandbox { path: before.directory.path().join("db"), ..before };
        let killed = before.killed("hierarchical", trap, 1);
        // Nobody can write to it, so nothing is dropped.
        assert_eq!(Engine::open(&killed.path, options()).unwrap_err().kind(), ErrorKind::Refused);
        let report = killed.convert("hierarchical", |options| options).unwrap();
        assert!(report.resumed, "{trap}");
        let engine = Engine::open(&killed.path, options()).unwrap();
        assert!(super::common::content(&engine) == content, "{trap}");
    }
}

/// The journal of an interrupted conversion that goes on is the one that it had.
#[test]
fn the_new_database_carries_the_id_of_the_conversion_that_began_it() {
    let sandbox = half_done();
    let layout = morphkv::testing::Layout::new(&sandbox.path).unwrap();
    let journal::JournalState::Read(journal) = journal::read(&RealVfs::default(), &layout).unwrap() else { panic!() };
    assert!(sandbox.convert("hierarchical", |options| options).unwrap().resumed);
    let marker = morphkv::testing::marker::read(&RealVfs::default(), &sandbox.path).unwrap().unwrap();
    assert_eq!(marker.origin.id, journal.id);
}
