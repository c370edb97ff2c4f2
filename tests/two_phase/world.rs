//! A log with a base snapshot, compactions of it, and coordinators whose workers run in line.

use crate::common::{Content, options, scratch};
use crate::source::{Source, all_of, request};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::log_backup::compact::{self, Report, Until};
use morphkv::restore::coordinator::{self, Launcher, Pace, Passed, WorkerCall};
use morphkv::restore::folder::{Found, Status, TwoPhase};
use morphkv::restore::moment::Moment;
use morphkv::restore::state::{Mode, Reason};
use morphkv::restore::{self, Part};
use morphkv::{Engine, Options, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub const PACE: Pace = Pace { poll: Duration::from_millis(2), restart: Duration::from_millis(1) };

/// What can be done to few keys, over and over: two timelines, some ten segments, a load and ranges in the last one.
pub fn log(converted: bool) -> Source {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 2;
    if converted {
        source.put("/early", "1");
        source.convert(Arc::new(Hierarchical));
    }
    for round in 0..3 {
        for number in 0..5 {
            source.put(&format!("/key/{number}"), &format!("{round}"));
        }
        source.engine().delete_range("/key/1".."/key/3").unwrap();
        source.remove_range(b"/key/1", b"/key/3");
        let mut batch = source.engine().batch();
        batch.put_internal("offset", format!("{round}"));
        batch.delete("/key/4").unwrap();
        batch.commit().unwrap();
        source.internal.insert(b"offset".to_vec(), format!("{round}").into_bytes());
        source.content.remove(&b"/key/4"[..]);
        source.note();
        source.clock.advance(1);
        if round == 1 {
            let loaded: Content =
                (2..6).map(|number| (format!("/key/{number}").into_bytes(), b"loaded".to_vec())).collect();
            source.ingest(loaded);
            source.clock.advance(1);
        }
    }
    source.ship(None);
    source
}

pub fn shard(source: &Source, name: &str, shard: u32, shards: u32, until: Until) -> Result<Report> {
    let directory = scratch();
    let (name, scratch) = (name.to_owned(), directory.path().to_owned());
    compact::compact(
        &source.archive,
        &compact::Request { name, shard, shards, until, scratch, part_bytes: 600, stretch_segments: 2 },
        &options(),
    )
}

pub fn compact_all(source: &Source, name: &str, until: Until) -> Report {
    shard(source, name, 1, 2, until).unwrap();
    shard(source, name, 2, 2, until).unwrap()
}

pub fn waits(compaction: &str, wait_timeout: Option<i64>) -> TwoPhase {
    TwoPhase { compaction: compaction.into(), at: None, wait_timeout }
}

pub fn start(source: &Source, target: &Path, moment: Moment, two_phase: &TwoPhase) -> Found {
    coordinator::start(target, &source.archive, &request(moment), two_phase, &options()).unwrap()
}

/// Workers that have ended when they were started.
pub struct Inline<'a> {
    pub source: &'a Source,
    pub options: Options,
    pub calls: Vec<u32>,
    pub errors: Vec<morphkv::Error>,
    pub passes: Vec<Passed>,
}

impl<'a> Inline<'a> {
    pub fn new(source: &'a Source, options: Options) -> Self {
        Inline { source, options, calls: Vec::new(), errors: Vec::new(), passes: Vec::new() }
    }
}

impl Launcher for Inline<'_> {
    fn launch(&mut self, call: &WorkerCall) -> Result<()> {
        self.calls.push(call.phase.number());
        let part = Part::Phase(call.phase);
        self.errors.extend(restore::worker(&call.target, &self.source.archive, part, &self.options).err());
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        false
    }

    fn passed(&mut self, passed: &Passed) {
        self.passes.push(passed.clone());
    }
}

/// Goes on to the end, with workers in line.
pub fn go_on(source: &Source, target: &Path) -> Found {
    let mut launcher = Inline::new(source, options());
    let found = coordinator::run(target, &source.archive, &options(), &mut launcher, &PACE);
    found.unwrap_or_else(|error| panic!("{error:?}; the workers: {:?}", launcher.errors))
}

/// Compares the restored database with the model, and removes all of it.
pub fn check(source: &Source, target: &Path, found: &Found, moment: Moment, what: &str) {
    assert!(found.is_complete(), "{what}: {:?}", found.status);
    let expected = match moment {
        Moment::Time(time) => source.at(time),
        _ => source.states.last().unwrap(),
    };
    let (content, internal) = all_of(target);
    assert!(content == expected.content && internal == expected.internal, "{what}: wrong content");
    Engine::destroy(target, Options::new()).unwrap();
    std::fs::remove_dir_all(target.with_extension("restore")).unwrap();
}

pub fn target(source: &Source) -> PathBuf {
    source.directory.path().join("target")
}

pub fn folder(target: &Path) -> PathBuf {
    target.with_extension("restore")
}

pub fn reason(status: &Status) -> Reason {
    status.markers.compaction_settled.as_ref().unwrap().reason
}

pub fn is_fast(status: &Status) -> bool {
    matches!(status.mode.as_ref().unwrap(), Mode::Fast(_))
}

/// What of a STATUS must be the same however often something died.
pub fn essence(found: &Found) -> String {
    let status = &found.status;
    let conditions: Vec<_> =
        status.conditions.iter().map(|condition| (condition.phase, condition.reason.clone())).collect();
    let mode = match status.mode.as_ref().unwrap() {
        Mode::Fast(run) => format!("fast {}", run.id),
        Mode::Raw(reason) => format!("raw {reason}"),
    };
    format!(
        "{:?} {:?} {:?} {:?} {mode} {conditions:?} {:?}",
        status.phase,
        status.step,
        reason(status),
        status.failure,
        status.left_out
    )
}
