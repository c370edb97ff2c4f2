//! How far a long operation has come, for a callback and for `tracing`.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Progress is told, and the end of another thread noticed, after about so many bytes.
pub(super) const PACE_BYTES: u64 = 256 << 10;

/// At most one call of the callback in this time, but for the beginning and the end of a phase.
const INTERVAL: Duration = Duration::from_millis(100);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Phase {
    /// The source is read, encoded anew and written to SST files.
    #[default]
    Rewrite,
    /// The SST files are taken into the new database, and what overlaps is compacted.
    Ingest,
    /// A database is read and its content counted and digested.
    Verify,
}

impl Phase {
    /// The name used in `--json` output.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Rewrite => "rewrite",
            Phase::Ingest => "ingest",
            Phase::Verify => "verify",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of encoded keys and values dealt with in this phase (in [`Phase::Ingest`]: bytes of SST files).
    pub bytes_done: u64,
    /// Of how many: an estimate until the phase ends, then equal to `bytes_done`.
    pub bytes_total: u64,
    /// Entries dealt with in this phase.
    pub entries: u64,
    /// Entries of them that came too late for a sorted file, so that compaction has to put them into place.
    pub overflow_entries: u64,
}

/// The receiver of progress.
pub type ProgressCallback = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Takes progress from many threads and passes it on about ten times a second. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Reporter(Arc<Inner>);

#[derive(Default)]
struct Inner {
    callback: Option<ProgressCallback>,
    bytes_done: AtomicU64,
    entries: AtomicU64,
    overflow_entries: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    bytes_total: u64,
    began: Option<Instant>,
    reported: Option<Instant>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("callback", &self.0.callback.is_some()).finish_non_exhaustive()
    }
}

impl Reporter {
    /// Reports to nobody but `tracing`.
    pub fn silent() -> Self {
        Self::default()
    }

    /// Reports to `callback`, which is called from whatever thread works, one call at a time, and delays it.
    pub fn new(callback: ProgressCallback) -> Self {
        Reporter(Arc::new(Inner { callback: Some(callback), ..Inner::default() }))
    }

    /// A phase begins, with about `bytes_total` bytes to do. Counts start from zero.
    pub fn begin(&self, phase: Phase, bytes_total: u64) {
        let mut state = self.0.state.lock();
        *state = State { phase, bytes_total, began: Some(Instant::now()), reported: None };
        for counter in [&self.0.bytes_done, &self.0.entries, &self.0.overflow_entries] {
            counter.store(0, Ordering::Relaxed);
        }
        tracing::info!(phase = phase.name(), bytes_total, "begins");
        self.report(&mut state);
    }

    /// More was done. To be called for many entries at once.
    pub fn advance(&self, bytes: u64, entries: u64) {
        self.0.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.0.entries.fetch_add(entries, Ordering::Relaxed);
        // Whoever reports at the moment reports for all.
        let Some(mut state) = self.0.state.try_lock() else { return };
        if state.reported.is_none_or(|reported| reported.elapsed() >= INTERVAL) {
            self.report(&mut state);
        }
    }

    /// More entries came too late for a sorted file.
    pub fn advance_overflow(&self, entries: u64) {
        self.0.overflow_entries.fetch_add(entries, Ordering::Relaxed);
    }

    /// The phase ended well.
    pub fn end(&self) {
        let mut state = self.0.state.lock();
        state.bytes_total = self.0.bytes_done.load(Ordering::Relaxed);
        let seconds = state.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        tracing::info!(
            phase = state.phase.name(),
            bytes = state.bytes_total,
            entries = self.0.entries.load(Ordering::Relaxed),
            overflow_entries = self.0.overflow_entries.load(Ordering::Relaxed),
            seconds,
            "ended"
        );
        self.report(&mut state);
    }

    fn report(&self, state: &mut State) {
        state.reported = Some(Instant::now());
        let Some(callback) = &self.0.callback else { return };
        let bytes_done = self.0.bytes_done.load(Ordering::Relaxed);
        callback(&Progress {
            phase: state.phase,
            bytes_done,
            // The estimate may be too low; a bar that runs over its end helps nobody.
            bytes_total: state.bytes_total.max(bytes_done),
            entries: self.0.entries.load(Ordering::Relaxed),
            overflow_entries: self.0.overflow_entries.load(Ordering::Relaxed),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_few_and_the_last_one_is_complete() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let reporter = Reporter::new(Arc::new(move |progress: &Progress| sink.lock().push(*progress)));
        reporter.begin(Phase::Rewrite, 1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| reporter.advance(10, 1)));
            }
        });
        reporter.advance_overflow(3);
        reporter.end();
        reporter.begin(Phase::Verify, 7);
        let seen = seen.lock();
        assert!(seen.len() < 30, "{} calls", seen.len());
        let end = seen[seen.len() - 2];
        assert_eq!((end.bytes_done, end.bytes_total, end.entries, end.overflow_entries), (400_000, 400_000, 40_000, 3));
        let begin = Progress { phase: Phase::Verify, bytes_total: 7, ..Progress::default() };
        assert_eq!(seen[seen.len() - 1], begin);
        assert!(seen.iter().all(|progress| progress.bytes_done <= progress.bytes_total));
    }
}
