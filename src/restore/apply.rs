//! The log, applied to the database that is being made: segment after segment, timeline after timeline.
//!
//! How far it has come stands in that database itself, written in one batch with the end of each segment; nothing is
//! written to a WAL, since RocksDB flushes both families as one, so that a crash takes back both. What is applied twice
//! after it does no harm: every operation sets what it touches, and what follows is applied again too.
//!
//! Invariants: a segment is the one that was planned (timeline, number, encoding, its place in the chain of hashes), and
//! no frame is left out or cut; what is the engine's own in the log is not restored, what is the caller's is.

use crate::control;
use crate::encoding::{EncodingId, KeyEncoding};
use crate::engine::{Options, manage};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, remove_tree};
use crate::layout::{INTERNAL_RESTORE, INTERNAL_USER, Layout};
use crate::log_backup::archive::Archive;
use crate::log_backup::group::GroupReference;
use crate::log_backup::names::{ContentHash, ObjectReference};
use crate::log_backup::segment::{Frame, Header, Payload, SEGMENT_BYTES_MAX};
use crate::log_backup::segment_reader::SegmentReader;
use crate::log_backup::transfer::get_file;
use crate::marker;
use crate::place::journal::{self, JournalState};
use crate::restore::folder::{Folder, Found};
use crate::restore::plan::{FIRST_SEGMENT, Leg};
use crate::restore::runs::LeftOut;
use crate::rocks::batch_decoder::{Batch, DEFAULT_FAMILY, Operation};
use crate::rocks::{Database, Durability, Family, Settings, WriteBatch};
use crate::trap::trap;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

const STEP: &str = "apply the log";
const POSITION_FORMAT: u32 = 1;
/// Operations of several frames are written together, up to so many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// How far the log was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    format: u32,
    restore: Uuid,
    /// The leg of the plan; one behind the last once all are applied.
    leg: usize,
    /// The segment that comes next.
    pub(super) next_segment: u64,
    /// The chain before it, if a segment of this leg was applied.
    pub(super) chain: Option<ContentHash>,
    /// The last sequence number that is in, and its time.
    pub(super) sequence: u64,
    pub(super) time: u64,
    /// Compactions whose segments are applied instead, since something is wrong with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<LeftOut>,
}

/// What applying the log needs.
pub(super) struct Applier<'a> {
    pub vfs: &'a dyn Vfs,
    pub archive: &'a Archive,
    pub folder: &'a Folder,
    pub found: &'a Found,
    pub options: &'a Options,
    /// Asked now and then: the way to hear of a lost pin.
    pub go_on: &'a dyn Fn() -> Result<()>,
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, STEP, message)
}

impl Applier<'_> {
    /// Applies what is left of the plan, and brings the database into the encoding that was asked for. Says which planned
    /// compactions could not be used.
    ///
    /// # Errors
    /// Those of the archive and of the database; the next call goes on.
    pub fn apply(&self) -> Result<Vec<LeftOut>> {
        let (plan, spec) = (&self.found.plan, &self.found.spec);
        manage::recover(&self.folder.database, &self.own_options(), false)?;
        let begun = self.look()?;
        for (index, leg) in plan.legs.iter().enumerate().skip(begun.leg) {
            self.convert(&leg.encoding)?;
            self.leg(index, leg)?;
            trap!(self.vfs, RestoreLegApplied);
        }
        let end = self.look()?;
        // After a long idle time only a later time than that of the last frame is known to the plan.
        if end.sequence != plan.reached.sequence || end.time > plan.reached.time {
            let message = format!(
                "it ends at sequence number {} ({}), and was to end at {} ({})",
                end.sequence, end.time, plan.reached.sequence, plan.reached.time
            );
            return Err(corrupt(message).at(self.archive.url()));
        }
        if let Some(encoding) = &spec.encoding {
            self.convert(encoding)?;
        }
        Ok(end.left_out)
    }

    /// The options for the database that is being made, whatever the caller wants in the end.
    fn own_options(&self) -> Options {
        Options { encoding: None, ..self.options.clone() }
    }

    fn settings(&self) -> Settings {
        Settings { keep_wal: false, ..self.options.settings() }
    }

    /// Reads the position without writing: a conversion of it may be under way.
    fn look(&self) -> Result<Position> {
        let database = Database::open_read_only(self.vfs, &self.folder.database, &self.settings())?;
        self.position(&database)
    }

    fn position(&self, database: &Database) -> Result<Position> {
        let (plan, restore) = (&self.found.plan, self.found.spec.restore);
        let base = &plan.snapshot;
        let position: Position = match database.get(Family::Internal, INTERNAL_RESTORE)? {
            Some(bytes) => control::decode("read how far the log was applied", &bytes, POSITION_FORMAT)?,
            None => Position {
                format: POSITION_FORMAT,
                restore,
                leg: 0,
                next_segment: base.next_segment,
                chain: None,
                sequence: base.sequence,
                time: base.time,
                left_out: Vec::new(),
            },
        };
        if position.restore != restore || position.leg > plan.legs.len() {
            return Err(corrupt("it belongs to another restore").at(&self.folder.database));
        }
        Ok(position)
    }

    /// Brings the database into an encoding; an interrupted conversion is gone on with.
    fn convert(&self, to: &EncodingId) -> Result<()> {
        let layout = Layout::new(&self.folder.database)?;
        let marker = marker::read(self.vfs, &layout.live)?;
        let settled = journal::read(self.vfs, &layout)? == JournalState::None;
        if settled && marker.is_some_and(|marker| marker.encoding == *to) {
            return Ok(());
        }
        (self.go_on)()?;
        let encoding: Arc<dyn KeyEncoding> = self.options.encodings()?.get(to)?;
        manage::convert(&self.folder.database, &self.own_options().encoding(encoding))?;
        trap!(self.vfs, RestoreConverted);
        Ok(())
    }

    fn leg(&self, index: usize, leg: &Leg) -> Result<()> {
        let database = Database::open(self.vfs, &self.folder.database, &self.settings())?;
        let mut position = self.position(&database)?;
        let internal = database.family_id(Family::Internal)?;
        let mut writer = Writer { database: &database, internal, batch: WriteBatch::new(), bytes: 0 };
        while position.next_segment < leg.end_segment {
            (self.go_on)()?;
            if let Some(run) = self.run_at(leg, &position) {
                self.take_run(leg, index, run, &mut position, &mut writer)?;
                writer.write(&position)?;
                trap!(self.vfs, RestoreRunEnded);
                continue;
            }
            self.segment(leg, index, &mut position, &mut writer)?;
            writer.write(&position)?;
            trap!(self.vfs, RestoreSegmentApplied);
        }
        let plan = &self.found.plan;
        if let Some(next) = plan.legs.get(index + 1) {
            if position.sequence != leg.limit.sequence {
                let message =
                    format!("the timeline {} goes on from a place that its log does not reach", next.timeline);
                return Err(corrupt(message).at(self.archive.url()));
            }
            (position.next_segment, position.chain) = (next.first_segment, None);
        }
        position.leg = index + 1;
        writer.write(&position)?;
        drop(writer);
        database.flush()?;
        database.close()
    }

    fn segment(&self, leg: &Leg, index: usize, position: &mut Position, writer: &mut Writer<'_>) -> Result<()> {
        let number = position.next_segment;
        let name = crate::log_backup::names::segment(leg.timeline, number)?;
        let place = |error: Error| if error.path().is_some() { error } else { error.at(self.archive.place(&name)) };
        let bytes = self.archive.get(&name, SEGMENT_BYTES_MAX)?.bytes;
        let mut reader = SegmentReader::new(&bytes).map_err(place)?;
        self.check_start(leg, index, position, reader.header()).map_err(place)?;
        let last = number + 1 == leg.end_segment;
        if last && leg.chain != Some(reader.trailer().chain) {
            return Err(place(corrupt("it is not the segment that the restore was planned with")));
        }
        if index > 0 && position.chain.is_none() {
            // Sequence numbers begin anew with a timeline.
            position.sequence = reader.header().start.first_sequence - 1;
        }
        let skip = if index == 0 { self.found.plan.snapshot.sequence } else { 0 };
        for frame in reader.by_ref() {
            let frame = frame.map_err(place)?;
            let end = (frame.first_sequence + u64::from(frame.operations)).saturating_sub(1);
            if frame.first_sequence <= skip {
                if end > skip {
                    return Err(place(corrupt("the base snapshot ends within a batch")));
                }
                continue;
            }
            if !leg.limit.holds(frame.first_sequence, frame.operations, frame.time) {
                if !last {
                    return Err(place(corrupt("it goes beyond the moment, and later ones were planned")));
                }
                break;
            }
            self.frame(&frame, writer).map_err(place)?;
            (position.sequence, position.time) = (end, frame.time);
        }
        (position.next_segment, position.chain) = (number + 1, Some(reader.trailer().chain));
        Ok(())
    }

    /// A segment must be the one that comes next.
    fn check_start(&self, leg: &Leg, index: usize, position: &Position, header: &Header) -> Result<()> {
        let start = &header.start;
        if (start.timeline, start.number, &start.encoding) != (leg.timeline, position.next_segment, &leg.encoding) {
            return Err(corrupt("it is another segment than its name says, or in another encoding"));
        }
        let follows = match position.chain {
            Some(chain) => chain == start.chain,
            None if start.number == FIRST_SEGMENT => start.chain == ContentHash(0),
            None => true,
        };
        let reaches = index > 0 || start.first_sequence <= position.sequence.saturating_add(1);
        if follows && reaches { Ok(()) } else { Err(corrupt("it does not go on where the log before it ends")) }
    }

    fn frame(&self, frame: &Frame, writer: &mut Writer<'_>) -> Result<()> {
        match &frame.payload {
            Payload::Batch(bytes) => {
                let batch = Batch::new(bytes)?;
                if (batch.sequence, batch.count) != (frame.first_sequence, frame.operations) {
                    return Err(corrupt("a batch is not the one that its frame speaks of"));
                }
                batch.operations().try_for_each(|operation| writer.operation(operation?))
            }
            Payload::Group(group) => self.load(group, writer),
        }
    }

    /// Takes the files of a bulk load in.
    fn load(&self, group: &GroupReference, writer: &mut Writer<'_>) -> Result<()> {
        let files = self.fetch(self.archive, group.files.iter().map(|file| &file.object))?;
        trap!(self.vfs, RestoreLoadFetched);
        writer.ingest(&files)?;
        trap!(self.vfs, RestoreLoadTaken);
        Ok(())
    }

    /// Files to be taken in together.
    ///
    /// # Errors
    /// Those of the archive and of the disk: some of them may stand, and go when others are fetched.
    pub(super) fn fetch<'o>(
        &self,
        archive: &Archive,
        objects: impl Iterator<Item = &'o ObjectReference>,
    ) -> Result<Vec<PathBuf>> {
        remove_tree(self.vfs, &self.folder.loads)?;
        self.vfs.make_dir(&self.folder.loads)?;
        let mut files = Vec::new();
        for (number, object) in objects.enumerate() {
            (self.go_on)()?;
            let path = self.folder.loads.join(format!("{number:06}.sst"));
            get_file(archive, object, self.vfs, &path)?;
            files.push(path);
        }
        Ok(files)
    }
}

/// Gathers operations.
pub(super) struct Writer<'d> {
    database: &'d Database,
    /// The id of the internal family in the log.
    internal: u32,
    batch: WriteBatch,
    bytes: usize,
}

impl Writer<'_> {
    pub(super) fn operation(&mut self, operation: Operation<'_>) -> Result<()> {
        let database = self.database;
        let family = match operation {
            Operation::Put { family, .. }
            | Operation::Delete { family, .. }
            | Operation::DeleteRange { family, .. } => self.family(family)?,
            Operation::LogData(_) | Operation::Noop => return Ok(()),
        };
        let ours = |key: &[u8]| family == Family::Data || key.starts_with(INTERNAL_USER);
        match operation {
            Operation::Put { key, value, .. } if ours(key) => {
                self.bytes += key.len() + value.len();
                self.batch.put(database, family, key, value)?;
            }
            Operation::Delete { key, .. } if ours(key) => {
                self.bytes += key.len();
                self.batch.delete(database, family, key)?;
            }
            Operation::DeleteRange { from, to, .. } => {
                let (from, to) = if family == Family::Data { (from, to) } else { within_user_half(from, to) };
                self.bytes += from.len() + to.len();
                if from < to {
                    self.batch.delete_range(database, family, from, to)?;
                }
            }
            _ => {}
        }
        if self.bytes >= BATCH_BYTES { self.end_batch() } else { Ok(()) }
    }

    fn family(&self, id: u32) -> Result<Family> {
        match id {
            DEFAULT_FAMILY => Ok(Family::Data),
            id if id == self.internal => Ok(Family::Internal),
            id => Err(corrupt(format!("it writes to a column family {id} that the database does not have"))),
        }
    }

    fn end_batch(&mut self) -> Result<()> {
        self.bytes = 0;
        self.database.write(std::mem::take(&mut self.batch), Durability::NoWal)
    }

    /// Takes files in, after all operations so far.
    pub(super) fn ingest(&mut self, files: &[PathBuf]) -> Result<()> {
        self.end_batch()?;
        self.database.ingest(files)
    }

    fn write(&mut self, position: &Position) -> Result<()> {
        let bytes = control::encode("write how far the log was applied", position)?;
        self.batch.put(self.database, Family::Internal, INTERNAL_RESTORE, &bytes)?;
        self.end_batch()
    }
}

/// What of a range lies in the caller's half of the internal family.
fn within_user_half<'k>(from: &'k [u8], to: &'k [u8]) -> (&'k [u8], &'k [u8]) {
    /// The first key above that half.
    const USER_END: &[u8] = b"u0";
    (from.max(INTERNAL_USER), to.min(USER_END))
}
