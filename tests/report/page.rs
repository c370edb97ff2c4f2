//! The page: verdict, the grid of crash points against outcomes, and one line a check.

use serde_json::{Map, Value};
use std::fmt::Write;

/// A check, and what it left behind if it has run.
pub struct Check {
    pub name: &'static str,
    pub what: &'static str,
    pub record: Option<Value>,
}

/// Figures that must be zero.
const MUST_BE_ZERO: [&str; 7] =
    ["lost", "wrong", "silently empty", "accepted_wrongly", "replaced", "survived", "acknowledged-lost"];
/// Outcomes of a state, their colours, and what they mean.
const OUTCOMES: [(&str, &str, &str); 5] = [
    ("old", "#4878b0", "opens as before the change"),
    ("new", "#4f9d69", "opens as after the change"),
    ("absent", "#c3c7cc", "no database, as before (or after) the change"),
    ("refused", "#e0a030", "refused with every byte in place: one directory under two names, for fsck"),
    ("bad", "#d62828", "lost, wrong or silently empty"),
];
const CELL: usize = 11;
const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:64em;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%}\
td,th{padding:.3em .6em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}\
.verdict{font-size:1.3em;padding:.6em .8em;border-radius:.4em;color:#fff;background:#4f9d69}\
.verdict.part{background:#e0a030}.verdict.bad,.bad{background:#d62828;color:#fff}.missing{color:#888}small{color:#555}\
.tiles{display:flex;flex-wrap:wrap;gap:.6em;margin:1em 0}.tile{border:1px solid #ddd;border-radius:.4em;padding:.4em .8em}\
.tile b{display:block;font-size:1.4em}svg{max-width:100%;height:auto}.key{display:inline-block;margin-right:1.2em}\
.key i{display:inline-block;width:.9em;height:.9em;margin-right:.35em;vertical-align:-.1em}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn figures(check: &Check) -> Option<&Map<String, Value>> {
    check.record.as_ref()?.get("figures")?.as_object()
}

/// What of a check must be zero and is not.
fn complaints(check: &Check) -> Vec<String> {
    let Some(figures) = figures(check) else { return Vec::new() };
    let nonzero = |name: &&str| figures.get(*name).is_some_and(|value| value.as_u64() != Some(0));
    MUST_BE_ZERO.iter().filter(|name| nonzero(name)).map(|name| format!("{}: {name}", check.name)).collect()
}

/// The page of all checks.
pub fn page(checks: &[Check]) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>morphkv: crash proof</title><style>{STYLE}</style>\
         <h1>morphkv: what was crashed, and what was found</h1>"
    );
    verdict(&mut out, checks);
    let grid = checks.iter().find(|check| check.name == "crash-states").and_then(figures);
    if let Some(grid) = grid.and_then(|figures| figures.get("grid")).and_then(Value::as_array) {
        grids(&mut out, grid);
    }
    table(&mut out, checks);
    out.push_str("</html>\n");
    out
}

fn verdict(out: &mut String, checks: &[Check]) {
    let wrong: Vec<String> = checks.iter().flat_map(complaints).collect();
    let missing: Vec<&str> = checks.iter().filter(|check| check.record.is_none()).map(|check| check.name).collect();
    if wrong.is_empty() {
        let ran = checks.len() - missing.len();
        let class = if missing.is_empty() { "verdict" } else { "'verdict part'" };
        let _ = write!(out, "<p class={class}>0 keys lost, 0 wrong, 0 silently empty, in {ran} checks</p>");
    } else {
        let _ = write!(out, "<p class='verdict bad'>NOT SOUND: {}</p>", escape(&wrong.join("; ")));
    }
    if !missing.is_empty() {
        let _ = write!(out, "<p class=missing>Not run, or failed: {}.</p>", escape(&missing.join(", ")));
    }
}

fn table(out: &mut String, checks: &[Check]) {
    out.push_str("<h2>Every check with its figures</h2><table><tr><th>check<th>figures<th>size<th>seconds");
    for check in checks {
        let class = if complaints(check).is_empty() { "" } else { " class=bad" };
        let _ = write!(out, "<tr{class}><td><b>{}</b><br><small>{}</small>", check.name, escape(check.what));
        let (Some(record), Some(figures)) = (&check.record, figures(check)) else {
            out.push_str("<td class=missing>no figures: not run, or failed<td><td>");
            continue;
        };
        let shown = figures.iter().filter(|(_, value)| !value.is_array() && !value.is_object()).map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{} <b>{}</b>", escape(&name.replace(['-', '_'], " ")), escape(&value))
        });
        let shown: Vec<String> = shown.collect();
        let size = record["size"].as_str().unwrap_or_default();
        let _ = write!(out, "<td>{}<td>{}<td>{}", shown.join(", "), escape(size), record["seconds"]);
    }
    out.push_str("</table>");
}

fn grids(out: &mut String, grids: &[Value]) {
    out.push_str(
        "<h2>Crash points against outcomes</h2><p>One column is one file operation of the change, in its order; one row \
         is one model of what a power cut may do to the disk. A cell shows what became of all states that a crash there \
         can leave.</p><p>",
    );
    for (_, colour, meaning) in OUTCOMES {
        let _ = write!(out, "<span class=key><i style='background:{colour}'></i>{meaning}</span> ");
    }
    out.push_str("</p>");
    for grid in grids {
        one_grid(out, grid);
    }
}

fn one_grid(out: &mut String, grid: &Value) {
    let empty = Vec::new();
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_else(|| empty.clone());
    let (points, rows) = (list(&grid["points"]), list(&grid["rows"]));
    let (width, height) = (90 + points.len() * CELL, rows.len() * (CELL + 3) + 2);
    let scenario = escape(grid["scenario"].as_str().unwrap_or_default());
    let _ =
        write!(out, "<h3>{scenario}</h3><svg width={width} height={height} viewBox='0 0 {width} {height}' role=img>");
    for (line, row) in rows.iter().enumerate() {
        let top = line * (CELL + 3);
        let model = escape(row["model"].as_str().unwrap_or_default());
        let _ = write!(out, "<text x=84 y={} font-size=11 text-anchor=end>{model}</text>", top + 9);
        for (column, cell) in list(&row["cells"]).iter().enumerate() {
            let point = points.get(column).and_then(Value::as_str).unwrap_or_default();
            one_cell(out, (90 + column * CELL, top), point, cell);
        }
    }
    out.push_str("</svg>");
}

/// The shares of the outcomes, stacked; red all over as soon as one state is bad.
fn one_cell(out: &mut String, (x, y): (usize, usize), point: &str, cell: &Value) {
    let count = |name: &str| cell[name].as_u64().unwrap_or(0) as f64;
    let all: f64 = OUTCOMES.iter().map(|(name, ..)| count(name)).sum();
    let side = CELL - 1;
    let words: Vec<String> = OUTCOMES
        .iter()
        .filter(|(name, ..)| count(name) > 0.0)
        .map(|(name, ..)| format!("{} {name}", count(name)))
        .collect();
    let _ = write!(out, "<g><title>{}: {}</title>", escape(point), words.join(", "));
    let bad = count("bad") > 0.0;
    let mut from = 0.0;
    for (name, colour, _) in OUTCOMES {
        let share = if bad { f64::from(name == "bad") } else { count(name) / all.max(1.0) };
        if share > 0.0 {
            let (top, tall) = (y as f64 + from * side as f64, share * side as f64);
            let _ = write!(out, "<rect x={x} y={top:.1} width={side} height={tall:.1} fill='{colour}'/>");
            from += share;
        }
    }
    out.push_str("</g>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checks(lost: u64, bad: u64) -> [Check; 2] {
        let cell = json!({"states": 3, "old": 2, "new": 1, "absent": 0, "refused": 0, "bad": bad});
        let grid = json!([{"scenario": "con<vert", "points": ["rename a -> b"], "rows": [{"model": "weak", "cells": [cell]}]}]);
        let figures = json!({"states": 3, "lost": lost, "grid": grid});
        let record = json!({"check": "crash-states", "size": "ci", "seconds": 1.5, "figures": figures});
        [
            Check { name: "crash-states", what: "one", record: Some(record) },
            Check { name: "kills", what: "two", record: None },
        ]
    }

    #[test]
    fn what_is_sound_is_green_and_what_is_missing_is_named() {
        let page = page(&checks(0, 0));
        assert!(page.contains("0 keys lost") && page.contains("Not run, or failed: kills."));
        assert!(page.contains("con&lt;vert") && page.contains("rename a -&gt; b: 2 old, 1 new"));
        // Two thirds old, one third new, nothing bad outside the legend.
        assert!(page.contains("height=6.7 fill='#4878b0'") && page.contains("height=3.3 fill='#4f9d69'"));
        assert!(!page.contains("NOT SOUND") && !page.contains("fill='#d62828'"));
    }

    #[test]
    fn a_single_loss_turns_the_verdict_and_its_cell_red() {
        let page = page(&checks(1, 1));
        assert!(page.contains("NOT SOUND: crash-states: lost") && !page.contains("0 keys lost"));
        assert!(page.contains("height=10.0 fill='#d62828'") && page.contains("<tr class=bad>"));
    }
}
