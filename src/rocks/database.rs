//! An open RocksDB database with our two column families.

use super::settings::LEVEL0_FILES_MAX;
use super::write::Wait;
use super::{Cursor, Durability, LiveFile, Settings, Snapshot, WriteBatch, error};
use crate::encoding::Comparator;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs};
use crate::layout::{DATA_FAMILY, INTERNAL_FAMILY, ROCKSDB_CURRENT};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBPinnableSlice, FlushOptions,
    IngestExternalFileOptions, Options, ReadOptions, WaitForCompactOptions,
};
use std::fmt;
use std::path::{Path, PathBuf};

/// CURRENT holds one name.
const CURRENT_BYTES_MAX: u64 = 256;

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// The caller's keys, encoded.
    Data,
    /// Internal records.
    Internal,
}

/// A value that is read without being copied.
pub struct PinnedValue<'d>(DBPinnableSlice<'d>);

impl<'d> PinnedValue<'d> {
    pub(super) fn new(slice: DBPinnableSlice<'d>) -> Self {
        PinnedValue(slice)
    }
}

impl std::ops::Deref for PinnedValue<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// An open RocksDB database.
pub struct Database {
    pub(super) db: DB,
    path: PathBuf,
    has_internal: bool,
    read_only: bool,
    settings: Settings,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

/// RocksDB makes the directory on every open; so nothing is opened where no database stands.
fn require_database(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let step = "open the database";
    match vfs.stat(path)?.map(|stat| stat.kind) {
        None => return Err(Error::new(ErrorKind::NotFound, step, "it does not exist").at(path)),
        Some(FileKind::Directory) => {}
        Some(_) => return Err(Error::new(ErrorKind::Refused, step, "it is no directory").at(path)),
    }
    match vfs.stat(&path.join(ROCKSDB_CURRENT))? {
        Some(stat) if stat.kind == FileKind::File => Ok(()),
        _ => Err(Error::new(ErrorKind::Corrupt, step, "the directory holds no RocksDB database (no CURRENT)").at(path)),
    }
}

/// The directory under a name that cannot be made. A look takes no lock: should the directory be renamed just now, the
/// crate would make an empty one in its place. For the others the lock is held, and RocksDB's own table of locks within
/// a process goes by the name as everybody spells it.
fn never_made(path: &Path) -> PathBuf {
    path.join(".")
}

/// The options of a database and of its column families. Made once and copied: RocksDB makes a block cache for each, and
/// all of one database share one.
fn families(settings: &Settings, with_internal: bool) -> (Options, Vec<ColumnFamilyDescriptor>) {
    let options = settings.options();
    let mut families = vec![ColumnFamilyDescriptor::new(DATA_FAMILY, options.clone())];
    if with_internal {
        let mut internal = match settings.comparator {
            Comparator::Bytewise => options.clone(),
            // A comparator cannot be taken back.
            Comparator::SlashSpans => Settings { comparator: Comparator::Bytewise, ..settings.clone() }.options(),
        };
        internal.set_write_buffer_size(settings.write_buffer_bytes().min(4 << 20));
        families.push(ColumnFamilyDescriptor::new(INTERNAL_FAMILY, internal));
    }
    (options, families)
}

impl Database {
    fn over(db: DB, path: &Path, has_internal: bool, settings: &Settings) -> Self {
        Database { db, path: path.into(), has_internal, read_only: false, settings: settings.clone() }
    }

    /// Makes a new database in a directory that exists and holds none: for staging alone.
    ///
    /// # Errors
    /// The directory may hold part of a database; it has no marker, so nobody takes it for one.
    pub fn create(path: &Path, settings: &Settings) -> Result<Self> {
        let (mut options, families) = families(settings, true);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_error_if_exists(true);
        let db = DB::open_cf_descriptors(&options, path, families)
            .map_err(|source| error("create the database", path, source))?;
        Ok(Database::over(db, path, true, settings))
    }

    /// Makes a database with the default family alone, as other software does: for tests.
    ///
    /// # Errors
    /// Those of RocksDB.
    #[cfg(feature = "traps")]
    pub fn create_data_only(path: &Path, settings: &Settings) -> Result<Self> {
        let (mut options, families) = families(settings, false);
        options.create_if_missing(true);
        let db = DB::open_cf_descriptors(&options, path, families)
            .map_err(|source| error("create the database", path, source))?;
        Ok(Database::over(db, path, false, settings))
    }

    /// Opens for reading and writing a database that has both column families.
    ///
    /// # Errors
    /// `NotFound`, `Locked`, `Refused` (other column families, another comparator), `Corrupt`, `NoSpace`, `Io`.
    /// RocksDB may have written a new MANIFEST and WAL file; no data is changed.
    pub fn open(vfs: &dyn Vfs, path: &Path, settings: &Settings) -> Result<Self> {
        require_database(vfs, path)?;
        let (options, families) = families(settings, true);
        let db = DB::open_cf_descriptors(&options, path, families)
            .map_err(|source| error("open the database", path, source))?;
        Ok(Database::over(db, path, true, settings))
    }

    /// Opens a database that may lack the internal family, and adds it: for adopting a plain RocksDB database.
    ///
    /// # Errors
    /// As [`Database::open`]; the empty family may have been added.
    pub fn open_adding_internal(vfs: &dyn Vfs, path: &Path, settings: &Settings) -> Result<Self> {
        require_database(vfs, path)?;
        let (mut options, families) = families(settings, true);
        options.create_missing_column_families(true);
        let db = DB::open_cf_descriptors(&options, path, families)
            .map_err(|source| error("open the database", path, source))?;
        Ok(Database::over(db, path, true, settings))
    }

    /// Opens for reading alone: no lock of RocksDB is taken, nothing is written, the WAL is replayed into memory.
    ///
    /// # Errors
    /// As [`Database::open`]; nothing is changed.
    pub fn open_read_only(vfs: &dyn Vfs, path: &Path, settings: &Settings) -> Result<Self> {
        Self::read_only(vfs, path, settings, true)
    }

    /// The SST files that its MANIFEST names, whether they are there or not.
    ///
    /// # Errors
    /// As [`Database::open_read_only`]; nothing is changed.
    pub fn named_files(vfs: &dyn Vfs, path: &Path, settings: &Settings) -> Result<Vec<LiveFile>> {
        // It is not to be read from, so whatever else is wrong is met when the database is opened for good.
        Self::read_only(vfs, path, &Settings { bulk: true, ..settings.clone() }, false)?.live_files()
    }

    /// `whole`: only if all files are there.
    fn read_only(vfs: &dyn Vfs, path: &Path, settings: &Settings, whole: bool) -> Result<Self> {
        require_database(vfs, path)?;
        let listed = super::describe::list_families(path)?;
        let has_internal = listed.iter().any(|name| name == INTERNAL_FAMILY);
        let (mut options, families) = families(settings, has_internal);
        options.set_paranoid_checks(whole);
        let db = DB::open_cf_descriptors_read_only(&options, never_made(path), families, false)
            .map_err(|source| error("open the database read only", path, source))?;
        Ok(Database { read_only: true, ..Database::over(db, path, has_internal, settings) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was opened: files that are to be ingested are written alike.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it was opened for reading alone.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether it has the internal family; only a database from before the marker lacks it.
    pub fn has_internal(&self) -> bool {
        self.has_internal
    }

    pub(super) fn family(&self, family: Family) -> Result<&ColumnFamily> {
        let name = match family {
            Family::Data => DATA_FAMILY,
            Family::Internal => INTERNAL_FAMILY,
        };
        self.db.cf_handle(name).ok_or_else(|| {
            Error::new(ErrorKind::Refused, "use a column family", format!("there is no family `{name}`")).at(&self.path)
        })
    }

    /// The id of a family in the write-ahead log, as the database gave it out.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    #[cfg(any(test, feature = "log-backup", feature = "traps"))]
    pub fn family_id(&self, family: Family) -> Result<u32> {
        use super::batch_decoder::{Batch, Operation};
        // The crate does not tell it; a batch for the family holds it.
        let mut batch = WriteBatch::new();
        batch.inner.put_cf(self.family(family)?, b"", b"");
        match Batch::new(batch.inner.data())?.operations().next().transpose()? {
            Some(Operation::Put { family, .. }) => Ok(family),
            other => Err(Error::new(ErrorKind::Unsupported, "ask for a column family's id", format!("{other:?}"))),
        }
    }

    pub(super) fn error(&self, step: &'static str, source: rocksdb::Error) -> Error {
        error(step, &self.path, source)
    }

    /// The error of RocksDB's background work that it has not recovered from.
    pub(super) fn background_error(&self) -> Option<rocksdb::Error> {
        let mut options = WaitForCompactOptions::default();
        // With an error it does not wait at all; 0 would be for ever.
        options.set_timeout(1);
        let failed = self.db.wait_for_compact(&options).err();
        failed.filter(|error| {
            use rocksdb::ErrorKind::{Aborted, ShutdownInProgress, TimedOut};
            !matches!(error.kind(), Aborted | ShutdownInProgress | TimedOut)
        })
    }

    /// Reads a value without copying it.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<PinnedValue<'_>>> {
        let found = match family {
            // The default family's handle need not be looked up.
            Family::Data => self.db.get_pinned(key),
            Family::Internal => self.db.get_pinned_cf(self.family(family)?, key),
        };
        Ok(found.map_err(|source| self.error("read a key", source))?.map(PinnedValue))
    }

    /// Reads many values in one call.
    ///
    /// # Errors
    /// The first key that fails fails all.
    pub fn multi_get<K: AsRef<[u8]>>(&self, family: Family, keys: &[K]) -> Result<Vec<Option<PinnedValue<'_>>>> {
        let family = self.family(family)?;
        let found =
            self.db.batched_multi_get_cf(family, keys.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>().iter(), false);
        found
            .into_iter()
            .map(|value| Ok(value.map_err(|source| self.error("read keys", source))?.map(PinnedValue)))
            .collect()
    }

    /// Writes one key. Durable or not as `durability` says.
    ///
    /// # Errors
    /// The write may or may not be there after a restart.
    pub fn put(&self, family: Family, key: &[u8], value: &[u8], durability: Durability) -> Result<()> {
        let options = durability.options();
        match family {
            Family::Data => self.patiently("write a key", || self.db.put_opt(key, value, &options)),
            Family::Internal => {
                let family = self.family(family)?;
                self.patiently("write a key", || self.db.put_cf_opt(family, key, value, &options))
            }
        }
    }

    /// Deletes one key.
    ///
    /// # Errors
    /// The deletion may or may not be there after a restart.
    pub fn delete(&self, family: Family, key: &[u8], durability: Durability) -> Result<()> {
        let options = durability.options();
        match family {
            Family::Data => self.patiently("delete a key", || self.db.delete_opt(key, &options)),
            Family::Internal => {
                let family = self.family(family)?;
                self.patiently("delete a key", || self.db.delete_cf_opt(family, key, &options))
            }
        }
    }

    /// Writes a batch, whole or not at all.
    ///
    /// # Errors
    /// All of it or nothing of it may be there after a restart.
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let options = durability.options();
        // RocksDB keeps the batch, even one that it does not take yet.
        let bytes = batch.inner.data().to_vec();
        let mut batch = Some(batch.inner);
        self.patiently("write a batch", || {
            let batch = batch.take().unwrap_or_else(|| rocksdb::WriteBatch::from_data(&bytes));
            self.db.write_opt(batch, &options)
        })
    }

    /// A cursor over a family as it is now. `fill_cache`: the blocks it reads stay in the cache.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn cursor(&self, family: Family, fill_cache: bool) -> Result<Cursor<'_>> {
        self.cursor_ahead(family, fill_cache, if fill_cache { 0 } else { 2 << 20 }, None)
    }

    /// A cursor that reads `readahead_bytes` beyond each block; 0 leaves that to RocksDB. A cursor that jumps wants less
    /// than one that runs through. At `end`, where there is one, it is at its end.
    ///
    /// # Errors
    /// `Refused` if the family does not exist.
    pub fn cursor_ahead(
        &self,
        family: Family,
        fill_cache: bool,
        readahead_bytes: usize,
        end: Option<&[u8]>,
    ) -> Result<Cursor<'_>> {
        let mut options = ReadOptions::default();
        options.fill_cache(fill_cache);
        options.set_verify_checksums(true);
        options.set_readahead_size(readahead_bytes);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        Ok(Cursor::new(self.db.raw_iterator_cf_opt(self.family(family)?, options), &self.path))
    }

    /// A snapshot: a state that stays readable while writes go on.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot::new(self, self.db.snapshot())
    }

    /// Makes everything written so far durable in SST files, both families as one.
    ///
    /// # Errors
    /// Some of it may be durable; repeat.
    pub fn flush(&self) -> Result<()> {
        let mut families = vec![self.family(Family::Data)?];
        if self.has_internal {
            families.push(self.family(Family::Internal)?);
        }
        // Before it adds to so many files, RocksDB would wait for a compaction, also for one that fails again and again.
        let mut wait = None;
        while self.level0_files()? + 1 >= LEVEL0_FILES_MAX as u64 {
            wait.get_or_insert_with(|| Wait::new(self)).a_moment("flush")?;
        }
        let flushed = self.db.flush_cfs_opt(&families, &FlushOptions::default());
        flushed.map_err(|source| self.error("flush", source))
    }

    /// The last sequence number.
    pub fn last_sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// Gives what was written to the operating system, and with `sync` to the disk.
    ///
    /// # Errors
    /// What of it is durable is unknown.
    pub fn flush_wal(&self, sync: bool) -> Result<()> {
        self.db.flush_wal(sync).map_err(|source| self.error("flush the WAL", source))
    }

    /// The MANIFEST in use and its length: while both are the same, it names the files that it named.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn manifest(&self, vfs: &dyn Vfs) -> Result<(Vec<u8>, u64)> {
        let current = vfs.read(&self.path.join(ROCKSDB_CURRENT), CURRENT_BYTES_MAX)?;
        let name = String::from_utf8_lossy(&current).trim_end().to_owned();
        let stat = vfs.stat(&self.path.join(&name))?;
        Ok((current, stat.map_or(0, |stat| stat.len)))
    }

    /// Takes SST files in, by moving them. Files of one call must not overlap each other.
    ///
    /// # Errors
    /// All of the files or none are in the database; those that are not may still stand where they were. If the error met
    /// RocksDB while it wrote its MANIFEST, that may name the files, which RocksDB has removed: then the database does not
    /// open before they are back ([`Database::named_files`]).
    pub fn ingest(&self, files: &[PathBuf]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_opts(&options, files.to_vec()).map_err(|source| self.error("ingest files", source))
    }

    /// Lets RocksDB compact on its own, where the settings (`bulk`) did not.
    ///
    /// # Errors
    /// `Io`: one family may do so already.
    #[cfg(feature = "log-backup")]
    pub fn compact_by_itself(&self) -> Result<()> {
        for family in [Family::Data, Family::Internal] {
            let family = self.family(family)?;
            let set = self.db.set_options_cf(family, &[("disable_auto_compactions", "false")]);
            set.map_err(|source| self.error("let it compact", source))?;
        }
        Ok(())
    }

    /// Compacts the range down to the bottom level. `None`: no bound.
    ///
    /// # Errors
    /// `Io`, `NoSpace`: the range may be compacted in part; no data is changed.
    pub fn compact(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> Result<()> {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_opt(from, to, &options);
        // The call above reports nothing; this one does.
        self.db.wait_for_compact(&WaitForCompactOptions::default()).map_err(|source| self.error("compact", source))
    }

    /// RocksDB's checkpoint at a path that does not exist. The parent directory is not synced.
    ///
    /// # Errors
    /// The directory, or RocksDB's own `.tmp` beside it, may exist in part.
    pub fn checkpoint(&self, path: &Path) -> Result<()> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(path))
            .map_err(|source| error("make a checkpoint", path, source))
    }

    /// Closes it and reports what RocksDB says of its background work.
    ///
    /// # Errors
    /// `Io`, `NoSpace`: the database is closed all the same.
    pub fn close(self) -> Result<()> {
        // Asked for first: of a file that could not be written RocksDB says no more, from then on, than that it could not.
        let failed = self.background_error();
        // One that was opened to read has no WAL to flush, and RocksDB calls asking for it an error.
        let flushed = if self.read_only { Ok(()) } else { self.db.flush_wal(true) };
        let flushed = flushed.map_err(|source| self.error("close the database", failed.unwrap_or(source)));
        self.db.cancel_all_background_work(true);
        flushed
    }
}
