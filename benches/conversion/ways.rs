//! One conversion in several ways: with one thread and with two, and with everybody listening.

use crate::common::median;
use crate::contender::{checkpoint, convert};
use crate::source::{Direction, Source, warm};
use morphkv::{Options, Progress, Verify};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::{Event, Metadata, Subscriber, span};

/// Takes every event and counts it.
struct Listener(Arc<AtomicU64>);

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn timed(root: &Path, source: &Source, change: impl FnOnce(&Path, Options) -> f64) -> f64 {
    let work = root.join(format!("work-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir(&work).expect("make a directory");
    warm(&source.path);
    let copy = checkpoint(source, &work);
    rustix::fs::sync();
    let seconds = change(&copy, Options::new().verify(Verify::Full));
    std::fs::remove_dir_all(&work).expect("remove the copy");
    seconds
}

/// Seconds with one thread and with two.
pub fn threads(root: &Path, source: &Source, direction: Direction, rounds: usize) -> Value {
    let with = |threads: usize| {
        timed(root, source, |copy, options| {
            let began = std::time::Instant::now();
            let options = options.parallelism(threads).encoding(direction.to());
            drop(morphkv::Engine::open(copy, options).expect("convert"));
            began.elapsed().as_secs_f64()
        })
    };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(with(1));
        two.push(with(2));
    }
    let (one, two) = (median(one), median(two));
    json!({"direction": direction.name(), "one_seconds": one, "two_seconds": two, "ratio": two / one})
}

/// Seconds with nobody listening, and with a callback and a subscriber of all events.
pub fn listening(root: &Path, source: &Source, direction: Direction, rounds: usize) -> Value {
    let (mut quiet, mut heard) = (Vec::new(), Vec::new());
    let (calls, events) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for _ in 0..rounds {
        quiet.push(timed(root, source, |copy, options| convert(copy, direction, options)));
        let (calls, events) = (calls.clone(), events.clone());
        heard.push(timed(root, source, |copy, options| {
            let callback = Arc::new(move |progress: &Progress| {
                calls.fetch_add(1, Ordering::Relaxed);
                std::hint::black_box(format!("{progress:?}"));
            });
            let convert = || convert(copy, direction, options.progress(callback));
            tracing::subscriber::with_default(Listener(events), convert)
        }));
    }
    assert!(calls.load(Ordering::Relaxed) > 0, "the callback was never called");
    let (quiet, heard) = (median(quiet), median(heard));
    json!({
        "direction": direction.name(), "quiet_seconds": quiet, "heard_seconds": heard, "ratio": heard / quiet,
        "target": 1.1, "calls": calls.load(Ordering::Relaxed), "events": events.load(Ordering::Relaxed),
    })
}
