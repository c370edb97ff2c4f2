//! A `Vfs` under which a power cut loses what was not synced: names of a directory since its last sync, contents of a
//! file since its own.
//!
//! It passes every operation on and keeps what would undo it, until a sync makes the operation durable. At a trap whose
//! action is `PowerCut` it undoes what is left, the latest first, and the process dies. Two things may differ from a
//! real power cut, and a real one may do them too: what was *removed* stays removed, and files that RocksDB wrote keep
//! what they hold (it syncs them itself), unless their directory's name goes.

use super::{Space, Stat, Vfs, parent_of};
use crate::error::Result;
use crate::trap::{Trap, TrapAction, TrapPlan};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An operation that is not durable yet, by the paths that it had when it was done.
#[derive(Debug, Clone)]
enum Pending {
    /// A name that did not stand: of a file, a directory or a link. It goes, with all below it.
    Name(PathBuf),
    /// A file that had so many bytes.
    Contents(PathBuf, u64),
    /// A rename to a free name.
    Rename { from: PathBuf, to: PathBuf },
    /// A rename over a file that held these bytes; `None`: there was none.
    Over { from: PathBuf, to: PathBuf, old: Option<Vec<u8>> },
}

impl Pending {
    fn path(&self) -> &Path {
        match self {
            Pending::Name(path) | Pending::Contents(path, _) => path,
            Pending::Rename { to, .. } | Pending::Over { to, .. } => to,
        }
    }

    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            Pending::Name(path) | Pending::Contents(path, _) => path,
            Pending::Rename { to, .. } | Pending::Over { to, .. } => to,
        }
    }
}

/// `path` after what stood at `from` was renamed to `to`.
fn renamed(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(from).ok()?;
    Some(if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) })
}

/// The real file system, until the power ends.
#[derive(Debug)]
pub struct PowerCutVfs {
    inner: Arc<dyn Vfs>,
    plan: Arc<TrapPlan>,
    pending: Mutex<Vec<Pending>>,
}

impl PowerCutVfs {
    /// Passes operations on to `inner`, and does at each trap what `plan` says.
    pub fn new(inner: Arc<dyn Vfs>, plan: Arc<TrapPlan>) -> Self {
        PowerCutVfs { inner, plan, pending: Mutex::new(Vec::new()) }
    }

    fn note(&self, pending: Pending) {
        self.pending.lock().push(pending);
    }

    /// Where the thing of the entry at `index` stands now.
    fn now(pending: &[Pending], index: usize) -> PathBuf {
        let mut path = pending[index].path().to_path_buf();
        for later in &pending[index + 1..] {
            if let Pending::Rename { from, to } | Pending::Over { from, to, .. } = later {
                path = renamed(&path, from, to).unwrap_or(path);
            }
        }
        path
    }

    /// Forgets what `durable` says of (entry, where it stands now); what stood below a rename moves with it.
    fn settle(&self, durable: impl Fn(&Pending, &Path) -> bool) {
        let mut pending = self.pending.lock();
        let mut index = 0;
        while index < pending.len() {
            if !durable(&pending[index], &Self::now(&pending, index)) {
                index += 1;
                continue;
            }
            if let Pending::Rename { from, to } | Pending::Over { from, to, .. } = pending.remove(index) {
                for earlier in &mut pending[..index] {
                    if let Some(path) = renamed(earlier.path(), &from, &to) {
                        *earlier.path_mut() = path;
                    }
                }
            }
        }
    }

    /// Undoes what is not durable, the latest first.
    ///
    /// # Panics
    /// If it cannot: a test must not go on with a disk that no power cut leaves.
    fn lose_what_is_not_durable(&self) {
        let undone = |what: std::io::Result<()>, path: &Path| {
            what.unwrap_or_else(|error| panic!("a power cut cannot undo {}: {error}", path.display()));
        };
        for pending in self.pending.lock().drain(..).rev() {
            let path = pending.path();
            if std::fs::symlink_metadata(path).is_err() {
                // It was removed, or went with its directory.
                continue;
            }
            let what = match &pending {
                Pending::Name(path) if path.is_dir() => std::fs::remove_dir_all(path),
                Pending::Name(path) => std::fs::remove_file(path),
                Pending::Contents(path, bytes) => {
                    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(*bytes))
                }
                Pending::Rename { from, to } => std::fs::rename(to, from),
                Pending::Over { from, to, old } => std::fs::rename(to, from).and_then(|()| match old {
                    Some(bytes) => File::create_new(to).and_then(|mut file| file.write_all(bytes)),
                    None => Ok(()),
                }),
            };
            undone(what, path);
        }
    }
}

/// Control files alone are renamed over others.
const CONTROL_FILE_BYTES_MAX: u64 = 1 << 20;

impl Vfs for PowerCutVfs {
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
        self.inner.make_dir(path)?;
        self.note(Pending::Name(path.into()));
        Ok(())
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        self.inner.make_private(path)
    }

    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.inner.create_file(path, contents)?;
        self.note(Pending::Name(path.into()));
        self.note(Pending::Contents(path.into(), 0));
        Ok(())
    }

    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        let before = self.inner.stat(path)?;
        self.inner.append(path, contents)?;
        if before.is_none() {
            self.note(Pending::Name(path.into()));
        }
        self.note(Pending::Contents(path.into(), before.map_or(0, |stat| stat.len)));
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.inner.sync_file(path)?;
        self.settle(|pending, now| matches!(pending, Pending::Contents(..)) && now == path);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.inner.sync_dir(path)?;
        self.settle(|pending, now| {
            !matches!(pending, Pending::Contents(..)) && parent_of(now).is_ok_and(|parent| parent == path)
        });
        Ok(())
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename_no_replace(from, to)?;
        self.note(Pending::Rename { from: from.into(), to: to.into() });
        Ok(())
    }

    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        let stands = self.inner.stat(to)?.is_some();
        let old = if stands { Some(self.inner.read(to, CONTROL_FILE_BYTES_MAX)?) } else { None };
        self.inner.rename_file_over(from, to)?;
        self.note(Pending::Over { from: from.into(), to: to.into(), old });
        Ok(())
    }

    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        self.inner.probe_rename(from, onto)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.inner.remove_dir(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.hard_link(from, to)?;
        self.note(Pending::Name(to.into()));
        Ok(())
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.inner.space(path)
    }

    fn trap(&self, trap: Trap) -> Result<()> {
        match self.plan.next(trap) {
            Some(TrapAction::PowerCut) => {
                self.lose_what_is_not_durable();
                crate::trap::die()
            }
            Some(action) => action.perform(trap),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{RealVfs, write_atomic};

    fn disk() -> (tempfile::TempDir, PowerCutVfs) {
        let directory = tempfile::tempdir().unwrap();
        let vfs = PowerCutVfs::new(Arc::new(RealVfs::default()), Arc::new(TrapPlan::new()));
        (directory, vfs)
    }

    fn held(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn names_and_contents_are_lost_apart_from_each_other() {
        let (directory, vfs) = disk();
        let [named, whole, gone] = ["named", "whole", "gone"].map(|name| directory.path().join(name));
        vfs.create_file(&named, b"contents").unwrap();
        vfs.create_file(&whole, b"contents").unwrap();
        vfs.sync_file(&whole).unwrap();
        vfs.sync_dir(directory.path()).unwrap();
        vfs.append(&whole, b" and more").unwrap();
        vfs.create_file(&gone, b"contents").unwrap();
        vfs.sync_file(&gone).unwrap();
        vfs.lose_what_is_not_durable();
        assert_eq!([held(&named), held(&whole), held(&gone)], [Some("".into()), Some("contents".into()), None]);
    }

    #[test]
    fn a_rename_comes_undone_with_what_was_made_below_it() {
        let (directory, vfs) = disk();
        let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
        vfs.make_dir(&old).unwrap();
        vfs.sync_dir(directory.path()).unwrap();
        vfs.create_file(&old.join("file"), b"1").unwrap();
        vfs.rename_no_replace(&old, &new).unwrap();
        vfs.create_file(&new.join("other"), b"2").unwrap();
        vfs.sync_file(&new.join("file")).unwrap();
        // Makes the entry durable that was noted under the old name of its directory.
        vfs.sync_dir(&new).unwrap();
        vfs.lose_what_is_not_durable();
        assert!(!new.exists());
        assert_eq!([held(&old.join("file")), held(&old.join("other"))], [Some("1".into()), Some("".into())]);
    }

    #[test]
    fn what_was_made_before_a_durable_rename_is_lost_under_the_new_name() {
        let (directory, vfs) = disk();
        let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
        vfs.make_dir(&old).unwrap();
        vfs.create_file(&old.join("file"), b"1").unwrap();
        vfs.rename_no_replace(&old, &new).unwrap();
        vfs.sync_dir(directory.path()).unwrap();
        vfs.lose_what_is_not_durable();
        assert!(new.exists() && !new.join("file").exists());
    }

    #[test]
    fn a_file_that_is_replaced_is_the_old_one_until_its_directory_is_synced() {
        let (directory, vfs) = disk();
        let [file, temporary] = ["file", "file.new"].map(|name| directory.path().join(name));
        write_atomic(&vfs, &file, &temporary, b"old").unwrap();
        vfs.create_file(&temporary, b"new").unwrap();
        vfs.sync_file(&temporary).unwrap();
        vfs.rename_file_over(&temporary, &file).unwrap();
        vfs.lose_what_is_not_durable();
        assert_eq!([held(&file), held(&temporary)], [Some("old".into()), None]);
        write_atomic(&vfs, &file, &temporary, b"new").unwrap();
        vfs.lose_what_is_not_durable();
        assert_eq!(held(&file), Some("new".into()));
    }

    #[test]
    fn contents_that_were_never_synced_are_lost_under_their_last_name() {
        let (directory, vfs) = disk();
        let [file, temporary] = ["file", "file.new"].map(|name| directory.path().join(name));
        vfs.create_file(&temporary, b"contents").unwrap();
        vfs.rename_file_over(&temporary, &file).unwrap();
        vfs.sync_dir(directory.path()).unwrap();
        vfs.lose_what_is_not_durable();
        assert_eq!(held(&file), Some("".into()));
    }
}
