//! A database with a clock that the test turns, its archive in memory, and every way in which its history can go.

use crate::common::{Content, content, copy_tree, options, scratch};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::commit::load;
use morphkv::log_backup::fault_store::FaultStore;
use morphkv::log_backup::head::Head;
use morphkv::log_backup::names::ObjectName;
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::shipper::{Pass, ShipOptions, Shipper};
use morphkv::log_backup::truncate::{TruncateOptions, Truncated, truncate};
use morphkv::restore::moment::Moment;
use morphkv::restore::plan::Plan;
use morphkv::restore::{self, Request};
use morphkv::{Engine, Hooks, Keep, Options, Result, manage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// The time that the first write has.
pub const BEGIN: u64 = 1_700_000_000_000_000;

/// xorshift64*
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

#[derive(Debug)]
struct Clock(AtomicU64);

impl Hooks for Clock {
    fn stamp(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed))
    }
}

pub fn archive_options() -> ArchiveOptions {
    ArchiveOptions { attempts: 2, backoff: Duration::ZERO, create_directory: true, ..ArchiveOptions::default() }
}

pub struct World {
    pub directory: tempfile::TempDir,
    pub store: FaultStore,
    pub archive: Archive,
    /// When something was written.
    pub times: Vec<u64>,
    clock: Arc<Clock>,
    engine: Option<Engine>,
    path: PathBuf,
    /// A copy of the database aside, as long as it may go on: not of an earlier timeline.
    copy: Option<PathBuf>,
    written: usize,
}

impl World {
    /// An attached database with its first base snapshot.
    pub fn new() -> Self {
        let store = FaultStore::in_memory();
        let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "", archive_options()).unwrap();
        World::on(store, archive)
    }

    pub fn on(store: FaultStore, archive: Archive) -> Self {
        let directory = scratch();
        let clock = Arc::new(Clock(AtomicU64::new(BEGIN)));
        let path = directory.path().join("db");
        let mut world =
            World { directory, store, archive, times: Vec::new(), clock, engine: None, path, copy: None, written: 0 };
        world.attach_new(TakeOver::No);
        world
    }

    fn options(&self) -> Options {
        options().hooks(self.clock.clone()).durability(morphkv::Durability::Buffered)
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub fn head(&self) -> Head {
        load(&self.archive).unwrap().head
    }

    pub fn pass(&mut self) {
        self.clock.0.fetch_add(10, Ordering::Relaxed);
    }

    pub fn now(&self) -> u64 {
        self.clock.0.load(Ordering::Relaxed)
    }

    fn attach_new(&mut self, take_over: TakeOver) {
        Engine::open(&self.path, self.options().create_if_missing(true)).unwrap().close().unwrap();
        self.engine = Some(attach(&self.path, self.options(), &self.archive, take_over).unwrap());
        self.put(3);
        self.ship();
    }

    pub fn put(&mut self, keys: usize) {
        for _ in 0..keys {
            self.written += 1;
            let key = format!("/key/{}", self.written % 40);
            self.engine().put(key, format!("value {}", self.written).repeat(4)).unwrap();
            self.times.push(self.now());
            self.pass();
        }
    }

    pub fn ingest(&mut self) {
        self.written += 1;
        let (from, value) = (self.written * 10, format!("loaded {}", self.written));
        self.engine()
            .ingest((from..from + 5).map(|number| Ok((format!("loaded/{number:06}"), value.clone()))))
            .unwrap();
        self.times.push(self.now());
        self.pass();
    }

    fn ship_with(&mut self, snapshot: bool) -> Pass {
        self.pass();
        let options = ShipOptions { segment_bytes: 300, head_after: Duration::ZERO, ..ShipOptions::default() };
        let mut shipper = Shipper::new(self.engine().clone(), self.archive.clone(), options);
        if snapshot {
            shipper.want_snapshot();
        }
        let pass = shipper.ship_once().unwrap();
        if !pass.begun.is_empty() {
            self.copy = None;
        }
        self.times.push(self.now());
        self.pass();
        pass
    }

    pub fn ship(&mut self) -> Pass {
        self.ship_with(false)
    }

    pub fn snapshot(&mut self) {
        assert!(self.ship_with(true).base_snapshot.is_some());
    }

    pub fn close(&mut self) {
        self.engine.take().unwrap().close().unwrap();
    }

    pub fn open(&mut self, options: Options) {
        self.engine = Some(Engine::open(&self.path, options).unwrap());
    }

    pub fn convert(&mut self) {
        let natural = self.engine().encoding().name == "natural";
        self.copy = None;
        self.close();
        let options = self.options();
        self.open(if natural { options.encoding(Hierarchical) } else { options.encoding(Natural) });
        self.put(1);
        self.ship();
    }

    /// Copies the database aside, or puts the copy back: then its history is another one.
    pub fn put_back(&mut self) {
        self.close();
        match self.copy.take() {
            None => {
                let copy = self.directory.path().join("copy");
                copy_tree(&self.path, &copy);
                self.copy = Some(copy);
            }
            Some(copy) => {
                std::fs::remove_dir_all(&self.path).unwrap();
                std::fs::rename(copy, &self.path).unwrap();
            }
        }
        self.open(self.options());
        self.put(2);
    }

    /// Part of the log is lost before it is shipped.
    pub fn lose(&mut self) {
        self.ship();
        self.copy = None;
        self.put(2);
        self.engine().flush().unwrap();
        self.close();
        self.open(self.options());
        self.close();
        for entry in std::fs::read_dir(self.path.join("archive")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        self.open(self.options());
        self.put(1);
        self.ship();
    }

    /// A conversion that is rolled back: what was written after it is on a branch that nobody goes on from.
    pub fn roll_back(&mut self, snapshot: bool) {
        let natural = self.engine().encoding().name == "natural";
        self.copy = None;
        self.close();
        let options = self.options().keep_backup(Keep::Yes);
        self.open(if natural { options.encoding(Hierarchical) } else { options.encoding(Natural) });
        self.put(4);
        self.ship_with(snapshot);
        self.put(3);
        self.ship();
        self.close();
        manage::rollback(&self.path, &self.options()).unwrap();
        self.open(self.options());
        self.put(2);
        assert_eq!(self.ship().begun.len(), 1);
    }

    /// Another database takes the archive over.
    pub fn take_over(&mut self) {
        self.close();
        self.copy = None;
        self.path = self.directory.path().join(format!("db-{}", self.written));
        self.attach_new(TakeOver::Yes);
    }

    /// One step of a random history.
    pub fn step(&mut self, random: &mut Random) {
        match random.below(20) {
            0..=5 => self.put(1 + random.below(6)),
            6 | 7 => self.ingest(),
            8 => {
                self.engine().delete_range("/key/1".."/key/3").unwrap();
                self.times.push(self.now());
                self.pass();
            }
            9..=11 => drop(self.ship()),
            12..=14 => self.snapshot(),
            15 | 16 => self.convert(),
            17 => self.roll_back(random.below(2) == 0),
            18 => self.lose(),
            _ if random.below(4) == 0 => self.take_over(),
            _ => self.put_back(),
        }
    }

    /// The plan of a restore.
    pub fn plan(&self, timeline: Option<Uuid>, moment: Moment) -> Result<Plan> {
        restore::preview(&self.archive, &request(timeline, moment), &options())
    }

    /// What a restore brings back.
    pub fn restored(&self, timeline: Option<Uuid>, moment: Moment) -> Result<Content> {
        restored(&self.archive, self.directory.path(), timeline, moment)
    }

    /// All objects but HEAD.
    pub fn objects(&self) -> BTreeMap<ObjectName, u64> {
        objects(&self.archive)
    }

    pub fn truncate(&self, until: Until) -> Result<Truncated> {
        truncate(&self.archive, until, at_once())
    }

    /// The database still ships to where it did, and comes back as it is.
    pub fn assert_goes_on(&mut self) {
        self.put(2);
        let pass = self.ship();
        assert_eq!(pass.begun, [], "the log was not gone on with");
        assert_eq!(self.restored(None, Moment::Latest).unwrap(), content(self.engine()));
    }
}

pub fn at_once() -> TruncateOptions {
    TruncateOptions { grace: Duration::ZERO, dry_run: false }
}

pub fn objects(archive: &Archive) -> BTreeMap<ObjectName, u64> {
    let listed = archive.list("v1").unwrap().map(Result::unwrap).map(|listed| (listed.name, listed.stat.size));
    listed.filter(|(name, _)| name.as_str() != "v1/HEAD").collect()
}

fn request(timeline: Option<Uuid>, moment: Moment) -> Request {
    Request { moment, timeline, replace: false, no_pin: true, replica: false, compaction: None }
}

pub fn restored(archive: &Archive, directory: &Path, timeline: Option<Uuid>, moment: Moment) -> Result<Content> {
    let target = directory.join(format!("target-{}", Uuid::new_v4().simple()));
    restore::run(&target, archive, &request(timeline, moment), &options())?;
    let engine = Engine::open(&target, options()).unwrap();
    let found = content(&engine);
    engine.close().unwrap();
    Engine::destroy(&target, Options::new()).unwrap();
    assert!(restore::abort(&target, &Options::new()).unwrap());
    Ok(found)
}
