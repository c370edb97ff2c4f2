//! The file `LOG_BACKUP` in a database directory: the database is attached to a log archive.
//!
//! Invariants: it is written by attaching, converting and installing, never by opening; while it stands, every build,
//! with or without the feature `log-backup`, keeps all WAL files and stamps its batches, since a build that did not
//! would lose what is not shipped yet.

use crate::control;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs, write_atomic};
use crate::layout::{LOG_BACKUP, ROCKSDB_ARCHIVE, TEMPORARY_SUFFIX, UNSHIPPED};
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
    /// What it goes on from.
    pub parent: Option<Parent>,
    /// Why it began.
    pub cause: Cause,
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

/// Makes sure that an earlier conversion's log is shipped: another conversion would leave it behind. For preflight.
///
/// # Errors
/// `Conflict`. Nothing was changed.
pub fn require_shipped(vfs: &dyn Vfs, source: &Path) -> Result<()> {
    let earlier = source.join(UNSHIPPED);
    if vfs.stat(&earlier)?.is_none() {
        return Ok(());
    }
    let message = "the log from before the last conversion is not shipped yet; nothing was touched";
    Err(Error::new(ErrorKind::Conflict, "hand the log over", message).at(earlier))
}

/// Hands the log over to staging: links every WAL file of the source into staging's `unshipped/` and writes staging's
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
    let unshipped = staging.join(UNSHIPPED);
    vfs.make_dir(&unshipped)?;
    link_wal_files(vfs, source, &unshipped)?;
    let archive = source.join(ROCKSDB_ARCHIVE);
    if vfs.stat(&archive)?.is_some_and(|stat| stat.kind == FileKind::Directory) {
        link_wal_files(vfs, &archive, &unshipped)?;
    }
    vfs.sync_dir(&unshipped)?;
    let successor = Attachment {
        format: ATTACHMENT_FORMAT,
        archive: attachment.archive.clone(),
        timeline: Uuid::new_v4(),
        start_sequence: 0,
        parent: Some(Parent { timeline: attachment.timeline, end_sequence }),
        cause: Cause::Conversion,
    };
    write(vfs, staging, &successor)
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
