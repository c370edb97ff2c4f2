//! Finding a segment by what is in it. Time and sequence numbers rise with its number, so nothing is listed.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::names::SEGMENT_NUMBERS;
use crate::log_backup::tail::Ends;
use uuid::Uuid;

/// Header and trailer of a segment of the timeline that is searched.
type Look<'a> = &'a dyn Fn(u64) -> Result<Option<Ends>>;

/// The first segment from `first` on that has `passed`, if there is one, and the one before it. `beyond` are numbers that are
/// not looked at.
pub(super) fn search(
    ends: Look<'_>,
    first: u64,
    beyond: impl Fn(u64) -> bool,
    passed: impl Fn(&Ends) -> bool,
) -> Result<(Option<Ends>, Option<Ends>)> {
    let look = |number| if beyond(number) || number >= SEGMENT_NUMBERS { Ok(None) } else { ends(number) };
    // All before `low` are there and have not passed; `high` has passed or is not there.
    let (mut low, mut before, mut step) = (first, None, 1);
    let (mut high, mut found) = loop {
        match look(low + step - 1)? {
            Some(ends) if !passed(&ends) => (low, before) = (low + step, Some(ends)),
            found => break (low + step - 1, found),
        }
        step *= 2;
    };
    while low < high {
        let middle = low + (high - low) / 2;
        match look(middle)? {
            Some(ends) if !passed(&ends) => (low, before) = (middle + 1, Some(ends)),
            other => (high, found) = (middle, other),
        }
    }
    Ok((before, found))
}

/// A segment that is missing in the middle must not be taken for the end of the log. `known`: HEAD speaks of later ones.
pub(super) fn require_none_after(ends: Look<'_>, timeline: Uuid, next: u64, known: bool) -> Result<()> {
    let missing = || {
        let message = format!("segment {next} of the timeline {timeline} is missing, and later ones are there");
        Error::new(ErrorKind::Corrupt, "plan the restore", message)
    };
    if known {
        return Err(missing());
    }
    for distance in (1..16).chain((4..20).map(|power| 1 << power)) {
        if ends(next + distance)?.is_some() {
            return Err(missing());
        }
    }
    Ok(())
}
