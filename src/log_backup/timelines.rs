//! Which timeline a database writes: what its `LOG_BACKUP` says, and what the archive's HEAD knows of it.
//!
//! Invariants: `LOG_BACKUP` names a timeline before HEAD knows it, so each step can be repeated under the same id; only
//! whoever writes HEAD's current timeline goes on from it, so of a database and its copy one is refused.

use crate::attachment::{self, ATTACHMENT_FORMAT, Attachment, Cause};
use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::{commit, create, load};
use crate::log_backup::head::{Head, LogPosition, Parent, Timeline};
use crate::log_backup::migration::{Base, Body, SnapshotBody};
use crate::log_backup::tail;
use crate::trap::trap;
use std::path::Path;
use uuid::Uuid;

const STEP: &str = "go on with a timeline of the archive";

/// Reads `LOG_BACKUP`, and makes sure that it speaks of this archive.
///
/// # Errors
/// `Refused`: the database is not attached; `InvalidArgument`: to another archive; those of reading it.
pub(super) fn attachment_of(vfs: &dyn Vfs, live: &Path, archive: &Archive) -> Result<Attachment> {
    let step = "ship the log";
    let Some(attachment) = attachment::read(vfs, live)? else {
        let next = format!("morphkv log attach {} --archive {}", live.display(), archive.url());
        let message = "the database is not attached to a log archive";
        return Err(Error::new(ErrorKind::Refused, step, message).at(live).next(next));
    };
    if attachment.archive != archive.url() {
        let message = format!("the database is attached to {}, not to {}", attachment.archive, archive.url());
        return Err(Error::new(ErrorKind::InvalidArgument, step, message).at(live));
    }
    Ok(attachment)
}

/// Makes sure that HEAD knows the timeline, and that it is the current one. Of a handover, `handover.rs` has seen to it.
///
/// # Errors
/// `Conflict`: another database writes the archive. Repeat after any other.
#[cfg_attr(not(feature = "traps"), allow(unused_variables))] // The file operations carry the traps alone.
pub(super) fn ensure(archive: &Archive, vfs: &dyn Vfs, own: &Attachment, encoding: &EncodingId) -> Result<Head> {
    let head = match load(archive) {
        Err(error) if error.kind() == ErrorKind::NotFound && own.cause == Cause::Init => {
            let first = Timeline { id: own.timeline, parent: None, encoding: encoding.clone(), cause: Cause::Init };
            let head = create(archive, first, own.timeline)?;
            trap!(vfs, ShipTimelineBegun);
            head
        }
        loaded => loaded?.head,
    };
    if head.timelines.iter().any(|timeline| timeline.id == own.timeline) {
        return Ok(head);
    }
    let goes_on = matches!(own.cause, Cause::Gap | Cause::Diverged);
    let Some(parent) = own.parent.filter(|_| goes_on) else { return Err(taken(archive, &head, own.timeline)) };
    if !may_follow(archive, &head, parent.timeline)? {
        return Err(taken(archive, &head, own.timeline));
    }
    let timeline = Timeline {
        id: own.timeline,
        parent: end_of(archive, &head, parent.timeline)?,
        encoding: encoding.clone(),
        cause: own.cause,
    };
    let head = commit_timeline(archive, &timeline, &head)?;
    trap!(vfs, ShipTimelineBegun);
    Ok(head)
}

/// Whether a timeline may go on from `parent`: it is the current one, or it has ended and its database was rolled back.
///
/// # Errors
/// Those of the archive.
pub(super) fn may_follow(archive: &Archive, head: &Head, parent: Uuid) -> Result<bool> {
    if head.current == parent {
        return Ok(true);
    }
    let Some(last) = tail::last_number(archive, parent, floor_of(head, parent)?)? else { return Ok(false) };
    Ok(tail::ends(archive, parent, last)?.trailer.successor == Some(head.current))
}

/// Makes sure that whoever writes a timeline is still the one that the archive is of: another one can be begun after it.
///
/// # Errors
/// `Conflict`: HEAD does not know it yet, or another database writes the archive; those of the archive.
pub(crate) fn require_current(archive: &Archive, timeline: Uuid, live: &Path) -> Result<()> {
    let head = load(archive)?.head;
    if head.timeline(timeline).is_err() {
        let message = format!("the archive does not know its timeline {timeline}: nothing of it was shipped yet");
        let next = format!("morphkv log ship {} --once", live.display());
        return Err(Error::new(ErrorKind::Conflict, STEP, message).at(live).next(next));
    }
    if may_follow(archive, &head, timeline)? {
        return Ok(());
    }
    Err(taken(archive, &head, timeline).at(live).next(format!("morphkv log detach {}", live.display())))
}

/// Adds a timeline to HEAD, once, as long as what it goes on from is still what it was.
///
/// # Errors
/// `Conflict`: another database was faster.
pub(super) fn commit_timeline(archive: &Archive, timeline: &Timeline, seen: &Head) -> Result<Head> {
    commit(archive, |head| {
        if head.timelines.iter().any(|known| known.id == timeline.id) {
            return Ok(head.clone());
        }
        if head.current != seen.current {
            return Err(taken(archive, head, timeline.id));
        }
        let mut head = head.clone();
        head.begin_timeline(timeline.clone())?;
        Ok(head)
    })
}

/// Where a timeline ends now, as what another goes on from; `None` if nothing of it stands.
///
/// # Errors
/// Those of the archive.
pub(super) fn end_of(archive: &Archive, head: &Head, timeline: Uuid) -> Result<Option<Parent>> {
    if head.timeline(timeline).is_err() {
        return Ok(None);
    }
    let Some(last) = tail::last_number(archive, timeline, floor_of(head, timeline)?)? else { return Ok(None) };
    let trailer = tail::ends(archive, timeline, last)?.trailer;
    let end = LogPosition { segment: last, sequence: trailer.last_sequence, time: trailer.last_time };
    Ok(Some(Parent { timeline, end }))
}

/// The first segment of a timeline that was not deleted.
///
/// # Errors
/// `Corrupt`.
pub(super) fn floor_of(head: &Head, timeline: Uuid) -> Result<u64> {
    Ok(head.migrations.merged()?.floors.get(&timeline).copied().unwrap_or(0))
}

/// The time that no frame of a timeline is before, as what it goes on from says; 0 if that is not known.
///
/// # Errors
/// Those of the archive.
pub(super) fn first_time(archive: &Archive, timeline: &Timeline) -> Result<u64> {
    let Some(Parent { timeline, end }) = timeline.parent else { return Ok(0) };
    match tail::ends(archive, timeline, end.segment) {
        Ok(ends) => Ok(ends.next().floor),
        // Truncated since.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(end.time.saturating_add(1)),
        Err(error) => Err(error),
    }
}

/// The latest base snapshot of a timeline.
///
/// # Errors
/// `Corrupt`.
pub(super) fn latest_base(head: &Head, timeline: Uuid) -> Result<Option<SnapshotBody>> {
    Ok(bases(head, timeline)?.into_iter().max_by_key(|body| body.sequence))
}

fn bases(head: &Head, timeline: Uuid) -> Result<Vec<SnapshotBody>> {
    let live = head.migrations.merged()?;
    let bodies = live.entries.values().filter_map(|entry| match &entry.body {
        Body::Snapshot(body) if body.timeline == timeline => Some(body.clone()),
        _ => None,
    });
    Ok(bodies.collect())
}

/// The last segment of a timeline that HEAD speaks of; `live` is what it has, merged.
pub(super) fn known_last(head: &Head, live: &Base, timeline: Uuid) -> Option<u64> {
    let parents = head.timelines.iter().filter_map(|later| later.parent);
    let ends = parents.filter(|parent| parent.timeline == timeline).map(|parent| parent.end.segment);
    let bases = live.entries.values().filter_map(|entry| match &entry.body {
        Body::Snapshot(body) if body.timeline == timeline => body.next_segment.checked_sub(1),
        _ => None,
    });
    ends.chain(bases).max()
}

/// Whether nothing of a timeline can be restored before it has a base snapshot of its own.
///
/// # Errors
/// `Corrupt`, `NotFound`.
pub(super) fn lacks_base(head: &Head, timeline: Uuid) -> Result<bool> {
    // Of an earlier timeline only what is before the place that the next one goes on from.
    let mut end: Option<LogPosition> = None;
    for timeline in head.ancestry(timeline)? {
        let floor = floor_of(head, timeline.id)?;
        let reaches = |body: &SnapshotBody| {
            body.next_segment >= floor && end.is_none_or(|end| body.sequence <= end.sequence && body.time <= end.time)
        };
        if bases(head, timeline.id)?.iter().any(reaches) {
            return Ok(false);
        }
        if !timeline.is_derivable() {
            return Ok(true);
        }
        end = timeline.parent.map(|parent| parent.end);
    }
    Ok(true)
}

/// Tells the database that it goes on in a new timeline, which begins after `sequence`.
///
/// # Errors
/// The old `LOG_BACKUP` stands, or the new one.
pub(super) fn note_next(vfs: &dyn Vfs, live: &Path, own: &Attachment, cause: Cause, sequence: u64) -> Result<()> {
    let parent = attachment::Parent { timeline: own.timeline, end_sequence: sequence };
    let next = Attachment {
        format: ATTACHMENT_FORMAT,
        archive: own.archive.clone(),
        timeline: Uuid::new_v4(),
        start_sequence: sequence,
        parent: Some(parent),
        cause,
        restored: None,
    };
    attachment::write(vfs, live, &next)?;
    trap!(vfs, ShipTimelineNoted);
    Ok(())
}

/// Another database writes the archive.
pub(super) fn taken(archive: &Archive, head: &Head, own: Uuid) -> Error {
    let message = format!(
        "the archive's current timeline is {}, this database writes {own}: another database, or another copy of this one, \
         has taken over; nothing was shipped, and no data is lost here",
        head.current
    );
    Error::new(ErrorKind::Conflict, STEP, message).at(archive.url()).next("morphkv log detach DB, then attach it anew")
}
