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
#[path = "../../src/trap.rs"]
pub mod trap;

/// The part of `place` that reads a file.
#[path = "../../src/place"]
pub mod place {
    pub mod journal;
}

/// The part of `rocks` that reads the write-ahead log, which does not need RocksDB.
#[path = "../../src/rocks"]
pub mod rocks {
    pub mod batch_decoder;
    pub mod wal;
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
