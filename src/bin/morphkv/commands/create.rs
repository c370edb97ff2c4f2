use crate::args::{Database, EncodingName};
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::{Options, Result, manage};
use serde::Serialize;

/// Make a new, empty database
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    database: Database,
    /// How its keys are to lie on disk
    #[arg(long, value_name = "ENCODING")]
    encoding: EncodingName,
}

/// What `create` and `adopt` tell.
#[derive(Serialize)]
pub struct Identity {
    pub path: String,
    pub encoding: String,
    pub revision: u32,
    pub database_id: String,
}

impl Identity {
    /// # Errors
    /// `Io`.
    pub fn show(&self, output: &Output, done: &str) -> Result<Answer> {
        let headline = format!("{done} {}", self.path);
        let rows =
            [("encoding", format!("{} r{}", self.encoding, self.revision)), ("database id", self.database_id.clone())];
        output.result(self, &headline, &rows)?;
        Ok(Answer::Yes)
    }
}

impl Create {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let marker = manage::create(&self.database.path, &Options::new().encoding(self.encoding.encoding()))?;
        let identity = Identity {
            path: self.database.path.display().to_string(),
            encoding: marker.encoding.name,
            revision: marker.encoding.revision,
            database_id: marker.database_id.to_string(),
        };
        identity.show(output, "created")
    }
}
