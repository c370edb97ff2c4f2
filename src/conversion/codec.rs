//! Encoding and decoding with nothing taken on trust: what comes back must be what went in.
//!
//! If decoding gives back every key that was encoded, no two keys can have met in one encoded key; if encoding gives
//! back every encoded key that was decoded, no two rows of the source can have been the same key. So both directions
//! are checked for each entry, and a broken encoding of an application is found before anything is lost.

use crate::encoding::{EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result, show_key};

/// Decodes keys strictly.
pub(super) struct Decoder<'e> {
    encoding: &'e dyn KeyEncoding,
    key: Vec<u8>,
    back: Vec<u8>,
}

impl<'e> Decoder<'e> {
    pub(super) fn new(encoding: &'e dyn KeyEncoding) -> Self {
        Decoder { encoding, key: Vec::new(), back: Vec::new() }
    }

    /// The key; `Corrupt` unless these bytes are the one encoded form of it.
    #[inline]
    pub(super) fn decode(&mut self, encoded: &[u8]) -> Result<&[u8]> {
        self.key.clear();
        self.encoding.decode(encoded, &mut self.key)?;
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
    encoded: Vec<u8>,
    back: Vec<u8>,
}

impl<'e> Encoder<'e> {
    pub(super) fn new(encoding: &'e dyn KeyEncoding) -> Self {
        Encoder { encoding, encoded: Vec::new(), back: Vec::new() }
    }

    /// The encoded key; none if the encoding cannot carry it.
    #[inline]
    pub(super) fn encode(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.encoded.clear();
        match self.encoding.encode(key, &mut self.encoded) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unrepresentable => return Ok(None),
            Err(error) => return Err(error),
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
