//! Values that are handed out without being copied where that can be.

use crate::rocks::PinnedValue;
use std::fmt;
use std::ops::Deref;

/// A value: bytes that RocksDB holds in place, that a batch holds, or that stand here. It borrows what it came from.
pub struct Slice<'a>(Bytes<'a>);

enum Bytes<'a> {
    Pinned(PinnedValue<'a>),
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl<'a> Slice<'a> {
    pub(super) fn pinned(value: PinnedValue<'a>) -> Self {
        Slice(Bytes::Pinned(value))
    }

    pub(super) fn borrowed(value: &'a [u8]) -> Self {
        Slice(Bytes::Borrowed(value))
    }

    pub(super) fn owned(value: Vec<u8>) -> Slice<'static> {
        Slice(Bytes::Owned(value))
    }

    /// The bytes on their own.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Bytes::Owned(value) => value,
            Bytes::Pinned(value) => value.to_vec(),
            Bytes::Borrowed(value) => value.to_vec(),
        }
    }
}

impl Deref for Slice<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Pinned(value) => value,
            Bytes::Borrowed(value) => value,
            Bytes::Owned(value) => value,
        }
    }
}

impl AsRef<[u8]> for Slice<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", crate::error::show_key(self))
    }
}

impl<B: AsRef<[u8]> + ?Sized> PartialEq<B> for Slice<'_> {
    fn eq(&self, other: &B) -> bool {
        **self == *other.as_ref()
    }
}
