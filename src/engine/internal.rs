//! The data server's own records, beside the data: commit offset, term...
//!
//! They lie in a column family of their own, so that no scan and no deletion of data meets them; a batch may write both.
//! The engine's half of that family is out of reach here.

use super::bounds::KeyRange;
use super::iter::Range;
use super::slice::Slice;
use super::{Engine, with_user_record};
use crate::error::Result;
use crate::rocks::Family;

/// The caller's internal records, in natural byte order whatever the database's encoding. Any bytes are a key.
#[derive(Debug, Clone, Copy)]
pub struct Internal<'e> {
    engine: &'e Engine,
}

impl Engine {
    /// The caller's internal records.
    pub fn internal(&self) -> Internal<'_> {
        Internal { engine: self }
    }
}

impl<'e> Internal<'e> {
    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice<'e>>> {
        self.engine.view().get_internal(key.as_ref())
    }

    /// Writes a record, as durably as data. [`Batch::put_internal`](super::Batch::put_internal) writes both as one.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: the record may or may not be there after a restart.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let inner = &self.engine.inner;
        with_user_record(key.as_ref(), |record| inner.put(Family::Internal, record, value.as_ref()))
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: the deletion may or may not be there after a restart.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        with_user_record(key.as_ref(), |record| self.engine.inner.delete(Family::Internal, record))
    }

    /// Records, in natural byte order, on the state of this moment.
    ///
    /// # Errors
    /// `Io`.
    pub fn scan(&self, bounds: impl KeyRange) -> Result<Range<'e>> {
        self.engine.view().internal(&bounds)
    }
}
