//! The entries of a block of an SST file, as `table/block_based/block_builder.cc` of RocksDB describes them: each has the
//! number of bytes that its key shares with the one before, those of the rest of the key, those of the value, and then
//! the two; behind the last one lie the places of restarts, and their number. No bytes make this panic.

use std::ops::Range;

/// The number of restarts has flags in its upper bits: hash index, value section, keys of uniform distances.
const RESTARTS_MAX: u32 = (1 << 28) - 1;
/// This one says nothing of how the block is to be read.
const UNIFORM_KEYS: u32 = 1 << 29;

/// The place of an entry.
pub(super) struct Entry {
    /// Bytes that its key has in common with the one before.
    pub(super) shared: usize,
    /// Where the rest of the key is.
    pub(super) delta: Range<usize>,
    /// Where the value is.
    pub(super) value: Range<usize>,
}

/// Where the next entry of a block begins, and where the last one ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entries {
    at: usize,
    end: usize,
}

impl Entries {
    /// The entries of a block; `None` if it has flags that are not known here, or no place for what it must have.
    pub(super) fn new(block: &[u8]) -> Option<Self> {
        let (rest, restarts) = block.split_last_chunk::<4>()?;
        let restarts = u32::from_le_bytes(*restarts) & !UNIFORM_KEYS;
        let bytes = usize::try_from(restarts).ok().filter(|_| restarts <= RESTARTS_MAX)?.checked_mul(4)?;
        Some(Entries { at: 0, end: rest.len().checked_sub(bytes)? })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// The next entry of the block; the outer `None`: there is something else, or less, in its place.
    #[inline]
    pub(super) fn next(&mut self, block: &[u8]) -> Option<Option<Entry>> {
        if self.is_at_end() {
            return Some(None);
        }
        let mut rest = block.get(self.at..self.end)?;
        let (shared, unshared) = match *rest {
            // Nearly always.
            [shared, unshared, ..] if shared | unshared < 0x80 => {
                rest = &rest[2..];
                (u64::from(shared), u64::from(unshared))
            }
            _ => (varint(&mut rest)?, varint(&mut rest)?),
        };
        let value_bytes = varint(&mut rest)?;
        let begin = self.end - rest.len();
        let value = begin.checked_add(usize::try_from(unshared).ok()?)?;
        let end = value.checked_add(usize::try_from(value_bytes).ok()?).filter(|&end| end <= self.end)?;
        self.at = end;
        Some(Some(Entry { shared: usize::try_from(shared).ok()?, delta: begin..value, value: value..end }))
    }

    /// As [`Entries::next`], for an index whose values have no length: what follows the key's bytes is read by
    /// `read_value`, which takes it from the front.
    pub(super) fn next_of_index(
        &mut self,
        block: &[u8],
        read_value: impl FnOnce(usize, &mut &[u8]) -> Option<()>,
    ) -> Option<Option<Entry>> {
        if self.is_at_end() {
            return Some(None);
        }
        let mut rest = block.get(self.at..self.end)?;
        let (shared, unshared) = (usize::try_from(varint(&mut rest)?).ok()?, usize::try_from(varint(&mut rest)?).ok()?);
        let begin = self.end - rest.len();
        let value = begin.checked_add(unshared).filter(|&value| value <= self.end)?;
        let mut rest = &block[value..self.end];
        read_value(shared, &mut rest)?;
        self.at = self.end - rest.len();
        Some(Some(Entry { shared, delta: begin..value, value: value..self.at }))
    }
}

/// Reads a number of seven bits a byte from the front of `bytes`.
#[inline]
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_whole_or_not_at_all() {
        for (bytes, wanted) in [
            (&[0_u8][..], Some(0)),
            (&[0x7f, 1], Some(127)),
            (&[0x80, 1], Some(128)),
            (&[0xff; 9], None),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Some(u64::MAX)),
            (&[0x80; 11], None),
            (&[], None),
        ] {
            assert_eq!(varint(&mut &bytes[..]), wanted, "{bytes:?}");
        }
    }
}
