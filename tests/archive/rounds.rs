//! Truncation over the years: the tests of TiDB's pull request 67850 in our terms, pins, graces, and what it refuses.

use crate::crashes::open;
use crate::world::{World, at_once};
use morphkv::ErrorKind;
use morphkv::log_backup::fault_store::{Call, Effect, When};
use morphkv::log_backup::group::{GROUP_BYTES_MAX, GroupReference};
use morphkv::log_backup::migration::{Base, Body, IngestedBody, Key, Layer, Migrations};
use morphkv::log_backup::names::{self, ContentHash, ObjectName, ObjectReference};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::overview;
use morphkv::log_backup::pin::{self, Pin, PinRequest, TTL};
use morphkv::log_backup::snapshot_transfer::read_manifest;
use morphkv::log_backup::truncate::{Reason, TruncateOptions, Truncated, truncate};
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

fn ingested(number: u128) -> (Key, Body) {
    let list = ObjectReference { name: names::gc(Uuid::from_u128(number)), size: 1, hash: ContentHash(number) };
    (Key::Ingested(Uuid::from_u128(number)), Body::Ingested(IngestedBody { list, timeline: Uuid::nil(), sequence: 1 }))
}

/// Its first test: what a merge keeps of ingested groups is all that either side has.
#[test]
fn merging_keeps_each_of_four_groups() {
    let layer = |id, numbers: [u128; 2]| Layer { id, entries: numbers.into_iter().map(ingested).collect() };
    let (base, over) = (layer(1, [1, 2]), layer(2, [3, 4]));
    let all: BTreeMap<_, _> = (1..=4).map(ingested).collect();
    let of =
        |base: &Base| base.entries.iter().map(|(key, entry)| (*key, entry.body.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(of(&Base::of(&base).merge(&Base::of(&over)).unwrap()), all);
    assert_eq!(of(&Base::of(&over).merge(&Base::of(&base)).unwrap()), all);
    let mut migrations = Migrations::default();
    migrations.append([1, 2].map(ingested)).unwrap();
    migrations.fold().unwrap();
    migrations.append([3, 4].map(ingested)).unwrap();
    migrations.fold().unwrap();
    assert_eq!(of(&migrations.base), all);
}

/// The list and the files of every group that HEAD knows.
fn groups(world: &World) -> BTreeMap<Key, BTreeSet<ObjectName>> {
    let live = world.head().migrations.merged().unwrap();
    let groups = live.entries.iter().filter_map(|(key, entry)| match &entry.body {
        Body::Ingested(body) => {
            let bytes = world.archive.get_verified(&body.list, GROUP_BYTES_MAX as u64).unwrap();
            let files = GroupReference::from_bytes(&bytes).unwrap().files;
            assert!(!files.is_empty());
            let names = files.into_iter().map(|file| file.object.name).chain([body.list.name.clone()]);
            Some((*key, names.collect()))
        }
        _ => None,
    });
    groups.collect()
}

/// Its second test: ten rounds of append and truncate; of the groups only the current one's objects stand.
#[test]
fn ten_rounds_of_append_and_truncate_stay_bounded() {
    let mut world = World::new();
    let mut earlier: BTreeMap<Key, BTreeSet<ObjectName>> = BTreeMap::new();
    let mut sizes = Vec::new();
    for round in 0..10 {
        world.put(12);
        world.snapshot();
        world.ingest();
        world.put(2);
        world.ship();
        let done = world.truncate(Until::Latest).unwrap();
        assert_eq!((done.pending, done.damaged), (vec![], vec![]), "round {round}");
        let (current, standing) = (groups(&world), world.objects());
        assert_eq!(current.len(), 1, "round {round}");
        for names in current.values() {
            assert!(names.iter().all(|name| standing.contains_key(name)), "round {round}: the current group is gone");
        }
        for (key, names) in &earlier {
            assert!(!current.contains_key(key));
            let left: Vec<_> = names.iter().filter(|name| standing.contains_key(*name)).collect();
            assert!(left.is_empty(), "round {round}: {left:?} of {key} still stands");
        }
        earlier.extend(current);
        assert_eq!(verify(&world.archive).unwrap().faults, []);
        // But for the files of the one snapshot, whose number is RocksDB's affair.
        let live = world.head().migrations.merged().unwrap();
        assert_eq!((live.entries.len(), live.floors.len()), (2, 1), "round {round}: {live:?}");
        let told = overview::archive(&world.archive).unwrap();
        let (end, bases) = (told.timelines[0].end.clone().unwrap(), told.timelines[0].bases.len());
        assert_eq!((Some(&end.first_segment), bases), (live.floors.values().next(), 1), "round {round}");
        let snapshot = world.plan(None, Moment::Latest).unwrap().snapshot;
        let files = read_manifest(&world.archive, &snapshot.manifest).unwrap().files;
        let files: BTreeSet<_> = files.into_iter().map(|file| file.object.name).collect();
        assert!(files.iter().all(|name| standing.contains_key(name)));
        let others = standing.iter().filter(|(name, _)| !files.contains(*name));
        let others: Vec<_> = others.map(|(_, size)| *size).collect();
        let head = world.archive.head(&names::head()).unwrap().size;
        sizes.push((others.len(), others.iter().sum::<u64>(), head));
        world.assert_goes_on();
    }
    println!("objects but the snapshot's files, their bytes, and HEAD after each round: {sizes:?}");
    assert_eq!(earlier.len(), 10);
    let (objects, bytes, head) = sizes[2];
    assert!(sizes[3..].iter().all(|size| size.0 <= objects && size.1 <= bytes * 3 / 2), "{sizes:?}");
    // But for the last 64 commits.
    assert!(sizes[9].2 < head + 64 * 100, "{sizes:?}");
}

/// Its third test for this command; for every other it is `pin_tests::a_head_that_cannot_be_read_leaves_no_pin`: a HEAD with
/// a layer that is no layer is that very error, and the pin that was taken before is gone.
#[test]
fn a_malformed_layer_fails_the_truncation_and_leaves_no_pin() {
    let mut world = World::new();
    world.snapshot();
    let whole = world.archive.get(&names::head(), 1 << 20).unwrap().bytes;
    let text = String::from_utf8(whole.to_vec()).unwrap();
    let broken = text.replacen("snapshot/", "snapshoT/", 1);
    assert_ne!(broken, text);
    world.archive.put(&names::head(), broken).unwrap();
    let before = world.store.calls().len();
    let error = world.truncate(Until::Latest).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Corrupt, "read the archive's HEAD"));
    let calls = world.store.calls().split_off(before);
    let at = |wanted: Call, part: &str| {
        calls.iter().position(|(call, name)| *call == wanted && name.contains(part)).expect("the store saw it")
    };
    let (made, loaded, removed) =
        (at(Call::Create, names::PINS), at(Call::Get, "v1/HEAD"), at(Call::Delete, names::PINS));
    assert!(made < loaded && loaded < removed && calls[made].1 == calls[removed].1, "{calls:?}");
    assert!(world.objects().keys().all(|name| !name.as_str().starts_with(names::PINS)));
}

/// A world in which the next truncation dooms something.
fn ready() -> World {
    let mut world = World::new();
    world.put(10);
    world.ingest();
    world.ship();
    world.snapshot();
    world.put(10);
    world.ship();
    world
}

fn reasons(done: &Truncated) -> Vec<&Reason> {
    done.pending.iter().map(|pending| &pending.reason).collect()
}

#[test]
fn what_a_pin_may_need_is_deleted_when_the_pin_is_gone() {
    let mut world = ready();
    let request = PinRequest { owner: "a restore".into(), purpose: "test".into(), ttl: TTL };
    // One that knows an earlier HEAD, and one that knows none yet.
    let (known, _) = Pin::take_and_load(&world.archive, &request).unwrap();
    let unknown = Pin::take(&world.archive, &request).unwrap();
    let standing = world.objects();
    let plan = world.plan(None, Moment::Time(world.times[5])).unwrap();
    let done = world.truncate(Until::Latest).unwrap();
    let [Reason::Pinned { pins }] = reasons(&done)[..] else { panic!("{done:?}") };
    let holders: BTreeSet<_> = [known.id(), unknown.id()].into();
    assert_eq!(pins.iter().copied().collect::<BTreeSet<_>>(), holders);
    assert!(done.doomed_objects > 0 && done.deleted_objects == 0);
    assert!(standing.keys().all(|name| world.objects().contains_key(name)), "something that is pinned is gone");
    // What it was about to read is there, and nobody begins to read it any more.
    assert!(read_manifest(&world.archive, &plan.snapshot.manifest).is_ok());
    assert_eq!(world.plan(None, Moment::Time(world.times[5])).unwrap_err().kind(), ErrorKind::NotFound);
    // A later pin is of a HEAD that has no use for it.
    let (later, _) = Pin::take_and_load(&world.archive, &request).unwrap();
    drop(unknown);
    let done = world.truncate(Until::Latest).unwrap();
    assert_eq!(reasons(&done), [&Reason::Pinned { pins: vec![known.id()] }]);
    // Expired in the store's own time.
    world.store.make_older(&known.id().to_string(), TTL + Duration::from_secs(1));
    let done = world.truncate(Until::Latest).unwrap();
    assert_eq!((reasons(&done).len(), done.doomed_objects), (0, 0));
    assert!(done.deleted_objects > 5);
    assert!(read_manifest(&world.archive, &plan.snapshot.manifest).is_err());
    drop((known, later));
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    world.assert_goes_on();
}

#[test]
fn a_grace_is_waited_for_in_the_stores_time() {
    let world = ready();
    let (standing, options) = (world.objects(), TruncateOptions::default());
    let done = truncate(&world.archive, Until::Latest, options).unwrap();
    let [Reason::Grace { seconds_left }] = reasons(&done)[..] else { panic!("{done:?}") };
    assert!((3590..=3601).contains(seconds_left), "{seconds_left}");
    assert!(standing.keys().all(|name| world.objects().contains_key(name)));
    assert_eq!(overview::archive(&world.archive).unwrap().doomed_lists, 1);
    assert_eq!(verify(&world.archive).unwrap().faults, [], "what is doomed and stands is no fault");
    world.store.make_older(names::GC, Duration::from_secs(3500));
    assert_eq!(truncate(&world.archive, Until::Latest, options).unwrap().pending.len(), 1);
    world.store.make_older(names::GC, Duration::from_secs(101));
    let done = truncate(&world.archive, Until::Latest, options).unwrap();
    assert!(done.pending.is_empty() && done.deleted_objects > 5, "{done:?}");
    assert_eq!(overview::archive(&world.archive).unwrap().doomed_lists, 0);
    assert!(world.objects().keys().all(|name| !name.as_str().starts_with(names::GC)));
}

#[test]
fn without_a_base_so_old_nothing_is_deleted() {
    let world = ready();
    let standing = world.objects();
    let done = world.truncate(Until::Time(1)).unwrap();
    assert_eq!(done, Truncated::default());
    assert_eq!(world.objects(), standing);
    let elsewhere = Until::Sequence { timeline: Uuid::nil(), sequence: 1 };
    assert_eq!(world.truncate(elsewhere).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let current = world.head().current;
    let newest = world.plan(None, Moment::Latest).unwrap();
    let place = |sequence| Until::Sequence { timeline: current, sequence };
    let dry =
        |until| truncate(&world.archive, until, TruncateOptions { dry_run: true, ..at_once() }).unwrap().base.unwrap();
    assert_eq!(dry(place(newest.snapshot.sequence)).id, newest.base);
    assert_ne!(dry(place(newest.snapshot.sequence - 1)).id, newest.base);
    assert_eq!(world.objects(), standing);
}

#[test]
fn an_old_base_stays_while_the_new_one_is_not_whole() {
    let mut world = ready();
    let newest = world.plan(None, Moment::Latest).unwrap().snapshot.manifest;
    let manifest = read_manifest(&world.archive, &newest).unwrap();
    let victims = manifest.files.iter().map(|file| file.object.name.clone()).chain([newest.name.clone()]);
    for victim in victims {
        let bytes = world.archive.get(&victim, 1 << 30).unwrap().bytes;
        let wrongs = [Some([&bytes[..], b"x"].concat()), None];
        for wrong in wrongs {
            match &wrong {
                Some(wrong) => world.archive.put(&victim, wrong.clone()).unwrap(),
                None => world.archive.delete(&victim).unwrap(),
            }
            let standing = world.objects();
            let error = world.truncate(Until::Latest).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{victim}: {error:?}");
            assert!(error.next_command().unwrap().contains("archive verify"));
            assert_eq!(world.objects(), standing, "{victim}");
        }
        world.archive.put(&victim, bytes).unwrap();
    }
    // With a later one it goes on; and one that is damaged and not needed is in nobody's way.
    world.put(1);
    world.snapshot();
    world.archive.delete(&newest.name).unwrap();
    let done = world.truncate(Until::Latest).unwrap();
    assert_eq!((done.damaged.len(), done.damaged[0].object.as_str()), (1, newest.name.as_str()));
    assert_eq!(done.pending, []);
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    world.assert_goes_on();
}

/// Where only the idle time was shipped after the base: the writer still sees that another history was put in its place.
/// How far a branch goes cannot be told if a segment of it is missing: then it stays.
#[test]
fn a_branch_with_a_hole_is_not_taken_for_one_that_has_ended() {
    let mut world = World::new();
    world.put(4);
    world.ship();
    let until = world.now();
    let known: BTreeSet<Uuid> = world.head().timelines.iter().map(|timeline| timeline.id).collect();
    world.roll_back(true);
    let head = world.head();
    let branch = head.timelines.iter().find(|made| !known.contains(&made.id) && made.id != head.current).unwrap().id;
    let before = world.restored(Some(branch), Moment::Latest).unwrap();
    world.archive.delete(&names::segment(branch, 0).unwrap()).unwrap();
    assert_eq!(world.restored(Some(branch), Moment::Latest).unwrap(), before, "its own base comes after the hole");
    world.truncate(Until::Time(until)).unwrap();
    assert_eq!(world.restored(Some(branch), Moment::Latest).unwrap(), before);
}

#[test]
fn a_database_that_was_put_back_is_seen_after_a_truncation_too() {
    let mut world = World::new();
    world.put(10);
    world.put_back();
    world.ship();
    world.put(5);
    world.snapshot();
    world.ship();
    let done = world.truncate(Until::Latest).unwrap();
    assert!(done.deleted_objects > 0);
    world.put_back();
    // As many writes as the other history had, and more.
    world.put(30);
    let begun = world.ship().begun;
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!(world.restored(None, Moment::Latest).unwrap(), crate::common::content(world.engine()));
}

/// What is told of a truncated moment.
#[test]
fn a_moment_below_the_floor_is_refused_with_the_first_that_can_be_reached() {
    let mut world = ready();
    world.convert();
    world.snapshot();
    world.put(3);
    world.ship();
    let old = world.head().timelines[0].id;
    world.truncate(Until::Latest).unwrap();
    let base = world.plan(None, Moment::Latest).unwrap().snapshot;
    let first = morphkv::restore::moment::show_time(base.time);
    for time in [crate::world::BEGIN, world.times[5], base.time - 1] {
        let error = world.plan(None, Moment::Time(time)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains(&first) && error.message().contains("truncated"), "{error}");
    }
    let error = world.plan(Some(old), Moment::Latest).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("truncated"), "{error}");
}

/// The HEAD commit comes through, and its answer is lost.
#[test]
fn a_commit_whose_answer_is_lost_dooms_once() {
    for nth in 0..3 {
        let world = ready();
        world.store.plan_for(Call::Update, When::Nth(nth), Effect::LoseAnswer);
        let done = world.truncate(Until::Latest).unwrap();
        world.store.plan(&[]);
        assert!(done.pending.is_empty() && done.deleted_objects == done.doomed_objects, "{nth}: {done:?}");
        let live = world.head().migrations.merged().unwrap();
        assert!(live.entries.keys().all(|key| matches!(key, Key::Snapshot(_) | Key::Ingested(_))));
        assert_eq!(verify(&world.archive).unwrap().faults, []);
    }
}

#[test]
fn a_store_that_fails_at_any_call_loses_nothing_and_the_next_truncation_ends() {
    let clean = ready();
    let latest = clean.restored(None, Moment::Latest).unwrap();
    clean.store.plan(&[]);
    clean.truncate(Until::Latest).unwrap();
    let calls = clean.store.counted();
    let kept = clean.objects().len();
    let (mut failed, mut pending) = (0, 0);
    for effect in [Effect::Fail, Effect::LoseAnswer] {
        for sticky in [false, true] {
            for nth in 0..calls {
                let world = ready();
                world.store.plan(&[(if sticky { When::From(nth) } else { When::Nth(nth) }, effect)]);
                let done = world.truncate(Until::Latest);
                world.store.plan(&[]);
                let what = format!("{effect:?} at {nth}, sticky {sticky}: {done:?}");
                match &done {
                    Ok(done) => pending += usize::from(!done.pending.is_empty()),
                    Err(error) => {
                        failed += 1;
                        assert!(sticky || error.kind() == ErrorKind::Io, "{what}");
                    }
                }
                assert!(verify(&world.archive).unwrap().faults.is_empty(), "{what}");
                if nth % 8 == 0 {
                    assert!(world.restored(None, Moment::Latest).unwrap() == latest, "{what}");
                }
                for left in pin::list(&world.archive).unwrap() {
                    // The store failed its removal, too.
                    assert!(sticky, "{what}");
                    pin::break_pin(&world.archive, left.id).unwrap();
                }
                let next = world.truncate(Until::Latest).unwrap();
                assert_eq!(next.pending, [], "{what}");
                let orphans = |name: &&ObjectName| {
                    [names::GC, names::PINS, names::CLOCK].iter().any(|folder| name.as_str().starts_with(folder))
                };
                let objects = world.objects();
                let orphans = objects.keys().filter(orphans).count();
                assert!(orphans <= 2, "{what}: {objects:?}");
                assert_eq!(objects.len() - orphans, kept, "{what}");
                assert_eq!(verify(&world.archive).unwrap().faults, [], "{what}");
            }
        }
    }
    println!("calls {calls}, faults {}, truncations that failed {failed}, that were pending {pending}", calls * 4);
    assert!(failed > 0 && pending > 0);
}

/// What the store would not delete stays on its list in HEAD until it does.
#[test]
fn what_cannot_be_deleted_is_pending_and_goes_later() {
    let mut world = ready();
    let standing = world.objects();
    world.store.plan_for(Call::Delete, When::From(0), Effect::Fail);
    let done = world.truncate(Until::Latest).unwrap();
    let [Reason::Failed { message }] = reasons(&done)[..] else { panic!("{done:?}") };
    assert!(message.contains("it fails") && done.deleted_objects == 0, "{done:?}");
    // It is done, and the answer is lost: not known is not gone.
    world.store.plan_for(Call::Delete, When::From(0), Effect::LoseAnswer);
    let left = |world: &World| standing.keys().filter(|name| world.objects().contains_key(*name)).count();
    assert_eq!(left(&world), standing.len());
    for pin in pin::list(&world.archive).unwrap() {
        drop(pin::break_pin(&world.archive, pin.id));
    }
    let done = world.truncate(Until::Latest).unwrap();
    assert!(matches!(reasons(&done)[..], [Reason::Failed { .. }]) && left(&world) < standing.len(), "{done:?}");
    world.store.plan(&[]);
    assert_eq!(overview::archive(&world.archive).unwrap().doomed_lists, 1);
    let done = world.truncate(Until::Latest).unwrap();
    assert_eq!((done.pending.as_slice(), done.doomed_objects), (&[][..], 0));
    assert_eq!(overview::archive(&world.archive).unwrap().doomed_lists, 0);
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    world.assert_goes_on();
}

#[test]
fn two_truncations_at_once_do_no_harm() {
    let place = crate::common::scratch();
    let directory = place.path().join("archive");
    let (mut world, until) = crate::crashes::sample(open(&directory));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| truncate(&open(&directory), Until::Time(until), at_once()));
        let own = truncate(&open(&directory), Until::Time(until), at_once());
        for done in [own, other.join().unwrap()] {
            done.unwrap();
        }
    });
    // Each may have waited for the other's pin.
    assert_eq!(world.truncate(Until::Time(until)).unwrap().pending, []);
    assert!(world.objects().keys().all(|name| !name.as_str().starts_with(names::GC)));
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    world.assert_goes_on();
}
