use crate::args::{Database, EncodingName};
use crate::entry::{self, Format};
use crate::output::{Answer, Output, count};
use clap::{Args, ValueHint};
use morphkv::{Durability, Engine, Error, ErrorKind, OnMismatch, Options, Result};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Write entries from a file or from stdin
///
/// One a line, as `dump` or RocksDB's `ldb dump --hex` writes them, in any order; of a key that comes twice the last counts.
/// Without a database one is made. A line that cannot be understood ends it; the message gives its number and how many
/// of the entries before it are loaded. Loading again does no harm.
#[derive(Debug, Args)]
pub struct Load {
    #[command(flatten)]
    database: Database,
    /// Where the lines come from; `-` is stdin
    #[arg(value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The encoding of a new database (default: natural); one that is there must have it
    #[arg(long, value_name = "ENCODING")]
    encoding: Option<EncodingName>,
    /// What a line looks like
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    format: Format,
    /// The longest line, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_line: u32,
}

#[derive(Serialize)]
struct Loaded {
    entries: u64,
    encoding: String,
    seconds: f64,
}

/// Entries that are written together, with the numbers of their lines.
type Batch = Vec<(u64, Vec<u8>, Vec<u8>)>;

/// A batch is written when its entries take this many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// What an entry takes beside its key and value: many empty ones must not fill the memory either.
const ENTRY_BYTES: usize = 64;

impl Load {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let began = Instant::now();
        let mut lines = Lines::open(&self.file, self.max_line)?;
        let step = |error: LineError, loaded: u64| error.into_error(&self.file, loaded);
        // Before anything is opened or made: whoever names the wrong file or format changes nothing.
        let mut batch = lines.next_batch(self.format).map_err(|error| step(error, 0))?;
        let engine = Engine::open(&self.database.path, self.options())?;
        let encoding = engine.encoding().to_string();
        let mut entries = 0;
        let mut failed = None;
        while failed.is_none() && !batch.is_empty() {
            match write(&engine, &batch) {
                Ok(()) => entries += batch.len() as u64,
                Err(error) => failed = Some(error),
            }
            batch = lines.next_batch(self.format).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                Batch::new()
            });
        }
        finish(engine)?;
        if let Some(error) = failed {
            return Err(step(error, entries));
        }
        let loaded = Loaded { entries, encoding, seconds: began.elapsed().as_secs_f64() };
        let headline = format!(
            "loaded {} entries into {} ({}) in {:.2} s",
            count(entries),
            self.database.path.display(),
            loaded.encoding,
            loaded.seconds
        );
        output.result(&loaded, &headline, &[])?;
        Ok(Answer::Yes)
    }

    /// Batches need not be on the disk one by one: the flush at the end makes all of them durable.
    fn options(&self) -> Options {
        let options = Options::new().create_if_missing(true).durability(Durability::Buffered);
        match self.encoding {
            Some(encoding) => options.encoding(encoding.encoding()).on_mismatch(OnMismatch::Refuse),
            None => options,
        }
    }
}

fn finish(engine: Engine) -> Result<()> {
    engine.flush()?;
    engine.close()
}

fn write(engine: &Engine, entries: &Batch) -> std::result::Result<(), LineError> {
    let mut batch = engine.batch();
    for (line, key, value) in entries {
        batch.put(key, value).map_err(|error| LineError::of(*line, &error))?;
    }
    let first = entries.first().map_or(0, |(line, ..)| *line);
    batch.commit().map_err(|error| LineError::of(first, &error))
}

/// What is wrong, and on which line, counted from 1.
struct LineError {
    line: u64,
    kind: ErrorKind,
    what: String,
}

impl LineError {
    fn of(line: u64, error: &Error) -> Self {
        LineError { line, kind: error.kind(), what: error.message().to_owned() }
    }

    fn into_error(self, file: &Path, loaded: u64) -> Error {
        let before = match loaded {
            0 => "nothing was loaded".to_owned(),
            _ => format!("the first {} entries are loaded, nothing after them", count(loaded)),
        };
        let message = format!("line {}: {}; {before}", self.line, self.what);
        let error = Error::new(self.kind, "load entries", message);
        if is_stdin(file) { error } else { error.at(file) }
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

struct Lines {
    input: Box<dyn BufRead>,
    longest: u64,
    number: u64,
    buffer: Vec<u8>,
}

impl Lines {
    fn open(file: &Path, longest_mebibytes: u32) -> Result<Self> {
        let input: Box<dyn BufRead> = if is_stdin(file) {
            Box::new(io::stdin().lock())
        } else {
            let opened = File::open(file).map_err(|error| Error::io("open the file to load", file, error))?;
            Box::new(BufReader::with_capacity(256 << 10, opened))
        };
        Ok(Lines { input, longest: u64::from(longest_mebibytes) << 20, number: 0, buffer: Vec::new() })
    }

    /// The entries of the next lines; none at the end.
    fn next_batch(&mut self, format: Format) -> std::result::Result<Batch, LineError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && self.read_line()? {
            let parsed = entry::parse_line(format, &self.buffer).map_err(|why| self.error(why))?;
            if let Some((key, value)) = parsed {
                bytes += key.len() + value.len() + ENTRY_BYTES;
                batch.push((self.number, key, value));
            }
        }
        Ok(batch)
    }

    /// Reads one line; `false` at the end.
    fn read_line(&mut self) -> std::result::Result<bool, LineError> {
        self.buffer.clear();
        self.number += 1;
        let read = self.input.by_ref().take(self.longest + 1).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| LineError { kind: ErrorKind::Io, ..self.error(error.to_string()) })?;
        if read as u64 > self.longest {
            return Err(self.error(format!("it is longer than {} MiB (--max-line)", self.longest >> 20)));
        }
        Ok(read > 0)
    }

    fn error(&self, what: String) -> LineError {
        LineError { line: self.number, kind: ErrorKind::InvalidArgument, what }
    }
}
