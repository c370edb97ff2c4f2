use crate::args::Database;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::Result;
use morphkv::log_backup::archive::ArchiveOptions;
use morphkv::log_backup::overview::{self, DatabaseLog};
use serde::Serialize;

/// Show how far the log of a database has come in its archive
///
/// The exit code is 1 if it is not attached, if something is not shipped yet, or if another database has its archive.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Shown {
    attached: bool,
    is_complete: bool,
    log: Option<DatabaseLog>,
}

impl Status {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let path = self.database.path.display();
        let log = overview::database(&self.database.path, ArchiveOptions::default())?;
        let shipped = |log: &DatabaseLog| log.end.as_ref().map(|end| end.sequence);
        let is_complete = log.as_ref().is_some_and(|log| {
            log.is_current && !log.has_unshipped && shipped(log).is_some_and(|sequence| sequence >= log.last_sequence)
        });
        let (headline, rows) = match &log {
            None => (format!("{path} is not attached"), Vec::new()),
            Some(log) => {
                let end = shipped(log).map_or("nothing".into(), |sequence| format!("{sequence}"));
                let mut rows = vec![
                    ("archive", log.archive.clone()),
                    ("timeline", log.timeline.to_string()),
                    ("shipped up to", format!("{end} of {}", log.last_sequence)),
                    ("WAL bytes kept", log.retained_wal_bytes.to_string()),
                ];
                if !log.is_current {
                    rows.push(("warning", "it is not the archive's current timeline".into()));
                }
                if log.has_unshipped {
                    rows.push(("unshipped", "the log from before the last conversion or restore".into()));
                }
                (format!("{path} is attached"), rows)
            }
        };
        let shown = Shown { attached: log.is_some(), is_complete, log: log.clone() };
        output.result(&shown, &headline, &rows)?;
        Ok(is_complete.into())
    }
}
