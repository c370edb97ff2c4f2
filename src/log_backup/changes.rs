//! Who wrote or deleted a key, and when: the log of a timeline and of those before it, read and filtered, oldest first.
//!
//! Nothing is restored for it, and of the log only the segments are read that can hold the times that are asked for. They
//! are checked as a restore checks them: a segment that is missing, damaged, or does not follow the one before it is an
//! error, never a change that is left out.

use crate::encoding::{EncodingId, Encodings, Hierarchical, KeyEncoding, Natural};
use crate::engine::{Options, prefix_end};
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::group::GroupReference;
use crate::log_backup::head::{Cause, Head, LogPosition, Timeline};
use crate::log_backup::names;
use crate::log_backup::pin::{Pin, PinRequest, TTL};
use crate::log_backup::segment::{Frame, Payload, SegmentStart};
use crate::log_backup::segment_reader::SegmentReader;
use crate::log_backup::tail;
use crate::log_backup::timelines::{floor_of, latest_base};
use crate::rocks::batch_decoder::{Batch, DEFAULT_FAMILY, Operation};
use std::ops::ControlFlow;
use std::sync::Arc;
use uuid::Uuid;

const STEP: &str = "look for changes in the log";

/// Which keys are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// All.
    All,
    /// This one.
    One(Vec<u8>),
    /// Those that begin so.
    Prefix(Vec<u8>),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which keys.
    pub keys: Keys,
    /// Nothing before this time, in microseconds of the Unix epoch.
    pub from: Option<u64>,
    /// Nothing after this time.
    pub to: Option<u64>,
}

/// An encoded key, and the key if it is one: the bound of a range need not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey {
    /// As it stands in the log.
    pub encoded: Vec<u8>,
    /// What it encodes.
    pub key: Option<Vec<u8>>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key was written.
    Put {
        /// The key.
        key: LogKey,
        /// Its value from then on.
        value: Vec<u8>,
    },
    /// A key was deleted, whether it was there or not.
    Delete {
        /// The key.
        key: LogKey,
    },
    /// All keys of a range were deleted, in the order of the timeline's encoding. With a prefix asked for and an encoding
    /// that is not built in, it may hold none that begins so.
    DeleteRange {
        /// The first.
        from: LogKey,
        /// The one after the last.
        to: LogKey,
    },
    /// Files were loaded past the log. What is asked about lies between their bounds; whether it is in them is not known
    /// without reading them.
    Load {
        /// The load.
        group: Uuid,
        /// Entries of the files that may hold what is asked about.
        entries: u64,
        /// The first key of these.
        first: LogKey,
        /// The last key of these.
        last: LogKey,
    },
    /// A timeline began with content that the log does not explain: part of the log was lost, or the database was replaced.
    Begun {
        /// Why it began.
        cause: Cause,
    },
}

/// A change, and its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When, in microseconds of the Unix epoch.
    pub time: u64,
    /// The timeline.
    pub timeline: Uuid,
    /// Its sequence number; of a load, the next one.
    pub sequence: u64,
    /// What was done.
    pub change: Change,
}

/// Where the changes go, one by one, the oldest first.
pub type Sink<'a> = dyn FnMut(Found) -> Result<()> + 'a;

/// Looks for changes in the history of the current timeline. `options` knows the encodings.
///
/// # Errors
/// `NotFound`: there is no archive; `UnknownEncoding` of a timeline that has to be read; `Corrupt`: a segment is missing,
/// damaged, or another one; `Lost`: the pin; `Io`; what the sink returns. Changes nothing but a pin that comes and goes.
pub fn changes(archive: &Archive, question: &Question, options: &Options, sink: &mut Sink<'_>) -> Result<()> {
    let request = PinRequest { owner: archive.url().to_owned(), purpose: "look for changes".into(), ttl: TTL };
    let (pin, loaded) = Pin::take_and_load(archive, &request)?;
    let head = &loaded.head;
    let line = head.ancestry(head.current)?;
    let walk = Walk { archive, pin: &pin, head, question, encodings: options.encodings()? };
    let within = |time: u64| question.from.is_none_or(|from| from <= time) && question.to.is_none_or(|to| time <= to);
    for (index, timeline) in line.iter().enumerate().rev() {
        if let Some(parent) = timeline.parent.filter(|parent| !timeline.is_derivable() && within(parent.end.time)) {
            let (time, sequence) = (parent.end.time, parent.end.sequence);
            let change = Change::Begun { cause: timeline.cause };
            sink(Found { time, timeline: timeline.id, sequence, change })?;
        }
        let end = index.checked_sub(1).and_then(|after| line[after].parent).map(|parent| parent.end);
        if walk.timeline(timeline, end, sink)?.is_break() {
            break;
        }
    }
    pin.release()
}

struct Walk<'a> {
    archive: &'a Archive,
    pin: &'a Pin,
    head: &'a Head,
    question: &'a Question,
    encodings: Encodings,
}

impl Walk<'_> {
    /// The changes of one timeline up to where the next one goes on from; a break: the last time that counts is passed.
    fn timeline(&self, timeline: &Timeline, end: Option<LogPosition>, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
        let id = timeline.id;
        let floor = floor_of(self.head, id)?;
        let last = tail::last_number(self.archive, id, floor)?;
        // A segment that is missing must not be taken for the end of the log: these were there.
        let base = latest_base(self.head, id)?.and_then(|base| base.next_segment.checked_sub(1));
        let known = end.map(|end| end.segment).max(base);
        if known.is_some_and(|known| known >= floor && last.is_none_or(|last| last < known)) {
            let message = format!("a segment of the timeline {id} that was stored is missing");
            return Err(corrupt(message).at(self.archive.url()));
        }
        let Some(last) = end.map_or(last, |end| last.map(|last| last.min(end.segment))).filter(|last| *last >= floor)
        else {
            return Ok(ControlFlow::Continue(()));
        };
        let first = self.first(id, floor, last)?;
        if first > last {
            return Ok(ControlFlow::Continue(()));
        }
        let encoding = self.encodings.get(&timeline.encoding)?;
        let filter = Filter::new(&self.question.keys, encoding);
        let limit = end.map_or(u64::MAX, |end| end.sequence);
        let mut expected = None;
        for number in first..=last {
            self.pin.check()?;
            if self.segment(id, number, limit, &mut expected, &filter, sink)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The first segment of these that ends at the first time that counts or later; time rises with their numbers.
    fn first(&self, timeline: Uuid, floor: u64, last: u64) -> Result<u64> {
        let Some(from) = self.question.from else { return Ok(floor) };
        let (mut low, mut high) = (floor, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let before = tail::ends(self.archive, timeline, middle).map_err(missing)?.trailer.last_time < from;
            if before { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn segment(
        &self,
        timeline: Uuid,
        number: u64,
        limit: u64,
        expected: &mut Option<SegmentStart>,
        filter: &Filter<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>> {
        let name = names::segment(timeline, number)?;
        let place = |error: Error| if error.path().is_some() { error } else { error.at(self.archive.place(&name)) };
        let bytes = tail::whole(self.archive, timeline, number).map_err(missing)?;
        let mut reader = SegmentReader::new(&bytes).map_err(place)?;
        if expected.as_ref().is_some_and(|expected| *expected != reader.header().start) {
            return Err(place(corrupt("it does not follow the segment before it")));
        }
        *expected = Some(reader.trailer().next(reader.header()));
        for frame in reader.by_ref() {
            let frame = frame.map_err(place)?;
            if self.question.to.is_some_and(|to| frame.time > to) {
                return Ok(ControlFlow::Break(()));
            }
            let next = frame.first_sequence + u64::from(frame.operations);
            if next > limit.saturating_add(1) {
                // Written after the next timeline had gone on from here.
                return Ok(ControlFlow::Continue(()));
            }
            if self.question.from.is_none_or(|from| frame.time >= from) {
                let mut found = |sequence, change| sink(Found { time: frame.time, timeline, sequence, change });
                filter.frame(&frame, &mut found).map_err(place)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What is asked about, in the terms of one encoding.
struct Filter<'a> {
    encoding: Arc<dyn KeyEncoding>,
    id: EncodingId,
    keys: &'a Keys,
    /// The key or the prefix, encoded; `None`: no key of this encoding can be it, or there is none.
    encoded: Option<Vec<u8>>,
}

impl<'a> Filter<'a> {
    fn new(keys: &'a Keys, encoding: Arc<dyn KeyEncoding>) -> Self {
        let encoded = match keys {
            Keys::All => None,
            Keys::One(key) | Keys::Prefix(key) => {
                let mut out = Vec::new();
                encoding.encode(key, &mut out).is_ok().then_some(out)
            }
        };
        Filter { id: EncodingId::of(&*encoding), encoding, keys, encoded }
    }

    fn key(&self, encoded: &[u8]) -> LogKey {
        let mut key = Vec::new();
        let decoded = self.encoding.decode(encoded, &mut key).is_ok();
        LogKey { encoded: encoded.to_vec(), key: decoded.then_some(key) }
    }

    fn frame(&self, frame: &Frame, found: &mut impl FnMut(u64, Change) -> Result<()>) -> Result<()> {
        let bytes = match &frame.payload {
            Payload::Batch(bytes) => bytes,
            Payload::Group(group) => {
                return self.load(group).map_or(Ok(()), |change| found(frame.first_sequence, change));
            }
        };
        let batch = Batch::new(bytes)?;
        if (batch.sequence, batch.count) != (frame.first_sequence, frame.operations) {
            return Err(corrupt("a batch is not the one that its frame speaks of"));
        }
        let mut sequence = frame.first_sequence;
        for operation in batch.operations() {
            let operation = operation?;
            if let Some(change) = self.operation(operation) {
                found(sequence, change)?;
            }
            sequence += u64::from(operation.is_counted());
        }
        Ok(())
    }

    /// What an operation does to the keys that are asked about. The caller's internal records are no keys.
    fn operation(&self, operation: Operation<'_>) -> Option<Change> {
        match operation {
            Operation::Put { family: DEFAULT_FAMILY, key, value } if self.holds(key) => {
                Some(Change::Put { key: self.key(key), value: value.to_vec() })
            }
            Operation::Delete { family: DEFAULT_FAMILY, key } if self.holds(key) => {
                Some(Change::Delete { key: self.key(key) })
            }
            Operation::DeleteRange { family: DEFAULT_FAMILY, from, to } if self.meets(from, to) => {
                Some(Change::DeleteRange { from: self.key(from), to: self.key(to) })
            }
            _ => None,
        }
    }

    fn load(&self, group: &GroupReference) -> Option<Change> {
        let after = |key: &[u8]| [key, &[0]].concat();
        let mut files = group.files.iter().filter(|file| self.meets(&file.smallest, &after(&file.largest)));
        let first = files.next()?;
        let (entries, last) = files.fold((first.entries, first), |(sum, _), file| (sum + file.entries, file));
        let (first, last) = (self.key(&first.smallest), self.key(&last.largest));
        Some(Change::Load { group: group.group, entries, first, last })
    }

    fn holds(&self, encoded: &[u8]) -> bool {
        match self.keys {
            Keys::All => true,
            Keys::One(_) => self.encoded.as_deref() == Some(encoded),
            Keys::Prefix(prefix) => self.key(encoded).key.is_some_and(|key| key.starts_with(prefix)),
        }
    }

    /// Whether the encoded keys from `from` to before `to` can hold one that is asked about.
    fn meets(&self, from: &[u8], to: &[u8]) -> bool {
        if from >= to && self.encoding.comparator() == crate::encoding::Comparator::Bytewise {
            return false;
        }
        match (self.keys, &self.encoded) {
            (Keys::All, _) => true,
            (_, None) => false,
            (Keys::One(_), Some(key)) => {
                let compare = |left: &[u8], right: &[u8]| self.encoding.comparator().compare(left, right);
                compare(from, key).is_le() && compare(key, to).is_lt()
            }
            (Keys::Prefix(_), Some(prefix)) if self.id == EncodingId::of(&Natural) => overlaps(prefix, from, to),
            (Keys::Prefix(_), Some(prefix)) if self.id == EncodingId::of(&Hierarchical) => {
                meets_level(prefix, from, to)
            }
            (Keys::Prefix(_), Some(_)) => true,
        }
    }
}

/// Whether bytes that begin with `prefix` lie between these bounds.
fn overlaps(prefix: &[u8], from: &[u8], to: &[u8]) -> bool {
    let end = prefix_end(prefix);
    // Without an end: nothing but bytes of 0xFF, or nothing at all.
    prefix < to && (end.is_empty() || from < end.as_slice())
}

/// The same in the encoding `hierarchical`, where a longer key is on the same level or on any deeper one.
fn meets_level(prefix: &[u8], from: &[u8], to: &[u8]) -> bool {
    let level_of = |encoded: &[u8]| {
        let byte = |at: usize| encoded.get(at).copied().unwrap_or(0);
        u16::from_be_bytes([byte(0), byte(1)])
    };
    let (first, last) = (level_of(prefix).max(level_of(from)), level_of(to).min(LEVEL_MAX));
    (first..=last).any(|level| overlaps(&[&level.to_be_bytes(), &prefix[2..]].concat(), from, to))
}

/// No key is on a deeper level.
const LEVEL_MAX: u16 = 32_767;

/// A segment between others that are there.
fn missing(error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let place = error.path().map(std::path::Path::to_path_buf);
    let missing = corrupt("a segment of the log is missing").because(error);
    place.into_iter().fold(missing, Error::at)
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, STEP, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter<'a>(keys: &'a Keys, encoding: Arc<dyn KeyEncoding>) -> Filter<'a> {
        Filter::new(keys, encoding)
    }

    /// All keys over a small alphabet.
    fn all_keys() -> Vec<Vec<u8>> {
        let mut keys = vec![Vec::new()];
        let mut last = keys.clone();
        for _ in 0..4 {
            last = last.iter().flat_map(|key| b"/ab".map(|byte| [&key[..], &[byte]].concat())).collect();
            keys.extend(last.clone());
        }
        keys
    }

    /// Brute force: a range meets a prefix if a key of it lies in the range. Keys may be longer than those that are tried
    /// here, so a yes may come without one; a no never.
    #[test]
    fn ranges_that_hold_a_key_are_never_left_out() {
        let keys = all_keys();
        let encodings: [Arc<dyn KeyEncoding>; 2] = [Arc::new(Natural), Arc::new(Hierarchical)];
        let (mut yes, mut no) = (0, 0);
        for encoding in encodings {
            let encode = |key: &Vec<u8>| {
                let mut out = Vec::new();
                encoding.encode(key, &mut out).unwrap();
                out
            };
            let mut sorted: Vec<(Vec<u8>, &Vec<u8>)> = keys.iter().map(|key| (encode(key), key)).collect();
            sorted.sort();
            for prefix in [&b""[..], b"/", b"a", b"a/", b"//", b"/a", b"a/b", b"b//"] {
                let asked = Keys::Prefix(prefix.to_vec());
                let filter = filter(&asked, encoding.clone());
                for from in (0..sorted.len()).step_by(3) {
                    for to in (from..sorted.len()).step_by(5) {
                        let holds = sorted[from..to].iter().any(|(_, key)| key.starts_with(prefix));
                        let meets = filter.meets(&sorted[from].0, &sorted[to].0);
                        assert!(meets || !holds, "{prefix:?} {from} {to} {}", encoding.name());
                        (yes, no) = (yes + usize::from(meets), no + usize::from(!meets));
                    }
                }
            }
        }
        assert!(yes > 1000 && no > 1000, "{yes} {no}");
    }

    #[test]
    fn a_key_is_met_by_the_ranges_around_it_alone() {
        let asked = Keys::One(b"/a/b".to_vec());
        let filter = filter(&asked, Arc::new(Hierarchical));
        let encode = |key: &str| {
            let mut out = Vec::new();
            Hierarchical.encode(key.as_bytes(), &mut out).unwrap();
            out
        };
        assert!(filter.holds(&encode("/a/b")) && !filter.holds(&encode("/a/c")));
        assert!(filter.meets(&encode("/a/"), &encode("/a//")) && filter.meets(b"", &[0xff]));
        assert!(filter.meets(&encode("/a/b"), &encode("/a/c")) && !filter.meets(&encode("/a/a"), &encode("/a/b")));
        // Between these in byte order of the keys, but on another level.
        assert!(!filter.meets(&encode("/a"), &encode("/b")));
        let impossible = Keys::One(vec![0xff]);
        assert!(!super::Filter::new(&impossible, Arc::new(Hierarchical)).meets(b"", &[0xff]));
    }
}
