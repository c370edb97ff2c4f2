use crate::args::Database;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::{Error, ErrorKind, Options, Result, inspect, manage};
use serde::Serialize;

/// Bring a database to rest after an interrupted change
///
/// Finishes a change whose new database was complete, removes what a finished one left, and leaves a conversion whose new
/// database was not complete to be gone on with by `convert`. A database that needs nothing is left as it is.
#[derive(Debug, Args)]
pub struct Recover {
    #[command(flatten)]
    database: Database,
    /// Only tell what it would do first
    #[arg(long)]
    dry_run: bool,
    /// Drop an unfinished conversion too; the old database stays
    #[arg(long)]
    abandon: bool,
}

#[derive(Serialize)]
struct Recovered {
    dry_run: bool,
    actions: Vec<String>,
    state: String,
}

impl Recover {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let recovered = if self.dry_run {
            let seen = inspect::inspect(&self.database.path, &Options::new())?;
            Recovered { dry_run: true, actions: self.planned(&seen)?, state: seen.state }
        } else {
            let recovery = manage::recover(&self.database.path, &Options::new(), self.abandon)?;
            Recovered { dry_run: false, actions: recovery.actions, state: recovery.state }
        };
        let label = if self.dry_run { "would" } else { "did" };
        let mut rows = vec![("state", recovered.state.clone())];
        rows.extend(recovered.actions.iter().map(|action| (label, action.clone())));
        if recovered.actions.is_empty() {
            rows.push((label, "nothing: it is at rest".into()));
        }
        if recovered.state == "building" && !self.abandon {
            rows.push(("then", "an unfinished conversion: go on with `convert`, or `recover --abandon`".into()));
        }
        output.result(&recovered, &self.database.path.display().to_string(), &rows)?;
        Ok(Answer::Yes)
    }

    /// What recovery would do first. Where it would refuse, so does this.
    fn planned(&self, seen: &inspect::Inspection) -> Result<Vec<String>> {
        /// At rest: no change (3, 4), an unfinished conversion (6), a kept old database (24).
        const ROWS_AT_REST: [u8; 4] = [3, 4, 6, 24];
        const ROW_UNFINISHED: u8 = 6;
        if let Some(reason) = &seen.reason {
            let next = format!("morphkv inspect {}", seen.path);
            return Err(Error::new(ErrorKind::Refused, "recover the database", reason).at(&seen.path).next(next));
        }
        Ok(match seen.row {
            ROW_UNFINISHED if self.abandon => vec!["drop the unfinished conversion".into()],
            row if ROWS_AT_REST.contains(&row) => Vec::new(),
            _ => vec![seen.next_action.clone()],
        })
    }
}
