//! Moments that cannot be reached, objects that have not arrived, and why. Pure.

use crate::error::{Error, ErrorKind};
use crate::log_backup::names;
use crate::restore::moment::{Moment, show_time};
use std::fmt;
use uuid::Uuid;

const STEP: &str = "plan the restore";

/// Why a moment cannot be reached; the source of the error that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreachable {
    /// The archive does not reach so far yet.
    Beyond {
        /// The last time that can be reached.
        resolved: u64,
    },
    /// Part of the log was lost before it reached the archive.
    Gap {
        /// The last time before it that can be reached.
        from: u64,
        /// The first time after it; `None`: there is no base snapshot after it yet.
        to: Option<u64>,
    },
    /// There is no base snapshot at or before it.
    Before {
        /// The first time that can be reached, on this timeline.
        first: Option<u64>,
        /// Earlier ones were deleted.
        truncated: bool,
    },
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreachable::Beyond { resolved } => {
                write!(f, "the archive reaches to {} and no further", show_time(*resolved))
            }
            Unreachable::Gap { from, to } => {
                let to = to.map_or_else(|| "the next base snapshot".into(), show_time);
                write!(f, "part of the log was lost: nothing can be reached after {} and before {to}", show_time(*from))
            }
            Unreachable::Before { first, truncated } => {
                let why = if *truncated { "what was before it was truncated" } else { "the log begins there" };
                match first {
                    Some(first) => write!(f, "the first moment that can be reached is {}: {why}", show_time(*first)),
                    None if *truncated => write!(f, "all that the timeline had was truncated"),
                    None => write!(f, "the timeline has no base snapshot to begin from: take one first"),
                }
            }
        }
    }
}

impl std::error::Error for Unreachable {}

/// What a restore needs and a replica does not have yet; the source of the error that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotArrived {
    /// The name of the object.
    pub object: String,
}

impl fmt::Display for NotArrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has not arrived, or not as a whole", self.object)
    }
}

impl std::error::Error for NotArrived {}

/// An object of a replica is not there, or is shorter than it will be.
pub(super) fn missing(object: impl fmt::Display) -> Error {
    let why = NotArrived { object: object.to_string() };
    let message = format!("{why}; nothing was begun, repeat once it has, or restore to an earlier moment");
    Error::new(ErrorKind::NotFound, STEP, message).because(why)
}

/// A segment of a replica is not there.
pub(super) fn not_arrived(timeline: Uuid, number: u64) -> Error {
    names::segment(timeline, number).map_or_else(|error| error, missing)
}

pub(super) fn unreachable(moment: &Moment, why: Unreachable) -> Error {
    Error::new(ErrorKind::NotFound, STEP, format!("{moment} cannot be reached: {why}")).because(why)
}
