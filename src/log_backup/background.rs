//! The log backup of an open database: a thread that ships, and its status.
//!
//! Writers are never waited for and never wait: whatever the archive does, the log is kept until it is stored.

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::metrics;
use crate::log_backup::shipper::{Pass, ShipOptions, Shipper};
pub use crate::log_backup::status::{LogBackupState, LogBackupStatus};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STEP: &str = "back up the log";

/// The wait after a first error; it doubles with each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait after an error.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether enough was written for a segment.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How the log of an open database is backed up.
#[derive(Debug, Clone)]
pub struct LogBackupOptions {
    /// How it is shipped.
    pub ship: ShipOptions,
    /// What was written is shipped at the latest after this time, or as soon as it fills a segment. Default: 10 s.
    pub interval: Duration,
}

impl Default for LogBackupOptions {
    fn default() -> Self {
        LogBackupOptions { ship: ShipOptions::default(), interval: Duration::from_secs(10) }
    }
}

/// The log backup of a database, as long as this lives. It holds a handle of the database: [`LogBackup::stop`] it before
/// closing that.
#[derive(Debug)]
pub struct LogBackup {
    engine: Engine,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    status: Mutex<LogBackupStatus>,
    orders: Mutex<Orders>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    now: bool,
    snapshot: bool,
    /// No further pass, but for a last one.
    end: Option<LastPass>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastPass {
    Wanted,
    None,
}

impl LogBackup {
    /// Begins. The database must be attached to this archive.
    ///
    /// # Errors
    /// `Refused`: the database was opened before it was attached, or is not; `Io` if the system gives no thread. Whatever
    /// the archive says comes later, in the status.
    pub fn start(engine: &Engine, archive: &Archive, options: LogBackupOptions) -> Result<Self> {
        if engine.log_time().is_none() {
            let message = "the database was opened without a log archive";
            return Err(Error::new(ErrorKind::Refused, STEP, message).at(engine.path()));
        }
        let shared = Arc::new(Shared::default());
        let shipper = Shipper::new(engine.clone(), archive.clone(), options.ship.clone());
        let worker = Worker {
            engine: engine.clone(),
            database: engine.path().display().to_string(),
            shipper,
            shared: Arc::clone(&shared),
            interval: options.interval,
            failures: 0,
        };
        let segment_bytes = options.ship.segment_bytes;
        metrics::describe();
        let thread = std::thread::Builder::new().name("morphkv-log".into()).spawn(move || worker.run(segment_bytes));
        let thread = thread.map_err(|error| Error::new(ErrorKind::Io, STEP, error.to_string()).because(error))?;
        Ok(LogBackup { engine: engine.clone(), shared, thread: Some(thread) })
    }

    /// How far it has come.
    pub fn status(&self) -> LogBackupStatus {
        let mut status = self.shared.status.lock().clone();
        status.lag_seconds = lag_seconds(&status, &self.engine);
        status
    }

    /// Ships at once, without waiting for it.
    pub fn ship_now(&self) {
        self.shared.order(|orders| orders.now = true);
    }

    /// Takes a base snapshot soon.
    pub fn take_snapshot(&self) {
        self.shared.order(|orders| (orders.now, orders.snapshot) = (true, true));
    }

    /// Ships what is left, and ends.
    ///
    /// # Errors
    /// Those of the last pass: what is not shipped is kept, and goes when the database is open again.
    pub fn stop(mut self) -> Result<()> {
        self.end(LastPass::Wanted)
    }

    fn end(&mut self, last: LastPass) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.shared.order(|orders| orders.end = Some(last));
        thread.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, STEP, "its thread has panicked")))
    }
}

fn lag_seconds(status: &LogBackupStatus, engine: &Engine) -> u64 {
    let behind = status.shipped_sequence < engine.last_sequence();
    let now = engine.log_time().unwrap_or(0);
    if behind { now.saturating_sub(status.resolved) / 1_000_000 } else { 0 }
}

impl Drop for LogBackup {
    /// Ends without a last pass, after the one that is under way.
    fn drop(&mut self) {
        let _ = self.end(LastPass::None);
    }
}

impl Shared {
    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock());
        self.wake.notify_all();
    }
}

struct Worker {
    engine: Engine,
    /// Its name in metrics.
    database: String,
    shipper: Shipper,
    shared: Arc<Shared>,
    interval: Duration,
    failures: u32,
}

impl Worker {
    fn run(mut self, segment_bytes: u64) -> Result<()> {
        loop {
            if std::mem::take(&mut self.shared.orders.lock().snapshot) {
                self.shipper.want_snapshot();
            }
            let done = self.pass();
            if let Err(error) = done
                && self.shared.status.lock().state == LogBackupState::Stopped
            {
                return self.linger(error);
            }
            match self.wait(segment_bytes) {
                None => {}
                Some(LastPass::None) => return Ok(()),
                Some(LastPass::Wanted) => return self.pass(),
            }
        }
    }

    /// Ships no more. Writers go on, so what is kept for the archive stays within its limit until the end.
    fn linger(&mut self, error: Error) -> Result<()> {
        loop {
            let mut orders = self.shared.orders.lock();
            if orders.end.is_some() {
                return Err(error);
            }
            self.shared.wake.wait_for(&mut orders, BACKOFF_MAX);
            drop(orders);
            self.shipper.limit_wal();
        }
    }

    fn pass(&mut self) -> Result<()> {
        let done = self.shipper.ship_once();
        let (retained, lag) = self.shipper.wal_bytes().unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        let mut status = shared.status.lock();
        let before = status.clone();
        (status.retained_wal_bytes, status.lag_bytes) = (retained, lag);
        let done = self.note(&mut status, done);
        status.lag_seconds = lag_seconds(&status, &self.engine);
        let now = status.clone();
        drop(status);
        metrics::tell(&self.database, &before, &now);
        done
    }

    fn note(&mut self, status: &mut LogBackupStatus, done: Result<Pass>) -> Result<()> {
        match done {
            Ok(pass) => {
                self.failures = 0;
                status.succeeded(&pass);
                Ok(())
            }
            Err(error) => {
                self.failures += 1;
                status.failed(&error, self.failures);
                tracing::warn!(%error, failures = self.failures, state = ?status.state, "the log is not shipped");
                Err(error)
            }
        }
    }

    /// Until the next pass is due.
    fn wait(&mut self, segment_bytes: u64) -> Option<LastPass> {
        let wait = match self.failures {
            0 => self.interval,
            failures => BACKOFF.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_MAX),
        };
        let due = Instant::now() + wait;
        let mut looked_at = None;
        loop {
            let mut orders = self.shared.orders.lock();
            if orders.end.is_some() {
                return orders.end;
            }
            if std::mem::take(&mut orders.now) || Instant::now() >= due {
                return None;
            }
            self.shared.wake.wait_until(&mut orders, due.min(Instant::now() + LOOK_EVERY));
            drop(orders);
            // Thousands of idle databases in one process must not list thousands of directories twice a second.
            let written = self.engine.last_sequence();
            if looked_at.replace(written) == Some(written) {
                continue;
            }
            let Ok((retained, lag)) = self.shipper.wal_bytes() else { continue };
            let mut status = self.shared.status.lock();
            (status.retained_wal_bytes, status.lag_bytes) = (retained, lag);
            if self.failures == 0 && lag >= segment_bytes {
                return None;
            }
        }
    }
}
