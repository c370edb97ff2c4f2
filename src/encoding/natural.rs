//! `natural` r1: keys as they are, in byte order.

use super::KeyEncoding;
use super::proof::{Asked, Proof};
use crate::error::Result;

/// Keys as they are, in byte order. Carries every key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Natural;

impl KeyEncoding for Natural {
    fn name(&self) -> &str {
        "natural"
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

    fn proof(&self, _: Asked) -> Proof {
        Proof::Identity
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{self, Report, samples};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_never_change() {
        samples::assert_golden(
            &Natural,
            &[(b"", ""), (b"a", "61"), (b"/a/b", "2f612f62"), (b"a//", "612f2f"), (b"\x00\xff", "00ff")],
        );
    }

    #[test]
    fn laws_hold_exhaustively() {
        let report = laws::check(&Natural, samples::exhaustive(b"a/\xff_", 6)).unwrap();
        assert_eq!(report, Report { accepted: 5461, refused: 0 });
    }

    #[test]
    fn a_million_random_keys_keep_their_identity() {
        assert_eq!(samples::assert_million_random(&Natural).refused, 0);
    }

    proptest! {
        #[test]
        fn laws_hold(keys in prop::collection::vec(samples::key(), 0..8)) {
            laws::check(&Natural, &keys)?;
        }
    }
}
