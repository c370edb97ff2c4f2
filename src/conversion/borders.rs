//! Where one file has to end and another to begin, although their keys are neighbours so far.
//!
//! Natural order, the order of spans and the order of paths within a level differ in one thing only: how a name compares
//! with a longer name that begins with it (`tenant1/`, `tenant10/`). Between two of these orders, whole directories
//! swap places and all else agrees. So for a point `p` of one order, the keys before `p` are, in the other order, the
//! keys before `p` without some blocks, and with some blocks from behind `p`. A file that reaches over the border of
//! such a block reaches over keys that lie on the other side of `p`: keys that are still to be read (`p` is where the
//! reading stands) or that another task reads (`p` is where that task begins).

use crate::encoding::{Comparator, KeyEncoding};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The order in which a source is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// Keys in byte order.
    Natural,
    /// Keys in the order of their spans.
    Spans,
    /// Paths in the byte order of a level, all levels merged.
    Levels,
    /// An order that we know nothing of.
    Other,
}

impl Order {
    /// The order of a database in this encoding.
    pub(super) fn of(encoding: &dyn KeyEncoding) -> Self {
        match encoding.comparator() {
            Comparator::SlashSpans => Order::Spans,
            Comparator::Bytewise if encoding.leveled() => Order::Levels,
            Comparator::Bytewise if encoding.name() == "natural" => Order::Natural,
            Comparator::Bytewise => Order::Other,
        }
    }
}

const SEPARATOR: u8 = b'/';
/// The byte of a separator in a path of a level.
const LEVEL_SEPARATOR: u8 = 0xFF;
/// Borders are a matter of speed; beyond this many bytes of a point they are not worth their time.
const POINT_BYTES: usize = 512;

/// From which order into which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    /// The orders agree, or nothing is known.
    None,
    /// From natural order into paths of a level.
    NaturalToLevels,
    /// From spans into paths of a level.
    SpansToLevels,
    /// From paths of a level into natural order.
    LevelsToNatural,
}

/// Keys that may lie on the other side of a point in the other order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block<'k> {
    /// Those in the directory of this name.
    Directory(&'k [u8]),
    /// Those of the names that begin with this one and are longer.
    LongerNames(&'k [u8]),
}

impl Swap {
    pub(super) fn between(from: Order, to: Order) -> Self {
        match (from, to) {
            (Order::Natural, Order::Levels) => Swap::NaturalToLevels,
            (Order::Spans, Order::Levels) => Swap::SpansToLevels,
            (Order::Levels, Order::Natural) => Swap::LevelsToNatural,
            _ => Swap::None,
        }
    }

    /// The borders of the blocks for a point, given as a key: positions in the target's order, sorted. A position among
    /// levels is a path, without a level. `holds` says which blocks the source has keys in.
    pub(super) fn borders(
        self,
        point: &[u8],
        mut holds: impl FnMut(Block<'_>) -> Result<bool>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut borders = Vec::new();
        if self == Swap::None {
            return Ok(borders);
        }
        for at in 0..point.len().min(POINT_BYTES) {
            let (name, next) = (&point[..at], point[at]);
            if next == SEPARATOR {
                if holds(Block::LongerNames(name))? {
                    borders.extend(self.longer_names(name));
                }
            } else if (next > SEPARATOR || self == Swap::SpansToLevels) && holds(Block::Directory(name))? {
                borders.extend(self.directory(name));
            }
        }
        borders.sort_unstable();
        borders.dedup();
        Ok(borders)
    }

    /// The block of the names that begin with this one and swap with its directory.
    fn longer_names(self, name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let (low, high) = match self {
            Swap::LevelsToNatural => (Some(followed(name, SEPARATOR + 1)), successor(name)),
            Swap::SpansToLevels => (Some(path(name)), Some(followed(&path(name), LEVEL_SEPARATOR))),
            _ => (Some(followed(&path(name), SEPARATOR + 1)), Some(followed(&path(name), LEVEL_SEPARATOR))),
        };
        low.into_iter().chain(high)
    }

    /// The block of a name's directory.
    fn directory(self, name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let (low, high) = match self {
            Swap::LevelsToNatural => (followed(name, SEPARATOR), Some(followed(name, SEPARATOR + 1))),
            _ => (followed(&path(name), LEVEL_SEPARATOR), successor(&path(name))),
        };
        Some(low).into_iter().chain(high)
    }
}

/// A key as it stands in a level.
fn path(key: &[u8]) -> Vec<u8> {
    key.iter().map(|&byte| if byte == SEPARATOR { LEVEL_SEPARATOR } else { byte }).collect()
}

/// A key from a path of a level.
pub(super) fn key_of_path(path: &[u8]) -> Vec<u8> {
    path.iter().map(|&byte| if byte == LEVEL_SEPARATOR { SEPARATOR } else { byte }).collect()
}

fn followed(bytes: &[u8], by: u8) -> Vec<u8> {
    [bytes, &[by]].concat()
}

/// The least byte string after all that begin with these bytes; none if there is none.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let last = bytes.iter().rposition(|&byte| byte != 0xFF)?;
    Some(followed(&bytes[..last], bytes[last] + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Hierarchical, SlashSpans};
    use std::cmp::Ordering;

    type Compare = fn(&[u8], &[u8]) -> Ordering;

    /// All keys of up to four bytes of which `/` is one, one is less and two are greater.
    fn exhaustive() -> Vec<Vec<u8>> {
        let mut keys = vec![Vec::new()];
        let mut begin = 0;
        for _ in 0..4 {
            let end = keys.len();
            for at in begin..end {
                keys.extend(b"-/0a".iter().map(|&byte| followed(&keys[at], byte)).collect::<Vec<_>>());
            }
            begin = end;
        }
        keys
    }

    fn in_levels(left: &[u8], right: &[u8]) -> Ordering {
        path(left).cmp(&path(right))
    }

    /// Exhaustively: cut at the borders of `point`, no piece may hold a key before and a key after the point.
    fn assert_pieces_keep_to_one_side(swap: Swap, from: Compare, to: Compare, position: fn(&[u8]) -> Vec<u8>) {
        let keys: Vec<Vec<u8>> = exhaustive();
        let mut swapped = 0;
        for point in &keys {
            let borders = swap.borders(point, |_| Ok(true)).unwrap();
            for one_level in 0..4 {
                // Keys of a level are those that can meet in a file; natural order has them all in one.
                let level = |key: &&Vec<u8>| {
                    swap == Swap::LevelsToNatural || key.iter().filter(|&&byte| byte == SEPARATOR).count() == one_level
                };
                let mut sorted: Vec<&Vec<u8>> = keys.iter().filter(level).collect();
                sorted.sort_by(|left, right| to(left, right));
                for pair in sorted.windows(2) {
                    let sides = [from(pair[0], point) == Ordering::Less, from(pair[1], point) == Ordering::Less];
                    let piece = |key: &[u8]| borders.partition_point(|border| *border <= position(key));
                    let at_the_point = to(pair[0], point) == Ordering::Less && to(pair[1], point) != Ordering::Less;
                    swapped += usize::from(sides == [false, true]);
                    assert!(
                        sides[0] == sides[1] || at_the_point || piece(pair[0]) != piece(pair[1]),
                        "{swap:?} {:?} {:?} at {:?}",
                        String::from_utf8_lossy(pair[0]),
                        String::from_utf8_lossy(pair[1]),
                        String::from_utf8_lossy(point)
                    );
                }
            }
        }
        assert!(swapped > 100, "the sample has no swaps");
    }

    #[test]
    fn natural_to_levels() {
        assert_pieces_keep_to_one_side(Swap::NaturalToLevels, |a, b| a.cmp(b), in_levels, path);
    }

    #[test]
    fn levels_to_natural() {
        assert_pieces_keep_to_one_side(Swap::LevelsToNatural, in_levels, |a, b| a.cmp(b), <[u8]>::to_vec);
    }

    #[test]
    fn spans_to_levels() {
        let spans: Compare = |a, b| Comparator::SlashSpans.compare(a, b);
        // Only points of the level itself: between levels, spans sort the last name before the directories.
        let keys: Vec<Vec<u8>> = exhaustive();
        for point in &keys {
            let slashes = |key: &[u8]| key.iter().filter(|&&byte| byte == SEPARATOR).count();
            let borders = Swap::SpansToLevels.borders(point, |_| Ok(true)).unwrap();
            let mut sorted: Vec<&Vec<u8>> = keys.iter().filter(|key| slashes(key) == slashes(point)).collect();
            sorted.sort_by(|left, right| in_levels(left, right));
            for pair in sorted.windows(2) {
                let before = |key: &[u8]| spans(key, point) == Ordering::Less;
                let piece = |key: &[u8]| borders.partition_point(|border| *border <= path(key));
                let at_the_point = in_levels(pair[0], point).is_lt() && in_levels(pair[1], point).is_ge();
                assert!(before(pair[0]) == before(pair[1]) || at_the_point || piece(pair[0]) != piece(pair[1]));
            }
        }
    }

    #[test]
    fn blocks_without_keys_have_no_borders() {
        let mut asked = Vec::new();
        let borders = Swap::NaturalToLevels.borders(b"/u/10/x", |block| {
            let (name, held) = match block {
                Block::Directory(name) => (name, name == b"/u/1"),
                Block::LongerNames(name) => (name, name == b"/u/10"),
            };
            asked.push(String::from_utf8_lossy(name).into_owned());
            Ok(held)
        });
        let shown: Vec<String> = borders.unwrap().iter().map(|border| crate::error::show_key(border)).collect();
        assert_eq!(shown, ["\\xffu\\xff100", "\\xffu\\xff10\\xff", "\\xffu\\xff1\\xff", "\\xffu\\xff2"]);
        assert_eq!(asked, ["", "/", "/u", "/u/", "/u/1", "/u/10", "/u/10/"]);
    }

    #[test]
    fn orders_are_told_from_encodings() {
        assert_eq!(Order::of(&Hierarchical), Order::Levels);
        assert_eq!(Order::of(&SlashSpans), Order::Spans);
        assert_eq!(Order::of(&crate::encoding::Natural), Order::Natural);
        assert_eq!(key_of_path(&path(b"/a/b")), b"/a/b");
        assert_eq!((successor(b"a\xff\xff"), successor(b"\xff"), successor(b"")), (Some(b"b".to_vec()), None, None));
    }
}
