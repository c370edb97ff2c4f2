//! Disks of our own: an image in memory, mounted through a loop device, or a piece of memory itself.

use super::common;
use super::filler::Filler;
use super::machine::{run, tool};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The file systems that are cut and filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Tmpfs,
}

/// A mounted file system; unmounted when dropped.
pub struct Disk {
    file_system: FileSystem,
    bytes: u64,
    image: PathBuf,
    mounted_at: PathBuf,
    options: String,
}

impl Disk {
    /// Makes a file system of that many bytes in an image in `room`, and mounts it with these options.
    pub fn make(room: &Path, file_system: FileSystem, bytes: u64, options: &str) -> Self {
        let image = room.join("image");
        if file_system != FileSystem::Tmpfs {
            File::create(&image).unwrap().set_len(bytes).unwrap();
        }
        let made = match file_system {
            // Nothing kept for root: free is what can be written. The blocks are those of a larger disk.
            FileSystem::Ext4 => {
                run(Command::new(tool("mkfs.ext4")).args(["-q", "-F", "-m", "0", "-b", "4096"]).arg(&image))
            }
            FileSystem::Xfs => run(Command::new(tool("mkfs.xfs")).args(["-q", "-f"]).arg(&image)),
            FileSystem::Tmpfs => Ok(()),
        };
        made.unwrap();
        let mounted_at = room.join("mounted");
        std::fs::create_dir_all(&mounted_at).unwrap();
        let disk = Disk { file_system, bytes, image, mounted_at, options: options.to_owned() };
        disk.mount();
        disk
    }

    /// What fills it up. It gives all back whenever a place is put on the disk.
    pub fn filler(&self) -> Filler {
        match self.file_system {
            FileSystem::Tmpfs => Filler::in_memory(&self.mounted_at, self.bytes),
            FileSystem::Ext4 | FileSystem::Xfs => Filler::in_file(&self.mounted_at),
        }
    }

    /// The directory that holds the database place.
    pub fn place(&self) -> PathBuf {
        self.mounted_at.join("place")
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        match self.file_system {
            FileSystem::Tmpfs => mount.args(["-t", "tmpfs", "-o", &format!("size={}", self.bytes), "tmpfs"]),
            FileSystem::Ext4 | FileSystem::Xfs => {
                let options = format!("loop,{}", self.options);
                mount.args(["-o", options.trim_end_matches(',')]).arg(&self.image)
            }
        };
        run(mount.arg(&self.mounted_at)).unwrap();
    }

    fn unmount(&self) {
        // A process that another test is just starting may still share an open file of ours.
        for _ in 0..200 {
            match run(Command::new("umount").arg(&self.mounted_at)) {
                Ok(()) => return,
                Err(why) if why.contains("busy") => std::thread::sleep(Duration::from_millis(10)),
                Err(why) => panic!("{why}"),
            }
        }
        panic!("{} stays busy", self.mounted_at.display());
    }

    /// Whether it was shut down: nothing can be written to it any more.
    pub fn is_off(&self) -> bool {
        File::create(self.mounted_at.join("still-on")).is_err()
    }

    /// The power is back: unmounts what is left of the file system and mounts it again, which replays its journal.
    pub fn power_on(&self) {
        self.unmount();
        self.mount();
    }

    /// As [`Disk::power_on`], with other mount options from now on.
    pub fn mount_with(&mut self, options: &str) {
        self.unmount();
        self.options = options.to_owned();
        self.mount();
    }

    /// Replaces what is in the place by a copy of `prepared`, all of it durable.
    pub fn put_in_place(&self, prepared: &Path) {
        self.filler().give_back();
        for entry in std::fs::read_dir(&self.mounted_at).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("lost+found") {
                continue;
            }
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.unwrap();
        }
        common::copy_tree(prepared, &self.place());
        self.sync();
    }

    /// Makes everything on it durable.
    pub fn sync(&self) {
        rustix::fs::syncfs(File::open(&self.mounted_at).unwrap()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failing test must not hang here. The namespace takes with it whatever stays.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mounted_at));
    }
}
