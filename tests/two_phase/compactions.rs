//! Every way in which the compaction can settle: the data is the same, and STATUS says how it was got.

use crate::common::figures::{Figures, scale};
use crate::common::{copy_tree, options, scratch};
use crate::source::{Source, all_of, request};
use crate::world::{
    Inline, PACE, check, compact_all, folder, go_on, is_fast, log, reason, shard, start, target, waits,
};
use morphkv::encoding::Hierarchical;
use morphkv::log_backup::compact::{State, Until};
use morphkv::log_backup::names;
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::restore::coordinator::{self, Did};
use morphkv::restore::folder::{Step, TwoPhase};
use morphkv::restore::moment::Moment;
use morphkv::restore::state::{Compaction, Mode, Reason};
use morphkv::restore::{self, Request};
use morphkv::testing::{RealVfs, Trap, TrapPlan};
use morphkv::{Engine, ErrorKind, Options};
use std::path::PathBuf;
use std::sync::Arc;

/// Restores with a compaction, and says how it settled, whether it was used, and how many segments were gone through.
fn restore(source: &Source, moment: Moment, name: &str, wait: Option<i64>) -> (Reason, bool, usize) {
    let target = target(source);
    start(source, &target, moment, &waits(name, wait));
    let plan = Arc::new(TrapPlan::new());
    let mut launcher = Inline::new(source, options().vfs(Arc::new(RealVfs::with_traps(plan.clone()))));
    let found = coordinator::run(&target, &source.archive, &options(), &mut launcher, &PACE).unwrap();
    assert_eq!((&launcher.calls[..], launcher.errors.len()), (&[1, 2][..], 0));
    let settled = (reason(&found.status), is_fast(&found.status));
    check(source, &target, &found, moment, name);
    let segments = plan.hits().iter().filter(|trap| **trap == Trap::RestoreSegmentRead).count();
    (settled.0, settled.1, segments)
}

#[test]
fn fast_and_raw_give_the_same_data() {
    let figures = Figures::new("two-phase-modes");
    let (mut fast, mut raw, mut saved) = (0, 0, 0);
    for converted in [false, true] {
        let mut source = log(converted);
        let middle = source.states[source.states.len() - 9].time;
        compact_all(&source, "whole", Until::Latest);
        compact_all(&source, "middle", Until::Time(middle));
        source.put("/later", "1");
        source.ship(None);
        let states: Vec<_> = source.states.iter().map(|state| state.time).collect();
        let step = scale(3, 1);
        for time in states.into_iter().rev().step_by(step) {
            let moment = Moment::Time(time);
            let (reason, used, without) = restore(&source, moment, "none", Some(1));
            assert_eq!((reason, used), (Reason::WaitTimeout, false));
            raw += 1;
            for name in ["whole", "middle"] {
                let (reason, used, with) = restore(&source, moment, name, None);
                // What goes beyond the moment does not fit; what does is used.
                assert_eq!(used, reason == Reason::Complete, "{name} {moment}");
                assert!(used || reason == Reason::Mismatch, "{name} {moment}: {reason:?}");
                assert!(with <= without && (used || with == without), "{name} {moment}: {with} of {without}");
                saved += without - with;
                (fast, raw) = (fast + usize::from(used), raw + usize::from(!used));
            }
        }
    }
    figures.with("fast", fast).with("raw", raw).with("segments not gone through", saved).with("wrong", 0).print();
    assert!(fast >= 8 && raw >= 8 && saved > 10);
}

#[test]
fn a_compaction_that_ends_while_the_snapshot_is_restored_is_waited_for_and_used() {
    let source = log(false);
    let target = target(&source);
    let begun = start(&source, &target, Moment::Latest, &waits("late", None));
    assert_eq!((begun.status.step, begun.status.generation), (Step::Begin, 1));
    let pass = || coordinator::step(&target, &source.archive, &options()).unwrap();
    let mut seen = Vec::new();
    let mut launcher = Inline::new(&source, options());
    // All that does not need the compaction is done before it has begun.
    loop {
        let (passed, found) = pass();
        if let Did::Launches(call, attempt) = &passed.did {
            assert_eq!(*attempt, 1);
            assert_eq!(call.to_string(), format!("morphkv restore worker {} --phase 1", target.display()));
            coordinator::Launcher::launch(&mut launcher, call).unwrap();
        }
        seen.push((passed.clone(), found.status.generation));
        assert_eq!(passed.compaction, Some(Compaction::Absent));
        if found.status.markers.snapshot_restored.is_some() {
            break;
        }
    }
    // At most one write a pass.
    assert!(seen.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 1), "{seen:?}");
    let waiting = |passed: &coordinator::Passed| matches!(passed.did, Did::Waits(_));
    assert!(waiting(&pass().0));
    let first = shard(&source, "late", 2, 2, Until::Latest).unwrap();
    assert_eq!(first.state, State::Running);
    let (passed, found) = pass();
    assert!(waiting(&passed) && matches!(passed.compaction, Some(Compaction::Running(_))), "{passed:?}");
    // A phase whose record is gone is not done again.
    std::fs::remove_dir_all(folder(&target).join("runs/1")).unwrap();
    assert!(waiting(&pass().0));
    shard(&source, "late", 1, 2, Until::Latest).unwrap();
    let (passed, after) = pass();
    assert!(matches!(passed.did, Did::Wrote(_)) && after.status.phase == found.status.phase, "{passed:?}");
    let done = go_on(&source, &target);
    assert!(is_fast(&done.status) && done.status.left_out.is_empty());
    check(&source, &target, &done, Moment::Latest, "late");
}

/// Damages a segment in the way of a shard; the file and what it was.
fn damage(source: &Source, number: u64) -> (PathBuf, Vec<u8>) {
    let name = names::segment(source.timeline, number).unwrap();
    let path = source.directory.path().join("archive").join(name.as_str());
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    (path, good)
}

#[test]
fn one_that_fails_never_ends_or_is_not_there_opens_the_gate_too() {
    let source = log(false);
    let last = shard(&source, "failed", 3, 3, Until::Latest).unwrap();
    let (path, good) = damage(&source, last.shard_first_segment - 1);
    for number in [2, 1] {
        shard(&source, "failed", number, 3, Until::Latest).unwrap();
    }
    std::fs::write(path, good).unwrap();
    shard(&source, "unfinished", 1, 2, Until::Latest).unwrap();
    assert_eq!(restore(&source, Moment::Latest, "failed", None).0, Reason::Failed);
    // Three workers can be late in many ways: a tenth of a second is enough for none to end.
    assert_eq!(restore(&source, Moment::Latest, "unfinished", Some(100_000)).0, Reason::WaitTimeout);
    assert_eq!(restore(&source, Moment::Latest, "absent", Some(1)).0, Reason::WaitTimeout);
    // One whose SPEC or END this version cannot read is waited for; when the wait is over, it settles.
    compact_all(&source, "unknown", Until::Latest);
    let objects = source.directory.path().join("archive/v1/compactions/unknown");
    for name in ["SPEC", "END"] {
        let good = std::fs::read(objects.join(name)).unwrap();
        std::fs::write(objects.join(name), b"{\"format\":2}\n00000000\n").unwrap();
        let target = target(&source);
        start(&source, &target, Moment::Latest, &waits("unknown", Some(300_000)));
        let (passed, _) = coordinator::step(&target, &source.archive, &options()).unwrap();
        assert!(matches!(&passed.compaction, Some(Compaction::Unknown(_))), "{name}: {passed:?}");
        assert!(passed.describe().contains("cannot be read"), "{passed:?}");
        let done = go_on(&source, &target);
        assert_eq!(reason(&done.status), Reason::WaitTimeout);
        check(&source, &target, &done, Moment::Latest, name);
        std::fs::write(objects.join(name), good).unwrap();
    }
}

#[test]
fn one_that_does_not_fit_the_plan_is_named_and_not_used() {
    let mut source = log(false);
    compact_all(&source, "other-timeline", Until::Latest);
    source.convert(Arc::new(Hierarchical));
    source.put("/after", "1");
    source.ship(None);
    source.snapshot();
    source.put("/after", "2");
    source.ship(None);
    compact_all(&source, "behind-the-moment", Until::Latest);
    let first = source.states.iter().find(|state| state.timeline == source.timeline).unwrap().time;
    let latest = source.states.last().unwrap().time;
    for (name, moment, word) in [
        ("other-timeline", Moment::Time(latest), "timeline"),
        ("behind-the-moment", Moment::Time(first), "its end is sequence number"),
    ] {
        let target = target(&source);
        start(&source, &target, moment, &waits(name, None));
        let done = go_on(&source, &target);
        let settled = done.status.markers.compaction_settled.clone().unwrap();
        assert!(settled.reason == Reason::Mismatch && settled.message.contains(word), "{name}: {settled:?}");
        assert!(matches!(done.status.mode.as_ref().unwrap(), Mode::Raw(reason) if reason.contains("mismatch")));
        check(&source, &target, &done, moment, name);
    }
}

#[test]
fn coverage_is_checked_and_what_is_damaged_is_gone_through_in_the_log() {
    let source = log(false);
    compact_all(&source, "damaged", Until::Latest);
    let objects = source.directory.path().join("archive/v1/compactions/damaged");
    // A result: seen when the mode is chosen. A file: seen when it is taken in.
    let data = std::fs::read_dir(objects.join("data")).unwrap().next().unwrap().unwrap().path();
    let results: Vec<_> =
        std::fs::read_dir(objects.join("results")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for (path, fast) in [(results[0].clone(), false), (data, true)] {
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let target = target(&source);
        start(&source, &target, Moment::Latest, &waits("damaged", None));
        let done = go_on(&source, &target);
        assert_eq!(reason(&done.status), Reason::Complete);
        assert_eq!(
            (is_fast(&done.status), done.status.left_out.len()),
            (fast, usize::from(fast)),
            "{}",
            path.display()
        );
        check(&source, &target, &done, Moment::Latest, "damaged");
        std::fs::write(&path, good).unwrap();
    }
}

#[test]
fn the_mode_is_chosen_once_and_what_is_made_after_settling_is_not_looked_at() {
    let source = log(false);
    let target = target(&source);
    start(&source, &target, Moment::Latest, &waits("made-later", Some(1)));
    let mut launcher = Inline::new(&source, options());
    // Up to the record of phase 2.
    loop {
        let (passed, _) = coordinator::step(&target, &source.archive, &options()).unwrap();
        match &passed.did {
            Did::Launches(call, _) => coordinator::Launcher::launch(&mut launcher, call).unwrap(),
            Did::Made(phase) if phase.number() == 2 => break,
            _ => {}
        }
    }
    compact_all(&source, "made-later", Until::Latest);
    let done = go_on(&source, &target);
    assert!(!is_fast(&done.status) && reason(&done.status) == Reason::WaitTimeout);
    check(&source, &target, &done, Moment::Latest, "made later");
    // Chosen to be fast, it stays so when the compaction's own objects are gone: its segments are gone through, and it says so.
    start(&source, &target, Moment::Latest, &waits("made-later", None));
    loop {
        let (passed, _) = coordinator::step(&target, &source.archive, &options()).unwrap();
        match &passed.did {
            Did::Launches(call, _) => coordinator::Launcher::launch(&mut launcher, call).unwrap(),
            Did::Made(phase) if phase.number() == 2 => break,
            _ => {}
        }
    }
    std::fs::remove_dir_all(source.directory.path().join("archive/v1/compactions/made-later")).unwrap();
    let done = go_on(&source, &target);
    assert!(is_fast(&done.status) && done.status.left_out.len() == 1, "{:?}", done.status);
    check(&source, &target, &done, Moment::Latest, "gone");
}

#[test]
fn a_compaction_that_is_made_anew_before_it_settles_is_the_one_that_counts_and_two_restores_share_it() {
    let source = log(false);
    shard(&source, "again", 1, 2, Until::Latest).unwrap();
    let (one, two) = (target(&source), source.directory.path().join("other"));
    start(&source, &one, Moment::Latest, &waits("again", None));
    start(&source, &two, Moment::Latest, &waits("again", None));
    let seen = |passed: coordinator::Passed| passed.compaction.unwrap();
    let before = seen(coordinator::step(&one, &source.archive, &options()).unwrap().0);
    std::fs::remove_dir_all(source.directory.path().join("archive/v1/compactions/again")).unwrap();
    assert_eq!(seen(coordinator::step(&one, &source.archive, &options()).unwrap().0), Compaction::Absent);
    let made = compact_all(&source, "again", Until::Latest);
    assert_ne!(before, Compaction::Running(made.compaction));
    for target in [one, two] {
        let done = go_on(&source, &target);
        assert_eq!(done.status.markers.compaction_settled.as_ref().unwrap().compaction, Some(made.compaction));
        assert!(is_fast(&done.status));
        check(&source, &target, &done, Moment::Latest, "again");
    }
}

/// An archive that cannot be reached for a while, in every step: nothing is settled wrongly, and it goes on.
#[test]
fn an_archive_that_is_gone_for_a_while_delays_and_decides_nothing() {
    let source = log(false);
    compact_all(&source, "there", Until::Latest);
    let (archive, away) = (source.directory.path().join("archive"), scratch());
    let target = target(&source);
    start(&source, &target, Moment::Latest, &waits("there", None));
    let mut launcher = Inline::new(&source, options());
    let mut outages = 0;
    loop {
        // Each pass is tried without the archive first.
        let hidden = away.path().join("archive");
        std::fs::rename(&archive, &hidden).unwrap();
        let before = morphkv::restore::status(&target, &Options::new()).unwrap().unwrap();
        let without = coordinator::step(&target, &source.archive, &options());
        let after = morphkv::restore::status(&target, &Options::new()).unwrap().unwrap();
        assert_eq!(before.status.markers.compaction_settled, after.status.markers.compaction_settled);
        std::fs::remove_dir_all(&archive).ok();
        std::fs::rename(&hidden, &archive).unwrap();
        outages += usize::from(without.is_err() || before == after);
        let (passed, found) = coordinator::step(&target, &source.archive, &options()).unwrap();
        if let Did::Launches(call, _) = &passed.did {
            coordinator::Launcher::launch(&mut launcher, call).unwrap();
        }
        if found.is_complete() {
            check(&source, &target, &found, Moment::Latest, "outages");
            break;
        }
    }
    assert!(outages >= 2, "{outages}");
}

#[test]
fn what_cannot_be_begun_is_refused_before_anything_is_made() {
    let source = log(false);
    let target = target(&source);
    for name in ["", "a/b", ".."] {
        let refused =
            coordinator::start(&target, &source.archive, &request(Moment::Latest), &waits(name, None), &options());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument, "{name}");
    }
    assert!(!folder(&target).exists());
    let none = coordinator::step(&target, &source.archive, &options()).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
}

/// The compaction may stand elsewhere than the log, and that place may be away when its turn has come, for ever.
#[test]
fn one_whose_place_is_away_once_it_has_settled_does_not_stop_the_restore() {
    let source = log(false);
    compact_all(&source, "elsewhere", Until::Latest);
    let [archive, elsewhere] = ["archive", "elsewhere"].map(|name| source.directory.path().join(name));
    let folder = "v1/compactions/elsewhere";
    std::fs::create_dir_all(elsewhere.join("v1/compactions")).unwrap();
    copy_tree(&archive.join(folder), &elsewhere.join(folder));
    let at = Some(format!("file://{}", elsewhere.canonicalize().unwrap().display()));
    let target = target(&source);
    start(&source, &target, Moment::Latest, &TwoPhase { at, ..waits("elsewhere", None) });
    let mut launcher = Inline::new(&source, options());
    loop {
        let (passed, found) = coordinator::step(&target, &source.archive, &options()).unwrap();
        if let Did::Launches(call, _) = &passed.did {
            coordinator::Launcher::launch(&mut launcher, call).unwrap();
        }
        let markers = &found.status.markers;
        if markers.snapshot_restored.is_some() && markers.compaction_settled.is_some() {
            break;
        }
    }
    std::fs::rename(elsewhere.join("v1"), elsewhere.join("away")).unwrap();
    std::fs::write(elsewhere.join("v1"), "no folder").unwrap();
    let done = go_on(&source, &target);
    assert_eq!((reason(&done.status), is_fast(&done.status)), (Reason::Complete, false));
    check(&source, &target, &done, Moment::Latest, "its place is away");
}

#[test]
fn an_end_of_another_compaction_is_none() {
    let source = log(false);
    shard(&source, "one", 1, 2, Until::Latest).unwrap();
    compact_all(&source, "other", Until::Latest);
    let objects = source.directory.path().join("archive/v1/compactions");
    std::fs::copy(objects.join("other/END"), objects.join("one/END")).unwrap();
    let target = target(&source);
    start(&source, &target, Moment::Latest, &waits("one", None));
    let done = go_on(&source, &target);
    let settled = done.status.markers.compaction_settled.clone().unwrap();
    assert!(settled.reason == Reason::Mismatch && settled.message.contains("its END"), "{settled:?}");
    assert!(!is_fast(&done.status));
    check(&source, &target, &done, Moment::Latest, "an END of another one");
}

#[test]
fn one_that_is_made_anew_after_settling_is_not_used() {
    let source = log(false);
    let settled = compact_all(&source, "again", Until::Latest).compaction;
    let target = target(&source);
    start(&source, &target, Moment::Latest, &waits("again", None));
    let mut launcher = Inline::new(&source, options());
    // Up to the gate: how the log is gone through is not chosen yet.
    loop {
        let (passed, found) = coordinator::step(&target, &source.archive, &options()).unwrap();
        if let Did::Launches(call, _) = &passed.did {
            coordinator::Launcher::launch(&mut launcher, call).unwrap();
        }
        if found.status.step == Step::Apply {
            break;
        }
    }
    std::fs::remove_dir_all(source.directory.path().join("archive/v1/compactions/again")).unwrap();
    assert_ne!(compact_all(&source, "again", Until::Latest).compaction, settled);
    let done = go_on(&source, &target);
    assert_eq!(done.status.markers.compaction_settled.as_ref().unwrap().compaction, Some(settled));
    let Some(Mode::Raw(why)) = &done.status.mode else { panic!("{:?}", done.status.mode) };
    assert!(why.contains("not the one that has settled"), "{why}");
    check(&source, &target, &done, Moment::Latest, "made anew");
}

/// The database that the log is of gives way itself: it goes on in the archive.
#[test]
fn one_over_the_attached_database_hands_its_log_over() {
    let mut source = log(true);
    let middle = source.states[source.states.len() / 2].clone();
    source.put("/unshipped", "1");
    let (old, content, path) = (source.timeline, source.content.clone(), source.path.clone());
    source.close();
    let replacing = Request { replace: true, ..request(Moment::Time(middle.time)) };
    coordinator::start(&path, &source.archive, &replacing, &waits("none", Some(1)), &options()).unwrap();
    let found = go_on(&source, &path);
    let goes_on = restore::goes_on(&path, &found, &options()).unwrap().unwrap();
    assert_eq!(goes_on.replaced, old);
    let engine = Engine::open(&path, options()).unwrap();
    engine.put("/after", "1").unwrap();
    let pass = Shipper::new(engine.clone(), source.archive.clone(), ShipOptions::default()).ship_once().unwrap();
    assert_eq!((pass.timeline, &pass.begun[..]), (goes_on.timeline, &[][..]));
    engine.close().unwrap();
    let mut after = middle.content;
    after.insert(b"/after".to_vec(), b"1".to_vec());
    let target = target(&source);
    for (timeline, expected) in [(None, after), (Some(old), content)] {
        restore::run(&target, &source.archive, &Request { timeline, ..request(Moment::Latest) }, &options()).unwrap();
        assert_eq!(all_of(&target).0, expected, "{timeline:?}");
        Engine::destroy(&target, options()).unwrap();
        assert!(restore::abort(&target, &options()).unwrap());
    }
}
