//! The shipper: brings the log of an attached database to its archive, pass by pass.
//!
//! A pass: read where the log stands, make it durable up to there, store what is new of it in segments; nothing beyond that
//! ever leaves the machine. WAL files go when all that is in them is stored, and by the shipper alone. It writes nothing into
//! the database: where it stands is what the archive has.
//!
//! There is no lock and no lease. A segment has one name, and is created only where nothing stands, so of two databases that
//! write one timeline the second finds the first one's segment and stops.

use crate::attachment::{Attachment, Cause};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::PENDING_INGEST;
use crate::log_backup::archive::Archive;
use crate::log_backup::base_snapshot::{Copy, pending_loads};
use crate::log_backup::commit::load;
use crate::log_backup::continuity::{Continuity, LocalLog, resume};
use crate::log_backup::handover::Handover;
use crate::log_backup::head::Head;
use crate::log_backup::loads::Loads;
use crate::log_backup::migration::{Body, Key};
use crate::log_backup::names::ContentHash;
use crate::log_backup::retention;
use crate::log_backup::segment::SegmentStart;
use crate::log_backup::snapshot_format::SnapshotPlace;
use crate::log_backup::stream::{Cut, Published, Step, Stream};
use crate::log_backup::timelines::{
    attachment_of, ensure, first_time, floor_of, lacks_base, latest_base, may_follow, note_next, taken,
};
use crate::trap::trap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const STEP: &str = "ship the log";

/// How often in a row a pass may begin a new timeline before it gives up.
const TIMELINES_MAX: u32 = 3;

/// How the log is shipped.
#[derive(Debug, Clone)]
pub struct ShipOptions {
    /// A segment is ended when its frames have so many bytes. Default: 8 MiB.
    pub segment_bytes: u64,
    /// A pass without a write stores how far time has come if the last segment is older than this. Default: one minute.
    pub idle_after: Duration,
    /// HEAD is looked at again after this time. Default: one minute.
    pub head_after: Duration,
    /// A base snapshot is taken when the last one is older than this, and something was written since. Default: one day.
    pub base_after: Duration,
    /// A base snapshot is also taken when this share of the last one's bytes was shipped since, in percent. Default: 100.
    pub base_after_percent: u64,
    /// When WAL files that are not shipped take more bytes, the oldest go, and the log has a gap. `None`: 16 GiB, or a tenth
    /// of the file system if that is less.
    pub max_retained_wal: Option<u64>,
}

impl Default for ShipOptions {
    fn default() -> Self {
        ShipOptions {
            segment_bytes: 8 << 20,
            idle_after: Duration::from_secs(60),
            head_after: Duration::from_secs(60),
            base_after: Duration::from_secs(24 * 60 * 60),
            base_after_percent: 100,
            max_retained_wal: None,
        }
    }
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// The timeline that it ended in.
    pub timeline: Uuid,
    /// Segments stored.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The sequence numbers in them.
    pub sequences: u64,
    /// All up to this one is in the archive.
    pub shipped_sequence: u64,
    /// The time of that, in microseconds of the Unix epoch.
    pub shipped_time: u64,
    /// The log can be restored to every time up to this one.
    pub resolved: u64,
    /// The base snapshot that was taken.
    pub base_snapshot: Option<Uuid>,
    /// Timelines that were begun since the log did not go on, and why.
    pub begun: Vec<(Cause, String)>,
}

/// What a shipper knows while the log goes on.
#[derive(Debug)]
struct Running {
    own: Attachment,
    stream: Stream,
    lacks_base: bool,
    /// Of the last base snapshot, or of the beginning of the timeline: its sequence number, its time in the log, its bytes if it
    /// was taken by this process.
    base: Option<(u64, u64, Option<u64>)>,
    bytes_since_base: u64,
    looked_at_head: Instant,
    stored: Option<Instant>,
}

/// Ships the log of one database. Nothing is read or written before the first pass.
#[derive(Debug)]
pub struct Shipper {
    engine: Engine,
    archive: Archive,
    vfs: Arc<dyn Vfs>,
    options: ShipOptions,
    running: Option<Running>,
    /// Another database writes the archive: for this process, for good.
    fenced: Option<String>,
    snapshot_wanted: bool,
}

impl Shipper {
    /// A shipper of this database, which must be attached to this archive.
    pub fn new(engine: Engine, archive: Archive, options: ShipOptions) -> Self {
        let vfs = engine.file_operations();
        Shipper { engine, archive, vfs, options, running: None, fenced: None, snapshot_wanted: false }
    }

    /// Takes a base snapshot in the next pass, whatever the last one's age.
    pub fn want_snapshot(&mut self) {
        self.snapshot_wanted = true;
    }

    /// Bytes of all WAL files, and of what is not shipped of them.
    ///
    /// # Errors
    /// `Io`.
    pub fn wal_bytes(&self) -> Result<(u64, u64)> {
        let after = self.running.as_ref().map(|running| running.stream.position()).unwrap_or_default();
        retention::wal_bytes(&*self.vfs, &self.engine, after)
    }

    /// Ships all that is in the log now.
    ///
    /// # Errors
    /// `Refused`: the database is not attached; `Conflict`: another database writes the archive, and this one ships no more
    /// until it is opened again; `Io` and all else: repeat. Whatever the error, nothing that is not shipped was removed, but
    /// beyond [`ShipOptions::max_retained_wal`].
    pub fn ship_once(&mut self) -> Result<Pass> {
        if let Some(why) = &self.fenced {
            self.limit_wal();
            return Err(Error::new(ErrorKind::Conflict, STEP, why.clone()).at(self.archive.url()));
        }
        let mut pass = Pass::default();
        let done = self.pass(&mut pass);
        if let Err(error) = &done {
            if !self.running.as_ref().is_some_and(|running| running.stream.is_sound()) {
                self.running = None;
            }
            if error.kind() == ErrorKind::Conflict {
                self.fenced = Some(error.message().to_owned());
            }
            self.limit_wal();
        }
        done.map(|()| pass)
    }

    /// Keeps what is not shipped within its limit, also where nothing will be shipped any more.
    pub(super) fn limit_wal(&self) {
        if let Err(error) = retention::drop_oldest(&self.engine, &*self.vfs, self.options.max_retained_wal) {
            tracing::warn!(%error, "WAL files could not be kept within their limit");
        }
    }

    fn pass(&mut self, pass: &mut Pass) -> Result<()> {
        let mut begun = 0;
        loop {
            let gap = match self.start(pass)? {
                Some(broken) => Some(broken),
                None => self.ship(pass)?.map(|why| (Cause::Gap, why)),
            };
            let Some((cause, why)) = gap else { return Ok(()) };
            begun += 1;
            if begun > TIMELINES_MAX {
                let message =
                    format!("a new timeline was begun {begun} times, and the log still does not go on: {why}");
                return Err(Error::new(ErrorKind::Corrupt, STEP, message).at(self.engine.path()));
            }
            self.begin(cause, &why)?;
            pass.begun.push((cause, why));
        }
    }

    /// Finds where to go on, if that is not known. Says why it cannot go on in this timeline.
    fn start(&mut self, pass: &mut Pass) -> Result<Option<(Cause, String)>> {
        if self.running.is_some() {
            return self.look_at_head().map(|()| None);
        }
        let own = attachment_of(&*self.vfs, self.engine.path(), &self.archive)?;
        let handover = Handover {
            archive: &self.archive,
            engine: &self.engine,
            vfs: &*self.vfs,
            own: &own,
            segment_bytes: self.options.segment_bytes,
            published: &mut |published| pass.add(published),
        };
        handover.finish()?;
        let head = ensure(&self.archive, &*self.vfs, &own, &self.engine.encoding())?;
        if head.current != own.timeline {
            if may_follow(&self.archive, &head, own.timeline)? {
                return Ok(Some((Cause::Diverged, "its timeline has ended: the database was rolled back".into())));
            }
            return Err(taken(&self.archive, &head, own.timeline));
        }
        let log = self.durable()?;
        let first = self.first_segment(&own, &head)?;
        match resume(&self.archive, &*self.vfs, &log, first)? {
            Continuity::Goes(stream) => self.run(own, &head, *stream).map(|()| None),
            Continuity::Ended(_) => Ok(Some((Cause::Diverged, "its timeline has ended".into()))),
            Continuity::Diverged(why) => Ok(Some((Cause::Diverged, why))),
            Continuity::Gap(why) => Ok(Some((Cause::Gap, why))),
        }
    }

    fn run(&mut self, own: Attachment, head: &Head, stream: Stream) -> Result<()> {
        let lacks_base = lacks_base(head, own.timeline)?;
        let own_base = latest_base(head, own.timeline)?.map(|body| (body.sequence, body.time, None));
        // One that can be derived has its first when that is due, counted from where it begins.
        let begins = || head.timeline(own.timeline).ok().and_then(|timeline| timeline.parent);
        let base = own_base.or_else(|| begins().map(|parent| (0, parent.end.time, None)));
        self.engine.raise_log_time(stream.next().floor);
        for group in pending_loads(&*self.vfs, self.engine.path())? {
            let live = head.migrations.merged()?;
            let shipped = live.entries.get(&Key::Ingested(group)).is_some_and(|entry| match &entry.body {
                Body::Ingested(body) => body.timeline == own.timeline && body.sequence < stream.shipped(),
                _ => false,
            });
            if shipped {
                self.engine.remove_loaded_files(group)?;
            }
        }
        let looked_at_head = Instant::now();
        let running = Running { own, stream, lacks_base, base, bytes_since_base: 0, looked_at_head, stored: None };
        self.running = Some(running);
        Ok(())
    }

    /// The log up to what is durable now.
    fn durable(&self) -> Result<LocalLog> {
        let limit = self.engine.last_sequence();
        self.engine.flush_wal()?;
        let internal = self.engine.internal_family_id()?;
        Ok(LocalLog { directory: self.engine.path().to_owned(), limit, internal })
    }

    fn first_segment(&self, own: &Attachment, head: &Head) -> Result<SegmentStart> {
        let timeline = head.timeline(own.timeline)?;
        // A conversion's new database has nothing of its log before it was sealed.
        let sealed = if own.cause == Cause::Conversion { self.engine.marker().sealed_sequence } else { 0 };
        let earlier = first_time(&self.archive, timeline)?;
        let floor = if timeline.is_derivable() { earlier } else { earlier.max(self.now()) };
        Ok(SegmentStart {
            timeline: own.timeline,
            number: floor_of(head, own.timeline)?,
            encoding: timeline.encoding.clone(),
            first_sequence: own.start_sequence.max(sealed) + 1,
            floor,
            chain: ContentHash(0),
        })
    }

    fn now(&self) -> u64 {
        self.engine.log_time().unwrap_or(0)
    }

    /// Once in a while: whether the timeline is still the archive's current one.
    fn look_at_head(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if running.looked_at_head.elapsed() < self.options.head_after {
            return Ok(());
        }
        let head = load(&self.archive)?.head;
        if head.current != running.own.timeline {
            return Err(taken(&self.archive, &head, running.own.timeline));
        }
        // A copy that was put back must not fill numbers again that were deleted.
        if running.stream.next().number < floor_of(&head, running.own.timeline)? {
            let message = "segments of it were deleted that this database has not shipped yet: it is an old copy";
            return Err(Error::new(ErrorKind::Conflict, STEP, message).at(self.archive.url()));
        }
        running.looked_at_head = Instant::now();
        Ok(())
    }

    /// Ships what there is, and takes a base snapshot if it is time. Says why the log does not go on.
    fn ship(&mut self, pass: &mut Pass) -> Result<Option<String>> {
        let time = self.now();
        let limit = self.durable()?.limit;
        if let Some(why) = self.ship_to(limit, time, false, pass)? {
            return Ok(Some(why));
        }
        if self.wants_base() {
            return self.take_base(pass);
        }
        Ok(None)
    }

    fn ship_to(&mut self, limit: u64, time: u64, idle: bool, pass: &mut Pass) -> Result<Option<String>> {
        let before = pass.segments;
        loop {
            let Some(running) = &mut self.running else { return Ok(None) };
            let stale = running.stored.is_none_or(|stored| stored.elapsed() >= self.options.idle_after);
            // With a segment of this very call the time is told already.
            let idle = (stale || idle) && pass.segments == before;
            let cut = Cut { limit, time, bytes: self.options.segment_bytes, idle, successor: None };
            let loads = Loads {
                archive: &self.archive,
                vfs: &*self.vfs,
                folder: self.engine.path().join(PENDING_INGEST),
                live: self.engine.path(),
                timeline: running.own.timeline,
            };
            let step = running
                .stream
                .step(&*self.vfs, &self.archive, cut, &mut |load, sequence| loads.store(load, sequence))?;
            match step {
                Step::Published(published) => self.published(&published, pass)?,
                Step::Done | Step::Loading => {
                    pass.note(running);
                    return Ok(None);
                }
                Step::Gap(why) => return Ok(Some(why)),
                Step::Taken(error) => self.adopt(error)?,
            }
        }
    }

    /// A segment stands: what it holds is needed here no more.
    fn published(&mut self, published: &Published, pass: &mut Pass) -> Result<()> {
        pass.add(published);
        if let Some(running) = &mut self.running {
            running.bytes_since_base += published.bytes;
            running.stored = Some(Instant::now());
        }
        for group in &published.groups {
            trap!(self.vfs, ShipLoadRemoveBefore);
            self.engine.remove_loaded_files(*group)?;
        }
        trap!(self.vfs, ShipWalRemoveBefore);
        self.engine.remove_archived_wal_files(published.end.file)?;
        trap!(self.vfs, ShipWalRemoveAfter);
        Ok(())
    }

    /// Another segment stands where ours was to be. An earlier process of ours may have cut the same log differently: then
    /// it goes on from there.
    fn adopt(&mut self, error: Error) -> Result<()> {
        let Some(running) = self.running.take() else { return Err(error) };
        let log = self.durable()?;
        let head = load(&self.archive)?.head;
        let first = self.first_segment(&running.own, &head)?;
        let number = running.stream.next().number;
        match resume(&self.archive, &*self.vfs, &log, first)? {
            Continuity::Goes(stream) if stream.next().number > number => {
                // What stands there tells the time, too.
                let (stream, stored) = (*stream, Some(Instant::now()));
                self.running = Some(Running { stream, stored, ..running });
                Ok(())
            }
            _ => {
                let message = "another database, or another copy of this one, ships to the same timeline";
                Err(Error::new(ErrorKind::Conflict, STEP, message).at(self.archive.url()).because(error))
            }
        }
    }

    fn wants_base(&self) -> bool {
        let Some(running) = &self.running else { return false };
        if self.snapshot_wanted || running.lacks_base {
            return true;
        }
        let Some((sequence, time, bytes)) = running.base else { return false };
        let age = Duration::from_micros(self.now().saturating_sub(time));
        let grown = bytes.is_some_and(|bytes| {
            running.bytes_since_base > bytes.saturating_mul(self.options.base_after_percent) / 100
        });
        running.stream.shipped() > sequence && (grown || age > self.options.base_after)
    }

    fn take_base(&mut self, pass: &mut Pass) -> Result<Option<String>> {
        let copy = Copy::make(&self.engine)?;
        self.engine.flush_wal()?;
        let time = self.now();
        // A segment of its own: its end is the copy's place, and so is known also where nothing was written.
        let mut up_to = Pass::default();
        let gap = self.ship_to(copy.sequence, 0, true, &mut up_to)?;
        pass.add_all(&up_to);
        if let Some(why) = gap {
            return Ok(Some(why));
        }
        let Some(running) = &mut self.running else { return Ok(None) };
        if running.stream.shipped() != copy.sequence {
            let message = "the log is not shipped up to the copy yet; the next pass takes another one";
            return Err(Error::new(ErrorKind::Io, STEP, message).at(self.engine.path()));
        }
        let next = running.stream.next();
        let place = SnapshotPlace {
            id: Uuid::new_v4(),
            timeline: running.own.timeline,
            sequence: copy.sequence,
            time: up_to.shipped_time,
            next_segment: next.number,
            encoding: next.encoding.clone(),
        };
        let (manifest, _) = copy.store(&self.archive, &place, self.engine.path())?;
        running.base = Some((place.sequence, place.time, Some(manifest.bytes())));
        (running.lacks_base, running.bytes_since_base) = (false, 0);
        self.snapshot_wanted = false;
        for group in &copy.loads {
            self.engine.remove_loaded_files(*group)?;
        }
        pass.base_snapshot = Some(place.id);
        let mut after = Pass::default();
        let limit = self.durable()?.limit;
        let gap = self.ship_to(limit, time, true, &mut after)?;
        pass.add_all(&after);
        Ok(gap)
    }

    /// Goes on in a new timeline.
    fn begin(&mut self, cause: Cause, why: &str) -> Result<()> {
        let own = attachment_of(&*self.vfs, self.engine.path(), &self.archive)?;
        let head = load(&self.archive)?.head;
        if !may_follow(&self.archive, &head, own.timeline)? {
            return Err(taken(&self.archive, &head, own.timeline));
        }
        tracing::warn!(why, ?cause, "the log does not go on where the archive ends: a new timeline begins");
        self.running = None;
        let log = self.durable()?;
        note_next(&*self.vfs, self.engine.path(), &own, cause, log.limit)
    }
}

impl Pass {
    fn add(&mut self, published: &Published) {
        self.segments += 1;
        self.bytes += published.bytes;
        self.sequences += published.sequences;
    }

    fn add_all(&mut self, other: &Pass) {
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.sequences += other.sequences;
        self.shipped_sequence = other.shipped_sequence;
        (self.timeline, self.shipped_time, self.resolved) = (other.timeline, other.shipped_time, other.resolved);
    }

    fn note(&mut self, running: &Running) {
        self.timeline = running.own.timeline;
        self.shipped_sequence = running.stream.shipped();
        (self.shipped_time, self.resolved) = running.stream.times();
    }
}
