//! Databases of awkward shapes, and what converting them takes: memory, room on the disk, and that nothing is owed.

use crate::common::{fill, scatter};
use crate::contender::{convert, options};
use crate::source::{DIRECTIONS, Direction, sst_bytes};
use morphkv::{Durability, Engine, Options, Verify};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// What a conversion may use on top of the open engine, and for each of its workers beside that: two compute, a third one
/// while one of them waits for the disk.
const BUDGET_BYTES: u64 = 256 << 20;
const LARGEST_ENTRIES: u64 = 6 * 3;
/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A shape: how many entries, and what the `n`th one is.
struct Shape {
    name: &'static str,
    entries: u64,
    value_bytes: usize,
    key: fn(u64) -> Vec<u8>,
}

const SHAPES: [Shape; 8] = [
    Shape { name: "one huge directory", entries: 1_500_000, value_bytes: 300, key: in_one_directory },
    Shape { name: "1,000 levels", entries: 200_000, value_bytes: 1000, key: at_many_levels },
    Shape { name: "a million directories", entries: 1_000_000, value_bytes: 300, key: in_a_directory_of_its_own },
    Shape { name: "numeric siblings", entries: 2_000_000, value_bytes: 300, key: under_numbers },
    Shape { name: "keys of 64 KiB", entries: 6_000, value_bytes: 100, key: long },
    Shape { name: "values of 16 MiB", entries: 40, value_bytes: 16 << 20, key: in_one_directory },
    Shape { name: "random keys", entries: 1_500_000, value_bytes: 300, key: random },
    Shape { name: "small values", entries: 6_000_000, value_bytes: 0, key: in_one_directory },
];

fn in_one_directory(number: u64) -> Vec<u8> {
    format!("/all/{:016x}", scatter(number)).into_bytes()
}

fn at_many_levels(number: u64) -> Vec<u8> {
    let mut key = "/d".repeat(scatter(number) as usize % 1000).into_bytes();
    key.extend(format!("/{number:x}").bytes());
    key
}

/// Random digits, which compression hardly shortens.
fn long(number: u64) -> Vec<u8> {
    let mut key = format!("/long/{:x}/", scatter(number) % 50).into_bytes();
    let words = (0..4095).map(|word| scatter(number * 4096 + word));
    words.for_each(|word| key.extend(format!("{word:016x}").bytes()));
    key
}

/// A directory for each key, and some for nothing.
fn in_a_directory_of_its_own(number: u64) -> Vec<u8> {
    format!("/all/{:x}/of/{:x}/it", scatter(number) >> 40, scatter(number) & 0xFF_FFFF).into_bytes()
}

/// Siblings whose names begin with the names of others, in directories that are larger than what is sorted at a time.
fn under_numbers(number: u64) -> Vec<u8> {
    format!("/all/{}/{:x}", number % 13, scatter(number)).into_bytes()
}

/// Any bytes but 0xFF, which hierarchical keys cannot have; a separator now and then.
fn random(number: u64) -> Vec<u8> {
    let words = [scatter(number), scatter(!number), scatter(number << 20)];
    words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| if byte == 0xFF { b'/' } else { byte }).collect()
}

fn build(path: &Path, shape: &Shape, direction: Direction) {
    let from = direction.from();
    let options = Options::new().encoding(from.clone()).create_if_missing(true).durability(Durability::Buffered);
    let engine = Engine::open(path, options).expect("create the source");
    let encoded = |key: &[u8]| {
        let mut encoded = Vec::new();
        from.encode(key, &mut encoded).expect("encode");
        encoded
    };
    let mut keys: Vec<(Vec<u8>, u64)> = (0..shape.entries).map(|number| ((shape.key)(number), number)).collect();
    keys.sort_by_cached_key(|(key, _)| encoded(key));
    let mut value = vec![0; shape.value_bytes];
    let entries = keys.into_iter().map(|(key, number)| {
        fill(&mut value, number);
        Ok((key, value.clone()))
    });
    assert_eq!(engine.ingest(entries).expect("load"), shape.entries);
    engine.close().expect("close the source");
}

/// The other half of this: a process of its own, which prints its greatest memory use.
pub fn child(arguments: &[String]) {
    let path = Path::new(&arguments[1]);
    let direction = DIRECTIONS.into_iter().find(|direction| direction.name() == arguments[2]).expect("a direction");
    match arguments[0].as_str() {
        "open" => drop(Engine::open(path, Options::new().parallelism(2)).expect("open")),
        _ => drop(convert(path, direction, Options::new().verify(Verify::Full))),
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("read the status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    println!("{}", peak.trim().trim_end_matches(" kB"));
}

fn spawn(what: &str, path: &Path, direction: Direction) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.arg("--child").arg(what).arg(path).arg(direction.name()).stdout(std::process::Stdio::piped());
    command.spawn().expect("start a child")
}

fn peak_bytes(child: Child) -> u64 {
    let output = child.wait_with_output().expect("wait for a child");
    assert!(output.status.success(), "the child failed: {}", output.status);
    let text = String::from_utf8(output.stdout).expect("text");
    text.trim().parse::<u64>().expect("a number of KiB") << 10
}

/// Bytes that everything below a directory has on the disk; what has two names counts once.
fn disk_bytes(path: &Path) -> u64 {
    let mut found = BTreeMap::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        // Files come and go meanwhile.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => drop(found.insert(metadata.ino(), metadata.blocks() * 512)),
                Err(_) => {}
            }
        }
    }
    found.values().sum()
}

/// The greatest room that a child's work has on the disk.
fn watched(place: &Path, mut child: Child) -> (u64, Child) {
    let mut most = 0;
    while child.try_wait().expect("look at a child").is_none() {
        most = most.max(disk_bytes(place));
        std::thread::sleep(LOOK_EVERY);
    }
    (most, child)
}

/// Files above the bottom level, and bytes that compaction would rewrite.
fn owed(path: &Path) -> (usize, u64) {
    let families = rocksdb::DB::list_cf(&options(), path).expect("list the families");
    let database = rocksdb::DB::open_cf_for_read_only(&options(), path, families, false).expect("open");
    let files = database.live_files().expect("list the files");
    let data: Vec<_> = files.iter().filter(|file| file.column_family_name == "default").collect();
    assert!(!data.is_empty(), "no file to look at");
    let bottom = data.iter().map(|file| file.level).max().unwrap_or(0);
    let pending = database.property_int_value("rocksdb.estimate-pending-compaction-bytes").expect("a property");
    (data.iter().filter(|file| file.level < bottom).count(), pending.unwrap_or(0))
}

/// All shapes in both directions; those whose name holds `only`.
pub fn measure(root: &Path, only: Option<&str>) -> Vec<Value> {
    let mut found = Vec::new();
    for shape in SHAPES.iter().filter(|shape| only.is_none_or(|only| shape.name.contains(only))) {
        for direction in DIRECTIONS {
            let place = root.join(format!("shape-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&place);
            std::fs::create_dir(&place).expect("make a directory");
            let path = place.join("database");
            build(&path, shape, direction);
            let (bytes, before) = (sst_bytes(&path), disk_bytes(&place));
            let open = peak_bytes(spawn("open", &path, direction));
            let (most, child) = watched(&place, spawn("convert", &path, direction));
            let over = peak_bytes(child).saturating_sub(open);
            let largest = (0..shape.entries.min(1000)).map(|number| (shape.key)(number).len()).max().unwrap_or(0);
            let limit = BUDGET_BYTES + LARGEST_ENTRIES * (largest + shape.value_bytes) as u64;
            let (files_owed, bytes_owed) = owed(&path);
            let figures = json!({
                "shape": shape.name, "direction": direction.name(), "entries": shape.entries, "bytes": bytes,
                "over_open_bytes": over, "limit_bytes": limit, "disk_ratio": most as f64 / before as f64,
                "files_owed": files_owed, "bytes_owed": bytes_owed,
            });
            println!("{figures}");
            found.push(figures);
            std::fs::remove_dir_all(&place).expect("remove the database");
        }
    }
    found
}
