//! Many databases with a log backup in which nothing happens.

use crate::common::root;
use crate::writer::processor;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::background::{LogBackup, LogBackupOptions, LogBackupState};
use morphkv::{Durability, Engine, Options};
use serde_json::{Value, json};
use std::time::Duration;

/// Of each database's WAL.
const WAL_BYTES: usize = 64 << 10;
const WATCHED: Duration = Duration::from_secs(30);

/// Bytes that this process has read, and calls.
fn reads() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/io").expect("/proc");
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        line.trim().parse::<u64>().expect("a number")
    };
    (of("rchar:"), of("syscr:"))
}

pub fn measure(shards: usize) -> Value {
    let work = root().join("log-backup-idle");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir(&work).expect("make a directory");
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most).expect("have many files open");
    let options = || {
        let options = Options::new().create_if_missing(true).durability(Durability::Buffered);
        options.write_buffer_bytes(1 << 20).cache_bytes(1 << 20)
    };
    let open = |number: usize| {
        let path = work.join(number.to_string());
        Engine::open(&path, options()).expect("create").close().expect("close");
        let url = format!("memory://idle-{number}");
        let archive = Archive::open(&url, ArchiveOptions::default()).expect("open the archive");
        let engine = attach(&path, options(), &archive, TakeOver::No).expect("attach");
        engine.put("/key", vec![7; WAL_BYTES]).expect("put");
        let backup = LogBackup::start(&engine, &archive, LogBackupOptions::default()).expect("start");
        (engine, backup)
    };
    let all: Vec<_> = (0..shards).map(open).collect();
    let is_shipped = |(engine, backup): &(Engine, LogBackup)| {
        let status = backup.status();
        status.state == LogBackupState::Shipping && status.shipped_sequence == engine.last_sequence()
    };
    while !all.iter().all(is_shipped) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (before, processor_before) = (reads(), processor());
    std::thread::sleep(WATCHED);
    let (after, processor_after) = (reads(), processor());
    let read = after.0 - before.0;
    println!("{shards} idle databases: {read} bytes read in {WATCHED:?}");
    for (engine, backup) in all {
        backup.stop().expect("stop");
        engine.close().expect("close");
    }
    std::fs::remove_dir_all(&work).expect("remove the work");
    json!({
        "databases": shards, "wal_bytes": shards * WAL_BYTES, "seconds": WATCHED.as_secs(),
        "bytes_read": read, "read_calls": after.1 - before.1,
        "processor_share_of_one_core": (processor_after - processor_before) / WATCHED.as_secs_f64(),
    })
}
