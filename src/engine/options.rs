//! How a database is opened: a builder.

use super::Hooks;
use crate::conversion::{ProgressCallback, Tuning};
use crate::encoding::{EncodingId, Encodings, KeyEncoding};
use crate::error::Result;
#[cfg(feature = "traps")]
use crate::fs::PowerCutVfs;
use crate::fs::{RealVfs, Vfs};
use crate::place::journal::{Keep, Verify};
use crate::rocks::{Compression, Durability, Settings, SharedMemory};
#[cfg(feature = "traps")]
use crate::trap::TrapPlan;
use std::fmt;
use std::sync::Arc;

/// What happens when a database lies in another encoding than the one that [`Options::encoding`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum OnMismatch {
    /// It is converted. The default.
    #[default]
    Convert,
    /// Opening fails with `Conflict`; nothing is touched.
    Refuse,
}

/// An encoding, by value or shared.
pub trait IntoEncoding {
    /// The encoding, shared.
    fn into_encoding(self) -> Arc<dyn KeyEncoding>;
}

impl IntoEncoding for Arc<dyn KeyEncoding> {
    fn into_encoding(self) -> Arc<dyn KeyEncoding> {
        self
    }
}

impl<E: KeyEncoding> IntoEncoding for E {
    fn into_encoding(self) -> Arc<dyn KeyEncoding> {
        Arc::new(self)
    }
}

/// The memory that a conversion may use on top of the open engine, unless told otherwise, in bytes.
const MEMORY_BYTES: usize = 256 << 20;

/// How a database is opened.
///
/// ```
/// use morphkv::encoding::Hierarchical;
/// use morphkv::{Durability, Options};
///
/// let options = Options::new().encoding(Hierarchical).create_if_missing(true).durability(Durability::Buffered);
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) encoding: Option<Arc<dyn KeyEncoding>>,
    pub(crate) registered: Vec<Arc<dyn KeyEncoding>>,
    pub(crate) create_if_missing: bool,
    pub(crate) durability: Durability,
    pub(crate) cache_bytes: usize,
    pub(crate) write_buffer_bytes: usize,
    pub(crate) shared: Option<SharedMemory>,
    pub(crate) compression: Compression,
    pub(crate) verify: Verify,
    pub(crate) keep_backup: Keep,
    pub(crate) memory_bytes: usize,
    pub(crate) parallelism: usize,
    pub(crate) on_mismatch: OnMismatch,
    pub(crate) progress: Option<ProgressCallback>,
    pub(crate) hooks: Option<Arc<dyn Hooks>>,
    pub(crate) tuning: Tuning,
    #[cfg(feature = "traps")]
    pub(crate) vfs: Option<Arc<dyn Vfs>>,
}

impl Default for Options {
    fn default() -> Self {
        let settings = Settings::default();
        Options {
            encoding: None,
            registered: Vec::new(),
            create_if_missing: false,
            durability: Durability::default(),
            cache_bytes: settings.cache_bytes,
            write_buffer_bytes: settings.write_buffer_bytes,
            shared: None,
            compression: Compression::default(),
            verify: Verify::default(),
            keep_backup: Keep::default(),
            memory_bytes: MEMORY_BYTES,
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            on_mismatch: OnMismatch::default(),
            progress: None,
            hooks: None,
            tuning: Tuning::default(),
            #[cfg(feature = "traps")]
            vfs: None,
        }
    }
}

impl Options {
    /// The defaults: an existing database, in the encoding that it is in, each write synced.
    pub fn new() -> Self {
        Self::default()
    }

    /// The encoding that the database is to be in. A database in another one is converted, or refused, as
    /// [`Options::on_mismatch`] says. Unset: an existing database stays as it is, a new one is `natural`.
    #[must_use]
    pub fn encoding(mut self, encoding: impl IntoEncoding) -> Self {
        self.encoding = Some(encoding.into_encoding());
        self
    }

    /// An encoding of the application's own that a database may be in, without asking for it.
    #[must_use]
    pub fn register(mut self, encoding: impl IntoEncoding) -> Self {
        self.registered.push(encoding.into_encoding());
        self
    }

    /// Whether a database that is not there is made. Default: no, since a missing one is more often a wrong path.
    #[must_use]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// How durable a write is when its call returns. Default: [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Bytes of block cache, unless memory is [shared](Options::shared). Default: 64 MiB.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Bytes of one memtable. Default: 32 MiB.
    #[must_use]
    pub fn write_buffer_bytes(mut self, bytes: usize) -> Self {
        self.write_buffer_bytes = bytes;
        self
    }

    /// A block cache and a budget of write buffers that several databases share; [`Shards`](super::Shards) sets it.
    #[must_use]
    pub fn shared(mut self, memory: SharedMemory) -> Self {
        self.shared = Some(memory);
        self
    }

    /// Compression of new SST files. Default: LZ4.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How a conversion proves its work. Default: [`Verify::Full`].
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Whether a conversion keeps the old database. Default: [`Keep::No`].
    #[must_use]
    pub fn keep_backup(mut self, keep: Keep) -> Self {
        self.keep_backup = keep;
        self
    }

    /// Bytes of memory that a conversion may use on top of the open engine, and the log that a restore applies. Default:
    /// 256 MiB.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Threads of a conversion, of RocksDB's background work, and of opening files at start. Default: the available cores.
    #[must_use]
    pub fn parallelism(mut self, threads: usize) -> Self {
        self.parallelism = threads.max(1);
        self
    }

    /// What happens when the database lies in another encoding than the named one. Default: [`OnMismatch::Convert`].
    #[must_use]
    pub fn on_mismatch(mut self, on_mismatch: OnMismatch) -> Self {
        self.on_mismatch = on_mismatch;
        self
    }

    /// Called about ten times a second while a conversion, or a scan of all of the database, runs.
    #[must_use]
    pub fn progress(mut self, callback: ProgressCallback) -> Self {
        self.progress = Some(callback);
        self
    }

    /// What a layer above the engine answers and learns.
    #[must_use]
    pub fn hooks(mut self, hooks: Arc<dyn Hooks>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// The file operations, for tests that fail them or cut the power between them.
    #[cfg(feature = "traps")]
    #[must_use]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = Some(vfs);
        self
    }

    /// How the work of a conversion is divided, for tests that want many small pieces of it.
    #[cfg(feature = "traps")]
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// The file operations to use.
    pub(crate) fn file_operations(&self) -> Result<Arc<dyn Vfs>> {
        #[cfg(feature = "traps")]
        if let Some(vfs) = &self.vfs {
            return Ok(vfs.clone());
        }
        #[cfg(feature = "traps")]
        {
            let plan = Arc::new(TrapPlan::from_env()?);
            if plan.cuts_power() {
                return Ok(Arc::new(PowerCutVfs::new(Arc::new(RealVfs::default()), plan)));
            }
        }
        Ok(Arc::new(RealVfs::new()?))
    }

    /// How RocksDB opens it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            compression: self.compression,
            cache_bytes: self.cache_bytes,
            write_buffer_bytes: self.write_buffer_bytes,
            shared: self.shared.clone(),
            parallelism: self.parallelism,
            ..Settings::default()
        }
    }

    /// Every encoding that is known: the builtin ones, the registered ones and the wanted one.
    pub(crate) fn encodings(&self) -> Result<Encodings> {
        let mut known = Encodings::builtin();
        let own = self.registered.iter().chain(&self.encoding);
        for encoding in own {
            // The wanted one may be builtin, or registered too.
            let id = EncodingId::of(&**encoding);
            if !known.ids().any(|known| *known == id) {
                known.register(encoding.clone())?;
            }
        }
        Ok(known)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |encoding: &Arc<dyn KeyEncoding>| EncodingId::of(&**encoding).to_string();
        f.debug_struct("Options")
            .field("encoding", &self.encoding.as_ref().map(id))
            .field("registered", &self.registered.iter().map(id).collect::<Vec<_>>())
            .field("create_if_missing", &self.create_if_missing)
            .field("durability", &self.durability)
            .field("cache_bytes", &self.cache_bytes)
            .field("write_buffer_bytes", &self.write_buffer_bytes)
            .field("shared", &self.shared)
            .field("compression", &self.compression)
            .field("verify", &self.verify)
            .field("keep_backup", &self.keep_backup)
            .field("memory_bytes", &self.memory_bytes)
            .field("parallelism", &self.parallelism)
            .field("on_mismatch", &self.on_mismatch)
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Hierarchical, Natural};

    #[test]
    fn an_encoding_may_be_named_by_value_shared_and_twice() {
        let shared: Arc<dyn KeyEncoding> = Arc::new(Natural);
        let options = Options::new().encoding(Hierarchical).register(shared.clone()).register(shared);
        assert_eq!(options.encodings().unwrap().ids().count(), 3);
        assert!(format!("{options:?}").contains("hierarchical r1"));
    }

    #[test]
    fn words_on_disk_are_in_kebab_case() {
        let words = [Verify::Full, Verify::Counts, Verify::Both].map(|word| serde_json::to_string(&word).unwrap());
        assert_eq!(words, [r#""full""#, r#""counts""#, r#""both""#]);
        assert_eq!(serde_json::from_str::<Keep>(r#""replace""#).unwrap(), Keep::Replace);
        assert!(serde_json::from_str::<Keep>(r#""Replace""#).is_err());
    }
}
