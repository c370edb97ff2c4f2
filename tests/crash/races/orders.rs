//! What racers are told to do, and what they log of it: one line for each thing, appended with one write to a file
//! outside the place, so that the lines stand in the order in which they happened.

use super::super::common::{Content, encodings, sample};
use super::super::kills::steps::Random;
use super::super::scenario::COUNT;
use morphkv::Keep;
use morphkv::encoding::KeyEncoding;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number of an attempt: unique within a race. The racer of number n begins at (n + 1) * [`ATTEMPTS_MAX`].
pub type Attempt = u32;
pub const ATTEMPTS_MAX: u32 = 1000;

/// One thing that is done to a place. Encodings are named; `None`: none is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Deed {
    /// Open, read everything, write so many keys, hold it open for a while, close.
    Open {
        wanted: Option<String>,
        keep: Keep,
        create: bool,
        writes: u32,
        hold_micros: u64,
    },
    /// Open to read alone, and read everything.
    Read,
    Digest,
    Create {
        wanted: Option<String>,
    },
    Convert {
        wanted: String,
        keep: Keep,
    },
    Destroy,
    RollBack,
    DropKept,
    Recover {
        abandon: bool,
    },
    /// Takes no lock.
    Inspect,
    /// As other software: open live with RocksDB itself, write so many keys, hold it open for a while, close.
    OpenWithRocksdb {
        writes: u32,
        hold_micros: u64,
    },
}

/// What one thread does: one deed after the other, each again while somebody else holds the place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Racer {
    /// The number of its first attempt.
    pub first: Attempt,
    pub delay_micros: u64,
    pub deeds: Vec<Deed>,
    /// How often an attempt that found the place locked is repeated.
    pub patience: u32,
}

/// What one process does, each racer in a thread of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    pub room: PathBuf,
    pub racers: Vec<Racer>,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// Before the call.
    Began {
        attempt: Attempt,
        deed: Deed,
    },
    /// The first thing that happens under the lock.
    Locked {
        attempt: Attempt,
    },
    /// What was read, in that encoding.
    Saw {
        attempt: Attempt,
        encoding: String,
        seen: Seen,
    },
    /// Before a write.
    Writing {
        attempt: Attempt,
        key: String,
    },
    /// The write was acknowledged.
    Wrote {
        attempt: Attempt,
        key: String,
    },
    /// The name of the state that a look without the lock gave.
    Inspected {
        attempt: Attempt,
        state: String,
    },
    /// The call returned: nothing, or the name of the error's kind and all that it says.
    Ended {
        attempt: Attempt,
        failed: Option<(String, String)>,
    },
    /// Somebody else locked the place while this attempt held it, and before it did this.
    Intruded {
        attempt: Attempt,
        holder: Attempt,
        at: String,
    },
    Panicked {
        attempt: Attempt,
        message: String,
    },
    /// All handles are gone, but the process still has this file of the place open.
    Leaked {
        file: String,
    },
    /// The process of these racers is dead.
    Killed {
        racers: Vec<Attempt>,
    },
}

/// A content in short: that of our own writers by count and hash, the keys of other software one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub entries: usize,
    pub hash: String,
    pub theirs: Vec<String>,
}

const THEIRS: &str = "/rocksdb/";

impl Seen {
    pub fn of(content: &Content) -> Seen {
        let (mut entries, mut bytes, mut theirs) = (0, Vec::new(), Vec::new());
        for (key, value) in content {
            if key.starts_with(THEIRS.as_bytes()) {
                assert_eq!(*value, value_of(std::str::from_utf8(key).unwrap()));
                theirs.push(String::from_utf8(key.clone()).unwrap());
                continue;
            }
            entries += 1;
            for part in [key, value] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Seen { entries, hash: format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes)), theirs }
    }
}

/// The key that an attempt writes the nth time.
pub fn key_of(deed: &Deed, attempt: Attempt, nth: u32) -> String {
    match deed {
        Deed::OpenWithRocksdb { .. } => format!("{THEIRS}{attempt}/{nth}"),
        _ => format!("/raced/{attempt}/{nth}"),
    }
}

pub fn value_of(key: &str) -> Vec<u8> {
    format!("value of {key}").into_bytes()
}

/// What every place holds before, if it holds anything.
pub fn before() -> Content {
    sample(COUNT)
}

pub fn encoding(name: &str) -> Arc<dyn KeyEncoding> {
    encodings().into_iter().find(|encoding| encoding.name() == name).unwrap()
}

/// Where the place of a race lies: alone in its directory.
pub fn place(room: &Path) -> PathBuf {
    room.join("place")
}

/// The file that says which attempt has locked the place last.
pub fn holder(room: &Path) -> PathBuf {
    room.join("holder")
}

/// The log of a race.
pub struct Log(File);

impl Log {
    fn path(room: &Path) -> PathBuf {
        room.join("log")
    }

    pub fn open(room: &Path) -> Log {
        Log(OpenOptions::new().append(true).create(true).open(Log::path(room)).unwrap())
    }

    pub fn add(&self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap();
        text.push(b'\n');
        (&self.0).write_all(&text).unwrap();
    }

    pub fn read(room: &Path) -> Vec<Line> {
        let text = std::fs::read_to_string(Log::path(room)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn wanted(random: &mut Random) -> Option<String> {
    [None, Some("natural"), Some("hierarchical"), Some("hierarchical")][random.below(4)].map(str::to_owned)
}

fn keep(random: &mut Random) -> Keep {
    [Keep::No, Keep::No, Keep::Yes, Keep::Replace][random.below(4)]
}

impl Deed {
    /// Where other software writes too, nothing is done that would remove what it wrote.
    pub fn random(random: &mut Random, with_rocksdb: bool) -> Deed {
        let open = |random: &mut Random, create| Deed::Open {
            wanted: wanted(random),
            keep: keep(random),
            create,
            writes: random.below(4) as u32,
            hold_micros: [0, 0, 500, 3_000][random.below(4)],
        };
        match random.below(100) {
            0..14 if with_rocksdb => {
                Deed::OpenWithRocksdb { writes: 1 + random.below(3) as u32, hold_micros: random.below(4_000) as u64 }
            }
            0..30 => open(random, false),
            30..45 => open(random, !with_rocksdb),
            45..65 => Deed::Convert { wanted: wanted(random).unwrap_or("hierarchical".into()), keep: keep(random) },
            65..71 => Deed::Recover { abandon: random.below(2) == 0 },
            71..76 => Deed::Inspect,
            76..80 => Deed::DropKept,
            80..83 => Deed::Read,
            83..85 => Deed::Digest,
            _ if with_rocksdb => Deed::Inspect,
            85..91 => Deed::Destroy,
            91..94 => Deed::Create { wanted: wanted(random) },
            _ => Deed::RollBack,
        }
    }
}
