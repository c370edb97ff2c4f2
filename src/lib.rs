//! morphkv: an embedded key-value storage engine over RocksDB whose *key encoding* can be changed at open, atomically,
//! without ever losing a key.
//!
//! The keys of a database lie on disk in a key encoding, which decides their order. Opening a database with another
//! encoding than it has *converts* it: the new database is built beside the old one, verified, sealed, and moved in,
//! while a journal, a backup directory and a marker file say at every instant what is what. Kill it, cut its power, fill
//! its disk: the next open has all keys, or says in plain words why it will not touch anything.
//!
//! ```
//! use morphkv::encoding::Hierarchical;
//! use morphkv::{Comparison, Engine, Options};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("shard-7");
//! let engine = Engine::open(&path, Options::new().create_if_missing(true))?;
//! engine.put(b"/users/ann", b"1")?;
//! engine.put(b"/users/ann/mail", b"2")?;
//! engine.put(b"/users/bob", b"3")?;
//! engine.close()?;
//!
//! // Another encoding: the database is converted, atomically, before it is opened.
//! let engine = Engine::open(&path, Options::new().encoding(Hierarchical))?;
//! // Now the children of a path lie together.
//! let children: Vec<_> = engine.keys("/users/".."/users//")?.collect::<Result<_, _>>()?;
//! assert_eq!(children, [b"/users/ann".to_vec(), b"/users/bob".to_vec()]);
//! let below = engine.lookup(b"/users/b", Comparison::Lower)?;
//! assert_eq!(below.map(|(key, _)| key), Some(b"/users/ann".to_vec()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # It is not
//! - a server, a replicated store, or a transaction manager: it is what such a thing links in;
//! - a way around RocksDB: values, compression, caching and compaction are RocksDB's own;
//! - safe on media that lie about flushes, or on network file systems: see `ARCHITECTURE.md`.
//!
//! # Limits
//! Database names have at most 230 bytes; one process has one handle to a database (cloned as often as wanted); keys of
//! the hierarchical encoding cannot hold the byte 0xFF; only bytewise databases can be written.
//!
//! # Features
//! `default` is the engine alone. `log-backup` adds the modules `log_backup` and `restore`. `cli` builds the command line. `traps`
//! adds crash traps for tests (never in a release build); it also opens the module `testing`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod attachment;
mod control;
mod conversion;
pub mod encoding;
mod engine;
mod error;
mod fs;
mod layout;
mod lock;
#[cfg(feature = "log-backup")]
pub mod log_backup;
mod marker;
mod place;
#[cfg(feature = "log-backup")]
pub mod restore;
mod rocks;
mod trap;

pub use conversion::{Content, Digest, Phase, Plan, Progress, ProgressCallback, Report};
pub use engine::{
    Batch, Children, Comparison, Engine, EngineSnapshot, Hooks, Internal, IntoEncoding, KeyRange, Keys, OnMismatch,
    Options, Range, Shards, ShardsOptions, Slice, inspect, manage,
};
pub use error::{Error, ErrorKind, Result};
pub use marker::{Marker, Origin, OriginKind, Sealed};
pub use place::journal::{Keep, Verify};
pub use rocks::{Compression, Durability, SharedMemory, Stats};

/// What tests of crash safety need: traps, recording and failing file operations, and the formats on disk.
#[cfg(feature = "traps")]
pub mod testing {
    pub use crate::attachment::{Attachment, Cause};
    pub use crate::conversion::Tuning;
    pub use crate::fs::{
        Access, EIO, ENOSPC, Fault, FaultyVfs, FileKind, Operation, PowerCutVfs, RealVfs, RecordingVfs, Space, Stat,
        Vfs,
    };
    pub use crate::layout::Layout;
    #[cfg(feature = "log-backup")]
    pub use crate::log_backup::frames;
    pub use crate::place::{decide, journal};
    pub use crate::rocks::{Database, Family, Settings, batch_decoder, wal};
    pub use crate::trap::{Trap, TrapAction, TrapPlan};

    /// The file `LOG_BACKUP`.
    pub mod attachment {
        pub use crate::attachment::*;
    }

    /// The file `KEY_ENCODING`.
    pub mod marker {
        pub use crate::marker::*;
    }
}
