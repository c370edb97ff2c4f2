//! Writing SST files to be ingested.

use super::settings::BLOCK_BYTES;
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
    /// Bytes of keys and values since RocksDB was last asked for the size, which costs as much as a small entry.
    unasked_bytes: u64,
    /// Bytes of the index, times those of a data block.
    index_weight: u64,
}

/// Whoever reads a file holds all of its index, and so does whoever writes it: with keys of 64 KiB an index would be as
/// large as the data, not compressed.
const INDEX_BYTES_MAX: u64 = 8 << 20;
/// The size is asked for after so many bytes, unless files are small.
const ASK_EVERY_BYTES: u64 = 64 << 10;

impl<'o> SstWriter<'o> {
    /// Makes the file.
    ///
    /// # Errors
    /// Nothing, or an empty file, stands there.
    pub fn create(options: &'o SstOptions, path: &Path) -> Result<Self> {
        let inner = SstFileWriter::create(&options.options);
        open(&inner, path)?;
        Ok(SstWriter { inner, path: path.into(), entries: 0, unasked_bytes: 0, index_weight: 0 })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `InvalidArgument` if the key is not after the one before; `NoSpace`, `Io`. The file is useless then.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.inner.put(key, value).map_err(|source| error("write an SST file", &self.path, source))?;
        self.entries += 1;
        let bytes = (key.len() + value.len()) as u64;
        self.unasked_bytes += bytes;
        // The index has one key for each data block.
        self.index_weight += key.len() as u64 * bytes.min(BLOCK_BYTES as u64);
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

    /// Whether another file should take what follows: it has about `file_bytes` already, or its index is large.
    #[inline]
    pub fn is_full(&mut self, file_bytes: u64) -> bool {
        if self.index_weight >= INDEX_BYTES_MAX * BLOCK_BYTES as u64 {
            return true;
        }
        if self.unasked_bytes < ASK_EVERY_BYTES.min(file_bytes / 8) {
            return false;
        }
        if self.inner.file_size() >= file_bytes {
            return true;
        }
        self.unasked_bytes = 0;
        false
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How many entries fit until the file is full.
    fn entries_until_full(key_bytes: usize, value_bytes: usize, file_bytes: u64) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { compression: crate::rocks::Compression::None, ..Settings::default() };
        let options = SstOptions::new(&settings);
        let mut writer = SstWriter::create(&options, &directory.path().join("a.sst")).unwrap();
        for number in 0_u64.. {
            let mut key = number.to_be_bytes().to_vec();
            key.resize(key_bytes, b'k');
            writer.put(&key, &vec![7; value_bytes]).unwrap();
            if writer.is_full(file_bytes) {
                let (entries, path) = (writer.entries(), writer.finish().unwrap());
                assert!(std::fs::metadata(path).unwrap().len() <= file_bytes * 2 + (INDEX_BYTES_MAX * 3));
                return entries;
            }
        }
        unreachable!()
    }

    #[test]
    fn a_file_is_full_by_its_size_or_by_its_index() {
        assert_eq!(entries_until_full(64 << 10, 0, 64 << 20), 128, "8 MiB of keys, each in a block of its own");
        let small = entries_until_full(16, 100, 64 << 10);
        assert!((400..900).contains(&small), "{small}");
        let large = entries_until_full(16, 1 << 20, 8 << 20);
        assert!((7..=9).contains(&large), "{large}");
    }
}
