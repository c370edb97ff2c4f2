//! The changes that are crashed: how the place looks before, what is done, and which contents may be found afterwards.

use super::common::{self, Content, options, sample};
use morphkv::encoding::{Comparator, Hierarchical, KeyEncoding, Natural};
use morphkv::testing::{Attachment, Cause, Database, RealVfs, Settings, TrapPlan, Tuning, attachment};
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
    pub prepare: Box<dyn Fn(&Path) + Send + Sync>,
    pub act: fn(&Path, Options) -> Result<()>,
    pub expect: Box<dyn Fn() -> Expect + Send + Sync>,
}

/// What the databases of [`all`] hold.
pub const COUNT: usize = 80;

pub fn database(directory: &Path) -> PathBuf {
    directory.join("db")
}

fn natural(directory: &Path, content: &Content) {
    common::make(&database(directory), Arc::new(Natural), content);
}

fn hierarchical(directory: &Path, content: &Content) {
    common::make(&database(directory), Arc::new(Hierarchical), content);
}

fn same(content: &Content) -> Expect {
    Expect::OneOf(vec![content.clone()])
}

pub fn later(content: &Content) -> Content {
    let mut content = content.clone();
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
        restored: None,
    };
    attachment::write(&vfs, path, &attachment).unwrap();
}

fn convert_to(encoding: impl KeyEncoding) -> impl FnOnce(&Path, Options) -> Result<()> {
    move |directory, options| Engine::open(database(directory), options.encoding(encoding))?.close()
}

/// The changes of small databases.
pub fn all() -> Vec<Scenario> {
    of(sample(COUNT))
}

/// The changes of databases that hold `content`.
pub fn of(content: Content) -> Vec<Scenario> {
    let content = Arc::new(content);
    let scenario = |name, prepare: fn(&Path, &Content), act: fn(&Path, Options) -> Result<()>, expect| {
        let (before, after, expect): (_, _, fn(&Content) -> Expect) = (content.clone(), content.clone(), expect);
        let (prepare, expect) =
            (Box::new(move |directory: &Path| prepare(directory, &before)), Box::new(move || expect(&after)));
        Scenario { name, prepare, act, expect }
    };
    vec![
        scenario(
            "create",
            |_, _| {},
            |directory, options| {
                Engine::open(database(directory), options.create_if_missing(true).encoding(Hierarchical))?.close()
            },
            |_| Expect::OneOfOrAbsent(vec![Content::new()]),
        ),
        scenario(
            "convert to hierarchical",
            natural,
            |directory, options| convert_to(Hierarchical)(directory, options),
            same,
        ),
        scenario(
            "convert to natural",
            hierarchical,
            |directory, options| convert_to(Natural)(directory, options),
            same,
        ),
        scenario(
            "convert a legacy database",
            |directory, content| legacy(&database(directory), content),
            |directory, options| convert_to(Hierarchical)(directory, options),
            same,
        ),
        scenario(
            "convert an attached database",
            |directory, content| {
                natural(directory, content);
                attach(&database(directory));
            },
            |directory, options| convert_to(Hierarchical)(directory, options),
            same,
        ),
        scenario(
            "load into an attached database",
            |directory, content| {
                natural(directory, content);
                attach(&database(directory));
            },
            |directory, options| {
                let engine = Engine::open(database(directory), options)?;
                engine.put(b"/written/before", b"1")?;
                engine.ingest(loaded().into_iter().map(Ok))?;
                engine.put(b"/written/since", b"1")?;
                engine.close()
            },
            |content| Expect::OneOf(load_states(content)),
        ),
        scenario(
            "bring back a load",
            load_and_take_away,
            |directory, options| Engine::open(database(directory), options)?.close(),
            same,
        ),
        scenario(
            "convert and keep",
            natural,
            |directory, options| convert_to(Hierarchical)(directory, options.keep_backup(Keep::Yes)),
            same,
        ),
        scenario(
            "go on with a conversion",
            interrupted,
            |directory, options| convert_to(Hierarchical)(directory, in_pieces(options, 1 << 20)),
            same,
        ),
        scenario(
            "roll back",
            kept_and_written,
            |directory, options| manage::rollback(database(directory), &options).map(drop),
            |content| Expect::OneOf(vec![content.clone(), later(content)]),
        ),
        scenario(
            "drop the kept database",
            kept_and_written,
            |directory, options| manage::drop_backup(database(directory), &options),
            |content| Expect::OneOf(vec![later(content)]),
        ),
        scenario(
            "replace the kept database",
            kept_and_written,
            |directory, options| convert_to(Natural)(directory, options.keep_backup(Keep::Replace)),
            |content| Expect::OneOf(vec![later(content)]),
        ),
        scenario(
            "destroy",
            kept_and_written,
            |directory, options| Engine::destroy(database(directory), options).map(drop),
            |content| Expect::OneOfOrAbsent(vec![later(content)]),
        ),
        scenario(
            "adopt",
            |directory, content| plain(&database(directory), content),
            |directory, options| {
                let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
                manage::adopt(database(directory), &natural, &options).map(drop)
            },
            |content| Expect::AdoptableWith(content.clone()),
        ),
        scenario(
            "checkpoint",
            natural,
            |directory, options| {
                let engine = Engine::open(database(directory), options)?;
                engine.checkpoint(directory.join("copy"))?;
                let copy = Engine::open(directory.join("copy"), super::common::options())?;
                assert_eq!(common::content(&copy), common::content(&engine));
                Ok(())
            },
            same,
        ),
    ]
}

/// What a load leaves that RocksDB has in its MANIFEST, and whose files it has removed again.
fn load_and_take_away(directory: &Path, content: &Content) {
    let path = database(directory);
    let engine = Engine::open(&path, options().create_if_missing(true).encoding(Natural)).unwrap();
    engine.ingest(content.clone().into_iter().map(Ok)).unwrap();
    engine.close().unwrap();
    let folder = path.join("morphkv.ingest/0");
    std::fs::create_dir_all(&folder).unwrap();
    let database = Database::open_read_only(&RealVfs::default(), &path, &Settings::default()).unwrap();
    let files = database.live_files().unwrap().into_iter().filter(|file| file.family == "default");
    for (number, file) in files.enumerate() {
        std::fs::rename(path.join(file.name), folder.join(format!("{number:06}.sst"))).unwrap();
    }
}

/// New keys, and new values of old ones.
fn loaded() -> Content {
    let old = sample(COUNT).into_keys().step_by(3).map(|key| (key, b"loaded".to_vec()));
    old.chain((0..50).map(|number| (format!("/loaded/{number:02}").into_bytes(), b"loaded".to_vec()))).collect()
}

/// What a load into a database may leave: a write before it, all of it, and a write after it, in this order.
fn load_states(content: &Content) -> Vec<Content> {
    let mut states = vec![content.clone()];
    for step in [
        vec![(b"/written/before".to_vec(), b"1".to_vec())],
        loaded().into_iter().collect(),
        vec![(b"/written/since".to_vec(), b"1".to_vec())],
    ] {
        let mut next = states.last().unwrap().clone();
        next.extend(step);
        states.push(next);
    }
    states
}

/// Changes most of whose steps are those of `convert to hierarchical`, with another database or with more before and after
/// them: in the small size they are done in part.
const LIKE_ANOTHER: [&str; 5] = [
    "convert to natural",
    "convert a legacy database",
    "convert and keep",
    "convert an unsynced source",
    "go on with a conversion",
];

impl Scenario {
    /// Whether the small size may leave out what it does as another one.
    pub fn in_part(&self) -> bool {
        !common::figures::torture() && LIKE_ANOTHER.contains(&self.name)
    }
}

/// The scenario of that name, for a child.
pub fn named(name: &str) -> Scenario {
    all().into_iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

/// Everything in small pieces, one after the other. With less than `small_bytes` a level goes through spill files.
fn in_pieces(options: Options, small_bytes: usize) -> Options {
    let tuning = Tuning {
        task_bytes: (1, 1),
        small_bytes,
        spill_bytes: 1 << 10,
        part_bytes: 1 << 10,
        ingest_files: 1,
        tile_bytes: (16 << 10, 16 << 10),
        ..Tuning::default()
    };
    options.parallelism(1).memory_bytes(64 << 10).tuning(tuning)
}

/// An attached database in several files whose conversion was killed after its first task: what stands there while the
/// conversion stands still.
fn interrupted(directory: &Path, content: &Content) {
    let elsewhere = common::scratch();
    let path = database(elsewhere.path());
    let engine = Engine::open(&path, options().create_if_missing(true).encoding(Natural)).unwrap();
    let content: Vec<_> = content.clone().into_iter().collect();
    for part in content.chunks(content.len().div_ceil(3)) {
        common::fill(&engine, &part.iter().cloned().collect());
        engine.flush().unwrap();
    }
    engine.internal().put(b"offset", b"42").unwrap();
    engine.close().unwrap();
    attach(&path);
    let file = elsewhere.path().join("pause");
    let plan = TrapPlan::parse(&format!("progress-line-after@1=pause:{}", file.display())).unwrap();
    let options = options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan)))).encoding(Hierarchical);
    // Its first task ends with files, those that come later with spill files.
    let wanted = in_pieces(options, 1);
    let converting = std::thread::spawn(move || Engine::open(&path, wanted));
    while !file.exists() {
        assert!(!converting.is_finished(), "{:?}", converting.join().unwrap().err());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    common::copy_tree(elsewhere.path(), directory);
    std::fs::remove_file(directory.join("pause")).unwrap();
    std::fs::remove_file(&file).unwrap();
    converting.join().unwrap().unwrap();
}

fn kept_and_written(directory: &Path, content: &Content) {
    natural(directory, content);
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
        drop(reader);
        // Reading changes nothing; that nothing stands in the way of its conversion only converting it can show.
        look(scenario, directory, Some(Arc::new(Hierarchical)), options)?;
        return Ok(Found::Whole("slash-spans".into()));
    }
    let engine = opened.map_err(shown)?;
    let name = engine.encoding().name;
    if let Some(encoding) = &encoding {
        require!(name == encoding.name(), "opened as {name}");
    }
    written_to(&engine, &allowed)?;
    engine.close().map_err(shown)?;
    // How it is opened again does not depend on what was asked for: once is enough, but for the large size.
    if encoding.is_none() || common::figures::torture() {
        opens_again(directory, options, &allowed)?;
    }
    nothing_is_left(directory)?;
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

/// What was written after recovery is there when the place is opened again.
fn opens_again(directory: &Path, options: &Options, allowed: &[Content]) -> std::result::Result<(), String> {
    let again = Engine::open(database(directory), options.clone()).map_err(|error| format!("again: {error:?}"))?;
    let mut content = common::content(&again);
    require!(content.remove(b"/after/the/crash".as_slice()).is_some(), "a write after recovery is lost");
    require!(allowed.contains(&content), "opened again, the content is another: {} keys", content.len());
    again.close().map_err(shown)
}

/// A place at rest holds nothing that a change has needed on its way.
fn nothing_is_left(directory: &Path) -> std::result::Result<(), String> {
    let names: Vec<_> = common::bytes_below(directory).into_keys().collect();
    let left: Vec<_> =
        names.iter().filter(|name| name.starts_with("db.converting") || name.contains(".trash")).collect();
    require!(left.is_empty(), "left behind: {left:?}");
    // A journal at rest tells of a kept database, and a kept database has a journal.
    let stands = |wanted: &str| names.iter().any(|name| name == wanted);
    require!(stands("db.conversion") == stands("db.backup/"), "left behind: a journal or a backup directory alone");
    Ok(())
}
