//! Which compactions a restore uses.
//!
//! A compaction stands for its segments where all of them are to be read and none of them is cut. Of those that overlap the
//! ones are taken that leave the fewest segments to be gone through; what lies between them is gone through.

use crate::error::Result;
use crate::log_backup::archive::Archive;
use crate::log_backup::migration::{Base, Body, CompactionBody, Key};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use uuid::Uuid;

/// A compaction that stands for a stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedRun {
    /// Its id.
    pub id: Uuid,
    /// What HEAD says of it, or would.
    pub body: CompactionBody,
    /// The URL of where it stands; `None`: with the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl PlannedRun {
    fn segments(&self) -> u64 {
        self.body.end_segment - self.body.first_segment
    }

    /// Where it stands, if the log is in `archive`.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn place(&self, archive: &Archive) -> Result<Archive> {
        self.at.as_ref().map_or_else(|| Ok(archive.clone()), |url| archive.beside(url))
    }
}

/// A compaction that was not used after all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The compactions of a timeline that stand for some of these segments, all of which are to be read whole.
pub(super) fn choose(live: &Base, timeline: Uuid, whole: Range<u64>) -> Vec<PlannedRun> {
    let within = |body: &CompactionBody| {
        body.timeline == timeline && body.first_segment >= whole.start && body.end_segment <= whole.end
    };
    let candidates = live.entries.iter().filter_map(|(key, entry)| match (key, &entry.body) {
        (Key::Compaction(id), Body::Compaction(body)) if within(body) => {
            Some(PlannedRun { id: *id, body: body.clone(), at: None })
        }
        _ => None,
    });
    best(candidates.collect())
}

/// Those that stand for the most segments without an overlap.
pub(super) fn best(mut candidates: Vec<PlannedRun>) -> Vec<PlannedRun> {
    candidates.sort_by_key(|run| (run.body.end_segment, run.body.first_segment, run.id));
    // Of the first so many: how many segments can be stood for, and whether the last of them is among those that do.
    let mut best = vec![0];
    let before =
        |run: &PlannedRun| candidates.partition_point(|other| other.body.end_segment <= run.body.first_segment);
    for run in &candidates {
        let with = best[before(run)] + run.segments();
        best.push(best[best.len() - 1].max(with));
    }
    let mut chosen = Vec::new();
    let mut left = candidates.len();
    while left > 0 {
        let run = &candidates[left - 1];
        if best[left] > best[left - 1] {
            left = before(run);
            chosen.push(run.clone());
        } else {
            left -= 1;
        }
    }
    chosen.reverse();
    chosen
}

/// Whether these could have been chosen for the segments.
pub(super) fn are_sound(runs: &[PlannedRun], timeline: Uuid, segments: Range<u64>) -> bool {
    let mut next = segments.start;
    runs.iter().all(|run| {
        let PlannedRun { body, .. } = run;
        let fits = body.timeline == timeline && body.first_segment >= next && body.first_segment < body.end_segment;
        next = body.end_segment;
        fits && next <= segments.end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_backup::migration::Migrations;
    use crate::log_backup::names::{self, ContentHash, ObjectReference};
    use proptest::prelude::*;

    fn live(timeline: Uuid, ranges: &[(u64, u64)]) -> Base {
        let mut migrations = Migrations::default();
        let result = ObjectReference { name: names::head(), size: 1, hash: ContentHash(1) };
        for (number, (first, end)) in (0..).zip(ranges) {
            let body = CompactionBody {
                name: number.to_string(),
                result: result.clone(),
                timeline,
                first_segment: *first,
                end_segment: *end,
                end_sequence: 1,
            };
            migrations.append([(Key::Compaction(Uuid::from_u128(number)), Body::Compaction(body))]).unwrap();
        }
        migrations.merged().unwrap()
    }

    /// The most segments that any set of them covers without an overlap.
    fn most(ranges: &[(u64, u64)], next: u64, end: u64) -> u64 {
        let fitting = ranges.iter().filter(|(first, last)| *first >= next && *last <= end);
        fitting.map(|(first, last)| last - first + most(ranges, *last, end)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn the_fewest_segments_are_left_and_none_is_read_that_is_cut(
            ranges in prop::collection::vec((0u64..10, 1u64..5), 0..8), first in 0u64..5, len in 0u64..10
        ) {
            let timeline = Uuid::from_u128(1);
            let ranges: Vec<_> = ranges.into_iter().map(|(first, len)| (first, first + len)).collect();
            let live = live(timeline, &ranges);
            let whole = first..first + len;
            let chosen = choose(&live, timeline, whole.clone());
            prop_assert!(are_sound(&chosen, timeline, whole.clone()));
            let covered: u64 = chosen.iter().map(PlannedRun::segments).sum();
            prop_assert_eq!(covered, most(&ranges, whole.start, whole.end));
            prop_assert!(choose(&live, Uuid::from_u128(2), whole).is_empty());
        }
    }
}
