//! `target/bench/report.html`: the figures as bars against what is promised. It stands alone: no script, nothing loaded.

use serde_json::Value;
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}svg{max-width:100%;height:auto}.missing{color:#888}small{color:#555}\
.verdict{font-size:1.2em;padding:.6em .8em;border-radius:.4em;color:#fff;background:#4f9d69}.verdict.bad{background:#d62828}";
/// In pixels: the words on the left, the longest bar, a line.
const LABEL: usize = 330;
const WIDTH: usize = 420;
const ROW: usize = 22;

/// One figure: shorter bars are better unless `more` is set, and the line is what it may be at most (or at least).
struct Bar {
    label: String,
    words: String,
    value: f64,
    promised: Option<f64>,
    more: bool,
}

impl Bar {
    fn is_kept(&self) -> bool {
        self.promised.is_none_or(|promised| if self.more { self.value >= promised } else { self.value <= promised })
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn comparison(found: &Value) -> Bar {
    let (ours, theirs) = (number(found, "ours_seconds"), number(found, "theirs_seconds"));
    let verified = if text(found, "verify") == "full" { "verified" } else { "counted" };
    Bar {
        label: format!("{}, {verified}, {}", text(found, "direction"), text(found, "size")),
        words: format!("{:.3} ({ours:.1} s of {theirs:.1} s)", number(found, "ratio")),
        value: number(found, "ratio"),
        promised: found["target"].as_f64(),
        more: false,
    }
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

fn shape(found: &Value) -> Bar {
    let (over, limit) = (mebibytes(number(found, "over_open_bytes")), mebibytes(number(found, "limit_bytes")));
    Bar {
        label: format!("{}, {}", text(found, "shape"), text(found, "direction")),
        words: format!("{over:.0} of {limit:.0} MiB; disk {:.2}x", number(found, "disk_ratio")),
        value: over / limit,
        promised: Some(1.0),
        more: false,
    }
}

/// All figures, under their headings.
fn sections(record: &Value) -> Vec<(&'static str, Vec<Bar>)> {
    let against = |theirs: &str| -> Vec<Bar> {
        list(&record["comparisons"]).iter().filter(|found| text(found, "against") == theirs).map(comparison).collect()
    };
    let disk = record["disk"].as_f64().map(|value| Bar {
        label: "the most of all shapes".into(),
        words: format!("{value:.2}x"),
        value,
        promised: Some(2.1),
        more: false,
    });
    let owed = list(&record["memory"]).iter().map(|found| number(found, "files_owed")).reduce(f64::max);
    let owed = owed.map(|value| Bar {
        label: "files above the bottom level".into(),
        words: value.to_string(),
        value,
        promised: Some(0.0),
        more: false,
    });
    let plain = |label: &str, value: f64, promised: Option<f64>, more| Bar {
        label: label.into(),
        words: format!("{value:.3}"),
        value,
        promised,
        more,
    };
    let threads = list(&record["threads"]).iter();
    let heard = record["listening"]["ratio"]
        .as_f64()
        .map(|ratio| plain("with a callback and all events", ratio, Some(1.1), false));
    let ways = threads.map(|found| {
        plain(&format!("two threads against one, {}", text(found, "direction")), number(found, "ratio"), None, false)
    });
    let engine = record["engine"].as_object().into_iter().flatten();
    let encodings = record["encodings"].as_object().into_iter().flatten().flat_map(|(name, found)| {
        [("encode", "encode_nanoseconds"), ("decode", "decode_nanoseconds")]
            .map(|(what, field)| plain(&format!("{what} a {name} key"), number(found, field), None, false))
    });
    vec![
        ("Time in parts of that of batched puts, flushed", against("batched-puts")),
        ("Time in parts of that of RocksDB's own full compaction", against("compaction")),
        (
            "Memory on top of the open engine, in parts of what is allowed",
            list(&record["memory"]).iter().map(shape).collect(),
        ),
        ("Room on the disk while converting, in parts of the source", disk.into_iter().collect()),
        ("Owed to compaction afterwards", owed.into_iter().collect()),
        ("Time of other ways, in parts of the usual one", heard.into_iter().chain(ways).collect()),
        (
            "Rate of the engine, in parts of raw RocksDB's",
            engine.map(|(name, found)| plain(name, number(found, "rate"), found["target"].as_f64(), true)).collect(),
        ),
        ("Nanoseconds a key", encodings.collect()),
    ]
}

pub fn page(record: &Value) -> String {
    let sections = sections(record);
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>morphkv: speed</title><style>{STYLE}</style>\
         <h1>morphkv: how fast it converts</h1>"
    );
    let bars = || sections.iter().flat_map(|(_, bars)| bars);
    let promised = bars().filter(|bar| bar.promised.is_some()).count();
    let broken = bars().filter(|bar| !bar.is_kept()).count();
    let class = if broken == 0 { "verdict" } else { "'verdict bad'" };
    let _ = write!(out, "<p class={class}>{} of {promised} promised figures are kept</p>", promised - broken);
    let machine = record["machine"].as_object().into_iter().flatten();
    let machine: Vec<String> = machine
        .map(|(name, value)| format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    let _ = write!(
        out,
        "<p><small>{}. Page cache: {}. Medians; the line across a bar is what is promised.</small></p>",
        escape(&machine.join(", ")),
        escape(text(record, "page_cache"))
    );
    for (heading, bars) in &sections {
        let _ = write!(out, "<h2>{}</h2>", escape(heading));
        if bars.is_empty() {
            out.push_str("<p class=missing>Not measured.</p>");
        } else {
            drawn(&mut out, bars);
        }
    }
    out.push_str("</html>\n");
    out
}

fn drawn(out: &mut String, bars: &[Bar]) {
    let most = bars.iter().flat_map(|bar| [bar.value, bar.promised.unwrap_or(0.0)]).fold(0.001, f64::max);
    let (wide, tall) = (LABEL + WIDTH + 220, bars.len() * ROW + 4);
    let _ = write!(out, "<svg width={wide} height={tall} viewBox='0 0 {wide} {tall}' role=img font-size=12>");
    for (at, bar) in bars.iter().enumerate() {
        let (top, colour) = (at * ROW, if bar.is_kept() { "#4878b0" } else { "#d62828" });
        let length = |value: f64| value / most * WIDTH as f64;
        let _ = write!(
            out,
            "<text x={} y={} text-anchor=end>{}</text><rect x={LABEL} y={} width={:.1} height=14 fill='{colour}'/>",
            LABEL - 8,
            top + 15,
            escape(&bar.label),
            top + 4,
            length(bar.value)
        );
        if let Some(promised) = bar.promised {
            let x = LABEL as f64 + length(promised);
            let _ = write!(out, "<path d='M{x:.1} {}v20' stroke='#222' stroke-width=2 />", top + 1);
        }
        let x = LABEL as f64 + length(bar.value.max(bar.promised.unwrap_or(0.0))) + 8.0;
        let _ = write!(out, "<text x={x:.1} y={}>{}</text>", top + 15, escape(&bar.words));
    }
    out.push_str("</svg>");
}
