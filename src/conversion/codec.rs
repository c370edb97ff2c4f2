//! Encoding and decoding with nothing taken on trust: what comes back must be what went in.
//!
//! If decoding gives back every key that was encoded, no two keys can have met in one encoded key; if encoding gives
//! back every encoded key that was decoded, no two rows of the source can have been the same key. So both directions
//! are checked for each entry, and a broken encoding of an application is found before anything is lost. The encodings
//! of this crate are proved by its tests instead, exhaustively for short keys, and decode strictly.

use crate::encoding::proof::{Asked, Proof};
use crate::encoding::{EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result, show_key};

/// Decodes keys strictly.
pub(super) struct Decoder<'e> {
    encoding: &'e dyn KeyEncoding,
    proof: Proof,
    key: Vec<u8>,
    back: Vec<u8>,
}

impl<'e> Decoder<'e> {
    pub(super) fn new(encoding: &'e dyn KeyEncoding) -> Self {
        Decoder { encoding, proof: encoding.proof(Asked), key: Vec::new(), back: Vec::new() }
    }

    /// The key; `Corrupt` unless these bytes are the one encoded form of it.
    #[inline]
    pub(super) fn decode<'k>(&'k mut self, encoded: &'k [u8]) -> Result<&'k [u8]> {
        if self.proof == Proof::Identity {
            return Ok(encoded);
        }
        self.key.clear();
        self.encoding.decode(encoded, &mut self.key)?;
        if self.proof == Proof::Tests {
            return Ok(&self.key);
        }
        self.back.clear();
        match self.encoding.encode(&self.key, &mut self.back) {
            Ok(()) if self.back == encoded => Ok(&self.key),
            _ => Err(self.not_canonical(encoded)),
        }
    }

    #[cold]
    fn not_canonical(&self, encoded: &[u8]) -> Error {
        let message = format!(
            "the encoded key {} decodes to {}, which {} encodes otherwise",
            show_key(encoded),
            show_key(&self.key),
            EncodingId::of(self.encoding)
        );
        Error::new(ErrorKind::Corrupt, "decode a key", message)
    }
}

/// Encodes keys, with proof that each can be had back.
pub(super) struct Encoder<'e> {
    encoding: &'e dyn KeyEncoding,
    proof: Proof,
    encoded: Vec<u8>,
    back: Vec<u8>,
}

impl<'e> Encoder<'e> {
    pub(super) fn new(encoding: &'e dyn KeyEncoding) -> Self {
        Encoder { encoding, proof: encoding.proof(Asked), encoded: Vec::new(), back: Vec::new() }
    }

    /// The encoded key; none if the encoding cannot carry it.
    #[inline]
    pub(super) fn encode<'k>(&'k mut self, key: &'k [u8]) -> Result<Option<&'k [u8]>> {
        if self.proof == Proof::Identity {
            return Ok(Some(key));
        }
        self.encoded.clear();
        match self.encoding.encode(key, &mut self.encoded) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unrepresentable => return Ok(None),
            Err(error) => return Err(error),
        }
        if self.proof == Proof::Tests {
            return Ok(Some(&self.encoded));
        }
        self.back.clear();
        match self.encoding.decode(&self.encoded, &mut self.back) {
            Ok(()) if self.back == key => Ok(Some(&self.encoded)),
            _ => Err(self.broken(key)),
        }
    }

    #[cold]
    fn broken(&self, key: &[u8]) -> Error {
        let message = format!(
            "{} encodes the key {} and does not decode it to the same key: the encoding is broken; the source is \
             untouched",
            EncodingId::of(self.encoding),
            show_key(key)
        );
        Error::new(ErrorKind::Unrepresentable, "encode a key", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forgets capitals when encoding, and when decoding takes every byte.
    struct Lossy;

    impl KeyEncoding for Lossy {
        fn name(&self) -> &str {
            "lossy"
        }
        fn revision(&self) -> u32 {
            3
        }
        fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.extend(key.to_ascii_lowercase());
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.extend_from_slice(encoded);
            Ok(())
        }
    }

    #[test]
    fn a_key_that_does_not_come_back_is_refused() {
        assert_eq!(Encoder::new(&Lossy).encode(b"a").unwrap(), Some(&b"a"[..]));
        let error = Encoder::new(&Lossy).encode(b"A").unwrap_err();
        assert!(error.kind() == ErrorKind::Unrepresentable && error.to_string().contains("lossy r3"), "{error}");
    }

    #[test]
    fn an_encoded_key_that_is_not_the_only_one_is_corrupt() {
        assert_eq!(Decoder::new(&Lossy).decode(b"a").unwrap(), b"a");
        let error = Decoder::new(&Lossy).decode(b"A").unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("lossy r3"), "{error}");
    }
}
