use crate::args::{Database, KeyFormat};
use crate::entry::Entry;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::{Engine, Options, Result};
use serde::Serialize;

/// Write a key
///
/// It is on the disk when the command returns. A value that begins with `-` goes after `--`.
#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    database: Database,
    /// The key: UTF-8, or hexadecimal with --hex
    key: String,
    /// The value, likewise
    value: String,
    #[command(flatten)]
    format: KeyFormat,
}

#[derive(Serialize)]
struct Written<'a> {
    written: bool,
    #[serde(flatten)]
    entry: Entry<'a>,
}

impl Put {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let (key, value) = (self.format.parse(&self.key)?, self.format.parse(&self.value)?);
        let engine = Engine::open(&self.database.path, Options::new())?;
        engine.put(&key, &value)?;
        engine.close()?;
        if output.is_json() {
            output.object(&Written { written: true, entry: Entry::new(&key, None, self.format.hex) })?;
        }
        Ok(Answer::Yes)
    }
}
