//! The net effect of the log, taken into the database part by part, and how far it has come, noted there.
//!
//! A part is what the memory holds: it ends after any operation, also within a batch. While the files of one are written,
//! the next one is gathered.
//!
//! | effect, in this order | after a crash here |
//! |---|---|
//! | the files of the part are written beside the database | they go; the part is made again |
//! | its range deletions and what is no file are written, without a WAL | with a flush they are in, or not; done again |
//! | its files are taken in, all or none | the part is made again, over itself |
//! | the position is noted, without a WAL | the same, unless a flush came after it |
//! | both families are flushed as one | the log goes on from the position |
//!
//! Invariants: the position that a part is noted with is one that the log can be gone on from: the end of a segment, and
//! nothing of the log before it is in a part that comes later. A position is durable only with all that was written before it,
//! and files that are taken in are so at once. What was done of the log beyond it does no harm: every operation sets what it
//! touches, and all of the log after the position is done again.

use crate::control;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, remove_tree};
use crate::layout::{INTERNAL_RESTORE, INTERNAL_USER};
use crate::log_backup::net_effect::{FamilyEffect, NetEffect};
use crate::log_backup::stretch::Stretch;
use crate::restore::apply::{Position, corrupt};
use crate::restore::folder::Folder;
use crate::rocks::batch_decoder::{DEFAULT_FAMILY, Operation};
use crate::rocks::{Database, Durability, Family, SstOptions, SstWriter, WriteBatch};
use crate::trap::trap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

const STEP: &str = "apply a part of the log";
/// Operations that go into no file are written together, up to so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// A file takes so many bytes of keys and values.
const FILE_BYTES: usize = 64 << 20;
/// Less than that is one file.
const FILE_BYTES_LEAST: usize = 4 << 20;
/// From so many files above each other on compaction pays.
const FILES_UNCOMPACTED: u64 = 4;

/// What takes the log in.
pub(super) struct Parts<'d> {
    pub database: &'d Database,
    vfs: &'d dyn Vfs,
    folder: &'d Folder,
    /// The id of the internal family in the log.
    internal: u32,
    options: Arc<SstOptions>,
    stretch: Stretch,
    /// The memory of a part; there are two at a time.
    budget: usize,
    /// Where the log can be gone on from, once all that was added until then is in.
    reached: Position,
    /// The part whose files are being written.
    writing: Option<Writing>,
    parts: u64,
    /// Bytes taken in since the last flush.
    unflushed: usize,
    /// Files above each other, roughly, until RocksDB compacts on its own.
    uncompacted: Option<u64>,
}

struct Writing {
    effect: Arc<NetEffect>,
    files: Vec<JoinHandle<Result<Vec<PathBuf>>>>,
    reached: Position,
}

impl<'d> Parts<'d> {
    /// Into this database, which has come to that position.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn new(
        database: &'d Database,
        vfs: &'d dyn Vfs,
        folder: &'d Folder,
        memory_bytes: usize,
        reached: Position,
    ) -> Result<Self> {
        // Another attempt may have left many.
        let uncompacted = Some(database.level0_files()?);
        let mut parts = Parts {
            database,
            vfs,
            folder,
            internal: database.family_id(Family::Internal)?,
            options: Arc::new(SstOptions::new(database.settings())),
            stretch: Stretch::default(),
            budget: (memory_bytes / 2).max(1),
            reached,
            writing: None,
            parts: 0,
            unflushed: 0,
            uncompacted,
        };
        parts.clear()?;
        parts.compact()?;
        Ok(parts)
    }

    /// Removes files that were not taken in.
    pub(super) fn clear(&self) -> Result<()> {
        remove_tree(self.vfs, &self.folder.loads)?;
        self.vfs.make_dir(&self.folder.loads)
    }

    /// Adds what comes next in the log.
    ///
    /// # Errors
    /// `Corrupt`: it is for a column family that the database does not have; those of a part that is full.
    pub(super) fn add(&mut self, operation: Operation<'_>) -> Result<()> {
        let family = match operation {
            Operation::Put { family, .. }
            | Operation::Delete { family, .. }
            | Operation::DeleteRange { family, .. } => self.family(family)?,
            Operation::LogData(_) | Operation::Noop => return Ok(()),
        };
        let ours = |key: &[u8]| family == Family::Data || key.starts_with(INTERNAL_USER);
        match operation {
            Operation::Put { key, .. } | Operation::Delete { key, .. } if !ours(key) => return Ok(()),
            Operation::DeleteRange { family: id, from, to } if family == Family::Internal => {
                let (from, to) = within_user_half(from, to);
                self.stretch.add(Operation::DeleteRange { family: id, from, to });
            }
            operation => self.stretch.add(operation),
        }
        let Some(effect) = self.stretch.overflow(self.budget) else { return Ok(()) };
        self.unflushed += self.budget;
        self.begin(effect)
    }

    fn family(&self, id: u32) -> Result<Family> {
        match id {
            DEFAULT_FAMILY => Ok(Family::Data),
            id if id == self.internal => Ok(Family::Internal),
            id => Err(corrupt(format!("it writes to a column family {id} that the database does not have"))),
        }
    }

    /// The log can be gone on from here.
    pub(super) fn reached(&mut self, position: &Position) {
        self.reached = position.clone();
    }

    /// All that was added is in then; the position is noted, if it is another, and made durable once that is worth it.
    ///
    /// # Errors
    /// Those of the database and of the disk.
    pub(super) fn settle(&mut self) -> Result<()> {
        if !self.stretch.is_empty() {
            let effect = self.stretch.take();
            self.begin(effect)?;
        }
        self.end()
    }

    /// Settles, and makes the position durable.
    ///
    /// # Errors
    /// As [`Parts::settle`].
    pub(super) fn finish(&mut self) -> Result<()> {
        self.settle()?;
        self.note(&self.reached)?;
        self.flush()
    }

    /// Takes files in, after all operations so far.
    ///
    /// # Errors
    /// As [`Parts::settle`]; those of the files.
    pub(super) fn ingest(&mut self, files: &[PathBuf], bytes: u64) -> Result<()> {
        self.settle()?;
        self.unflushed = self.unflushed.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.take(files)
    }

    /// Notes the position, and makes it durable once that is worth it: for between parts.
    ///
    /// # Errors
    /// As [`Parts::settle`].
    pub(super) fn note_now_and_then(&mut self) -> Result<()> {
        if self.unflushed < self.budget {
            return Ok(());
        }
        self.finish()
    }

    /// Begins to write the files of a part; the one before it is in then.
    fn begin(&mut self, effect: NetEffect) -> Result<()> {
        self.end()?;
        let effect = Arc::new(effect);
        let mut files = Vec::new();
        if let Some(family) = effect.family(DEFAULT_FAMILY).filter(|family| !family.is_empty()) {
            self.parts += 1;
            let threads = (family.bytes() / FILE_BYTES_LEAST).clamp(1, self.database.settings().parallelism.max(1));
            for thread in 0..threads {
                let range = family.len() * thread / threads..family.len() * (thread + 1) / threads;
                let (effect, options) = (Arc::clone(&effect), Arc::clone(&self.options));
                let stem = self.folder.loads.join(format!("part-{:06}-{thread}", self.parts));
                files.push(std::thread::spawn(move || match effect.family(DEFAULT_FAMILY) {
                    Some(family) => write_files(&options, family, range, &stem),
                    None => Ok(Vec::new()),
                }));
            }
        }
        self.writing = Some(Writing { effect, files, reached: self.reached.clone() });
        Ok(())
    }

    /// The part whose files are being written is in then, and its position is noted.
    fn end(&mut self) -> Result<()> {
        let Some(Writing { effect, files, reached }) = self.writing.take() else { return Ok(()) };
        let died = |_| Err(Error::new(ErrorKind::Io, STEP, "a thread that writes its files has ended"));
        let written: Vec<_> = files.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect();
        let files = written.into_iter().collect::<Result<Vec<_>>>()?.concat();
        trap!(self.vfs, RestorePartWritten);
        self.operations(&effect)?;
        drop(effect);
        self.take(&files)?;
        trap!(self.vfs, RestorePartTaken);
        self.note(&reached)?;
        if self.unflushed >= self.budget {
            self.flush()?;
        }
        trap!(self.vfs, RestorePartNoted);
        Ok(())
    }

    /// Writes what goes into no file.
    fn operations(&self, effect: &NetEffect) -> Result<()> {
        let database = self.database;
        let (mut batch, mut bytes) = (WriteBatch::new(), 0);
        for operation in effect.operations(DEFAULT_FAMILY) {
            match operation {
                Operation::Put { family, key, value } => {
                    bytes += key.len() + value.len();
                    batch.put(database, self.family(family)?, key, value)?;
                }
                Operation::Delete { family, key } => {
                    bytes += key.len();
                    batch.delete(database, self.family(family)?, key)?;
                }
                Operation::DeleteRange { family, from, to } => {
                    bytes += from.len() + to.len();
                    batch.delete_range(database, self.family(family)?, from, to)?;
                }
                Operation::LogData(_) | Operation::Noop => {}
            }
            if bytes >= BATCH_BYTES {
                bytes = 0;
                database.write(std::mem::take(&mut batch), Durability::NoWal)?;
            }
        }
        if batch.is_empty() { Ok(()) } else { database.write(batch, Durability::NoWal) }
    }

    fn take(&mut self, files: &[PathBuf]) -> Result<()> {
        self.database.ingest(files)?;
        self.uncompacted = self.uncompacted.map(|files| files + 1);
        self.compact()
    }

    /// What is compacted early is compacted again, so a few files are left to whoever opens the database.
    fn compact(&mut self) -> Result<()> {
        if self.uncompacted.is_some_and(|files| files >= FILES_UNCOMPACTED) {
            self.uncompacted = None;
            self.database.compact_by_itself()?;
        }
        Ok(())
    }

    fn note(&self, position: &Position) -> Result<()> {
        let bytes = control::encode("write how far the log was applied", position)?;
        self.database.put(Family::Internal, INTERNAL_RESTORE, &bytes, Durability::NoWal)
    }

    fn flush(&mut self) -> Result<()> {
        self.unflushed = 0;
        self.database.flush()
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        // Nobody may be writing when what comes next removes the files.
        for thread in self.writing.take().into_iter().flat_map(|writing| writing.files) {
            let _ = thread.join();
        }
    }
}

/// Some of the points, as files whose names begin like that.
fn write_files(options: &SstOptions, family: &FamilyEffect, points: Range<usize>, stem: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut points = points.map(|index| family.point(index)).peekable();
    while points.peek().is_some() {
        let mut path = stem.as_os_str().to_owned();
        path.push(format!("-{:06}.sst", files.len()));
        let mut writer = SstWriter::create(options, Path::new(&path))?;
        let mut bytes = 0;
        while let Some((key, value)) = points.next_if(|_| bytes < FILE_BYTES) {
            bytes += key.len() + value.map_or(0, <[u8]>::len);
            match value {
                Some(value) => writer.put(key, value)?,
                None => writer.delete(key)?,
            }
        }
        files.push(writer.finish()?);
    }
    Ok(files)
}

/// What of a range lies in the caller's half of the internal family.
fn within_user_half<'k>(from: &'k [u8], to: &'k [u8]) -> (&'k [u8], &'k [u8]) {
    /// The first key above that half.
    const USER_END: &[u8] = b"u0";
    (from.max(INTERNAL_USER), to.min(USER_END))
}
