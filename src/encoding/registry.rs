//! The encodings that this process knows.

use super::{Comparator, EncodingId, Hierarchical, KeyEncoding, Natural, SlashSpans, laws};
use crate::error::{Error, ErrorKind, Result, show_key};
use std::fmt;
use std::sync::Arc;

/// The longest name of an encoding, in bytes.
const NAME_LEN_MAX: usize = 64;

/// The encodings that this process knows: the builtin ones and those that the application registered.
#[derive(Clone)]
pub struct Encodings {
    known: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    /// Asked once: a marker must never depend on what an encoding answers the second time.
    id: EncodingId,
    encoding: Arc<dyn KeyEncoding>,
    builtin: bool,
}

impl Encodings {
    /// `natural`, `hierarchical` and `slash-spans`.
    pub fn builtin() -> Self {
        let builtin: [Arc<dyn KeyEncoding>; 3] = [Arc::new(Natural), Arc::new(Hierarchical), Arc::new(SlashSpans)];
        let entry = |encoding: Arc<dyn KeyEncoding>| Entry { id: EncodingId::of(&*encoding), encoding, builtin: true };
        Encodings { known: builtin.into_iter().map(entry).collect() }
    }

    /// Adds an encoding of the application's own, after a short [`laws::check`] of it. Several revisions of one name can
    /// stand side by side.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is not 1 to 64 of `a-z`, `0-9` and `-`, that is builtin, or that is already
    /// registered with the same revision; for another comparator than bytewise (that of `slash-spans` marks databases
    /// from before the marker); and for an encoding that breaks a law. Nothing was added then.
    pub fn register(&mut self, encoding: Arc<dyn KeyEncoding>) -> Result<()> {
        let id = EncodingId::of(&*encoding);
        if id.name.is_empty() || id.name.len() > NAME_LEN_MAX || !id.name.bytes().all(is_name_byte) {
            return Err(invalid(format!(
                "the name \"{}\" is not 1 to 64 of a-z, 0-9 and -",
                show_key(id.name.as_bytes())
            )));
        }
        if self.known.iter().any(|entry| entry.builtin && entry.id.name == id.name) {
            return Err(invalid(format!("the name {} belongs to a builtin encoding", id.name)));
        }
        if self.known.iter().any(|entry| entry.id == id) {
            return Err(invalid(format!("{id} is registered already; changed bytes need a new revision")));
        }
        if encoding.comparator() != Comparator::Bytewise {
            return Err(invalid(format!("{id} asks for a comparator other than bytewise")));
        }
        laws::check(&*encoding, self_check_keys())?;
        self.known.push(Entry { id, encoding, builtin: false });
        Ok(())
    }

    /// The encoding that a marker names.
    ///
    /// # Errors
    /// `UnknownEncoding` when the name, or this revision of it, is not known; the message says which of the two, and
    /// what is known.
    pub fn get(&self, id: &EncodingId) -> Result<Arc<dyn KeyEncoding>> {
        if let Some(entry) = self.known.iter().find(|entry| entry.id == *id) {
            return Ok(entry.encoding.clone());
        }
        if !self.known.iter().any(|entry| entry.id.name == id.name) {
            return Err(self.unknown(format!("no key encoding has the name of {id}")));
        }
        Err(self.unknown(format!("the name of {id} is known, its revision {} is not", id.revision)))
    }

    /// The newest revision of that name: what a person means who types a name.
    ///
    /// # Errors
    /// `UnknownEncoding`; the message lists what is known.
    pub fn by_name(&self, name: &str) -> Result<Arc<dyn KeyEncoding>> {
        let named = self.known.iter().filter(|entry| entry.id.name == name);
        match named.max_by_key(|entry| entry.id.revision) {
            Some(entry) => Ok(entry.encoding.clone()),
            None => Err(self.unknown(format!("no key encoding has the name \"{}\"", show_key(name.as_bytes())))),
        }
    }

    /// What is known, the builtin ones first.
    pub fn ids(&self) -> impl Iterator<Item = &EncodingId> {
        self.known.iter().map(|entry| &entry.id)
    }

    fn unknown(&self, found: String) -> Error {
        let known: Vec<String> = self.ids().map(EncodingId::to_string).collect();
        let message = format!("{found}; known are {}", known.join(", "));
        Error::new(ErrorKind::UnknownEncoding, "find the key encoding", message)
    }
}

impl Default for Encodings {
    fn default() -> Self {
        Self::builtin()
    }
}

impl fmt::Debug for Encodings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids().map(EncodingId::to_string)).finish()
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "register a key encoding", message)
}

fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')
}

/// Few enough that registering costs some milliseconds; chosen where encodings go wrong.
fn self_check_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let alphabet = [0x00, b'/', b'a', 0xFF];
    for first in alphabet {
        for second in alphabet {
            keys.push(vec![first, second]);
            keys.extend(alphabet.map(|third| vec![first, second, third]));
        }
    }
    let written: [&[u8]; 6] = [b"", b"/key/a/1", b"users/10/name", b"users/1/name", "Grüße".as_bytes(), &[0; 16]];
    keys.extend(written.map(<[u8]>::to_vec));
    // Longer than one length byte can say.
    keys.push(vec![b'k'; 300]);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a byte before each key.
    struct Tagged {
        name: &'static str,
        revision: u32,
        comparator: Comparator,
        strict: bool,
    }

    impl Tagged {
        fn new(name: &'static str, revision: u32) -> Arc<Self> {
            Arc::new(Tagged { name, revision, comparator: Comparator::Bytewise, strict: true })
        }
    }

    impl KeyEncoding for Tagged {
        fn name(&self) -> &str {
            self.name
        }
        fn revision(&self) -> u32 {
            self.revision
        }
        fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.push(b'T');
            out.extend_from_slice(key);
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
            match encoded.split_first() {
                Some((tag, key)) if *tag == b'T' || !self.strict => out.extend_from_slice(key),
                _ => return Err(Error::new(ErrorKind::Corrupt, "decode a key", "no tag")),
            }
            Ok(())
        }
        fn comparator(&self) -> Comparator {
            self.comparator
        }
    }

    fn id(name: &str, revision: u32) -> EncodingId {
        EncodingId { name: name.into(), revision }
    }

    fn refusal(known: &mut Encodings, encoding: Arc<dyn KeyEncoding>) -> String {
        let before = format!("{known:?}");
        let error = known.register(encoding).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(format!("{known:?}"), before);
        error.to_string()
    }

    #[test]
    fn the_builtin_encodings_are_known() {
        let known = Encodings::builtin();
        for name in ["natural", "hierarchical", "slash-spans"] {
            assert_eq!(EncodingId::of(&*known.get(&id(name, 1)).unwrap()), id(name, 1));
            assert_eq!(EncodingId::of(&*known.by_name(name).unwrap()), id(name, 1));
        }
        assert_eq!(known.ids().count(), 3);
    }

    #[test]
    fn an_unknown_name_and_an_unknown_revision_read_differently() {
        let known = Encodings::builtin();
        let name = known.get(&id("zigzag", 3)).err().unwrap();
        let revision = known.get(&id("natural", 2)).err().unwrap();
        assert_eq!((name.kind(), revision.kind()), (ErrorKind::UnknownEncoding, ErrorKind::UnknownEncoding));
        assert_eq!(
            name.message(),
            "no key encoding has the name of zigzag r3; known are natural r1, hierarchical r1, slash-spans r1"
        );
        assert_eq!(
            revision.message(),
            "the name of natural r2 is known, its revision 2 is not; known are natural r1, hierarchical r1, slash-spans r1"
        );
        assert_eq!(known.by_name("Natural").err().unwrap().kind(), ErrorKind::UnknownEncoding);
    }

    #[test]
    fn by_name_gives_the_newest_revision() {
        let mut known = Encodings::builtin();
        for revision in [2, 10, 9] {
            known.register(Tagged::new("tagged", revision)).unwrap();
        }
        assert_eq!(known.by_name("tagged").unwrap().revision(), 10);
        assert_eq!(known.get(&id("tagged", 9)).unwrap().revision(), 9);
        assert_eq!(known.get(&id("tagged", 3)).err().unwrap().kind(), ErrorKind::UnknownEncoding);
    }

    #[test]
    fn names_that_cannot_reach_disk_are_refused() {
        let mut known = Encodings::builtin();
        let long: &'static str = "n".repeat(65).leak();
        for name in ["", long, "Tagged", "tag ged", "tag_ged", "tag/ged", "tägged", "tag\nged"] {
            assert!(refusal(&mut known, Tagged::new(name, 1)).contains("1 to 64 of a-z"), "{name}");
        }
        known.register(Tagged::new(&long[1..], 1)).unwrap();
    }

    #[test]
    fn names_that_are_taken_are_refused() {
        let mut known = Encodings::builtin();
        for revision in [0, 1, 2] {
            assert!(refusal(&mut known, Tagged::new("natural", revision)).contains("builtin"));
        }
        known.register(Tagged::new("tagged", 1)).unwrap();
        assert!(refusal(&mut known, Tagged::new("tagged", 1)).contains("registered already"));
    }

    #[test]
    fn encodings_that_would_harm_data_are_refused() {
        let mut known = Encodings::builtin();
        let lax = Tagged { name: "lax", revision: 1, comparator: Comparator::Bytewise, strict: false };
        assert!(refusal(&mut known, Arc::new(lax)).contains("strict"));
        let ordered = Tagged { name: "ordered", revision: 1, comparator: Comparator::SlashSpans, strict: true };
        assert!(refusal(&mut known, Arc::new(ordered)).contains("comparator"));
    }
}
