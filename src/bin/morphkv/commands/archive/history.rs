use super::Place;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::Result;
use morphkv::log_backup::overview;

/// Show the last commits of an archive, and what they added
#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    place: Place,
}

impl History {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let found = overview::history(&self.place.open()?)?;
        let commit = |commit: &morphkv::log_backup::head::CommitMark| {
            ("commit", format!("{} {}", commit.generation, commit.nonce))
        };
        let mut rows: Vec<_> = found.commits.iter().map(commit).collect();
        rows.push(("folded", format!("layers up to {}", found.folded)));
        rows.extend(found.layers.iter().map(|layer| ("layer", format!("{} {}", layer.id, layer.entries.join(" ")))));
        output.result(&found, &format!("history of {}", found.url), &rows)?;
        Ok(Answer::Yes)
    }
}
