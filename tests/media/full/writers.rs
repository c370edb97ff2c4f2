//! Writers that run into the full disk: each of them gets an answer, and what was acknowledged is there, on the full disk
//! and afterwards.

use super::super::common::{self, Content, figures::scale, figures::torture, options};
use super::super::disks::Disk;
use super::super::power::random;
use super::super::scenario::database;
use super::{Tally, content, sizes};
use morphkv::encoding::Hierarchical;
use morphkv::{Durability, Engine, ErrorKind, Options, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const WRITERS: u64 = 2;
/// Keys of one batch.
const BATCH: u64 = 3;
/// After its first failure a writer tries so many times more.
const TRIES: u64 = 3;
/// A writer ends after so many writes, if the disk is large enough.
const WRITES_MAX: u64 = 2_000;
/// How long writers may take, and how long after there is room again they may still fail. RocksDB looks for room every
/// five seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Within so many flushes files must have piled up.
const FLUSHES_MAX: u64 = 60;

fn key(writer: u64, number: u64, part: u64) -> Vec<u8> {
    format!("/writer-{writer}/{number:06}/{part}").into_bytes()
}

/// Of many lengths, and incompressible: memtables fill and files are written all the time.
fn value(writer: u64, number: u64, part: u64) -> Vec<u8> {
    let seed = random(writer * BATCH + part, number);
    (0..1 + seed % 600).flat_map(|word| random(seed, word).to_le_bytes()).collect()
}

/// How the writers go about it, and what happens afterwards.
#[derive(Debug, Clone, Copy)]
struct Manner {
    durability: Durability,
    /// Memtables are tiny, and files many.
    many_files: bool,
    /// There is room again while the database is open, and writing goes on.
    stays_open: bool,
}

impl Manner {
    fn options(self) -> Options {
        options().write_buffer_bytes(if self.many_files { 64 << 10 } else { 256 << 10 }).durability(self.durability)
    }
}

/// How each write of a writer has ended, in order.
type Ends = Vec<Result<(), ErrorKind>>;

/// Runs writers into disks that are full sooner or later.
pub fn on(disk: &Disk) -> Tally {
    let mut tally = Tally::default();
    let prepared = common::scratch();
    let before = content();
    common::make(&database(prepared.path()), Arc::new(Hierarchical), before);
    let bytes = Engine::open(database(prepared.path()), options()).unwrap().disk_usage().unwrap();
    let sizes = sizes(bytes, disk.filler().block());
    let few = sizes.iter().enumerate().filter(|(nth, _)| nth.is_multiple_of(scale(5, 1)));
    for (nth, (_, size)) in few.enumerate() {
        let manner = Manner {
            durability: if nth % 4 < 2 { Durability::Sync } else { Durability::Buffered },
            many_files: nth % 3 == 0,
            stays_open: nth % scale(8, 2) == 1,
        };
        let what = format!("writers with {size} bytes, {manner:?}");
        disk.put_in_place(prepared.path());
        tally.run("write", *size);
        tally.judge(&what, |tally| run(disk, *size, manner, before, &what, tally));
    }
    for part in if torture() { 1..8 } else { 4..5 } {
        let size = bytes * part / 8;
        let what = format!("no room to compact with {size} bytes");
        disk.put_in_place(prepared.path());
        tally.run("write", size);
        tally.judge(&what, |tally| no_room_to_compact(disk, size, before, &what, tally));
    }
    tally
}

fn open(path: &Path, options: Options, what: &str) -> Engine {
    Engine::open(path, options).unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

fn run(disk: &Disk, size: u64, manner: Manner, before: &Content, what: &str, tally: &mut Tally) {
    let (filler, path) = (disk.filler(), database(&disk.place()));
    let engine = open(&path, manner.options(), what);
    filler.leave(size);
    let mut ends = write(&engine, what);
    let failed = ends.iter().flatten().any(std::result::Result::is_err);
    compare(&engine, before, &ends, what);
    if manner.stays_open {
        filler.give_back();
        go_on(&engine, &mut ends[0], what);
        engine.close().unwrap();
    } else {
        no_space(engine.close(), what);
        let engine = Engine::open_read_only(&path, options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        compare(&engine, before, &ends, what);
        tally.read_while_full += 1;
        drop(engine);
        if let Some(engine) = no_space(Engine::open(&path, manner.options()), what) {
            compare(&engine, before, &ends, what);
            no_space(engine.close(), what);
        }
        filler.give_back();
    }
    let engine = open(&path, options(), what);
    tally.acknowledged += compare(&engine, before, &ends, what);
    tally.opened += 1;
    if failed {
        tally.met += 1
    } else {
        tally.succeeded += 1
    }
    engine.put("/after/all", "1").unwrap();
    engine.close().unwrap();
}

/// There is room to write and to flush, and none to compact: files pile up until flushes and writes are stopped, which are
/// told so, and go on once there is room.
fn no_room_to_compact(disk: &Disk, size: u64, before: &Content, what: &str, tally: &mut Tally) {
    let (filler, path) = (disk.filler(), database(&disk.place()));
    let manner = Manner { durability: Durability::Sync, many_files: true, stays_open: true };
    let engine = open(&path, manner.options(), what);
    filler.leave(size);
    let mut ends = vec![Ends::new(), Ends::new()];
    let piled_up = (0..FLUSHES_MAX).any(|number| {
        ends[0].push(no_space(put(&engine, number), what).ok_or(ErrorKind::NoSpace));
        // Compaction has its turn.
        std::thread::sleep(Duration::from_millis(10));
        no_space(engine.flush(), what).is_none()
    });
    assert!(piled_up, "{what}: {FLUSHES_MAX} flushes, and compaction went on");
    let went_on = ends[0].len() as u64;
    let stopped = (went_on..WRITES_MAX).any(|number| {
        ends[0].push(no_space(put(&engine, number), what).ok_or(ErrorKind::NoSpace));
        ends[0].last().is_some_and(std::result::Result::is_err)
    });
    assert!(stopped, "{what}: {WRITES_MAX} writes, and none was stopped");
    compare(&engine, before, &ends, what);
    filler.give_back();
    go_on(&engine, &mut ends[0], what);
    tally.acknowledged += compare(&engine, before, &ends, what);
    tally.met += 1;
    tally.opened += 1;
    engine.close().unwrap();
}

/// There is room again: without the database being opened anew, writes succeed.
fn go_on(engine: &Engine, ends: &mut Ends, what: &str) {
    let began = Instant::now();
    loop {
        let done = no_space(put(engine, ends.len() as u64), what);
        ends.push(done.ok_or(ErrorKind::NoSpace));
        if done.is_some() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: there is room again, and writes still fail");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Nothing but a lack of room is an answer.
fn no_space<T>(result: Result<T>, what: &str) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error:?}");
            None
        }
    }
}

/// Each writer writes until it fails, and then some times more.
///
/// # Panics
/// If a writer gets no answer: RocksDB itself can let it wait for ever.
fn write(engine: &Engine, what: &str) -> Vec<Ends> {
    let (send, receive) = mpsc::channel();
    for writer in 0..WRITERS {
        let (engine, what, send) = (engine.clone(), what.to_owned(), send.clone());
        std::thread::spawn(move || {
            let ends = write_one(&engine, writer, &what);
            drop(engine);
            let _ = send.send((writer, ends));
        });
    }
    let until = Instant::now() + PATIENCE;
    let ended: BTreeMap<u64, Ends> = (0..WRITERS)
        .map(|_| {
            let left = until.saturating_duration_since(Instant::now());
            receive.recv_timeout(left).unwrap_or_else(|_| panic!("{what}: a writer has no answer, or a wrong one"))
        })
        .collect();
    ended.into_values().collect()
}

fn write_one(engine: &Engine, writer: u64, what: &str) -> Ends {
    let (mut ends, mut failures) = (Ends::new(), 0);
    while failures <= TRIES && (ends.len() as u64) < WRITES_MAX {
        let number = ends.len() as u64;
        let done = if writer == 0 { put(engine, number) } else { batch(engine, writer, number) };
        let done = no_space(done, what);
        failures += u64::from(done.is_none());
        ends.push(done.ok_or(ErrorKind::NoSpace));
    }
    ends
}

fn put(engine: &Engine, number: u64) -> Result<()> {
    engine.put(key(0, number, 0), value(0, number, 0))
}

fn batch(engine: &Engine, writer: u64, number: u64) -> Result<()> {
    let mut batch = engine.batch();
    for part in 0..BATCH {
        batch.put(key(writer, number, part), value(writer, number, part))?;
    }
    batch.commit()
}

/// All that was there before and all that was acknowledged is there; what was not acknowledged is there or not, a batch
/// as a whole; nothing else is. Gives the number of acknowledged writes.
fn compare(engine: &Engine, before: &Content, ends: &[Ends], what: &str) -> u64 {
    let content = common::content(engine);
    let mut found: BTreeMap<&[u8], &[u8]> = content.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    for (key, value) in before {
        assert!(found.remove(&key[..]) == Some(&value[..]), "{what}: {key:?} was there before");
    }
    let mut acknowledged = 0;
    for (writer, ends) in (0..).zip(ends) {
        for (number, end) in (0..).zip(ends) {
            let parts = if writer == 0 { 1 } else { BATCH };
            let there: Vec<bool> = (0..parts)
                .map(|part| {
                    let there = found.remove(&key(writer, number, part)[..]);
                    assert!(there.is_none_or(|there| there == value(writer, number, part)), "{what}: another value");
                    there.is_some()
                })
                .collect();
            let whole = there.iter().all(|part| *part == there[0]);
            assert!(whole, "{what}: a part of batch {number} of writer {writer} ({end:?}): {there:?}");
            assert!(there[0] || end.is_err(), "{what}: write {number} of writer {writer} was acknowledged");
            acknowledged += u64::from(end.is_ok());
        }
    }
    assert!(found.is_empty(), "{what}: {} keys that nobody wrote", found.len());
    acknowledged
}
