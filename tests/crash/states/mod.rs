//! Every disk that a power cut can leave: each change is recorded once, file operation by file operation; for each of
//! its instants every legal state of the medium is formed, built, opened for each encoding that may be asked for, and
//! compared. Then the power goes again, at each instant of the recovery, until no new state appears.
//!
//! What is taken as one case: files that RocksDB wrote in staging between two operations of ours are unsynced until we
//! sync them, whatever RocksDB did; where more than five names of one directory are pending, not every combination of
//! them is formed but all prefixes, each one missing, each one alone, and some by chance.

mod build;
mod disk;
mod judge;
mod meddling;
mod mutants;
mod record;
mod redundant;

use super::common::figures::{Figures, scale};
use super::common::{self, options};
use super::scenario::{self, Scenario, database};
use build::Built;
use disk::{Chance, Change, Disk, Model};
use judge::{Outcome, Requests, State, Verdict, judge_all};
use morphkv::{Engine, manage};
use record::{Recording, Snapshot, Step, record};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A change, recorded.
struct Run {
    scenario: Scenario,
    recording: Recording,
    /// What of the start is not durable yet.
    unsynced: Vec<Change>,
    encoding_after: String,
}

fn run(scenario: Scenario) -> Run {
    let directory = common::scratch();
    (scenario.prepare)(directory.path());
    let recording = record(directory.path(), |vfs| (scenario.act)(directory.path(), options().vfs(vfs)).unwrap());
    let engine = Engine::open_read_only(database(directory.path()), options());
    let encoding_after = engine.map(|engine| engine.encoding().name).unwrap_or_default();
    Run { scenario, recording, unsynced: Vec::new(), encoding_after }
}

/// All changes that are crashed.
fn runs() -> Vec<Run> {
    scenario::all().into_iter().map(run).chain([meddling::unsynced_source()]).collect()
}

/// Goes through the steps on a disk of that model; `visit` is told the number of the step at each of its instants.
fn replay(start: &Snapshot, unsynced: &[Change], steps: &[Step], model: Model, visit: &mut dyn FnMut(usize, &Disk)) {
    let mut disk = Disk::new(start.root, start.nodes.clone(), model);
    for change in unsynced {
        disk.apply(change, false);
    }
    visit(0, &disk);
    for (index, step) in steps.iter().enumerate() {
        one_step(&mut disk, step, &mut |disk| visit(index, disk));
    }
}

/// What RocksDB did before our operation, and the operation.
fn one_step(disk: &mut Disk, step: &Step, visit: &mut dyn FnMut(&Disk)) {
    if !step.before.is_empty() {
        for (change, trusted) in &step.before {
            disk.apply(change, *trusted);
        }
        visit(disk);
    }
    for change in &step.own {
        disk.apply(change, false);
    }
    visit(disk);
}

/// The states of a change: each once, and which of them belong to which model and step.
struct States {
    all: Vec<(u128, State)>,
    cells: Vec<(Model, Vec<Vec<u128>>)>,
}

fn states(start: &Snapshot, unsynced: &[Change], steps: &[Step], most: usize) -> States {
    let mut known = HashSet::new();
    let mut found = States { all: Vec::new(), cells: Vec::new() };
    for model in Model::ALL {
        let mut cells = vec![Vec::new(); steps.len().max(1)];
        replay(start, unsynced, steps, model, &mut |index, disk| {
            let mut chance = Chance(index as u64);
            for nodes in disk.states(most, &mut chance) {
                let state = State { root: disk.root, nodes };
                let identity = state.identity();
                cells[index].push(identity);
                if known.insert(identity) {
                    found.all.push((identity, state));
                }
            }
        });
        for cell in &mut cells {
            cell.sort_unstable();
            cell.dedup();
        }
        found.cells.push((model, cells));
    }
    found
}

fn require_sound(run: &Run, verdicts: &HashMap<u128, Verdict>, states: &States, depth: &str) {
    for (model, cells) in &states.cells {
        for (index, cell) in cells.iter().enumerate() {
            for identity in cell {
                if let Some(Err(wrong)) = verdicts.get(identity) {
                    let label = run.recording.steps.get(index).map_or("", |step| &step.label);
                    let name = run.scenario.name;
                    panic!("{name}: {depth}, {} model, step {index} ({label}): {wrong}", model.name());
                }
            }
        }
    }
}

fn grid(run: &Run, states: &States, verdicts: &HashMap<u128, Verdict>) -> Value {
    let count = |cell: &[u128], outcome: Outcome| {
        cell.iter().filter(|identity| matches!(&verdicts[identity], Ok(found) if *found == outcome)).count()
    };
    let cell = |cell: &Vec<u128>| {
        json!({
            "states": cell.len(),
            "old": count(cell, Outcome::Old),
            "new": count(cell, Outcome::New),
            "absent": count(cell, Outcome::Absent),
            "refused": count(cell, Outcome::Refused),
            "bad": cell.iter().filter(|identity| verdicts[identity].is_err()).count(),
        })
    };
    let points: Vec<&str> = run.recording.steps.iter().map(|step| step.label.as_str()).collect();
    let rows: Vec<Value> = states
        .cells
        .iter()
        .map(|(model, cells)| json!({"model": model.name(), "cells": cells.iter().map(cell).collect::<Vec<_>>()}))
        .collect();
    json!({"scenario": run.scenario.name, "points": points, "rows": rows})
}

/// The recovery from a state, recorded.
fn recovery(state: &State) -> Option<Recording> {
    let built = Built::new(state.root, &state.nodes);
    if !built.twins.is_empty() {
        return None;
    }
    let directory = built.directory.path();
    Some(record(directory, |vfs| drop(manage::recover(database(directory), &options().vfs(vfs), true))))
}

/// Which way a recovery goes: its operations by place, however many files each place has.
fn way(recording: &Recording) -> String {
    let mut way: Vec<&str> = recording.steps.iter().map(|step| step.label.split('/').next().unwrap_or("")).collect();
    way.dedup();
    way.join("\n")
}

/// Crashes inside recovery, and inside the recovery from those, until no new state appears. In CI from one state of each
/// way that recovery goes, but for those that `ways` has already; in the large size from every state.
fn recover_and_crash(
    run: &Run,
    first: &[(u128, State)],
    known: &mut HashSet<u128>,
    ways: &mut BTreeSet<String>,
) -> (usize, usize) {
    let (mut recoveries, mut crashes) = (0, 0);
    let mut round: Vec<(u128, State)> = first.to_vec();
    for depth in 2..20 {
        let mut next = States { all: Vec::new(), cells: Vec::new() };
        for (_, state) in &round {
            let Some(recording) = recovery(state) else { continue };
            if recording.steps.is_empty() || !ways.insert(way(&recording)) && scale(true, false) {
                continue;
            }
            recoveries += 1;
            let found = states(&recording.start, &[], &recording.steps, scale(12, 60));
            next.all.extend(found.all.into_iter().filter(|(identity, _)| known.insert(*identity)));
        }
        if next.all.is_empty() {
            return (recoveries, crashes);
        }
        crashes += next.all.len();
        println!("round {depth}: {recoveries} recoveries, {} states", next.all.len());
        let verdicts = judge_all(&run.scenario, &next.all, Requests::Unset, &run.encoding_after);
        for (identity, _) in &next.all {
            if let Err(wrong) = &verdicts[identity] {
                panic!("{}: after {depth} crashes, the last inside recovery: {wrong}", run.scenario.name);
            }
        }
        round = next.all;
    }
    panic!("{}: recovery does not come to a fixpoint", run.scenario.name);
}

/// How many states of an instant are formed.
fn most(scenario: &Scenario) -> usize {
    if scenario.in_part() { 6 } else { scale(24, 400) }
}

#[test]
fn every_state_of_the_disk() {
    let figures = Figures::new("crash-states");
    let (mut distinct, mut opened, mut refused, mut recoveries, mut crashes) = (0, 0, 0, 0, 0);
    let (mut grids, mut ways) = (Vec::new(), BTreeSet::new());
    for run in runs() {
        let began = std::time::Instant::now();
        let found = states(&run.recording.start, &run.unsynced, &run.recording.steps, most(&run.scenario));
        println!("{}: {} states", run.scenario.name, found.all.len());
        let verdicts = judge_all(&run.scenario, &found.all, Requests::All, &run.encoding_after);
        println!("{}: judged after {:.1} s", run.scenario.name, began.elapsed().as_secs_f64());
        require_sound(&run, &verdicts, &found, "one crash");
        let twins = verdicts.values().filter(|verdict| matches!(verdict, Ok(Outcome::Refused))).count();
        distinct += found.all.len();
        refused += twins;
        opened += 3 * (found.all.len() - twins);
        grids.push(grid(&run, &found, &verdicts));
        let mut known: HashSet<u128> = found.all.iter().map(|(identity, _)| *identity).collect();
        let inside = recover_and_crash(&run, &found.all, &mut known, &mut ways);
        recoveries += inside.0;
        crashes += inside.1;
        println!(
            "{}: {} steps, {} states, {} inside recovery, {:.1} s",
            run.scenario.name,
            run.recording.steps.len(),
            found.all.len(),
            inside.1,
            began.elapsed().as_secs_f64()
        );
    }
    figures
        .with("states", distinct)
        .with("states inside recovery", crashes)
        .with("recoveries crashed", recoveries)
        .with("opened and compared", opened + crashes)
        .with("refused whole (a directory under two names)", refused)
        .with("lost", 0)
        .with("wrong", 0)
        .with("silently empty", 0)
        .with("grid", grids)
        .print();
    assert!(distinct >= 2_000, "{distinct}");
    assert!(scale(true, distinct + crashes >= 20_000), "{distinct} + {crashes}");
}
