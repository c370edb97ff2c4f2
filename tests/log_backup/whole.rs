//! The whole path, with nothing in its way.

use crate::common::{content, fill, sample};
use crate::harness::*;
use morphkv::Engine;
use morphkv::log_backup::archive::Archive;
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::head::Cause;
use morphkv::log_backup::segment::Payload;
use morphkv::log_backup::shipper::Shipper;
use std::path::Path;

fn write_some(engine: &Engine, round: usize) {
    for number in 0..40 {
        engine.put(format!("/round/{round}/{number}"), format!("value {number} ").repeat(8)).unwrap();
    }
    let mut batch = engine.batch();
    batch.put("in a batch", round.to_string()).unwrap();
    batch.delete(format!("/round/{round}/3")).unwrap();
    batch.put_internal("offset", round.to_string());
    batch.commit().unwrap();
    engine.delete_range(format!("/round/{round}/1")..format!("/round/{round}/2")).unwrap();
}

fn ships_everything(path: &Path, archive: &Archive) {
    let engine = Engine::open(path, creating()).unwrap();
    fill(&engine, &sample(100));
    engine.close().unwrap();
    let engine = attach(path, crate::common::options(), archive, TakeOver::No).unwrap();
    let mut shipper = Shipper::new(engine.clone(), archive.clone(), ship_options());
    let pass = shipper.ship_once().unwrap();
    assert!(pass.base_snapshot.is_some() && pass.begun.is_empty());
    assert_eq!(current(archive).cause, Cause::Init);
    assert_shipped(archive, &engine);
    let mut segments = pass.segments;
    for round in 0..4 {
        write_some(&engine, round);
        if round == 2 {
            engine.ingest((0..500).map(|number| Ok((format!("loaded/{number:04}"), "loaded")))).unwrap();
            engine.put("loaded/0007", "replaced").unwrap();
            engine.flush().unwrap();
        }
        let pass = shipper.ship_once().unwrap();
        segments += pass.segments;
        assert!(pass.segments > 2, "{pass:?}");
        assert_eq!(pass.shipped_sequence, engine.last_sequence());
        assert!(pass.resolved + 1 >= pass.shipped_time);
        assert_shipped(archive, &engine);
    }
    assert_eq!(shipper.ship_once().unwrap().segments, 0, "there was nothing to ship");
    let (frames, successor) = frames(archive, current(archive).id);
    assert_eq!((successor, frames.iter().any(|frame| matches!(frame.payload, Payload::Group(_)))), (None, true));
    assert!(frames.windows(2).all(|pair| pair[0].time <= pair[1].time));
    assert_eq!(std::fs::read_dir(path.join("pending_ingest")).unwrap().count(), 0, "its files are not needed any more");
    // Another process goes on where this one was.
    drop(shipper);
    let before = content(&engine);
    engine.close().unwrap();
    let engine = Engine::open(path, crate::common::options()).unwrap();
    assert_eq!(content(&engine), before);
    engine.put("after a restart", "1").unwrap();
    let mut shipper = Shipper::new(engine.clone(), archive.clone(), ship_options());
    let pass = shipper.ship_once().unwrap();
    assert!(pass.begun.is_empty() && pass.base_snapshot.is_none() && pass.sequences == 1, "{pass:?}");
    assert_shipped(archive, &engine);
    shipper.want_snapshot();
    assert!(shipper.ship_once().unwrap().base_snapshot.is_some());
    assert_eq!(bases(archive, current(archive).id).len(), 2);
    assert_shipped(archive, &engine);
    println!("segments {segments}, frames {}", frames.len());
}

#[test]
fn all_writes_reach_an_archive_in_memory() {
    let bench = Bench::in_memory();
    ships_everything(&bench.path(), &bench.archive);
}

#[test]
fn all_writes_reach_an_archive_in_a_directory() {
    let directory = crate::common::scratch();
    ships_everything(&directory.path().join("db"), &file_archive(directory.path()));
}
