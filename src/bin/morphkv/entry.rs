//! One entry as text: the line formats of `dump` and `load`, and what `get`, `scan` and `lookup` print.

use crate::bytes::{from_hex, printable, to_hex};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io::{self, Write};

/// How `dump` and `load` write an entry on a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `{"key":..,"value":..}`, with `key_hex` and `value_hex` for what is no UTF-8
    #[default]
    Jsonl,
    /// `0x6B ==> 0x76`, as RocksDB's `ldb dump --hex` and `ldb load --hex`
    LdbHex,
}

/// An entry as a JSON object: each of its two halves as text where it is UTF-8, else in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    key_hex: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value_hex: Option<Cow<'a, str>>,
}

impl<'a> Entry<'a> {
    /// Without a value only the key is named; `hex`: everything in hexadecimal, UTF-8 or not.
    pub fn new(key: &'a [u8], value: Option<&'a [u8]>, hex: bool) -> Self {
        let (key, key_hex) = halves(Some(key), hex);
        let (value, value_hex) = halves(value, hex);
        Entry { key, key_hex, value, value_hex }
    }

    fn into_bytes(self) -> Result<KeyAndValue, String> {
        Ok((half("key", self.key, self.key_hex)?, half("value", self.value, self.value_hex)?))
    }
}

/// The bytes of an entry.
pub type KeyAndValue = (Vec<u8>, Vec<u8>);

type Half<'a> = Option<Cow<'a, str>>;

fn halves(bytes: Option<&[u8]>, hex: bool) -> (Half<'_>, Half<'_>) {
    let Some(bytes) = bytes else { return (None, None) };
    match std::str::from_utf8(bytes) {
        Ok(text) if !hex => (Some(text.into()), None),
        _ => (None, Some(to_hex(bytes).into())),
    }
}

fn half(name: &str, text: Half<'_>, hex: Half<'_>) -> Result<Vec<u8>, String> {
    match (text, hex) {
        (Some(text), None) => Ok(text.into_owned().into_bytes()),
        (None, Some(hex)) => from_hex(hex.as_bytes()).map_err(|why| format!("{name}_hex: {why}")),
        (None, None) => Err(format!("neither {name} nor {name}_hex is there")),
        (Some(_), Some(_)) => Err(format!("both {name} and {name}_hex are there")),
    }
}

/// What stands between key and value in the lines of RocksDB's `ldb`.
const LDB_ARROW: &[u8] = b" ==> ";
/// What `ldb` says in the middle of its dumps, and skips itself.
const LDB_REMARKS: [&[u8]; 2] = [b"Keys in range:", b"Created bg thread 0x"];

/// Writes an entry as a line.
///
/// # Errors
/// Those of `out`.
pub fn write_line(out: &mut impl Write, format: Format, key: &[u8], value: &[u8], hex: bool) -> io::Result<()> {
    match format {
        Format::Jsonl => {
            serde_json::to_writer(&mut *out, &Entry::new(key, Some(value), hex))?;
            out.write_all(b"\n")
        }
        Format::LdbHex => {
            let (key, value) = (to_hex(key).to_ascii_uppercase(), to_hex(value).to_ascii_uppercase());
            writeln!(out, "0x{key} ==> 0x{value}")
        }
    }
}

/// Reads an entry from a line without its line feed. `None`: the line is blank, or a remark of `ldb`.
///
/// # Errors
/// Says what is wrong with the line.
pub fn parse_line(format: Format, line: &[u8]) -> Result<Option<KeyAndValue>, String> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    match format {
        Format::Jsonl => {
            // The parser would take an array of four for one, too.
            if !line.starts_with(b"{") {
                return Err("it is no JSON object".into());
            }
            let entry: Entry<'_> = serde_json::from_slice(line).map_err(|error| without_line(&error))?;
            entry.into_bytes().map(Some)
        }
        Format::LdbHex => {
            if LDB_REMARKS.iter().any(|remark| line.starts_with(remark)) {
                return Ok(None);
            }
            let arrow = line.windows(LDB_ARROW.len()).position(|window| window == LDB_ARROW);
            let arrow = arrow.ok_or("there is no ` ==> `")?;
            let key = ldb_half(&line[..arrow]).map_err(|why| format!("key: {why}"))?;
            let value = ldb_half(&line[arrow + LDB_ARROW.len()..]).map_err(|why| format!("value: {why}"))?;
            Ok(Some((key, value)))
        }
    }
}

fn ldb_half(text: &[u8]) -> Result<Vec<u8>, String> {
    if !text.starts_with(b"0x") {
        return Err("it does not begin with 0x".into());
    }
    from_hex(text)
}

/// The parser sees one line only, so that its own line number would be wrong.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what} at column {}", error.column())
}

/// An entry for a terminal: key, tab, value, each escaped or in hexadecimal.
pub fn shown(key: &[u8], value: Option<&[u8]>, hex: bool) -> String {
    let show = |bytes: &[u8]| if hex { to_hex(bytes) } else { printable(bytes) };
    match value {
        Some(value) => format!("{}\t{}", show(key), show(value)),
        None => show(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, key: &[u8], value: &[u8], hex: bool) -> String {
        let mut out = Vec::new();
        write_line(&mut out, format, key, value, hex).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_entry_survives_both_formats() {
        let halves: [&[u8]; 8] =
            [b"", b"k", b"/a/b", "Grüße".as_bytes(), b"\xff\x00", b"a\nb\r", b" ==> ", b"\"\\\x1b"];
        for format in [Format::Jsonl, Format::LdbHex] {
            for key in halves {
                for value in halves {
                    for hex in [false, true] {
                        let line = written(format, key, value, hex);
                        assert_eq!(line.matches('\n').count(), 1, "{line}");
                        assert_eq!(parse_line(format, line.as_bytes()), Ok(Some((key.to_vec(), value.to_vec()))));
                    }
                }
            }
        }
    }

    #[test]
    fn lines_look_as_others_expect_them() {
        assert_eq!(written(Format::LdbHex, b"k/", b"v\xff", false), "0x6B2F ==> 0x76FF\n");
        assert_eq!(written(Format::Jsonl, b"k", b"\xff", false), "{\"key\":\"k\",\"value_hex\":\"ff\"}\n");
    }

    #[test]
    fn hostile_lines_are_refused_with_a_reason() {
        let refused = |format, line: &str| parse_line(format, line.as_bytes()).unwrap_err();
        for (line, why) in [
            ("{", "EOF"),
            ("[]", "no JSON object"),
            (r#"["k",null,"v",null]"#, "no JSON object"),
            ("junk", "no JSON object"),
            ("{}", "neither key nor key_hex"),
            (r#"{"key":"a"}"#, "neither value"),
            (r#"{"key":"a","key_hex":"61","value":""}"#, "both key"),
            (r#"{"key":"a","value_hex":"6"}"#, "value_hex: hexadecimal has two digits"),
            (r#"{"key":"a","value":1}"#, "invalid type"),
            (r#"{"key":"a","value":"","vlaue":""}"#, "unknown field"),
            (r#"{"key":"a","value":""} {"#, "trailing characters"),
        ] {
            assert!(refused(Format::Jsonl, line).contains(why), "{line}: {}", refused(Format::Jsonl, line));
        }
        for (line, why) in [
            ("junk", "==>"),
            ("0x6b == 0x76", "==>"),
            ("6b ==> 0x76", "key: it does not begin with 0x"),
            ("0x6b ==> 76", "value: it does not begin with 0x"),
            ("0x6b ==> 0x7", "two digits"),
            ("0xzz ==> 0x76", "`z`"),
            ("0x6b ==> 0x76 ==> 0x77", "value: "),
        ] {
            assert!(refused(Format::LdbHex, line).contains(why), "{line}: {}", refused(Format::LdbHex, line));
        }
        assert_eq!(parse_line(Format::LdbHex, b"Keys in range: 3"), Ok(None));
        assert_eq!(parse_line(Format::Jsonl, b"  \r"), Ok(None));
    }
}
