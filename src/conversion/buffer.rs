//! Entries in memory that are sorted by encoded key: one piece of memory for the bytes, one for where they lie.

/// Entries in memory.
#[derive(Debug, Default)]
pub(super) struct SortBuffer {
    bytes: Vec<u8>,
    index: Vec<Slot>,
    sorted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Eight bytes of the key from where the keys begin to differ; filled by `sort`.
    prefix: u64,
    offset: usize,
    key_bytes: u32,
    value_bytes: u32,
}

impl Slot {
    fn end(&self) -> usize {
        self.offset + self.key_bytes as usize + self.value_bytes as usize
    }
}

/// A slot, and what a stable sort needs beside it.
const SLOT_BYTES: usize = size_of::<Slot>() * 3 / 2;

impl SortBuffer {
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        let slot = Slot {
            prefix: 0,
            offset: self.bytes.len(),
            // RocksDB holds neither keys nor values of 4 GiB.
            key_bytes: key.len() as u32,
            value_bytes: value.len() as u32,
        };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.index.push(slot);
        self.sorted = false;
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Memory in use, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.index.len() * SLOT_BYTES
    }

    /// What one more entry adds to [`SortBuffer::memory_bytes`].
    pub(super) fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
        key.len() + value.len() + SLOT_BYTES
    }

    fn key_of<'b>(bytes: &'b [u8], slot: &Slot) -> &'b [u8] {
        &bytes[slot.offset..slot.offset + slot.key_bytes as usize]
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        Self::key_of(&self.bytes, &self.index[at])
    }

    pub(super) fn entry(&self, at: usize) -> (&[u8], &[u8]) {
        let slot = &self.index[at];
        self.bytes[slot.offset..slot.end()].split_at(slot.key_bytes as usize)
    }

    /// Sorts by key; cheap where the entries are nearly in order.
    pub(super) fn sort(&mut self) {
        if self.sorted || self.index.is_empty() {
            self.sorted = true;
            return;
        }
        let bytes = self.bytes.as_slice();
        // Keys of one directory begin alike: comparing their first bytes again and again would be in vain.
        let mut common = Self::key_of(bytes, &self.index[0]);
        for slot in &self.index[1..] {
            let key = Self::key_of(bytes, slot);
            if !key.starts_with(common) {
                let len = common.iter().zip(key).take_while(|(left, right)| left == right).count();
                common = &common[..len];
            }
        }
        let skip = common.len();
        for slot in &mut self.index {
            let rest = &Self::key_of(bytes, slot)[skip..];
            let mut prefix = [0; 8];
            let len = rest.len().min(8);
            prefix[..len].copy_from_slice(&rest[..len]);
            slot.prefix = u64::from_be_bytes(prefix);
        }
        self.index.sort_by(|left, right| {
            left.prefix
                .cmp(&right.prefix)
                .then_with(|| Self::key_of(bytes, left)[skip..].cmp(&Self::key_of(bytes, right)[skip..]))
        });
        self.sorted = true;
    }

    /// How many entries from the front hold half of the memory; one at least.
    pub(super) fn half(&self) -> usize {
        let half = self.memory_bytes() / 2;
        let mut sum = 0;
        let upper = self.index.iter().position(|slot| {
            sum += slot.end() - slot.offset + SLOT_BYTES;
            sum >= half
        });
        upper.map_or(self.len(), |at| at + 1)
    }

    /// Forgets the first `count` entries.
    pub(super) fn drop_front(&mut self, count: usize) {
        if count == self.len() {
            self.clear();
            return;
        }
        self.index.drain(..count);
        // Downwards in the order in which they lie: nothing is overwritten before it has moved.
        self.index.sort_unstable_by_key(|slot| slot.offset);
        let mut free = 0;
        for slot in &mut self.index {
            let end = slot.end();
            self.bytes.copy_within(slot.offset..end, free);
            slot.offset = free;
            free = slot.end();
        }
        self.bytes.truncate(free);
        self.sorted = false;
        self.shrink();
    }

    /// Forgets all entries and keeps the memory for the next ones.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
        self.sorted = true;
    }

    /// Gives memory back that others may need more.
    fn shrink(&mut self) {
        if self.bytes.capacity() > 4 * self.bytes.len() {
            self.bytes.shrink_to(2 * self.bytes.len());
            self.index.shrink_to(2 * self.index.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_as_bytes_do_and_keeps_what_is_left() {
        let keys =
            ["b", "", "a\0", "a", "a\0\0\0\0\0\0\0\0\u{1}", "a\0\0\0\0\0\0\0\0", "ab", "\u{7f}", "a/long/er/key/1"];
        for common in ["", "/common/part/"] {
            let mut buffer = SortBuffer::default();
            let mut expected: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for (at, key) in keys.iter().enumerate() {
                let entry = ([common.as_bytes(), key.as_bytes()].concat(), vec![at as u8; at * 3]);
                buffer.push(&entry.0, &entry.1);
                expected.push(entry);
            }
            expected.sort();
            let held = |buffer: &SortBuffer| -> Vec<(Vec<u8>, Vec<u8>)> {
                (0..buffer.len())
                    .map(|at| buffer.entry(at))
                    .map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .collect()
            };
            buffer.sort();
            assert_eq!(held(&buffer), expected);
            let before = buffer.memory_bytes();
            buffer.drop_front(4);
            buffer.push(b"", b"again");
            buffer.sort();
            expected.drain(..4);
            expected.insert(0, (Vec::new(), b"again".to_vec()));
            assert_eq!(held(&buffer), expected);
            assert!(buffer.memory_bytes() < before);
            assert_eq!(buffer.key(0), b"");
        }
    }

    #[test]
    fn half_is_by_bytes_and_never_nothing() {
        let mut buffer = SortBuffer::default();
        buffer.push(b"a", &[0; 10_000]);
        assert_eq!(buffer.half(), 1);
        for _ in 0..100 {
            buffer.push(b"b", b"");
        }
        buffer.sort();
        assert_eq!(buffer.half(), 1);
        buffer.drop_front(1);
        assert_eq!(buffer.half(), 50);
    }
}
