//! What the log backup costs whoever writes, how far it lags, and how fast a restore is, as ratios in one run.
//!
//! `make bench-log-backup` measures all of it and writes `target/bench/log-backup.json`. Slices:
//! `cargo bench --features log-backup --bench log_backup -- --only writer --rounds 3 --seconds 15`

#[path = "../common/mod.rs"]
mod common;
mod idle;
mod restore;
mod writer;

use common::{machine, root};
use serde_json::{Value, json};

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next()?;
    Some(arguments.next().unwrap_or_else(|| panic!("{name} needs a value")))
}

fn number(name: &str, default: u64) -> u64 {
    argument(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn main() {
    let path = root().join("log-backup.json");
    let mut record: Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_else(|_| json!({}));
    record["machine"] = machine();
    let only = argument("--only");
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|part| part == name));
    if is_wanted("writer") {
        record["writer"] = writer::measure(number("--rounds", 3) as usize, number("--seconds", 15));
    }
    if is_wanted("restore") {
        record["restore"] = restore::measure(number("--rounds", 3) as usize);
    }
    if is_wanted("idle") {
        record["idle"] = idle::measure(number("--shards", 1000) as usize);
    }
    let text = serde_json::to_string_pretty(&record).expect("JSON");
    println!("{text}");
    std::fs::write(&path, text + "\n").expect("write the figures");
}
