//! The modules of morphkv that are fuzzed, compiled from its own source files.
//!
//! Depending on the crate itself would compile RocksDB's C++ for every sanitizer. The lower floors do not use it, so they
//! stand here under the names they have in the crate, and their `crate::` paths find each other.
//!
//! To add a target: name the module here with the lower ones that it uses, its dependencies in Cargo.toml, a `[[bin]]`
//! there, and write fuzz_targets/NAME.rs. Run it with either of
//!
//! ```text
//! cargo +nightly fuzz run NAME
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none NAME
//! ```

#[path = "../../src/control.rs"]
pub mod control;
#[path = "../../src/encoding/mod.rs"]
pub mod encoding;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/fs/mod.rs"]
pub mod fs;
#[path = "../../src/layout.rs"]
pub mod layout;
#[path = "../../src/marker.rs"]
pub mod marker;
pub mod memory;
#[path = "../../src/trap.rs"]
pub mod trap;

/// The part of `place` that reads a file.
#[path = "../../src/place"]
pub mod place {
    pub mod journal;
}

/// The parts of `rocks` that read files without RocksDB.
#[path = "../../src/rocks"]
pub mod rocks {
    pub mod batch_decoder;
    mod block;
    mod table;
    pub mod wal;

    use crate::error::Result;
    use crate::fs::Vfs;
    use block::Entries;
    use std::path::Path;

    /// Reads an SST file as a conversion does, but for the keys. `None`: it is left to RocksDB. Else the entries that it
    /// says it has, the blocks of its index and the bytes that its pieces have together.
    pub fn read_table(vfs: &dyn Vfs, path: &Path, bytes: u64) -> Result<Option<(u64, u64, u64)>> {
        let Some(table) = table::Table::open(vfs, false, path.into(), bytes)? else { return Ok(None) };
        let (mut window, mut index, mut block) =
            (table::Window::new(vfs, false, 4096), table::Index::default(), Vec::new());
        index.load(&table, &mut window)?;
        let mut blocks = 0;
        while index.next(&table)? {
            window.read_block(&table, index.handle, &mut block)?;
            blocks += 1;
            let Some(mut entries) = Entries::new(&block) else { continue };
            while let Some(Some(entry)) = entries.next(&block) {
                assert!(entry.delta.end == entry.value.start && entry.value.end <= block.len());
            }
        }
        let pieces = table.pieces(&mut window, 1024)?;
        Ok(Some((table.entries, blocks, pieces.iter().map(|piece| piece.bytes).sum())))
    }
}

/// The formats of an archive's objects.
#[path = "../../src/log_backup"]
pub mod log_backup {
    pub mod group;
    mod key_order;
    pub mod migration;
    pub mod names;
    pub mod net_effect;
    pub mod segment;
    pub mod segment_reader;
    pub mod stretch;
}
