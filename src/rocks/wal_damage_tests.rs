//! A log that is torn, damaged, incomplete, moved while it is read, or written in ways that are not read here.

use super::wal::{Gap, Next, Position, Record, WalReader, file_name, file_numbers};
use super::wal_tests::{Random, Written, newest, oracle, read_on, settings, vfs};
use super::{Database, Durability, Family, WriteBatch};
use crate::error::ErrorKind;
use std::path::Path;

/// A directory with WAL files alone, and what is in them. Records of many sizes, in three files, the first in `archive`.
fn files(directory: &Path) -> Vec<Written> {
    let path = directory.join("source");
    std::fs::create_dir(&path).unwrap();
    let mut random = Random(7);
    let mut database = Database::create(&path, &settings()).unwrap();
    for round in 0..3 {
        for size in [10, 40_000, 300, 0, 32_740] {
            let mut batch = WriteBatch::new();
            batch.put(&database, Family::Data, b"key", &random.bytes(size)).unwrap();
            batch.delete(&database, Family::Internal, b"key").unwrap();
            database.write(batch, Durability::Buffered).unwrap();
        }
        if round < 2 {
            database.close().unwrap();
            database = Database::open(&vfs(), &path, &settings()).unwrap();
        }
    }
    let written = oracle(&database);
    drop(database);
    let logs = directory.join("log");
    std::fs::create_dir_all(logs.join("archive")).unwrap();
    for folder in [path.clone(), path.join("archive")] {
        for number in file_numbers(&vfs(), &folder).unwrap() {
            let to = if number == all(&path)[0] { logs.join("archive") } else { logs.clone() };
            std::fs::copy(folder.join(file_name(number)), to.join(file_name(number))).unwrap();
        }
    }
    written
}

fn all(directory: &Path) -> Vec<u64> {
    let mut numbers = file_numbers(&vfs(), directory).unwrap();
    numbers.extend(file_numbers(&vfs(), &directory.join("archive")).unwrap());
    numbers.sort_unstable();
    numbers
}

/// How reading ends that is not allowed to give anything but a beginning of `written`.
fn ending(directory: &Path, written: &[Written]) -> (usize, Result<String, ErrorKind>) {
    let mut reader = WalReader::new(directory, Position::default(), Some(1));
    let mut count = 0;
    loop {
        match reader.next(&vfs(), |_| false) {
            Ok(Next::Record(record)) => {
                assert!(
                    written
                        .get(count)
                        .is_some_and(|(sequence, batch)| (*sequence, &batch[..]) == (record.sequence, record.batch))
                );
                count += 1;
            }
            Ok(end) => return (count, Ok(format!("{end:?}"))),
            Err(error) => return (count, Err(error.kind())),
        }
    }
}

#[test]
fn a_torn_end_is_the_end_until_it_grows() {
    let directory = tempfile::tempdir().unwrap();
    let written = files(directory.path());
    let log = directory.path().join("log");
    let last = newest(&log);
    let bytes = std::fs::read(&last).unwrap();
    let whole = ending(&log, &written);
    assert_eq!(whole, (15, Ok("End { torn: false }".into())));
    let mut random = Random(3);
    let cuts = (0..400).map(|_| random.below(bytes.len() as u64) as usize).chain(0..60).chain(32_700..32_800);
    let mut torn_ends = 0;
    for cut in cuts {
        std::fs::write(&last, &bytes[..cut]).unwrap();
        let mut reader = WalReader::new(&log, Position::default(), None);
        let mut read = Vec::new();
        torn_ends += usize::from(read_on(&mut reader, &mut read));
        let at_the_tear = read.len();
        let again = usize::from(cut % 2 == 0) * (bytes.len() - cut) / 2 + cut;
        for len in [again, bytes.len()] {
            std::fs::write(&last, &bytes[..len]).unwrap();
            read_on(&mut reader, &mut read);
        }
        assert!(at_the_tear >= 10 && read == written, "cut at {cut}");
        // What is torn in an older file was lost: the next one goes on from there, or it is a gap.
        std::fs::write(&last, &bytes[..cut]).unwrap();
        let later = log.join(file_name(999));
        std::fs::write(&later, &bytes).unwrap();
        let (count, end) = ending(&log, &written);
        assert_eq!(count, if at_the_tear == 10 { 15 } else { at_the_tear });
        assert!(end.unwrap().starts_with(if count == 15 { "End" } else { "Gap" }));
        std::fs::remove_file(later).unwrap();
    }
    assert!(torn_ends > 400, "{torn_ends}");
}

#[test]
fn no_flipped_bit_gives_another_record() {
    let directory = tempfile::tempdir().unwrap();
    let written = files(directory.path());
    let log = directory.path().join("log");
    let numbers = all(&log);
    let [first, second, last] = numbers[..] else { panic!("{numbers:?}") };
    let mut random = Random(5);
    for (path, begins) in [
        (log.join("archive").join(file_name(first)), 0),
        (log.join(file_name(second)), 5),
        (log.join(file_name(last)), 10),
    ] {
        let bytes = std::fs::read(&path).unwrap();
        let (mut corrupt, mut ended) = (0, 0);
        let some: Vec<u64> = (0..100).map(|_| random.below(bytes.len() as u64)).collect();
        for index in (0..bytes.len() as u64).step_by(997).chain(0..70).chain(some) {
            let mut flipped = bytes.clone();
            flipped[index as usize] ^= 1 << random.below(8);
            std::fs::write(&path, &flipped).unwrap();
            let (count, end) = ending(&log, &written);
            assert!((begins..begins + 5).contains(&count) || flipped_trailer(index), "byte {index}: {count} {end:?}");
            match end {
                Err(ErrorKind::Corrupt) => corrupt += 1,
                Ok(end) if begins == 10 || end.starts_with("Gap") || flipped_trailer(index) => ended += 1,
                end => panic!("byte {index}: {end:?}"),
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(corrupt > 150 && ended < 20, "{corrupt} {ended}");
    }
    assert_eq!(ending(&log, &written).0, 15);
}

/// Fewer than seven bytes before the end of a block hold nothing.
fn flipped_trailer(index: u64) -> bool {
    index % 32768 > 32768 - 7
}

#[test]
fn a_missing_file_is_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let written = files(directory.path());
    let log = directory.path().join("log");
    let gap = |expected, found| Next::Gap(Gap { expected, found, at: Position::default() });
    for (index, expected) in [gap(1, 11), gap(11, 21), Next::End { torn: false }].into_iter().enumerate() {
        let name = file_name(all(&log)[index]);
        let path = if index == 0 { log.join("archive").join(name) } else { log.join(name) };
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (count, end) = ending(&log, &written);
        assert_eq!(count, index * 5);
        let (end, expected) = (end.unwrap(), format!("{expected:?}"));
        assert_eq!(end.split(", at").next(), expected.split(", at").next());
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn reading_begins_at_any_record() {
    let directory = tempfile::tempdir().unwrap();
    let written = files(directory.path());
    let log = directory.path().join("log");
    std::fs::write(log.join(file_name(998)), b"").unwrap();
    for (index, (sequence, _)) in written.iter().enumerate() {
        let mut reader = WalReader::from_sequence(&vfs(), &log, *sequence).unwrap();
        let mut read = Vec::new();
        read_on(&mut reader, &mut read);
        assert_eq!(read, written[index..]);
    }
    let mut within = WalReader::from_sequence(&vfs(), &log, 12).unwrap();
    assert!(matches!(within.next(&vfs(), |_| false), Ok(Next::Gap(Gap { expected: 12, found: 13, .. }))));
    let mut after = WalReader::from_sequence(&vfs(), &log, 31).unwrap();
    assert_eq!(after.next(&vfs(), |_| false).unwrap(), Next::End { torn: false });
    std::fs::remove_file(log.join("archive").join(file_name(all(&log)[0]))).unwrap();
    let mut lost = WalReader::from_sequence(&vfs(), &log, 3).unwrap();
    assert!(matches!(lost.next(&vfs(), |_| false), Ok(Next::Gap(Gap { expected: 3, found: 11, .. }))));
}

#[test]
fn a_file_that_goes_to_the_archive_is_read_on() {
    let directory = tempfile::tempdir().unwrap();
    let written = files(directory.path());
    let log = directory.path().join("log");
    let mut reader = WalReader::new(&log, Position::default(), None);
    for (sequence, batch) in &written {
        let Next::Record(record) = reader.next(&vfs(), |_| false).unwrap() else { panic!("too few") };
        assert_eq!((record.sequence, record.batch), (*sequence, &batch[..]));
        let file = reader.position().file;
        let _ = std::fs::rename(log.join(file_name(file)), log.join("archive").join(file_name(file)));
    }
    // What was read is not read again.
    let last = log.join("archive").join(file_name(reader.position().file));
    let len = std::fs::metadata(&last).unwrap().len() as usize;
    std::fs::write(&last, vec![7; len]).unwrap();
    assert_eq!(reader.next(&vfs(), |_| false).unwrap(), Next::End { torn: false });
    assert_eq!(ending(&log, &written), (10, Err(ErrorKind::Corrupt)));
}

#[test]
fn an_ingest_is_a_jump_that_somebody_has_to_explain() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create(directory.path(), &settings()).unwrap();
    let put = |key: &[u8]| database.put(Family::Data, key, b"value", Durability::Buffered).unwrap();
    put(b"a");
    let file = directory.path().join("load.sst");
    let options = super::SstOptions::new(&settings());
    let mut writer = super::SstWriter::create(&options, &file).unwrap();
    writer.put(b"a", b"loaded").unwrap();
    database.ingest(&[writer.finish().unwrap()]).unwrap();
    put(b"b");
    let mut reader = WalReader::new(directory.path(), Position::default(), None);
    assert!(matches!(reader.next(&vfs(), |_| false), Ok(Next::Record(_))));
    for _ in 0..2 {
        let gap = reader.next(&vfs(), |_| false).unwrap();
        assert!(matches!(gap, Next::Gap(Gap { expected: 2, found: 3, .. })), "{gap:?}");
    }
    let explained = reader.next(&vfs(), |jump| (jump.expected, jump.record.sequence) == (2, 3)).unwrap();
    assert!(matches!(explained, Next::Record(Record { sequence: 3, count: 1, .. })), "{explained:?}");
}

#[test]
fn other_ways_to_write_the_log_are_unsupported() {
    let with = |change: &dyn Fn(&mut rocksdb::Options)| {
        let directory = tempfile::tempdir().unwrap();
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        change(&mut options);
        let db = rocksdb::DB::open(&options, directory.path()).unwrap();
        for round in 0..6 {
            db.put(b"key", [round; 3000]).unwrap();
            db.flush().unwrap();
        }
        db.put(b"key", b"value").unwrap();
        let file = *all(directory.path()).last().unwrap();
        WalReader::new(directory.path(), Position { file, offset: 0 }, None)
            .next(&vfs(), |_| false)
            .map(|next| format!("{next:?}"))
    };
    assert!(with(&|_| ()).unwrap().starts_with("Record"));
    let compressed = with(&|options| options.set_wal_compression_type(rocksdb::DBCompressionType::Zstd)).unwrap_err();
    assert!(compressed.kind() == ErrorKind::Unsupported && compressed.message().contains("compressed"), "{compressed}");
    let recycled = with(&|options| options.set_recycle_log_file_num(2)).unwrap_err();
    assert!(recycled.kind() == ErrorKind::Unsupported && recycled.message().contains("recycled"), "{recycled}");
}

fn fragment(tag: u8, payload: &[u8]) -> Vec<u8> {
    let body = [&[tag], payload].concat();
    let masked = crc32c::crc32c(&body).rotate_right(15).wrapping_add(0xa282_ead8);
    [&masked.to_le_bytes()[..], &(payload.len() as u16).to_le_bytes(), &body].concat()
}

#[test]
fn notes_are_passed_over_and_unknown_fragments_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(file_name(5));
    let batch = [&7u64.to_le_bytes()[..], &1u32.to_le_bytes(), &[0, 1, b'k']].concat();
    let read = |parts: &[Vec<u8>]| {
        std::fs::write(&path, parts.concat()).unwrap();
        let mut reader = WalReader::new(directory.path(), Position::default(), None);
        match reader.next(&vfs(), |_| false) {
            Ok(Next::Record(record)) => Ok(Some(record.batch.to_vec())),
            Ok(_) => Ok(None),
            Err(error) => Err(error.kind()),
        }
    };
    let (whole, halves) = (fragment(1, &batch), [fragment(2, &batch[..5]), fragment(4, &batch[5..])]);
    assert_eq!(read(std::slice::from_ref(&whole)), Ok(Some(batch.clone())));
    assert_eq!(read(&halves), Ok(Some(batch.clone())));
    assert_eq!(read(&[fragment(2, b""), fragment(3, &batch), fragment(4, b"")]), Ok(Some(batch.clone())));
    // The note on the file before this one, and one of a version to come.
    for tag in [130, 200] {
        assert_eq!(read(&[fragment(tag, b"note"), whole.clone()]), Ok(Some(batch.clone())));
    }
    for tag in [0, 9, 10, 12, 127] {
        assert_eq!(read(&[fragment(tag, b"what"), whole.clone()]), Err(ErrorKind::Unsupported), "{tag}");
    }
    for wrong in [
        vec![halves[1].clone()],
        vec![fragment(3, b"")],
        vec![halves[0].clone(), whole.clone()],
        vec![halves[0].clone(), halves[0].clone()],
        vec![fragment(1, &batch[..11])],
        vec![vec![0; 7], whole.clone()],
        vec![vec![0; 40_000], whole.clone()],
    ] {
        assert_eq!(read(&wrong), Err(ErrorKind::Corrupt));
    }
    for end in [vec![], vec![halves[0].clone()], vec![vec![0; 300_000]], vec![whole[..9].to_vec()]] {
        assert_eq!(read(&end), Ok(None));
    }
}
