//! The shape of every small control file: one JSON line, then the crc32 of that line as eight lower-case hex digits.
//!
//! Invariants: what is read was written whole by a version that knew the format; any other bytes (truncated, one bit
//! flipped, longer, from a later version) are an error, and the error says which. Pure: no file is touched here.

use crate::error::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No control file is longer, in bytes; checked before it is read.
pub const BYTES_MAX: u64 = 64 * 1024;

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The bytes of a control file.
///
/// # Errors
/// `InvalidArgument` if it would be too long.
pub fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>> {
    encode_within(what, value, BYTES_MAX)
}

/// As [`encode`], for what may be longer or must be shorter.
///
/// # Errors
/// `InvalidArgument` if it would be over `bytes_max` long.
pub fn encode_within<T: Serialize>(what: &'static str, value: &T, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, what, error.to_string()).because(error))?;
    bytes.push(b'\n');
    let checksum = format!("{:08x}\n", crc32fast::hash(&bytes));
    bytes.extend_from_slice(checksum.as_bytes());
    if bytes.len() as u64 > bytes_max {
        return Err(Error::new(ErrorKind::InvalidArgument, what, format!("it would be over {bytes_max} bytes long")));
    }
    Ok(bytes)
}

/// Reads a control file of format `format`.
///
/// # Errors
/// `Corrupt` for bytes that were never written so; `Unsupported` for the format of another version.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8], format: u32) -> Result<T> {
    decode_within(what, bytes, format, BYTES_MAX)
}

/// As [`decode`], for what may be longer or must be shorter.
///
/// # Errors
/// As [`decode`]; `Corrupt` if it is over `bytes_max` long.
pub fn decode_within<T: DeserializeOwned>(what: &'static str, bytes: &[u8], format: u32, bytes_max: u64) -> Result<T> {
    let corrupt = |message: String| Error::new(ErrorKind::Corrupt, what, message);
    if bytes.is_empty() {
        return Err(corrupt("the file is empty".into()));
    }
    let line = bytes
        .len()
        .checked_sub(9)
        .filter(|&at| at > 0 && bytes[at - 1] == b'\n' && bytes.ends_with(b"\n") && bytes.len() as u64 <= bytes_max)
        .map(|at| &bytes[..at])
        .ok_or_else(|| corrupt("the file is torn: it does not end in a checksum".into()))?;
    let expected = format!("{:08x}\n", crc32fast::hash(line));
    if &bytes[line.len()..] != expected.as_bytes() {
        return Err(corrupt("the checksum does not fit the contents".into()));
    }
    let FormatOnly { format: found } = serde_json::from_slice(line).map_err(|error| corrupt(error.to_string()))?;
    if found != format {
        let message = format!("it has format {found}, this version knows format {format}");
        return Err(Error::new(ErrorKind::Unsupported, what, message));
    }
    serde_json::from_slice(line).map_err(|error| corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        format: u32,
        name: String,
    }

    fn sample() -> Sample {
        Sample { format: 1, name: "natural".into() }
    }

    #[test]
    fn every_truncation_and_every_bit_flip_is_refused() {
        let bytes = encode("test", &sample()).unwrap();
        assert_eq!(decode::<Sample>("test", &bytes, 1).unwrap(), sample());
        for len in 0..bytes.len() {
            assert!(decode::<Sample>("test", &bytes[..len], 1).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Sample>("test", &flipped, 1).is_err(), "{bit}");
        }
        let mut longer = bytes.clone();
        longer.push(b'\n');
        assert!(decode::<Sample>("test", &longer, 1).is_err());
    }

    #[test]
    fn later_formats_and_unknown_fields_are_refused() {
        let later = encode("test", &Sample { format: 2, ..sample() }).unwrap();
        assert_eq!(decode::<Sample>("test", &later, 1).unwrap_err().kind(), ErrorKind::Unsupported);
        let unknown = encode("test", &serde_json::json!({"format": 1, "name": "natural", "more": 1})).unwrap();
        assert_eq!(decode::<Sample>("test", &unknown, 1).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
