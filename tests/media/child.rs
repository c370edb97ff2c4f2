//! The children: this binary again, with orders in its environment, so that it is they who die.

use super::acknowledged;
use super::common::options;
use super::power::{self, Weather};
use super::scenario::{self, database};
use super::shipping;
use morphkv::Engine;
use morphkv::testing::{Operation, RealVfs, RecordingVfs};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const ORDERS: &str = "MORPHKV_TEST_ORDERS";

/// What a child is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Orders {
    /// Do what the scenario does (or only open the database), and cut the power after the `at`th file operation; 0: not
    /// at all.
    Act { scenario: Option<String>, directory: PathBuf, at: u64, weather: Weather },
    /// Write and acknowledge until the power ends, so many microseconds after the first acknowledgement.
    Write { directory: PathBuf, acknowledged: PathBuf, convert: bool, after_micros: u64, weather: Weather },
    /// Write and ship the log to the archive until the power ends, so many microseconds after the first write.
    Ship { directory: PathBuf, archive: PathBuf, after_micros: u64, weather: Weather },
    /// Leave two files, one of them synced, and cut the power.
    Leave { directory: PathBuf, weather: Weather },
}

/// The orders of this process, if it is a child.
pub fn orders() -> Option<Orders> {
    std::env::var(ORDERS).ok().map(|text| serde_json::from_str(&text).expect("orders"))
}

/// Does what the orders say. Prints the number of file operations, if it lives to see the end.
pub fn obey(orders: Orders) {
    // With its parent gone nobody would look at what it leaves.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    match orders {
        Orders::Act { scenario, directory, at, weather } => act(scenario.as_deref(), &directory, at, weather),
        Orders::Write { directory, acknowledged, convert, after_micros, weather } => {
            acknowledged::write(&directory, &acknowledged, convert, after_micros, weather);
        }
        Orders::Ship { directory, archive, after_micros, weather } => {
            shipping::ship(&directory, &archive, after_micros, weather);
        }
        Orders::Leave { directory, weather } => {
            std::fs::write(directory.join("synced"), "all of it").unwrap();
            File::open(directory.join("synced")).unwrap().sync_all().unwrap();
            File::open(&directory).unwrap().sync_all().unwrap();
            std::fs::write(directory.join("unsynced"), "all of it").unwrap();
            power::cut(&File::open(&directory).unwrap(), weather.cut);
        }
    }
}

fn act(scenario: Option<&str>, directory: &Path, at: u64, weather: Weather) {
    let disk = File::open(directory).unwrap();
    if weather.neighbour {
        power::neighbour(directory.parent().unwrap());
    }
    let operations = Arc::new(AtomicU64::new(0));
    let counted = operations.clone();
    let vfs = RecordingVfs::watched(Arc::new(RealVfs::default()), move |operation| {
        if matches!(operation, Operation::Trap(_)) {
            return;
        }
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        if weather.wait_micros > 0 {
            std::thread::sleep(Duration::from_micros(power::random(weather.seed, number) % weather.wait_micros));
        }
        if number == at {
            power::cut(&disk, weather.cut);
        }
    });
    let options = options().vfs(Arc::new(vfs));
    match scenario {
        Some(name) => (scenario::named(name).act)(directory, options).unwrap(),
        // What recovery says is for the parent to judge, who opens it again.
        None => drop(Engine::open(database(directory), options)),
    }
    println!("{}", operations.load(Ordering::SeqCst));
}

/// Runs a child to its end.
pub fn run(orders: &Orders) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .env(ORDERS, serde_json::to_string(orders).unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whether the child lost its power, rather than coming to its end.
///
/// # Panics
/// If it ended in any other way, with what it said.
pub fn lost_power(output: &Output, what: &str) -> bool {
    if output.status.signal() == Some(Signal::KILL.as_raw()) {
        return true;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: the child ended otherwise ({}): {said}", output.status);
    false
}
