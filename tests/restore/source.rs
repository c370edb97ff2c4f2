//! A database with a log backup, the archive that it is shipped to, and a model of every state that it was in.

use crate::common::{Content, options, scratch};
use morphkv::encoding::{EncodingId, KeyEncoding, Natural};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::commit;
use morphkv::log_backup::group::{GroupFile, GroupReference};
use morphkv::log_backup::head::{Cause, LogPosition, Parent, Timeline};
use morphkv::log_backup::names::{self, ContentHash, ObjectReference};
use morphkv::log_backup::pin::{Pin, PinRequest, TTL};
use morphkv::log_backup::segment::{Payload, SegmentStart, SegmentWriter, Trailer};
use morphkv::log_backup::segment_reader::SegmentReader;
use morphkv::log_backup::snapshot_format::{Manifest, SnapshotPlace};
use morphkv::log_backup::snapshot_transfer::store_snapshot;
use morphkv::log_backup::transfer::{hash_file, put_file};
use morphkv::restore::folder::Found;
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::testing::RealVfs;
use morphkv::testing::attachment::{self, Attachment, Load, LoadState};
use morphkv::testing::frames::{Entry, LogReader};
use morphkv::testing::wal::Position;
use morphkv::{Engine, Hooks, Options};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// The time that the first write has.
pub const BEGIN: u64 = 1_700_000_000_000_000;

#[derive(Debug)]
pub struct Clock(AtomicU64);

impl Clock {
    pub fn begin() -> Arc<Clock> {
        Arc::new(Clock(AtomicU64::new(BEGIN)))
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn advance(&self, microseconds: u64) {
        self.0.fetch_add(microseconds, Ordering::Relaxed);
    }
}

impl Hooks for Clock {
    fn stamp(&self) -> Option<u64> {
        Some(self.now())
    }
}

/// The content after a write.
#[derive(Debug, Clone)]
pub struct State {
    pub timeline: Uuid,
    pub sequence: u64,
    pub time: u64,
    pub content: Content,
    pub internal: Content,
}

pub struct Source {
    pub directory: tempfile::TempDir,
    pub path: PathBuf,
    pub archive: Archive,
    pub clock: Arc<Clock>,
    pub encoding: Arc<dyn KeyEncoding>,
    pub timeline: Uuid,
    pub states: Vec<State>,
    pub content: Content,
    pub internal: Content,
    engine: Option<Engine>,
    position: Option<Position>,
    next: SegmentStart,
    last: Option<Trailer>,
    last_number: u64,
    last_time: u64,
    loads: VecDeque<(u64, Vec<u8>, Vec<u8>)>,
    previous: Option<Manifest>,
    /// So many frames fit into a segment.
    pub frames: u32,
}

pub fn open_archive(directory: &Path) -> Archive {
    let options = ArchiveOptions {
        create_directory: true,
        backoff: std::time::Duration::from_millis(1),
        attempts: 2,
        ..ArchiveOptions::default()
    };
    Archive::open(&format!("file://{}", directory.display()), options).unwrap()
}

fn engine_options(clock: &Arc<Clock>) -> Options {
    options().hooks(clock.clone()).durability(morphkv::Durability::Buffered)
}

impl Source {
    /// An attached database that is empty, and its base snapshot.
    pub fn new(encoding: Arc<dyn KeyEncoding>) -> Source {
        let directory = scratch();
        let path = directory.path().join("db");
        let archive = open_archive(&directory.path().join("archive"));
        let clock = Clock::begin();
        let created = engine_options(&clock).create_if_missing(true).encoding(encoding.clone());
        Engine::open(&path, created).unwrap().close().unwrap();
        let timeline = Uuid::new_v4();
        let attached = Attachment {
            format: attachment::ATTACHMENT_FORMAT,
            archive: archive.url().to_owned(),
            timeline,
            start_sequence: 0,
            parent: None,
            cause: Cause::Init,
            restored: None,
        };
        attachment::write(&RealVfs::default(), &path, &attached).unwrap();
        let engine = Engine::open(&path, engine_options(&clock)).unwrap();
        let id = EncodingId::of(&*encoding);
        let first = Timeline { id: timeline, parent: None, encoding: id.clone(), cause: Cause::Init };
        commit::create(&archive, first, Uuid::new_v4()).unwrap();
        let next = SegmentStart {
            timeline,
            number: 0,
            encoding: id,
            first_sequence: engine.last_sequence() + 1,
            floor: BEGIN,
            chain: ContentHash(0),
        };
        let mut source = Source {
            directory,
            path,
            archive,
            clock,
            encoding,
            timeline,
            states: Vec::new(),
            content: Content::new(),
            internal: Content::new(),
            engine: Some(engine),
            position: None,
            next,
            last: None,
            last_number: 0,
            last_time: BEGIN,
            loads: VecDeque::new(),
            previous: None,
            frames: 4,
        };
        source.note();
        source.snapshot();
        source
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub fn encoded(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.encoding.encode(key, &mut out).unwrap();
        out
    }

    /// Notes the state after a write, and lets some time pass.
    pub fn note(&mut self) {
        let sequence = self.engine().last_sequence();
        let (content, internal) = (self.content.clone(), self.internal.clone());
        let time = self.clock.now();
        self.states.push(State { timeline: self.timeline, sequence, time, content, internal });
    }

    pub fn put(&mut self, key: &str, value: &str) {
        self.engine().put(key, value).unwrap();
        self.content.insert(key.into(), value.into());
        self.note();
        self.clock.advance(10);
    }

    pub fn remove_range(&mut self, from: &[u8], to: &[u8]) {
        let (from, to) = (self.encoded(from), self.encoded(to));
        let keys: Vec<Vec<u8>> = self.content.keys().cloned().collect();
        for key in keys {
            let encoded = self.encoded(&key);
            if encoded >= from && encoded < to {
                self.content.remove(&key);
            }
        }
    }

    /// Loads entries past the log.
    pub fn ingest(&mut self, entries: Content) {
        let mut sorted: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> =
            entries.into_iter().map(|(key, value)| (self.encoded(&key), key, value)).collect();
        sorted.sort();
        let (first, last) = (sorted[0].0.clone(), sorted[sorted.len() - 1].0.clone());
        self.loads.push_back((sorted.len() as u64, first, last));
        self.engine().ingest(sorted.iter().map(|(_, key, value)| Ok((key, value)))).unwrap();
        self.content.extend(sorted.into_iter().map(|(_, key, value)| (key, value)));
        self.note();
    }

    /// Closes the database, for good.
    pub fn close(&mut self) {
        self.engine.take().unwrap().close().unwrap();
    }

    pub fn reopen(&mut self) {
        self.close();
        self.engine = Some(Engine::open(&self.path, engine_options(&self.clock)).unwrap());
    }

    fn group(&mut self, load: &Load) -> GroupReference {
        let mut files = Vec::new();
        if matches!(load.state, LoadState::Done { .. }) {
            assert_eq!(load.files, 1);
            let path = self.engine().loaded_files(load.group).join("000000.sst");
            let (size, hash) = hash_file(&RealVfs::default(), &path).unwrap();
            let object = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
            put_file(&self.archive, &object, &RealVfs::default(), &path).unwrap();
            let (entries, smallest, largest) = self.loads.pop_front().unwrap();
            files.push(GroupFile { object, entries, smallest, largest });
        }
        GroupReference { group: load.group, files }
    }

    fn store(&mut self, writer: SegmentWriter, resolved: u64, successor: Option<Uuid>) {
        if writer.frames() > 0 {
            self.last_time = writer.time();
        }
        let segment = writer.finish(resolved, successor).unwrap();
        let name = names::segment(self.next.timeline, self.next.number).unwrap();
        self.last_number = self.next.number;
        self.last = Some(segment.trailer);
        self.next = segment.next();
        self.archive.put_create(&name, segment.bytes).unwrap();
    }

    /// Ships all that was written; `successor` ends the timeline.
    pub fn ship(&mut self, successor: Option<Uuid>) {
        let t0 = self.engine().log_time().unwrap();
        let limit = self.engine().last_sequence();
        self.engine().flush_wal().unwrap();
        let internal = self.engine().internal_family_id().unwrap();
        let (vfs, floor) = (RealVfs::default(), self.next.floor);
        let expected = self.next.first_sequence;
        let mut reader = match self.position {
            Some(at) => LogReader::new(&self.path, at, expected, floor, internal),
            None => LogReader::from_sequence(&vfs, &self.path, expected, floor, internal).unwrap(),
        };
        let mut writer = SegmentWriter::new(self.next.clone()).unwrap();
        loop {
            match reader.next(&vfs, limit).unwrap() {
                Entry::Done => break,
                Entry::Record { batch, frames, load, .. } => {
                    let batch = batch.to_vec();
                    if let Some(load) = load.filter(|load| load.state != LoadState::Begun) {
                        let group = self.group(&load);
                        let taken = frames[0].sequence - writer.next_sequence();
                        let at = writer.next_sequence();
                        writer.push_group(at, frames[0].time, taken as u32, &group).unwrap();
                    }
                    for frame in frames {
                        let mut bytes = frame.sequence.to_le_bytes().to_vec();
                        bytes.extend_from_slice(&frame.operations.to_le_bytes());
                        bytes.extend_from_slice(&batch[frame.bytes.clone()]);
                        writer.push_batch(frame.sequence, frame.time, frame.operations, &bytes).unwrap();
                    }
                }
                other => panic!("{other:?}"),
            }
            if writer.frames() >= self.frames {
                let time = writer.time() - 1;
                self.store(writer, time, None);
                writer = SegmentWriter::new(self.next.clone()).unwrap();
            }
        }
        self.position = Some(reader.position());
        self.store(writer, t0 - 1, successor);
    }

    /// A base snapshot of this moment.
    pub fn snapshot(&mut self) {
        self.clock.advance(1);
        self.ship(None);
        let copy = self.directory.path().join("copy");
        self.engine().copy_for_base_snapshot(&copy).unwrap();
        std::fs::copy(self.path.join("KEY_ENCODING"), copy.join("KEY_ENCODING")).unwrap();
        std::fs::copy(self.path.join("LOG_BACKUP"), copy.join("LOG_BACKUP")).unwrap();
        let request = PinRequest { owner: "test".into(), purpose: "snapshot".into(), ttl: TTL };
        let (pin, _) = Pin::take_and_load(&self.archive, &request).unwrap();
        let last = self.last.unwrap();
        let place = SnapshotPlace {
            id: Uuid::new_v4(),
            timeline: self.timeline,
            sequence: last.last_sequence,
            time: self.last_time,
            next_segment: self.next.number,
            encoding: EncodingId::of(&*self.encoding),
        };
        let stored = store_snapshot(&self.archive, &pin, &RealVfs::default(), &copy, &place, self.previous.as_ref());
        self.previous = Some(stored.unwrap().0);
        std::fs::remove_dir_all(copy).unwrap();
    }

    /// Converts the database, and goes on with a new timeline.
    pub fn convert(&mut self, to: Arc<dyn KeyEncoding>) {
        self.clock.advance(1);
        let parent = self.timeline;
        self.ship(None);
        self.engine.take().unwrap().close().unwrap();
        let engine = Engine::open(&self.path, engine_options(&self.clock).encoding(to.clone())).unwrap();
        let successor = attachment::read(&RealVfs::default(), &self.path).unwrap().unwrap().timeline;
        let writer = SegmentWriter::new(self.next.clone()).unwrap();
        self.store(writer, self.clock.now() - 1, Some(successor));
        let end = self.last.unwrap();
        let end = LogPosition { segment: self.last_number, sequence: end.last_sequence, time: self.last_time };
        self.begin(
            &engine,
            to,
            Timeline {
                id: successor,
                parent: Some(Parent { timeline: parent, end }),
                encoding: EncodingId::of(&*engine_encoding(&engine)),
                cause: Cause::Conversion,
            },
        );
        std::fs::remove_dir_all(self.path.join("unshipped")).unwrap();
        self.engine = Some(engine);
    }

    fn begin(&mut self, engine: &Engine, encoding: Arc<dyn KeyEncoding>, timeline: Timeline) {
        self.next = SegmentStart {
            timeline: timeline.id,
            number: 0,
            encoding: timeline.encoding.clone(),
            first_sequence: engine.last_sequence() + 1,
            floor: self.next.floor,
            chain: ContentHash(0),
        };
        (self.timeline, self.encoding, self.position) = (timeline.id, encoding, None);
        commit::commit(&self.archive, |head| {
            let mut head = head.clone();
            head.begin_timeline(timeline.clone())?;
            Ok(head)
        })
        .unwrap();
    }

    /// The state at a time: the last in the order of the log that is not after it.
    pub fn at(&self, time: u64) -> &State {
        self.states.iter().rev().find(|state| state.time <= time).unwrap()
    }
}

fn engine_encoding(engine: &Engine) -> Arc<dyn KeyEncoding> {
    match engine.encoding().name.as_str() {
        "natural" => Arc::new(Natural),
        _ => Arc::new(morphkv::encoding::Hierarchical),
    }
}

pub fn request(moment: Moment) -> Request {
    Request { moment, timeline: None, replace: false, no_pin: false, replica: false, compaction: None }
}

/// The content and the caller's internal records of a database.
pub fn all_of(path: &Path) -> (Content, Content) {
    let engine = Engine::open(path, options()).unwrap();
    let content = engine.range(..).unwrap().map(|entry| entry.unwrap()).collect();
    let internal = engine.internal().scan(..).unwrap().map(|entry| entry.unwrap()).collect();
    engine.close().unwrap();
    (content, internal)
}

/// Restores to a moment, and compares with the model.
pub fn check(source: &Source, moment: Moment, options: Options, expected: &State, what: &str) -> Found {
    let target = source.directory.path().join("target");
    let found = restore::run(&target, &source.archive, &request(moment), &options)
        .unwrap_or_else(|error| panic!("{what}: {moment}: {error:?}"));
    assert_eq!(found.plan.reached.time, expected.time, "{what}: {moment}");
    let (content, internal) = all_of(&target);
    assert!(content == expected.content, "{what}: {moment}: {} of {}", content.len(), expected.content.len());
    assert_eq!(internal, expected.internal, "{what}: {moment}");
    Engine::destroy(&target, Options::new()).unwrap();
    assert!(restore::abort(&target, &Options::new()).unwrap());
    found
}

/// A segment as another history would have it at that name: all its checksums fit, and where its first write differs the
/// chain of hashes goes another way. `None`: it has no write.
pub fn forged(segment: &[u8]) -> Option<Vec<u8>> {
    let mut reader = SegmentReader::new(segment).unwrap();
    let (start, trailer) = (reader.header().start.clone(), *reader.trailer());
    let (mut writer, mut differs) = (SegmentWriter::new(start).unwrap(), false);
    for frame in reader.by_ref().map(Result::unwrap) {
        match frame.payload {
            Payload::Batch(mut batch) => {
                if !std::mem::replace(&mut differs, true) {
                    *batch.last_mut().unwrap() ^= 1;
                }
                writer.push_batch(frame.first_sequence, frame.time, frame.operations, &batch).unwrap();
            }
            Payload::Group(group) => {
                writer.push_group(frame.first_sequence, frame.time, frame.operations, &group).unwrap();
            }
        }
    }
    let made = writer.finish(trailer.resolved, trailer.successor).unwrap();
    assert_eq!(differs, made.trailer.chain != trailer.chain);
    differs.then_some(made.bytes.to_vec())
}
