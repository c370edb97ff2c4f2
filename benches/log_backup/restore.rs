//! A restore against the least that it could do: the files of the base snapshot copied, and the final state of what was
//! logged since loaded in bulk.

use crate::common::{fill, median, root, scatter};
use crate::writer::archive;
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::log_backup::snapshot_transfer::read_manifest;
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::{Durability, Engine, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

const ENTRIES: u64 = 1_000_000;
const VALUE_BYTES: usize = 400;
/// Half of them replace something.
const LOGGED: u64 = 500_000;
const BATCH: u64 = 100;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(number: u64) -> Vec<u8> {
    format!("/objects/{:03x}/{number:016x}", scatter(number) % 1009).into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![0; VALUE_BYTES];
    fill(&mut value, number);
    value
}

/// A database with its archive, and what was logged after the base snapshot.
fn source(work: &Path) -> State {
    let path = work.join("db");
    let buffered = || Options::new().create_if_missing(true).durability(Durability::Buffered);
    let engine = Engine::open(&path, buffered()).expect("create");
    let mut sorted: Vec<_> = (0..ENTRIES).map(|number| (key(number), number)).collect();
    sorted.sort();
    engine.ingest(sorted.into_iter().map(|(key, number)| Ok((key, value(number))))).expect("load");
    engine.close().expect("close");
    let archive = archive(work);
    let engine = attach(&path, buffered(), &archive, TakeOver::No).expect("attach");
    let options = ShipOptions { base_after_percent: 1000, ..ShipOptions::default() };
    let mut shipper = Shipper::new(engine.clone(), archive, options);
    assert!(shipper.ship_once().expect("ship").base_snapshot.is_some());
    let mut state = State::new();
    for first in (0..LOGGED).step_by(BATCH as usize) {
        let mut batch = engine.batch();
        for number in first..first + BATCH {
            let (key, value) = (key(scatter(!number) % (2 * ENTRIES)), value(!number));
            batch.put(&key, &value).expect("put");
            state.insert(key, value);
        }
        batch.commit().expect("commit");
    }
    let pass = shipper.ship_once().expect("ship");
    assert!(pass.base_snapshot.is_none(), "the log is in the base");
    println!("{} base entries, {LOGGED} logged, {} segments", ENTRIES, pass.segments);
    drop(shipper);
    engine.close().expect("close");
    state
}

/// The base's files copied and synced, the final state loaded.
fn least(work: &Path, target: &Path, state: &State) -> f64 {
    let archive = archive(work);
    let request = Request {
        moment: Moment::Latest,
        timeline: None,
        replace: false,
        no_pin: true,
        replica: false,
        compaction: None,
    };
    let plan = restore::preview(&archive, &request, &Options::new()).expect("plan");
    let manifest = read_manifest(&archive, &plan.snapshot.manifest).expect("the manifest");
    rustix::fs::sync();
    let began = Instant::now();
    std::fs::create_dir(target).expect("make a directory");
    for file in &manifest.files {
        let object = work.join("archive").join(file.object.name.to_string());
        let to = target.join(&file.file);
        std::fs::copy(object, &to).expect("copy");
        std::fs::File::open(&to).and_then(|file| file.sync_all()).expect("sync");
    }
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), target).expect("list the families");
    let database = rocksdb::DB::open_cf(&options(), target, families).expect("open the copy");
    let path = target.join("loaded.sst");
    let options = options();
    let mut writer = rocksdb::SstFileWriter::create(&options);
    writer.open(&path).expect("create a file");
    state.iter().for_each(|(key, value)| writer.put(key, value).expect("put"));
    writer.finish().expect("finish the file");
    let mut how = rocksdb::IngestExternalFileOptions::default();
    how.set_move_files(true);
    database.ingest_external_file_opts(&how, vec![path]).expect("ingest");
    database.flush_wal(true).expect("sync");
    drop(database);
    rustix::fs::sync();
    began.elapsed().as_secs_f64()
}

fn options() -> rocksdb::Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    let mut options = rocksdb::Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.increase_parallelism(2);
    options
}

fn restored(work: &Path, target: &Path, state: &State) -> f64 {
    let request = Request {
        moment: Moment::Latest,
        timeline: None,
        replace: false,
        no_pin: false,
        replica: false,
        compaction: None,
    };
    rustix::fs::sync();
    let began = Instant::now();
    restore::run(target, &archive(work), &request, &Options::new()).expect("restore");
    rustix::fs::sync();
    let seconds = began.elapsed().as_secs_f64();
    let engine = Engine::open(target, Options::new()).expect("open");
    for (key, value) in state.iter().step_by(997) {
        assert_eq!(engine.get(key).expect("get").as_deref(), Some(value.as_slice()));
    }
    engine.close().expect("close");
    seconds
}

pub fn measure(rounds: usize) -> Value {
    let work: PathBuf = root().join("log-backup-restore");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir(&work).expect("make a directory");
    let state = source(&work);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let target = work.join(format!("least-{round}"));
        theirs.push(least(&work, &target, &state));
        std::fs::remove_dir_all(&target).expect("remove");
        let target = work.join(format!("restored-{round}"));
        ours.push(restored(&work, &target, &state));
        println!("copy and load {:.2} s, restore {:.2} s", theirs[round], ours[round]);
        Engine::destroy(&target, Options::new()).expect("destroy");
        restore::abort(&target, &Options::new()).expect("forget");
    }
    std::fs::remove_dir_all(&work).expect("remove the work");
    let (ours, theirs) = (median(ours), median(theirs));
    json!({
        "base_entries": ENTRIES, "logged_entries": LOGGED, "entry_bytes": VALUE_BYTES + key(0).len(), "rounds": rounds,
        "restore_seconds": ours, "copy_and_load_seconds": theirs, "ratio": ours / theirs, "target": 1.25,
    })
}
