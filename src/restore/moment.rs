//! The moment to restore to, as it is typed. Pure.

use crate::error::{Error, ErrorKind, Result};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

const STEP: &str = "read the moment to restore to";

/// A moment in the history of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// All that the archive has.
    Latest,
    /// What was acknowledged before the clock showed this, in microseconds of the Unix epoch.
    Time(u64),
    /// The writes of a timeline up to a sequence number. A batch that ends after it is left out as a whole.
    Sequence {
        /// The timeline.
        timeline: Uuid,
        /// The last sequence number that may be in.
        sequence: u64,
    },
}

impl Moment {
    /// Reads `latest`, `-30m` (also `s`, `h`, `d`, and several: `-1h30m`), microseconds of the Unix epoch, RFC 3339, or
    /// `seq:<timeline>/<n>`. `now` is the clock, in microseconds.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn parse(text: &str, now: u64) -> Result<Self> {
        let invalid = || {
            let shown = crate::error::show_key(text.as_bytes());
            let message = format!(
                "`{shown}` is none of: latest, -30m, 2026-01-31T12:00:00Z, seq:<timeline>/<n>, microseconds of the epoch"
            );
            Error::new(ErrorKind::InvalidArgument, STEP, message)
        };
        if text == "latest" {
            return Ok(Moment::Latest);
        }
        if let Some(place) = text.strip_prefix("seq:") {
            let (timeline, sequence) = place.split_once('/').ok_or_else(invalid)?;
            let timeline = Uuid::try_parse(timeline).map_err(|_| invalid())?;
            return Ok(Moment::Sequence { timeline, sequence: sequence.parse().map_err(|_| invalid())? });
        }
        if let Some(ago) = text.strip_prefix('-') {
            let ago = microseconds(ago).ok_or_else(invalid)?;
            return now.checked_sub(ago).map(Moment::Time).ok_or_else(invalid);
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Moment::Time).map_err(|_| invalid());
        }
        let time = DateTime::parse_from_rfc3339(text).map_err(|error| invalid().because(error))?;
        u64::try_from(time.timestamp_micros()).map(Moment::Time).map_err(|_| invalid())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Latest => f.write_str("latest"),
            Moment::Time(time) => f.write_str(&show_time(*time)),
            Moment::Sequence { timeline, sequence } => write!(f, "seq:{timeline}/{sequence}"),
        }
    }
}

/// A time for people: RFC 3339 in UTC, to the microsecond.
pub fn show_time(time: u64) -> String {
    let date = i64::try_from(time).ok().and_then(DateTime::from_timestamp_micros);
    date.map_or_else(|| format!("{time} us"), |date| date.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

/// Numbers with units, one after the other.
fn microseconds(mut text: &str) -> Option<u64> {
    let mut sum = 0u64;
    while !text.is_empty() {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().ok()?;
        let seconds = match text.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(seconds)?.checked_mul(1_000_000)?)?;
        text = &text[digits + 1..];
    }
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_769_860_800_000_000;

    #[test]
    fn each_way_of_saying_it_is_understood() {
        let id = Uuid::from_u128(7);
        let sequence = Moment::Sequence { timeline: id, sequence: 12 };
        for (text, moment) in [
            ("latest", Moment::Latest),
            ("1769860800000000", Moment::Time(NOW)),
            ("-30m", Moment::Time(NOW - 1_800_000_000)),
            ("-1d2h3m4s", Moment::Time(NOW - 93_784_000_000)),
            ("2026-01-31T12:00:00Z", Moment::Time(NOW)),
            ("2026-01-31T13:00:00.000001+01:00", Moment::Time(NOW + 1)),
            (&format!("seq:{id}/12"), sequence),
        ] {
            assert_eq!(Moment::parse(text, NOW).unwrap(), moment, "{text}");
        }
        for moment in [Moment::Latest, Moment::Time(NOW + 7), sequence] {
            assert_eq!(Moment::parse(&moment.to_string(), NOW).unwrap(), moment);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "now",
            "-",
            "-5",
            "-m",
            "-1w",
            "-0s",
            "-30m ",
            "99999999999999999999",
            "-999999999999d",
            "2026-01-31",
            "1960-01-01T00:00:00Z",
            "seq:",
            "seq:x/1",
            "seq:00000000-0000-0000-0000-000000000007",
            "seq:00000000-0000-0000-0000-000000000007/-1",
            "-1é",
        ] {
            assert_eq!(Moment::parse(text, NOW).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }
}
