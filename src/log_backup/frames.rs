//! The log as frames: batches with the time that each has in it. Pure but for reading WAL files.
//!
//! Writers queue after they have taken their stamp, so stamps are not in the order of the log. The time of a frame is
//! given to it here: the greatest of its stamp, the time of the frame before, and the floor. So time never goes back along
//! the log, and the writes up to a time T are a beginning of it: what was acknowledged before the clock showed T is in that
//! beginning, what began after T is not.

use crate::attachment::{Load, LoadState};
use crate::error::Result;
use crate::fs::Vfs;
use crate::rocks::batch_decoder::Batch;
use crate::rocks::wal::{Gap, Jump, Next, Position, WalReader};
use std::ops::Range;
use std::path::PathBuf;

/// A batch as it was written by one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedFrame {
    /// The sequence number of its first operation.
    pub sequence: u64,
    /// How many of its operations take a sequence number.
    pub operations: u32,
    /// Its operations within the bytes of the record.
    pub bytes: Range<usize>,
    /// Its time, in microseconds of the Unix epoch.
    pub time: u64,
}

/// What was read of the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'r> {
    /// A record.
    Record {
        /// The representation of the batch.
        batch: &'r [u8],
        /// Its parts, at least one unless the batch is empty.
        frames: Vec<TimedFrame>,
        /// What it says of a bulk load. One that is done belongs before the frames: its entries are in its files alone.
        load: Option<Load>,
        /// Where it ends.
        end: Position,
    },
    /// All up to the limit was read.
    Done,
    /// A bulk load is under way, whose sequence numbers are within the limit and whose end is not.
    Loading,
    /// The log does not go on.
    Gap(Gap),
    /// The log ends before the limit: the record with this sequence number should be there.
    Short {
        /// The first sequence number that is missing.
        expected: u64,
    },
}

/// Reads the log of a database, or what it handed over in `unshipped/`.
#[derive(Debug)]
pub struct LogReader {
    wal: WalReader,
    internal: u32,
    time: u64,
    loading: bool,
}

impl LogReader {
    /// Reads the log of `directory` from `at` on, where the record that begins with `expected` stands. `floor` is the time
    /// of the frame before it; `internal` the id of the internal family.
    pub fn new(directory: impl Into<PathBuf>, at: Position, expected: u64, floor: u64, internal: u32) -> Self {
        let wal = WalReader::new(directory, at, Some(expected));
        LogReader { wal, internal, time: floor, loading: false }
    }

    /// The same, where the position is not known.
    ///
    /// # Errors
    /// As [`LogReader::next`].
    pub fn from_sequence(
        vfs: &dyn Vfs,
        directory: impl Into<PathBuf>,
        expected: u64,
        floor: u64,
        internal: u32,
    ) -> Result<Self> {
        let wal = WalReader::from_sequence(vfs, directory, expected)?;
        Ok(LogReader { wal, internal, time: floor, loading: false })
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        self.wal.position()
    }

    /// The time of the last frame, or the floor.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// No later frame has a time below `floor`.
    pub fn raise(&mut self, floor: u64) {
        self.time = self.time.max(floor);
    }

    /// The next record that ends at or before the sequence number `limit`. For a database that is open that is the last
    /// one from before the WAL was synced; for a log that was handed over, its end.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`. The reader stays where it is, but for a record that cannot be decoded.
    pub fn next(&mut self, vfs: &dyn Vfs, limit: u64) -> Result<Entry<'_>> {
        let internal = self.internal;
        let explained = |jump: &Jump<'_>| {
            let load = Load::in_batch(jump.record.batch, internal);
            load.is_ok_and(|load| load.is_some_and(|load| load.explains(jump.expected, jump.record.sequence)))
        };
        let expected = self.wal.expected().unwrap_or_default();
        let record = match self.wal.next_within(vfs, limit, explained)? {
            Next::Record(record) => record,
            Next::Gap(gap) => return Ok(Entry::Gap(gap)),
            Next::End { .. } if expected > limit => return Ok(Entry::Done),
            // The load has taken its numbers, and its last record comes later, after a crash by the next open.
            Next::End { .. } if self.loading => return Ok(Entry::Loading),
            Next::End { .. } => return Ok(Entry::Short { expected }),
        };
        let mut time = self.time;
        let mut frames = Vec::new();
        for frame in Batch::new(record.batch)?.frames() {
            let frame = frame?;
            time = time.max(frame.stamp.unwrap_or(0));
            let (sequence, operations, bytes) = (frame.sequence, frame.operations, frame.bytes);
            frames.push(TimedFrame { sequence, operations, bytes, time });
        }
        let load = Load::in_batch(record.batch, internal)?;
        self.time = time;
        if !frames.is_empty() {
            self.loading = load.as_ref().is_some_and(|load| load.state == LoadState::Begun);
        }
        Ok(Entry::Record { batch: record.batch, frames, load, end: record.end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealVfs;
    use crate::layout::INTERNAL_INGEST;
    use crate::rocks::{Database, Durability, Family, Settings, SstOptions, SstWriter, WriteBatch};
    use std::path::Path;

    fn database(directory: &Path) -> Database {
        Database::create(directory, &Settings { keep_wal: true, ..Settings::default() }).unwrap()
    }

    fn write(database: &Database, keys: u32, stamp: u64) {
        let mut batch = WriteBatch::new();
        for key in 0..keys {
            batch.put(database, Family::Data, &key.to_be_bytes(), b"value").unwrap();
        }
        batch.log_data(&stamp.to_le_bytes());
        database.write(batch, Durability::Buffered).unwrap();
    }

    fn note(database: &Database, load: &Load) {
        let mut batch = WriteBatch::new();
        batch.put(database, Family::Internal, INTERNAL_INGEST, &load.to_bytes().unwrap()).unwrap();
        batch.log_data(&9u64.to_le_bytes());
        database.write(batch, Durability::Buffered).unwrap();
    }

    fn ingest(database: &Database, directory: &Path) {
        let options = SstOptions::new(&Settings::default());
        let mut writer = SstWriter::create(&options, &directory.join("load.sst")).unwrap();
        writer.put(&0u32.to_be_bytes(), b"loaded").unwrap();
        database.ingest(&[writer.finish().unwrap()]).unwrap();
    }

    fn reader(database: &Database) -> LogReader {
        let internal = database.family_id(Family::Internal).unwrap();
        LogReader::new(database.path(), Position::default(), 1, 0, internal)
    }

    /// The (sequence, time) of each frame up to the limit, and what came then.
    fn read(reader: &mut LogReader, limit: u64) -> (Vec<(u64, u64)>, String) {
        let mut times = Vec::new();
        loop {
            match reader.next(&RealVfs::default(), limit).unwrap() {
                Entry::Record { frames, .. } => times.extend(frames.iter().map(|frame| (frame.sequence, frame.time))),
                other => return (times, format!("{other:?}")),
            }
        }
    }

    #[test]
    fn time_is_given_in_the_order_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(directory.path());
        for (keys, stamp) in [(1, 10), (2, 30), (1, 20), (3, 30), (1, 5), (1, 40)] {
            write(&database, keys, stamp);
        }
        let wanted = vec![(1, 10), (2, 30), (4, 30), (5, 30), (8, 30), (9, 40)];
        assert_eq!(read(&mut reader(&database), 9), (wanted.clone(), "Done".into()));
        let mut raised = reader(&database);
        raised.raise(25);
        raised.raise(3);
        assert_eq!(read(&mut raised, 9).0, wanted.iter().map(|(at, time)| (*at, (*time).max(25))).collect::<Vec<_>>());
        assert_eq!(raised.time(), 40);
        // From any frame on, with the time of the one before it as the floor, it is the same.
        for index in 1..wanted.len() {
            let (sequence, floor) = (wanted[index].0, wanted[index - 1].1);
            let mut later =
                LogReader::from_sequence(&RealVfs::default(), directory.path(), sequence, floor, 1).unwrap();
            assert_eq!(read(&mut later, 9).0, wanted[index..]);
        }
    }

    #[test]
    fn nothing_beyond_the_limit_is_read_and_what_is_missing_before_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(directory.path());
        for _ in 0..3 {
            write(&database, 2, 1);
        }
        let mut reader = reader(&database);
        for (limit, count, then) in [(1, 0, "Short { expected: 1 }"), (2, 1, "Done"), (2, 0, "Done"), (6, 2, "Done")] {
            let (times, end) = read(&mut reader, limit);
            assert_eq!((times.len(), end.as_str()), (count, then), "limit {limit}");
        }
        assert_eq!(read(&mut reader, 7).1, "Short { expected: 7 }");
    }

    #[test]
    fn a_load_is_waited_for_and_belongs_where_it_ended() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(directory.path());
        write(&database, 1, 1);
        let mut load =
            Load { format: 1, group: uuid::Uuid::from_u128(1), files: 1, sequence: 2, state: LoadState::Begun };
        note(&database, &load);
        let mut reader = reader(&database);
        assert_eq!(read(&mut reader, database.last_sequence()).1, "Done");
        ingest(&database, directory.path());
        let after = database.last_sequence();
        assert_eq!(after, 3, "the load took no number: the test shows nothing");
        assert_eq!(read(&mut reader, after).1, "Loading");
        load.state = LoadState::Done { after };
        note(&database, &load);
        assert_eq!(read(&mut reader, after).1, "Loading", "its last record is beyond the limit");
        match reader.next(&RealVfs::default(), 4).unwrap() {
            Entry::Record { frames, load: found, .. } => {
                assert_eq!((frames[0].sequence, found), (4, Some(load.clone())))
            }
            other => panic!("{other:?}"),
        }
        // A load that nothing is known of, and one that tells of another place.
        for known in [false, true] {
            ingest(&database, directory.path());
            if known {
                note(&database, &load);
            } else {
                write(&database, 1, 9);
            }
            let mut from = LogReader::from_sequence(&RealVfs::default(), directory.path(), 5, 9, 1).unwrap();
            assert!(read(&mut from, database.last_sequence()).1.starts_with("Gap"));
        }
    }
}
