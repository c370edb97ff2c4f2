use super::{Shipped, archive_of};
use crate::args::Database;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::{Engine, Options, Result};

/// Take a base snapshot, so that a restore begins here, and what is older can be truncated
#[derive(Debug, Args)]
pub struct Snapshot {
    #[command(flatten)]
    database: Database,
}

impl Snapshot {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let archive = archive_of(&self.database.path)?;
        let engine = Engine::open(&self.database.path, Options::new())?;
        let mut shipper = Shipper::new(engine, archive.clone(), ShipOptions::default());
        shipper.want_snapshot();
        let pass = shipper.ship_once()?;
        Shipped::new(&archive, pass)
            .show(output, &format!("took a base snapshot of {}", self.database.path.display()))?;
        Ok(Answer::Yes)
    }
}
