//! How a database is opened, in our words, and its translation into RocksDB's options.

use crate::encoding::Comparator;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, WriteBufferManager};
use std::fmt;

/// Compression of SST files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None.
    None,
    /// LZ4: fast, the default.
    #[default]
    Lz4,
    /// Zstandard: smaller, slower.
    Zstd,
}

impl Compression {
    fn rocks(self) -> DBCompressionType {
        match self {
            Compression::None => DBCompressionType::None,
            Compression::Lz4 => DBCompressionType::Lz4,
            Compression::Zstd => DBCompressionType::Zstd,
        }
    }
}

/// What becomes of a WAL file whose end, or middle, cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalRecovery {
    /// RocksDB's default: the state before the first damage, as after a power cut.
    #[default]
    PointInTime,
    /// A torn end is a power cut's work, damage in the middle is an error: for a source that is to be replaced.
    TornTailOnly,
}

/// A block cache and a write buffer budget that many databases share.
#[derive(Clone)]
pub struct SharedMemory {
    cache: Cache,
    write_buffers: WriteBufferManager,
}

impl SharedMemory {
    /// A cache of `cache_bytes` and memtables of at most `write_buffer_bytes` in all.
    pub fn new(cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        SharedMemory {
            cache: Cache::new_lru_cache(cache_bytes),
            write_buffers: WriteBufferManager::new_write_buffer_manager(write_buffer_bytes, false),
        }
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("cache_usage_bytes", &self.cache.get_usage()).finish()
    }
}

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The order of the encoded keys.
    pub comparator: Comparator,
    /// Compression of new SST files.
    pub compression: Compression,
    /// Bytes of block cache for all column families together, unless `shared` is set.
    pub cache_bytes: usize,
    /// Bytes of one memtable.
    pub write_buffer_bytes: usize,
    /// Cache and write buffers shared with other databases.
    pub shared: Option<SharedMemory>,
    /// Background threads, and threads that open files when the database is opened.
    pub parallelism: usize,
    /// WAL files are kept for the log backup: `LOG_BACKUP` stands in the directory.
    pub keep_wal: bool,
    /// How damage in the WAL is met.
    pub wal_recovery: WalRecovery,
    /// A conversion's source or staging: few open files, index and filter blocks in the cache, no compaction on its own.
    pub bulk: bool,
    /// Reads go past the page cache.
    pub direct_reads: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            comparator: Comparator::Bytewise,
            compression: Compression::default(),
            cache_bytes: 64 << 20,
            write_buffer_bytes: 32 << 20,
            shared: None,
            parallelism: 2,
            keep_wal: false,
            wal_recovery: WalRecovery::default(),
            bulk: false,
            direct_reads: false,
        }
    }
}

/// Block cache of a conversion's source or staging, in bytes.
const BULK_CACHE_BYTES: usize = 32 << 20;
/// Open files of a conversion's source or staging.
const BULK_OPEN_FILES: i32 = 256;
/// With so many files at level 0 writers wait for compaction.
pub(super) const LEVEL0_FILES_MAX: i32 = 24;
/// The MANIFEST grows by so much, and holds that much room. RocksDB's own 4 MiB would be all that a nearly full disk has
/// left, and a thousand databases have a thousand of them.
const MANIFEST_STEP_BYTES: usize = 64 << 10;
/// A data block before compression, in bytes.
pub(super) const BLOCK_BYTES: usize = 16 << 10;

impl Settings {
    pub(super) fn write_buffer_bytes(&self) -> usize {
        self.write_buffer_bytes.max(64 << 10)
    }

    /// The options of the database and of its data family.
    pub(super) fn options(&self) -> Options {
        let mut options = Options::default();
        let mut table = BlockBasedOptions::default();
        let parallelism = i32::try_from(self.parallelism.clamp(1, 64)).unwrap_or(2);
        match &self.shared {
            Some(shared) => {
                table.set_block_cache(&shared.cache);
                options.set_write_buffer_manager(&shared.write_buffers);
            }
            None if self.bulk => table.set_block_cache(&Cache::new_lru_cache(BULK_CACHE_BYTES)),
            None => table.set_block_cache(&Cache::new_lru_cache(self.cache_bytes)),
        }
        if self.bulk {
            options.set_max_open_files(BULK_OPEN_FILES);
            options.set_disable_auto_compactions(true);
            table.set_cache_index_and_filter_blocks(true);
        }
        table.set_block_size(BLOCK_BYTES);
        table.set_bloom_filter(10.0, false);
        // Version 6 and 7 cannot be read by the `ldb` that distributions ship.
        table.set_format_version(5);
        options.set_block_based_table_factory(&table);
        if self.comparator == Comparator::SlashSpans {
            options.set_comparator(self.comparator.name(), Box::new(|a, b| Comparator::SlashSpans.compare(a, b)));
        }
        options.set_compression_type(self.compression.rocks());
        options.set_write_buffer_size(self.write_buffer_bytes());
        options.set_level_compaction_dynamic_level_bytes(true);
        options.increase_parallelism(parallelism);
        // RocksDB's default, 16, is how many threads it starts for each opening, however few files there are. A conversion
        // looks at a place often.
        options.set_max_file_opening_threads(if self.bulk { 1 } else { parallelism });
        options.set_max_subcompactions(parallelism as u32);
        // One batch may write both families; without a WAL, only an atomic flush keeps it whole.
        options.set_atomic_flush(true);
        // The internal family's memtable hardly fills and would pin WAL files.
        options.set_max_total_wal_size((self.write_buffer_bytes as u64).max(1 << 20) * 2);
        options.set_wal_recovery_mode(match self.wal_recovery {
            WalRecovery::PointInTime => DBRecoveryMode::PointInTime,
            WalRecovery::TornTailOnly => DBRecoveryMode::TolerateCorruptedTailRecords,
        });
        if self.keep_wal {
            // The shipper syncs the WAL again and again: what is written out already does not hold up whoever writes then.
            options.set_wal_bytes_per_sync(512 << 10);
            // A size limit would delete files that are not shipped yet.
            options.set_wal_ttl_seconds(u64::MAX);
            options.set_wal_size_limit_mb(0);
            // What the reader of the log rests on; RocksDB's defaults of today, but not for ever. Neither two-phase commit
            // nor verified WAL files can be switched on through the crate.
            options.set_manual_wal_flush(false);
            options.set_recycle_log_file_num(0);
            options.set_wal_compression_type(DBCompressionType::None);
            options.set_enable_pipelined_write(false);
            options.set_unordered_write(false);
        }
        // Where writers would be slowed down they are stopped a little later instead: the wait is ours (`Wait`), and a
        // writer that comes back to be slowed down counts as a further one.
        options.set_level_zero_slowdown_writes_trigger(LEVEL0_FILES_MAX);
        options.set_level_zero_stop_writes_trigger(LEVEL0_FILES_MAX);
        options.set_soft_pending_compaction_bytes_limit(0);
        options.set_manifest_preallocation_size(MANIFEST_STEP_BYTES);
        options.set_use_direct_reads(self.direct_reads);
        options.set_keep_log_file_num(4);
        options.set_stats_dump_period_sec(0);
        options
    }
}
