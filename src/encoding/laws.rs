//! What every key encoding promises, and a check of it.
//!
//! 1. *Round trip*: what encodes, decodes to the same key.
//! 2. *Injective*: no two keys have one encoded key.
//! 3. *Strict*: bytes either decode to a key that encodes to exactly these bytes, or are refused as `Corrupt`.
//! 4. *Honest refusal*: `encode` refuses with `Unrepresentable` only.
//! 5. *Steady*: the same key gives the same bytes each time.
//! 6. *Appending*: what was in `out` stays, and on an error nothing is added to it.
//!
//! One law cannot be seen in one process: the same name and revision mean the same bytes for ever. Keep a table of keys
//! and their encoded bytes in your tests for that.

use super::{EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result, show_key};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Stands in `out` before each call, to see that it stays.
const KEPT: &[u8] = b"\x00kept/\xff";

/// What [`check`] was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Keys that the encoding carries, repeated ones counted again.
    pub accepted: u64,
    /// Keys that it refused.
    pub refused: u64,
}

/// Checks all laws on `keys`, on changed copies of what they encode to (each shorter, one byte longer, one byte changed),
/// and on the keys taken as encoded bytes.
///
/// Holds all keys in memory. Takes time that grows with the square of a key's length: thousands of short keys are better
/// than one long key.
///
/// ```
/// use morphkv::encoding::{Hierarchical, laws};
///
/// let report = laws::check(&Hierarchical, [&b"/a/b"[..], b"/a//", b"\xff"])?;
/// assert_eq!((report.accepted, report.refused), (2, 1));
/// # Ok::<(), morphkv::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` at the first broken law; the message names the law and the key.
pub fn check<K: AsRef<[u8]>>(encoding: &dyn KeyEncoding, keys: impl IntoIterator<Item = K>) -> Result<Report> {
    let mut report = Report::default();
    let mut key_of: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for key in keys {
        let key = key.as_ref();
        check_decode(encoding, key)?;
        let Some(encoded) = check_encode(encoding, key)? else {
            report.refused += 1;
            continue;
        };
        report.accepted += 1;
        check_neighbours(encoding, &encoded)?;
        match key_of.entry(encoded) {
            Entry::Vacant(place) => {
                place.insert(key.to_vec());
            }
            Entry::Occupied(other) if other.get() == key => {}
            Entry::Occupied(other) => {
                let (other, encoded) = (show_key(other.get()), show_key(other.key()));
                let found = format!("{} and {other} both encode to {encoded}", show_key(key));
                return Err(broken(encoding, "injective", found));
            }
        }
    }
    Ok(report)
}

/// Checks what can be seen from one key: laws 1, 4, 5 and 6. Returns its encoded key, or `None` if it was refused.
///
/// # Errors
/// `InvalidArgument` at the first broken law.
pub fn check_encode(encoding: &dyn KeyEncoding, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let shown = || show_key(key);
    let mut out = KEPT.to_vec();
    if let Err(error) = encoding.encode(key, &mut out) {
        if error.kind() != ErrorKind::Unrepresentable {
            return Err(broken(encoding, "honest refusal", format!("{} is refused with {error:?}", shown())));
        }
        if out != KEPT {
            return Err(broken(encoding, "appending", format!("refusing {} changed `out`", shown())));
        }
        return Ok(None);
    }
    let Some(encoded) = out.strip_prefix(KEPT) else {
        return Err(broken(encoding, "appending", format!("encoding {} changed what was in `out`", shown())));
    };
    let mut again = Vec::new();
    if encoding.encode(key, &mut again).is_err() || again != encoded {
        return Err(broken(encoding, "steady", format!("{} does not encode to the same bytes twice", shown())));
    }
    let mut decoded = KEPT.to_vec();
    if let Err(error) = encoding.decode(encoded, &mut decoded) {
        return Err(broken(encoding, "round trip", format!("{} encodes, but then: {error}", shown())));
    }
    match decoded.strip_prefix(KEPT) {
        Some(decoded) if decoded == key => Ok(Some(encoded.to_vec())),
        Some(decoded) => {
            let found = format!("{} encodes to {} and comes back as {}", shown(), show_key(encoded), show_key(decoded));
            Err(broken(encoding, "round trip", found))
        }
        None => Err(broken(encoding, "appending", format!("decoding {} changed what was in `out`", shown()))),
    }
}

/// Checks law 3, and 6 for `decode`, on any bytes. Returns whether they are an encoded key.
///
/// # Errors
/// `InvalidArgument` at the first broken law.
pub fn check_decode(encoding: &dyn KeyEncoding, bytes: &[u8]) -> Result<bool> {
    let shown = || show_key(bytes);
    let mut out = KEPT.to_vec();
    if let Err(error) = encoding.decode(bytes, &mut out) {
        if error.kind() != ErrorKind::Corrupt {
            return Err(broken(encoding, "strict", format!("the bytes {} are refused with {error:?}", shown())));
        }
        if out != KEPT {
            return Err(broken(encoding, "appending", format!("refusing the bytes {} changed `out`", shown())));
        }
        return Ok(false);
    }
    let Some(key) = out.strip_prefix(KEPT) else {
        return Err(broken(encoding, "appending", format!("decoding {} changed what was in `out`", shown())));
    };
    let mut again = Vec::new();
    match encoding.encode(key, &mut again) {
        Ok(()) if again == bytes => Ok(true),
        Ok(()) => {
            let found = format!("{} decode to {}, which encodes to {}", shown(), show_key(key), show_key(&again));
            Err(broken(encoding, "strict", found))
        }
        Err(error) => {
            let found = format!("{} decode to {}, which does not encode: {error}", shown(), show_key(key));
            Err(broken(encoding, "strict", found))
        }
    }
}

/// Law 3 on the bytes around an encoded key, where a lax decoder shows.
fn check_neighbours(encoding: &dyn KeyEncoding, encoded: &[u8]) -> Result<()> {
    let mut bytes = encoded.to_vec();
    for appended in [0x00, b'/', b'a', 0xFF] {
        bytes.push(appended);
        check_decode(encoding, &bytes)?;
        bytes.pop();
    }
    for (at, &byte) in encoded.iter().enumerate() {
        check_decode(encoding, &encoded[..at])?;
        for changed in [0x00, b'/', 0xFF, byte ^ 0x01, byte ^ 0x80] {
            bytes[at] = changed;
            check_decode(encoding, &bytes)?;
        }
        bytes[at] = byte;
    }
    Ok(())
}

fn broken(encoding: &dyn KeyEncoding, law: &str, found: String) -> Error {
    let message = format!("{} breaks the law \"{law}\": {found}", EncodingId::of(encoding));
    Error::new(ErrorKind::InvalidArgument, "trust a key encoding", message)
}

/// Keys and assertions that the tests of all encodings share.
#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_128;

    /// All keys over `alphabet` of up to `len_max` bytes, the shortest first.
    pub fn exhaustive(alphabet: &[u8], len_max: u32) -> impl Iterator<Item = Vec<u8>> {
        (0..=len_max).flat_map(move |len| {
            let digit = move |number: usize, at: u32| alphabet[number / alphabet.len().pow(at) % alphabet.len()];
            (0..alphabet.len().pow(len)).map(move |number| (0..len).map(|at| digit(number, at)).collect())
        })
    }

    /// Keys with many separators, and now and then a byte that an encoding may use for itself.
    pub fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![6 => Just(b'/'), 8 => b'a'..=b'c', 1 => Just(0xFF), 1 => any::<u8>()];
        prop::collection::vec(byte, 0..32)
    }

    /// A table of keys and their bytes in hexadecimal, both ways.
    pub fn assert_golden(encoding: &dyn KeyEncoding, table: &[(&[u8], &str)]) {
        assert_eq!(encoding.revision(), 1, "a new revision needs a table of its own, and this one stays");
        for (key, hex) in table {
            let encoded = check_encode(encoding, key).unwrap().expect("accepted");
            let as_hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(as_hex, *hex, "{}", show_key(key));
        }
    }

    /// Round trip, strictness after one change, and no collision among a million keys.
    pub fn assert_million_random(encoding: &dyn KeyEncoding) -> Report {
        let mut random = SplitMix(0x6d6f_7270_686b_7600);
        let mut report = Report::default();
        let (mut key, mut encoded, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
        let (mut keys, mut encoded_keys) = (Vec::new(), Vec::new());
        for _ in 0..1_000_000 {
            random.key(&mut key);
            encoded.clear();
            if let Err(error) = encoding.encode(&key, &mut encoded) {
                assert_eq!(error.kind(), ErrorKind::Unrepresentable);
                report.refused += 1;
                continue;
            }
            report.accepted += 1;
            decoded.clear();
            encoding.decode(&encoded, &mut decoded).unwrap();
            assert_eq!(decoded, key);
            keys.push(xxh3_128(&key));
            encoded_keys.push(xxh3_128(&encoded));
            if !encoded.is_empty() {
                let at = random.below(encoded.len());
                encoded[at] = random.byte();
                check_decode(encoding, &encoded).unwrap();
            }
        }
        let distinct = |sums: &mut Vec<u128>| {
            sums.sort_unstable();
            sums.dedup();
            sums.len()
        };
        assert_eq!(distinct(&mut keys), distinct(&mut encoded_keys), "two keys met");
        report
    }

    /// Small and the same everywhere, so that a failure can be repeated.
    struct SplitMix(u64);

    impl SplitMix {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }

        fn byte(&mut self) -> u8 {
            match self.next() % 64 {
                0..20 => b'/',
                20..52 => b'a' + (self.next() % 26) as u8,
                52..54 => 0xFF,
                _ => self.next() as u8,
            }
        }

        fn key(&mut self, key: &mut Vec<u8>) {
            key.clear();
            for _ in 0..self.below(24) {
                key.push(self.byte());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicU8, Ordering};

    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        Lossy,
        Lax,
        IgnoresAppended,
        IgnoresChanged,
        FillsUp,
        WrongRefusal,
        WrongCorrupt,
        AppendsWhenRefusing,
        AppendsWhenCorrupt,
        ClearsWhenEncoding,
        ClearsWhenDecoding,
        Unsteady,
        CannotComeBack,
    }

    /// Puts `<` before each key, refuses keys with `!`, and does one thing wrong.
    struct Faulty(Fault, AtomicU8);

    impl Faulty {
        fn new(fault: Fault) -> Self {
            Faulty(fault, AtomicU8::new(0))
        }
    }

    impl KeyEncoding for Faulty {
        fn name(&self) -> &str {
            "faulty"
        }
        fn revision(&self) -> u32 {
            1
        }
        fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
            if key.contains(&b'!') {
                if self.0 == Fault::AppendsWhenRefusing {
                    out.push(b'<');
                }
                let kind = if self.0 == Fault::WrongRefusal { ErrorKind::Io } else { ErrorKind::Unrepresentable };
                return Err(Error::new(kind, "encode", "!"));
            }
            if self.0 == Fault::ClearsWhenEncoding {
                out.clear();
            }
            out.push(b'<');
            match self.0 {
                Fault::Lossy => out.extend(key.iter().map(|&byte| if byte == b'/' { b'?' } else { byte })),
                _ => out.extend_from_slice(key),
            }
            if self.0 == Fault::Unsteady {
                out.push(self.1.fetch_add(1, Ordering::Relaxed));
            }
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
            let corrupt = |kind| Err(Error::new(kind, "decode", "no <"));
            let key = match encoded.split_first() {
                Some((b'<', key)) if !key.contains(&b'!') => key,
                Some((_, key)) if self.0 == Fault::Lax => key,
                Some((b'=', key)) if self.0 == Fault::IgnoresChanged => key,
                _ if self.0 == Fault::WrongCorrupt => return corrupt(ErrorKind::InvalidArgument),
                _ => {
                    if self.0 == Fault::AppendsWhenCorrupt {
                        out.push(b'x');
                    }
                    return corrupt(ErrorKind::Corrupt);
                }
            };
            let key = match (self.0, key) {
                (Fault::IgnoresAppended, b"long enough\0") => b"long enough",
                (Fault::FillsUp, b"long enoug") => b"long enough",
                _ => key,
            };
            match self.0 {
                Fault::CannotComeBack if key.len() == 3 => return corrupt(ErrorKind::Corrupt),
                Fault::ClearsWhenDecoding => out.clear(),
                _ => {}
            }
            match self.0 {
                Fault::Lossy => out.extend(key.iter().map(|&byte| if byte == b'?' { b'/' } else { byte })),
                _ => out.extend_from_slice(key),
            }
            Ok(())
        }
    }

    const KEYS: [&[u8]; 5] = [b"a?b", b"", b"a/b", b"!", b"long enough"];

    #[test]
    fn a_sound_encoding_passes_and_is_counted() {
        let report = check(&Faulty::new(Fault::None), KEYS.iter().chain(&KEYS)).unwrap();
        assert_eq!(report, Report { accepted: 8, refused: 2 });
    }

    #[test]
    fn every_fault_is_found_under_the_law_it_breaks() {
        let faults = [
            (Fault::Lossy, "round trip"),
            (Fault::Lax, "strict"),
            (Fault::IgnoresAppended, "strict"),
            (Fault::IgnoresChanged, "strict"),
            (Fault::FillsUp, "strict"),
            (Fault::WrongRefusal, "honest refusal"),
            (Fault::WrongCorrupt, "strict"),
            (Fault::AppendsWhenRefusing, "appending"),
            (Fault::AppendsWhenCorrupt, "appending"),
            (Fault::ClearsWhenEncoding, "appending"),
            (Fault::ClearsWhenDecoding, "appending"),
            (Fault::Unsteady, "steady"),
            (Fault::CannotComeBack, "round trip"),
        ];
        for (fault, law) in faults {
            let error = check(&Faulty::new(fault), KEYS).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(&format!("breaks the law \"{law}\"")), "{error}");
        }
    }

    /// Encodes every key to nothing and remembers the last one: each call alone looks right.
    struct Remembers(Mutex<Vec<u8>>);

    impl KeyEncoding for Remembers {
        fn name(&self) -> &str {
            "remembers"
        }
        fn revision(&self) -> u32 {
            1
        }
        fn encode(&self, key: &[u8], _out: &mut Vec<u8>) -> Result<()> {
            *self.0.lock() = key.to_vec();
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
            if !encoded.is_empty() {
                return Err(Error::new(ErrorKind::Corrupt, "decode", "not empty"));
            }
            out.extend_from_slice(&self.0.lock());
            Ok(())
        }
    }

    #[test]
    fn two_keys_with_one_encoded_key_are_found() {
        let error = check(&Remembers(Mutex::new(Vec::new())), ["a/b", "a//b"]).unwrap_err();
        assert!(error.message().contains("injective") && error.message().contains("a//b and a/b"), "{error}");
    }

    #[test]
    fn exhaustive_samples_are_all_different_and_complete() {
        let mut keys: Vec<Vec<u8>> = samples::exhaustive(b"a/\xff_", 6).collect();
        assert_eq!(keys.len(), 5461);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 5461);
    }
}
