use super::selection::{Selection, SelectionArgs};
use crate::args::{Database, KeyFormat};
use crate::entry::{self, Entry};
use crate::output::{Answer, Output, failed_to_write, stdout};
use clap::Args;
use morphkv::{Engine, Options, Result};
use std::io::Write;

/// Print entries in encoding order
///
/// A line is key, tab, value, with control characters, backslashes and what is no UTF-8 escaped.
#[derive(Debug, Args)]
pub struct Scan {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Without the values
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    format: KeyFormat,
}

impl Scan {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let selection = self.selection()?;
        let engine = Engine::open_read_only(&self.database.path, Options::new())?;
        let entries = selection.entries(&engine)?;
        let hex = self.format.hex;
        if output.is_json() {
            let mut list = output.list("entries")?;
            for entry in entries {
                let (key, value) = entry?;
                list.push(&Entry::new(&key, (!self.keys_only).then_some(&value[..]), hex))?;
            }
            list.finish()?;
        } else {
            let mut out = stdout();
            for entry in entries {
                let (key, value) = entry?;
                writeln!(out, "{}", entry::shown(&key, (!self.keys_only).then_some(&value[..]), hex))
                    .map_err(failed_to_write)?;
            }
            out.flush().map_err(failed_to_write)?;
        }
        Ok(Answer::Yes)
    }

    fn selection(&self) -> Result<Selection> {
        let typed = &self.selection;
        let parse = |key: &Option<String>| key.as_deref().map(|key| self.format.parse(key)).transpose();
        Ok(Selection {
            from: parse(&typed.from)?,
            to: parse(&typed.to)?,
            prefix: parse(&typed.prefix)?,
            children_of: parse(&typed.children_of)?,
            reverse: typed.reverse,
            limit: typed.limit,
        })
    }
}
