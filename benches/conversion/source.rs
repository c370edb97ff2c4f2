//! The databases that are converted: built once by bulk load below `target/bench/`, and kept.

use crate::common::{fill, scatter};
use morphkv::encoding::{EncodingId, Hierarchical, KeyEncoding, Natural};
use morphkv::{Durability, Engine, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A number of entries and the size of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub name: &'static str,
    pub entries: u64,
    pub value_bytes: usize,
}

/// 0.4 and 4 GB of SST files.
pub const SIZES: [Size; 2] = [
    Size { name: "small", entries: 4_000_000, value_bytes: 128 },
    Size { name: "large", entries: 24_000_000, value_bytes: 200 },
];

/// From which order into which.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forth,
    Back,
}

pub const DIRECTIONS: [Direction; 2] = [Direction::Forth, Direction::Back];

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forth => "natural-to-hierarchical",
            Direction::Back => "hierarchical-to-natural",
        }
    }

    pub fn from(self) -> Arc<dyn KeyEncoding> {
        match self {
            Direction::Forth => Arc::new(Natural),
            Direction::Back => Arc::new(Hierarchical),
        }
    }

    pub fn to(self) -> Arc<dyn KeyEncoding> {
        match self {
            Direction::Forth => Direction::Back.from(),
            Direction::Back => Direction::Forth.from(),
        }
    }
}

/// A database that stands ready.
pub struct Source {
    pub path: PathBuf,
    pub entries: u64,
    /// Bytes of its SST files.
    pub bytes: u64,
}

/// Keys of about 30 bytes on four levels; names of directories are of many lengths, so that siblings change places.
fn key(number: u64) -> String {
    let random = scatter(number);
    let (tenant, object) = (random % 97, random / 97 % 1009);
    match random >> 60 {
        0 => format!("/tenants/{tenant}/settings/{number:x}"),
        1..=2 => format!("/tenants/{tenant}/objects/{object}/parts/{}/{number:x}", random >> 32 & 7),
        3 => format!("/index/{number:x}"),
        _ => format!("/tenants/{tenant}/objects/{object}/{number:x}"),
    }
}

/// Many byte strings in one piece of memory.
struct Keys {
    bytes: Vec<u8>,
    places: Vec<(u32, u16, u32)>,
}

impl Keys {
    /// Those of `entries` numbers as `encoding` sorts them; the number of each stands beside it.
    fn sorted(entries: u64, encoding: &dyn KeyEncoding) -> Self {
        let mut keys = Keys { bytes: Vec::new(), places: Vec::with_capacity(entries as usize) };
        let mut encoded = Vec::new();
        for number in 0..entries {
            encoded.clear();
            encoding.encode(key(number).as_bytes(), &mut encoded).expect("encode");
            let offset = u32::try_from(keys.bytes.len()).expect("4 GiB of keys at most");
            keys.places.push((offset, encoded.len() as u16, number as u32));
            keys.bytes.extend_from_slice(&encoded);
        }
        let Keys { bytes, places } = &mut keys;
        let of = |place: &(u32, u16, u32)| &bytes[place.0 as usize..][..usize::from(place.1)];
        places.sort_unstable_by(|left, right| of(left).cmp(of(right)));
        keys
    }
}

/// The source of a size in an encoding.
pub fn source(root: &Path, size: Size, encoding: &Arc<dyn KeyEncoding>) -> Source {
    let path = root.join(format!("{}-{}", size.name, encoding.name()));
    let done = path.with_extension("complete");
    if !done.exists() {
        println!("building {} ({} entries)", path.display(), size.entries);
        let _ = std::fs::remove_dir_all(&path);
        build(&path, size, encoding);
        std::fs::write(&done, EncodingId::of(&**encoding).to_string()).expect("note that it is whole");
    }
    Source { bytes: sst_bytes(&path), path, entries: size.entries }
}

fn build(path: &Path, size: Size, encoding: &Arc<dyn KeyEncoding>) {
    let options = Options::new().encoding(encoding.clone()).create_if_missing(true).durability(Durability::Buffered);
    let engine = Engine::open(path, options).expect("create the source");
    let keys = Keys::sorted(size.entries, &**encoding);
    let mut value = vec![0; size.value_bytes];
    let entries = keys.places.iter().map(|&(_, _, number)| {
        fill(&mut value, u64::from(number));
        Ok((key(u64::from(number)), value.clone()))
    });
    assert_eq!(engine.ingest(entries).expect("load"), size.entries);
    engine.close().expect("close the source");
}

fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(path).expect("list the database");
    entries.map(|entry| entry.expect("list the database").path())
}

/// Bytes of the SST files of a database.
pub fn sst_bytes(path: &Path) -> u64 {
    let tables = files(path).filter(|file| file.extension().is_some_and(|extension| extension == "sst"));
    tables.map(|file| file.metadata().expect("look at an SST file").len()).sum()
}

/// Reads all files, so that the page cache holds them.
pub fn warm(path: &Path) {
    for file in files(path).filter(|file| file.is_file()) {
        let mut file = std::fs::File::open(file).expect("open a file");
        std::io::copy(&mut file, &mut std::io::sink()).expect("read a file");
    }
}
