use crate::args::{Consent, Database};
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::{Engine, Options, Result};
use serde::Serialize;

/// Remove a database with all that belongs to it
///
/// The exit code is 1 if there was none.
#[derive(Debug, Args)]
pub struct Destroy {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Serialize)]
struct Destroyed {
    destroyed: bool,
}

impl Destroy {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let path = self.database.path.display();
        let question = format!("All of {path} will be gone, a kept old database too.");
        if !self.consent.given(output, &question, &format!("morphkv destroy {path} -y"))? {
            return Ok(Answer::No);
        }
        let destroyed = Engine::destroy(&self.database.path, Options::new())?;
        let headline = if destroyed { format!("destroyed {path}") } else { format!("there is no database at {path}") };
        output.result(&Destroyed { destroyed }, &headline, &[])?;
        Ok(destroyed.into())
    }
}
