//! The engine against a `BTreeMap` that is ordered by encoded key: random operations, each answer compared.

use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Batch, Comparison, Durability, Engine, EngineSnapshot, Options, Range, Result};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Encoded key to key and value.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;
type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn key(&mut self, alphabet: &[u8]) -> Vec<u8> {
        if self.below(40) == 0 && alphabet.contains(&0xFF) {
            // Beyond the end that a deletion without an end takes for one.
            return vec![0xFF; 14 + self.below(5)];
        }
        (0..self.below(6)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }

    fn bounds(&mut self, alphabet: &[u8]) -> Bounds {
        let mut bound = || match self.below(4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.key(alphabet)),
            _ => Bound::Included(self.key(alphabet)),
        };
        (bound(), bound())
    }
}

struct World {
    encoding: Arc<dyn KeyEncoding>,
    alphabet: &'static [u8],
    random: Random,
}

impl World {
    fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        self.encoding.encode(key, &mut encoded).unwrap();
        encoded
    }

    fn key(&mut self) -> Vec<u8> {
        self.random.key(self.alphabet)
    }

    fn value(&mut self) -> Vec<u8> {
        let len = self.random.below(20);
        (0..len).map(|_| self.random.next() as u8).collect()
    }

    fn put(&self, model: &mut Model, key: &[u8], value: &[u8]) {
        model.insert(self.encode(key), (key.to_vec(), value.to_vec()));
    }

    /// Judges each entry on its own, so that nothing here resembles what the engine does.
    fn is_in(&self, bounds: &Bounds, encoded: &[u8]) -> bool {
        let after_start = match &bounds.0 {
            Bound::Unbounded => true,
            Bound::Included(start) => *encoded >= self.encode(start)[..],
            Bound::Excluded(start) => *encoded > self.encode(start)[..],
        };
        let before_end = match &bounds.1 {
            Bound::Unbounded => true,
            Bound::Included(end) => *encoded <= self.encode(end)[..],
            Bound::Excluded(end) => *encoded < self.encode(end)[..],
        };
        after_start && before_end
    }

    fn entries(&self, model: &Model, bounds: &Bounds) -> Vec<(Vec<u8>, Vec<u8>)> {
        model.iter().filter(|(encoded, _)| self.is_in(bounds, encoded)).map(|(_, entry)| entry.clone()).collect()
    }

    fn lookup(&self, model: &Model, key: &[u8], comparison: Comparison) -> Option<(Vec<u8>, Vec<u8>)> {
        let wanted = self.encode(key);
        let found = match comparison {
            Comparison::Equal => model.iter().find(|(encoded, _)| **encoded == wanted),
            Comparison::Floor => model.iter().rfind(|(encoded, _)| **encoded <= wanted),
            Comparison::Ceiling => model.iter().find(|(encoded, _)| **encoded >= wanted),
            Comparison::Lower => model.iter().rfind(|(encoded, _)| **encoded < wanted),
            Comparison::Higher => model.iter().find(|(encoded, _)| **encoded > wanted),
        };
        found.map(|(_, entry)| entry.clone())
    }

    /// Reads in every way and compares.
    fn check(&mut self, reader: &dyn Reader, model: &Model) {
        let key = self.key();
        let value = reader.get(&key);
        assert_eq!(value, model.get(&self.encode(&key)).map(|(_, value)| value.clone()));
        for comparison in Comparison::ALL {
            let expected = self.lookup(model, &key, comparison);
            assert_eq!(reader.lookup(&key, comparison), expected, "{comparison:?} {key:x?}");
        }
        let bounds = self.random.bounds(self.alphabet);
        let expected = self.entries(model, &bounds);
        let forward: Result<Vec<_>> = reader.range(bounds.clone()).collect();
        assert_eq!(forward.unwrap(), expected, "{bounds:x?}");
        let backward: Result<Vec<_>> = reader.range(bounds.clone()).rev().collect();
        assert_eq!(backward.unwrap(), expected.iter().rev().cloned().collect::<Vec<_>>(), "{bounds:x?}");
        self.check_both_ends(reader.range(bounds.clone()), &expected);
        self.check_seeks(reader.range(bounds), &expected);
    }

    fn check_both_ends(&mut self, mut range: Range<'_>, expected: &[(Vec<u8>, Vec<u8>)]) {
        let mut expected = expected.iter();
        loop {
            let front = self.random.below(3) != 0;
            let (found, wanted) =
                if front { (range.next(), expected.next()) } else { (range.next_back(), expected.next_back()) };
            assert_eq!(found.map(Result::unwrap).as_ref(), wanted);
            if wanted.is_none() {
                assert!(range.next().is_none() && range.next_back().is_none());
                return;
            }
        }
    }

    fn check_seeks(&mut self, mut range: Range<'_>, entries: &[(Vec<u8>, Vec<u8>)]) {
        // What is left lies between these two positions.
        let (mut front, mut back) = (0, entries.len());
        for _ in 0..6 {
            match self.random.below(4) {
                0 => {
                    let key = self.key();
                    range.seek(&key).unwrap();
                    let wanted = self.encode(&key);
                    front = entries.iter().position(|(key, _)| self.encode(key) >= wanted).unwrap_or(entries.len());
                }
                1 => {
                    let key = self.key();
                    range.seek_back(&key).unwrap();
                    let wanted = self.encode(&key);
                    back = entries.iter().rposition(|(key, _)| self.encode(key) <= wanted).map_or(0, |at| at + 1);
                }
                2 => {
                    let wanted = (front < back).then(|| entries[front].clone());
                    assert_eq!(range.next().map(Result::unwrap), wanted);
                    front += usize::from(wanted.is_some());
                }
                _ => {
                    let wanted = (front < back).then(|| entries[back - 1].clone());
                    assert_eq!(range.next_back().map(Result::unwrap), wanted);
                    back -= usize::from(wanted.is_some());
                }
            }
        }
    }
}

trait Reader {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    fn lookup(&self, key: &[u8], comparison: Comparison) -> Option<(Vec<u8>, Vec<u8>)>;
    fn range(&self, bounds: Bounds) -> Range<'_>;
}

macro_rules! reader {
    ($($reader:ty),*) => {$(
        impl Reader for $reader {
            fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
                <$reader>::get(self, key).unwrap().map(|value| value.to_vec())
            }

            fn lookup(&self, key: &[u8], comparison: Comparison) -> Option<(Vec<u8>, Vec<u8>)> {
                <$reader>::lookup(self, key, comparison).unwrap().map(|(key, value)| (key, value.to_vec()))
            }

            fn range(&self, bounds: Bounds) -> Range<'_> {
                <$reader>::range(self, bounds).unwrap()
            }
        }
    )*};
}

reader!(Engine, Batch<'_>, EngineSnapshot<'_>);

/// One batch of some changes, read after each of them, and then committed or not.
fn batch(world: &mut World, engine: &Engine, model: &mut Model, internal: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut batch = engine.batch();
    let (mut seen, mut seen_internal) = (model.clone(), internal.clone());
    let changes = world.random.below(12);
    for _ in 0..changes {
        let key = world.key();
        match world.random.below(6) {
            0..=2 => {
                let value = world.value();
                batch.put(&key, &value).unwrap();
                world.put(&mut seen, &key, &value);
            }
            3 => {
                batch.delete(&key).unwrap();
                seen.remove(&world.encode(&key));
            }
            4 => {
                let bounds = world.random.bounds(world.alphabet);
                batch.delete_range(bounds.clone()).unwrap();
                seen.retain(|encoded, _| !world.is_in(&bounds, encoded));
            }
            _ if world.random.below(2) == 0 => {
                let value = world.value();
                batch.put_internal(&key, &value);
                seen_internal.insert(key, value);
            }
            _ => {
                batch.delete_internal(&key);
                seen_internal.remove(&key);
            }
        }
        world.check(&batch, &seen);
    }
    assert_eq!(batch.len(), changes);
    if world.random.below(4) != 0 {
        batch.commit().unwrap();
        (*model, *internal) = (seen, seen_internal);
    }
}

/// Entries that are not in the database by other ways, in one bulk load.
fn ingest(world: &mut World, engine: &Engine, model: &mut Model) {
    let mut loaded = Model::new();
    for _ in 0..world.random.below(20) {
        let (key, value) = (world.key(), world.value());
        world.put(&mut loaded, &key, &value);
    }
    let count = engine.ingest(loaded.values().cloned().map(Ok)).unwrap();
    assert_eq!(count, loaded.len() as u64);
    model.append(&mut loaded);
}

fn check_internal(world: &mut World, engine: &Engine, internal: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let key = world.key();
    assert_eq!(engine.internal().get(&key).unwrap().map(|value| value.to_vec()), internal.get(&key).cloned());
    let all: Result<Vec<_>> = engine.internal().scan(..).unwrap().collect();
    assert_eq!(all.unwrap(), internal.clone().into_iter().collect::<Vec<_>>());
    let from: Result<Vec<_>> = engine.internal().scan(key.clone()..).unwrap().rev().collect();
    assert_eq!(from.unwrap(), internal.range(key..).rev().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>());
}

fn run(encoding: impl KeyEncoding + Clone, alphabet: &'static [u8], seed: u64, steps: usize) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new()
        .encoding(encoding.clone())
        .create_if_missing(true)
        .durability(Durability::Buffered)
        .write_buffer_bytes(64 << 10);
    let engine = Engine::open(directory.path().join("db"), options).unwrap();
    let mut world = World { encoding: Arc::new(encoding), alphabet, random: Random(seed) };
    let (mut model, mut internal) = (Model::new(), BTreeMap::new());
    let mut snapshots: Vec<(EngineSnapshot<'_>, Model)> = Vec::new();
    for _ in 0..steps {
        let key = world.key();
        match world.random.below(64) {
            0..=23 => {
                let value = world.value();
                engine.put(&key, &value).unwrap();
                world.put(&mut model, &key, &value);
            }
            24..=31 => {
                engine.delete(&key).unwrap();
                model.remove(&world.encode(&key));
            }
            32..=35 => {
                let bounds = world.random.bounds(alphabet);
                engine.delete_range(bounds.clone()).unwrap();
                model.retain(|encoded, _| !world.is_in(&bounds, encoded));
            }
            36..=47 => batch(&mut world, &engine, &mut model, &mut internal),
            48..=49 => ingest(&mut world, &engine, &mut model),
            50 => engine.flush().unwrap(),
            51..=53 => snapshots.push((engine.snapshot(), model.clone())),
            54 if !snapshots.is_empty() => drop(snapshots.remove(world.random.below(snapshots.len()))),
            55..=57 => check_internal(&mut world, &engine, &internal),
            _ => {
                let keys = [world.key(), world.key(), key.clone(), key];
                let found = engine.multi_get(&keys).unwrap();
                for (key, value) in keys.iter().zip(found) {
                    let expected = model.get(&world.encode(key)).map(|(_, value)| value.clone());
                    assert_eq!(value.map(|value| value.into_vec()), expected);
                }
            }
        }
        world.check(&engine, &model);
        if let Some((snapshot, model)) = snapshots.last() {
            world.check(snapshot, model);
        }
    }
    for (snapshot, model) in &snapshots {
        world.check(snapshot, model);
        let all: Result<Vec<_>> = snapshot.keys(..).unwrap().collect();
        assert_eq!(all.unwrap(), model.values().map(|(key, _)| key.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn natural() {
    for seed in 0..3 {
        run(Natural, b"ab/\x00\xff", seed, 700);
    }
}

#[test]
fn hierarchical() {
    for seed in 0..3 {
        run(Hierarchical, b"ab/\x00\xfe", seed, 700);
    }
}
