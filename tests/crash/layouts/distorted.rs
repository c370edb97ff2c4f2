//! A `Vfs` that shows what a machine cannot be made to show on demand: names that may not be looked at (these tests may run
//! as root, for whom permissions mean nothing), and one directory under two names, as a torn rename leaves it.

use morphkv::testing::{RealVfs, Space, Stat, Trap, Vfs};
use morphkv::{Error, Result};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

const EACCES: i32 = 13;

/// Distorts what the real file system says of some names.
#[derive(Debug, Default)]
pub struct Distorted {
    /// `EACCES` for each of these and all that is below.
    pub denied: Vec<PathBuf>,
    /// The second name shows what stands at the first.
    pub alias: Option<(PathBuf, PathBuf)>,
    real: RealVfs,
}

impl Distorted {
    fn at(&self, path: &Path) -> Result<PathBuf> {
        if self.denied.iter().any(|denied| path.starts_with(denied)) {
            return Err(Error::io("look at a file", path, io::Error::from_raw_os_error(EACCES)));
        }
        Ok(match &self.alias {
            Some((from, to)) if path == to => from.clone(),
            Some((from, to)) => path.strip_prefix(to).map_or_else(|_| path.into(), |rest| from.join(rest)),
            None => path.into(),
        })
    }
}

impl Vfs for Distorted {
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        self.real.stat(&self.at(path)?)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.real.list(&self.at(path)?)
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>> {
        self.real.read(&self.at(path)?, max_len)
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.real.read_range(&self.at(path)?, offset, len, out)
    }

    fn read_device(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<Range<usize>> {
        self.real.read_device(&self.at(path)?, offset, len, out)
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        self.real.make_dir(&self.at(path)?)
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        self.real.make_private(&self.at(path)?)
    }

    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.real.create_file(&self.at(path)?, contents)
    }

    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.real.append(&self.at(path)?, contents)
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.real.sync_file(&self.at(path)?)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.real.sync_dir(&self.at(path)?)
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.real.rename_no_replace(&self.at(from)?, &self.at(to)?)
    }

    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        self.real.rename_file_over(&self.at(from)?, &self.at(to)?)
    }

    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        self.real.probe_rename(&self.at(from)?, &self.at(onto)?)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.real.remove_file(&self.at(path)?)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.real.remove_dir(&self.at(path)?)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.real.hard_link(&self.at(from)?, &self.at(to)?)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.real.space(&self.at(path)?)
    }

    fn trap(&self, trap: Trap) -> Result<()> {
        self.real.trap(trap)
    }
}
