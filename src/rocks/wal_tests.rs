//! The reader of the log against RocksDB: what RocksDB writes, tears and recovers is read as RocksDB reads it.

use super::batch_decoder::{Batch, Frame, Operation, frame_operations};
use super::wal::{Next, Position, Record, WalReader, file_name, file_numbers};
use super::{Database, Durability, Family, Settings, WriteBatch};
use crate::fs::RealVfs;
use std::path::{Path, PathBuf};

/// (sequence, representation).
pub(super) type Written = (u64, Vec<u8>);

pub(super) fn vfs() -> RealVfs {
    RealVfs::default()
}

pub(super) fn settings() -> Settings {
    Settings { keep_wal: true, write_buffer_bytes: 1 << 20, ..Settings::default() }
}

/// A small generator of numbers (xorshift64*).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    pub(super) fn bytes(&mut self, len: u64) -> Vec<u8> {
        let start = self.below(256);
        (0..len).map(|index| (start + index / 3) as u8).collect()
    }

    fn size(&mut self) -> u64 {
        match self.below(60) {
            0 => 1_200_000 + self.below(1000),
            1..4 => 30_000 + self.below(70_000),
            // Where a header meets the end of a block.
            4..8 => 32_700 + self.below(80),
            _ => self.below(300),
        }
    }

    fn batch(&mut self, database: &Database) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for _ in 0..=self.below(8) {
            let family = if self.below(4) == 0 { Family::Internal } else { Family::Data };
            let (key, size) = (self.below(1000).to_be_bytes(), self.size());
            match self.below(8) {
                0 => batch.delete(database, family, &key).unwrap(),
                1 => batch.delete_range(database, family, &key, &[0xff]).unwrap(),
                _ => batch.put(database, family, &key, &self.bytes(size)).unwrap(),
            }
        }
        batch.log_data(&self.below(1 << 40).to_le_bytes());
        batch
    }
}

/// What RocksDB says was written, without the empty batches that it writes itself. Its iterator begins after the number that it is given.
pub(super) fn oracle(database: &Database) -> Vec<Written> {
    let mut iterator = database.db.get_updates_since(0).unwrap();
    let mut written = Vec::new();
    for update in iterator.by_ref() {
        let (sequence, batch) = update.unwrap();
        if !batch.is_empty() {
            written.push((sequence, batch.data().to_vec()));
        }
    }
    iterator.status().unwrap();
    written
}

/// Reads on to the end, and leaves empty batches out.
pub(super) fn read_on(reader: &mut WalReader, into: &mut Vec<Written>) -> bool {
    loop {
        match reader.next(&vfs(), |_| false).unwrap() {
            Next::Record(Record { count: 0, .. }) => {}
            Next::Record(record) => into.push((record.sequence, record.batch.to_vec())),
            Next::End { torn } => return torn,
            Next::Gap(gap) => panic!("{gap:?}"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false if entry.file_name() == "LOCK" => {}
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

pub(super) fn newest(path: &Path) -> PathBuf {
    path.join(file_name(*file_numbers(&vfs(), path).unwrap().last().unwrap()))
}

/// The state after a crash: the files as they are, and the end of the last WAL file torn, but not what was read of it.
/// Gives the name of that file, and how much of it RocksDB wrote.
fn crash(random: &mut Random, from: &Path, to: &Path, read: Position) -> (PathBuf, u64) {
    copy(from, to);
    let wal = newest(to);
    let (len, kept) =
        (std::fs::metadata(&wal).unwrap().len(), if wal.ends_with(file_name(read.file)) { read.offset } else { 0 });
    let len = kept + random.below((len - kept).min(3000) + 1).max((len - kept).saturating_sub(3000));
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes.truncate(len as usize);
    match random.below(3) {
        0 => bytes.extend([0; 5000]),
        1 => bytes.extend(random.bytes(40)),
        _ => {}
    }
    std::fs::write(&wal, bytes).unwrap();
    (PathBuf::from(wal.file_name().unwrap()), len)
}

#[test]
fn the_log_reads_as_rocksdb_reads_it() {
    let (mut records, mut crashes) = (0, 0);
    for seed in 1..=10 {
        let mut random = Random(seed * 0x9e37_79b9);
        let directory = tempfile::tempdir().unwrap();
        let mut path = directory.path().join("first");
        std::fs::create_dir(&path).unwrap();
        let mut database = Database::create(&path, &settings()).unwrap();
        let mut reader = WalReader::new(&path, Position::default(), None);
        let (mut read, mut torn) = (Vec::new(), Vec::new());
        for step in 0..120 {
            match random.below(24) {
                0 => database.flush().unwrap(),
                1 => {
                    database.close().unwrap();
                    database = Database::open(&vfs(), &path, &settings()).unwrap();
                }
                2 => {
                    let next = directory.path().join(step.to_string());
                    // Closing writes nothing, and nobody removes files while they are copied.
                    drop(database);
                    torn.push(crash(&mut random, &path, &next, reader.position()));
                    std::fs::remove_dir_all(&path).unwrap();
                    database = Database::open(&vfs(), &next, &settings()).unwrap();
                    reader = WalReader::new(&next, reader.position(), reader.expected());
                    path = next;
                }
                3..6 => assert!(!read_on(&mut reader, &mut read)),
                _ => database.write(random.batch(&database), Durability::Buffered).unwrap(),
            }
        }
        assert!(!read_on(&mut reader, &mut read));
        // RocksDB recovers from what a power cut leaves at the end of a file; its iterator does not.
        for (name, len) in &torn {
            let places = [path.join(name), path.join("archive").join(name)];
            let file = places.iter().find_map(|place| std::fs::File::options().write(true).open(place).ok());
            file.into_iter().for_each(|file| file.set_len(*len).unwrap());
        }
        crashes += torn.len();
        let wanted = oracle(&database);
        assert_eq!(read.len(), wanted.len(), "seed {seed}");
        assert!(read == wanted, "seed {seed}");
        let last = read.last().map(|(sequence, batch)| sequence + u64::from(Batch::new(batch).unwrap().count) - 1);
        assert_eq!(last.unwrap_or(0), database.last_sequence());
        records += read.len();
    }
    assert!(records > 600 && crashes > 20, "{records} records, {crashes} crashes");
}

#[test]
fn groups_of_several_writers_are_told_apart_by_their_stamps() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create(directory.path(), &settings()).unwrap();
    let (threads, batches) = (6u64, 60u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let database = &database;
            scope.spawn(move || {
                for number in 0..batches {
                    let mut batch = WriteBatch::new();
                    for part in 0..=number % 3 {
                        let family = if part == 1 { Family::Internal } else { Family::Data };
                        batch.put(database, family, &thread.to_be_bytes(), &number.to_be_bytes()).unwrap();
                    }
                    batch.log_data(&(thread << 32 | number).to_le_bytes());
                    database.write(batch, Durability::Sync).unwrap();
                }
            });
        }
    });
    let mut read = Vec::new();
    read_on(&mut WalReader::new(directory.path(), Position::default(), None), &mut read);
    assert_eq!(read, oracle(&database));
    assert!(read.len() < (threads * batches) as usize, "no group was merged: the test shows nothing");
    let ids = [database.family_id(Family::Data).unwrap(), database.family_id(Family::Internal).unwrap()];
    let (mut next, mut expected) = (vec![0; threads as usize], 1);
    for (_, bytes) in &read {
        let batch = Batch::new(bytes).unwrap();
        for frame in batch.frames().map(Result::unwrap) {
            let Frame { sequence, operations, bytes: range, stamp } = frame;
            let (thread, number) = (stamp.unwrap() >> 32, stamp.unwrap() & 0xffff_ffff);
            assert_eq!((next[thread as usize], sequence), (number, expected));
            assert_eq!(u64::from(operations), number % 3 + 1);
            for (part, operation) in frame_operations(&bytes[range], operations).map(Result::unwrap).enumerate() {
                let (key, value) = (&thread.to_be_bytes()[..], &number.to_be_bytes()[..]);
                let logged = stamp.unwrap().to_le_bytes();
                let wanted = match part as u32 {
                    part if part == operations => Operation::LogData(&logged),
                    part => Operation::Put { family: ids[usize::from(part == 1)], key, value },
                };
                assert_eq!(operation, wanted);
            }
            next[thread as usize] += 1;
            expected += u64::from(operations);
        }
    }
    assert_eq!(next, vec![batches; threads as usize]);
}

#[test]
fn files_that_end_while_they_are_read_are_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create(directory.path(), &settings()).unwrap();
    let mut reader = WalReader::new(directory.path(), Position::default(), None);
    let mut read = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = Random(11);
            for number in 0..1500 {
                database.write(random.batch(&database), Durability::Buffered).unwrap();
                if number % 10 == 0 {
                    database.flush().unwrap();
                }
            }
        });
        while !writer.is_finished() {
            read_on(&mut reader, &mut read);
        }
    });
    read_on(&mut reader, &mut read);
    assert!(read == oracle(&database));
    assert!(reader.position().file > 100, "the files did not change: the test shows nothing");
}
