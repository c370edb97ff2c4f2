//! Planted defects: what a careless author might have written instead of this code, one defect at a time, and the tests
//! that must fail because of it. A test suite that cannot fail proves nothing; this is the proof that ours can.
//!
//! All defects are planted into one copy of the source, each behind a switch, so that it is compiled once. First the tests
//! run with all defects asleep, and must pass: what fails later fails because of the defect. Then each defect is woken
//! alone, and every test that its line names must fail by an assertion.
//!
//! A defect that no test can see because another step covers for it stands in [`redundant`], with that step; there the
//! tests must pass with the defect alone, and fail together with those of its line.
//!
//! There are two tables: that of the engine, and that of the archive and the restore ([`archive`], [`restore`]), whose tests
//! take long. The second one is worked in the large size; in the small one it is made sure that it fits the source.

mod archive;
#[path = "../common/mod.rs"]
mod common;
mod conversion;
mod engine;
mod files;
mod garden;
mod place;
mod plant;
mod redundant;
mod restore;

use common::figures::{Figures, torture};
use garden::{Garden, Ground};
use plant::Defect;
use redundant::Redundant;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn defects() -> Vec<Defect> {
    [files::defects(), place::defects(), conversion::defects(), engine::defects()].into_iter().flatten().collect()
}

/// One thing to be shown: these tests, with these defects awake, all fail (or all pass).
struct Trial {
    name: &'static str,
    awake: Vec<&'static str>,
    tests: &'static [&'static str],
    must_fail: bool,
}

fn trials(defects: &[Defect], redundant: &[Redundant]) -> Vec<Trial> {
    let mut trials: Vec<_> = defects
        .iter()
        .map(|defect| Trial { name: defect.name, awake: vec![defect.name], tests: defect.found_by, must_fail: true })
        .collect();
    for Redundant { defect, together_with, .. } in redundant {
        let (name, tests) = (defect.name, defect.found_by);
        trials.push(Trial { name, awake: vec![name], tests, must_fail: false });
        if !together_with.is_empty() {
            trials.push(Trial { name, awake: [&[name], *together_with].concat(), tests, must_fail: true });
        }
    }
    trials
}

/// Tests by binary: `refusals::bad_markers` is `bad_markers` of `refusals`.
fn by_binary<'t>(tests: impl IntoIterator<Item = &'t &'static str>) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut binaries = BTreeMap::<_, BTreeSet<_>>::new();
    for test in tests {
        let (binary, name) = test.split_once("::").expect("a test is named `binary::path`");
        binaries.entry(binary).or_default().insert(name);
    }
    binaries
}

struct Lab {
    garden: Garden,
    executables: BTreeMap<String, PathBuf>,
}

impl Lab {
    /// The complaint about a trial, if there is one, and how long it took.
    fn try_one(&self, trial: &Trial) -> (Option<String>, f64) {
        let mut seconds = 0.0;
        for (binary, tests) in by_binary(trial.tests) {
            let tests: Vec<_> = tests.into_iter().collect();
            let outcome = match self.garden.run(&self.executables[binary], &tests, &trial.awake) {
                Ok(outcome) => outcome,
                Err(error) => return (Some(format!("`{}`: {error}", trial.name)), seconds),
            };
            seconds += outcome.seconds;
            let wrong = if trial.must_fail { outcome.passed } else { outcome.failed };
            if !wrong.is_empty() {
                let how = if trial.must_fail { "survived" } else { "is found after all by" };
                return (Some(format!("`{}` {how} {binary}: {}", trial.name, wrong.join(", "))), seconds);
            }
        }
        (None, seconds)
    }

    /// With all defects asleep every test passes.
    fn control(&self, trials: &[Trial]) {
        for (binary, tests) in by_binary(trials.iter().flat_map(|trial| trial.tests)) {
            let tests: Vec<_> = tests.into_iter().collect();
            let outcome = self.garden.run(&self.executables[binary], &tests, &[]).unwrap();
            assert_eq!(outcome.failed, Vec::<String>::new(), "{binary} fails without any defect");
        }
    }
}

fn all<'d>(defects: &'d [Defect], redundant: &'d [Redundant]) -> Vec<&'d Defect> {
    let planted: Vec<_> = defects.iter().chain(redundant.iter().map(|row| &row.defect)).collect();
    let names: BTreeSet<_> = planted.iter().map(|defect| defect.name).collect();
    assert_eq!(names.len(), planted.len(), "a name stands twice in the table");
    planted
}

#[test]
fn every_planted_defect_is_found() {
    examine("mutants-code", &garden::ENGINE, defects(), redundant::defects());
}

#[test]
fn every_planted_defect_of_the_archive_and_the_restore_is_found() {
    let defects: Vec<_> = [archive::defects(), restore::defects()].into_iter().flatten().collect();
    let redundant = redundant::of_the_archive();
    if torture() {
        return examine("mutants-archive", &garden::ARCHIVE, defects, redundant);
    }
    let planted = all(&defects, &redundant);
    garden::planted(&planted);
    let tests = planted.iter().flat_map(|defect| defect.found_by).copied();
    assert_eq!(garden::missing_tests(tests), [""; 0], "tests that the table names are gone");
    println!("{} defects fit the source; make torture wakes each of them", planted.len());
}

fn examine(check: &'static str, ground: &Ground, defects: Vec<Defect>, redundant: Vec<Redundant>) {
    let figures = Figures::new(check);
    let planted = all(&defects, &redundant);
    let trials = trials(&defects, &redundant);
    let began = Instant::now();
    let garden = Garden::new(ground, &planted);
    let executables = garden.build(&by_binary(trials.iter().flat_map(|trial| trial.tests)).into_keys().collect());
    let lab = Lab { garden, executables };
    let build_seconds = began.elapsed().as_secs_f64();
    lab.control(&trials);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (complaint, seconds) = lab.try_one(trial);
                    println!("{:5.1} s  {}", seconds, complaint.as_deref().unwrap_or(trial.name));
                    done.lock().unwrap().push((trial, complaint));
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let complaints: Vec<_> = done.iter().filter_map(|(_, complaint)| complaint.clone()).collect();
    let wrong: BTreeSet<_> =
        done.iter().filter(|(_, complaint)| complaint.is_some()).map(|(trial, _)| trial.name).collect();
    let right = |names: Vec<&str>| names.iter().filter(|name| !wrong.contains(**name)).count();
    let tenths = |seconds: f64| (seconds * 10.0).round() / 10.0;
    figures
        .with("mutants", planted.len())
        .with("killed", right(defects.iter().map(|defect| defect.name).collect()))
        .with("redundant", right(redundant.iter().map(|row| row.defect.name).collect()))
        .with("survived", wrong.len())
        .with("seconds_per_mutant", tenths(began.elapsed().as_secs_f64() / planted.len() as f64))
        .with("build_seconds", tenths(build_seconds))
        .with("list", list(&defects, &redundant, &wrong))
        .print();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Every mutant with its fate, for the report.
fn list(defects: &[Defect], redundant: &[Redundant], wrong: &BTreeSet<&str>) -> serde_json::Value {
    let fate = |name: &str, fate: &'static str| if wrong.contains(name) { "survived" } else { fate };
    let killed = defects
        .iter()
        .map(|defect| json!({"mutant": defect.name, "fate": fate(defect.name, "killed"), "by": defect.found_by}));
    let redundant = redundant.iter().map(|row| {
        let name = row.defect.name;
        json!({"mutant": name, "fate": fate(name, "redundant"), "why": row.covered_by})
    });
    killed.chain(redundant).collect()
}
