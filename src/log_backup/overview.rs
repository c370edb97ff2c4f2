//! What an archive has, and how far a database's log has come in it: for people, and for programs as JSON.

use crate::attachment::{self, Cause};
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::layout::UNSHIPPED;
use crate::log_backup::archive::{Archive, ArchiveOptions};
use crate::log_backup::commit::load;
use crate::log_backup::head::{CommitMark, Head, Parent};
use crate::log_backup::migration::{Body, Key};
use crate::log_backup::names::{Kind, LAYOUT, kind};
use crate::log_backup::object::Listed;
use crate::log_backup::retention::wal_bytes;
use crate::log_backup::tail;
use crate::log_backup::timelines::{floor_of, latest_base};
use crate::rocks::wal::Position;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// How far a log has come in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEnd {
    /// The first segment that was not deleted.
    pub first_segment: u64,
    /// The last segment.
    pub last_segment: u64,
    /// The last sequence number.
    pub sequence: u64,
    /// The time of that, in microseconds of the Unix epoch.
    pub time: u64,
    /// The log can be restored to every time up to this one.
    pub resolved: u64,
    /// The timeline that follows, if this one has ended.
    pub successor: Option<Uuid>,
}

/// A base snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseOverview {
    /// Its id.
    pub id: Uuid,
    /// The last sequence number in it.
    pub sequence: u64,
    /// The time of that: it can be restored from here on.
    pub time: u64,
}

/// A timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineOverview {
    /// Its id.
    pub id: Uuid,
    /// Why it began.
    pub cause: Cause,
    /// Whether it goes on without a loss where its parent ended.
    pub is_derivable: bool,
    /// How its keys are encoded.
    pub encoding: String,
    /// Where it goes on from.
    pub parent: Option<Parent>,
    /// How far it has come; `None`: nothing of it is stored.
    pub end: Option<LogEnd>,
    /// Its base snapshots, the latest last.
    pub bases: Vec<BaseOverview>,
}

/// A stretch of time to every moment of which can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first time, in microseconds of the Unix epoch.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The timelines that it goes through, the oldest first.
    pub timelines: Vec<Uuid>,
    /// The times of the base snapshots in it.
    pub bases: Vec<u64>,
}

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveOverview {
    /// Its URL.
    pub url: String,
    /// Its id.
    pub archive: Uuid,
    /// How many commits there were.
    pub generation: u64,
    /// The timeline that is written.
    pub current: Uuid,
    /// All timelines.
    pub timelines: Vec<TimelineOverview>,
    /// The times that can be restored to along the current timeline, the oldest first; between two, history is lost.
    pub spans: Vec<Span>,
    /// How long ago the last moment was that can be restored to, by the clock of this machine, in seconds; `None`: there
    /// is none.
    pub lag_seconds: Option<u64>,
    /// How many objects it has.
    pub objects: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Pins, expired ones too.
    pub pins: u64,
    /// Groups of loaded files.
    pub loads: u64,
    /// Lists of objects that are on their way out.
    pub doomed_lists: u64,
}

/// What happened to an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveHistory {
    /// Its URL.
    pub url: String,
    /// The last commits, the latest last.
    pub commits: Vec<CommitMark>,
    /// Ids of layers that are folded into the base of the migrations, up to this one.
    pub folded: u64,
    /// The layers over that base.
    pub layers: Vec<LayerOverview>,
}

/// A layer of migrations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerOverview {
    /// Its id.
    pub id: u64,
    /// What it adds.
    pub entries: Vec<String>,
}

/// How far the log of a database that nobody has open has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseLog {
    /// The archive that it is attached to.
    pub archive: String,
    /// The timeline that it writes.
    pub timeline: Uuid,
    /// Why that began.
    pub cause: Cause,
    /// Whether it is the archive's current one.
    pub is_current: bool,
    /// The last sequence number of the database.
    pub last_sequence: u64,
    /// How far the timeline has come in the archive; `None`: nothing of it is stored.
    pub end: Option<LogEnd>,
    /// The latest base snapshot of the timeline.
    pub base: Option<BaseOverview>,
    /// Whether the log from before a conversion is still to be shipped.
    pub has_unshipped: bool,
    /// Bytes of all WAL files.
    pub retained_wal_bytes: u64,
}

/// Looks at an archive.
///
/// # Errors
/// `NotFound`: there is none; those of reading it.
pub fn archive(archive: &Archive) -> Result<ArchiveOverview> {
    let head = load(archive)?.head;
    let live = head.migrations.merged()?;
    let count = |kind: fn(&Key) -> bool| live.entries.keys().filter(|key| kind(key)).count() as u64;
    let timelines = head.timelines.iter().map(|timeline| {
        Ok::<_, Error>(TimelineOverview {
            id: timeline.id,
            cause: timeline.cause,
            is_derivable: timeline.is_derivable(),
            encoding: timeline.encoding.to_string(),
            parent: timeline.parent,
            end: end(archive, &head, timeline.id)?,
            bases: bases(&head, timeline.id)?,
        })
    });
    let timelines = timelines.collect::<Result<Vec<_>>>()?;
    let spans = spans(&timelines, head.current);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let lag = |span: &Span| now.saturating_sub(Duration::from_micros(span.to)).as_secs();
    let (mut objects, mut bytes, mut pins) = (0, 0, 0);
    for listed in archive.list(LAYOUT)? {
        let Listed { name, stat } = listed?;
        (objects, bytes) = (objects + 1, bytes + stat.size);
        pins += u64::from(matches!(kind(&name), Kind::Pin(_)));
    }
    Ok(ArchiveOverview {
        url: archive.url().to_owned(),
        archive: head.archive,
        generation: head.generation,
        current: head.current,
        lag_seconds: spans.last().map(lag),
        objects,
        bytes,
        pins,
        timelines,
        spans,
        loads: count(|key| matches!(key, Key::Ingested(_))),
        doomed_lists: count(|key| matches!(key, Key::Gc(_))),
    })
}

/// What happened to an archive, as far as its HEAD remembers.
///
/// # Errors
/// As [`archive`].
pub fn history(archive: &Archive) -> Result<ArchiveHistory> {
    let head = load(archive)?.head;
    let layer = |layer: &crate::log_backup::migration::Layer| LayerOverview {
        id: layer.id,
        entries: layer.entries.keys().map(Key::to_string).collect(),
    };
    Ok(ArchiveHistory {
        url: archive.url().to_owned(),
        folded: head.migrations.base.folded.last(),
        layers: head.migrations.layers.iter().map(layer).collect(),
        commits: head.commits,
    })
}

/// Looks at the log of a database that nobody has open, and at its archive. `None`: it is not attached.
///
/// # Errors
/// Those of opening it to read, and of the archive.
pub fn database(path: impl AsRef<Path>, options: ArchiveOptions) -> Result<Option<DatabaseLog>> {
    let engine = Engine::open_read_only(path, Options::new())?;
    let vfs = engine.file_operations();
    let Some(own) = attachment::read(&*vfs, engine.path())? else { return Ok(None) };
    let archive = Archive::open(&own.archive, options)?;
    let head = load(&archive)?.head;
    let known = head.timeline(own.timeline).is_ok();
    Ok(Some(DatabaseLog {
        is_current: head.current == own.timeline,
        last_sequence: engine.last_sequence(),
        end: if known { end(&archive, &head, own.timeline)? } else { None },
        base: bases(&head, own.timeline)?.pop(),
        has_unshipped: vfs.stat(&engine.path().join(UNSHIPPED))?.is_some(),
        retained_wal_bytes: wal_bytes(&*vfs, &engine, Position::default())?.0,
        archive: own.archive,
        timeline: own.timeline,
        cause: own.cause,
    }))
}

fn end(archive: &Archive, head: &Head, timeline: Uuid) -> Result<Option<LogEnd>> {
    let first_segment = floor_of(head, timeline)?;
    let Some(last_segment) = tail::last_number(archive, timeline, first_segment)? else { return Ok(None) };
    let trailer = tail::ends(archive, timeline, last_segment)?.trailer;
    Ok(Some(LogEnd {
        first_segment,
        last_segment,
        sequence: trailer.last_sequence,
        time: trailer.last_time,
        resolved: trailer.resolved,
        successor: trailer.successor,
    }))
}

fn bases(head: &Head, timeline: Uuid) -> Result<Vec<BaseOverview>> {
    if latest_base(head, timeline)?.is_none() {
        return Ok(Vec::new());
    }
    let live = head.migrations.merged()?;
    let base = |(key, entry): (&Key, &crate::log_backup::migration::Entry)| match (key, &entry.body) {
        (Key::Snapshot(id), Body::Snapshot(body)) if body.timeline == timeline => {
            Some(BaseOverview { id: *id, sequence: body.sequence, time: body.time })
        }
        _ => None,
    };
    let mut bases: Vec<_> = live.entries.iter().filter_map(base).collect();
    bases.sort_by_key(|base| base.sequence);
    Ok(bases)
}

/// The spans of the current timeline and of those that it goes on from, the oldest first. Between two of them, history
/// is lost.
fn spans(timelines: &[TimelineOverview], current: Uuid) -> Vec<Span> {
    let find = |id: Uuid| timelines.iter().find(|timeline| timeline.id == id);
    // Where each of the line ends for the one after it.
    let (mut line, mut next) = (Vec::new(), find(current).map(|timeline| (timeline, None)));
    while let Some((timeline, end)) = next.filter(|_| line.len() < timelines.len()) {
        line.push((timeline, end));
        next = timeline.parent.and_then(|parent| Some((find(parent.timeline)?, Some(parent.end.time))));
    }
    let mut spans: Vec<Span> = Vec::new();
    let mut goes_on = false;
    for (timeline, end) in line.into_iter().rev() {
        let bases: Vec<u64> = timeline.bases.iter().map(|base| base.time).collect();
        let resolved = timeline.end.as_ref().map(|end| end.resolved);
        if !(goes_on && timeline.is_derivable) {
            let Some(from) = bases.iter().min().copied() else {
                goes_on = false;
                continue;
            };
            spans.push(Span { from, to: from, timelines: Vec::new(), bases: Vec::new() });
        }
        goes_on = true;
        let Some(span) = spans.last_mut() else { continue };
        // A base tells its own time also where nothing was logged after it.
        span.to = span.to.max(end.or(resolved).unwrap_or(0)).max(bases.iter().max().copied().unwrap_or(0));
        span.timelines.push(timeline.id);
        span.bases.extend(bases);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_backup::head::LogPosition;

    fn timeline(id: u128, parent: Option<(u128, u64)>, cause: Cause, bases: &[u64], resolved: u64) -> TimelineOverview {
        let position = |time| LogPosition { segment: 0, sequence: 0, time };
        let base = |time: &u64| BaseOverview { id: Uuid::from_u128(u128::from(*time)), sequence: 0, time: *time };
        let end = LogEnd { first_segment: 0, last_segment: 0, sequence: 0, time: resolved, resolved, successor: None };
        TimelineOverview {
            id: Uuid::from_u128(id),
            cause,
            is_derivable: matches!(cause, Cause::Conversion | Cause::Restore),
            encoding: "natural".into(),
            parent: parent.map(|(id, time)| Parent { timeline: Uuid::from_u128(id), end: position(time) }),
            end: (resolved > 0).then_some(end),
            bases: bases.iter().map(base).collect(),
        }
    }

    fn found(timelines: &[TimelineOverview], current: u128) -> Vec<(u64, u64, usize, usize)> {
        let spans = spans(timelines, Uuid::from_u128(current));
        spans.iter().map(|span| (span.from, span.to, span.timelines.len(), span.bases.len())).collect()
    }

    #[test]
    fn a_conversion_goes_on_and_a_gap_does_not() {
        let timelines = [
            timeline(1, None, Cause::Init, &[10, 30], 55),
            timeline(2, Some((1, 50)), Cause::Conversion, &[], 80),
            timeline(3, Some((2, 70)), Cause::Gap, &[100], 120),
            timeline(4, Some((1, 40)), Cause::Diverged, &[200], 300),
        ];
        assert_eq!(found(&timelines, 1), [(10, 55, 1, 2)]);
        assert_eq!(found(&timelines, 2), [(10, 80, 2, 2)]);
        assert_eq!(found(&timelines, 3), [(10, 70, 2, 2), (100, 120, 1, 1)]);
        assert_eq!(found(&timelines, 4), [(10, 40, 1, 2), (200, 300, 1, 1)]);
    }

    #[test]
    fn what_has_no_base_cannot_be_restored() {
        let timelines = [
            timeline(1, None, Cause::Init, &[], 55),
            timeline(2, Some((1, 50)), Cause::Conversion, &[], 80),
            timeline(3, Some((2, 80)), Cause::Conversion, &[90], 0),
            timeline(5, Some((3, 91)), Cause::Gap, &[], 0),
        ];
        assert_eq!(found(&timelines, 2), []);
        assert_eq!(found(&timelines, 3), [(90, 90, 1, 1)]);
        assert_eq!(found(&timelines, 5), [(90, 91, 1, 1)]);
    }

    /// HEAD is checked where it is read; this must end all the same.
    #[test]
    fn parents_in_a_circle_end() {
        let timelines = [
            timeline(1, Some((2, 5)), Cause::Conversion, &[1], 9),
            timeline(2, Some((1, 5)), Cause::Conversion, &[2], 9),
        ];
        assert_eq!(spans(&timelines, Uuid::from_u128(1)).len(), 1);
    }
}
