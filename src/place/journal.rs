//! The journal `<db>.conversion`: which change of a place is under way, and how far it has come.
//!
//! Invariants:
//! - it stands from before the first effect of a change until after the last one, and is replaced only whole;
//! - what a sibling directory means, and whether it may be removed, is read from it alone: without a journal nothing
//!   beside a database is ever touched;
//! - it is tiny (the source is a fingerprint, not a list), since each phase rewrites it;
//! - `Done` and `Kept` are durable before anybody gets a handle to the new database, so that before them the new one
//!   holds nothing that the old one lacks, and after them the old one is never put back except by `rollback`.

use crate::control;
use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs, parent_of, write_atomic};
use crate::layout::{Layout, ROCKSDB_CURRENT, ROCKSDB_IDENTITY};
use crate::marker::Marker;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

/// The version of the journal's format that this code writes, and the only one that it reads.
pub const JOURNAL_FORMAT: u32 = 1;

/// What sort of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A new, empty database.
    Create,
    /// Another key encoding.
    Convert,
    /// A snapshot or a restore moves in, over a database or into nothing.
    Install,
    /// The kept old database comes back.
    Rollback,
    /// Everything goes.
    Destroy,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Staging is being built; live is the truth.
    Building,
    /// Staging is sealed; the swap may have begun.
    Ready,
    /// The new database is live and checked; what is left is to be swept.
    Done,
    /// As Done, and the old database stays in the backup directory.
    Kept,
}

/// How much a conversion reads again before the old database is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// All of the new database is read back and compared by count and digest with what was written. The default.
    #[default]
    Full,
    /// Only the counts are compared.
    Counts,
    /// As `Full`, and the old database is read a second time, cut otherwise.
    Both,
}

/// What becomes of the old database after a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// It is removed. The default.
    #[default]
    No,
    /// It stays in the backup directory; a conversion refuses while an older one is kept.
    Yes,
    /// It stays, and takes the place of an older one.
    Replace,
}

/// Names and sizes of a RocksDB directory's own files: equal as long as nobody wrote to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// RocksDB's `IDENTITY`.
    pub identity: String,
    /// How many files: CURRENT, MANIFEST, SST and WAL files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// xxh3-128 of their names and sizes, 32 hex digits.
    pub digest: String,
    /// The MANIFEST that CURRENT names. Whoever opens a database for writing begins a new one.
    pub manifest: String,
    /// Its WAL files and their sizes: as long as the MANIFEST is this one, none may be missing or shorter.
    pub wal: BTreeMap<String, u64>,
}

impl Fingerprint {
    /// Whether this state may have come of `earlier`: with the same MANIFEST, no WAL file is missing or shorter.
    pub fn may_follow(&self, earlier: &Fingerprint) -> bool {
        let kept = |(name, len): (&String, &u64)| self.wal.get(name).is_some_and(|now| now >= len);
        self.manifest != earlier.manifest || earlier.wal.iter().all(kept)
    }
}

/// The database that a change replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The origin id of its marker; `None` for a legacy database, which has none.
    pub marker_id: Option<Uuid>,
    /// Its files when the change began.
    pub fingerprint: Fingerprint,
    /// Its last sequence number when the change began.
    pub last_sequence: u64,
}

/// The journal's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// [`JOURNAL_FORMAT`].
    pub format: u32,
    /// What sort of change.
    pub kind: Kind,
    /// How far.
    pub phase: Phase,
    /// The change's id, which the new database carries in marker and identity. A rollback has the id of the conversion
    /// that it takes back.
    pub id: Uuid,
    /// What is replaced, if anything.
    pub source: Option<Source>,
    /// The wanted encoding, if the change has one.
    pub to: Option<EncodingId>,
    /// Whether the old database stays.
    pub keep: bool,
    /// How it is verified.
    pub verify: Verify,
    /// The journal that stood before and stands again if this change is dropped: of an old database that is kept and
    /// gives way only once this change is Ready.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub older: Option<Box<Journal>>,
}

impl Journal {
    /// A journal of a change that begins.
    pub fn begin(kind: Kind, id: Uuid) -> Self {
        Journal {
            format: JOURNAL_FORMAT,
            kind,
            phase: Phase::Building,
            id,
            source: None,
            to: None,
            keep: false,
            verify: Verify::Full,
            older: None,
        }
    }

    /// The same change in another phase.
    #[must_use]
    pub fn in_phase(&self, phase: Phase) -> Self {
        Journal { phase, ..self.clone() }
    }
}

/// What stands at the journal's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalState {
    /// Nothing.
    None,
    /// Something that cannot be read as a journal of this version, and why.
    Unreadable(String),
    /// A journal.
    Read(Box<Journal>),
}

/// The bytes of a journal.
///
/// # Errors
/// `InvalidArgument` if it would be absurdly long.
pub fn to_bytes(journal: &Journal) -> Result<Vec<u8>> {
    control::encode("write the journal", journal)
}

/// Reads the bytes of a journal.
///
/// # Errors
/// `Corrupt` or `Unsupported`.
pub fn from_bytes(bytes: &[u8]) -> Result<Journal> {
    let journal: Journal = control::decode("read the journal", bytes, JOURNAL_FORMAT)?;
    let older = journal.older.as_deref();
    if older.is_some_and(|older| older.older.is_some() || older.phase != Phase::Kept || older.format != JOURNAL_FORMAT)
    {
        let message = "it names an earlier journal that cannot have stood before it";
        return Err(Error::new(ErrorKind::Corrupt, "read the journal", message));
    }
    Ok(journal)
}

/// Reads the journal of a place.
///
/// # Errors
/// `Io`: it could not be looked at. Nothing was changed.
pub fn read(vfs: &dyn Vfs, layout: &Layout) -> Result<JournalState> {
    match vfs.stat(&layout.journal)?.map(|stat| stat.kind) {
        None => return Ok(JournalState::None),
        Some(FileKind::File) => {}
        Some(_) => return Ok(JournalState::Unreadable("it is no regular file".into())),
    }
    let read = vfs.read(&layout.journal, control::BYTES_MAX).and_then(|bytes| from_bytes(&bytes));
    match read {
        Ok(journal) => Ok(JournalState::Read(Box::new(journal))),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            Ok(JournalState::Unreadable(error.message().to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// Writes or replaces the journal, durably.
///
/// # Errors
/// The old journal stands, or the new one; after a power cut either. Both must be safe to find.
pub fn write(vfs: &dyn Vfs, layout: &Layout, journal: &Journal) -> Result<()> {
    write_atomic(vfs, &layout.journal, &layout.journal_temporary, &to_bytes(journal)?)
}

/// The fingerprint of the RocksDB directory at `path`.
///
/// # Errors
/// `Io`. Nothing was changed.
pub fn fingerprint(vfs: &dyn Vfs, path: &Path) -> Result<Fingerprint> {
    let mut print = Fingerprint {
        identity: rocksdb_identity(vfs, path)?,
        files: 0,
        bytes: 0,
        digest: String::new(),
        manifest: String::new(),
        wal: BTreeMap::new(),
    };
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for name in vfs.list(path)? {
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        if !(name == ROCKSDB_CURRENT || name.starts_with("MANIFEST-") || ends(&[".sst", ".ldb", ".log", ".blob"])) {
            continue;
        }
        let Some(stat) = vfs.stat(&path.join(&name))? else { continue };
        if ends(&[".log"]) {
            print.wal.insert(name.clone(), stat.len);
        }
        print.files += 1;
        print.bytes += stat.len;
        hasher.update(format!("{name} {}\n", stat.len).as_bytes());
    }
    print.digest = format!("{:032x}", hasher.digest128());
    let current = path.join(ROCKSDB_CURRENT);
    if vfs.stat(&current)?.is_some() {
        print.manifest = String::from_utf8_lossy(&vfs.read(&current, 256)?).trim().to_owned();
    }
    Ok(print)
}

/// Makes durable what RocksDB may have left to the page cache in the directory at `path`: WAL files, MANIFEST, CURRENT. A
/// change that is to begin takes what it reads for granted, so a power cut must not take it back. Not RocksDB's `LOCK`:
/// closing it would free the lock that this process may hold.
///
/// # Errors
/// Final: what is durable is unknown. No contents were changed.
pub fn sync_source(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    for name in vfs.list(path)? {
        if name == ROCKSDB_CURRENT || name.starts_with("MANIFEST-") || name.ends_with(".log") {
            vfs.sync_file(&path.join(&name))?;
        }
    }
    vfs.sync_dir(path)
}

/// RocksDB's `IDENTITY` of the directory at `path`; empty if there is none.
///
/// # Errors
/// `Io`. Nothing was changed.
pub fn rocksdb_identity(vfs: &dyn Vfs, path: &Path) -> Result<String> {
    let identity = path.join(ROCKSDB_IDENTITY);
    match vfs.stat(&identity)? {
        Some(_) => Ok(String::from_utf8_lossy(&vfs.read(&identity, 256)?).trim().to_owned()),
        None => Ok(String::new()),
    }
}

/// What a change that begins must know of the database that it replaces.
///
/// # Errors
/// `Io`. Nothing was changed.
pub fn source(vfs: &dyn Vfs, path: &Path, marker: Option<&Marker>, last_sequence: u64) -> Result<Source> {
    Ok(Source { marker_id: marker.map(|marker| marker.origin.id), fingerprint: fingerprint(vfs, path)?, last_sequence })
}

/// Removes the journal, durably.
///
/// # Errors
/// It stands, or not; after a power cut either.
pub fn remove(vfs: &dyn Vfs, layout: &Layout) -> Result<()> {
    vfs.remove_file(&layout.journal)?;
    crate::trap::trap!(vfs, JournalDropped);
    vfs.sync_dir(&layout.parent)
}

/// The name of a kind for people.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Create => "create",
        Kind::Convert => "convert",
        Kind::Install => "install",
        Kind::Rollback => "rollback",
        Kind::Destroy => "destroy",
    }
}

/// The name of a phase for people.
pub fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Building => "building",
        Phase::Ready => "ready",
        Phase::Done => "done",
        Phase::Kept => "kept",
    }
}

/// Makes sure that the parent directory exists and is one.
///
/// # Errors
/// `NotFound`, `Io`.
pub fn require_parent(vfs: &dyn Vfs, layout: &Layout) -> Result<()> {
    let parent = parent_of(&layout.live)?;
    if vfs.stat(parent)?.is_none() {
        let message = "the directory that should hold the database does not exist";
        return Err(Error::new(ErrorKind::NotFound, "open the database", message).at(parent));
    }
    Ok(())
}
