//! What was measured, as a table.

use crate::output::{bytes, count};
use serde::Serialize;
use std::io::{self, Write};

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Step {
    pub step: &'static str,
    pub keys: u64,
    pub seconds: f64,
    pub keys_per_second: f64,
    /// Of keys and values.
    pub bytes: u64,
    pub bytes_per_second: f64,
    /// Of the database's files afterwards.
    pub disk_bytes: u64,
}

impl Step {
    pub fn new(step: &'static str, keys: u64, bytes: u64, seconds: f64, disk_bytes: u64) -> Self {
        let per_second = |amount: u64| amount as f64 / seconds.max(1e-9);
        Step {
            step,
            keys,
            seconds,
            keys_per_second: per_second(keys),
            bytes,
            bytes_per_second: per_second(bytes),
            disk_bytes,
        }
    }
}

/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, steps: &[Step]) -> io::Result<()> {
    let title = ["", "keys", "seconds", "keys/s", "MB/s", "on disk"].map(String::from);
    let rows = steps.iter().map(|step| {
        [
            step.step.to_owned(),
            count(step.keys),
            format!("{:.2}", step.seconds),
            count(step.keys_per_second as u64),
            format!("{:.1}", step.bytes_per_second / 1e6),
            if step.disk_bytes == 0 { "-".into() } else { bytes(step.disk_bytes) },
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(title).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        write!(out, "  {:w$}", row[0], w = widths[0])?;
        for column in 1..6 {
            write!(out, "  {:>w$}", row[column], w = widths[column])?;
        }
        writeln!(out)?;
    }
    Ok(())
}
