//! What real media do to a database: power cuts on real file systems and full disks.
//!
//! A test that this machine cannot run is *ignored*, with the reason in its name. It never counts as passed: asked for by
//! name all the same, it fails. Everything that is mounted is mounted in a mount namespace of this process alone, and lies
//! in memory: nothing of it outlives the process, however that ends.

#[path = "../common/mod.rs"]
mod common;
#[path = "../crash/outcome.rs"]
mod outcome;
#[path = "../crash/scenario.rs"]
mod scenario;

mod acknowledged;
mod child;
mod cuts;
mod disks;
mod filler;
mod full;
mod machine;
mod power;
mod shipping;

use libtest_mimic::{Arguments, Failed, Trial};
use machine::{Machine, Need};
use std::path::Path;
use std::process::ExitCode;

/// A test: its name, what it needs of the machine, and what it does with a directory of its own.
type Test = (&'static str, Need, fn(&Path));

const TESTS: [Test; 4] = [
    ("power_cuts_ext4", Need::Ext4, cuts::on_ext4),
    ("power_cuts_xfs", Need::Xfs, cuts::on_xfs),
    ("full_disks_ext4", Need::Ext4, full::on_ext4),
    ("full_disks_tmpfs", Need::Tmpfs, full::on_tmpfs),
];
/// In the large size alone.
const LARGE: Test = ("full_disks_xfs", Need::Xfs, full::on_xfs);

fn main() -> ExitCode {
    if let Some(orders) = child::orders() {
        child::obey(orders);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let machine = Machine::look();
    if !arguments.list {
        machine.enter();
    }
    let tests = TESTS.into_iter().chain(common::figures::torture().then_some(LARGE));
    let trials: Vec<Trial> = tests.map(|test| trial(&machine, test)).collect();
    if !arguments.list {
        for trial in trials.iter().filter(|trial| trial.has_ignored_flag() && !arguments.is_filtered_out(trial)) {
            println!("{}: {}", trial.kind(), trial.name());
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(machine: &Machine, (name, need, run): Test) -> Trial {
    let lacking = machine.lacks(need);
    let room = machine.room(name);
    match lacking {
        None => Trial::test(name, move || {
            std::fs::create_dir_all(&room).map_err(Failed::from)?;
            run(&room);
            Ok(())
        }),
        Some(why) => {
            let kind = format!("skipped: {why}");
            Trial::test(name, move || Err(format!("it cannot run here: {why}").into()))
                .with_kind(kind)
                .with_ignored_flag(true)
        }
    }
}
