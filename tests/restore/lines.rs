//! Plans over trees of timelines: gaps, truncation, restores, and how few segments are looked at.

use morphkv::ErrorKind;
use morphkv::Result;
use morphkv::encoding::{EncodingId, Natural};
use morphkv::log_backup::head::{Cause, Head, LogPosition, Parent, Timeline};
use morphkv::log_backup::migration::{Body, Key, SnapshotBody};
use morphkv::log_backup::names::{self, ContentHash, ObjectReference};
use morphkv::log_backup::segment::{Header, SegmentStart, Trailer};
use morphkv::log_backup::tail::Ends;
use morphkv::restore::moment::Moment;
use morphkv::restore::plan::{Limit, Log, Plan, Reached, Unreachable, plan};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error as _;
use uuid::Uuid;

/// A log in which segment n of a timeline that begins at time t holds ten frames of one number each, a time unit apart.
#[derive(Default)]
struct Regular {
    /// Where each timeline begins, and how many segments it has.
    timelines: BTreeMap<Uuid, (u64, u64)>,
    looks: Cell<u64>,
}

const FRAMES: u64 = 10;

impl Log for Regular {
    fn ends(&self, timeline: Uuid, number: u64) -> Result<Option<Ends>> {
        self.looks.set(self.looks.get() + 1);
        let Some((begin, _)) = self.timelines.get(&timeline).filter(|(_, count)| number < *count) else {
            return Ok(None);
        };
        let (first, time) = (1 + number * FRAMES, begin + number * FRAMES);
        let encoding = EncodingId::of(&Natural);
        let start =
            SegmentStart { timeline, number, encoding, first_sequence: first, floor: time, chain: ContentHash(0) };
        let header = Header { start, stored_bytes: 1, raw_bytes: 1, frames: FRAMES as u32 };
        let trailer = Trailer {
            last_sequence: first + FRAMES - 1,
            last_time: time + FRAMES - 1,
            resolved: time + FRAMES - 1,
            chain: ContentHash(1),
            successor: None,
            body: ContentHash(2),
        };
        Ok(Some(Ends { header, trailer }))
    }

    fn last_within(&self, timeline: Uuid, number: u64, limit: Limit) -> Result<Option<Reached>> {
        let (begin, _) = self.timelines[&timeline];
        let frames = (0..FRAMES)
            .map(|frame| Reached { sequence: 1 + number * FRAMES + frame, time: begin + number * FRAMES + frame });
        Ok(frames.take_while(|frame| limit.holds(frame.sequence, 1, frame.time)).last())
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn timeline(number: u128, cause: Cause, parent: Option<(u128, u64)>) -> Timeline {
    // It goes on from the end of a whole segment.
    let parent = parent.map(|(parent, segment)| {
        let sequence = (segment + 1) * FRAMES;
        let end = LogPosition { segment, sequence, time: 1000 * parent as u64 + sequence - 1 };
        Parent { timeline: id(parent), end }
    });
    Timeline { id: id(number), parent, encoding: EncodingId::of(&Natural), cause }
}

/// Timeline n begins at time 1000 n; `snapshots` are of a timeline, before a segment.
fn archive(timelines: Vec<(Timeline, u64)>, snapshots: &[(u128, u64)]) -> (Head, Regular) {
    let mut log = Regular::default();
    let mut head = Head::new(id(99), timelines[0].0.clone(), id(98));
    for (timeline, segments) in timelines {
        let begin = 1000 * timeline.id.as_u128() as u64;
        log.timelines.insert(timeline.id, (begin, segments));
        if timeline.id != head.timelines[0].id {
            head.begin_timeline(timeline).unwrap();
        }
    }
    for (number, (of, next_segment)) in snapshots.iter().enumerate() {
        let hash = ContentHash(number as u128);
        let snapshot = id(500 + number as u128);
        let manifest = ObjectReference { name: names::snapshot(snapshot, id(1)), size: 1, hash };
        let sequence = next_segment * FRAMES;
        let time = (1000 * *of as u64 + sequence).saturating_sub(1);
        let body = SnapshotBody { manifest, timeline: id(*of), sequence, time, next_segment: *next_segment };
        head.migrations.append([(Key::Snapshot(snapshot), Body::Snapshot(body))]).unwrap();
    }
    (head, log)
}

fn why(planned: Result<Plan>) -> Unreachable {
    let error = planned.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    *error.source().unwrap().downcast_ref::<Unreachable>().unwrap()
}

#[test]
fn any_moment_among_a_million_segments_is_found_with_few_looks() {
    let (head, log) = archive(vec![(timeline(1, Cause::Init, None), 1_000_000)], &[(1, 0)]);
    for segment in [0, 1, 2, 777, 500_000, 999_999] {
        for frame in [0, 4, 9] {
            log.looks.set(0);
            let time = 1000 + segment * FRAMES + frame;
            let planned = plan(&head, &log, Moment::Time(time), None).unwrap();
            assert_eq!(planned.reached, Reached { sequence: 1 + segment * FRAMES + frame, time });
            let looks = log.looks.get();
            assert!(looks <= 90, "{looks} looks for segment {segment}");
        }
    }
    assert_eq!(plan(&head, &log, Moment::Latest, None).unwrap().segments(), 1_000_000);
}

#[test]
fn the_nearest_base_at_or_before_the_moment_is_taken() {
    let (head, log) = archive(vec![(timeline(1, Cause::Init, None), 9)], &[(1, 0), (1, 3), (1, 6)]);
    for (time, base) in [(1000, 0), (1028, 0), (1029, 3), (1058, 3), (1059, 6), (1089, 6)] {
        let planned = plan(&head, &log, Moment::Time(time), None).unwrap();
        assert_eq!(planned.snapshot.next_segment, base, "{time}");
        assert_eq!(planned.reached.time, time);
    }
}

#[test]
fn a_conversion_is_gone_through_and_a_gap_is_not() {
    let line = vec![
        (timeline(1, Cause::Init, None), 3),
        (timeline(2, Cause::Conversion, Some((1, 2))), 3),
        (timeline(3, Cause::Gap, Some((2, 2))), 3),
    ];
    let (head, log) = archive(line, &[(1, 0), (3, 1)]);
    let planned = |time| plan(&head, &log, Moment::Time(time), None);
    let over = planned(2015).unwrap();
    assert_eq!(over.legs.iter().map(|leg| (leg.first_segment, leg.end_segment)).collect::<Vec<_>>(), [(0, 3), (0, 2)]);
    assert_eq!((over.timeline, over.reached), (id(2), Reached { sequence: 16, time: 2015 }));
    // Between the two nothing was written; numbers begin anew with a timeline.
    assert_eq!(planned(1500).unwrap().reached, Reached { sequence: 0, time: 1029 });
    assert_eq!(planned(2029).unwrap().timeline, id(2));
    let gap = Unreachable::Gap { from: 2029, to: Some(3009) };
    for time in [2030, 3008] {
        assert_eq!(why(planned(time)), gap, "{time}");
    }
    let after = planned(3012).unwrap();
    assert_eq!((after.timeline, after.legs.len(), after.gaps.len()), (id(3), 1, 1));
    assert_eq!(why(planned(3030)), Unreachable::Beyond { resolved: 3029 });
    let earlier = plan(&head, &log, Moment::Latest, Some(id(2))).unwrap();
    assert_eq!((earlier.timeline, earlier.gaps.len()), (id(2), 0));
}

#[test]
fn a_restored_timeline_goes_on_from_the_middle_of_another() {
    let mut restored = timeline(2, Cause::Restore, Some((1, 1)));
    // In the middle of segment 1.
    restored.parent.as_mut().unwrap().end = LogPosition { segment: 1, sequence: 15, time: 1014 };
    let (head, log) = archive(vec![(timeline(1, Cause::Init, None), 4), (restored, 2)], &[(1, 0)]);
    let planned = plan(&head, &log, Moment::Time(2003), None).unwrap();
    assert_eq!(planned.legs[0].limit, Limit { sequence: 15, time: 1014 });
    assert_eq!((planned.legs[0].end_segment, planned.legs[1].end_segment), (2, 1));
    // What the other timeline did afterwards is not of this history, and is of that one.
    let before = plan(&head, &log, Moment::Time(1025), None).unwrap();
    assert_eq!((before.timeline, before.reached), (id(2), Reached { sequence: 0, time: 1014 }));
    assert_eq!(plan(&head, &log, Moment::Time(1025), Some(id(1))).unwrap().reached.sequence, 26);
}

/// Sequence numbers begin anew with a timeline: those of the one before it say nothing.
#[test]
fn a_sequence_number_of_a_timeline_without_a_segment_is_not_there_yet() {
    let timelines = vec![(timeline(1, Cause::Init, None), 3), (timeline(2, Cause::Conversion, Some((1, 2))), 0)];
    let (head, log) = archive(timelines, &[(1, 0)]);
    for sequence in [1, 5, 30, 31] {
        let planned = plan(&head, &log, Moment::Sequence { timeline: id(2), sequence }, None);
        assert_eq!(why(planned), Unreachable::Beyond { resolved: 1029 }, "{sequence}");
    }
    assert_eq!(plan(&head, &log, Moment::Latest, None).unwrap().reached.sequence, 30);
}

#[test]
fn truncated_moments_sequences_and_missing_segments() {
    let (mut head, log) = archive(vec![(timeline(1, Cause::Init, None), 9)], &[(1, 0), (1, 3)]);
    head.migrations.raise_floor(id(1), 3);
    let first = Some(1029);
    assert_eq!(why(plan(&head, &log, Moment::Time(1020), None)), Unreachable::Before { first, truncated: true });
    let sequence = |sequence| plan(&head, &log, Moment::Sequence { timeline: id(1), sequence }, None);
    assert_eq!(sequence(41).unwrap().reached.sequence, 41);
    assert_eq!(sequence(90).unwrap().reached.sequence, 90);
    assert_eq!(why(sequence(91)), Unreachable::Beyond { resolved: 1089 });
    assert_eq!(why(sequence(29)), Unreachable::Before { first, truncated: true });
    let other = plan(&head, &log, Moment::Sequence { timeline: id(1), sequence: 41 }, Some(id(7))).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidArgument);
    assert_eq!(plan(&head, &log, Moment::Latest, Some(id(7))).unwrap_err().kind(), ErrorKind::NotFound);
    // A snapshot that knows of later segments than there are.
    let (head, log) = archive(vec![(timeline(1, Cause::Init, None), 2)], &[(1, 0), (1, 5)]);
    let missing = plan(&head, &log, Moment::Time(1019), None);
    assert_eq!(missing.unwrap().reached.time, 1019);
    let beyond = plan(&head, &log, Moment::Time(1030), None).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::Corrupt, "{beyond:?}");
}
