//! The thread that ships while others write.

use crate::common::{fill, options, sample};
use crate::harness::*;
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::background::{LogBackup, LogBackupOptions, LogBackupState, LogBackupStatus};
use morphkv::log_backup::fault_store::{Effect, When};
use morphkv::log_backup::shipper::ShipOptions;
use morphkv::{Durability, Engine, ErrorKind};
use std::time::{Duration, Instant};

fn started(bench: &Bench, interval: Duration) -> (Engine, LogBackup) {
    started_with(bench, LogBackupOptions { ship: ship_options(), interval })
}

fn started_with(bench: &Bench, log_backup: LogBackupOptions) -> (Engine, LogBackup) {
    let engine = Engine::open(bench.path(), creating()).unwrap();
    fill(&engine, &sample(60));
    engine.close().unwrap();
    let buffered = options().durability(Durability::Buffered);
    let engine = attach(bench.path(), buffered, &bench.archive, TakeOver::No).unwrap();
    let backup = LogBackup::start(&engine, &bench.archive, log_backup).unwrap();
    (engine, backup)
}

/// Waits until the status is as told; what it is then.
fn until(backup: &LogBackup, what: &str, holds: impl Fn(&LogBackupStatus) -> bool) -> LogBackupStatus {
    let begun = Instant::now();
    loop {
        let status = backup.status();
        if holds(&status) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} never comes: {status:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_four_threads_write_is_shipped_while_they_write() {
    let bench = Bench::in_memory();
    let (engine, backup) = started(&bench, Duration::from_millis(20));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for number in 0..400 {
                    engine.put(format!("/{thread}/{number}"), format!("value {number}").repeat(4)).unwrap();
                    if number % 100 == 50 {
                        engine.delete_range(format!("/{thread}/1")..format!("/{thread}/2")).unwrap();
                        engine.flush().unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            for round in 0..3 {
                let key = |number: usize| format!("loaded/{round}/{number:04}");
                engine.ingest((0..100).map(|number| Ok((key(number), "loaded")))).unwrap();
                backup.take_snapshot();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    });
    // Those that were asked for while the first one was taken come in one.
    backup.take_snapshot();
    let ended =
        |status: &LogBackupStatus| status.shipped_sequence == engine.last_sequence() && status.base_snapshots >= 2;
    let status = until(&backup, "the end", ended);
    assert_eq!((status.state, status.timelines_begun, status.lag_seconds), (LogBackupState::Shipping, 0, 0));
    backup.stop().unwrap();
    assert!(status.segments > 20, "{status:?}");
    assert_shipped(&bench.archive, &engine);
    println!("segments {}, bytes {}, base snapshots {}", status.segments, status.segment_bytes, status.base_snapshots);
}

#[test]
fn a_store_that_is_away_for_a_while_is_waited_for_and_writers_are_not() {
    let bench = Bench::in_memory();
    let (engine, backup) = started(&bench, Duration::from_millis(20));
    until(&backup, "the first pass", |status| status.state == LogBackupState::Shipping);
    bench.store.plan(&[(When::From(0), Effect::Fail)]);
    for number in 0..200 {
        engine.put(format!("/while it is away/{number}"), "value").unwrap();
    }
    let status = until(&backup, "a failure", |status| status.state == LogBackupState::Failing);
    assert!(status.last_error.is_some() && status.failures > 0 && status.lag_bytes > 0, "{status:?}");
    assert!(status.shipped_sequence < engine.last_sequence());
    bench.store.plan(&[]);
    backup.ship_now();
    let status = until(&backup, "the end", |status| status.shipped_sequence == engine.last_sequence());
    assert_eq!((status.last_error, status.failures, status.timelines_begun), (None, 0, 0));
    engine.put("the last", "one").unwrap();
    backup.stop().unwrap();
    assert_shipped(&bench.archive, &engine);
    engine.close().unwrap();
}

#[test]
fn a_database_that_is_shut_out_stops_and_says_so() {
    let bench = Bench::in_memory();
    let (engine, backup) = started(&bench, Duration::from_millis(20));
    until(&backup, "the first pass", |status| status.state == LogBackupState::Shipping);
    let other = bench.directory.path().join("other");
    Engine::open(&other, creating()).unwrap().close().unwrap();
    drop(attach(&other, options(), &bench.archive, TakeOver::Yes).unwrap());
    let status = until(&backup, "the stop", |status| status.state == LogBackupState::Stopped);
    assert!(status.last_error.unwrap().contains("taken over"));
    engine.put("it still", "takes writes").unwrap();
    assert_eq!(backup.stop().unwrap_err().kind(), ErrorKind::Conflict);
    let unattached = Engine::open(bench.directory.path().join("third"), creating()).unwrap();
    let refused = LogBackup::start(&unattached, &bench.archive, LogBackupOptions::default());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn one_that_has_stopped_still_keeps_the_wal_within_its_limit() {
    let bench = Bench::in_memory();
    let ship = ShipOptions { max_retained_wal: Some(0), ..ship_options() };
    let (engine, backup) = started_with(&bench, LogBackupOptions { ship, interval: Duration::from_millis(20) });
    until(&backup, "the first pass", |status| status.state == LogBackupState::Shipping);
    let other = bench.directory.path().join("other");
    Engine::open(&other, creating()).unwrap().close().unwrap();
    drop(attach(&other, options(), &bench.archive, TakeOver::Yes).unwrap());
    until(&backup, "the stop", |status| status.state == LogBackupState::Stopped);
    for round in 0..3 {
        engine.put(format!("/nobody takes this/{round}"), "value").unwrap();
        engine.flush().unwrap();
    }
    let kept = || {
        let files = std::fs::read_dir(bench.path().join("archive")).into_iter().flatten();
        files.filter(|file| file.as_ref().is_ok_and(|file| file.metadata().is_ok_and(|found| found.len() > 0))).count()
    };
    assert!(kept() > 0);
    backup.ship_now();
    until(&backup, "the limit", |_| kept() == 0);
    assert_eq!(backup.stop().unwrap_err().kind(), ErrorKind::Conflict);
}
