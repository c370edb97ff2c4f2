//! The children: each process serves many races, and each race gives it racers, one thread for each.
//!
//! A process that goes on to the next race shows that an attempt leaves nothing behind in it: no lock, no open file.

use super::super::common::{self, options};
use super::super::scenario::database;
use super::super::sweep::child_that_runs;
use super::orders::{Attempt, Deed, Line, Log, Orders, Racer, Seen, encoding, holder, key_of, place, value_of};
use morphkv::testing::{Operation, RealVfs, RecordingVfs, Trap};
use morphkv::{Engine, Keep, Options, Result, inspect, manage};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHILD_RACES: &str = "MORPHKV_TEST_RACES";
const READY: &str = "@ready";
const OVER: &str = "@over";
/// No race takes so long.
const RACE_MAX: Duration = Duration::from_secs(60);

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    if std::env::var_os(CHILD_RACES).is_none() {
        return;
    }
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let mut lines = std::io::stdin().lines().map(|line| line.unwrap());
    while let Some(orders) = lines.next() {
        let orders: Orders = serde_json::from_str(&orders).unwrap();
        say(READY);
        lines.next().unwrap();
        let (over, wait) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if wait.recv_timeout(RACE_MAX).is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout) {
                std::process::abort();
            }
        });
        std::thread::scope(|scope| {
            for racer in &orders.racers {
                scope.spawn(|| run(&orders.room, racer));
            }
        });
        drop(over);
        watch.join().unwrap();
        report_leaks(&orders.room);
        say(OVER);
    }
}

fn say(what: &str) {
    // Not `println!`, which the test harness keeps for itself.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn report_leaks(room: &Path) {
    let place = place(room);
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        // The descriptor of this very listing is gone by the time that it is read.
        let Ok(file) = std::fs::read_link(entry.unwrap().path()) else { continue };
        if file.starts_with(&place) {
            Log::open(room).add(&Line::Leaked { file: file.display().to_string() });
        }
    }
}

fn spin(micros: u64) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

fn run(room: &Path, racer: &Racer) {
    let log = Log::open(room);
    let mut attempt = racer.first;
    spin(racer.delay_micros);
    for deed in &racer.deeds {
        for nth in 0..=racer.patience {
            let locked = attempt_once(room, &log, attempt, deed);
            attempt += 1;
            if !locked {
                break;
            }
            std::thread::sleep(Duration::from_micros(300 * u64::from(nth + 1)));
        }
    }
}

/// One attempt. Whether somebody else held the place.
pub fn attempt_once(room: &Path, log: &Log, attempt: Attempt, deed: &Deed) -> bool {
    log.add(&Line::Began { attempt, deed: deed.clone() });
    let held = Arc::new(Held::new(room, attempt));
    let done = catch_unwind(AssertUnwindSafe(|| act(room, log, &held, deed)));
    let failed = match done {
        Ok(done) => done.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let message = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            log.add(&Line::Panicked { attempt, message: message.unwrap_or_default() });
            return false;
        }
    };
    let locked = failed.as_ref().is_some_and(|(kind, _)| kind == "Locked");
    log.add(&Line::Ended { attempt, failed });
    locked
}

/// Sees that nobody locks the place while this attempt holds it: who has locked it last stands in a file.
struct Held {
    attempt: Attempt,
    holder: File,
    log: Log,
}

impl Held {
    fn new(room: &Path, attempt: Attempt) -> Self {
        let holder = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(holder(room)).unwrap();
        Held { attempt, holder, log: Log::open(room) }
    }

    fn locked(&self) {
        self.holder.write_all_at(&self.attempt.to_le_bytes(), 0).unwrap();
        self.log.add(&Line::Locked { attempt: self.attempt });
    }

    fn check(&self, at: &str) {
        let mut bytes = [0; 4];
        self.holder.read_exact_at(&mut bytes, 0).unwrap();
        let holder = u32::from_le_bytes(bytes);
        if holder != self.attempt {
            self.log.add(&Line::Intruded { attempt: self.attempt, holder, at: at.into() });
        }
    }

    fn options(self: &Arc<Self>) -> Options {
        let held = self.clone();
        let witness = move |operation: &Operation| match operation {
            Operation::Trap(Trap::LockTaken) => held.locked(),
            operation => held.check(&format!("{operation:.100?}")),
        };
        options().vfs(Arc::new(RecordingVfs::watched(Arc::new(RealVfs::default()), witness)))
    }
}

fn in_encoding(options: Options, wanted: Option<&String>, keep: Keep) -> Options {
    let options = options.keep_backup(keep);
    match wanted {
        Some(name) => options.encoding(encoding(name)),
        None => options,
    }
}

fn act(room: &Path, log: &Log, held: &Arc<Held>, deed: &Deed) -> std::result::Result<(), (String, String)> {
    if let Deed::OpenWithRocksdb { writes, hold_micros } = deed {
        let write = || write_with_rocksdb(&database(&place(room)), log, held.attempt, deed, *writes, *hold_micros);
        return write().map_err(|error| ("RocksDB".to_owned(), error.to_string()));
    }
    with_morphkv(&database(&place(room)), log, held, deed)
        .map_err(|error| (error.kind().name().to_owned(), format!("{error:?}")))
}

fn with_morphkv(path: &Path, log: &Log, held: &Arc<Held>, deed: &Deed) -> Result<()> {
    let (options, attempt) = (held.options(), held.attempt);
    match deed {
        Deed::Open { wanted, keep, create, writes, hold_micros } => {
            let options = in_encoding(options, wanted.as_ref(), *keep).create_if_missing(*create);
            let engine = Engine::open(path, options)?;
            saw(&engine, log, held);
            for nth in 0..*writes {
                let key = key_of(deed, attempt, nth);
                log.add(&Line::Writing { attempt, key: key.clone() });
                engine.put(&key, value_of(&key))?;
                held.check("acknowledge a write");
                log.add(&Line::Wrote { attempt, key });
            }
            std::thread::sleep(Duration::from_micros(*hold_micros));
            held.check("close");
            engine.close()
        }
        Deed::Read => {
            let engine = Engine::open_read_only(path, options)?;
            saw(&engine, log, held);
            engine.close()
        }
        Deed::Digest => manage::digest(path, &options).map(drop),
        Deed::Create { wanted } => manage::create(path, &in_encoding(options, wanted.as_ref(), Keep::No)).map(drop),
        Deed::Convert { wanted, keep } => manage::convert(path, &in_encoding(options, Some(wanted), *keep)).map(drop),
        Deed::Destroy => Engine::destroy(path, options).map(drop),
        Deed::RollBack => manage::rollback(path, &options).map(drop),
        Deed::DropKept => manage::drop_backup(path, &options),
        Deed::Recover { abandon } => manage::recover(path, &options, *abandon).map(drop),
        Deed::Inspect => {
            let seen = inspect::inspect(path, &options)?;
            log.add(&Line::Inspected { attempt, state: seen.state });
            Ok(())
        }
        Deed::OpenWithRocksdb { .. } => unreachable!(),
    }
}

fn saw(engine: &Engine, log: &Log, held: &Held) {
    let seen = Seen::of(&common::content(engine));
    held.check("read everything");
    log.add(&Line::Saw { attempt: held.attempt, encoding: engine.encoding().name, seen });
}

fn write_with_rocksdb(
    live: &Path,
    log: &Log,
    attempt: Attempt,
    deed: &Deed,
    writes: u32,
    hold_micros: u64,
) -> std::result::Result<(), rocksdb::Error> {
    let families = ["default", "morphkv.internal"];
    let database = rocksdb::DB::open_cf(&rocksdb::Options::default(), live, families)?;
    // It speaks the database's encoding, as the software does that the keys belong to.
    let marker = std::fs::read_to_string(live.join("KEY_ENCODING")).unwrap();
    let marker: serde_json::Value = serde_json::from_str(marker.lines().next().unwrap()).unwrap();
    let encoding = encoding(marker["encoding"]["name"].as_str().unwrap());
    let mut synced = rocksdb::WriteOptions::default();
    synced.set_sync(true);
    for nth in 0..writes {
        let key = key_of(deed, attempt, nth);
        let mut encoded = Vec::new();
        encoding.encode(key.as_bytes(), &mut encoded).unwrap();
        log.add(&Line::Writing { attempt, key: key.clone() });
        database.put_opt(encoded, value_of(&key), &synced)?;
        log.add(&Line::Wrote { attempt, key });
    }
    std::thread::sleep(Duration::from_micros(hold_micros));
    Ok(())
}

/// A child as its parent sees it.
pub struct Process {
    child: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
    errors: PathBuf,
}

impl Process {
    /// What it says to its standard error goes to that file.
    pub fn start(errors: &Path) -> Process {
        let mut command = child_that_runs("races::racers::child");
        command.env(CHILD_RACES, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(File::create(errors).unwrap()).spawn().unwrap();
        let (orders, said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Process { child, orders, said, errors: errors.into() }
    }

    fn wait_for(&mut self, what: &str) {
        let mut line = String::new();
        while line.trim_end() != what {
            line.clear();
            if self.said.read_line(&mut line).unwrap() == 0 {
                let status = self.child.wait().unwrap();
                let errors = std::fs::read_to_string(&self.errors).unwrap();
                panic!("a racing process ended ({status}) or hung: {errors}");
            }
        }
    }

    /// Tells it what to do; it waits for [`Process::go`].
    pub fn prepare(&mut self, orders: &Orders) {
        let mut text = serde_json::to_vec(orders).unwrap();
        text.push(b'\n');
        self.orders.write_all(&text).unwrap();
        self.wait_for(READY);
    }

    pub fn go(&mut self) {
        self.orders.write_all(b"go\n").unwrap();
    }

    pub fn wait_until_over(&mut self) {
        self.wait_for(OVER);
    }

    /// All of it at once, for a process that races with nobody.
    pub fn run(&mut self, orders: &Orders) {
        self.prepare(orders);
        self.go();
        self.wait_until_over();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
