//! Objects of an archive as somebody else might have written them: never a panic, and what is accepted means the same when it
//! is written again. `fuzz/fuzz_targets/objects.rs` does it with bytes that a fuzzer makes up.

use super::commit_tests::sample;
use super::compaction::*;
use super::doom::{DoomList, SegmentRange};
use super::head::Head;
use super::migration::{Body, CompactionBody, GcBody, Key, SnapshotBody};
use super::names::{self, ContentHash, ObjectReference};
use crate::encoding::{EncodingId, Natural};
use crate::error::ErrorKind;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Mutations of each object.
const EXECUTIONS: usize = 5_000;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn object(number: u128) -> ObjectReference {
    ObjectReference { name: names::data(ContentHash(number), id(number)), size: 7, hash: ContentHash(number) }
}

fn spec() -> Spec {
    Spec {
        format: COMPACTION_FORMAT,
        id: id(1),
        name: "nightly-1".into(),
        archive: id(2),
        log: "s3://bucket/prefix".into(),
        timeline: id(3),
        encoding: EncodingId::of(&Natural),
        first_segment: 5,
        end_segment: 12,
        end_sequence: 120,
        chain: ContentHash(9),
        shards: 2,
    }
}

fn result(shard: u32, outcome: Outcome) -> ShardResult {
    ShardResult { format: COMPACTION_FORMAT, compaction: id(1), shard, outcome }
}

fn ok() -> ShardResult {
    let between = |next_sequence| Between { next_sequence, chain: ContentHash(next_sequence.into()) };
    let file = |number| File { object: object(number), entries: 4 };
    let parts = vec![
        Part { operations: Some(object(4)), files: vec![file(5), file(6)], load: None },
        Part { operations: None, files: vec![file(7)], load: Some(id(8)) },
    ];
    result(1, Outcome::Ok(Run { bounds: Some((between(51), between(81))), last: Some((80, 8)), parts }))
}

fn failed() -> ShardResult {
    result(2, Outcome::Failed { kind: "Corrupt".into(), message: "it is cut off".into() })
}

fn head() -> Head {
    let mut head = sample();
    let snapshot = SnapshotBody { manifest: object(1), timeline: id(1), sequence: 1, time: 2, next_segment: 3 };
    let compaction = CompactionBody {
        name: "nightly".into(),
        result: object(2),
        timeline: id(1),
        first_segment: 1,
        end_segment: 2,
        end_sequence: 3,
    };
    let gc = GcBody { list: object(3), generation: 2 };
    head.migrations.append([(Key::Snapshot(id(1)), Body::Snapshot(snapshot))]).unwrap();
    head.migrations.fold().unwrap();
    head.migrations.raise_floor(id(1), 4);
    let layer = [(Key::Compaction(id(2)), Body::Compaction(compaction)), (Key::Gc(id(3)), Body::Gc(gc))];
    head.migrations.append(layer).unwrap();
    head
}

/// Reads bytes and, if they are accepted, writes them and reads them again. Says whether they were.
type Check = fn(&[u8]) -> Result<(), ErrorKind>;

fn control<T: serde::Serialize>(value: &T) -> Vec<u8> {
    to_bytes(&names::head(), value, END_BYTES_MAX).unwrap().0
}

/// Each kind of object: a sound one, and how it is read.
fn kinds() -> Vec<(&'static str, Vec<u8>, Check)> {
    fn again<T: PartialEq + std::fmt::Debug>(
        read: crate::error::Result<T>,
        written: impl Fn(&T) -> Vec<u8>,
        parse: impl Fn(&[u8]) -> crate::error::Result<T>,
    ) -> Result<T, ErrorKind> {
        let read = read.map_err(|error| error.kind())?;
        assert_eq!(parse(&written(&read)).expect("it was written"), read);
        Ok(read)
    }
    let of_spec: Check = |bytes| {
        let spec = again(Spec::from_bytes(bytes), control, Spec::from_bytes)?;
        let ends = (spec.segments(1).start, spec.segments(spec.shards).end);
        assert_eq!(ends, (spec.first_segment, spec.end_segment));
        Ok(())
    };
    let of_result: Check = |bytes| {
        again(ShardResult::from_bytes(bytes), control, ShardResult::from_bytes).map(|result| {
            let _ = result.require(&spec(), 1);
        })
    };
    let of_end: Check = |bytes| {
        let end = again(End::from_bytes(bytes), control, End::from_bytes)?;
        assert!(End::of(&end.spec, &[]).unwrap().failure.is_some());
        Ok(())
    };
    let of_list: Check =
        |bytes| again(DoomList::from_bytes(bytes), |list| list.to_bytes().unwrap(), DoomList::from_bytes).map(drop);
    let of_head: Check = |bytes| {
        let head = again(Head::from_bytes(bytes), |head| head.to_bytes().unwrap(), Head::from_bytes)?;
        if let Ok(next) = head.clone().committed(id(99), &head) {
            next.to_bytes().unwrap();
        }
        Ok(())
    };
    let results = [ok(), failed()].map(|result| {
        let name = names::compaction_result("nightly-1", result.shard).unwrap();
        (to_bytes(&name, &result, RESULT_BYTES_MAX).unwrap().1, result)
    });
    let end = End::of(&spec(), &results).unwrap();
    let ranges =
        vec![SegmentRange { timeline: id(1), first: 0, end: 7 }, SegmentRange { timeline: id(2), first: 3, end: 4 }];
    let list = DoomList::new([object(1).name, object(2).name].into(), ranges);
    vec![
        ("SPEC", control(&spec()), of_spec),
        ("a result", control(&ok()), of_result),
        ("a failed result", control(&failed()), of_result),
        ("END", control(&end), of_end),
        ("a list of doomed objects", list.to_bytes().unwrap(), of_list),
        ("HEAD", head().to_bytes().unwrap(), of_head),
    ]
}

/// splitmix64
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// Other numbers, bytes that are gone, twice there, or others.
    fn mutate(&mut self, line: &mut Vec<u8>) {
        let at = self.below(line.len());
        let end = line.len().min(at + 1 + self.below(12));
        let digits: Vec<usize> = (0..line.len()).filter(|at| line[*at].is_ascii_digit()).collect();
        match self.below(6) {
            0 if !digits.is_empty() => line[digits[self.below(digits.len())]] = b'0' + self.below(10) as u8,
            1 if !digits.is_empty() => {
                let numbers = ["18446744073709551615", "18446744073709551614", "4294967295", "0", "-1", "1e9", "null"];
                let start = digits[self.below(digits.len())];
                let len = line[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = numbers[self.below(numbers.len())];
                line.splice(start..start + len, number.bytes());
            }
            2 => drop(line.drain(at..end)),
            3 => {
                let copy = line[at..end].to_vec();
                line.splice(at..at, copy);
            }
            4 => line[at] = self.below(256) as u8,
            _ => line[at] ^= 1 << self.below(8),
        }
        line.retain(|byte| *byte != b'\n');
    }
}

fn with_checksum(mut line: Vec<u8>) -> Vec<u8> {
    line.push(b'\n');
    let checksum = format!("{:08x}\n", crc32fast::hash(&line));
    line.extend_from_slice(checksum.as_bytes());
    line
}

#[test]
fn every_truncation_and_every_bit_flip_is_refused() {
    for (name, bytes, check) in kinds() {
        assert_eq!(check(&bytes), Ok(()), "{name}");
        for len in 0..bytes.len() {
            assert_eq!(check(&bytes[..len]), Err(ErrorKind::Corrupt), "{name}: {len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&flipped), Err(ErrorKind::Corrupt), "{name}: bit {bit}");
        }
    }
}

/// With a checksum that fits, so that what is behind it is reached.
#[test]
fn what_is_accepted_means_the_same_when_it_is_written_again() {
    let mut chance = Chance(7);
    let mut accepted: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, bytes, check) in kinds() {
        let line = &bytes[..bytes.len() - 10];
        for _ in 0..EXECUTIONS {
            let mut mutated = line.to_vec();
            for _ in 0..1 + chance.below(3) {
                if !mutated.is_empty() {
                    chance.mutate(&mut mutated);
                }
            }
            match check(&with_checksum(mutated)) {
                Ok(()) => *accepted.entry(name).or_default() += 1,
                Err(kind) => assert!([ErrorKind::Corrupt, ErrorKind::Unsupported].contains(&kind), "{name}: {kind:?}"),
            }
        }
        assert!((1..EXECUTIONS).contains(&accepted[name]), "{name}: {accepted:?}");
    }
    println!("accepted of {EXECUTIONS} each: {accepted:?}");
}

#[test]
fn bytes_that_are_no_object_are_refused() {
    let mut chance = Chance(11);
    for (name, _, check) in kinds() {
        for _ in 0..EXECUTIONS / 10 {
            let bytes: Vec<u8> = (0..chance.below(200)).map(|_| chance.below(256) as u8).collect();
            let line = bytes.iter().copied().filter(|byte| *byte != b'\n').collect();
            for bytes in [bytes.clone(), with_checksum(line)] {
                assert_eq!(check(&bytes), Err(ErrorKind::Corrupt), "{name}: {bytes:?}");
            }
        }
    }
}
