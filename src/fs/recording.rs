//! A `Vfs` that passes every operation on and keeps a list of those that change the disk, for golden traces and for
//! the enumeration of crash states.

use super::{Space, Stat, Vfs};
use crate::error::Result;
use crate::trap::Trap;
use parking_lot::Mutex;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One operation that changes the disk, or makes a change durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A directory was made.
    MakeDir(PathBuf),
    /// A directory was taken from everybody but its owner.
    MakePrivate(PathBuf),
    /// A file was made with these contents.
    CreateFile(PathBuf, Vec<u8>),
    /// Contents were added to a file.
    Append(PathBuf, Vec<u8>),
    /// A file was synced.
    SyncFile(PathBuf),
    /// A directory was synced.
    SyncDir(PathBuf),
    /// A rename to a free name.
    Rename(PathBuf, PathBuf),
    /// A file was renamed over another.
    RenameOver(PathBuf, PathBuf),
    /// A file was removed.
    RemoveFile(PathBuf),
    /// An empty directory was removed.
    RemoveDir(PathBuf),
    /// A file got a second name.
    HardLink(PathBuf, PathBuf),
    /// A trap was passed.
    Trap(Trap),
}

/// What is told of each operation, right after it.
type Witness = Box<dyn Fn(&Operation) + Send + Sync>;

/// Records what it passes on; only what succeeded is recorded.
pub struct RecordingVfs {
    inner: Arc<dyn Vfs>,
    operations: Mutex<Vec<Operation>>,
    witness: Option<Witness>,
}

impl fmt::Debug for RecordingVfs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("RecordingVfs").field(&self.inner).finish()
    }
}

impl RecordingVfs {
    /// Records the operations on `inner`.
    pub fn new(inner: Arc<dyn Vfs>) -> Self {
        RecordingVfs { inner, operations: Mutex::new(Vec::new()), witness: None }
    }

    /// As [`RecordingVfs::new`]; `witness` is called right after each operation: to look at the disk, or to die there.
    pub fn watched(inner: Arc<dyn Vfs>, witness: impl Fn(&Operation) + Send + Sync + 'static) -> Self {
        RecordingVfs { witness: Some(Box::new(witness)), ..Self::new(inner) }
    }

    /// The operations so far, which are forgotten.
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut self.operations.lock())
    }

    fn note<T>(&self, result: Result<T>, operation: impl FnOnce() -> Operation) -> Result<T> {
        if result.is_ok() {
            self.push(operation());
        }
        result
    }

    fn push(&self, operation: Operation) {
        if let Some(witness) = &self.witness {
            witness(&operation);
        }
        self.operations.lock().push(operation);
    }
}

impl Vfs for RecordingVfs {
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        self.inner.stat(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.inner.list(path)
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>> {
        self.inner.read(path, max_len)
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.inner.read_range(path, offset, len, out)
    }

    fn read_device(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<Range<usize>> {
        self.inner.read_device(path, offset, len, out)
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        self.note(self.inner.make_dir(path), || Operation::MakeDir(path.into()))
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        self.note(self.inner.make_private(path), || Operation::MakePrivate(path.into()))
    }

    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.note(self.inner.create_file(path, contents), || Operation::CreateFile(path.into(), contents.into()))
    }

    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.note(self.inner.append(path, contents), || Operation::Append(path.into(), contents.into()))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.note(self.inner.sync_file(path), || Operation::SyncFile(path.into()))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.note(self.inner.sync_dir(path), || Operation::SyncDir(path.into()))
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.note(self.inner.rename_no_replace(from, to), || Operation::Rename(from.into(), to.into()))
    }

    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        self.note(self.inner.rename_file_over(from, to), || Operation::RenameOver(from.into(), to.into()))
    }

    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        self.inner.probe_rename(from, onto)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let stood = self.inner.stat(path)?.is_some();
        let result = self.inner.remove_file(path);
        if stood { self.note(result, || Operation::RemoveFile(path.into())) } else { result }
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let stood = self.inner.stat(path)?.is_some();
        let result = self.inner.remove_dir(path);
        if stood { self.note(result, || Operation::RemoveDir(path.into())) } else { result }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.note(self.inner.hard_link(from, to), || Operation::HardLink(from.into(), to.into()))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.inner.space(path)
    }

    fn trap(&self, trap: Trap) -> Result<()> {
        self.push(Operation::Trap(trap));
        self.inner.trap(trap)
    }
}
