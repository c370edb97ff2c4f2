//! The exclusive lock of one database place.
//!
//! Invariants: it is taken before the first look at the place and held until the last effect; it is an open file
//! description lock beside the directory (never inside, since the directory is renamed), so that a second opener in
//! this process and in any other is kept out and a killed holder frees it; the file is never deleted, since a deleted
//! lock file can be held by two.

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs};
use crate::layout::{Layout, ROCKSDB_LOCK};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The held lock; dropping it frees the place.
#[derive(Debug)]
pub struct PlaceLock {
    file: File,
}

impl Drop for PlaceLock {
    fn drop(&mut self) {
        // Closing alone would not free it while a child that this process is just starting still shares the open file.
        let _ = self.file.unlock();
    }
}

impl PlaceLock {
    /// Takes the lock, without waiting.
    ///
    /// # Errors
    /// `Locked` with what the holder wrote about itself; `NotFound` if the parent directory is missing; `Refused` if
    /// something else than a regular file stands at its name. An empty lock file may have been made.
    pub fn acquire(vfs: &dyn Vfs, layout: &Layout) -> Result<Self> {
        PlaceLock::acquire_file(vfs, &layout.lock, &layout.live)
    }

    /// Takes the lock that the file `path` is, which is about `place`.
    ///
    /// # Errors
    /// As [`PlaceLock::acquire`].
    pub fn acquire_file(vfs: &dyn Vfs, path: &Path, place: &Path) -> Result<Self> {
        let step = "lock the database";
        if vfs.stat(path)?.is_some_and(|stat| stat.kind != FileKind::File) {
            return Err(
                Error::new(ErrorKind::Refused, step, "the lock is no regular file; the data is intact").at(path)
            );
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::io(step, path, error.into()))?;
        let mut file = File::from(file);
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = Read::by_ref(&mut file).take(200).read_to_string(&mut holder);
                let message = format!("it is in use ({})", holder.trim().replace(|c: char| c.is_control(), " "));
                return Err(Error::new(ErrorKind::Locked, step, message).at(place));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(Error::io(step, path, error)),
        }
        let held = file.metadata().map_err(|error| Error::io(step, path, error))?;
        let named = vfs.stat(path)?;
        if named.is_none_or(|stat| (stat.device, stat.inode) != (held.dev(), held.ino())) {
            let message = "its lock file was replaced while it was being locked";
            return Err(Error::new(ErrorKind::Locked, step, message).at(place));
        }
        inform(&mut file);
        Ok(PlaceLock { file })
    }
}

/// The content only informs a person; a full disk must not keep a database from opening, so errors are dropped.
fn inform(file: &mut File) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let text = format!("pid {} on {host}, since {since} (seconds of the Unix epoch)\n", std::process::id());
    let _ = file.set_len(0);
    let _ = file.seek(SeekFrom::Start(0));
    let _ = file.write_all(text.as_bytes());
}

const TAKE: &str = "take RocksDB's lock";

/// RocksDB's own lock on a database directory: a read-only open of ours takes none, and without it RocksDB's own tools
/// could write to a source while it is read.
///
/// RocksDB takes a POSIX lock, which keeps nobody out of the process that has it, and dies when that process closes *any*
/// descriptor of the file. Ours is the lock of an open file description: it keeps RocksDB out in this process as well, and
/// while it is held no other lock is there that closing the file could take away.
#[derive(Debug)]
pub struct RocksLock {
    /// There until it is dropped.
    file: Option<File>,
}

/// All of the file, as RocksDB does it.
fn whole(sort: nix::libc::c_int) -> nix::libc::flock {
    nix::libc::flock { l_type: sort as _, l_whence: nix::libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 }
}

impl Drop for RocksLock {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // A child that was forked meanwhile shares the open file until it executes something, and must not hold it on.
        let _ = fcntl(&file, FcntlArg::F_OFD_SETLK(&whole(nix::libc::F_UNLCK)));
        let mut found = whole(nix::libc::F_WRLCK);
        let taken =
            fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && i32::from(found.l_type) != nix::libc::F_UNLCK;
        if taken {
            FOUND_LOCKED.lock().push(file);
        }
    }
}

/// Files that somebody else had locked. If that is RocksDB in this process, closing them would free its lock: so they stay
/// open, and are used again.
static FOUND_LOCKED: Mutex<Vec<File>> = Mutex::new(Vec::new());

fn found_locked_before(path: &Path) -> Option<File> {
    let named = std::fs::symlink_metadata(path).ok()?;
    let is_it = |file: &File| file.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (named.dev(), named.ino()));
    let mut files = FOUND_LOCKED.lock();
    let at = files.iter().position(is_it)?;
    Some(files.swap_remove(at))
}

impl RocksLock {
    /// Takes the lock of the RocksDB directory at `path`, without waiting.
    ///
    /// # Errors
    /// `Locked` if another process, or this one, has the database open with RocksDB. An empty `LOCK` may have been made.
    pub fn acquire(path: &Path) -> Result<Self> {
        let path = path.join(ROCKSDB_LOCK);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match found_locked_before(&path) {
            Some(file) => file,
            None => rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|error| Error::io(TAKE, &path, error.into()))?
                .into(),
        };
        RocksLock::take(path, file, nix::libc::F_WRLCK)
    }

    /// Keeps RocksDB from opening the directory at `path` for writing, and writes nothing. `None`: it has no lock file, so
    /// RocksDB has not opened it since it was copied.
    ///
    /// # Errors
    /// As [`RocksLock::acquire`].
    pub fn to_read(path: &Path) -> Result<Option<Self>> {
        let path = path.join(ROCKSDB_LOCK);
        let open = |mode| rustix::fs::open(&path, mode | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        // Whoever may write opens it as `acquire` needs it, should it have to stay open.
        let opened = match found_locked_before(&path) {
            Some(file) => Ok(file),
            None => open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY)).map(File::from),
        };
        match opened {
            Ok(file) => RocksLock::take(path, file, nix::libc::F_RDLCK).map(Some),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io(TAKE, &path, error.into())),
        }
    }

    fn take(path: PathBuf, file: File, sort: nix::libc::c_int) -> Result<Self> {
        let taken = fcntl(&file, FcntlArg::F_OFD_SETLK(&whole(sort)));
        if taken.is_err() {
            FOUND_LOCKED.lock().push(file);
            return Err(match taken {
                Err(error) if !matches!(error, Errno::EAGAIN | Errno::EACCES) => Error::io(TAKE, &path, error.into()),
                _ => {
                    let message = "another process, or this one, has the database open with RocksDB; close it first";
                    Error::new(ErrorKind::Locked, TAKE, message).at(path)
                }
            });
        }
        Ok(RocksLock { file: Some(file) })
    }
}

/// A lock on a directory that several processes write, each for an instant: what makes a compare-and-swap of a file out
/// of a look and a replacement. The directory itself is locked, so no file of its own stands in it.
#[cfg(feature = "log-backup")]
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

#[cfg(feature = "log-backup")]
impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // As for `PlaceLock`: a child that shares the open file must not hold it on.
        let _ = self.file.unlock();
    }
}

#[cfg(feature = "log-backup")]
impl DirectoryLock {
    /// Takes the lock, waiting for whoever has it.
    ///
    /// # Errors
    /// `NotFound`, `Io`. Nothing was changed.
    pub fn wait(path: &Path) -> Result<Self> {
        let step = "lock a directory";
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Error::io(step, path, error.into()))?;
        let file = File::from(file);
        file.lock().map_err(|error| Error::io(step, path, error))?;
        Ok(DirectoryLock { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealVfs;
    use rustix::fs::FlockOperation;

    /// Between fork and exec a child has every open file of its parent.
    #[test]
    fn a_child_that_has_the_open_file_does_not_hold_rocksdbs_lock_on() {
        let directory = tempfile::tempdir().unwrap();
        let held = RocksLock::acquire(directory.path()).unwrap();
        let shared = held.file.as_ref().unwrap().try_clone().unwrap();
        assert_eq!(RocksLock::acquire(directory.path()).unwrap_err().kind(), ErrorKind::Locked);
        drop(held);
        drop(RocksLock::acquire(directory.path()).unwrap());
        let reading = RocksLock::to_read(directory.path()).unwrap().unwrap();
        let other = reading.file.as_ref().unwrap().try_clone().unwrap();
        drop(reading);
        RocksLock::acquire(directory.path()).unwrap();
        drop((shared, other));
    }

    #[test]
    fn a_second_opener_in_this_process_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&directory.path().join("db")).unwrap();
        let vfs = RealVfs::default();
        let held = PlaceLock::acquire(&vfs, &layout).unwrap();
        let error = PlaceLock::acquire(&vfs, &layout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.message().contains(&format!("pid {}", std::process::id())), "{error}");
        drop(held);
        PlaceLock::acquire(&vfs, &layout).unwrap();
    }

    #[test]
    fn a_child_that_shares_the_open_file_does_not_hold_the_lock_on() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&directory.path().join("db")).unwrap();
        let held = PlaceLock::acquire(&RealVfs::default(), &layout).unwrap();
        let shared = held.file.try_clone().unwrap();
        drop(held);
        PlaceLock::acquire(&RealVfs::default(), &layout).unwrap();
        drop(shared);
    }

    #[test]
    fn what_this_process_has_open_with_rocksdb_stays_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(ROCKSDB_LOCK);
        let theirs = File::create(&path).unwrap();
        let as_rocksdb = |file: &File| rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive);
        as_rocksdb(&theirs).unwrap();
        // Had the first attempt closed the file, the lock would be gone for the second.
        for _ in 0..3 {
            let error = RocksLock::acquire(directory.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
        }
        drop(theirs);
        let held = RocksLock::acquire(directory.path()).unwrap();
        let theirs = File::create(&path).unwrap();
        as_rocksdb(&theirs).unwrap_err();
        drop(held);
        as_rocksdb(&theirs).unwrap();
        assert!(RocksLock::acquire(directory.path()).is_err());
    }

    #[test]
    fn a_link_at_the_locks_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&directory.path().join("db")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &layout.lock).unwrap();
        assert_eq!(PlaceLock::acquire(&RealVfs::default(), &layout).unwrap_err().kind(), ErrorKind::Refused);
        assert!(!directory.path().join("elsewhere").exists());
    }
}
