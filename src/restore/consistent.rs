//! Whether a compaction that was found by its name is one of the log that a restore reads. Pure.
//!
//! HEAD vouches for the compactions that it knows. One that is named, maybe in another place, could be of another log that
//! happens to have used the name. Where it is not one of this log it is left out, and the segments are gone through.

use crate::log_backup::address::Address;
use crate::log_backup::compaction::Spec;
use crate::log_backup::location::{Difference, compare};
use crate::restore::plan::{Leg, Plan};
use std::fmt;

/// Why a restore does not use a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// It was made of a log in another place.
    Location(Difference),
    /// The place of one of them cannot be understood.
    NoLocation(String),
    /// It was made of another archive, which was in that place.
    Archive,
    /// The restore reads nothing of its timeline.
    Timeline,
    /// Its keys are in another encoding than its timeline.
    Encoding,
    /// The restore does not read all of its segments, as a whole.
    Segments {
        /// The segments of the compaction, from the first to the one after the last.
        compacted: (u64, u64),
        /// The segments that the restore reads of that timeline.
        read: (u64, u64),
    },
    /// It goes beyond the moment of the restore, within its last segment.
    Beyond,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Location(difference) => {
                write!(
                    f,
                    "the log that it was made of and the one that is restored from are not in one place: {difference}"
                )
            }
            Mismatch::NoLocation(url) => write!(f, "`{url}` is no place of an archive"),
            Mismatch::Archive => f.write_str("it was made of another archive"),
            Mismatch::Timeline => f.write_str("it was made of a timeline of which nothing is restored"),
            Mismatch::Encoding => f.write_str("it is in another encoding than its timeline"),
            Mismatch::Segments { compacted, read } => write!(
                f,
                "it stands for the segments from {} to before {}, and those from {} to before {} are read",
                compacted.0, compacted.1, read.0, read.1
            ),
            Mismatch::Beyond => f.write_str("it goes beyond the moment that is restored to"),
        }
    }
}

impl std::error::Error for Mismatch {}

/// Whether the compaction can stand for segments of this plan. `location` is the URL of the archive that is restored from;
/// spelling does not count, but environment variables and symbolic links must have been looked at, as opening it does.
///
/// # Errors
/// The first reason why not.
pub fn consistent(spec: &Spec, location: &str, plan: &Plan) -> Result<(), Mismatch> {
    same_place(spec, location)?;
    if spec.archive != plan.archive {
        return Err(Mismatch::Archive);
    }
    let leg = plan.legs.iter().find(|leg| leg.timeline == spec.timeline).ok_or(Mismatch::Timeline)?;
    if leg.encoding != spec.encoding {
        return Err(Mismatch::Encoding);
    }
    within(spec, leg)
}

/// Whether the compaction was made of the log in this place.
///
/// # Errors
/// `Location`, `NoLocation`.
pub fn same_place(spec: &Spec, location: &str) -> Result<(), Mismatch> {
    let address = |url: &str| Address::parse(url).map_err(|_| Mismatch::NoLocation(url.to_owned()));
    compare(&address(&spec.log)?, &address(location)?).map_err(Mismatch::Location)
}

fn within(spec: &Spec, leg: &Leg) -> Result<(), Mismatch> {
    if spec.first_segment < leg.first_segment || spec.end_segment > leg.end_segment {
        let (compacted, read) = ((spec.first_segment, spec.end_segment), (leg.first_segment, leg.end_segment));
        return Err(Mismatch::Segments { compacted, read });
    }
    if spec.end_sequence > leg.limit.sequence { Err(Mismatch::Beyond) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::EncodingId;
    use crate::log_backup::compaction::COMPACTION_FORMAT;
    use crate::log_backup::migration::SnapshotBody;
    use crate::log_backup::names::{self, ContentHash, ObjectReference};
    use crate::restore::moment::Moment;
    use crate::restore::plan::{Limit, Reached};
    use uuid::Uuid;

    const LOG: &str = "s3://bucket/log?endpoint=https://host&region=eu-1";

    fn spec() -> Spec {
        Spec {
            format: COMPACTION_FORMAT,
            id: Uuid::from_u128(1),
            name: "x".into(),
            archive: Uuid::from_u128(2),
            log: LOG.into(),
            timeline: Uuid::from_u128(3),
            encoding: EncodingId { name: "natural".into(), revision: 1 },
            first_segment: 5,
            end_segment: 9,
            end_sequence: 90,
            chain: ContentHash(9),
            shards: 2,
        }
    }

    fn plan() -> Plan {
        let Spec { archive, timeline, encoding, .. } = spec();
        let manifest = ObjectReference { name: names::head(), size: 1, hash: ContentHash(1) };
        let snapshot = SnapshotBody { manifest, timeline, sequence: 50, time: 5, next_segment: 5 };
        let limit = Limit { sequence: 90, time: u64::MAX };
        let leg = Leg {
            timeline,
            encoding: encoding.clone(),
            first_segment: 5,
            end_segment: 9,
            limit,
            chain: None,
            runs: Vec::new(),
        };
        Plan {
            archive,
            generation: 1,
            moment: Moment::Latest,
            timeline,
            encoding,
            base: Uuid::from_u128(4),
            snapshot,
            legs: vec![leg],
            reached: Reached { sequence: 90, time: 9 },
            resolved: 9,
            gaps: Vec::new(),
        }
    }

    #[test]
    fn one_that_is_of_this_log_is_used_however_the_place_is_spelt() {
        assert_eq!(consistent(&spec(), LOG, &plan()), Ok(()));
        assert_eq!(consistent(&spec(), "s3a://bucket//log/?region=eu-1&endpoint=HTTPS://HOST:443/", &plan()), Ok(()));
        let mut wider = plan();
        (wider.legs[0].first_segment, wider.legs[0].end_segment) = (0, 100);
        wider.legs[0].limit = Limit { sequence: 1000, time: 7 };
        assert_eq!(consistent(&spec(), LOG, &wider), Ok(()));
    }

    #[test]
    fn each_thing_that_differs_is_named() {
        let refused = |change: &dyn Fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            consistent(&spec, LOG, &plan()).unwrap_err()
        };
        for (location, field) in [
            ("s3://bucket/log?endpoint=https://host&region=eu-2", "region"),
            ("s3://bucket/log?endpoint=https://elsewhere&region=eu-1", "endpoint"),
            ("s3://bucket2/log?endpoint=https://host&region=eu-1", "bucket"),
            ("s3://bucket/log2?endpoint=https://host&region=eu-1", "prefix"),
            ("gs://bucket/log", "kind"),
            ("file:///bucket/log", "kind"),
        ] {
            let Mismatch::Location(difference) = consistent(&spec(), location, &plan()).unwrap_err() else { panic!() };
            assert_eq!(difference.field, field, "{location}");
        }
        assert_eq!(refused(&|spec| spec.log = "x".into()), Mismatch::NoLocation("x".into()));
        assert_eq!(refused(&|spec| spec.archive = Uuid::nil()), Mismatch::Archive);
        assert_eq!(refused(&|spec| spec.timeline = Uuid::nil()), Mismatch::Timeline);
        assert_eq!(refused(&|spec| spec.encoding.revision = 2), Mismatch::Encoding);
        assert_eq!(refused(&|spec| spec.end_sequence = 91), Mismatch::Beyond);
        let read = (5, 9);
        assert_eq!(refused(&|spec| spec.first_segment = 4), Mismatch::Segments { compacted: (4, 9), read });
        assert_eq!(refused(&|spec| spec.end_segment = 10), Mismatch::Segments { compacted: (5, 10), read });
    }
}
