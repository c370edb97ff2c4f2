//! Ranges of keys as a caller writes them, and as RocksDB takes them.

use crate::encoding::KeyEncoding;
use crate::error::Result;
use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A range of keys: `..`, `a..b`, `a..=b`, `a..`, `..b`, `..=b`, or a pair of [`Bound`]s where the start is to be left out.
///
/// It is a trait of its own, and not [`RangeBounds`], so that `..` needs no type written beside it. The order is that of
/// the database's encoding; a range whose end is before its start is empty.
pub trait KeyRange {
    /// Where it starts.
    fn start(&self) -> Bound<&[u8]>;

    /// Where it ends.
    fn end(&self) -> Bound<&[u8]>;
}

impl KeyRange for RangeFull {
    fn start(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }

    fn end(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }
}

macro_rules! key_range {
    ($($range:ty),*) => {$(
        impl<K: AsRef<[u8]>> KeyRange for $range {
            fn start(&self) -> Bound<&[u8]> {
                <$range as RangeBounds<K>>::start_bound(self).map(AsRef::as_ref)
            }

            fn end(&self) -> Bound<&[u8]> {
                <$range as RangeBounds<K>>::end_bound(self).map(AsRef::as_ref)
            }
        }
    )*};
}

key_range!(Range<K>, RangeInclusive<K>, RangeFrom<K>, RangeTo<K>, RangeToInclusive<K>, (Bound<K>, Bound<K>));

impl<R: KeyRange + ?Sized> KeyRange for &R {
    fn start(&self) -> Bound<&[u8]> {
        (**self).start()
    }

    fn end(&self) -> Bound<&[u8]> {
        (**self).end()
    }
}

/// The encoded keys from `low` to before `high`.
///
/// Every range of keys has this form, since in byte order nothing lies between a key and the key with a zero byte more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) low: Vec<u8>,
    /// `None`: no end.
    pub(super) high: Option<Vec<u8>>,
}

impl Span {
    /// The encoded form of a range of keys.
    pub(super) fn encode(encoding: &dyn KeyEncoding, range: &impl KeyRange) -> Result<Span> {
        Self::map(range, |key, out| encoding.encode(key, out))
    }

    /// A range of keys that stand as they are behind `prefix`.
    pub(super) fn behind(prefix: &[u8], range: &impl KeyRange) -> Span {
        let append = |key: &[u8], out: &mut Vec<u8>| {
            out.extend_from_slice(prefix);
            out.extend_from_slice(key);
            Ok(())
        };
        let mut span = match Self::map::<std::convert::Infallible>(range, append) {
            Ok(span) => span,
            Err(never) => match never {},
        };
        if span.low.is_empty() {
            span.low.extend_from_slice(prefix);
        }
        span.high.get_or_insert_with(|| prefix_end(prefix));
        span
    }

    fn map<E>(
        range: &impl KeyRange,
        append: impl Fn(&[u8], &mut Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<Span, E> {
        let mut low = Vec::new();
        match range.start() {
            Bound::Unbounded => {}
            Bound::Included(key) => append(key, &mut low)?,
            Bound::Excluded(key) => {
                append(key, &mut low)?;
                low.push(0);
            }
        }
        let mut end = Vec::new();
        let high = match range.end() {
            Bound::Unbounded => None,
            Bound::Excluded(key) => {
                append(key, &mut end)?;
                Some(end)
            }
            Bound::Included(key) => {
                append(key, &mut end)?;
                end.push(0);
                Some(end)
            }
        };
        Ok(Span { low, high })
    }

    /// Whether no key can lie in it.
    pub(super) fn is_empty(&self) -> bool {
        self.high.as_ref().is_some_and(|high| *high <= self.low)
    }
}

/// The first bytes after all that begin with `prefix`, which holds a byte below 0xFF.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Hierarchical, Natural};
    use crate::error::ErrorKind;

    fn span(range: impl KeyRange) -> (Vec<u8>, Option<Vec<u8>>) {
        let span = Span::encode(&Natural, &range).unwrap();
        (span.low, span.high)
    }

    #[test]
    fn every_kind_of_range_becomes_half_open() {
        assert_eq!(span(..), (vec![], None));
        assert_eq!(span("b".."d"), (b"b".to_vec(), Some(b"d".to_vec())));
        assert_eq!(span(b"b"..=b"d"), (b"b".to_vec(), Some(b"d\0".to_vec())));
        assert_eq!(span(vec![1u8]..), (vec![1], None));
        assert_eq!(span(..&[7u8][..]), (vec![], Some(vec![7])));
        assert_eq!(span(..="d"), (vec![], Some(b"d\0".to_vec())));
        assert_eq!(span((Bound::Excluded("b"), Bound::Included("d"))), (b"b\0".to_vec(), Some(b"d\0".to_vec())));
        assert_eq!(span((Bound::Excluded("b"), Bound::<&str>::Unbounded)), (b"b\0".to_vec(), None));
    }

    #[test]
    fn inverted_ranges_are_empty() {
        let empty = |range: (Bound<&str>, Bound<&str>)| Span::encode(&Natural, &range).unwrap().is_empty();
        assert!(empty((Bound::Included("d"), Bound::Included("b"))));
        assert!(empty((Bound::Excluded("b"), Bound::Included("b"))));
        assert!(empty((Bound::Included("b"), Bound::Excluded("b"))));
        assert!(empty((Bound::Excluded("b"), Bound::Excluded("b"))));
        assert!(empty((Bound::Unbounded, Bound::Excluded(""))));
        assert!(!empty((Bound::Included("b"), Bound::Included("b"))));
        assert!(!empty((Bound::Excluded("b"), Bound::Unbounded)));
    }

    #[test]
    fn the_order_is_that_of_the_encoding() {
        assert!(!Span::encode(&Hierarchical, &("z".."/a")).unwrap().is_empty());
        assert!(Span::encode(&Hierarchical, &("/a".."z")).unwrap().is_empty());
        let error = Span::encode(&Hierarchical, &(&b"a"[..]..&b"\xff"[..])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unrepresentable);
    }

    #[test]
    fn what_stands_behind_a_prefix_stays_there() {
        let behind = |range: (Bound<&str>, Bound<&str>)| {
            let span = Span::behind(b"u/", &range);
            (span.low, span.high.unwrap())
        };
        let bytes = |low: &[u8], high: &[u8]| (low.to_vec(), high.to_vec());
        assert_eq!(behind((Bound::Unbounded, Bound::Unbounded)), bytes(b"u/", b"u0"));
        assert_eq!(behind((Bound::Included(""), Bound::Included(""))), bytes(b"u/", b"u/\0"));
        assert_eq!(behind((Bound::Unbounded, Bound::Excluded(""))), bytes(b"u/", b"u/"));
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
    }
}
