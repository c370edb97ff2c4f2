//! Others come at every moment of every change: the one that is at it stands still at a trap, and meanwhile others try.

use super::super::common::figures::Figures;
use super::super::common::{self, bytes_below, options, scratch};
use super::super::scenario::{self, Expect, Scenario, database};
use super::super::sweep::{CHILD_DIRECTORY, CHILD_SCENARIO, child_that_runs, crash, on_two_threads};
use super::orders::{ATTEMPTS_MAX, Deed, Line, Log, Orders, Racer, place};
use super::racers::{Process, attempt_once};
use morphkv::inspect::inspect;
use morphkv::testing::{Operation, RealVfs, RecordingVfs, Trap};
use morphkv::{Engine, ErrorKind, Keep, manage};
use rustix::process::{Signal, kill_process};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Runs the scenario in `room`, and at every trap that it meets calls `act`.
fn at_every_trap(scenario: &Scenario, room: &Path, act: impl Fn(Trap) + Send + Sync + 'static) -> morphkv::Result<()> {
    let witness = move |operation: &Operation| {
        if let Operation::Trap(trap) = operation {
            act(*trap);
        }
    };
    let vfs = RecordingVfs::watched(Arc::new(RealVfs::default()), witness);
    (scenario.act)(&place(room), options().vfs(Arc::new(vfs)))
}

fn prepare(scenario: &Scenario, room: &Path) {
    std::fs::create_dir(place(room)).unwrap();
    (scenario.prepare)(&place(room));
}

/// Everything that needs the place to itself.
fn deeds() -> Vec<Deed> {
    let hierarchical = || Some("hierarchical".to_owned());
    vec![
        Deed::Open { wanted: None, keep: Keep::No, create: true, writes: 1, hold_micros: 0 },
        Deed::Open { wanted: hierarchical(), keep: Keep::Replace, create: true, writes: 1, hold_micros: 0 },
        Deed::Read,
        Deed::Digest,
        Deed::Create { wanted: hierarchical() },
        Deed::Convert { wanted: "natural".into(), keep: Keep::Replace },
        Deed::Destroy,
        Deed::RollBack,
        Deed::DropKept,
        Deed::Recover { abandon: true },
    ]
}

/// What the attempts beginning with `first` ended with, in order.
fn ends(room: &Path, first: u32) -> Vec<Option<String>> {
    let lines = Log::read(room);
    let of_them = |attempt: u32| attempt / ATTEMPTS_MAX == first / ATTEMPTS_MAX;
    let ended = lines.into_iter().filter_map(|line| match line {
        Line::Ended { attempt, failed } if of_them(attempt) => Some(failed.map(|(kind, _)| kind)),
        Line::Locked { attempt } if of_them(attempt) => panic!("attempt {attempt} locked the place"),
        Line::Panicked { .. } | Line::Leaked { .. } => panic!("{line:?}"),
        _ => None,
    });
    ended.collect()
}

/// What must not change while others try: all but RocksDB's messages, and what its threads may still be at in staging.
fn untouched(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = bytes_below(place);
    files.retain(|name, _| !name.starts_with("db.converting/") && !name.contains("/LOG"));
    files
}

/// The others, in this process and in another one.
struct Others {
    process: Mutex<Process>,
    next: AtomicU32,
}

impl Others {
    fn come(&self, scenario: &str, room: &Path, trap: Trap) -> usize {
        let before = untouched(&place(room));
        let first = self.next.fetch_add(2 * ATTEMPTS_MAX, Ordering::SeqCst);
        let log = Log::open(room);
        for (attempt, deed) in (first..).zip(deeds()) {
            attempt_once(room, &log, attempt, &deed);
        }
        let racer = Racer { first: first + ATTEMPTS_MAX, delay_micros: 0, deeds: deeds(), patience: 0 };
        self.process.lock().unwrap().run(&Orders { room: room.into(), racers: vec![racer] });
        for first in [first, first + ATTEMPTS_MAX] {
            let ends = ends(room, first);
            let expected = vec![Some("Locked".to_owned()); deeds().len()];
            assert_eq!(ends, expected, "{}: somebody was let in", trap.name());
        }
        let seen = inspect(database(&place(room)), &options()).unwrap();
        // What is to be adopted has no marker yet, and a look says so.
        assert!(seen.state != "refused" || scenario == "adopt", "{}: {:?}", trap.name(), seen.reason);
        assert!(before == untouched(&place(room)), "{}: the others have left something", trap.name());
        2 * deeds().len()
    }
}

#[test]
fn everybody_else_is_told_that_the_place_is_in_use() {
    let figures = Figures::new("races-at-traps");
    let scenarios = scenario::all();
    let counts = on_two_threads(&scenarios, |scenario| {
        let room = scratch();
        prepare(scenario, room.path());
        let others =
            Others { process: Mutex::new(Process::start(&room.path().join("errors"))), next: ATTEMPTS_MAX.into() };
        let (counted, inside) = (Arc::new(Mutex::new((0, 0))), room.path().to_owned());
        let (counts, name) = (counted.clone(), scenario.name);
        let done = at_every_trap(scenario, room.path(), move |trap| {
            let tried = others.come(name, &inside, trap);
            let mut counts = counts.lock().unwrap();
            *counts = (counts.0 + 1, counts.1 + tried);
        });
        done.unwrap_or_else(|error| panic!("{}: {error:?}", scenario.name));
        scenario::check_unset(scenario, &place(room.path()), "others tried meanwhile");
        *counted.lock().unwrap()
    });
    let (traps, attempts) = counts.iter().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
    assert!(traps > 100, "only {traps} traps");
    figures.with("traps", traps).with("attempts-locked-out", attempts).with("let-in", 0).print();
}

/// A change that stands still at a trap, in a process of its own.
struct Paused {
    child: Child,
    file: PathBuf,
}

fn paused(scenario: &Scenario, room: &Path, trap: &str, nth: usize) -> Paused {
    let file = room.join("pause");
    let mut command = child_that_runs("sweep::child");
    command.env(CHILD_SCENARIO, scenario.name).env(CHILD_DIRECTORY, place(room));
    let mut child = command.env("MORPHKV_TRAP", format!("{trap}@{nth}=pause:{}", file.display())).spawn().unwrap();
    while !file.exists() {
        assert!(child.try_wait().unwrap().is_none(), "{}: it never came to {trap}", scenario.name);
        std::thread::sleep(Duration::from_millis(1));
    }
    Paused { child, file }
}

/// The moments between the steps of a swap and of a removal.
const MOMENTS: [(&str, &str, usize); 16] = [
    ("convert to hierarchical", "staging-synced", 1),
    ("convert to hierarchical", "live-to-backup-before", 1),
    ("convert to hierarchical", "live-to-backup-moved", 1),
    ("convert to hierarchical", "staging-to-live-before", 1),
    ("convert to hierarchical", "staging-to-live-moved", 1),
    ("convert to hierarchical", "sweep-before", 1),
    ("convert to natural", "live-to-backup-after", 1),
    ("convert and keep", "staging-to-live-moved", 1),
    ("roll back", "live-to-staging-moved", 1),
    ("roll back", "backup-to-live-moved", 1),
    ("drop the kept database", "to-trash-moved", 1),
    ("create", "staging-to-live-before", 1),
    ("destroy", "destroy-after", 1),
    ("destroy", "to-trash-before", 1),
    ("destroy", "to-trash-moved", 2),
    ("destroy", "to-trash-after", 2),
];

#[test]
fn a_lock_dies_with_its_holder_and_the_next_one_goes_on() {
    for (name, trap, nth) in MOMENTS {
        let (room, scenario) = (scratch(), scenario::named(name));
        prepare(&scenario, room.path());
        let mut paused = paused(&scenario, room.path(), trap, nth);
        let path = database(&place(room.path()));
        for wanted in scenario::requests() {
            let options = wanted.map_or_else(options, |encoding| options().encoding(encoding));
            let error = Engine::open(&path, options.create_if_missing(true)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{name}, {trap}: {error:?}");
            assert!(error.message().contains(&format!("pid {}", paused.child.id())), "{error:?}");
        }
        assert_eq!(Engine::destroy(&path, options()).unwrap_err().kind(), ErrorKind::Locked, "{name}, {trap}");
        paused.child.kill().unwrap();
        paused.child.wait().unwrap();
        assert!(paused.file.exists());
        scenario::check(&scenario, &place(room.path()), &format!("killed while it stood at {trap}"));
    }
}

/// A process that stands still is no dead one: however long it takes, nobody recovers in its place.
#[test]
fn a_change_that_was_stopped_and_goes_on_is_not_disturbed() {
    for (name, trap, nth) in MOMENTS {
        let (room, scenario) = (scratch(), scenario::named(name));
        prepare(&scenario, room.path());
        let mut paused = paused(&scenario, room.path(), trap, nth);
        let path = database(&place(room.path()));
        let pid = rustix::process::Pid::from_child(&paused.child);
        kill_process(pid, Signal::STOP).unwrap();
        std::fs::remove_file(&paused.file).unwrap();
        let error = Engine::open(&path, options().create_if_missing(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{name}, {trap}: {error:?}");
        kill_process(pid, Signal::CONT).unwrap();
        assert!(paused.child.wait().unwrap().success(), "{name}, {trap}");
        scenario::check_unset(&scenario, &place(room.path()), &format!("stopped at {trap}"));
    }
}

/// Where live stands elsewhere when the change is interrupted.
const AWAY: [(&str, &str); 7] = [
    ("convert to hierarchical", "live-to-backup-moved"),
    ("convert to natural", "live-to-backup-after"),
    ("convert and keep", "staging-to-live-before"),
    ("replace the kept database", "live-to-backup-after"),
    ("roll back", "live-to-staging-moved"),
    ("roll back", "backup-to-live-before"),
    ("create", "staging-to-live-before"),
];

#[test]
fn other_software_that_looks_for_live_in_vain_does_not_block_the_recovery() {
    for (name, trap) in AWAY {
        let (directory, scenario) = (scratch(), scenario::named(name));
        (scenario.prepare)(directory.path());
        assert!(
            crash(name, directory.path(), (Trap::from_name(trap).unwrap(), 1), "abort"),
            "{name}: no crash at {trap}"
        );
        let live = database(directory.path());
        assert!(!live.exists(), "{name}: live is there at {trap}");
        for _ in 0..2 {
            rocksdb::DB::open(&rocksdb::Options::default(), &live).unwrap_err();
        }
        assert!(live.join("LOG").exists() && live.join("LOCK").exists(), "RocksDB leaves nothing any more");
        scenario::check(&scenario, directory.path(), &format!("crashed at {trap}, and RocksDB looked in vain"));
        // With anything else in it, it is somebody's, and stays.
        std::fs::write(live.join("theirs"), "x").unwrap();
        let before = bytes_below(directory.path());
        let error = Engine::open(&live, options().create_if_missing(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{name}, {trap}: {error:?}");
        assert!(before == bytes_below(directory.path()), "{name}, {trap}: something was touched");
    }
}

const CHILD_LOCK: &str = "MORPHKV_TEST_LOCK";

/// Not a test of its own: another process that is just making a database, and has come as far as its lock.
#[test]
fn child() {
    let Ok(lock) = std::env::var(CHILD_LOCK) else { return };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let file = std::fs::File::options().write(true).open(&lock).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    std::fs::write(Path::new(&lock).with_extension("held"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_database_that_other_software_is_just_making_is_not_taken_for_nothing() {
    let (directory, scenario) = (scratch(), scenario::named("convert to hierarchical"));
    (scenario.prepare)(directory.path());
    assert!(crash(scenario.name, directory.path(), (Trap::LiveToBackupMoved, 1), "abort"));
    let live = database(directory.path());
    rocksdb::DB::open(&rocksdb::Options::default(), &live).unwrap_err();
    let lock = directory.path().join("LOCK");
    // Where it says that it holds the lock must not be in live.
    std::fs::hard_link(live.join("LOCK"), &lock).unwrap();
    let mut child = child_that_runs("races::moments::child").env(CHILD_LOCK, &lock).spawn().unwrap();
    while !lock.with_extension("held").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the lock could not be taken");
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = Engine::open(&live, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert!(live.join("LOCK").exists() && live.join("LOG").exists(), "something was removed");
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["LOCK", "LOCK.held"] {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    scenario::check(&scenario, directory.path(), "the other software is gone");
}

/// Whoever reads while RocksDB begins to write may find neither the WAL that was there nor the file that it becomes: a
/// database that is empty, and no error.
#[test]
fn who_reads_keeps_rocksdb_out_and_is_kept_out() {
    let (directory, scenario) = (scratch(), scenario::named("convert to hierarchical"));
    (scenario.prepare)(directory.path());
    let path = database(directory.path());
    let open = || rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, ["default", "morphkv.internal"]);
    let theirs = open().unwrap();
    for _ in 0..2 {
        assert_eq!(Engine::open_read_only(&path, options()).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(manage::digest(&path, &options()).unwrap_err().kind(), ErrorKind::Locked);
    }
    let mut child = child_that_runs("races::moments::child").env(CHILD_LOCK, path.join("LOCK")).spawn().unwrap();
    assert!(!child.wait().unwrap().success(), "another process got RocksDB's lock");
    drop(theirs);
    let engine = Engine::open_read_only(&path, options()).unwrap();
    assert!(open().is_err(), "RocksDB got in while the database was read");
    let count = engine.range(..).unwrap().count();
    engine.close().unwrap();
    drop(open().unwrap());
    // A copy that RocksDB has not opened yet has no lock file, and gets none.
    std::fs::remove_file(path.join("LOCK")).unwrap();
    let engine = Engine::open_read_only(&path, options()).unwrap();
    assert_eq!(engine.range(..).unwrap().count(), count);
    assert!(!path.join("LOCK").exists());
}

#[test]
fn rocksdb_in_the_same_process_is_kept_out_as_well() {
    let (directory, scenario) = (scratch(), scenario::named("convert to hierarchical"));
    (scenario.prepare)(directory.path());
    let path = database(directory.path());
    let open = |path: &Path| rocksdb::DB::open_cf(&rocksdb::Options::default(), path, ["default", "morphkv.internal"]);
    // It has the database open before: we are kept out, and do not take its lock away, as others can tell.
    let theirs = open(&path).unwrap();
    for _ in 0..2 {
        let error = (scenario.act)(directory.path(), options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    }
    let mut child = child_that_runs("races::moments::child").env(CHILD_LOCK, path.join("LOCK")).spawn().unwrap();
    assert!(!child.wait().unwrap().success(), "another process got RocksDB's lock");
    theirs.put("/written/by/rocksdb", "1").unwrap();
    drop(theirs);
    // It comes in the middle: it is kept out, wherever the source lies.
    let (refused, place) = (Arc::new(AtomicU32::new(0)), directory.path().to_owned());
    let counted = refused.clone();
    let act = move |operation: &Operation| {
        let held = [Trap::RewriteBefore, Trap::StagingSynced, Trap::LiveToBackupBefore, Trap::LiveToBackupMoved];
        if matches!(operation, Operation::Trap(trap) if held.contains(trap)) {
            let backup = place.join("db.backup");
            let source = if backup.exists() { backup } else { database(&place) };
            assert!(open(&source).is_err(), "RocksDB got in at {operation:?}");
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    let vfs = RecordingVfs::watched(Arc::new(RealVfs::default()), act);
    (scenario.act)(directory.path(), options().vfs(Arc::new(vfs))).unwrap();
    assert_eq!(refused.load(Ordering::SeqCst), 4);
    let engine = Engine::open(&path, options()).unwrap();
    assert_eq!(engine.encoding().name, "hierarchical");
    assert!(engine.get("/written/by/rocksdb").unwrap().is_some(), "it was acknowledged, and is lost");
}

/// What RocksDB wrote, in another process, at which trap.
type Written = Vec<(Trap, String)>;

/// At every trap RocksDB is told, in another process, to open live and to write to it. What it had acknowledged.
fn with_rocksdb_at_every_trap(scenario: &Scenario, room: &Path) -> Written {
    let process = Mutex::new(Process::start(&room.join("errors")));
    let (inside, first) = (room.to_owned(), AtomicU32::new(ATTEMPTS_MAX));
    let written = Arc::new(Mutex::new(Written::new()));
    let notes = written.clone();
    let done = at_every_trap(scenario, room, move |trap| {
        let first = first.fetch_add(ATTEMPTS_MAX, Ordering::SeqCst);
        let deeds = vec![Deed::OpenWithRocksdb { writes: 1, hold_micros: 0 }];
        let racer = Racer { first, delay_micros: 0, deeds, patience: 0 };
        process.lock().unwrap().run(&Orders { room: inside.clone(), racers: vec![racer] });
        let wrote = Log::read(&inside).into_iter().filter_map(|line| match line {
            Line::Wrote { attempt, key } if attempt == first => Some((trap, key)),
            Line::Panicked { .. } => panic!("{line:?}"),
            _ => None,
        });
        notes.lock().unwrap().extend(wrote);
    });
    done.unwrap_or_else(|error| panic!("{}: {error:?}", scenario.name));
    std::mem::take(&mut written.lock().unwrap())
}

/// What RocksDB wrote before goes with what the change removes.
fn goes_with_the_change(scenario: &Scenario, trap: Trap) -> bool {
    scenario.name == "roll back" && trap == Trap::LockTaken
}

#[test]
fn rocksdb_is_kept_out_of_a_change_or_what_it_writes_stays() {
    // What has no marker tells RocksDB's user nothing of its encoding. Where there is no database before a change, or after
    // it, no journal speaks of what RocksDB leaves there when it looks in vain. A checkpoint is compared on the way.
    let others = ["adopt", "convert a legacy database", "create", "destroy", "checkpoint"];
    let scenarios: Vec<_> = scenario::all().into_iter().filter(|scenario| !others.contains(&scenario.name)).collect();
    let counts = on_two_threads(&scenarios, |scenario| {
        let room = scratch();
        prepare(scenario, room.path());
        let written = with_rocksdb_at_every_trap(scenario, room.path());
        let path = database(&place(room.path()));
        let engine = Engine::open(&path, options()).unwrap_or_else(|error| panic!("{}: {error:?}", scenario.name));
        let mut found = common::content(&engine);
        let lost: Vec<_> = written
            .iter()
            .filter(|(trap, key)| found.remove(key.as_bytes()).is_none() && !goes_with_the_change(scenario, *trap))
            .collect();
        assert!(lost.is_empty(), "{}: acknowledged by RocksDB, and lost: {lost:?}", scenario.name);
        let (Expect::OneOf(allowed) | Expect::OneOfOrAbsent(allowed)) = (scenario.expect)() else { unreachable!() };
        assert!(allowed.contains(&found), "{}: wrong content: {} keys", scenario.name, found.len());
        (written.len(), written.iter().filter(|(trap, _)| !goes_with_the_change(scenario, *trap)).count())
    });
    let (written, kept) = counts.iter().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
    println!(
        "writes that RocksDB had acknowledged in the middle of a change: {written}, that had to stay and did: {kept}"
    );
    assert!(kept > 20, "only {kept}");
}
