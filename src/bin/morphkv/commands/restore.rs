mod phases;

use crate::args::{Consent, EncodingName};
use crate::output::{self, Answer, Output};
use crate::progress::Meter;
use clap::{Args, Subcommand, ValueHint};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::restore::coordinator::{self, Did, Passed};
use morphkv::restore::folder::{Failure, Found, Step};
use morphkv::restore::moment::{Moment, show_time};
use morphkv::restore::named::Named;
use morphkv::restore::plan::{Gap, Plan};
use morphkv::restore::runs::LeftOut;
use morphkv::restore::{self, GoesOn, Request};
use morphkv::{Error, ErrorKind, Options, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Bring a database back from an archive, as it was at any moment
///
/// What a restore makes stands beside its target, in `TARGET.restore`, and is moved to its place when it is complete. It
/// can be killed at any moment: `restore run` goes on. While it is not complete, an absent target cannot be opened.
#[derive(Debug, Args)]
pub struct Restore {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Find out what is to be read, and write it down; `run` or `step` does it
    Start(What),
    /// Begin a restore, or go on with the one that is under way, until the database is at its place
    Run(What),
    /// Do the next step of a restore that is under way: fetch, apply, install, clear
    ///
    /// Of a restore in two phases: look, do one thing, and tell what that was, and which worker is to be started.
    Step(Target),
    /// Do a phase of a restore in two phases; the coordinator, which is `run`, starts this by itself
    Worker(phases::Worker),
    /// Tell how far a restore has come; the exit code is 1 if there is none
    Status(Target),
    /// Give a restore up, and remove what it has made; a complete one is forgotten, and its database stays
    Abort(Abort),
}

#[derive(Clone, Debug, Args)]
struct Target {
    /// Where the database is to be
    #[arg(value_name = "TARGET", value_hint = ValueHint::DirPath)]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct Abort {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct What {
    #[command(flatten)]
    target: Target,
    /// The archive; `run` knows that of a restore that is under way
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
    /// The moment: `latest`, RFC 3339, `-30m`, microseconds of the Unix epoch, or `seq:<timeline>/<n>`
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: Option<String>,
    /// How its keys are to lie on disk (default: as they did at that moment)
    #[arg(long, value_name = "ENCODING")]
    encoding: Option<EncodingName>,
    /// A timeline of the archive that is not the current one
    #[arg(long, value_name = "ID")]
    timeline: Option<Uuid>,
    /// A database at the target gives way, and is kept beside the new one, for `rollback`, until `drop-backup`
    ///
    /// If it is attached to this archive, the restored one is too, and goes on with a timeline of its own.
    #[arg(long)]
    replace: bool,
    /// Take no pin: for an archive that cannot be written, where what is read may be deleted meanwhile
    #[arg(long)]
    no_pin: bool,
    /// The archive is a copy that another system makes here, in any order: nothing is written to it, and all that is to be
    /// read must have arrived
    #[arg(long)]
    replica: bool,
    /// Use this compaction if it can be used, whether the archive's HEAD knows it or not; in two phases, wait for it
    #[arg(long, value_name = "NAME")]
    compaction: Option<String>,
    /// Where that compaction stands: what was `--out` when it was made (default: in the archive)
    #[arg(long, value_name = "URL", requires = "compaction")]
    compaction_at: Option<String>,
    /// Only tell what would be read
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    phases: phases::Phases,
}

#[derive(Serialize)]
struct Shown<'a> {
    target: String,
    dry_run: bool,
    restore: Option<Uuid>,
    archive: &'a str,
    phase: Option<&'a str>,
    step: Option<Step>,
    failure: Option<&'a Failure>,
    requested: String,
    timeline: Uuid,
    reached_sequence: u64,
    reached_time: u64,
    reached: String,
    resolved_time: u64,
    gaps: &'a [Gap],
    snapshot: Uuid,
    snapshot_sequence: u64,
    segments: u64,
    compactions: Vec<&'a str>,
    compactions_left_out: &'a [LeftOut],
    generation: u64,
    encoding: String,
    replace: bool,
    replica: bool,
    /// How the database goes on in the archive, if the one that it has replaced was attached to it.
    goes_on: Option<GoesOn>,
    two_phase: Option<phases::Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    did: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_command: Option<String>,
}

#[derive(Serialize)]
struct Absent<'a> {
    target: &'a str,
    phase: Option<&'a str>,
}

#[derive(Serialize)]
struct Aborted {
    aborted: bool,
}

impl Restore {
    pub fn run(self, output: &Output) -> Result<Answer> {
        match self.action {
            Action::Start(what) => what.start(output),
            Action::Run(what) => what.run(output),
            Action::Worker(worker) => worker.target.show(output, &worker.run(output)?),
            Action::Step(target) => {
                let found = target.known()?;
                if found.spec.two_phase.is_some() {
                    return target.pass(output, &found);
                }
                let meter = Meter::new(output);
                let options = Options::new().progress(meter.callback());
                let done = restore::step(&target.path, &open(&found.spec.archive)?, &options);
                drop(meter);
                target.show(output, &done?)
            }
            Action::Status(target) => target.status(output),
            Action::Abort(abort) => abort.run(output),
        }
    }
}

fn open(url: &str) -> Result<Archive> {
    Archive::open(url, ArchiveOptions::default())
}

fn missing(argument: &str) -> Error {
    let message = format!("{argument} is missing, and no restore to this place is under way that would know it");
    Error::new(ErrorKind::InvalidArgument, "understand the command line", message).next("morphkv restore run --help")
}

impl What {
    fn request(&self) -> Result<Request> {
        let to = self.to.as_ref().ok_or_else(|| missing("--to"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let moment = Moment::parse(to, now)?;
        let compaction = self.compaction.clone().map(|name| Named { name, at: self.compaction_at.clone() });
        let (timeline, replace, no_pin, replica) = (self.timeline, self.replace, self.no_pin, self.replica);
        Ok(Request { moment, timeline, replace, no_pin, replica, compaction })
    }

    fn archive(&self) -> Result<Archive> {
        open(self.archive.as_ref().ok_or_else(|| missing("--archive"))?)
    }

    fn options(&self) -> Options {
        match self.encoding {
            Some(encoding) => Options::new().encoding(encoding.encoding()),
            None => Options::new(),
        }
    }

    fn preview(&self, output: &Output) -> Result<Answer> {
        let archive = self.archive()?;
        let request = self.request()?;
        let (plan, left_out) = restore::preview_fully(&archive, &request, &self.options())?;
        let encoding = self.encoding.map(|encoding| morphkv::encoding::EncodingId::of(&*encoding.encoding()));
        let encoding = encoding.unwrap_or_else(|| plan.encoding.clone()).to_string();
        let shown = Shown {
            dry_run: true,
            compactions_left_out: &left_out,
            replace: self.replace,
            replica: self.replica,
            ..shown(&self.target, &plan, archive.url(), encoding)
        };
        output.result(&shown, &format!("would restore {}; nothing was changed", shown.target), &rows(&shown))?;
        Ok(Answer::Yes)
    }

    fn start(&self, output: &Output) -> Result<Answer> {
        if self.dry_run {
            return self.preview(output);
        }
        let found = if self.phases.two_phase {
            phases::start(self)?
        } else {
            restore::start(&self.target.path, &self.archive()?, &self.request()?, &self.options())?
        };
        self.target.show(output, &found)
    }

    /// A moment that is said again must be the one that the restore was begun with. Only `-30m` is another one each time.
    fn require_moment(&self, found: Option<&Found>) -> Result<()> {
        let (Some(to), Some(found)) = (&self.to, found.filter(|found| !found.is_complete())) else { return Ok(()) };
        if to.starts_with('-') || self.request()?.moment == found.spec.moment {
            return Ok(());
        }
        let message = format!("the restore that is under way is one to {}, not to {to}", found.spec.moment);
        let next = format!("morphkv restore status {}", self.target.path.display());
        Err(Error::new(ErrorKind::Conflict, "restore the database", message).at(&self.target.path).next(next))
    }

    fn run(&self, output: &Output) -> Result<Answer> {
        if self.dry_run {
            return self.preview(output);
        }
        let status = restore::status(&self.target.path, &Options::new())?;
        self.require_moment(status.as_ref())?;
        if phases::concerns(self, status.as_ref()) {
            let found = phases::run(self, status, output)?;
            return self.target.show(output, &found);
        }
        let meter = Meter::new(output);
        let options = self.options().progress(meter.callback());
        let done = match status {
            Some(found) if self.to.is_none() => {
                let archive = open(self.archive.as_ref().unwrap_or(&found.spec.archive))?;
                restore::go_on(&self.target.path, &archive, &options)
            }
            _ => restore::run(&self.target.path, &self.archive()?, &self.request()?, &options),
        };
        drop(meter);
        self.target.show(output, &done?)
    }
}

fn shown<'a>(target: &Target, plan: &'a Plan, archive: &'a str, encoding: String) -> Shown<'a> {
    Shown {
        target: target.path.display().to_string(),
        dry_run: false,
        restore: None,
        archive,
        phase: None,
        step: None,
        failure: None,
        requested: plan.moment.to_string(),
        timeline: plan.timeline,
        reached_sequence: plan.reached.sequence,
        reached_time: plan.reached.time,
        reached: show_time(plan.reached.time),
        resolved_time: plan.resolved,
        gaps: &plan.gaps,
        snapshot: plan.base,
        snapshot_sequence: plan.snapshot.sequence,
        segments: plan.segments(),
        compactions: plan.runs().map(|run| run.body.name.as_str()).collect(),
        compactions_left_out: &[],
        generation: plan.generation,
        encoding,
        replace: false,
        replica: false,
        goes_on: None,
        two_phase: None,
        did: None,
        worker_command: None,
    }
}

fn rows(shown: &Shown<'_>) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("requested", shown.requested.clone()),
        ("reached", format!("{}, sequence number {}", shown.reached, shown.reached_sequence)),
        ("timeline", shown.timeline.to_string()),
        ("archive", shown.archive.to_owned()),
        ("reads", format!("snapshot {}, then {} segments", shown.snapshot, output::count(shown.segments))),
        ("encoding", shown.encoding.clone()),
    ];
    if !shown.compactions.is_empty() {
        rows.push(("compactions", format!("{} instead of their segments", shown.compactions.join(" "))));
    }
    for left_out in shown.compactions_left_out {
        rows.push((
            "left out",
            format!("the compaction {}, so its segments were read: {}", left_out.name, left_out.reason),
        ));
    }
    for gap in shown.gaps {
        rows.push(("gap", format!("part of the log after {} was lost", show_time(gap.from))));
    }
    if let Some(goes_on) = &shown.goes_on {
        rows.push(("goes on", format!("attached to the archive, as the timeline {}", goes_on.timeline)));
        rows.push(("replaced", format!("what came later stays restorable with --timeline {}", goes_on.replaced)));
    }
    if let Some(two_phase) = &shown.two_phase {
        rows.extend(phases::rows(two_phase));
    }
    if let Some(did) = &shown.did {
        rows.push(("this pass", did.clone()));
    }
    if let Some(command) = &shown.worker_command {
        rows.push(("next", command.clone()));
    }
    if let Some(failure) = shown.failure {
        rows.push(("stopped", format!("{}: {}", failure.step.name(), failure.message)));
    }
    rows
}

impl Target {
    /// The restore that is under way, or complete.
    fn known(&self) -> Result<Found> {
        let none = || {
            Error::new(ErrorKind::NotFound, "find the restore", "no restore to this place has begun")
                .at(&self.path)
                .next(format!("morphkv restore start {} --archive URL --to T", self.path.display()))
        };
        restore::status(&self.path, &Options::new())?.ok_or_else(none)
    }

    /// One pass of the coordinator.
    fn pass(&self, output: &Output, found: &Found) -> Result<Answer> {
        let meter = Meter::new(output);
        let options = Options::new().progress(meter.callback());
        let done = coordinator::step(&self.path, &open(&found.spec.archive)?, &options);
        drop(meter);
        let (passed, found) = done?;
        self.show_pass(output, &found, Some(&passed))
    }

    fn show(&self, output: &Output, found: &Found) -> Result<Answer> {
        self.show_pass(output, found, None)
    }

    fn show_pass(&self, output: &Output, found: &Found, passed: Option<&Passed>) -> Result<Answer> {
        let encoding = found.spec.encoding.as_ref().unwrap_or(&found.plan.encoding).to_string();
        let complete = found.is_complete();
        let shown = Shown {
            restore: Some(found.spec.restore),
            phase: Some(found.status.phase.name()),
            step: Some(found.status.step),
            failure: found.status.failure.as_ref(),
            compactions_left_out: &found.status.left_out,
            replace: found.spec.replace,
            replica: found.spec.replica,
            // What stands at the target by now is not the restore's affair.
            goes_on: restore::goes_on(&self.path, found, &Options::new()).unwrap_or_default(),
            two_phase: phases::shown(&self.path, found)?,
            did: passed.map(Passed::describe),
            worker_command: passed.and_then(|passed| match &passed.did {
                Did::Launches(call, _) => Some(call.to_string()),
                _ => None,
            }),
            ..shown(self, &found.plan, &found.spec.archive, encoding)
        };
        let headline = if complete {
            format!("restored {}", shown.target)
        } else if found.status.phase.is_over() {
            format!("the restore of {} has failed; give it up, and begin another one", shown.target)
        } else {
            format!("a restore of {} is under way; the next step is {}", shown.target, found.status.step.name())
        };
        output.result(&shown, &headline, &rows(&shown))?;
        Ok(Answer::Yes)
    }

    fn status(&self, output: &Output) -> Result<Answer> {
        let Some(found) = restore::status(&self.path, &Options::new())? else {
            let path = self.path.display().to_string();
            output.result(&Absent { target: &path, phase: None }, &format!("no restore to {path} has begun"), &[])?;
            return Ok(Answer::No);
        };
        self.show(output, &found)
    }
}

impl Abort {
    fn run(&self, output: &Output) -> Result<Answer> {
        let path = self.target.path.display();
        let question = format!("What the restore of {path} has made will be gone; a database at {path} stays.");
        if !self.consent.given(output, &question, &format!("morphkv restore abort {path} -y"))? {
            return Ok(Answer::No);
        }
        let aborted = restore::abort(&self.target.path, &Options::new())?;
        let headline =
            if aborted { format!("gave the restore of {path} up") } else { format!("there is none of {path}") };
        output.result(&Aborted { aborted }, &headline, &[])?;
        Ok(aborted.into())
    }
}
