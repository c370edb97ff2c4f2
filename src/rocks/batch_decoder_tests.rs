//! The decoder against batches that RocksDB makes, and against damage.

use super::batch_decoder::{Batch, Operation, frame_operations};
use super::{Database, Family, Settings, WriteBatch};
use crate::error::ErrorKind;
use crate::layout::INTERNAL_FAMILY;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Put(bool, Vec<u8>, Vec<u8>),
    Delete(bool, Vec<u8>),
    DeleteRange(bool, Vec<u8>, Vec<u8>),
    Stamp(u64),
    LogData(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || prop_oneof![prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 120..140)];
    let long = prop_oneof![9 => bytes(), 1 => prop::collection::vec(any::<u8>(), 16_380..16_390)];
    let step = prop_oneof![
        4 => (any::<bool>(), bytes(), long).prop_map(|(family, key, value)| Step::Put(family, key, value)),
        2 => (any::<bool>(), bytes()).prop_map(|(family, key)| Step::Delete(family, key)),
        1 => (any::<bool>(), bytes(), bytes()).prop_map(|(family, from, to)| Step::DeleteRange(family, from, to)),
        2 => any::<u64>().prop_map(Step::Stamp),
        1 => prop::collection::vec(any::<u8>(), 0..7).prop_map(Step::LogData),
    ];
    prop::collection::vec(step, 0..30)
}

fn family(internal: bool) -> Family {
    if internal { Family::Internal } else { Family::Data }
}

fn made(database: &Database, steps: &[Step]) -> Vec<u8> {
    let mut batch = WriteBatch::new();
    for step in steps {
        match step {
            Step::Put(internal, key, value) => batch.put(database, family(*internal), key, value).unwrap(),
            Step::Delete(internal, key) => batch.delete(database, family(*internal), key).unwrap(),
            Step::DeleteRange(internal, from, to) => {
                batch.delete_range(database, family(*internal), from, to).unwrap();
            }
            Step::Stamp(stamp) => batch.log_data(&stamp.to_le_bytes()),
            Step::LogData(bytes) => batch.log_data(bytes),
        }
    }
    batch.inner.data().to_vec()
}

#[test]
fn what_rocksdb_makes_is_decoded_and_cut_at_its_stamps() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create(directory.path(), &Settings::default()).unwrap();
    let id = |internal| database.family_id(family(internal)).unwrap();
    proptest!(ProptestConfig::with_cases(400), |(steps in steps())| {
        let bytes = made(&database, &steps);
        let batch = Batch::new(&bytes).unwrap();
        let operations: Vec<Operation<'_>> = batch.operations().map(Result::unwrap).collect();
        prop_assert_eq!(operations.len(), steps.len());
        for (operation, step) in operations.iter().zip(&steps) {
            let stamp;
            let wanted = match step {
                Step::Put(internal, key, value) => Operation::Put { family: id(*internal), key, value },
                Step::Delete(internal, key) => Operation::Delete { family: id(*internal), key },
                Step::DeleteRange(internal, from, to) => Operation::DeleteRange { family: id(*internal), from, to },
                Step::Stamp(at) => {
                    stamp = at.to_le_bytes();
                    Operation::LogData(&stamp)
                }
                Step::LogData(bytes) => Operation::LogData(bytes),
            };
            prop_assert_eq!(*operation, wanted);
        }
        let frames: Vec<_> = batch.frames().map(Result::unwrap).collect();
        let cut: Vec<&[Step]> = steps.split_inclusive(|step| matches!(step, Step::Stamp(_))).collect();
        prop_assert_eq!(frames.len(), cut.len());
        let (mut at, mut sequence) = (12, 0);
        for (frame, steps) in frames.iter().zip(&cut) {
            prop_assert_eq!((frame.bytes.start, frame.sequence), (at, sequence));
            let parts = frame_operations(&bytes[frame.bytes.clone()], frame.operations).map(Result::unwrap).count();
            prop_assert_eq!(parts, steps.len());
            let stamp = match steps.last() { Some(Step::Stamp(stamp)) => Some(*stamp), _ => None };
            prop_assert_eq!(frame.stamp, stamp);
            (at, sequence) = (frame.bytes.end, sequence + u64::from(frame.operations));
        }
        prop_assert_eq!((at, sequence), (bytes.len(), u64::from(batch.count)));
    });
}

#[test]
fn a_batch_that_is_cut_or_counts_wrongly_is_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create(directory.path(), &Settings::default()).unwrap();
    let steps = [
        Step::Put(true, b"key".to_vec(), vec![7; 300]),
        Step::DeleteRange(false, b"a".to_vec(), b"b".to_vec()),
        Step::Delete(false, b"key".to_vec()),
        Step::Stamp(1),
    ];
    let bytes = made(&database, &steps);
    let end = |bytes: &[u8]| {
        Batch::new(bytes).and_then(|batch| batch.operations().try_for_each(|operation| operation.map(drop)))
    };
    let frames =
        |bytes: &[u8]| Batch::new(bytes).and_then(|batch| batch.frames().try_for_each(|frame| frame.map(drop)));
    end(&bytes).unwrap();
    // The stamp takes no number, so that a batch without it counts rightly.
    let without_stamp = bytes.len() - 10;
    for len in (0..bytes.len()).filter(|len| *len != without_stamp) {
        assert_eq!(end(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
        assert_eq!(frames(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
    }
    for count in [0, 2, 4, u32::MAX] {
        let mut wrong = bytes.clone();
        wrong[8..12].copy_from_slice(&count.to_le_bytes());
        assert_eq!(end(&wrong).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(frames(&wrong).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let mut beyond = bytes.clone();
    beyond[..8].copy_from_slice(&((1u64 << 56) - 2).to_le_bytes());
    assert_eq!(end(&beyond).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn every_other_tag_is_unsupported() {
    let known = [0x0, 0x1, 0x3, 0x4, 0x5, 0xD, 0xE, 0xF];
    for tag in (0..=u8::MAX).filter(|tag| !known.contains(tag)) {
        let bytes = [&[0; 8][..], &[1, 0, 0, 0], &[tag], &[0; 40]].concat();
        let error = Batch::new(&bytes).unwrap().operations().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{tag:#x}");
    }
    // RocksDB's own: a merge and a single deletion.
    let mut merge = rocksdb::WriteBatch::default();
    merge.merge(b"key", b"value");
    let mut single = rocksdb::WriteBatch::default();
    single.single_delete(b"key");
    for batch in [merge, single] {
        let error = Batch::new(batch.data()).unwrap().operations().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn families_have_the_ids_that_the_database_gave_them() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create(directory.path(), &Settings::default()).unwrap();
    let ids = |database: &Database| [Family::Data, Family::Internal].map(|family| database.family_id(family).unwrap());
    assert_eq!(ids(&database), [super::batch_decoder::DEFAULT_FAMILY, 1]);
    database.close().unwrap();
    // Another family came first: the id is another one, and is asked for, not assumed.
    let directory = tempfile::tempdir().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let mut db = rocksdb::DB::open(&options, directory.path()).unwrap();
    db.create_cf("first", &options).unwrap();
    db.drop_cf("first").unwrap();
    db.create_cf(INTERNAL_FAMILY, &options).unwrap();
    drop(db);
    let database = Database::open(&crate::fs::RealVfs::default(), directory.path(), &Settings::default()).unwrap();
    assert_eq!(ids(&database), [0, 2]);
}
