//! What is timed: the conversion, and what it is compared with. All have LZ4, blocks of 16 KiB, Bloom filters of 10 bits,
//! table format 5 and two threads; all end with everything on the disk.

use crate::source::{Direction, Source, warm};
use morphkv::{Engine, Options, Verify};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Entries of a batch.
const BATCH_ENTRIES: usize = 1000;

/// Who does the work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// `Engine::open` with another encoding.
    Ours(Verify),
    /// Iterate, encode, put in batches without a WAL, flush; compaction is owed afterwards.
    BatchedPuts,
    /// RocksDB's own rewrite of every file, in the same order, with two subcompactions.
    Compaction,
}

pub const CONTENDERS: [Contender; 4] =
    [Contender::Ours(Verify::Counts), Contender::Ours(Verify::Full), Contender::BatchedPuts, Contender::Compaction];

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Contender::Ours(Verify::Counts) => "none",
            Contender::Ours(_) => "full",
            Contender::BatchedPuts => "batched-puts",
            Contender::Compaction => "compaction",
        }
    }

    /// Seconds of one run. The source is in the page cache, and nothing waits to be written when it begins.
    pub fn run(self, root: &Path, source: &Source, direction: Direction) -> f64 {
        let work = root.join(format!("work-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir(&work).expect("make a directory");
        warm(&source.path);
        let copy = match self {
            Contender::BatchedPuts => work.join("new"),
            _ => checkpoint(source, &work),
        };
        rustix::fs::sync();
        let seconds = match self {
            Contender::Ours(verify) => convert(&copy, direction, Options::new().verify(verify)),
            Contender::BatchedPuts => batched_puts(source, &copy, direction),
            Contender::Compaction => compact(&copy),
        };
        std::fs::remove_dir_all(&work).expect("remove the copy");
        seconds
    }
}

/// A copy of the source that shares its files.
pub fn checkpoint(source: &Source, work: &Path) -> PathBuf {
    let copy = work.join("copy");
    let engine = Engine::open(&source.path, Options::new()).expect("open the source");
    engine.checkpoint(&copy).expect("checkpoint");
    engine.close().expect("close the source");
    copy
}

/// Converts a database; seconds until it is open.
pub fn convert(path: &Path, direction: Direction, options: Options) -> f64 {
    let began = Instant::now();
    let engine = Engine::open(path, options.parallelism(2).encoding(direction.to())).expect("convert");
    let seconds = began.elapsed().as_secs_f64();
    engine.close().expect("close the new database");
    seconds
}

/// As the engine opens its databases.
pub fn options() -> rocksdb::Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(64 << 20));
    let mut options = rocksdb::Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_write_buffer_size(32 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.increase_parallelism(2);
    options.set_max_subcompactions(2);
    options.set_max_file_opening_threads(2);
    options
}

fn batched_puts(source: &Source, target: &Path, direction: Direction) -> f64 {
    let mut target_options = options();
    target_options.create_if_missing(true);
    let began = Instant::now();
    let engine = Engine::open(&source.path, Options::new()).expect("open the source");
    let database = rocksdb::DB::open(&target_options, target).expect("create");
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    let (mut batch, mut encoded, to) = (rocksdb::WriteBatch::default(), Vec::new(), direction.to());
    for entry in engine.range(..).expect("range") {
        let (key, value) = entry.expect("read");
        encoded.clear();
        to.encode(&key, &mut encoded).expect("encode");
        batch.put(&encoded, &value);
        if batch.len() >= BATCH_ENTRIES {
            database.write_opt(std::mem::take(&mut batch), &unlogged).expect("write");
        }
    }
    database.write_opt(batch, &unlogged).expect("write");
    database.flush().expect("flush");
    let seconds = began.elapsed().as_secs_f64();
    engine.close().expect("close the source");
    seconds
}

fn compact(path: &Path) -> f64 {
    let began = Instant::now();
    let families = rocksdb::DB::list_cf(&options(), path).expect("list the families");
    let database = rocksdb::DB::open_cf(&options(), path, families).expect("open the copy");
    let mut all = rocksdb::CompactOptions::default();
    all.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
    database.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &all);
    let seconds = began.elapsed().as_secs_f64();
    let before: Vec<u64> = database.live_files().expect("list the files").iter().map(|file| file.size as u64).collect();
    assert!(!before.is_empty(), "an empty database was compacted");
    seconds
}
