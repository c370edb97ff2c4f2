//! The shard of a compaction that is being worked: its segments are read, and their net effect is stored part by part. How far
//! it has come is noted (`progress.rs`).

use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::log_backup::archive::Archive;
use crate::log_backup::compaction::{Between, File, Part, Run, Spec};
use crate::log_backup::group::GroupReference;
use crate::log_backup::names::{self, ContentHash, ObjectReference};
use crate::log_backup::net_effect::{FamilyEffect, NetEffect, operations_to_bytes};
use crate::log_backup::pin::Pin;
use crate::log_backup::progress::{self, Reached, STRETCHES};
use crate::log_backup::segment::Payload;
use crate::log_backup::segment_reader::SegmentReader;
use crate::log_backup::stretch::Stretch;
use crate::log_backup::tail;
use crate::log_backup::transfer::{hash_file, put_file};
use crate::rocks::batch_decoder::{Batch, DEFAULT_FAMILY};
use crate::rocks::{SstOptions, SstWriter};
use crate::trap::trap;
use std::collections::BTreeSet;
use std::path::Path;
use uuid::Uuid;

const STEP: &str = "compact the log";

/// Why a shard stops.
pub(super) enum Stop {
    /// Its segments are not what they should be: so for ever.
    Log(Error),
    /// This attempt cannot go on.
    Attempt(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Attempt(error)
    }
}

/// An error of reading the log is one for ever if the segment is not what it should be.
fn of_log(error: Error) -> Stop {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Unsupported => Stop::Log(error),
        _ => Stop::Attempt(error),
    }
}

/// What working a shard needs.
pub(super) struct Shard<'a> {
    pub archive: &'a Archive,
    /// Where its parts go.
    pub out: &'a Archive,
    pub vfs: &'a dyn Vfs,
    pub pin: &'a Pin,
    pub spec: &'a Spec,
    /// The shard, from 1 on.
    pub shard: u32,
    /// For files on their way.
    pub scratch: &'a Path,
    /// The memory that the net effect of a part may take.
    pub part_bytes: usize,
    /// How many segments a stretch has at least.
    pub stretch_segments: u64,
    /// How files are written.
    pub options: &'a SstOptions,
}

/// A shard that is being read and stored.
pub(super) struct Storing<'a> {
    work: &'a Shard<'a>,
    /// What is stored so far.
    reached: Reached,
    /// What is noted of that.
    noted: Reached,
    /// What this attempt has stored.
    own: Vec<ObjectReference>,
    files: u64,
}

impl<'a> Storing<'a> {
    /// Goes on where an earlier attempt had come to.
    pub(super) fn new(work: &'a Shard<'a>) -> Result<Self> {
        let reached = progress::find_reached(work.archive, work.out, work.spec, work.shard)?;
        Ok(Storing { work, noted: reached.clone(), reached, own: Vec::new(), files: 0 })
    }

    /// How many segments are stored and noted.
    pub(super) fn noted_segments(&self) -> u64 {
        self.noted.next - self.work.spec.segments(self.work.shard).start
    }

    /// What is stored so far.
    pub(super) fn run(&self) -> &Run {
        &self.reached.run
    }

    /// Reads the segments that are left, and stores what they come to.
    pub(super) fn read(&mut self) -> Result<(), Stop> {
        let segments = self.work.spec.segments(self.work.shard);
        let len = (segments.end - segments.start).div_ceil(STRETCHES).max(self.work.stretch_segments).max(1);
        let mut stretch = Stretch::default();
        while self.reached.next < segments.end {
            self.work.pin.check()?;
            self.segment(self.reached.next, &mut stretch)?;
            self.reached.next += 1;
            // At the same segments in every attempt.
            let next = self.reached.next;
            if next < segments.end && (next - segments.start).is_multiple_of(len) {
                self.store(&stretch.take())?;
                self.note()?;
            }
        }
        self.store(&stretch.take())?;
        Ok(())
    }

    fn note(&mut self) -> Result<()> {
        trap!(self.work.vfs, CompactNoteBefore);
        progress::note(self.work.out, self.work.spec, self.work.shard, &self.reached)?;
        self.noted = self.reached.clone();
        trap!(self.work.vfs, CompactNoteAfter);
        Ok(())
    }

    /// Back to what is noted, which may be referred to by others; what was stored since goes.
    pub(super) fn back(&mut self) {
        self.reached = self.noted.clone();
        self.throw_away(&self.noted.run);
    }

    fn segment(&mut self, number: u64, stretch: &mut Stretch) -> Result<(), Stop> {
        let (archive, spec) = (self.work.archive, self.work.spec);
        let name = names::segment(spec.timeline, number)?;
        let place = |error: Error| if error.path().is_some() { error } else { error.at(archive.place(&name)) };
        let broken = |error: Error| of_log(place(error));
        let corrupt = |message: &str| broken(Error::new(ErrorKind::Corrupt, STEP, message));
        let bytes = tail::whole(archive, spec.timeline, number).map_err(broken)?;
        let mut reader = SegmentReader::new(&bytes).map_err(broken)?;
        let start = &reader.header().start;
        if start.encoding != spec.encoding || self.reached.expected.as_ref().is_some_and(|expected| expected != start) {
            return Err(corrupt("it does not follow the segment before it"));
        }
        let begin = self.reached.run.bounds.map_or_else(|| Between::before(start), |(begin, _)| begin);
        for frame in reader.by_ref() {
            let frame = frame.map_err(broken)?;
            match &frame.payload {
                Payload::Batch(bytes) => {
                    let batch = Batch::new(bytes).map_err(broken)?;
                    if (batch.sequence, batch.count) != (frame.first_sequence, frame.operations) {
                        return Err(corrupt("a batch is not the one that its frame speaks of"));
                    }
                    for operation in batch.operations() {
                        stretch.add(operation.map_err(broken)?);
                    }
                    if let Some(effect) = stretch.overflow(self.work.part_bytes) {
                        self.store(&effect)?;
                    }
                }
                Payload::Group(group) => {
                    self.store(&stretch.take())?;
                    self.load(group);
                }
            }
            let next = frame.first_sequence + u64::from(frame.operations);
            self.reached.run.last = Some((next.saturating_sub(1), frame.time));
        }
        self.reached.run.bounds = Some((begin, Between::after(reader.trailer())));
        self.reached.expected = Some(reader.trailer().next(reader.header()));
        Ok(())
    }

    /// The files of a bulk load stand in the archive already.
    fn load(&mut self, group: &GroupReference) {
        let file =
            |file: &crate::log_backup::group::GroupFile| File { object: file.object.clone(), entries: file.entries };
        let files: Vec<_> = group.files.iter().map(file).collect();
        if !files.is_empty() {
            self.reached.run.parts.push(Part { operations: None, files, load: Some(group.group) });
        }
    }

    /// Stores the net effect so far as a part.
    fn store(&mut self, effect: &NetEffect) -> Result<()> {
        if effect.is_empty() {
            return Ok(());
        }
        let work = self.work;
        let mut part = Part::default();
        if effect.operations(DEFAULT_FAMILY).next().is_some() {
            let bytes = operations_to_bytes(effect.operations(DEFAULT_FAMILY))?;
            let (size, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
            let name = names::compaction_data(&work.spec.name, hash, Uuid::new_v4())?;
            work.out.put_create(&name, bytes)?;
            let operations = ObjectReference { name, size, hash };
            self.own.push(operations.clone());
            part.operations = Some(operations);
        }
        self.reached.run.parts.push(part);
        if let Some(family) = effect.family(DEFAULT_FAMILY).filter(|family| !family.is_empty()) {
            let path = work.scratch.join(format!("{:06}.sst", self.files));
            self.files += 1;
            let entries = write_points(work.options, family, &path)?;
            trap!(work.vfs, CompactPartWritten);
            let (size, hash) = hash_file(work.vfs, &path)?;
            let object =
                ObjectReference { name: names::compaction_data(&work.spec.name, hash, Uuid::new_v4())?, size, hash };
            put_file(work.out, &object, work.vfs, &path)?;
            work.vfs.remove_file(&path)?;
            self.own.push(object.clone());
            if let Some(part) = self.reached.run.parts.last_mut() {
                part.files.push(File { object, entries });
            }
        }
        trap!(work.vfs, CompactPartStored);
        work.pin.check()
    }

    /// Removes what this attempt has stored, but what is referred to: nothing refers to it, and nothing ever will.
    pub(super) fn throw_away(&self, referred: &Run) {
        let referred: BTreeSet<&ObjectReference> = referred.own_objects().collect();
        for object in self.own.iter().filter(|object| !referred.contains(object)) {
            if let Err(error) = self.work.out.delete(&object.name) {
                tracing::warn!(%error, object = %object.name, "a file of a shard that is of no use stays in the archive");
            }
        }
    }
}

fn write_points(options: &SstOptions, family: &FamilyEffect, path: &Path) -> Result<u64> {
    let mut writer = SstWriter::create(options, path)?;
    for (key, value) in family.points() {
        match value {
            Some(value) => writer.put(key, value)?,
            None => writer.delete(key)?,
        }
    }
    let entries = writer.entries();
    writer.finish()?;
    Ok(entries)
}
