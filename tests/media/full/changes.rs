//! Every change, on a disk that is full when it begins, or becomes full while it is under way.

use super::super::common::{self, Content, figures::scale, figures::torture, options};
use super::super::disks::Disk;
use super::super::filler::Filler;
use super::super::outcome::{Outcome, require_spoken_of};
use super::super::scenario::{self, Expect, Scenario, database};
use super::{Tally, content, sizes};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::testing::{Operation, RealVfs, RecordingVfs, Trap};
use morphkv::{Engine, Error, ErrorKind, Keep, Options, manage};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// The change that meets most of what there is, also in the small size.
const MAIN: &str = "convert to hierarchical";

/// When the disk becomes full, and how many bytes are left free.
#[derive(Debug, Clone, Copy)]
enum Room {
    /// Before the change begins.
    Before(u64),
    /// After so many of its file operations and traps: what its preflight has measured is not there any more.
    After(u64, u64),
}

/// A change, how the place looks before, and what a run does that nothing gets in the way of.
struct Prepared {
    scenario: Scenario,
    before: TempDir,
    /// Every file of it.
    files: BTreeMap<String, Vec<u8>>,
    /// Bytes of the database.
    bytes: u64,
    /// What its preflight asks for, if it has one.
    needed: Option<u64>,
    operations: Vec<Operation>,
    outcome: Outcome,
    /// Bytes of all that stands there afterwards.
    bytes_after: u64,
}

/// Options whose file operations are watched: after operation `at` of them (0: never) the disk has only `leaves` bytes.
fn watched(filler: &Filler, at: u64, leaves: u64) -> (Options, Arc<RecordingVfs>) {
    let (filler, count) = (filler.clone(), AtomicU64::new(0));
    let vfs = Arc::new(RecordingVfs::watched(Arc::new(RealVfs::default()), move |_| {
        if count.fetch_add(1, Ordering::SeqCst) + 1 == at {
            filler.leave(leaves);
        }
    }));
    (options().vfs(vfs.clone()), vfs)
}

/// Bytes of the files of a place, but for RocksDB's own log of messages, and for a database that is kept as it was.
fn bytes_of(directory: &Path) -> u64 {
    let files = if directory.is_dir() { common::bytes_below(directory) } else { BTreeMap::new() };
    let counts = |name: &str| !name.contains("LOG") && !name.starts_with("db.backup/");
    files.iter().filter(|(name, _)| counts(name)).map(|(_, bytes)| bytes.len() as u64).sum()
}

/// What the preflight of a conversion of that database asks for.
fn needed(directory: &Path) -> Option<u64> {
    let plan = |options: Options| {
        let options = options.keep_backup(Keep::Replace);
        manage::plan_conversion(database(directory), &options).ok().flatten()
    };
    plan(options().encoding(Hierarchical)).or_else(|| plan(options().encoding(Natural))).map(|plan| plan.needed_bytes)
}

fn prepare(scenario: Scenario, disk: &Disk) -> Prepared {
    let before = common::scratch();
    (scenario.prepare)(before.path());
    let needed = is_conversion(&scenario).then(|| needed(before.path()).expect("a plan"));
    disk.put_in_place(before.path());
    let (options, vfs) = watched(&disk.filler(), 0, 0);
    (scenario.act)(&disk.place(), options).unwrap();
    let operations = vfs.take();
    let outcome = Outcome::of(&disk.place(), scenario.name);
    let bytes = bytes_of(&database(before.path()));
    let (files, bytes_after) = (common::bytes_below(before.path()), bytes_of(&disk.place()));
    Prepared { scenario, before, files, bytes, needed, operations, outcome, bytes_after }
}

fn is_conversion(scenario: &Scenario) -> bool {
    ["convert", "replace", "go on"].iter().any(|name| scenario.name.starts_with(name))
}

/// What a bulk load brings: as much as is there.
fn load() -> Content {
    content().iter().map(|(key, value)| ([b"/loaded".as_slice(), key].concat(), value.clone())).collect()
}

fn bulk_load() -> Scenario {
    let with_load = || content().clone().into_iter().chain(load()).collect();
    Scenario {
        name: "bulk load",
        prepare: Box::new(|directory| common::make(&database(directory), Arc::new(Natural), content())),
        act: |directory, options| {
            let engine = Engine::open(database(directory), options)?;
            match engine.ingest(load().into_iter().map(Ok)) {
                Ok(_) => engine.close(),
                Err(error) => {
                    assert!(common::content(&engine) == *content(), "a part of what was to be loaded is there");
                    Err(error)
                }
            }
        },
        expect: Box::new(move || Expect::OneOf(vec![content().clone(), with_load()])),
    }
}

/// Runs the cases of every change.
pub fn on(disk: &Disk) -> Tally {
    let mut tally = Tally::default();
    let scenarios = scenario::of(content().clone()).into_iter().chain([bulk_load()]);
    for (index, scenario) in scenarios.enumerate() {
        let prepared = prepare(scenario, disk);
        let rooms = rooms(&prepared, index, disk.filler().block());
        for (nth, room) in rooms.into_iter().enumerate() {
            run(&prepared, disk, room, nth % 2 == 1, &mut tally);
        }
    }
    tally
}

/// How full the disk is, and when, for a change. In the small size each change meets some of what there is.
fn rooms(prepared: &Prepared, index: usize, block: u64) -> Vec<Room> {
    let every = |step: usize| scale(step, 1);
    let main = prepared.scenario.name == MAIN;
    let sizes = sizes(prepared.bytes.max(1 << 20), block);
    // Most of them would be refused by a preflight.
    let step = every(match prepared.needed {
        Some(_) if prepared.scenario.in_part() => 120,
        Some(_) => 40,
        None => 9,
    });
    let mut rooms: Vec<Room> = some(&sizes, index, step).map(|(_, size)| Room::Before(*size)).collect();
    if let Some(needed) = prepared.needed {
        rooms.extend([needed - block, needed + 8 * block].map(Room::Before));
    }
    // The whole range when the rewrite is about to begin, after its preflight.
    let begins = prepared.operations.iter().position(|operation| *operation == Operation::Trap(Trap::RewriteBefore));
    if let Some(begins) = begins {
        let few = some(&sizes, index, every(if main { 2 } else { 24 }));
        rooms.extend(few.map(|(_, size)| Room::After(begins as u64 + 1, *size)));
    }
    // Nothing or little left after each operation.
    let leaves = [0, block, 3 * block, prepared.bytes / 8, prepared.bytes];
    for (at, _) in some(&prepared.operations, index, every(if main { 16 } else { 48 })) {
        let chosen = leaves.iter().enumerate().filter(|(which, _)| torture() || (at + index) % leaves.len() == *which);
        rooms.extend(chosen.map(|(_, leaves)| Room::After(at as u64 + 1, *leaves)));
    }
    rooms
}

/// The first of all, and of the others each `step`th, other ones for each `index`.
fn some<T>(all: &[T], index: usize, step: usize) -> impl Iterator<Item = (usize, &T)> {
    all.iter().enumerate().filter(move |(nth, _)| *nth == 0 || (nth + index).is_multiple_of(step))
}

/// One run. `insists`: while the disk is still full it is opened for writing, too.
fn run(prepared: &Prepared, disk: &Disk, room: Room, insists: bool, tally: &mut Tally) {
    let (scenario, filler, place) = (&prepared.scenario, disk.filler(), disk.place());
    let what = format!("{}: {room:?}", scenario.name);
    disk.put_in_place(prepared.before.path());
    let (options, free) = match room {
        Room::Before(free) => {
            let left = filler.leave(free);
            (watched(&filler, 0, 0).0, left)
        }
        Room::After(at, leaves) => {
            tally.filled_meanwhile += 1;
            (watched(&filler, at, leaves).0, leaves)
        }
    };
    tally.run(scenario.name, free);
    tally.judge(&what, |tally| {
        let acted = catch_unwind(AssertUnwindSafe(|| (scenario.act)(&place, options)));
        let acted = acted.unwrap_or_else(|_| panic!("{what}: a panic"));
        match &acted {
            Ok(()) => tally.succeeded += 1,
            Err(error) => no_space(prepared, room, free, &place, error, &what, tally),
        }
        if let (Room::Before(_), Some(needed)) = (room, prepared.needed) {
            assert_eq!(acted.is_ok(), free >= needed, "{what}: {needed} bytes are needed, {free} free: {acted:?}");
        }
        require_spoken_of(&place, &what);
        assert!(!place.join("db.probe").exists(), "{what}: the probe is left");
        read(scenario, &place, &what);
        tally.read_while_full += 1;
        if insists {
            insist(scenario, &place, &what);
        }
        filler.give_back();
        tally.opened += with_room_again(prepared, &place, &acted, &what);
    });
    filler.give_back();
}

/// The error of a full disk: the preflight tells both figures and has touched nothing, anything else says `NoSpace`.
fn no_space(prepared: &Prepared, room: Room, free: u64, place: &Path, error: &Error, what: &str, tally: &mut Tally) {
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error:?}");
    let told = error.message().split_once(" bytes are needed beside the database, ");
    let Some((needed, rest)) = told else {
        tally.met += 1;
        let before = matches!(room, Room::Before(_)) && prepared.needed.is_some();
        assert!(!before, "{what}: the preflight did not tell: {error:?}");
        return;
    };
    tally.told_before += 1;
    assert_eq!(needed.parse(), Ok(prepared.needed.unwrap()), "{what}: {error:?}");
    let measured: u64 = rest.split_once(" are free").unwrap().0.parse().unwrap();
    assert!(measured <= free || matches!(room, Room::After(..)), "{what}: {free} bytes are free: {error:?}");
    assert!(common::bytes_below(place) == prepared.files, "{what}: something was touched");
}

fn allowed(scenario: &Scenario) -> Vec<Content> {
    match (scenario.expect)() {
        Expect::OneOf(contents) | Expect::OneOfOrAbsent(contents) => contents,
        Expect::AdoptableWith(content) => vec![content],
    }
}

/// The disk is still full, and every key can be read.
fn read(scenario: &Scenario, place: &Path, what: &str) {
    let engine = match Engine::open_read_only(database(place), options()) {
        Ok(engine) => engine,
        Err(error) => {
            let next = error.next_command().unwrap_or_default();
            let expected = match (scenario.expect)() {
                Expect::OneOf(_) => false,
                // There is none, or it is being destroyed, and its first part may have gone.
                Expect::OneOfOrAbsent(_) => {
                    error.kind() == ErrorKind::NotFound
                        || (scenario.name == "destroy" && next.starts_with("morphkv recover"))
                }
                Expect::AdoptableWith(_) => error.kind() == ErrorKind::Refused && next.starts_with("morphkv adopt"),
            };
            assert!(expected, "{what}, read while the disk is full: {error:?}");
            return;
        }
    };
    let found: Content = engine.range(..).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(allowed(scenario).contains(&found), "{what}, read while the disk is full: {} keys", found.len());
}

/// The disk is still full, and somebody opens it for writing all the same.
fn insist(scenario: &Scenario, place: &Path, what: &str) {
    match Engine::open(database(place), options()) {
        Ok(engine) => {
            let found = common::content(&engine);
            assert!(allowed(scenario).contains(&found), "{what}, opened while the disk is full: {} keys", found.len());
        }
        Err(error) => {
            let refused = match (scenario.expect)() {
                Expect::OneOf(_) => scenario.name.contains("legacy") && error.message().contains("legacy"),
                Expect::OneOfOrAbsent(_) => error.kind() == ErrorKind::NotFound,
                Expect::AdoptableWith(_) => error.kind() == ErrorKind::Refused,
            };
            assert!(refused || error.kind() == ErrorKind::NoSpace, "{what}, opened while the disk is full: {error:?}");
        }
    }
}

/// There is room again: the next open has every key, and the change succeeds, if it did not before.
fn with_room_again(prepared: &Prepared, place: &Path, acted: &morphkv::Result<()>, what: &str) -> u64 {
    let scenario = &prepared.scenario;
    let mut opened = 1;
    if acted.is_err() {
        // Where nothing was touched there is nothing to be seen that was not there before.
        if common::bytes_below(place) != prepared.files {
            let left = common::scratch();
            common::copy_tree(place, left.path());
            scenario::check_unset(scenario, left.path(), what);
            opened += 1;
        }
        act_again(scenario, place, what);
    }
    assert!(Outcome::of(place, what) == prepared.outcome, "{what}: the outcome is another");
    require_spoken_of(place, what);
    let bytes = bytes_of(place);
    let most = prepared.bytes_after + prepared.bytes_after / 10 + (256 << 10);
    assert!(bytes <= most, "{what}: {bytes} bytes stand there, {} after a sound run", prepared.bytes_after);
    let names = common::bytes_below(place).into_keys();
    let strange: Vec<String> = names.filter(|name| name.contains(".new") || name.contains("tmp")).collect();
    assert!(strange.is_empty(), "{what}: left behind: {strange:?}");
    if acted.is_ok() || torture() {
        scenario::check_unset(scenario, place, what);
        opened += 1;
    }
    opened
}

fn act_again(scenario: &Scenario, place: &Path, what: &str) {
    let copy = place.join("copy");
    if copy.exists() {
        // It was made, and opening it was too much.
        let engine = Engine::open(&copy, options()).unwrap_or_else(|error| panic!("{what}: the copy: {error:?}"));
        assert!(allowed(scenario).contains(&common::content(&engine)), "{what}: the copy is another");
        drop(engine);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    match (scenario.act)(place, options()) {
        Ok(()) => {}
        // What had begun has been finished by an open since.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => panic!("{what}, again, with room: {error:?}"),
    }
}
