//! A truncation that dies, or fails, at each of its traps: what is needed stands, and the next one ends it.

use crate::common::figures::Figures;
use crate::common::{Content, copy_tree, scratch};
use crate::world::{World, archive_options, at_once, objects, restored};
use morphkv::log_backup::archive::Archive;
use morphkv::log_backup::commit::commit;
use morphkv::log_backup::fault_store::FaultStore;
use morphkv::log_backup::migration::{Body, Key, SnapshotBody};
use morphkv::log_backup::names::{self, ContentHash, ObjectReference};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::pin;
use morphkv::log_backup::snapshot_format::{Manifest, SnapshotPlace};
use morphkv::log_backup::snapshot_transfer::read_manifest;
use morphkv::log_backup::truncate::{Reason, truncate};
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use morphkv::testing::Trap;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use uuid::Uuid;

const ORDERS: &str = "MORPHKV_TEST_TRUNCATE";
/// How many hits of each trap die.
const HITS: u32 = 3;

pub fn open(directory: &Path) -> Archive {
    Archive::open(&format!("file://{}", directory.display()), archive_options()).unwrap()
}

/// An archive of everything that can be doomed, and the moment until which.
pub fn sample(archive: Archive) -> (World, u64) {
    let mut world = World::on(FaultStore::in_memory(), archive);
    world.put(8);
    world.ingest();
    world.ship();
    world.snapshot();
    world.put(8);
    world.convert();
    world.ingest();
    world.put(4);
    world.snapshot();
    let until = world.now();
    world.pass();
    world.ingest();
    world.put(12);
    world.ship();
    world.snapshot();
    world.put(5);
    world.ship();
    (world, until)
}

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let (until, directory) = orders.split_once(' ').unwrap();
    let done = truncate(&open(Path::new(directory)), Until::Time(until.parse().unwrap()), at_once());
    match done {
        Ok(done) => assert_eq!(done.pending, []),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(3)
        }
    }
}

fn run(directory: &Path, until: u64, trap: String) -> std::process::ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "crashes::child", "--nocapture"]).env("MORPHKV_TRAP", trap);
    child.env(ORDERS, format!("{until} {}", directory.display())).output().unwrap().status
}

/// All moments from the base on, with what they are.
fn moments(world: &World, until: u64) -> Vec<(Moment, Content)> {
    let later = world.times.iter().filter(|time| **time >= until).step_by(3).map(|time| Moment::Time(*time));
    later.chain([Moment::Latest]).map(|moment| (moment, world.restored(None, moment).unwrap())).collect()
}

fn assert_moments(directory: &Path, archive: &Archive, moments: &[(Moment, Content)], what: &str) {
    for (moment, content) in moments {
        let found = restored(archive, directory, None, *moment).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(found == *content, "{what}: {moment}");
    }
}

#[test]
fn a_truncation_that_dies_or_fails_at_any_trap_is_ended_by_the_next() {
    let figures = Figures::new("truncation-kills");
    let place = scratch();
    let original = place.path().join("archive");
    let (world, until) = sample(open(&original));
    let moments = moments(&world, until);
    let truncated = place.path().join("truncated");
    copy_tree(&original, &truncated);
    truncate(&open(&truncated), Until::Time(until), at_once()).unwrap();
    let expected: BTreeSet<_> = objects(&open(&truncated)).into_keys().collect();
    assert!(expected.len() + 10 < world.objects().len());

    let traps: Vec<_> =
        Trap::ALL.iter().copied().filter(|trap| trap.name().starts_with("morphkv-trap-truncate-")).collect();
    let (mut met, mut ends, mut waited) = (BTreeSet::new(), 0, 0);
    for trap in &traps {
        for (hit, action) in (1..=HITS).flat_map(|hit| [(hit, "abort"), (hit, "error")]) {
            let what = format!("{}@{hit}={action}", trap.name());
            let copy = tempfile::tempdir_in(place.path()).unwrap();
            let directory = copy.path().join("archive");
            copy_tree(&original, &directory);
            let status = run(&directory, until, what.clone());
            if status.success() {
                continue;
            }
            let died = std::os::unix::process::ExitStatusExt::signal(&status).is_some();
            assert_eq!((died, status.code()), (action == "abort", (action == "error").then_some(3)), "{what}");
            ends += 1;
            met.insert(trap.name());
            let archive = open(&directory);
            assert_moments(copy.path(), &archive, &moments[..2], &what);
            assert_eq!(verify(&archive).unwrap().faults, [], "{what}");
            let mut next = truncate(&archive, Until::Time(until), at_once()).unwrap();
            if let Some(Reason::Pinned { pins }) = next.pending.first().map(|pending| &pending.reason) {
                // The dead one's pin is of the HEAD before; it would expire.
                assert!(died && pins.len() == 1, "{what}: {next:?}");
                pin::break_pin(&archive, pins[0]).unwrap();
                waited += 1;
                next = truncate(&archive, Until::Time(until), at_once()).unwrap();
            }
            assert_eq!((next.pending.as_slice(), next.base.is_some()), (&[][..], true), "{what}");
            let left: BTreeSet<_> = objects(&archive).into_keys().collect();
            let orphans: Vec<_> = left.difference(&expected).map(|name| name.as_str()).collect();
            let harmless =
                orphans.iter().all(|name| name.starts_with("v1/gc/") || (died && name.starts_with("v1/pins/")));
            assert!(harmless && orphans.len() <= 2, "{what}: {orphans:?}");
            assert_eq!(expected.difference(&left).count(), 0, "{what}");
            assert_moments(copy.path(), &archive, &moments, &what);
        }
    }
    let missed: Vec<_> = traps.iter().filter(|trap| !met.contains(trap.name())).collect();
    figures.with("traps", traps.len()).with("ends", ends).with("of which waited for a dead pin", waited).print();
    assert!(missed.is_empty(), "traps that nothing meets: {missed:?}");
    assert!(waited > 0);
}

/// Between planning and the commit a snapshot comes that shares files with one that is to be doomed: it is planned anew.
#[test]
fn what_is_committed_while_a_truncation_is_under_way_stays_whole() {
    let place = scratch();
    let directory = place.path().join("archive");
    let (world, until) = sample(open(&directory));
    let oldest = world.plan(None, Moment::Time(world.times[3])).unwrap().snapshot;
    let newest = world.plan(None, Moment::Latest).unwrap().snapshot;
    let manifest = read_manifest(&world.archive, &oldest.manifest).unwrap();

    let pause = place.path().join("paused");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "crashes::child", "--nocapture"]).env(ORDERS, format!("{until} {}", directory.display()));
    child.env("MORPHKV_TRAP", format!("truncate-list-written=pause:{}", pause.display()));
    // What it prints must not stand between this test's name and its verdict.
    let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
    while !pause.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it did not pause");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let id = Uuid::new_v4();
    let place_of = SnapshotPlace { id, ..manifest.place.clone() };
    let bytes = Manifest { place: place_of, ..manifest.clone() }.to_bytes().unwrap();
    let (name, size, hash) = (names::snapshot(id, id), bytes.len() as u64, ContentHash::of(&bytes));
    world.archive.put_create(&name, bytes).unwrap();
    let body = SnapshotBody { manifest: ObjectReference { name, size, hash }, ..newest };
    commit(&world.archive, |head| {
        let mut head = head.clone();
        head.migrations.append([(Key::Snapshot(id), Body::Snapshot(body.clone()))])?;
        Ok(head)
    })
    .unwrap();
    std::fs::remove_file(&pause).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    let live = world.head().migrations.merged().unwrap();
    let gone = live.entries.values().all(|entry| !matches!(&entry.body, Body::Snapshot(body) if *body == oldest));
    assert!(gone, "nothing was truncated");
    assert!(world.objects().keys().all(|name| !name.as_str().starts_with(names::GC)), "a list is left over");
}
