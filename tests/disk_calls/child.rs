//! The children: this binary again, with the library between it and the disk.

use super::changes;
use super::common::options;
use super::library::{Fault, Library, Report};
use morphkv::inspect::inspect;
use morphkv::testing::RealVfs;
use morphkv::{Options, Verify};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const ORDERS: &str = "MORPHKV_TEST_ORDERS";
/// No change takes so long, on a busy machine either.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Orders {
    Act { scenario: String, directory: PathBuf },
    Inspect { directory: PathBuf },
}

/// How it ended: nothing, or the name of the error's kind and all that it says.
pub type Ended = Option<(String, String)>;

/// The orders of this process, if it is a child.
pub fn orders() -> Option<Orders> {
    std::env::var(ORDERS).ok().map(|text| serde_json::from_str(&text).expect("orders"))
}

/// What a caller has who sets nothing: what was written is verified, the source is not read twice.
fn as_usual() -> Options {
    options().verify(Verify::Full).vfs(Arc::new(RealVfs::default()))
}

/// Does what the orders say, and prints how it ended.
pub fn obey(orders: Orders) {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    std::thread::spawn(|| {
        std::thread::sleep(HANGS_AFTER);
        eprintln!("it hangs");
        std::process::abort();
    });
    let done = match orders {
        Orders::Act { scenario, directory } => (changes::named(&scenario).act)(&directory, as_usual()),
        Orders::Inspect { directory } => inspect(super::scenario::database(&directory), &as_usual()).map(drop),
    };
    let ended: Ended = done.err().map(|error| (error.kind().name().to_owned(), format!("{error:?}")));
    println!("{}", serde_json::to_string(&ended).unwrap());
}

/// Runs a child, counts what it calls below `directory`, and makes it fail as told.
///
/// # Errors
/// It did not end by itself: a panic, a signal, a hang; with what it said.
pub fn run(
    library: &Library,
    orders: &Orders,
    directory: &Path,
    fault: Option<Fault>,
) -> Result<(Ended, Report), String> {
    run_with(library, orders, directory, |command| {
        if let Some(fault) = fault {
            command.env("MORPHKV_DISK_FAULT", fault.told());
        }
    })
}

/// Runs a child, and renames a directory right before its call of number `at`.
///
/// # Errors
/// As for [`run`].
pub fn run_moving(
    library: &Library,
    orders: &Orders,
    directory: &Path,
    at: usize,
    (from, to): (&Path, &Path),
) -> Result<Ended, String> {
    let told = format!("{at} {} {}", from.display(), to.display());
    let tell = |command: &mut Command| {
        command.env("MORPHKV_DISK_MOVE", told);
    };
    run_with(library, orders, directory, tell).map(|(ended, _)| ended)
}

fn run_with(
    library: &Library,
    orders: &Orders,
    directory: &Path,
    tell: impl FnOnce(&mut Command),
) -> Result<(Ended, Report), String> {
    let report = directory.with_extension("report");
    let mut command = Command::new(std::env::current_exe().unwrap());
    library.load(&mut command, &format!("{}/", directory.display()), &report);
    tell(&mut command);
    command.env(ORDERS, serde_json::to_string(orders).unwrap()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let counted = Report::read(&report);
    std::fs::remove_file(&report).unwrap();
    if !output.status.success() {
        let signal = output.status.signal();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("it did not end by itself ({}, signal {signal:?}): {said}", output.status));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let ended = serde_json::from_str(said.lines().last().unwrap_or_default());
    Ok((ended.map_err(|error| format!("it says `{said}`: {error}"))?, counted))
}
