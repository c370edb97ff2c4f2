//! The dozen file operations that this crate does itself (RocksDB does its own), behind one trait, so that tests can
//! record them, fail them, and cut the power between them.
//!
//! Rules: only `NotFound` counts as absent, every other error of a look is an error. No operation follows a symbolic
//! link at the name it is given. Directories are made 0700, files 0600. A failed sync is final for that attempt: the
//! caller gives up and never syncs the same file again, since the kernel may have dropped the pages and forgotten it.

#[cfg(feature = "traps")]
mod faulty;
#[cfg(feature = "traps")]
mod power_cut;
mod real;
#[cfg(feature = "traps")]
mod recording;

#[cfg(feature = "traps")]
pub use faulty::{Access, EIO, ENOSPC, Fault, FaultyVfs};
#[cfg(feature = "traps")]
pub use power_cut::PowerCutVfs;
pub use real::RealVfs;
#[cfg(feature = "traps")]
pub use recording::{Operation, RecordingVfs};

use crate::error::{Error, ErrorKind, Result};
use crate::trap::trap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, a device...
    Other,
}

/// What `lstat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// File, directory, link.
    pub kind: FileKind,
    /// Device number of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free for this user.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// The file operations. Each says what may be on disk after an `Err`.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// `lstat`; `None` only if nothing stands at that name.
    ///
    /// # Errors
    /// Any failure but `NotFound`. Changes nothing.
    fn stat(&self, path: &Path) -> Result<Option<Stat>>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// Any failure, also names that are not UTF-8 (none of ours). Changes nothing.
    fn list(&self, path: &Path) -> Result<Vec<String>>;

    /// A whole small file.
    ///
    /// # Errors
    /// `Corrupt` if it is longer than `max_len` bytes or no regular file. Changes nothing.
    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>>;

    /// Replaces `out` by at most `len` bytes of a file from `offset` on; fewer only where the file ends.
    ///
    /// # Errors
    /// Any failure. Changes nothing.
    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()>;

    /// As [`Vfs::read_range`], past the page cache; says where in `out` the bytes lie.
    ///
    /// # Errors
    /// Any failure, also a file system that has no such reads. Changes nothing.
    fn read_device(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<Range<usize>>;

    /// Makes one directory.
    ///
    /// # Errors
    /// Nothing was made, or (an I/O error) an empty directory may stand there.
    fn make_dir(&self, path: &Path) -> Result<()>;

    /// Takes a directory, made by somebody else in our name, from everybody but its owner (0700).
    ///
    /// # Errors
    /// The mode is the old one.
    fn make_private(&self, path: &Path) -> Result<()>;

    /// Makes a file that must not exist, with these contents; not synced.
    ///
    /// # Errors
    /// Nothing, or a file with some prefix of the contents.
    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()>;

    /// Adds to the end of a file, making it if need be; not synced.
    ///
    /// # Errors
    /// Some prefix of the contents may have been added.
    fn append(&self, path: &Path, contents: &[u8]) -> Result<()>;

    /// Makes a file's contents durable.
    ///
    /// # Errors
    /// Final: what of it is durable is unknown, and a second sync would prove nothing.
    fn sync_file(&self, path: &Path) -> Result<()>;

    /// Makes a directory's entries durable.
    ///
    /// # Errors
    /// Final, as for [`Vfs::sync_file`].
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Renames; nothing may stand at `to`, not even an empty directory. Not synced.
    ///
    /// # Errors
    /// The old name stands, or (an I/O error) either name.
    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()>;

    /// Renames a file over another. Not synced.
    ///
    /// # Errors
    /// `to` is the old file or the new one, never a mixture.
    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()>;

    /// Tries a rename of the directory `from` onto the *non-empty* directory `onto`, which can never succeed but runs
    /// every check of the kernel on the way.
    ///
    /// # Errors
    /// What a real rename of `from` would meet: a mount point, another file system, no permission. Changes nothing.
    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()>;

    /// Removes a file; `NotFound` is success.
    ///
    /// # Errors
    /// The file stands.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Removes an empty directory; `NotFound` is success.
    ///
    /// # Errors
    /// The directory stands, with all that is in it.
    fn remove_dir(&self, path: &Path) -> Result<()>;

    /// Gives a file a second name that must not exist.
    ///
    /// # Errors
    /// The second name does not stand, or (an I/O error) it does.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()>;

    /// Room on the file system that holds `path`.
    ///
    /// # Errors
    /// Any failure. Changes nothing.
    fn space(&self, path: &Path) -> Result<Space>;

    /// A trap was reached.
    ///
    /// # Errors
    /// What the test asked for.
    #[cfg(feature = "traps")]
    fn trap(&self, trap: crate::trap::Trap) -> Result<()>;
}

/// The directory that holds `path`.
///
/// # Errors
/// `InvalidArgument` for `/` and for relative paths of no component.
pub fn parent_of(path: &Path) -> Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(Error::new(ErrorKind::InvalidArgument, "find the parent directory", "the path has none").at(path)),
    }
}

/// The one way in which a control file comes to be or is replaced: temporary name, sync, rename, sync of the directory.
///
/// # Errors
/// `path` holds what it held or all of `contents`; after an error of the last sync it holds either after a power cut.
/// A file may be left at `temporary`, which the next call removes.
pub fn write_atomic(vfs: &dyn Vfs, path: &Path, temporary: &Path, contents: &[u8]) -> Result<()> {
    vfs.remove_file(temporary)?;
    vfs.create_file(temporary, contents)?;
    trap!(vfs, ControlFileWritten);
    vfs.sync_file(temporary)?;
    trap!(vfs, ControlFileSynced);
    vfs.rename_file_over(temporary, path)?;
    trap!(vfs, ControlFileRenamed);
    vfs.sync_dir(parent_of(path)?)
}

/// Removes a directory with all that is in it, never following a link and never leaving its file system.
///
/// # Errors
/// Part of it may be gone. Repeat.
pub fn remove_tree(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let Some(stat) = vfs.stat(path)? else { return Ok(()) };
    remove_entry(vfs, path, stat, stat.device)
}

fn remove_entry(vfs: &dyn Vfs, path: &Path, stat: Stat, device: u64) -> Result<()> {
    if stat.kind != FileKind::Directory {
        return vfs.remove_file(path);
    }
    if stat.device != device {
        return Err(
            Error::new(ErrorKind::Refused, "remove a directory", "another file system is mounted in it").at(path)
        );
    }
    let names = vfs.list(path)?;
    for (index, name) in names.iter().enumerate() {
        if index == names.len() / 2 && index > 0 {
            trap!(vfs, TrashHalfRemoved);
        }
        let child = path.join(name);
        if let Some(stat) = vfs.stat(&child)? {
            remove_entry(vfs, &child, stat, device)?;
        }
    }
    vfs.remove_dir(path)
}

/// Syncs every file and directory of a tree, the directory itself last.
///
/// # Errors
/// Final for this tree: what of it is durable is unknown.
pub fn sync_tree(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    for name in vfs.list(path)? {
        let child = path.join(&name);
        match vfs.stat(&child)?.map(|stat| stat.kind) {
            Some(FileKind::Directory) => sync_tree(vfs, &child)?,
            Some(FileKind::File) => vfs.sync_file(&child)?,
            _ => {}
        }
    }
    vfs.sync_dir(path)
}

/// Bytes in the files of a tree.
///
/// # Errors
/// Any failure of a look; what vanishes meanwhile has no bytes. Changes nothing.
pub fn tree_size(vfs: &dyn Vfs, path: &Path) -> Result<u64> {
    let names = match vfs.list(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        names => names?,
    };
    let mut size = 0;
    for name in names {
        let child = path.join(&name);
        size += match vfs.stat(&child)? {
            Some(stat) if stat.kind == FileKind::Directory => tree_size(vfs, &child)?,
            Some(stat) => stat.len,
            None => 0,
        };
    }
    Ok(size)
}
