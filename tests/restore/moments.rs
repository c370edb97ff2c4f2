//! Every moment that is restored to is the one of the model.

use crate::common::figures::{Figures, scale};
use crate::common::options;
use crate::history::{Random, history};
use crate::source::{Source, check, request};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::log_backup::{commit, pin};
use morphkv::restore;
use morphkv::restore::moment::Moment;
use morphkv::restore::plan::Unreachable;
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{ErrorKind, Options};
use std::error::Error as _;
use std::sync::Arc;

#[test]
fn a_base_and_its_log_come_back_at_the_latest_moment_and_at_one_before() {
    let mut source = Source::new(Arc::new(Natural));
    for number in 0..10 {
        source.put(&format!("/key/{number}"), &number.to_string());
    }
    source.snapshot();
    for number in 5..25 {
        source.put(&format!("/key/{number}"), "new");
    }
    source.ship(None);
    let latest = source.states.last().unwrap().clone();
    check(&source, Moment::Latest, options(), &latest, "latest");
    let middle = source.states[17].clone();
    check(&source, Moment::Time(middle.time + 3), options(), &middle, "in the middle");
    check(&source, Moment::Time(middle.time), options().encoding(Hierarchical), &middle, "in another encoding");
    source.convert(Arc::new(Hierarchical));
    source.put("/after/conversion", "1");
    source.ship(None);
    let latest = source.states.last().unwrap().clone();
    check(&source, Moment::Latest, options(), &latest, "over a conversion");
    let _: &dyn KeyEncoding = &*source.encoding;
}

fn some_options(random: &mut Random) -> Options {
    match random.below(4) {
        0 => options().encoding(Natural),
        1 => options().encoding(Hierarchical),
        _ => options(),
    }
}

/// Moments of a history, each restored and compared; how many there were.
fn moments_of(seed: u64, steps: usize, moments: usize) -> usize {
    let (source, mut random) = history(seed, steps);
    let end = source.clock.now();
    for number in 0..moments {
        let what = format!("seed {seed}, number {number}");
        let options = some_options(&mut random);
        let state = &source.states[random.below(source.states.len())];
        let (moment, expected) = match random.below(8) {
            0 => (Moment::Latest, source.states.last().unwrap()),
            1 | 2 => {
                let of_it = source
                    .states
                    .iter()
                    .rev()
                    .find(|other| other.timeline == state.timeline && other.sequence <= state.sequence);
                (Moment::Sequence { timeline: state.timeline, sequence: state.sequence }, of_it.unwrap())
            }
            3..=5 => (Moment::Time(state.time), source.at(state.time)),
            _ => {
                let time = source.states[0].time + random.below((end - source.states[0].time) as usize) as u64;
                (Moment::Time(time), source.at(time))
            }
        };
        check(&source, moment, options, expected, &what);
    }
    // What is not resolved, and what was before the first base.
    let target = source.directory.path().join("target");
    let refused = |time| {
        let error = restore::run(&target, &source.archive, &request(Moment::Time(time)), &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        *error.source().unwrap().downcast_ref::<Unreachable>().unwrap()
    };
    assert_eq!(refused(end), Unreachable::Beyond { resolved: end - 1 });
    let first = source.states[0].time;
    assert_eq!(refused(first - 1), Unreachable::Before { first: Some(first), truncated: false });
    assert!(!target.exists() && !target.with_extension("restore").exists());
    moments
}

#[test]
fn any_moment_of_random_histories() {
    let figures = Figures::new("restored-moments");
    let (histories, steps, moments) = (scale(40, 400), 60, scale(26, 52));
    let half = |parity: u64| {
        (0..histories).filter(|seed| seed % 2 == parity).map(|seed| moments_of(seed, steps, moments)).sum::<usize>()
    };
    let restored = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        half(0) + other.join().unwrap()
    });
    figures.with("histories", histories).with("moments restored and compared", restored).with("wrong", 0).print();
    assert!(restored >= 1000);
}

/// A drill must never ship into the log that it came from.
#[test]
fn a_restored_copy_is_attached_to_nothing() {
    let mut source = Source::new(Arc::new(Natural));
    source.put("/key", "1");
    source.snapshot();
    source.put("/key", "2");
    source.ship(None);
    let target = source.directory.path().join("target");
    restore::run(&target, &source.archive, &request(Moment::Latest), &options()).unwrap();
    assert!(source.path.join("LOG_BACKUP").exists() && !target.join("LOG_BACKUP").exists());
    let engine = morphkv::Engine::open(&target, options()).unwrap();
    let mut shipper = Shipper::new(engine.clone(), source.archive.clone(), ShipOptions::default());
    assert_eq!(shipper.ship_once().unwrap_err().kind(), ErrorKind::Refused);
}

/// A truncation sees whoever reads, from which HEAD on, and no longer than that.
#[test]
fn what_a_restore_reads_is_pinned_while_it_is_read() {
    let mut source = Source::new(Arc::new(Natural));
    source.put("/key", "1");
    source.snapshot();
    source.put("/key", "2");
    source.ship(None);
    let generation = commit::load(&source.archive).unwrap().head.generation;
    for trap in [Trap::RestoreFetching, Trap::RestoreSegmentRead] {
        let (target, pause) = (source.directory.path().join("target"), source.directory.path().join(trap.name()));
        let plan = TrapPlan::new().with(trap, 1, TrapAction::Pause(pause.clone()));
        let pausing = options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan))));
        std::thread::scope(|scope| {
            let work = || restore::run(&target, &source.archive, &request(Moment::Latest), &pausing);
            let restoring = scope.spawn(work);
            while !pause.exists() {
                assert!(!restoring.is_finished(), "it never came to {}", trap.name());
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let pins = pin::list(&source.archive).unwrap();
            std::fs::remove_file(&pause).unwrap();
            restoring.join().unwrap().unwrap();
            let held: Vec<_> = pins.iter().filter_map(|pin| pin.contents.as_ref()).collect();
            let held: Vec<_> = held.iter().map(|pin| (pin.purpose.as_str(), pin.generation)).collect();
            assert_eq!(held, [("restore", Some(generation))], "{}", trap.name());
        });
        assert_eq!(pin::list(&source.archive).unwrap(), [], "a pin is left");
        morphkv::Engine::destroy(&target, Options::new()).unwrap();
        restore::abort(&target, &Options::new()).unwrap();
    }
}
