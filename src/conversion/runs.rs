//! Sorting a task's entries into files while they are read.
//!
//! Source and target order agree but for directories that swap places, so nearly every entry comes in the target's
//! order, level by level. Each target level has a run: a buffer that is sorted and written in part when memory is short.
//! A run knows the intervals that its files cover. A later key may lie
//! - in a gap between two intervals: it opens a new file there, and a whole directory that swapped goes into that gap;
//! - in an interval: it is late, and goes to a sorter.
//!
//! Files end at the borders of what is still to be read ([`Swap::borders`](super::borders::Swap)), so that intervals do
//! not close over it and nothing comes late but in an order that we know nothing of.

use super::buffer::SortBuffer;
use super::output::{FileMaker, OpenFile, OutputFile};
use super::sorter::{Sorter, Spill};
use super::tasks::{level, path};
use crate::error::Result;
use std::collections::BTreeMap;
use std::ops::Bound;

/// How much a worker may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Memory for all buffers, in bytes.
    pub(super) buffer_bytes: usize,
    /// Files that are written at a time.
    pub(super) files: usize,
    /// A level with less than this at the end of a task shares a file with others.
    pub(super) small_bytes: usize,
}

/// What a task has written.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) files: Vec<OutputFile>,
    pub(super) spills: Vec<Spill>,
    /// What was not worth a spill file.
    pub(super) memory: SortBuffer,
}

/// The runs of a task.
pub(super) struct Runs<'j> {
    shared: Shared<'j>,
    /// By level; without levels there is one.
    runs: Vec<Option<Box<Run<'j>>>>,
    limits: Limits,
    buffered_bytes: usize,
    /// The levels with an open file, the one that was written last at the end.
    open: Vec<usize>,
}

/// What the runs of a task have in common.
struct Shared<'j> {
    maker: FileMaker<'j>,
    by_level: bool,
    sorter: Sorter<'j>,
    files: Vec<OutputFile>,
    late_entries: u64,
}

impl Shared<'_> {
    fn prefix_bytes(&self) -> usize {
        if self.by_level { 2 } else { 0 }
    }
}

impl<'j> Runs<'j> {
    pub(super) fn new(maker: FileMaker<'j>, sorter: Sorter<'j>, by_level: bool, limits: Limits) -> Self {
        let shared = Shared { maker, by_level, sorter, files: Vec::new(), late_entries: 0 };
        Runs { shared, runs: Vec::new(), limits, buffered_bytes: 0, open: Vec::new() }
    }

    /// Adds an entry to the run of its level.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        let at = if self.shared.by_level { usize::from(level(key)) } else { 0 };
        if at >= self.runs.len() {
            self.runs.resize_with(at + 1, || None);
        }
        let run = self.runs[at].get_or_insert_with(|| Box::new(Run::new(self.shared.sorter.buffer.another())));
        run.buffer.push(key, value);
        self.buffered_bytes += SortBuffer::entry_bytes(key, value);
    }

    /// Adds an entry that no run wants.
    pub(super) fn add_unsorted(&mut self, key: &[u8], value: &[u8]) {
        self.shared.sorter.buffer.push(key, value);
        self.buffered_bytes += SortBuffer::entry_bytes(key, value);
    }

    pub(super) fn is_full(&self) -> bool {
        self.buffered_bytes >= self.limits.buffer_bytes
    }

    /// Entries so far that came after a file had closed over their place.
    pub(super) fn late_entries(&self) -> u64 {
        self.shared.late_entries
    }

    /// Makes room. `borders`: where files must end, as things are now. True if the sorter has taken all of the runs: no
    /// file may close over what it took, so these borders stay.
    pub(super) fn relieve(&mut self, borders: &[Vec<u8>]) -> Result<bool> {
        let sizes = self.runs.iter().flatten().map(|run| run.buffer.memory_bytes());
        let in_runs: usize = sizes.sum();
        let largest = (0..self.runs.len()).max_by_key(|&at| self.memory_of(at)).unwrap_or(0);
        let largest_bytes = self.memory_of(largest);
        let mut taken = false;
        if self.shared.sorter.buffer.memory_bytes() > largest_bytes {
            self.shared.sorter.spill()?;
        } else if largest_bytes.saturating_mul(self.limits.files) >= in_runs {
            self.flush(largest, false, borders)?;
        } else {
            // So many levels that none is worth a file of its own.
            for at in 0..self.runs.len() {
                self.give_to_sorter(at);
            }
            self.shared.sorter.spill()?;
            taken = true;
        }
        self.count_memory();
        Ok(taken)
    }

    fn memory_of(&self, at: usize) -> usize {
        self.runs.get(at).and_then(Option::as_ref).map_or(0, |run| run.buffer.memory_bytes())
    }

    fn count_memory(&mut self) {
        let in_runs: usize = self.runs.iter().flatten().map(|run| run.buffer.memory_bytes()).sum();
        self.buffered_bytes = in_runs + self.shared.sorter.buffer.memory_bytes();
    }

    fn give_to_sorter(&mut self, at: usize) {
        let Some(run) = self.runs[at].as_mut() else { return };
        for entry in 0..run.buffer.len() {
            let (key, value) = run.buffer.entry(entry);
            self.shared.sorter.buffer.push(key, value);
        }
        run.buffer = run.buffer.another();
    }

    /// Writes the lower half of a run, or all of it.
    fn flush(&mut self, at: usize, all: bool, borders: &[Vec<u8>]) -> Result<()> {
        self.open.retain(|&open| open != at);
        if self.open.len() >= self.limits.files {
            let oldest = self.open.remove(0);
            self.close(oldest)?;
        }
        let Some(run) = self.runs[at].as_mut() else { return Ok(()) };
        run.buffer.sort();
        let count = if all { run.buffer.len() } else { run.buffer.half() };
        run.flush(count, borders, &mut self.shared)?;
        if run.open.is_some() {
            self.open.push(at);
        }
        Ok(())
    }

    fn close(&mut self, at: usize) -> Result<()> {
        let file = self.runs[at].as_mut().and_then(|run| run.open.take());
        if let Some(file) = file {
            self.shared.files.push(file.finish()?);
        }
        Ok(())
    }

    /// Writes what is left. What belongs into no file of its own goes to a spill file, or, if `keep` is set and it
    /// fits, stays in memory.
    pub(super) fn finish(mut self, borders: &[Vec<u8>], keep: bool) -> Result<Written> {
        for at in 0..self.runs.len() {
            let Some(run) = &self.runs[at] else { continue };
            if run.buffer.memory_bytes() >= self.limits.small_bytes || !run.written.0.is_empty() {
                self.flush(at, true, borders)?;
            } else {
                self.give_to_sorter(at);
                if self.shared.sorter.buffer.memory_bytes() >= self.limits.buffer_bytes {
                    self.shared.sorter.spill()?;
                }
            }
        }
        for at in std::mem::take(&mut self.open) {
            self.close(at)?;
        }
        if !keep {
            self.shared.sorter.spill()?;
        }
        let (spills, memory) = self.shared.sorter.finish();
        Ok(Written { files: self.shared.files, spills, memory })
    }
}

/// The run of one level.
struct Run<'j> {
    buffer: SortBuffer,
    written: Intervals,
    open: Option<OpenFile<'j>>,
}

impl<'j> Run<'j> {
    fn new(buffer: SortBuffer) -> Self {
        Run { buffer, written: Intervals::default(), open: None }
    }

    /// Writes the first `count` entries of the sorted buffer.
    fn flush(&mut self, count: usize, borders: &[Vec<u8>], shared: &mut Shared<'j>) -> Result<()> {
        let mut at = 0;
        while at < count {
            at = match self.written.place(self.buffer.key(at)) {
                Place::In(end) => self.send_late(at, count, &end, shared),
                Place::Between(before, after) => {
                    let first = self.buffer.key(at);
                    let prefix = &first[..shared.prefix_bytes().min(first.len())];
                    let next_border = borders.partition_point(|border| position(shared, first) >= border.as_slice());
                    let border = borders.get(next_border).map(|border| [prefix, border].concat());
                    let limit = [after, border].into_iter().flatten().min();
                    let goes_on = self.open.as_ref().is_some_and(|file| {
                        let reached = position(shared, &file.largest);
                        let crossed = borders.partition_point(|border| reached >= border.as_slice()) != next_border;
                        before.as_ref() == Some(&file.smallest) && !crossed
                    });
                    self.write(at, count, limit.as_deref(), goes_on, shared)?
                }
            };
        }
        self.buffer.drop_front(count);
        Ok(())
    }

    /// Gives the entries up to the end of an interval to the sorter.
    fn send_late(&mut self, mut at: usize, count: usize, end: &[u8], shared: &mut Shared<'j>) -> usize {
        while at < count && self.buffer.key(at) <= end {
            let (key, value) = self.buffer.entry(at);
            shared.sorter.buffer.push(key, value);
            shared.late_entries += 1;
            at += 1;
        }
        at
    }

    /// Writes the entries that come before `limit` to the open file if it goes on there, and to new ones.
    fn write(
        &mut self,
        mut at: usize,
        count: usize,
        limit: Option<&[u8]>,
        goes_on: bool,
        shared: &mut Shared<'j>,
    ) -> Result<usize> {
        let is_full = self.open.as_mut().is_some_and(OpenFile::is_full);
        let mut file = match self.open.take() {
            Some(file) if goes_on && !is_full => file,
            other => {
                if let Some(file) = other {
                    shared.files.push(file.finish()?);
                }
                shared.maker.create()?
            }
        };
        // The buffer is sorted, so what is before the limit is found by searching.
        let end = limit.map_or(count, |limit| self.buffer.first_from(limit, at, count));
        loop {
            let (key, value) = self.buffer.entry(at);
            file.put(key, value)?;
            at += 1;
            let is_full = file.is_full();
            if at == end || is_full {
                file.reached(self.buffer.key(at - 1));
                self.written.insert(&file.smallest, &file.largest);
            }
            if at == end {
                self.open = Some(file);
                return Ok(at);
            }
            if is_full {
                shared.files.push(file.finish()?);
                file = shared.maker.create()?;
            }
        }
    }
}

fn position<'k>(shared: &Shared<'_>, key: &'k [u8]) -> &'k [u8] {
    if shared.by_level { path(key) } else { key }
}

/// What files cover: first key to last key, none of them over another.
#[derive(Debug, Default)]
struct Intervals(BTreeMap<Vec<u8>, Vec<u8>>);

/// Where a key lies.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In an interval that ends there.
    In(Vec<u8>),
    /// After an interval that begins there, and before one that begins there.
    Between(Option<Vec<u8>>, Option<Vec<u8>>),
}

impl Intervals {
    fn place(&self, key: &[u8]) -> Place {
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        match before {
            Some((_, end)) if end.as_slice() >= key => Place::In(end.clone()),
            _ => {
                let after = self.0.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded)).next();
                Place::Between(before.map(|(start, _)| start.clone()), after.map(|(start, _)| start.clone()))
            }
        }
    }

    /// Adds an interval, or makes the one that begins there longer.
    fn insert(&mut self, start: &[u8], end: &[u8]) {
        self.0.insert(start.to_vec(), end.to_vec());
    }
}
