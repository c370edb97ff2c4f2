use crate::args::{Database, KeyFormat};
use crate::entry::Entry;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::{Engine, Options, Result};
use serde::Serialize;

/// Delete a key
///
/// The exit code is 1 if it was absent.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    database: Database,
    /// The key: UTF-8, or hexadecimal with --hex
    key: String,
    #[command(flatten)]
    format: KeyFormat,
}

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: bool,
    #[serde(flatten)]
    entry: Entry<'a>,
}

impl Delete {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let key = self.format.parse(&self.key)?;
        let engine = Engine::open(&self.database.path, Options::new())?;
        let deleted = engine.contains(&key)?;
        if deleted {
            engine.delete(&key)?;
        }
        engine.close()?;
        if output.is_json() {
            output.object(&Deleted { deleted, entry: Entry::new(&key, None, self.format.hex) })?;
        } else if !deleted {
            output.message("the key was absent");
        }
        Ok(deleted.into())
    }
}
