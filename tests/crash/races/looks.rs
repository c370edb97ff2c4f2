//! `inspect` takes no lock, and may meet any instant of a change: it is told of one moment, never of a mixture of two.

use super::super::common::figures::scale;
use super::super::common::{self, options, sample};
use super::super::scenario::database;
use super::bent::{Bent, Call};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::inspect::inspect;
use morphkv::testing::{RealVfs, TrapPlan};
use morphkv::{Engine, Keep, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A conversion that stands still at a trap until its file is removed.
struct Paused {
    file: PathBuf,
    conversion: JoinHandle<()>,
}

fn paused(directory: &Path, trap: &str, keep: Keep) -> Paused {
    let file = directory.join("pause");
    let plan = TrapPlan::parse(&format!("{trap}=pause:{}", file.display())).unwrap();
    let options = options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan)))).encoding(Hierarchical).keep_backup(keep);
    let path = database(directory);
    let conversion = std::thread::spawn(move || Engine::open(path, options).unwrap().close().unwrap());
    while !file.exists() {
        assert!(!conversion.is_finished(), "it never came to {trap}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Paused { file, conversion }
}

/// Options that count the looks, and before the nth of them do something.
fn before_the_nth(nth: usize, act: impl Fn() + Send + Sync + 'static) -> (Options, Arc<AtomicUsize>) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let before = move |call: Call, _: &Path| {
        if call == Call::Look && counted.fetch_add(1, Ordering::SeqCst) == nth {
            act();
        }
        Ok(())
    };
    (options().vfs(Arc::new(Bent { before: Box::new(before), ..Bent::default() })), looks)
}

/// The change goes on from the trap to its end before the nth look of one inspection.
fn overtaken(trap: &str, keep: Keep, allowed: &[(&str, &str)]) -> usize {
    let before = common::scratch();
    common::make(&database(before.path()), Arc::new(Natural), &sample(20));
    let mut moments = 0;
    #[allow(clippy::explicit_counter_loop)] // It counts what was overtaken, which ends the loop.
    for nth in (0..).step_by(scale(6, 1)) {
        let directory = common::scratch();
        common::copy_tree(before.path(), directory.path());
        let path = database(directory.path());
        let Paused { file, conversion } = paused(directory.path(), trap, keep);
        let conversion = parking_lot::Mutex::new(Some(conversion));
        let gone_on = Arc::new(conversion);
        let (released, paused) = (gone_on.clone(), file.clone());
        let (options, looks) = before_the_nth(nth, move || {
            std::fs::remove_file(&paused).unwrap();
            released.lock().take().unwrap().join().unwrap();
        });
        let seen = inspect(&path, &options);
        if let Some(conversion) = gone_on.lock().take() {
            std::fs::remove_file(&file).unwrap();
            conversion.join().unwrap();
        }
        let seen = seen.unwrap_or_else(|error| panic!("{trap}, overtaken before look {nth}: {error:?}"));
        let told = (seen.state.as_str(), seen.encoding.as_deref().unwrap_or("none"));
        assert!(allowed.contains(&told), "{trap}, overtaken before look {nth}: {told:?}, {:?}", seen.reason);
        if looks.load(Ordering::SeqCst) <= nth {
            return moments;
        }
        moments += 1;
    }
    unreachable!()
}

#[test]
fn a_look_that_is_overtaken_by_a_swap_sees_one_moment() {
    let mut moments = 0;
    for (trap, before) in [
        ("live-to-backup-before", ("ready", "natural")),
        ("live-to-backup-moved", ("ready", "none")),
        ("journal-settled-before", ("ready", "hierarchical")),
        ("to-trash-before", ("done", "hierarchical")),
    ] {
        moments += overtaken(trap, Keep::No, &[before, ("whole", "hierarchical")]);
        if trap != "to-trash-before" {
            moments += overtaken(trap, Keep::Yes, &[before, ("kept", "hierarchical")]);
        }
    }
    println!("looks overtaken: {moments}");
    assert!(moments > 60, "only {moments} moments");
}
