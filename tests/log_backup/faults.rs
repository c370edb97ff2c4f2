//! A store that fails, or does its work and loses the answer, at each call in turn and at every few: what is repeated until
//! it succeeds leaves an archive that has everything once.

use crate::common::{content, fill, options, sample, scratch};
use crate::harness::*;
use morphkv::Engine;
use morphkv::encoding::Hierarchical;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::fault_store::{Effect, FaultStore, When};
use morphkv::log_backup::shipper::Shipper;
use std::sync::Arc;

/// How often a pass may fail before the test does: with every third call failing a pass of many needs luck, which there is
/// not, but it goes on from where it was.
const TRIES: usize = 400;

/// Loads, a conversion and its handover, over a store with these faults; if `early`, attaching too. Gives the number of calls
/// and failures.
fn under(fault: Option<(When, Effect)>, attempts: u32, early: bool) -> (u64, usize) {
    let directory = scratch();
    let path = directory.path().join("db");
    let store = FaultStore::in_memory();
    let archive_options = ArchiveOptions { attempts, ..archive_options() };
    let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "", archive_options).unwrap();
    let engine = Engine::open(&path, creating()).unwrap();
    fill(&engine, &sample(20));
    engine.close().unwrap();
    let faults: Vec<_> = fault.into_iter().collect();
    store.plan(if early { &faults } else { &[] });

    let mut failures = 0;
    let mut tried = |what: &str, work: &mut dyn FnMut() -> morphkv::Result<()>| {
        for _ in 0..TRIES {
            match work() {
                Ok(()) => return,
                Err(_) => failures += 1,
            }
        }
        panic!("{what} never succeeds with {fault:?}: {:?}", work().unwrap_err());
    };
    let mut engine = None;
    // An attempt whose commit came through unseen is told from another database's by the id in LOG_BACKUP.
    tried("attaching", &mut || attach(&path, options(), &archive, TakeOver::No).map(|opened| engine = Some(opened)));
    let engine = engine.unwrap();
    if !early {
        store.plan(&faults);
    }
    let mut shipper = Shipper::new(engine.clone(), archive.clone(), ship_options());
    tried("the first pass", &mut || shipper.ship_once().map(|pass| assert_eq!(pass.begun, [])));
    for number in 0..60 {
        engine.put(format!("/key/{number}"), format!("value {number}").repeat(8)).unwrap();
    }
    engine.ingest((0..50).map(|number| Ok((format!("loaded/{number:04}"), "loaded")))).unwrap();
    engine.put("loaded/0003", "replaced").unwrap();
    tried("a pass", &mut || shipper.ship_once().map(|pass| assert_eq!(pass.begun, [])));
    engine.delete_range("/key/1".."/key/3").unwrap();
    drop(shipper);
    engine.close().unwrap();
    let engine = Engine::open(&path, options().encoding(Hierarchical)).unwrap();
    engine.put("after", "the conversion").unwrap();
    let mut shipper = Shipper::new(engine.clone(), archive.clone(), ship_options());
    tried("the handover", &mut || shipper.ship_once().map(|pass| assert_eq!(pass.begun, [])));
    tried("the last pass", &mut || shipper.ship_once().map(|pass| assert_eq!(pass.begun, [])));
    let calls = store.counted();
    store.plan(&[]);
    assert_eq!(head(&archive).timelines.len(), 2, "{fault:?}");
    assert_replayed(&archive, &engine);
    assert_eq!(content(&engine).len(), 21 + 50 + 1 + 60 - 22, "{fault:?}");
    (calls, failures)
}

#[test]
fn a_store_that_fails_or_loses_the_answer_at_any_call_costs_nothing() {
    let (calls, failures) = under(None, 1, true);
    assert!(calls > 60 && failures == 0, "{calls} calls, {failures} failures");
    let mut failed = 0;
    for nth in 0..calls {
        for effect in [Effect::Fail, Effect::LoseAnswer] {
            failed += under(Some((When::Nth(nth), effect)), 1, true).1;
        }
    }
    println!("calls {calls}, faults {}, passes that failed {failed}", 2 * calls);
    assert!(failed > calls as usize / 2);
}

#[test]
fn a_store_that_fails_every_few_calls_is_worn_down() {
    // The probe of a new store is content with nothing less than a run of answers.
    for every in [3, 4, 5, 7, 11] {
        for effect in [Effect::Fail, Effect::LoseAnswer, Effect::Tear] {
            let (calls, failures) = under(Some((When::Every(every), effect)), 2, false);
            println!("every {every}, {effect:?}: calls {calls}, passes that failed {failures}");
        }
    }
}

/// A database with a gap in its log, over a store with these faults: the new timeline, its base snapshot, and what follows.
/// Gives the number of calls.
fn gap_under(fault: Option<(When, Effect)>) -> u64 {
    let bench = Bench::in_memory();
    let engine = Engine::open(bench.path(), creating()).unwrap();
    fill(&engine, &sample(20));
    engine.close().unwrap();
    let engine = attach(bench.path(), options(), &bench.archive, TakeOver::No).unwrap();
    bench.shipper(&engine).ship_once().unwrap();
    engine.put("lost", "from the log").unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    bench.open().close().unwrap();
    for entry in std::fs::read_dir(bench.path().join("archive")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let engine = bench.open();
    let once = ArchiveOptions { attempts: 1, ..archive_options() };
    let archive = Archive::with_store(Arc::new(bench.store.clone()), "memory://test", "", once).unwrap();
    bench.store.plan(&fault.into_iter().collect::<Vec<_>>());
    let mut shipper = Shipper::new(engine.clone(), archive.clone(), ship_options());
    let passed = (0..TRIES).find_map(|_| shipper.ship_once().ok());
    assert!(passed.is_some(), "{fault:?}: {:?}", shipper.ship_once());
    let calls = bench.store.counted();
    bench.store.plan(&[]);
    assert_eq!(head(&archive).timelines.len(), 2, "{fault:?}");
    assert_decoded(&archive, &engine);
    calls
}

#[test]
fn a_new_timeline_is_begun_once_whatever_call_fails() {
    let calls = gap_under(None);
    for nth in 0..calls {
        for effect in [Effect::Fail, Effect::LoseAnswer] {
            gap_under(Some((When::Nth(nth), effect)));
        }
    }
    println!("calls {calls}, faults {}", 2 * calls);
    assert!(calls > 30);
}
