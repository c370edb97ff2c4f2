//! How far a shard of a compaction has come: a worker that takes over from one that was killed goes on there.
//!
//! A shard is read in up to [`STRETCHES`] *stretches* of as many segments each. At the end of each but the last, what it
//! comes to is stored, and a *note* is made: an object that lists all parts of the shard so far.
//!
//! | step | after a crash here |
//! |---|---|
//! | the parts of a stretch are stored | files that nothing refers to: orphans |
//! | the note is made | the next attempt goes on behind the stretch |
//! | the result of the shard is made; it lists all parts | notes mean nothing any more |
//! | the notes are removed | some of them stand: orphans |
//!
//! Invariants:
//! - Whoever uses a compaction knows nothing of notes: they count for workers of their shard alone, and only while it has no
//!   result.
//! - A note is made under a name that is never used again, and never replaced. Attempts at one shard that run at a time make
//!   notes of their own, and the result of the one that ends first holds.
//! - A file that a note speaks of is not removed before a result stands that does not speak of it, and then by the worker
//!   that has stored it alone: another attempt may have gone on from it.
//! - A note is believed if its checksum holds, it is one of this shard, the log has its begin and its end, and every file
//!   stands in its length. If not, it is as if it were not there. Contents of files are checked by whoever uses them.
//! - One that is older than [`NOTE_AGE_MAX`] is not believed either: a sweep that began before this worker's pin was there may
//!   be removing what it speaks of.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::compaction::{Between, COMPACTION_FORMAT, Run, Spec, find, to_bytes};
use crate::log_backup::fsck::ORPHAN_AGE;
use crate::log_backup::names::{self, Kind, ObjectName};
use crate::log_backup::pin;
use crate::log_backup::segment::SegmentStart;
use crate::log_backup::tail;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The most stretches of a shard. What a log writes again and again is stored once for each of them.
pub const STRETCHES: u64 = 8;
/// What is older is not believed.
pub const NOTE_AGE_MAX: Duration = Duration::from_secs(ORPHAN_AGE.as_secs() / 2);
/// The longest note, in bytes.
pub const NOTE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// So many notes of a shard are looked at.
const NOTES_MAX: usize = 1000;

/// How far a shard has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// [`COMPACTION_FORMAT`].
    pub format: u32,
    /// The compaction.
    pub compaction: Uuid,
    /// The shard, from 1 on.
    pub shard: u32,
    /// The segment that comes next.
    pub next_segment: u64,
    /// What is stored: from the first segment of the shard to before that one.
    pub run: Run,
}

/// Where a worker goes on in its shard.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    /// The segment that comes next.
    pub next: u64,
    /// What it must begin with, if that is known.
    pub expected: Option<SegmentStart>,
    /// What is stored of those before.
    pub run: Run,
}

impl Reached {
    /// Nothing is done.
    pub(super) fn nothing(spec: &Spec, shard: u32) -> Self {
        let run = Run { bounds: None, last: None, parts: Vec::new() };
        Reached { next: spec.segments(shard).start, expected: None, run }
    }
}

/// Makes a note. One that would be too long is not made.
///
/// # Errors
/// Those of the archive; it may stand.
pub(super) fn note(out: &Archive, spec: &Spec, shard: u32, reached: &Reached) -> Result<()> {
    let name = names::compaction_progress(&spec.name, shard, Uuid::new_v4())?;
    let (format, compaction, run) = (COMPACTION_FORMAT, spec.id, reached.run.clone());
    let note = Note { format, compaction, shard, next_segment: reached.next, run };
    match to_bytes(&name, &note, NOTE_BYTES_MAX) {
        Ok((bytes, _)) => out.put_create(&name, bytes).map(|_| ()),
        Err(error) => {
            tracing::warn!(%error, "how far a shard of a compaction has come is not noted");
            Ok(())
        }
    }
}

/// Where to go on: behind the last note that can be believed.
///
/// # Errors
/// `Io`: the store could not be asked.
pub(super) fn find_reached(archive: &Archive, out: &Archive, spec: &Spec, shard: u32) -> Result<Reached> {
    let mut notes = Vec::new();
    let mut now = None;
    for listed in out.list(names::compaction_progress_of(&spec.name, shard)?.as_str())?.take(NOTES_MAX) {
        let listed = listed?;
        let now = match now {
            Some(now) => now,
            None => *now.insert(pin::store_time(out)?),
        };
        let age = Duration::from_micros(now.saturating_sub(listed.stat.modified).max(0).cast_unsigned());
        let read =
            if age > NOTE_AGE_MAX { Err(refused("it is too old")) } else { read(out, &listed.name, spec, shard) };
        if let Some(note) = believed(read, &listed.name)? {
            notes.push((listed.name, note));
        }
    }
    notes.sort_by_key(|(_, note)| std::cmp::Reverse(note.next_segment));
    for (name, note) in notes {
        if let Some(reached) = believed(stands(archive, out, spec, shard, note), &name)? {
            tracing::info!(note = %name, segment = reached.next, "a shard of a compaction goes on where it had come to");
            return Ok(reached);
        }
    }
    Ok(Reached::nothing(spec, shard))
}

/// Removes the notes of a shard that has a result. What stays behind means nothing, and is an orphan.
pub(super) fn remove(out: &Archive, spec: &Spec, shard: u32) {
    let removed = || {
        for listed in out.list(names::compaction_progress_of(&spec.name, shard)?.as_str())? {
            let name = listed?.name;
            if names::kind(&name) == Kind::Compaction {
                out.delete(&name)?;
            }
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = removed() {
        tracing::warn!(%error, shard, "notes of how far a shard had come stay in the archive");
    }
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "go on with a shard of a compaction", message)
}

/// What says something about the note, or about what it speaks of, is a reason to do without.
fn believed<T>(found: Result<T>, name: &ObjectName) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            tracing::warn!(%error, note = %name, "a note of how far a shard of a compaction had come is not used");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read(out: &Archive, name: &ObjectName, spec: &Spec, shard: u32) -> Result<Note> {
    let (_, note) = find::<Note>(out, name, NOTE_BYTES_MAX)?.ok_or_else(|| refused("it is gone"))?;
    let segments = spec.segments(shard);
    if (note.compaction, note.shard) != (spec.id, shard) {
        return Err(refused("it is one of another shard"));
    }
    if note.next_segment <= segments.start || note.next_segment >= segments.end || note.run.bounds.is_none() {
        return Err(refused("it does not end within its shard"));
    }
    let own = |name: &ObjectName| {
        names::kind(name) == Kind::Compaction && names::compaction_of(name.as_str()) == Some(spec.name.as_str())
    };
    if !note.run.own_objects().all(|object| own(&object.name)) {
        return Err(refused("it speaks of files of others"));
    }
    Ok(note)
}

/// Makes sure that the log is as the note says, and that all it speaks of stands.
fn stands(archive: &Archive, out: &Archive, spec: &Spec, shard: u32, note: Note) -> Result<Reached> {
    let first = tail::header(archive, spec.timeline, spec.segments(shard).start)?;
    let last = tail::ends(archive, spec.timeline, note.next_segment - 1)?;
    if note.run.bounds != Some((Between::before(&first.start), Between::after(&last.trailer))) {
        return Err(refused("it does not begin or end as the log does"));
    }
    for object in note.run.own_objects() {
        if out.head(&object.name)?.size != object.size {
            return Err(refused("a file is not as long as it was"));
        }
    }
    Ok(Reached { next: note.next_segment, expected: Some(last.next()), run: note.run })
}
