//! Compactions and the restores that use them: what comes out is what the log itself gives.

use crate::common::figures::{Figures, scale};
use crate::common::{Content, options, scratch};
use crate::history::{Random, history};
use crate::source::{Source, State, check};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::log_backup::commit::load;
use morphkv::log_backup::compact::{Report, Request, State as Progress, Until, compact};
use morphkv::log_backup::migration::{Body, CompactionBody};
use morphkv::log_backup::{names, verify};
use morphkv::restore::folder::Found;
use morphkv::restore::moment::Moment;
use morphkv::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn request(name: &str, shard: u32, shards: u32, scratch: &Path) -> Request {
    let (name, scratch) = (name.to_owned(), scratch.to_owned());
    Request { name, shard, shards, until: Until::Latest, scratch, part_bytes: 600, stretch_segments: 2 }
}

pub fn work(source: &Source, request: Request) -> Result<Report> {
    compact(&source.archive, &request, &options())
}

/// All shards, one after the other; the last report.
pub fn compact_all(source: &Source, name: &str, shards: u32, until: Until) -> Result<Report> {
    let directory = scratch();
    let mut last = None;
    // Many parts, or one.
    let part_bytes = if shards.is_multiple_of(2) { 600 } else { 1 << 20 };
    // One stretch, or as many as there can be.
    let stretch_segments = if shards % 3 == 1 { u64::MAX } else { 1 };
    for shard in 1..=shards {
        let report = work(
            source,
            Request { until, part_bytes, stretch_segments, ..request(name, shard, shards, directory.path()) },
        )?;
        let ended = shard == shards;
        assert_eq!(report.state == Progress::Running, !ended, "{report:?}");
        assert_eq!(report.failure, None);
        last = Some(report);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files stay behind");
    Ok(last.unwrap())
}

pub fn compactions(source: &Source) -> Vec<CompactionBody> {
    let live = load(&source.archive).unwrap().head.migrations.merged().unwrap();
    let bodies = live.entries.values().filter_map(|entry| match &entry.body {
        Body::Compaction(body) => Some(body.clone()),
        _ => None,
    });
    bodies.collect()
}

fn segments_of_runs(found: &Found) -> u64 {
    found.plan.runs().map(|run| run.body.end_segment - run.body.first_segment).sum()
}

/// Random compactions of a history, before it ends and after; then restores to random moments.
fn moments_of(seed: u64, moments: usize) -> [u64; 5] {
    let (source, mut random) = history(seed, 70);
    let (mut made, mut parts) = (0, 0);
    for number in 0..1 + random.below(4) {
        let state = &source.states[random.below(source.states.len())];
        let until = match random.below(4) {
            0 => Until::Latest,
            1 => Until::Sequence { timeline: source.timeline, sequence: state.sequence },
            _ => Until::Time(state.time),
        };
        match compact_all(&source, &format!("compaction-{number}"), 1 + random.below(5) as u32, until) {
            Ok(report) => {
                assert_eq!(report.state, Progress::Complete, "seed {seed}: {report:?}");
                (made, parts) = (made + 1, parts + report.parts);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "seed {seed}: {error:?}"),
        }
    }
    assert_eq!(compactions(&source).len() as u64, made);
    assert_eq!(verify::verify(&source.archive).unwrap().faults, [], "seed {seed}");
    let (mut with, mut segments) = (0, 0);
    for number in 0..moments {
        let state = &source.states[random.below(source.states.len())];
        let (moment, expected) = match random.below(4) {
            0 => (Moment::Latest, source.states.last().unwrap()),
            _ => (Moment::Time(state.time), source.at(state.time)),
        };
        let found = check(&source, moment, options(), expected, &format!("seed {seed}, number {number}"));
        assert_eq!(found.status.left_out, [], "seed {seed}");
        with += u64::from(found.plan.runs().next().is_some());
        segments += segments_of_runs(&found);
    }
    [made, parts, moments as u64, with, segments]
}

#[test]
fn restores_with_compactions_are_those_of_the_model() {
    let figures = Figures::new("compacted-restores");
    let (histories, moments) = (scale(24, 240), 6);
    let half = |parity: u64| {
        let seeds = (0..histories).filter(|seed| seed % 2 == parity);
        seeds
            .map(|seed| moments_of(8000 + seed, moments))
            .fold([0; 5], |sum, one| std::array::from_fn(|at| sum[at] + one[at]))
    };
    let sums = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let (own, other) = (half(0), other.join().unwrap());
        std::array::from_fn::<u64, 5, _>(|at| own[at] + other[at])
    });
    let [made, parts, restores, with, segments] = sums;
    figures
        .with("histories", histories)
        .with("compactions", made)
        .with("parts of their last shards", parts)
        .with("restores compared", restores)
        .with("with a compaction", with)
        .with("segments not gone through", segments)
        .with("wrong", 0)
        .print();
    assert!(made > histories && with > restores / 4 && segments > with, "{sums:?}");
}

/// Few keys, and everything that can be done to them, over and over: what comes last counts, and what came before it must not.
fn dense(seed: u64, steps: usize) -> (Source, Random) {
    let mut random = Random::new(seed);
    let mut source = Source::new(if seed.is_multiple_of(2) { Arc::new(Natural) } else { Arc::new(Hierarchical) });
    source.frames = 1 + random.below(5) as u32;
    let keys: Vec<String> = (0..7).map(|number| format!("/{number}")).collect();
    for step in 0..steps {
        let key = keys[random.below(keys.len())].clone();
        match random.below(9) {
            0 | 1 => {
                let loaded = keys.iter().filter(|_| random.below(3) > 0).map(|key| key.clone().into_bytes());
                let mut loaded: Content = loaded.map(|key| (key, format!("loaded {step}").into_bytes())).collect();
                loaded.insert(key.into_bytes(), b"loaded".to_vec());
                source.ingest(loaded);
            }
            2 => {
                let (from, to) = (&keys[random.below(3)], &keys[3 + random.below(4)]);
                source.engine().delete_range(from.as_str()..to.as_str()).unwrap();
                source.remove_range(from.as_bytes(), to.as_bytes());
                source.note();
            }
            3 | 4 => {
                source.engine().delete(&key).unwrap();
                source.content.remove(key.as_bytes());
                source.note();
            }
            5 => {
                let mut batch = source.engine().batch();
                batch.put_internal(&key, step.to_string());
                batch.commit().unwrap();
                source.internal.insert(key.into_bytes(), step.to_string().into_bytes());
                source.note();
            }
            _ => source.put(&key, &step.to_string()),
        }
        source.clock.advance(1);
    }
    source.ship(None);
    (source, random)
}

#[test]
fn what_comes_last_counts() {
    let figures = Figures::new("dense-compactions");
    let (mut restores, mut segments) = (0, 0);
    for seed in 0..scale(24, 400) {
        let (source, mut random) = dense(seed, 40);
        let until = Until::Time(source.states[20 + random.below(20)].time);
        compact_all(&source, "whole", 1 + random.below(4) as u32, until).unwrap();
        let body = &compactions(&source)[0];
        // At its end, and at some moments behind it.
        let inside: Vec<_> = source.states.iter().filter(|state| state.sequence >= body.end_sequence).collect();
        for number in 0..3 {
            let state = if number == 0 { inside[0] } else { inside[random.below(inside.len())] };
            let expected = source.at(state.time);
            let found = check(&source, Moment::Time(state.time), options(), expected, &format!("seed {seed}"));
            assert_eq!((found.plan.runs().count(), found.status.left_out.len()), (1, 0), "seed {seed}");
            (restores, segments) = (restores + 1, segments + segments_of_runs(&found));
        }
    }
    figures.with("restores compared", restores).with("segments not gone through", segments).with("wrong", 0).print();
}

/// A log of 12 segments or so after its base snapshot: puts that replace each other, ranges, a load.
pub fn small() -> Source {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 2;
    for round in 0..3 {
        for number in 0..5 {
            source.put(&format!("/key/{number}"), &format!("{round}"));
        }
        source.engine().delete_range("/key/1".."/key/3").unwrap();
        source.remove_range(b"/key/1", b"/key/3");
        let mut batch = source.engine().batch();
        batch.put_internal("offset", format!("{round}"));
        batch.delete("/key/4").unwrap();
        batch.commit().unwrap();
        source.internal.insert(b"offset".to_vec(), format!("{round}").into_bytes());
        source.content.remove(&b"/key/4"[..]);
        source.note();
        source.clock.advance(1);
        let loaded: Content =
            (2..6).map(|number| (format!("/key/{number}").into_bytes(), b"loaded".to_vec())).collect();
        if round == 1 {
            source.ingest(loaded);
            source.clock.advance(1);
        }
    }
    source.ship(None);
    source
}

fn latest(source: &Source) -> &State {
    source.states.last().unwrap()
}

#[test]
fn a_compaction_is_used_exactly_where_it_covers() {
    let mut source = small();
    let report = compact_all(&source, "one", 3, Until::Latest).unwrap();
    let whole = report.end_segment - report.first_segment;
    assert!(whole >= 8, "{report:?}");
    let found = check(&source, Moment::Latest, options(), latest(&source), "at its end");
    assert_eq!(segments_of_runs(&found), whole);
    // The last segment of it is cut.
    let before = source.states[source.states.len() - 2].clone();
    let found = check(&source, Moment::Time(before.time), options(), &before, "before its end");
    assert_eq!(segments_of_runs(&found), 0);
    source.put("/later", "1");
    source.ship(None);
    let found = check(&source, Moment::Latest, options(), latest(&source), "behind its end");
    assert_eq!(segments_of_runs(&found), whole);
    // A later base snapshot begins behind it.
    source.snapshot();
    source.put("/later", "2");
    source.ship(None);
    let found = check(&source, Moment::Latest, options(), latest(&source), "from a later base");
    assert_eq!(segments_of_runs(&found), 0);
    let report = compact_all(&source, "two", 1, Until::Latest).unwrap();
    assert!(report.first_segment >= found.plan.snapshot.next_segment);
    source.convert(Arc::new(Hierarchical));
    source.put("/later", "3");
    source.engine().delete_range("/key/".."/key//").unwrap();
    source.remove_range(b"/key/", b"/key//");
    source.note();
    source.ship(None);
    compact_all(&source, "three", 2, Until::Latest).unwrap();
    let found = check(&source, Moment::Latest, options(), latest(&source), "over a conversion");
    let used: Vec<_> = found.plan.runs().map(|run| run.body.name.as_str()).collect();
    assert_eq!(used, ["two", "three"]);
}

#[test]
fn there_are_empty_shards_and_a_name_is_used_once() {
    let source = small();
    let directory = scratch();
    let report = compact_all(&source, "many", 40, Until::Latest).unwrap();
    assert_eq!(report.state, Progress::Complete);
    let found = check(&source, Moment::Latest, options(), latest(&source), "many shards");
    assert!(segments_of_runs(&found) > 0);
    let again = work(&source, request("many", 7, 40, directory.path())).unwrap();
    assert!(again.was_done && again.state == Progress::Complete, "{again:?}");
    assert_eq!(compactions(&source).len(), 1);
    let other = work(&source, request("many", 7, 41, directory.path())).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidArgument);
    for (name, shard, shards) in [("", 1, 1), ("a/b", 1, 1), ("..", 1, 1), ("x", 0, 1), ("x", 2, 1), ("x", 1, 0)] {
        let refused = work(&source, request(name, shard, shards, directory.path())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{name} {shard} {shards}");
    }
    let nothing = Request { until: Until::Time(1), ..request("early", 1, 1, directory.path()) };
    assert_eq!(work(&source, nothing).unwrap_err().kind(), ErrorKind::NotFound);
    let pins = source.directory.path().join("archive/v1/pins");
    assert_eq!(std::fs::read_dir(pins).map_or(0, Iterator::count), 0, "pins are left");
}

#[test]
fn workers_that_race_make_one_compaction() {
    let mut winners = 0;
    for round in 0..scale(6, 100) {
        let source = small();
        let shards = 1 + round % 5;
        let states: Vec<Progress> = std::thread::scope(|scope| {
            // Each shard is attempted twice.
            let workers = (1..=shards).chain(1..=shards).map(|shard| {
                let source = &source;
                scope.spawn(move || {
                    let directory = scratch();
                    let report = work(source, request("raced", shard, shards, directory.path())).unwrap();
                    assert_eq!(report.failure, None);
                    report.state
                })
            });
            let workers: Vec<_> = workers.collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        winners += states.iter().filter(|state| **state == Progress::Complete).count();
        let bodies = compactions(&source);
        assert!(states.contains(&Progress::Complete) && bodies.len() == 1, "{states:?}");
        let found = check(&source, Moment::Latest, options(), latest(&source), "raced");
        assert!(segments_of_runs(&found) > 0);
        // The slower of two attempts has thrown its files away: all that is there is referred to.
        let stored = files(&source.directory.path().join("archive/v1/compactions/raced/data"));
        let sound = verify::verify(&source.archive).unwrap();
        assert_eq!(sound.faults, []);
        let own = morphkv::log_backup::compaction::read(&source.archive, &bodies[0]).unwrap();
        let referred = own.runs.iter().flat_map(|run| run.own_objects()).count();
        assert_eq!(stored.len(), referred, "round {round}");
    }
    println!("workers that saw the end: {winners}");
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[test]
fn a_shard_that_cannot_be_read_fails_and_the_others_go_on() {
    let source = small();
    let directory = scratch();
    let last = work(&source, request("broken", 3, 3, directory.path())).unwrap();
    assert_eq!((last.state, &last.failure), (Progress::Running, &None));
    let damaged = names::segment(source.timeline, last.shard_first_segment - 1).unwrap();
    let path = source.directory.path().join("archive").join(damaged.as_str());
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    let second = work(&source, request("broken", 2, 3, directory.path())).unwrap();
    assert!(second.failure.as_ref().unwrap().starts_with("Corrupt: "), "{second:?}");
    assert_eq!(second.state, Progress::Running);
    let first = work(&source, request("broken", 1, 3, directory.path())).unwrap();
    assert_eq!((first.state, &first.failure), (Progress::Failed, &None));
    assert!(first.compaction_failure.unwrap().starts_with("shard 2 failed (Corrupt)"));
    assert!(compactions(&source).is_empty());
    // What has failed stays so; another name, once the segment is mended, comes through.
    std::fs::write(&path, good).unwrap();
    let again = work(&source, request("broken", 2, 3, directory.path())).unwrap();
    assert!(again.was_done && again.state == Progress::Failed && again.failure.is_some());
    let found = check(&source, Moment::Latest, options(), latest(&source), "with a failed compaction");
    assert_eq!(segments_of_runs(&found), 0);
    compact_all(&source, "mended", 3, Until::Latest).unwrap();
    let found = check(&source, Moment::Latest, options(), latest(&source), "with another one");
    assert!(segments_of_runs(&found) > 0);
}

/// Where objects are copied from another place a segment may come late.
#[test]
fn a_segment_that_is_not_there_yet_is_waited_for() {
    let source = small();
    let directory = scratch();
    let first = work(&source, request("late", 1, 2, directory.path())).unwrap();
    let late = names::segment(source.timeline, first.shard_end_segment + 1).unwrap();
    let path = source.directory.path().join("archive").join(late.as_str());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        let error = work(&source, request("late", 2, 2, directory.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(error.message().contains("repeat"), "{error:?}");
    }
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(work(&source, request("late", 2, 2, directory.path())).unwrap().state, Progress::Complete);
    let found = check(&source, Moment::Latest, options(), latest(&source), "late");
    assert!(segments_of_runs(&found) > 0);
}

/// Every object of a compaction, gone or damaged: verify finds it, and restores do without.
#[test]
fn a_damaged_compaction_is_found_and_never_fails_a_restore() {
    let figures = Figures::new("damaged-compactions");
    let source = small();
    compact_all(&source, "damaged", 3, Until::Latest).unwrap();
    let sound = verify::verify(&source.archive).unwrap();
    let objects = files(&source.directory.path().join("archive/v1/compactions/damaged"));
    let mut random = Random::new(3);
    let (mut damaged, mut used) = (0, 0);
    for path in &objects {
        let bytes = std::fs::read(path).unwrap();
        let mut flipped = bytes.clone();
        flipped[random.below(bytes.len())] ^= 1 << random.below(8);
        for wrong in [None, Some(flipped), Some(bytes[..bytes.len() - 1].to_vec()), Some([&bytes[..], b"x"].concat())] {
            damaged += 1;
            match &wrong {
                Some(wrong) => std::fs::write(path, wrong).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let what = format!("{}: {wrong:?}", path.display());
            let found = check(&source, Moment::Latest, options(), latest(&source), &what);
            let faults = verify::verify(&source.archive).unwrap().faults;
            // SPEC has done its work.
            let is_spec = path.ends_with("SPEC");
            used += usize::from(is_spec);
            assert_eq!((found.status.left_out.is_empty(), faults.is_empty()), (is_spec, is_spec), "{what}");
            if let Some(left_out) = found.status.left_out.first() {
                assert!(left_out.name == "damaged" && !left_out.reason.is_empty());
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(verify::verify(&source.archive).unwrap(), sound);
    assert_eq!(check(&source, Moment::Latest, options(), latest(&source), "mended").status.left_out, []);
    figures
        .with("objects", objects.len())
        .with("damaged", damaged)
        .with("used all the same", used)
        .with("wrong", 0)
        .print();
}
