//! The net effect of a stretch of the log: what it leaves, without what it went through. Pure.
//!
//! For each column family: first the range deletions, all of them, then for each key the last put or deletion that no later
//! range deletion took back. Done to any content, that is the stretch done to it, operation by operation. And since every
//! operation sets what it touches, the stretch may be done again from its first operation on after any part of its net
//! effect: what the part touched, the stretch touches again.
//!
//! Keys are encoded keys of a bytewise order; there is no other in an archive.
//!
//! What does not go into SST files is stored as an object of its own: `morphops`, the version u32, the operations as
//! RocksDB represents a batch, and a crc32 of all that.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::segment::PAYLOAD_BYTES_MAX;
use crate::log_backup::stretch::Point;
use crate::rocks::batch_decoder::{Batch, Operation};
use std::collections::BTreeMap;

/// The version of the format of operations that this code writes, and the only one that it reads.
pub const OPERATIONS_FORMAT: u32 = 1;
/// The longest object of operations.
pub const OPERATIONS_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64;

const MAGIC: &[u8; 8] = b"morphops";
const HEAD_BYTES: usize = MAGIC.len() + 4;
const READ: &str = "read operations of a compaction";

/// The net effect of a stretch of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetEffect {
    families: BTreeMap<u32, FamilyEffect>,
}

/// The net effect on one column family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyEffect {
    /// Keys and values, and others that do not count.
    bytes: Vec<u8>,
    /// Of each key the last put or deletion, in the order of the keys.
    points: Vec<Point>,
    /// From each of these keys to before the other; in order, and apart from each other.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl NetEffect {
    pub(super) fn of(families: BTreeMap<u32, FamilyEffect>) -> Self {
        NetEffect { families }
    }

    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.families.values().all(|family| family.ranges.is_empty() && family.points.is_empty())
    }

    /// The effect on one family.
    pub fn family(&self, family: u32) -> Option<&FamilyEffect> {
        self.families.get(&family)
    }

    /// The operations, in an order in which they can be done, without the points of the family `files`: those go into SST
    /// files, which are taken in afterwards.
    pub fn operations(&self, files: u32) -> impl Iterator<Item = Operation<'_>> {
        self.families.iter().flat_map(move |(&family, effect)| {
            let ranges = effect.ranges().map(move |(from, to)| Operation::DeleteRange { family, from, to });
            let points = (0..effect.len()).map(|index| effect.point(index)).map(move |(key, value)| match value {
                Some(value) => Operation::Put { family, key, value },
                None => Operation::Delete { family, key },
            });
            ranges.chain(points.filter(move |_| family != files))
        })
    }
}

impl FamilyEffect {
    pub(super) fn of(bytes: Vec<u8>, points: Vec<Point>, ranges: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        FamilyEffect { bytes, points, ranges }
    }

    /// The ranges that are deleted first, from a key to before another.
    pub fn ranges(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.ranges.iter().map(|(from, to)| (from.as_slice(), to.as_slice()))
    }

    /// Each key with its value, or that it is deleted; in the order of the keys.
    pub fn points(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        (0..self.len()).map(|index| self.point(index))
    }

    /// How many keys are put or deleted.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether no key is put or deleted.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Bytes of keys and values, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// One of [`FamilyEffect::points`].
    ///
    /// # Panics
    /// Beyond the last one.
    pub fn point(&self, index: usize) -> (&[u8], Option<&[u8]>) {
        let point = self.points[index];
        (point.key(&self.bytes), point.value(&self.bytes))
    }
}

/// Operations as an object.
///
/// # Errors
/// `Unsupported`: they are too long for one.
pub fn operations_to_bytes<'o>(operations: impl Iterator<Item = Operation<'o>>) -> Result<Vec<u8>> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&OPERATIONS_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 12]);
    let mut count = 0u32;
    for operation in operations {
        let (tag, family, slices) = match operation {
            Operation::Delete { family, key } => (0x4, family, [Some(key), None]),
            Operation::Put { family, key, value } => (0x5, family, [Some(key), Some(value)]),
            Operation::DeleteRange { family, from, to } => (0xE, family, [Some(from), Some(to)]),
            Operation::LogData(_) | Operation::Noop => continue,
        };
        bytes.push(tag);
        push_number(&mut bytes, family);
        for slice in slices.into_iter().flatten() {
            let len = u32::try_from(slice.len()).map_err(|_| too_long())?;
            push_number(&mut bytes, len);
            bytes.extend_from_slice(slice);
        }
        count = count.checked_add(1).ok_or_else(too_long)?;
        if bytes.len() as u64 + 4 > OPERATIONS_BYTES_MAX {
            return Err(too_long());
        }
    }
    bytes[HEAD_BYTES + 8..HEAD_BYTES + 12].copy_from_slice(&count.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

fn too_long() -> Error {
    let message = format!("they are over {OPERATIONS_BYTES_MAX} bytes long");
    Error::new(ErrorKind::Unsupported, "write operations of a compaction", message)
}

/// As RocksDB writes numbers: seven bits a byte, the lowest first.
fn push_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads operations; what is wrong with one of them comes out when they are gone through.
///
/// # Errors
/// `Corrupt`; `Unsupported` for a later format.
pub fn operations_from_bytes(bytes: &[u8]) -> Result<Batch<'_>> {
    let corrupt = |message: &str| Error::new(ErrorKind::Corrupt, READ, message);
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| corrupt("they are cut off"))?;
    if crc32fast::hash(body).to_le_bytes() != *crc {
        return Err(corrupt("their checksum does not fit"));
    }
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| corrupt("they do not begin as operations do"))?;
    let (format, batch) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("they are cut off"))?;
    let format = u32::from_le_bytes(*format);
    if format != OPERATIONS_FORMAT {
        let message = format!("they have format {format}, this version knows format {OPERATIONS_FORMAT}");
        return Err(Error::new(ErrorKind::Unsupported, READ, message));
    }
    Batch::new(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_backup::stretch::Stretch;
    use proptest::prelude::*;

    type Content = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u32, Vec<u8>, Vec<u8>),
        Delete(u32, Vec<u8>),
        DeleteRange(u32, Vec<u8>, Vec<u8>),
    }

    impl Step {
        fn operation(&self) -> Operation<'_> {
            match self {
                Step::Put(family, key, value) => Operation::Put { family: *family, key, value },
                Step::Delete(family, key) => Operation::Delete { family: *family, key },
                Step::DeleteRange(family, from, to) => Operation::DeleteRange { family: *family, from, to },
            }
        }
    }

    fn apply(content: &mut Content, operation: Operation<'_>) {
        match operation {
            Operation::Put { family, key, value } => drop(content.insert((family, key.to_vec()), value.to_vec())),
            Operation::Delete { family, key } => drop(content.remove(&(family, key.to_vec()))),
            Operation::DeleteRange { family, from, to } => {
                content.retain(|(of, key), _| *of != family || key.as_slice() < from || key.as_slice() >= to);
            }
            Operation::LogData(_) | Operation::Noop => {}
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b', 0xff]), 0..4)
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = prop::collection::vec(any::<u8>(), 0..3);
        prop_oneof![
            4 => (0u32..2, key(), value).prop_map(|(family, key, value)| Step::Put(family, key, value)),
            2 => (0u32..2, key()).prop_map(|(family, key)| Step::Delete(family, key)),
            2 => (0u32..2, key(), key()).prop_map(|(family, from, to)| Step::DeleteRange(family, from, to)),
        ]
    }

    fn start() -> impl Strategy<Value = Content> {
        prop::collection::btree_map((0u32..2, key()), prop::collection::vec(any::<u8>(), 0..2), 0..20)
    }

    fn stretch(steps: &[Step]) -> Stretch {
        let mut stretch = Stretch::default();
        steps.iter().for_each(|step| stretch.add(step.operation()));
        stretch
    }

    fn effect(steps: &[Step]) -> NetEffect {
        stretch(steps).take()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn it_is_the_stretch_whatever_was_there(start in start(), steps in prop::collection::vec(step(), 0..30)) {
            let effect = effect(&steps);
            let mut expected = start.clone();
            steps.iter().for_each(|step| apply(&mut expected, step.operation()));
            let mut found = start;
            // No family is left out.
            effect.operations(u32::MAX).for_each(|operation| apply(&mut found, operation));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn after_a_part_of_it_the_stretch_itself_does_the_same(
            start in start(), steps in prop::collection::vec(step(), 0..30), part in 0usize..40
        ) {
            let mut expected = start.clone();
            steps.iter().for_each(|step| apply(&mut expected, step.operation()));
            let mut found = start;
            effect(&steps).operations(u32::MAX).take(part).for_each(|operation| apply(&mut found, operation));
            steps.iter().for_each(|step| apply(&mut found, step.operation()));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn stretches_one_after_the_other_are_the_whole(
            start in start(), steps in prop::collection::vec(step(), 0..40), cut in 0usize..40
        ) {
            let cut = cut.min(steps.len());
            let (mut whole, mut parts) = (start.clone(), start);
            effect(&steps).operations(u32::MAX).for_each(|operation| apply(&mut whole, operation));
            for part in [&steps[..cut], &steps[cut..]] {
                effect(part).operations(u32::MAX).for_each(|operation| apply(&mut parts, operation));
            }
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn parts_that_are_cut_where_memory_ends_are_the_whole(
            start in start(), steps in prop::collection::vec(step(), 0..60), budget in 1usize..3000
        ) {
            let mut expected = start.clone();
            steps.iter().for_each(|step| apply(&mut expected, step.operation()));
            let (mut found, mut stretch) = (start, Stretch::default());
            for step in &steps {
                stretch.add(step.operation());
                if let Some(part) = stretch.overflow(budget) {
                    prop_assert!(stretch.is_empty() && !part.is_empty());
                    part.operations(u32::MAX).for_each(|operation| apply(&mut found, operation));
                }
                prop_assert!(stretch.bytes() < budget);
            }
            stretch.take().operations(u32::MAX).for_each(|operation| apply(&mut found, operation));
            prop_assert!(stretch.is_empty() && stretch.bytes() == 0);
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn it_holds_nothing_twice(steps in prop::collection::vec(step(), 0..40)) {
            let effect = effect(&steps);
            for family in effect.families.values() {
                let ranges: Vec<_> = family.ranges().collect();
                prop_assert!(ranges.iter().all(|(from, to)| from < to));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
                let covered = |key: &[u8]| ranges.iter().any(|(from, to)| *from <= key && key < *to);
                prop_assert!(family.points().all(|(key, value)| value.is_some() || !covered(key)));
                let keys: Vec<_> = family.points().map(|(key, _)| key).collect();
                prop_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert_eq!((keys.len(), keys.is_empty()), (family.len(), family.is_empty()));
            }
        }

        #[test]
        fn operations_survive_as_an_object(steps in prop::collection::vec(step(), 0..30), len in 0usize..300) {
            let mut stretch = stretch(&steps);
            stretch.add(Operation::Put { family: 300, key: &vec![7; len], value: &vec![8; 2 * len] });
            let effect = stretch.take();
            let bytes = operations_to_bytes(effect.operations(0)).unwrap();
            let read: Vec<_> = operations_from_bytes(&bytes).unwrap().operations().map(Result::unwrap).collect();
            prop_assert_eq!(read, effect.operations(0).collect::<Vec<_>>());
            let points = |operation: &Operation<'_>| matches!(operation,
                Operation::Put { family: 0, .. } | Operation::Delete { family: 0, .. });
            prop_assert!(!effect.operations(0).any(|operation| points(&operation)));
        }
    }

    #[test]
    fn damaged_operations_are_refused() {
        let mut stretch = Stretch::default();
        stretch.add(Operation::DeleteRange { family: 0, from: b"a", to: b"b" });
        stretch.add(Operation::Put { family: 1, key: b"key", value: b"value" });
        let effect = stretch.take();
        let good = operations_to_bytes(effect.operations(0)).unwrap();
        assert_eq!(operations_from_bytes(&good).unwrap().count, 2);
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            for bytes in [&flipped[..], &good[..at]] {
                assert_eq!(operations_from_bytes(bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
            }
        }
        let mut later = good[..good.len() - 4].to_vec();
        later[MAGIC.len()] = 2;
        let crc = crc32fast::hash(&later);
        later.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(operations_from_bytes(&later).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_log_that_writes_the_same_again_and_again_is_one_part() {
        let mut stretch = Stretch::default();
        for number in 0..100_000u32 {
            let key = (number % 10).to_be_bytes();
            stretch.add(Operation::Put { family: 0, key: &key, value: &number.to_be_bytes() });
            assert_eq!(stretch.overflow(10_000), None, "{number}");
        }
        assert_eq!(stretch.take().operations(1).count(), 10);
    }
}
