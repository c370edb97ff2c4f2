//! What can be typed: the global flags, the list of commands, and the groups of arguments that several commands share.

use crate::bytes;
use crate::commands::{
    adopt, archive, completions, convert, create, delete, demo, destroy, digest, drop_backup, dump, get, inspect, load,
    log, lookup, man, put, recover, restore, rollback, scan, verify,
};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;

const CONVENTIONS: &str = "\
Exit codes: 0 yes or done; 1 no (a key is absent, content differs, a check failed, a question was answered with no); \
2 an error, which says what happened, where, whether the data is intact, and what to type next.

Data goes to stdout, messages and progress to stderr. With --json a command writes one object to stdout and, to stderr, one \
JSON object a line: {\"event\":\"progress\",..}, {\"event\":\"log\",..}, and for an error {\"kind\",\"message\",\"path\",\"next\"}. \
Commands whose output is a stream of its own format (dump, completions) write that to stdout.

Environment: RUST_LOG chooses what is logged (default: warnings), NO_COLOR switches colours off.";

/// Looks after morphkv databases: key-value databases whose key encoding, and so the order of their keys, can be changed
/// without losing a key.
#[derive(Debug, Parser)]
#[command(name = "morphkv", version, after_long_help = CONVENTIONS, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print one JSON object instead of text; field names are stable
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// No progress and no messages but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Log what is done; twice: with every step
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(demo::Demo),
    Create(create::Create),
    Adopt(adopt::Adopt),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Digest(digest::Digest),
    Convert(convert::Convert),
    Recover(recover::Recover),
    Restore(restore::Restore),
    Rollback(rollback::Rollback),
    DropBackup(drop_backup::DropBackup),
    Destroy(destroy::Destroy),
    Get(get::Get),
    Put(put::Put),
    Delete(delete::Delete),
    Lookup(lookup::Lookup),
    Scan(scan::Scan),
    Dump(dump::Dump),
    Load(load::Load),
    Log(log::Log),
    Archive(archive::ArchiveCommands),
    Completions(completions::Completions),
    Man(man::Man),
}

#[derive(Clone, Debug, Args)]
pub struct Database {
    /// The database's directory
    #[arg(value_name = "DB", value_hint = ValueHint::DirPath)]
    pub path: PathBuf,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct KeyFormat {
    /// Keys and values are hexadecimal, on the command line and in the output
    #[arg(long)]
    pub hex: bool,
}

impl KeyFormat {
    /// A key or value as it was typed.
    ///
    /// # Errors
    /// `InvalidArgument` for what is not hexadecimal and should be.
    pub fn parse(self, typed: &str) -> Result<Vec<u8>> {
        if !self.hex {
            return Ok(typed.as_bytes().to_vec());
        }
        bytes::from_hex(typed.as_bytes())
            .map_err(|why| Error::new(ErrorKind::InvalidArgument, "read a hexadecimal argument", why))
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Consent {
    /// Do not ask
    #[arg(short = 'y', long = "yes")]
    pub yes: bool,
}

/// The encodings that a database can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncodingName {
    /// Keys as they are, in byte order
    Natural,
    /// Keys as paths: those of one level lie together, and the children of a path are one range
    Hierarchical,
}

impl EncodingName {
    pub fn encoding(self) -> Arc<dyn KeyEncoding> {
        match self {
            EncodingName::Natural => Arc::new(Natural),
            EncodingName::Hierarchical => Arc::new(Hierarchical),
        }
    }
}
