//! Reading a task's part of the source.

use super::borders::{Block, Order, key_of_path};
use super::heads::Heads;
use super::tasks::{Plan, Task, path};
use crate::error::Result;
use crate::rocks::{Cursor, Database, Family};

/// Reads the entries of a task, in the order of the plan.
pub(super) enum Reader<'d> {
    /// In the order of the source.
    Line(Line<'d>),
    /// All levels at once, merged by path.
    Levels(Levels<'d>),
}

impl<'d> Reader<'d> {
    /// A reader that uses about `memory_bytes`.
    pub(super) fn new(database: &'d Database, plan: &Plan, task: Task<'_>, memory_bytes: usize) -> Result<Self> {
        if plan.order == Order::Levels {
            return Ok(Reader::Levels(Levels::new(database, &plan.levels, task, memory_bytes)?));
        }
        let start = task.start.unwrap_or_default();
        Ok(Reader::Line(Line::new(database, start, task.end, Line::READAHEAD_BYTES)?))
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

/// One cursor from a start to before an end.
pub(super) struct Line<'d> {
    cursor: Cursor<'d>,
    at_start: bool,
}

impl<'d> Line<'d> {
    pub(super) const READAHEAD_BYTES: usize = 2 << 20;

    /// An empty start is the beginning: in every order the empty key is the least.
    pub(super) fn new(
        database: &'d Database,
        start: &[u8],
        end: Option<&[u8]>,
        readahead_bytes: usize,
    ) -> Result<Self> {
        let mut cursor = database.cursor_ahead(Family::Data, false, readahead_bytes, end)?;
        if start.is_empty() {
            cursor.seek_first()?
        } else {
            cursor.seek(start)?
        }
        Ok(Line { cursor, at_start: true })
    }

    /// The next entry; none only when the cursor is past the end without an error.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if std::mem::take(&mut self.at_start) {
            return Ok(self.cursor.entry());
        }
        self.cursor.next_entry()
    }
}

/// All levels of a task, merged by path. One cursor serves all of them and fetches a chunk of one level at a time: a
/// cursor for each of a thousand levels would cost gigabytes.
pub(super) struct Levels<'d> {
    cursor: Cursor<'d>,
    chunk_bytes: usize,
    levels: Vec<Level>,
    heads: Heads,
    at_start: bool,
}

/// One level, of which a chunk is in memory.
#[derive(Default)]
struct Level {
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
    fn new(database: &'d Database, levels: &[u16], task: Task<'_>, memory_bytes: usize) -> Result<Self> {
        let chunk_bytes = (memory_bytes / levels.len().max(1)).min(1 << 20);
        let cursor = database.cursor_ahead(Family::Data, chunk_bytes < SMALL_CHUNK_BYTES, chunk_bytes, None)?;
        let mut reader =
            Levels { cursor, chunk_bytes, levels: Vec::new(), heads: Heads::new(0, |_, _| false), at_start: true };
        for (index, level) in levels.iter().enumerate() {
            let mut level = Level {
                // The first level begins where the data begins and each ends where the next one begins, so that the
                // tasks tile whatever the encoding makes.
                resume: Some(match task.start {
                    Some(start) => [&level.to_be_bytes(), start].concat(),
                    None if index == 0 => Vec::new(),
                    None => level.to_be_bytes().to_vec(),
                }),
                end: match task.end {
                    Some(end) => Some([&level.to_be_bytes(), end].concat()),
                    None => levels.get(index + 1).map(|next| next.to_be_bytes().to_vec()),
                },
                ..Level::default()
            };
            if level.fetch(&mut reader.cursor, chunk_bytes)? {
                reader.levels.push(level);
            }
        }
        let levels = &reader.levels;
        reader.heads = Heads::new(levels.len(), |left, right| less(levels, left, right));
        Ok(reader)
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

fn less(levels: &[Level], left: usize, right: usize) -> bool {
    path(levels[left].entry().0) < path(levels[right].entry().0)
}

impl Level {
    fn entry(&self) -> (&[u8], &[u8]) {
        let (begin, value, end) = self.entries[self.at];
        (&self.bytes[begin..value], &self.bytes[value..end])
    }

    /// To the next entry; false only at the end of the level.
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
