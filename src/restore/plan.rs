//! Where a moment lies in an archive, and what of it has to be read to get there.
//!
//! A plan is a base snapshot and then stretches of the log, one for each timeline from the base's to the moment's. It is
//! made of HEAD and of a few segments: time and sequence numbers rise with the number of the segment, so the one to look
//! for is found by doubling steps and halving, without a listing.

use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::head::{Cause, Head, LogPosition, Timeline};
use crate::log_backup::migration::{Base, Body, Key, SnapshotBody};
use crate::log_backup::names::ContentHash;
use crate::log_backup::segment::Trailer;
use crate::log_backup::tail::Ends;
use crate::restore::moment::Moment;
use crate::restore::runs::{self, PlannedRun};
use crate::restore::search::{require_none_after, search};
pub use crate::restore::unreachable::Unreachable;
use crate::restore::unreachable::{not_arrived, unreachable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// So many segments without a frame are looked through for the time of the last frame.
const EMPTY_MAX: u32 = 64;

/// The first segment of a timeline.
pub const FIRST_SEGMENT: u64 = 0;

pub(super) const STEP: &str = "plan the restore";

/// A place in the log that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// The last sequence number.
    pub sequence: u64,
    /// The time of that, in the log.
    pub time: u64,
}

/// What frames are in: those that end at or before both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The last sequence number.
    pub sequence: u64,
    /// The last time.
    pub time: u64,
}

impl Limit {
    const NONE: Limit = Limit { sequence: u64::MAX, time: u64::MAX };

    fn of(end: &LogPosition) -> Self {
        Limit { sequence: end.sequence, time: end.time }
    }

    /// Whether a frame is in.
    pub fn holds(&self, first_sequence: u64, operations: u32, time: u64) -> bool {
        let next = first_sequence.saturating_add(u64::from(operations));
        next <= self.sequence.saturating_add(1) && time <= self.time
    }

    fn and(self, other: Limit) -> Self {
        Limit { sequence: self.sequence.min(other.sequence), time: self.time.min(other.time) }
    }
}

/// The archive's log, as far as planning reads it.
pub trait Log {
    /// Header and trailer of a segment; `None` if there is none of that number.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    fn ends(&self, timeline: Uuid, number: u64) -> Result<Option<Ends>>;

    /// The last frame of a segment that is within the limit; `None` if its first is not.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    fn last_within(&self, timeline: Uuid, number: u64, limit: Limit) -> Result<Option<Reached>>;

    /// Of a log whose segments arrive in any order: the first from `first` on that is not there. `None`: each was made after
    /// the one before it, so that a hole is damage.
    ///
    /// # Errors
    /// `Io`.
    fn arrived(&self, _timeline: Uuid, _first: u64) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// A stretch of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    /// The timeline.
    pub timeline: Uuid,
    /// How its keys are encoded.
    pub encoding: EncodingId,
    /// The first segment to read.
    pub first_segment: u64,
    /// The segment after the last to read.
    pub end_segment: u64,
    /// Which frames of them are in.
    pub limit: Limit,
    /// The chain after the last of these segments, if there is one.
    pub chain: Option<ContentHash>,
    /// Compactions that stand for some of these segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<PlannedRun>,
}

/// A part of the log that is lost for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The timeline that begins after it.
    pub timeline: Uuid,
    /// The last time before it.
    pub from: u64,
    /// The first time after it that can be reached.
    pub to: Option<u64>,
}

/// What has to be read, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The archive's id.
    pub archive: Uuid,
    /// The generation of the HEAD that it was made of.
    pub generation: u64,
    /// What was asked for.
    pub moment: Moment,
    /// The timeline that it lies in.
    pub timeline: Uuid,
    /// The encoding of that timeline.
    pub encoding: EncodingId,
    /// The id of the base snapshot.
    pub base: Uuid,
    /// The base snapshot.
    pub snapshot: SnapshotBody,
    /// The log after it, the oldest timeline first.
    pub legs: Vec<Leg>,
    /// Where it ends.
    pub reached: Reached,
    /// Up to this time nothing more can come that would have to be in.
    pub resolved: u64,
    /// What is lost of the history of this timeline.
    pub gaps: Vec<Gap>,
}

impl Plan {
    /// How many segments there are to be read, compactions of some of them or not.
    pub fn segments(&self) -> u64 {
        self.legs.iter().map(|leg| leg.end_segment.saturating_sub(leg.first_segment)).sum()
    }

    /// The compactions that stand for some of the segments.
    pub fn runs(&self) -> impl Iterator<Item = &PlannedRun> {
        self.legs.iter().flat_map(|leg| &leg.runs)
    }

    /// Whether it could have been made here: what is read from a disk is not believed.
    pub(super) fn is_sound(&self) -> bool {
        let consecutive = self.legs.iter().all(|leg| {
            let segments = leg.first_segment..leg.end_segment;
            segments.start <= segments.end && runs::are_sound(&leg.runs, leg.timeline, segments)
        });
        let ends = self.legs.last().is_some_and(|leg| leg.timeline == self.timeline && leg.encoding == self.encoding);
        consecutive && ends && self.legs.first().is_some_and(|leg| leg.timeline == self.snapshot.timeline)
    }
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, STEP, message)
}

/// What planning goes by.
struct Planner<'a> {
    head: &'a Head,
    live: Base,
    log: &'a dyn Log,
    moment: Moment,
    /// The timeline that was asked for, its parent, and so on.
    line: Vec<&'a Timeline>,
}

/// Finds out what has to be read for a moment. `timeline`: not the current one, but this.
///
/// # Errors
/// `NotFound` with an [`Unreachable`] as its source, or for a timeline that the archive does not have; `Corrupt`: segments
/// are missing or contradict HEAD; those of the log. Changes nothing.
pub fn plan(head: &Head, log: &dyn Log, moment: Moment, timeline: Option<Uuid>) -> Result<Plan> {
    plan_without(head, log, moment, timeline, &BTreeSet::new())
}

/// As [`plan`], but from none of these base snapshots.
pub(super) fn plan_without(
    head: &Head,
    log: &dyn Log,
    moment: Moment,
    timeline: Option<Uuid>,
    without: &BTreeSet<Uuid>,
) -> Result<Plan> {
    let own = match moment {
        Moment::Sequence { timeline, .. } => Some(timeline),
        Moment::Latest | Moment::Time(_) => None,
    };
    if let (Some(asked), Some(own)) = (timeline, own)
        && asked != own
    {
        let message = format!("the moment is one of the timeline {own}, and {asked} was asked for");
        return Err(Error::new(ErrorKind::InvalidArgument, STEP, message));
    }
    let line = head.ancestry(timeline.or(own).unwrap_or(head.current))?;
    let mut live = head.migrations.merged()?;
    live.entries.retain(|key, _| !matches!(key, Key::Snapshot(id) if without.contains(id)));
    let planner = Planner { head, live, log, moment, line };
    planner.plan()
}

impl<'a> Planner<'a> {
    fn plan(&self) -> Result<Plan> {
        let at = self.timeline_of_moment()?;
        let (from, base, snapshot) = self.base(at)?;
        let mut legs = Vec::new();
        let mut reached = Reached { sequence: snapshot.sequence, time: snapshot.time };
        let mut resolved = snapshot.time;
        for index in (at..=from).rev() {
            let first = if index == from { snapshot.next_segment } else { FIRST_SEGMENT };
            let leg = if index == at {
                self.last_leg(index == from, at, first, &mut reached, &mut resolved)?
            } else {
                let end = self.end(index).ok_or_else(|| corrupt("a timeline has no end"))?;
                let leg = self.whole_leg(index, first, &end)?;
                resolved = self.resolved_at(self.line[index].id, &end)?;
                reached = Reached { sequence: end.sequence, time: end.time };
                leg
            };
            legs.push(leg);
        }
        let timeline = self.line[at];
        Ok(Plan {
            archive: self.head.archive,
            generation: self.head.generation,
            moment: self.moment,
            timeline: timeline.id,
            encoding: timeline.encoding.clone(),
            base,
            snapshot: snapshot.clone(),
            legs,
            reached,
            resolved,
            gaps: self.gaps(),
        })
    }

    fn gaps(&self) -> Vec<Gap> {
        let lost = self.line.iter().filter(|timeline| matches!(timeline.cause, Cause::Gap | Cause::Diverged));
        let gap = |timeline: &&Timeline| {
            let from = timeline.parent?.end.time;
            let to = self.snapshots(timeline.id).map(|(_, body)| body.time).min();
            Some(Gap { timeline: timeline.id, from, to })
        };
        lost.filter_map(gap).collect()
    }

    /// Where a timeline of the ancestry ends for the one after it.
    fn end(&self, index: usize) -> Option<LogPosition> {
        let after = index.checked_sub(1)?;
        self.line[after].parent.map(|parent| parent.end)
    }

    /// What is in of a timeline, by the moment and by its end.
    fn limit(&self, index: usize) -> Limit {
        let asked = match self.moment {
            Moment::Latest => Limit::NONE,
            Moment::Time(time) => Limit { time, ..Limit::NONE },
            Moment::Sequence { sequence, .. } => Limit { sequence, ..Limit::NONE },
        };
        self.end(index).map_or(asked, |end| asked.and(Limit::of(&end)))
    }

    fn snapshots(&self, timeline: Uuid) -> impl Iterator<Item = (Uuid, &SnapshotBody)> {
        let floor = self.live.floors.get(&timeline).copied().unwrap_or(0);
        self.live.entries.iter().filter_map(move |(key, entry)| match (key, &entry.body) {
            (Key::Snapshot(id), Body::Snapshot(body)) if body.timeline == timeline && body.next_segment >= floor => {
                Some((*id, body))
            }
            _ => None,
        })
    }

    /// Up to which time a timeline is complete that ends at `end`.
    fn resolved_at(&self, timeline: Uuid, end: &LogPosition) -> Result<u64> {
        let ends = self.log.ends(timeline, end.segment)?;
        let floor = self.live.floors.get(&timeline).copied().unwrap_or(0);
        if ends.is_none() && end.segment >= floor && self.log.arrived(timeline, end.segment)?.is_some() {
            return Err(not_arrived(timeline, end.segment));
        }
        let whole = ends.filter(|ends| ends.trailer.last_sequence == end.sequence);
        Ok(whole.map_or(end.time, |ends| ends.trailer.resolved.max(end.time)))
    }

    /// Which timeline of the ancestry the moment lies in.
    fn timeline_of_moment(&self) -> Result<usize> {
        let Moment::Time(time) = self.moment else { return Ok(0) };
        for (index, timeline) in self.line.iter().enumerate() {
            let Some(parent) = timeline.parent else { return Ok(index) };
            if timeline.is_derivable() {
                if time >= parent.end.time {
                    return Ok(index);
                }
                continue;
            }
            let first = self.snapshots(timeline.id).map(|(_, body)| body.time).min();
            if first.is_some_and(|first| time >= first) {
                return Ok(index);
            }
            // What was before the oldest snapshot may have been deleted; then it is not in the earlier timeline either.
            let resolved = self.resolved_at(parent.timeline, &parent.end)?;
            if time > resolved {
                let gap = matches!(timeline.cause, Cause::Gap | Cause::Diverged | Cause::Install);
                let truncated = self.live.floors.contains_key(&timeline.id);
                let why = match gap && !truncated {
                    true => Unreachable::Gap { from: resolved, to: first },
                    false => Unreachable::Before { first, truncated },
                };
                return Err(unreachable(&self.moment, why));
            }
        }
        Ok(self.line.len() - 1)
    }

    /// The latest base snapshot from which the moment can be reached, and whose timeline it is of.
    fn base(&self, at: usize) -> Result<(usize, Uuid, &SnapshotBody)> {
        for index in at..self.line.len() {
            let timeline = self.line[index];
            let limit = self.limit(index);
            let within = |body: &&SnapshotBody| body.sequence <= limit.sequence && body.time <= limit.time;
            let best = self
                .snapshots(timeline.id)
                .filter(|(_, body)| within(body))
                .max_by_key(|(id, body)| (body.sequence, body.next_segment, *id));
            if let Some((id, body)) = best {
                return Ok((index, id, body));
            }
            if !timeline.is_derivable() {
                // Where all of this one was truncated, the next one's; none that is after the place where that goes on.
                let end = |at| self.end(at).map_or(Limit::NONE, |end| Limit::of(&end));
                let within = |at, body: &SnapshotBody| body.sequence <= end(at).sequence && body.time <= end(at).time;
                let times = |at: usize| self.snapshots(self.line[at].id).filter(move |(_, body)| within(at, body));
                let first = (0..=index).rev().find_map(|at| times(at).map(|(_, body)| body.time).min());
                let truncated = self.line[..=index].iter().any(|timeline| self.live.floors.contains_key(&timeline.id));
                return Err(unreachable(&self.moment, Unreachable::Before { first, truncated }));
            }
        }
        Err(corrupt("the first timeline goes on from none"))
    }

    fn leg(&self, index: usize, first: u64, end: u64, limit: Limit, last: Option<&Ends>) -> Leg {
        let timeline = self.line[index];
        let is_cut = |last: &Ends| {
            let Trailer { last_sequence, last_time, .. } = last.trailer;
            last_sequence > limit.sequence || (last.header.frames > 0 && last_time > limit.time)
        };
        let whole = first..end.max(first) - u64::from(last.is_some_and(is_cut));
        Leg {
            timeline: timeline.id,
            encoding: timeline.encoding.clone(),
            first_segment: first,
            end_segment: end.max(first),
            limit,
            chain: last.map(|ends| ends.trailer.chain),
            runs: runs::choose(&self.live, timeline.id, whole),
        }
    }

    /// A timeline up to where the next one goes on.
    fn whole_leg(&self, index: usize, first: u64, end: &LogPosition) -> Result<Leg> {
        let limit = Limit::of(end);
        // A base that stands at the very end.
        if end.segment < first {
            return Ok(self.leg(index, first, first, limit, None));
        }
        if let Some(missing) = self.log.arrived(self.line[index].id, first)?.filter(|next| *next <= end.segment) {
            return Err(not_arrived(self.line[index].id, missing));
        }
        let last = self.require(self.line[index].id, end.segment)?;
        if last.trailer.last_sequence < end.sequence {
            return Err(corrupt(format!("segment {} ends before its timeline does, as HEAD has it", end.segment)));
        }
        Ok(self.leg(index, first, end.segment + 1, limit, Some(&last)))
    }

    fn require(&self, timeline: Uuid, number: u64) -> Result<Ends> {
        let missing = || corrupt(format!("segment {number} of the timeline {timeline} is missing"));
        self.log.ends(timeline, number)?.ok_or_else(missing)
    }

    /// The timeline that the moment lies in. `reached` and `resolved` come in as of what was before it, and go out as of it.
    fn last_leg(
        &self,
        of_base: bool,
        index: usize,
        first: u64,
        reached: &mut Reached,
        resolved: &mut u64,
    ) -> Result<Leg> {
        let timeline = self.line[index].id;
        let (limit, end) = (self.limit(index), self.end(index));
        let arrived = self.log.arrived(timeline, first)?;
        // As far as it has not arrived it is a log that goes on.
        let end = end.filter(|end| arrived.is_none_or(|next| next > end.segment));
        let passed = |ends: &Ends| match self.moment {
            Moment::Latest => false,
            Moment::Time(time) => ends.trailer.last_time > time,
            Moment::Sequence { sequence, .. } => ends.trailer.last_sequence >= sequence,
        };
        let beyond =
            |number: u64| end.is_some_and(|end| number > end.segment) || arrived.is_some_and(|next| number >= next);
        let look = |number| self.log.ends(timeline, number);
        let (before, found) = search(&look, first, beyond, passed)?;
        let ended = found.is_none();
        let last = found.or(before);
        if let Some(last) = &last {
            *resolved = (*resolved).max(last.trailer.resolved);
        }
        let next = last.as_ref().map_or(first, |ends| ends.header.start.number + 1);
        if let Some(end) = end.filter(|_| ended) {
            // How far it goes is known: what is not there before that is missing, and not yet to come.
            if next <= end.segment {
                return Err(corrupt(format!("segment {next} of the timeline {timeline} is missing")));
            }
            *resolved = (*resolved).max(self.resolved_at(timeline, &end)?);
        }
        if let Some(last) = &last {
            if !of_base {
                // Sequence numbers begin anew with a timeline.
                reached.sequence = self.require(timeline, first)?.header.start.first_sequence - 1;
            }
            *reached = self.reached(timeline, first, last, limit, *reached)?;
        }
        let short = match self.moment {
            Moment::Latest => false,
            Moment::Time(time) => ended && time > *resolved,
            // Before its first segment `reached` is of the timeline before it, whose numbers are others.
            Moment::Sequence { sequence, .. } => ended && (reached.sequence < sequence || (last.is_none() && !of_base)),
        };
        if end.is_none() && arrived.is_none() && (short || self.moment == Moment::Latest) {
            let known = self.snapshots(timeline).any(|(_, body)| body.next_segment > next);
            require_none_after(&look, timeline, next, known)?;
        }
        if short {
            return Err(unreachable(&self.moment, Unreachable::Beyond { resolved: *resolved }));
        }
        Ok(self.leg(index, first, next, limit, last.as_ref()))
    }

    /// The last frame within the limit, in the segment with the ends `last` or before; `start` if there is none.
    fn reached(&self, timeline: Uuid, first: u64, last: &Ends, limit: Limit, start: Reached) -> Result<Reached> {
        let mut ends = last.clone();
        for _ in 0..EMPTY_MAX {
            let number = ends.header.start.number;
            let whole = Reached { sequence: ends.trailer.last_sequence, time: ends.trailer.last_time };
            let within = if ends.header.frames == 0 {
                None
            } else if whole.sequence <= limit.sequence && whole.time <= limit.time {
                Some(whole)
            } else {
                self.log.last_within(timeline, number, limit)?
            };
            match within {
                Some(within) => return Ok(within),
                None if number == first => return Ok(start),
                None => ends = self.require(timeline, number - 1)?,
            }
        }
        // An idle database: the sequence number is exact, the time is one that it was before.
        Ok(Reached { sequence: ends.trailer.last_sequence, time: ends.trailer.last_time })
    }
}
