//! What of an archive is needed to restore every moment from some moment on. Pure; `truncate.rs` dooms the rest.
//!
//! The moment that is asked for is rounded down to *the base*: the newest base snapshot at or below it on the ancestry of the
//! current timeline. Its time is the *horizon*. What is kept:
//!
//! | timeline | kept of it |
//! |---|---|
//! | the current one and its ancestors down to the base's | all that can be restored; of the base's, what comes after the base |
//! | any other whose log reaches the horizon | from its own newest base at or below the horizon on, and so what it goes on from |
//! | every other: nothing later than the horizon can be restored from it | nothing |
//!
//! So the rule knows no dead branches: a branch that is written no more goes by itself once the horizon has passed its end,
//! and until then every moment after the horizon can be restored from it with `--timeline`.
//!
//! Bounds are positions in the log, never times: a base needs the log from its `next_segment` on, wherever its time lies.
//! What is not known to be useless is kept.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::doom::SegmentRange;
use crate::log_backup::head::{Head, LogPosition, Timeline};
use crate::log_backup::migration::{Base, Body, Key, SnapshotBody};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The moment from which on everything is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The end of the log.
    Latest,
    /// A time, in microseconds of the Unix epoch.
    Time(u64),
    /// A sequence number of a timeline.
    Sequence {
        /// The timeline: the current one or one that it goes on from.
        timeline: Uuid,
        /// The sequence number.
        sequence: u64,
    },
}

/// Which segments a timeline has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first that was not doomed.
    pub first: u64,
    /// The one after the last.
    pub end: u64,
    /// The first that whoever writes the timeline looks at to go on: it holds the last write.
    pub resume: u64,
    /// Up to when the log is complete.
    pub resolved: u64,
}

/// From where on a timeline is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The first segment.
    pub segment: u64,
    /// The last sequence number that is not needed.
    pub sequence: u64,
}

/// What is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// The base's id.
    pub id: Uuid,
    /// The base.
    pub base: SnapshotBody,
    /// The timelines of which something is needed.
    pub timelines: BTreeMap<Uuid, Kept>,
    /// Snapshots, groups and compactions.
    pub keys: BTreeSet<Key>,
}

/// What is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doomed {
    /// Snapshots, groups and compactions.
    pub keys: BTreeSet<Key>,
    /// The first segment of each truncated timeline that stays.
    pub floors: BTreeMap<Uuid, u64>,
    /// The segments before.
    pub segments: Vec<SegmentRange>,
}

impl Doomed {
    /// Whether all is needed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.segments.is_empty()
    }
}

const WHOLE: Kept = Kept { segment: 0, sequence: 0 };

/// What is needed to restore every moment from `until` on; `None` if there is no base at or below it, and then all is. `live`
/// is what `head` has, merged.
///
/// # Errors
/// `InvalidArgument`: the moment is one of a timeline that the current one does not go on from; `NotFound` of a head that
/// contradicts itself.
pub fn needed(head: &Head, live: &Base, extents: &BTreeMap<Uuid, Extent>, until: Until) -> Result<Option<Needed>> {
    let mut search = Search { live, timelines: BTreeMap::new() };
    let Some((id, base)) = search.current(&head.ancestry(head.current)?, until)? else { return Ok(None) };
    for timeline in &head.timelines {
        let reaches = extents.get(&timeline.id).is_some_and(|extent| extent.resolved >= base.time);
        if timeline.id != head.current && reaches {
            search.other(&head.ancestry(timeline.id)?, base.time);
        }
    }
    let timelines = search.timelines;
    let is_needed = |body: &Body| match body {
        Body::Snapshot(body) => timelines.get(&body.timeline).is_some_and(|kept| body.next_segment >= kept.segment),
        // Its frame comes after this number.
        Body::Ingested(body) => timelines.get(&body.timeline).is_some_and(|kept| body.sequence >= kept.sequence),
        // It may begin before the base, as long as it ends after.
        Body::Compaction(body) => timelines.get(&body.timeline).is_some_and(|kept| body.end_segment > kept.segment),
        Body::Gc(_) => true,
    };
    let keys = live.entries.iter().filter(|(_, entry)| is_needed(&entry.body)).map(|(key, _)| *key).collect();
    Ok(Some(Needed { id, base, timelines, keys }))
}

/// The complement.
pub fn doomed(head: &Head, live: &Base, extents: &BTreeMap<Uuid, Extent>, needed: &Needed) -> Doomed {
    let mut doomed = Doomed {
        keys: live.entries.keys().filter(|key| !needed.keys.contains(key)).copied().collect(),
        ..Doomed::default()
    };
    let touched: BTreeSet<Uuid> = doomed.keys.iter().filter_map(|key| timeline_of(&live.entries[key].body)).collect();
    for timeline in &head.timelines {
        let Some(extent) = extents.get(&timeline.id) else { continue };
        let floor = match needed.timelines.get(&timeline.id) {
            // The writer needs its last write to see that it still has the same history.
            Some(kept) => kept.segment.min(extent.resume),
            None => extent.end,
        };
        let floor = floor.max(extent.first);
        if floor > extent.first {
            doomed.segments.push(SegmentRange { timeline: timeline.id, first: extent.first, end: floor });
        }
        if floor > extent.first || touched.contains(&timeline.id) {
            doomed.floors.insert(timeline.id, floor);
        }
    }
    doomed
}

fn timeline_of(body: &Body) -> Option<Uuid> {
    match body {
        Body::Snapshot(body) => Some(body.timeline),
        Body::Ingested(body) => Some(body.timeline),
        Body::Compaction(body) => Some(body.timeline),
        Body::Gc(_) => None,
    }
}

struct Search<'a> {
    live: &'a Base,
    timelines: BTreeMap<Uuid, Kept>,
}

type Snapshot<'a> = (Uuid, &'a SnapshotBody);

impl<'a> Search<'a> {
    /// The snapshots of a timeline that are not after `end`, where a later timeline goes on.
    fn snapshots(&self, timeline: Uuid, end: Option<LogPosition>) -> impl Iterator<Item = Snapshot<'a>> + use<'a> {
        let live = self.live;
        live.entries.iter().filter_map(move |(key, entry)| match (key, &entry.body) {
            (Key::Snapshot(id), Body::Snapshot(body)) if body.timeline == timeline => {
                let within = end.is_none_or(|end| body.sequence <= end.sequence && body.time <= end.time);
                within.then_some((*id, body))
            }
            _ => None,
        })
    }

    fn keep(&mut self, timeline: Uuid, kept: Kept) {
        let known = self.timelines.entry(timeline).or_insert(kept);
        known.segment = known.segment.min(kept.segment);
        known.sequence = known.sequence.min(kept.sequence);
    }

    fn keep_from(&mut self, base: &SnapshotBody) {
        self.keep(base.timeline, Kept { segment: base.next_segment, sequence: base.sequence });
    }

    /// Keeps what the current timeline and its ancestors have from the base on.
    fn current(&mut self, line: &[&Timeline], until: Until) -> Result<Option<(Uuid, SnapshotBody)>> {
        let own = match until {
            Until::Sequence { timeline, .. } => {
                let place = line.iter().position(|member| member.id == timeline);
                let message = format!("the archive's current timeline does not go on from {timeline}");
                place.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "truncate the archive", message))?
            }
            Until::Latest | Until::Time(_) => 0,
        };
        for (index, timeline) in line.iter().enumerate() {
            let at_or_below = |body: &SnapshotBody| match until {
                Until::Latest => true,
                Until::Time(time) => body.time <= time,
                Until::Sequence { sequence, .. } => index > own || (index == own && body.sequence <= sequence),
            };
            let found = newest(self.snapshots(timeline.id, end(line, index)).filter(|(_, body)| at_or_below(body)));
            if let Some((id, base)) = found {
                self.keep_from(base);
                return Ok(Some((id, base.clone())));
            }
            if !self.keep_from_oldest(timeline, end(line, index)) {
                self.keep(timeline.id, WHOLE);
            }
        }
        Ok(None)
    }

    /// What is before the oldest base of a timeline that cannot be derived is restored from nowhere, whatever is kept.
    fn keep_from_oldest(&mut self, timeline: &Timeline, end: Option<LogPosition>) -> bool {
        let oldest = self.snapshots(timeline.id, end).min_by_key(|(_, body)| body.next_segment);
        let Some((_, base)) = oldest.filter(|_| !timeline.is_derivable()) else { return false };
        self.keep_from(base);
        true
    }

    /// Keeps what a timeline that is not the current one needs for the moments from the horizon on.
    fn other(&mut self, line: &[&Timeline], horizon: u64) {
        for (index, timeline) in line.iter().enumerate() {
            let end = end(line, index);
            let below = newest(self.snapshots(timeline.id, end).filter(|(_, body)| body.time <= horizon));
            if let Some((_, base)) = below {
                return self.keep_from(base);
            }
            if self.keep_from_oldest(timeline, end) {
                return;
            }
            if timeline.is_derivable() || index == 0 {
                self.keep(timeline.id, WHOLE);
            }
            if !timeline.is_derivable() {
                return;
            }
        }
    }
}

/// Where a timeline of an ancestry ends for the one after it.
fn end(line: &[&Timeline], index: usize) -> Option<LogPosition> {
    let after = index.checked_sub(1)?;
    line[after].parent.map(|parent| parent.end)
}

fn newest<'a>(snapshots: impl Iterator<Item = Snapshot<'a>>) -> Option<Snapshot<'a>> {
    snapshots.max_by_key(|(id, body)| (body.sequence, body.next_segment, *id))
}
