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

pub const COUNT: usize = 80;

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

pub fn later() -> Content {
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

/// How a place was found after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It opens, in the encoding of that name, with an allowed content.
    Whole(String),
    /// There is no database, and there may be none.
    Absent,
    /// It is refused as one that has no marker, and its content is allowed once it is adopted.
    Adoptable,
}

/// The encodings that may be asked for after a crash, none among them.
pub fn requests() -> Vec<Option<Arc<dyn KeyEncoding>>> {
    let mut requests: Vec<Option<Arc<dyn KeyEncoding>>> = vec![None];
    requests.extend(common::encodings().into_iter().map(Some));
    requests
}

/// Opens what a crash has left, for each encoding that may be asked for, and compares.
pub fn check(scenario: &Scenario, crashed: &Path, what: &str) {
    for encoding in requests() {
        let copy = common::scratch();
        common::copy_tree(crashed, copy.path());
        let name = encoding.as_ref().map_or("unset", |encoding| encoding.name()).to_owned();
        let found = look(scenario, copy.path(), encoding, &options());
        found.unwrap_or_else(|wrong| panic!("{}: {what}, then opened as {name}: {wrong}", scenario.name));
    }
}

/// As [`check`], with no encoding asked for, on `directory` itself.
pub fn check_unset(scenario: &Scenario, directory: &Path, what: &str) {
    let found = look(scenario, directory, None, &options());
    found.unwrap_or_else(|wrong| panic!("{}: {what}: {wrong}", scenario.name));
}

macro_rules! require {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

fn shown(error: morphkv::Error) -> String {
    format!("{error:?}")
}

/// Opens the place, compares, writes to it and opens it again. What is wrong with it, if anything is.
pub fn look(
    scenario: &Scenario,
    directory: &Path,
    encoding: Option<Arc<dyn KeyEncoding>>,
    options: &Options,
) -> std::result::Result<Found, String> {
    let path = database(directory);
    let wanted = || match &encoding {
        Some(encoding) => options.clone().encoding(encoding.clone()),
        None => options.clone(),
    };
    let mut opened = Engine::open(&path, wanted());
    let mut adopted = false;
    let waits = path.with_extension("backup").exists() || path.join("unshipped").exists();
    if waits && matches!(&opened, Err(error) if error.kind() == ErrorKind::Conflict) {
        // Converted, and the old database is kept or its log not shipped yet: another conversion has to wait.
        return look(scenario, directory, None, options);
    }
    let allowed = match (scenario.expect)() {
        Expect::OneOf(contents) => contents,
        Expect::OneOfOrAbsent(contents) => match &opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let left: Vec<_> = common::bytes_below(directory).into_keys().collect();
                require!(left.is_empty(), "absent, but {left:?} is left");
                return Ok(Found::Absent);
            }
            _ => contents,
        },
        Expect::AdoptableWith(content) => {
            if let Err(error) = &opened {
                require!(error.kind() == ErrorKind::Refused, "{error:?}");
                require!(error.next_command().is_some_and(|next| next.starts_with("morphkv adopt")), "{error:?}");
                let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
                manage::adopt(&path, &natural, options).map_err(shown)?;
                adopted = true;
                opened = Engine::open(&path, wanted());
            }
            vec![content]
        }
    };
    if encoding.is_none()
        && let Err(error) = &opened
        && error.message().contains("legacy")
    {
        let reader = Engine::open_read_only(&path, options.clone()).map_err(shown)?;
        let found: Content = reader.range(..).unwrap().map(|entry| entry.unwrap()).collect();
        require!(allowed.contains(&found), "wrong content: {} keys", found.len());
        return Ok(Found::Whole("slash-spans".into()));
    }
    let engine = opened.map_err(shown)?;
    let name = engine.encoding().name;
    if let Some(encoding) = &encoding {
        require!(name == encoding.name(), "opened as {name}");
    }
    written_to(&engine, &allowed)?;
    engine.close().map_err(shown)?;
    at_rest(directory, options, &allowed)?;
    Ok(if adopted { Found::Adoptable } else { Found::Whole(name) })
}

/// Compares the content with what is allowed, and writes one key more.
fn written_to(engine: &Engine, allowed: &[Content]) -> std::result::Result<(), String> {
    let mut content = Content::new();
    for entry in engine.range(..).map_err(shown)? {
        let (key, value) = entry.map_err(shown)?;
        require!(content.insert(key, value).is_none(), "a key came twice");
    }
    require!(allowed.contains(&content), "wrong content: {} keys", content.len());
    require!(common::content(engine) == content, "the content changes while it is read");
    engine.put(b"/after/the/crash", b"1").map_err(shown)
}

/// What was written after recovery is there when the place is opened again, and nothing is left behind.
fn at_rest(directory: &Path, options: &Options, allowed: &[Content]) -> std::result::Result<(), String> {
    let again = Engine::open(database(directory), options.clone()).map_err(|error| format!("again: {error:?}"))?;
    let mut content = common::content(&again);
    require!(content.remove(b"/after/the/crash".as_slice()).is_some(), "a write after recovery is lost");
    require!(allowed.contains(&content), "opened again, the content is another: {} keys", content.len());
    again.close().map_err(shown)?;
    let names: Vec<_> = common::bytes_below(directory).into_keys().collect();
    let left: Vec<_> =
        names.iter().filter(|name| name.starts_with("db.converting") || name.contains(".trash")).collect();
    require!(left.is_empty(), "left behind: {left:?}");
    // A journal at rest tells of a kept database, and a kept database has a journal.
    let stands = |wanted: &str| names.iter().any(|name| name == wanted);
    require!(stands("db.conversion") == stands("db.backup/"), "left behind: a journal or a backup directory alone");
    Ok(())
}
