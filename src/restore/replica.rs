//! Restoring from a replica: an archive whose objects another system copies here, in any order, while we read.
//!
//! - Nothing is written to it: no pin is taken, HEAD least of all.
//! - The log reaches as far as its segments are there without a hole; what came ahead of a hole does not count.
//! - Before a restore begins, every object that it will read is looked at: it is there, in its whole length. A base snapshot
//!   that has not arrived as a whole gives way to the one before it, a compaction to its segments; anything else that is
//!   missing is named, in an error with a [`NotArrived`] as its source.
//!
//! What cannot be known before is a bulk load that HEAD does not know yet, as HEAD is of an earlier day than the segments:
//! applying the log then stops at it, and goes on once it has come.
//!
//! [`NotArrived`]: crate::restore::unreachable::NotArrived

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::compaction;
use crate::log_backup::group::{GROUP_BYTES_MAX, GroupReference};
use crate::log_backup::head::Head;
use crate::log_backup::migration::{Base, Body, IngestedBody};
use crate::log_backup::names::{self, Kind, ObjectReference};
use crate::log_backup::snapshot_transfer::read_manifest;
use crate::log_backup::tail::{self, Ends};
use crate::restore::log::ArchiveLog;
use crate::restore::moment::Moment;
use crate::restore::plan::{Limit, Log, Plan, Reached, plan_without};
use crate::restore::runs::{LeftOut, PlannedRun};
use crate::restore::unreachable::{missing, not_arrived};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// So many objects are looked at at once.
const AT_ONCE: usize = 16;

/// The segments of a timeline that are there, with their lengths.
type Arrived = Rc<BTreeMap<u64, u64>>;

/// The segments of a replica. A timeline is listed once, when it is first asked for.
struct ReplicaLog<'a> {
    archive: &'a Archive,
    log: ArchiveLog<'a>,
    listed: RefCell<BTreeMap<Uuid, Arrived>>,
}

impl<'a> ReplicaLog<'a> {
    fn new(archive: &'a Archive) -> Self {
        ReplicaLog { archive, log: ArchiveLog::new(archive), listed: RefCell::default() }
    }

    fn listed(&self, timeline: Uuid) -> Result<Arrived> {
        if let Some(known) = self.listed.borrow().get(&timeline) {
            return Ok(Rc::clone(known));
        }
        let mut found = BTreeMap::new();
        for listed in self.archive.list(&names::log_of(timeline))? {
            let listed = listed?;
            if let Kind::Segment { number, .. } = names::kind(&listed.name) {
                found.insert(number, listed.stat.size);
            }
        }
        let found = Rc::new(found);
        self.listed.borrow_mut().insert(timeline, Rc::clone(&found));
        Ok(found)
    }
}

impl Log for ReplicaLog<'_> {
    fn ends(&self, timeline: Uuid, number: u64) -> Result<Option<Ends>> {
        if !self.listed(timeline)?.contains_key(&number) {
            return Ok(None);
        }
        self.log.ends(timeline, number)
    }

    fn last_within(&self, timeline: Uuid, number: u64, limit: Limit) -> Result<Option<Reached>> {
        self.log.last_within(timeline, number, limit)
    }

    fn arrived(&self, timeline: Uuid, first: u64) -> Result<Option<u64>> {
        let listed = self.listed(timeline)?;
        let hole = (first..).zip(listed.range(first..)).find(|(number, (there, _))| number != *there);
        Ok(Some(
            hole.map_or_else(|| listed.range(first..).last().map_or(first, |(last, _)| last + 1), |(hole, _)| hole),
        ))
    }
}

/// Plans a restore from a replica; all that the plan names is there. Says which compactions it leaves out.
///
/// # Errors
/// As [`plan`](crate::restore::plan::plan); `NotFound` with a `NotArrived` as its source.
pub(super) fn plan_replica(
    archive: &Archive,
    head: &Head,
    moment: Moment,
    timeline: Option<Uuid>,
) -> Result<(Plan, Vec<LeftOut>)> {
    let (log, live) = (ReplicaLog::new(archive), head.migrations.merged()?);
    let (mut without, mut first) = (BTreeSet::new(), None);
    let mut plan = loop {
        let plan = match (plan_without(head, &log, moment, timeline, &without), first) {
            (Ok(plan), earlier) => {
                first = earlier;
                plan
            }
            // There is none before: what the newest one lacks is the thing to wait for.
            (Err(_), Some(lacks)) => return Err(lacks),
            (Err(error), None) => return Err(error),
        };
        match require_snapshot(archive, &plan).and_then(|()| require_log(archive, &log, &live, &plan)) {
            Ok(()) => break plan,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                without.insert(plan.base);
                first = first.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    };
    let mut left_out = Vec::new();
    for leg in &mut plan.legs {
        leg.runs.retain(|run| match require_run(archive, run) {
            Ok(()) => true,
            Err(error) => {
                left_out.push(LeftOut { id: run.id, name: run.body.name.clone(), reason: error.to_string() });
                false
            }
        });
    }
    Ok((plan, left_out))
}

/// An object that something refers to is there, in its whole length.
fn require(archive: &Archive, object: &ObjectReference) -> Result<()> {
    match archive.head(&object.name) {
        Ok(stat) if stat.size == object.size => Ok(()),
        Ok(_) => Err(missing(&object.name).at(archive.url())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(&object.name).at(archive.url())),
        Err(error) => Err(error),
    }
}

fn require_snapshot(archive: &Archive, plan: &Plan) -> Result<()> {
    require(archive, &plan.snapshot.manifest)?;
    let manifest = read_manifest(archive, &plan.snapshot.manifest)?;
    each(&manifest.files, |file| require(archive, &file.object))
}

fn require_log(archive: &Archive, log: &ReplicaLog<'_>, live: &Base, plan: &Plan) -> Result<()> {
    for (index, leg) in plan.legs.iter().enumerate() {
        let listed = log.listed(leg.timeline)?;
        let mut segments = Vec::new();
        for number in leg.first_segment..leg.end_segment {
            let size = listed.get(&number).ok_or_else(|| not_arrived(leg.timeline, number).at(archive.url()))?;
            segments.push((number, *size));
        }
        each(&segments, |(number, size)| require_segment(archive, leg.timeline, *number, *size))?;
        let last = index + 1 == plan.legs.len();
        let end = if last { plan.reached.sequence } else { leg.limit.sequence };
        let begin = if index == 0 { plan.snapshot.sequence } else { 0 };
        for entry in live.entries.values() {
            if let Body::Ingested(body) = &entry.body
                && body.timeline == leg.timeline
                && (begin..end).contains(&body.sequence)
            {
                require_load(archive, body)?;
            }
        }
    }
    Ok(())
}

/// A segment says in its header how long it is.
fn require_segment(archive: &Archive, timeline: Uuid, number: u64, size: u64) -> Result<()> {
    match tail::header(archive, timeline, number) {
        Ok(header) if header.object_bytes() == size => Ok(()),
        Ok(_) => Err(not_arrived(timeline, number).at(archive.url())),
        Err(error) if error.kind() == ErrorKind::Corrupt && size < tail::SEGMENT_BYTES_MIN => {
            Err(not_arrived(timeline, number).at(archive.url()))
        }
        Err(error) => Err(error),
    }
}

fn require_load(archive: &Archive, body: &IngestedBody) -> Result<()> {
    require(archive, &body.list)?;
    let bytes = archive.get_verified(&body.list, GROUP_BYTES_MAX as u64)?;
    let group = GroupReference::from_bytes(&bytes).map_err(|error| error.at(archive.url()))?;
    each(&group.files, |file| require(archive, &file.object))
}

/// All of a compaction is there: its END, the results of its shards and their files.
pub(super) fn require_run(archive: &Archive, run: &PlannedRun) -> Result<()> {
    let place = run.place(archive)?;
    let complete = compaction::read(&place, &run.body)?;
    for run in &complete.runs {
        let own: Vec<_> = run.own_objects().collect();
        each(&own, |object| require(&place, object))?;
        let loads: Vec<_> = run.parts.iter().filter(|part| part.load.is_some()).flat_map(|part| &part.files).collect();
        each(&loads, |file| require(archive, &file.object))?;
    }
    Ok(())
}

/// Looks at each, some at once; the first error in their order, of those that were met.
fn each<T: Sync>(items: &[T], look: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let work = || {
        let mut found: Option<(usize, Error)> = None;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index).filter(|_| index < stopped.load(Ordering::Relaxed)) else { return found };
            if let Err(error) = look(item) {
                stopped.fetch_min(index, Ordering::Relaxed);
                found = Some((index, error));
            }
        }
    };
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..AT_ONCE.min(items.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = threads.into_iter().filter_map(|thread| thread.join().ok().flatten());
        others.chain(own).min_by_key(|(index, _)| *index)
    });
    found.map_or(Ok(()), |(_, error)| Err(error))
}
