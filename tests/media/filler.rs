//! What fills a disk up: it takes all of it but so much.

use super::machine::run;
use rustix::fs::{FallocateFlags, fallocate, statvfs, syncfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What XFS may hold back of its last blocks, in bytes.
const HELD_BACK: u64 = 32 << 10;

/// Takes room away from a mounted file system.
#[derive(Debug, Clone)]
pub struct Filler {
    disk: PathBuf,
    /// Of a file system in memory, its size in bytes: it is made smaller instead, since a file would have to be written.
    whole: Option<u64>,
}

impl Filler {
    /// A file that fills the file system which is mounted there.
    pub fn in_file(disk: &Path) -> Self {
        Filler { disk: disk.to_owned(), whole: None }
    }

    /// Fills a file system in memory, which has so many bytes.
    pub fn in_memory(disk: &Path, whole: u64) -> Self {
        Filler { disk: disk.to_owned(), whole: Some(whole) }
    }

    fn file(&self) -> PathBuf {
        self.disk.join("filler")
    }

    /// Bytes that can be written.
    pub fn free(&self) -> u64 {
        let stat = statvfs(&self.disk).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// What room is given out in, in bytes.
    pub fn block(&self) -> u64 {
        statvfs(&self.disk).unwrap().f_frsize
    }

    /// Leaves so many bytes free, to the block, and gives their number, which is greater where a file system holds
    /// something back.
    ///
    /// # Panics
    /// If so much is not to be had on this disk.
    pub fn leave(&self, wanted: u64) -> u64 {
        let wanted = wanted - wanted % self.block();
        match self.whole {
            Some(_) => {
                // With nothing on it the size would be 0 at times, which means no limit.
                std::fs::write(self.file(), "1").unwrap();
                let stat = statvfs(&self.disk).unwrap();
                self.resize((stat.f_blocks - stat.f_bfree) * stat.f_frsize + wanted);
            }
            None => self.grow_or_shrink(wanted),
        }
        let free = self.free();
        assert!((wanted..=wanted + HELD_BACK).contains(&free), "{wanted} bytes cannot be left free, but {free}");
        free
    }

    fn resize(&self, bytes: u64) {
        let options = format!("remount,size={bytes}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&self.disk)).unwrap();
    }

    fn grow_or_shrink(&self, wanted: u64) {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.file()).unwrap();
        // What describes the file takes room too, and what was removed may come back a little later.
        for attempt in 0..100 {
            let (taken, free) = (file.metadata().unwrap().len(), self.free());
            match free {
                _ if free == wanted => return,
                _ if free > wanted => take(&file, taken, free - wanted),
                _ => file.set_len(taken.saturating_sub(wanted - free)).unwrap(),
            }
            if attempt > 5 {
                syncfs(&file).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Gives back all that it has taken.
    pub fn give_back(&self) {
        if let Some(whole) = self.whole {
            self.resize(whole);
        }
        match std::fs::remove_file(self.file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

/// Takes so many bytes, or half as many, or a quarter...
fn take(file: &File, from: u64, mut bytes: u64) {
    while bytes > 0 {
        match fallocate(file, FallocateFlags::empty(), from, bytes) {
            Ok(()) => return,
            Err(Errno::NOSPC) => bytes /= 2,
            Err(Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
