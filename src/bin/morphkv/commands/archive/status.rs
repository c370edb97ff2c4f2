use super::Place;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::Result;
use morphkv::log_backup::overview;

/// Show what an archive has
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    place: Place,
}

impl Status {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let found = overview::archive(&self.place.open()?)?;
        let mut rows = vec![("generation", found.generation.to_string()), ("loads", found.loads.to_string())];
        for timeline in &found.timelines {
            let current = if timeline.id == found.current { ", current" } else { "" };
            let end = timeline.end.as_ref().map_or("nothing".into(), |end| format!("up to {}", end.sequence));
            let bases = timeline.bases.len();
            let line = format!("{} ({}{current}): {end}, {bases} base snapshots", timeline.id, timeline.encoding);
            rows.push(("timeline", line));
        }
        output.result(&found, &format!("archive {}", found.archive), &rows)?;
        Ok(Answer::Yes)
    }
}
