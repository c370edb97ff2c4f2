use super::Place;
use crate::output::{self, Answer, Output};
use clap::Args;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::compact::{PART_BYTES, Report, Request, STRETCH_SEGMENTS, State, Until, compact_into};
use morphkv::restore::moment::Moment;
use morphkv::{Error, ErrorKind, Options, Result};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Work one shard of a compaction: what a part of the log comes to in the end, so that restores need not go through it
///
/// The first worker of a name puts down what it is of: the segments from the last base snapshot to T, in N shards of equal
/// length. All N have to be worked, in any order, at any place, at the same time or not; the last to end also ends the
/// compaction. A worker that was killed is started again, and goes on where it had come to. Nothing is deleted: restores use
/// it where it covers what they need, and go through the log where not.
///
/// The exit code is 1 if the shard or the compaction has failed.
#[derive(Debug, Args)]
pub struct Compact {
    #[command(flatten)]
    place: Place,
    /// What it is called, in this archive for ever
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Which shard of how many: 1/4, 2/4, 3/4, 4/4
    #[arg(long, value_name = "I/N")]
    shard: String,
    /// Up to where: latest, -30m, 2026-01-31T12:00:00Z, seq:<timeline>/<n>, microseconds of the Unix epoch
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: String,
    /// An archive where all that is made goes, so that nothing is written to the one with the log; a restore then has to be
    /// told of it, with --compaction NAME --compaction-at URL
    #[arg(long, value_name = "URL")]
    out: Option<String>,
    /// Where files stand on their way into the archive; a directory of its own is made there, and removed
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl Compact {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let (shard, shards) = self.shard()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let until = match Moment::parse(&self.to, now)? {
            Moment::Latest => Until::Latest,
            Moment::Time(time) => Until::Time(time),
            Moment::Sequence { timeline, sequence } => Until::Sequence { timeline, sequence },
        };
        let archive = self.place.open()?;
        let scratch = Scratch::make(self.scratch.unwrap_or_else(std::env::temp_dir))?;
        let path = scratch.0.clone();
        let request = Request {
            name: self.name,
            shard,
            shards,
            until,
            scratch: path,
            part_bytes: PART_BYTES,
            stretch_segments: STRETCH_SEGMENTS,
        };
        let out = self.out.map_or_else(|| Ok(archive.clone()), |url| Archive::open(&url, into()))?;
        let report = compact_into(&archive, &out, &request, &Options::new())?;
        drop(scratch);
        let ok = report.failure.is_none() && matches!(report.state, State::Running | State::Complete);
        output.result(&report, &headline(&report), &rows(&report))?;
        Ok(ok.into())
    }

    fn shard(&self) -> Result<(u32, u32)> {
        let parsed =
            self.shard.split_once('/').and_then(|(shard, shards)| Some((shard.parse().ok()?, shards.parse().ok()?)));
        parsed.ok_or_else(|| {
            let message = format!("`{}` is no shard; shards are 1/4, 2/4, 3/4, 4/4", self.shard);
            Error::new(ErrorKind::InvalidArgument, "understand the command line", message)
        })
    }
}

/// A directory for it may be made.
fn into() -> ArchiveOptions {
    ArchiveOptions { create_directory: true, ..ArchiveOptions::default() }
}

/// A directory of our own, removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make(parent: impl AsRef<Path>) -> Result<Self> {
        let path = parent.as_ref().join(format!("morphkv-compact-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).map_err(|error| Error::io("make a directory", &path, error))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Rubbish in a directory for it; the answer matters more.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn headline(report: &Report) -> String {
    let (shard, shards) = (report.shard, report.shards);
    let shard = match (&report.failure, report.was_done) {
        (Some(_), _) => format!("shard {shard} of {shards} has failed"),
        (None, true) => format!("shard {shard} of {shards} was done already"),
        (None, false) => format!("shard {shard} of {shards} is done"),
    };
    let state = match report.state {
        State::Running => "others are to be worked yet",
        State::Complete if report.at != report.archive => {
            "the compaction is complete, and restores that are told of it use it"
        }
        State::Complete => "the compaction is complete, and restores use it",
        State::Failed => "the compaction has failed, and restores do without it",
        State::Outdated => "the log that it is of was truncated meanwhile, and restores do without it",
    };
    format!("{shard}; {state}")
}

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let segments = |first: u64, end: u64| format!("{first} to {}", end.saturating_sub(1));
    let mut rows = vec![
        ("name", report.name.clone()),
        ("timeline", report.timeline.to_string()),
        ("segments", segments(report.first_segment, report.end_segment)),
        ("of the shard", segments(report.shard_first_segment, report.shard_end_segment)),
        ("entries", output::count(report.entries)),
        ("bytes", output::bytes(report.bytes)),
    ];
    if report.taken_over > 0 {
        rows.push((
            "taken over",
            format!("{} segments, from a worker that did not end", output::count(report.taken_over)),
        ));
    }
    if report.shard_first_segment == report.shard_end_segment {
        rows[3].1 = "none".into();
    }
    if report.at != report.archive {
        rows.push(("of the log in", report.archive.clone()));
        rows.push(("stands in", report.at.clone()));
        let told = format!("--compaction {} --compaction-at {}", report.name, report.at);
        rows.push(("for restores", told));
    }
    for (label, failure) in [("failed", &report.failure), ("compaction failed", &report.compaction_failure)] {
        rows.extend(failure.iter().map(|failure| (label, failure.clone())));
    }
    rows
}
