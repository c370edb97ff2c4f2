//! What a failed sync, a failed write, a lack of room and a torn rename do.

use super::bent::{Bent, Call};
use super::common::{self, content, options, sample};
use super::{Sandbox, acknowledged, empty, natural};
use morphkv::encoding::Hierarchical;
use morphkv::testing::journal::{self, Journal, JournalState, Kind, Phase};
use morphkv::testing::{EIO, Fault, FaultyVfs, Layout, RealVfs, RecordingVfs, Stat};
use morphkv::{Engine, Error, ErrorKind, Keep, Options, Result, manage};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is known of the syncs of one attempt.
#[derive(Default)]
struct Syncs {
    seen: AtomicUsize,
    /// The journal says, durably, that the change is done: what fails from now on is only left for the next open.
    settled: AtomicBool,
    failed: AtomicBool,
    settled_when_it_failed: AtomicBool,
    failed_file: Mutex<Option<PathBuf>>,
}

/// Fails the sync of that number, and sees that a file whose sync has failed is never synced again.
fn failing(path: &Path, number: usize) -> (Bent, Arc<Syncs>) {
    let syncs = Arc::new(Syncs::default());
    let (before, after, layout) = (syncs.clone(), syncs.clone(), Layout::new(path).unwrap());
    let bent = Bent {
        before: Box::new(move |call, path| {
            if call == Call::Create && before.failed_file.lock().unwrap().as_deref() == Some(path) {
                *before.failed_file.lock().unwrap() = None; // Another file of that name.
            }
            if !matches!(call, Call::SyncFile | Call::SyncDir) {
                return Ok(());
            }
            assert_ne!(before.failed_file.lock().unwrap().as_deref(), Some(path), "synced again after a failure");
            if before.seen.fetch_add(1, Ordering::SeqCst) != number {
                return Ok(());
            }
            before.failed.store(true, Ordering::SeqCst);
            before.settled_when_it_failed.store(before.settled.load(Ordering::SeqCst), Ordering::SeqCst);
            if call == Call::SyncFile {
                *before.failed_file.lock().unwrap() = Some(path.to_owned());
            }
            Err(Error::io("sync", path, std::io::Error::from_raw_os_error(EIO)))
        }),
        after: Box::new(move |call, path| {
            if call == Call::SyncDir && path == layout.parent {
                let settled = match journal::read(&RealVfs::default(), &layout).unwrap() {
                    JournalState::Read(journal) => matches!(journal.phase, Phase::Done | Phase::Kept),
                    _ => false,
                };
                after.settled.fetch_or(settled, Ordering::SeqCst);
            }
        }),
        ..Bent::default()
    };
    (bent, syncs)
}

/// A change whose every sync fails in turn: it ends with an error, and what may be found afterwards is whole.
fn every_sync_fails(before: fn() -> Sandbox, act: fn(&Path, Options) -> Result<()>, may_be_found: &[common::Content]) {
    for number in 0.. {
        let sandbox = before();
        let (bent, syncs) = failing(&sandbox.path, number);
        let result = act(&sandbox.path, options().vfs(Arc::new(bent)));
        if !syncs.failed.load(Ordering::SeqCst) {
            result.unwrap();
            assert!(number > 8, "only {number} syncs");
            return;
        }
        if !syncs.settled_when_it_failed.load(Ordering::SeqCst) {
            let error = result.err().unwrap_or_else(|| panic!("the failure of sync {number} was ignored"));
            assert_eq!(error.kind(), ErrorKind::Io, "sync {number}: {error:?}");
        }
        let engine = Engine::open(&sandbox.path, options()).unwrap_or_else(|error| panic!("sync {number}: {error:?}"));
        assert!(may_be_found.contains(&content(&engine)), "sync {number}: wrong content");
    }
}

#[test]
fn a_sync_that_fails_ends_the_change() {
    let convert = |path: &Path, options: Options| Engine::open(path, options.encoding(Hierarchical))?.close();
    every_sync_fails(natural, convert, &[sample(60)]);
    let kept = || {
        let sandbox = natural();
        let keep = options().encoding(Hierarchical).keep_backup(Keep::Yes);
        let engine = Engine::open(&sandbox.path, keep).unwrap();
        engine.put(b"/acknowledged", b"1").unwrap();
        engine.close().unwrap();
        sandbox
    };
    let roll_back = |path: &Path, options: Options| manage::rollback(path, &options).map(drop);
    every_sync_fails(kept, roll_back, &[sample(60), acknowledged()]);
}

#[test]
fn a_control_file_is_replaced_whole_or_not_at_all() {
    let sandbox = empty();
    let layout = Layout::new(&sandbox.path).unwrap();
    let real = Arc::new(RealVfs::default());
    let old = Journal::begin(Kind::Create, uuid::Uuid::from_u128(1));
    let new = Journal { id: uuid::Uuid::from_u128(2), keep: true, ..old.clone() };
    for at in 0.. {
        journal::write(&*real, &layout, &old).unwrap();
        let vfs = FaultyVfs::new(real.clone(), Some(Fault { at, sticky: true, errno: EIO }));
        let written = journal::write(&vfs, &layout, &new);
        let JournalState::Read(found) = journal::read(&*real, &layout).unwrap() else { panic!("torn at {at}") };
        if written.is_ok() {
            assert_eq!((*found, at), (new, vfs.calls()));
            assert!(at > 3);
            return;
        }
        assert!(*found == old || *found == new, "{at}: {found:?}");
    }
}

#[test]
fn opening_what_is_whole_writes_nothing_of_ours() {
    let sandbox = natural();
    let marker = std::fs::metadata(sandbox.path.join("KEY_ENCODING")).unwrap();
    for wanted in [options(), options().encoding(morphkv::encoding::Natural)] {
        let vfs = Arc::new(RecordingVfs::new(Arc::new(RealVfs::default())));
        let engine = Engine::open(&sandbox.path, wanted.vfs(vfs.clone())).unwrap();
        engine.put("a", "1").unwrap();
        engine.close().unwrap();
        let operations: Vec<_> = vfs.take();
        let written = operations.iter().filter(|operation| !matches!(operation, morphkv::testing::Operation::Trap(_)));
        assert_eq!(written.collect::<Vec<_>>(), Vec::<&morphkv::testing::Operation>::new());
    }
    let after = std::fs::metadata(sandbox.path.join("KEY_ENCODING")).unwrap();
    assert_eq!(marker.modified().unwrap(), after.modified().unwrap());
}

#[test]
fn too_little_room_is_told_before_any_work() {
    let sandbox = natural();
    let before = common::bytes_below(sandbox.directory.path());
    let vfs = Bent { free_bytes: Some(64 << 20), ..Bent::default() };
    let error = Engine::open(&sandbox.path, options().vfs(Arc::new(vfs)).encoding(Hierarchical)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert!(error.message().contains("67108864 are free"), "{error}");
    assert_eq!(common::bytes_below(sandbox.directory.path()), before, "something was touched");
    let vfs = Bent { free_bytes: Some(80 << 20), ..Bent::default() };
    drop(Engine::open(&sandbox.path, options().vfs(Arc::new(vfs)).encoding(Hierarchical)).unwrap());
}

#[test]
fn one_directory_under_two_names_is_refused() {
    // A rename that a power cut has torn: the kernel gives no other way of making one.
    let sandbox = natural();
    let (live, staging) = (sandbox.path.clone(), sandbox.path.with_extension("converting"));
    let see = move |path: &Path, stat: Option<Stat>| {
        if path == staging { morphkv::testing::Vfs::stat(&RealVfs::default(), &live).unwrap() } else { stat }
    };
    let before = common::bytes_below(sandbox.directory.path());
    let vfs = Arc::new(Bent { stat: Box::new(see), ..Bent::default() });
    let error = Engine::open(&sandbox.path, options().vfs(vfs).encoding(Hierarchical)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.message().contains("fsck"), "{error}");
    assert_eq!(common::bytes_below(sandbox.directory.path()), before, "something was touched");
}

#[test]
fn what_is_mounted_inside_trash_is_not_removed() {
    let sandbox = natural();
    let mounted = sandbox.path.join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    std::fs::write(mounted.join("theirs"), "x").unwrap();
    let see = |path: &Path, stat: Option<Stat>| {
        let elsewhere = path.file_name().is_some_and(|name| name == "mounted");
        stat.map(|stat| Stat { device: stat.device + u64::from(elsewhere), ..stat })
    };
    let vfs = Arc::new(Bent { stat: Box::new(see), ..Bent::default() });
    let error = Engine::destroy(&sandbox.path, options().vfs(vfs)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(sandbox.path.with_extension("trash").join("mounted/theirs").exists(), "it was removed");
}
