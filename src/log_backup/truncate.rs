//! Truncating an archive: what no moment from some moment on needs is doomed, and later deleted.
//!
//! | # | step | after a crash there may be |
//! |---|---|---|
//! | 1 | take a pin, load HEAD, find out what is needed (`needed.rs`) | the pin, which expires |
//! | 2 | write the list of what is doomed | a list that nothing refers to: an orphan |
//! | 3 | commit to HEAD: entries out, floors up, the list in | from here on nobody begins to read what is doomed |
//! | 4 | wait until the grace is over | |
//! | 5 | delete what is on the list, unless a live pin is of a HEAD from before step 3 | some of it is gone |
//! | 6 | all of it is known to be gone: take the list out of HEAD | |
//! | 7 | delete the list | a list that nothing refers to: an orphan |
//!
//! Steps 4 to 7 are those of every list that HEAD has, whoever wrote it: so whatever was left undone, by a crash, a pin, a
//! grace or a failing store, the next truncation ends. Deleting twice, or late, does no harm, since a name is used once. An
//! error can only retain: a list leaves HEAD when the store has said of each object on it that it is not there.
//!
//! The grace is counted in the store's own time, from when the list was written; the commit follows within
//! [`LIST_AGE_MAX`], or another list is written. It is for readers without a pin; those with one are waited for.

use crate::error::{Error, ErrorKind, Result};
use crate::fs::RealVfs;
#[cfg(feature = "traps")]
use crate::fs::Vfs;
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::{commit, load};
use crate::log_backup::doom::{self, DoomList};
use crate::log_backup::head::Head;
use crate::log_backup::migration::{Base, Body, GcBody, Key};
use crate::log_backup::names::{self, LOG, ObjectName};
use crate::log_backup::needed::{Doomed, Extent, Needed, Until, doomed, needed};
use crate::log_backup::pin::{self, Pin, PinRequest, PinState, TTL};
use crate::log_backup::referred::{listed, named};
use crate::log_backup::tail;
use crate::log_backup::timelines::{floor_of, known_last};
use crate::log_backup::verify::Fault;
use crate::trap::trap;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A list that was written so long before its commit is not committed.
pub const LIST_AGE_MAX: Duration = Duration::from_secs(10);

const STEP: &str = "truncate the archive";

/// How often it is planned anew because somebody else has changed HEAD meanwhile.
const ROUNDS_MAX: u32 = 32;
/// Deletions under way at a time.
const WORKERS: usize = 8;
/// A store that fails so many deletions of a list is left alone.
const FAILURES_MAX: usize = 16;

/// How an archive is truncated.
#[derive(Debug, Clone, Copy)]
pub struct TruncateOptions {
    /// What is doomed is deleted this long after. Default: one hour.
    pub grace: Duration,
    /// Nothing is doomed and nothing deleted.
    pub dry_run: bool,
}

impl Default for TruncateOptions {
    fn default() -> Self {
        TruncateOptions { grace: Duration::from_secs(60 * 60), dry_run: false }
    }
}

/// What a truncation came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Truncated {
    /// Whether nothing was changed, since that was asked for.
    pub dry_run: bool,
    /// Every moment from this base snapshot on can be restored; `None`: there is none at or below the moment, so nothing
    /// was doomed.
    pub base: Option<KeptBase>,
    /// How many objects were doomed by this call.
    pub doomed_objects: u64,
    /// Their bytes.
    pub doomed_bytes: u64,
    /// What would be doomed; of a dry run alone.
    pub would_delete: Vec<DoomedObject>,
    /// Doomed lists that are damaged or gone themselves: what was on them is not doomed, and an orphan.
    pub damaged: Vec<Fault>,
    /// Objects that are known to be gone since this call.
    pub deleted_objects: u64,
    /// What is doomed and not all deleted.
    pub pending: Vec<Pending>,
}

/// The snapshot that all restores are from, or from a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptBase {
    /// Its id.
    pub id: Uuid,
    /// The timeline that it is of.
    pub timeline: Uuid,
    /// The last sequence number in it.
    pub sequence: u64,
    /// The time of that.
    pub time: u64,
}

/// An object that is not needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DoomedObject {
    /// The object.
    pub object: String,
    /// Its length.
    pub bytes: u64,
}

/// A list of doomed objects that are not all deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The list.
    pub list: Uuid,
    /// The generation of HEAD that doomed it.
    pub generation: u64,
    /// Why.
    pub reason: Reason,
}

/// Why doomed objects are not deleted yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The grace is not over.
    Grace {
        /// How long it still is.
        seconds_left: u64,
    },
    /// Somebody may be reading them.
    Pinned {
        /// The pins.
        pins: Vec<Uuid>,
    },
    /// Something failed.
    Failed {
        /// What it was.
        message: String,
    },
}

/// Dooms what no moment from `until` on needs, and deletes what is doomed and may be deleted by now.
///
/// # Errors
/// `NotFound`: there is no archive; `InvalidArgument` for the moment; `Corrupt`: a snapshot that is to be kept is damaged, so
/// nothing was doomed; `Lost`: the pin; `Conflict`: others changed HEAD all the time; `Io`. Whatever the error, everything
/// that is needed stands; repeat.
pub fn truncate(archive: &Archive, until: Until, options: TruncateOptions) -> Result<Truncated> {
    let request = PinRequest { owner: archive.url().to_owned(), purpose: STEP.into(), ttl: TTL };
    let (pin, loaded) = Pin::take_and_load(archive, &request)?;
    let run = Run { archive, pin, vfs: RealVfs::new()?, options };
    trap!(run.vfs, TruncatePinned);
    let mut truncated = Truncated { dry_run: options.dry_run, ..Truncated::default() };
    let head = run.doom(loaded.head, until, &mut truncated)?;
    // What this call has doomed it does not need itself.
    run.pin.note_generation(head.generation)?;
    run.finish_all(&head, &mut truncated)?;
    Ok(truncated)
}

struct Run<'a> {
    archive: &'a Archive,
    pin: Pin,
    #[cfg_attr(not(feature = "traps"), allow(dead_code))] // It carries the traps alone.
    vfs: RealVfs,
    options: TruncateOptions,
}

/// What is to be doomed, by a HEAD.
struct Planned {
    doomed: Doomed,
    objects: BTreeMap<ObjectName, u64>,
    segments: Vec<DoomedObject>,
}

impl Run<'_> {
    /// Dooms what is not needed. Gives the HEAD by which to go on.
    fn doom(&self, mut head: Head, until: Until, truncated: &mut Truncated) -> Result<Head> {
        for _ in 0..ROUNDS_MAX {
            let Some(planned) = self.plan(&head, until, truncated)? else { return Ok(head) };
            let objects = planned.objects.iter().map(|(name, bytes)| (name.to_string(), *bytes));
            let objects = objects.map(|(object, bytes)| DoomedObject { object, bytes }).chain(planned.segments.clone());
            let objects: Vec<_> = objects.collect();
            truncated.doomed_objects = objects.len() as u64;
            truncated.doomed_bytes = objects.iter().map(|object| object.bytes).sum();
            if self.options.dry_run {
                truncated.would_delete = objects;
                return Ok(head);
            }
            if let Some(committed) = self.commit(&head, &planned)? {
                return Ok(committed);
            }
            // By another HEAD other things may be needed.
            head = load(self.archive)?.head;
            self.pin.note_generation(head.generation)?;
        }
        let message = format!("others changed HEAD {ROUNDS_MAX} times while this was trying to; repeat");
        Err(Error::new(ErrorKind::Conflict, STEP, message).at(self.archive.url()))
    }

    /// What is not needed; `None`: nothing is to be done.
    fn plan(&self, head: &Head, until: Until, truncated: &mut Truncated) -> Result<Option<Planned>> {
        let live = head.migrations.merged()?;
        let extents = extents(self.archive, head, &live)?;
        let Some(needed) = needed(head, &live, &extents, until)? else { return Ok(None) };
        let base = &needed.base;
        let kept = KeptBase { id: needed.id, timeline: base.timeline, sequence: base.sequence, time: base.time };
        (truncated.base, truncated.damaged) = (Some(kept), Vec::new());
        let doomed = doomed(head, &live, &extents, &needed);
        if doomed.is_empty() {
            return Ok(None);
        }
        let kept = self.kept_objects(&live, &needed)?;
        let mut objects = BTreeMap::new();
        for key in &doomed.keys {
            let body = &live.entries[key].body;
            objects.insert(named(body).name.clone(), named(body).size);
            match listed(self.archive, body) {
                Ok(listed) => objects.extend(listed.into_iter().map(|object| (object.name, object.size))),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                    let object = named(body).name.to_string();
                    truncated.damaged.push(Fault { object, reason: error.message().to_owned() });
                }
                Err(error) => return Err(error),
            }
        }
        objects.retain(|name, _| !kept.contains(name));
        let segments = self.doomed_segments(&doomed)?;
        Ok(Some(Planned { doomed, objects, segments }))
    }

    /// The objects that stay. Whoever cannot be read may share files with what goes, so that is an error; and so is a base
    /// that is not whole: the one before it is better than none.
    fn kept_objects(&self, live: &Base, needed: &Needed) -> Result<BTreeSet<ObjectName>> {
        let damage = |error: &Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt);
        let damaged = |error: Error| match damage(&error) {
            true => {
                let message = format!("something that is to be kept is damaged, so nothing was doomed: {error}");
                let next = format!("morphkv archive verify {}", self.archive.url());
                Error::new(ErrorKind::Corrupt, STEP, message).at(self.archive.url()).next(next)
            }
            false => error,
        };
        let mut kept = BTreeSet::new();
        for key in &needed.keys {
            let body = &live.entries[key].body;
            kept.insert(named(body).name.clone());
            let listed = match listed(self.archive, body) {
                // A restore does without it, and so without whatever it shares with what goes.
                Err(error) if matches!(body, Body::Compaction(_)) && damage(&error) => continue,
                listed => listed.map_err(damaged)?,
            };
            if *key == Key::Snapshot(needed.id) {
                for object in &listed {
                    self.pin.check()?;
                    let size = self.archive.head(&object.name).map_err(damaged)?.size;
                    if size != object.size {
                        let message = format!("{} has {size} bytes, not {}", object.name, object.size);
                        return Err(damaged(Error::new(ErrorKind::Corrupt, STEP, message)));
                    }
                }
            }
            kept.extend(listed.into_iter().map(|object| object.name));
        }
        Ok(kept)
    }

    fn doomed_segments(&self, doomed: &Doomed) -> Result<Vec<DoomedObject>> {
        let mut segments = Vec::new();
        for range in &doomed.segments {
            for listed in self.archive.list(&format!("{LOG}/{}", range.timeline))? {
                let listed = listed?;
                let number: Option<u64> = listed.name.last_part().parse().ok();
                if number.is_some_and(|number| (range.first..range.end).contains(&number)) {
                    segments.push(DoomedObject { object: listed.name.to_string(), bytes: listed.stat.size });
                }
            }
        }
        segments.sort();
        Ok(segments)
    }

    /// Steps 2 and 3; `None`: HEAD is another one by now, and nothing was changed.
    fn commit(&self, seen: &Head, planned: &Planned) -> Result<Option<Head>> {
        let list = DoomList::new(planned.objects.keys().cloned().collect(), planned.doomed.segments.clone());
        trap!(self.vfs, TruncateListBefore);
        let reference = doom::write(self.archive, &list)?;
        let written = Instant::now();
        trap!(self.vfs, TruncateListWritten);
        let (mut stale, mut moved) = (false, false);
        let committed = commit(self.archive, |head| {
            self.pin.check()?;
            moved = head.generation != seen.generation;
            stale = moved || written.elapsed() > LIST_AGE_MAX;
            if stale {
                return Err(Error::new(ErrorKind::Conflict, STEP, "HEAD was changed meanwhile"));
            }
            let mut head = head.clone();
            head.migrations.remove(&planned.doomed.keys)?;
            for (timeline, floor) in &planned.doomed.floors {
                head.migrations.raise_floor(*timeline, *floor);
            }
            let body = GcBody { list: reference.clone(), generation: seen.generation + 1 };
            head.migrations.append([(Key::Gc(list.id), Body::Gc(body))])?;
            Ok(head)
        });
        if stale && committed.is_err() {
            // Once HEAD has moved on it is known not to count, and would stay as an orphan. Before, an attempt whose answer
            // was lost may still come through.
            if moved {
                let _ = self.archive.delete(&reference.name);
            }
            return Ok(None);
        }
        let committed = committed?;
        trap!(self.vfs, TruncateCommitted);
        Ok(Some(committed))
    }

    /// Steps 4 to 7 of every list.
    fn finish_all(&self, head: &Head, truncated: &mut Truncated) -> Result<()> {
        let live = head.migrations.merged()?;
        let lists = live.entries.iter().filter_map(|(key, entry)| match (key, &entry.body) {
            (Key::Gc(id), Body::Gc(body)) => Some((*id, body)),
            _ => None,
        });
        let mut lists: Vec<_> = lists.collect();
        lists.sort_by_key(|(_, body)| body.generation);
        if lists.is_empty() {
            return Ok(());
        }
        let now = pin::store_time(self.archive)?;
        // After HEAD: a pin that comes later is of a HEAD that knows these lists.
        let pins = pin::list(self.archive)?;
        for (id, body) in lists {
            let reason = match self.waits(body, now, &pins)? {
                Some(reason) => Some(reason),
                None if self.options.dry_run => None,
                None => self.finish(head, id, body, truncated)?,
            };
            truncated.pending.extend(reason.map(|reason| Pending { list: id, generation: body.generation, reason }));
        }
        Ok(())
    }

    /// What a list has to wait for.
    fn waits(&self, body: &GcBody, now: i64, pins: &[PinState]) -> Result<Option<Reason>> {
        let written = match self.archive.head(&body.list.name) {
            Ok(stat) => stat.modified,
            // Told by whoever reads it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let age = Duration::from_micros(now.saturating_sub(written).max(0).cast_unsigned());
        let left = self.options.grace.saturating_sub(age);
        if left > Duration::ZERO {
            return Ok(Some(Reason::Grace { seconds_left: left.as_secs() + 1 }));
        }
        let blocking = pins.iter().filter(|pin| pin.blocks(body.generation));
        let pins: Vec<_> = blocking.map(|pin| pin.id).collect();
        Ok((!pins.is_empty()).then_some(Reason::Pinned { pins }))
    }

    /// Steps 5 to 7.
    fn finish(&self, head: &Head, id: Uuid, body: &GcBody, truncated: &mut Truncated) -> Result<Option<Reason>> {
        let failed = |message: String| Ok(Some(Reason::Failed { message }));
        let list = match doom::read(self.archive, &body.list) {
            Ok(list) => list,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Somebody else has ended it meanwhile?
                let live = load(self.archive)?.head.migrations.merged()?;
                return if live.entries.contains_key(&Key::Gc(id)) { failed(error.to_string()) } else { Ok(None) };
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => return failed(error.to_string()),
            Err(error) => return Err(error),
        };
        for range in &list.segments {
            // What HEAD says to be there is not deleted, whatever a list says.
            if range.end > floor_of(head, range.timeline)? {
                return failed(format!(
                    "segments of {} are on the list, and HEAD says they are needed",
                    range.timeline
                ));
            }
        }
        let (deleted, error) = self.delete(&list)?;
        truncated.deleted_objects += deleted;
        if let Some(error) = error {
            return failed(error.to_string());
        }
        trap!(self.vfs, TruncateAllDeleted);
        commit(self.archive, |head| {
            let mut head = head.clone();
            if head.migrations.merged()?.entries.contains_key(&Key::Gc(id)) {
                head.migrations.remove(&[Key::Gc(id)])?;
            }
            Ok(head)
        })?;
        trap!(self.vfs, TruncateListForgotten);
        if let Err(error) = self.archive.delete(&body.list.name) {
            tracing::warn!(%error, list = %id, "a list of deleted objects stays behind as an orphan");
        }
        trap!(self.vfs, TruncateListRemoved);
        Ok(None)
    }

    /// Deletes what is on a list: how many are known to be gone, and what went wrong with the first that is not.
    fn delete(&self, list: &DoomList) -> Result<(u64, Option<Error>)> {
        let segments = list
            .segments
            .iter()
            .flat_map(|range| (range.first..range.end).map(|number| names::segment(range.timeline, number)));
        let names = Mutex::new(list.objects.iter().cloned().map(Ok).chain(segments));
        let failures: Mutex<Vec<Error>> = Mutex::default();
        let work = || -> Result<u64> {
            let mut deleted = 0;
            while failures.lock().len() < FAILURES_MAX {
                let Some(name) = names.lock().next() else { break };
                trap!(self.vfs, TruncateDeleteBefore);
                match name.and_then(|name| self.archive.delete(&name)) {
                    Ok(()) => deleted += 1,
                    Err(error) => failures.lock().push(error),
                }
                trap!(self.vfs, TruncateDeleted);
            }
            Ok(deleted)
        };
        let deleted = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..WORKERS).map(|_| scope.spawn(work)).collect();
            let own = work();
            let panicked = |_| Err(Error::new(ErrorKind::Io, STEP, "a thread that deletes has panicked"));
            let others = workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked));
            others.chain([own]).collect::<Vec<_>>()
        });
        let deleted = deleted.into_iter().collect::<Result<Vec<_>>>()?.into_iter().sum();
        Ok((deleted, failures.into_inner().into_iter().next()))
    }
}

/// Which segments each timeline has. Whoever writes the current one finds its last write again.
fn extents(archive: &Archive, head: &Head, live: &Base) -> Result<BTreeMap<Uuid, Extent>> {
    let mut extents = BTreeMap::new();
    for timeline in &head.timelines {
        let id = timeline.id;
        let first = live.floors.get(&id).copied().unwrap_or(0);
        let last = tail::last_number(archive, id, first)?;
        let extent = match last {
            _ if known_last(head, live, id)
                .is_some_and(|known| known >= first && last.is_none_or(|last| last < known)) =>
            {
                // Segments are missing, and how far it goes cannot be told: all that may be needed of it stays.
                let end = last.map_or(first, |last| last + 1);
                Extent { first, end, resume: first, resolved: u64::MAX }
            }
            None => Extent { first, end: first, resume: first, resolved: 0 },
            Some(last) => {
                let trailer = tail::ends(archive, id, last)?.trailer;
                let resume = match id == head.current {
                    true => tail::holding(archive, id, first, last, trailer.last_sequence)?.unwrap_or(last),
                    false => last,
                };
                Extent { first, end: last + 1, resume, resolved: trailer.resolved.max(trailer.last_time) }
            }
        };
        extents.insert(id, extent);
    }
    Ok(extents)
}
