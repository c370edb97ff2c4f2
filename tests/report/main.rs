//! The picture of the proof: `target/torture/report.html`, drawn from the figures that the checks left behind.
//!
//! `make torture` runs it last. It stands alone (no script, nothing loaded), and names a check that has not run.

#[path = "../common/figures.rs"]
#[allow(dead_code)] // What writes figures is not used here.
mod figures;
mod page;

use page::{Check, page};
use serde_json::Value;

/// Every check, in the order of the page: its name, and what it does in one line.
const CHECKS: [(&str, &str); 19] = [
    ("crash-states", "every disk that a power cut can leave, built and opened; then crashed again inside recovery"),
    ("kills", "a child killed after each file operation of each change"),
    ("trap-kills", "a child killed at each trap of each change, and again inside recovery"),
    ("random-kills", "a child under load killed at random instants"),
    ("faults", "each of our file operations fails in turn: EIO, ENOSPC, once, for good, or although carried out"),
    ("disk-calls", "each call that RocksDB makes of the operating system fails in turn"),
    ("power-cuts-ext4", "a mounted ext4 shut down after each operation"),
    ("power-cuts-xfs", "a mounted XFS shut down after each operation"),
    ("full-disks-ext4", "an ext4 with so much room left, from nothing to twice the database"),
    ("full-disks-tmpfs", "the same on a tmpfs"),
    ("layouts", "every layout of a place and its siblings, against the recovery table"),
    ("flips", "every truncation and every bit of every control file"),
    ("races", "processes and threads that open, convert and destroy one place at once"),
    ("others-writes", "what other software writes between a crash and the restart"),
    ("damaged-after-done", "a live database damaged after the swap"),
    ("resume", "a conversion killed at each tenth, and gone on with"),
    ("mutants-order", "each sync dropped, each pair of steps swapped, in the recorded order"),
    ("mutants-code", "defects planted in the source"),
    ("mutants-archive", "defects planted in the source of the archive and of the restore"),
];

fn read(name: &str) -> Option<Value> {
    let bytes = std::fs::read(figures::directory().join(format!("{name}.json"))).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{name}.json: {error}")))
}

#[test]
fn drawn_from_the_figures_that_are_there() {
    let checks: Vec<Check> = CHECKS.iter().map(|(name, what)| Check { name, what, record: read(name) }).collect();
    let directory = figures::directory();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("report.html"), page(&checks)).unwrap();
    println!("report: {}", directory.join("report.html").display());
}
