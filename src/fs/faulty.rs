//! A `Vfs` whose nth operation fails, once or from then on.

use super::{Space, Stat, Vfs};
use crate::error::{Error, Result};
use crate::trap::Trap;
use std::io;
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

/// Fails what the fault says and passes everything else on.
#[derive(Debug)]
pub struct FaultyVfs {
    inner: Arc<dyn Vfs>,
    fault: Option<Fault>,
    calls: AtomicU64,
    failed: AtomicU64,
}

impl FaultyVfs {
    /// Fails operations on `inner`; with no fault it only counts.
    pub fn new(inner: Arc<dyn Vfs>, fault: Option<Fault>) -> Self {
        FaultyVfs { inner, fault, calls: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Operations so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Operations that were made to fail.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn pass(&self, path: &Path, writes: bool) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let Some(fault) = self.fault else { return Ok(()) };
        let due = call == fault.at || (fault.sticky && call > fault.at);
        if due && (writes || fault.errno != ENOSPC) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Err(Error::io("go on", path, io::Error::from_raw_os_error(fault.errno)));
        }
        Ok(())
    }
}

impl Vfs for FaultyVfs {
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        self.pass(path, false)?;
        self.inner.stat(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.pass(path, false)?;
        self.inner.list(path)
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>> {
        self.pass(path, false)?;
        self.inner.read(path, max_len)
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.pass(path, false)?;
        self.inner.read_range(path, offset, len, out)
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        self.pass(path, true)?;
        self.inner.make_dir(path)
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        self.pass(path, true)?;
        self.inner.make_private(path)
    }

    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        if let Err(error) = self.pass(path, true) {
            // A full disk leaves a part of the file behind.
            let _ = self.inner.create_file(path, &contents[..contents.len() / 2]);
            return Err(error);
        }
        self.inner.create_file(path, contents)
    }

    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        if let Err(error) = self.pass(path, true) {
            let _ = self.inner.append(path, &contents[..contents.len() / 2]);
            return Err(error);
        }
        self.inner.append(path, contents)
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.pass(path, true)?;
        self.inner.sync_file(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.pass(path, true)?;
        self.inner.sync_dir(path)
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.pass(from, true)?;
        self.inner.rename_no_replace(from, to)
    }

    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        self.pass(from, true)?;
        self.inner.rename_file_over(from, to)
    }

    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        self.pass(from, false)?;
        self.inner.probe_rename(from, onto)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.pass(path, false)?;
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.pass(path, false)?;
        self.inner.remove_dir(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.pass(from, true)?;
        self.inner.hard_link(from, to)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.pass(path, false)?;
        self.inner.space(path)
    }

    fn trap(&self, trap: Trap) -> Result<()> {
        self.inner.trap(trap)
    }
}
