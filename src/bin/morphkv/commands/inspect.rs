use crate::args::Database;
use crate::output::{self, Answer, Output};
use clap::Args;
use morphkv::{Options, Result, inspect};

/// Tell what stands at a database's place, and what the next open would do
///
/// Writes nothing and takes no lock, so that it can be used beside a running server; while that one changes something, the
/// answer may be of a moment ago. The exit code is 0 whatever it finds, an absent or a refused database too: `state` tells.
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    database: Database,
}

impl Inspect {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let seen = inspect::inspect(&self.database.path, &Options::new())?;
        output.result(&seen, &seen.path, &rows(&seen))?;
        Ok(Answer::Yes)
    }
}

/// What is known of it, for a person.
pub fn rows(seen: &inspect::Inspection) -> Vec<(&str, String)> {
    let mut rows = vec![("state", seen.state.clone()), ("next open", seen.next_action.clone())];
    rows.extend(seen.reason.clone().map(|reason| ("reason", reason)));
    if let (Some(name), Some(revision)) = (&seen.encoding, seen.revision) {
        rows.push(("encoding", format!("{name} r{revision}")));
    }
    rows.extend(seen.database_id.clone().map(|id| ("database id", id)));
    rows.extend(seen.instance_id.clone().map(|id| ("instance id", id)));
    rows.extend(seen.entries_estimate.map(|entries| ("entries", format!("about {}", output::count(entries)))));
    rows.push(("size", output::bytes(seen.bytes)));
    if let Some(sealed) = &seen.sealed {
        rows.push(("sealed with", format!("{} entries, {}", output::count(sealed.entries), sealed.digest)));
    }
    if let Some(attachment) = &seen.attachment {
        let archive = attachment.archive.clone().or_else(|| attachment.reason.clone()).unwrap_or_default();
        rows.push(("log archive", archive));
        rows.extend(attachment.timeline.map(|timeline| ("timeline", timeline.to_string())));
        if attachment.unshipped_before_conversion {
            let log = "the log from before the last conversion or restore: another one has to wait";
            rows.push(("to be shipped", log.into()));
        }
    }
    let beside = seen.siblings.iter().filter(|sibling| sibling.state != "absent" && sibling.role != "live");
    rows.extend(beside.map(|sibling| {
        (sibling.role, format!("{}, {}, {}", sibling.state, output::bytes(sibling.bytes), sibling.path))
    }));
    rows
}
