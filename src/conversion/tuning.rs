//! How work is divided.

/// Sizes that only tests change.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The least and the greatest size of a task, in bytes of the source's SST files.
    pub task_bytes: (u64, u64),
    /// The size of an SST file.
    pub file_bytes: u64,
    /// A level with less than this in a task shares its file with others.
    pub small_bytes: usize,
    /// With fewer entries than this the share of late ones says nothing.
    pub sample_entries: u64,
    /// The size of a spill file, in bytes; what a merge has read of one goes when it has read all of it.
    pub spill_bytes: u64,
    /// So much at most is merged between two lines that say so, in bytes of keys and values.
    pub part_bytes: u64,
    /// So many files are ingested in one call.
    pub ingest_files: usize,
    /// The least and the greatest size of a tile of the verification, in bytes of SST files.
    pub tile_bytes: (u64, u64),
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            // Whoever kills a conversion every 20 s must see it end: what is begun again is a task, a part, a call, a tile.
            task_bytes: (32 << 20, 64 << 20),
            file_bytes: 64 << 20,
            small_bytes: 1 << 20,
            sample_entries: 100_000,
            spill_bytes: 2 << 20,
            part_bytes: 256 << 20,
            ingest_files: 512,
            tile_bytes: super::verify::TILE_BYTES,
        }
    }
}
