use super::Shipped;
use crate::args::Database;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::{Options, Result};

/// Attach a database to an archive, which is made if need be, and take the first base snapshot
#[derive(Debug, Args)]
pub struct Attach {
    #[command(flatten)]
    database: Database,
    /// file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; credentials come from the environment
    #[arg(long, value_name = "URL")]
    archive: String,
    /// Go on in an archive that another database has, which is shut out of it
    #[arg(long)]
    take_over: bool,
}

impl Attach {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let options = ArchiveOptions { create_directory: true, ..ArchiveOptions::default() };
        let archive = Archive::open(&self.archive, options)?;
        let take_over = if self.take_over { TakeOver::Yes } else { TakeOver::No };
        let engine = attach(&self.database.path, Options::new(), &archive, take_over)?;
        let pass = Shipper::new(engine, archive.clone(), ShipOptions::default()).ship_once()?;
        Shipped::new(&archive, pass).show(output, &format!("attached {}", self.database.path.display()))?;
        Ok(Answer::Yes)
    }
}
