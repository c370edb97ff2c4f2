//! Promises of `docs/guarantees.md` that no other test shows.

mod bent;
#[path = "../common/mod.rs"]
mod common;
mod loads;
mod others;
mod syncs;
mod verification;

use common::{make, options, sample, scratch};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::testing::{RealVfs, TrapPlan};
use morphkv::{Engine, Options, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

struct Sandbox {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn empty() -> Sandbox {
    let directory = scratch();
    let path = directory.path().join("db");
    Sandbox { directory, path }
}

fn natural() -> Sandbox {
    let sandbox = empty();
    make(&sandbox.path, Arc::new(Natural), &sample(60));
    sandbox
}

/// Options whose traps do this.
fn trapped(plan: &str) -> Options {
    options().vfs(Arc::new(RealVfs::with_traps(Arc::new(TrapPlan::parse(plan).unwrap()))))
}

/// A conversion that failed at the trap, as a crash there leaves the place.
fn interrupted(trap: &str) -> Sandbox {
    let sandbox = natural();
    Engine::open(&sandbox.path, trapped(&format!("{trap}=error")).encoding(Hierarchical)).unwrap_err();
    sandbox
}

/// A conversion that is Done, and whose old database is not swept yet; a write to the new one was acknowledged.
fn unswept() -> Sandbox {
    let sandbox = natural();
    let engine = Engine::open(&sandbox.path, trapped("sweep-before=error").encoding(Hierarchical)).unwrap();
    engine.put(b"/acknowledged", b"1").unwrap();
    engine.close().unwrap();
    assert!(sandbox.path.with_extension("backup").join("CURRENT").exists());
    sandbox
}

fn acknowledged() -> common::Content {
    let mut content = sample(60);
    content.insert(b"/acknowledged".to_vec(), b"1".to_vec());
    content
}

/// An open that stands still at a trap.
struct Paused {
    file: PathBuf,
    open: JoinHandle<Result<Engine>>,
}

fn paused(path: &Path, trap: &str, change: impl FnOnce(Options) -> Options) -> Paused {
    let file = path.with_extension(format!("pause-{trap}"));
    let wanted = change(trapped(&format!("{trap}=pause:{}", file.display())));
    let path = path.to_owned();
    let open = std::thread::spawn(move || Engine::open(path, wanted));
    while !file.exists() {
        assert!(!open.is_finished(), "it never came to {trap}: {:?}", open.join().unwrap().err());
        std::thread::sleep(Duration::from_millis(2));
    }
    Paused { file, open }
}

impl Paused {
    fn go_on(self) -> Result<Engine> {
        std::fs::remove_file(&self.file).unwrap();
        self.open.join().unwrap()
    }
}
