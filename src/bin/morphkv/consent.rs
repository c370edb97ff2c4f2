//! Asking before something is destroyed.

use crate::args::Consent;
use crate::output::Output;
use morphkv::{Error, ErrorKind, Result};
use std::io::{IsTerminal, Write};

impl Consent {
    /// Whether to go on: `-y` was given, or a person says so. `what` is the sentence that the question begins with,
    /// `command` what to type to say yes beforehand.
    ///
    /// # Errors
    /// `InvalidArgument` where there is nobody to ask.
    pub fn given(self, output: &Output, what: &str, command: &str) -> Result<bool> {
        if self.yes {
            return Ok(true);
        }
        let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
        if output.is_json() || !stdin.is_terminal() || !stderr.is_terminal() {
            let message = format!("{what} There is no terminal to ask at, and -y was not given; nothing was touched.");
            return Err(Error::new(ErrorKind::InvalidArgument, "go on without a yes", message).next(command));
        }
        let mut answer = String::new();
        let asked = write!(stderr, "{what} Go on? [y/N] ").and_then(|()| stderr.flush());
        asked
            .and_then(|()| stdin.read_line(&mut answer))
            .map_err(|error| Error::new(ErrorKind::Io, "ask", error.to_string()).because(error))?;
        let yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        if !yes {
            output.message("nothing was touched");
        }
        Ok(yes)
    }
}
