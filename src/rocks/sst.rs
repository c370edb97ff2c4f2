//! Writing SST files to be ingested.

use super::{Settings, error};
use crate::error::Result;
use rocksdb::{Options, SstFileWriter};
use std::path::{Path, PathBuf};

/// The options of SST files, which must outlive their writers.
pub struct SstOptions {
    options: Options,
}

impl SstOptions {
    /// Files as a database with these settings writes them.
    pub fn new(settings: &Settings) -> Self {
        SstOptions { options: settings.options() }
    }
}

/// Writes one SST file. Keys must come in ascending order, each once.
pub struct SstWriter<'o> {
    inner: SstFileWriter<'o>,
    path: PathBuf,
    entries: u64,
}

impl<'o> SstWriter<'o> {
    /// Makes the file.
    ///
    /// # Errors
    /// Nothing, or an empty file, stands there.
    pub fn create(options: &'o SstOptions, path: &Path) -> Result<Self> {
        let inner = SstFileWriter::create(&options.options);
        open(&inner, path)?;
        Ok(SstWriter { inner, path: path.into(), entries: 0 })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `InvalidArgument` if the key is not after the one before; `NoSpace`, `Io`. The file is useless then.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.inner.put(key, value).map_err(|source| error("write an SST file", &self.path, source))?;
        self.entries += 1;
        Ok(())
    }

    /// Adds the deletion of a key.
    ///
    /// # Errors
    /// As [`SstWriter::put`].
    #[cfg(any(test, feature = "log-backup"))]
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.inner.delete(key).map_err(|source| error("write an SST file", &self.path, source))?;
        self.entries += 1;
        Ok(())
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes so far, as far as they are written out.
    pub fn bytes(&self) -> u64 {
        self.inner.file_size()
    }

    /// Completes and syncs the file (its directory entry is not synced). It must hold an entry at least.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: the file is useless.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.inner.finish().map_err(|source| error("complete an SST file", &self.path, source))?;
        Ok(self.path)
    }
}

fn open(inner: &SstFileWriter<'_>, path: &Path) -> Result<()> {
    inner.open(path).map_err(|source| error("make an SST file", path, source))
}
