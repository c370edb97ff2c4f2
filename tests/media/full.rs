//! Real full disks: free space is stepped from nothing to twice the size of the database, before a change begins and in
//! the middle of it, and under writers. Whatever is done either succeeds or ends with `NoSpace`; on the disk that is
//! still full every key can be read, and once there is room again nothing has been lost and the change succeeds.

mod changes;
mod writers;

use super::common::{self, Content, figures::Figures, figures::scale, sample};
use super::disks::{Disk, FileSystem};
use super::power::random;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::LazyLock;

/// Entries of the databases, and bytes of their values, which nothing compresses.
const COUNT: usize = 1_500;
const VALUE_BYTES: usize = 2_000;

pub fn on_ext4(room: &Path) {
    full_disks(room, FileSystem::Ext4, Figures::new("full-disks-ext4"), 128 << 20);
}

pub fn on_tmpfs(room: &Path) {
    full_disks(room, FileSystem::Tmpfs, Figures::new("full-disks-tmpfs"), 128 << 20);
}

pub fn on_xfs(room: &Path) {
    full_disks(room, FileSystem::Xfs, Figures::new("full-disks-xfs"), 320 << 20);
}

/// What was done, and what was found.
#[derive(Default)]
struct Tally {
    /// Free bytes that the disk was left with, and how often.
    sizes: BTreeSet<u64>,
    runs: u64,
    /// Of them, those in which the disk filled up while the change was under way.
    filled_meanwhile: u64,
    succeeded: u64,
    /// `NoSpace` of the preflight, with both figures and nothing touched.
    told_before: u64,
    /// `NoSpace` of something that met the full disk.
    met: u64,
    read_while_full: u64,
    opened: u64,
    acknowledged: u64,
    by_scenario: BTreeMap<String, u64>,
    /// One message for each run after which something was wrong.
    lost: Vec<String>,
}

impl Tally {
    fn run(&mut self, name: &str, free: u64) {
        self.runs += 1;
        self.sizes.insert(free);
        *self.by_scenario.entry(name.to_owned()).or_default() += 1;
    }

    fn and(mut self, other: Tally) -> Tally {
        self.sizes.extend(other.sizes);
        self.runs += other.runs;
        self.filled_meanwhile += other.filled_meanwhile;
        self.succeeded += other.succeeded;
        self.told_before += other.told_before;
        self.met += other.met;
        self.read_while_full += other.read_while_full;
        self.opened += other.opened;
        self.acknowledged += other.acknowledged;
        self.by_scenario.extend(other.by_scenario);
        self.lost.extend(other.lost);
        self
    }

    /// Runs a check; a panic in it is a loss, and the next state is looked at all the same.
    fn judge(&mut self, what: &str, check: impl FnOnce(&mut Tally)) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| check(self))).is_err() {
            self.lost.push(what.to_owned());
        }
    }
}

fn full_disks(room: &Path, file_system: FileSystem, figures: Figures, bytes: u64) {
    let disk = |name: &str| {
        let room = room.join(name);
        std::fs::create_dir_all(&room).unwrap();
        Disk::make(&room, file_system, bytes, "")
    };
    let (disk, writers_disk) = (disk("changes"), disk("writers"));
    the_disk_is_really_full(&disk);
    // Writers wait most of the time, for RocksDB to look whether there is room again.
    let tally = std::thread::scope(|scope| {
        let writers = scope.spawn(|| writers::on(&writers_disk));
        changes::on(&disk).and(writers.join().unwrap())
    });
    let by_scenario: Map<String, Value> =
        tally.by_scenario.iter().map(|(scenario, runs)| (scenario.clone(), (*runs).into())).collect();
    figures
        .with("sizes", tally.sizes.len())
        .with("runs", tally.runs)
        .with("filled up meanwhile", tally.filled_meanwhile)
        .with("succeeded", tally.succeeded)
        .with("no space, told before", tally.told_before)
        .with("no space, met", tally.met)
        .with("read while full", tally.read_while_full)
        .with("databases opened and compared", tally.opened)
        .with("acknowledged writes found again", tally.acknowledged)
        .with("lost", tally.lost.len())
        .with("by scenario", by_scenario)
        .print();
    assert!(tally.lost.is_empty(), "{} runs lost something:\n{}", tally.lost.len(), tally.lost.join("\n"));
    let sizes = tally.sizes.len();
    assert!(sizes >= scale(30, 300), "{sizes} sizes are too few");
    let outcomes = [tally.succeeded, tally.told_before, tally.met, tally.acknowledged];
    assert!(!outcomes.contains(&0), "an outcome that was never met: {outcomes:?}");
}

/// The check of the checker: what is left free can be written, and not a block more.
fn the_disk_is_really_full(disk: &Disk) {
    let (filler, nothing) = (disk.filler(), common::scratch());
    std::fs::write(nothing.path().join("something"), "1").unwrap();
    disk.put_in_place(nothing.path());
    for blocks in [0, 1, 10] {
        let left = filler.leave(blocks * filler.block());
        let path = disk.place().join("written");
        let written = std::fs::write(&path, vec![7; usize::try_from(left).unwrap() + 1]);
        let full = written.expect_err("more than was free could be written").kind();
        assert_eq!(full, std::io::ErrorKind::StorageFull);
        std::fs::remove_file(&path).unwrap();
        filler.give_back();
    }
}

/// Content of a few MB.
fn content() -> &'static Content {
    static CONTENT: LazyLock<Content> = LazyLock::new(|| {
        let value = |number: u64| {
            let words = (0..VALUE_BYTES as u64 / 8).map(|word| random(number, word));
            words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
        };
        sample(COUNT).into_keys().zip((0..).map(value)).collect()
    });
    &CONTENT
}

/// Free bytes from nothing to twice the size of the database: the first few blocks one by one, then in even steps.
fn sizes(database: u64, block: u64) -> Vec<u64> {
    let (blocks, steps) = (scale(6, 32), scale(26, 300));
    let few = (0..blocks).map(|blocks| blocks * block);
    let even = (1..=steps).map(|step| 2 * database * step / steps).map(|bytes| bytes - bytes % block);
    few.chain(even).collect::<BTreeSet<u64>>().into_iter().collect()
}
