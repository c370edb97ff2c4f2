use super::Place;
use crate::args::KeyFormat;
use crate::bytes::{printable, to_hex};
use crate::output::{Answer, Output, failed_to_write, stdout};
use clap::Args;
use morphkv::log_backup::changes::{Change, Found, Keys, LogKey, Question, changes};
use morphkv::restore::moment::{Moment, show_time};
use morphkv::{Error, ErrorKind, Options, Result};
use serde_json::{Map, Value};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Show who wrote or deleted a key, and when: what the log says, the oldest first
///
/// A line is time, sequence number, what was done, key, and value. Of a bulk load only the bounds of its keys are known.
#[derive(Debug, Args)]
pub struct Changes {
    #[command(flatten)]
    place: Place,
    /// Only what touches this key
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    key: Option<String>,
    /// Only what touches keys that begin so
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Nothing before this time: 2026-01-31T12:00:00Z, -30m, or microseconds of the Unix epoch
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    from: Option<String>,
    /// Nothing after this time
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: Option<String>,
    #[command(flatten)]
    format: KeyFormat,
}

impl Changes {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let question = self.question()?;
        let archive = self.place.open()?;
        let hex = self.format.hex;
        if output.is_json() {
            let mut list = output.list("changes")?;
            changes(&archive, &question, &Options::new(), &mut |found| list.push(&object(&found, hex)))?;
            list.finish()?;
        } else {
            let mut out = stdout();
            let mut print = |found: Found| writeln!(out, "{}", line(&found, hex)).map_err(failed_to_write);
            changes(&archive, &question, &Options::new(), &mut print)?;
            out.flush().map_err(failed_to_write)?;
        }
        Ok(Answer::Yes)
    }

    fn question(&self) -> Result<Question> {
        let keys = match (&self.key, &self.prefix) {
            (Some(key), _) => Keys::One(self.format.parse(key)?),
            (None, Some(prefix)) => Keys::Prefix(self.format.parse(prefix)?),
            (None, None) => Keys::All,
        };
        Ok(Question { keys, from: time(self.from.as_deref())?, to: time(self.to.as_deref())? })
    }
}

fn time(typed: Option<&str>) -> Result<Option<u64>> {
    let Some(typed) = typed else { return Ok(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    match Moment::parse(typed, now)? {
        Moment::Time(time) => Ok(Some(time)),
        Moment::Latest | Moment::Sequence { .. } => {
            let message = format!("`{typed}` is no time");
            Err(Error::new(ErrorKind::InvalidArgument, "understand the command line", message))
        }
    }
}

/// What `--json` says of a change. Keys and values are text where they are UTF-8, else hexadecimal in `.._hex`; a bound that
/// is no key, in `.._encoded_hex`.
fn object(found: &Found, hex: bool) -> Map<String, Value> {
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| drop(object.insert(name.into(), value));
    set("time", show_time(found.time).into());
    set("time_microseconds", found.time.into());
    set("timeline", found.timeline.to_string().into());
    set("sequence", found.sequence.into());
    set("change", name(&found.change).into());
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().filter(|_| !hex).map(String::from);
    let mut bytes = |name: &str, bytes: &[u8]| match text(bytes) {
        Some(text) => set(name, text.into()),
        None => set(&format!("{name}_hex"), to_hex(bytes).into()),
    };
    let mut key = |name: &str, key: &LogKey| match &key.key {
        Some(key) => bytes(name, key),
        None => bytes(&format!("{name}_encoded"), &key.encoded),
    };
    match &found.change {
        Change::Put { key: put, value } => {
            key("key", put);
            bytes("value", value);
        }
        Change::Delete { key: deleted } => key("key", deleted),
        Change::DeleteRange { from, to } => {
            key("from", from);
            key("to", to);
        }
        Change::Load { group, entries, first, last } => {
            key("first", first);
            key("last", last);
            set("load", group.to_string().into());
            set("entries", (*entries).into());
        }
        Change::Begun { cause } => set("cause", serde_json::to_value(cause).unwrap_or_default()),
    }
    object
}

fn name(change: &Change) -> &'static str {
    match change {
        Change::Put { .. } => "put",
        Change::Delete { .. } => "delete",
        Change::DeleteRange { .. } => "delete-range",
        Change::Load { .. } => "load",
        Change::Begun { .. } => "timeline",
    }
}

fn line(found: &Found, hex: bool) -> String {
    let show = |bytes: &[u8]| if hex { to_hex(bytes) } else { printable(bytes) };
    let key = |key: &LogKey| match &key.key {
        Some(key) => show(key),
        None => format!("encoded 0x{}", to_hex(&key.encoded)),
    };
    let what = match &found.change {
        Change::Put { key: put, value } => format!("{}\t{}", key(put), show(value)),
        Change::Delete { key: deleted } => key(deleted),
        Change::DeleteRange { from, to } => format!("{} .. {}", key(from), key(to)),
        Change::Load { entries, first, last, .. } => format!("{} .. {}\t{entries} entries", key(first), key(last)),
        Change::Begun { cause } => format!("{} begins: {cause:?}", found.timeline),
    };
    format!("{}\t{}\t{}\t{what}", show_time(found.time), found.sequence, name(&found.change))
}
