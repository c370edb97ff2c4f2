//! How far a long operation has come: a bar on a terminal, JSON lines with `--json`, else a line now and then.

use crate::output::{self, Output};
use indicatif::{ProgressBar, ProgressStyle};
use morphkv::{Phase, Progress, ProgressCallback};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal: a log should stay readable.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two JSON lines: a program may draw something from them.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// Takes progress from the library for as long as it lives.
pub struct Meter(Arc<Mutex<State>>);

struct State {
    form: Form,
    phase: Option<Phase>,
    began: Instant,
    shown: Instant,
}

enum Form {
    Silent,
    Bar(ProgressBar),
    Json,
    Lines,
}

#[derive(Serialize)]
struct Line {
    event: &'static str,
    phase: &'static str,
    bytes_done: u64,
    bytes_total: u64,
    entries: u64,
    seconds: f64,
}

impl Meter {
    pub fn new(output: &Output) -> Self {
        let form = if output.is_json() {
            Form::Json
        } else if output.is_quiet() {
            Form::Silent
        } else if std::io::stderr().is_terminal() {
            Form::Bar(ProgressBar::no_length().with_style(style()))
        } else {
            Form::Lines
        };
        let now = Instant::now();
        Meter(Arc::new(Mutex::new(State { form, phase: None, began: now, shown: now })))
    }

    /// For [`morphkv::Options::progress`].
    pub fn callback(&self) -> ProgressCallback {
        let state = self.0.clone();
        Arc::new(move |progress| state.lock().unwrap_or_else(PoisonError::into_inner).show(progress))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Form::Bar(bar) = &self.0.lock().unwrap_or_else(PoisonError::into_inner).form {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{msg:>8} [{bar:32}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
    // The template is a constant: it fails always or never, and then the plain bar does.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl State {
    fn show(&mut self, progress: &Progress) {
        let begins = self.phase != Some(progress.phase);
        let ends = progress.bytes_done == progress.bytes_total;
        if begins {
            (self.phase, self.began) = (Some(progress.phase), Instant::now());
        }
        match &self.form {
            Form::Silent => {}
            Form::Bar(bar) => {
                if begins {
                    bar.reset();
                    bar.set_message(progress.phase.name());
                }
                bar.set_length(progress.bytes_total);
                bar.set_position(progress.bytes_done);
            }
            Form::Json if begins || ends || self.shown.elapsed() >= JSON_INTERVAL => {
                self.shown = Instant::now();
                output::json_line(&Line {
                    event: "progress",
                    phase: progress.phase.name(),
                    bytes_done: progress.bytes_done,
                    bytes_total: progress.bytes_total,
                    entries: progress.entries,
                    seconds: self.began.elapsed().as_secs_f64(),
                });
            }
            Form::Lines if self.shown.elapsed() >= LINE_INTERVAL => {
                self.shown = Instant::now();
                // Where it cannot be written there is nobody to tell.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}: {} of {}, {} entries, {:.0} s",
                    progress.phase.name(),
                    output::bytes(progress.bytes_done),
                    output::bytes(progress.bytes_total),
                    output::count(progress.entries),
                    self.began.elapsed().as_secs_f64(),
                );
            }
            Form::Json | Form::Lines => {}
        }
    }
}
