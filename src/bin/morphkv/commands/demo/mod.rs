//! The main job on real keys, in under a minute.

mod crash;
mod paths;
mod scratch;
mod table;

use crate::args::EncodingName;
use crate::commands::selection::Selection;
use crate::output::{self, Answer, Output, failed_to_write, stdout};
use crate::progress::Meter;
use clap::Args;
use crash::{Crash, Moment};
use morphkv::{Durability, Engine, Error, ErrorKind, Options, Result, inspect, manage};
use paths::Paths;
use scratch::Scratch;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use table::Step;

/// Show what it does with the file paths of this machine
///
/// Loads them as keys into a temporary directory, converts there and back, kills two conversions half-way and recovers,
/// compares every key and value, and prints what was measured. Touches nothing else. The exit code is 1 if a key is lost or
/// wrong.
#[derive(Debug, Args)]
pub struct Demo {}

/// Enough to be real, few enough for a minute on a small machine.
const MOST_KEYS: usize = 400_000;
/// A batch is written when its keys and values have this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// What was found out.
#[derive(Debug, Serialize)]
struct Findings {
    keys: u64,
    skipped: u64,
    steps: Vec<Step>,
    children: Vec<Children>,
    crashes: Vec<Crash>,
    digest: String,
    lost: u64,
    wrong: u64,
    ok: bool,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Children {
    encoding: String,
    path: String,
    children: u64,
    seconds: f64,
}

struct Stage<'a> {
    output: &'a Output,
    database: PathBuf,
    paths: Paths,
    findings: Findings,
}

impl Demo {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let began = Instant::now();
        let mut stage = Stage::walk(output);
        let scratch = Scratch::new()?;
        stage.database = scratch.path().join("paths");
        stage.load()?;
        stage.convert("natural to hierarchical", EncodingName::Hierarchical)?;
        stage.list_children()?;
        stage.convert("hierarchical to natural", EncodingName::Natural)?;
        stage.list_children()?;
        stage.crash(EncodingName::Hierarchical, Moment::WhileBuilding)?;
        stage.crash(EncodingName::Hierarchical, Moment::WhileSwapping)?;
        stage.compare()?;
        stage.findings.seconds = began.elapsed().as_secs_f64();
        stage.show()
    }
}

impl<'a> Stage<'a> {
    fn walk(output: &'a Output) -> Self {
        output.message("walking the file system for keys ...");
        let began = Instant::now();
        let paths = paths::collect(Path::new("/"), MOST_KEYS);
        let keys = paths.entries.len() as u64;
        let step = Step::new("walk the file system", keys, paths.bytes(), began.elapsed().as_secs_f64(), 0);
        let findings = Findings {
            keys,
            skipped: paths.skipped,
            steps: vec![step],
            children: Vec::new(),
            crashes: Vec::new(),
            digest: String::new(),
            lost: 0,
            wrong: 0,
            ok: true,
            seconds: 0.0,
        };
        Stage { output, database: PathBuf::new(), paths, findings }
    }

    fn step(&mut self, name: &'static str, seconds: f64) -> Result<()> {
        let disk_bytes = inspect::inspect(&self.database, &Options::new())?.bytes;
        self.findings.steps.push(Step::new(name, self.findings.keys, self.paths.bytes(), seconds, disk_bytes));
        Ok(())
    }

    fn load(&mut self) -> Result<()> {
        self.output.message(&format!("loading {} file paths ...", output::count(self.findings.keys)));
        let began = Instant::now();
        let options = Options::new().create_if_missing(true).durability(Durability::Buffered);
        let engine = Engine::open(&self.database, options)?;
        let mut batch = engine.batch();
        for (key, value) in &self.paths.entries {
            batch.put(key, value)?;
            if batch.size_in_bytes() >= BATCH_BYTES {
                std::mem::replace(&mut batch, engine.batch()).commit()?;
            }
        }
        batch.commit()?;
        engine.flush()?;
        engine.close()?;
        self.step("load, in batches", began.elapsed().as_secs_f64())?;
        self.findings.digest = self.digest()?;
        Ok(())
    }

    fn digest(&self) -> Result<String> {
        let content = manage::digest(&self.database, &Options::new())?;
        Ok(content.digest.to_string())
    }

    fn convert(&mut self, name: &'static str, to: EncodingName) -> Result<()> {
        self.output.message(&format!("converting, {name} ..."));
        let meter = Meter::new(self.output);
        let options = Options::new().encoding(to.encoding()).progress(meter.callback());
        let report = manage::convert(&self.database, &options);
        drop(meter);
        let report = report?.ok_or_else(|| {
            Error::new(ErrorKind::Conflict, "convert", "it has that encoding already").at(&self.database)
        })?;
        self.findings.ok &= report.digest == self.findings.digest && report.entries == self.findings.keys;
        self.step(name, report.seconds)
    }

    fn list_children(&mut self) -> Result<()> {
        let (directory, expected) = self.paths.fullest_directory();
        let began = Instant::now();
        let engine = Engine::open_read_only(&self.database, Options::new())?;
        let selection = Selection { children_of: Some(directory.clone()), ..Selection::default() };
        let mut children = 0;
        for entry in selection.entries(&engine)? {
            entry?;
            children += 1;
        }
        self.findings.ok &= children == expected;
        self.findings.children.push(Children {
            encoding: engine.encoding().to_string(),
            path: crate::bytes::printable(&directory),
            children,
            seconds: began.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    fn crash(&mut self, to: EncodingName, moment: Moment) -> Result<()> {
        let when = match moment {
            Moment::WhileBuilding => "while the new database is written",
            Moment::WhileSwapping => "while the two databases change places",
        };
        self.output.message(&format!("converting in another process, and killing it {when} ..."));
        let crash = crash::crash(&self.database, to, moment)?;
        self.findings.crashes.push(crash);
        self.findings.ok &= self.digest()? == self.findings.digest;
        Ok(())
    }

    /// Reads all of it and compares every key and value with what was loaded.
    fn compare(&mut self) -> Result<()> {
        self.output.message("comparing every key and value ...");
        let began = Instant::now();
        let verified = manage::verify(&self.database, &Options::new())?;
        self.step("verify", began.elapsed().as_secs_f64())?;
        let engine = Engine::open_read_only(&self.database, Options::new())?;
        let mut seen = vec![false; self.paths.entries.len()];
        for entry in engine.range(..)? {
            let (key, value) = entry?;
            let found = self.paths.entries.binary_search_by(|(path, _)| path.cmp(&key));
            let right = found.is_ok_and(|at| self.paths.entries[at].1 == value && !seen[at]);
            self.findings.wrong += u64::from(!right);
            if let Ok(at) = found {
                seen[at] = true;
            }
        }
        self.findings.lost = seen.iter().filter(|seen| !**seen).count() as u64;
        self.findings.ok &= verified.ok && self.findings.lost == 0 && self.findings.wrong == 0;
        Ok(())
    }

    fn show(self) -> Result<Answer> {
        let findings = &self.findings;
        if self.output.is_json() {
            self.output.object(findings)?;
        } else {
            let mut out = stdout();
            write_text(&mut out, findings).and_then(|()| out.flush()).map_err(failed_to_write)?;
        }
        Ok(findings.ok.into())
    }
}

fn write_text(out: &mut impl Write, findings: &Findings) -> std::io::Result<()> {
    writeln!(out, "\n{} file paths of this machine as keys:\n", output::count(findings.keys))?;
    table::write(out, &findings.steps)?;
    writeln!(out, "\nThe direct children of the fullest directory, opening the database included:\n")?;
    for listed in &findings.children {
        let children = output::count(listed.children);
        writeln!(out, "  {:15} {children} of {} in {:.1} ms", listed.encoding, listed.path, listed.seconds * 1e3)?;
    }
    writeln!(out, "\nConversions that were killed (SIGKILL):\n")?;
    for crash in &findings.crashes {
        let moment = match crash.moment {
            Moment::WhileBuilding => "while building",
            Moment::WhileSwapping => "while swapping",
        };
        let killed = if crash.killed { "killed" } else { "it was through before the signal came" };
        let did = if crash.actions.is_empty() { "nothing needed".into() } else { crash.actions.join("; ") };
        writeln!(out, "  {moment}: {killed}")?;
        writeln!(out, "    found      {}; the next open would: {}", crash.state, crash.next_action)?;
        writeln!(out, "    recovery   {did}; state: {}", crash.state_afterwards)?;
    }
    let lost_and_wrong = format!("{} lost, {} wrong", findings.lost, findings.wrong);
    let verdict = if findings.ok { "All is as it was loaded" } else { "SOMETHING IS WRONG" };
    writeln!(out, "\n{verdict}: {} keys, {lost_and_wrong}, digest {}", output::count(findings.keys), findings.digest)?;
    writeln!(out, "{:.1} seconds in all; the temporary directory is removed.", findings.seconds)
}
