//! Iterators over ranges of keys, in encoding order, from both ends.

use super::bounds::{KeyRange, Span};
use super::walk::{Direction, Walker};
use super::{Engine, View};
use crate::encoding::{Comparator, KeyEncoding};
use crate::error::{Error, ErrorKind, Result};
use crate::rocks::Family;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::Bound;

const SEPARATOR: u8 = b'/';

/// How the caller's key comes out of the stored one.
#[derive(Clone, Copy)]
enum KeyForm<'a> {
    Encoded(&'a dyn KeyEncoding),
    /// It stands behind a prefix.
    Behind(&'static [u8]),
}

/// Keys with their values, in encoding order, on the state of the moment at which it was made.
///
/// Both ends may be used in turn; that costs a seek at each turn. After an error, which is handed out once, it is at its
/// end until it is [placed anew](Range::seek).
pub struct Range<'a> {
    walker: Walker<'a>,
    form: KeyForm<'a>,
    failed: bool,
}

impl Range<'_> {
    fn step(&mut self, direction: Direction, with_value: bool) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        if self.failed {
            return Ok(None);
        }
        // Until the step is through, it has failed.
        self.failed = true;
        let Some((encoded, value)) = self.walker.advance(direction)? else {
            self.failed = false;
            return Ok(None);
        };
        let mut key = Vec::with_capacity(encoded.len());
        match self.form {
            KeyForm::Encoded(encoding) => encoding.decode(encoded, &mut key)?,
            KeyForm::Behind(prefix) => key.extend_from_slice(encoded.strip_prefix(prefix).unwrap_or(encoded)),
        }
        let value = if with_value { value.to_vec() } else { Vec::new() };
        self.failed = false;
        Ok(Some((key, value)))
    }

    /// Goes on, forward, with the first entry at or after `key`, wherever it stood, but never outside the range that it
    /// was made for, nor beyond what was handed out from its back. The key need not exist.
    ///
    /// # Errors
    /// `Unrepresentable`: it stands where it stood.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let target = self.target(key.as_ref())?;
        self.walker.seek(target);
        self.failed = false;
        Ok(())
    }

    /// Goes on, from the back, with the last entry at or before `key`, wherever it stood, but never outside the range
    /// that it was made for, nor beyond what was handed out from its front. The key need not exist.
    ///
    /// # Errors
    /// `Unrepresentable`: it stands where it stood.
    pub fn seek_back(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let target = self.target(key.as_ref())?;
        self.walker.seek_back(target);
        self.failed = false;
        Ok(())
    }

    fn target(&self, key: &[u8]) -> Result<Vec<u8>> {
        let mut target = Vec::with_capacity(key.len() + 16);
        match self.form {
            KeyForm::Encoded(encoding) => encoding.encode(key, &mut target)?,
            KeyForm::Behind(prefix) => {
                target.extend_from_slice(prefix);
                target.extend_from_slice(key);
            }
        }
        Ok(target)
    }
}

impl Iterator for Range<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Direction::Forward, true).transpose()
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(Direction::Backward, true).transpose()
    }
}

impl FusedIterator for Range<'_> {}

impl fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// As [`Range`], without the values.
#[derive(Debug)]
pub struct Keys<'a>(Range<'a>);

impl Keys<'_> {
    /// As [`Range::seek`].
    ///
    /// # Errors
    /// `Unrepresentable`: it stands where it stood.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.seek(key)
    }

    /// As [`Range::seek_back`].
    ///
    /// # Errors
    /// `Unrepresentable`: it stands where it stood.
    pub fn seek_back(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.seek_back(key)
    }
}

impl Iterator for Keys<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.step(Direction::Forward, false).transpose()?.map(|(key, _)| key))
    }
}

impl DoubleEndedIterator for Keys<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.0.step(Direction::Backward, false).transpose()?.map(|(key, _)| key))
    }
}

impl FusedIterator for Keys<'_> {}

/// The direct children of a path, in encoding order: see [`Engine::children`].
#[derive(Debug)]
pub struct Children<'a> {
    range: Range<'a>,
    /// Ends in the separator.
    directory: Vec<u8>,
    /// What lies below a child lies beside it, in one piece: one seek passes over it.
    skip_below: bool,
}

impl Children<'_> {
    fn step(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        while let Some(entry) = self.range.next() {
            let (mut key, value) = entry?;
            let Some(name) = key.strip_prefix(&self.directory[..]) else { continue };
            match memchr::memchr(SEPARATOR, name) {
                None if name.is_empty() => {}
                None => return Ok(Some((key, value))),
                Some(at) if self.skip_below => {
                    key.truncate(self.directory.len() + at);
                    key.push(SEPARATOR + 1);
                    self.range.seek(key)?;
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }
}

impl Iterator for Children<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl FusedIterator for Children<'_> {}

impl<'a> View<'a> {
    pub(super) fn range(self, bounds: &impl KeyRange) -> Result<Range<'a>> {
        let encoding = &*self.inner.encoding;
        let bounded = bounds.start() != Bound::Unbounded || bounds.end() != Bound::Unbounded;
        if bounded && encoding.comparator() != Comparator::Bytewise {
            let message = "a legacy database can be read as a whole or key by key; convert it to read ranges";
            return Err(self.inner.place(Error::new(ErrorKind::Unsupported, "read a range", message)));
        }
        let span = Span::encode(encoding, bounds).map_err(|error| self.inner.place(error))?;
        Ok(Range { walker: self.walk(span)?, form: KeyForm::Encoded(encoding), failed: false })
    }

    pub(super) fn keys(self, bounds: &impl KeyRange) -> Result<Keys<'a>> {
        self.range(bounds).map(Keys)
    }

    /// The caller's half of the internal records.
    pub(super) fn internal(self, bounds: &impl KeyRange) -> Result<Range<'a>> {
        let prefix = crate::layout::INTERNAL_USER;
        let span = Span::behind(prefix, bounds);
        let database = &self.inner.database;
        let cursor = match self.snapshot {
            Some(snapshot) => snapshot.cursor_within(Family::Internal, &span.low, span.high.as_deref())?,
            None => database.cursor_within(Family::Internal, &span.low, span.high.as_deref())?,
        };
        let walker = Walker::new(cursor, None, span);
        Ok(Range { walker, form: KeyForm::Behind(prefix), failed: false })
    }

    pub(super) fn walk(self, span: Span) -> Result<Walker<'a>> {
        let cursor = match self.snapshot {
            Some(snapshot) => snapshot.cursor_within(Family::Data, &span.low, span.high.as_deref())?,
            None => self.inner.database.cursor_within(Family::Data, &span.low, span.high.as_deref())?,
        };
        Ok(Walker::new(cursor, self.overlay, span))
    }

    pub(super) fn children(self, path: &[u8]) -> Result<Children<'a>> {
        let mut directory = path.strip_suffix(&[SEPARATOR]).unwrap_or(path).to_vec();
        directory.push(SEPARATOR);
        let mut end = directory.clone();
        let skip_below = match self.inner.encoding.name() {
            "hierarchical" => {
                end.push(SEPARATOR);
                false
            }
            "natural" => {
                end.pop();
                end.push(SEPARATOR + 1);
                true
            }
            other => {
                let message = format!("where the children of a path lie in the encoding {other} is not known");
                return Err(self.inner.place(Error::new(
                    ErrorKind::Unsupported,
                    "list the children of a path",
                    message,
                )));
            }
        };
        let range = self.range(&(Bound::Excluded(&directory), Bound::Excluded(&end)))?;
        Ok(Children { range, directory, skip_below })
    }
}

impl Engine {
    /// Keys with their values, in encoding order, on the state of this moment.
    ///
    /// # Errors
    /// `Unrepresentable` for a bound that the encoding cannot carry.
    pub fn range(&self, bounds: impl KeyRange) -> Result<Range<'_>> {
        self.view().range(&bounds)
    }

    /// Keys, in encoding order, on the state of this moment.
    ///
    /// # Errors
    /// `Unrepresentable` for a bound that the encoding cannot carry.
    pub fn keys(&self, bounds: impl KeyRange) -> Result<Keys<'_>> {
        self.view().keys(&bounds)
    }

    /// The direct children of a path: the keys that are `path`, a `/`, and at least one byte without a further `/`. The
    /// path may end in `/` or not; the empty path and `/` are the root.
    ///
    /// In `hierarchical` they lie in one piece, `path/` to `path//`, and are read as such. In `natural` what lies below
    /// the children lies between them and costs a seek for each child that has any.
    ///
    /// # Errors
    /// `Unsupported` in other encodings; `Unrepresentable`.
    pub fn children(&self, path: impl AsRef<[u8]>) -> Result<Children<'_>> {
        self.view().children(path.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::encoding::{Hierarchical, Natural};
    use crate::rocks::Durability;

    fn engine(directory: &tempfile::TempDir, encoding: impl KeyEncoding) -> Engine {
        let options = Options::new().encoding(encoding).create_if_missing(true).durability(Durability::Buffered);
        Engine::open(directory.path().join("db"), options).unwrap()
    }

    fn children(engine: &Engine, path: &str) -> Vec<String> {
        engine.children(path).unwrap().map(|entry| String::from_utf8(entry.unwrap().0).unwrap()).collect()
    }

    fn check_children(engine: &Engine) {
        let keys = ["", "a", "/", "/a", "/a/", "/a/b", "/a/b/c", "/a/b/d/e", "/a/b!", "/a/b0", "/a/c", "/a//", "/a//x"];
        for key in keys.into_iter().chain(["/b/only/below", "rel/x", "rel/x/y", "/a\u{0}/z", "/a0/z"]) {
            engine.put(key, key).unwrap();
        }
        for path in ["/a", "/a/"] {
            assert_eq!(children(engine, path), ["/a/b", "/a/b!", "/a/b0", "/a/c"]);
        }
        for root in ["", "/"] {
            assert_eq!(children(engine, root), ["/a"]);
        }
        assert_eq!(children(engine, "rel"), ["rel/x"]);
        assert_eq!(children(engine, "/b"), [""; 0]);
        assert_eq!(children(engine, "/a/b/d"), ["/a/b/d/e"]);
        assert_eq!(children(engine, "/a//"), ["/a//x"]);
        let mut values = engine.snapshot().children("/a").unwrap().map(|entry| entry.unwrap().1).collect::<Vec<_>>();
        assert_eq!(values.pop(), Some(b"/a/c".to_vec()));
    }

    #[test]
    fn children_in_hierarchical_order() {
        let directory = tempfile::tempdir().unwrap();
        check_children(&engine(&directory, Hierarchical));
    }

    #[test]
    fn children_in_natural_order() {
        let directory = tempfile::tempdir().unwrap();
        check_children(&engine(&directory, Natural));
    }

    #[test]
    fn children_below_the_last_level() {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine(&directory, Hierarchical);
        let deep = "/".repeat(40_000) + "d";
        for name in ["/x", "/x/y", "", "!"] {
            engine.put(format!("{deep}{name}"), "").unwrap();
        }
        assert_eq!(children(&engine, &deep), [format!("{deep}/x")]);
    }

    #[test]
    fn an_error_is_handed_out_once() {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine(&directory, Hierarchical);
        for key in ["a", "b", "/c"] {
            engine.put(key, key).unwrap();
        }
        // No key encodes to this; it sorts between "a" and "b".
        engine.inner.put(Family::Data, b"\x00\x00a/", b"").unwrap();
        let mut range = engine.range(..).unwrap();
        assert_eq!(range.next().unwrap().unwrap().0, b"a");
        assert_eq!(range.next().unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(range.next().is_none() && range.next_back().is_none() && range.next().is_none());
        range.seek("b").unwrap();
        assert_eq!(range.next().unwrap().unwrap().0, b"b");
        let mut keys = engine.keys(..).unwrap();
        let found: Vec<_> = keys.by_ref().rev().map(|key| key.map_err(|error| error.kind())).collect();
        assert_eq!(found, [Ok(b"/c".to_vec()), Ok(b"b".to_vec()), Err(ErrorKind::Corrupt)]);
        assert_eq!(engine.lookup("a", super::super::Comparison::Higher).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_damaged_file_is_never_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let opened = engine(&directory, Natural);
        for number in 0..2000 {
            opened.put(format!("{number:04}"), [number as u8; 100]).unwrap();
        }
        opened.flush().unwrap();
        opened.close().unwrap();
        let files = std::fs::read_dir(directory.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
        let tables: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).collect();
        let largest = tables.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let mut bytes = std::fs::read(largest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(largest, bytes).unwrap();
        let opened = engine(&directory, Natural);
        for backward in [false, true] {
            let mut range = opened.range(..).unwrap();
            let mut next = || if backward { range.next_back() } else { range.next() };
            let read = std::iter::from_fn(&mut next).take_while(Result::is_ok).count();
            assert!(read < 2000, "{read}");
            assert!(next().is_none());
        }
        let error = opened.range(..).unwrap().find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
