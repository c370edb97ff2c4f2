//! Batches: changes that are written together or not at all, and that can be read before they are written.

use super::bounds::KeyRange;
use super::iter::{Keys, Range};
use super::lookup::{Comparison, View};
use super::overlay::Overlay;
use super::slice::Slice;
use super::{Engine, with_user_record};
use crate::error::Result;
use crate::rocks::{Family, WriteBatch};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

enum Operation {
    Put {
        key: Arc<[u8]>,
        value: Arc<[u8]>,
    },
    Delete {
        key: Arc<[u8]>,
    },
    /// `high` is `None` where the range has no end.
    DeleteRange {
        low: Arc<[u8]>,
        high: Option<Arc<[u8]>>,
    },
    /// Keys of internal records, with the prefix of the caller's half.
    PutInternal {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    DeleteInternal {
        key: Vec<u8>,
    },
}

/// Changes that are written together or not at all. Dropping it discards them.
///
/// Reading through it shows the database *of the moment of each call* with the batch's own changes on top: another
/// writer's changes show too, as soon as they are written.
pub struct Batch<'e> {
    engine: &'e Engine,
    operations: Vec<Operation>,
    overlay: Overlay,
    checksum: crc32fast::Hasher,
    size: usize,
}

impl Engine {
    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            engine: self,
            operations: Vec::new(),
            overlay: Overlay::default(),
            checksum: crc32fast::Hasher::new(),
            size: 0,
        }
    }
}

/// The first byte of each operation in [`Batch::checksum`].
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Put = 1,
    Delete = 2,
    DeleteRange = 3,
    PutInternal = 4,
    DeleteInternal = 5,
}

impl<'e> Batch<'e> {
    /// Adds a put.
    ///
    /// # Errors
    /// `Unrepresentable` if the encoding cannot carry the key; the batch is as it was.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let encoded = self.encode(key)?;
        self.count(Tag::Put, &[key, value]);
        let value: Arc<[u8]> = value.into();
        self.overlay.put(encoded.clone(), value.clone());
        self.operations.push(Operation::Put { key: encoded, value });
        Ok(())
    }

    /// Adds a deletion.
    ///
    /// # Errors
    /// `Unrepresentable` if the encoding cannot carry the key; the batch is as it was.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let encoded = self.encode(key.as_ref())?;
        self.count(Tag::Delete, &[key.as_ref()]);
        self.overlay.delete(&encoded);
        self.operations.push(Operation::Delete { key: encoded });
        Ok(())
    }

    /// Adds the deletion of all keys of a range, in encoding order. A range whose end is before its start deletes
    /// nothing.
    ///
    /// # Errors
    /// `Unrepresentable` if the encoding cannot carry a bound; the batch is as it was.
    pub fn delete_range(&mut self, bounds: impl KeyRange) -> Result<()> {
        let span = self.engine.inner.span(&bounds)?;
        self.count(Tag::DeleteRange, &[]);
        for bound in [bounds.start(), bounds.end()] {
            match bound {
                Bound::Unbounded => self.checksum.update(&[0]),
                Bound::Included(key) => self.count_bound(1, key),
                Bound::Excluded(key) => self.count_bound(2, key),
            }
        }
        let empty = span.is_empty();
        let (low, high): (Arc<[u8]>, Option<Arc<[u8]>>) = (span.low.into(), span.high.map(Into::into));
        if !empty {
            self.overlay.delete_range(low.clone(), high.clone());
        }
        self.operations.push(Operation::DeleteRange { low, high });
        Ok(())
    }

    /// Adds a put of an internal record of the caller's: see [`Internal`](super::Internal).
    pub fn put_internal(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.count(Tag::PutInternal, &[key, value]);
        let key = with_user_record(key, <[u8]>::to_vec);
        self.operations.push(Operation::PutInternal { key, value: value.to_vec() });
    }

    /// Adds the deletion of an internal record of the caller's.
    pub fn delete_internal(&mut self, key: impl AsRef<[u8]>) {
        self.count(Tag::DeleteInternal, &[key.as_ref()]);
        let key = with_user_record(key.as_ref(), <[u8]>::to_vec);
        self.operations.push(Operation::DeleteInternal { key });
    }

    fn encode(&self, key: &[u8]) -> Result<Arc<[u8]>> {
        self.engine.inner.with_encoded(key, |encoded| Ok(encoded.into()))
    }

    fn count(&mut self, tag: Tag, fields: &[&[u8]]) {
        self.checksum.update(&[tag as u8]);
        for field in fields {
            self.count_field(field);
        }
    }

    fn count_bound(&mut self, kind: u8, key: &[u8]) {
        self.checksum.update(&[kind]);
        self.count_field(key);
    }

    fn count_field(&mut self, field: &[u8]) {
        self.checksum.update(&(field.len() as u64).to_le_bytes());
        self.checksum.update(field);
        self.size += field.len();
    }

    fn view(&self) -> View<'_> {
        View { overlay: Some(&self.overlay), ..self.engine.view() }
    }

    /// As [`Engine::get`], through the batch.
    ///
    /// # Errors
    /// `Unrepresentable`, `Corrupt`, `Io`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice<'_>>> {
        self.view().get(key.as_ref())
    }

    /// As [`Engine::contains`], through the batch.
    ///
    /// # Errors
    /// `Unrepresentable`, `Corrupt`, `Io`.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// As [`Engine::lookup`], through the batch.
    ///
    /// # Errors
    /// `Unrepresentable`, `Corrupt`, `Io`.
    pub fn lookup(&self, key: impl AsRef<[u8]>, comparison: Comparison) -> Result<Option<(Vec<u8>, Slice<'_>)>> {
        self.view().lookup(key.as_ref(), comparison)
    }

    /// As [`Engine::range`], through the batch.
    ///
    /// # Errors
    /// `Unrepresentable`.
    pub fn range(&self, bounds: impl KeyRange) -> Result<Range<'_>> {
        self.view().range(&bounds)
    }

    /// As [`Engine::keys`], through the batch.
    ///
    /// # Errors
    /// `Unrepresentable`.
    pub fn keys(&self, bounds: impl KeyRange) -> Result<Keys<'_>> {
        self.view().keys(&bounds)
    }

    /// The number of changes that were added.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of all keys, bounds and values that were added, as they were given: for deciding when a batch is big enough.
    pub fn size_in_bytes(&self) -> usize {
        self.size
    }

    /// The crc32 (the one of zip, gzip and Ethernet) of all changes in their order, going on from `seed`: replicas that
    /// apply the same changes from the same seed get the same sum, whatever the encoding of each, and whether or not one
    /// has a log backup. The sum of one batch may be the seed of the next.
    ///
    /// What is summed, and will be for ever, is for each change: one byte that says what it is, then its fields. A *field*
    /// is its length in bytes (8 bytes, little-endian) and then the bytes, as they were given.
    ///
    /// | byte | change | then |
    /// |---|---|---|
    /// | 1 | put | field key, field value |
    /// | 2 | delete | field key |
    /// | 3 | delete a range | its start, then its end: 0 for none, or 1 (included) or 2 (excluded) and field key |
    /// | 4 | put an internal record | field key, field value |
    /// | 5 | delete an internal record | field key |
    pub fn checksum(&self, seed: u32) -> u32 {
        let mut sum = crc32fast::Hasher::new_with_initial(seed);
        sum.combine(&self.checksum);
        sum.finalize()
    }

    /// Writes all changes as one. An empty batch writes nothing.
    ///
    /// A range without an end deletes all that was there when this was called, whatever its key. (One that is written by
    /// another thread during the call, and whose encoded key begins with 16 bytes 0xFF, may stay.)
    ///
    /// # Errors
    /// `NoSpace`, `Io`: after a restart all of it or nothing may be there. `InvalidArgument` if the database has a log
    /// backup and was opened with [`Durability::NoWal`](crate::rocks::Durability::NoWal): nothing was written.
    pub fn commit(self) -> Result<()> {
        let inner = &self.engine.inner;
        let database = &inner.database;
        let mut batch = WriteBatch::new();
        let mut greatest: Option<Arc<[u8]>> = None;
        for operation in self.operations {
            match operation {
                Operation::Put { key, value } => {
                    batch.put(database, Family::Data, &key, &value)?;
                    if greatest.as_ref().is_none_or(|greatest| *greatest < key) {
                        greatest = Some(key);
                    }
                }
                Operation::Delete { key } => batch.delete(database, Family::Data, &key)?,
                Operation::DeleteRange { low, high: Some(high) } => inner.delete_span(&mut batch, &low, &high)?,
                Operation::DeleteRange { low, high: None } => {
                    inner.delete_to_end(&mut batch, &low, greatest.as_deref())?;
                }
                Operation::PutInternal { key, value } => batch.put(database, Family::Internal, &key, &value)?,
                Operation::DeleteInternal { key } => batch.delete(database, Family::Internal, &key)?,
            }
        }
        inner.write(batch)
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).field("size_in_bytes", &self.size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::encoding::{Hierarchical, KeyEncoding, Natural};
    use crate::error::ErrorKind;

    fn engine(directory: &tempfile::TempDir, encoding: impl KeyEncoding) -> Engine {
        let path = directory.path().join(encoding.name());
        Engine::open(path, Options::new().encoding(encoding).create_if_missing(true)).unwrap()
    }

    fn fill(batch: &mut Batch<'_>) {
        batch.put("/a/b", "value").unwrap();
        batch.delete("").unwrap();
        batch.delete_range(..).unwrap();
        batch.delete_range("a".."b").unwrap();
        batch.put_internal("term", [7]);
        batch.delete_internal("term");
    }

    /// Computed with Python's `zlib.crc32` over the bytes that the documentation lists.
    #[test]
    fn checksums_never_change() {
        let directory = tempfile::tempdir().unwrap();
        for engine in [engine(&directory, Natural), engine(&directory, Hierarchical)] {
            let mut batch = engine.batch();
            assert_eq!([batch.checksum(0), batch.checksum(7)], [0, 7]);
            fill(&mut batch);
            assert_eq!([batch.checksum(0), batch.checksum(0x1234_5678)], [0xc562_9b5b, 0xb923_5305]);
            assert_eq!((batch.len(), batch.size_in_bytes()), (6, 20));
            batch.commit().unwrap();
            assert_eq!(engine.keys(..).unwrap().count(), 0);
        }
    }

    #[test]
    fn checksums_tell_changes_apart_and_chain() {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine(&directory, Natural);
        let sum = |fill: &dyn Fn(&mut Batch<'_>)| {
            let mut batch = engine.batch();
            fill(&mut batch);
            batch.checksum(0)
        };
        let mut sums = vec![
            sum(&|batch| batch.put("ab", "c").unwrap()),
            sum(&|batch| batch.put("a", "bc").unwrap()),
            sum(&|batch| batch.put_internal("a", "bc")),
            sum(&|batch| batch.delete("a").unwrap()),
            sum(&|batch| batch.delete_internal("a")),
            sum(&|batch| batch.delete_range("a"..).unwrap()),
            sum(&|batch| batch.delete_range(.."a").unwrap()),
            sum(&|batch| batch.delete_range(..="a").unwrap()),
        ];
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), 8);

        let (mut first, mut second, mut both) = (engine.batch(), engine.batch(), engine.batch());
        first.put("a", "1").unwrap();
        second.delete("b").unwrap();
        both.put("a", "1").unwrap();
        both.delete("b").unwrap();
        assert_eq!(second.checksum(first.checksum(0)), both.checksum(0));
    }

    #[test]
    fn a_key_that_is_refused_leaves_the_batch_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine(&directory, Hierarchical);
        let mut batch = engine.batch();
        batch.put("a", "1").unwrap();
        let before = (batch.len(), batch.size_in_bytes(), batch.checksum(0));
        for error in [
            batch.put(b"\xff", "").unwrap_err(),
            batch.delete(b"\xff").unwrap_err(),
            batch.delete_range(&b"a"[..]..&b"\xff"[..]).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.path()), (ErrorKind::Unrepresentable, Some(engine.path())));
            assert!(error.message().contains("\\xff"), "{error}");
        }
        assert_eq!((batch.len(), batch.size_in_bytes(), batch.checksum(0)), before);
        batch.commit().unwrap();
        assert_eq!(engine.get("a").unwrap().unwrap(), "1");
    }

    #[test]
    fn a_batch_that_is_dropped_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine(&directory, Natural);
        let sequence = engine.last_sequence();
        let mut batch = engine.batch();
        batch.put("a", "1").unwrap();
        drop(batch);
        engine.batch().commit().unwrap();
        engine.delete_range("b".."a").unwrap();
        assert_eq!(engine.last_sequence(), sequence);
    }
}
