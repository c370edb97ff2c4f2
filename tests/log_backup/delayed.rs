//! Writers that are delayed between the stamp of a batch and its place in the log, and a shipper that looks at any instant:
//! a moment is one beginning of the log for ever, with all that was acknowledged before it and nothing that began after it.

use crate::common::{Content, options, scratch};
use crate::harness::*;
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::segment::Payload;
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::testing::batch_decoder::{Batch, DEFAULT_FAMILY, Operation};
use morphkv::testing::{self, RealVfs, RecordingVfs, Trap};
use morphkv::{Durability, Engine, Hooks, Options};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WRITERS: usize = 4;
const PASSES: usize = 24;

fn clock() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// A database, empty and attached, whose time is in the archive whenever the shipper comes.
fn attached(bench: &Bench, options: Options) -> (Engine, Shipper) {
    Engine::open(bench.path(), creating()).unwrap().close().unwrap();
    let engine = attach(bench.path(), options, &bench.archive, TakeOver::No).unwrap();
    let ship = ShipOptions { idle_after: Duration::ZERO, ..ship_options() };
    let mut shipper = Shipper::new(engine.clone(), bench.archive.clone(), ship);
    shipper.ship_once().unwrap();
    (engine, shipper)
}

fn restored_at(bench: &Bench, time: u64) -> Content {
    let directory = scratch();
    let target = directory.path().join("restored");
    let request = Request {
        moment: Moment::Time(time),
        timeline: None,
        replace: false,
        no_pin: false,
        replica: false,
        compaction: None,
    };
    restore::run(&target, &bench.archive, &request, &options()).unwrap();
    let engine = Engine::open(&target, options()).unwrap();
    let content = crate::common::content(&engine);
    engine.close().unwrap();
    content
}

/// The keys that were put, in the order of the log.
fn keys_in_order(bench: &Bench) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for frame in frames(&bench.archive, current(&bench.archive).id).0 {
        let Payload::Batch(batch) = &frame.payload else { panic!("a load that nobody made") };
        for operation in Batch::new(batch).unwrap().operations() {
            if let Operation::Put { family: DEFAULT_FAMILY, key, .. } = operation.unwrap() {
                keys.push(key.to_vec());
            }
        }
    }
    keys
}

/// When the call that wrote a key began, and when it returned.
type Calls = BTreeMap<Vec<u8>, (u64, u64)>;

fn write_until(engine: &Engine, writer: usize, end: &AtomicBool) -> Calls {
    let mut calls = Calls::new();
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("/{writer}/{number:06}").into_bytes();
        let began = clock();
        engine.put(&key, "value").unwrap();
        calls.insert(key, (began, clock()));
    }
    calls
}

/// Tells the writers to end, also where a test fails meanwhile.
struct Ending<'e>(&'e AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits at the trap, mostly not, sometimes for long.
fn delays() -> Arc<dyn testing::Vfs> {
    let random = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    let witness = move |operation: &testing::Operation| {
        if *operation == testing::Operation::Trap(Trap::ShipWriteStamped) {
            let drawn =
                random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
            match drawn % 16 {
                0 => std::thread::sleep(Duration::from_millis(drawn / 16 % 40)),
                1..6 => std::thread::sleep(Duration::from_micros(drawn / 16 % 1500)),
                _ => {}
            }
        }
    };
    Arc::new(RecordingVfs::watched(Arc::new(RealVfs::new().unwrap()), witness))
}

#[test]
fn writers_that_are_delayed_after_their_stamp_change_no_moment() {
    let bench = Bench::in_memory();
    let (engine, mut shipper) = attached(&bench, options().durability(Durability::Buffered).vfs(delays()));
    let end = AtomicBool::new(false);
    let (calls, moments) = std::thread::scope(|scope| {
        let (engine, end) = (&engine, &end);
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write_until(engine, writer, end))).collect();
        let ending = Ending(end);
        let moments: Vec<_> = (0..PASSES as u64)
            .map(|pass| {
                std::thread::sleep(Duration::from_millis(7));
                let time = shipper.ship_once().unwrap().resolved - pass % 4 * 1_200;
                (time, restored_at(&bench, time))
            })
            .collect();
        drop(ending);
        let calls = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Calls>();
        (calls, moments)
    });
    shipper.ship_once().unwrap();
    let log = keys_in_order(&bench);
    assert_eq!(log.len(), calls.len());
    let overtaken = log.windows(2).filter(|pair| calls[&pair[1]].0 < calls[&pair[0]].0).count();
    for (time, content) in &moments {
        assert!(restored_at(&bench, *time) == *content, "{time}: another content than before");
        let mut beginning: Vec<_> = log[..content.len()].to_vec();
        beginning.sort();
        assert!(content.keys().eq(&beginning), "{time}: no beginning of the log");
        for (key, (began, ended)) in &calls {
            let (is_in, shown) = (content.contains_key(key), String::from_utf8_lossy(key));
            assert!(is_in || ended >= time, "{time}: without {shown}, acknowledged at {ended}");
            assert!(!is_in || began <= time, "{time}: with {shown}, begun at {began}");
        }
    }
    let sizes: Vec<_> = moments.iter().map(|(_, content)| content.len()).collect();
    println!("writes {}, overtaken {overtaken}, moments {}", calls.len(), moments.len());
    assert!(overtaken >= 20 && sizes.last().is_some_and(|last| *last >= 100), "{overtaken} {sizes:?}");
}

/// A clock that, when the shipper next reads it, first lets another thread write.
#[derive(Default)]
struct Clock {
    time: AtomicU64,
    shipper: Mutex<Option<ThreadId>>,
    write: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.time.fmt(f)
    }
}

impl Hooks for Clock {
    fn stamp(&self) -> Option<u64> {
        if *self.shipper.lock().unwrap() == Some(std::thread::current().id()) {
            let write = self.write.lock().unwrap().take();
            if let Some(write) = write {
                std::thread::spawn(write).join().unwrap();
            }
        }
        Some(self.time.fetch_add(10, Ordering::Relaxed))
    }
}

/// The shipper takes the time first and then looks how far the log has come: the other way round, this write would be
/// promised to be in and be left out.
#[test]
fn what_is_acknowledged_while_the_shipper_looks_is_in_every_moment_that_is_resolved() {
    let bench = Bench::in_memory();
    let clock = Arc::new(Clock { time: AtomicU64::new(1_000_000), ..Clock::default() });
    let (engine, mut shipper) = attached(&bench, options().hooks(Arc::clone(&clock) as Arc<dyn Hooks>));
    engine.put("/first", "1").unwrap();
    shipper.ship_once().unwrap();
    *clock.shipper.lock().unwrap() = Some(std::thread::current().id());
    let (writer, ended) = (engine.clone(), Arc::new(AtomicU64::new(0)));
    let (time, at) = (Arc::clone(&clock), Arc::clone(&ended));
    *clock.write.lock().unwrap() = Some(Box::new(move || {
        writer.put("/late", "1").unwrap();
        at.store(time.time.fetch_add(100, Ordering::Relaxed), Ordering::Relaxed);
    }));
    let pass = shipper.ship_once().unwrap();
    let ended = ended.load(Ordering::Relaxed);
    assert!(ended > 0 && pass.resolved > ended + 1, "the shipper did not take the time: {pass:?}");
    assert_eq!(restored_at(&bench, ended + 1).len(), 2);
    engine.put("/later", "1").unwrap();
    shipper.ship_once().unwrap();
    assert_eq!(restored_at(&bench, ended + 1).len(), 2);
    assert_eq!(restored_at(&bench, shipper.ship_once().unwrap().resolved).len(), 3);
}
