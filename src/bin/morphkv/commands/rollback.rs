use crate::args::{Consent, Database};
use crate::output::{Answer, Output, count};
use clap::Args;
use morphkv::{ErrorKind, Options, Result, manage};

/// Put the old database back that a conversion kept
///
/// What was written since the conversion is lost; it says how many writes that are, and asks.
#[derive(Debug, Args)]
pub struct Rollback {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    consent: Consent,
}

impl Rollback {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let path = &self.database.path;
        let question = match manage::rollback_loss(path, &Options::new()) {
            Ok(lost) => format!("Rolling {} back loses {} writes.", path.display(), count(lost)),
            // A damaged database cannot tell, and is what a rollback is for.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused) => {
                format!("Rolling {} back loses all that was written since ({error}).", path.display())
            }
            Err(error) => return Err(error),
        };
        if !self.consent.given(output, &question, &format!("morphkv rollback {} -y", path.display()))? {
            return Ok(Answer::No);
        }
        let done = manage::rollback(path, &Options::new())?;
        let rows = [
            ("encoding", done.encoding.clone()),
            ("writes lost", done.lost_writes.map_or_else(|| "unknown".to_owned(), count)),
        ];
        output.result(&done, &format!("rolled {} back", path.display()), &rows)?;
        Ok(Answer::Yes)
    }
}
