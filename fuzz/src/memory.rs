//! Files in memory, which can be read and nothing else.

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Space, Stat, Vfs};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Files by their paths.
#[derive(Debug)]
pub struct Files(pub BTreeMap<PathBuf, Vec<u8>>);

fn no(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, "use a file", "it is not there").at(path)
}

impl Vfs for Files {
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let inside = self.0.keys().filter_map(|file| file.strip_prefix(path).ok());
        Ok(inside.map(|name| name.display().to_string()).collect())
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let from = self.0.get(path).ok_or_else(|| no(path))?.get(offset as usize..).unwrap_or_default();
        out.extend_from_slice(&from[..from.len().min(len)]);
        Ok(())
    }

    fn read_device(&self, path: &Path, _: u64, _: usize, _: &mut Vec<u8>) -> Result<Range<usize>> {
        Err(no(path))
    }
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        Err(no(path))
    }
    fn read(&self, path: &Path, _: u64) -> Result<Vec<u8>> {
        Err(no(path))
    }
    fn make_dir(&self, path: &Path) -> Result<()> {
        Err(no(path))
    }
    fn make_private(&self, path: &Path) -> Result<()> {
        Err(no(path))
    }
    fn create_file(&self, path: &Path, _: &[u8]) -> Result<()> {
        Err(no(path))
    }
    fn append(&self, path: &Path, _: &[u8]) -> Result<()> {
        Err(no(path))
    }
    fn sync_file(&self, path: &Path) -> Result<()> {
        Err(no(path))
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        Err(no(path))
    }
    fn rename_no_replace(&self, path: &Path, _: &Path) -> Result<()> {
        Err(no(path))
    }
    fn rename_file_over(&self, path: &Path, _: &Path) -> Result<()> {
        Err(no(path))
    }
    fn probe_rename(&self, path: &Path, _: &Path) -> Result<()> {
        Err(no(path))
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        Err(no(path))
    }
    fn remove_dir(&self, path: &Path) -> Result<()> {
        Err(no(path))
    }
    fn hard_link(&self, path: &Path, _: &Path) -> Result<()> {
        Err(no(path))
    }
    fn space(&self, path: &Path) -> Result<Space> {
        Err(no(path))
    }
}
