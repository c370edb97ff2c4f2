use crate::args::Database;
use crate::output::{Answer, Output, print_line};
use crate::progress::Meter;
use clap::Args;
use morphkv::{Options, Result, manage};
use serde::Serialize;

/// Count the entries and digest them
///
/// The digest is the same for the same entries in any encoding. It tells accidents, not forgers.
#[derive(Debug, Args)]
pub struct Digest {
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Digested {
    entries: u64,
    digest: String,
}

impl Digest {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let meter = Meter::new(output);
        let content = manage::digest(&self.database.path, &Options::new().progress(meter.callback()));
        drop(meter);
        let content = content?;
        let digested = Digested { entries: content.entries, digest: content.digest.to_string() };
        if output.is_json() {
            output.object(&digested)?;
        } else {
            // One line that `diff` and `cut` can work with.
            print_line(&format!("{}\t{}", digested.digest, digested.entries))?;
        }
        Ok(Answer::Yes)
    }
}
