//! The end of the power: the file system stops where it is, and with it the process.

use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// `FS_IOC_SHUTDOWN` (`XFS_IOC_GOINGDOWN`), which ext4 and XFS both know.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);

/// What still reaches the disk when a file system is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// Everything, as if all had been synced a moment before.
    AfterAll = 0,
    /// The journal of what has happened so far, and no data that was not on its way.
    AfterJournal = 1,
    /// Nothing that had not reached it: a power cut.
    AtOnce = 2,
}

/// What goes on around the process until the power ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// How it ends.
    pub cut: Cut,
    /// After each operation it waits a random time of up to so many microseconds.
    pub wait_micros: u64,
    /// Somebody else syncs a file on the same file system all the time, which commits the journal at odd moments.
    pub neighbour: bool,
    /// Seed of the random times.
    pub seed: u64,
}

impl Weather {
    /// A power cut out of the blue.
    pub const CALM: Weather = Weather { cut: Cut::AtOnce, wait_micros: 0, neighbour: false, seed: 0 };
}

/// Cuts the power of the file system that holds `file`, and ends this process: it does not come back.
pub fn cut(file: &File, cut: Cut) -> ! {
    // SAFETY: this ioctl reads one u32 through the pointer, which `Setter` points at a u32 of its own.
    unsafe { ioctl(file, Setter::<SHUTDOWN, u32>::new(cut as u32)) }.unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
    loop {
        std::thread::park();
    }
}

/// Appends to a file in `directory` and syncs it, for as long as this process lives.
pub fn neighbour(directory: &Path) {
    let mut file = File::create(directory.join("neighbour")).unwrap();
    std::thread::spawn(move || {
        while file.write_all(&[7; 100]).and_then(|()| file.sync_all()).is_ok() {
            std::thread::sleep(Duration::from_micros(300));
        }
    });
}

/// The `n`th number of the sequence that `seed` begins (splitmix64).
pub fn random(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
