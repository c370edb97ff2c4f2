//! A `Vfs` over the real one that can be told to fail an operation, and to see what is not there.

use morphkv::Result;
use morphkv::testing::{RealVfs, Space, Stat, Trap, Vfs};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// An operation, as far as these tests tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Look,
    Create,
    SyncFile,
    SyncDir,
    /// Anything else that changes the disk.
    Change,
}

type Before = Box<dyn Fn(Call, &Path) -> Result<()> + Send + Sync>;
type After = Box<dyn Fn(Call, &Path) + Send + Sync>;
type BentStat = Box<dyn Fn(&Path, Option<Stat>) -> Option<Stat> + Send + Sync>;

pub struct Bent {
    pub real: RealVfs,
    pub before: Before,
    /// Told what has succeeded.
    pub after: After,
    pub stat: BentStat,
    pub free_bytes: Option<u64>,
}

impl Default for Bent {
    fn default() -> Self {
        Bent {
            real: RealVfs::default(),
            before: Box::new(|_, _| Ok(())),
            after: Box::new(|_, _| {}),
            stat: Box::new(|_, stat| stat),
            free_bytes: None,
        }
    }
}

impl fmt::Debug for Bent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Bent")
    }
}

impl Bent {
    fn around<T>(&self, call: Call, path: &Path, done: impl FnOnce() -> Result<T>) -> Result<T> {
        (self.before)(call, path)?;
        let done = done()?;
        (self.after)(call, path);
        Ok(done)
    }
}

impl Vfs for Bent {
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        self.around(Call::Look, path, || Ok((self.stat)(path, self.real.stat(path)?)))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.around(Call::Look, path, || self.real.list(path))
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>> {
        self.around(Call::Look, path, || self.real.read(path, max_len))
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.around(Call::Look, path, || self.real.read_range(path, offset, len, out))
    }

    fn read_device(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<Range<usize>> {
        self.around(Call::Look, path, || self.real.read_device(path, offset, len, out))
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        self.around(Call::Change, path, || self.real.make_dir(path))
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        self.around(Call::Change, path, || self.real.make_private(path))
    }

    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.around(Call::Create, path, || self.real.create_file(path, contents))
    }

    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.around(Call::Change, path, || self.real.append(path, contents))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.around(Call::SyncFile, path, || self.real.sync_file(path))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.around(Call::SyncDir, path, || self.real.sync_dir(path))
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.around(Call::Change, from, || self.real.rename_no_replace(from, to))
    }

    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        self.around(Call::Change, from, || self.real.rename_file_over(from, to))
    }

    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        self.around(Call::Look, from, || self.real.probe_rename(from, onto))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.around(Call::Change, path, || self.real.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.around(Call::Change, path, || self.real.remove_dir(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.around(Call::Change, from, || self.real.hard_link(from, to))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let space = self.around(Call::Look, path, || self.real.space(path))?;
        Ok(Space { free: self.free_bytes.unwrap_or(space.free), ..space })
    }

    fn trap(&self, trap: Trap) -> Result<()> {
        self.real.trap(trap)
    }
}
