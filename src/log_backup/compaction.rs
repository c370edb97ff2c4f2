//! What a compaction is, as objects: its SPEC, a RESULT for each shard, its END. All but END are read while it is made; who
//! uses one that is complete begins at END, which HEAD names with its hash, and follows references from there.
//!
//! | object | made | says |
//! |---|---|---|
//! | `SPEC` | once, by the first worker | the timeline, the segments, how many shards |
//! | `results/<shard>` | once for each shard, by the first of its workers to end | its parts, or why it failed |
//! | `END` | once, by whoever finds all results | complete: all are ok; failed: some are not |
//!
//! A *part* is a stretch of the shard's segments whose net effect fits into memory, or a bulk load that stands in the log.
//! To do it: first its operations, then its files are ingested, all in one call. Parts and shards are done in order.
//!
//! Invariants: each is a line of JSON with its version and its crc32, as every control file; what is read was checked
//! against what refers to it, and shards tile the segments, each beginning where the log before it ends.

use crate::control;
use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::address::Address;
use crate::log_backup::archive::Archive;
use crate::log_backup::migration::{COMPACTION_NAME_BYTES_MAX, CompactionBody};
use crate::log_backup::names::{self, ContentHash, ObjectName, ObjectReference, SEGMENT_NUMBERS};
use crate::log_backup::segment::{SegmentStart, Trailer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use uuid::Uuid;

/// The version of the format of these objects that this code writes, and the only one that it reads.
pub const COMPACTION_FORMAT: u32 = 1;
/// The most shards of a compaction.
pub const SHARDS_MAX: u32 = 10_000;
/// The longest SPEC, in bytes.
pub const SPEC_BYTES_MAX: u64 = 64 * 1024;
/// The longest result of a shard, in bytes.
pub const RESULT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The longest END, in bytes.
pub const END_BYTES_MAX: u64 = 16 * 1024 * 1024;

const READ: &str = "read a compaction";
const WRITE: &str = "write a compaction";

/// What a compaction is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// [`COMPACTION_FORMAT`].
    pub format: u32,
    /// Its id.
    pub id: Uuid,
    /// Its name, which is never used again.
    pub name: String,
    /// The archive.
    pub archive: Uuid,
    /// Where the log is that it is made of: a canonical URL, without credentials.
    pub log: String,
    /// The timeline.
    pub timeline: Uuid,
    /// How its keys are encoded.
    pub encoding: EncodingId,
    /// The first segment.
    pub first_segment: u64,
    /// The segment after the last.
    pub end_segment: u64,
    /// The last sequence number in the last segment.
    pub end_sequence: u64,
    /// The chain after the last segment.
    pub chain: ContentHash,
    /// How many shards there are.
    pub shards: u32,
}

/// A place between two segments of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// The sequence number that comes next.
    pub next_sequence: u64,
    /// The chain up to there.
    pub chain: ContentHash,
}

/// A file to be ingested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The SST file, as an object.
    pub object: ObjectReference,
    /// How many entries it has, deletions among them.
    pub entries: u64,
}

/// The net effect of a part of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What is done first.
    pub operations: Option<ObjectReference>,
    /// What is ingested then, in one call; the files do not overlap.
    pub files: Vec<File>,
    /// The bulk load whose files these are: they belong to it, and are not the compaction's own.
    pub load: Option<Uuid>,
}

/// What was read, and what came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Where it begins and ends in the log; `None`: the shard has no segment.
    pub bounds: Option<(Between, Between)>,
    /// The last sequence number and its time; `None`: the segments hold no frame.
    pub last: Option<(u64, u64)>,
    /// The parts, in order.
    pub parts: Vec<Part>,
}

/// How a shard ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its net effect is stored.
    Ok(Run),
    /// Its segments cannot be read, now or later.
    Failed {
        /// The kind of the error.
        kind: String,
        /// What it said.
        message: String,
    },
}

/// What came out of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardResult {
    /// [`COMPACTION_FORMAT`].
    pub format: u32,
    /// The compaction.
    pub compaction: Uuid,
    /// The shard, from 1 on.
    pub shard: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a compaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// [`COMPACTION_FORMAT`].
    pub format: u32,
    /// What it is of.
    pub spec: Spec,
    /// Why it cannot be used; `None`: it is complete.
    pub failure: Option<String>,
    /// The results of the shards, in order.
    pub results: Vec<ObjectReference>,
}

impl Spec {
    /// Segments of a shard: the shard-th of as many contiguous parts, as even as can be.
    pub fn segments(&self, shard: u32) -> Range<u64> {
        let len = u128::from(self.end_segment - self.first_segment);
        // Both fit: they are at most the number of segments.
        let border = |shard: u32| self.first_segment + (len * u128::from(shard) / u128::from(self.shards)) as u64;
        border(shard - 1)..border(shard)
    }

    /// What HEAD says of it once it is complete.
    pub fn body(&self, end: ObjectReference) -> CompactionBody {
        CompactionBody {
            name: self.name.clone(),
            result: end,
            timeline: self.timeline,
            first_segment: self.first_segment,
            end_segment: self.end_segment,
            end_sequence: self.end_sequence,
        }
    }

    /// Reads a SPEC.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let spec: Spec = control::decode_within(READ, bytes, COMPACTION_FORMAT, SPEC_BYTES_MAX)?;
        spec.check().map_err(|message| Error::new(ErrorKind::Corrupt, READ, message))?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.name.len() > COMPACTION_NAME_BYTES_MAX || names::compaction_spec(&self.name).is_err() {
            return Err("its name is none");
        }
        if Address::parse(&self.log).is_err() {
            return Err("the place of its log is none");
        }
        if self.first_segment >= self.end_segment || self.end_segment > SEGMENT_NUMBERS {
            return Err("it has no segment");
        }
        if self.end_sequence >= u64::MAX - 1 {
            return Err("its last sequence number is out of bounds");
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err("its number of shards is out of bounds");
        }
        Ok(())
    }
}

impl Between {
    /// Where a segment begins.
    pub fn before(start: &SegmentStart) -> Self {
        Between { next_sequence: start.first_sequence, chain: start.chain }
    }

    /// Where a segment ends.
    pub fn after(trailer: &Trailer) -> Self {
        Between { next_sequence: trailer.last_sequence + 1, chain: trailer.chain }
    }
}

impl Run {
    /// Its own objects: what it refers to but the files of bulk loads.
    pub fn own_objects(&self) -> impl Iterator<Item = &ObjectReference> {
        self.parts.iter().flat_map(|part| {
            let files = part.files.iter().filter(|_| part.load.is_none()).map(|file| &file.object);
            part.operations.iter().chain(files)
        })
    }

    /// All objects that it refers to.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectReference> {
        self.parts.iter().flat_map(|part| part.operations.iter().chain(part.files.iter().map(|file| &file.object)))
    }
}

impl End {
    /// Reads an END.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let end: End = control::decode_within(READ, bytes, COMPACTION_FORMAT, END_BYTES_MAX)?;
        end.spec.check().map_err(|message| Error::new(ErrorKind::Corrupt, READ, message))?;
        Ok(end)
    }

    /// Judges the results of all shards, in order.
    ///
    /// # Errors
    /// `Corrupt`: a result is not of this compaction.
    pub fn of(spec: &Spec, results: &[(ObjectReference, ShardResult)]) -> Result<Self> {
        let mut failure = None;
        let mut place: Option<Between> = None;
        for (number, (_, result)) in (1..).zip(results) {
            result.require(spec, number)?;
            let run = match &result.outcome {
                Outcome::Ok(run) => run,
                Outcome::Failed { kind, message } => {
                    failure.get_or_insert_with(|| format!("shard {number} failed ({kind}): {message}"));
                    continue;
                }
            };
            let Some((begin, end)) = run.bounds else { continue };
            if place.is_some_and(|place| place != begin) && failure.is_none() {
                failure = Some(format!("shard {number} does not begin where the log before it ends"));
            }
            place = Some(end);
        }
        let end = Between { next_sequence: spec.end_sequence + 1, chain: spec.chain };
        if place != Some(end) {
            failure.get_or_insert_with(|| "it does not end where it was to end".into());
        }
        let results = results.iter().map(|(reference, _)| reference.clone()).collect();
        Ok(End { format: COMPACTION_FORMAT, spec: spec.clone(), failure, results })
    }
}

impl ShardResult {
    /// Reads a result.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        control::decode_within(READ, bytes, COMPACTION_FORMAT, RESULT_BYTES_MAX)
    }

    /// Makes sure that it is the result of that shard.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn require(&self, spec: &Spec, shard: u32) -> Result<()> {
        let empty = spec.segments(shard).is_empty();
        let fits = match &self.outcome {
            Outcome::Ok(run) => run.bounds.is_none() == empty && (!empty || run.parts.is_empty()),
            Outcome::Failed { .. } => true,
        };
        if (self.compaction, self.shard) == (spec.id, shard) && fits {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, READ, format!("the result of shard {shard} is another one")))
    }
}

/// An object of these as bytes, and a reference to it.
///
/// # Errors
/// `InvalidArgument`: it is too long.
pub fn to_bytes<T: Serialize>(name: &ObjectName, value: &T, bytes_max: u64) -> Result<(Vec<u8>, ObjectReference)> {
    let bytes = control::encode_within(WRITE, value, bytes_max)?;
    let (size, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
    Ok((bytes, ObjectReference { name: name.clone(), size, hash }))
}

/// An object of these by its name, and what then refers to it; `None`: there is none.
///
/// # Errors
/// `Corrupt`, `Unsupported`, `Io`.
pub fn find<T: DeserializeOwned>(
    archive: &Archive,
    name: &ObjectName,
    bytes_max: u64,
) -> Result<Option<(ObjectReference, T)>> {
    let bytes = match archive.get(name, bytes_max) {
        Ok(object) => object.bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = control::decode_within(READ, &bytes, COMPACTION_FORMAT, bytes_max)
        .map_err(|error| error.at(archive.place(name)))?;
    let (size, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
    Ok(Some((ObjectReference { name: name.clone(), size, hash }, value)))
}

/// What a compaction of that name is of; `None`: none has begun.
///
/// # Errors
/// `InvalidArgument` for the name; those of [`find`].
pub fn find_spec(archive: &Archive, name: &str) -> Result<Option<Spec>> {
    let object = names::compaction_spec(name)?;
    let Some((_, spec)) = find::<Spec>(archive, &object, SPEC_BYTES_MAX)? else { return Ok(None) };
    let named = if spec.name == name { spec.check() } else { Err("it is another one than its name says") };
    named.map_err(|message| Error::new(ErrorKind::Corrupt, READ, message).at(archive.place(&object)))?;
    Ok(Some(spec))
}

/// A compaction that HEAD knows, with the results of its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// What it is of.
    pub spec: Spec,
    /// References to the results.
    pub results: Vec<ObjectReference>,
    /// What the shards have stored, in order.
    pub runs: Vec<Run>,
}

impl Complete {
    /// Where it begins in the log.
    pub fn begin(&self) -> Option<Between> {
        self.runs.iter().find_map(|run| run.bounds).map(|(begin, _)| begin)
    }

    /// The last sequence number and its time; `None`: it holds no frame.
    pub fn last(&self) -> Option<(u64, u64)> {
        self.runs.iter().rev().find_map(|run| run.last)
    }
}

/// Reads a compaction that HEAD knows, all but its files.
///
/// # Errors
/// `NotFound`, `Corrupt`, `Unsupported`: something of it is missing, damaged, or not what HEAD says; `Io`.
pub fn read(archive: &Archive, body: &CompactionBody) -> Result<Complete> {
    let bytes = archive.get_verified(&body.result, END_BYTES_MAX)?;
    let place = |error: Error| if error.path().is_some() { error } else { error.at(archive.place(&body.result.name)) };
    let corrupt = |message: &str| place(Error::new(ErrorKind::Corrupt, READ, message));
    let end = End::from_bytes(&bytes).map_err(place)?;
    if end.spec.body(body.result.clone()) != *body || end.results.len() != end.spec.shards as usize {
        return Err(corrupt("it is another one than HEAD says"));
    }
    let mut results = Vec::new();
    for (shard, reference) in (1..).zip(&end.results) {
        let bytes = archive.get_verified(reference, RESULT_BYTES_MAX)?;
        let result = ShardResult::from_bytes(&bytes).map_err(|error| error.at(archive.place(&reference.name)))?;
        result.require(&end.spec, shard).map_err(place)?;
        results.push((reference.clone(), result));
    }
    if End::of(&end.spec, &results)? != end || end.failure.is_some() {
        return Err(corrupt("its shards are not one compaction"));
    }
    let runs = results.into_iter().filter_map(|(_, result)| match result.outcome {
        Outcome::Ok(run) => Some(run),
        Outcome::Failed { .. } => None,
    });
    Ok(Complete { spec: end.spec, results: end.results, runs: runs.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(first: u64, end: u64, shards: u32) -> Spec {
        Spec {
            format: COMPACTION_FORMAT,
            id: Uuid::from_u128(1),
            name: "x".into(),
            archive: Uuid::from_u128(2),
            log: "memory://test".into(),
            timeline: Uuid::from_u128(3),
            encoding: EncodingId { name: "natural".into(), revision: 1 },
            first_segment: first,
            end_segment: end,
            end_sequence: end * 10,
            chain: ContentHash(end.into()),
            shards,
        }
    }

    /// Segment n begins after sequence number 10 n.
    fn ok(spec: &Spec, shard: u32) -> (ObjectReference, ShardResult) {
        let segments = spec.segments(shard);
        let between = |number: u64| Between { next_sequence: number * 10 + 1, chain: ContentHash(number.into()) };
        let bounds = (!segments.is_empty()).then(|| (between(segments.start), between(segments.end)));
        let outcome = Outcome::Ok(Run { bounds, last: None, parts: Vec::new() });
        result(spec, shard, outcome)
    }

    fn result(spec: &Spec, shard: u32, outcome: Outcome) -> (ObjectReference, ShardResult) {
        let name = names::compaction_result("x", shard).unwrap();
        let result = ShardResult { format: COMPACTION_FORMAT, compaction: spec.id, shard, outcome };
        (to_bytes(&name, &result, RESULT_BYTES_MAX).unwrap().1, result)
    }

    #[test]
    fn shards_tile_the_segments() {
        for (first, end) in [(0, 1), (3, 4), (5, 12), (0, 100), (0, SEGMENT_NUMBERS)] {
            for shards in [1, 2, 3, 7, 8, 99, SHARDS_MAX] {
                let spec = spec(first, end, shards);
                let mut next = first;
                let (mut least, mut most) = (u64::MAX, 0);
                for shard in 1..=shards {
                    let segments = spec.segments(shard);
                    assert_eq!(segments.start, next);
                    next = segments.end;
                    let len = segments.end - segments.start;
                    (least, most) = (least.min(len), most.max(len));
                }
                assert!(next == end && most - least <= 1, "{first}..{end} in {shards}");
            }
        }
    }

    #[test]
    fn it_is_complete_only_if_all_shards_are_ok_and_follow_each_other() {
        for (end, shards) in [(12, 3), (6, 9), (8, 1)] {
            let spec = spec(5, end, shards);
            let all: Vec<_> = (1..=shards).map(|shard| ok(&spec, shard)).collect();
            assert_eq!(End::of(&spec, &all).unwrap().failure, None);
            for shard in 1..=shards {
                let index = shard as usize - 1;
                let mut failed = all.clone();
                failed[index] = result(&spec, shard, Outcome::Failed { kind: "Corrupt".into(), message: "m".into() });
                let failure = End::of(&spec, &failed).unwrap().failure.unwrap();
                assert!(failure.starts_with(&format!("shard {shard} failed")), "{failure}");
                let mut foreign = all.clone();
                foreign[index].1.compaction = Uuid::from_u128(9);
                assert_eq!(End::of(&spec, &foreign).unwrap_err().kind(), ErrorKind::Corrupt);
                let Outcome::Ok(Run { bounds: Some(_), .. }) = all[index].1.outcome else { continue };
                for begin in [true, false] {
                    let mut torn = all.clone();
                    let Outcome::Ok(Run { bounds: Some(bounds), .. }) = &mut torn[index].1.outcome else { continue };
                    let side = if begin { &mut bounds.0 } else { &mut bounds.1 };
                    side.chain = ContentHash(77);
                    let first = spec.segments(shard).start == spec.first_segment;
                    assert_eq!(End::of(&spec, &torn).unwrap().failure.is_none(), begin && first, "{shard} {begin}");
                }
            }
        }
    }

    #[test]
    fn hostile_specs_are_refused() {
        assert!(spec(0, 1, 1).check().is_ok());
        for wrong in [spec(1, 1, 1), spec(0, SEGMENT_NUMBERS + 1, 1), spec(0, 1, 0), spec(0, 1, SHARDS_MAX + 1)] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        for name in ["", "a/b", &"x".repeat(65)] {
            assert!(Spec { name: name.into(), ..spec(0, 1, 1) }.check().is_err(), "{name}");
        }
        for log in ["", "x", "s3://key:secret@bucket"] {
            assert!(Spec { log: log.into(), ..spec(0, 1, 1) }.check().is_err(), "{log}");
        }
        for end_sequence in [u64::MAX - 1, u64::MAX] {
            assert!(Spec { end_sequence, ..spec(0, 1, 1) }.check().is_err(), "{end_sequence}");
        }
    }
}
