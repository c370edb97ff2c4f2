//! The file `LOG_BACKUP` in a database directory: the database is attached to a log archive.
//!
//! Invariants: it is written by attaching, converting and installing, never by opening; while it stands, every build,
//! with or without the feature `log-backup`, keeps all WAL files and stamps its batches, since a build that did not
//! would lose what is not shipped yet.

use crate::control;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs, write_atomic};
use crate::layout::{INTERNAL_INGEST, LOG_BACKUP, PENDING_INGEST, ROCKSDB_ARCHIVE, TEMPORARY_SUFFIX, UNSHIPPED};
use crate::rocks::{Database, Family};
use serde::{Deserialize, Serialize};
use std::path::Path;
use uuid::Uuid;

/// The version of the file's format that this code writes, and the only one that it reads.
pub const ATTACHMENT_FORMAT: u32 = 1;

/// Why a timeline began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The database was attached.
    Init,
    /// Its encoding was changed.
    Conversion,
    /// Another database was moved in.
    Install,
    /// It was restored.
    Restore,
    /// Part of the log was lost before it was shipped.
    Gap,
    /// The database turned out to have another history than the log: it was put back to an older copy.
    Diverged,
}

/// The timeline that a timeline goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Its id.
    pub timeline: Uuid,
    /// Its last sequence number.
    pub end_sequence: u64,
}

/// The place in the log that a database was restored to, which has replaced an attached one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// The timeline that was restored from.
    pub timeline: Uuid,
    /// The last segment that was read of it.
    pub segment: u64,
    /// The last sequence number that is in.
    pub sequence: u64,
    /// The time of that, in the log.
    pub time: u64,
    /// The sequence number after which the timeline of the replaced database begins: of that nothing may be shipped yet.
    pub replaced_after: u64,
}

/// The contents of `LOG_BACKUP`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// [`ATTACHMENT_FORMAT`].
    pub format: u32,
    /// The archive's URL, without credentials.
    pub archive: String,
    /// The timeline that this directory writes.
    pub timeline: Uuid,
    /// The sequence number after which it begins.
    pub start_sequence: u64,
    /// The timeline that this directory wrote before; of a restore, the one of the database that it has replaced.
    pub parent: Option<Parent>,
    /// Why it began.
    pub cause: Cause,
    /// Of a restore: where it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The version of the format of [`Load`] that this code writes, and the only one that it reads.
pub const LOAD_FORMAT: u32 = 1;

/// How a bulk load has ended, as the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadState {
    /// It has not; the next open repeats it.
    Begun,
    /// It is in.
    Done {
        /// The last sequence number before the record that says so.
        after: u64,
    },
    /// Nothing of it is in.
    Failed {
        /// The last sequence number before the record that says so.
        after: u64,
    },
}

/// A bulk load into an attached database. The record `e/ingest` is written when it begins, after its files are durable in
/// `pending_ingest/`, and again as the very next batch when it has ended: so it has its place in the log, though its
/// entries are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// [`LOAD_FORMAT`].
    pub format: u32,
    /// Its id, and the name of its folder.
    pub group: Uuid,
    /// How many files there are: `000000.sst` and so on, in the order of their keys.
    pub files: u32,
    /// The sequence number of the record that said that it begins.
    pub sequence: u64,
    /// How it has ended.
    pub state: LoadState,
}

/// Instead of the id of the internal family: whichever family is not the caller's. For the log of a database that is not
/// at hand; an attached one has these two families and no other.
#[cfg(any(test, feature = "log-backup", feature = "traps"))]
pub const ANY_INTERNAL: u32 = u32::MAX;

const LOAD_STEP: &str = "read the record of a bulk load";

impl Load {
    /// The value of the record.
    ///
    /// # Errors
    /// None that can happen.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        control::encode("write the record of a bulk load", self)
    }

    /// Reads the value of the record.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        control::decode(LOAD_STEP, bytes, LOAD_FORMAT)
    }

    /// The last load of a database.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`: it is not known whether a load is to be repeated.
    pub fn last(database: &Database) -> Result<Option<Self>> {
        if !database.has_internal() {
            return Ok(None);
        }
        let Some(bytes) = database.get(Family::Internal, INTERNAL_INGEST)? else { return Ok(None) };
        Load::from_bytes(&bytes).map(Some).map_err(|error| error.at(database.path()))
    }

    /// What a batch of the log says of a load. `internal` is the id of the internal family there, or [`ANY_INTERNAL`].
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    #[cfg(any(test, feature = "log-backup", feature = "traps"))]
    pub fn in_batch(batch: &[u8], internal: u32) -> Result<Option<Self>> {
        use crate::rocks::batch_decoder::{Batch, DEFAULT_FAMILY, Operation};
        for operation in Batch::new(batch)?.operations() {
            if let Operation::Put { family, key: INTERNAL_INGEST, value } = operation?
                && (family == internal || (internal == ANY_INTERNAL && family != DEFAULT_FAMILY))
            {
                return Load::from_bytes(value).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether the load explains that the log goes on at `found` where `expected` was to come: it has taken what lies
    /// between, and nothing else was written meanwhile.
    #[cfg(any(test, feature = "log-backup", feature = "traps"))]
    pub fn explains(&self, expected: u64, found: u64) -> bool {
        let after = match self.state {
            LoadState::Done { after } | LoadState::Failed { after } => after,
            LoadState::Begun => return false,
        };
        self.sequence.checked_add(1) == Some(expected) && after.checked_add(1) == Some(found)
    }
}

/// Makes sure that no load is half-way in: its files are in the old encoding, and the log ends before it. For preflight;
/// opening the database has ended it.
///
/// # Errors
/// `Conflict`; those of [`Load::last`]. Nothing was changed.
pub fn require_no_load(database: &Database, step: &'static str) -> Result<()> {
    match Load::last(database)? {
        Some(Load { state: LoadState::Begun, .. }) => {
            let message = "a bulk load was interrupted; open the database once without another encoding";
            Err(Error::new(ErrorKind::Conflict, step, message).at(database.path()))
        }
        _ => Ok(()),
    }
}

/// Reads `LOG_BACKUP` of the database directory `directory`; `None` if it is not attached.
///
/// # Errors
/// `Corrupt`, `Unsupported`, `Io`: it is not known whether WAL files must be kept, so the database must not be opened
/// for writing. Nothing was changed.
pub fn read(vfs: &dyn Vfs, directory: &Path) -> Result<Option<Attachment>> {
    let path = directory.join(LOG_BACKUP);
    if vfs.stat(&path)?.is_none() {
        return Ok(None);
    }
    let bytes = vfs.read(&path, control::BYTES_MAX)?;
    control::decode("read the log backup's attachment", &bytes, ATTACHMENT_FORMAT)
        .map(Some)
        .map_err(|error| error.at(&path).next(format!("morphkv inspect {}", directory.display())))
}

/// Writes `LOG_BACKUP`, durably.
///
/// # Errors
/// The old one stands, or the new one.
pub fn write(vfs: &dyn Vfs, directory: &Path, attachment: &Attachment) -> Result<()> {
    let bytes = control::encode("write the log backup's attachment", attachment)?;
    let temporary = directory.join(format!("{LOG_BACKUP}{TEMPORARY_SUFFIX}"));
    write_atomic(vfs, &directory.join(LOG_BACKUP), &temporary, &bytes)
}

/// Makes sure that a log that was handed over is shipped: another handover would leave it behind. For preflight.
///
/// # Errors
/// `Conflict`. Nothing was changed.
pub fn require_shipped(vfs: &dyn Vfs, source: &Path) -> Result<()> {
    let earlier = source.join(UNSHIPPED);
    if vfs.stat(&earlier)?.is_none() {
        return Ok(());
    }
    let message = "the log from before the last conversion or restore is not shipped yet; nothing was touched";
    let next = format!("morphkv log ship {} --once", source.display());
    Err(Error::new(ErrorKind::Conflict, "hand the log over", message).at(earlier).next(next))
}

/// Hands the log over to staging: links every WAL file of the source, and what was loaded beside the log, into staging's
/// `unshipped/` and writes staging's
/// `LOG_BACKUP` for a new timeline. The swap then hands over data and log in one.
///
/// # Errors
/// Staging holds some of it; staging is not sealed.
pub fn hand_over(
    vfs: &dyn Vfs,
    source: &Path,
    staging: &Path,
    attachment: &Attachment,
    end_sequence: u64,
) -> Result<()> {
    link_log(vfs, source, staging)?;
    write(vfs, staging, &attachment.successor(end_sequence, Cause::Conversion))
}

/// As [`hand_over`], to a restored database in staging, which `successor` is the attachment of.
///
/// # Errors
/// Staging holds some of it; staging is not sealed.
#[cfg(feature = "log-backup")]
pub fn hand_over_to(vfs: &dyn Vfs, source: &Path, staging: &Path, successor: &Attachment) -> Result<()> {
    link_log(vfs, source, staging)?;
    write(vfs, staging, successor)
}

impl Attachment {
    /// The attachment of what takes the place of this directory, whose log ends at `end_sequence`: a new timeline.
    pub fn successor(&self, end_sequence: u64, cause: Cause) -> Attachment {
        Attachment {
            format: ATTACHMENT_FORMAT,
            archive: self.archive.clone(),
            timeline: Uuid::new_v4(),
            start_sequence: 0,
            parent: Some(Parent { timeline: self.timeline, end_sequence }),
            cause,
            restored: None,
        }
    }
}

fn link_log(vfs: &dyn Vfs, source: &Path, staging: &Path) -> Result<()> {
    let unshipped = staging.join(UNSHIPPED);
    vfs.make_dir(&unshipped)?;
    link_wal_files(vfs, source, &unshipped)?;
    let archive = source.join(ROCKSDB_ARCHIVE);
    if vfs.stat(&archive)?.is_some_and(|stat| stat.kind == FileKind::Directory) {
        link_wal_files(vfs, &archive, &unshipped)?;
    }
    link_loads(vfs, &source.join(PENDING_INGEST), &unshipped.join(PENDING_INGEST))?;
    vfs.sync_dir(&unshipped)
}

/// Links the files of the loads that are not shipped. A folder that the log does not know of is left behind.
fn link_loads(vfs: &dyn Vfs, from: &Path, to: &Path) -> Result<()> {
    if vfs.stat(from)?.is_none() {
        return Ok(());
    }
    vfs.make_dir(to)?;
    for group in vfs.list(from)?.iter().filter(|group| !group.ends_with(TEMPORARY_SUFFIX)) {
        vfs.make_dir(&to.join(group))?;
        for name in vfs.list(&from.join(group))? {
            let link = to.join(group).join(&name);
            vfs.hard_link(&from.join(group).join(&name), &link)?;
            vfs.sync_file(&link)?;
        }
        vfs.sync_dir(&to.join(group))?;
    }
    vfs.sync_dir(to)
}

fn link_wal_files(vfs: &dyn Vfs, from: &Path, to: &Path) -> Result<()> {
    for name in vfs.list(from)? {
        let numbered = name.strip_suffix(".log").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if numbered {
            let link = to.join(&name);
            vfs.hard_link(&from.join(&name), &link)?;
            vfs.sync_file(&link)?;
        }
    }
    Ok(())
}
