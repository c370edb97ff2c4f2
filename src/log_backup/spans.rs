//! Which times an archive can be restored to, along the line of its current timeline. Pure.

use crate::log_backup::overview::TimelineOverview;
use serde::Serialize;
use uuid::Uuid;

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

/// The spans of the current timeline and of those that it goes on from, the oldest first. Between two of them, history
/// is lost.
pub(super) fn spans(timelines: &[TimelineOverview], current: Uuid) -> Vec<Span> {
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
    use crate::attachment::Cause;
    use crate::log_backup::head::{LogPosition, Parent};
    use crate::log_backup::overview::{BaseOverview, LogEnd};

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
