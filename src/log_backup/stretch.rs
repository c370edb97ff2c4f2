//! Operations of the log as they come, and how their net effect is made of them. Pure.
//!
//! Their bytes lie one after the other, and where one lies says when it came. Nothing is looked up while they are gathered:
//! at the end the keys are put in order, of each key the last operation stays, and what a later range deletion covers goes.

use crate::log_backup::key_order;
use crate::log_backup::net_effect::{FamilyEffect, NetEffect};
use crate::rocks::batch_decoder::Operation;
use std::collections::{BTreeMap, BinaryHeap};

/// What a put or a deletion takes beside its bytes: where it lies, twice, since they are put in order.
const POINT_BYTES: usize = 48;
/// What a range deletion takes beside its bytes.
const RANGE_BYTES: usize = 160;
/// A budget beyond it is not needed, and the points stay few enough to be counted in 32 bits.
const BUDGET_MAX: usize = 64 << 30;
/// No column family has that id.
const NO_FAMILY: u32 = u32::MAX;
/// The length of the value of a deletion: no value is as long.
const NO_VALUE: u32 = u32::MAX;

/// A stretch of the log that is being gathered.
#[derive(Debug, Default)]
pub struct Stretch {
    families: BTreeMap<u32, Gathered>,
}

#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    points: Vec<Point>,
    ranges: Vec<Span>,
}

/// A put or a deletion: the key, and then the value, from `at` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    at: usize,
    key_len: u32,
    value_len: u32,
}

/// Two keys from `at` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    at: usize,
    from_len: u32,
    to_len: u32,
}

impl Point {
    pub(super) fn key(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at..][..self.key_len as usize]
    }

    /// `None`: it is a deletion.
    pub(super) fn value(self, bytes: &[u8]) -> Option<&[u8]> {
        let value = || &bytes[self.at + self.key_len as usize..][..self.value_len as usize];
        (self.value_len != NO_VALUE).then(value)
    }
}

impl Span {
    fn from(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at..][..self.from_len as usize]
    }

    fn to(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at + self.from_len as usize..][..self.to_len as usize]
    }
}

impl Stretch {
    /// Adds what comes next in the log.
    pub fn add(&mut self, operation: Operation<'_>) {
        match operation {
            Operation::Put { family, key, value } => self.family_mut(family).point(key, Some(value)),
            Operation::Delete { family, key } => self.family_mut(family).point(key, None),
            Operation::DeleteRange { family, from, to } => self.family_mut(family).range(from, to),
            Operation::LogData(_) | Operation::Noop => {}
        }
    }

    fn family_mut(&mut self, family: u32) -> &mut Gathered {
        self.families.entry(family).or_default()
    }

    /// The memory that it takes, roughly.
    pub fn bytes(&self) -> usize {
        let of = |family: &Gathered| {
            family.bytes.len() + family.points.len() * POINT_BYTES + family.ranges.len() * RANGE_BYTES
        };
        self.families.values().map(of).sum()
    }

    /// Whether it holds no operation.
    pub fn is_empty(&self) -> bool {
        self.families.values().all(|family| family.points.is_empty() && family.ranges.is_empty())
    }

    /// The net effect once that is too much for `budget`; then nothing is left of it here. A log that writes the same keys
    /// again and again never gets there: what is overwritten goes, and there is room again.
    pub fn overflow(&mut self, budget: usize) -> Option<NetEffect> {
        let budget = budget.min(BUDGET_MAX);
        if self.bytes() < budget {
            return None;
        }
        let effect = self.take();
        // Half of it must go, so that what is done here again and again is little.
        if effect.operations(NO_FAMILY).map(bytes_of).sum::<usize>() > budget / 2 {
            return Some(effect);
        }
        effect.operations(NO_FAMILY).for_each(|operation| self.add(operation));
        None
    }

    /// The net effect of all that was added; nothing is left of it here.
    pub fn take(&mut self) -> NetEffect {
        let families = std::mem::take(&mut self.families);
        NetEffect::of(families.into_iter().map(|(id, family)| (id, family.effect())).collect())
    }
}

/// The memory that an operation takes.
fn bytes_of(operation: Operation<'_>) -> usize {
    match operation {
        Operation::Put { key, value, .. } => POINT_BYTES + key.len() + value.len(),
        Operation::Delete { key, .. } => POINT_BYTES + key.len(),
        Operation::DeleteRange { from, to, .. } => RANGE_BYTES + from.len() + to.len(),
        Operation::LogData(_) | Operation::Noop => 0,
    }
}

impl Gathered {
    fn point(&mut self, key: &[u8], value: Option<&[u8]>) {
        // Lengths in the log are u32; a value of the greatest is longer than a batch can be.
        let value_len = value.map_or(NO_VALUE, |value| value.len() as u32);
        self.points.push(Point { at: self.bytes.len(), key_len: key.len() as u32, value_len });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    fn range(&mut self, from: &[u8], to: &[u8]) {
        if from >= to {
            return;
        }
        self.ranges.push(Span { at: self.bytes.len(), from_len: from.len() as u32, to_len: to.len() as u32 });
        self.bytes.extend_from_slice(from);
        self.bytes.extend_from_slice(to);
    }

    fn effect(self) -> FamilyEffect {
        let Gathered { bytes, points, mut ranges } = self;
        let mut points = key_order::last_of_each(points, |point| point.key(&bytes));
        let pieces = pieces(&bytes, &mut ranges);
        let mut ahead = pieces.iter().peekable();
        points.retain(|point| {
            let key = point.key(&bytes);
            while ahead.next_if(|piece| piece.to <= key).is_some() {}
            match ahead.peek() {
                // The ranges come first, so what a deletion within one deletes is gone already.
                Some(piece) if piece.from <= key => point.value_len != NO_VALUE && point.at > piece.last,
                _ => true,
            }
        });
        let mut whole: Vec<(&[u8], &[u8])> = Vec::new();
        for piece in &pieces {
            match whole.last_mut() {
                Some(before) if before.1 == piece.from => before.1 = piece.to,
                _ => whole.push((piece.from, piece.to)),
            }
        }
        let ranges = whole.into_iter().map(|(from, to)| (from.to_vec(), to.to_vec())).collect();
        FamilyEffect::of(bytes, points, ranges)
    }
}

/// A piece of what is deleted by ranges, in which the same one is the last.
struct Piece<'b> {
    from: &'b [u8],
    to: &'b [u8],
    /// Where the last range lies.
    last: usize,
}

/// What the ranges cover, cut where any of them begins or ends, in order.
fn pieces<'b>(bytes: &'b [u8], ranges: &mut [Span]) -> Vec<Piece<'b>> {
    ranges.sort_unstable_by(|left, right| left.from(bytes).cmp(right.from(bytes)));
    let mut borders: Vec<&[u8]> = ranges.iter().flat_map(|range| [range.from(bytes), range.to(bytes)]).collect();
    borders.sort_unstable();
    borders.dedup();
    let mut pieces = Vec::new();
    // Those that have begun, the last in the log on top; one that has ended is seen when it gets there.
    let mut open: BinaryHeap<(usize, &[u8])> = BinaryHeap::new();
    let mut begin = ranges.iter().peekable();
    for pair in borders.windows(2) {
        while let Some(range) = begin.next_if(|range| range.from(bytes) <= pair[0]) {
            open.push((range.at, range.to(bytes)));
        }
        while open.peek().is_some_and(|(_, to)| *to <= pair[0]) {
            open.pop();
        }
        if let Some((last, _)) = open.peek() {
            pieces.push(Piece { from: pair[0], to: pair[1], last: *last });
        }
    }
    pieces
}
