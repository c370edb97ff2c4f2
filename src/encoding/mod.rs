//! Key encodings: named, versioned, injective maps from a caller's keys to the bytes that RocksDB sees, and so an order.
//!
//! Pure: no file, no database. What is promised is in [`laws`].
//!
//! ```
//! use morphkv::encoding::{EncodingId, Encodings, Hierarchical, KeyEncoding};
//!
//! let mut encoded = Vec::new();
//! Hierarchical.encode(b"/a/b", &mut encoded)?;
//! assert_eq!(encoded, b"\x00\x02\xffa\xffb");
//!
//! let known = Encodings::builtin();
//! let id = EncodingId::of(&Hierarchical);
//! assert_eq!(id.to_string(), "hierarchical r1");
//! assert_eq!(known.get(&id)?.name(), "hierarchical");
//! # Ok::<(), morphkv::Error>(())
//! ```

mod hierarchical;
pub mod laws;
mod natural;
mod registry;
mod slash_spans;

pub use hierarchical::Hierarchical;
pub use natural::Natural;
pub use registry::Encodings;
pub use slash_spans::SlashSpans;

use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// A named, versioned, injective map from keys to encoded keys.
///
/// Name and revision are written beside the data, so together they must mean the same bytes for ever: whoever changes a
/// byte raises the revision and keeps the old one registered. [`laws::check`] tests an encoding of your own.
pub trait KeyEncoding: Send + Sync + 'static {
    /// 1 to 64 of `a-z`, `0-9` and `-`. It reaches disk.
    fn name(&self) -> &str;

    /// Raised with every change of an encoded byte. It reaches disk.
    fn revision(&self) -> u32;

    /// Appends the encoded key to `out`, which is not cleared first.
    ///
    /// # Errors
    /// `Unrepresentable`, and no other kind, for a key that the encoding cannot carry; nothing was appended then.
    fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Appends the key to `out`, which is not cleared first.
    ///
    /// # Errors
    /// `Corrupt`, and no other kind, for bytes that `encode` never makes; nothing was appended then.
    fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Whether encoded keys begin with a two-byte big-endian level and lie, within one level, nearly in natural key
    /// order. It lets a conversion use one run for each level; a wrong answer costs speed, never data.
    fn leveled(&self) -> bool {
        false
    }

    /// How RocksDB must compare the encoded keys.
    fn comparator(&self) -> Comparator {
        Comparator::Bytewise
    }

    /// How far the laws can be taken for granted. Only this crate can name the argument, and so answer otherwise.
    #[doc(hidden)]
    fn proof(&self, _: proof::Asked) -> proof::Proof {
        proof::Proof::EachKey
    }
}

/// Which encodings have their laws proved by this crate's own tests, so that a conversion need not prove them again
/// for each key.
pub(crate) mod proof {
    /// The key to [`KeyEncoding::proof`](super::KeyEncoding::proof): it cannot be named outside this crate.
    #[derive(Debug)]
    pub struct Asked;

    /// What a conversion has to prove.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Proof {
        /// That each key comes back, and that each row is the one encoded form of its key.
        EachKey,
        /// Nothing: decoding refuses all that encoding never makes, and every key that it carries comes back.
        Tests,
        /// Nothing: encoded keys are the keys.
        Identity,
    }
}

/// An order of encoded keys, as RocksDB records it by name in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    /// RocksDB's default: unsigned bytes from left to right, a prefix before what it begins.
    Bytewise,
    /// The order of [`SlashSpans`].
    SlashSpans,
}

impl Comparator {
    /// The name that RocksDB writes into the database; opening with another one fails.
    pub fn name(self) -> &'static str {
        match self {
            Comparator::Bytewise => "leveldb.BytewiseComparator",
            Comparator::SlashSpans => "oxia-slash-spans",
        }
    }

    /// Compares two encoded keys. A total order, and `Equal` only for equal bytes.
    pub fn compare(self, left: &[u8], right: &[u8]) -> Ordering {
        match self {
            Comparator::Bytewise => left.cmp(right),
            Comparator::SlashSpans => slash_spans::compare(left, right),
        }
    }
}

/// Which encoding a database is in: what its marker says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodingId {
    /// [`KeyEncoding::name`]. Read from disk, it may be anything: look it up in [`Encodings`] before trusting it.
    pub name: String,
    /// [`KeyEncoding::revision`].
    pub revision: u32,
}

impl EncodingId {
    /// The id of `encoding`.
    pub fn of(encoding: &dyn KeyEncoding) -> Self {
        EncodingId { name: encoding.name().to_owned(), revision: encoding.revision() }
    }
}

impl fmt::Display for EncodingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} r{}", crate::error::show_key(self.name.as_bytes()), self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_and_stored_in_one_way() {
        let id = EncodingId::of(&Natural);
        assert_eq!(id.to_string(), "natural r1");
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, r#"{"name":"natural","revision":1}"#);
        assert_eq!(serde_json::from_str::<EncodingId>(&json).unwrap(), id);
        for text in
            [r#"{"name":"natural"}"#, r#"{"name":"natural","revision":1,"x":1}"#, r#"{"name":"n","revision":-1}"#]
        {
            assert!(serde_json::from_str::<EncodingId>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_hostile_name_is_shown_escaped_and_cut() {
        let shown = EncodingId { name: "\u{1b}[2J\n".repeat(100), revision: 7 }.to_string();
        assert!(shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && shown.len() < 250, "{shown}");
    }

    #[test]
    fn comparators_have_the_names_that_databases_record() {
        assert_eq!(Natural.comparator().name(), "leveldb.BytewiseComparator");
        assert_eq!(Hierarchical.comparator().name(), "leveldb.BytewiseComparator");
        assert_eq!(SlashSpans.comparator().name(), "oxia-slash-spans");
    }

    #[test]
    fn only_hierarchical_is_leveled() {
        assert_eq!([Natural.leveled(), Hierarchical.leveled(), SlashSpans.leveled()], [false, true, false]);
    }

    #[test]
    fn bytewise_is_the_order_of_unsigned_bytes() {
        assert_eq!(Comparator::Bytewise.compare(b"\x7f", b"\x80"), Ordering::Less);
        assert_eq!(Comparator::Bytewise.compare(b"a", b"a\x00"), Ordering::Less);
        assert_eq!(Comparator::Bytewise.compare(b"a/b", b"a/b"), Ordering::Equal);
    }
}
