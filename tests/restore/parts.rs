//! The log is taken in part by part, as memory allows: wherever a part ends, the content is the same, and what was noted is
//! not done again.

use crate::common::figures::{Figures, scale};
use crate::common::options;
use crate::history::{Random, history};
use crate::source::{Source, all_of, check, request};
use morphkv::encoding::Natural;
use morphkv::restore;
use morphkv::restore::moment::Moment;
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{ErrorKind, Options};
use std::sync::Arc;

/// Options that meet these traps, and what they have met.
fn watched(plan: TrapPlan, memory_bytes: usize) -> (Options, Arc<TrapPlan>) {
    let plan = Arc::new(plan);
    (options().memory_bytes(memory_bytes).vfs(Arc::new(RealVfs::with_traps(plan.clone()))), plan)
}

fn count(plan: &TrapPlan, trap: Trap) -> usize {
    plan.hits().into_iter().filter(|hit| *hit == trap).count()
}

#[test]
fn wherever_a_part_ends() {
    let figures = Figures::new("restore-parts");
    let (mut parts, mut moments) = (0, 0);
    for seed in 0..scale(8, 80) {
        let (source, mut random) = history(1000 + seed, 40);
        // A part for each operation, for a few, and for all.
        for memory_bytes in [1, 400, 4000, 256 << 20] {
            let state = &source.states[random.below(source.states.len())];
            for (moment, expected) in
                [(Moment::Latest, source.states.last().unwrap()), (Moment::Time(state.time), source.at(state.time))]
            {
                let (options, plan) = watched(TrapPlan::new(), memory_bytes);
                check(&source, moment, options, expected, &format!("seed {seed}, {memory_bytes} bytes of memory"));
                parts += count(&plan, Trap::RestorePartNoted);
                moments += 1;
            }
        }
    }
    figures.with("moments", moments).with("parts", parts).with("wrong", 0).print();
    assert!(parts > 10 * moments, "{parts} parts for {moments} restores");
}

fn counted(frames: u32) -> Source {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = frames;
    for number in 0..30 {
        source.put(&format!("/key/{}", number % 20), &number.to_string());
    }
    source.engine().delete_range("/key/3".."/key/5").unwrap();
    source.remove_range(b"/key/3", b"/key/5");
    source.note();
    source.clock.advance(1);
    source.ship(None);
    source
}

#[test]
fn what_was_noted_is_not_done_again_and_what_was_not_is() {
    let source = counted(3);
    let expected = source.states.last().unwrap();
    let target = source.directory.path().join("target");
    let (whole, plan) = watched(TrapPlan::new(), 1);
    check(&source, Moment::Latest, whole, expected, "at once");
    let (segments, parts) = (count(&plan, Trap::RestoreSegmentRead), count(&plan, Trap::RestorePartNoted));
    assert!(segments >= 10 && parts >= 30, "{segments} segments, {parts} parts");
    for trap in [Trap::RestorePartWritten, Trap::RestorePartTaken, Trap::RestorePartNoted] {
        for nth in [1, parts / 2, parts] {
            let what = format!("{} {nth}", trap.name());
            let failing = TrapPlan::new().with(trap, nth as u32, TrapAction::Error(ErrorKind::Io));
            let (options, _) = watched(failing, 1);
            restore::run(&target, &source.archive, &request(Moment::Latest), &options).unwrap_err();
            let (again, plan) = watched(TrapPlan::new(), 1);
            restore::run(&target, &source.archive, &request(Moment::Latest), &again).unwrap();
            let left = count(&plan, Trap::RestorePartNoted);
            // A segment has up to three operations, and one is gathered while another is written.
            let expected_left = parts - nth..=parts - nth + 5;
            assert!(expected_left.contains(&left), "{what}: {left} parts of {parts} were left");
            assert!(all_of(&target) == (expected.content.clone(), expected.internal.clone()), "{what}");
            morphkv::Engine::destroy(&target, Options::new()).unwrap();
            restore::abort(&target, &Options::new()).unwrap();
        }
    }
}

/// Parts that end within segments, and hold several of them: a position that is durable speaks of nothing that is not.
#[test]
fn what_was_noted_is_in_wherever_a_part_ends() {
    let source = counted(3);
    let expected = source.states.last().unwrap();
    let target = source.directory.path().join("target");
    let mut restores = 0;
    for memory_bytes in [400, 700, 1300] {
        let (whole, plan) = watched(TrapPlan::new(), memory_bytes);
        check(&source, Moment::Latest, whole, expected, "at once");
        let parts = count(&plan, Trap::RestorePartNoted);
        assert!(parts >= 3, "{parts} parts of {memory_bytes} bytes of memory");
        let ends = (1..=parts).flat_map(|nth| [(nth, Trap::RestorePartTaken), (nth, Trap::RestorePartNoted)]);
        for (nth, trap) in ends {
            let what = format!("{memory_bytes} bytes of memory, part {nth} of {parts}, {}", trap.name());
            let failing = TrapPlan::new().with(trap, nth as u32, TrapAction::Error(ErrorKind::Io));
            let (options, _) = watched(failing, memory_bytes);
            restore::run(&target, &source.archive, &request(Moment::Latest), &options).unwrap_err();
            let (again, _) = watched(TrapPlan::new(), memory_bytes);
            restore::run(&target, &source.archive, &request(Moment::Latest), &again).unwrap();
            assert!(all_of(&target) == (expected.content.clone(), expected.internal.clone()), "{what}");
            morphkv::Engine::destroy(&target, Options::new()).unwrap();
            restore::abort(&target, &Options::new()).unwrap();
            restores += 1;
        }
    }
    assert!(restores > 15, "{restores}");
}

#[test]
fn a_part_of_several_files() {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 16;
    let mut random = Random::new(5);
    for round in 0..48u64 {
        let engine = source.engine().clone();
        let mut batch = engine.batch();
        for _ in 0..64 {
            let key = format!("/objects/{:05}", random.below(4000)).into_bytes();
            let value = random.next().to_le_bytes().repeat(512);
            batch.put(&key, &value).unwrap();
            source.content.insert(key, value);
        }
        if round % 10 == 5 {
            let (from, to) = (format!("/objects/{round:03}"), format!("/objects/{:03}", round + 3));
            batch.delete_range(from.as_str()..to.as_str()).unwrap();
            source.remove_range(from.as_bytes(), to.as_bytes());
        }
        batch.commit().unwrap();
        drop(engine);
        source.note();
        source.clock.advance(1);
    }
    source.ship(None);
    let bytes: usize = source.content.values().map(Vec::len).sum();
    assert!(bytes > 4 << 20, "{bytes} bytes");
    let latest = source.states.last().unwrap().clone();
    for memory_bytes in [256 << 20, 5 << 20] {
        let (options, plan) = watched(TrapPlan::new(), memory_bytes);
        check(&source, Moment::Latest, options, &latest, &format!("{memory_bytes} bytes of memory"));
        let parts = count(&plan, Trap::RestorePartNoted);
        assert_eq!(parts == 1, memory_bytes == 256 << 20, "{parts} parts");
    }
}
