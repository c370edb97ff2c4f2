//! What many tests need: sample content, databases in every state, and comparison with a model.
#![allow(dead_code)] // Each test binary uses a part of it.

pub mod figures;

use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Engine, Options, Verify};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Keys and values, as a model of a database's content.
pub type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A temporary directory, in memory where the machine has such a place: a process that dies leaves the same there as on
/// a disk, and thousands of them cost no flushes.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Small buffers, everything verified twice.
pub fn options() -> Options {
    Options::new().verify(Verify::Both).write_buffer_bytes(1 << 20).cache_bytes(1 << 20).parallelism(2)
}

/// Content that natural and hierarchical order differently: several levels, siblings that are prefixes, odd bytes.
pub fn sample(count: usize) -> Content {
    let mut content = Content::new();
    for number in 0..count {
        let key = match number % 6 {
            0 => format!("/users/{number}/name"),
            1 => format!("/users/{}/", number / 6),
            2 => format!("plain-{number}"),
            3 => format!("/a/{}/b/{number}/c", number % 5),
            4 => format!("dir{}//", number % 7),
            _ => format!("\u{1}\u{0}odd/{number}"),
        };
        content.insert(key.into_bytes(), format!("value of {number}").into_bytes());
    }
    content.insert(Vec::new(), b"the empty key".to_vec());
    content
}

/// The encodings that can be asked for.
pub fn encodings() -> Vec<Arc<dyn KeyEncoding>> {
    vec![Arc::new(Natural), Arc::new(Hierarchical)]
}

/// Writes all of `content`.
pub fn fill(engine: &Engine, content: &Content) {
    let mut batch = engine.batch();
    for (key, value) in content {
        batch.put(key, value).unwrap();
    }
    batch.commit().unwrap();
}

/// A database at `path` in `encoding` with `content` and one internal record.
pub fn make(path: &Path, encoding: Arc<dyn KeyEncoding>, content: &Content) {
    let engine = Engine::open(path, options().create_if_missing(true).encoding(encoding)).unwrap();
    fill(&engine, content);
    engine.internal().put(b"offset", b"42").unwrap();
    engine.close().unwrap();
}

/// All of the engine's content, read forwards and backwards, which must agree.
pub fn content(engine: &Engine) -> Content {
    let forwards: Vec<(Vec<u8>, Vec<u8>)> = engine.range(..).unwrap().map(|entry| entry.unwrap()).collect();
    let mut backwards: Vec<(Vec<u8>, Vec<u8>)> = engine.range(..).unwrap().rev().map(|entry| entry.unwrap()).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let map: Content = forwards.iter().cloned().collect();
    assert_eq!(map.len(), forwards.len(), "a key came twice");
    map
}

/// Copies a directory with all that is in it, links kept as links.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below `path` with its bytes, for "nothing was touched" (RocksDB's own log of messages aside).
pub fn bytes_below(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    collect(path, path, &mut files);
    files
}

fn collect(root: &Path, path: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(root).unwrap().display().to_string();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.insert(format!("{name}/"), Vec::new());
            collect(root, &entry.path(), files);
        } else if kind.is_symlink() {
            files.insert(format!("{name}@"), Vec::new());
        } else if !name.ends_with(".lock") {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}
