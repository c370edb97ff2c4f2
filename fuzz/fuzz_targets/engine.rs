//! Any sequence of operations on an engine, with conversions and reopenings, against a sorted map.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Durability, Engine, Options};
use std::collections::BTreeMap;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("db");
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut engine = Some(open(&path, false));
    for step in data.chunks(6).take(60) {
        let (operation, key) = (step[0], key(&step[1..]));
        match operation % 8 {
            0..=3 => {
                engine.as_ref().expect("open").put(&key, step).expect("put");
                model.insert(key, step.to_vec());
            }
            4 => {
                engine.as_ref().expect("open").delete(&key).expect("delete");
                model.remove(&key);
            }
            5 => compare(engine.as_ref().expect("open"), &model),
            _ if operation < 200 => {
                let found = engine.as_ref().expect("open").get(&key).expect("get").map(|value| value.to_vec());
                assert_eq!(found.as_ref(), model.get(&key));
            }
            _ => {
                drop(engine.take());
                engine = Some(open(&path, operation % 2 == 0));
                compare(engine.as_ref().expect("open"), &model);
            }
        }
    }
    compare(engine.as_ref().expect("open"), &model);
});

fn open(path: &Path, hierarchical: bool) -> Engine {
    let options = Options::new().create_if_missing(true).durability(Durability::Buffered).write_buffer_bytes(1 << 20);
    let options = if hierarchical { options.encoding(Hierarchical) } else { options.encoding(Natural) };
    Engine::open(path, options).expect("open")
}

/// Keys of a small alphabet, so that they meet often.
fn key(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| b"a/b_"[usize::from(byte % 4)]).collect()
}

fn compare(engine: &Engine, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let name = engine.encoding().name;
    let encoded = |key: &[u8]| {
        let mut out = Vec::new();
        let encoding: &dyn KeyEncoding = if name == "natural" { &Natural } else { &Hierarchical };
        encoding.encode(key, &mut out).expect("keys of the alphabet can be carried");
        out
    };
    let mut wanted: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    wanted.sort_by_key(|(key, _)| encoded(key));
    let found: Vec<_> = engine.range(..).expect("range").map(|entry| entry.expect("range")).collect();
    assert!(found.iter().map(|(k, v)| (k, v)).eq(wanted.iter().map(|(k, v)| (k, v))), "{name}");
}
