//! Reading: single keys, the nearest key, and the one view that the engine, its snapshots and its batches share.

use super::bounds::Span;
use super::overlay::{Known, Overlay};
use super::slice::Slice;
use super::walk::Direction;
use super::{Engine, Inner};
use crate::error::Result;
use crate::rocks::{Family, Snapshot};

/// Which key a lookup finds, seen from the key that is given, in encoding order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// The key itself.
    Equal,
    /// The greatest key that is not greater.
    Floor,
    /// The smallest key that is not smaller.
    Ceiling,
    /// The greatest key that is smaller.
    Lower,
    /// The smallest key that is greater.
    Higher,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Comparison; 5] =
        [Comparison::Equal, Comparison::Floor, Comparison::Ceiling, Comparison::Lower, Comparison::Higher];
}

/// A state to be read: the database now or at a snapshot, through the changes of a batch where there is one.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) inner: &'a Inner,
    pub(super) snapshot: Option<&'a Snapshot<'a>>,
    pub(super) overlay: Option<&'a Overlay>,
}

impl<'a> View<'a> {
    pub(super) fn get(self, key: &[u8]) -> Result<Option<Slice<'a>>> {
        self.inner.with_encoded(key, |encoded| self.get_encoded(Family::Data, encoded))
    }

    /// The caller's half of the internal records.
    pub(super) fn get_internal(self, key: &[u8]) -> Result<Option<Slice<'a>>> {
        super::with_user_record(key, |record| self.get_encoded(Family::Internal, record))
    }

    fn get_encoded(self, family: Family, encoded: &[u8]) -> Result<Option<Slice<'a>>> {
        match self.overlay.filter(|_| family == Family::Data).map(|overlay| overlay.get(encoded)) {
            Some(Known::Put(value)) => return Ok(Some(Slice::borrowed(value))),
            Some(Known::Deleted) => return Ok(None),
            Some(Known::Untouched) | None => {}
        }
        let found = match self.snapshot {
            Some(snapshot) => snapshot.get(family, encoded)?,
            None => self.inner.database.get(family, encoded)?,
        };
        Ok(found.map(Slice::pinned))
    }

    pub(super) fn lookup(self, key: &[u8], comparison: Comparison) -> Result<Option<(Vec<u8>, Slice<'a>)>> {
        if comparison == Comparison::Equal {
            return Ok(self.get(key)?.map(|value| (key.to_vec(), value)));
        }
        let mut encoded = Vec::with_capacity(key.len() + 16);
        self.inner.encode(key, &mut encoded)?;
        // Nothing lies between a key and the key with a zero byte more.
        if matches!(comparison, Comparison::Floor | Comparison::Higher) {
            encoded.push(0);
        }
        let (span, direction) = match comparison {
            Comparison::Floor | Comparison::Lower => {
                (Span { low: Vec::new(), high: Some(encoded) }, Direction::Backward)
            }
            _ => (Span { low: encoded, high: None }, Direction::Forward),
        };
        let mut walker = self.walk(span)?;
        let Some((encoded, value)) = walker.advance(direction)? else { return Ok(None) };
        let mut found = Vec::with_capacity(encoded.len());
        self.inner.encoding.decode(encoded, &mut found).map_err(|error| self.inner.place(error))?;
        Ok(Some((found, Slice::owned(value.to_vec()))))
    }
}

impl Engine {
    /// Finds a key and its value: the key itself, or the nearest one, in encoding order. The given key need not exist.
    ///
    /// # Errors
    /// `Unrepresentable` if the encoding cannot carry the key; `Corrupt`, `Io`.
    pub fn lookup(&self, key: impl AsRef<[u8]>, comparison: Comparison) -> Result<Option<(Vec<u8>, Slice<'_>)>> {
        self.view().lookup(key.as_ref(), comparison)
    }
}
