//! Bad input: each gets a typed error, says what to do next, and loses nothing.
#![cfg(feature = "traps")]

mod common;
#[path = "crash/scenario.rs"]
#[allow(dead_code)]
mod scenario;

use common::{bytes_below, content, make, options, sample};
use morphkv::encoding::{EncodingId, Hierarchical, KeyEncoding, Natural};
use morphkv::testing::{Database, Family, Settings, marker};
use morphkv::{Durability, Engine, ErrorKind, Keep, manage};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

struct Sandbox {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn empty() -> Sandbox {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    Sandbox { directory, path }
}

fn natural() -> Sandbox {
    let sandbox = empty();
    make(&sandbox.path, Arc::new(Natural), &sample(60));
    sandbox
}

/// Opening, reading and converting are all refused with this kind, and not a byte is touched.
fn refused(sandbox: &Sandbox, kind: ErrorKind, words: &str) {
    let before = bytes_below(sandbox.directory.path());
    let opened = Engine::open(&sandbox.path, options()).unwrap_err();
    let converted = Engine::open(&sandbox.path, options().encoding(Hierarchical).create_if_missing(true)).unwrap_err();
    let read = Engine::open_read_only(&sandbox.path, options()).unwrap_err();
    for error in [opened, converted, read] {
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(bytes_below(sandbox.directory.path()), before, "something was touched");
}

#[test]
fn bad_markers() {
    let sandbox = natural();
    let file = sandbox.path.join("KEY_ENCODING");
    let good = std::fs::read(&file).unwrap();
    for (bytes, words) in [
        (&b""[..], "empty"),
        (&good[..good.len() / 2], "torn"),
        (b"natural\n", "torn"),
        (&[good.as_slice(), b"\n"].concat(), "torn"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        refused(&sandbox, ErrorKind::Refused, words);
        refused(&sandbox, ErrorKind::Refused, "the data is intact");
    }
    let parsed = marker::from_bytes(&good).unwrap();
    let future = marker::to_bytes(&morphkv::Marker { format: 2, ..parsed.clone() }).unwrap();
    std::fs::write(&file, future).unwrap();
    refused(&sandbox, ErrorKind::Unsupported, "format 2");
    for (name, revision) in [("zigzag", 1), ("natural", 2)] {
        let encoding = EncodingId { name: name.into(), revision };
        std::fs::write(&file, marker::to_bytes(&morphkv::Marker { encoding, ..parsed.clone() }).unwrap()).unwrap();
        refused(&sandbox, ErrorKind::UnknownEncoding, name);
    }
    let foreign = morphkv::Marker { encoding: EncodingId::of(&Hierarchical), ..parsed.clone() };
    std::fs::write(&file, marker::to_bytes(&foreign).unwrap()).unwrap();
    for error in [
        Engine::open_read_only(&sandbox.path, options()).unwrap_err(),
        Engine::open(&sandbox.path, options()).unwrap_err(),
        Engine::open(&sandbox.path, options().encoding(Natural)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    }
    std::fs::write(&file, &good).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn a_marker_of_another_database() {
    let (one, other) = (natural(), natural());
    std::fs::copy(other.path.join("KEY_ENCODING"), one.path.join("KEY_ENCODING")).unwrap();
    let error = Engine::open(&one.path, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.next_command().unwrap().starts_with("morphkv inspect"), "{error:?}");
}

#[test]
fn a_lost_marker_is_made_again_by_adopting_and_never_with_another_encoding() {
    let sandbox = natural();
    let file = sandbox.path.join("KEY_ENCODING");
    let lost = marker::from_bytes(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    refused(&sandbox, ErrorKind::Refused, "without a marker");
    let hierarchical: Arc<dyn KeyEncoding> = Arc::new(Hierarchical);
    assert_eq!(manage::adopt(&sandbox.path, &hierarchical, &options()).unwrap_err().kind(), ErrorKind::Conflict);
    let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
    let found = manage::adopt(&sandbox.path, &natural, &options()).unwrap();
    assert_eq!((found.database_id, found.origin), (lost.database_id, lost.origin));
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn a_plain_rocksdb_database() {
    let sandbox = empty();
    scenario::plain(&sandbox.path, &sample(60));
    refused(&sandbox, ErrorKind::Refused, "without a marker");
    let error = Engine::open(&sandbox.path, options()).unwrap_err();
    assert_eq!(error.next_command().unwrap(), format!("morphkv adopt {} --encoding natural", sandbox.path.display()));
    let hierarchical: Arc<dyn KeyEncoding> = Arc::new(Hierarchical);
    assert_eq!(manage::adopt(&sandbox.path, &hierarchical, &options()).unwrap_err().kind(), ErrorKind::Corrupt);
    let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
    manage::adopt(&sandbox.path, &natural, &options()).unwrap();
    let engine = Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap();
    assert_eq!(content(&engine), sample(60));
}

#[test]
fn a_legacy_database_is_read_and_converted_but_not_written() {
    let sandbox = empty();
    scenario::legacy(&sandbox.path, &sample(60));
    let error = Engine::open(&sandbox.path, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.next_command().unwrap().contains("--to hierarchical"), "{error:?}");
    assert_eq!(manage::digest(&sandbox.path, &options()).unwrap().entries, sample(60).len() as u64);
    let digest = manage::digest(&sandbox.path, &options()).unwrap();
    let engine = Engine::open(&sandbox.path, options().encoding(Natural)).unwrap();
    assert_eq!(content(&engine), sample(60));
    engine.close().unwrap();
    assert_eq!(manage::digest(&sandbox.path, &options()).unwrap(), digest);
}

#[test]
fn keys_that_the_wanted_encoding_cannot_carry() {
    let sandbox = natural();
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    for number in 0..15 {
        engine
            .put(
                format!("bad{number:02}").into_bytes().iter().chain(&[0xff]).copied().collect::<Vec<_>>().as_slice(),
                b"x",
            )
            .unwrap();
    }
    engine.close().unwrap();
    let before = bytes_below(sandbox.directory.path());
    let error = Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unrepresentable);
    for number in 0..10 {
        assert!(error.message().contains(&format!("bad{number:02}\\xff")), "{error}");
    }
    assert!(!error.message().contains("bad10"), "{error}");
    assert_eq!(bytes_below(sandbox.directory.path()).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()).len(), sample(60).len() + 15);
}

#[test]
fn an_iterator_that_fails_half_way_ends_the_conversion() {
    let sandbox = empty();
    let many: common::Content = (0..4000).map(|n| (format!("/key/{n}").into_bytes(), vec![n as u8; 400])).collect();
    make(&sandbox.path, Arc::new(Natural), &many);
    Engine::open(&sandbox.path, options()).unwrap().flush().unwrap();
    let sst = largest_sst(&sandbox.path);
    let mut bytes = std::fs::read(&sst).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&sst, &bytes).unwrap();
    let before = bytes_below(sandbox.directory.path());
    let error = Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(bytes_below(sandbox.directory.path()), before, "something was touched");
    let verification = manage::verify(&sandbox.path, &options()).unwrap();
    assert!(!verification.ok && !verification.findings.is_empty());
    bytes[middle] ^= 1;
    std::fs::write(&sst, &bytes).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap()), many);
}

#[test]
fn column_families_that_are_not_ours() {
    let sandbox = empty();
    std::fs::create_dir(&sandbox.path).unwrap();
    let mut raw = rocksdb::Options::default();
    raw.create_if_missing(true);
    raw.create_missing_column_families(true);
    let database = rocksdb::DB::open_cf(&raw, &sandbox.path, ["default", "theirs"]).unwrap();
    database.put(b"a", b"1").unwrap();
    drop(database);
    let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
    let error = manage::adopt(&sandbox.path, &natural, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("theirs"), "{error}");
    let database = rocksdb::DB::open_cf(&raw, &sandbox.path, ["default", "theirs"]).unwrap();
    assert_eq!(database.get(b"a").unwrap().unwrap(), b"1");
}

#[test]
fn symbolic_links_at_any_of_the_names() {
    for suffix in ["", ".lock", ".conversion", ".converting", ".backup", ".trash"] {
        let sandbox = natural();
        let name = PathBuf::from(format!("{}{suffix}", sandbox.path.display()));
        let elsewhere = sandbox.directory.path().join("elsewhere");
        if suffix == ".lock" {
            std::fs::remove_file(&name).unwrap();
        }
        if suffix.is_empty() {
            std::fs::rename(&name, &elsewhere).unwrap();
        } else {
            std::fs::create_dir(&elsewhere).unwrap();
            std::fs::write(elsewhere.join("kept"), "x").unwrap();
        }
        symlink(&elsewhere, &name).unwrap();
        let error = Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::Conflict), "{suffix}: {error:?}");
        assert!(suffix.is_empty() || elsewhere.join("kept").exists(), "{suffix}: followed");
        std::fs::remove_file(&name).unwrap();
        if suffix.is_empty() {
            std::fs::rename(&elsewhere, &name).unwrap();
        }
        assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60), "{suffix}");
    }
}

#[test]
fn reserved_and_hostile_names() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["x.backup", "x.converting", "x.trash", "x.lock", "x.conversion", "x.restore", ".."] {
        let error = Engine::open(directory.path().join(name), options().create_if_missing(true));
        assert!(error.is_err(), "{name}");
    }
    assert!(bytes_below(directory.path()).is_empty());
    let missing = Engine::open(directory.path().join("no/such/db"), options().create_if_missing(true)).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn a_second_opener_in_this_process() {
    let sandbox = natural();
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    let clone = engine.clone();
    // The lock of the place, before RocksDB's own.
    let told =
        |refused: morphkv::Error| refused.kind() == ErrorKind::Locked && refused.message().contains("it is in use");
    assert!(told(Engine::open(&sandbox.path, options()).unwrap_err()));
    assert!(told(Engine::open_read_only(&sandbox.path, options()).unwrap_err()));
    assert!(told(Engine::destroy(&sandbox.path, options()).unwrap_err()));
    drop(engine);
    assert!(told(Engine::open(&sandbox.path, options()).unwrap_err()));
    drop(clone);
    Engine::open(&sandbox.path, options()).unwrap();
}

/// RocksDB's own tool, if the machine has it.
fn ldb() -> Option<()> {
    if Command::new("ldb").arg("--version").output().is_err() {
        println!("skipped: no `ldb` here (Debian package rocksdb-tools)");
        return None;
    }
    Some(())
}

fn ldb_put(path: &Path, key: &str, value: &str) -> bool {
    let output = Command::new("ldb")
        .args(["--ignore_unknown_options", "--try_load_options=false", "put", key, value])
        .arg(format!("--db={}", path.display()))
        .output()
        .unwrap();
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("OK")
}

#[test]
fn rocksdbs_own_tool_is_kept_out_while_the_database_is_open_and_while_it_converts() {
    if ldb().is_none() {
        return;
    }
    let sandbox = empty();
    scenario::plain(&sandbox.path, &sample(60));
    let lock = std::fs::File::options().read(true).write(true).open(sandbox.path.join("LOCK")).unwrap();
    drop(lock);
    let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
    manage::adopt(&sandbox.path, &natural, &options()).unwrap();
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert!(!ldb_put(&sandbox.path, "intruder", "1"), "ldb wrote into an open database");
    engine.close().unwrap();
    // A conversion that pauses before it reads: the tool must be kept out by RocksDB's own lock.
    let pause = sandbox.directory.path().join("pause");
    let plan = morphkv::testing::TrapPlan::parse(&format!("rewrite-before=pause:{}", pause.display())).unwrap();
    let vfs = Arc::new(morphkv::testing::RealVfs::with_traps(Arc::new(plan)));
    let path = sandbox.path.clone();
    let converting = std::thread::spawn(move || Engine::open(path, options().vfs(vfs).encoding(Hierarchical)));
    while !pause.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(!ldb_put(&sandbox.path, "intruder", "1"), "ldb wrote into the source of a conversion");
    std::fs::remove_file(&pause).unwrap();
    let engine = converting.join().unwrap().unwrap();
    assert_eq!(content(&engine), sample(60));
}

/// Puts a place into the state after sealing and before the swap, as a crash there leaves it.
fn sealed() -> Sandbox {
    let sandbox = natural();
    let plan = morphkv::testing::TrapPlan::parse("live-to-backup-before=error").unwrap();
    let vfs = Arc::new(morphkv::testing::RealVfs::with_traps(Arc::new(plan)));
    Engine::open(&sandbox.path, options().vfs(vfs).encoding(Hierarchical)).unwrap_err();
    assert!(sandbox.path.with_extension("converting").join("KEY_ENCODING").exists());
    sandbox
}

#[test]
fn writes_of_other_software_after_sealing_are_never_thrown_away() {
    let sandbox = sealed();
    let vfs = morphkv::testing::RealVfs::default();
    let database = Database::open(&vfs, &sandbox.path, &Settings::default()).unwrap();
    database.put(Family::Data, b"/written/by/another", b"1", Durability::Sync).unwrap();
    database.close().unwrap();
    let engine = Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap();
    let mut wanted = sample(60);
    wanted.insert(b"/written/by/another".to_vec(), b"1".to_vec());
    assert_eq!(content(&engine), wanted);
}

#[test]
fn an_empty_directory_made_by_a_supervisor_in_the_middle_of_a_swap() {
    let sandbox = natural();
    let plan = morphkv::testing::TrapPlan::parse("live-to-backup-after=error").unwrap();
    let vfs = Arc::new(morphkv::testing::RealVfs::with_traps(Arc::new(plan)));
    Engine::open(&sandbox.path, options().vfs(vfs).encoding(Hierarchical)).unwrap_err();
    std::fs::create_dir(&sandbox.path).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
    let fresh = empty();
    std::fs::create_dir(&fresh.path).unwrap();
    assert_eq!(Engine::open(&fresh.path, options()).unwrap_err().kind(), ErrorKind::NotFound);
    Engine::open(&fresh.path, options().create_if_missing(true)).unwrap();
    let mode = std::fs::metadata(&fresh.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn an_operators_copy_beside_the_database_is_left_alone() {
    let sandbox = natural();
    let copy = sandbox.path.with_extension("backup");
    common::copy_tree(&sandbox.path, &copy);
    let before = bytes_below(&copy);
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert_eq!(content(&engine), sample(60));
    engine.close().unwrap();
    let error = Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.message().contains("not ours"), "{error}");
    assert_eq!(Engine::destroy(&sandbox.path, options()).unwrap_err().kind(), ErrorKind::Conflict);
    std::fs::remove_dir_all(&sandbox.path).unwrap();
    // Now the copy may be all there is: no new database is made over it.
    let error = Engine::open(&sandbox.path, options().create_if_missing(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert_eq!(bytes_below(&copy), before);
}

#[test]
fn a_kept_backup_is_in_the_way_of_the_next_conversion() {
    let sandbox = natural();
    drop(Engine::open(&sandbox.path, options().encoding(Hierarchical).keep_backup(Keep::Yes)).unwrap());
    let error = Engine::open(&sandbox.path, options().encoding(Natural)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("rollback") && error.next_command().unwrap().contains("drop-backup"), "{error:?}");
    manage::drop_backup(&sandbox.path, &options()).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options().encoding(Natural)).unwrap()), sample(60));
    assert_eq!(manage::rollback(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_damaged_journal_stops_everything() {
    let sandbox = sealed();
    let journal = sandbox.path.with_extension("conversion");
    let good = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &good[..good.len() - 3]).unwrap();
    refused(&sandbox, ErrorKind::Refused, "journal");
    assert_eq!(Engine::destroy(&sandbox.path, options()).unwrap_err().kind(), ErrorKind::Refused);
    std::fs::write(&journal, good).unwrap();
    assert_eq!(content(&Engine::open(&sandbox.path, options()).unwrap()), sample(60));
}

#[test]
fn a_live_damaged_after_the_swap_is_never_replaced_by_the_old_one() {
    let sandbox = natural();
    let plan = morphkv::testing::TrapPlan::parse("sweep-before=error").unwrap();
    let vfs = Arc::new(morphkv::testing::RealVfs::with_traps(Arc::new(plan)));
    let engine = Engine::open(&sandbox.path, options().vfs(vfs).encoding(Hierarchical)).unwrap();
    engine.put(b"/acknowledged", b"1").unwrap();
    engine.close().unwrap();
    let current = sandbox.path.join("CURRENT");
    let good = std::fs::read(&current).unwrap();
    std::fs::remove_file(&current).unwrap();
    refused(&sandbox, ErrorKind::Refused, "was not put back");
    std::fs::write(&current, good).unwrap();
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert_eq!(&*engine.get(b"/acknowledged").unwrap().unwrap(), b"1");
}

/// Runs `test` on a small file system of its own; needs root.
fn on_a_tmpfs(size: &str, test: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}"), "morphkv-test"])
        .arg(directory.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: mounting a tmpfs needs root");
        return;
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(directory.path())));
    Command::new("umount").arg("-l").arg(directory.path()).status().unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn no_space_is_found_out_before_any_work() {
    on_a_tmpfs("70m", |mount| {
        let path = mount.join("db");
        make(&path, Arc::new(Natural), &sample(60));
        let big = vec![7u8; 20 << 20];
        std::fs::write(mount.join("in-the-way"), big).unwrap();
        let before = bytes_below(mount);
        let error = Engine::open(&path, options().encoding(Hierarchical)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        assert!(error.message().contains("are needed") && error.message().contains("are free"), "{error}");
        assert_eq!(bytes_below(mount).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    });
}

#[test]
fn a_mount_point_and_a_read_only_parent_are_refused_before_any_work() {
    on_a_tmpfs("200m", |mount| {
        // The database directory itself as a mount point.
        let path = mount.join("db");
        make(&path, Arc::new(Natural), &sample(60));
        let bind = |from: &Path, to: &Path| Command::new("mount").arg("--bind").arg(from).arg(to).status().unwrap();
        assert!(bind(&path, &path).success());
        let error = Engine::open(&path, options().encoding(Hierarchical)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.message().contains("mount point"), "{error}");
        assert_eq!(content(&Engine::open(&path, options()).unwrap()), sample(60));
        assert!(Command::new("umount").arg(&path).status().unwrap().success());
        // An empty mount point cannot become a database.
        let empty = mount.join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&empty).status().unwrap().success());
        let error = Engine::open(&empty, options().create_if_missing(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(error.message().contains("mount point"), "{error}");
        assert!(Command::new("umount").arg(&empty).status().unwrap().success());
        assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(mount).status().unwrap().success());
        let error = Engine::open(&path, options().encoding(Hierarchical)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        assert!(Command::new("mount").args(["-o", "remount,rw"]).arg(mount).status().unwrap().success());
        assert_eq!(content(&Engine::open(&path, options().encoding(Hierarchical)).unwrap()), sample(60));
    });
}

#[test]
fn inspecting_writes_nothing() {
    for sandbox in [natural(), sealed(), empty()] {
        let lock = PathBuf::from(format!("{}.lock", sandbox.path.display()));
        let _ = std::fs::remove_file(&lock);
        let before = bytes_below(sandbox.directory.path());
        let seen = morphkv::inspect::inspect(&sandbox.path, &options()).unwrap();
        assert!(!seen.state.is_empty() && !seen.next_action.is_empty());
        assert_eq!(bytes_below(sandbox.directory.path()), before);
        assert!(!lock.exists());
    }
}

#[test]
fn a_handle_that_was_opened_to_read_closes_without_an_error() {
    let sandbox = natural();
    let engine = Engine::open_read_only(&sandbox.path, options()).unwrap();
    assert_eq!(content(&engine), sample(60));
    engine.close().unwrap();
}

#[test]
fn a_legacy_database_is_not_read_by_ranges_that_another_order_would_cut() {
    let sandbox = empty();
    scenario::legacy(&sandbox.path, &sample(60));
    let engine = Engine::open_read_only(&sandbox.path, options()).unwrap();
    assert_eq!(engine.range("/users/".."/users//").unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(engine.range(..).unwrap().count(), sample(60).len());
}

#[test]
fn what_a_rollback_would_lose_is_told_only_where_something_is_kept() {
    let sandbox = natural();
    assert_eq!(manage::rollback_loss(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::NotFound);
    let engine = Engine::open(&sandbox.path, options().encoding(Hierarchical).keep_backup(Keep::Yes)).unwrap();
    let before = manage_loss(engine, &sandbox.path, 0);
    let engine = Engine::open(&sandbox.path, options()).unwrap();
    assert_eq!(manage_loss(engine, &sandbox.path, 7), before + 7);
}

fn manage_loss(engine: Engine, path: &Path, writes: usize) -> u64 {
    (0..writes).for_each(|number| engine.put(number.to_string(), "x").unwrap());
    engine.close().unwrap();
    manage::rollback_loss(path, &options()).unwrap()
}

#[test]
fn a_new_database_that_rots_before_it_is_verified_is_never_swapped_in() {
    let sandbox = empty();
    let many: common::Content = (0..4000).map(|n| (format!("/key/{n}").into_bytes(), vec![n as u8; 400])).collect();
    make(&sandbox.path, Arc::new(Natural), &many);
    let pause = sandbox.directory.path().join("pause");
    let plan = morphkv::testing::TrapPlan::parse(&format!("staging-synced=pause:{}", pause.display())).unwrap();
    let vfs = Arc::new(morphkv::testing::RealVfs::with_traps(Arc::new(plan)));
    let path = sandbox.path.clone();
    let wanted = options().vfs(vfs).encoding(Hierarchical).verify(morphkv::Verify::Full);
    let converting = std::thread::spawn(move || Engine::open(path, wanted));
    while !pause.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let sst = largest_sst(&sandbox.path.with_extension("converting"));
    let mut bytes = std::fs::read(&sst).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&sst, &bytes).unwrap();
    std::fs::remove_file(&pause).unwrap();
    let error = converting.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(!sandbox.path.with_extension("converting").exists());
    assert_eq!(content(&Engine::open(&sandbox.path, options().encoding(Hierarchical)).unwrap()), many);
}

fn largest_sst(directory: &Path) -> PathBuf {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let ssts = files.filter(|path| path.extension().is_some_and(|end| end == "sst"));
    ssts.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}
