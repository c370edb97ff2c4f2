//! What a place has to know of a restore beside it: whether it is over.

use crate::control;
use crate::error::{ErrorKind, Result};
use crate::fs::{FileKind, Vfs};
use crate::layout::{Layout, RESTORE_STATUS};
use serde::{Deserialize, Serialize};

/// The version of the control files of a restore that this code writes, and the only one that it reads.
pub const RESTORE_FORMAT: u32 = 1;

/// Where a restore stands, for people; and whether it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestorePhase {
    /// Nothing was done yet; of a two-phase restore, as all but running and complete.
    Pending,
    /// Its base snapshot is fetched, while a compaction of the log is waited for.
    SnapshotRestore,
    /// The log is applied.
    LogRestore,
    /// It is under way; of a two-phase restore: it is moved to its place.
    Running,
    /// The database is at its place.
    Complete,
    /// It has failed for good, and can only be given up. Its place stays closed until then.
    Failed,
}

#[cfg(feature = "log-backup")]
impl RestorePhase {
    /// Its name for people and for `--json`.
    pub fn name(self) -> &'static str {
        match self {
            RestorePhase::Pending => "pending",
            RestorePhase::SnapshotRestore => "snapshot-restore",
            RestorePhase::LogRestore => "log-restore",
            RestorePhase::Running => "running",
            RestorePhase::Complete => "complete",
            RestorePhase::Failed => "failed",
        }
    }

    /// Whether nothing is done any more.
    pub fn is_over(self) -> bool {
        matches!(self, RestorePhase::Complete | RestorePhase::Failed)
    }
}

#[derive(Deserialize)]
struct PhaseOnly {
    phase: RestorePhase,
}

/// Whether something stands at the name of a restore that is not positively over.
///
/// # Errors
/// `Io`. Nothing was changed.
pub fn is_restore_under_way(vfs: &dyn Vfs, layout: &Layout) -> Result<bool> {
    match vfs.stat(&layout.restore)?.map(|stat| stat.kind) {
        None => return Ok(false),
        Some(FileKind::Directory) => {}
        Some(_) => return Ok(true),
    }
    let path = layout.restore.join(RESTORE_STATUS);
    if vfs.stat(&path)?.is_none() {
        return Ok(true);
    }
    let step = "read the state of the restore";
    let status = vfs.read(&path, control::BYTES_MAX).and_then(|bytes| control::decode(step, &bytes, RESTORE_FORMAT));
    match status {
        Ok(PhaseOnly { phase }) => Ok(phase != RestorePhase::Complete),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => Ok(true),
        Err(error) => Err(error),
    }
}
