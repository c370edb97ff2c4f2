//! The SST files that a rewrite leaves behind.

use super::parallel::Turns;
use crate::encoding::{EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result, show_key};
use crate::fs::Vfs;
use crate::rocks::{SstOptions, SstWriter};
use std::path::PathBuf;

/// An SST file that waits to be ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Where it is.
    pub path: PathBuf,
    /// Entries in it.
    pub entries: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its first encoded key.
    pub smallest: Vec<u8>,
    /// Its last encoded key.
    pub largest: Vec<u8>,
}

/// Makes SST files in one folder, numbered.
pub(super) struct FileMaker<'j> {
    pub(super) vfs: &'j dyn Vfs,
    pub(super) options: &'j SstOptions,
    pub(super) encoding: &'j dyn KeyEncoding,
    pub(super) folder: PathBuf,
    /// Whoever waits for a file to be synced lends its turn; none where there are no turns.
    pub(super) turns: Option<&'j Turns>,
    /// What the names of its files begin with: unique in the folder.
    pub(super) prefix: String,
    /// The size at which a file ends.
    pub(super) file_bytes: u64,
    pub(super) made: u32,
}

impl<'j> FileMaker<'j> {
    /// Begins a file.
    pub(super) fn create(&mut self) -> Result<OpenFile<'j>> {
        self.made += 1;
        let path = self.folder.join(format!("{}-{:06}.sst", self.prefix, self.made));
        Ok(OpenFile {
            vfs: self.vfs,
            encoding: self.encoding,
            turns: self.turns,
            writer: SstWriter::create(self.options, &path)?,
            smallest: Vec::new(),
            largest: Vec::new(),
            file_bytes: self.file_bytes,
        })
    }
}

/// A file that is being written.
pub(super) struct OpenFile<'j> {
    vfs: &'j dyn Vfs,
    encoding: &'j dyn KeyEncoding,
    turns: Option<&'j Turns>,
    writer: SstWriter<'j>,
    pub(super) smallest: Vec<u8>,
    pub(super) largest: Vec<u8>,
    file_bytes: u64,
}

impl OpenFile<'_> {
    /// Adds an entry; keys must ascend. [`OpenFile::largest`] is set by [`OpenFile::reached`].
    #[inline]
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.writer.entries() == 0 {
            self.smallest.extend_from_slice(key);
        }
        self.writer.put(key, value).map_err(|error| match error.kind() {
            // Entries come here sorted, so a key that does not ascend is the same as the one before.
            ErrorKind::InvalidArgument => duplicate(self.encoding, key).because(error),
            _ => error,
        })
    }

    /// Says which key was put last.
    pub(super) fn reached(&mut self, key: &[u8]) {
        self.largest.clear();
        self.largest.extend_from_slice(key);
    }

    pub(super) fn is_full(&mut self) -> bool {
        self.writer.is_full(self.file_bytes)
    }

    /// Ends it; it is synced.
    pub(super) fn finish(self) -> Result<OutputFile> {
        let entries = self.writer.entries();
        let writer = self.writer;
        let path = match self.turns {
            Some(turns) => turns.lend(|| writer.finish())?,
            None => writer.finish()?,
        };
        let stat = self.vfs.stat(&path)?;
        let bytes = stat.map(|stat| stat.len).ok_or_else(|| {
            Error::new(ErrorKind::Lost, "complete an SST file", "it vanished after it was written").at(&path)
        })?;
        Ok(OutputFile { path, entries, bytes, smallest: self.smallest, largest: self.largest })
    }
}

/// Two keys of the source met in one encoded key: writing on would lose one of them.
#[cold]
pub(super) fn duplicate(encoding: &dyn KeyEncoding, encoded: &[u8]) -> Error {
    let message = format!(
        "{} gives two keys of the source one encoded key, {}; nothing was lost, the source is untouched",
        EncodingId::of(encoding),
        show_key(encoded)
    );
    Error::new(ErrorKind::Unrepresentable, "encode a key", message)
}
