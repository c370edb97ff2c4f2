//! A load that RocksDB has in its MANIFEST, and whose files it has removed again: what an ingest leaves whose last write to
//! the MANIFEST was reported to have failed, and did not. `tests/disk_calls` makes RocksDB do it; here it is made by hand.

use super::common::{Content, content, options, sample, scratch};
use super::natural;
use morphkv::encoding::{Hierarchical, KeyEncoding};
use morphkv::testing::{Operation, RealVfs, RecordingVfs, Trap, TrapAction, TrapPlan};
use morphkv::{Engine, ErrorKind, Options, manage};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Three files of one size: a file ends when its index has 8 MiB of keys, and each of these has a block to itself.
fn loaded(name: &str) -> Content {
    let entry = |number: usize| {
        let mut key = format!("/{name}/{}/{:03}", number / 128, number % 128).into_bytes();
        key.resize(64 << 10, b'k');
        (key, vec![b'v'; 100])
    };
    (0..128 * 3).map(entry).collect()
}

fn all() -> Content {
    [sample(60), loaded("earlier"), loaded("the_one")].into_iter().flatten().collect()
}

fn sst_files(live: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(live).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
    files.sort();
    files
}

/// Loads, and moves the files that RocksDB took back to where they came from; gives what they were called in the database.
fn load_and_take_away(live: &Path) -> (PathBuf, Vec<PathBuf>) {
    let engine = Engine::open(live, options()).unwrap();
    // One before, with files of the same lengths, and numbers right before theirs.
    engine.ingest(loaded("earlier").into_iter().map(Ok)).unwrap();
    let before = sst_files(live);
    engine.ingest(loaded("the_one").into_iter().map(Ok)).unwrap();
    let files: Vec<_> = sst_files(live).into_iter().filter(|file| !before.contains(file)).collect();
    engine.close().unwrap();
    let lengths: Vec<_> = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).collect();
    assert_eq!(lengths, [lengths[0]; 3], "they are told apart by their lengths");
    let folder = live.join("morphkv.ingest/0");
    std::fs::create_dir_all(&folder).unwrap();
    for (number, file) in files.iter().enumerate() {
        std::fs::rename(file, folder.join(format!("{number:06}.sst"))).unwrap();
    }
    (folder, files)
}

fn opens_with_all(live: &Path, options: Options) {
    let engine = Engine::open(live, options).unwrap();
    assert!(content(&engine) == all());
    engine.close().unwrap();
    assert!(!live.join("morphkv.ingest").exists(), "nothing is left of a load");
}

#[test]
fn whoever_opens_it_brings_them_back() {
    let sandbox = natural();
    load_and_take_away(&sandbox.path);
    opens_with_all(&sandbox.path, options());
    opens_with_all(&sandbox.path, options());
}

#[test]
fn so_does_a_conversion_and_a_recovery() {
    let sandbox = natural();
    load_and_take_away(&sandbox.path);
    let hierarchical: Arc<dyn KeyEncoding> = Arc::new(Hierarchical);
    opens_with_all(&sandbox.path, options().encoding(hierarchical));
    let sandbox = natural();
    load_and_take_away(&sandbox.path);
    let error = Engine::open_read_only(&sandbox.path, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.next_command().is_some_and(|next| next.starts_with("morphkv recover ")), "{error}");
    assert_eq!(manage::digest(&sandbox.path, &options()).unwrap_err().kind(), ErrorKind::Refused);
    let recovery = manage::recover(&sandbox.path, &options(), false).unwrap();
    assert_eq!(recovery.actions, ["bring back the files of a bulk load"]);
    assert_eq!(manage::digest(&sandbox.path, &options()).unwrap().entries as usize, all().len());
    opens_with_all(&sandbox.path, options());
}

#[test]
fn a_crash_between_two_of_them_is_gone_on_with() {
    let sandbox = natural();
    load_and_take_away(&sandbox.path);
    for _ in 0..3 {
        let plan = TrapPlan::new().with(Trap::LoadBroughtBack, 1, TrapAction::Error(ErrorKind::Io));
        let vfs = Arc::new(RealVfs::with_traps(Arc::new(plan)));
        assert_eq!(Engine::open(&sandbox.path, options().vfs(vfs)).unwrap_err().kind(), ErrorKind::Io);
    }
    opens_with_all(&sandbox.path, options());
}

/// What was killed right after the last of them was back has not made their names durable.
#[test]
fn they_are_durable_before_their_second_names_go() {
    let sandbox = natural();
    let (folder, files) = load_and_take_away(&sandbox.path);
    for (number, file) in files.iter().enumerate() {
        std::fs::hard_link(folder.join(format!("{number:06}.sst")), file).unwrap();
    }
    let vfs = Arc::new(RecordingVfs::new(Arc::new(RealVfs::default())));
    Engine::open(&sandbox.path, options().vfs(vfs.clone())).unwrap().close().unwrap();
    let operations = vfs.take();
    let first = |wanted: &dyn Fn(&Operation) -> bool| operations.iter().position(wanted).unwrap();
    let synced = first(&|operation| matches!(operation, Operation::SyncDir(path) if *path == sandbox.path));
    let removed = first(&|operation| matches!(operation, Operation::RemoveFile(path) if path.starts_with(&folder)));
    assert!(synced < removed, "{operations:?}");
}

/// A power cut leaves of what RocksDB removed whatever it likes.
#[test]
fn whichever_of_them_are_missing() {
    for there in 0..7_usize {
        let sandbox = natural();
        let (folder, files) = load_and_take_away(&sandbox.path);
        for (number, file) in files.iter().enumerate().filter(|(number, _)| there & (1 << number) != 0) {
            std::fs::hard_link(folder.join(format!("{number:06}.sst")), file).unwrap();
        }
        opens_with_all(&sandbox.path, options());
    }
}

/// Files of another size, or too few, are not the ones that are missing, and nothing is swept before it opens.
#[test]
fn nothing_else_is_put_in_their_place() {
    let sandbox = natural();
    let (folder, _) = load_and_take_away(&sandbox.path);
    let room = scratch();
    std::fs::rename(folder.join("000002.sst"), room.path().join("kept")).unwrap();
    assert_eq!(Engine::open(&sandbox.path, options()).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(folder.join("000002.sst"), "something else").unwrap();
    assert_eq!(Engine::open(&sandbox.path, options()).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::rename(room.path().join("kept"), folder.join("000002.sst")).unwrap();
    // A younger load that nobody misses.
    let other = sandbox.path.join("morphkv.ingest/1");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("000000.sst"), "of a load that was interrupted").unwrap();
    opens_with_all(&sandbox.path, options());
}
