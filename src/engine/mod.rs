//! The engine: reading and writing a database by the caller's keys.
//!
//! Keys go in and come out as the caller knows them; between here and RocksDB they are encoded. Every database is compared
//! bytewise (those from before the marker are converted before they are written), and much here rests on that: each range
//! becomes a half-open one, see [`bounds`](KeyRange).

mod attached;
mod batch;
mod bounds;
mod checkpoint;
mod hooks;
mod ingest;
pub mod inspect;
mod internal;
mod iter;
mod log;
mod lookup;
pub mod manage;
mod open;
mod options;
mod overlay;
mod shards;
mod slice;
mod snapshot;
mod walk;

pub use batch::Batch;
pub use bounds::KeyRange;
#[cfg(feature = "log-backup")]
pub(crate) use bounds::prefix_end;
pub use hooks::Hooks;
pub use internal::Internal;
pub use iter::{Children, Keys, Range};
pub use lookup::Comparison;
pub use options::{IntoEncoding, OnMismatch, Options};
pub use shards::{Shards, ShardsOptions};
pub use slice::Slice;
pub use snapshot::EngineSnapshot;

use crate::encoding::{EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::{INTERNAL_USER, Layout};
use crate::lock::{PlaceLock, RocksLock};
use crate::marker::Marker;
use crate::rocks::{Database, Durability, Family, Stats, WriteBatch};
use attached::Attached;
use bounds::Span;
use lookup::View;
use parking_lot::Mutex;
use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// An open database. Clones are cheap handles on the same one, for as many threads as one likes; the last to go closes it.
///
/// Values, iterators, snapshots and batches borrow the handle that they came from.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// The fields are dropped in this order: RocksDB is closed before the place is free for the next opener.
struct Inner {
    database: Database,
    encoding: Arc<dyn KeyEncoding>,
    marker: Marker,
    durability: Durability,
    /// The database has a log backup: each batch ends with a stamp.
    attached: Option<Attached>,
    /// Held by whoever lists WAL files or removes some: RocksDB's listing fails if one vanishes under it.
    wal_files: Mutex<()>,
    /// How many bulk loads were begun: each has a folder of its own.
    ingests: AtomicU64,
    layout: Layout,
    vfs: Arc<dyn Vfs>,
    /// Fields are dropped in their order: nobody gets in before the database is closed.
    _rocks_lock: Option<RocksLock>,
    lock: PlaceLock,
}

/// What an open database is made of.
pub(crate) struct Parts {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) layout: Layout,
    /// The lock of the place, which is held until the database is closed.
    pub(crate) lock: PlaceLock,
    /// Of a database that is read alone: RocksDB's own lock. Else RocksDB itself has it.
    pub(crate) rocks_lock: Option<RocksLock>,
    /// Open for writing, with both families, compared bytewise.
    pub(crate) database: Database,
    /// The encoding that the marker names.
    pub(crate) encoding: Arc<dyn KeyEncoding>,
    pub(crate) marker: Marker,
    pub(crate) durability: Durability,
    /// `LOG_BACKUP` stands in the directory: each batch ends with a stamp, and `NoWal` is refused.
    pub(crate) attached: bool,
    pub(crate) hooks: Option<Arc<dyn Hooks>>,
}

thread_local! {
    /// Keys are encoded into it, so that a read or a write of one key allocates nothing.
    static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer that has grown beyond this, in bytes, is not kept.
const KEPT_BUFFER_BYTES: usize = 64 << 10;

/// Calls `with` with this thread's buffer, empty. An encoding that calls an engine gets another one.
fn with_buffer<R>(with: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = ENCODED.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let done = with(&mut buffer);
    if buffer.capacity() <= KEPT_BUFFER_BYTES {
        // Where the thread is about to end, there is nothing to keep it for.
        let _ = ENCODED.try_with(|kept| kept.set(buffer));
    }
    done
}

/// Calls `with` with the key, in the internal family, of an internal record of the caller's.
fn with_user_record<R>(key: &[u8], with: impl FnOnce(&[u8]) -> R) -> R {
    with_buffer(|record| {
        record.extend_from_slice(INTERNAL_USER);
        record.extend_from_slice(key);
        with(record)
    })
}

/// Above every encoded key but those that begin with it.
const NEAR_END: [u8; 16] = [u8::MAX; 16];

impl Inner {
    /// Says where an error happened, if it does not say so itself.
    fn place(&self, error: Error) -> Error {
        if error.path().is_some() { error } else { error.at(&self.layout.live) }
    }

    fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.encoding.encode(key, out).map_err(|error| self.place(error))
    }

    fn span(&self, bounds: &impl KeyRange) -> Result<Span> {
        Span::encode(&*self.encoding, bounds).map_err(|error| self.place(error))
    }

    #[inline]
    fn with_encoded<R>(&self, key: &[u8], with: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        with_buffer(|encoded| {
            self.encode(key, encoded)?;
            with(encoded)
        })
    }

    fn put(&self, family: Family, encoded: &[u8], value: &[u8]) -> Result<()> {
        if self.attached.is_none() {
            return self.database.put(family, encoded, value, self.durability);
        }
        let mut batch = WriteBatch::new();
        batch.put(&self.database, family, encoded, value)?;
        self.write(batch)
    }

    fn delete(&self, family: Family, encoded: &[u8]) -> Result<()> {
        if self.attached.is_none() {
            return self.database.delete(family, encoded, self.durability);
        }
        let mut batch = WriteBatch::new();
        batch.delete(&self.database, family, encoded)?;
        self.write(batch)
    }

    /// The one way for a batch into the database.
    fn write(&self, batch: WriteBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let Some(attached) = &self.attached else { return self.database.write(batch, self.durability) };
        if self.durability == Durability::NoWal {
            let message = "the database has a log backup, and a write without WAL would never reach it";
            return Err(self.place(Error::new(ErrorKind::InvalidArgument, "write", message)));
        }
        attached.write(&self.database, batch, self.durability)
    }

    /// Adds the deletion of all data from `low` to before `high`. RocksDB fails a whole batch for an inverted range.
    fn delete_span(&self, batch: &mut WriteBatch, low: &[u8], high: &[u8]) -> Result<()> {
        if low < high { batch.delete_range(&self.database, Family::Data, low, high) } else { Ok(()) }
    }

    /// Adds the deletion of all data from `low` on. RocksDB needs an end: one that is above nearly every key, and for the
    /// few that are not, the greatest of them, in the database or put by the batch (`greatest`).
    fn delete_to_end(&self, batch: &mut WriteBatch, low: &[u8], greatest: Option<&[u8]>) -> Result<()> {
        self.delete_span(batch, low, &NEAR_END)?;
        let mut cursor = self.database.cursor_within(Family::Data, &NEAR_END, None)?;
        cursor.seek_last()?;
        if let Some(last) = cursor.key().max(greatest) {
            let after = [last, &[0]].concat();
            self.delete_span(batch, low.max(&NEAR_END[..]), &after)?;
        }
        Ok(())
    }
}

impl Engine {
    /// Makes a handle of an open database.
    pub(crate) fn assemble(parts: Parts) -> Engine {
        let Parts { vfs, layout, lock, rocks_lock, database, encoding, marker, durability, attached, hooks } = parts;
        let attached = attached.then(|| Attached::new(Arc::clone(&vfs), hooks));
        let (ingests, wal_files) = (AtomicU64::new(0), Mutex::new(()));
        let inner = Inner {
            database,
            encoding,
            marker,
            durability,
            attached,
            wal_files,
            ingests,
            layout,
            vfs,
            _rocks_lock: rocks_lock,
            lock,
        };
        Engine { inner: Arc::new(inner) }
    }

    fn view(&self) -> View<'_> {
        View { inner: &self.inner, snapshot: None, overlay: None }
    }

    /// Reads a value, without copying it.
    ///
    /// # Errors
    /// `Unrepresentable` if the encoding cannot carry the key (so it is not there); `Corrupt`, `Io`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice<'_>>> {
        self.view().get(key.as_ref())
    }

    /// Whether the key is there.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// Reads many values in one call, which is faster than one by one; the answers are in the order of the keys.
    ///
    /// # Errors
    /// As [`Engine::get`]; the first key that fails fails all.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice<'_>>>> {
        let encode = |key: K| {
            let mut encoded = Vec::with_capacity(key.as_ref().len() + 8);
            self.inner.encode(key.as_ref(), &mut encoded).map(|()| encoded)
        };
        let encoded = keys.into_iter().map(encode).collect::<Result<Vec<Vec<u8>>>>()?;
        let found = self.inner.database.multi_get(Family::Data, &encoded)?;
        Ok(found.into_iter().map(|value| value.map(Slice::pinned)).collect())
    }

    /// Writes a key, as durably as the database was opened for.
    ///
    /// # Errors
    /// `Unrepresentable` if the encoding cannot carry the key; `NoSpace`, `Io`: it may or may not be there after a
    /// restart.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.inner.with_encoded(key.as_ref(), |encoded| self.inner.put(Family::Data, encoded, value.as_ref()))
    }

    /// Deletes a key; one that is not there is no error.
    ///
    /// # Errors
    /// As [`Engine::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.inner.with_encoded(key.as_ref(), |encoded| self.inner.delete(Family::Data, encoded))
    }

    /// Deletes all keys of a range, in encoding order, at a cost that does not grow with their number. `..` deletes
    /// everything; a range whose end is before its start deletes nothing. See [`Batch::commit`] for ranges without an
    /// end.
    ///
    /// # Errors
    /// As [`Engine::put`], for the bounds.
    pub fn delete_range(&self, bounds: impl KeyRange) -> Result<()> {
        let span = self.inner.span(&bounds)?;
        let mut batch = WriteBatch::new();
        match &span.high {
            Some(high) => self.inner.delete_span(&mut batch, &span.low, high)?,
            None => self.inner.delete_to_end(&mut batch, &span.low, None)?,
        }
        self.inner.write(batch)
    }

    /// Makes everything written so far durable in SST files, data and internal records as one.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: some of it may be durable; repeat.
    pub fn flush(&self) -> Result<()> {
        self.inner.database.flush()
    }

    /// Bytes of all files in the database's directory.
    ///
    /// # Errors
    /// `Io`.
    pub fn disk_usage(&self) -> Result<u64> {
        crate::fs::tree_size(&*self.inner.vfs, &self.inner.layout.live)
    }

    /// Figures of the data, as RocksDB estimates them.
    ///
    /// # Errors
    /// `Io`.
    pub fn stats(&self) -> Result<Stats> {
        self.inner.database.stats()
    }

    /// The encoding that the keys lie in.
    pub fn encoding(&self) -> EncodingId {
        self.inner.marker.encoding.clone()
    }

    /// The marker: what the database is, and where it comes from.
    pub fn marker(&self) -> &Marker {
        &self.inner.marker
    }

    /// The database's directory.
    pub fn path(&self) -> &Path {
        &self.inner.layout.live
    }

    /// The sequence number of the last change; each change of a batch has one.
    pub fn last_sequence(&self) -> u64 {
        self.inner.database.last_sequence()
    }

    /// Closes the database and frees its place. Dropping the last handle does so too, and reports nothing.
    ///
    /// # Errors
    /// `Conflict` while clones of this handle live: this handle is gone, the database stays open for the others. `NoSpace`,
    /// `Io`: what was written last may not be durable; the database is closed all the same.
    pub fn close(self) -> Result<()> {
        let path = self.inner.layout.live.clone();
        let Some(inner) = Arc::into_inner(self.inner) else {
            let message = "other handles of it are in use, and it stays open for them";
            return Err(Error::new(ErrorKind::Conflict, "close the database", message).at(path));
        };
        let Inner { database, durability, lock, .. } = inner;
        let flushed = if durability == Durability::NoWal { database.flush() } else { Ok(()) };
        let closed = database.close();
        drop(lock);
        flushed.and(closed)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("path", &self.inner.layout.live)
            .field("encoding", &self.inner.marker.encoding.to_string())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Hierarchical, Natural};
    use crate::fs::RealVfs;
    use crate::layout::{INGEST, INTERNAL_IDENTITY};
    use crate::marker::{MARKER_FORMAT, Origin, OriginKind};
    use crate::rocks::Settings;
    use std::path::PathBuf;
    use uuid::Uuid;

    /// A stamp that can be found in a WAL file.
    const STAMP: u64 = 0x1122_3344_5566_7788;

    #[derive(Debug)]
    struct Fixed;

    impl Hooks for Fixed {
        fn stamp(&self) -> Option<u64> {
            Some(STAMP)
        }
    }

    fn assemble(directory: &Path, durability: Durability, attached: bool) -> Engine {
        let vfs: Arc<dyn Vfs> = Arc::new(RealVfs::default());
        let layout = Layout::new(&directory.join("db")).unwrap();
        let lock = PlaceLock::acquire(&*vfs, &layout).unwrap();
        vfs.make_dir(&layout.live).unwrap();
        let database = Database::create(&layout.live, &Settings { keep_wal: attached, ..Settings::default() }).unwrap();
        let id = Uuid::new_v4();
        let encoding: Arc<dyn KeyEncoding> = Arc::new(Natural);
        let marker = Marker {
            format: MARKER_FORMAT,
            database_id: id,
            instance_id: id,
            encoding: EncodingId::of(&*encoding),
            origin: Origin { kind: OriginKind::Create, id },
            sealed_sequence: 0,
            sealed: None,
        };
        let hooks: Option<Arc<dyn Hooks>> = Some(Arc::new(Fixed));
        let rocks_lock = None;
        Engine::assemble(Parts {
            vfs,
            layout,
            lock,
            rocks_lock,
            database,
            encoding,
            marker,
            durability,
            attached,
            hooks,
        })
    }

    fn open(path: &Path) -> Result<Engine> {
        Engine::open(path, Options::new().create_if_missing(true).durability(Durability::Buffered))
    }

    fn stamps_in_wal(engine: &Engine) -> usize {
        let folders = [engine.path().to_owned(), engine.path().join("archive")];
        let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let files = files.map(|entry| entry.unwrap().path());
        let logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        let bytes: Vec<u8> = logs.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
        bytes.windows(8).filter(|window| *window == STAMP.to_le_bytes()).count()
    }

    fn write_in_every_way(engine: &Engine) {
        engine.put("a", "1").unwrap();
        engine.delete("b").unwrap();
        engine.delete_range("c".."d").unwrap();
        engine.delete_range("e"..).unwrap();
        engine.internal().put("term", "1").unwrap();
        engine.internal().delete("term").unwrap();
        let mut batch = engine.batch();
        batch.put("a", "2").unwrap();
        batch.put_internal("term", "2");
        batch.commit().unwrap();
        engine.batch().commit().unwrap();
    }

    #[test]
    fn each_batch_of_a_database_with_a_log_backup_ends_with_a_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let engine = assemble(directory.path(), Durability::Sync, true);
        write_in_every_way(&engine);
        assert_eq!(stamps_in_wal(&engine), 7);
        // A bulk load is two batches: that it begins, and that it is in.
        engine.ingest([Ok(("a", "b"))]).unwrap();
        assert_eq!(stamps_in_wal(&engine), 9);
    }

    #[test]
    fn other_databases_have_no_stamps() {
        let directory = tempfile::tempdir().unwrap();
        let engine = assemble(directory.path(), Durability::Sync, false);
        write_in_every_way(&engine);
        assert_eq!(stamps_in_wal(&engine), 0);
    }

    #[test]
    fn a_write_that_a_log_backup_would_miss_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let engine = assemble(directory.path(), Durability::NoWal, true);
        let mut batch = engine.batch();
        batch.put("a", "1").unwrap();
        for refused in [
            engine.put("a", "1"),
            engine.delete("a"),
            engine.delete_range(..),
            engine.internal().put("a", "1"),
            batch.commit(),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!((engine.contains("a").unwrap(), engine.last_sequence()), (false, 0));
    }

    #[test]
    fn closing_waits_for_no_clone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let engine = open(&path).unwrap();
        let clone = engine.clone();
        let error = engine.close().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Conflict, Some(&*path)));
        clone.put("a", "1").unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::Locked);
        clone.close().unwrap();
        let engine = open(&path).unwrap();
        assert_eq!(engine.get("a").unwrap().unwrap(), "1");
        drop(engine);
        open(&path).unwrap();
    }

    #[test]
    fn what_was_written_without_wal_survives_closing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let options = Options::new().create_if_missing(true).durability(Durability::NoWal);
        let engine = Engine::open(&path, options.clone()).unwrap();
        engine.put("a", "1").unwrap();
        engine.internal().put("b", "2").unwrap();
        engine.close().unwrap();
        let engine = Engine::open(&path, options).unwrap();
        assert_eq!(engine.get("a").unwrap().unwrap(), "1");
        assert_eq!(engine.internal().get("b").unwrap().unwrap(), "2");
    }

    #[test]
    fn handles_are_used_by_many_threads() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(&directory.path().join("db")).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let engine = engine.clone();
                std::thread::spawn(move || {
                    for number in 0..200 {
                        let key = format!("{thread}/{number}");
                        let mut batch = engine.batch();
                        batch.put(&key, &key).unwrap();
                        batch.put(format!("{key}/twin"), &key).unwrap();
                        batch.commit().unwrap();
                        assert_eq!(engine.get(&key).unwrap().unwrap(), key);
                        // One state: each key that is seen has its twin.
                        assert_eq!(engine.keys(..).unwrap().map(Result::unwrap).count() % 2, 0);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(engine.keys(..).unwrap().count(), 1600);
        engine.close().unwrap();
    }

    #[test]
    fn refused_keys_say_where_and_which() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new().create_if_missing(true).encoding(Hierarchical);
        let engine = Engine::open(directory.path().join("db"), options).unwrap();
        let key = b"a\xff";
        for error in [
            engine.get(key).unwrap_err(),
            engine.put(key, "").unwrap_err(),
            engine.delete(key).unwrap_err(),
            engine.multi_get([key]).unwrap_err(),
            engine.range(&key[..]..).unwrap_err(),
            engine.delete_range(..=&key[..]).unwrap_err(),
            engine.lookup(key, Comparison::Floor).unwrap_err(),
            engine.children(key).unwrap_err(),
            engine.ingest([Ok((key, ""))]).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.path()), (ErrorKind::Unrepresentable, Some(engine.path())));
            assert!(error.message().contains("a\\xff"), "{error}");
        }
        assert!(engine.multi_get(Vec::<Vec<u8>>::new()).unwrap().is_empty());
        assert!(engine.range(..).unwrap().next().is_none());
    }

    #[test]
    fn data_never_meets_internal_records() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(&directory.path().join("db")).unwrap();
        engine.internal().put("k", "internal").unwrap();
        engine.internal().put("identity", "mine").unwrap();
        engine.put("k", "data").unwrap();
        engine.delete_range(..).unwrap();
        assert!(engine.get("k").unwrap().is_none());
        assert_eq!(engine.internal().scan(..).unwrap().count(), 2);
        let identity = engine.inner.database.get(Family::Internal, INTERNAL_IDENTITY).unwrap().unwrap();
        assert_eq!(*identity, engine.marker().identity().to_bytes().unwrap());
        let mut scan = engine.internal().scan("j".."l").unwrap();
        scan.seek("").unwrap();
        assert_eq!(scan.next().unwrap().unwrap(), (b"k".to_vec(), b"internal".to_vec()));
        assert!(scan.next().is_none());
        let snapshot = engine.snapshot();
        engine.internal().delete("k").unwrap();
        assert_eq!(snapshot.get_internal("k").unwrap().unwrap(), "internal");
        assert_eq!(snapshot.scan_internal(..).unwrap().count(), 2);
    }

    #[test]
    fn figures_are_about_this_database() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(&directory.path().join("db")).unwrap();
        let before = engine.disk_usage().unwrap();
        engine.put("a", vec![7; 100_000]).unwrap();
        engine.flush().unwrap();
        assert!(engine.disk_usage().unwrap() > before);
        assert_eq!(engine.stats().unwrap().entries_estimate, 1);
        assert_eq!(engine.encoding().to_string(), "natural r1");
        assert!(format!("{engine:?}").contains("natural r1"));
    }

    #[test]
    fn bulk_loads_take_sorted_entries_alone_and_leave_no_files() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new().create_if_missing(true).encoding(Hierarchical);
        let engine = Engine::open(directory.path().join("db"), options.clone()).unwrap();
        engine.put("z", "kept").unwrap();
        engine.put("/a", "replaced").unwrap();
        for keys in [["/a", "z"], ["z", "z"]] {
            let error = engine.ingest(keys.map(|key| Ok((key, "new")))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains("hierarchical r1 order: the key z is not after"), "{error}");
        }
        let broken = Error::new(ErrorKind::Lost, "read", "the source is gone");
        let error = engine.ingest([Ok(("z", "new")), Err(broken)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert_eq!(engine.get("z").unwrap().unwrap(), "kept");
        assert_eq!(engine.ingest(Vec::<Result<(&str, &str)>>::new()).unwrap(), 0);
        assert_eq!(engine.ingest(["a", "/a", "/b"].map(|key| Ok((key, "new")))).unwrap(), 3);
        let entries: Vec<_> = engine.range(..).unwrap().map(Result::unwrap).collect();
        let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(entries, [pair("a", "new"), pair("z", "kept"), pair("/a", "new"), pair("/b", "new")]);
        let output = engine.path().join(INGEST);
        assert!(std::fs::read_dir(&output).unwrap().next().is_none());
        // As a crash leaves them.
        std::fs::create_dir(output.join("7")).unwrap();
        std::fs::write(output.join("7/000000.sst"), "half").unwrap();
        engine.close().unwrap();
        let engine = Engine::open(directory.path().join("db"), options).unwrap();
        assert!(!output.exists());
        assert_eq!(engine.keys(..).unwrap().count(), 4);
    }
}
