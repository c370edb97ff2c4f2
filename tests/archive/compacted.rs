//! A compaction of the log, and what truncation and fsck make of it.

use crate::common::{content, scratch};
use crate::world::{World, at_once};
use morphkv::log_backup::compact::{Report, Request, State, compact};
use morphkv::log_backup::fsck::{ORPHAN_AGE, fsck};
use morphkv::log_backup::group::GroupReference;
use morphkv::log_backup::migration::{Body, Key};
use morphkv::log_backup::names::{self, COMPACTIONS, Kind};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::pin::{Pin, PinRequest, TTL};
use morphkv::log_backup::truncate::truncate;
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use morphkv::restore::unreachable::NotArrived;
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{Engine, ErrorKind, Options, Result, restore};
use std::error::Error as _;
use std::sync::Arc;

fn shard(world: &World, name: &str, shard: u32, shards: u32) -> Report {
    shard_with(world, name, shard, shards, &crate::common::options()).unwrap()
}

/// Fails when the compaction has ended, and HEAD does not know it yet.
fn stopped_before_its_commit() -> Arc<RealVfs> {
    let plan = TrapPlan::new().with(Trap::CompactEnded, 1, TrapAction::Error(ErrorKind::Io));
    Arc::new(RealVfs::with_traps(Arc::new(plan)))
}

fn shard_with(world: &World, name: &str, shard: u32, shards: u32, options: &Options) -> Result<Report> {
    let scratch = scratch();
    let (until, scratch) = (Until::Latest, scratch.path().to_owned());
    let request =
        Request { name: name.into(), shard, shards, until, scratch, part_bytes: 1 << 20, stretch_segments: 2 };
    compact(&world.archive, &request, options)
}

fn of_compactions(world: &World) -> Vec<String> {
    let names = world.objects().into_keys().map(|name| name.to_string());
    names.filter(|name| name.starts_with(COMPACTIONS)).collect()
}

fn history() -> World {
    let mut world = World::new();
    for _ in 0..3 {
        world.put(30);
        world.ingest();
        world.ship();
    }
    world
}

#[test]
fn a_compaction_goes_when_a_later_base_makes_it_useless_and_its_name_stays() {
    let mut world = history();
    assert_eq!(shard(&world, "first", 1, 2).state, State::Running);
    assert_eq!(shard(&world, "first", 2, 2).state, State::Complete);
    let all = of_compactions(&world);
    assert!(all.len() > 4, "{all:?}");
    let checked = fsck(&world.archive, false).unwrap();
    assert!(checked.is_sound() && checked.orphans.is_empty() && checked.unknown.is_empty(), "{checked:?}");
    // The base is the first one still: all of it is needed.
    truncate(&world.archive, Until::Latest, at_once()).unwrap();
    assert_eq!(of_compactions(&world), all);
    world.put(5);
    world.snapshot();
    world.put(5);
    world.ship();
    let done = truncate(&world.archive, Until::Latest, at_once()).unwrap();
    assert!(done.pending.is_empty(), "{done:?}");
    assert_eq!(of_compactions(&world), [names::compaction_spec("first").unwrap().to_string()]);
    let checked = fsck(&world.archive, true).unwrap();
    assert!(checked.is_sound() && checked.orphans.is_empty() && checked.unknown.is_empty(), "{checked:?}");
    assert_eq!(verify(&world.archive).unwrap().faults, []);
    assert_eq!(world.restored(None, Moment::Latest).unwrap(), content(world.engine()));
}

#[test]
fn a_compaction_that_is_damaged_does_not_hold_a_truncation_up() {
    let mut world = history();
    world.snapshot();
    world.put(30);
    world.ship();
    assert_eq!(shard(&world, "damaged", 1, 1).state, State::Complete);
    world.archive.put(&names::compaction_end("damaged").unwrap(), "not what HEAD says").unwrap();
    let before = world.objects().len();
    let done = world.truncate(Until::Latest).unwrap();
    assert!(done.pending.is_empty() && world.objects().len() < before, "{done:?}");
    assert_eq!(world.restored(None, Moment::Latest).unwrap(), content(world.engine()));
}

/// Its END would tell a worker that comes late that all of it stands.
#[test]
fn what_is_left_of_a_compaction_goes_as_a_whole() {
    let world = history();
    shard(&world, "left", 1, 2);
    let left: Vec<_> = of_compactions(&world);
    let checked = fsck(&world.archive, true).unwrap();
    assert!(checked.is_sound() && checked.removed == 0, "{checked:?}");
    let orphans: Vec<_> = checked.orphans.iter().map(|orphan| orphan.object.as_str()).collect();
    assert_eq!(orphans.len(), left.len() - 1, "all but its SPEC: {orphans:?}");
    let (young, old): (Vec<_>, Vec<_>) = orphans.iter().partition(|name| name.contains("/results/"));
    assert!(young.len() == 1 && !old.is_empty(), "{orphans:?}");
    for name in old {
        world.store.make_older(name, ORPHAN_AGE * 2);
    }
    assert_eq!(fsck(&world.archive, true).unwrap().removed, 0);
    assert_eq!(of_compactions(&world), left);
    world.store.make_older(young[0], ORPHAN_AGE * 2);
    assert_eq!(fsck(&world.archive, true).unwrap().removed, left.len() as u64 - 1);
    let spec = names::compaction_spec("left").unwrap();
    assert_eq!((of_compactions(&world), names::kind(&spec)), (vec![spec.to_string()], Kind::CompactionSpec));
    // Whoever comes again does it again.
    assert!(!shard(&world, "left", 1, 2).was_done);
    assert_eq!(shard(&world, "left", 2, 2).state, State::Complete);
    assert!(fsck(&world.archive, false).unwrap().is_sound());
}

/// What was truncated takes its compactions along; none may come too late.
#[test]
fn a_compaction_that_ends_after_its_segments_were_truncated_is_outdated() {
    for all_before in [false, true] {
        let mut world = history();
        if all_before {
            shard(&world, "late", 1, 2);
            shard(&world, "late", 2, 2);
        } else {
            assert_eq!(shard(&world, "late", 1, 2).state, State::Running);
            // The segments of the second shard are read, and its result stands, when the truncation comes.
            let vfs = stopped_before_its_commit();
            let error = shard_with(&world, "late", 2, 2, &crate::common::options().vfs(vfs)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        }
        world.put(5);
        world.snapshot();
        world.put(5);
        world.ship();
        let done = world.truncate(Until::Latest).unwrap();
        assert!(done.pending.is_empty(), "{done:?}");
        let known = |world: &World| {
            let live = world.head().migrations.merged().unwrap();
            live.entries.keys().any(|key| matches!(key, Key::Compaction(_)))
        };
        assert!(!known(&world), "a truncated compaction is still known");
        // Whoever comes now finds that it is too late, as often as that may be, and nothing enters HEAD.
        for _ in 0..2 {
            match shard_with(&world, "late", 2, 2, &crate::common::options()) {
                Ok(report) if !all_before => {
                    assert_eq!((report.state, report.was_done), (State::Outdated, true), "{report:?}");
                }
                // All of it went with the truncation but its SPEC: its segments are gone, and it fails for ever.
                Ok(report) => assert!(report.failure.is_some() && all_before, "{report:?}"),
                Err(error) => panic!("{error:?}"),
            }
            assert!(!known(&world), "it has entered HEAD after all");
        }
        assert_eq!(world.restored(None, Moment::Latest).unwrap(), content(world.engine()));
        assert!(fsck(&world.archive, false).unwrap().is_sound());
        world.assert_goes_on();
    }
}

/// The truncation is delayed by the pin of a restore that is under way, and takes nothing that it reads.
#[test]
fn a_truncation_while_a_restore_is_under_way() {
    let mut world = history();
    let expected = content(world.engine());
    let target = world.directory.path().join("target");
    let request = restore::Request {
        moment: Moment::Latest,
        timeline: None,
        replace: false,
        no_pin: false,
        replica: false,
        compaction: None,
    };
    restore::start(&target, &world.archive, &request, &crate::common::options()).unwrap();
    let pinned = PinRequest { owner: "restore".into(), purpose: "as the restore's".into(), ttl: TTL };
    let pin = Pin::take(&world.archive, &pinned).unwrap();
    pin.note_generation(world.head().generation).unwrap();
    world.put(5);
    world.snapshot();
    world.put(5);
    world.ship();
    let before = world.objects();
    let done = world.truncate(Until::Latest).unwrap();
    assert!(!done.pending.is_empty(), "{done:?}");
    let kept =
        before.keys().filter(|name| !name.as_str().contains("/pins/")).all(|name| world.objects().contains_key(name));
    assert!(kept, "something was deleted under the pin");
    restore::go_on(&target, &world.archive, &crate::common::options()).unwrap();
    let engine = Engine::open(&target, crate::common::options()).unwrap();
    assert_eq!(content(&engine), expected);
    engine.close().unwrap();
    pin.release().unwrap();
    let done = world.truncate(Until::Latest).unwrap();
    assert!(done.pending.is_empty(), "{done:?}");
    assert!(world.objects().len() < before.len());
}

/// All is there but what HEAD speaks of as a load.
#[test]
fn a_replica_without_the_files_of_a_load_is_told_before_anything_begins() {
    let world = history();
    let objects = world.objects();
    let loads = world.head().migrations.merged().unwrap();
    let lists: Vec<_> = loads
        .entries
        .values()
        .filter_map(|entry| match &entry.body {
            Body::Ingested(body) => Some(body.list.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(lists.len(), 3);
    let request = restore::Request {
        moment: Moment::Latest,
        timeline: None,
        replace: false,
        no_pin: false,
        replica: true,
        compaction: None,
    };
    let list = GroupReference::from_bytes(&world.archive.get_verified(&lists[1], 1 << 20).unwrap()).unwrap();
    for missing in [&lists[1].name, &list.files[0].object.name] {
        let bytes = world.archive.get(missing, 1 << 20).unwrap().bytes;
        world.archive.delete(missing).unwrap();
        let error = restore::preview(&world.archive, &request, &crate::common::options()).unwrap_err();
        let named = error.source().and_then(|source| source.downcast_ref::<NotArrived>()).unwrap();
        assert_eq!(named.object, missing.as_str());
        world.archive.put(missing, bytes).unwrap();
    }
    restore::preview(&world.archive, &request, &crate::common::options()).unwrap();
    assert_eq!(world.objects(), objects, "something was written");
}
