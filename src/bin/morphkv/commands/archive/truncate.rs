use super::Place;
use crate::args::Consent;
use crate::output::{self, Answer, Output};
use clap::{ArgGroup, Args};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::truncate::{Pending, Reason, TruncateOptions, Truncated, truncate};
use morphkv::restore::moment::{Moment, show_time};
use morphkv::{Error, ErrorKind, Result};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Delete what no restore to a moment or to any later one needs
///
/// The moment is rounded down to a base snapshot. What is not needed is doomed at once, and deleted when the grace is over
/// and nobody may be reading it: by this command, or by a later one. The exit code is 1 if something is doomed and not
/// deleted yet, and if there is no base snapshot so old.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("moment").required(true))]
pub struct Truncate {
    #[command(flatten)]
    place: Place,
    /// The moment: RFC 3339, -7d, microseconds of the Unix epoch, seq:TIMELINE/N, or latest
    #[arg(long, value_name = "T", group = "moment", allow_hyphen_values = true)]
    until: Option<String>,
    /// How far back every moment stays: 7d, 12h, 1d12h
    #[arg(long, value_name = "AGE", group = "moment")]
    keep: Option<String>,
    /// How long what is doomed still stands, for those who read without a pin: 1h, 30m, 0s
    #[arg(long, value_name = "AGE", default_value = "1h")]
    grace: String,
    /// Only tell what would be deleted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Truncate {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let moment = match (&self.until, &self.keep) {
            (Some(until), _) => Moment::parse(until, now)?,
            (None, Some(keep)) => Moment::parse(&format!("-{keep}"), now)?,
            (None, None) => return Err(invalid("--until or --keep is missing".into())),
        };
        let until = match moment {
            Moment::Latest => Until::Latest,
            Moment::Time(time) => Until::Time(time),
            Moment::Sequence { timeline, sequence } => Until::Sequence { timeline, sequence },
        };
        let options = TruncateOptions { grace: age(&self.grace)?, dry_run: self.dry_run };
        let archive = self.place.open()?;
        if !self.dry_run {
            let question = format!("What was before {moment} cannot be restored any more.");
            let command = format!("morphkv archive truncate {} .. -y", self.place.url);
            if !self.consent.given(output, &question, &command)? {
                return Ok(Answer::No);
            }
        }
        let found = truncate(&archive, until, options)?;
        let done = found.base.is_some() && (found.pending.is_empty() || found.dry_run);
        output.result(&found, &headline(archive.url(), &found, &moment), &rows(&found))?;
        Ok(done.into())
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "understand the command line", message)
        .next("morphkv archive truncate --help")
}

/// A length of time; none is one.
fn age(text: &str) -> Result<Duration> {
    if ["0", "0s", "0m", "0h", "0d"].contains(&text) {
        return Ok(Duration::ZERO);
    }
    match Moment::parse(&format!("-{text}"), u64::MAX) {
        Ok(Moment::Time(time)) => Ok(Duration::from_micros(u64::MAX - time)),
        _ => Err(invalid(format!("`{text}` is no length of time, as 1h, 30m or 7d are"))),
    }
}

fn headline(url: &str, found: &Truncated, moment: &Moment) -> String {
    if found.base.is_none() {
        return format!(
            "nothing of {url} was doomed: it has no base snapshot at or before {moment}; `morphkv log snapshot DB` takes one"
        );
    }
    if found.dry_run {
        return format!("would delete {} objects of {url}; nothing was changed", output::count(found.doomed_objects));
    }
    if found.pending.is_empty() { format!("truncated {url}") } else { format!("{url}: not all is deleted yet") }
}

fn rows(found: &Truncated) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(base) = &found.base {
        rows.push(("restores from", format!("{} on, snapshot {}", show_time(base.time), base.id)));
    }
    if !found.dry_run {
        rows.push(("doomed", output::count(found.doomed_objects)));
        rows.push(("deleted", output::count(found.deleted_objects)));
    }
    rows.push(("bytes", output::bytes(found.doomed_bytes)));
    rows.extend(found.would_delete.iter().map(|object| ("object", format!("{} ({})", object.object, object.bytes))));
    rows.extend(found.damaged.iter().map(|fault| ("damaged", format!("{}: {}", fault.object, fault.reason))));
    rows.extend(found.pending.iter().map(|pending| ("pending", text(pending))));
    rows
}

fn text(pending: &Pending) -> String {
    let why = match &pending.reason {
        Reason::Grace { seconds_left } => format!("the grace is over in {seconds_left} s; repeat then"),
        Reason::Pinned { pins } => {
            let pins: Vec<_> = pins.iter().map(ToString::to_string).collect();
            format!("somebody may be reading it: see `morphkv archive locks`: {}", pins.join(" "))
        }
        Reason::Failed { message } => message.clone(),
    };
    format!("list {}: {why}", pending.list)
}
