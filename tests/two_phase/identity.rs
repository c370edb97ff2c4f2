//! What belongs to another restore, to another SPEC, to nobody: never taken for ours, and never replaced silently.

use crate::common::figures::{Figures, scale};
use crate::common::{bytes_below, copy_tree, options};
use crate::source::Source;
use crate::world::{Inline, PACE, check, compact_all, folder, go_on, log, start, target, waits};
use morphkv::log_backup::compact::Until;
use morphkv::restore::coordinator::{self, Did, Launcher};
use morphkv::restore::moment::Moment;
use morphkv::restore::state::Waiting;
use morphkv::restore::{self, Part};
use morphkv::{Engine, ErrorKind};
use std::path::{Path, PathBuf};

fn ready() -> (Source, PathBuf) {
    let source = log(false);
    compact_all(&source, "compaction", Until::Latest);
    let target = target(&source);
    (source, target)
}

fn begin(source: &Source, target: &Path) {
    start(source, target, Moment::Latest, &waits("compaction", None));
}

fn pass(source: &Source, target: &Path) -> Did {
    coordinator::step(target, &source.archive, &options()).unwrap().0.did
}

/// Passes until something else than a write comes.
fn passes(source: &Source, target: &Path) -> Did {
    loop {
        match pass(source, target) {
            Did::Wrote(_) | Did::Made(_) => {}
            did => return did,
        }
    }
}

fn work(source: &Source, target: &Path, phase: i64) -> Result<(), ErrorKind> {
    let done = restore::worker(target, &source.archive, Part::new(phase).unwrap(), &options());
    done.map(drop).map_err(|error| error.kind())
}

/// The runs of a restore that has come to its phase 2, and is given up; its records lie in `aside`.
fn leftovers(source: &Source, target: &Path, aside: &Path) {
    begin(source, target);
    passes(source, target);
    work(source, target, 1).unwrap();
    passes(source, target);
    work(source, target, 2).unwrap();
    copy_tree(&folder(target).join("runs"), aside);
    assert!(restore::abort(target, &options()).unwrap());
}

#[test]
fn the_run_of_another_restore_is_not_taken_for_ours() {
    let (source, target) = ready();
    let aside = source.directory.path().join("aside");
    std::fs::create_dir(&aside).unwrap();
    leftovers(&source, &target, &aside);
    for phase in [1, 2] {
        begin(&source, &target);
        if phase == 2 {
            passes(&source, &target);
            work(&source, &target, 1).unwrap();
            // Up to the gate.
            while restore::status(&target, &options()).unwrap().unwrap().status.step.name() != "apply" {
                pass(&source, &target);
            }
        }
        let run = folder(&target).join(format!("runs/{phase}"));
        drop(std::fs::remove_dir_all(&run));
        copy_tree(&aside.join(phase.to_string()), &run);
        let before = bytes_below(&run);
        let status = std::fs::read(folder(&target).join("STATUS")).ok();
        // Its RESULT says ok, and is not ours.
        assert!(matches!(passes(&source, &target), Did::Waits(Waiting::Foreign(_))), "phase {phase}");
        let mut launcher = Inline::new(&source, options());
        let blocked = coordinator::run(&target, &source.archive, &options(), &mut launcher, &PACE).unwrap_err();
        assert!(blocked.kind() == ErrorKind::Refused && launcher.calls.is_empty(), "{blocked:?}");
        assert_eq!(work(&source, &target, phase), Err(ErrorKind::Refused));
        // Looked at, and not touched; of STATUS no more than what came before phase 1.
        let own = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
            files
                .iter()
                .filter(|(name, _)| !name.contains("LOCK"))
                .map(|(name, bytes)| (name.clone(), bytes.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(own(&bytes_below(&run)), own(&before));
        assert!(phase == 1 || std::fs::read(folder(&target).join("STATUS")).ok() == status);
        std::fs::remove_dir_all(&run).unwrap();
        let done = go_on(&source, &target);
        check(&source, &target, &done, Moment::Latest, "after it was removed");
    }
}

#[test]
fn a_run_that_was_made_for_another_plan_is_refused() {
    let (mut source, target) = ready();
    begin(&source, &target);
    passes(&source, &target);
    // Another plan of the same id: as if somebody had exchanged the file.
    source.put("/more", "1");
    source.ship(None);
    let other = source.directory.path().join("other");
    begin(&source, &other);
    let id = |path: &Path| restore::status(path, &options()).unwrap().unwrap().spec.restore.to_string();
    let plan = std::fs::read_to_string(folder(&other).join("PLAN")).unwrap().replace(&id(&other), &id(&target));
    let line = format!("{}\n", plan.lines().next().unwrap());
    let plan = format!("{line}{:08x}\n", crc32fast::hash(line.as_bytes()));
    std::fs::write(folder(&target).join("PLAN"), plan).unwrap();
    assert_eq!(work(&source, &target, 1), Err(ErrorKind::Corrupt));
}

#[test]
fn a_phase_is_done_in_its_turn_and_by_one_worker() {
    let (source, target) = ready();
    for number in [-1, 3, 99] {
        assert_eq!(Part::new(number).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(work(&source, &target, 1), Err(ErrorKind::NotFound));
    begin(&source, &target);
    // Not begun; not made; not its turn; not an ordinary one.
    for (phase, kind) in [(1, ErrorKind::Conflict), (2, ErrorKind::Conflict), (0, ErrorKind::InvalidArgument)] {
        assert_eq!(work(&source, &target, phase), Err(kind), "{phase}");
    }
    while restore::status(&target, &options()).unwrap().unwrap().status.step.name() != "fetch" {
        pass(&source, &target);
    }
    assert_eq!(work(&source, &target, 1), Err(ErrorKind::NotFound));
    assert!(matches!(passes(&source, &target), Did::Launches(..)));
    assert_eq!(work(&source, &target, 2), Err(ErrorKind::Conflict));
    work(&source, &target, 1).unwrap();
    // Done again, it finds that it is done.
    work(&source, &target, 1).unwrap();
    assert!(matches!(passes(&source, &target), Did::Launches(..)));
    assert_eq!(work(&source, &target, 1), Err(ErrorKind::Conflict));
    // In one phase there is no phase 1.
    let ordinary = source.directory.path().join("ordinary");
    restore::start(&ordinary, &source.archive, &crate::source::request(Moment::Latest), &options()).unwrap();
    assert_eq!(work(&source, &ordinary, 1), Err(ErrorKind::InvalidArgument));
    let none = coordinator::step(&ordinary, &source.archive, &options()).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidArgument);
    work(&source, &ordinary, 0).unwrap();
    assert!(crate::source::all_of(&ordinary).0 == source.content);
}

/// A restore that was given up and begun again while the worker of the old one was between two looks.
#[test]
fn one_that_is_begun_again_has_nothing_of_the_one_before() {
    let (source, target) = ready();
    begin(&source, &target);
    passes(&source, &target);
    work(&source, &target, 1).unwrap();
    let first = restore::status(&target, &options()).unwrap().unwrap().spec.restore;
    assert!(restore::abort(&target, &options()).unwrap());
    begin(&source, &target);
    let found = restore::status(&target, &options()).unwrap().unwrap();
    assert!(found.spec.restore != first && !folder(&target).join("runs").exists());
    let mut launcher = Inline::new(&source, options());
    let done = coordinator::run(&target, &source.archive, &options(), &mut launcher, &PACE).unwrap();
    assert_eq!(launcher.calls, [1, 2]);
    check(&source, &target, &done, Moment::Latest, "again");
}

/// Every truncation and flip of the control files, at the time at which each is read.
#[test]
fn damaged_control_files_are_errors_and_begin_nothing_anew() {
    let figures = Figures::new("two-phase-damage");
    let (source, target) = ready();
    begin(&source, &target);
    passes(&source, &target);
    let mut launcher = Inline::new(&source, options());
    let mut damaged = 0;
    let mut sweep = |names: &[&str]| {
        for name in names {
            let path = folder(&target).join(name);
            let good = std::fs::read(&path).unwrap();
            let step = scale(if good.len() > 1500 { 29 } else { 7 }, 1);
            for at in (0..good.len()).step_by(step) {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << (at % 8);
                for bytes in [&flipped[..], &good[..at]] {
                    std::fs::write(&path, bytes).unwrap();
                    let error = coordinator::step(&target, &source.archive, &options()).unwrap_err();
                    let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported];
                    assert!(kinds.contains(&error.kind()), "{name} {at}: {error:?}");
                    let opened = Engine::open(&target, options().create_if_missing(true)).unwrap_err();
                    assert_eq!(opened.kind(), ErrorKind::Refused, "{name} {at}");
                    damaged += 1;
                }
            }
            // One of a later version.
            let text = String::from_utf8(good.clone()).unwrap().replace("\"format\":1", "\"format\":2");
            let line = format!("{}\n", text.lines().next().unwrap());
            std::fs::write(&path, format!("{line}{:08x}\n", crc32fast::hash(line.as_bytes()))).unwrap();
            let error = coordinator::step(&target, &source.archive, &options()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error:?}");
            std::fs::write(&path, good).unwrap();
        }
    };
    sweep(&["STATUS", "SPEC", "PLAN", "runs/1/RUN"]);
    let Did::Launches(call, _) = pass(&source, &target) else { panic!("no worker is wanted") };
    launcher.launch(&call).unwrap();
    sweep(&["runs/1/RESULT"]);
    let Did::Launches(call, _) = passes(&source, &target) else { panic!("no worker is wanted") };
    sweep(&["STATUS", "runs/2/RUN"]);
    launcher.launch(&call).unwrap();
    sweep(&["runs/2/RESULT"]);
    assert!(launcher.errors.is_empty());
    let done = go_on(&source, &target);
    check(&source, &target, &done, Moment::Latest, "mended");
    figures.with("damaged", damaged).with("accepted wrongly", 0).print();
}

/// RUN is gone, and what was fetched with it; RESULT says that all is well.
#[test]
fn a_result_whose_record_is_gone_is_not_believed() {
    let (source, target) = ready();
    begin(&source, &target);
    passes(&source, &target);
    work(&source, &target, 1).unwrap();
    let run = folder(&target).join("runs/1");
    std::fs::remove_file(run.join("RUN")).unwrap();
    std::fs::remove_dir_all(folder(&target).join("db")).unwrap();
    assert!(run.join("RESULT").exists());
    let mut launcher = Inline::new(&source, options());
    let done = coordinator::run(&target, &source.archive, &options(), &mut launcher, &PACE).unwrap();
    assert_eq!(launcher.calls, [1, 2]);
    check(&source, &target, &done, Moment::Latest, "fetched again");
}
