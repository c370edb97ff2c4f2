//! Bytes as text: hexadecimal, and what a terminal can show.

/// Lower case, two digits a byte.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads hexadecimal of either case, with or without `0x` before it.
///
/// # Errors
/// Says what is wrong with it.
pub fn from_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(format!("hexadecimal has two digits a byte, here are {} digits", digits.len()));
    }
    pairs.iter().map(|[high, low]| Ok(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn digit(character: u8) -> Result<u8, String> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err(format!("`{}` is no hexadecimal digit", character.escape_ascii())),
    }
}

/// UTF-8 as it is, but control characters, backslashes and what is no UTF-8 escaped: safe for a terminal, one line, and it
/// can be undone.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut buffer = [0; 4];
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if character.is_control() => push_escaped(&mut text, character.encode_utf8(&mut buffer).as_bytes()),
                _ => text.push(character),
            }
        }
        push_escaped(&mut text, chunk.invalid());
    }
    text
}

fn push_escaped(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str("\\x");
        text.push_str(&to_hex(&[*byte]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_there_and_back() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(from_hex(to_hex(&all).as_bytes()), Ok(all.clone()));
        assert_eq!(from_hex(format!("0x{}", to_hex(&all).to_uppercase()).as_bytes()), Ok(all));
        assert_eq!(from_hex(b"0x"), Ok(vec![]));
        assert!(from_hex(b"0x6").is_err_and(|why| why.contains("two digits")));
        assert!(from_hex(b"6g").is_err_and(|why| why.contains("`g`")));
        assert!(from_hex("6\u{e4}0".as_bytes()).is_err());
    }

    #[test]
    fn nothing_printed_moves_a_terminal() {
        assert_eq!(printable("/Grüße/1".as_bytes()), "/Grüße/1");
        assert_eq!(printable(b"a\tb\n\\\x1b[2J\x00\xff"), r"a\tb\n\\\x1b[2J\x00\xff");
        assert_eq!(printable("\u{9b}".as_bytes()), r"\xc2\x9b");
    }
}
