//! Restores in two phases: the coordinator, which starts its workers as processes of this binary, and the workers.

use super::{What, missing, open};
use crate::output::Output;
use crate::progress::Meter;
use clap::Args;
use morphkv::restore::coordinator::{self, Launcher, Pace, Passed, RunView, WorkerCall};
use morphkv::restore::folder::{Found, TwoPhase};
use morphkv::restore::moment::{Moment, show_time};
use morphkv::restore::state::{Condition, Markers, Mode};
use morphkv::restore::{self, Part, Request};
use morphkv::{Error, ErrorKind, Options, Result};
use serde::Serialize;
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[derive(Debug, Args)]
#[command(next_help_heading = "In two phases")]
pub(super) struct Phases {
    /// Restore the base snapshot while that compaction, which need not have begun yet, is at work, and apply the log when it
    /// has ended in any way
    #[arg(long, requires = "compaction")]
    pub(super) two_phase: bool,
    /// How long after the start of the restore it is waited for, as in 90s, 30m, 1h; 0 or nothing: for ever
    #[arg(long, value_name = "D", requires = "two_phase", allow_hyphen_values = true)]
    pub(super) wait_timeout: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Worker {
    #[command(flatten)]
    pub(super) target: super::Target,
    /// 1: the base snapshot; 2: the log; 0: an ordinary restore
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    phase: i64,
}

/// What `--json` tells of the two phases.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    compaction: &'a str,
    compaction_at: Option<&'a str>,
    wait_timeout: Option<i64>,
    markers: &'a Markers,
    conditions: &'a [Condition],
    runs: Vec<RunView>,
    mode: Option<Mode>,
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "understand the command line", message)
}

/// A duration in microseconds; less than nothing is understood, and means what nothing does.
fn duration(text: &str) -> Result<i64> {
    let (sign, number) = text.strip_prefix('-').map_or((1, text), |number| (-1, number));
    if number == "0" {
        return Ok(0);
    }
    let wrong = || invalid(format!("`{text}` is no duration; durations are 90s, 30m, 1h, 2d, and 0"));
    match Moment::parse(&format!("-{number}"), i64::MAX as u64) {
        Ok(Moment::Time(time)) => Ok(sign * (i64::MAX - time as i64)),
        _ => Err(wrong()),
    }
}

fn two_phase(what: &What) -> Result<TwoPhase> {
    let compaction = what.compaction.clone().ok_or_else(|| missing("--compaction"))?;
    let wait_timeout = what.phases.wait_timeout.as_deref().map(duration).transpose()?;
    Ok(TwoPhase { compaction, at: what.compaction_at.clone(), wait_timeout })
}

/// Whether the coordinator has to do with it.
pub(super) fn concerns(what: &What, found: Option<&Found>) -> bool {
    let under_way = found.filter(|found| !found.is_complete() || what.to.is_none());
    under_way.map_or(what.phases.two_phase, |found| found.spec.two_phase.is_some())
}

pub(super) fn start(what: &What) -> Result<Found> {
    let archive = what.archive()?;
    // It is looked for when it has ended, and not when the restore begins.
    let request = Request { compaction: None, ..what.request()? };
    coordinator::start(&what.target.path, &archive, &request, &two_phase(what)?, &what.options())
}

/// Begins it, or goes on with it, until it is over.
pub(super) fn run(what: &What, found: Option<Found>, output: &Output) -> Result<Found> {
    let target = &what.target.path;
    let found = match found.filter(|found| !found.is_complete() || what.to.is_none()) {
        Some(found) => {
            require_same(what, &found)?;
            found
        }
        None => start(what)?,
    };
    let meter = Meter::new(output);
    let archive = open(&found.spec.archive)?;
    let options = what.options().progress(meter.callback());
    let mut processes = Processes { output: output.clone(), child: None };
    coordinator::run(target, &archive, &options, &mut processes, &Pace::default())
}

/// What is said again must be what was said.
fn require_same(what: &What, found: &Found) -> Result<()> {
    let url = what.archive.as_ref().map(|url| open(url)).transpose()?.map(|archive| archive.url().to_owned());
    let known = found.spec.two_phase.as_ref().map(|two_phase| two_phase.compaction.as_str());
    let known_at = found.spec.two_phase.as_ref().and_then(|two_phase| two_phase.at.as_deref());
    let said = [
        url.is_none_or(|url| url == found.spec.archive),
        what.compaction.is_none() || what.compaction.as_deref() == known,
        what.compaction_at.is_none() || what.compaction_at.as_deref() == known_at,
        what.to.is_none() || what.replace == found.spec.replace,
        what.timeline.is_none() || what.timeline == found.spec.timeline,
    ];
    if said.iter().all(|same| *same) {
        return Ok(());
    }
    let message = "the restore that is under way was asked for something else";
    let next = format!("morphkv restore status {}", what.target.path.display());
    Err(Error::new(ErrorKind::Conflict, "restore the database", message).at(&what.target.path).next(next))
}

/// Workers as processes of this binary. One that is alive when the coordinator ends goes on.
struct Processes {
    output: Output,
    child: Option<Child>,
}

impl Launcher for Processes {
    fn launch(&mut self, call: &WorkerCall) -> Result<()> {
        let own = |error| Error::io("start a worker", Path::new("morphkv"), error);
        let mut command = Command::new(std::env::current_exe().map_err(own)?);
        command.args(["restore", "worker"]).arg(&call.target).args(["--phase", &call.phase.number().to_string()]);
        command.arg("--quiet").stdin(Stdio::null()).stdout(Stdio::null());
        // What a worker says goes into its run, and the coordinator tells it, in the way that was asked for.
        command.stderr(if self.output.is_json() || self.output.is_quiet() { Stdio::null() } else { Stdio::inherit() });
        self.child = Some(command.spawn().map_err(own)?);
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn passed(&mut self, passed: &Passed) {
        self.output.message(&passed.describe());
    }
}

impl Worker {
    pub(super) fn run(&self, output: &Output) -> Result<Found> {
        // Before anything is looked at.
        let part = Part::new(self.phase)?;
        let found = self.target.known()?;
        let meter = Meter::new(output);
        let options = Options::new().progress(meter.callback());
        restore::worker(&self.target.path, &open(&found.spec.archive)?, part, &options)
    }
}

/// What is told of the two phases of a restore; `None`: it has one.
pub(super) fn shown<'a>(target: &Path, found: &'a Found) -> Result<Option<Shown<'a>>> {
    let Some(two_phase) = &found.spec.two_phase else { return Ok(None) };
    let runs = coordinator::runs(found, target, &Options::new())?;
    let mode = found.status.mode.clone().or_else(|| runs.iter().find_map(|run| run.mode.clone()));
    Ok(Some(Shown {
        compaction: &two_phase.compaction,
        compaction_at: two_phase.at.as_deref(),
        wait_timeout: two_phase.wait_timeout,
        markers: &found.status.markers,
        conditions: &found.status.conditions,
        runs,
        mode,
    }))
}

pub(super) fn rows(shown: &Shown<'_>) -> Vec<(&'static str, String)> {
    let settled = shown.markers.compaction_settled.as_ref();
    let compaction = settled.map_or_else(
        || "waited for".into(),
        |settled| format!("settled at {}: {} ({})", show_time(settled.at), settled.reason.name(), settled.message),
    );
    let snapshot = shown.markers.snapshot_restored.map_or_else(|| "not yet".into(), show_time);
    let mut rows = vec![("compaction", format!("{}, {compaction}", shown.compaction)), ("snapshot restored", snapshot)];
    for run in &shown.runs {
        let failure = run.failure.as_ref().map_or_else(String::new, |cause| format!("; {}", cause.message));
        let label = if run.phase == 1 { "phase 1" } else { "phase 2" };
        rows.push((label, format!("{}, attempts: {}{failure}", run.state, run.attempts)));
    }
    match &shown.mode {
        Some(Mode::Fast(run)) => rows.push((
            "mode",
            format!(
                "fast: {} instead of segments {} to {}",
                run.body.name, run.body.first_segment, run.body.end_segment
            ),
        )),
        Some(Mode::Raw(reason)) => rows.push(("mode", format!("raw, since {reason}"))),
        None => {}
    }
    rows
}
