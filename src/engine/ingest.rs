//! Bulk loading: sorted entries become SST files that RocksDB takes in as they are, past WAL and memtables.

use super::Engine;
use crate::error::{Error, ErrorKind, Result, show_key};
use crate::fs::{FileKind, Vfs, remove_tree};
use crate::layout::{INGEST, Layout};
use crate::rocks::{SstOptions, SstWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// A file is completed when it has this many bytes.
const FILE_BYTES: u64 = 64 << 20;

/// Removes what bulk loads have left behind; nobody may be at one.
pub(super) fn sweep(vfs: &dyn Vfs, layout: &Layout) {
    let output = layout.live.join(INGEST);
    let swept = vfs.stat(&output).and_then(|found| match found {
        None => Ok(()),
        Some(_) => remove_tree(vfs, &output),
    });
    if let Err(error) = swept {
        tracing::warn!(%error, "files of an interrupted bulk load stay behind");
    }
}

/// Makes a directory that others may be making too.
fn ensure_dir(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let there = || Ok(vfs.stat(path)?.is_some_and(|stat| stat.kind == FileKind::Directory));
    if there()? {
        return Ok(());
    }
    vfs.make_dir(path).or_else(|error| if there()? { Ok(()) } else { Err(error) })
}

impl Engine {
    /// Loads entries that come sorted in encoding order, each key once, much faster than puts would, and all of them or
    /// none. Where a key is in the database already, the loaded value counts. Durable when it returns. Gives the number
    /// of entries.
    ///
    /// It takes as much room on the disk as the entries do, inside the database's directory, while they come in.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that is not after the one before it, `Unrepresentable`, the error that the entries
    /// themselves brought, `NoSpace`, `Io`: nothing was loaded. `Unsupported` if the database has a log backup, which
    /// would not see them.
    pub fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = Result<(K, V)>>,
    ) -> Result<u64> {
        let inner = &*self.inner;
        if inner.stamps.is_some() {
            let message = "the database has a log backup, which does not see bulk loads yet";
            return Err(inner.place(Error::new(ErrorKind::Unsupported, "load entries", message)));
        }
        let output = inner.layout.live.join(INGEST);
        let folder = output.join(inner.ingests.fetch_add(1, Ordering::Relaxed).to_string());
        ensure_dir(&*inner.vfs, &output)?;
        inner.vfs.make_dir(&folder)?;
        let loaded = self.write_files(&folder, entries).and_then(|(files, count)| {
            inner.database.ingest(&files)?;
            Ok(count)
        });
        // RocksDB has moved what it took; what is left is swept again when the database is opened.
        if let Err(error) = remove_tree(&*inner.vfs, &folder) {
            tracing::warn!(%error, "files of a bulk load stay behind");
        }
        loaded
    }

    fn write_files<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        folder: &Path,
        entries: impl IntoIterator<Item = Result<(K, V)>>,
    ) -> Result<(Vec<PathBuf>, u64)> {
        let options = SstOptions::new(self.inner.database.settings());
        let (mut files, mut count) = (Vec::new(), 0);
        let mut writer: Option<SstWriter<'_>> = None;
        let (mut encoded, mut last) = (Vec::new(), None::<Vec<u8>>);
        for entry in entries {
            let (key, value) = entry?;
            encoded.clear();
            self.inner.encode(key.as_ref(), &mut encoded)?;
            match &mut last {
                Some(last) if encoded <= *last => return Err(self.not_ascending(key.as_ref(), last)),
                Some(last) => last.clone_from(&encoded),
                None => last = Some(encoded.clone()),
            }
            if let Some(full) = writer.take_if(|writer| writer.bytes() >= FILE_BYTES) {
                files.push(full.finish()?);
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                None => {
                    let path = folder.join(format!("{:06}.sst", files.len()));
                    writer.insert(SstWriter::create(&options, &path)?)
                }
            };
            writer.put(&encoded, value.as_ref())?;
            count += 1;
        }
        if let Some(writer) = writer {
            files.push(writer.finish()?);
        }
        Ok((files, count))
    }

    fn not_ascending(&self, key: &[u8], last: &[u8]) -> Error {
        let mut before = Vec::new();
        let before = match self.inner.encoding.decode(last, &mut before) {
            Ok(()) => show_key(&before),
            Err(_) => show_key(last),
        };
        let message = format!(
            "entries must ascend in {} order: the key {} is not after {before}",
            self.inner.marker.encoding,
            show_key(key)
        );
        self.inner.place(Error::new(ErrorKind::InvalidArgument, "load entries", message))
    }
}
