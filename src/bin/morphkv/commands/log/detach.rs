use crate::args::{Consent, Database};
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::log_backup::attach::detach;
use morphkv::{Options, Result};
use serde::Serialize;

/// Detach a database from its archive, which stays as it is
///
/// What is not shipped never will be. The exit code is 1 if it was not attached.
#[derive(Debug, Args)]
pub struct Detach {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Serialize)]
struct Detached {
    detached: bool,
    archive: Option<String>,
}

impl Detach {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let path = self.database.path.display();
        let question = format!("What is not shipped of {path} never will be.");
        if !self.consent.given(output, &question, &format!("morphkv log detach {path} -y"))? {
            return Ok(Answer::No);
        }
        let archive = detach(&self.database.path, Options::new())?;
        let detached = archive.is_some();
        let headline = if detached { format!("detached {path}") } else { format!("{path} was not attached") };
        output.result(&Detached { detached, archive }, &headline, &[])?;
        Ok(detached.into())
    }
}
