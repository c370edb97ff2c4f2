use crate::args::{Database, KeyFormat};
use crate::bytes::to_hex;
use crate::entry::Entry;
use crate::output::{Answer, Output, failed_to_write, stdout};
use clap::Args;
use morphkv::{Engine, Options, Result};
use serde::Serialize;
use std::io::Write;

/// Print the value of a key
///
/// As it is, and a line feed. The exit code is 1 if the key is absent.
#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    database: Database,
    /// The key: UTF-8, or hexadecimal with --hex
    key: String,
    #[command(flatten)]
    format: KeyFormat,
}

/// What `get` and `lookup` tell; without a value nothing was found.
#[derive(Serialize)]
pub struct Found<'a> {
    pub found: bool,
    #[serde(flatten)]
    pub entry: Entry<'a>,
}

impl Get {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let key = self.format.parse(&self.key)?;
        let engine = Engine::open_read_only(&self.database.path, Options::new())?;
        let value = engine.get(&key)?;
        if output.is_json() {
            let entry = Entry::new(&key, value.as_deref(), self.format.hex);
            output.object(&Found { found: value.is_some(), entry })?;
        } else if let Some(value) = &value {
            let mut out = stdout();
            let printed = if self.format.hex { out.write_all(to_hex(value).as_bytes()) } else { out.write_all(value) };
            printed.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).map_err(failed_to_write)?;
        } else {
            output.message("the key is absent");
        }
        Ok(value.is_some().into())
    }
}
