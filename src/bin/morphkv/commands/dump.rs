use crate::args::{Database, KeyFormat};
use crate::entry::{self, Format};
use crate::output::{Answer, Output, failed_to_write, stdout};
use clap::Args;
use morphkv::{Engine, Options, Result};
use std::io::Write;

/// Write all entries to stdout, a line each, for `load` or for RocksDB's `ldb load --hex`
///
/// Keys are decoded, and come in encoding order. Internal records are not part of it.
#[derive(Debug, Args)]
pub struct Dump {
    #[command(flatten)]
    database: Database,
    /// What a line looks like
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    format: Format,
    #[command(flatten)]
    keys: KeyFormat,
}

impl Dump {
    pub fn run(self, _output: &Output) -> Result<Answer> {
        let engine = Engine::open_read_only(&self.database.path, Options::new())?;
        let mut out = stdout();
        let mut entries: u64 = 0;
        for entry in engine.range(..)? {
            let (key, value) = entry?;
            entry::write_line(&mut out, self.format, &key, &value, self.keys.hex).map_err(failed_to_write)?;
            entries += 1;
        }
        out.flush().map_err(failed_to_write)?;
        tracing::info!(entries, "dumped");
        Ok(Answer::Yes)
    }
}
