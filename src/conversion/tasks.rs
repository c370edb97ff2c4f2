//! How the work of a rewrite is divided: tasks that tile the source in the order in which it is read.
//!
//! The first task has no start, the last one no end, each start is the end before: what no task reads does not exist.
//! Cuts come from the borders of SST files, so tasks are of like size; a bad cut costs speed, never data.

use super::borders::Order;
use super::line::Source;
use crate::encoding::{Comparator, KeyEncoding};
use crate::error::Result;
use crate::layout::DATA_FAMILY;
use crate::rocks::{Database, Family, Piece};

/// Cuts need not be keys, and a short one is as good.
const CUT_BYTES: usize = 256;
/// How often a file is halved at most: keys that differ late in their bytes are not worth more.
const HALVINGS: u32 = 24;

/// The tasks of a rewrite. Planned once; whoever goes on with a rewrite must use the same plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The order in which each task reads.
    pub(super) order: Order,
    /// The levels that the source has, ascending; none unless the order is that of levels.
    pub(super) levels: Vec<u16>,
    /// Ascending: encoded keys, or, in a source with levels, paths, which cut every level.
    pub(super) cuts: Vec<Vec<u8>>,
}

/// One task: what lies from `start` to before `end`, both as in [`Plan::cuts`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'p> {
    pub(super) index: usize,
    pub(super) start: Option<&'p [u8]>,
    pub(super) end: Option<&'p [u8]>,
}

impl Plan {
    /// Divides a database into tasks of about `task_bytes` of its SST files.
    pub(super) fn new(source: &Source<'_>, encoding: &dyn KeyEncoding, task_bytes: u64) -> Result<Self> {
        let order = Order::of(encoding);
        let levels = if order == Order::Levels { levels(source.database())? } else { Vec::new() };
        // Pieces much smaller than a task make tasks of like size.
        let mut pieces = pieces(source, encoding.comparator(), task_bytes / 8)?;
        if order == Order::Levels {
            pieces.iter_mut().for_each(|piece| piece.position = path(&piece.position).to_vec());
        }
        // A piece that does not fit any more is left out: half of one for each task.
        let cuts = cuts(pieces, encoding.comparator(), task_bytes.saturating_add(task_bytes / 16));
        Ok(Plan { order, levels, cuts })
    }

    pub(super) fn len(&self) -> usize {
        self.cuts.len() + 1
    }

    pub(super) fn task(&self, index: usize) -> Task<'_> {
        Task {
            index,
            start: index.checked_sub(1).map(|before| self.cuts[before].as_slice()),
            end: self.cuts.get(index).map(Vec::as_slice),
        }
    }
}

/// Bytes of the SST files of the caller's family.
pub(super) fn file_bytes(database: &Database) -> Result<u64> {
    let files = database.live_files()?;
    Ok(files.iter().filter(|file| file.family == DATA_FAMILY).map(|file| file.bytes).sum())
}

/// The SST files of the caller's family, those larger than `piece_bytes` divided further; in no order.
pub(super) fn pieces(source: &Source<'_>, comparator: Comparator, piece_bytes: u64) -> Result<Vec<Piece>> {
    let database = source.database();
    let mut pieces = Vec::new();
    for file in database.live_files()?.into_iter().filter(|file| file.family == DATA_FAMILY) {
        if let Some(found) = source.pieces(&file, piece_bytes)? {
            pieces.extend(found);
            continue;
        }
        let range = Range { low: file.smallest, high: file.largest, bytes: file.bytes, halvings: 0 };
        if comparator == Comparator::Bytewise {
            divide(database, range, piece_bytes, &mut pieces)?;
        } else {
            // Between two keys of another order we can make up no third one.
            pieces.push(Piece { position: range.low, bytes: range.bytes });
        }
    }
    pieces.iter_mut().for_each(|piece| piece.position.truncate(CUT_BYTES));
    Ok(pieces)
}

struct Range {
    low: Vec<u8>,
    high: Vec<u8>,
    bytes: u64,
    halvings: u32,
}

fn divide(database: &Database, range: Range, piece_bytes: u64, pieces: &mut Vec<Piece>) -> Result<()> {
    let mut ranges = vec![range];
    while let Some(Range { low, high, bytes, halvings }) = ranges.pop() {
        let middle = (bytes > piece_bytes && halvings < HALVINGS).then(|| middle(&low, &high)).flatten();
        let Some(middle) = middle else {
            pieces.push(Piece { position: low, bytes });
            continue;
        };
        let sizes = database.approximate_sizes(&[(low.clone(), middle.clone()), (middle.clone(), high.clone())])?;
        // Other files may lie in the range, too: only the proportion counts.
        let share = u128::from(bytes) * u128::from(sizes[0]) / u128::from((sizes[0] + sizes[1]).max(1));
        let lower = u64::try_from(share).unwrap_or(bytes);
        let halvings = halvings + 1;
        ranges.push(Range { low: middle.clone(), high, bytes: bytes - lower, halvings });
        ranges.push(Range { low, high: middle, bytes: lower, halvings });
    }
    Ok(())
}

/// A byte string about half-way between two; none if they differ too little.
pub(super) fn middle(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let common = low.iter().zip(high).take_while(|(low, high)| low == high).count();
    let number = |bytes: &[u8]| {
        let mut digits = [0; 8];
        let len = bytes.len().min(8);
        digits[..len].copy_from_slice(&bytes[..len]);
        u64::from_be_bytes(digits)
    };
    let (from, to) = (number(&low[common..]), number(&high[common..]));
    let between = from + to.checked_sub(from)? / 2;
    if between == from {
        return None;
    }
    let digits = between.to_be_bytes();
    let len = digits.iter().rposition(|&byte| byte != 0)? + 1;
    Some([&low[..common], &digits[..len]].concat())
}

/// Cuts between pieces so that about `bytes_each` lie between two, or up to a quarter less where that spares a cut through
/// a directory: of some positions the shortest has least in common with the keys around it. Towards the end less lies
/// between two: then who is last is not waited for long.
pub(super) fn cuts(mut pieces: Vec<Piece>, comparator: Comparator, bytes_each: u64) -> Vec<Vec<u8>> {
    pieces.sort_by(|left, right| comparator.compare(&left.position, &right.position));
    let mut cuts: Vec<Vec<u8>> = Vec::new();
    let (mut begin, mut sum) = (0, 0);
    let mut left: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    let whole = bytes_each;
    for at in 0..pieces.len() {
        let bytes_each = if left <= whole * 2 { whole / 3 } else { whole };
        left -= pieces[at].bytes;
        // A piece that does not fit any more begins a task, unless it would be the first.
        if sum > 0 && sum + pieces[at].bytes > bytes_each {
            let mut best: Option<(usize, u64)> = None;
            let mut after = 0;
            for place in (begin..=at).rev() {
                let position = &pieces[place].position;
                let follows = cuts.last().is_none_or(|last| comparator.compare(last, position).is_lt());
                let shorter = best.is_none_or(|(best, _)| position.len() < pieces[best].position.len());
                if !position.is_empty() && follows && shorter {
                    best = Some((place, after));
                }
                after += place.checked_sub(1).map_or(0, |before| pieces[before].bytes);
                if sum - after.min(sum) < bytes_each / 4 * 3 {
                    break;
                }
            }
            // Where there is no place for a cut there will be none later.
            begin = at;
            if let Some((place, after)) = best {
                cuts.push(pieces[place].position.clone());
                (begin, sum) = (place, after);
            }
        }
        sum += pieces[at].bytes;
    }
    cuts
}

/// The level of an encoded key; a key that is too short (no encoding with levels makes one) goes with level bytes of 0.
pub(super) fn level(encoded: &[u8]) -> u16 {
    let byte = |at: usize| encoded.get(at).copied().unwrap_or(0);
    u16::from_be_bytes([byte(0), byte(1)])
}

/// An encoded key without its level.
pub(super) fn path(encoded: &[u8]) -> &[u8] {
    encoded.get(2..).unwrap_or(&[])
}

/// The levels that a database has.
fn levels(database: &Database) -> Result<Vec<u16>> {
    let mut levels = Vec::new();
    let mut cursor = database.cursor(Family::Data, true)?;
    cursor.seek_first()?;
    while let Some(found) = cursor.key().map(level) {
        levels.push(found);
        let Some(next) = found.checked_add(1) else { break };
        cursor.seek(&next.to_be_bytes())?;
    }
    levels.dedup();
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(position: &str, bytes: u64) -> Piece {
        Piece { position: position.into(), bytes }
    }

    #[test]
    fn cuts_ascend_and_tasks_are_of_like_size() {
        let pieces =
            vec![piece("d", 60), piece("a", 60), piece("b", 60), piece("b", 60), piece("c", 30), piece("e", 500)];
        let found = cuts(pieces, Comparator::Bytewise, 100);
        assert_eq!(found, [b"b", b"c", b"e"]);
        assert!(cuts(vec![piece("", 60), piece("", 60), piece("", 60)], Comparator::Bytewise, 100).is_empty());
        assert!(cuts(Vec::new(), Comparator::Bytewise, 100).is_empty());
        let spans = cuts(vec![piece("a/b", 60), piece("c", 60)], Comparator::SlashSpans, 100);
        assert_eq!(spans, [b"a/b"]);
    }

    /// Bytes between cuts, where each position is a number of three digits and some letters.
    fn sizes(lengths: impl Fn(usize) -> usize) -> Vec<usize> {
        let position = |at: usize| format!("{at:03}{}", "x".repeat(lengths(at)));
        let found = cuts((0..400).map(|at| piece(&position(at), 10)).collect(), Comparator::Bytewise, 1000);
        let places = found.iter().map(|cut| std::str::from_utf8(&cut[..3]).unwrap().parse().unwrap());
        let ends: Vec<usize> = places.chain([400]).collect();
        let begins = [0].iter().chain(&ends);
        begins.zip(&ends).map(|(begin, end)| (end - begin) * 10).collect()
    }

    #[test]
    fn the_last_tasks_are_small() {
        let sizes = sizes(|_| 0);
        assert_eq!(sizes[..2], [1000, 1000]);
        assert!(sizes[2..].iter().all(|size| *size <= 340), "{sizes:?}");
    }

    #[test]
    fn cuts_lie_where_keys_have_little_in_common() {
        // Every fourteenth position lies between two directories.
        let sizes = sizes(|at| if at % 14 == 0 { 0 } else { 5 });
        assert!(sizes[..2].iter().all(|size| size % 140 == 0 && *size > 750), "{sizes:?}");
    }

    #[test]
    fn tasks_tile() {
        let plan = Plan { order: Order::Natural, levels: Vec::new(), cuts: vec![b"b".to_vec(), b"d".to_vec()] };
        let ends: Vec<_> = (0..plan.len()).map(|at| plan.task(at)).map(|task| (task.start, task.end)).collect();
        let (b, d) = (Some(&b"b"[..]), Some(&b"d"[..]));
        assert_eq!(ends, [(None, b), (b, d), (d, None)]);
    }

    #[test]
    fn the_middle_lies_between() {
        for (low, high) in [("a", "b"), ("a/x", "a/y"), ("", "z"), ("key-0001", "key-9999"), ("a", "a\u{1}")] {
            let middle = middle(low.as_bytes(), high.as_bytes()).unwrap();
            assert!(low.as_bytes() < middle.as_slice() && middle.as_slice() < high.as_bytes(), "{low} {high}");
        }
        assert_eq!(middle(b"a", b"a"), None);
        assert_eq!(middle(b"b", b"a"), None);
    }

    #[test]
    fn short_keys_have_a_level() {
        assert_eq!((level(b""), level(b"\x01"), level(b"\x01\x02x")), (0, 256, 258));
        assert_eq!((path(b"\x01"), path(b"\x01\x02x")), (&b""[..], &b"x"[..]));
    }
}
