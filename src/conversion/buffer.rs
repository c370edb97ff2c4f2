//! Entries in memory that are sorted by encoded key: one piece of memory for the bytes, one for where they lie.

/// Entries in memory.
#[derive(Debug, Default)]
pub(super) struct SortBuffer {
    bytes: Vec<u8>,
    /// In the order in which entries came, until [`SortBuffer::sort`].
    index: Vec<Slot>,
    /// Where, beyond the beginning, a stretch of ascending keys begins. Entries come nearly in order, so there are few:
    /// merging them looks at few keys and moves few slots.
    stretches: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Eight bytes of the key from where the keys begin to differ; filled where keys are sorted one by one.
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

/// A slot, and what sorting needs beside it.
const SLOT_BYTES: usize = size_of::<Slot>() * 2;
/// Where stretches have fewer entries than this, sorting entry by entry is faster.
const SHORT_STRETCH: usize = 8;

impl SortBuffer {
    #[inline]
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        if self.index.last().is_some_and(|last| Self::key_of(&self.bytes, last) > key) {
            self.stretches.push(self.index.len());
        }
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
        let bytes = self.bytes.as_slice();
        if self.stretches.len() * SHORT_STRETCH > self.index.len() {
            sort_by_prefix(bytes, &mut self.index);
        } else {
            self.stretches.push(self.index.len());
            merge_stretches(bytes, &mut self.index, 0, &self.stretches, &mut Vec::new());
        }
        self.stretches.clear();
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

    /// Forgets the first `count` entries of a sorted buffer, which stays sorted.
    pub(super) fn drop_front(&mut self, count: usize) {
        if count == self.len() {
            self.clear();
            return;
        }
        self.index.drain(..count);
        let mut lying: Vec<(usize, usize)> =
            self.index.iter().enumerate().map(|(at, slot)| (slot.offset, at)).collect();
        // Downwards in the order in which they lie: nothing is overwritten before it has moved.
        lying.sort_unstable();
        let mut free = 0;
        for (offset, at) in lying {
            let slot = &mut self.index[at];
            self.bytes.copy_within(offset..slot.end(), free);
            slot.offset = free;
            free = slot.end();
        }
        self.bytes.truncate(free);
        self.shrink();
    }

    /// Forgets all entries and keeps the memory for the next ones.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
        self.stretches.clear();
    }

    /// Gives memory back that others may need more.
    fn shrink(&mut self) {
        if self.bytes.capacity() > 4 * self.bytes.len() {
            self.bytes.shrink_to(2 * self.bytes.len());
            self.index.shrink_to(2 * self.index.len());
        }
    }
}

/// Sorts stretches that follow each other from `start` on; `ends` says where each of them ends.
fn merge_stretches(bytes: &[u8], index: &mut [Slot], start: usize, ends: &[usize], spare: &mut Vec<Slot>) {
    if ends.len() < 2 {
        return;
    }
    let (left, right) = ends.split_at(ends.len() / 2);
    let (middle, end) = (left[left.len() - 1], right[right.len() - 1]);
    merge_stretches(bytes, index, start, left, spare);
    merge_stretches(bytes, index, middle, right, spare);
    merge(bytes, &mut index[start..end], middle - start, spare);
}

/// Merges what is sorted before `middle` with what is sorted after it. Directories that change places lie close to each
/// other: all that is in place already is found by searching, and not touched.
fn merge(bytes: &[u8], index: &mut [Slot], middle: usize, spare: &mut Vec<Slot>) {
    let key = |slot: &Slot| SortBuffer::key_of(bytes, slot);
    let (first, last) = (key(&index[middle]), key(&index[middle - 1]));
    let begin = index[..middle].partition_point(|slot| key(slot) <= first);
    let end = middle + index[middle..].partition_point(|slot| key(slot) < last);
    spare.clear();
    spare.extend_from_slice(&index[begin..middle]);
    let (mut left, mut right, mut at) = (spare.as_slice(), middle, begin);
    while let Some(next) = left.first() {
        let from_right = gallop(&index[right..end], |slot| key(slot) < key(next));
        index.copy_within(right..right + from_right, at);
        right += from_right;
        at += from_right;
        let from_left = match index[right..end].first() {
            Some(other) => gallop(left, |slot| key(slot) <= key(other)),
            None => left.len(),
        };
        index[at..at + from_left].copy_from_slice(&left[..from_left]);
        left = &left[from_left..];
        at += from_left;
    }
}

/// How many slots from the front meet a condition that no later one meets; quick if they are few.
fn gallop(slots: &[Slot], meets: impl Fn(&Slot) -> bool) -> usize {
    let (mut known, mut step) = (0, 1);
    while slots.get(known + step - 1).is_some_and(&meets) {
        known += step;
        step *= 2;
    }
    let unknown = known..(known + step - 1).min(slots.len());
    known + slots[unknown].partition_point(meets)
}

/// Sorts entries in no order at all.
fn sort_by_prefix(bytes: &[u8], index: &mut [Slot]) {
    let Some(first) = index.first() else { return };
    // Keys of one directory begin alike: comparing their first bytes again and again would be in vain.
    let mut common = SortBuffer::key_of(bytes, first);
    for slot in index.iter() {
        let key = SortBuffer::key_of(bytes, slot);
        if !key.starts_with(common) {
            let len = common.iter().zip(key).take_while(|(left, right)| left == right).count();
            common = &common[..len];
        }
    }
    let skip = common.len();
    for slot in index.iter_mut() {
        let rest = &SortBuffer::key_of(bytes, slot)[skip..];
        let mut prefix = [0; 8];
        let len = rest.len().min(8);
        prefix[..len].copy_from_slice(&rest[..len]);
        slot.prefix = u64::from_be_bytes(prefix);
    }
    index.sort_by(|left, right| {
        left.prefix
            .cmp(&right.prefix)
            .then_with(|| SortBuffer::key_of(bytes, left)[skip..].cmp(&SortBuffer::key_of(bytes, right)[skip..]))
    });
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

    /// Ascending stretches of every length, apart, touching, one over the other, with keys that come twice.
    #[test]
    fn stretches_in_any_order_sort_as_keys_do() {
        let mut number = 1_u64;
        let mut random = |below: u64| {
            number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (number >> 33) % below
        };
        for round in 0..500 {
            let mut buffer = SortBuffer::default();
            let mut expected: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for _ in 0..=random(6) {
                for _ in 0..random(12) {
                    let mut key = random(if round % 2 == 0 { 30 } else { 100_000 });
                    for _ in 0..random(if round % 3 == 0 { 5 } else { 90 }) {
                        let bytes = format!("/common/{key:08}").into_bytes();
                        buffer.push(&bytes, &key.to_le_bytes());
                        expected.push((bytes, key.to_le_bytes().to_vec()));
                        key += random(3);
                    }
                }
                buffer.sort();
                expected.sort();
                let held = (0..buffer.len()).map(|at| buffer.entry(at));
                assert!(held.eq(expected.iter().map(|(key, value)| (&key[..], &value[..]))), "{round}");
                let count = random(buffer.len() as u64 + 1) as usize;
                buffer.drop_front(count);
                expected.drain(..count);
            }
        }
    }
}
