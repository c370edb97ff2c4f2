//! A database, its archive, and what the archive says was written, decoded from all of its segments.

use crate::common::{Content, options, scratch};
use morphkv::encoding::{EncodingId, Hierarchical, KeyEncoding, Natural};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::commit::load;
use morphkv::log_backup::fault_store::FaultStore;
use morphkv::log_backup::group::GroupReference;
use morphkv::log_backup::head::{Head, Timeline};
use morphkv::log_backup::migration::{Body, SnapshotBody};
use morphkv::log_backup::segment::{Frame, Payload, SegmentStart};
use morphkv::log_backup::segment_reader::SegmentReader;
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::log_backup::snapshot_transfer::{download, read_manifest};
use morphkv::log_backup::tail;
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::testing::batch_decoder::{Batch, DEFAULT_FAMILY, Operation};
use morphkv::testing::{Database, Family, RealVfs, Settings};
use morphkv::{Engine, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Small segments, so that a few writes make several; no waiting.
pub fn ship_options() -> ShipOptions {
    ShipOptions { segment_bytes: 2 << 10, head_after: Duration::ZERO, ..ShipOptions::default() }
}

pub fn archive_options() -> ArchiveOptions {
    ArchiveOptions { attempts: 2, backoff: Duration::ZERO, create_directory: true, ..ArchiveOptions::default() }
}

pub struct Bench {
    pub directory: tempfile::TempDir,
    pub store: FaultStore,
    pub archive: Archive,
}

impl Bench {
    pub fn in_memory() -> Self {
        let store = FaultStore::in_memory();
        let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "", archive_options()).unwrap();
        Bench { directory: scratch(), store, archive }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("db")
    }

    pub fn open(&self) -> Engine {
        Engine::open(self.path(), options()).unwrap()
    }

    pub fn shipper(&self, engine: &Engine) -> Shipper {
        Shipper::new(engine.clone(), self.archive.clone(), ship_options())
    }
}

pub fn file_archive(directory: &Path) -> Archive {
    Archive::open(&format!("file://{}", directory.join("archive").display()), archive_options()).unwrap()
}

pub fn creating() -> Options {
    options().create_if_missing(true)
}

pub fn head(archive: &Archive) -> Head {
    load(archive).unwrap().head
}

pub fn bases(archive: &Archive, timeline: Uuid) -> Vec<SnapshotBody> {
    let live = head(archive).migrations.merged().unwrap();
    let bodies = live.entries.values().filter_map(|entry| match &entry.body {
        Body::Snapshot(body) if body.timeline == timeline => Some(body.clone()),
        _ => None,
    });
    let mut bodies: Vec<_> = bodies.collect();
    bodies.sort_by_key(|body| body.sequence);
    bodies
}

/// The frames of a timeline, each segment checked against the one before it, and the successor if it has ended.
pub fn frames(archive: &Archive, timeline: Uuid) -> (Vec<Frame>, Option<Uuid>) {
    let (mut frames, mut next, mut successor) = (Vec::new(), None::<SegmentStart>, None);
    let Some(last) = tail::last_number(archive, timeline, 0).unwrap() else { return (frames, None) };
    for number in 0..=last {
        assert_eq!(successor, None, "a segment after the end of its timeline");
        let bytes = tail::whole(archive, timeline, number).unwrap();
        let mut segment = SegmentReader::new(&bytes).unwrap();
        let start = segment.header().start.clone();
        if let Some(next) = next {
            assert_eq!(start, next, "segment {number} does not follow");
        }
        for frame in segment.by_ref() {
            frames.push(frame.unwrap());
        }
        next = Some(segment.trailer().next(segment.header()));
        successor = segment.trailer().successor;
    }
    (frames, successor)
}

/// What a frame does to content, in encoded keys.
pub fn apply(archive: &Archive, content: &mut Content, frame: &Frame) {
    match &frame.payload {
        Payload::Group(group) => content.extend(loaded(archive, group)),
        Payload::Batch(batch) => {
            for operation in Batch::new(batch).unwrap().operations().map(Result::unwrap) {
                match operation {
                    Operation::Put { family: DEFAULT_FAMILY, key, value } => {
                        content.insert(key.to_vec(), value.to_vec());
                    }
                    Operation::Delete { family: DEFAULT_FAMILY, key } => drop(content.remove(key)),
                    Operation::DeleteRange { family: DEFAULT_FAMILY, from, to } => {
                        content.retain(|key, _| key.as_slice() < from || key.as_slice() >= to);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The entries of a group's files: RocksDB itself reads them.
fn loaded(archive: &Archive, group: &GroupReference) -> Content {
    let directory = scratch();
    let database = Database::create(directory.path(), &Settings::default()).unwrap();
    let mut files = Vec::new();
    for (number, file) in group.files.iter().enumerate() {
        let path = directory.path().join(format!("group-{number}.sst"));
        std::fs::write(&path, archive.get_verified(&file.object, 1 << 30).unwrap()).unwrap();
        files.push(path);
    }
    database.ingest(&files).unwrap();
    let content = raw(&database);
    let entries: u64 = group.files.iter().map(|file| file.entries).sum();
    assert_eq!(entries, content.len() as u64);
    assert_eq!(group.files.first().map(|file| &file.smallest), content.keys().next());
    assert_eq!(group.files.last().map(|file| &file.largest), content.keys().last());
    content
}

/// The data of a database in encoded keys.
pub fn raw(database: &Database) -> Content {
    let mut cursor = database.cursor(Family::Data, false).unwrap();
    let mut content = Content::new();
    cursor.seek_first().unwrap();
    while let Some((key, value)) = cursor.entry() {
        content.insert(key.to_vec(), value.to_vec());
        cursor.next().unwrap();
    }
    content
}

/// What a base snapshot holds, in encoded keys.
pub fn base_content(archive: &Archive, base: &SnapshotBody) -> Content {
    let directory = scratch();
    let manifest = read_manifest(archive, &base.manifest).unwrap();
    assert_eq!(manifest.place.sequence, base.sequence);
    let path = directory.path().join("base");
    download(archive, &manifest, &RealVfs::default(), &path, &|| Ok(())).unwrap();
    let database = Database::open_read_only(&RealVfs::default(), &path, &Settings::default()).unwrap();
    assert_eq!(database.last_sequence(), base.sequence);
    raw(&database)
}

/// What the archive says of a timeline's end, from each of its base snapshots: they all must agree.
pub fn shipped(archive: &Archive, timeline: &Timeline) -> Content {
    let (frames, _) = frames(archive, timeline.id);
    let bases = bases(archive, timeline.id);
    assert!(!bases.is_empty(), "the timeline has no base snapshot");
    let from = |base: &SnapshotBody| {
        let mut content = base_content(archive, base);
        let later = frames.iter().filter(|frame| frame.first_sequence > base.sequence);
        later.for_each(|frame| apply(archive, &mut content, frame));
        content
    };
    let contents: Vec<_> = bases.iter().map(from).collect();
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]), "base snapshots disagree");
    contents[0].clone()
}

/// The content of a timeline at `end`, in its encoding, as a restore finds it: from its latest base snapshot, or from where
/// its parent ends.
pub fn restored(archive: &Archive, id: Uuid, end: u64) -> Content {
    let head = head(archive);
    let timeline = head.timeline(id).unwrap();
    let (frames, _) = frames(archive, id);
    let base = bases(archive, id).into_iter().rfind(|base| base.sequence <= end);
    let (mut content, from) = match base {
        Some(base) => (base_content(archive, &base), base.sequence),
        None => {
            assert!(timeline.is_derivable(), "{timeline:?} has no base snapshot");
            let parent = timeline.parent.unwrap();
            let before = restored(archive, parent.timeline, parent.end.sequence);
            let encoding = head.timeline(parent.timeline).unwrap().encoding.clone();
            (reencoded(before, &*named(&encoding), &*named(&timeline.encoding)), 0)
        }
    };
    let later = frames.iter().filter(|frame| frame.first_sequence > from && frame.first_sequence <= end);
    later.for_each(|frame| apply(archive, &mut content, frame));
    content
}

fn named(id: &EncodingId) -> Arc<dyn KeyEncoding> {
    if id.name == "natural" { Arc::new(Natural) } else { Arc::new(Hierarchical) }
}

fn reencoded(content: Content, from: &dyn KeyEncoding, to: &dyn KeyEncoding) -> Content {
    let recode = |(encoded, value): (Vec<u8>, Vec<u8>)| {
        let (mut key, mut out) = (Vec::new(), Vec::new());
        from.decode(&encoded, &mut key).unwrap();
        to.encode(&key, &mut out).unwrap();
        (out, value)
    };
    content.into_iter().map(recode).collect()
}

/// The engine's content in the encoding that it has.
pub fn encoded(engine: &Engine) -> Content {
    reencoded(crate::common::content(engine), &Natural, &*named(&engine.encoding()))
}

/// The current timeline, decoded to its end, is what the engine has, and a restore brings it back.
pub fn assert_restorable(archive: &Archive, engine: &Engine) {
    assert_replayed(archive, engine);
    assert_comes_back(archive, engine);
}

/// The current timeline, decoded to its end, is what the engine has.
pub fn assert_replayed(archive: &Archive, engine: &Engine) {
    assert_eq!(restored(archive, current(archive).id, u64::MAX), encoded(engine));
}

/// A restore to the latest moment has what the engine has.
fn assert_comes_back(archive: &Archive, engine: &Engine) {
    let directory = scratch();
    let target = directory.path().join("restored");
    let request = Request {
        moment: Moment::Latest,
        timeline: None,
        replace: false,
        no_pin: false,
        replica: false,
        compaction: None,
    };
    restore::run(&target, archive, &request, &options()).unwrap();
    let copy = Engine::open(&target, options()).unwrap();
    assert_eq!(copy.encoding(), engine.encoding());
    assert_eq!(crate::common::content(&copy), crate::common::content(engine));
}

/// The current timeline.
pub fn current(archive: &Archive) -> Timeline {
    let head = head(archive);
    head.timeline(head.current).unwrap().clone()
}

/// The archive has all that the engine has, which is in natural encoding, and a restore brings it back.
pub fn assert_shipped(archive: &Archive, engine: &Engine) {
    assert_decoded(archive, engine);
    assert_comes_back(archive, engine);
}

/// The segments, decoded, have all that the engine has, which is in natural encoding.
pub fn assert_decoded(archive: &Archive, engine: &Engine) {
    assert_eq!(shipped(archive, &current(archive)), crate::common::content(engine));
}
