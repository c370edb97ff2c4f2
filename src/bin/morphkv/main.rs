//! The command line: looking after databases from a shell. All work is done by the library.

mod args;
mod bytes;
mod commands;
mod consent;
mod entry;
mod logging;
mod output;
mod progress;

use args::Cli;
use clap::Parser;
use morphkv::{Error, ErrorKind};
use output::{Answer, Output};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    logging::start(&cli.global);
    let output = Output::new(&cli.global);
    match cli.command.run(&output) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // Whoever read our output has had enough: `morphkv scan DB | head`.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(2)
        }
    }
}

/// Help and version are no errors; a command line that makes no sense is one, as an object where objects were asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let asked_for_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && asked_for_json {
        let message = error.render().to_string();
        let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        output::failure_as_json(
            &Error::new(ErrorKind::InvalidArgument, "understand the command line", message).next("morphkv --help"),
        );
        return ExitCode::from(2);
    }
    // Where help cannot be written there is nobody to tell.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
