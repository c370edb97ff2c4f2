//! An archive of years: how long planning, merging, truncating and checking take, how much memory, how many requests.
//! `make bench-archive` runs the large size; `docs/archive-scale.md` has its figures.

use crate::common::figures::{Figures, scale};
use crate::common::options;
use crate::world::archive_options;
use morphkv::encoding::{EncodingId, Natural};
use morphkv::log_backup::archive::Archive;
use morphkv::log_backup::commit::{self, commit};
use morphkv::log_backup::fault_store::FaultStore;
use morphkv::log_backup::fsck::fsck;
use morphkv::log_backup::head::{Cause, Timeline};
use morphkv::log_backup::migration::{Base, Body, IngestedBody, Key, Layer, Migrations, SnapshotBody};
use morphkv::log_backup::names::{self, ContentHash, ObjectReference};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::segment::{SegmentStart, SegmentWriter};
use morphkv::log_backup::snapshot_format::{MANIFEST_FORMAT, Manifest, SnapshotFile, SnapshotPlace};
use morphkv::log_backup::truncate::{TruncateOptions, truncate};
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const BEGIN: u64 = 1_700_000_000_000_000;
/// A segment is closed after so many microseconds.
const EACH: u64 = 10_000_000;

/// An archive whose log has so many segments, with a base snapshot at its beginning and one after nine tenths of it.
struct Large {
    store: Arc<object_store::memory::InMemory>,
    timeline: Uuid,
    segments: u64,
}

impl Large {
    fn new(segments: u64) -> Large {
        let store = Arc::new(object_store::memory::InMemory::new());
        let large = Large { store, timeline: Uuid::from_u128(1), segments };
        let (archive, _) = large.open();
        let encoding = EncodingId::of(&Natural);
        let first = Timeline { id: large.timeline, parent: None, encoding: encoding.clone(), cause: Cause::Init };
        commit::create(&archive, first, Uuid::new_v4()).unwrap();
        let mut start = SegmentStart {
            timeline: large.timeline,
            number: 0,
            encoding,
            first_sequence: 1,
            floor: BEGIN,
            chain: ContentHash(0),
        };
        for number in 0..segments {
            let mut writer = SegmentWriter::new(start.clone()).unwrap();
            let batch: Vec<u8> = [(number + 1).to_le_bytes().as_slice(), &[1, 0, 0, 0, 0, 1, b'k']].concat();
            writer.push_batch(number + 1, BEGIN + number * EACH, 1, &batch).unwrap();
            let segment = writer.finish(BEGIN + (number + 1) * EACH - 1, None).unwrap();
            start = segment.next();
            archive.put(&names::segment(large.timeline, number).unwrap(), segment.bytes).unwrap();
        }
        for next_segment in [0, segments * 9 / 10] {
            large.snapshot(&archive, next_segment);
        }
        large
    }

    fn snapshot(&self, archive: &Archive, next_segment: u64) {
        let (id, time) = (Uuid::new_v4(), BEGIN + next_segment.saturating_sub(1) * EACH);
        let file = |file: &str| {
            let bytes = file.as_bytes().to_vec();
            let (size, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
            let object = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
            archive.put(&object.name, bytes).unwrap();
            SnapshotFile { file: file.into(), object }
        };
        let (timeline, sequence, encoding) = (self.timeline, next_segment, EncodingId::of(&Natural));
        let place = SnapshotPlace { id, timeline, sequence, time, next_segment, encoding };
        let files = ["CURRENT", "KEY_ENCODING"].map(file).to_vec();
        let bytes = Manifest { format: MANIFEST_FORMAT, place, files }.to_bytes().unwrap();
        let (size, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
        let manifest = ObjectReference { name: names::snapshot(id, Uuid::new_v4()), size, hash };
        archive.put(&manifest.name, bytes).unwrap();
        let body = SnapshotBody { manifest, timeline, sequence, time, next_segment };
        commit(archive, |head| {
            let mut head = head.clone();
            head.migrations.append([(Key::Snapshot(id), Body::Snapshot(body.clone()))])?;
            Ok(head)
        })
        .unwrap();
    }

    /// The archive, and what counts its requests from now on.
    fn open(&self) -> (Archive, FaultStore) {
        let store = FaultStore::new(self.store.clone());
        let archive = Archive::with_store(Arc::new(store.clone()), "memory://large", "", archive_options()).unwrap();
        (archive, store)
    }
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What something took: milliseconds, and KiB of memory at the most beyond what was in use.
fn measured<T>(work: impl FnOnce() -> T) -> (T, f64, u64) {
    // The kernel counts the peak from here on.
    let resets = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let (before, began) = (status("VmRSS"), Instant::now());
    let done = work();
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    let peak = if resets { status("VmHWM").saturating_sub(before) } else { 0 };
    (done, (milliseconds * 10.0).round() / 10.0, peak)
}

struct Took {
    plan_requests: u64,
    milliseconds: f64,
}

/// Everything once, on an archive of that many segments.
fn everything(segments: u64, figures: Figures) -> (Took, Figures) {
    let large = Large::new(segments);
    let (archive, store) = large.open();
    let mut plan_requests = 0;
    let (mut plan_ms, mut plan_kib, mut all) = (0f64, 0, 0f64);
    let times = [1, 3, 5, 7, 9].map(|tenth| Moment::Time(BEGIN + large.segments * tenth / 10 * EACH + EACH / 2));
    for moment in times.into_iter().chain([Moment::Latest]) {
        store.plan(&[]);
        let request =
            Request { moment, timeline: None, replace: false, no_pin: true, replica: false, compaction: None };
        let (plan, milliseconds, kib) = measured(|| restore::preview(&archive, &request, &options()).unwrap());
        assert!(plan.segments() > 0);
        (plan_ms, plan_kib) = (plan_ms.max(milliseconds), plan_kib.max(kib));
        plan_requests = plan_requests.max(store.counted());
    }
    all += plan_ms;
    store.plan(&[]);
    let keep = TruncateOptions { grace: Duration::from_secs(3600), dry_run: false };
    let (done, truncate_ms, truncate_kib) = measured(|| truncate(&archive, Until::Latest, keep).unwrap());
    assert!(done.doomed_objects > segments * 8 / 10 && done.deleted_objects == 0, "{done:?}");
    let truncate_requests = store.counted();
    store.plan(&[]);
    let (checked, fsck_ms, fsck_kib) = measured(|| fsck(&archive, false).unwrap());
    assert!(checked.is_sound(), "{:?}", checked.faults);
    all += truncate_ms + fsck_ms;
    let figures = figures
        .with("segments", segments)
        .with("requests of a plan", plan_requests)
        .with("plan ms", plan_ms)
        .with("plan KiB", plan_kib)
        .with("truncate ms", truncate_ms)
        .with("truncate KiB", truncate_kib)
        .with("truncate requests", truncate_requests)
        .with("fsck ms", fsck_ms)
        .with("fsck KiB", fsck_kib)
        .with("fsck requests", store.counted());
    (Took { plan_requests, milliseconds: all }, figures)
}

/// Layers that add one entry each, over a base of as many.
fn layers(count: u64) -> Migrations {
    let entry = |number: u64| {
        let id = Uuid::from_u128(u128::from(number));
        let list = ObjectReference { name: names::gc(id), size: 1, hash: ContentHash(number.into()) };
        (Key::Ingested(id), Body::Ingested(IngestedBody { list, timeline: Uuid::nil(), sequence: number }))
    };
    let base = Base::of(&Layer { id: 1, entries: (0..count).map(entry).collect() });
    let layers = (0..count).map(|n| Layer { id: n + 2, entries: [entry(count + n)].into_iter().collect() }).collect();
    Migrations { base, layers, next_layer: count + 2 }
}

fn merge_milliseconds(count: u64) -> (f64, u64) {
    let migrations = layers(count);
    let (merged, milliseconds, kib) = measured(|| migrations.merged().unwrap());
    assert_eq!(merged.entries.len() as u64, 2 * count);
    (milliseconds, kib)
}

#[test]
fn an_archive_of_years() {
    let segments = scale(4_000, 1_000_000);
    let (small, _) = everything(segments / 8, Figures::new("archive-scale-eighth"));
    let (large, figures) = everything(segments, Figures::new("archive-scale"));
    let layer_count = scale(2_000, 10_000);
    let (eighth_ms, _) = merge_milliseconds(layer_count / 8);
    let (merge_ms, merge_kib) = merge_milliseconds(layer_count);
    let figures = figures.with("layers", layer_count).with("merge ms", merge_ms).with("merge KiB", merge_kib);
    figures.print();
    // Doubling steps there, halving back, and what a plan reads in any case; each look at a segment is two requests.
    let bound = 2 * (2 * segments.ilog2() as u64 + 8) + 2 * 36;
    assert!(large.plan_requests <= bound, "{} requests, and {bound} are enough", large.plan_requests);
    assert!(large.plan_requests < small.plan_requests + 24, "{} {}", large.plan_requests, small.plan_requests);
    // Eight times as much takes eight times as long; what is quadratic takes 64 times. The machine may be busy.
    let grows = |small: f64, large: f64, what: &str| {
        assert!(large < 32.0 * small.max(5.0), "{what}: {small} ms for an eighth, {large} ms for all");
    };
    grows(small.milliseconds, large.milliseconds, "plan, truncate and fsck");
    grows(eighth_ms, merge_ms, "merge");
}
