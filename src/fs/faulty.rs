//! A `Vfs` whose nth operation fails, once or from then on.

use super::{Space, Stat, Vfs};
use crate::error::{Error, Result};
use crate::trap::Trap;
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which operation fails, and how.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The operation that fails, counted from 0 over all operations of this `Vfs`.
    pub at: u64,
    /// All later operations of the same sort fail too.
    pub sticky: bool,
    /// The error number: `EIO` fails any operation, `ENOSPC` only those that write.
    pub errno: i32,
}

/// `EIO`.
pub const EIO: i32 = 5;
/// `ENOSPC`.
pub const ENOSPC: i32 = 28;

/// What an operation does to the disk, as far as faults ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Look,
    /// It removes something, which needs no room.
    Remove,
    /// It changes something, or makes a change durable, and a full disk may refuse it.
    Write,
}

/// Fails what the fault says and passes everything else on.
#[derive(Debug)]
pub struct FaultyVfs {
    inner: Arc<dyn Vfs>,
    fault: Option<Fault>,
    /// What fails is done all the same.
    carries_out: bool,
    accesses: Mutex<Vec<Access>>,
    failed: AtomicU64,
}

impl FaultyVfs {
    /// Fails operations on `inner`; with no fault it only counts.
    pub fn new(inner: Arc<dyn Vfs>, fault: Option<Fault>) -> Self {
        let (accesses, failed) = (Mutex::new(Vec::new()), AtomicU64::new(0));
        FaultyVfs { inner, fault, carries_out: false, accesses, failed }
    }

    /// As [`FaultyVfs::new`], but what fails was carried out, and only its answer says otherwise. Looks do not fail.
    pub fn carrying_out(inner: Arc<dyn Vfs>, fault: Fault) -> Self {
        FaultyVfs { carries_out: true, ..Self::new(inner, Some(fault)) }
    }

    /// Operations so far.
    pub fn calls(&self) -> u64 {
        self.accesses.lock().len() as u64
    }

    /// What each operation so far does.
    pub fn accesses(&self) -> Vec<Access> {
        self.accesses.lock().clone()
    }

    /// Operations that were made to fail.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The error number that the next operation, which does `access`, is to fail with.
    fn due(&self, access: Access) -> Option<i32> {
        let call = {
            let mut accesses = self.accesses.lock();
            accesses.push(access);
            accesses.len() as u64 - 1
        };
        let fault = self.fault?;
        let due = call == fault.at || (fault.sticky && call > fault.at);
        let can = match access {
            Access::Look => fault.errno != ENOSPC && !self.carries_out,
            Access::Remove => fault.errno != ENOSPC,
            Access::Write => true,
        };
        if !due || !can {
            return None;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        Some(fault.errno)
    }

    fn run<T>(&self, path: &Path, access: Access, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        self.run_or(path, access, operation, || {})
    }

    /// `instead` is what is left on the disk when the operation fails half-way.
    fn run_or<T>(
        &self,
        path: &Path,
        access: Access,
        operation: impl FnOnce() -> Result<T>,
        instead: impl FnOnce(),
    ) -> Result<T> {
        let Some(errno) = self.due(access) else { return operation() };
        if self.carries_out {
            operation()?;
        } else {
            instead();
        }
        Err(Error::io("go on", path, io::Error::from_raw_os_error(errno)))
    }
}

impl Vfs for FaultyVfs {
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        self.run(path, Access::Look, || self.inner.stat(path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.run(path, Access::Look, || self.inner.list(path))
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>> {
        self.run(path, Access::Look, || self.inner.read(path, max_len))
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.run(path, Access::Look, || self.inner.read_range(path, offset, len, out))
    }

    fn read_device(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<Range<usize>> {
        self.run(path, Access::Look, || self.inner.read_device(path, offset, len, out))
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        self.run(path, Access::Write, || self.inner.make_dir(path))
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        self.run(path, Access::Write, || self.inner.make_private(path))
    }

    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        // A full disk leaves a part of the file behind.
        let half = || drop(self.inner.create_file(path, &contents[..contents.len() / 2]));
        self.run_or(path, Access::Write, || self.inner.create_file(path, contents), half)
    }

    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        let half = || drop(self.inner.append(path, &contents[..contents.len() / 2]));
        self.run_or(path, Access::Write, || self.inner.append(path, contents), half)
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.run(path, Access::Write, || self.inner.sync_file(path))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.run(path, Access::Write, || self.inner.sync_dir(path))
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.run(from, Access::Write, || self.inner.rename_no_replace(from, to))
    }

    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        self.run(from, Access::Write, || self.inner.rename_file_over(from, to))
    }

    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        self.run(from, Access::Look, || self.inner.probe_rename(from, onto))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.run(path, Access::Remove, || self.inner.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.run(path, Access::Remove, || self.inner.remove_dir(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.run(from, Access::Write, || self.inner.hard_link(from, to))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.run(path, Access::Look, || self.inner.space(path))
    }

    fn trap(&self, trap: Trap) -> Result<()> {
        self.inner.trap(trap)
    }
}
