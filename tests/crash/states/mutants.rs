//! The checker is checked: what would be if a sync were forgotten, two steps swapped, a file written in place, a directory
//! removed under its own name. Each such mutant of a recorded change must lead to a state that loses something, or
//! stand in the table of redundant steps with what covers for it.

use super::super::common::figures::Figures;
use super::disk::{Chance, Change, Disk, Model, Node, Nodes};
use super::judge::{Requests, State, Verdict, judge};
use super::record::Step;
use super::redundant::REDUNDANT;
use super::{Run, one_step, replay, runs, states};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone)]
struct Mutant {
    name: String,
    steps: Vec<Step>,
    /// The steps that are not as they were.
    changed: Range<usize>,
}

fn is_sync(step: &Step) -> bool {
    matches!(step.own.as_slice(), [Change::SyncFile(_) | Change::SyncDirectory(_)])
}

/// What a step is, told apart from its like: a sync by what was done before it.
fn name_of(steps: &[Step], index: usize) -> String {
    let label = &steps[index].label;
    let cause = steps[..index].iter().rev().find(|step| !is_sync(step)).map_or("the start", |step| step.label.as_str());
    if label.starts_with("sync-dir") { format!("{label} after {cause}") } else { label.clone() }
}

/// Each sync left out.
fn dropped(run: &Run) -> Vec<Mutant> {
    let steps = &run.recording.steps;
    let drop = |index: usize| {
        let mut mutated = steps.clone();
        mutated[index].own.clear();
        let name = format!("without {}", name_of(steps, index));
        Mutant { name, steps: mutated, changed: index..index + 1 }
    };
    (0..steps.len()).filter(|index| is_sync(&steps[*index])).map(drop).collect()
}

/// Each two neighbours swapped, where the second can be done without the first.
fn swapped(run: &Run) -> Vec<Mutant> {
    let steps = &run.recording.steps;
    let mut mutants = Vec::new();
    for index in 1..steps.len() {
        let (first, second) = (&steps[index - 1], &steps[index]);
        let mut before =
            if index > 1 { steps[index - 2].after.nodes.clone() } else { run.recording.start.nodes.clone() };
        // What RocksDB did between the two stays before both.
        for (change, _) in first.before.iter().chain(&second.before) {
            done(&mut before, change);
        }
        if can_be_swapped(&before, first, second) {
            let mut mutated = steps.clone();
            let between = std::mem::take(&mut mutated[index].before);
            mutated[index - 1].before.extend(between);
            mutated[index - 1].own = second.own.clone();
            mutated[index].own = first.own.clone();
            let name = format!("{} before {}", name_of(steps, index), name_of(steps, index - 1));
            mutants.push(Mutant { name, steps: mutated, changed: index - 1..index + 1 });
        }
    }
    mutants
}

fn can_be_swapped(before: &Nodes, first: &Step, second: &Step) -> bool {
    if first.own.is_empty() || second.own.is_empty() || is_sync(first) && is_sync(second) {
        return false;
    }
    let both = |order: [&Step; 2]| -> Option<Nodes> {
        let mut nodes = before.clone();
        for change in order.iter().flat_map(|step| &step.own) {
            if !can_be_done(&nodes, change) {
                return None;
            }
            done(&mut nodes, change);
        }
        Some(nodes)
    };
    let swapped = both([second, first]);
    swapped.is_some() && swapped == both([first, second])
}

fn can_be_done(nodes: &Nodes, change: &Change) -> bool {
    match change {
        Change::New(..) => true,
        Change::Contents(inode, _) | Change::SyncFile(inode) | Change::SyncDirectory(inode) => {
            nodes.contains_key(inode)
        }
        Change::Names(directory, sets) => {
            let Some(Node::Directory(names)) = nodes.get(directory) else { return false };
            sets.iter().all(|(name, inode)| match inode {
                Some(inode) => nodes.contains_key(inode),
                None => names.get(name).is_some_and(|gone| {
                    // Only an empty directory can be removed; one that is renamed has got its new name first.
                    sets.len() > 1 || !matches!(&nodes[gone], Node::Directory(inside) if !inside.is_empty())
                }),
            })
        }
    }
}

fn done(nodes: &mut Nodes, change: &Change) {
    match change {
        Change::New(inode, node) => {
            nodes.insert(*inode, node.clone());
        }
        Change::Contents(inode, contents) => {
            nodes.insert(*inode, Node::File(contents.clone()));
        }
        Change::Names(directory, sets) => {
            let Some(Node::Directory(names)) = nodes.get_mut(directory) else { return };
            for (name, inode) in sets {
                match inode {
                    Some(inode) => names.insert(name.clone(), *inode),
                    None => names.remove(name),
                };
            }
        }
        Change::SyncFile(_) | Change::SyncDirectory(_) => {}
    }
}

/// A control file written under its own name, without a temporary one and without a sync.
fn written_in_place(run: &Run) -> Vec<Mutant> {
    let steps = &run.recording.steps;
    let mut mutants = Vec::new();
    for index in 0..steps.len().saturating_sub(3) {
        let [create, _, rename, _] = &steps[index..index + 4] else { continue };
        let (Some(file), true) = (create.label.strip_prefix("create "), rename.label.starts_with("rename-over")) else {
            continue;
        };
        let file = file.replace(".new", "");
        let mut mutated = steps.clone();
        for (change, new) in create.own.iter().zip(&mut mutated[index].own) {
            if let (Change::Names(directory, _), Some(Change::Names(_, sets))) = (change, rename.own.first()) {
                *new = Change::Names(*directory, sets[..1].to_vec());
            }
        }
        for step in &mut mutated[index + 1..index + 4] {
            step.own.clear();
        }
        mutants.push(Mutant { name: format!("{file} written in place"), steps: mutated, changed: index..index + 4 });
    }
    mutants
}

/// A directory removed under its own name, and removed before what makes it superfluous is durable.
fn removed_early(run: &Run) -> Vec<Mutant> {
    let steps = &run.recording.steps;
    let mut mutants = Vec::new();
    let Some(swap) = steps.iter().position(|step| step.label == "rename db -> db.backup") else { return mutants };
    let trash = steps[swap..].iter().position(|step| step.label == "rename db.backup -> db.trash");
    if let Some(trash) = trash.map(|trash| swap + trash) {
        let mut in_place = steps.clone();
        in_place[trash].own.clear();
        in_place[trash + 1].own.clear();
        for step in &mut in_place[trash..] {
            for change in &mut step.own {
                if let Change::Names(_, sets) = change {
                    sets.iter_mut().filter(|(name, _)| name == "db.trash").for_each(|set| set.0 = "db.backup".into());
                }
            }
        }
        let name = "the backup directory removed under its own name".to_owned();
        mutants.push(Mutant { name, steps: in_place, changed: trash..steps.len() });
        let mut early = steps.clone();
        for step in early[swap..trash + 2].iter_mut().filter(|step| step.label == "sync-dir (parent)") {
            step.own.clear();
        }
        let name = "the backup directory removed before any sync of the swap".to_owned();
        mutants.push(Mutant { name, steps: early, changed: swap..trash + 2 });
    }
    mutants
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Killed,
    /// It leads to no state of the disk that the right order does not lead to as well.
    NothingNew,
    /// It leads to new states, and all of them are sound.
    Redundant,
}

/// The disks of the right order, after each of its steps, of one model.
struct Right {
    start: Disk,
    after: Vec<Disk>,
}

fn right_disks(run: &Run, model: Model) -> Right {
    let recording = &run.recording;
    let mut start = None;
    let mut after: Vec<Option<Disk>> = vec![None; recording.steps.len()];
    replay(&recording.start, &run.unsynced, &recording.steps, model, &mut |index, disk| {
        start.get_or_insert_with(|| disk.clone());
        after[index] = Some(disk.clone());
    });
    Right { start: start.unwrap(), after: after.into_iter().flatten().collect() }
}

/// The states that a mutant leads to, from its first change until its disk is as it should be again.
fn states_of(mutant: &Mutant, right: &[Right], known: &BTreeSet<u128>) -> Vec<(u128, State)> {
    let mut found = BTreeMap::new();
    for Right { start, after } in right {
        let first = mutant.changed.start;
        let mut disk = if first == 0 { start.clone() } else { after[first - 1].clone() };
        for (index, step) in mutant.steps.iter().enumerate().skip(first) {
            one_step(&mut disk, step, &mut |disk| {
                for nodes in disk.states(MOST, &mut Chance(index as u64)) {
                    let state = State { root: disk.root, nodes };
                    let identity = state.identity();
                    if !known.contains(&identity) {
                        found.entry(identity).or_insert(state);
                    }
                }
            });
            if index >= mutant.changed.end && disk == after[index] {
                break;
            }
        }
    }
    found.into_iter().collect()
}

/// Judges the states of a mutant that the right order does not have, until one is wrong.
fn fate(run: &Run, fresh: &[(u128, State)], judged: &mut HashMap<u128, Verdict>) -> Fate {
    if fresh.iter().any(|(identity, _)| matches!(judged.get(identity), Some(Err(_)))) {
        return Fate::Killed;
    }
    for (identity, state) in fresh {
        let verdict = judged
            .entry(*identity)
            .or_insert_with(|| judge(&run.scenario, state, Requests::Unset, &run.encoding_after));
        if verdict.is_err() {
            return Fate::Killed;
        }
    }
    if fresh.is_empty() { Fate::NothingNew } else { Fate::Redundant }
}

/// How many states of an instant are tried; the same for the right order and for a mutant.
const MOST: usize = 24;

fn mutants(run: &Run) -> Vec<Mutant> {
    [dropped(run), swapped(run), written_in_place(run), removed_early(run)].concat()
}

/// The fate of each mutant of one change.
fn fates(run: &Run, left_out: &BTreeSet<String>) -> Vec<(String, Fate)> {
    let known = states(&run.recording.start, &run.unsynced, &run.recording.steps, MOST);
    let known: BTreeSet<u128> = known.all.iter().map(|(identity, _)| *identity).collect();
    let right = Model::ALL.map(|model| right_disks(run, model));
    let mut judged = HashMap::new();
    mutants(run)
        .into_iter()
        .filter(|mutant| !left_out.contains(&mutant.name))
        .map(|mutant| {
            let fate = fate(run, &states_of(&mutant, &right, &known), &mut judged);
            (mutant.name, fate)
        })
        .collect()
}

/// Whether `name` fits: each `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    (0..=name.len()).any(|skip| name.is_char_boundary(skip) && fits(rest, &name[skip..]))
}

/// The row of the table that explains why a mutant is harmless.
fn explanation(scenario: &str, mutant: &str) -> Option<usize> {
    REDUNDANT
        .iter()
        .position(|row| fits(row.mutant, mutant) && (row.scenarios.is_empty() || row.scenarios.contains(&scenario)))
}

#[test]
fn every_mutant_of_the_order() {
    let figures = Figures::new("mutants-order");
    let runs = runs();
    // What a change that is like another one has for itself.
    let (whole, none) = (runs.iter().filter(|run| !run.scenario.in_part()), BTreeSet::new());
    let elsewhere: BTreeSet<String> = whole.flat_map(mutants).map(|mutant| mutant.name).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut fates_of_runs = Vec::new();
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = std::time::Instant::now();
            let fates = fates(run, if run.scenario.in_part() { &elsewhere } else { &none });
            println!("{}: {} mutants, {:.1} s", run.scenario.name, fates.len(), began.elapsed().as_secs_f64());
            fates_of_runs.push((run.scenario.name, fates));
        }
        fates_of_runs
    };
    let all = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        [work(), other.join().unwrap()].concat()
    });
    let mut counts: BTreeMap<Fate, usize> = BTreeMap::new();
    let mut used = BTreeSet::new();
    let mut unexplained = Vec::new();
    let mut listed: Vec<Value> = Vec::new();
    for (scenario, fates) in &all {
        for (mutant, fate) in fates {
            *counts.entry(*fate).or_default() += 1;
            let row = explanation(scenario, mutant).filter(|_| *fate == Fate::Redundant);
            used.extend(row);
            if *fate == Fate::Redundant && row.is_none() {
                unexplained.push(format!("{scenario}: {mutant}"));
            }
            let covered = row.map(|row| REDUNDANT[row].covered_by);
            listed.push(json!({"scenario": scenario, "mutant": mutant, "fate": format!("{fate:?}"), "why": covered}));
        }
    }
    let count = |fate| counts.get(&fate).copied().unwrap_or(0);
    figures
        .with("mutants", listed.len())
        .with("killed", count(Fate::Killed))
        .with("without a new state", count(Fate::NothingNew))
        .with("redundant, explained", count(Fate::Redundant) - unexplained.len())
        .with("survived", unexplained.len())
        .with("list", listed)
        .print();
    assert!(unexplained.is_empty(), "not killed, and not in the table:\n{}", unexplained.join("\n"));
    let idle: Vec<_> =
        (0..REDUNDANT.len()).filter(|row| !used.contains(row)).map(|row| REDUNDANT[row].mutant).collect();
    assert!(idle.is_empty(), "explained, but not redundant: {idle:#?}");
}
