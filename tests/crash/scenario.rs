//! The changes that are crashed: how the place looks before, what is done, and which contents may be found afterwards.

use super::common::{self, Content, options, sample};
use morphkv::encoding::{Comparator, Hierarchical, KeyEncoding, Natural};
use morphkv::testing::{Attachment, Cause, Database, RealVfs, Settings, attachment};
use morphkv::{Durability, Engine, ErrorKind, Keep, Options, Result, manage};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What may be found after a crash.
pub enum Expect {
    /// One of these contents, always.
    OneOf(Vec<Content>),
    /// One of these contents, or no database.
    OneOfOrAbsent(Vec<Content>),
    /// This content, or a refusal whose next command is to adopt, after which adopting gives this content.
    AdoptableWith(Content),
}

pub struct Scenario {
    pub name: &'static str,
    pub prepare: fn(&Path),
    pub act: fn(&Path, Options) -> Result<()>,
    pub expect: fn() -> Expect,
}

const COUNT: usize = 80;

pub fn database(directory: &Path) -> PathBuf {
    directory.join("db")
}

fn natural(directory: &Path) {
    common::make(&database(directory), Arc::new(Natural), &sample(COUNT));
}

fn hierarchical(directory: &Path) {
    common::make(&database(directory), Arc::new(Hierarchical), &sample(COUNT));
}

fn same() -> Expect {
    Expect::OneOf(vec![sample(COUNT)])
}

fn later() -> Content {
    let mut content = sample(COUNT);
    content.insert(b"/written/since".to_vec(), b"1".to_vec());
    content
}

/// A database with the comparator of before the marker.
pub fn legacy(path: &Path, content: &Content) {
    std::fs::create_dir_all(path).unwrap();
    let settings = Settings { comparator: Comparator::SlashSpans, ..Settings::default() };
    let database = Database::create_data_only(path, &settings).unwrap();
    for (key, value) in content {
        database.put(morphkv::testing::Family::Data, key, value, Durability::Buffered).unwrap();
    }
    database.close().unwrap();
}

/// A plain RocksDB database, as other software makes it.
pub fn plain(path: &Path, content: &Content) {
    std::fs::create_dir_all(path).unwrap();
    let database = Database::create_data_only(path, &Settings::default()).unwrap();
    for (key, value) in content {
        database.put(morphkv::testing::Family::Data, key, value, Durability::Buffered).unwrap();
    }
    database.close().unwrap();
}

/// Attaches the database at `path` to an archive, as `log attach` will.
pub fn attach(path: &Path) {
    let vfs = RealVfs::default();
    let attachment = Attachment {
        format: attachment::ATTACHMENT_FORMAT,
        archive: "memory:///".into(),
        timeline: uuid::Uuid::from_u128(7),
        start_sequence: 0,
        parent: None,
        cause: Cause::Init,
    };
    attachment::write(&vfs, path, &attachment).unwrap();
}

fn convert_to(encoding: impl KeyEncoding) -> impl FnOnce(&Path, Options) -> Result<()> {
    move |directory, options| Engine::open(database(directory), options.encoding(encoding))?.close()
}

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "create",
            prepare: |_| {},
            act: |directory, options| {
                Engine::open(database(directory), options.create_if_missing(true).encoding(Hierarchical))?.close()
            },
            expect: || Expect::OneOfOrAbsent(vec![Content::new()]),
        },
        Scenario {
            name: "convert to hierarchical",
            prepare: natural,
            act: |directory, options| convert_to(Hierarchical)(directory, options),
            expect: same,
        },
        Scenario {
            name: "convert to natural",
            prepare: hierarchical,
            act: |directory, options| convert_to(Natural)(directory, options),
            expect: same,
        },
        Scenario {
            name: "convert a legacy database",
            prepare: |directory| legacy(&database(directory), &sample(COUNT)),
            act: |directory, options| convert_to(Hierarchical)(directory, options),
            expect: same,
        },
        Scenario {
            name: "convert an attached database",
            prepare: |directory| {
                natural(directory);
                attach(&database(directory));
            },
            act: |directory, options| convert_to(Hierarchical)(directory, options),
            expect: same,
        },
        Scenario {
            name: "convert and keep",
            prepare: natural,
            act: |directory, options| convert_to(Hierarchical)(directory, options.keep_backup(Keep::Yes)),
            expect: same,
        },
        Scenario {
            name: "roll back",
            prepare: kept_and_written,
            act: |directory, options| manage::rollback(database(directory), &options).map(drop),
            expect: || Expect::OneOf(vec![sample(COUNT), later()]),
        },
        Scenario {
            name: "drop the kept database",
            prepare: kept_and_written,
            act: |directory, options| manage::drop_backup(database(directory), &options),
            expect: || Expect::OneOf(vec![later()]),
        },
        Scenario {
            name: "replace the kept database",
            prepare: kept_and_written,
            act: |directory, options| convert_to(Natural)(directory, options.keep_backup(Keep::Replace)),
            expect: || Expect::OneOf(vec![later()]),
        },
        Scenario {
            name: "destroy",
            prepare: kept_and_written,
            act: |directory, options| Engine::destroy(database(directory), options).map(drop),
            expect: || Expect::OneOfOrAbsent(vec![later()]),
        },
        Scenario {
            name: "adopt",
            prepare: |directory| plain(&database(directory), &sample(COUNT)),
            act: |directory, options| {
                let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
                manage::adopt(database(directory), &natural, &options).map(drop)
            },
            expect: || Expect::AdoptableWith(sample(COUNT)),
        },
        Scenario {
            name: "checkpoint",
            prepare: natural,
            act: |directory, options| {
                Engine::open(database(directory), options)?.checkpoint(directory.join("copy"))?;
                let copy = Engine::open(directory.join("copy"), super::common::options())?;
                assert_eq!(common::content(&copy), sample(COUNT));
                Ok(())
            },
            expect: same,
        },
    ]
}

/// The scenario of that name, for a child.
pub fn named(name: &str) -> Scenario {
    all().into_iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

fn kept_and_written(directory: &Path) {
    natural(directory);
    let options = options().encoding(Hierarchical).keep_backup(Keep::Yes);
    let engine = Engine::open(database(directory), options).unwrap();
    engine.put(b"/written/since", b"1").unwrap();
    engine.close().unwrap();
}

/// Opens what a crash has left, for each encoding that may be asked for, and compares.
pub fn check(scenario: &Scenario, crashed: &Path, what: &str) {
    let mut wanted: Vec<Option<Arc<dyn KeyEncoding>>> = vec![None];
    wanted.extend(common::encodings().into_iter().map(Some));
    for encoding in wanted {
        let copy = common::scratch();
        common::copy_tree(crashed, copy.path());
        let name = encoding.as_ref().map_or("unset", |encoding| encoding.name()).to_owned();
        check_one(scenario, copy.path(), encoding, &format!("{}: {what}, then opened as {name}", scenario.name));
    }
}

/// As [`check`], with no encoding asked for, on `directory` itself.
pub fn check_unset(scenario: &Scenario, directory: &Path, what: &str) {
    check_one(scenario, directory, None, &format!("{}: {what}", scenario.name));
}

fn check_one(scenario: &Scenario, directory: &Path, encoding: Option<Arc<dyn KeyEncoding>>, what: &str) {
    let path = database(directory);
    let wanted = || match &encoding {
        Some(encoding) => options().encoding(encoding.clone()),
        None => options(),
    };
    let mut opened = Engine::open(&path, wanted());
    let waits = path.with_extension("backup").exists() || path.join("unshipped").exists();
    if waits && matches!(&opened, Err(error) if error.kind() == ErrorKind::Conflict) {
        // Converted, and the old database is kept or its log not shipped yet: another conversion has to wait.
        return check_one(scenario, directory, None, what);
    }
    let allowed = match (scenario.expect)() {
        Expect::OneOf(contents) => contents,
        Expect::OneOfOrAbsent(contents) => match &opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let left: Vec<_> = common::bytes_below(directory).into_keys().collect();
                assert!(left.is_empty(), "{what}: absent, but {left:?} is left");
                return;
            }
            _ => contents,
        },
        Expect::AdoptableWith(content) => {
            if let Err(error) = &opened {
                assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error:?}");
                assert!(error.next_command().unwrap().starts_with("morphkv adopt"), "{what}: {error:?}");
                let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
                manage::adopt(&path, &natural, &options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                opened = Engine::open(&path, wanted());
            }
            vec![content]
        }
    };
    if encoding.is_none()
        && let Err(error) = &opened
        && error.message().contains("legacy")
    {
        let reader = Engine::open_read_only(&path, options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let found: Content = reader.range(..).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(allowed.contains(&found), "{what}: wrong content");
        return;
    }
    let engine = opened.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = common::content(&engine);
    assert!(allowed.contains(&found), "{what}: wrong content: {} keys", found.len());
    if let Some(encoding) = &encoding {
        assert_eq!(engine.encoding().name, encoding.name(), "{what}");
    }
    engine.put(b"/after/the/crash", b"1").unwrap();
    engine.close().unwrap();
    let again = Engine::open(&path, options()).unwrap_or_else(|error| panic!("{what}, again: {error:?}"));
    assert_eq!(common::content(&again).len(), found.len() + 1, "{what}: a write after recovery is lost");
    let clean: Vec<_> = common::bytes_below(directory)
        .into_keys()
        .filter(|name| name.starts_with("db.converting") || name.contains(".trash") || is_unspoken_of(directory, name))
        .collect();
    assert!(clean.is_empty(), "{what}: left behind: {clean:?}");
}

/// Whether it is the old database, kept, and no journal speaks of it: nobody would ever remove it.
fn is_unspoken_of(directory: &Path, name: &str) -> bool {
    name == "db.backup/" && !directory.join("db.conversion").exists()
}
