use crate::args::Cli;
use crate::output::{Answer, Output, failed_to_write, stdout};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use morphkv::Result;
use std::io::Write;

/// Write completions for a shell to stdout
#[derive(Debug, Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self, _output: &Output) -> Result<Answer> {
        // The generator panics where it cannot write, and into memory it can.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "morphkv", &mut script);
        let mut out = stdout();
        out.write_all(&script).and_then(|()| out.flush()).map_err(failed_to_write)?;
        Ok(Answer::Yes)
    }
}
