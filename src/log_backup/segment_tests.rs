use super::group::{GroupFile, GroupReference};
use super::names::{ContentHash, ObjectName, ObjectReference};
use super::segment::*;
use super::segment_reader::{SegmentReader, read_header, read_trailer};
use crate::encoding::{EncodingId, Natural};
use crate::error::ErrorKind;
use proptest::prelude::*;
use uuid::Uuid;

fn start() -> SegmentStart {
    SegmentStart {
        timeline: Uuid::from_u128(3),
        number: 7,
        encoding: EncodingId::of(&Natural),
        first_sequence: 100,
        floor: 50,
        chain: ContentHash(9),
    }
}

fn group() -> GroupReference {
    let file = |name: &str, smallest: &str, largest: &str| GroupFile {
        object: ObjectReference {
            name: ObjectName::new(format!("v1/data/{name}")).unwrap(),
            size: 5,
            hash: ContentHash::of(name.as_bytes()),
        },
        entries: 2,
        smallest: smallest.into(),
        largest: largest.into(),
    };
    GroupReference { group: Uuid::from_u128(4), files: vec![file("a", "a", "b"), file("b", "c", "c")] }
}

fn sample() -> EncodedSegment {
    let mut writer = SegmentWriter::new(start()).unwrap();
    writer.push_batch(100, 60, 2, b"a batch").unwrap();
    writer.push_group(102, 60, 1, &group()).unwrap();
    writer.push_batch(103, 70, 0, b"").unwrap();
    writer.push_batch(103, 71, 5, &[7; 300]).unwrap();
    writer.finish(70, None).unwrap()
}

/// The frames of a whole segment.
fn read(bytes: &[u8]) -> crate::error::Result<(Vec<Frame>, Trailer)> {
    let mut reader = SegmentReader::new(bytes)?;
    let frames = reader.by_ref().collect::<crate::error::Result<Vec<_>>>()?;
    Ok((frames, *reader.trailer()))
}

#[test]
fn what_is_written_is_read() {
    let segment = sample();
    let (frames, trailer) = read(&segment.bytes).unwrap();
    let batch = |first_sequence, time, operations, bytes: &[u8]| Frame {
        first_sequence,
        time,
        operations,
        payload: Payload::Batch(bytes.to_vec()),
    };
    let group = Frame { first_sequence: 102, time: 60, operations: 1, payload: Payload::Group(group()) };
    assert_eq!(frames, [batch(100, 60, 2, b"a batch"), group, batch(103, 70, 0, b""), batch(103, 71, 5, &[7; 300])]);
    assert_eq!((trailer, trailer.last_sequence, trailer.last_time), (segment.trailer, 107, 71));
    // Either end alone, as a ranged get yields it.
    let (head, tail) = (&segment.bytes[..HEADER_BYTES], &segment.bytes[segment.bytes.len() - TRAILER_BYTES..]);
    assert_eq!(read_header(head).unwrap(), segment.header);
    assert_eq!(read_trailer(tail).unwrap(), segment.trailer);
    assert_eq!(segment.header.object_bytes(), segment.bytes.len() as u64);
    let next = segment.next();
    assert_eq!((next.number, next.first_sequence, next.floor, next.chain), (8, 108, 71, segment.trailer.chain));
}

#[test]
fn an_empty_segment_can_end_a_timeline() {
    let segment = SegmentWriter::new(start()).unwrap().finish(80, Some(Uuid::from_u128(5))).unwrap();
    let (frames, trailer) = read(&segment.bytes).unwrap();
    assert_eq!((frames.len(), trailer.successor, trailer.last_sequence), (0, Some(Uuid::from_u128(5)), 99));
    assert_eq!((segment.next().floor, segment.next().chain), (81, start().chain));
}

#[test]
fn every_truncation_and_every_bit_flip_is_refused() {
    let bytes = sample().bytes;
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len]).is_err(), "{len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped).is_err(), "{bit}");
        if bit / 8 < HEADER_BYTES {
            assert!(read_header(&flipped[..HEADER_BYTES]).is_err(), "{bit}");
        } else if bit / 8 >= bytes.len() - TRAILER_BYTES {
            assert!(read_trailer(&flipped[bytes.len() - TRAILER_BYTES..]).is_err(), "{bit}");
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(read(&longer).is_err());
}

/// The bytes of a segment around another body, with every checksum made to fit.
pub(crate) fn around(body: &[u8], raw_bytes: u64, frames: u32, trailer: Trailer) -> Vec<u8> {
    let reseal = |bytes: &mut Vec<u8>| {
        let crc = crc32fast::hash(bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
    };
    let sample = sample().bytes;
    let mut head = sample[..HEADER_BYTES - 4].to_vec();
    head[12..16].copy_from_slice(&frames.to_le_bytes());
    head[72..80].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[80..88].copy_from_slice(&raw_bytes.to_le_bytes());
    reseal(&mut head);
    let mut tail = sample[sample.len() - TRAILER_BYTES..].to_vec();
    tail.truncate(TRAILER_BYTES - 8);
    tail[8..16].copy_from_slice(&trailer.last_sequence.to_le_bytes());
    tail[16..24].copy_from_slice(&trailer.last_time.to_le_bytes());
    tail[24..32].copy_from_slice(&trailer.resolved.to_le_bytes());
    tail[32..48].copy_from_slice(&trailer.chain.to_bytes());
    tail[68..84].copy_from_slice(&ContentHash::of(body).to_bytes());
    tail.extend_from_slice(&head[HEADER_BYTES - 4..]);
    reseal(&mut tail);
    [head, body.to_vec(), tail].concat()
}

#[test]
fn lies_with_fitting_checksums_are_refused() {
    let segment = sample();
    let trailer = segment.trailer;
    let stored = &segment.bytes[HEADER_BYTES..segment.bytes.len() - TRAILER_BYTES];
    let raw = zstd::decode_all(stored).unwrap();
    let len = raw.len() as u64;
    let compress = |raw: &[u8]| zstd::encode_all(raw, 3).unwrap();
    // The forger's tool makes good segments too.
    assert_eq!(read(&around(stored, len, 4, trailer)).unwrap().0.len(), 4);
    assert_eq!(read(&around(&compress(&raw), len, 4, trailer)).unwrap().0.len(), 4);
    let refused = |bytes: &[u8]| assert_eq!(read(bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    refused(&around(stored, len, 3, trailer));
    refused(&around(stored, len, 5, trailer));
    refused(&around(stored, len - 1, 4, trailer));
    refused(&around(stored, len + 1, 4, trailer));
    refused(&around(&compress(&[raw.as_slice(), b"x"].concat()), len, 4, trailer));
    refused(&around(&[stored, stored].concat(), len, 4, trailer));
    refused(&around(&[stored, b"x"].concat(), len, 4, trailer));
    refused(&around(b"", len, 4, trailer));
    refused(&around(stored, len, 4, Trailer { last_sequence: 106, ..trailer }));
    refused(&around(stored, len, 4, Trailer { last_time: 70, ..trailer }));
    refused(&around(stored, len, 4, Trailer { chain: ContentHash(1), ..trailer }));
    refused(&around(stored, len, 4, Trailer { resolved: 48, ..trailer }));
    refused(&around(stored, len, 4, Trailer { resolved: u64::MAX, ..trailer }));
    refused(&around(stored, BODY_BYTES_MAX + 1, 4, trailer));
}

#[test]
fn a_bomb_costs_no_more_than_it_is_long() {
    // 1 GiB of zeros in a few kilobytes, as one frame: its payload is refused before it is decompressed.
    let mut head = vec![0; 25];
    head[0..8].copy_from_slice(&100u64.to_le_bytes());
    head[8..16].copy_from_slice(&60u64.to_le_bytes());
    head[20] = 1;
    head[21..25].copy_from_slice(&u32::MAX.to_le_bytes());
    let bomb = [head, vec![0; 1 << 20]].concat();
    let body = zstd::encode_all(bomb.as_slice(), 19).unwrap();
    assert!(body.len() < 1000);
    for raw_bytes in [100, BODY_BYTES_MAX] {
        let error = read(&around(&body, raw_bytes, 1, sample().trailer)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    // A window beyond the limit is not allocated.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &bomb).unwrap();
    let wide = encoder.finish().unwrap();
    let error = read(&around(&wide, bomb.len() as u64, 1, sample().trailer)).unwrap_err();
    assert!(error.message().contains("decompressed"), "{error}");
}

#[test]
fn a_later_format_is_unsupported() {
    let mut head = sample().bytes[..HEADER_BYTES].to_vec();
    head[8] = 2;
    head.truncate(HEADER_BYTES - 4);
    let crc = crc32fast::hash(&head);
    head.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(read_header(&head).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn frames_that_do_not_follow_are_not_written() {
    let mut writer = SegmentWriter::new(start()).unwrap();
    writer.push_batch(100, 60, 2, b"x").unwrap();
    for (sequence, time) in [(101, 60), (103, 60), (102, 59)] {
        let error = writer.push_batch(sequence, time, 1, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!((writer.next_sequence(), writer.time(), writer.frames()), (102, 60, 1));
    let again = SegmentWriter::new(start()).unwrap();
    assert_eq!(again.finish(48, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let name = EncodingId { name: "x".repeat(65), revision: 1 };
    for start in [
        SegmentStart { first_sequence: 0, ..start() },
        SegmentStart { number: u64::MAX, ..start() },
        SegmentStart { encoding: name, ..start() },
    ] {
        assert_eq!(SegmentWriter::new(start).err().unwrap().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn groups_that_overlap_or_lie_are_refused() {
    let sound = group();
    let bytes = sound.to_bytes().unwrap();
    assert_eq!(GroupReference::from_bytes(&bytes).unwrap(), sound);
    for len in 0..bytes.len() {
        assert_eq!(GroupReference::from_bytes(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert!(GroupReference::from_bytes(&[bytes.as_slice(), b"x"].concat()).is_err());
    let mut many = bytes.clone();
    many[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(GroupReference::from_bytes(&many).is_err());
    let broken: [fn(&mut GroupReference); 4] = [
        |group| group.files.reverse(),
        |group| group.files[0].largest = b"c".to_vec(),
        |group| group.files[0].smallest = b"d".to_vec(),
        |group| group.files[0].entries = 0,
    ];
    for break_it in broken {
        let mut group = group();
        break_it(&mut group);
        assert_eq!(group.to_bytes().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    let empty = GroupReference { group: Uuid::nil(), files: Vec::new() };
    assert_eq!(GroupReference::from_bytes(&empty.to_bytes().unwrap()).unwrap(), empty);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Wherever a log is cut, and whatever times its frames get, the chain is the same.
    #[test]
    fn the_chain_does_not_depend_on_the_cut(
        batches in proptest::collection::vec((0u32..4, proptest::collection::vec(any::<u8>(), 0..40)), 1..20),
        cuts in proptest::collection::vec(any::<bool>(), 20),
        step in 0u64..3,
    ) {
        let write = |cuts: &[bool], step: u64| {
            let mut segments = Vec::new();
            let mut writer = SegmentWriter::new(start()).unwrap();
            for ((operations, bytes), cut) in batches.iter().zip(cuts) {
                let time = writer.time() + step;
                writer.push_batch(writer.next_sequence(), time, *operations, bytes).unwrap();
                if *cut {
                    let segment = writer.finish(time, None).unwrap();
                    writer = SegmentWriter::new(segment.next()).unwrap();
                    segments.push(segment);
                }
            }
            let resolved = writer.time();
            segments.push(writer.finish(resolved, None).unwrap());
            segments
        };
        let (whole, parts) = (write(&[false; 20], 0), write(&cuts, step));
        prop_assert_eq!(whole.last().unwrap().trailer.chain, parts.last().unwrap().trailer.chain);
        let payloads = |segments: &[EncodedSegment]| {
            let frames = segments.iter().flat_map(|segment| read(&segment.bytes).unwrap().0);
            frames.map(|frame| frame.payload).collect::<Vec<_>>()
        };
        prop_assert_eq!(payloads(&whole), payloads(&parts));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
        let _ = GroupReference::from_bytes(&bytes);
        // Behind fitting checksums: any body.
        prop_assert!(read(&around(&bytes, 1000, 1, sample().trailer)).is_err());
        let body = zstd::encode_all(bytes.as_slice(), 1).unwrap();
        let _ = read(&around(&body, bytes.len() as u64, 1, sample().trailer));
    }
}
