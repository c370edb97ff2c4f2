//! Reading a task's part of the source.

use super::borders::{Block, Order, key_of_path};
use super::heads::Heads;
use super::line::{Line, Source};
use super::tasks::{Plan, Task, path};
use crate::error::Result;
use crate::rocks::{Cursor, Database, Family, TableCursor};

/// Reads the entries of a task, in the order of the plan.
pub(super) enum Reader<'d> {
    /// In the order of the source.
    Line(Line<'d>),
    /// All levels at once, merged by path.
    Levels(Levels<'d>),
}

impl<'d> Reader<'d> {
    /// A reader that uses about `memory_bytes`.
    pub(super) fn new(source: &Source<'d>, plan: &Plan, task: Task<'_>, memory_bytes: usize) -> Result<Self> {
        if plan.order == Order::Levels {
            return Ok(Reader::Levels(Levels::new(source, &plan.levels, task, memory_bytes)?));
        }
        Ok(Reader::Line(Line::new(source, task.start.unwrap_or_default(), task.end)?))
    }

    /// The next entry; none only when all of the task has been read.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        match self {
            Reader::Line(line) => line.next(),
            Reader::Levels(levels) => levels.next(),
        }
    }
}

/// All levels of a task, merged by path.
pub(super) struct Levels<'d> {
    /// Fetches the chunks of all levels.
    cursor: Cursor<'d>,
    chunk_bytes: usize,
    levels: Vec<Level<'d>>,
    heads: Heads,
    at_start: bool,
}

/// One level.
enum Level<'d> {
    /// Read from files.
    Files(Box<TableCursor<'d>>),
    /// Read by RocksDB, a chunk at a time: a cursor of it for each of a thousand levels would cost gigabytes.
    Chunks(Chunks),
}

/// A level of which a chunk is in memory.
#[derive(Default)]
struct Chunks {
    /// Where the next chunk begins; none if there is no more.
    resume: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
    bytes: Vec<u8>,
    /// Where in `bytes` an entry begins, its value begins, and it ends.
    entries: Vec<(usize, usize, usize)>,
    at: usize,
}

/// Below this the blocks that chunks share are worth their place in the cache.
const SMALL_CHUNK_BYTES: usize = 64 << 10;

impl<'d> Levels<'d> {
    fn new(source: &Source<'d>, levels: &[u16], task: Task<'_>, memory_bytes: usize) -> Result<Self> {
        let chunk_bytes = (memory_bytes / levels.len().max(1)).min(1 << 20);
        let is_small = chunk_bytes < SMALL_CHUNK_BYTES;
        let cursor = source.database().cursor_ahead(Family::Data, is_small, chunk_bytes, None)?;
        let mut reader =
            Levels { cursor, chunk_bytes, levels: Vec::new(), heads: Heads::new(0, |_, _| false), at_start: true };
        let bounds: Vec<_> = (0..levels.len()).map(|index| bounds(levels, index, task)).collect();
        let read_bytes = if is_small { None } else { Some((chunk_bytes, memory_bytes)) };
        let found = match read_bytes.map(|sizes| Self::of_files(source, &bounds, sizes)).transpose()?.flatten() {
            Some(levels) => levels,
            None => bounds
                .into_iter()
                .map(|(start, end)| Level::Chunks(Chunks { resume: Some(start), end, ..Chunks::default() }))
                .collect(),
        };
        for mut level in found {
            if level.advance(&mut reader.cursor, chunk_bytes)? {
                reader.levels.push(level);
            }
        }
        let levels = &reader.levels;
        reader.heads = Heads::new(levels.len(), |left, right| less(levels, left, right));
        Ok(reader)
    }

    /// The levels from files; none if one of them cannot be read so, or their indexes would take too much memory.
    fn of_files(
        source: &Source<'d>,
        bounds: &[(Vec<u8>, Option<Vec<u8>>)],
        (read_bytes, memory_bytes): (usize, usize),
    ) -> Result<Option<Vec<Level<'d>>>> {
        let mut levels = Vec::with_capacity(bounds.len());
        let mut index_bytes = 0;
        for (start, end) in bounds {
            let Some(cursor) = source.cursor(start, end.as_deref(), read_bytes)? else { return Ok(None) };
            index_bytes += cursor.index_bytes();
            levels.push(Level::Files(Box::new(cursor)));
        }
        Ok((index_bytes <= memory_bytes as u64).then_some(levels))
    }

    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if !std::mem::take(&mut self.at_start)
            && let Some(first) = self.heads.first()
        {
            let more = self.levels[first].advance(&mut self.cursor, self.chunk_bytes)?;
            let levels = &self.levels;
            self.heads.changed(more, |left, right| less(levels, left, right));
        }
        Ok(self.heads.first().map(|first| self.levels[first].entry()))
    }
}

/// Where a task's part of a level begins and ends. The first level begins where the data begins and each ends where the
/// next one begins, so that the tasks tile whatever the encoding makes.
fn bounds(levels: &[u16], index: usize, task: Task<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let level = levels[index].to_be_bytes();
    let start = match task.start {
        Some(start) => [&level, start].concat(),
        None if index == 0 => Vec::new(),
        None => level.to_vec(),
    };
    let end = match task.end {
        Some(end) => Some([&level, end].concat()),
        None => levels.get(index + 1).map(|next| next.to_be_bytes().to_vec()),
    };
    (start, end)
}

fn less(levels: &[Level<'_>], left: usize, right: usize) -> bool {
    path(levels[left].entry().0) < path(levels[right].entry().0)
}

impl Level<'_> {
    fn entry(&self) -> (&[u8], &[u8]) {
        match self {
            Level::Files(cursor) => cursor.entry(),
            Level::Chunks(chunks) => chunks.entry(),
        }
    }

    /// To the next entry; false only at the end of the level.
    fn advance(&mut self, cursor: &mut Cursor<'_>, chunk_bytes: usize) -> Result<bool> {
        match self {
            Level::Files(cursor) => cursor.advance(),
            Level::Chunks(chunks) => chunks.advance(cursor, chunk_bytes),
        }
    }
}

impl Chunks {
    fn entry(&self) -> (&[u8], &[u8]) {
        let (begin, value, end) = self.entries[self.at];
        (&self.bytes[begin..value], &self.bytes[value..end])
    }

    fn advance(&mut self, cursor: &mut Cursor<'_>, chunk_bytes: usize) -> Result<bool> {
        self.at += 1;
        if self.at < self.entries.len() { Ok(true) } else { self.fetch(cursor, chunk_bytes) }
    }

    /// Reads the next chunk; false if there is none.
    fn fetch(&mut self, cursor: &mut Cursor<'_>, chunk_bytes: usize) -> Result<bool> {
        self.bytes.clear();
        self.entries.clear();
        self.at = 0;
        let Some(resume) = self.resume.take() else { return Ok(false) };
        cursor.seek(&resume)?;
        while let Some((key, value)) = cursor.entry() {
            if self.end.as_ref().is_some_and(|end| key >= end.as_slice()) {
                break;
            }
            if self.bytes.len() >= chunk_bytes && !self.entries.is_empty() {
                self.resume = Some(key.to_vec());
                break;
            }
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(value);
            self.entries.push((begin, begin + key.len(), self.bytes.len()));
            cursor.next()?;
        }
        Ok(!self.entries.is_empty())
    }
}

/// Answers which blocks of swapped keys the source has.
pub(super) struct Probe<'p> {
    cursor: Cursor<'p>,
    plan: &'p Plan,
    seek: Vec<u8>,
}

/// In how many levels keys are looked for: that of the children, and some more, should there be none.
const PROBED_LEVELS: usize = 8;

impl<'p> Probe<'p> {
    pub(super) fn new(database: &'p Database, plan: &'p Plan) -> Result<Self> {
        Ok(Probe { cursor: database.cursor(Family::Data, true)?, plan, seek: Vec::new() })
    }

    /// Whether there are such keys. A wrong answer costs speed: no, for a block that has only keys many levels deeper;
    /// yes, for longer names in the order of spans, where they have no common place.
    pub(super) fn holds(&mut self, block: Block<'_>) -> Result<bool> {
        let (name, next) = match block {
            Block::Directory(name) => (name, b'/'),
            Block::LongerNames(name) => (name, b'/' + 1),
        };
        match self.plan.order {
            Order::Levels => self.levels_hold(name, next),
            Order::Spans if next != b'/' => Ok(true),
            _ => {
                self.seek.clear();
                self.seek.extend_from_slice(name);
                self.seek.push(next);
                self.cursor.seek(&self.seek)?;
                let found = self.cursor.key().and_then(|key| key.strip_prefix(name));
                Ok(found.is_some_and(|rest| next != b'/' || rest.first() == Some(&b'/')))
            }
        }
    }

    fn levels_hold(&mut self, name: &[u8], next: u8) -> Result<bool> {
        let slashes = name.iter().filter(|&&byte| byte == b'/').count();
        // A name that ends in two separators counts one less.
        let first = self.plan.levels.partition_point(|&level| usize::from(level) + 1 < slashes);
        for level in self.plan.levels[first..].iter().take(PROBED_LEVELS) {
            self.seek.clear();
            self.seek.extend_from_slice(&level.to_be_bytes());
            self.seek.extend(name.iter().map(|&byte| if byte == b'/' { 0xFF } else { byte }));
            let prefix_bytes = self.seek.len();
            self.seek.push(if next == b'/' { 0xFF } else { next });
            self.cursor.seek(&self.seek)?;
            let found = self.cursor.key().and_then(|key| key.strip_prefix(&self.seek[..prefix_bytes]));
            if found.is_some_and(|rest| (rest.first() == Some(&0xFF)) == (next == b'/')) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A cut of the plan as a key, as far as that can be said.
pub(super) fn cut_as_key(order: Order, cut: &[u8]) -> Vec<u8> {
    if order == Order::Levels { key_of_path(cut) } else { cut.to_vec() }
}
