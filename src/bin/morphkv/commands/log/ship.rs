use super::{Shipped, archive_of};
use crate::args::Database;
use crate::output::{Answer, Output, json_line};
use clap::Args;
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::{Engine, ErrorKind, Options, Result};
use serde::Serialize;
use std::time::Duration;

/// Bring the log of a database to its archive
///
/// With --once all that there is; without, it goes on until it is killed, which may be at any instant.
#[derive(Debug, Args)]
pub struct Ship {
    #[command(flatten)]
    database: Database,
    /// End when everything is shipped
    #[arg(long)]
    once: bool,
    /// Seconds from pass to pass
    #[arg(long, value_name = "SECONDS", default_value_t = 10, conflicts_with = "once")]
    interval: u64,
}

#[derive(Serialize)]
struct Passed<'a> {
    event: &'static str,
    segments: u64,
    shipped_sequence: u64,
    error: Option<&'a str>,
}

impl Ship {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let archive = archive_of(&self.database.path)?;
        let engine = Engine::open(&self.database.path, Options::new())?;
        let mut shipper = Shipper::new(engine, archive.clone(), ShipOptions::default());
        if self.once {
            let pass = shipper.ship_once()?;
            Shipped::new(&archive, pass).show(output, &format!("shipped {}", self.database.path.display()))?;
            return Ok(Answer::Yes);
        }
        loop {
            let done = shipper.ship_once();
            let text = done.as_ref().err().map(ToString::to_string);
            let (segments, shipped_sequence) =
                done.as_ref().map_or((0, 0), |pass| (pass.segments, pass.shipped_sequence));
            if output.is_json() {
                json_line(&Passed { event: "progress", segments, shipped_sequence, error: text.as_deref() });
            } else {
                output.message(&text.unwrap_or_else(|| format!("{segments} segments, up to {shipped_sequence}")));
            }
            // Anything else may pass by itself.
            done.map(|_| ()).or_else(|error| if error.kind() == ErrorKind::Io { Ok(()) } else { Err(error) })?;
            std::thread::sleep(Duration::from_secs(self.interval.max(1)));
        }
    }
}
