//! Building a layout, opening it, and comparing what came of it with what the table says.

use super::common::{self, options};
use super::distorted::Distorted;
use super::place::{End, Paper, Place, Prediction, Thing, follow};
use super::table::Row;
use super::templates::{self, Db, State, Templates, read_tree, write_tree};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::testing::journal;
use morphkv::{Engine, Error, ErrorKind, Options};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// In whatever encoding it has.
    Unset,
    /// The same, and made if there is none.
    Create,
    Natural,
    Hierarchical,
}

impl Request {
    pub const ALL: [Request; 4] = [Request::Unset, Request::Create, Request::Natural, Request::Hierarchical];

    fn encoding(self) -> Option<&'static str> {
        match self {
            Request::Unset | Request::Create => None,
            Request::Natural => Some("natural"),
            Request::Hierarchical => Some("hierarchical"),
        }
    }

    fn options(self) -> Options {
        match self {
            Request::Unset => options(),
            Request::Create => options().create_if_missing(true),
            Request::Natural => options().encoding(Natural),
            Request::Hierarchical => options().encoding(Hierarchical),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Opened,
    /// Opened in another encoding than it had.
    Converted,
    /// There was none, and a new one was made, as was asked.
    Created,
    Absent,
    Refused,
    /// Something could not be looked at, or is damaged.
    Error,
}

pub struct Case {
    pub name: String,
    /// The name of what stands at the journal's name.
    pub journal: &'static str,
    pub place: Place,
    pub request: Request,
}

/// The names of a place with what is expected there.
type Named = [(&'static str, Thing); 4];

fn named(place: &Place) -> Named {
    [("db", place.live), ("db.converting", place.staging), ("db.backup", place.backup), ("db.trash", place.trash)]
}

/// Writes down the rows that recovery takes on this thread.
struct Rows(Arc<Mutex<Vec<u8>>>);

impl tracing::field::Visit for Rows {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        let row = u8::try_from(value).unwrap();
        let mut rows = self.0.lock();
        // A step may be done in two looks at the same row.
        if field.name() == "row" && rows.last() != Some(&row) {
            rows.push(row);
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

impl tracing::Subscriber for Rows {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("morphkv::place")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Rows(self.0.clone()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// One thread's workplace: the layouts are built in it one after the other.
pub struct Bench<'t> {
    templates: &'t Templates,
    table: &'t [Row],
    scratch: tempfile::TempDir,
    /// What is known, by comparison, to stand at the names since the last layout: it need not be built again.
    standing: RefCell<HashMap<&'static str, Thing>>,
}

/// What symbolic links lead to: a whole database that would be welcome at the name of the link.
const LINKED: (Db, State) = (Db::Converted, State::Acknowledged);

impl<'t> Bench<'t> {
    pub fn new(templates: &'t Templates, table: &'t [Row]) -> Self {
        let bench = Bench { templates, table, scratch: common::scratch(), standing: RefCell::default() };
        std::fs::create_dir(bench.directory()).unwrap();
        std::fs::create_dir(bench.elsewhere()).unwrap();
        for (name, _) in named(&Place::nothing()) {
            write_tree(&templates.template(LINKED.0, LINKED.1).tree, &bench.elsewhere().join(name));
        }
        std::fs::write(bench.elsewhere().join("db.conversion"), bench.journal_bytes("link").unwrap()).unwrap();
        bench
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path().join("place")
    }

    fn elsewhere(&self) -> PathBuf {
        self.scratch.path().join("elsewhere")
    }

    fn build(&self, case: &Case) -> Distorted {
        let directory = self.directory();
        let mut distorted = Distorted::default();
        for (name, thing) in named(&case.place) {
            let path = directory.join(name);
            if let Thing::Denied(..) = thing {
                distorted.denied.push(path.clone());
            }
            if self.standing.borrow_mut().insert(name, thing.on_disk()) == Some(thing.on_disk()) {
                continue;
            }
            remove(&path);
            match thing.on_disk() {
                Thing::Absent => {}
                Thing::Empty => std::fs::create_dir(&path).unwrap(),
                Thing::Folder => write_tree(&templates::folder(), &path),
                Thing::Link => std::os::unix::fs::symlink(self.elsewhere().join(name), &path).unwrap(),
                Thing::Database(db, state) | Thing::Denied(db, state) => {
                    write_tree(&self.templates.template(db, state).tree, &path);
                }
            }
        }
        let path = directory.join("db.conversion");
        remove(&path);
        match case.journal {
            "link" => std::os::unix::fs::symlink(self.elsewhere().join("db.conversion"), &path).unwrap(),
            name => self.journal_bytes(name).into_iter().for_each(|bytes| std::fs::write(&path, bytes).unwrap()),
        }
        if case.journal == "unreadable" {
            distorted.denied.push(path);
        }
        distorted
    }

    /// What is written at the journal's name.
    fn journal_bytes(&self, name: &str) -> Option<Vec<u8>> {
        let journal = |name: &str| self.templates.journals[name].clone();
        let bytes = |journal: &journal::Journal| journal::to_bytes(journal).unwrap();
        match name {
            "none" => None,
            "empty" => Some(Vec::new()),
            "torn" => {
                let whole = bytes(&journal("convert ready"));
                Some(whole[..whole.len() / 2].to_vec())
            }
            "later" => Some(bytes(&journal::Journal { format: 2, ..journal("convert ready") })),
            "unreadable" | "link" => Some(bytes(&journal("convert done"))),
            name => Some(bytes(&journal(name))),
        }
    }

    fn open(&self, distorted: Distorted, request: Request) -> (Result<Engine, Error>, Vec<u8>) {
        let rows = Arc::new(Mutex::new(Vec::new()));
        let path = self.directory().join("db");
        let wanted = request.options().vfs(Arc::new(distorted));
        let opened = tracing::subscriber::with_default(Rows(rows.clone()), || Engine::open(path, wanted));
        let rows = rows.lock().clone();
        (opened, rows)
    }

    /// Builds, opens and compares. What came of it, and the rows that were taken.
    pub fn check(&self, case: &Case) -> (Outcome, Vec<u8>) {
        let predicted = follow(self.table, self.templates, case.place.clone());
        let distorted = self.build(case);
        let (opened, rows) = self.open(distorted, case.request);
        let name = &case.name;
        let outcome = match predicted.end {
            End::Denied => refused(name, opened, ErrorKind::Io, Outcome::Error),
            End::Refused => refused(name, opened, ErrorKind::Refused, Outcome::Refused),
            End::Absent if case.request == Request::Create => created(name, opened),
            End::Absent => refused(name, opened, ErrorKind::NotFound, Outcome::Absent),
            End::Open => self.judge_open(case, &predicted, opened),
        };
        let more = matches!(outcome, Outcome::Created | Outcome::Converted) || outcome == Outcome::Error;
        let as_predicted = if more { rows.starts_with(&predicted.rows) } else { rows == predicted.rows };
        assert!(as_predicted, "{name}: took the rows {rows:?}, the table says {:?}", predicted.rows);
        self.compare(case, &predicted, outcome);
        (outcome, rows)
    }

    /// Two of the names show one directory: refused, whatever else stands there.
    pub fn check_twins(&self, case: &Case) -> Vec<(Outcome, Vec<u8>)> {
        let names = named(&case.place);
        let mut found = Vec::new();
        for (index, (first, _)) in names.iter().enumerate() {
            for (second, _) in &names[index + 1..] {
                let mut distorted = self.build(case);
                let name = format!("{first} and {second} are one, {}", case.name);
                distorted.alias = Some((self.directory().join(first), self.directory().join(second)));
                let before = common::bytes_below(&self.directory());
                let (opened, rows) = self.open(distorted, case.request);
                assert_eq!(rows, [1], "{name}");
                found.push((refused(&name, opened, ErrorKind::Refused, Outcome::Refused), rows));
                assert!(common::bytes_below(&self.directory()) == before, "{name}: refused, and yet changed");
            }
        }
        found
    }

    fn judge_open(&self, case: &Case, predicted: &Prediction, opened: Result<Engine, Error>) -> Outcome {
        let name = &case.name;
        let Thing::Database(db, state) = predicted.place.live else {
            panic!("{name}: the table opens {:?}", predicted.place.live)
        };
        let template = self.templates.template(db, state);
        let converts = case.request.encoding().is_some_and(|wanted| wanted != template.encoding);
        if converts && predicted.place.has_siblings() {
            return refused(name, opened, ErrorKind::Conflict, Outcome::Refused);
        }
        if state == State::Lost {
            return refused(name, opened, ErrorKind::Corrupt, Outcome::Error);
        }
        let engine = opened.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let wanted = case.request.encoding().unwrap_or(template.encoding);
        assert_eq!(engine.encoding().name, wanted, "{name}: the wrong database, or the wrong encoding");
        assert_eq!(common::content(&engine), template.content, "{name}: the wrong content");
        engine.close().unwrap();
        if converts { Outcome::Converted } else { Outcome::Opened }
    }

    /// Every name holds what the table says, to the byte; what links lead to is as it was.
    fn compare(&self, case: &Case, predicted: &Prediction, outcome: Outcome) {
        let (directory, name) = (self.directory(), &case.name);
        let fresh = matches!(outcome, Outcome::Created | Outcome::Converted);
        for (sibling, thing) in named(&predicted.place) {
            let is_live = sibling == "db";
            let tried = is_live && outcome == Outcome::Error && predicted.end == End::Open;
            let thing = if fresh { Thing::Absent } else { thing };
            if !is_live || !(fresh || outcome == Outcome::Opened) {
                self.compare_thing(&format!("{name}: {sibling}"), &directory.join(sibling), thing, tried);
                self.standing.borrow_mut().insert(sibling, thing.on_disk());
            }
            if is_live && (fresh || tried || outcome == Outcome::Opened) {
                self.standing.borrow_mut().remove(sibling);
            }
        }
        self.compare_journal(case, &predicted.place.paper, fresh);
        let known = ["db", "db.lock", "db.conversion", "db.converting", "db.backup", "db.trash"];
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap().file_name();
            assert!(known.iter().any(|known| entry == **known), "{name}: {entry:?} was left behind");
        }
    }

    /// `tried`: RocksDB has tried to open it, and may have added files of its own.
    fn compare_thing(&self, what: &str, path: &Path, thing: Thing, tried: bool) {
        let stands = path.symlink_metadata().ok();
        let tree = match thing {
            Thing::Absent => return assert!(stands.is_none(), "{what} should be absent"),
            Thing::Link => {
                assert!(stands.is_some_and(|stat| stat.is_symlink()), "{what} should still be a link");
                let target = self.elsewhere().join(path.file_name().unwrap());
                let linked = &self.templates.template(LINKED.0, LINKED.1).tree;
                return assert!(read_tree(&target) == *linked, "{what}: what the link leads to was changed");
            }
            Thing::Empty => templates::Tree::new(),
            Thing::Folder => templates::folder(),
            Thing::Database(db, state) | Thing::Denied(db, state) => self.templates.template(db, state).tree.clone(),
        };
        assert!(stands.is_some_and(|stat| stat.is_dir()), "{what} should be {thing:?}");
        let mut found = read_tree(path);
        if tried {
            found.retain(|name, _| tree.contains_key(name));
        }
        let names = |tree: &templates::Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&tree), "{what} should be {thing:?}");
        assert!(found == tree, "{what}: the bytes of {thing:?} were changed");
    }

    fn compare_journal(&self, case: &Case, paper: &Paper, fresh: bool) {
        let (path, name) = (self.directory().join("db.conversion"), &case.name);
        let linked = std::fs::read(self.elsewhere().join("db.conversion")).ok();
        assert!(linked == self.journal_bytes("link"), "{name}: what the journal's link leads to was changed");
        let found = std::fs::read(&path).ok();
        match paper {
            Paper::Read(wanted) if !fresh => {
                let found = journal::from_bytes(&found.unwrap_or_default());
                assert_eq!(found.ok().as_ref(), Some(&**wanted), "{name}: the journal");
            }
            Paper::None | Paper::Read(_) => {
                assert!(path.symlink_metadata().is_err(), "{name}: the journal should be gone");
            }
            Paper::Unreadable | Paper::Denied => {
                assert!(found == self.journal_bytes(case.journal), "{name}: the journal was changed");
                let is_link = path.symlink_metadata().unwrap().is_symlink();
                assert_eq!(is_link, case.journal == "link", "{name}: the journal was replaced");
            }
        }
    }
}

/// Removes whatever stands there.
fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(stat) if stat.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

impl Place {
    fn nothing() -> Self {
        let absent = Thing::Absent;
        Place { paper: Paper::None, live: absent, staging: absent, backup: absent, trash: absent }
    }
}

fn refused(name: &str, opened: Result<Engine, Error>, kind: ErrorKind, outcome: Outcome) -> Outcome {
    match opened {
        Ok(engine) => panic!("{name}: opened with {} keys, expected {kind:?}", common::content(&engine).len()),
        Err(error) => assert_eq!(error.kind(), kind, "{name}: {error:?}"),
    }
    outcome
}

fn created(name: &str, opened: Result<Engine, Error>) -> Outcome {
    let engine = opened.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert!(common::content(&engine).is_empty(), "{name}: a new database holds something");
    engine.close().unwrap();
    Outcome::Created
}
