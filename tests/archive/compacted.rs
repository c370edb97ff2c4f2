//! A compaction of the log, and what truncation and fsck make of it.

use crate::common::{content, scratch};
use crate::world::{World, at_once};
use morphkv::log_backup::compact::{Report, Request, State, compact};
use morphkv::log_backup::fsck::{ORPHAN_AGE, fsck};
use morphkv::log_backup::names::{self, COMPACTIONS, Kind};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::truncate::truncate;
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;

fn shard(world: &World, name: &str, shard: u32, shards: u32) -> Report {
    let scratch = scratch();
    let (until, scratch) = (Until::Latest, scratch.path().to_owned());
    let request = Request { name: name.into(), shard, shards, until, scratch, part_bytes: 1 << 20 };
    compact(&world.archive, &request, &crate::common::options()).unwrap()
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
