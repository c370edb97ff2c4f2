//! The directories and journals that layouts are made of. All of them were really made: a database is created, converted,
//! written to, converted again, rolled back and destroyed, and what stands at the traps on the way is kept in memory. So
//! marker, identity, fingerprint and journal agree, as they do after a crash.

use super::common::{self, Content, options};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::testing::journal::{self, Journal, Kind, Phase};
use morphkv::testing::{Operation, RealVfs, RecordingVfs, Trap};
use morphkv::{Engine, Keep, manage};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// The databases that there are. `Base` was converted into `Converted`, and that again into `Again`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Db {
    Base,
    Converted,
    Again,
    Created,
    Stranger,
}

/// The states in which they stand somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// As it was sealed.
    Whole,
    /// A handle was given out, and a write acknowledged.
    Acknowledged,
    /// Written to by others since, behind the journal's back.
    Written,
    /// A file of it is missing.
    Lost,
    /// Not finished: no marker.
    Unsealed,
}

/// A directory's names and bytes; a folder has none.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

pub struct Template {
    pub tree: Tree,
    pub content: Content,
    pub encoding: &'static str,
}

/// A step of a recovery is compared with these.
pub struct Templates {
    databases: HashMap<(Db, State), Template>,
    ids: HashMap<Db, Uuid>,
    pub journals: BTreeMap<&'static str, Journal>,
}

/// RocksDB's own log of messages: also a look that changes nothing may add to it.
pub fn is_log(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last == "LOG" || last.starts_with("LOG.old")
}

pub fn read_tree(path: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(path).unwrap().display().to_string();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                tree.insert(name, None);
            } else if !is_log(&name) {
                tree.insert(name, Some(std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    tree
}

pub fn write_tree(tree: &Tree, path: &Path) {
    std::fs::create_dir(path).unwrap();
    for (name, contents) in tree {
        match contents {
            Some(contents) => std::fs::write(path.join(name), contents).unwrap(),
            None => std::fs::create_dir(path.join(name)).unwrap(),
        }
    }
}

/// A folder that has nothing to do with us.
pub fn folder() -> Tree {
    let file = |text: &str| Some(text.as_bytes().to_vec());
    Tree::from([
        ("notes.txt".into(), file("not a database")),
        ("photos".into(), None),
        ("photos/1.raw".into(), file("")),
    ])
}

/// What stood there at a trap.
#[derive(Clone, Default)]
struct Moment {
    journal: Option<Journal>,
    live: Tree,
    staging: Tree,
}

type Moments = Arc<Mutex<HashMap<Trap, Moment>>>;

/// File operations that keep what stands in `directory` at each trap.
fn watched(directory: &Path) -> (Arc<RecordingVfs>, Moments) {
    let moments = Moments::default();
    let (kept, directory) = (moments.clone(), directory.to_path_buf());
    let vfs = RecordingVfs::watched(Arc::new(RealVfs::default()), move |operation| {
        let Operation::Trap(trap) = operation else { return };
        let tree = |name: &str| {
            let path = directory.join(name);
            if path.is_dir() { read_tree(&path) } else { Tree::new() }
        };
        let journal = std::fs::read(directory.join("db.conversion")).ok();
        let journal = journal.map(|bytes| journal::from_bytes(&bytes).unwrap());
        kept.lock().insert(*trap, Moment { journal, live: tree("db"), staging: tree("db.converting") });
    });
    (Arc::new(vfs), moments)
}

impl Moment {
    fn journal(&self) -> Journal {
        self.journal.clone().expect("a journal stands at this trap")
    }
}

fn at(moments: &Moments, trap: Trap) -> Moment {
    moments.lock().get(&trap).unwrap_or_else(|| panic!("{} was not met", trap.name())).clone()
}

/// Without its largest SST file.
fn without_a_file(tree: &Tree) -> Tree {
    let len = |contents: &Option<Vec<u8>>| contents.as_ref().map_or(0, Vec::len);
    let tables = tree.iter().filter(|(name, _)| name.ends_with(".sst"));
    let (largest, _) = tables.max_by_key(|(_, contents)| len(contents)).expect("an SST file");
    let mut tree = tree.clone();
    tree.remove(&largest.clone());
    tree
}

fn content() -> Content {
    let mut content = common::sample(24);
    content.insert(b"/only/in/the/wal".to_vec(), b"1".to_vec());
    content
}

fn and(content: &Content, key: &str) -> Content {
    let mut content = content.clone();
    content.insert(key.as_bytes().to_vec(), b"1".to_vec());
    content
}

fn write(path: &Path, key: &str) {
    let engine = Engine::open(path, options()).unwrap();
    engine.put(key.as_bytes(), b"1").unwrap();
    engine.close().unwrap();
}

/// A database in natural order, some of it in SST files, some in the WAL.
fn base(path: &Path) {
    common::make(path, Arc::new(Natural), &common::sample(24));
    let engine = Engine::open(path, options()).unwrap();
    engine.flush().unwrap();
    engine.put(b"/only/in/the/wal", b"1").unwrap();
    engine.close().unwrap();
}

const KEY_ACKNOWLEDGED: &str = "/acknowledged";
const KEY_OF_OTHERS: &str = "/by/others";

impl Templates {
    pub fn make() -> Self {
        let mut made = Templates { databases: HashMap::new(), ids: HashMap::new(), journals: BTreeMap::new() };
        let scratch = common::scratch();
        let directory = |name: &str| {
            let path = scratch.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        made.converted(&directory("a"));
        made.created(&directory("b"));
        made.others(&directory("c"));
        for db in [Db::Base, Db::Converted] {
            made.written_by_others(db, &directory(&format!("{db:?}")));
        }
        for (db, state) in [
            (Db::Base, State::Whole),
            (Db::Converted, State::Acknowledged),
            (Db::Again, State::Whole),
            (Db::Created, State::Acknowledged),
        ] {
            let whole = made.template(db, state);
            let (tree, content, encoding) = (without_a_file(&whole.tree), whole.content.clone(), whole.encoding);
            made.add(db, State::Lost, tree, content, encoding);
        }
        made
    }

    fn add(&mut self, db: Db, state: State, tree: Tree, content: Content, encoding: &'static str) {
        self.databases.insert((db, state), Template { tree, content, encoding });
    }

    pub fn template(&self, db: Db, state: State) -> &Template {
        self.databases.get(&(db, state)).unwrap_or_else(|| panic!("{db:?} does not come {state:?}"))
    }

    pub fn id(&self, db: Db) -> Uuid {
        self.ids[&db]
    }

    /// The state in which it was when the change began that replaces it.
    pub fn as_it_was(db: Db) -> State {
        if db == Db::Converted { State::Acknowledged } else { State::Whole }
    }

    /// A conversion that keeps the old database, a write, a rollback of it on the side, and a conversion that replaces.
    fn converted(&mut self, directory: &Path) {
        let path = directory.join("db");
        base(&path);
        let (vfs, moments) = watched(directory);
        let keep = options().vfs(vfs).encoding(Hierarchical).keep_backup(Keep::Yes);
        Engine::open(&path, keep).unwrap().close().unwrap();
        let (building, ready) = (at(&moments, Trap::JournalBuildingAfter), at(&moments, Trap::JournalReadyAfter));
        let kept = at(&moments, Trap::JournalSettledAfter).journal();
        self.ids.insert(Db::Base, kept.source.as_ref().and_then(|source| source.marker_id).unwrap());
        self.ids.insert(Db::Converted, kept.id);
        self.add(Db::Base, State::Whole, building.live.clone(), content(), "natural");
        let unsealed = at(&moments, Trap::StagingClosed).staging;
        self.add(Db::Converted, State::Unsealed, unsealed, content(), "hierarchical");
        self.add(Db::Converted, State::Whole, ready.staging.clone(), content(), "hierarchical");
        self.convert_journals(&building.journal(), &ready.journal(), &kept);
        write(&path, KEY_ACKNOWLEDGED);
        self.rolled_back(directory, &kept);
        self.replaced(directory);
    }

    fn convert_journals(&mut self, building: &Journal, ready: &Journal, kept: &Journal) {
        let let_go = |journal: &Journal| Journal { keep: false, ..journal.clone() };
        assert_eq!((kept.phase, kept.keep), (Phase::Kept, true));
        self.journals.extend([
            ("convert building", let_go(building)),
            ("convert ready", let_go(ready)),
            ("convert ready, keeping", ready.clone()),
            ("convert done", let_go(&kept.in_phase(Phase::Done))),
            ("convert kept", kept.clone()),
        ]);
    }

    /// The journals of a rollback and of a destruction, from a copy.
    fn rolled_back(&mut self, directory: &Path, kept: &Journal) {
        let copy = common::scratch();
        common::copy_tree(directory, copy.path());
        let (vfs, moments) = watched(copy.path());
        manage::rollback(copy.path().join("db"), &options().vfs(vfs.clone())).unwrap();
        let ready = at(&moments, Trap::RollbackAfter).journal();
        let done = at(&moments, Trap::JournalSettledAfter).journal();
        assert_eq!((ready.id, ready.kind, done.phase), (kept.id, Kind::Rollback, Phase::Done));
        Engine::destroy(copy.path().join("db"), options().vfs(vfs)).unwrap();
        let destroy = at(&moments, Trap::DestroyAfter).journal();
        self.journals.extend([("rollback ready", ready), ("rollback done", done), ("destroy", destroy)]);
    }

    fn replaced(&mut self, directory: &Path) {
        let path = directory.join("db");
        let (vfs, moments) = watched(directory);
        let replace = options().vfs(vfs).encoding(Natural).keep_backup(Keep::Replace);
        Engine::open(&path, replace).unwrap().close().unwrap();
        let (building, ready) = (at(&moments, Trap::JournalBuildingAfter), at(&moments, Trap::JournalReadyAfter));
        let content = and(&content(), KEY_ACKNOWLEDGED);
        self.ids.insert(Db::Again, ready.journal().id);
        self.add(Db::Converted, State::Acknowledged, building.live.clone(), content.clone(), "hierarchical");
        let unsealed = at(&moments, Trap::StagingClosed).staging;
        self.add(Db::Again, State::Unsealed, unsealed, content.clone(), "natural");
        self.add(Db::Again, State::Whole, ready.staging.clone(), content, "natural");
        self.journals.extend([("replacing building", building.journal()), ("replacing ready", ready.journal())]);
    }

    fn created(&mut self, directory: &Path) {
        let path = directory.join("db");
        let (vfs, moments) = watched(directory);
        let create = options().vfs(vfs).encoding(Hierarchical).create_if_missing(true);
        Engine::open(&path, create).unwrap().close().unwrap();
        let ready = at(&moments, Trap::JournalReadyAfter);
        self.ids.insert(Db::Created, ready.journal().id);
        let unsealed = at(&moments, Trap::StagingClosed).staging;
        self.add(Db::Created, State::Unsealed, unsealed, Content::new(), "hierarchical");
        self.add(Db::Created, State::Whole, ready.staging.clone(), Content::new(), "hierarchical");
        write(&path, KEY_ACKNOWLEDGED);
        let content = and(&Content::new(), KEY_ACKNOWLEDGED);
        self.add(Db::Created, State::Acknowledged, read_tree(&path), content, "hierarchical");
        self.journals.extend([
            ("create building", at(&moments, Trap::JournalBuildingAfter).journal()),
            ("create ready", ready.journal()),
            ("create done", at(&moments, Trap::JournalSettledAfter).journal()),
        ]);
    }

    /// Somebody else's database, and the journal of somebody else's conversion.
    fn others(&mut self, directory: &Path) {
        let path = directory.join("db");
        let content = and(&Content::new(), "/of/somebody/else");
        common::make(&path, Arc::new(Natural), &content);
        self.ids.insert(Db::Stranger, Uuid::nil());
        self.add(Db::Stranger, State::Whole, read_tree(&path), content, "natural");
        std::fs::remove_dir_all(&path).unwrap();
        base(&path);
        let (vfs, moments) = watched(directory);
        Engine::open(&path, options().vfs(vfs).encoding(Hierarchical)).unwrap().close().unwrap();
        self.journals.insert("foreign", at(&moments, Trap::JournalReadyAfter).journal());
    }

    fn written_by_others(&mut self, db: Db, directory: &Path) {
        let whole = self.template(db, Self::as_it_was(db));
        let (content, encoding) = (and(&whole.content, KEY_OF_OTHERS), whole.encoding);
        let path: PathBuf = directory.join("db");
        write_tree(&whole.tree, &path);
        write(&path, KEY_OF_OTHERS);
        self.add(db, State::Written, read_tree(&path), content, encoding);
    }
}
