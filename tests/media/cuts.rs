//! Power cuts on real file systems: after each file operation of a change the file system is shut down and the process
//! with it; what its journal then brings back must open with every key.

use super::acknowledged;
use super::child::{self, Orders};
use super::common::{self, figures::Figures, figures::scale};
use super::disks::{Disk, FileSystem};
use super::power::{Cut, Weather, random};
use super::scenario::{self, Scenario};
use super::shipping;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;

/// The change whose every operation is cut, also in CI.
const MAIN: &str = "convert to hierarchical";
const OTHERS: [&str; 7] =
    ["create", "convert to natural", "convert and keep", "roll back", "drop the kept database", "destroy", "adopt"];

/// Somebody else syncs, and every operation takes its time.
const BUSY: Weather = Weather { neighbour: true, wait_micros: 2_000, ..Weather::CALM };
/// The journal is written once more before the end, data is not.
const JOURNALLED: Weather = Weather { cut: Cut::AfterJournal, ..Weather::CALM };
/// Everything is written once more before the end: no worse than a kill.
const SYNCED: Weather = Weather { cut: Cut::AfterAll, ..Weather::CALM };

/// One pass over the operations of a scenario.
struct Pass {
    scenario: &'static str,
    /// Every so manyth operation.
    step: u64,
    weather: Weather,
    /// Every so manyth cut is followed by one in the recovery from it.
    again: u64,
    /// Mount options.
    options: &'static str,
}

fn pass(scenario: &'static str, step: u64, weather: Weather) -> Pass {
    Pass { scenario, step, weather, again: 3, options: "" }
}

/// What ext4 may be told to promise less, or other things.
const EXT4_OPTIONS: [&str; 4] = ["data=writeback,noauto_da_alloc", "nodelalloc", "commit=1", "data=journal"];

fn passes(file_system: FileSystem) -> Vec<Pass> {
    let ext4 = file_system == FileSystem::Ext4;
    if common::figures::torture() {
        return all_passes(ext4);
    }
    let mut passes = vec![pass(MAIN, if ext4 { 1 } else { 3 }, Weather::CALM)];
    passes.extend(OTHERS.map(|scenario| pass(scenario, 8, Weather::CALM)));
    passes.extend([BUSY, JOURNALLED].map(|weather| pass(MAIN, 11, weather)));
    passes.push(pass(MAIN, 19, SYNCED));
    if ext4 {
        passes.push(Pass { options: EXT4_OPTIONS[0], ..pass(MAIN, 11, Weather::CALM) });
    }
    passes
}

fn all_passes(ext4: bool) -> Vec<Pass> {
    let mut passes = Vec::new();
    for scenario in scenario::all().iter().map(|scenario| scenario.name) {
        passes.push(Pass { again: 1, ..pass(scenario, 1, Weather::CALM) });
        passes.extend((1..=2).map(|seed| pass(scenario, 1, Weather { seed, ..BUSY })));
        passes.push(pass(scenario, 1, JOURNALLED));
        passes.push(pass(scenario, 5, SYNCED));
        // Long enough for the kernel's own writeback and its commits.
        passes.push(pass(scenario, 7, Weather { wait_micros: 100_000, ..Weather::CALM }));
        let options: &[&str] = if ext4 { &EXT4_OPTIONS } else { &[] };
        passes.extend(options.iter().map(|options| Pass { options, ..pass(scenario, 2, Weather::CALM) }));
        passes.extend(options.iter().take(1).map(|options| Pass { options, ..pass(scenario, 2, BUSY) }));
    }
    passes
}

pub fn on_ext4(room: &Path) {
    cuts(room, FileSystem::Ext4, Figures::new("power-cuts-ext4"), 96 << 20);
}

pub fn on_xfs(room: &Path) {
    // XFS takes no less than 300 MB.
    cuts(room, FileSystem::Xfs, Figures::new("power-cuts-xfs"), 320 << 20);
}

/// What was done, and what was found.
pub struct Tally {
    pub cuts: u64,
    pub cuts_in_recovery: u64,
    pub opened: u64,
    pub acknowledged: u64,
    pub by_scenario: BTreeMap<String, u64>,
    /// One message for each state that did not open with all that was promised.
    pub lost: Vec<String>,
}

impl Tally {
    pub fn cut(&mut self, scenario: &str) {
        self.cuts += 1;
        *self.by_scenario.entry(scenario.to_owned()).or_default() += 1;
    }

    /// Runs a check; a panic in it is a loss, and the next state is looked at all the same.
    pub fn judge(&mut self, databases: u64, what: &str, check: impl FnOnce()) {
        match std::panic::catch_unwind(AssertUnwindSafe(check)) {
            Ok(()) => self.opened += databases,
            Err(_) => self.lost.push(what.to_owned()),
        }
    }
}

fn cuts(room: &Path, file_system: FileSystem, figures: Figures, bytes: u64) {
    let mut disk = Disk::make(room, file_system, bytes, "");
    for weather in [Weather::CALM, JOURNALLED, SYNCED] {
        the_power_is_really_cut(&disk, weather);
    }
    let mut tally = Tally {
        cuts: 0,
        cuts_in_recovery: 0,
        opened: 0,
        acknowledged: 0,
        by_scenario: BTreeMap::new(),
        lost: Vec::new(),
    };
    for pass in passes(file_system) {
        disk.mount_with(pass.options);
        run(&disk, &pass, &mut tally);
    }
    disk.mount_with("");
    acknowledged::cuts(&disk, room, &mut tally);
    shipping::cuts(&disk, room, &mut tally);
    let by_scenario: Map<String, Value> =
        tally.by_scenario.iter().map(|(scenario, cuts)| (scenario.clone(), (*cuts).into())).collect();
    figures
        .with("cuts", tally.cuts)
        .with("of them inside recovery", tally.cuts_in_recovery)
        .with("databases opened and compared", tally.opened)
        .with("acknowledged writes found again", tally.acknowledged)
        .with("lost", tally.lost.len())
        .with("by scenario", by_scenario)
        .print();
    assert!(tally.lost.is_empty(), "{} states lost something:\n{}", tally.lost.len(), tally.lost.join("\n"));
    assert!(tally.cuts >= scale(40, 1_000), "{} cuts are too few", tally.cuts);
}

/// The check of the checker: what was not synced is gone after a cut, what was synced is there.
fn the_power_is_really_cut(disk: &Disk, weather: Weather) {
    let nothing = common::scratch();
    disk.put_in_place(nothing.path());
    let output = child::run(&Orders::Leave { directory: disk.place(), weather });
    assert!(child::lost_power(&output, "a child that leaves two files"), "it came to its end");
    assert!(disk.is_off(), "the file system goes on");
    disk.power_on();
    let read = |name: &str| std::fs::read_to_string(disk.place().join(name)).unwrap_or_default();
    assert_eq!(read("synced"), "all of it", "{weather:?}");
    let unsynced = if weather.cut == Cut::AfterAll { "all of it" } else { "" };
    assert_eq!(read("unsynced"), unsynced, "{weather:?}");
}

fn run(disk: &Disk, pass: &Pass, tally: &mut Tally) {
    let scenario = scenario::named(pass.scenario);
    let prepared = common::scratch();
    (scenario.prepare)(prepared.path());
    let operations = count(disk, &scenario, prepared.path());
    let mut at = 1;
    while at <= operations {
        let weather = Weather { seed: random(pass.weather.seed, at), ..pass.weather };
        let what =
            format!("{}, cut after operation {at} of {operations} ({weather:?}, {:?})", pass.scenario, pass.options);
        disk.put_in_place(prepared.path());
        let orders = act(Some(pass.scenario), disk, at, weather);
        assert!(child::lost_power(&child::run(&orders), &what), "{what}: it came to its end");
        assert!(disk.is_off(), "{what}: the file system goes on");
        disk.power_on();
        tally.cut(pass.scenario);
        let what = cut_again(disk, pass, at, weather, what, tally);
        let left = common::scratch();
        common::copy_tree(&disk.place(), left.path());
        tally.judge(3, &what, || scenario::check(&scenario, left.path(), &what));
        if at.is_multiple_of(4) {
            tally.judge(1, &what, || scenario::check_unset(&scenario, &disk.place(), &what));
        }
        at += pass.step;
    }
}

fn act(scenario: Option<&str>, disk: &Disk, at: u64, weather: Weather) -> Orders {
    Orders::Act { scenario: scenario.map(str::to_owned), directory: disk.place(), at, weather }
}

/// The number of file operations of a scenario that nothing disturbs.
fn count(disk: &Disk, scenario: &Scenario, prepared: &Path) -> u64 {
    disk.put_in_place(prepared);
    let output = child::run(&act(Some(scenario.name), disk, 0, Weather::CALM));
    assert!(!child::lost_power(&output, scenario.name), "{}: cut without orders", scenario.name);
    let counted = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(counted > 0, "{} has no operation to be cut after", scenario.name);
    counted
}

/// Some of the recoveries are cut in their turn, at an operation that chance chooses.
fn cut_again(disk: &Disk, pass: &Pass, at: u64, weather: Weather, what: String, tally: &mut Tally) -> String {
    if !(at / pass.step).is_multiple_of(pass.again) {
        return what;
    }
    disk.sync();
    let second = 1 + random(weather.seed, at) % 16;
    let what = format!("{what}, opened, cut again after operation {second}");
    if !child::lost_power(&child::run(&act(None, disk, second, weather)), &what) {
        return what; // The recovery was over before.
    }
    disk.power_on();
    tally.cut(pass.scenario);
    tally.cuts_in_recovery += 1;
    what
}
