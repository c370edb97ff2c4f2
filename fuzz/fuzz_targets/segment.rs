//! Any bytes as a segment of the log: as they are, and as its body, as it is stored and decompressed, behind checksums that
//! fit. What is accepted means the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv_fuzz::encoding::{EncodingId, Natural};
use morphkv_fuzz::log_backup::group::GroupReference;
use morphkv_fuzz::log_backup::names::ContentHash;
use morphkv_fuzz::log_backup::segment::{
    EncodedSegment, Frame, HEADER_BYTES, Header, Payload, SegmentStart, SegmentWriter, TRAILER_BYTES, Trailer,
};
use morphkv_fuzz::log_backup::segment_reader::{SegmentReader, read_header, read_trailer};
use uuid::Uuid;

fuzz_target!(|data: &[u8]| {
    let _ = read_header(&data[..data.len().min(HEADER_BYTES)]);
    let _ = read_trailer(&data[data.len().saturating_sub(TRAILER_BYTES)..]);
    if let Ok(group) = GroupReference::from_bytes(data) {
        assert_eq!(group.to_bytes().expect("it was read"), data);
    }
    check(data);
    let Some((choice, body)) = data.split_first() else { return };
    let written = write(body);
    check(&written.bytes);
    if choice % 2 == 0 {
        check(&behind_checksums(body, 1 << 20, u32::from(*choice), &written));
    } else {
        // The frames' own checksums are in the way of most bytes; those that pass reach what is behind them.
        let stored = zstd::encode_all(body, 1).expect("memory does not fail");
        check(&behind_checksums(&stored, body.len() as u64, u32::from(*choice) / 2, &written));
    }
});

fn start() -> SegmentStart {
    SegmentStart {
        timeline: Uuid::from_u128(1),
        number: 1,
        encoding: EncodingId::of(&Natural),
        first_sequence: 1,
        floor: 0,
        chain: ContentHash(0),
    }
}

/// A good segment made of the bytes: pieces of them as batches and groups.
fn write(data: &[u8]) -> EncodedSegment {
    let mut writer = SegmentWriter::new(start()).expect("a sound start");
    for piece in data.chunks(40) {
        let time = writer.time() + u64::from(piece[0] % 3);
        let operations = u32::from(piece[0] / 64);
        match GroupReference::from_bytes(&piece[1..]) {
            Ok(group) => writer.push_group(writer.next_sequence(), time, operations, &group),
            Err(_) => writer.push_batch(writer.next_sequence(), time, operations, &piece[1..]),
        }
        .expect("it follows");
    }
    let resolved = writer.time();
    writer
        .finish(resolved, data.first().filter(|first| **first > 200).map(|_| Uuid::from_u128(2)))
        .expect("it is sound")
}

fn behind_checksums(body: &[u8], raw_bytes: u64, frames: u32, good: &EncodedSegment) -> Vec<u8> {
    let mut head = good.bytes[..HEADER_BYTES - 4].to_vec();
    head[12..16].copy_from_slice(&frames.to_le_bytes());
    head[72..80].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[80..88].copy_from_slice(&raw_bytes.to_le_bytes());
    let crc = crc32fast::hash(&head);
    head.extend_from_slice(&crc.to_le_bytes());
    let mut tail = good.bytes[good.bytes.len() - TRAILER_BYTES..good.bytes.len() - 8].to_vec();
    tail[68..84].copy_from_slice(&ContentHash::of(body).to_bytes());
    tail.extend_from_slice(&head[HEADER_BYTES - 4..]);
    let crc = crc32fast::hash(&tail);
    tail.extend_from_slice(&crc.to_le_bytes());
    [head, body.to_vec(), tail].concat()
}

/// Reads it; whatever is accepted as a whole is written again, and read as the same.
fn check(bytes: &[u8]) {
    let Ok((header, trailer, frames)) = read(bytes) else { return };
    let mut writer = SegmentWriter::new(header.start.clone()).expect("it was read");
    for Frame { first_sequence, time, operations, payload } in &frames {
        match payload {
            Payload::Batch(batch) => writer.push_batch(*first_sequence, *time, *operations, batch),
            Payload::Group(group) => writer.push_group(*first_sequence, *time, *operations, group),
        }
        .expect("it was read");
    }
    let again = writer.finish(trailer.resolved, trailer.successor).expect("it was read");
    let (_, trailer_again, frames_again) = read(&again.bytes).expect("it was written");
    // Other compression may make another body of the same frames.
    assert_eq!(trailer_again, Trailer { body: trailer_again.body, ..trailer });
    assert_eq!((frames_again, again.header.raw_bytes), (frames, header.raw_bytes));
}

fn read(bytes: &[u8]) -> Result<(Header, Trailer, Vec<Frame>), morphkv_fuzz::error::Error> {
    let mut reader = SegmentReader::new(bytes)?;
    let frames = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((reader.header().clone(), *reader.trailer(), frames))
}
