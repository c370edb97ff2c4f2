//! A log that the shipper itself has stored, loads and base snapshots among it, compacted and restored.

use crate::common::{content, fill, options, sample, scratch};
use crate::source::all_of;
use morphkv::encoding::Hierarchical;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::compact::{PART_BYTES, Request, State, Until, compact};
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::log_backup::verify::verify;
use morphkv::restore::moment::Moment;
use morphkv::{Engine, restore};
use std::path::Path;
use std::time::Duration;

fn ship(engine: &Engine, archive: &Archive) {
    let small = ShipOptions { segment_bytes: 2 << 10, head_after: Duration::ZERO, ..ShipOptions::default() };
    Shipper::new(engine.clone(), archive.clone(), small).ship_once().unwrap();
}

fn compacted(archive: &Archive, name: &str) {
    let directory = scratch();
    for shard in 1..=2 {
        let (name, scratch) = (name.to_owned(), directory.path().to_owned());
        let request = Request {
            name,
            shard,
            shards: 2,
            until: Until::Latest,
            scratch,
            part_bytes: PART_BYTES,
            stretch_segments: 2,
        };
        let report = compact(archive, &request, &options()).unwrap();
        assert_eq!(report.state, if shard == 2 { State::Complete } else { State::Running }, "{report:?}");
    }
    assert_eq!(verify(archive).unwrap().faults, []);
}

/// Restores, compares, and says which compactions were used.
fn restored(archive: &Archive, engine: &Engine) -> Vec<String> {
    let directory = scratch();
    let target = directory.path().join("target");
    let request = restore::Request {
        moment: Moment::Latest,
        timeline: None,
        replace: false,
        no_pin: false,
        replica: false,
        compaction: None,
    };
    let found = restore::run(&target, archive, &request, &options()).unwrap();
    assert_eq!(found.status.left_out, []);
    assert!(all_of(&target).0 == content(engine));
    found.plan.runs().map(|run| run.body.name.clone()).collect()
}

fn write(engine: &Engine, round: usize) {
    for number in 0..60 {
        engine.put(format!("/round/{number}"), format!("value {round} ").repeat(8)).unwrap();
    }
    engine.delete_range(format!("/round/{round}")..format!("/round/{round}9")).unwrap();
    engine.ingest((0..20).map(|number| Ok((format!("loaded/{number:04}"), format!("{round}"))))).unwrap();
    engine.delete(format!("loaded/{round:04}")).unwrap();
}

#[test]
fn what_a_shipper_has_stored_is_compacted_and_restored() {
    let directory = scratch();
    let path: &Path = &directory.path().join("db");
    let archive_options = ArchiveOptions { create_directory: true, ..ArchiveOptions::default() };
    let url = format!("file://{}", directory.path().join("archive").display());
    let archive = Archive::open(&url, archive_options).unwrap();
    let engine = Engine::open(path, options().create_if_missing(true)).unwrap();
    fill(&engine, &sample(60));
    engine.close().unwrap();
    let engine = attach(path, options(), &archive, TakeOver::No).unwrap();
    ship(&engine, &archive);
    for round in 1..4 {
        write(&engine, round);
        ship(&engine, &archive);
    }
    compacted(&archive, "first");
    assert_eq!(restored(&archive, &engine), ["first"]);
    write(&engine, 4);
    ship(&engine, &archive);
    assert_eq!(restored(&archive, &engine), ["first"]);
    engine.close().unwrap();
    let engine = Engine::open(path, options().encoding(Hierarchical)).unwrap();
    ship(&engine, &archive);
    write(&engine, 5);
    ship(&engine, &archive);
    compacted(&archive, "second");
    assert!(restored(&archive, &engine).contains(&"second".to_owned()));
}
