use crate::args::Cli;
use crate::output::{Answer, Output};
use clap::{Args, CommandFactory, ValueHint};
use morphkv::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write manual pages, one for each command, into a directory
#[derive(Debug, Args)]
pub struct Man {
    /// Made if it is not there
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
}

#[derive(Serialize)]
struct Pages {
    directory: String,
    pages: usize,
}

impl Man {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let failed = |error| Error::io("write the manual pages", &self.directory, error);
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &self.directory).map_err(failed)?;
        let pages = count_pages(&self.directory).map_err(failed)?;
        let directory = self.directory.display().to_string();
        let rows = [("read", format!("man {directory}/morphkv.1"))];
        output.result(
            &Pages { directory: directory.clone(), pages },
            &format!("{pages} manual pages are in {directory}"),
            &rows,
        )?;
        Ok(Answer::Yes)
    }
}

fn count_pages(directory: &Path) -> std::io::Result<usize> {
    let mut pages = 0;
    for entry in std::fs::read_dir(directory)? {
        pages += usize::from(entry?.file_name().to_string_lossy().starts_with("morphkv"));
    }
    Ok(pages)
}
