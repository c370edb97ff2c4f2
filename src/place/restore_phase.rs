//! What a place has to know of a restore beside it: whether it is over.

use crate::control;
use crate::error::{ErrorKind, Result};
use crate::fs::{FileKind, Vfs};
use crate::layout::{Layout, RESTORE_STATUS};
use serde::{Deserialize, Serialize};

/// The version of the control files of a restore that this code writes, and the only one that it reads.
pub const RESTORE_FORMAT: u32 = 1;

/// Whether a restore is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestorePhase {
    /// It is under way.
    Running,
    /// The database is at its place.
    Complete,
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
