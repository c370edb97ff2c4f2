//! What a batch changes of the data, as one who reads through it sees it. Pure.
//!
//! Invariant: a key is in `puts` if its last change was a put; else it lies in one of `deleted` if it was deleted; else
//! the batch does not touch it. A put key may lie in `deleted` too (deleted before it was put): the put counts.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// What a batch knows of one encoded key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    Put(&'a [u8]),
    Deleted,
    Untouched,
}

/// A range of deleted encoded keys: its first and the one after its last; `None`: no end.
pub(super) type DeletedRange<'a> = (&'a [u8], Option<&'a [u8]>);

#[derive(Debug, Default)]
pub(super) struct Overlay {
    puts: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    /// Start to end. They neither overlap nor touch.
    deleted: BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>,
}

/// From `low` to before `high`; `None` where the range is empty, since a `BTreeMap` panics at inverted ones.
fn half_open<'b>(low: &'b [u8], high: Option<&'b [u8]>) -> Option<impl RangeBounds<[u8]> + use<'b>> {
    match high {
        Some(high) if high <= low => None,
        Some(high) => Some((Bound::Included(low), Bound::Excluded(high))),
        None => Some((Bound::Included(low), Bound::Unbounded)),
    }
}

impl Overlay {
    pub(super) fn put(&mut self, key: Arc<[u8]>, value: Arc<[u8]>) {
        self.puts.insert(key, value);
    }

    pub(super) fn delete(&mut self, key: &Arc<[u8]>) {
        let after = [key, &[0][..]].concat();
        self.delete_range(key.clone(), Some(after.into()));
    }

    /// Deletes from `low` to before `high`; the range must not be empty.
    pub(super) fn delete_range(&mut self, mut low: Arc<[u8]>, mut high: Option<Arc<[u8]>>) {
        let Some(range) = half_open(&low, high.as_deref()) else { return };
        let gone: Vec<Arc<[u8]>> = self.puts.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.puts.remove(&key);
        }
        // Merge with those that it overlaps or touches: one that starts before, and all that start in it.
        let before = self.deleted.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&*low))).next_back();
        if let Some((start, end)) = before
            && end.as_ref().is_none_or(|end| **end >= *low)
        {
            low = start.clone();
        }
        let upper = high.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let merged = self.deleted.range::<[u8], _>((Bound::Included(&*low), upper));
        let merged: Vec<Arc<[u8]>> = merged.map(|(start, _)| start.clone()).collect();
        for start in merged {
            let end = self.deleted.remove(&start).flatten();
            high = match (high, end) {
                (Some(high), Some(end)) => Some(high.max(end)),
                _ => None,
            };
        }
        self.deleted.insert(low, high);
    }

    pub(super) fn get(&self, key: &[u8]) -> Known<'_> {
        match self.puts.get(key) {
            Some(value) => Known::Put(value),
            None if self.deleted_around(key).is_some() => Known::Deleted,
            None => Known::Untouched,
        }
    }

    /// Whether the batch puts that key itself.
    pub(super) fn puts(&self, key: &[u8]) -> bool {
        self.puts.contains_key(key)
    }

    /// The deleted range that `key` lies in.
    pub(super) fn deleted_around(&self, key: &[u8]) -> Option<DeletedRange<'_>> {
        let before = self.deleted.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        let (start, end) = { before }.next_back()?;
        let around = end.as_ref().is_none_or(|end| key < &**end);
        around.then_some((&**start, end.as_deref()))
    }

    /// The first put from `low` to before `high`.
    pub(super) fn first_put(&self, low: &[u8], high: Option<&[u8]>) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.puts.range::<[u8], _>(half_open(low, high)?).next()?;
        Some((key, value))
    }

    /// The last put from `low` to before `high`.
    pub(super) fn last_put(&self, low: &[u8], high: Option<&[u8]>) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.puts.range::<[u8], _>(half_open(low, high)?).next_back()?;
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(overlay: &mut Overlay, low: &str, high: Option<&str>) {
        overlay.delete_range(low.as_bytes().into(), high.map(|high| high.as_bytes().into()));
    }

    fn deleted(overlay: &Overlay) -> Vec<(String, Option<String>)> {
        let text = |bytes: &Arc<[u8]>| String::from_utf8(bytes.to_vec()).unwrap();
        overlay.deleted.iter().map(|(low, high)| (text(low), high.as_ref().map(text))).collect()
    }

    #[test]
    fn deleted_ranges_are_merged() {
        let mut overlay = Overlay::default();
        for (low, high) in [("c", "e"), ("g", "i"), ("k", "m"), ("e", "f"), ("h", "k"), ("c", "d"), ("x", "x")] {
            delete(&mut overlay, low, Some(high));
        }
        let pair = |low: &str, high: Option<&str>| (low.to_owned(), high.map(str::to_owned));
        assert_eq!(deleted(&overlay), [pair("c", Some("f")), pair("g", Some("m"))]);
        delete(&mut overlay, "h", None);
        delete(&mut overlay, "z", Some("zz"));
        assert_eq!(deleted(&overlay), [pair("c", Some("f")), pair("g", None)]);
        delete(&mut overlay, "", Some("d"));
        assert_eq!(deleted(&overlay), [pair("", Some("f")), pair("g", None)]);
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        let mut overlay = Overlay::default();
        overlay.put((*b"b").into(), (*b"1").into());
        overlay.put((*b"d").into(), (*b"2").into());
        delete(&mut overlay, "a", Some("c"));
        assert_eq!(
            [overlay.get(b"b"), overlay.get(b"d"), overlay.get(b"c")],
            [Known::Deleted, Known::Put(b"2"), Known::Untouched]
        );
        overlay.put((*b"b").into(), (*b"3").into());
        assert_eq!(overlay.get(b"b"), Known::Put(b"3"));
        overlay.delete(&(*b"d").into());
        assert_eq!([overlay.get(b"d"), overlay.get(b"d\0")], [Known::Deleted, Known::Untouched]);
        assert_eq!(overlay.first_put(b"", None), Some((&b"b"[..], &b"3"[..])));
        assert_eq!(overlay.last_put(b"b\0", None), None);
        assert_eq!(overlay.last_put(b"c", Some(b"a")), None);
    }
}
