use super::Place;
use super::line::line;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::Result;
use morphkv::log_backup::overview::{self, ArchiveOverview};
use morphkv::restore::moment::Moment;
use std::io::IsTerminal;

/// Cells of the line that shows which times can be restored to.
const LINE_CELLS: usize = 60;

/// Show what an archive has, and which times can be restored to
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    place: Place,
}

impl Status {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let found = overview::archive(&self.place.open()?)?;
        let rows = rows(&found);
        output.result(&found, &format!("archive {}", found.archive), &rows)?;
        Ok(Answer::Yes)
    }
}

fn rows(found: &ArchiveOverview) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if std::io::stdout().is_terminal()
        && let Some(line) = line(&found.spans, LINE_CELLS)
    {
        rows.push(("", line));
    }
    for (number, span) in found.spans.iter().enumerate() {
        if let Some(before) = number.checked_sub(1).map(|before| &found.spans[before]) {
            rows.push(("lost", format!("between {} and {}", Moment::Time(before.to), Moment::Time(span.from))));
        }
        let ends = format!("{} to {}", Moment::Time(span.from), Moment::Time(span.to));
        rows.push(("restorable", format!("{ends}, {} base snapshots", span.bases.len())));
    }
    if found.spans.is_empty() {
        rows.push(("restorable", "nothing: there is no base snapshot".into()));
    }
    if let Some(lag) = found.lag_seconds {
        rows.push(("lag", format!("{lag} s")));
    }
    rows.push(("size", format!("{} in {} objects", crate::output::bytes(found.bytes), found.objects)));
    rows.push(("pins", found.pins.to_string()));
    rows.push(("generation", found.generation.to_string()));
    rows.push(("loads", found.loads.to_string()));
    for timeline in &found.timelines {
        let current = if timeline.id == found.current { ", current" } else { "" };
        let end = timeline.end.as_ref().map_or("nothing".into(), |end| format!("up to {}", end.sequence));
        let bases = timeline.bases.len();
        let line = format!("{} ({}{current}): {end}, {bases} base snapshots", timeline.id, timeline.encoding);
        rows.push(("timeline", line));
    }
    rows
}
