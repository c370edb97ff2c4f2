//! `morphkv log ..`: the log backup of a database that nobody else has open.

mod attach;
mod detach;
mod ship;
mod snapshot;
mod status;

use crate::output::{Answer, Output};
use clap::{Args, Subcommand};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::shipper::Pass;
use morphkv::{Error, ErrorKind, Result};
use serde::Serialize;
use std::path::Path;

/// Back up the log of a database to an archive in an object store
///
/// These commands take a database that nobody has open. A server that is running ships through the library.
#[derive(Debug, Args)]
pub struct Log {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    Attach(attach::Attach),
    Ship(ship::Ship),
    Snapshot(snapshot::Snapshot),
    Status(status::Status),
    Detach(detach::Detach),
}

impl Log {
    pub fn run(self, output: &Output) -> Result<Answer> {
        match self.command {
            LogCommand::Attach(command) => command.run(output),
            LogCommand::Ship(command) => command.run(output),
            LogCommand::Snapshot(command) => command.run(output),
            LogCommand::Status(command) => command.run(output),
            LogCommand::Detach(command) => command.run(output),
        }
    }
}

/// The archive that a database is attached to.
fn archive_of(path: &Path) -> Result<Archive> {
    match morphkv::log_backup::attach::archive_url(path)? {
        Some(url) => Archive::open(&url, ArchiveOptions::default()),
        None => {
            let next = format!("morphkv log attach {} --archive URL", path.display());
            Err(Error::new(ErrorKind::Refused, "ship the log", "the database is not attached to a log archive")
                .at(path)
                .next(next))
        }
    }
}

/// What a pass tells.
#[derive(Serialize)]
struct Shipped {
    archive: String,
    timeline: String,
    segments: u64,
    bytes: u64,
    writes: u64,
    shipped_sequence: u64,
    shipped_time: u64,
    resolved: u64,
    base_snapshot: Option<String>,
    begun: Vec<Begun>,
}

#[derive(Serialize)]
struct Begun {
    cause: morphkv::log_backup::head::Cause,
    reason: String,
}

impl Shipped {
    fn new(archive: &Archive, pass: Pass) -> Self {
        let begun = pass.begun.into_iter().map(|(cause, reason)| Begun { cause, reason });
        Shipped {
            archive: archive.url().to_owned(),
            timeline: pass.timeline.to_string(),
            segments: pass.segments,
            bytes: pass.bytes,
            writes: pass.sequences,
            shipped_sequence: pass.shipped_sequence,
            shipped_time: pass.shipped_time,
            resolved: pass.resolved,
            base_snapshot: pass.base_snapshot.map(|id| id.to_string()),
            begun: begun.collect(),
        }
    }

    /// # Errors
    /// `Io`.
    fn show(&self, output: &Output, headline: &str) -> Result<()> {
        let mut rows = vec![
            ("archive", self.archive.clone()),
            ("timeline", self.timeline.clone()),
            ("segments", format!("{} ({} bytes, {} writes)", self.segments, self.bytes, self.writes)),
            ("shipped up to", self.shipped_sequence.to_string()),
        ];
        rows.extend(self.base_snapshot.iter().map(|id| ("base snapshot", id.clone())));
        rows.extend(self.begun.iter().map(|begun| ("new timeline", begun.reason.clone())));
        output.result(self, headline, &rows)
    }
}
