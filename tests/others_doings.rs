//! What people, other software and bad luck do to a place between a crash and the next open: nothing whole is thrown
//! away for something that is not, nothing of others is removed, and nothing stays stuck that can go on.
#![cfg(feature = "traps")]

mod common;

use common::{Content, content, make, options, sample, scratch};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::testing::{RealVfs, TrapPlan};
use morphkv::{Engine, ErrorKind, Keep, manage};
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Sandbox {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn natural() -> Sandbox {
    let directory = scratch();
    let path = directory.path().join("db");
    make(&path, Arc::new(Natural), &sample(60));
    Sandbox { _directory: directory, path }
}

/// Converts with a failure at the trap, as a crash there leaves the place.
fn interrupted(trap: &str, keep: Keep) -> Sandbox {
    let sandbox = natural();
    convert_until(&sandbox.path, trap, keep);
    sandbox
}

fn convert_until(path: &Path, trap: &str, keep: Keep) {
    let plan = TrapPlan::parse(&format!("{trap}=error")).unwrap();
    let vfs = Arc::new(RealVfs::with_traps(Arc::new(plan)));
    Engine::open(path, options().vfs(vfs).keep_backup(keep).encoding(Hierarchical)).unwrap_err();
}

fn kept() -> Sandbox {
    let sandbox = natural();
    let engine = Engine::open(&sandbox.path, options().encoding(Hierarchical).keep_backup(Keep::Yes)).unwrap();
    engine.put(b"/acknowledged", b"1").unwrap();
    engine.close().unwrap();
    sandbox
}

fn acknowledged() -> Content {
    let mut content = sample(60);
    content.insert(b"/acknowledged".to_vec(), b"1".to_vec());
    content
}

fn remove_wal(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "log") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_source_that_has_lost_files_is_not_one_that_moved_on() {
    // Somebody "cleans up the logs" of live while the sealed new database waits to be swapped in.
    let sandbox = interrupted("live-to-backup-before", Keep::No);
    let staging = sandbox.path.with_extension("converting");
    remove_wal(&sandbox.path);
    let error = Engine::open(&sandbox.path, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.message().contains("missing or damaged"), "{error}");
    assert!(staging.join("KEY_ENCODING").exists(), "the only whole copy was thrown away");
    // The same with the old database in the backup directory: the new one is whole, and goes on to live.
    let sandbox = interrupted("staging-to-live-before", Keep::No);
    std::fs::remove_file(sandbox.path.with_extension("backup").join("CURRENT")).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn a_rollback_opens_the_old_database_before_the_new_one_goes() {
    let sandbox = kept();
    let backup = sandbox.path.with_extension("backup");
    let manifest = std::fs::read_dir(&backup)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.display().to_string().contains("MANIFEST-"))
        .unwrap();
    let good = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, vec![0x5a; good.len()]).unwrap();
    let error = manage::rollback(&sandbox.path, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), acknowledged());
    std::fs::write(&manifest, good).unwrap();
    assert_eq!(manage::rollback(&sandbox.path, &options()).unwrap().lost_writes, Some(1));
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn a_kept_database_gives_way_only_to_one_that_is_ready() {
    // The replacing conversion fails at each of these; the kept one can still be rolled back to.
    for trap in ["preflight-done", "rewrite-before", "staging-synced", "journal-ready-before"] {
        let sandbox = kept();
        let plan = TrapPlan::parse(&format!("{trap}=error:NoSpace")).unwrap();
        let vfs = Arc::new(RealVfs::with_traps(Arc::new(plan)));
        let wanted = options().vfs(vfs).encoding(Natural).keep_backup(Keep::Replace);
        assert_eq!(Engine::open(&sandbox.path, wanted).unwrap_err().kind(), ErrorKind::NoSpace, "{trap}");
        manage::rollback(&sandbox.path, &options()).unwrap_or_else(|error| panic!("{trap}: {error:?}"));
        assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60), "{trap}");
    }
    // It goes through: what is kept then is the database from before this conversion.
    let sandbox = kept();
    drop(Engine::open(&sandbox.path, options().encoding(Natural).keep_backup(Keep::Replace)).unwrap());
    manage::rollback(&sandbox.path, &options()).unwrap();
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert_eq!((engine.encoding().name.as_str(), content(&engine)), ("hierarchical", acknowledged()));
}

#[test]
fn a_key_that_cannot_be_carried_does_not_cost_the_kept_database() {
    let sandbox = natural();
    drop(Engine::open(&sandbox.path, options().encoding(Hierarchical).keep_backup(Keep::Yes)).unwrap());
    manage::rollback(&sandbox.path, &options()).unwrap();
    drop(Engine::open(&sandbox.path, options().encoding(Hierarchical).keep_backup(Keep::Yes)).unwrap());
    struct Picky;
    impl KeyEncoding for Picky {
        fn name(&self) -> &str {
            "picky"
        }
        fn revision(&self) -> u32 {
            1
        }
        fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> morphkv::Result<()> {
            if key.starts_with(b"/users/7") {
                return Err(morphkv::Error::new(ErrorKind::Unrepresentable, "encode a key", "not this one"));
            }
            out.extend_from_slice(key);
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> morphkv::Result<()> {
            out.extend_from_slice(encoded);
            Ok(())
        }
    }
    let error = Engine::open(&sandbox.path, options().encoding(Picky).keep_backup(Keep::Replace)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unrepresentable, "{error:?}");
    manage::rollback(&sandbox.path, &options()).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn a_wal_that_is_damaged_in_the_middle_is_not_converted_into_a_hole() {
    let directory = scratch();
    let (path, cut) = (directory.path().join("db"), directory.path().join("cut"));
    make(&path, Arc::new(Natural), &Content::new());
    let mut raw = rocksdb::Options::default();
    raw.set_max_write_buffer_number(40);
    raw.set_min_write_buffer_number_to_merge(30);
    raw.set_write_buffer_size(64 << 10);
    let families = ["default", "morphkv.internal"].map(|name| rocksdb::ColumnFamilyDescriptor::new(name, raw.clone()));
    let database = rocksdb::DB::open_cf_descriptors(&raw, &path, families).unwrap();
    for number in 0..300u32 {
        database.put(format!("{number:04}"), vec![number as u8; 1000]).unwrap();
    }
    common::copy_tree(&path, &cut);
    drop(database);
    let files = std::fs::read_dir(&cut).unwrap().map(|entry| entry.unwrap().path());
    let mut wals: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    wals.sort();
    assert!(wals.len() > 3, "{wals:?}");
    let middle = &wals[wals.len() - 3];
    let len = middle.metadata().unwrap().len();
    std::fs::File::options().write(true).open(middle).unwrap().set_len(len - 5000).unwrap();
    let error = Engine::open(&cut, options().encoding(Hierarchical)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.message().contains("in the middle"), "{error}");
    // Opened as it is, RocksDB ends before the damage: a prefix, without a hole.
    let engine = Engine::open(&cut, options()).unwrap();
    let numbers: Vec<u32> = content(&engine).keys().map(|key| String::from_utf8_lossy(key).parse().unwrap()).collect();
    assert!(!numbers.is_empty() && numbers.len() < 300);
    assert!(numbers.iter().copied().eq(0..numbers.len() as u32));
}

#[test]
fn wal_files_that_lie_elsewhere_are_not_left_behind() {
    for link in [false, true] {
        for legacy in [false, true] {
            let directory = scratch();
            let (path, real) = (directory.path().join("db"), directory.path().join("wal-files"));
            std::fs::create_dir(&real).unwrap();
            let wal = if link { directory.path().join("link") } else { real.clone() };
            if link {
                std::os::unix::fs::symlink(&real, &wal).unwrap();
            }
            let mut raw = rocksdb::Options::default();
            raw.create_if_missing(true);
            raw.set_wal_dir(&wal);
            if legacy {
                raw.set_comparator("oxia-slash-spans", Box::new(|a: &[u8], b: &[u8]| a.cmp(b)));
            }
            let database = rocksdb::DB::open(&raw, &path).unwrap();
            database.put("in the WAL", "2").unwrap();
            database.flush_wal(true).unwrap();
            drop(database);
            let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
            let error = match legacy {
                false => manage::adopt(&path, &natural, &options()).unwrap_err(),
                true => Engine::open(&path, options().encoding(Hierarchical)).unwrap_err(),
            };
            assert_eq!(error.kind(), ErrorKind::Unsupported, "link {link} legacy {legacy}: {error:?}");
            if legacy {
                let error = Engine::open_read_only(&path, options()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            }
            let database = rocksdb::DB::open(&raw, &path).unwrap();
            assert_eq!(database.get("in the WAL").unwrap().unwrap(), b"2");
        }
    }
}

#[test]
fn folders_of_others_inside_a_database_stay() {
    let directory = scratch();
    let path = directory.path().join("db");
    let mut raw = rocksdb::Options::default();
    raw.create_if_missing(true);
    rocksdb::DB::open(&raw, &path).unwrap().put("k", "v").unwrap();
    std::fs::create_dir(path.join("output")).unwrap();
    std::fs::write(path.join("output/thesis"), "x").unwrap();
    let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
    manage::adopt(&path, &natural, &options()).unwrap();
    drop(Engine::open(&path, options()).unwrap());
    drop(Engine::open_read_only(&path, options()).unwrap());
    assert!(path.join("output/thesis").exists());
}

#[test]
fn a_directory_that_appears_at_stagings_name_during_preflight_stays() {
    let sandbox = natural();
    let pause = sandbox.path.with_extension("pause");
    let plan = TrapPlan::parse(&format!("preflight-done=pause:{}", pause.display())).unwrap();
    let vfs = Arc::new(RealVfs::with_traps(Arc::new(plan)));
    let path = sandbox.path.clone();
    let converting = std::thread::spawn(move || Engine::open(path, options().vfs(vfs).encoding(Hierarchical)));
    while !pause.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let stranger = sandbox.path.with_extension("converting");
    std::fs::create_dir(&stranger).unwrap();
    std::fs::write(stranger.join("theirs"), "x").unwrap();
    std::fs::remove_file(&pause).unwrap();
    converting.join().unwrap().unwrap_err();
    assert!(stranger.join("theirs").exists(), "it was removed");
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn strangers_beside_a_kept_database_stay_and_do_not_stop_it() {
    for name in ["trash", "converting"] {
        let sandbox = kept();
        let stranger = sandbox.path.with_extension(name);
        std::fs::create_dir(&stranger).unwrap();
        std::fs::write(stranger.join("theirs"), "x").unwrap();
        assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), acknowledged(), "{name}");
        assert_eq!(manage::drop_backup(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::Conflict, "{name}");
        assert_eq!(manage::rollback(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::Conflict, "{name}");
        assert_eq!(Engine::destroy(&sandbox.path, options()).unwrap_err().kind(), ErrorKind::Conflict, "{name}");
        assert!(stranger.join("theirs").exists(), "{name}");
        std::fs::remove_dir_all(&stranger).unwrap();
        manage::rollback(&sandbox.path, &options()).unwrap();
    }
}

#[test]
fn a_refused_rollback_does_not_happen_later() {
    let sandbox = kept();
    let away = sandbox.path.with_extension("away");
    std::fs::rename(&sandbox.path, &away).unwrap();
    std::fs::create_dir(&sandbox.path).unwrap();
    std::fs::write(sandbox.path.join("something else"), "x").unwrap();
    assert_eq!(manage::rollback(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::Refused);
    std::fs::remove_dir_all(&sandbox.path).unwrap();
    std::fs::rename(&away, &sandbox.path).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), acknowledged());
}

#[test]
fn a_damaged_live_that_only_its_identity_tells_can_be_rolled_back() {
    let sandbox = kept();
    std::fs::remove_file(sandbox.path.join("KEY_ENCODING")).unwrap();
    std::fs::remove_file(sandbox.path.join("OWNER")).unwrap();
    let error = Engine::open(&sandbox.path, options()).unwrap_err();
    assert!(error.next_command().unwrap().contains("rollback"), "{error:?}");
    manage::rollback(&sandbox.path, &options()).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn a_kept_database_that_was_changed_is_not_dropped_unasked() {
    let sandbox = kept();
    let backup = sandbox.path.with_extension("backup");
    let vfs = RealVfs::default();
    let database = morphkv::testing::Database::open(&vfs, &backup, &morphkv::testing::Settings::default()).unwrap();
    database.put(morphkv::testing::Family::Data, b"mine", b"1", morphkv::Durability::Sync).unwrap();
    database.close().unwrap();
    assert_eq!(manage::drop_backup(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), acknowledged());
    assert!(backup.join("CURRENT").exists());
}

/// A database with more SST files than RocksDB looks at when it opens one.
fn many_files() -> (Sandbox, Content) {
    let sandbox = natural();
    let engine = Engine::open(&sandbox.path, options().write_buffer_bytes(64 << 10)).unwrap();
    let mut wanted = sample(60);
    for file in 0..24 {
        // Disjoint ranges, so that nothing is compacted into one.
        let entries: Vec<_> =
            (0..20).map(|n| (format!("/many/{file:02}/{n:02}").into_bytes(), vec![b'x'; 50])).collect();
        engine.ingest(entries.iter().cloned().map(Ok)).unwrap();
        wanted.extend(entries);
    }
    engine.close().unwrap();
    (sandbox, wanted)
}

fn sst_files(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut ssts: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
    ssts.sort();
    ssts
}

#[test]
fn a_missing_sst_file_that_rocksdb_does_not_look_at_is_seen_all_the_same() {
    let (sandbox, wanted) = many_files();
    let count = sst_files(&sandbox.path).len();
    assert!(count > 16, "{count}");
    for index in [0, count / 2, count - 1] {
        let copy = scratch();
        common::copy_tree(sandbox.path.parent().unwrap(), copy.path());
        let path = copy.path().join("db");
        convert_until(&path, "live-to-backup-before", Keep::No);
        let victim = &sst_files(&path)[index];
        let bytes = std::fs::read(victim).unwrap();
        std::fs::remove_file(victim).unwrap();
        let error = Engine::open(&path, options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{index}: {error:?}");
        assert!(path.with_extension("converting").join("KEY_ENCODING").exists(), "{index}: the whole copy is gone");
        std::fs::write(victim, bytes).unwrap();
        assert_eq!(content(&Engine::open(&path, options()).unwrap()), wanted, "{index}");
    }
}

#[test]
fn a_lost_wal_is_seen_although_the_manifest_knows_a_later_sequence() {
    let sandbox = natural();
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    engine.flush().unwrap();
    engine.put("only in the WAL", "1").unwrap();
    // Over a key that is in a file: it takes the next sequence number, and the MANIFEST records that.
    engine.ingest([Ok((&b""[..], &b"the empty key"[..]))]).unwrap();
    engine.close().unwrap();
    convert_until(&sandbox.path, "live-to-backup-before", Keep::No);
    remove_wal(&sandbox.path);
    let error = Engine::open(&sandbox.path, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(sandbox.path.with_extension("converting").join("KEY_ENCODING").exists(), "the whole copy is gone");
}

#[test]
fn a_copy_made_while_a_conversion_is_being_built_does_not_stop_the_database() {
    let sandbox = natural();
    let mut raw = None;
    for trap in ["rewrite-before", "staging-synced"] {
        // A crash: the error's own clean-up is kept from happening by a second failure.
        let plan = TrapPlan::parse(&format!("{trap}=error,to-trash-before=error")).unwrap();
        let vfs = Arc::new(RealVfs::with_traps(Arc::new(plan)));
        Engine::open(&sandbox.path, options().vfs(vfs).encoding(Hierarchical)).unwrap_err();
        let copy = sandbox.path.with_extension("backup");
        if raw.is_none() {
            common::copy_tree(&sandbox.path, &copy);
            raw = Some(common::bytes_below(&copy));
        }
        assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60), "{trap}");
        assert_eq!(Some(common::bytes_below(&copy)), raw, "{trap}");
        std::fs::rename(&copy, sandbox.path.with_extension("away")).unwrap();
        raw = None;
        let _ = std::fs::remove_dir_all(sandbox.path.with_extension("away"));
    }
}

#[test]
fn a_wal_directory_that_is_the_database_itself_by_another_name_is_no_obstacle() {
    let directory = scratch();
    let (path, link) = (directory.path().join("db"), directory.path().join("link"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for wal in [path.clone(), link, PathBuf::from("db"), PathBuf::from("."), directory.path().join("gone")] {
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        let mut raw = rocksdb::Options::default();
        raw.create_if_missing(true);
        let database = rocksdb::DB::open(&raw, &path).unwrap();
        database.put("in the WAL", "2").unwrap();
        drop(database);
        // As another version of RocksDB records it.
        let files = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        let recorded = files.filter(|path| path.display().to_string().contains("OPTIONS-")).max().unwrap();
        let text = std::fs::read_to_string(&recorded).unwrap();
        let text: Vec<_> = text
            .lines()
            .map(|line| {
                if line.trim().starts_with("wal_dir=") {
                    format!("  wal_dir={}", wal.display())
                } else {
                    line.to_owned()
                }
            })
            .collect();
        std::fs::write(&recorded, text.join("\n")).unwrap();
        let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
        manage::adopt(&path, &natural, &options()).unwrap_or_else(|error| panic!("{}: {error:?}", wal.display()));
        let engine = Engine::open(&path, options()).unwrap();
        assert_eq!(&*engine.get("in the WAL").unwrap().unwrap(), b"2");
    }
}
