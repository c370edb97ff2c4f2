//! One file for each command: what it takes, and what it does.

pub mod adopt;
pub mod archive;
pub mod completions;
pub mod convert;
pub mod create;
pub mod delete;
pub mod demo;
pub mod destroy;
pub mod digest;
pub mod drop_backup;
pub mod dump;
pub mod get;
pub mod inspect;
pub mod load;
pub mod log;
pub mod lookup;
pub mod man;
pub mod put;
pub mod recover;
pub mod restore;
pub mod rollback;
pub mod scan;
pub mod selection;
pub mod verify;

use crate::args::Command;
use crate::output::{Answer, Output};
use morphkv::Result;

impl Command {
    /// # Errors
    /// Whatever the command meets; its kind and words are what the user gets.
    pub fn run(self, output: &Output) -> Result<Answer> {
        match self {
            Command::Demo(command) => command.run(output),
            Command::Create(command) => command.run(output),
            Command::Adopt(command) => command.run(output),
            Command::Inspect(command) => command.run(output),
            Command::Verify(command) => command.run(output),
            Command::Digest(command) => command.run(output),
            Command::Convert(command) => command.run(output),
            Command::Recover(command) => command.run(output),
            Command::Restore(command) => command.run(output),
            Command::Rollback(command) => command.run(output),
            Command::DropBackup(command) => command.run(output),
            Command::Destroy(command) => command.run(output),
            Command::Get(command) => command.run(output),
            Command::Put(command) => command.run(output),
            Command::Delete(command) => command.run(output),
            Command::Lookup(command) => command.run(output),
            Command::Scan(command) => command.run(output),
            Command::Dump(command) => command.run(output),
            Command::Load(command) => command.run(output),
            Command::Log(command) => command.run(output),
            Command::Archive(command) => command.run(output),
            Command::Completions(command) => command.run(output),
            Command::Man(command) => command.run(output),
        }
    }
}
