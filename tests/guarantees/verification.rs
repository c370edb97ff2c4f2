//! What is verified: a new database that is not what was read, or a source that is not what it was.

use super::common::{self, content, make, options, sample};
use super::{Sandbox, empty, natural, paused};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::testing::{Database, Family, RealVfs, Settings};
use morphkv::{Durability, Engine, ErrorKind, Verify};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Converts, lets `alter` loose on staging when it is complete and not yet verified, and gives the error.
fn altered(verify: Verify, alter: impl FnOnce(&Database)) -> morphkv::Error {
    let sandbox = natural();
    let conversion = paused(&sandbox.path, "staging-synced", |options| options.encoding(Hierarchical).verify(verify));
    let staging = sandbox.path.with_extension("converting");
    let database = Database::open(&RealVfs::default(), &staging, &Settings::default()).unwrap();
    alter(&database);
    database.close().unwrap();
    let error = conversion.go_on().unwrap_err();
    assert!(!staging.exists(), "staging stays");
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert_eq!((engine.encoding().name.as_str(), content(&engine)), ("natural", sample(60)));
    error
}

fn encoded(key: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    Hierarchical.encode(key, &mut encoded).unwrap();
    encoded
}

#[test]
fn a_new_database_that_is_not_what_was_read_is_never_swapped_in() {
    let put = |family, key: Vec<u8>| {
        move |database: &Database| database.put(family, &key, b"another", Durability::Sync).unwrap()
    };
    for verify in [Verify::Full, Verify::Both] {
        let error = altered(verify, put(Family::Data, encoded(b"plain-2")));
        assert!(error.kind() == ErrorKind::Corrupt && error.message().starts_with("content: "), "{error:?}");
        let error = altered(verify, |database| {
            database.delete(Family::Data, &encoded(b"plain-2"), Durability::Sync).unwrap();
        });
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    }
    let error = altered(Verify::Full, put(Family::Internal, b"u/offset".to_vec()));
    assert!(error.kind() == ErrorKind::Corrupt && error.message().starts_with("internal records"), "{error:?}");
    let error = altered(Verify::Full, |database| {
        database.delete(Family::Internal, b"e/identity", Durability::Sync).unwrap();
    });
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
}

#[test]
fn counts_are_compared_even_where_the_digest_is_not() {
    let error = altered(Verify::Counts, |database| {
        database.put(Family::Data, &encoded(b"one more"), b"", Durability::Sync).unwrap();
        database.flush().unwrap();
    });
    assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("entries in its files"), "{error:?}");
}

fn large() -> (Sandbox, common::Content) {
    let sandbox = empty();
    let many: common::Content = (0..4000).map(|n| (format!("/key/{n}").into_bytes(), vec![n as u8; 400])).collect();
    make(&sandbox.path, Arc::new(Natural), &many);
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    (sandbox, many)
}

fn flip_the_middle(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

fn largest_sst(directory: &Path) -> PathBuf {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let ssts = files.filter(|path| path.extension().is_some_and(|end| end == "sst"));
    ssts.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn a_source_that_rots_after_it_was_read_is_noticed_where_both_are_read() {
    let (sandbox, many) = large();
    let conversion =
        paused(&sandbox.path, "staging-synced", |options| options.encoding(Hierarchical).verify(Verify::Both));
    let file = largest_sst(&sandbox.path);
    flip_the_middle(&file);
    let error = conversion.go_on().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    flip_the_middle(&file);
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), many);
}

#[test]
fn what_is_sealed_is_what_was_synced() {
    let sandbox = natural();
    let staging = sandbox.path.with_extension("converting");
    let synced = Arc::new(std::sync::Mutex::new(None));
    let (seen, watched) = (synced.clone(), staging.clone());
    // What is noted of the verification itself is no part of what is sealed.
    let below = |staging: &Path| {
        let mut files = common::bytes_below(staging);
        files.remove("PROGRESS").expect("it stands until the seal");
        files
    };
    let witness = move |operation: &morphkv::testing::Operation| match operation {
        morphkv::testing::Operation::Trap(morphkv::testing::Trap::StagingSynced) => {
            *seen.lock().unwrap() = Some(below(&watched));
        }
        morphkv::testing::Operation::Trap(morphkv::testing::Trap::VerifyAfter) => {
            assert!(Some(below(&watched)) == *seen.lock().unwrap(), "verification wrote into staging");
        }
        _ => {}
    };
    let vfs = morphkv::testing::RecordingVfs::watched(Arc::new(RealVfs::default()), witness);
    drop(Engine::open(&sandbox.path, options().vfs(Arc::new(vfs)).encoding(Hierarchical)).unwrap());
    assert!(synced.lock().unwrap().take().is_some_and(|files| files.len() > 4), "it was not looked at");
}
