use super::get::Found;
use crate::args::{Database, KeyFormat};
use crate::entry::{self, Entry};
use crate::output::{Answer, Output, print_line};
use clap::{Args, ValueEnum};
use morphkv::{Engine, Options, Result};

/// Print the entry at a key or nearest to it, in encoding order
///
/// The key itself need not exist. The exit code is 1 if nothing is there.
#[derive(Debug, Args)]
pub struct Lookup {
    #[command(flatten)]
    database: Database,
    /// Which entry, seen from the key
    comparison: Comparison,
    /// The key, which need not exist
    key: String,
    #[command(flatten)]
    format: KeyFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Comparison {
    /// The key itself
    Equal,
    /// The greatest that is not greater
    Floor,
    /// The smallest that is not smaller
    Ceiling,
    /// The greatest that is smaller
    Lower,
    /// The smallest that is greater
    Higher,
}

impl From<Comparison> for morphkv::Comparison {
    fn from(typed: Comparison) -> Self {
        match typed {
            Comparison::Equal => morphkv::Comparison::Equal,
            Comparison::Floor => morphkv::Comparison::Floor,
            Comparison::Ceiling => morphkv::Comparison::Ceiling,
            Comparison::Lower => morphkv::Comparison::Lower,
            Comparison::Higher => morphkv::Comparison::Higher,
        }
    }
}

impl Lookup {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let key = self.format.parse(&self.key)?;
        let engine = Engine::open_read_only(&self.database.path, Options::new())?;
        let nearest = engine.lookup(&key, self.comparison.into())?;
        let hex = self.format.hex;
        if output.is_json() {
            let entry = match &nearest {
                Some((found, value)) => Entry::new(found, Some(value), hex),
                None => Entry::new(&key, None, hex),
            };
            output.object(&Found { found: nearest.is_some(), entry })?;
        } else if let Some((found, value)) = &nearest {
            print_line(&entry::shown(found, Some(value), hex))?;
        } else {
            output.message("there is no such key");
        }
        Ok(nearest.is_some().into())
    }
}
