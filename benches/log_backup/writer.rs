//! A writer that is offered 20 MB/s, without a log backup and with one, in turns.
//!
//! The load is open: each batch has its time, and its latency counts from then, so a batch that waits behind a slow one
//! counts as slow too.

use crate::common::{fill, median, root};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::background::{LogBackup, LogBackupOptions};
use morphkv::{Durability, Engine, Options};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BYTES_A_SECOND: u64 = 20_000_000;
const BATCH_ENTRIES: u64 = 16;
const KEY_BYTES: usize = 24;
const VALUE_BYTES: usize = 1000;
const BATCH_BYTES: u64 = BATCH_ENTRIES * (KEY_BYTES + VALUE_BYTES) as u64;
/// What stands in the database before: more than is logged in a run, so that no base snapshot falls into one of them alone.
const BEFORE: u64 = 500_000;

/// One run.
struct Run {
    bytes_a_second: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    /// Of the whole process, in seconds.
    processor: f64,
    bytes: u64,
    lag_max: f64,
    segments: u64,
    base_snapshots: u64,
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    let text = format!("/writer/{number:016x}");
    text.into_bytes().try_into().expect("a key of that length")
}

fn options() -> Options {
    Options::new().create_if_missing(true).durability(Durability::Buffered)
}

fn work() -> PathBuf {
    root().join("log-backup-work")
}

/// A copy of a database that has something in it already.
fn database() -> PathBuf {
    let (path, source) = (work().join("db"), root().join("log-backup-before"));
    let done = source.with_extension("complete");
    if !done.exists() {
        let _ = std::fs::remove_dir_all(&source);
        let engine = Engine::open(&source, options()).expect("create");
        let mut value = vec![0; VALUE_BYTES];
        let entries = (0..BEFORE).map(|number| {
            fill(&mut value, number);
            Ok((key(number), value.clone()))
        });
        engine.ingest(entries).expect("load");
        engine.close().expect("close");
        std::fs::write(done, "").expect("note that it is whole");
    }
    let _ = std::fs::remove_dir_all(work());
    std::fs::create_dir(work()).expect("make a directory");
    let engine = Engine::open(&source, Options::new()).expect("open");
    engine.checkpoint(&path).expect("checkpoint");
    engine.close().expect("close");
    path
}

pub fn archive(directory: &Path) -> Archive {
    let options = ArchiveOptions { create_directory: true, ..ArchiveOptions::default() };
    let directory = std::fs::canonicalize(directory).expect("an absolute path");
    Archive::open(&format!("file://{}/archive", directory.display()), options).expect("open the archive")
}

/// Seconds of processor time of this process so far.
pub fn processor() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn run(with_backup: bool, seconds: u64) -> Run {
    let path = database();
    let engine = match with_backup {
        true => attach(&path, options(), &archive(&work()), TakeOver::No).expect("attach"),
        false => Engine::open(&path, options()).expect("open"),
    };
    let backup = with_backup.then(|| {
        let backup = LogBackup::start(&engine, &archive(&work()), LogBackupOptions::default()).expect("start");
        while backup.status().base_snapshots == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        backup
    });
    rustix::fs::sync();
    let (end, lag_max) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = (processor(), backup.as_ref().map(LogBackup::status));
    let (latencies, took) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(backup) = backup.as_ref().filter(|_| !end.load(Ordering::Relaxed)) {
                let (status, now) = (backup.status(), engine.log_time().expect("attached"));
                if status.shipped_sequence < engine.last_sequence() {
                    lag_max.fetch_max(now.saturating_sub(status.resolved), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let written = write(&engine, seconds);
        end.store(true, Ordering::Relaxed);
        written
    });
    let processor = processor() - before.0;
    let status = backup.as_ref().map(LogBackup::status).unwrap_or_default();
    let earlier = before.1.unwrap_or_default();
    let bytes = latencies.len() as u64 * BATCH_BYTES;
    if let Some(backup) = backup {
        backup.stop().expect("ship the rest");
    }
    engine.close().expect("close");
    std::fs::remove_dir_all(work()).expect("remove the work");
    let mut sorted = latencies;
    sorted.sort_by(f64::total_cmp);
    let of = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    let (p50, p99, p999) = (of(0.5), of(0.99), of(0.999));
    Run {
        bytes_a_second: bytes as f64 / took,
        p50,
        p99,
        p999,
        processor,
        bytes,
        lag_max: lag_max.into_inner() as f64 / 1e6,
        segments: status.segments - earlier.segments,
        base_snapshots: status.base_snapshots - earlier.base_snapshots,
    }
}

/// Latencies in microseconds, and how long it all took, in seconds.
fn write(engine: &Engine, seconds: u64) -> (Vec<f64>, f64) {
    let batches = BYTES_A_SECOND * seconds / BATCH_BYTES;
    let pause = Duration::from_nanos(1_000_000_000 * BATCH_BYTES / BYTES_A_SECOND);
    let mut latencies = Vec::with_capacity(batches as usize);
    let mut value = vec![0; VALUE_BYTES];
    let began = Instant::now();
    for number in 0..batches {
        let due = began + pause * number as u32;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let mut batch = engine.batch();
        for entry in 0..BATCH_ENTRIES {
            let written = number * BATCH_ENTRIES + entry;
            fill(&mut value, !written);
            batch.put(key(BEFORE / 2 + written), &value).expect("put");
        }
        batch.commit().expect("commit");
        latencies.push(due.elapsed().as_secs_f64() * 1e6);
    }
    (latencies, began.elapsed().as_secs_f64())
}

pub fn measure(rounds: usize, seconds: u64) -> Value {
    let (mut plain, mut backed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (with, runs) in [(false, &mut plain), (true, &mut backed)] {
            let run = run(with, seconds);
            println!(
                "log backup {with:5}: {:.2} MB/s, p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, {:.2} s of processor time, lag {:.2} s, {} segments, {} base snapshots",
                run.bytes_a_second / 1e6,
                run.p50,
                run.p99,
                run.p999,
                run.processor,
                run.lag_max,
                run.segments,
                run.base_snapshots
            );
            runs.push(run);
        }
    }
    let of = |runs: &[Run], what: fn(&Run) -> f64| median(runs.iter().map(what).collect());
    let ratio = |what: fn(&Run) -> f64| of(&backed, what) / of(&plain, what);
    let more = of(&backed, |run| run.processor) - of(&plain, |run| run.processor);
    json!({
        "offered_bytes_a_second": BYTES_A_SECOND, "seconds": seconds, "rounds": rounds,
        "store": "a directory on the same disk, each object synced", "durability": "buffered",
        "throughput_ratio": ratio(|run| run.bytes_a_second), "throughput_ratio_target": 0.95,
        "p50_ratio": ratio(|run| run.p50),
        "p99_ratio": ratio(|run| run.p99), "p99_ratio_target": 1.05,
        "p999_ratio": ratio(|run| run.p999),
        "p99_microseconds": [of(&plain, |run| run.p99), of(&backed, |run| run.p99)],
        "processor_seconds_a_shipped_gigabyte": more / (of(&backed, |run| run.bytes as f64) / 1e9),
        "lag_seconds_max": backed.iter().map(|run| run.lag_max).fold(0.0, f64::max),
        "lag_seconds_target": LogBackupOptions::default().interval.as_secs_f64() + 2.0,
    })
}
