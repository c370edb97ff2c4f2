//! Every call fails in turn, in each way in which it can.

use super::changes::{self, CHECKPOINT, UNDER_LOAD, acknowledged_of, written};
use super::child::{self, Ended, Orders};
use super::common::figures::{Figures, torture};
use super::common::{self, Content, options, sample, scratch};
use super::library::{Fault, Library, Report, Sort};
use super::scenario::{self, COUNT, Scenario, database};

use morphkv::testing::{EIO, ENOSPC, Operation, RealVfs, RecordingVfs};
use morphkv::{Engine, ErrorKind};
use serde_json::to_value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const fn sort(name: &'static str, kinds: &'static str, errno: i32, flags: &'static str) -> Sort {
    Sort { name, kinds, errno, flags }
}

const ALTHOUGH: &str = "EIO although carried out";

const SORTS: [Sort; 7] = [
    sort("EIO once", "ocwsdnutrflk", EIO, "-"),
    sort("EIO from then on", "ocwsdnutrflk", EIO, "k"),
    sort("EIO of reads from then on", "rf", EIO, "k"),
    sort(ALTHOUGH, "cwsdnut", EIO, "a"),
    sort("ENOSPC once", "cwsdnt", ENOSPC, "-"),
    sort("ENOSPC from then on, after half a write", "cwsdnt", ENOSPC, "sk"),
    // No failure at all: the rest is for the caller to ask for.
    sort("half of what was asked for", "wr", 0, "s"),
];

/// So many of the places in CI.
const CASES_IN_CI: usize = 420;

/// A scenario, how its place looks before, what a sound run calls, and what stands there afterwards.
struct Prepared {
    scenario: Scenario,
    before: TempDir,
    calls: Report,
    outcome: Outcome,
}

/// What stands at a place that came to rest: content, encoding, and whether an old database is kept.
#[derive(Debug, PartialEq, Eq)]
struct Outcome(Option<(Content, String, bool)>);

impl Outcome {
    fn of(directory: &Path) -> Result<Outcome, String> {
        let path = database(directory);
        let engine = match Engine::open(&path, options()) {
            Ok(engine) => engine,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcome(None)),
            // A legacy database that was only read, or one that is to be adopted: nothing was acknowledged.
            Err(error) => return Err(format!("{error:?}")),
        };
        let kept = path.with_extension("backup").exists();
        Ok(Outcome(Some((common::content(&engine), engine.encoding().name, kept))))
    }
}

/// A copy of a place in a directory of its own, with room beside it.
fn copy_of(before: &Path) -> (TempDir, PathBuf) {
    let room = scratch();
    let directory = room.path().join("place");
    common::copy_tree(before, &directory);
    (room, directory)
}

fn act(
    library: &Library,
    scenario: &Scenario,
    directory: &Path,
    fault: Option<Fault>,
) -> Result<(Ended, Report), String> {
    let orders = Orders::Act { scenario: scenario.name.to_owned(), directory: directory.to_owned() };
    child::run(library, &orders, directory, fault)
}

fn prepare(library: &Library, scenario: Scenario) -> Prepared {
    let before = scratch();
    (scenario.prepare)(before.path());
    let (_room, directory) = copy_of(before.path());
    let (ended, calls) = act(library, &scenario, &directory, None).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(ended, None, "{}", scenario.name);
    let outcome = Outcome::of(&directory).unwrap_or_else(|wrong| panic!("{}: {wrong}", scenario.name));
    Prepared { scenario, before, calls, outcome }
}

struct Case<'a> {
    prepared: &'a Prepared,
    fault: Fault,
    nth: usize,
}

#[derive(Default, Clone)]
struct Tally {
    /// Runs in which a call failed.
    faults: usize,
    failed_calls: usize,
    succeeded: usize,
    acknowledged: usize,
    opened: usize,
    by_end: BTreeMap<String, usize>,
}

impl Case<'_> {
    fn name(&self) -> String {
        let Fault { sort, at } = self.fault;
        format!("{}: {} at {at} of {}", self.prepared.scenario.name, sort.name, self.prepared.calls.eligible(sort))
    }

    /// Runs the child with the fault, and judges what it says and what it leaves.
    fn run(&self, library: &Library) -> Result<Tally, String> {
        let Prepared { scenario, before, outcome, .. } = self.prepared;
        let (_room, directory) = copy_of(before.path());
        let (ended, calls) = act(library, scenario, &directory, Some(self.fault))?;
        let mut tally = Tally { faults: usize::from(calls.failed > 0), failed_calls: calls.failed, ..Tally::default() };
        let end = ended.as_ref().map_or("Done", |(kind, _)| kind);
        *tally.by_end.entry(end.to_owned()).or_default() += 1;
        if let Some((kind, message)) = &ended {
            let expected = match self.fault.sort.errno {
                EIO => "Io",
                ENOSPC => "NoSpace",
                _ => return Err(format!("nothing failed, but: {message}")),
            };
            if calls.failed == 0 || kind != expected {
                return Err(format!("{} calls failed, expected {expected}: {message}", calls.failed));
            }
        }
        if scenario.name == UNDER_LOAD {
            tally.acknowledged = loaded(&directory)?;
            tally.opened += 1;
            return Ok(tally);
        }
        if ended.is_none() {
            tally.succeeded += usize::from(calls.failed > 0);
            let (_room, copy) = copy_of(&directory);
            let found = Outcome::of(&copy)?;
            if found != *outcome {
                return Err(format!("it said that all went well, but there stands {found:.200?}"));
            }
            tally.opened += 1;
        }
        if scenario.name == CHECKPOINT {
            copied(&directory, ended.is_none())?;
        }
        tally.opened += self.open(&directory)?;
        Ok(tally)
    }

    /// Opens what is left for each encoding that may be asked for; in the small size for one of them, by turns.
    fn open(&self, directory: &Path) -> Result<usize, String> {
        let requests = scenario::requests();
        let chosen = requests.len();
        let mut opened = 0;
        for (index, wanted) in requests.into_iter().enumerate() {
            if !torture() && index != self.nth % chosen {
                continue;
            }
            let (_room, copy) = copy_of(directory);
            let name = wanted.as_ref().map_or("unset", |encoding| encoding.name()).to_owned();
            let found = scenario::look(&self.prepared.scenario, &copy, wanted, &options());
            found.map_err(|wrong| format!("then opened as {name}: {wrong}"))?;
            opened += 1;
        }
        Ok(opened)
    }
}

/// What was acknowledged under load is there, with everything from before, and nothing but what was written.
fn loaded(directory: &Path) -> Result<usize, String> {
    let engine = Engine::open(database(directory), options()).map_err(|error| format!("{error:?}"))?;
    let mut found = common::content(&engine);
    for (key, value) in sample(COUNT) {
        if found.remove(&key) != Some(value) {
            return Err(format!("{key:?} was there before, and is lost or altered"));
        }
    }
    let acknowledged = acknowledged_of(directory);
    for number in &acknowledged {
        let (key, value) = written(*number);
        if found.remove(&key) != Some(value) {
            return Err(format!("write {number} was acknowledged, and is lost; {} were", acknowledged.len()));
        }
    }
    // What failed may have come about all the same.
    let attempted: Content = (0..changes::WRITES).map(written).collect();
    if found.iter().any(|(key, value)| attempted.get(key) != Some(value)) {
        return Err("there is something that nobody wrote".into());
    }
    Ok(acknowledged.len())
}

/// A copy stands whole at its name or not at all; an acknowledged one stands.
fn copied(directory: &Path, done: bool) -> Result<(), String> {
    let copy = directory.join("copy");
    if !copy.exists() {
        return if done { Err("the copy was acknowledged, and is not there".into()) } else { Ok(()) };
    }
    let engine = Engine::open(&copy, options()).map_err(|error| format!("the copy: {error:?}"))?;
    if common::content(&engine) == sample(COUNT) { Ok(()) } else { Err("the copy holds something else".into()) }
}

/// Does `work` for each item, on two threads.
fn on_two_threads<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(item));
        }
        done
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(run);
        let mut all = run();
        all.extend(other.join().unwrap());
        all
    })
}

/// Whether RocksDB may remove the files of a load although its MANIFEST names them: met at one call of each load, so none is
/// left out.
fn may_hide_a_load((prepared, fault): &(&Prepared, Fault)) -> bool {
    let is_load = ["bulk load", "load into an attached database"].contains(&prepared.scenario.name);
    is_load && fault.sort.name == ALTHOUGH
}

pub fn every_call_fails_in_turn() {
    let figures = Figures::new("disk-calls");
    let library = Library::make();
    let prepared: Vec<Prepared> = changes::all().into_iter().map(|scenario| prepare(&library, scenario)).collect();
    let mut cases = Vec::new();
    for prepared in &prepared {
        println!("{}: {} calls", prepared.scenario.name, prepared.calls.kinds.len());
        for sort in SORTS {
            let eligible = 0..prepared.calls.eligible(sort);
            cases.extend(eligible.map(|at| (prepared, Fault { sort, at })));
        }
    }
    let (all, step) = (cases.len(), if torture() { 1 } else { (cases.len() / CASES_IN_CI).max(1) });
    let sampled = |(nth, case): &(usize, (&Prepared, Fault))| nth % step == 0 || may_hide_a_load(case);
    let cases: Vec<_> = cases.into_iter().enumerate().filter(sampled).map(|(_, case)| case).enumerate().collect();
    let tallies = on_two_threads(&cases, |(nth, (prepared, fault))| {
        let case = Case { prepared, fault: *fault, nth: *nth };
        (fault.sort.name, case.run(&library).map_err(|wrong| format!("{}: {wrong}", case.name())))
    });
    print(figures, &prepared, all, tallies);
}

fn print(figures: Figures, prepared: &[Prepared], all: usize, tallies: Vec<(&'static str, Result<Tally, String>)>) {
    let wrong: Vec<_> = tallies.iter().filter_map(|(_, tally)| tally.as_ref().err()).collect();
    for wrong in wrong.iter().take(20) {
        println!("{wrong}");
    }
    let good: Vec<_> = tallies.iter().filter_map(|(sort, tally)| Some((*sort, tally.as_ref().ok()?))).collect();
    let sum = |part: fn(&Tally) -> usize| good.iter().map(|(_, tally)| part(tally)).sum::<usize>();
    let mut ends: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (sort, tally) in &good {
        for (end, count) in &tally.by_end {
            *ends.entry(sort).or_default().entry(end).or_default() += count;
        }
    }
    let calls: usize = prepared.iter().map(|prepared| prepared.calls.kinds.len()).sum();
    let faults = sum(|tally| tally.faults);
    println!("{ends:?}");
    figures
        .with("scenarios", prepared.len())
        .with("calls", calls)
        .with("points", all)
        .with("runs", tallies.len())
        .with("faults", faults)
        .with("failed-calls", sum(|tally| tally.failed_calls))
        .with("done-all-the-same", sum(|tally| tally.succeeded))
        .with("writes-acknowledged", sum(|tally| tally.acknowledged))
        .with("opened", sum(|tally| tally.opened))
        .with("wrong", wrong.len())
        .with("ends", to_value(&ends).unwrap())
        .print();
    assert!(wrong.is_empty(), "{} of {} runs ended badly, the first: {}", wrong.len(), tallies.len(), wrong[0]);
    assert!(faults >= 300, "only {faults} faults");
}

/// How often a child syncs a directory: its parent's name in it, or its files'. Where nobody else opens a database, each of
/// our own calls is one of the operating system's: on ext4 and XFS the sync of a file makes names durable too, so that no
/// power cut there can show that one was forgotten.
pub fn directories_are_really_synced() {
    let library = Library::make();
    let before = scratch();
    let scenario = super::scenario::named("destroy");
    (scenario.prepare)(before.path());
    let (_room, directory) = copy_of(before.path());
    let recording = Arc::new(RecordingVfs::new(Arc::new(RealVfs::default())));
    (scenario.act)(&directory, options().vfs(recording.clone())).unwrap();
    let ours = recording.take().iter().filter(|operation| matches!(operation, Operation::SyncDir(_))).count();
    let (_room, directory) = copy_of(before.path());
    let (ended, calls) = act(&library, &super::changes::named("destroy"), &directory, None).unwrap();
    assert_eq!(ended, None);
    let synced = calls.kinds.iter().filter(|kind| **kind == b'd').count();
    println!("directories synced: {synced}");
    assert!(ours > 5 && synced == ours, "{synced} directories were synced, {ours} were to be");
}
