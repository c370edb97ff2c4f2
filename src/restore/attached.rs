//! Replacing a database that is attached to the archive that is restored from: the restored one goes on in its place, with
//! its log.
//!
//! A restored copy is attached to nothing, so that a drill never ships into the log that it came from. Here that log is what
//! it goes on with: what the replaced database has not shipped is handed over with the swap, and shipped to its end first; then
//! a new timeline begins, which goes on from the place that was restored to. What came after that place stays in the archive,
//! as the end of the replaced database's timeline.

use crate::attachment::{self, Attachment, Cause, Restored};
use crate::engine::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::log_backup::archive::Archive;
use crate::log_backup::timelines;
use crate::marker::{self, Marker};
use crate::restore::folder::{Folder, Found, Spec};
use crate::restore::plan::Plan;
use serde::Serialize;
use std::path::Path;
use uuid::Uuid;

pub(super) const STEP: &str = "move the restored database in";

/// How a restored database goes on in the archive that it was restored from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GoesOn {
    /// The timeline that it writes.
    pub timeline: Uuid,
    /// The timeline of the database that it has replaced, with all that came after the moment of the restore.
    pub replaced: Uuid,
}

fn refused(live: &Path, message: String) -> Error {
    Error::new(ErrorKind::Unsupported, STEP, message).at(live).next(format!("morphkv log detach {}", live.display()))
}

/// How the database that gives way is attached; `None` if it is not, or if there is none.
///
/// # Errors
/// `Unsupported`: it is attached to another archive; `Conflict`: a log that was handed over to it is not shipped yet; those of
/// reading. Nothing was changed.
pub(super) fn require_own_archive(vfs: &dyn Vfs, live: &Path, spec: &Spec) -> Result<Option<Attachment>> {
    if vfs.stat(live)?.is_none() {
        return Ok(None);
    }
    let Some(attachment) = attachment::read(vfs, live)? else { return Ok(None) };
    if attachment.archive != spec.archive {
        let message = format!(
            "it is attached to the log archive {}, and would go on with the log of another database, restored from {}",
            attachment.archive, spec.archive
        );
        return Err(refused(live, message));
    }
    attachment::require_shipped(vfs, live)?;
    Ok(Some(attachment))
}

/// Makes sure that the archive is that of the attached database that gives way.
///
/// # Errors
/// `Conflict`: nothing of its timeline was shipped yet, or another database has the archive; those of the archive. Nothing was
/// changed.
pub(super) fn require_current(archive: &Archive, attachment: &Attachment, live: &Path) -> Result<()> {
    timelines::require_current(archive, attachment.timeline, live)
}

/// Makes sure that what was restored is the same database as the attached one that gives way.
///
/// # Errors
/// `Unsupported`; those of reading. Nothing was changed.
pub(super) fn require_same_database(live: &Path, there: Option<&Marker>, restored: &Marker) -> Result<()> {
    if there.is_some_and(|there| there.database_id == restored.database_id) {
        return Ok(());
    }
    let message =
        "it is attached to a log archive, and what was restored is another database, which that log is not of";
    Err(refused(live, message.into()))
}

/// As [`require_same_database`], as soon as the base snapshot is there.
///
/// # Errors
/// The same.
pub(super) fn require_snapshot_of_same(vfs: &dyn Vfs, folder: &Folder, spec: &Spec) -> Result<()> {
    let live = &folder.target.live;
    if !spec.replace || vfs.stat(live)?.is_none() || attachment::read(vfs, live)?.is_none() {
        return Ok(());
    }
    match marker::read(vfs, &folder.database)? {
        Some(restored) => require_same_database(live, marker::read(vfs, live)?.as_ref(), &restored),
        None => Ok(()),
    }
}

/// The attachment of the restored database, which begins after `start_sequence`. That of the one that gives way, whose marker
/// is `there`, ends at `end_sequence`.
///
/// # Errors
/// `Unsupported`: the plan reads nothing that a timeline could go on from.
pub(super) fn successor(
    attachment: &Attachment,
    there: Option<&Marker>,
    end_sequence: u64,
    plan: &Plan,
    start_sequence: u64,
) -> Result<Attachment> {
    let sealed = there.filter(|_| attachment.cause == Cause::Conversion).map_or(0, |there| there.sealed_sequence);
    let restored = place_of(plan, attachment.start_sequence.max(sealed)).ok_or_else(|| {
        let message = "the archive has no segment that its log could go on from; nothing was touched";
        Error::new(ErrorKind::Unsupported, STEP, message).at(&attachment.archive)
    })?;
    Ok(Attachment { start_sequence, restored: Some(restored), ..attachment.successor(end_sequence, Cause::Restore) })
}

/// The place that a plan ends at, in the last timeline that it reads a segment of. Pure.
fn place_of(plan: &Plan, replaced_after: u64) -> Option<Restored> {
    let base = &plan.snapshot;
    let read = plan.legs.iter().rposition(|leg| leg.first_segment < leg.end_segment);
    let Some(index) = read else {
        // The base snapshot is all.
        let segment = base.next_segment.checked_sub(1)?;
        let (timeline, sequence, time) = (base.timeline, base.sequence, base.time);
        return Some(Restored { timeline, segment, sequence, time, replaced_after });
    };
    // Of the timelines after it nothing is read: the place is where they go on from.
    let leg = &plan.legs[index];
    let segment = leg.end_segment.checked_sub(1)?;
    let (timeline, sequence, time) = (leg.timeline, plan.reached.sequence, plan.reached.time);
    Some(Restored { timeline, segment, sequence, time, replaced_after })
}

/// How the database that a complete restore has moved in goes on, if the one that it has replaced was attached, and if it is
/// still there as it was moved in.
///
/// # Errors
/// Those of reading what stands at the target.
pub fn goes_on(target: &Path, found: &Found, options: &Options) -> Result<Option<GoesOn>> {
    let (vfs, live) = (options.file_operations()?, Folder::of(target)?.target.live);
    if !found.is_complete() || vfs.stat(&live)?.is_none() {
        return Ok(None);
    }
    let is_ours = marker::read(&*vfs, &live)?.is_some_and(|marker| marker.origin.id == found.spec.restore);
    let Some(attachment) = attachment::read(&*vfs, &live)?.filter(|_| is_ours) else { return Ok(None) };
    let replaced = attachment.parent.filter(|_| attachment.cause == Cause::Restore);
    Ok(replaced.map(|parent| GoesOn { timeline: attachment.timeline, replaced: parent.timeline }))
}
