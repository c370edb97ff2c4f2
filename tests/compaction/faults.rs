//! A store that fails any call, loses its answer or tears what it gives: a worker fails, or not, and another brings it to the
//! same end. Nothing that is recorded for ever comes of it.

use crate::common::figures::Figures;
use crate::common::{options, scratch};
use crate::runs::{request, small};
use crate::source::all_of;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::compact::{State, compact};
use morphkv::log_backup::fault_store::{Effect, FaultStore, When};
use morphkv::log_backup::names::ObjectName;
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use morphkv::{ErrorKind, Options, Result, restore};
use std::path::Path;
use std::sync::Arc;

const SHARDS: u32 = 2;

/// Copies the objects below a directory into an archive.
pub fn copy(root: &Path, directory: &Path, archive: &Archive) {
    for entry in std::fs::read_dir(directory).unwrap().map(std::result::Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            copy(root, &path, archive);
        } else if let Ok(name) = ObjectName::new(path.strip_prefix(root).unwrap().to_str().unwrap()) {
            archive.put(&name, std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

fn work_all(archive: &Archive) -> Result<State> {
    let scratch = scratch();
    let mut state = State::Running;
    for shard in 1..=SHARDS {
        state = compact(archive, &request("faults", shard, SHARDS, scratch.path()), &options())?.state;
    }
    Ok(state)
}

#[test]
fn whichever_call_of_the_store_fails() {
    let figures = Figures::new("compaction-store-faults");
    let source = small();
    let expected = source.states.last().unwrap();
    let root = source.directory.path().join("archive");
    let fresh = || {
        let store = FaultStore::in_memory();
        // One attempt at each call, so that every fault is seen.
        let once = ArchiveOptions { attempts: 1, ..ArchiveOptions::default() };
        let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "prefix", once).unwrap();
        copy(&root, &root, &archive);
        store.plan(&[]);
        (store, archive)
    };
    let (store, archive) = fresh();
    work_all(&archive).unwrap();
    let calls = store.counted();
    let (mut faults, mut failed) = (0, 0);
    for effect in [Effect::Fail, Effect::LoseAnswer, Effect::Tear] {
        for call in 0..calls {
            let what = format!("{effect:?} of call {call}");
            let (store, archive) = fresh();
            store.plan(&[(When::Nth(call), effect)]);
            faults += 1;
            if let Err(error) = work_all(&archive) {
                failed += 1;
                let kinds =
                    [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Lost, ErrorKind::Conflict, ErrorKind::NotFound];
                assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
            }
            store.plan(&[]);
            let state = work_all(&archive).unwrap_or_else(|error| panic!("{what}, again: {error:?}"));
            assert_eq!(state, State::Complete, "{what}");
            assert_eq!(verify(&archive).unwrap().faults, [], "{what}");
            if call % 5 == 0 {
                let target = source.directory.path().join("target");
                let request = restore::Request {
                    moment: Moment::Latest,
                    timeline: None,
                    replace: false,
                    no_pin: false,
                    replica: false,
                    compaction: None,
                };
                let found = restore::run(&target, &archive, &request, &options()).unwrap();
                assert_eq!((found.plan.runs().count(), found.status.left_out.len()), (1, 0), "{what}");
                let (content, internal) = all_of(&target);
                assert!(content == expected.content && internal == expected.internal, "{what}");
                morphkv::Engine::destroy(&target, Options::new()).unwrap();
                restore::abort(&target, &Options::new()).unwrap();
            }
        }
    }
    assert!(failed >= calls as usize, "{failed} of {faults} faults were seen");
    figures.with("calls", calls).with("faults", faults).with("errors, then gone on", failed).with("wrong", 0).print();
}
