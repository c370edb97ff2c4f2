//! `needed` against brute force: random archives with every kind of history are truncated at a random moment. Every moment
//! from the base on is planned and restored as before; nothing stands that no such moment needs; the database goes on.

use crate::common::figures::{Figures, scale};
use crate::world::{Random, World};
use morphkv::ErrorKind;
use morphkv::log_backup::commit::commit;
use morphkv::log_backup::group::{GROUP_BYTES_MAX, GroupReference};
use morphkv::log_backup::head::Head;
use morphkv::log_backup::migration::{Body, CompactionBody, Key};
use morphkv::log_backup::names::{ContentHash, ObjectReference};
use morphkv::log_backup::needed::Until;
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
    let step = world.times.len().div_ceil(40);
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
    let histories = scale(24, 400);
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

/// Nothing makes compactions of the log yet, but what HEAD says of one is doomed and kept like everything else.
#[test]
fn a_compaction_is_needed_as_long_as_it_ends_after_the_base() {
    let mut world = World::new();
    world.put(12);
    world.snapshot();
    world.put(12);
    world.ship();
    let newest = world.plan(None, Moment::Latest).unwrap();
    let (timeline, next) = (newest.timeline, newest.snapshot.next_segment);
    let name = |number: u128| morphkv::log_backup::names::data(ContentHash(number), Uuid::from_u128(number));
    let compaction = |number: u128, first_segment: u64, end_segment: u64| {
        world.archive.put_create(&name(number), number.to_string()).unwrap();
        let result =
            ObjectReference { name: name(number), size: 1, hash: ContentHash::of(number.to_string().as_bytes()) };
        let body =
            CompactionBody { name: "test".into(), result, timeline, first_segment, end_segment, end_sequence: 1 };
        (Key::Compaction(Uuid::from_u128(number)), Body::Compaction(body))
    };
    let all =
        [compaction(1, 0, next - 1), compaction(2, 0, next), compaction(3, 0, next + 1), compaction(4, next, next + 2)];
    commit(&world.archive, |head| {
        let mut head = head.clone();
        head.migrations.append(all.clone())?;
        Ok(head)
    })
    .unwrap();
    world.truncate(Until::Latest).unwrap();
    let live = world.head().migrations.merged().unwrap();
    let left: Vec<_> = all.iter().map(|(key, _)| live.entries.contains_key(key)).collect();
    assert_eq!(left, [false, false, true, true]);
    let stands: Vec<_> = (1..=4).map(|number| world.objects().contains_key(&name(number))).collect();
    assert_eq!(stands, left);
}
