//! The calls that the library makes of the operating system, RocksDB's own among them, in whichever thread: each fails in
//! turn, and what is left then is opened on a sound disk and compared.
//!
//! A small C library stands between a child and the C library, and fails what it is told to. Where there is no C compiler
//! the tests are *ignored*, with the reason; asked for by name all the same, they fail. Our own file operations pass the C
//! library only in part (`rustix` calls the kernel itself); `tests/crash/faults.rs` fails each of those.

#[path = "../common/mod.rs"]
mod common;
#[path = "../crash/scenario.rs"]
#[allow(dead_code)] // Here a scenario is named, and judged, by `changes` and `faults`.
mod scenario;

mod changes;
mod child;
mod faults;
mod library;
mod looks;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

const TESTS: [(&str, fn()); 3] = [
    ("every_call_fails_in_turn", faults::every_call_fails_in_turn),
    ("directories_are_really_synced", faults::directories_are_really_synced),
    ("a_look_makes_no_directory_where_one_was_just_moved_away", looks::overtaken),
];

fn main() -> ExitCode {
    if let Some(orders) = child::orders() {
        child::obey(orders);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let lacking = library::lacking();
    let trials: Vec<Trial> = TESTS.into_iter().map(|test| trial(lacking.as_deref(), test)).collect();
    if !arguments.list {
        for trial in trials.iter().filter(|trial| trial.has_ignored_flag() && !arguments.is_filtered_out(trial)) {
            println!("{}: {}", trial.kind(), trial.name());
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(lacking: Option<&str>, (name, run): (&'static str, fn())) -> Trial {
    match lacking {
        None => Trial::test(name, move || {
            run();
            Ok(())
        }),
        Some(why) => {
            let why = why.to_owned();
            let kind = format!("skipped: {why}");
            Trial::test(name, move || Err(format!("it cannot run here: {why}").into()))
                .with_kind(kind)
                .with_ignored_flag(true)
        }
    }
}
