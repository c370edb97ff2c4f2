//! Any bytes as WAL files: nothing panics, records follow each other, a file that grows reads as the whole one does, and
//! what is decoded is all of a record.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv_fuzz::error::{ErrorKind, Result};
use morphkv_fuzz::memory::Files;
use morphkv_fuzz::rocks::batch_decoder::{Batch, Operation};
use morphkv_fuzz::rocks::wal::{Next, Position, WalReader};
use std::path::PathBuf;

fuzz_target!(|data: &[u8]| {
    let Some((&[shape, cut], rest)) = data.split_first_chunk::<2>() else { return };
    let first = if shape & 1 == 0 { rest.to_vec() } else { with_checksums(rest) };
    let second = if shape & 2 == 0 { Vec::new() } else { with_checksums(&rest[rest.len() / 2..]) };
    let whole = files([first.clone(), second]);
    let mut reader = WalReader::new("log", Position::default(), None);
    let records = read(&mut reader, &whole);
    decode(&records);
    // The same while the first file grows, as far as it goes.
    let part = Files([(name(3), first[..first.len() * usize::from(cut) / 256].to_vec())].into());
    let mut growing = WalReader::new("log", Position::default(), None);
    let mut grown = read(&mut growing, &part);
    assert!(records.starts_with(&grown));
    grown.extend(read(&mut growing, &whole));
    assert_eq!(grown, records);
    for (sequence, _) in records.iter().filter(|_| whole.0.len() == 1) {
        let mut from = WalReader::from_sequence(&whole, "log", *sequence).expect("it was read");
        let again = read(&mut from, &whole);
        assert!(records.ends_with(&again) && again.first().is_some_and(|first| first.0 == *sequence));
    }
    // The decoder alone.
    decode(&[(0, rest.to_vec())]);
});

fn name(number: usize) -> PathBuf {
    format!("log/{number:06}.log").into()
}

/// Those that are not empty, as files 3, 4...
fn files(contents: [Vec<u8>; 2]) -> Files {
    let contents = contents.into_iter().filter(|file| !file.is_empty());
    Files(contents.enumerate().map(|(index, file)| (name(index + 3), file)).collect())
}

/// Reads to the end, and checks that each record begins where the last one ended.
fn read(reader: &mut WalReader, files: &Files) -> Vec<(u64, Vec<u8>)> {
    let mut records = Vec::new();
    loop {
        let (expected, before) = (reader.expected(), reader.position());
        match reader.next_within(files, u64::MAX, |_| false) {
            Ok(Next::Record(record)) => {
                assert!(expected.is_none_or(|expected| expected == record.sequence) && before < record.end);
                records.push((record.sequence, record.batch.to_vec()));
            }
            Ok(_) => return records,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}");
                return records;
            }
        }
    }
}

fn decode(records: &[(u64, Vec<u8>)]) {
    for (_, bytes) in records {
        let Ok(batch) = Batch::new(bytes) else { continue };
        let Ok(operations) = batch.operations().collect::<Result<Vec<Operation<'_>>>>() else {
            assert!(batch.frames().any(|frame| frame.is_err()));
            continue;
        };
        let (mut at, mut again) = (12, Vec::new());
        for frame in batch.frames() {
            let frame = frame.expect("its operations were decoded");
            assert_eq!(frame.bytes.start, at);
            at = frame.bytes.end;
            let mut part = frame.sequence.to_le_bytes().to_vec();
            part.extend_from_slice(&frame.operations.to_le_bytes());
            part.extend_from_slice(&bytes[frame.bytes]);
            let part = Batch::new(&part).expect("it has a header").operations();
            again.extend(part.map(|operation| format!("{:?}", operation.expect("it was decoded"))));
        }
        let operations: Vec<_> = operations.iter().map(|operation| format!("{operation:?}")).collect();
        assert_eq!((at, again), (bytes.len(), operations));
    }
}

/// Fragments with checksums that fit: of each, a byte says the type, two the length. Fills blocks as RocksDB does.
fn with_checksums(mut data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some((&[tag, low, high], rest)) = data.split_first_chunk::<3>() {
        let room = 32768 - file.len() % 32768;
        if room < 7 {
            file.resize(file.len() + room, 0);
            continue;
        }
        let len = usize::from(u16::from_le_bytes([low, high & 0x3f])).min(room - 7).min(rest.len());
        let tag = if tag < 240 { 1 + tag % 4 } else { tag - 240 };
        let body = [&[tag], &rest[..len]].concat();
        let masked = crc32c::crc32c(&body).rotate_right(15).wrapping_add(0xa282_ead8);
        file.extend_from_slice(&masked.to_le_bytes());
        file.extend_from_slice(&(len as u16).to_le_bytes());
        file.extend_from_slice(&body);
        data = &rest[len..];
    }
    file
}
