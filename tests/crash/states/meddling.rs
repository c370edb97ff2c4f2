//! Other software's doings between a crash and the restart, and a source that was not synced when the change began.

use super::super::common::figures::Figures;
use super::super::common::{self, Content, options, sample};
use super::super::scenario::{COUNT, Expect, Scenario, database};
use super::build::Built;
use super::disk::{Change, Node};
use super::judge::State;
use super::record::record;
use super::{Run, Snapshot, recovery, runs, states, way};
use morphkv::encoding::{Comparator, Hierarchical, KeyEncoding, Natural};
use morphkv::testing::journal::{self, JournalState, Phase};
use morphkv::testing::{Database, Family, Layout, RealVfs, Settings, marker};
use morphkv::{Durability, Engine, ErrorKind};
use std::collections::BTreeSet;
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
        prepare: Box::new(|directory| drop(make_unsynced(directory))),
        act: |directory, options| Engine::open(database(directory), options.encoding(Hierarchical))?.close(),
        expect: Box::new(|| Expect::OneOf((1..=LATE).map(with_late).collect())),
    };
    let directory = common::scratch();
    let (name, len) = make_unsynced(directory.path());
    let mut recording = record(directory.path(), |vfs| (scenario.act)(directory.path(), options().vfs(vfs)).unwrap());
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

const OTHERS_KEY: &[u8] = b"/written/by/others";

/// How a database directory encodes the key, and with which comparator it opens: by its marker, or by trial.
fn ways_to_open(directory: &Path) -> Vec<(Vec<u8>, Settings)> {
    let mut hierarchical = Vec::new();
    Hierarchical.encode(OTHERS_KEY, &mut hierarchical).unwrap();
    let bytewise = Settings::default();
    let legacy = Settings { comparator: Comparator::SlashSpans, ..Settings::default() };
    match marker::read(&RealVfs::default(), directory) {
        Ok(Some(marker)) if marker.encoding.name == "hierarchical" => vec![(hierarchical, bytewise)],
        Ok(Some(_)) => vec![(OTHERS_KEY.to_vec(), bytewise)],
        _ => vec![(OTHERS_KEY.to_vec(), legacy), (OTHERS_KEY.to_vec(), bytewise)],
    }
}

/// Writes a key as RocksDB's own tools would. Whether it could.
fn write_as_others(directory: &Path) -> bool {
    let vfs = RealVfs::default();
    if !directory.join("CURRENT").exists() {
        return false;
    }
    ways_to_open(directory).into_iter().any(|(key, settings)| {
        let opened =
            Database::open_read_only(&vfs, directory, &settings).and_then(|reader| match reader.has_internal() {
                true => Database::open(&vfs, directory, &settings),
                false => Database::create_data_only(directory, &settings),
            });
        let Ok(database) = opened else { return false };
        database.put(Family::Data, &key, b"1", Durability::Sync).and_then(|()| database.close()).is_ok()
    })
}

/// Whether any database in the place holds the key that others wrote.
fn others_key_is_there(place: &Path) -> bool {
    let directories = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    directories.filter(|path| path.join("CURRENT").exists()).any(|path| {
        ways_to_open(&path).into_iter().any(|(key, settings)| {
            let opened = Database::open_read_only(&RealVfs::default(), &path, &settings);
            opened.is_ok_and(|database| matches!(database.get(Family::Data, &key), Ok(Some(_))))
        })
    })
}

/// What is meant to go, with all that is in it.
fn is_given_up(scenario: &Scenario, directory: &Path) -> bool {
    let new = matches!(marker::read(&RealVfs::default(), directory),
        Ok(Some(marker)) if marker.encoding.name == "hierarchical");
    scenario.name == "destroy" || scenario.name == "roll back" && new
}

/// One state of each way that recovery goes.
fn representatives(run: &Run) -> Vec<State> {
    let found = states(&run.recording.start, &run.unsynced, &run.recording.steps, 4);
    let mut ways = BTreeSet::new();
    let mut is_new = |state: &State| recovery(state).is_some_and(|recording| ways.insert(way(&recording)));
    found.all.into_iter().map(|(_, state)| state).filter(|state| is_new(state)).collect()
}

#[test]
fn what_others_write_between_crash_and_restart_stays() {
    let figures = Figures::new("others-writes");
    let mut meddled = 0;
    for run in runs() {
        for state in representatives(&run) {
            for name in ["db", "db.backup"] {
                let built = Built::new(state.root, &state.nodes);
                let place = built.directory.path();
                let directory = place.join(name);
                if is_given_up(&run.scenario, &directory) || !write_as_others(&directory) {
                    continue;
                }
                meddled += 1;
                assert!(others_key_is_there(place), "the checker does not see what it wrote");
                let before = common::bytes_below(place);
                match Engine::open(database(place), options()) {
                    Ok(engine) => engine.close().unwrap(),
                    Err(error) if error.message().contains("legacy") => {}
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Refused, "{}: {name}: {error:?}", run.scenario.name);
                        assert_eq!(common::bytes_below(place), before, "{}: refused and changed", run.scenario.name);
                    }
                }
                let there = others_key_is_there(place);
                assert!(there, "{}: what others wrote to {name} is gone", run.scenario.name);
            }
        }
    }
    figures.with("places written to by others", meddled).with("lost", 0).print();
    assert!(meddled >= 50, "{meddled}");
}

/// Takes one file of the database away, cuts one, or empties one.
fn damage(directory: &Path, how: usize) -> bool {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is = |path: &Path, end: &str| path.file_name().unwrap().to_str().unwrap().contains(end);
    let wanted = [".sst", "CURRENT", "MANIFEST", "KEY_ENCODING"][how % 4];
    let Some(file) = files.filter(|path| is(path, wanted)).max() else { return false };
    let contents = std::fs::read(&file).unwrap();
    match how / 4 {
        0 => std::fs::remove_file(&file).unwrap(),
        1 => std::fs::write(&file, &contents[..contents.len() / 2]).unwrap(),
        _ => std::fs::write(&file, b"").unwrap(),
    }
    true
}

/// A live database may hold acknowledged writes as soon as the change is Done: it is never replaced by the old one,
/// however damaged it is.
#[test]
fn a_live_database_damaged_after_done_is_never_replaced() {
    let figures = Figures::new("damaged-after-done");
    let mut damaged = 0;
    for run in runs().iter().filter(|run| run.scenario.name.starts_with("convert")) {
        for state in representatives(run) {
            for how in 0..12 {
                let built = Built::new(state.root, &state.nodes);
                let place = built.directory.path();
                let layout = Layout::new(&database(place)).unwrap();
                let Ok(JournalState::Read(journal)) = journal::read(&RealVfs::default(), &layout) else { continue };
                let settled = matches!(journal.phase, Phase::Done | Phase::Kept);
                if !settled || !layout.backup_dir.exists() || !damage(&layout.live, how) {
                    continue;
                }
                damaged += 1;
                let before = common::bytes_below(place);
                let opened = Engine::open(&layout.live, options());
                assert!(opened.is_err(), "{}: damage {how}: opened", run.scenario.name);
                assert_eq!(common::bytes_below(place), before, "{}: damage {how}: changed", run.scenario.name);
            }
        }
    }
    figures.with("live databases damaged", damaged).with("replaced", 0).print();
    assert!(damaged >= 24, "{damaged}");
}
