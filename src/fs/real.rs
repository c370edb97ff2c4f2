//! The operating system.

use super::{FileKind, Space, Stat, Vfs};
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The real file system.
#[derive(Debug, Default)]
pub struct RealVfs {
    #[cfg(feature = "traps")]
    plan: std::sync::Arc<crate::trap::TrapPlan>,
}

impl RealVfs {
    /// The real file system; with the feature `traps`, armed as `MORPHKV_TRAP` says.
    ///
    /// # Errors
    /// `InvalidArgument` if `MORPHKV_TRAP` cannot be understood.
    pub fn new() -> Result<Self> {
        #[cfg(feature = "traps")]
        return Ok(RealVfs { plan: std::sync::Arc::new(crate::trap::TrapPlan::from_env()?) });
        #[cfg(not(feature = "traps"))]
        Ok(RealVfs {})
    }

    /// The real file system with these traps.
    #[cfg(feature = "traps")]
    pub fn with_traps(plan: std::sync::Arc<crate::trap::TrapPlan>) -> Self {
        RealVfs { plan }
    }
}

/// Reads past the page cache begin and end at multiples of this, in the file and in memory: no device has larger blocks.
const DEVICE_ALIGNMENT: usize = 4096;

/// Room for a read is made at once, up to this.
const READ_RESERVED_BYTES: usize = 4 << 20;

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

impl Vfs for RealVfs {
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("look at a file", path, error)),
        };
        let kind = match metadata.file_type() {
            kind if kind.is_symlink() => FileKind::Symlink,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_file() => FileKind::File,
            _ => FileKind::Other,
        };
        Ok(Some(Stat { kind, device: metadata.dev(), inode: metadata.ino(), len: metadata.len() }))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|error| Error::io("list a directory", path, error))? {
            let entry = entry.map_err(|error| Error::io("list a directory", path, error))?;
            let name = entry.file_name().into_string().map_err(|name| {
                let shown = crate::error::show_key(name.as_encoded_bytes());
                Error::new(ErrorKind::Refused, "list a directory", format!("the name `{shown}` in it is not ours"))
                    .at(path)
            })?;
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>> {
        let step = "read a file";
        let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|error| Error::io(step, path, error))?;
        let metadata = file.metadata().map_err(|error| Error::io(step, path, error))?;
        if !metadata.is_file() || metadata.len() > max_len {
            let message = format!("a regular file of at most {max_len} bytes was expected");
            return Err(Error::new(ErrorKind::Corrupt, step, message).at(path));
        }
        let mut contents = Vec::new();
        file.take(max_len).read_to_end(&mut contents).map_err(|error| Error::io(step, path, error))?;
        Ok(contents)
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        let step = "read a part of a file";
        out.clear();
        out.reserve(len.min(READ_RESERVED_BYTES));
        let mut file = open(path, OFlags::RDONLY).map_err(|error| Error::io(step, path, error))?;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.take(len as u64).read_to_end(out))
            .map(|_| ())
            .map_err(|error| Error::io(step, path, error))
    }

    fn read_device(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<Range<usize>> {
        let step = "read a part of a file past the page cache";
        let file = open(path, OFlags::RDONLY | OFlags::DIRECT).map_err(|error| Error::io(step, path, error))?;
        let aligned = offset / DEVICE_ALIGNMENT as u64 * DEVICE_ALIGNMENT as u64;
        let before = (offset - aligned) as usize;
        let read_bytes = (before + len).next_multiple_of(DEVICE_ALIGNMENT);
        if out.len() < read_bytes + DEVICE_ALIGNMENT {
            out.resize(read_bytes + DEVICE_ALIGNMENT, 0);
        }
        let begin = out.as_ptr().align_offset(DEVICE_ALIGNMENT);
        let place = out
            .get_mut(begin..begin.saturating_add(read_bytes))
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, step, "memory cannot be aligned").at(path))?;
        let mut read = 0;
        while read < place.len() {
            match file.read_at(&mut place[read..], aligned + read as u64) {
                Ok(0) => break,
                Ok(bytes) => {
                    read += bytes;
                    let rest = read % DEVICE_ALIGNMENT;
                    if rest != 0 {
                        let file_bytes = file.metadata().map_err(|error| Error::io(step, path, error))?.len();
                        if aligned + read as u64 >= file_bytes {
                            break;
                        }
                        if bytes <= rest {
                            return Err(Error::new(ErrorKind::Io, step, "less than a block is read at a time").at(path));
                        }
                        // It was interrupted: the block is read again.
                        read -= rest;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(step, path, error)),
            }
        }
        Ok(begin + before.min(read)..begin + (before + len).min(read))
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        rustix::fs::mkdir(path, Mode::RWXU).map_err(|error| Error::io("make a directory", path, error.into()))
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        let step = "restrict a directory";
        let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| Error::io(step, path, error))?;
        rustix::fs::fchmod(&directory, Mode::RWXU).map_err(|error| Error::io(step, path, error.into()))
    }

    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
            .and_then(|mut file| file.write_all(contents))
            .map_err(|error| Error::io("write a file", path, error))
    }

    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
            .and_then(|mut file| file.write_all(contents))
            .map_err(|error| Error::io("append to a file", path, error))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        open(path, OFlags::RDONLY)
            .and_then(|file| file.sync_all())
            .map_err(|error| Error::io("sync a file", path, error))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        // The parent of a database may be reached through a link: only the leaf names that are ours must not be one.
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| Error::io("sync a directory", path, error))
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        let step = "rename";
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // Some file systems cannot; we hold the lock of the place, so looking first is as good among ourselves.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                if self.stat(to)?.is_some() {
                    return Err(Error::new(ErrorKind::Conflict, step, "something stands at the new name").at(to));
                }
                std::fs::rename(from, to).map_err(|error| Error::io(step, from, error))
            }
            Err(rustix::io::Errno::EXIST) => {
                Err(Error::new(ErrorKind::Conflict, step, "something stands at the new name").at(to))
            }
            Err(error) => Err(Error::io(step, from, error.into())),
        }
    }

    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(|error| Error::io("rename", from, error))
    }

    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        use rustix::io::Errno;
        let step = "try a rename";
        match rustix::fs::rename(from, onto) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(Errno::BUSY) => Err(Error::new(ErrorKind::Unsupported, step, "it is a mount point").at(from)),
            Err(Errno::XDEV) => {
                let message = "it cannot be renamed within its parent (an overlay file system?)";
                Err(Error::new(ErrorKind::Unsupported, step, message).at(from))
            }
            Err(error) => Err(Error::io(step, from, error.into())),
            Ok(()) => Err(Error::new(ErrorKind::Lost, step, "the probe directory was not what we made").at(onto)),
        }
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("remove a file", path, error.into())),
        }
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("remove a directory", path, error.into())),
        }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::hard_link(from, to).map_err(|error| Error::io("link a file", from, error))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let stat = rustix::fs::statvfs(path).map_err(|error| Error::io("measure free space", path, error.into()))?;
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    #[cfg(feature = "traps")]
    fn trap(&self, trap: crate::trap::Trap) -> Result<()> {
        self.plan.hit(trap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{remove_tree, write_atomic};

    #[test]
    fn renames_never_replace() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        let vfs = RealVfs::default();
        vfs.make_dir(&a).unwrap();
        vfs.make_dir(&b).unwrap();
        assert_eq!(vfs.rename_no_replace(&a, &b).unwrap_err().kind(), ErrorKind::Conflict);
        vfs.remove_dir(&b).unwrap();
        vfs.rename_no_replace(&a, &b).unwrap();
    }

    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let vfs = RealVfs::default();
        remove_tree(&vfs, &link).unwrap();
        assert!(target.join("kept").exists() && vfs.stat(&link).unwrap().is_none());
        std::os::unix::fs::symlink(target.join("kept"), &link).unwrap();
        assert!(vfs.read(&link, 10).is_err());
        assert!(vfs.create_file(&link, b"y").is_err());
    }

    #[test]
    fn only_what_is_not_there_counts_as_absent() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&link, &link).unwrap();
        let vfs = RealVfs::default();
        assert_eq!(vfs.stat(&directory.path().join("nothing")).unwrap(), None);
        // ENOTDIR, ELOOP, ENAMETOOLONG.
        for path in [file.join("x"), link.join("x"), directory.path().join("n".repeat(300))] {
            assert_eq!(vfs.stat(&path).unwrap_err().kind(), ErrorKind::Io, "{}", path.display());
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, [0; 11]).unwrap();
        assert_eq!(RealVfs::default().read(&path, 10).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_leftover_temporary_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let (path, temporary) = (directory.path().join("f"), directory.path().join("f.new"));
        std::fs::write(&temporary, "half").unwrap();
        write_atomic(&RealVfs::default(), &path, &temporary, b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert!(!temporary.exists());
    }

    #[test]
    fn the_probe_never_moves_anything() {
        let directory = tempfile::tempdir().unwrap();
        let (live, probe) = (directory.path().join("live"), directory.path().join("probe"));
        std::fs::create_dir_all(probe.join("keep")).unwrap();
        std::fs::create_dir(&live).unwrap();
        RealVfs::default().probe_rename(&live, &probe).unwrap();
        assert!(live.exists() && probe.join("keep").exists());
    }
}
