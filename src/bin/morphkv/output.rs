//! Everything that is written: results to stdout, messages and errors to stderr, each as text or as JSON.

use crate::args::Global;
use clap::builder::styling::{AnsiColor, Style};
use morphkv::{Error, ErrorKind, Result};
use serde::Serialize;
use std::error::Error as _;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::Path;

/// Raised when a field of `--json` output is renamed or removed.
const SCHEMA: u32 = 1;

/// How a command ends when it does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Exit code 0.
    Yes,
    /// Exit code 1.
    No,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Answer::Yes } else { Answer::No }
    }
}

/// Where a command writes to.
#[derive(Clone, Debug)]
pub struct Output {
    global: Global,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    pub fn new(global: &Global) -> Self {
        Output { global: global.clone() }
    }

    pub fn is_json(&self) -> bool {
        self.global.json
    }

    pub fn is_quiet(&self) -> bool {
        self.global.quiet
    }

    /// The result: `object` with `--json`, else a headline and rows of label and value.
    ///
    /// # Errors
    /// `Io`.
    pub fn result(&self, object: &impl Serialize, headline: &str, rows: &[(&str, String)]) -> Result<()> {
        if self.is_json() {
            return self.object(object);
        }
        let mut out = stdout();
        let written = (|| {
            writeln!(out, "{headline}")?;
            write_rows(&mut out, rows)?;
            out.flush()
        })();
        written.map_err(failed_to_write)
    }

    /// The result with `--json`.
    ///
    /// # Errors
    /// `Io`.
    pub fn object(&self, object: &impl Serialize) -> Result<()> {
        let mut out = stdout();
        let written = (|| {
            serde_json::to_writer(&mut out, &Versioned { schema: SCHEMA, body: object })?;
            writeln!(out)?;
            out.flush()
        })();
        written.map_err(failed_to_write)
    }

    /// Begins one object that holds a list too long to be built before it is written:
    /// `{"schema":1,"<name>":[..],"count":n}`.
    ///
    /// # Errors
    /// `Io`.
    pub fn list(&self, name: &str) -> Result<List> {
        let mut out = stdout();
        write!(out, "{{\"schema\":{SCHEMA},\"{name}\":[").map_err(failed_to_write)?;
        Ok(List { out, count: 0 })
    }

    /// A remark for a person, on stderr; nothing with `--quiet` or `--json`.
    pub fn message(&self, text: &str) {
        if !self.is_quiet() && !self.is_json() {
            // Where it cannot be written there is nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// An error: what happened, which path, what has become of the data, what to type next.
    pub fn failure(&self, error: &Error) {
        if self.is_json() {
            return failure_as_json(error);
        }
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let mut text = format!("{red}error{red:#}: cannot {}: {}\n", error.step(), error.message());
        let path = error.path().map(|path| path.display().to_string());
        let next = next_command(error);
        for (label, value) in [("path", path), ("data", data(error.kind()).map(String::from)), ("next", next)] {
            if let Some(value) = value {
                text.push_str(&format!("  {label}: {value}\n"));
            }
        }
        // Without colours where nobody sees them, or wants them.
        let _ = anstream::stderr().lock().write_all(text.as_bytes());
    }
}

/// The items of a list, written as they come.
pub struct List {
    out: BufWriter<StdoutLock<'static>>,
    count: u64,
}

impl List {
    /// # Errors
    /// `Io`.
    pub fn push(&mut self, item: &impl Serialize) -> Result<()> {
        let comma: &[u8] = if self.count == 0 { b"" } else { b"," };
        self.count += 1;
        self.out.write_all(comma).map_err(failed_to_write)?;
        serde_json::to_writer(&mut self.out, item).map_err(|error| failed_to_write(error.into()))
    }

    /// # Errors
    /// `Io`.
    pub fn finish(mut self) -> Result<()> {
        writeln!(self.out, "],\"count\":{}}}", self.count).and_then(|()| self.out.flush()).map_err(failed_to_write)
    }
}

/// Whether stderr takes colours: a terminal, and `NO_COLOR` unset.
pub fn is_coloured() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

#[derive(Serialize)]
struct FailureObject<'a> {
    kind: &'static str,
    message: String,
    path: Option<String>,
    next: Option<&'a str>,
}

/// An error as one object on stderr: stdout holds data alone.
pub fn failure_as_json(error: &Error) {
    let next = next_command(error);
    let object = FailureObject {
        kind: error.kind().name(),
        message: format!("cannot {}: {}", error.step(), error.message()),
        path: error.path().map(|path| path.display().to_string()),
        next: next.as_deref(),
    };
    json_line(&object);
}

/// A JSON object on a line of stderr.
pub fn json_line(object: &impl Serialize) {
    if let Ok(mut line) = serde_json::to_vec(object) {
        line.push(b'\n');
        let _ = io::stderr().write_all(&line);
    }
}

/// What the error names, or else what helps with every error of its kind.
fn next_command(error: &Error) -> Option<String> {
    if let Some(next) = error.next_command() {
        return Some(next.to_owned());
    }
    let path = error.path()?;
    match error.kind() {
        ErrorKind::Locked | ErrorKind::Refused | ErrorKind::UnknownEncoding => {
            Some(format!("morphkv inspect {}", path.display()))
        }
        ErrorKind::Corrupt => Some(format!("morphkv verify {}", path.display())),
        ErrorKind::NoSpace => Some(format!("df -h {}", path.parent().unwrap_or(Path::new(".")).display())),
        _ => None,
    }
}

/// What can be said of the data after every error of that kind. A refusal says it itself.
fn data(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Locked | ErrorKind::UnknownEncoding | ErrorKind::Unsupported | ErrorKind::Conflict => {
            Some("intact; nothing was touched")
        }
        ErrorKind::NoSpace | ErrorKind::Unrepresentable => Some("intact; nothing that was there is lost"),
        ErrorKind::Corrupt => Some("some of it cannot be read as it should be; what was there was not changed"),
        ErrorKind::Io => Some("nothing that was acknowledged is lost; repeat once the cause is gone"),
        _ => None,
    }
}

/// One line of data.
///
/// # Errors
/// `Io`.
pub fn print_line(line: &str) -> Result<()> {
    let mut out = stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(failed_to_write)
}

/// Buffered; to be flushed before the end, so that a failure is seen.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// The error of a write to stdout.
pub fn failed_to_write(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "write the output", error.to_string()).because(error)
}

/// Whether the reader of stdout went away.
pub fn is_broken_pipe(error: &Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Labels and values in two columns.
///
/// # Errors
/// Those of `out`.
pub fn write_rows(out: &mut impl Write, rows: &[(&str, String)]) -> io::Result<()> {
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    rows.iter().try_for_each(|(label, value)| writeln!(out, "  {label:width$}  {value}"))
}

/// A count of bytes for a person.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A count of things for a person.
pub fn count(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}
