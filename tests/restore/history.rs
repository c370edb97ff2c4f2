//! Random histories of a database with a log backup.

use crate::common::Content;
use crate::source::Source;
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use std::sync::Arc;

/// xorshift64*
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }
}

pub fn key(random: &mut Random) -> Vec<u8> {
    const PARTS: [&str; 6] = ["a", "b", "dir", "dir1", "x/", ""];
    let mut key = String::new();
    for _ in 0..1 + random.below(3) {
        key.push('/');
        key.push_str(PARTS[random.below(PARTS.len())]);
    }
    key.into_bytes()
}

fn value(random: &mut Random) -> Vec<u8> {
    format!("{:x}", random.next()).into_bytes()
}

fn range(source: &Source, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let (a, b) = (key(random), key(random));
    if source.encoded(&a) <= source.encoded(&b) { (a, b) } else { (b, a) }
}

/// A batch of all kinds of operations, range deletions in its middle among them.
fn batch(source: &mut Source, random: &mut Random) {
    let engine = source.engine().clone();
    let mut batch = engine.batch();
    for _ in 0..1 + random.below(8) {
        match random.below(8) {
            0 => {
                let (from, to) = range(source, random);
                batch.delete_range(&from[..]..&to[..]).unwrap();
                source.remove_range(&from, &to);
            }
            1 => {
                let key = key(random);
                batch.delete(&key).unwrap();
                source.content.remove(&key);
            }
            2 => {
                let (key, value) = (key(random), value(random));
                batch.put_internal(&key, &value);
                source.internal.insert(key, value);
            }
            3 => {
                let key = key(random);
                batch.delete_internal(&key);
                source.internal.remove(&key);
            }
            _ => {
                let (key, value) = (key(random), value(random));
                batch.put(&key, &value).unwrap();
                source.content.insert(key, value);
            }
        }
    }
    batch.commit().unwrap();
    drop(engine);
    source.note();
}

fn load(source: &mut Source, random: &mut Random) {
    let entries: Content = (0..1 + random.below(12)).map(|_| (key(random), value(random))).collect();
    source.ingest(entries);
}

fn step(source: &mut Source, random: &mut Random) {
    match random.below(40) {
        0 => source.snapshot(),
        1 | 2 => source.ship(None),
        3 => source.reopen(),
        4 => source.engine().flush().unwrap(),
        5 => {
            let to: Arc<dyn KeyEncoding> =
                if source.encoding.name() == "natural" { Arc::new(Hierarchical) } else { Arc::new(Natural) };
            source.convert(to);
        }
        6..=8 => load(source, random),
        9 => {
            let (from, to) = range(source, random);
            source.engine().delete_range(&from[..]..&to[..]).unwrap();
            source.remove_range(&from, &to);
            source.note();
        }
        10 => {
            source.engine().delete_range(..).unwrap();
            source.content.clear();
            source.note();
        }
        _ => batch(source, random),
    }
    // Often not at all: writes of one moment belong together.
    if random.below(3) > 0 {
        source.clock.advance(1 + random.below(50) as u64);
    }
}

/// A history of so many steps, all shipped.
pub fn history(seed: u64, steps: usize) -> (Source, Random) {
    let mut random = Random::new(seed);
    let encoding: Arc<dyn KeyEncoding> = if random.below(2) == 0 { Arc::new(Natural) } else { Arc::new(Hierarchical) };
    let mut source = Source::new(encoding);
    source.frames = 1 + random.below(9) as u32;
    for _ in 0..steps {
        step(&mut source, &mut random);
    }
    source.clock.advance(1);
    source.ship(None);
    (source, random)
}
