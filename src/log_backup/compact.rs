//! Compacting a stretch of the log, in shards that know of each other by the archive alone.
//!
//! | step | after a crash here |
//! |---|---|
//! | SPEC is made, or found | the next worker finds it |
//! | the segments of the shard are read, their net effect is stored, part by part | the next attempt goes on where this one had come to (`progress.rs`) |
//! | the shard's result is made | the next attempt at it finds it |
//! | who finds all results makes END | the next worker of any shard makes it |
//! | a complete one is committed to HEAD | the next worker of any shard commits it |
//!
//! Invariants: SPEC, a result and END are each made once, by whoever is first, and never replaced; two attempts at one shard
//! harm nobody: the second to end throws its own files away. Before a result is made, or known to HEAD, the store is asked whether
//! the pin still stands: what was stored under a pin that does not may have been swept. What cannot be read now or later makes the shard fail, and the
//! compaction with it once all shards have ended; what may be mended is an error of this attempt alone.

use crate::engine::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::log_backup::address::Address;
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::{commit, load};
use crate::log_backup::compaction::{
    COMPACTION_FORMAT, END_BYTES_MAX, End, Outcome, RESULT_BYTES_MAX, SHARDS_MAX, SPEC_BYTES_MAX, ShardResult, Spec,
    find, find_spec, to_bytes,
};
use crate::log_backup::head::{Head, Timeline};
use crate::log_backup::location::compare;
use crate::log_backup::migration::{Body, COMPACTION_NAME_BYTES_MAX, Key};
use crate::log_backup::names::{self, ObjectReference};
pub use crate::log_backup::needed::Until;
use crate::log_backup::pin::{Pin, PinRequest, TTL};
use crate::log_backup::progress::{self, Reached};
use crate::log_backup::shard::{Shard, Stop, Storing};
use crate::log_backup::tail::{self, Ends};
use crate::log_backup::timelines::floor_of;
use crate::rocks::SstOptions;
use crate::trap::trap;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

const STEP: &str = "compact the log";

/// The memory that the net effect of a part may take.
pub const PART_BYTES: usize = 128 << 20;
/// How many segments a stretch has at least: what a worker that is killed has done in vain is no more than a stretch, or an
/// eighth of its shard.
pub const STRETCH_SEGMENTS: u64 = 16;

/// What a worker is to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// The compaction's name: up to 64 of `A-Z a-z 0-9 . _ -`; it can be used once.
    pub name: String,
    /// The shard, from 1 on.
    pub shard: u32,
    /// How many there are.
    pub shards: u32,
    /// Up to where, in whole segments; counts for the first worker alone.
    pub until: Until,
    /// A directory for files on their way; it must be there, and be nobody else's.
    pub scratch: PathBuf,
    /// The memory of a part: [`PART_BYTES`].
    pub part_bytes: usize,
    /// How many segments a stretch has at least: [`STRETCH_SEGMENTS`].
    pub stretch_segments: u64,
}

/// Where a compaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Some shards have no result.
    Running,
    /// All shards are ok, and HEAD knows it.
    Complete,
    /// All shards have ended, and it cannot be used.
    Failed,
    /// All shards are ok, but part of the log that it is of was truncated meanwhile, so HEAD does not know it.
    Outdated,
}

/// What came of a worker's shard, and of the compaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The compaction.
    pub compaction: Uuid,
    /// Its name.
    pub name: String,
    /// The archive with the log: a canonical URL.
    pub archive: String,
    /// Where the compaction stands: that archive, or the other one that was asked for. A restore is told of another one.
    pub at: String,
    /// The timeline.
    pub timeline: Uuid,
    /// Its first segment.
    pub first_segment: u64,
    /// The segment after its last.
    pub end_segment: u64,
    /// The shard.
    pub shard: u32,
    /// How many there are.
    pub shards: u32,
    /// The first segment of the shard.
    pub shard_first_segment: u64,
    /// The segment after its last.
    pub shard_end_segment: u64,
    /// Whether somebody had done the shard before.
    pub was_done: bool,
    /// How many segments of the shard an earlier attempt had done, which did not end.
    pub taken_over: u64,
    /// Why the shard has failed; `None`: it is ok.
    pub failure: Option<String>,
    /// Parts of the shard.
    pub parts: u64,
    /// Entries in their files, deletions and those of bulk loads among them.
    pub entries: u64,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Where the compaction stands.
    pub state: State,
    /// Why it has failed.
    pub compaction_failure: Option<String>,
}

/// Does a shard of a compaction, and ends the compaction if that was the last. Repeat it after any error.
///
/// # Errors
/// `InvalidArgument`: the request contradicts itself, or the compaction of that name; `Conflict`: the name was used in another
/// archive; `NotFound`: there is no archive, or no whole segment to compact; `Lost`: the pin; `NoSpace`, `Io`.
pub fn compact(archive: &Archive, request: &Request, options: &Options) -> Result<Report> {
    compact_into(archive, archive, request, options)
}

/// As [`compact`], but all that is made goes to `out`: nothing is written to the archive, which therefore learns nothing of
/// it either: a restore has to name it, and where it stands. No pin holds the segments in the archive meanwhile; what is
/// truncated makes the shard fail.
///
/// # Errors
/// As [`compact`].
pub fn compact_into(archive: &Archive, out: &Archive, request: &Request, options: &Options) -> Result<Report> {
    request.check()?;
    let vfs = options.file_operations()?;
    let purpose = format!("compact the log: {}, shard {} of {}", request.name, request.shard, request.shards);
    let pinned = PinRequest { owner: archive.url().to_owned(), purpose, ttl: TTL };
    let (pin, loaded) = if out.url() == archive.url() {
        Pin::take_and_load(archive, &pinned)?
    } else {
        // Whoever sweeps there sees that files without a reference are in use.
        (Pin::take(out, &pinned)?, load(archive)?)
    };
    trap!(vfs, CompactPinned);
    let spec = specified(archive, out, &loaded.head, request)?;
    trap!(vfs, CompactSpecified);
    let settings = SstOptions::new(&options.settings());
    let work = Work { archive, out, vfs, pin: &pin, spec: &spec, request, settings };
    let (result, was_done, taken_over) = work.shard()?;
    let (state, compaction_failure) = work.end()?;
    let mut report = Report { was_done, taken_over, compaction_failure, ..work.report(state) };
    match result.outcome {
        Outcome::Failed { kind, message } => report.failure = Some(format!("{kind}: {message}")),
        Outcome::Ok(run) => {
            report.parts = run.parts.len() as u64;
            report.entries = run.parts.iter().flat_map(|part| &part.files).map(|file| file.entries).sum();
            report.bytes = run.objects().map(|object| object.size).sum();
        }
    }
    pin.release()?;
    Ok(report)
}

impl Request {
    fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidArgument, STEP, message));
        if !(1..=SHARDS_MAX).contains(&self.shards) || !(1..=self.shards).contains(&self.shard) {
            return invalid(format!(
                "there is no shard {} of {}; there are up to {SHARDS_MAX}",
                self.shard, self.shards
            ));
        }
        if self.name.len() > COMPACTION_NAME_BYTES_MAX {
            return invalid(format!("its name has more than {COMPACTION_NAME_BYTES_MAX} bytes"));
        }
        names::compaction_spec(&self.name).map(|_| ())
    }
}

/// What the compaction is of: as the first worker has put it down.
fn specified(archive: &Archive, out: &Archive, head: &Head, request: &Request) -> Result<Spec> {
    let found = match find_spec(out, &request.name)? {
        Some(found) => found,
        None => {
            let spec = plan(archive, head, request)?;
            let name = names::compaction_spec(&request.name)?;
            let (bytes, _) = to_bytes(&name, &spec, SPEC_BYTES_MAX)?;
            match out.put_create(&name, bytes) {
                Ok(_) => spec,
                Err(error) if error.kind() == ErrorKind::Conflict => find_spec(out, &request.name)?.ok_or(error)?,
                Err(error) => return Err(error),
            }
        }
    };
    if found.archive != head.archive {
        let message = format!("the compaction `{}` is one of another archive", request.name);
        return Err(Error::new(ErrorKind::Conflict, STEP, message).at(out.url()));
    }
    if let Err(difference) = compare(&Address::parse(&found.log)?, &Address::parse(archive.url())?) {
        let message = format!("the compaction `{}` is of a log in another place: {difference}", request.name);
        return Err(Error::new(ErrorKind::Conflict, STEP, message).at(out.url()));
    }
    if found.shards != request.shards {
        let message = format!("the compaction `{}` has {} shards, not {}", found.name, found.shards, request.shards);
        return Err(Error::new(ErrorKind::InvalidArgument, STEP, message).at(out.url()));
    }
    Ok(found)
}

/// The segments after the base snapshot that a restore would begin with, as far as they lie before the moment as a whole.
fn plan(archive: &Archive, head: &Head, request: &Request) -> Result<Spec> {
    let (timeline, end) = timeline_at(head, request.until)?;
    let floor = floor_of(head, timeline.id)?;
    let nothing = || {
        let message = "there is no whole segment to compact between the last base snapshot and that moment";
        Error::new(ErrorKind::NotFound, STEP, message).at(archive.url())
    };
    let last = tail::last_number(archive, timeline.id, floor)?;
    let last = last.map(|last| end.map_or(last, |end| last.min(end))).filter(|last| *last >= floor);
    let last =
        last_before(archive, timeline.id, floor, last.ok_or_else(nothing)?, request.until)?.ok_or_else(nothing)?;
    let (end_segment, end_sequence) = (last.header.start.number + 1, last.trailer.last_sequence);
    let live = head.migrations.merged()?;
    let bases = live.entries.values().filter_map(|entry| match &entry.body {
        Body::Snapshot(body) if body.timeline == timeline.id && body.sequence <= end_sequence => {
            Some(body.next_segment)
        }
        _ => None,
    });
    let first_segment = bases.filter(|first| *first < end_segment).max().unwrap_or(floor).max(floor);
    if first_segment >= end_segment {
        return Err(nothing());
    }
    Ok(Spec {
        format: COMPACTION_FORMAT,
        id: Uuid::new_v4(),
        name: request.name.clone(),
        archive: head.archive,
        log: archive.url().to_owned(),
        timeline: timeline.id,
        encoding: timeline.encoding.clone(),
        first_segment,
        end_segment,
        end_sequence,
        chain: last.trailer.chain,
        shards: request.shards,
    })
}

/// The timeline that the moment lies in, and its last segment if another one goes on from it.
fn timeline_at(head: &Head, until: Until) -> Result<(&Timeline, Option<u64>)> {
    let line = head.ancestry(head.current)?;
    let inside = |timeline: &Timeline| match until {
        Until::Latest => true,
        Until::Time(time) => timeline.parent.is_none_or(|parent| time >= parent.end.time),
        Until::Sequence { timeline: asked, .. } => timeline.id == asked,
    };
    let index = line.iter().position(|timeline| inside(timeline)).ok_or_else(|| {
        let message = "the moment is in no timeline that the current one goes on from";
        Error::new(ErrorKind::NotFound, STEP, message)
    })?;
    let end = index.checked_sub(1).and_then(|after| line[after].parent).map(|parent| parent.end.segment);
    Ok((line[index], end))
}

/// The last of these segments that ends at or before the moment.
fn last_before(archive: &Archive, timeline: Uuid, first: u64, last: u64, until: Until) -> Result<Option<Ends>> {
    let within = |ends: &Ends| match until {
        Until::Latest => true,
        Until::Time(time) => ends.trailer.last_time <= time,
        Until::Sequence { sequence, .. } => ends.trailer.last_sequence <= sequence,
    };
    let (mut low, mut high, mut found) = (first, last + 1, None);
    while low < high {
        // The last one is the most likely.
        let middle = if high == last + 1 && found.is_none() { last } else { low + (high - low) / 2 };
        let ends = tail::ends(archive, timeline, middle)?;
        if within(&ends) { (low, found) = (middle + 1, Some(ends)) } else { high = middle }
    }
    Ok(found)
}

struct Work<'a> {
    archive: &'a Archive,
    /// Where it is made.
    out: &'a Archive,
    vfs: Arc<dyn Vfs>,
    pin: &'a Pin,
    spec: &'a Spec,
    request: &'a Request,
    settings: SstOptions,
}

impl Work<'_> {
    /// Without what is known of the shard only when it has ended.
    fn report(&self, state: State) -> Report {
        let (spec, segments) = (self.spec, self.spec.segments(self.request.shard));
        Report {
            compaction: spec.id,
            name: spec.name.clone(),
            archive: self.archive.url().to_owned(),
            at: self.out.url().to_owned(),
            timeline: spec.timeline,
            first_segment: spec.first_segment,
            end_segment: spec.end_segment,
            shard: self.request.shard,
            shards: spec.shards,
            shard_first_segment: segments.start,
            shard_end_segment: segments.end,
            was_done: false,
            taken_over: 0,
            failure: None,
            parts: 0,
            entries: 0,
            bytes: 0,
            state,
            compaction_failure: None,
        }
    }

    /// The result of the shard, whether it was there, and how many segments were taken over from an earlier attempt.
    fn shard(&self) -> Result<(ShardResult, bool, u64)> {
        let shard = self.request.shard;
        if let Some((_, found)) = self.result(shard)? {
            progress::remove(self.out, self.spec, shard);
            return Ok((found, true, 0));
        }
        let work = Shard {
            archive: self.archive,
            out: self.out,
            vfs: &*self.vfs,
            pin: self.pin,
            spec: self.spec,
            shard,
            scratch: &self.request.scratch,
            part_bytes: self.request.part_bytes,
            stretch_segments: self.request.stretch_segments,
            options: &self.settings,
        };
        let mut storing = Storing::new(&work)?;
        let taken_over = storing.noted_segments();
        let outcome = self.read(&mut storing)?;
        let (result, was_done) = self.put_result(outcome)?;
        // Whatever it is, it is for ever.
        match &result.outcome {
            Outcome::Ok(run) => storing.throw_away(run),
            Outcome::Failed { .. } => storing.throw_away(&Reached::nothing(self.spec, shard).run),
        }
        progress::remove(self.out, self.spec, shard);
        trap!(self.vfs, CompactNotesRemoved);
        Ok((result, was_done, taken_over))
    }

    fn read(&self, storing: &mut Storing<'_>) -> Result<Outcome> {
        let mut read = storing.read();
        if let Err(Stop::Log(error)) = read {
            // What the store gave is not what it has, maybe; a second look decides, since it is for ever.
            tracing::warn!(%error, "a shard of a compaction is read again");
            storing.back();
            read = storing.read();
        }
        match read {
            Ok(()) => Ok(Outcome::Ok(storing.run().clone())),
            Err(Stop::Log(error)) => {
                storing.back();
                self.require_for_ever(&error)?;
                Ok(Outcome::Failed { kind: error.kind().name().into(), message: error.to_string() })
            }
            Err(Stop::Attempt(error)) => Err(error),
        }
    }

    /// The result that stands then, and whether somebody else has made it.
    fn put_result(&self, outcome: Outcome) -> Result<(ShardResult, bool)> {
        let (compaction, shard) = (self.spec.id, self.request.shard);
        let result = ShardResult { format: COMPACTION_FORMAT, compaction, shard, outcome };
        let name = names::compaction_result(&self.spec.name, shard)?;
        let (bytes, _) = to_bytes(&name, &result, RESULT_BYTES_MAX)?;
        trap!(self.vfs, CompactResultBefore);
        self.pin.confirm()?;
        match self.out.put_create(&name, bytes) {
            Ok(_) => {
                trap!(self.vfs, CompactResultAfter);
                Ok((result, false))
            }
            // Somebody else was at the same shard, and was faster.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let (_, found) = self.result(shard)?.ok_or(error)?;
                Ok((found, true))
            }
            Err(error) => Err(error),
        }
    }

    /// A segment that is not there may come yet, where objects are copied from another place; one that was truncated never.
    fn require_for_ever(&self, error: &Error) -> Result<()> {
        let truncated = floor_of(&load(self.archive)?.head, self.spec.timeline)? > self.spec.first_segment;
        if error.kind() != ErrorKind::NotFound || truncated {
            return Ok(());
        }
        let message = format!("a segment of the log is not there; repeat once it is ({error})");
        Err(Error::new(ErrorKind::NotFound, STEP, message).at(self.archive.url()))
    }

    fn result(&self, shard: u32) -> Result<Option<(ObjectReference, ShardResult)>> {
        let name = names::compaction_result(&self.spec.name, shard)?;
        let found: Option<(ObjectReference, ShardResult)> = find(self.out, &name, RESULT_BYTES_MAX)?;
        if let Some((_, found)) = &found {
            found.require(self.spec, shard).map_err(|error| error.at(self.out.place(&name)))?;
        }
        Ok(found)
    }

    /// Ends the compaction if all shards have ended.
    fn end(&self) -> Result<(State, Option<String>)> {
        let mut results = Vec::new();
        for shard in 1..=self.spec.shards {
            self.pin.check()?;
            let Some(found) = self.result(shard)? else {
                // It is told that the shard is done: what it has stored must stand.
                self.pin.confirm()?;
                return Ok((State::Running, None));
            };
            results.push(found);
        }
        let end = End::of(self.spec, &results)?;
        let name = names::compaction_end(&self.spec.name)?;
        let (bytes, reference) = to_bytes(&name, &end, END_BYTES_MAX)?;
        // Whoever makes it makes the same: results are never replaced.
        self.out.put_create(&name, bytes)?;
        trap!(self.vfs, CompactEnded);
        if end.failure.is_some() {
            return Ok((State::Failed, end.failure));
        }
        if self.out.url() != self.archive.url() {
            let outdated = floor_of(&load(self.archive)?.head, self.spec.timeline)? > self.spec.first_segment;
            return Ok((if outdated { State::Outdated } else { State::Complete }, None));
        }
        let (key, body) = (Key::Compaction(self.spec.id), Body::Compaction(self.spec.body(reference)));
        let mut known = false;
        commit(self.archive, |head| {
            self.pin.confirm()?;
            let mut head = head.clone();
            let live = head.migrations.merged()?;
            known = live.entries.contains_key(&key);
            // What was truncated takes its compactions along; none may come back, or come too late.
            if !known && floor_of(&head, self.spec.timeline)? <= self.spec.first_segment {
                head.migrations.append([(key, body.clone())])?;
                known = true;
            }
            Ok(head)
        })?;
        trap!(self.vfs, CompactCommitted);
        Ok((if known { State::Complete } else { State::Outdated }, None))
    }
}
