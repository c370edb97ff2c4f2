//! What the child under load does, step by step, and what must be there afterwards: both follow from a seed and the
//! number of a step, so that the parent knows each step that the child was at.

use super::super::common::{Content, encodings, options};
use morphkv::encoding::KeyEncoding;
use morphkv::{Engine, Keep, manage};
use std::path::Path;
use std::sync::Arc;

/// A small generator (splitmix64), so that a seed means the same for ever.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Few enough keys that they are overwritten and deleted again and again; ordered otherwise by each encoding.
    fn key(&mut self) -> Vec<u8> {
        let number = self.below(40);
        let key = match self.below(4) {
            0 => format!("/users/{number}/name"),
            1 => format!("/users/{number}"),
            2 => format!("plain-{number}"),
            _ => format!("/a/{}/b/{number}//", number % 5),
        };
        key.into_bytes()
    }

    /// Mostly short; now and then long enough that memtables fill and are flushed.
    fn value(&mut self) -> Vec<u8> {
        let len = if self.below(20) == 0 { 60_000 } else { self.below(100) };
        let byte = self.next() as u8;
        let mut value = self.next().to_le_bytes().to_vec();
        value.resize(8 + len, byte);
        value
    }
}

/// One thing that the child does; what is acknowledged is the whole of it.
#[derive(Debug)]
pub enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Puts (with a value) and deletions (without one), and the internal record.
    Batch(Vec<(Vec<u8>, Option<Vec<u8>>)>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    /// A bulk load.
    Load(Content),
    Flush,
    Reopen,
    /// To the other encoding; the old database stays or not.
    Convert {
        keep: bool,
    },
    /// Nothing, unless an old database is kept.
    DropKept,
    /// The same.
    RollBack,
    /// Nothing, if there is a copy already.
    Checkpoint,
}

/// So many of a hundred steps are writes.
const WRITES: usize = 66;

impl Step {
    pub fn of(seed: u64, index: u64) -> Step {
        let mut random = Random(seed ^ index.wrapping_mul(0x2545_f491_4f6c_dd1d));
        // A write takes microseconds and a conversion many milliseconds: the child would hardly ever die in a write. So
        // under every other seed it does little else.
        let writes = seed & 1 == 1 && random.below(300) > 0;
        match random.below(if writes { WRITES } else { 100 }) {
            0..38 => Step::Put(random.key(), random.value()),
            38..46 => Step::Delete(random.key()),
            46..62 => {
                let mut changes = Vec::new();
                for _ in 0..random.below(12) {
                    let value = (random.below(4) > 0).then(|| random.value());
                    changes.push((random.key(), value));
                }
                Step::Batch(changes, index.to_le_bytes().to_vec())
            }
            62..WRITES => Step::DeleteRange(random.key(), random.key()),
            WRITES..70 => Step::Load((0..8).map(|_| (random.key(), random.value())).collect()),
            70..74 => Step::Flush,
            74..78 => Step::Reopen,
            78..90 => Step::Convert { keep: random.below(3) == 0 },
            90..92 => Step::DropKept,
            92..96 => Step::RollBack,
            _ => Step::Checkpoint,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Step::Put(..) => "put",
            Step::Delete(_) => "delete",
            Step::Batch(..) => "batch",
            Step::DeleteRange(..) => "delete range",
            Step::Load(_) => "bulk load",
            Step::Flush => "flush",
            Step::Reopen => "reopen",
            Step::Convert { .. } => "convert",
            Step::DropKept => "drop the kept database",
            Step::RollBack => "roll back",
            Step::Checkpoint => "checkpoint",
        }
    }

    /// Whether it changes which old database is kept.
    pub fn touches_kept(&self) -> bool {
        matches!(self, Step::Convert { .. } | Step::DropKept | Step::RollBack)
    }

    /// Does it. A change of the whole database closes it and opens it again.
    pub fn act(&self, path: &Path, engine: Engine) -> morphkv::Result<Engine> {
        match self {
            Step::Put(key, value) => engine.put(key, value)?,
            Step::Delete(key) => engine.delete(key)?,
            Step::Batch(changes, record) => {
                let mut batch = engine.batch();
                for (key, value) in changes {
                    match value {
                        Some(value) => batch.put(key, value)?,
                        None => batch.delete(key)?,
                    }
                }
                batch.put_internal(RECORD, record);
                batch.commit()?;
            }
            Step::DeleteRange(low, high) => engine.delete_range(&low[..]..&high[..])?,
            Step::Load(entries) => {
                let encoding = encoding(&engine.encoding().name);
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by_key(|(key, _)| encoded(&*encoding, key));
                engine.ingest(sorted.into_iter().map(Ok))?;
            }
            Step::Flush => engine.flush()?,
            Step::Checkpoint if copy(path).exists() => {}
            Step::Checkpoint => drop(engine.checkpoint(copy(path))?),
            Step::Reopen | Step::Convert { .. } | Step::DropKept | Step::RollBack => {
                let now = engine.encoding().name;
                engine.close()?;
                return self.change(path, &now);
            }
        }
        Ok(engine)
    }

    fn change(&self, path: &Path, now: &str) -> morphkv::Result<Engine> {
        let kept = is_kept(path);
        match self {
            Step::Convert { keep } => {
                if kept && !keep {
                    manage::drop_backup(path, &options())?;
                }
                let keep = if *keep { Keep::Replace } else { Keep::No };
                return Engine::open(path, options().encoding(other(now)).keep_backup(keep));
            }
            Step::DropKept if kept => manage::drop_backup(path, &options())?,
            Step::RollBack if kept => drop(manage::rollback(path, &options())?),
            _ => {}
        }
        Engine::open(path, options())
    }
}

/// The internal record that batches write.
pub const RECORD: &[u8] = b"step";

/// Where checkpoints go.
pub fn copy(path: &Path) -> std::path::PathBuf {
    path.with_file_name("copy")
}

/// Whether an old database is kept, at rest.
pub fn is_kept(path: &Path) -> bool {
    path.with_extension("backup").exists()
}

/// The encoding of that name.
pub fn encoding(name: &str) -> Arc<dyn KeyEncoding> {
    encodings().into_iter().find(|encoding| encoding.name() == name).unwrap()
}

fn other(name: &str) -> Arc<dyn KeyEncoding> {
    encodings().into_iter().find(|encoding| encoding.name() != name).unwrap()
}

fn encoded(encoding: &dyn KeyEncoding, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encoding.encode(key, &mut out).unwrap();
    out
}

/// A database as a caller sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub content: Content,
    pub record: Option<Vec<u8>>,
}

impl Seen {
    pub fn of(engine: &Engine) -> Seen {
        let record = engine.internal().get(RECORD).unwrap();
        Seen { content: super::super::common::content(engine), record: record.map(|value| value.to_vec()) }
    }
}

/// What must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub seen: Seen,
    pub encoding: String,
    /// The old database, and its encoding.
    pub kept: Option<(Seen, String)>,
    pub copy: Option<Seen>,
}

impl Default for State {
    fn default() -> Self {
        State { seen: Seen::default(), encoding: "natural".into(), kept: None, copy: None }
    }
}

impl State {
    /// The state after the step.
    pub fn after(&self, step: &Step) -> State {
        let mut next = self.clone();
        next.go_on(step);
        next
    }

    /// Becomes the state after the step.
    pub fn go_on(&mut self, step: &Step) {
        let content = &mut self.seen.content;
        match step {
            Step::Put(key, value) => drop(content.insert(key.clone(), value.clone())),
            Step::Delete(key) => drop(content.remove(key)),
            Step::Batch(changes, record) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => content.insert(key.clone(), value.clone()),
                        None => content.remove(key),
                    };
                }
                self.seen.record = Some(record.clone());
            }
            Step::DeleteRange(low, high) => {
                let encoding = encoding(&self.encoding);
                let deleted = encoded(&*encoding, low)..encoded(&*encoding, high);
                content.retain(|key, _| !deleted.contains(&encoded(&*encoding, key)));
            }
            Step::Load(entries) => content.extend(entries.clone()),
            Step::Flush | Step::Reopen => {}
            Step::Convert { keep } => {
                self.kept = keep.then(|| (self.seen.clone(), self.encoding.clone()));
                self.encoding = other(&self.encoding).name().to_owned();
            }
            Step::DropKept => self.kept = None,
            Step::RollBack => {
                if let Some((seen, encoding)) = self.kept.take() {
                    (self.seen, self.encoding) = (seen, encoding);
                }
            }
            Step::Checkpoint => drop(self.copy.get_or_insert_with(|| self.seen.clone())),
        }
    }
}
