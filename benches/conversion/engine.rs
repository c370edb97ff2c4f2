//! The engine against raw RocksDB with the same options: what the encoding of keys costs a caller.

use crate::common::{fill, scatter};
use crate::contender::options;
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Comparison, Durability, Engine, Options};
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const ENTRIES: u64 = 500_000;
const OPERATIONS: u64 = 200_000;
const VALUE_BYTES: usize = 128;
const BATCH_ENTRIES: u64 = 100;
const OPENINGS: u64 = 20;
/// As many families as a database of the engine has.
const FAMILIES: [&str; 2] = ["default", "morphkv.internal"];

fn key(number: u64) -> Vec<u8> {
    format!("/tenants/{}/objects/{:x}", scatter(number) % 97, number % ENTRIES).into_bytes()
}

fn encoded(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2);
    Hierarchical.encode(key, &mut out).expect("encode");
    out
}

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![0; VALUE_BYTES];
    fill(&mut value, number);
    value
}

/// The numbers of operation `at`: every one a place of its own, in no order.
fn pick(at: u64) -> u64 {
    scatter(at) % ENTRIES
}

fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

/// One operation, done by the engine and by RocksDB with keys that are encoded already.
type Operation<'a> = (&'static str, Box<dyn Fn() + 'a>, Box<dyn Fn() + 'a>);

fn operations<'a>(engine: &'a Engine, raw: &'a rocksdb::DB, keys: &'a [(Vec<u8>, Vec<u8>)]) -> Vec<Operation<'a>> {
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    let mut unlogged_batch = rocksdb::WriteOptions::default();
    unlogged_batch.disable_wal(true);
    let each = || (0..OPERATIONS).map(|at| &keys[pick(at) as usize]);
    let batches = || (0..OPERATIONS / BATCH_ENTRIES).map(|batch| batch * BATCH_ENTRIES..(batch + 1) * BATCH_ENTRIES);
    let bytes = value(7);
    let (put_bytes, raw_bytes, raw_batch_bytes, batch_bytes) = (bytes.clone(), bytes.clone(), bytes.clone(), bytes);
    vec![
        (
            "get",
            Box::new(move || {
                each().for_each(|(key, _)| drop(black_box(engine.get(key).expect("get").expect("a value"))))
            }),
            Box::new(move || {
                each().for_each(|(_, key)| drop(black_box(raw.get_pinned(key).expect("get").expect("a value"))));
            }),
        ),
        (
            "scan",
            Box::new(move || {
                let mut range = engine.range(..).expect("range");
                black_box(range.by_ref().map(|entry| entry.expect("read").1.len()).sum::<usize>());
            }),
            Box::new(move || {
                let entries = raw.iterator(rocksdb::IteratorMode::Start);
                black_box(entries.map(|entry| entry.expect("read").1.len()).sum::<usize>());
            }),
        ),
        (
            "lookup (floor)",
            Box::new(move || {
                each().for_each(|(key, _)| drop(black_box(engine.lookup(key, Comparison::Floor).expect("lookup"))));
            }),
            Box::new(move || {
                for (_, key) in each() {
                    let mut cursor = raw.raw_iterator();
                    cursor.seek_for_prev(key);
                    black_box((cursor.key().map(<[u8]>::to_vec), cursor.value().map(<[u8]>::to_vec)));
                }
            }),
        ),
        (
            "put",
            Box::new(move || each().for_each(|(key, _)| engine.put(key, &put_bytes).expect("put"))),
            Box::new(move || each().for_each(|(_, key)| raw.put_opt(key, &raw_bytes, &unlogged).expect("put"))),
        ),
        (
            "batched put",
            Box::new(move || {
                for numbers in batches() {
                    let mut batch = engine.batch();
                    numbers.for_each(|at| batch.put(&keys[pick(at) as usize].0, &batch_bytes).expect("put"));
                    batch.commit().expect("commit");
                }
            }),
            Box::new(move || {
                for numbers in batches() {
                    let mut batch = rocksdb::WriteBatch::default();
                    numbers.for_each(|at| batch.put(&keys[pick(at) as usize].1, &raw_batch_bytes));
                    raw.write_opt(batch, &unlogged_batch).expect("write");
                }
            }),
        ),
    ]
}

/// The same entries, for both of them.
fn fill_both(engine: &Engine, raw: &rocksdb::DB, keys: &[(Vec<u8>, Vec<u8>)]) {
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    for (number, (key, encoded)) in keys.iter().enumerate() {
        let value = value(number as u64);
        engine.put(key, &value).expect("put");
        raw.put_opt(encoded, &value, &unlogged).expect("put");
    }
    engine.flush().expect("flush");
    raw.flush().expect("flush");
}

/// Rates of the engine in parts of those of RocksDB; the medians of `rounds` rounds, in which both take turns.
pub fn measure(root: &Path, rounds: usize) -> Value {
    let work = root.join(format!("engine-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir(&work).expect("make a directory");
    let keys: Vec<(Vec<u8>, Vec<u8>)> = (0..ENTRIES).map(key).map(|key| (key.clone(), encoded(&key))).collect();
    let settings =
        || Options::new().encoding(Hierarchical).create_if_missing(true).durability(Durability::NoWal).parallelism(2);
    let mut raw_options = options();
    raw_options.create_if_missing(true);
    raw_options.create_missing_column_families(true);
    raw_options.set_stats_dump_period_sec(0);
    let open_raw = |name: &str| rocksdb::DB::open_cf(&raw_options, work.join(name), FAMILIES).expect("open");
    let open_engine = || Engine::open(work.join("engine"), settings()).expect("open");
    fill_both(&open_engine(), &open_raw("raw"), &keys);
    // Both lie at the bottom level: how many files there are above it is luck.
    ["engine", "raw"].iter().for_each(|name| open_raw(name).compact_range(None::<&[u8]>, None::<&[u8]>));
    let (engine, raw) = (open_engine(), open_raw("raw"));
    let mut figures = serde_json::Map::new();
    for (name, ours, theirs) in operations(&engine, &raw, &keys) {
        engine.flush().expect("flush");
        raw.flush().expect("flush");
        ours();
        theirs();
        let rounds: Vec<(f64, f64)> = (0..rounds).map(|_| (seconds(&*ours), seconds(&*theirs))).collect();
        figures.insert(name.into(), ratio(&rounds));
    }
    engine.flush().expect("flush");
    engine.close().expect("close");
    raw.flush().expect("flush");
    drop(raw);
    let open_ours = || (0..OPENINGS).for_each(|_| open_engine().close().expect("close"));
    let open_theirs = || (0..OPENINGS).for_each(|_| drop(open_raw("raw")));
    let rounds: Vec<(f64, f64)> = (0..rounds).map(|_| (seconds(open_ours), seconds(open_theirs))).collect();
    figures.insert("open".into(), ratio(&rounds));
    std::fs::remove_dir_all(&work).expect("remove the databases");
    Value::Object(figures)
}

fn ratio(rounds: &[(f64, f64)]) -> Value {
    let median = |side: fn(&(f64, f64)) -> f64| {
        let mut seconds: Vec<f64> = rounds.iter().map(side).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let (ours, theirs) = (median(|round| round.0), median(|round| round.1));
    json!({"rate": theirs / ours, "target": 0.95, "ours_seconds": ours, "theirs_seconds": theirs})
}

/// Nanoseconds a key to encode and to decode.
pub fn encodings(rounds: usize) -> Value {
    let mut figures = serde_json::Map::new();
    let keys: Vec<Vec<u8>> = (0..100_000).map(key).collect();
    for encoding in [&Natural as &dyn KeyEncoding, &Hierarchical] {
        let encoded: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| {
                let mut out = Vec::new();
                encoding.encode(key, &mut out).expect("encode");
                out
            })
            .collect();
        let mut out = Vec::new();
        let mut best = [f64::INFINITY; 2];
        for _ in 0..rounds.max(1) * 10 {
            let mut turn = |decode: bool, keys: &[Vec<u8>]| {
                seconds(|| {
                    for key in keys {
                        out.clear();
                        let done = if decode { encoding.decode(key, &mut out) } else { encoding.encode(key, &mut out) };
                        done.expect("the encoding carries it");
                        black_box(&out);
                    }
                })
            };
            best[0] = best[0].min(turn(false, &keys));
            best[1] = best[1].min(turn(true, &encoded));
        }
        let nanoseconds = best.map(|seconds| seconds * 1e9 / keys.len() as f64);
        let figure = json!({"encode_nanoseconds": nanoseconds[0], "decode_nanoseconds": nanoseconds[1]});
        figures.insert(encoding.name().into(), figure);
    }
    Value::Object(figures)
}
