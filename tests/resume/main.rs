//! A conversion that is killed goes on where it was: what was done is not done again, whatever is not whole is done again,
//! and what stands at the end is exactly what was there, however often it was killed.

mod child;
mod choices;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod kills;
mod work;

use child::Orders;
use common::Content;
use common::figures::scale;
use morphkv::encoding::{KeyEncoding, Natural};
use morphkv::testing::Tuning;
use morphkv::{Engine, Options, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keys back to front: an order that goes with no other, so that everything is sorted on disk.
#[derive(Debug)]
pub struct Reversed;

impl KeyEncoding for Reversed {
    fn name(&self) -> &str {
        "reversed"
    }
    fn revision(&self) -> u32 {
        1
    }
    fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend(key.iter().rev());
        Ok(())
    }
    fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend(encoded.iter().rev());
        Ok(())
    }
}

/// Options that know every encoding of these tests.
pub fn options() -> Options {
    common::options().register(Reversed)
}

/// A database, and what is in it.
pub struct Sandbox {
    pub directory: tempfile::TempDir,
    pub path: PathBuf,
    pub content: Content,
}

impl Sandbox {
    /// A copy of the place as it stands.
    pub fn copy(&self) -> Sandbox {
        let directory = common::scratch();
        common::copy_tree(self.directory.path(), directory.path());
        Sandbox { path: directory.path().join("db"), directory, content: self.content.clone() }
    }

    pub fn staging(&self) -> PathBuf {
        self.path.with_extension("converting")
    }

    pub fn progress(&self) -> PathBuf {
        self.staging().join("PROGRESS")
    }

    /// The place is at rest, in that encoding, with exactly the content.
    pub fn require_whole(&self, encoding: &str, what: &str) {
        let engine = Engine::open(&self.path, options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(engine.encoding().name, encoding, "{what}");
        assert!(common::content(&engine) == self.content, "{what}: another content");
        assert_eq!(engine.internal().get(b"offset").unwrap().as_deref(), Some(b"42".as_slice()), "{what}");
        engine.close().unwrap();
        for name in ["converting", "trash", "conversion"] {
            assert!(!self.path.with_extension(name).exists(), "{what}: {name} is left");
        }
        assert!(!self.path.join("PROGRESS").exists() && !self.path.join("output").exists(), "{what}: left in live");
    }
}

/// A natural database of so many entries, with values of so many bytes that do not compress, in several files.
pub fn sandbox(count: usize, value_bytes: usize) -> Sandbox {
    sandbox_of(count, value_bytes, |at| match at % 7 {
        0 => format!("/users/{}/", at / 7),
        1 => format!("/deep/a/b/c/d/{at:06}"),
        _ => format!("/users/{}/item-{at:06}", at / 7),
    })
}

fn sandbox_of(count: usize, value_bytes: usize, key: impl Fn(usize) -> String) -> Sandbox {
    let directory = common::scratch();
    let path = directory.path().join("db");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = || {
        let mut bytes = Vec::with_capacity(value_bytes + 8);
        while bytes.len() < value_bytes {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.extend_from_slice(&random.to_le_bytes());
        }
        bytes.truncate(value_bytes);
        bytes
    };
    let content: Content = (0..count).map(|at| (key(at).into_bytes(), value())).collect();
    let engine = Engine::open(&path, options().create_if_missing(true).encoding(Natural)).unwrap();
    let entries: Vec<_> = content.iter().collect();
    for part in entries.chunks(entries.len().div_ceil(3).max(1)) {
        let mut batch = engine.batch();
        part.iter().for_each(|(key, value)| batch.put(key, value).unwrap());
        batch.commit().unwrap();
        engine.flush().unwrap();
    }
    engine.internal().put(b"offset", b"42").unwrap();
    engine.close().unwrap();
    Sandbox { directory, path, content }
}

/// Everything small, so that a few megabytes are many tasks, parts and tiles.
pub fn small() -> Tuning {
    Tuning {
        task_bytes: (1 << 19, 1 << 19),
        file_bytes: 1 << 20,
        small_bytes: 16 << 10,
        spill_bytes: 64 << 10,
        part_bytes: 2 << 20,
        ingest_files: 8,
        tile_bytes: (2 << 20, 2 << 20),
        ..Tuning::default()
    }
}

/// The database on which work is measured. Its tasks are of like size: a directory that shares a file with others would be a
/// task of a third of it all, and whether a kill meets that one would be a matter of luck.
pub fn measured() -> Sandbox {
    sandbox_of(scale(40_000, 400_000), 1_600, |at| match at % 6 {
        0 => format!("/users/{}/", at / 6),
        _ => format!("/users/{}/item-{at:06}", at / 6),
    })
}

pub fn encoding(name: &str) -> Arc<dyn KeyEncoding> {
    let known: [Arc<dyn KeyEncoding>; 3] =
        [Arc::new(Natural), Arc::new(morphkv::encoding::Hierarchical), Arc::new(Reversed)];
    known.into_iter().find(|encoding| encoding.name() == name).expect("an encoding of that name")
}

/// Orders to convert to that encoding, in small pieces.
pub fn to(path: &Path, encoding: &str) -> Orders {
    Orders::new(path, encoding)
}

impl Sandbox {
    /// A copy in which a conversion to that encoding was killed at the `nth` hit of the trap.
    pub fn killed(&self, encoding: &str, trap: &str, nth: usize) -> Sandbox {
        let killed = self.copy();
        let ended = to(&killed.path, encoding).dying_at(trap, nth).run();
        assert!(ended.killed, "not killed at {trap} ({nth}): {}", ended.errors);
        killed
    }

    /// The lines of the progress file that begin so.
    pub fn lines(&self, kind: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.progress()).unwrap_or_default();
        let is = |line: &&str| line.get(9..).is_some_and(|line| line.starts_with(&format!("{{\"{kind}\":")));
        text.lines().filter(is).map(str::to_owned).collect()
    }

    /// Tasks that are recorded, and how many there are in all.
    pub fn tasks(&self) -> (usize, usize) {
        let plan = self.lines("plan");
        let Some(plan) = plan.first() else { return (0, 0) };
        let plan: serde_json::Value = serde_json::from_str(&plan[9..]).unwrap();
        (self.lines("task").len(), plan["plan"]["cuts"].as_array().unwrap().len() + 1)
    }

    /// Converts in this process.
    pub fn convert(&self, encoding: &str, change: impl FnOnce(Options) -> Options) -> Result<morphkv::Report> {
        let wanted = change(options().encoding(self::encoding(encoding)).memory_bytes(4 << 20).tuning(small()));
        Ok(morphkv::manage::convert(&self.path, &wanted)?.expect("there was something to convert"))
    }
}

/// A database of a few megabytes, for many kills.
pub fn few() -> Sandbox {
    sandbox(6_000, 1_000)
}
