//! Moments that cannot be reached, and why. Pure.

use crate::error::{Error, ErrorKind};
use crate::restore::moment::{Moment, show_time};
use std::fmt;

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

pub(super) fn unreachable(moment: &Moment, why: Unreachable) -> Error {
    Error::new(ErrorKind::NotFound, STEP, format!("{moment} cannot be reached: {why}")).because(why)
}
