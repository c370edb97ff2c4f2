//! Other software's doings between a crash and the restart, and a source that was not synced when the change began.

use super::super::common::{self, Content, options, sample};
use super::super::scenario::{COUNT, Expect, Scenario, database};
use super::disk::{Change, Node};
use super::record::record;
use super::{Run, Snapshot};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::{Durability, Engine};
use std::path::Path;
use std::sync::Arc;

const LATE: usize = 3;

fn with_late(count: usize) -> Content {
    let mut content = sample(COUNT);
    content.extend((0..count).map(|number| (format!("/late/{number}").into_bytes(), b"1".to_vec())));
    content
}

/// A database whose last writes are in the page cache alone. Tells the length of its WAL that is durable.
fn make_unsynced(directory: &Path) -> (String, usize) {
    let elsewhere = common::scratch();
    let path = database(elsewhere.path());
    common::make(&path, Arc::new(Natural), &sample(COUNT));
    let engine = Engine::open(&path, options().durability(Durability::Buffered)).unwrap();
    engine.put(b"/late/0", b"1").unwrap();
    let (name, len) = newest_wal(&path);
    for number in 1..LATE {
        engine.put(format!("/late/{number}").as_bytes(), b"1").unwrap();
    }
    // Copied as it stands: closing it would flush.
    common::copy_tree(elsewhere.path(), directory);
    (name, len)
}

fn newest_wal(path: &Path) -> (String, usize) {
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.filter(|name| name.ends_with(".log")).max().unwrap();
    let len = std::fs::read(path.join(&name)).unwrap().len();
    (name, len)
}

/// A conversion of a database whose last writes nobody has synced: they may be lost, but only from the end.
pub fn unsynced_source() -> Run {
    let scenario = Scenario {
        name: "convert an unsynced source",
        prepare: |directory| drop(make_unsynced(directory)),
        act: |directory, options| Engine::open(database(directory), options.encoding(Hierarchical))?.close(),
        expect: || Expect::OneOf((1..=LATE).map(with_late).collect()),
    };
    let directory = common::scratch();
    let (name, len) = make_unsynced(directory.path());
    let mut recording =
        record(directory.path(), |vfs| (scenario.act)(directory.path(), options().vfs(vfs)).unwrap());
    let unsynced = take_back(&mut recording.start, &name, len);
    Run { scenario, recording, unsynced, encoding_after: "hierarchical".into() }
}

/// Makes only the first `len` bytes of the WAL durable.
fn take_back(start: &mut Snapshot, name: &str, len: usize) -> Vec<Change> {
    let inode = start.find(&Path::new("db").join(name)).unwrap();
    let Some(Node::File(contents)) = start.nodes.get(&inode).cloned() else { panic!("no WAL file") };
    start.nodes.insert(inode, Node::File(contents[..len].into()));
    vec![Change::Contents(inode, contents)]
}
