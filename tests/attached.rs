//! A database that is attached to a log archive: nobody ships yet, but from now on nothing that is to be shipped may be
//! lost, whatever build opens it.
#![cfg(feature = "traps")]

mod common;
#[path = "crash/scenario.rs"]
#[allow(dead_code)]
mod scenario;

use common::{content, make, options, sample, scratch};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::testing::{Cause, RealVfs, attachment};
use morphkv::{Durability, Engine, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn wal_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
}

/// The bytes of every WAL file that is still there, archived ones too.
fn logged(database: &Path) -> Vec<u8> {
    let files = wal_files(database).into_iter().chain(wal_files(&database.join("archive")));
    files.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

fn written(attached: bool) -> (tempfile::TempDir, PathBuf) {
    let directory = scratch();
    let path = directory.path().join("db");
    make(&path, Arc::new(Natural), &sample(30));
    if attached {
        scenario::attach(&path);
    }
    for round in 0..3 {
        let engine = Engine::open(&path, options()).unwrap();
        engine.put(format!("/round/{round}"), format!("logged-{round}")).unwrap();
        engine.flush().unwrap();
        engine.close().unwrap();
    }
    drop(Engine::open(&path, options()).unwrap());
    (directory, path)
}

#[test]
fn wal_files_are_kept_through_flushes_and_openings() {
    let (_directory, path) = written(true);
    let bytes = logged(&path);
    assert!((0..3).all(|round| holds(&bytes, &format!("logged-{round}"))), "a WAL file was deleted");
    // The same without LOG_BACKUP: RocksDB removes what it does not need, so the test can fail.
    let (_directory, path) = written(false);
    let bytes = logged(&path);
    assert!(!(0..3).all(|round| holds(&bytes, &format!("logged-{round}"))));
}

#[test]
fn a_conversion_hands_the_log_over() {
    let (_directory, path) = written(true);
    let before = attachment::read(&RealVfs::default(), &path).unwrap().unwrap();
    let sequence = {
        let engine = Engine::open(&path, options()).unwrap();
        engine.put("last before the conversion", "last-words").unwrap();
        engine.last_sequence()
    };
    let engine = Engine::open(&path, options().encoding(Hierarchical)).unwrap();
    assert_eq!(content(&engine).len(), sample(30).len() + 4);
    let bytes: Vec<u8> =
        wal_files(&path.join("unshipped")).into_iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    assert!((0..3).all(|round| holds(&bytes, &format!("logged-{round}"))) && holds(&bytes, "last-words"));
    let after = attachment::read(&RealVfs::default(), &path).unwrap().unwrap();
    assert_ne!(after.timeline, before.timeline);
    assert_eq!((after.cause, after.archive), (Cause::Conversion, before.archive));
    let parent = after.parent.unwrap();
    assert_eq!((parent.timeline, parent.end_sequence), (before.timeline, sequence));
    // Nobody has shipped it: another conversion would leave it behind, and is refused before it does anything.
    engine.close().unwrap();
    let names = common::bytes_below(path.parent().unwrap()).into_keys().collect::<Vec<_>>();
    assert_eq!(Engine::open(&path, options().encoding(Natural)).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(common::bytes_below(path.parent().unwrap()).into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn what_would_lose_the_log_is_refused() {
    let (_directory, path) = written(true);
    let error = Engine::open(&path, options().durability(Durability::NoWal)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let file = path.join("LOG_BACKUP");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, &good[..good.len() - 1]).unwrap();
    assert_eq!(Engine::open(&path, options()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(Engine::open(&path, options().encoding(Hierarchical)).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(&file, good).unwrap();
    Engine::open(&path, options()).unwrap();
}
