//! `archive fsck`: every object is removed or cut in turn, and it says which; what an upload left is swept when it is old and
//! nobody may be uploading.

use crate::common::figures::Figures;
use crate::crashes::sample;
use crate::world::{World, archive_options, at_once};
use morphkv::ErrorKind;
use morphkv::log_backup::archive::Archive;
use morphkv::log_backup::fault_store::FaultStore;
use morphkv::log_backup::fsck::{Checked, INSTANT_AGE, ORPHAN_AGE, fsck};
use morphkv::log_backup::names::{self, ContentHash, Kind, ObjectName};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::pin::{Pin, PinRequest, TTL};
use morphkv::log_backup::truncate::{TruncateOptions, truncate};
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use serde_json::Value;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn world() -> (World, u64) {
    let store = FaultStore::in_memory();
    let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "", archive_options()).unwrap();
    let (mut world, until) = sample(archive);
    world.store = store;
    (world, until)
}

#[test]
fn every_object_that_is_gone_or_cut_is_named() {
    let figures = Figures::new("archive-fsck");
    let (world, until) = world();
    // Some of it doomed, and nothing deleted yet.
    truncate(&world.archive, Until::Time(until), TruncateOptions::default()).unwrap();
    let sound = fsck(&world.archive, false).unwrap();
    let objects = world.objects();
    assert!(sound.is_sound() && sound.orphans.is_empty() && sound.unknown.is_empty(), "{sound:?}");
    assert_eq!(sound.objects + sound.doomed, objects.len() as u64);
    assert!(sound.doomed > 10 && sound.objects > 10);
    let head = world.archive.get(&names::head(), 1 << 20).unwrap().bytes;
    for wrong in [head.slice(1..), head.slice(..head.len() - 1)] {
        world.archive.put(&names::head(), wrong).unwrap();
        assert_eq!(fsck(&world.archive, true).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    world.archive.put(&names::head(), head).unwrap();
    assert_eq!(world.objects(), objects);

    let (mut tried, mut unseen, mut doomed) = (0, Vec::new(), 0);
    for name in objects.keys() {
        let bytes = world.archive.get(name, 1 << 30).unwrap().bytes;
        let cut = (!bytes.is_empty()).then(|| bytes.slice(..bytes.len() - 1));
        let longer = Some([&bytes[..], b"x"].concat().into());
        for wrong in [None, cut, longer] {
            tried += 1;
            match &wrong {
                Some(wrong) => world.archive.put(name, wrong.clone()).unwrap(),
                None => world.archive.delete(name).unwrap(),
            }
            let found = fsck(&world.archive, true).unwrap();
            let named: Vec<_> = found.faults.iter().map(|fault| fault.object.as_str()).collect();
            if found.faults.is_empty() && found.objects == sound.objects {
                doomed += 1;
            } else if found.faults.is_empty() {
                assert!(wrong.is_none(), "{name}: {wrong:?} is not seen");
                unseen.push(name.clone());
            } else {
                assert_eq!(named, [name.as_str()], "{wrong:?}");
            }
            assert_eq!(found.removed, 0);
        }
        world.archive.put(name, bytes).unwrap();
    }
    figures.with("damages", tried).with("of which of doomed objects", doomed).print();
    assert_eq!(fsck(&world.archive, false).unwrap(), sound);
    // What is doomed is missed by nobody.
    assert!(doomed <= 3 * sound.doomed, "{doomed}");
    // The last segment of the log can be missing without a sign: it may not have been written yet.
    assert!(
        unseen.len() <= 1 && unseen.iter().all(|name| matches!(names::kind(name), Kind::Segment { .. })),
        "{unseen:?}"
    );
}

/// Objects that nothing speaks of: a file, a manifest, a list, segments below a floor and of an unknown timeline.
fn leave_orphans(world: &World) -> Vec<ObjectName> {
    let id = Uuid::new_v4();
    let current = world.head().current;
    let orphans = vec![
        names::data(ContentHash(7), id),
        names::snapshot(id, id),
        names::gc(id),
        names::segment(id, 3).unwrap(),
        names::segment(current, 0).unwrap(),
    ];
    for name in &orphans {
        world.archive.put_create(name, "orphan").unwrap();
    }
    orphans
}

fn names_of(found: &Checked) -> Vec<String> {
    let mut names: Vec<_> = found.orphans.iter().map(|orphan| orphan.object.clone()).collect();
    names.sort();
    names
}

#[test]
fn old_orphans_are_swept_and_young_ones_and_those_of_an_upload_stay() {
    let (mut world, until) = world();
    truncate(&world.archive, Until::Time(until), at_once()).unwrap();
    let (standing, latest) = (world.objects(), world.restored(None, Moment::Latest).unwrap());
    let orphans = leave_orphans(&world);
    let mut expected: Vec<_> = orphans.iter().map(ToString::to_string).collect();
    expected.sort();
    let all_there = || orphans.iter().all(|name| world.objects().contains_key(name));

    let found = fsck(&world.archive, true).unwrap();
    assert_eq!((names_of(&found), found.removed, found.is_sound()), (expected.clone(), 0, true));
    assert!(all_there(), "young orphans were swept");
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    for name in &orphans {
        world.store.make_older(name.as_str(), ORPHAN_AGE - Duration::from_secs(60));
    }
    assert_eq!(fsck(&world.archive, true).unwrap().removed, 0);
    for name in &orphans {
        world.store.make_older(name.as_str(), Duration::from_secs(61));
    }
    let found = fsck(&world.archive, false).unwrap();
    assert!(!found.is_sound() && found.faults.is_empty() && all_there(), "{found:?}");

    let take = |purpose: &str| {
        let request = PinRequest { owner: "test".into(), purpose: purpose.into(), ttl: TTL };
        Pin::take(&world.archive, &request).unwrap()
    };
    // Somebody may be uploading; what this version does not know may be that, too.
    for purpose in ["store a base snapshot", "store a bulk load", "something new"] {
        let pin = take(purpose);
        let found = fsck(&world.archive, true).unwrap();
        assert_eq!((found.removed, found.uploaders), (0, vec![pin.id()]), "{purpose}");
        assert!(all_there());
    }
    // As long as a list cannot be read, nobody knows what is on it.
    let snapshot = world.plan(None, Moment::Latest).unwrap().snapshot.manifest.name;
    let bytes = world.archive.get(&snapshot, 1 << 20).unwrap().bytes;
    world.archive.delete(&snapshot).unwrap();
    world.store.make_older("v1/data", ORPHAN_AGE);
    let found = fsck(&world.archive, true).unwrap();
    assert!(found.orphans.len() > orphans.len() && found.faults.len() == 1 && found.removed == 0, "{found:?}");
    world.archive.put(&snapshot, bytes).unwrap();

    let readers = [take("restore"), take("verify the archive")];
    let found = fsck(&world.archive, true).unwrap();
    assert_eq!((names_of(&found), found.removed, found.is_sound()), (expected, orphans.len() as u64, true));
    drop(readers);
    assert_eq!(world.objects(), standing);
    assert_eq!(fsck(&world.archive, false).unwrap().orphans, []);
    assert!(world.restored(None, Moment::Latest).unwrap() == latest);
    world.assert_goes_on();
}

#[test]
fn expired_pins_and_what_stood_for_an_instant_are_swept_and_unknown_names_are_not() {
    let (world, _) = world();
    let standing = world.objects();
    let request = PinRequest { owner: "test".into(), purpose: "store a base snapshot".into(), ttl: TTL };
    let (dead, live) = (Pin::take(&world.archive, &request).unwrap(), Pin::take(&world.archive, &request).unwrap());
    world.store.make_older(&dead.id().to_string(), TTL + Duration::from_secs(1));
    let id = Uuid::new_v4();
    let old = [names::clock(id), names::probe(id, "race")];
    let young = names::clock(Uuid::new_v4());
    let unknown = ObjectName::new("v1/later/thing").unwrap();
    for name in old.iter().chain([&young, &unknown]) {
        world.archive.put_create(name, "x").unwrap();
    }
    world.store.make_older(&id.to_string(), INSTANT_AGE);
    world.store.make_older("v1/later", ORPHAN_AGE * 10);
    let found = fsck(&world.archive, false).unwrap();
    assert_eq!((found.stale.len(), found.unknown.as_slice(), found.is_sound()), (3, &[unknown.to_string()][..], false));
    let found = fsck(&world.archive, true).unwrap();
    assert_eq!((found.removed, found.is_sound(), found.uploaders), (3, true, vec![live.id()]));
    let mut left: Vec<_> = world.objects().into_keys().filter(|name| !standing.contains_key(name)).collect();
    left.sort();
    let mut expected = vec![names::pin(live.id()), young, unknown];
    expected.sort();
    assert_eq!(left, expected);
    assert!(world.archive.head(&names::pin(dead.id())).is_err());
}

/// What a truncation that died before its commit left, and files on a snapshot's damaged list, are orphans like others.
#[test]
fn what_truncations_leave_is_swept() {
    let (mut world, _) = world();
    let oldest = world.plan(None, Moment::Time(world.times[12])).unwrap().snapshot.manifest.name;
    world.archive.delete(&oldest).unwrap();
    assert_eq!(truncate(&world.archive, Until::Latest, at_once()).unwrap().damaged.len(), 1);
    world.store.make_older("v1/data", ORPHAN_AGE);
    let found = fsck(&world.archive, false).unwrap();
    assert!(!found.orphans.is_empty() && found.faults.is_empty(), "{found:?}");
    assert_eq!(fsck(&world.archive, true).unwrap().removed, found.orphans.len() as u64);
    assert!(fsck(&world.archive, false).unwrap().orphans.is_empty());
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    world.assert_goes_on();
}

#[test]
fn the_command_tells_by_its_exit_code() {
    let place = crate::common::scratch();
    let (world, _) = sample(crate::crashes::open(&place.path().join("archive")));
    let url = world.archive.url();
    let run = |arguments: &[&str], code: i32| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_morphkv"));
        let done = command.args(["archive", "fsck", url, "--json"]).args(arguments).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(if code == 2 { &done.stderr } else { &done.stdout }).unwrap()
    };
    let found = run(&[], 0);
    assert_eq!(found["objects"].as_u64(), Some(world.objects().len() as u64));
    assert_eq!(run(&["--repair"], 2)["kind"], "InvalidArgument");
    let orphan = &leave_orphans_of_a_file(&world);
    assert_eq!(run(&["--repair", "-y"], 0)["orphans"][0]["object"], orphan.to_string());
    let file = place.path().join("archive").join(orphan.as_str());
    let old = std::time::SystemTime::now() - ORPHAN_AGE - Duration::from_secs(1);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    assert_eq!(run(&[], 1)["orphans"][0]["is_old"], true);
    assert_eq!(run(&["--repair", "-y"], 0)["removed"], 1);
    assert!(!file.exists());
    world.archive.delete(world.objects().keys().next().unwrap()).unwrap();
    assert_eq!(run(&[], 1)["faults"].as_array().unwrap().len(), 1);
}

fn leave_orphans_of_a_file(world: &World) -> ObjectName {
    let name = names::data(ContentHash(7), Uuid::new_v4());
    world.archive.put_create(&name, "orphan").unwrap();
    name
}
