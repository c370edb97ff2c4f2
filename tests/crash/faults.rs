//! Every call of the file operations fails in turn: once, from then on, and after it was carried out.
//!
//! Each scenario runs with a fault at call 0, 1, 2... until a run meets no fault any more. What the call returns must be
//! an error of the fault's own kind, or all of what was asked for. Then the place is opened again on a sound disk, and
//! compared as after a crash.

use super::common::figures::{Figures, torture};
use super::common::{self, options};
use super::outcome::{Outcome, require_spoken_of};
use super::scenario::{self, Scenario};
use super::sweep::on_two_threads;
use morphkv::ErrorKind;
use morphkv::testing::{Access, EIO, ENOSPC, Fault, FaultyVfs, RealVfs, Vfs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tempfile::TempDir;

/// A sort of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sort {
    name: &'static str,
    errno: i32,
    sticky: bool,
    carried_out: bool,
}

const fn sort(name: &'static str, errno: i32, sticky: bool, carried_out: bool) -> Sort {
    Sort { name, errno, sticky, carried_out }
}

const SORTS: [Sort; 5] = [
    sort("EIO once", EIO, false, false),
    sort("ENOSPC once", ENOSPC, false, false),
    sort("EIO from then on", EIO, true, false),
    sort("ENOSPC from then on", ENOSPC, true, false),
    sort("EIO although carried out", EIO, false, true),
];

impl Sort {
    /// Whether a call that does this can fail so.
    fn meets(self, access: Access) -> bool {
        match access {
            Access::Look => self.errno != ENOSPC && !self.carried_out,
            Access::Remove => self.errno != ENOSPC,
            Access::Write => true,
        }
    }

    fn kind(self) -> ErrorKind {
        if self.errno == ENOSPC { ErrorKind::NoSpace } else { ErrorKind::Io }
    }

    fn disk(self, at: u64) -> Arc<FaultyVfs> {
        let (sound, fault): (Arc<dyn Vfs>, _) =
            (Arc::new(RealVfs::default()), Fault { at, sticky: self.sticky, errno: self.errno });
        Arc::new(if self.carried_out {
            FaultyVfs::carrying_out(sound, fault)
        } else {
            FaultyVfs::new(sound, Some(fault))
        })
    }
}

/// A scenario, how the place looks before, what each call of a sound run does, and how the place looks afterwards.
struct Prepared {
    scenario: Scenario,
    before: TempDir,
    accesses: Vec<Access>,
    outcome: Outcome,
}

fn prepare(scenario: Scenario) -> Prepared {
    let (before, trial) = (common::scratch(), common::scratch());
    (scenario.prepare)(before.path());
    common::copy_tree(before.path(), trial.path());
    let counting = Arc::new(FaultyVfs::new(Arc::new(RealVfs::default()), None));
    (scenario.act)(trial.path(), options().vfs(counting.clone())).unwrap();
    let outcome = Outcome::of(trial.path(), scenario.name);
    Prepared { scenario, before, accesses: counting.accesses(), outcome }
}

struct Case<'a> {
    prepared: &'a Prepared,
    sort: Sort,
    at: u64,
}

#[derive(Default, Clone, Copy)]
struct Tally {
    /// Runs in which a call failed.
    runs: u64,
    failed_calls: u64,
    errors: u64,
    succeeded: u64,
    opened: u64,
}

/// One run with the fault of the case.
fn run(case: &Case<'_>) -> Tally {
    let Case { prepared: Prepared { scenario, before, outcome, .. }, sort, at } = case;
    let what = format!("{} at call {at}", sort.name);
    let name = format!("{}: {what}", scenario.name);
    let directory = common::scratch();
    common::copy_tree(before.path(), directory.path());
    let disk = sort.disk(*at);
    let acted = catch_unwind(AssertUnwindSafe(|| (scenario.act)(directory.path(), options().vfs(disk.clone()))));
    let acted = acted.unwrap_or_else(|_| panic!("{name}: a panic"));
    let failed_calls = disk.failed();
    require_spoken_of(directory.path(), &name);
    let mut tally = Tally { runs: u64::from(failed_calls > 0), failed_calls, ..Tally::default() };
    match acted {
        Ok(()) => {
            tally.succeeded += u64::from(failed_calls > 0);
            assert_eq!(Outcome::of(directory.path(), &name), *outcome, "{name}: it said that all went well");
        }
        Err(error) => {
            tally.errors += 1;
            assert!(failed_calls > 0, "{name}: no call failed, but: {error:?}");
            assert_eq!(error.kind(), sort.kind(), "{name}: {error:?}");
        }
    }
    scenario::check_unset(scenario, directory.path(), &what);
    tally.opened += 1;
    tally
}

/// Runs with the fault at the calls beyond the last one that a sound run has, until none fails.
fn run_beyond(prepared: &Prepared, sort: Sort) -> Vec<Tally> {
    let mut tallies = Vec::new();
    for at in prepared.accesses.len() as u64.. {
        let tally = run(&Case { prepared, sort, at });
        tallies.push(tally);
        if tally.runs == 0 {
            break;
        }
    }
    tallies
}

#[test]
fn at_every_call() {
    let figures = Figures::new("faults");
    let prepared: Vec<Prepared> = scenario::all().into_iter().map(prepare).collect();
    let mut cases = Vec::new();
    for (index, prepared) in prepared.iter().enumerate() {
        println!("{}: {} calls", prepared.scenario.name, prepared.accesses.len());
        for sort in SORTS {
            // In the small size every call fails, once and from then on; of those that are carried out all the same, every
            // fourth one says that it was not.
            let all = torture() || !sort.carried_out;
            let meets = prepared.accesses.iter().enumerate().filter(|(_, access)| sort.meets(**access));
            let chosen = meets.enumerate().filter(|(nth, _)| all || nth % 4 == index % 4);
            cases.extend(chosen.map(|(_, (at, _))| Case { prepared, sort, at: at as u64 }));
        }
    }
    let mut tallies: Vec<(Sort, Tally)> = on_two_threads(&cases, |case| (case.sort, run(case))).into_iter().collect();
    let beyond: Vec<_> = prepared.iter().flat_map(|prepared| SORTS.map(|sort| (prepared, sort))).collect();
    let last = on_two_threads(&beyond, |(prepared, sort)| (*sort, run_beyond(prepared, *sort)));
    tallies.extend(last.into_iter().flat_map(|(sort, runs)| runs.into_iter().map(move |tally| (sort, tally))));
    print(figures, &prepared, &tallies);
}

fn print(figures: Figures, prepared: &[Prepared], tallies: &[(Sort, Tally)]) {
    let calls: usize = prepared.iter().map(|prepared| prepared.accesses.len()).sum();
    let of = |sort: Sort, part: fn(&Tally) -> u64| {
        tallies.iter().filter(|(other, _)| *other == sort).map(|(_, tally)| part(tally)).sum::<u64>()
    };
    let all = |part: fn(&Tally) -> u64| tallies.iter().map(|(_, tally)| part(tally)).sum::<u64>();
    let mut figures = figures.with("calls", calls);
    let mut sorts = Vec::new();
    for sort in SORTS {
        let can = prepared.iter().flat_map(|prepared| &prepared.accesses).filter(|access| sort.meets(**access)).count();
        let done = of(sort, |tally| tally.runs);
        figures = figures.with(sort.name, format!("{done} of {can}"));
        sorts.push(done);
    }
    let faults: u64 = sorts.iter().sum();
    assert!(faults >= 300 && sorts.iter().all(|done| *done > 0), "{sorts:?} faults");
    figures
        .with("faults", faults)
        .with("failed-calls", all(|tally| tally.failed_calls))
        .with("errors", all(|tally| tally.errors))
        .with("done-all-the-same", all(|tally| tally.succeeded))
        .with("opened", all(|tally| tally.opened))
        .print();
}
