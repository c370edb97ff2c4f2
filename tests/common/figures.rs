//! The figures of a check: printed by the run itself, and kept in `target/torture/` for the report.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Whether the large sizes were asked for (`make torture`).
pub fn torture() -> bool {
    std::env::var_os("MORPHKV_TORTURE").is_some()
}

/// The size of a check: what CI runs, or the large one.
pub fn scale<T>(ci: T, large: T) -> T {
    if torture() { large } else { ci }
}

/// Where the figures are kept.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("torture")
}

/// The figures of one check, in the order in which they were added.
pub struct Figures {
    check: &'static str,
    began: Instant,
    values: Vec<(String, Value)>,
}

impl Figures {
    /// Begins the check of that name (`crash-states`, `kills`...).
    pub fn new(check: &'static str) -> Self {
        Figures { check, began: Instant::now(), values: Vec::new() }
    }

    /// Adds a figure.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.push((name.into(), value.into()));
        self
    }

    /// Prints the figures on one line and writes them to `target/torture/<check>.json`.
    pub fn print(self) {
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let short: Vec<_> = self.values.iter().filter(|(_, value)| !value.is_array() && !value.is_object()).collect();
        let line: Vec<_> = short.iter().map(|(name, value)| format!("{name}: {}", shown(value))).collect();
        let seconds = (self.began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        println!("{}: {}, seconds: {seconds}", self.check, line.join(", "));
        let size = scale("ci", "torture");
        let figures: Map<String, Value> = self.values.into_iter().collect();
        let record = json!({"check": self.check, "size": size, "seconds": seconds, "figures": figures});
        std::fs::create_dir_all(directory()).unwrap();
        std::fs::write(directory().join(format!("{}.json", self.check)), format!("{record:#}\n")).unwrap();
    }
}
