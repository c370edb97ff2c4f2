//! What other software and other people do to a place, and what is not ours to judge.

use super::common::{self, bytes_below, content, options, sample};
use super::{Sandbox, acknowledged, empty, interrupted, natural, paused, unswept};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::testing::{Database, Family, RealVfs, Settings};
use morphkv::{Durability, Engine, ErrorKind, Keep, OnMismatch};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CHILD_PATH: &str = "MORPHKV_TEST_OPEN_WITH_ROCKSDB";

/// Not a test of its own: another process, which opens the database with RocksDB itself, writes a key, and holds it open
/// as long as a file stands beside it.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD_PATH) else { return };
    let path = Path::new(&path);
    let database = rocksdb::DB::open_cf(&rocksdb::Options::default(), path, ["default", "morphkv.internal"]).unwrap();
    let mut synced = rocksdb::WriteOptions::default();
    synced.set_sync(true);
    database.put_opt("/written/by/another", "1", &synced).unwrap();
    std::fs::write(held(path), "").unwrap();
    while path.with_extension("hold").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn held(path: &Path) -> PathBuf {
    path.with_extension("held")
}

fn open_with_rocksdb(path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["others::child", "--exact", "--quiet"]).env(CHILD_PATH, path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn with_their_write(mut content: common::Content) -> common::Content {
    content.insert(b"/written/by/another".to_vec(), b"1".to_vec());
    content
}

#[test]
fn rocksdb_itself_is_kept_out_of_a_source() {
    let sandbox = natural();
    for trap in ["preflight-done", "rewrite-before", "staging-synced", "live-to-backup-moved"] {
        let conversion = paused(&sandbox.path, trap, |options| {
            let to: std::sync::Arc<dyn KeyEncoding> = match trap {
                "preflight-done" | "staging-synced" => std::sync::Arc::new(Hierarchical),
                _ => std::sync::Arc::new(Natural),
            };
            options.encoding(to)
        });
        let backup = sandbox.path.with_extension("backup");
        let source = if backup.exists() { &backup } else { &sandbox.path };
        let kept_out = !open_with_rocksdb(source).wait().unwrap().success();
        // Before anything is asserted: a process that ends while a thread still converts may die of it.
        let converted = conversion.go_on();
        assert!(kept_out, "{trap}: another process wrote into the source");
        assert_eq!(content(&converted.unwrap()), sample(60), "{trap}");
    }
    // The same process is let in once nobody is there, so the test can fail.
    assert!(open_with_rocksdb(&sandbox.path).wait().unwrap().success());
}

/// Other software that honours no lock: the source is not what was read of it, so it is not swapped out, and whoever asked
/// for the conversion is not told that it was done.
#[test]
fn a_source_that_was_changed_meanwhile_is_not_converted_and_that_is_told() {
    let sandbox = natural();
    let conversion = paused(&sandbox.path, "staging-synced", |options| options.encoding(Hierarchical));
    std::fs::write(sandbox.path.join("999999.sst"), "theirs").unwrap();
    let error = conversion.go_on().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert_eq!((engine.encoding().name.as_str(), content(&engine)), ("natural", sample(60)));
}

#[test]
fn a_recovery_does_not_move_what_rocksdb_has_open() {
    let sandbox = interrupted("live-to-backup-before");
    let recovery = paused(&sandbox.path, "live-to-backup-before", |options| options);
    let hold = sandbox.path.with_extension("hold");
    std::fs::write(&hold, "").unwrap();
    let mut child = open_with_rocksdb(&sandbox.path);
    while !held(&sandbox.path).exists() {
        assert!(child.try_wait().unwrap().is_none(), "RocksDB could not open live");
        std::thread::sleep(Duration::from_millis(2));
    }
    let error = recovery.go_on().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    std::fs::remove_file(&hold).unwrap();
    assert!(child.wait().unwrap().success());
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert_eq!(content(&engine), with_their_write(sample(60)));
}

#[test]
fn an_old_database_that_was_written_to_since_the_swap_stays() {
    let sandbox = unswept();
    let backup = sandbox.path.with_extension("backup");
    let database = Database::open(&RealVfs::default(), &backup, &Settings::default()).unwrap();
    database.put(Family::Data, b"theirs", b"1", Durability::Sync).unwrap();
    database.close().unwrap();
    for _ in 0..2 {
        assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), acknowledged());
    }
    let database = Database::open(&RealVfs::default(), &backup, &Settings::default()).unwrap();
    assert_eq!(&*database.get(Family::Data, b"theirs").unwrap().unwrap(), b"1");
}

#[test]
fn a_live_that_is_gone_after_the_swap_is_not_replaced_by_the_old_one() {
    let sandbox = unswept();
    let away = sandbox.path.with_extension("away");
    std::fs::rename(&sandbox.path, &away).unwrap();
    let before = bytes_below(sandbox.directory.path());
    for wanted in [options(), options().create_if_missing(true).encoding(Natural)] {
        assert_eq!(Engine::open(&sandbox.path, wanted).unwrap_err().kind(), ErrorKind::Refused);
    }
    assert_eq!(bytes_below(sandbox.directory.path()), before, "something was touched");
    std::fs::rename(&away, &sandbox.path).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), acknowledged());
}

#[test]
fn a_marker_over_a_plain_database_is_refused() {
    let (marked, plain) = (natural(), empty());
    let mut raw = rocksdb::Options::default();
    raw.create_if_missing(true);
    rocksdb::DB::open(&raw, &plain.path).unwrap().put("k", "v").unwrap();
    std::fs::copy(marked.path.join("KEY_ENCODING"), plain.path.join("KEY_ENCODING")).unwrap();
    for error in [
        Engine::open(&plain.path, options().encoding(Hierarchical)).unwrap_err(),
        Engine::open_read_only(&plain.path, options()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    }
    assert_eq!(rocksdb::DB::open(&raw, &plain.path).unwrap().get("k").unwrap().unwrap(), b"v");
}

/// Not opened and not made anew, and not a byte is touched.
fn assert_refused(sandbox: &Sandbox, what: &str) {
    let before = bytes_below(sandbox.directory.path());
    for wanted in
        [options(), options().create_if_missing(true), options().create_if_missing(true).encoding(Hierarchical)]
    {
        let error = Engine::open(&sandbox.path, wanted).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error:?}");
    }
    assert_eq!(bytes_below(sandbox.directory.path()), before, "{what}: something was touched");
}

#[test]
fn a_database_without_current_is_not_made_anew() {
    for gone in [&["CURRENT"][..], &["CURRENT", "KEY_ENCODING"], &["CURRENT", "KEY_ENCODING", "IDENTITY"]] {
        let sandbox = natural();
        gone.iter().for_each(|name| std::fs::remove_file(sandbox.path.join(name)).unwrap());
        assert_refused(&sandbox, &gone.join(" and "));
    }
    let sandbox = natural();
    std::fs::rename(&sandbox.path, sandbox.path.with_extension("trash")).unwrap();
    assert_refused(&sandbox, "only trash is left");
}

#[test]
fn what_a_rewrite_would_not_carry_is_refused() {
    let refused = |sandbox: &Sandbox, words: &str| {
        let names = bytes_below(sandbox.directory.path()).into_keys().collect::<Vec<_>>();
        let error = Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.message().contains(words) && error.message().contains("the data is intact"), "{error}");
        assert_eq!(bytes_below(sandbox.directory.path()).into_keys().collect::<Vec<_>>(), names);
    };
    let raw = |sandbox: &Sandbox, set: fn(&mut rocksdb::Options), extra: &[&str], write: fn(&rocksdb::DB)| {
        let mut options = rocksdb::Options::default();
        options.create_missing_column_families(true);
        set(&mut options);
        let names = ["default", "morphkv.internal"].into_iter().chain(extra.iter().copied());
        let families = names.map(|name| rocksdb::ColumnFamilyDescriptor::new(name, options.clone()));
        let database = rocksdb::DB::open_cf_descriptors(&options, &sandbox.path, families).unwrap();
        write(&database);
        database.flush().unwrap();
    };
    let sandbox = natural();
    raw(
        &sandbox,
        |_| {},
        &["theirs"],
        |database| {
            database.put_cf(database.cf_handle("theirs").unwrap(), "k", "v").unwrap();
        },
    );
    refused(&sandbox, "theirs");
    let sandbox = natural();
    let merging = |options: &mut rocksdb::Options| {
        options.set_merge_operator_associative("concatenate", |_, old, operands| {
            Some(old.into_iter().chain(operands).flatten().copied().collect())
        });
    };
    raw(&sandbox, merging, &[], |database| database.merge("plain-2", "more").unwrap());
    refused(&sandbox, "merge operands");
    let sandbox = natural();
    raw(&sandbox, |options| options.set_enable_blob_files(true), &[], |database| database.put("k", "v").unwrap());
    refused(&sandbox, "blob files");
}

#[test]
fn a_conversion_that_was_forbidden_does_not_happen() {
    let sandbox = natural();
    let before = bytes_below(sandbox.directory.path());
    let strict = || options().on_mismatch(OnMismatch::Refuse);
    let error = Engine::open(&sandbox.path, strict().encoding(Hierarchical)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert_eq!(bytes_below(sandbox.directory.path()), before, "something was touched");
    assert_eq!(content(&Engine::open(&sandbox.path, strict().encoding(Natural)).unwrap()), sample(60));
}

#[test]
fn what_is_destroyed_does_not_come_back() {
    let sandbox = natural();
    drop(Engine::open(&sandbox.path, options().encoding(Hierarchical).keep_backup(Keep::Yes)).unwrap());
    assert!(Engine::destroy(&sandbox.path, options()).unwrap());
    assert_eq!(bytes_below(sandbox.directory.path()).into_keys().collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(Engine::open(&sandbox.path, options()).unwrap_err().kind(), ErrorKind::NotFound);
    let engine = Engine::open(&sandbox.path, options().create_if_missing(true)).unwrap();
    assert_eq!(content(&engine).len(), 0);
}
