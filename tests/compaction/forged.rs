//! Compactions of a log that is not what it was, or whose compactions do not meet.

use crate::common::{options, scratch};
use crate::runs::{compact_all, compactions, request, small, work};
use crate::source::{check, forged};
use morphkv::log_backup::commit::{commit, load};
use morphkv::log_backup::compact::{State as Progress, Until};
use morphkv::log_backup::migration::{Body, Key};
use morphkv::log_backup::names;
use morphkv::restore::moment::Moment;

/// Nothing but the chain of hashes tells of it.
#[test]
fn a_segment_of_another_history_fails_its_shard() {
    let source = small();
    let sound = compact_all(&source, "sound", 1, Until::Latest).unwrap();
    let mut exchanged = 0;
    for number in sound.first_segment..sound.end_segment - 1 {
        let name = names::segment(source.timeline, number).unwrap();
        let path = source.directory.path().join("archive").join(name.as_str());
        let good = std::fs::read(&path).unwrap();
        let Some(other) = forged(&good) else { continue };
        std::fs::write(&path, other).unwrap();
        let directory = scratch();
        let report = work(&source, request(&format!("exchanged-{number}"), 1, 1, directory.path())).unwrap();
        let failure = report.failure.unwrap_or_default();
        assert!(failure.starts_with("Corrupt: ") && report.state == Progress::Failed, "{number}: {failure}");
        std::fs::write(&path, good).unwrap();
        exchanged += 1;
    }
    assert!(exchanged >= 6, "{exchanged}");
    assert_eq!(compactions(&source).len(), 1);
}

/// Two compactions of one timeline, from two base snapshots, of which the later one is gone: what lies between them is in
/// neither.
#[test]
fn a_hole_between_compactions_is_gone_through() {
    let mut source = small();
    compact_all(&source, "one", 2, Until::Latest).unwrap();
    source.put("/hole", "1");
    source.put("/key/0", "written in the hole");
    source.snapshot();
    source.put("/later", "2");
    source.ship(None);
    compact_all(&source, "two", 2, Until::Latest).unwrap();
    source.put("/last", "3");
    source.ship(None);
    let live = load(&source.archive).unwrap().head.migrations.merged().unwrap();
    let bases = live.entries.iter().filter_map(|(key, entry)| match (key, &entry.body) {
        (Key::Snapshot(_), Body::Snapshot(body)) => Some((body.sequence, *key)),
        _ => None,
    });
    let newest = bases.max().unwrap().1;
    commit(&source.archive, |head| {
        let mut head = head.clone();
        head.migrations.remove(&[newest])?;
        Ok(head)
    })
    .unwrap();
    let latest = source.states.last().unwrap().clone();
    let found = check(&source, Moment::Latest, options(), &latest, "over a hole");
    let runs: Vec<_> = found.plan.runs().map(|run| &run.body).collect();
    assert!(runs.len() == 2 && runs[0].end_segment < runs[1].first_segment, "{runs:?}");
    assert_eq!(found.status.left_out, []);
}

/// The moment lies between two writes of its last segment.
#[test]
fn a_compaction_whose_last_segment_is_cut_is_not_used() {
    let source = small();
    let mut cut = 0;
    for (number, end) in source.states.iter().enumerate() {
        let Ok(_) = compact_all(&source, &format!("to-{number}"), 1, Until::Time(end.time)) else { continue };
        let body = compactions(&source).into_iter().find(|body| body.name == format!("to-{number}")).unwrap();
        let Some(before) = source.states.iter().rev().find(|state| state.sequence < body.end_sequence) else {
            continue;
        };
        let found = check(&source, Moment::Time(before.time), options(), before, &body.name);
        assert!(found.plan.runs().all(|run| run.body.end_sequence <= before.sequence), "{}", body.name);
        cut += usize::from(found.plan.legs[0].end_segment == body.end_segment);
    }
    assert!(cut >= 3, "{cut}");
}
