//! Entries in memory that are sorted by encoded key. Their bytes lie in chunks, which go from one buffer to the other, and
//! do not move while they are sorted.

use parking_lot::Mutex;
use std::sync::Arc;

/// What a chunk holds, unless a single entry has one to itself.
const CHUNK_BYTES: usize = 16 << 10;
/// A longer entry has a chunk to itself, so that little is left over at the end of the others.
const SHARING_BYTES: usize = CHUNK_BYTES / 8;

/// Memory that no buffer needs at the moment: fresh memory costs more than writing into it.
#[derive(Debug, Default)]
pub(super) struct SpareMemory {
    chunks: Mutex<Vec<Vec<u8>>>,
    indexes: Mutex<Vec<Vec<Slot>>>,
}

/// So many indexes are kept.
const SPARE_INDEXES_MAX: usize = 16;

impl SpareMemory {
    fn take(&self) -> Vec<u8> {
        self.chunks.lock().pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    /// Makes room for memory of another kind.
    fn shed(&self, bytes: usize) {
        let mut chunks = self.chunks.lock();
        let left = chunks.len().saturating_sub(bytes.div_ceil(CHUNK_BYTES));
        chunks.truncate(left);
    }

    fn give(&self, mut chunk: Vec<u8>) {
        if chunk.capacity() == CHUNK_BYTES {
            chunk.clear();
            self.chunks.lock().push(chunk);
        }
    }

    fn take_index(&self) -> Vec<Slot> {
        self.indexes.lock().pop().unwrap_or_default()
    }

    fn give_index(&self, mut index: Vec<Slot>) {
        let mut indexes = self.indexes.lock();
        if index.capacity() > 0 && indexes.len() < SPARE_INDEXES_MAX {
            index.clear();
            indexes.push(index);
        }
    }
}

/// Entries in memory.
#[derive(Debug, Default)]
pub(super) struct SortBuffer {
    spare: Arc<SpareMemory>,
    chunks: Vec<Vec<u8>>,
    /// Places in `chunks` where none is.
    vacant: Vec<u32>,
    /// The chunk that is being filled.
    filling: Option<u32>,
    /// Bytes of all chunks, and those of them that entries have.
    chunk_bytes: usize,
    entry_bytes: usize,
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
    chunk: u32,
    offset: u32,
    key_bytes: u32,
    value_bytes: u32,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.key_bytes as usize + self.value_bytes as usize
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.offset as usize..self.offset as usize + self.bytes()
    }
}

/// A slot, and what sorting needs beside it.
const SLOT_BYTES: usize = size_of::<Slot>() * 2;
/// Where stretches have fewer entries than this, sorting entry by entry is faster.
const SHORT_STRETCH: usize = 8;

fn key_of<'b>(chunks: &'b [Vec<u8>], slot: &Slot) -> &'b [u8] {
    &chunks[slot.chunk as usize][slot.offset as usize..][..slot.key_bytes as usize]
}

impl SortBuffer {
    /// A buffer that takes its memory from `spare` and gives it back.
    pub(super) fn new(spare: &Arc<SpareMemory>) -> Self {
        let mut buffer = SortBuffer::default();
        buffer.spare = spare.clone();
        buffer
    }

    /// An empty buffer with the same spare chunks.
    pub(super) fn another(&self) -> Self {
        SortBuffer::new(&self.spare)
    }

    #[inline]
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        if self.index.last().is_some_and(|last| key_of(&self.chunks, last) > key) {
            self.stretches.push(self.index.len());
        }
        let number = self.chunk_for(key.len() + value.len());
        let chunk = &mut self.chunks[number as usize];
        let slot = Slot {
            prefix: 0,
            chunk: number,
            offset: chunk.len() as u32,
            // RocksDB holds neither keys nor values of 4 GiB.
            key_bytes: key.len() as u32,
            value_bytes: value.len() as u32,
        };
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value);
        self.entry_bytes += slot.bytes();
        if self.index.capacity() == 0 {
            self.index = self.spare.take_index();
        }
        self.index.push(slot);
    }

    /// The number of a chunk that has room for so many bytes.
    #[inline]
    fn chunk_for(&mut self, bytes: usize) -> u32 {
        match self.filling {
            Some(filling) if self.chunks[filling as usize].len() + bytes <= CHUNK_BYTES => filling,
            _ if bytes > SHARING_BYTES => {
                self.spare.shed(bytes);
                self.add_chunk(Vec::with_capacity(bytes))
            }
            _ => {
                let number = self.add_chunk(self.spare.take());
                self.filling = Some(number);
                number
            }
        }
    }

    fn add_chunk(&mut self, chunk: Vec<u8>) -> u32 {
        self.chunk_bytes += chunk.capacity();
        match self.vacant.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                number
            }
            None => {
                self.chunks.push(chunk);
                self.chunks.len() as u32 - 1
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Memory in use, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.chunk_bytes + self.index.len() * SLOT_BYTES
    }

    /// What one more entry adds to [`SortBuffer::memory_bytes`].
    pub(super) fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
        key.len() + value.len() + SLOT_BYTES
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        key_of(&self.chunks, &self.index[at])
    }

    /// Where, from `begin` to `end`, the first key at or after `limit` is in a sorted buffer.
    pub(super) fn first_from(&self, limit: &[u8], begin: usize, end: usize) -> usize {
        begin + self.index[begin..end].partition_point(|slot| key_of(&self.chunks, slot) < limit)
    }

    pub(super) fn entry(&self, at: usize) -> (&[u8], &[u8]) {
        let slot = &self.index[at];
        self.chunks[slot.chunk as usize][slot.range()].split_at(slot.key_bytes as usize)
    }

    /// Sorts by key; cheap where the entries are nearly in order.
    pub(super) fn sort(&mut self) {
        let chunks = self.chunks.as_slice();
        if self.stretches.len() * SHORT_STRETCH > self.index.len() {
            sort_by_prefix(chunks, &mut self.index);
        } else {
            self.stretches.push(self.index.len());
            let mut other = self.spare.take_index();
            merge_stretches(chunks, &mut self.index, 0, &self.stretches, &mut other);
            self.spare.give_index(other);
        }
        self.stretches.clear();
    }

    /// How many entries from the front hold half of the memory; one at least.
    pub(super) fn half(&self) -> usize {
        let half = (self.entry_bytes + self.len() * SLOT_BYTES) / 2;
        let mut sum = 0;
        let upper = self.index.iter().position(|slot| {
            sum += slot.bytes() + SLOT_BYTES;
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
        self.entry_bytes -= self.index[..count].iter().map(Slot::bytes).sum::<usize>();
        self.index.drain(..count);
        let mut live = vec![0; self.chunks.len()];
        // Also an entry without a byte lies somewhere.
        self.index.iter().for_each(|slot| live[slot.chunk as usize] += slot.bytes().max(1));
        self.filling = None;
        // A chunk of which little is left: the rest of it moves, and the chunk is free.
        let sparse = |chunk: u32| live[chunk as usize] * 4 < self.chunks[chunk as usize].capacity() * 3;
        let moving = self.index.iter().enumerate().filter(|(_, slot)| sparse(slot.chunk));
        let mut moving: Vec<(u32, usize)> = moving.map(|(at, slot)| (slot.chunk, at)).collect();
        moving.sort_unstable();
        for (number, live) in live.iter().enumerate() {
            if *live == 0 && self.chunks[number].capacity() > 0 {
                self.free(number as u32);
            }
        }
        for group in moving.chunk_by(|left, right| left.0 == right.0) {
            self.move_out(group[0].0, group);
        }
        self.shrink();
    }

    /// Moves entries out of a chunk and frees it.
    fn move_out(&mut self, number: u32, entries: &[(u32, usize)]) {
        let chunk = std::mem::take(&mut self.chunks[number as usize]);
        for (_, at) in entries {
            let range = self.index[*at].range();
            let to = self.chunk_for(range.len());
            let target = &mut self.chunks[to as usize];
            (self.index[*at].chunk, self.index[*at].offset) = (to, target.len() as u32);
            target.extend_from_slice(&chunk[range]);
        }
        self.chunks[number as usize] = chunk;
        self.free(number);
    }

    fn free(&mut self, number: u32) {
        let chunk = std::mem::take(&mut self.chunks[number as usize]);
        self.chunk_bytes -= chunk.capacity();
        self.spare.give(chunk);
        self.vacant.push(number);
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.chunks.drain(..).for_each(|chunk| self.spare.give(chunk));
        self.vacant.clear();
        self.filling = None;
        (self.chunk_bytes, self.entry_bytes) = (0, 0);
        self.spare.give_index(std::mem::take(&mut self.index));
        self.stretches.clear();
    }

    /// Gives memory back that others may need more.
    fn shrink(&mut self) {
        if self.index.capacity() > 4 * self.index.len() {
            self.index.shrink_to(2 * self.index.len());
        }
    }
}

impl Drop for SortBuffer {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Sorts stretches that follow each other from `start` on; `ends` says where each of them ends.
fn merge_stretches(chunks: &[Vec<u8>], index: &mut [Slot], start: usize, ends: &[usize], spare: &mut Vec<Slot>) {
    if ends.len() < 2 {
        return;
    }
    let (left, right) = ends.split_at(ends.len() / 2);
    let (middle, end) = (left[left.len() - 1], right[right.len() - 1]);
    merge_stretches(chunks, index, start, left, spare);
    merge_stretches(chunks, index, middle, right, spare);
    merge(chunks, &mut index[start..end], middle - start, spare);
}

/// Merges what is sorted before `middle` with what is sorted after it. Directories that change places lie close to each
/// other: all that is in place already is found by searching, and not touched.
fn merge(chunks: &[Vec<u8>], index: &mut [Slot], middle: usize, spare: &mut Vec<Slot>) {
    let key = |slot: &Slot| key_of(chunks, slot);
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
fn sort_by_prefix(chunks: &[Vec<u8>], index: &mut [Slot]) {
    let Some(first) = index.first() else { return };
    // Keys of one directory begin alike: comparing their first bytes again and again would be in vain.
    let mut common = key_of(chunks, first);
    for slot in index.iter() {
        let key = key_of(chunks, slot);
        if !key.starts_with(common) {
            let len = common.iter().zip(key).take_while(|(left, right)| left == right).count();
            common = &common[..len];
        }
    }
    let skip = common.len();
    for slot in index.iter_mut() {
        let rest = &key_of(chunks, slot)[skip..];
        let mut prefix = [0; 8];
        let len = rest.len().min(8);
        prefix[..len].copy_from_slice(&rest[..len]);
        slot.prefix = u64::from_be_bytes(prefix);
    }
    index.sort_by(|left, right| {
        left.prefix.cmp(&right.prefix).then_with(|| key_of(chunks, left)[skip..].cmp(&key_of(chunks, right)[skip..]))
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
                        let value = vec![key as u8; (key % 100) as usize * if key % 9 == 0 { 30 } else { 1 }];
                        buffer.push(&bytes, &value);
                        expected.push((bytes, value));
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
                let bytes: usize = expected.iter().map(|(key, value)| key.len() + value.len()).sum();
                assert_eq!(buffer.entry_bytes, bytes);
                let chunks: usize = buffer.chunks.iter().map(Vec::capacity).sum();
                assert_eq!(buffer.chunk_bytes, chunks);
                assert!(chunks <= bytes * 2 + CHUNK_BYTES, "{chunks} for {bytes}");
            }
        }
    }
}
