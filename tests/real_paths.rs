//! The file paths of this machine as keys: hundreds of thousands of real ones, converted there and back.

#[path = "../src/bin/morphkv/commands/demo/paths.rs"]
#[allow(dead_code)] // The demonstration uses more of it.
mod paths;

use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Durability, Engine, Options, manage};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// So many take some ten seconds on a small machine.
const MOST_KEYS: usize = 300_000;

fn assert_content(database: &Path, expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let engine = Engine::open_read_only(database, Options::new()).unwrap();
    let mut count = 0;
    for entry in engine.range(..).unwrap() {
        let (key, value) = entry.unwrap();
        assert_eq!(expected.get(&key), Some(&value), "{}", key.escape_ascii());
        count += 1;
    }
    // None is there twice, and so none is missing.
    assert_eq!(count, expected.len());
}

#[test]
fn real_paths_survive_conversions_there_and_back() {
    let entries: BTreeMap<Vec<u8>, Vec<u8>> = paths::collect(Path::new("/"), MOST_KEYS).entries.into_iter().collect();
    assert!(entries.len() > 1000, "only {} files on this machine", entries.len());
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("paths");
    let options = Options::new().create_if_missing(true).durability(Durability::Buffered);
    let engine = Engine::open(&database, options).unwrap();
    engine.ingest(entries.iter().map(Ok)).unwrap();
    engine.close().unwrap();
    let loaded = manage::digest(&database, &Options::new()).unwrap();
    assert_eq!(loaded.entries, entries.len() as u64);

    let there_and_back: [Arc<dyn KeyEncoding>; 2] = [Arc::new(Hierarchical), Arc::new(Natural)];
    for encoding in there_and_back {
        let report = manage::convert(&database, &Options::new().encoding(encoding)).unwrap().unwrap();
        assert_eq!((report.entries, report.digest), (loaded.entries, loaded.digest.to_string()));
        assert_eq!(manage::digest(&database, &Options::new()).unwrap(), loaded);
        assert_content(&database, &entries);
        println!(
            "{} keys to {} in {:.2} s, {} late",
            report.entries, report.to, report.seconds, report.overflow_entries
        );
    }
}
