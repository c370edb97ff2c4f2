//! `morphkv archive ..`: looking after an archive.

mod changes;
mod compact;
mod fsck;
mod history;
mod line;
mod locks;
mod status;
mod truncate;
mod verify;

use crate::output::{Answer, Output};
use clap::{Args, Subcommand};
use morphkv::Result;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};

/// Look after an archive of log backups
#[derive(Debug, Args)]
pub struct ArchiveCommands {
    #[command(subcommand)]
    command: ArchiveCommand,
}

#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    Status(status::Status),
    Verify(verify::Verify),
    Fsck(fsck::Fsck),
    History(history::History),
    Changes(changes::Changes),
    Compact(compact::Compact),
    Locks(locks::Locks),
    Truncate(truncate::Truncate),
}

impl ArchiveCommands {
    pub fn run(self, output: &Output) -> Result<Answer> {
        match self.command {
            ArchiveCommand::Status(command) => command.run(output),
            ArchiveCommand::Verify(command) => command.run(output),
            ArchiveCommand::Fsck(command) => command.run(output),
            ArchiveCommand::History(command) => command.run(output),
            ArchiveCommand::Changes(command) => command.run(output),
            ArchiveCommand::Compact(command) => command.run(output),
            ArchiveCommand::Locks(command) => command.run(output),
            ArchiveCommand::Truncate(command) => command.run(output),
        }
    }
}

#[derive(Debug, Args)]
struct Place {
    /// file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; credentials come from the environment
    #[arg(value_name = "URL")]
    url: String,
}

impl Place {
    /// # Errors
    /// As [`Archive::open`].
    fn open(&self) -> Result<Archive> {
        Archive::open(&self.url, ArchiveOptions::default())
    }
}
