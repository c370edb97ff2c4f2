//! What is seen of the compaction that a two-phase restore waits for, and whether it can stand for part of its plan.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::compaction::{self, END_BYTES_MAX, End, Spec, find, find_spec};
use crate::log_backup::names;
use crate::restore::consistent::same_place;
use crate::restore::folder::TwoPhase;
use crate::restore::plan::Plan;
use crate::restore::runs::PlannedRun;
use crate::restore::state::{Compaction, Mode, Reason, Settled};
use std::ops::ControlFlow;

/// Looks at the compaction. What cannot be read now is waited for, as what this version cannot read.
pub(super) fn look(archive: &Archive, plan: &Plan, waited_for: &TwoPhase) -> Compaction {
    match ended(archive, plan, waited_for) {
        Ok(ControlFlow::Continue(run)) => Compaction::Complete(run.id),
        Ok(ControlFlow::Break(seen)) => seen,
        Err(error) => Compaction::Unknown(format!("it cannot be read: {error}")),
    }
}

/// A compaction that has ended well and can stand for part of the plan; else what is seen of it.
fn ended(archive: &Archive, plan: &Plan, waited_for: &TwoPhase) -> Result<ControlFlow<Compaction, PlannedRun>> {
    let name = &waited_for.compaction;
    let stands = waited_for.at.as_ref().map_or_else(|| Ok(archive.clone()), |url| archive.beside(url))?;
    let Some(spec) = find_spec(&stands, name)? else { return Ok(ControlFlow::Break(Compaction::Absent)) };
    let place = same_place(&spec, archive.url()).map_err(|why| why.to_string());
    if let Err(message) = place.and_then(|()| fits(plan, &spec)) {
        return Ok(ControlFlow::Break(Compaction::Mismatch(spec.id, message)));
    }
    let object = names::compaction_end(name)?;
    let Some((reference, end)) = find::<End>(&stands, &object, END_BYTES_MAX)? else {
        return Ok(ControlFlow::Break(Compaction::Running(spec.id)));
    };
    Ok(if end.spec != spec {
        ControlFlow::Break(Compaction::Mismatch(spec.id, "its END is one of another compaction".into()))
    } else if let Some(failure) = end.failure {
        ControlFlow::Break(Compaction::Failed(spec.id, failure))
    } else {
        let at = (stands.url() != archive.url()).then(|| stands.url().to_owned());
        ControlFlow::Continue(PlannedRun { id: spec.id, body: end.spec.body(reference), at })
    })
}

/// Whether all that it is of is read by the plan, and as a whole; the first thing that is not.
fn fits(plan: &Plan, spec: &Spec) -> Result<(), String> {
    if spec.archive != plan.archive {
        return Err(format!("its archive is {}, and the plan's is {}", spec.archive, plan.archive));
    }
    let Some(leg) = plan.legs.iter().find(|leg| leg.timeline == spec.timeline) else {
        return Err(format!("its timeline is {}, which the plan does not go through", spec.timeline));
    };
    if spec.encoding != leg.encoding {
        return Err(format!("its encoding is {}, and that of its timeline is {}", spec.encoding, leg.encoding));
    }
    if spec.first_segment < leg.first_segment || spec.end_segment > leg.end_segment {
        return Err(format!(
            "its segments are {} to {}, and the plan reads {} to {}",
            spec.first_segment, spec.end_segment, leg.first_segment, leg.end_segment
        ));
    }
    // Of the last leg the plan knows the last write, of each other one its end is the limit.
    let last = if leg.timeline == plan.timeline { plan.reached.sequence } else { leg.limit.sequence };
    if spec.end_sequence > last {
        return Err(format!("its end is sequence number {}, and the plan's is {last}", spec.end_sequence));
    }
    if spec.end_segment == leg.end_segment && leg.chain != Some(spec.chain) {
        return Err("its end is another history than the plan's".into());
    }
    Ok(())
}

/// How phase 2 is to go through the log, once the compaction has settled.
///
/// # Errors
/// `Io` and the like: nothing can be said now.
pub(super) fn choose_mode(archive: &Archive, plan: &Plan, waited_for: &TwoPhase, settled: &Settled) -> Result<Mode> {
    let raw = |reason: String| Ok(Mode::Raw(reason));
    if settled.reason != Reason::Complete {
        return raw(format!("{}: {}", settled.reason.name(), settled.message));
    }
    let covered = ended(archive, plan, waited_for).and_then(|found| match found {
        ControlFlow::Continue(run) if Some(run.id) == settled.compaction => covers(archive, plan, run),
        _ => Err(Error::new(ErrorKind::Conflict, "use a compaction", "it is not the one that has settled any more")),
    });
    match covered {
        Ok(run) => Ok(Mode::Fast(run)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::Corrupt
            | ErrorKind::Unsupported
            | ErrorKind::InvalidArgument
            | ErrorKind::Conflict => raw(format!("it cannot be used: {error}")),
            // It stands elsewhere than the log. The restore can do without that place, however long it is away.
            ErrorKind::Io if waited_for.at.is_some() => raw(format!("it cannot be read: {error}")),
            _ => Err(error),
        },
    }
}

/// All its shards have results that tile its segments, and it begins after the base snapshot.
fn covers(archive: &Archive, plan: &Plan, run: PlannedRun) -> Result<PlannedRun> {
    let complete = compaction::read(&run.place(archive)?, &run.body)?;
    let of_base = plan.snapshot.timeline == run.body.timeline;
    if of_base && complete.begin().is_none_or(|begin| begin.next_sequence <= plan.snapshot.sequence) {
        let message = "it begins before the base snapshot does";
        return Err(Error::new(ErrorKind::Conflict, "use a compaction", message));
    }
    Ok(run)
}

/// The plan, with the compaction if this mode uses it.
pub(super) fn planned(plan: &Plan, mode: &Mode) -> Plan {
    let mut plan = plan.clone();
    for leg in &mut plan.legs {
        leg.runs.clear();
        if let Mode::Fast(run) = mode
            && run.body.timeline == leg.timeline
        {
            leg.runs.push(run.clone());
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::EncodingId;
    use crate::log_backup::compaction::COMPACTION_FORMAT;
    use crate::log_backup::migration::SnapshotBody;
    use crate::log_backup::names::{ContentHash, ObjectReference};
    use crate::restore::moment::Moment;
    use crate::restore::plan::{Leg, Limit, Reached};
    use uuid::Uuid;

    const fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn encoding(name: &str) -> EncodingId {
        EncodingId { name: name.into(), revision: 1 }
    }

    /// Segments 5 to 9 of timeline 1 to its end at 90, then 0 to 3 of timeline 2, of which the last write in is 30.
    fn plan() -> Plan {
        let leg = |timeline, first, end, sequence, chain| Leg {
            timeline: id(timeline),
            encoding: encoding("natural"),
            first_segment: first,
            end_segment: end,
            limit: Limit { sequence, time: u64::MAX },
            chain: Some(ContentHash(chain)),
            runs: Vec::new(),
        };
        let manifest = ObjectReference { name: names::head(), size: 1, hash: ContentHash(1) };
        Plan {
            archive: id(9),
            generation: 1,
            moment: Moment::Latest,
            timeline: id(2),
            encoding: encoding("natural"),
            base: id(8),
            snapshot: SnapshotBody { manifest, timeline: id(1), sequence: 49, time: 1, next_segment: 5 },
            legs: vec![leg(1, 5, 9, 90, 109), leg(2, 0, 3, u64::MAX, 203)],
            reached: Reached { sequence: 30, time: 1 },
            resolved: 1,
            gaps: Vec::new(),
        }
    }

    fn spec(timeline: u128, first: u64, end: u64) -> Spec {
        Spec {
            format: COMPACTION_FORMAT,
            id: id(7),
            name: "n".into(),
            archive: id(9),
            log: "memory://test".into(),
            timeline: id(timeline),
            encoding: encoding("natural"),
            first_segment: first,
            end_segment: end,
            end_sequence: end * 10,
            chain: ContentHash(timeline * 100 + u128::from(end)),
            shards: 1,
        }
    }

    #[test]
    fn each_field_alone_that_does_not_fit_is_named() {
        for whole in [spec(1, 5, 9), spec(1, 6, 8), spec(2, 0, 3), spec(2, 0, 1), spec(2, 2, 3)] {
            assert_eq!(fits(&plan(), &whole), Ok(()), "{whole:?}");
        }
        let cases = [
            (Spec { archive: id(1), ..spec(1, 5, 9) }, "its archive is"),
            (spec(3, 0, 3), "its timeline is"),
            (Spec { encoding: encoding("hierarchical"), ..spec(1, 5, 9) }, "its encoding is"),
            (spec(1, 4, 9), "its segments are"),
            (Spec { end_sequence: 30, ..spec(2, 0, 4) }, "its segments are"),
            (Spec { end_sequence: 91, ..spec(1, 5, 9) }, "its end is sequence number"),
            (Spec { end_sequence: 31, ..spec(2, 0, 3) }, "its end is sequence number"),
            (Spec { chain: ContentHash(7), ..spec(2, 0, 3) }, "another history"),
        ];
        for (spec, word) in cases {
            let why = fits(&plan(), &spec).unwrap_err();
            assert!(why.contains(word), "{why}: {spec:?}");
        }
    }
}
