//! The figures: `target/bench/conversion.json`, to which every slice of a run adds its own.

use crate::common::{machine, root};
use crate::contender::{CONTENDERS, Contender};
use crate::source::{DIRECTIONS, Direction, SIZES, Size, Source};
use serde_json::{Value, json};

/// What has been measured so far.
pub struct Record(Value);

impl Record {
    pub fn read() -> Self {
        let bytes = std::fs::read(root().join("conversion.json")).unwrap_or_default();
        let mut record: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({}));
        record["machine"] = machine();
        Record(record)
    }

    /// Keeps the seconds of one contender; those of an earlier run are replaced.
    pub fn keep(&mut self, size: Size, direction: Direction, contender: Contender, source: &Source, seconds: &[f64]) {
        let run = &mut self.0["runs"][size.name][direction.name()];
        run["entries"] = json!(source.entries);
        run["bytes"] = json!(source.bytes);
        run["seconds"][contender.name()] = json!(seconds);
    }

    /// Keeps the figures of one shape in one direction.
    pub fn keep_shape(&mut self, figures: Value) {
        let mut shapes = self.0["memory"].as_array().cloned().unwrap_or_default();
        let differs = |old: &Value| ["shape", "direction"].iter().any(|name| old[name] != figures[name]);
        shapes.retain(differs);
        shapes.push(figures);
        self.0["disk"] = json!(shapes.iter().filter_map(|shape| shape["disk_ratio"].as_f64()).fold(0.0, f64::max));
        self.0["memory"] = json!(shapes);
    }

    /// Keeps figures of another kind.
    pub fn set(&mut self, name: &str, figures: Value) {
        self.0[name] = figures;
    }

    /// Draws what has been measured.
    pub fn draw(&self) {
        let path = root().join("report.html");
        std::fs::write(&path, crate::page::page(&self.0)).expect("write the report");
        println!("{}", path.display());
    }

    pub fn write(mut self) {
        self.0["comparisons"] = comparisons(&self.0["runs"]);
        self.0["page_cache"] = json!("sources wholly in it, nothing waiting to be written, for all alike");
        let text = serde_json::to_string_pretty(&self.0).expect("JSON");
        std::fs::write(root().join("conversion.json"), text + "\n").expect("write the figures");
    }
}

fn median(seconds: &Value) -> Option<f64> {
    let mut seconds: Vec<f64> = seconds.as_array()?.iter().filter_map(Value::as_f64).collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

/// Each of our ways against each other one, as far as both have been measured: the medians.
fn comparisons(runs: &Value) -> Value {
    let mut all = Vec::new();
    let (ours, theirs) = CONTENDERS.split_at(2);
    for (size, direction) in SIZES.iter().flat_map(|size| DIRECTIONS.map(|direction| (size, direction))) {
        let run = &runs[size.name][direction.name()];
        for (our, their) in ours.iter().flat_map(|our| theirs.iter().map(move |their| (our, their))) {
            let (mine, other) = (median(&run["seconds"][our.name()]), median(&run["seconds"][their.name()]));
            let (Some(mine), Some(other)) = (mine, other) else { continue };
            all.push(json!({
                "against": their.name(), "verify": our.name(), "size": size.name, "direction": direction.name(),
                "ratio": mine / other, "target": target(*size, *our, *their),
                "ours_seconds": mine, "theirs_seconds": other, "entries": run["entries"], "bytes": run["bytes"],
            }));
        }
    }
    json!(all)
}

/// What the ratio may be at most, where something is promised.
fn target(size: Size, ours: Contender, theirs: Contender) -> Option<f64> {
    let verified = ours.name() == "full";
    match (theirs, size.name) {
        (Contender::Compaction, _) => Some(if verified { 1.4 } else { 1.0 }),
        (_, "small") => (!verified).then_some(0.4),
        _ => Some(if verified { 0.222 } else { 0.167 }),
    }
}
