//! `slash-spans` r1: keys as they are, under a comparator of their own. Databases from before the marker are in it.
//!
//! A span is what lies between two `/`. The order compares span by span from the left; a key that has come to its last
//! span is less than one that has not, and two last spans compare as bytes. That is the order of lists of pairs (whether
//! more spans follow, span), so it is total, and only equal keys compare equal.

use super::proof::{Asked, Proof};
use super::{Comparator, KeyEncoding};
use crate::error::Result;
use memchr::memchr;
use std::cmp::Ordering;

/// Keys as they are, compared span by span between their `/`. Carries every key. Legacy: databases can be converted from
/// it, never to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlashSpans;

impl KeyEncoding for SlashSpans {
    fn name(&self) -> &str {
        "slash-spans"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(key);
        Ok(())
    }

    fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(encoded);
        Ok(())
    }

    fn comparator(&self) -> Comparator {
        Comparator::SlashSpans
    }

    fn proof(&self, _: Asked) -> Proof {
        Proof::Identity
    }
}

/// The order that existing databases are sorted in; it must never change.
pub(super) fn compare(mut left: &[u8], mut right: &[u8]) -> Ordering {
    loop {
        let (left_end, right_end) = match (memchr(b'/', left), memchr(b'/', right)) {
            (None, None) => return left.cmp(right),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(left_end), Some(right_end)) => (left_end, right_end),
        };
        match left[..left_end].cmp(&right[..right_end]) {
            Ordering::Equal => (left, right) = (&left[left_end + 1..], &right[right_end + 1..]),
            unequal => return unequal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{self, Report, samples};
    use super::*;
    use proptest::prelude::*;

    /// The same order said in another way: the last span of a key is less than a span that is not the last.
    fn model(left: &[u8], right: &[u8]) -> Ordering {
        let spans = |key: &[u8]| {
            let mut spans: Vec<(bool, Vec<u8>)> =
                key.split(|&byte| byte == b'/').map(|span| (true, span.to_vec())).collect();
            spans.last_mut().unwrap().0 = false;
            spans
        };
        spans(left).cmp(&spans(right))
    }

    #[test]
    fn bytes_never_change() {
        samples::assert_golden(
            &SlashSpans,
            &[(b"", ""), (b"a", "61"), (b"/a/b", "2f612f62"), (b"a//", "612f2f"), (b"\x00\xff", "00ff")],
        );
    }

    #[test]
    fn the_order_never_changes() {
        let sorted: [&[u8]; 22] = [
            b"",
            b"aaa",
            b"aaaaa",
            b"aaaaaaaaaaa",
            b"bbb",
            b"zzzzz",
            b"\xff",
            b"/",
            b"/aaa",
            b"/aaaa",
            b"//",
            b"//a",
            b"/bb/",
            b"/bb//",
            b"/zzz/aaa",
            b"a/",
            b"a/b",
            b"aaa/bbb",
            b"aaa/zzz/a",
            b"bbb/a",
            b"bbb/bbb",
            b"\xff/a",
        ];
        for pair in sorted.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn the_order_is_total_exhaustively() {
        let mut keys: Vec<Vec<u8>> = samples::exhaustive(b"a/\xff_", 5).collect();
        keys.sort_by(|left, right| compare(left, right));
        // Each key is less than every later one, in both directions: that is antisymmetry, transitivity and no ties.
        for (at, left) in keys.iter().enumerate() {
            assert_eq!(compare(left, left), Ordering::Equal);
            for right in &keys[at + 1..] {
                assert_eq!((compare(left, right), compare(right, left)), (Ordering::Less, Ordering::Greater));
            }
        }
    }

    #[test]
    fn laws_hold_exhaustively() {
        let report = laws::check(&SlashSpans, samples::exhaustive(b"a/\xff_", 6)).unwrap();
        assert_eq!(report, Report { accepted: 5461, refused: 0 });
    }

    #[test]
    fn a_million_random_keys_keep_their_identity() {
        assert_eq!(samples::assert_million_random(&SlashSpans).refused, 0);
    }

    proptest! {
        #[test]
        fn laws_hold(keys in prop::collection::vec(samples::key(), 0..8)) {
            laws::check(&SlashSpans, &keys)?;
        }

        #[test]
        fn the_order_is_that_of_the_model(left in samples::key(), right in samples::key()) {
            prop_assert_eq!(compare(&left, &right), model(&left, &right));
            prop_assert_eq!(compare(&right, &left), compare(&left, &right).reverse());
        }
    }
}
