//! A conversion against the naive way (iterate, put in batches, flush), side by side in one run.
//!
//! `cargo bench --bench conversion -- 2000000` takes another number of keys.

use morphkv::encoding::{Hierarchical, KeyEncoding};
use morphkv::{Durability, Engine, Options, Verify};
use std::path::Path;
use std::time::Instant;

const VALUE_BYTES: usize = 128;
const BATCH_ENTRIES: usize = 1000;

fn main() {
    let keys = std::env::args().filter_map(|argument| argument.parse::<u64>().ok()).next_back().unwrap_or(1_000_000);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("source");
    fill(&path, keys);
    println!("{keys} keys of about 30 bytes with values of {VALUE_BYTES} bytes, natural to hierarchical");
    let (naive, flushed) = batched_puts(&path, &directory.path().join("naive"));
    println!("batched puts, flushed        {naive:8.2} s   ({flushed} SST files, compaction still owed)");
    for (verify, name) in [(Verify::Counts, "counts only"), (Verify::Full, "fully verified")] {
        let copy = directory.path().join("copy");
        let engine = Engine::open(&path, Options::new()).expect("open the source");
        engine.checkpoint(&copy).expect("checkpoint");
        engine.close().expect("close");
        let began = Instant::now();
        drop(Engine::open(&copy, Options::new().encoding(Hierarchical).verify(verify)).expect("convert"));
        let ours = began.elapsed().as_secs_f64();
        println!("conversion, {name:16} {ours:8.2} s   {:.2}x of the speed of batched puts", naive / ours);
        Engine::destroy(&copy, Options::new()).expect("destroy");
    }
}

fn fill(path: &Path, keys: u64) {
    let options = Options::new().create_if_missing(true).durability(Durability::Buffered);
    let engine = Engine::open(path, options).expect("create");
    let mut sorted: Vec<Vec<u8>> = (0..keys)
        .map(|number| {
            let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!("/tenants/{}/objects/{}/{:x}", scattered % 97, scattered % 4099, number).into_bytes()
        })
        .collect();
    sorted.sort_unstable();
    let mut value = [0u8; VALUE_BYTES];
    let entries = sorted.into_iter().map(|key| {
        for (index, chunk) in value.chunks_mut(32).enumerate() {
            let word = key.iter().fold(index as u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
            chunk[..8].copy_from_slice(&word.to_le_bytes());
        }
        Ok((key, value))
    });
    engine.ingest(entries).expect("ingest");
    engine.close().expect("close");
}

/// What one would do without this crate: iterate, encode, put in batches, flush. Seconds, and files at the end.
fn batched_puts(source: &Path, target: &Path) -> (f64, usize) {
    let engine = Engine::open(source, Options::new()).expect("open the source");
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_write_buffer_size(32 << 20);
    options.increase_parallelism(2);
    let began = Instant::now();
    let database = rocksdb::DB::open(&options, target).expect("create");
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    let mut batch = rocksdb::WriteBatch::default();
    let mut encoded = Vec::new();
    for entry in engine.range(..).expect("range") {
        let (key, value) = entry.expect("read");
        encoded.clear();
        Hierarchical.encode(&key, &mut encoded).expect("encode");
        batch.put(&encoded, &value);
        if batch.len() >= BATCH_ENTRIES {
            database.write_opt(std::mem::take(&mut batch), &unlogged).expect("write");
        }
    }
    database.write_opt(batch, &unlogged).expect("write");
    database.flush().expect("flush");
    let seconds = began.elapsed().as_secs_f64();
    let files = database.live_files().expect("files").len();
    engine.close().expect("close");
    (seconds, files)
}
