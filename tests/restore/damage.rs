//! Damaged archives: an error that says so, and never wrong content.

use crate::common::figures::{Figures, scale};
use crate::common::options;
use crate::history::history;
use crate::source::{Source, State};
use crate::source::{all_of, forged, request};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::log_backup::names;
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::{Engine, ErrorKind, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A small archive, with two timelines and a load.
fn small() -> Source {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 2;
    source.put("/a", "1");
    source.ingest([(b"/b".to_vec(), b"2".to_vec())].into());
    source.clock.advance(1);
    source.convert(Arc::new(Hierarchical));
    source.put("/c", "3");
    source.put("/a", "4");
    source.put("/d", "5");
    source.ship(None);
    source
}

fn files(path: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() { files(&entry.path(), out) } else { out.push(entry.path()) }
    }
}

fn objects(source: &Source) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&source.directory.path().join("archive"), &mut found);
    found.retain(|path| !path.to_str().unwrap().contains("/pins/"));
    found.sort();
    found
}

/// Restores; whether it came through, with the right content then. An error has a kind that says what is wrong.
fn attempt(source: &Source, expected: &State, what: &str) -> bool {
    let target = source.directory.path().join("target");
    let request = Request { no_pin: true, ..request(Moment::Time(expected.time)) };
    let done = restore::run(&target, &source.archive, &request, &options());
    let through = done.is_ok();
    match done {
        Ok(_) => {
            let (content, internal) = all_of(&target);
            assert!(content == expected.content && internal == expected.internal, "{what}: wrong content");
            Engine::destroy(&target, Options::new()).unwrap();
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::NotFound, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
            assert!(!target.exists(), "{what}");
        }
    }
    restore::abort(&target, &Options::new()).unwrap();
    through
}

#[test]
fn every_object_truncated_and_flipped_at_every_position() {
    let figures = Figures::new("restore-damage");
    let source = small();
    let expected = source.states.last().unwrap().clone();
    assert!(attempt(&source, &expected, "undamaged"));
    let (mut attempts, mut through) = (0, 0);
    let objects = objects(&source);
    let mut read = segments(&source, &expected);
    read.push(source.directory.path().join("archive").join(names::head().as_str()));
    for path in &objects {
        let good = std::fs::read(path).unwrap();
        // All but segments have one checksum over the whole, so one position is as good as another.
        let segment = path.to_str().unwrap().contains("/log/") && read.contains(path);
        let step = if segment { scale(3, 1) } else { 1 + good.len() / scale(40, 1000) };
        for at in (0..good.len()).step_by(step) {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            for (what, bytes) in [("flipped", &flipped[..]), ("truncated", &good[..at])] {
                std::fs::write(path, bytes).unwrap();
                let what = format!("{} {what} at {at}", path.display());
                attempts += 1;
                if attempt(&source, &expected, &what) {
                    // Only what the restore does not read may be damaged.
                    assert!(!read.contains(path), "{what}: it was not seen");
                    through += 1;
                }
            }
        }
        std::fs::write(path, &good).unwrap();
    }
    assert!(attempt(&source, &expected, "mended"));
    figures.with("objects", objects.len()).with("damaged", attempts).with("not read", through).with("wrong", 0).print();
}

/// The segments that a restore to the end of the history reads, in order.
fn segments(source: &Source, expected: &State) -> Vec<PathBuf> {
    let request = Request { no_pin: true, ..request(Moment::Time(expected.time)) };
    let plan = restore::preview(&source.archive, &request, &options()).unwrap();
    let numbers = plan.legs.iter().flat_map(|leg| (leg.first_segment..leg.end_segment).map(|n| (leg.timeline, n)));
    let names = numbers.map(|(timeline, number)| names::segment(timeline, number).unwrap());
    names.map(|name| source.directory.path().join("archive").join(name.as_str())).collect()
}

#[test]
fn segments_that_are_missing_or_exchanged_are_seen() {
    for seed in 0..6 {
        let (source, _) = history(1000 + seed, 40);
        let expected = source.states.last().unwrap().clone();
        let plan = segments(&source, &expected);
        for (index, path) in plan.iter().enumerate() {
            let good = std::fs::read(path).unwrap();
            std::fs::remove_file(path).unwrap();
            assert!(!attempt(&source, &expected, &format!("seed {seed}: {index} is missing")));
            let other = std::fs::read(&plan[(index + 1) % plan.len()]).unwrap_or_default();
            if plan.len() > 1 {
                std::fs::write(path, other).unwrap();
                assert!(!attempt(&source, &expected, &format!("seed {seed}: {index} is another")));
            }
            std::fs::write(path, good).unwrap();
        }
        assert!(attempt(&source, &expected, "mended"));
    }
}

/// The end of a timeline that others go on from is known: a hole before it is never taken for the end.
#[test]
fn a_segment_that_is_missing_in_an_ancestor_is_seen_wherever_the_search_looks() {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 2;
    for number in 0..40 {
        source.put(&format!("/key/{number}"), "1");
    }
    source.ship(None);
    source.clock.advance(1);
    source.convert(Arc::new(Hierarchical));
    source.put("/after", "2");
    source.ship(None);
    let expected = source.states[30].clone();
    let plan = segments(&source, &expected);
    assert!(plan.len() > 10 && attempt(&source, &expected, "undamaged"));
    for (index, path) in plan.iter().enumerate() {
        let good = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(!attempt(&source, &expected, &format!("{index} is missing")));
        std::fs::write(path, good).unwrap();
    }
}

#[test]
fn a_damaged_state_of_a_restore_is_an_error_and_keeps_the_place_closed() {
    let source = small();
    let expected = source.states.last().unwrap().clone();
    let target = source.directory.path().join("target");
    let folder = target.with_extension("restore");
    restore::start(&target, &source.archive, &request(Moment::Latest), &options()).unwrap();
    for name in ["STATUS", "SPEC", "PLAN"] {
        let path = folder.join(name);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            for bytes in [&flipped[..], &good[..at]] {
                std::fs::write(&path, bytes).unwrap();
                let error = restore::status(&target, &options()).unwrap_err();
                assert!([ErrorKind::Corrupt, ErrorKind::Unsupported].contains(&error.kind()), "{name} {at}: {error:?}");
                let error = restore::go_on(&target, &source.archive, &options()).unwrap_err();
                assert!([ErrorKind::Corrupt, ErrorKind::Unsupported].contains(&error.kind()), "{name} {at}: {error:?}");
                let opened = Engine::open(&target, options().create_if_missing(true)).unwrap_err();
                assert_eq!(opened.kind(), ErrorKind::Refused, "{name} {at}");
            }
        }
        std::fs::write(&path, &good).unwrap();
    }
    restore::go_on(&target, &source.archive, &options()).unwrap();
    assert!(all_of(&target).0 == expected.content);
}

/// Exchanged after the restore was planned. Nothing but the chain of hashes tells of it.
#[test]
fn a_segment_of_another_history_is_seen() {
    let mut exchanged = 0;
    for seed in 0..3 {
        let (source, _) = history(1000 + seed, 40);
        let expected = source.states.last().unwrap().clone();
        let target = source.directory.path().join("target");
        for (index, path) in segments(&source, &expected).iter().enumerate() {
            let good = std::fs::read(path).unwrap();
            let Some(other) = forged(&good) else { continue };
            let what = format!("seed {seed}: segment {index} of the plan");
            restore::start(&target, &source.archive, &request(Moment::Time(expected.time)), &options()).unwrap();
            std::fs::write(path, other).unwrap();
            let error = restore::go_on(&target, &source.archive, &options()).map(drop).expect_err(&what);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
            std::fs::write(path, good).unwrap();
            restore::abort(&target, &options()).unwrap();
            exchanged += 1;
        }
    }
    assert!(exchanged > 10, "{exchanged}");
}
