//! The digest of a database's content: the same in every encoding and every order of reading.
//!
//! `xxh3-128-sum/1`: for each entry the xxh3-128 (seed 0) of the key's length as eight little-endian bytes, the key and
//! the value; the sum of these modulo 2^128. Keys are those of the caller, not encoded. A sum, not an xor, so that an
//! entry that is there twice does not vanish. Sound against accidents; whoever wants to forge one can.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const NAME: &str = "xxh3-128-sum/1";

/// Entries up to this many bytes are hashed from one buffer on the stack, which is several times faster.
const SHORT_BYTES: usize = 512;

/// A digest over any number of entries, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Digest(u128);

impl Digest {
    /// Takes in one entry.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let length = (key.len() as u64).to_le_bytes();
        let total = length.len() + key.len() + value.len();
        let hash = if total <= SHORT_BYTES / 2 {
            // Zeroing the larger buffer would cost as much as hashing.
            hash_short(&mut [0; SHORT_BYTES / 2], &length, key, value)
        } else if total <= SHORT_BYTES {
            hash_short(&mut [0; SHORT_BYTES], &length, key, value)
        } else {
            let mut hasher = Xxh3::new();
            hasher.update(&length);
            hasher.update(key);
            hasher.update(value);
            hasher.digest128()
        };
        self.0 = self.0.wrapping_add(hash);
    }

    /// Takes in all entries of another digest.
    pub fn merge(&mut self, other: Digest) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

#[inline]
fn hash_short(buffer: &mut [u8], length: &[u8], key: &[u8], value: &[u8]) -> u128 {
    let (head, rest) = buffer.split_at_mut(length.len());
    head.copy_from_slice(length);
    let (place, rest) = rest.split_at_mut(key.len());
    place.copy_from_slice(key);
    rest[..value.len()].copy_from_slice(value);
    xxh3_128(&buffer[..length.len() + key.len() + value.len()])
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}:{:032x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// # Errors
    /// `Unsupported` for a digest of another sort, `Corrupt` for anything but 32 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let step = "read a digest";
        let Some((NAME, digits)) = text.split_once(':') else {
            let message = format!("`{}` is not `{NAME}:` and a number", crate::error::show_key(text.as_bytes()));
            return Err(Error::new(ErrorKind::Unsupported, step, message));
        };
        let plain = digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(digits, 16) {
            Ok(sum) if plain => Ok(Digest(sum)),
            _ => {
                let message = format!("`{}` is not 32 lower-case digits", crate::error::show_key(digits.as_bytes()));
                Err(Error::new(ErrorKind::Corrupt, step, message))
            }
        }
    }
}

/// What a scan found: how many entries, and their digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    /// Entries.
    pub entries: u64,
    /// Their digest.
    pub digest: Digest,
}

impl Content {
    /// Takes in one entry.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.digest.add(key, value);
    }

    /// Takes in all entries of another one.
    pub fn merge(&mut self, other: Content) {
        self.entries += other.entries;
        self.digest.merge(other.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(entries: &[(&[u8], &[u8])]) -> Digest {
        let mut digest = Digest::default();
        entries.iter().for_each(|(key, value)| digest.add(key, value));
        digest
    }

    #[test]
    fn bytes_never_change() {
        assert_eq!(digest(&[]).to_string(), "xxh3-128-sum/1:00000000000000000000000000000000");
        assert_eq!(
            digest(&[(b"/a/b", b"1"), (b"", b"")]).to_string(),
            "xxh3-128-sum/1:6bb37cdf4a335d0fd0708892eb6b49de"
        );
    }

    #[test]
    fn short_and_long_entries_are_hashed_alike() {
        for value_bytes in [0, 1, SHORT_BYTES - 12, SHORT_BYTES - 11, 5000] {
            let value = vec![7; value_bytes];
            let mut all = 3_u64.to_le_bytes().to_vec();
            all.extend_from_slice(b"key");
            all.extend_from_slice(&value);
            assert_eq!(digest(&[(b"key", &value)]).0, xxh3_128(&all), "{value_bytes}");
        }
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let one = digest(&[(b"a", b"1"), (b"b", b"2")]);
        let mut merged = digest(&[(b"b", b"2")]);
        merged.merge(digest(&[(b"a", b"1")]));
        assert_eq!(one, merged);
        for other in [
            digest(&[(b"a", b"1")]),
            digest(&[(b"a", b"2"), (b"b", b"1")]),
            digest(&[(b"a1", b""), (b"b", b"2")]),
            digest(&[(b"a", b"1"), (b"b", b"2"), (b"b", b"2")]),
            digest(&[(b"a", b"1"), (b"b", b"2"), (b"c", b""), (b"c", b"")]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn text_is_read_back_strictly() {
        let one = digest(&[(b"a", b"1")]);
        assert_eq!(one.to_string().parse::<Digest>().unwrap(), one);
        let text = one.to_string();
        for wrong in [&text[..text.len() - 1], &text.to_uppercase(), &text.replace(":", ":+"), "", "xxh3", "a:b"] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        assert_eq!("xxh3-128-sum/2:00".parse::<Digest>().unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(format!("{NAME}:+{}", "0".repeat(31)).parse::<Digest>().is_err());
    }
}
