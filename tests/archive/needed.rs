//! `needed` against brute force: random archives with every kind of history are truncated at a random moment. Every moment
//! from the base on is planned and restored as before; nothing stands that no such moment needs; the database goes on.

use crate::common::figures::{Figures, scale};
use crate::world::{Random, World};
use morphkv::ErrorKind;
use morphkv::encoding::{EncodingId, Natural};
use morphkv::log_backup::group::{GROUP_BYTES_MAX, GroupReference};
use morphkv::log_backup::head::{Cause, Head, LogPosition, Parent, Timeline};
use morphkv::log_backup::migration::{Body, CompactionBody, IngestedBody, Key, SnapshotBody};
use morphkv::log_backup::names::{self, ContentHash, ObjectReference};
use morphkv::log_backup::needed::{Extent, Until, doomed, needed};
use morphkv::log_backup::overview;
use morphkv::log_backup::snapshot_transfer::read_manifest;
use morphkv::log_backup::tail;
use morphkv::log_backup::truncate::{KeptBase, TruncateOptions, truncate};
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use morphkv::restore::plan::{Plan, Unreachable};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::time::Duration;
use uuid::Uuid;

type Place = (Uuid, u64);

/// A history of the database, shipped to its end.
pub fn history(seed: u64, steps: usize) -> (World, Random) {
    let (mut world, mut random) = (World::new(), Random::new(seed));
    for _ in 0..steps {
        world.step(&mut random);
    }
    world.ship();
    (world, random)
}

/// Some of the times when something was written, and of when there are base snapshots.
fn times(world: &World) -> BTreeSet<u64> {
    let live = world.head().migrations.merged().unwrap();
    let bases = live.entries.values().filter_map(|entry| match &entry.body {
        Body::Snapshot(body) => Some(body.time),
        _ => None,
    });
    let step = world.times.len().div_ceil(30);
    world.times.iter().copied().step_by(step).chain(bases).collect()
}

/// The plans of every time on every timeline; `None` where it cannot be reached.
fn plans(world: &World, times: &BTreeSet<u64>) -> BTreeMap<Place, Option<Plan>> {
    let mut plans = BTreeMap::new();
    for timeline in world.head().timelines {
        for time in times {
            let planned = world.plan(Some(timeline.id), Moment::Time(*time));
            if let Err(error) = &planned {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                assert!(error.source().unwrap().downcast_ref::<Unreachable>().is_some(), "{error:?}");
            }
            // Of which HEAD it was made, and where a gap ends that can be reached, is not compared.
            plans.insert(
                (timeline.id, *time),
                planned.ok().map(|plan| Plan { generation: 0, gaps: Vec::new(), ..plan }),
            );
        }
    }
    plans
}

struct Tally {
    kept: usize,
    /// Of those, on timelines that the current one does not go on from.
    on_branches: usize,
    refused: usize,
    restored: usize,
    deleted: u64,
}

/// The segments, manifests and files that plans read.
struct Read {
    segments: BTreeMap<Uuid, BTreeSet<u64>>,
    snapshots: BTreeSet<Uuid>,
}

fn read(plans: &BTreeMap<Place, Option<Plan>>) -> Read {
    let mut read = Read { segments: BTreeMap::new(), snapshots: BTreeSet::new() };
    for plan in plans.values().flatten() {
        read.snapshots.insert(plan.base);
        for leg in &plan.legs {
            read.segments.entry(leg.timeline).or_default().extend(leg.first_segment..leg.end_segment);
        }
    }
    read
}

/// Everything that stands is read by some plan, is newer than what plans of the sampled moments read, or is what the
/// database needs to go on.
fn assert_minimal(world: &World, base: &KeptBase, plans: &BTreeMap<Place, Option<Plan>>, what: &str) {
    let (read, head, objects) = (read(plans), world.head(), world.objects());
    let live = head.migrations.merged().unwrap();
    let mut standing: BTreeMap<Uuid, BTreeSet<u64>> = BTreeMap::new();
    let mut listed = BTreeSet::new();
    for name in objects.keys() {
        let parts: Vec<_> = name.as_str().split('/').collect();
        match parts[1] {
            "log" => drop(standing.entry(parts[2].parse().unwrap()).or_default().insert(parts[4].parse().unwrap())),
            "data" | "snapshots" => drop(listed.insert(name.clone())),
            _ => panic!("{what}: {name} stands"),
        }
    }
    for (timeline, numbers) in &standing {
        let last = *numbers.last().unwrap();
        let first_read = read.segments.get(timeline).and_then(|read| read.first().copied()).unwrap_or(last);
        let resume = if *timeline == head.current { resume(world, *timeline, &head) } else { last };
        let first = *numbers.first().unwrap();
        assert!(first >= first_read.min(resume), "{what}: {timeline}: {first} stands, {first_read} is read");
        assert_eq!(numbers.len() as u64, last + 1 - first, "{what}: {timeline} has holes");
    }
    for (timeline, numbers) in &read.segments {
        for number in numbers {
            assert!(
                standing.get(timeline).is_some_and(|all| all.contains(number)),
                "{what}: {timeline} {number} is gone"
            );
        }
    }
    for (key, entry) in &live.entries {
        match (key, &entry.body) {
            (Key::Snapshot(id), Body::Snapshot(body)) => {
                let newer = body.time >= base.time;
                assert!(read.snapshots.contains(id) || newer, "{what}: {key} is not needed");
                assert!(listed.remove(&body.manifest.name), "{what}: {key} is gone");
            }
            (_, Body::Ingested(body)) => {
                let from =
                    plans.values().flatten().filter(|plan| plan.legs.iter().any(|leg| leg.timeline == body.timeline));
                let from =
                    from.map(|plan| if plan.snapshot.timeline == body.timeline { plan.snapshot.sequence } else { 0 });
                let first = from.min();
                assert!(first.is_some_and(|first| body.sequence >= first), "{what}: {key} is not needed");
                assert!(listed.remove(&body.list.name), "{what}: {key} is gone");
            }
            _ => panic!("{what}: {key} is left over"),
        }
    }
    for entry in live.entries.values() {
        let files: Vec<_> = match &entry.body {
            Body::Snapshot(body) => read_manifest(&world.archive, &body.manifest)
                .unwrap()
                .files
                .into_iter()
                .map(|file| file.object)
                .collect(),
            Body::Ingested(body) => {
                let bytes = world.archive.get_verified(&body.list, GROUP_BYTES_MAX as u64).unwrap();
                GroupReference::from_bytes(&bytes).unwrap().files.into_iter().map(|file| file.object).collect()
            }
            _ => Vec::new(),
        };
        for file in files {
            assert!(objects.contains_key(&file.name), "{what}: {} is gone", file.name);
            listed.remove(&file.name);
        }
    }
    assert!(listed.is_empty(), "{what}: {listed:?} is not needed");
}

/// The segment with the last write.
fn resume(world: &World, timeline: Uuid, head: &Head) -> u64 {
    let floor = head.migrations.merged().unwrap().floors.get(&timeline).copied().unwrap_or(0);
    let last = tail::last_number(&world.archive, timeline, floor).unwrap().unwrap();
    let sequence = tail::ends(&world.archive, timeline, last).unwrap().trailer.last_sequence;
    tail::holding(&world.archive, timeline, floor, last, sequence).unwrap().unwrap_or(last)
}

/// One truncation, and all that must hold after it.
fn truncated(world: &mut World, random: &mut Random, until: u64, what: &str, tally: &mut Tally) {
    let times = times(world);
    let (before, standing) = (plans(world, &times), world.objects());
    let dry = TruncateOptions { grace: Duration::ZERO, dry_run: true };
    let told = truncate(&world.archive, Until::Time(until), dry).unwrap();
    assert_eq!(world.objects(), standing, "{what}: a dry run has changed something");
    let Some(base) = told.base.clone() else {
        assert_eq!(world.truncate(Until::Time(until)).unwrap().base, None);
        assert_eq!(world.objects(), standing, "{what}: there is no base, and something was deleted");
        return;
    };
    assert!(base.time <= until);
    // Some of the moments that stay, each from a random timeline.
    let reachable: Vec<_> = before.iter().filter(|((_, time), plan)| *time >= base.time && plan.is_some()).collect();
    let chosen: Vec<Place> = (0..4).map(|_| *reachable[random.below(reachable.len())].0).collect();
    let restored = |world: &World| -> Vec<_> {
        let one = |(timeline, time): &Place| world.restored(Some(*timeline), Moment::Time(*time)).unwrap();
        chosen.iter().map(one).collect()
    };
    let contents = restored(world);
    let done = world.truncate(Until::Time(until)).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!((done.base.as_ref(), &done.pending, &done.damaged), (Some(&base), &vec![], &vec![]), "{what}");
    let left = world.objects();
    let gone: Vec<String> = standing.keys().filter(|name| !left.contains_key(*name)).map(ToString::to_string).collect();
    let mut would: Vec<String> = told.would_delete.iter().map(|object| object.object.clone()).collect();
    would.sort();
    assert_eq!(gone, would, "{what}: what was told is not what was done");
    assert_eq!((done.doomed_objects, done.deleted_objects), (gone.len() as u64, gone.len() as u64), "{what}");
    let bytes: u64 = standing.iter().filter(|(name, _)| !left.contains_key(*name)).map(|(_, size)| size).sum();
    assert_eq!((told.doomed_bytes, done.doomed_bytes), (bytes, bytes), "{what}");
    tally.deleted += done.deleted_objects;

    let after = plans(world, &times);
    let head = world.head();
    let line: Vec<Uuid> = head.ancestry(head.current).unwrap().iter().map(|timeline| timeline.id).collect();
    for (place, plan) in &before {
        let (timeline, time) = place;
        let now = &after[place];
        if *time >= base.time {
            assert_eq!(now, plan, "{what}: {timeline} at {time}");
            tally.kept += usize::from(plan.is_some());
            tally.on_branches += usize::from(plan.is_some() && line.iter().all(|member| member != timeline));
        } else if let Some(now) = now {
            assert_eq!(Some(now), plan.as_ref(), "{what}: {timeline} at {time}");
        } else {
            tally.refused += usize::from(plan.is_some());
        }
    }
    assert!(restored(world) == contents, "{what}: another content comes back");
    tally.restored += contents.len();
    assert_minimal(world, &base, &after, what);
    assert_eq!(verify(&world.archive).unwrap().faults, [], "{what}");
    overview::archive(&world.archive).unwrap();
    let again = world.truncate(Until::Time(until)).unwrap();
    assert_eq!((again.doomed_objects, again.base), (0, Some(base)), "{what}: twice is once");
    world.assert_goes_on();
}

#[test]
fn what_a_truncation_leaves_is_what_every_later_moment_needs() {
    let figures = Figures::new("truncations");
    let histories = scale(16, 400);
    let half = |parity: u64| {
        let mut tally = Tally { kept: 0, on_branches: 0, refused: 0, restored: 0, deleted: 0 };
        for seed in (0..histories).filter(|seed| seed % 2 == parity) {
            let (mut world, mut random) = history(seed, 30);
            for round in 0..3 {
                let at = world.times.len() * (3 + round * 3) / 10 + random.below(world.times.len() / 10);
                let until = world.times[at];
                let what = format!("seed {seed}, round {round}, until {until}");
                truncated(&mut world, &mut random, until, &what, &mut tally);
            }
        }
        tally
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        (half(0), other.join().unwrap())
    });
    let (kept, refused) = (a.kept + b.kept, a.refused + b.refused);
    figures
        .with("histories", histories)
        .with("truncations", histories * 3)
        .with("moments planned as before", kept)
        .with("of these on other branches", a.on_branches + b.on_branches)
        .with("moments refused since", refused)
        .with("restored and compared", a.restored + b.restored)
        .with("objects deleted", a.deleted + b.deleted)
        .print();
    assert!(kept > 1000 && refused > 1000 && a.on_branches + b.on_branches > 100, "{kept} {refused}");
}

#[test]
fn a_compaction_is_needed_as_long_as_it_ends_after_the_base() {
    let mut world = World::new();
    world.put(12);
    world.snapshot();
    let newest = world.plan(None, Moment::Latest).unwrap();
    let (timeline, next) = (newest.timeline, newest.snapshot.next_segment);
    let compaction = |number: u128, first_segment: u64, end_segment: u64| {
        let name = names::data(ContentHash(number), Uuid::from_u128(number));
        let result = ObjectReference { name, size: 1, hash: ContentHash(number) };
        let body =
            CompactionBody { name: "test".into(), result, timeline, first_segment, end_segment, end_sequence: 1 };
        (Key::Compaction(Uuid::from_u128(number)), Body::Compaction(body))
    };
    let all =
        [compaction(1, 0, next - 1), compaction(2, 0, next), compaction(3, 0, next + 1), compaction(4, next, next + 2)];
    let mut head = world.head();
    head.migrations.append(all.clone()).unwrap();
    let live = head.migrations.merged().unwrap();
    let extent = Extent { first: 0, end: next + 2, resume: next + 1, resolved: u64::MAX };
    let found = needed(&head, &live, &BTreeMap::from([(timeline, extent)]), Until::Latest).unwrap().unwrap();
    assert_eq!(all.map(|(key, _)| found.keys.contains(&key)), [false, false, true, true]);
}

/// Timeline 1 with bases before segments 1 and 5; timeline 2 was restored from the middle of segment 3 of it.
fn restored_from_the_middle(bases_of_the_second: &[(u64, u64)]) -> (Head, BTreeMap<Uuid, Extent>) {
    let id = Uuid::from_u128;
    let encoding = EncodingId::of(&Natural);
    let first = Timeline { id: id(1), parent: None, encoding: encoding.clone(), cause: Cause::Init };
    let end = LogPosition { segment: 3, sequence: 35, time: 35 };
    let parent = Some(Parent { timeline: id(1), end });
    let mut head = Head::new(id(99), first, id(98));
    head.begin_timeline(Timeline { id: id(2), parent, encoding, cause: Cause::Restore }).unwrap();
    let mut snapshot = |number: u128, timeline: u128, next_segment: u64, time: u64| {
        let manifest = ObjectReference { name: names::snapshot(id(number), id(1)), size: 1, hash: ContentHash(number) };
        let (timeline, sequence) = (id(timeline), next_segment * 10);
        let body = SnapshotBody { manifest, timeline, sequence, time, next_segment };
        head.migrations.append([(Key::Snapshot(id(number)), Body::Snapshot(body))]).unwrap();
    };
    snapshot(11, 1, 1, 10);
    snapshot(15, 1, 5, 50);
    for (next_segment, time) in bases_of_the_second {
        snapshot(20 + u128::from(*next_segment), 2, *next_segment, *time);
    }
    let extent = |end, resolved| Extent { first: 0, end, resume: end - 1, resolved };
    (head, BTreeMap::from([(id(1), extent(9, 90)), (id(2), extent(7, 170))]))
}

#[test]
fn a_base_after_the_place_that_a_timeline_goes_on_from_is_none_of_its_bases() {
    let id = Uuid::from_u128;
    let kept = |bases: &[(u64, u64)], until| {
        let (head, extents) = restored_from_the_middle(bases);
        let live = head.migrations.merged().unwrap();
        let needed = needed(&head, &live, &extents, until).unwrap().unwrap();
        let gone = doomed(&head, &live, &extents, &needed);
        (needed.id, needed.timelines.iter().map(|(id, kept)| (id.as_u128(), kept.segment)).collect::<Vec<_>>(), gone)
    };
    // Its own base is the one before segment 1; the other timeline's later moments need nothing else.
    for until in [Until::Latest, Until::Time(1000), Until::Time(60), Until::Sequence { timeline: id(1), sequence: 34 }]
    {
        let (base, timelines, gone) = kept(&[], until);
        assert_eq!((base, timelines.as_slice()), (id(11), &[(1, 1), (2, 0)][..]), "{until:?}");
        assert_eq!((gone.keys.len(), gone.segments.len(), gone.floors), (0, 1, BTreeMap::from([(id(1), 1)])));
    }
    // The horizon is on the second one, at 80: of the first, which reaches it, the base at 50 serves.
    let (base, timelines, gone) = kept(&[(2, 80)], Until::Latest);
    assert_eq!((base, timelines.as_slice()), (id(22), &[(1, 5), (2, 2)][..]));
    assert_eq!(gone.keys, BTreeSet::from([Key::Snapshot(id(11))]));
    // At 95 it has passed the end of the first one.
    let (base, timelines, gone) = kept(&[(2, 80), (3, 95)], Until::Latest);
    assert_eq!((base, timelines.as_slice()), (id(23), &[(2, 3)][..]));
    assert_eq!(gone.floors, BTreeMap::from([(id(1), 9), (id(2), 3)]));
    let (head, extents) = restored_from_the_middle(&[]);
    let live = head.migrations.merged().unwrap();
    assert_eq!(needed(&head, &live, &extents, Until::Time(9)).unwrap(), None);
}

/// Its frame comes after the number that it is known by.
#[test]
fn a_bulk_load_right_behind_the_base_is_needed() {
    let mut world = World::new();
    world.put(12);
    world.snapshot();
    let newest = world.plan(None, Moment::Latest).unwrap();
    let (timeline, next) = (newest.timeline, newest.snapshot.next_segment);
    let load = |number: u128, sequence: u64| {
        let name = names::data(ContentHash(number), Uuid::from_u128(number));
        let list = ObjectReference { name, size: 1, hash: ContentHash(number) };
        (Key::Ingested(Uuid::from_u128(number)), Body::Ingested(IngestedBody { list, timeline, sequence }))
    };
    let base = newest.snapshot.sequence;
    let all = [load(1, base - 1), load(2, base), load(3, base + 1)];
    let mut head = world.head();
    head.migrations.append(all.clone()).unwrap();
    let live = head.migrations.merged().unwrap();
    let extent = Extent { first: 0, end: next + 2, resume: next + 1, resolved: u64::MAX };
    let found = needed(&head, &live, &BTreeMap::from([(timeline, extent)]), Until::Latest).unwrap().unwrap();
    assert_eq!(all.map(|(key, _)| found.keys.contains(&key)), [false, true, true]);
}
