//! Snapshots: a state that stays readable while writes go on.

use super::bounds::KeyRange;
use super::iter::{Children, Keys, Range};
use super::lookup::{Comparison, View};
use super::slice::Slice;
use super::{Engine, Inner};
use crate::error::Result;
use crate::rocks::Snapshot;
use std::fmt;

/// A state of the database that stays readable while writes go on. While it lives, the database keeps what it shows, so
/// it should not live for hours.
pub struct EngineSnapshot<'e> {
    inner: &'e Inner,
    snapshot: Snapshot<'e>,
}

impl Engine {
    /// A snapshot of this moment.
    pub fn snapshot(&self) -> EngineSnapshot<'_> {
        EngineSnapshot { inner: &self.inner, snapshot: self.inner.database.snapshot() }
    }
}

impl EngineSnapshot<'_> {
    fn view(&self) -> View<'_> {
        View { inner: self.inner, snapshot: Some(&self.snapshot), overlay: None }
    }

    /// The last sequence number that it shows.
    pub fn sequence(&self) -> u64 {
        self.snapshot.sequence()
    }

    /// As [`Engine::get`].
    ///
    /// # Errors
    /// `Unrepresentable`, `Corrupt`, `Io`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice<'_>>> {
        self.view().get(key.as_ref())
    }

    /// As [`Engine::lookup`].
    ///
    /// # Errors
    /// `Unrepresentable`, `Corrupt`, `Io`.
    pub fn lookup(&self, key: impl AsRef<[u8]>, comparison: Comparison) -> Result<Option<(Vec<u8>, Slice<'_>)>> {
        self.view().lookup(key.as_ref(), comparison)
    }

    /// As [`Engine::range`].
    ///
    /// # Errors
    /// `Unrepresentable`.
    pub fn range(&self, bounds: impl KeyRange) -> Result<Range<'_>> {
        self.view().range(&bounds)
    }

    /// As [`Engine::keys`].
    ///
    /// # Errors
    /// `Unrepresentable`.
    pub fn keys(&self, bounds: impl KeyRange) -> Result<Keys<'_>> {
        self.view().keys(&bounds)
    }

    /// As [`Engine::children`].
    ///
    /// # Errors
    /// `Unsupported`, `Unrepresentable`.
    pub fn children(&self, path: impl AsRef<[u8]>) -> Result<Children<'_>> {
        self.view().children(path.as_ref())
    }

    /// The caller's internal record of that key, as [`Internal::get`](super::Internal::get).
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn get_internal(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice<'_>>> {
        self.view().get_internal(key.as_ref())
    }

    /// The caller's internal records, as [`Internal::scan`](super::Internal::scan).
    ///
    /// # Errors
    /// `Io`.
    pub fn scan_internal(&self, bounds: impl KeyRange) -> Result<Range<'_>> {
        self.view().internal(&bounds)
    }
}

impl fmt::Debug for EngineSnapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineSnapshot").field("sequence", &self.sequence()).finish_non_exhaustive()
    }
}
