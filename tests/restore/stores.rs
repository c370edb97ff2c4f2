//! A store that fails any call, loses its answer or tears what it gives: an error, and then it goes on to the right end.

use crate::common::figures::Figures;
use crate::common::options;
use crate::kills::source;
use crate::source::{all_of, request};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::fault_store::{Effect, FaultStore, When};
use morphkv::log_backup::names::ObjectName;
use morphkv::restore;
use morphkv::restore::moment::Moment;
use morphkv::{Engine, ErrorKind, Options};
use std::path::Path;
use std::sync::Arc;

/// Copies the objects below a directory into an archive.
fn copy(root: &Path, directory: &Path, archive: &Archive) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            copy(root, &path, archive);
        } else if let Ok(name) = ObjectName::new(path.strip_prefix(root).unwrap().to_str().unwrap()) {
            archive.put(&name, std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

#[test]
fn whichever_call_of_the_store_fails() {
    let figures = Figures::new("restore-store-faults");
    let source = source();
    let expected = source.states.last().unwrap().clone();
    let store = FaultStore::in_memory();
    // One attempt at each call, so that every fault is seen.
    let once = ArchiveOptions { attempts: 1, ..ArchiveOptions::default() };
    let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "prefix", once).unwrap();
    let root = source.directory.path().join("archive");
    copy(&root, &root, &archive);
    let target = source.directory.path().join("target");
    let latest = request(Moment::Latest);
    let run = || restore::run(&target, &archive, &latest, &options());
    let clear = || {
        Engine::destroy(&target, Options::new()).unwrap();
        restore::abort(&target, &Options::new()).unwrap();
    };
    store.plan(&[]);
    run().unwrap();
    let calls = store.counted();
    clear();
    let (mut faults, mut failed) = (0, 0);
    for effect in [Effect::Fail, Effect::LoseAnswer, Effect::Tear] {
        for call in 0..calls {
            let what = format!("{effect:?} of call {call}");
            store.plan(&[(When::Nth(call), effect)]);
            faults += 1;
            if let Err(error) = run() {
                failed += 1;
                let kinds =
                    [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Lost, ErrorKind::Conflict, ErrorKind::NotFound];
                assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
                assert!(!target.exists(), "{what}: the target stands after {error:?}");
                store.plan(&[]);
                run().unwrap_or_else(|error| panic!("{what}, again: {error:?}"));
            }
            let (content, internal) = all_of(&target);
            assert!(content == expected.content && internal == expected.internal, "{what}");
            clear();
        }
    }
    assert!(failed >= calls as usize, "{failed} of {faults} faults were seen");
    let figures = figures.with("calls", calls).with("faults", faults).with("errors, then gone on", failed);
    figures.with("wrong", 0).print();
}
