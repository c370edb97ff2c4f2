use crate::args::{Consent, Database};
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::{Options, Result, manage};
use serde::Serialize;

/// Remove the old database that a conversion kept
#[derive(Debug, Args)]
pub struct DropBackup {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Serialize)]
struct Dropped {
    dropped: bool,
}

impl DropBackup {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let path = self.database.path.display();
        let question = format!("Without the old database of {path} there is no rollback any more.");
        if !self.consent.given(output, &question, &format!("morphkv drop-backup {path} -y"))? {
            return Ok(Answer::No);
        }
        manage::drop_backup(&self.database.path, &Options::new())?;
        output.result(&Dropped { dropped: true }, &format!("removed the old database of {path}"), &[])?;
        Ok(Answer::Yes)
    }
}
