//! Reading what lies once in a database, from its SST files.

use super::block::{Entries, Entry};
use super::table::{Index, Piece, SEQUENCE_BYTES, STEP, Table, Window};
use super::{Database, Family, LiveFile};
use crate::encoding::Comparator;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::DATA_FAMILY;
use std::cmp::Ordering;
use std::ops::Range;
use std::path::PathBuf;

/// The sort of an entry: put. Others are declined by the properties of their file.
const PUT: u8 = 1;

/// The SST files of the caller's family of a database that nobody writes to.
#[derive(Debug)]
pub struct TableFiles<'v> {
    vfs: &'v dyn Vfs,
    directory: PathBuf,
    direct: bool,
    /// They are all there is, and will be: nothing lies in memtables, and nobody writes.
    complete: bool,
    /// Ascending by their smallest key.
    files: Vec<LiveFile>,
}

impl<'v> TableFiles<'v> {
    /// The files of `database`, which stays open; `None` if its keys have another order than that of their bytes, and
    /// are RocksDB's to read.
    ///
    /// # Errors
    /// `Io`.
    pub fn of(vfs: &'v dyn Vfs, database: &Database) -> Result<Option<Self>> {
        let settings = database.settings();
        if settings.comparator != Comparator::Bytewise {
            return Ok(None);
        }
        let mut files = database.live_files()?;
        files.retain(|file| file.family == DATA_FAMILY);
        files.sort_by(|left, right| left.smallest.cmp(&right.smallest));
        let complete = database.is_read_only() && database.memtable_entries_of(Family::Data)? == 0;
        let (directory, direct) = (database.path().to_path_buf(), settings.direct_reads);
        Ok(Some(TableFiles { vfs, directory, direct, complete, files }))
    }

    fn table(&self, file: &LiveFile) -> Result<Option<Table>> {
        Table::open(self.vfs, self.direct, self.directory.join(&file.name), file.bytes)
    }

    /// A file of the database in pieces of about `piece_bytes`, cut where keys have little in common; `None` if it is not
    /// read here.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn pieces(&self, file: &LiveFile, piece_bytes: u64) -> Result<Option<Vec<Piece>>> {
        let Some(table) = self.table(file)? else { return Ok(None) };
        let mut pieces = table.pieces(&mut Window::new(self.vfs, self.direct, 0), piece_bytes)?;
        if let Some(first) = pieces.first_mut() {
            first.position.clone_from(&file.smallest);
        }
        Ok(Some(pieces))
    }

    /// A cursor before the first entry from `start` to before `end`. `None` if a key may be in several places there, or
    /// may have been deleted, or a file has anything that is not read here. `read_bytes` are read at once.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn cursor(&self, start: &[u8], end: Option<&[u8]>, read_bytes: usize) -> Result<Option<TableCursor<'v>>> {
        let within =
            |file: &&LiveFile| file.largest.as_slice() >= start && end.is_none_or(|end| file.smallest.as_slice() < end);
        let files: Vec<&LiveFile> = self.files.iter().filter(within).collect();
        if !self.complete || files.windows(2).any(|pair| pair[0].largest >= pair[1].smallest) {
            return Ok(None);
        }
        let mut tables = Vec::with_capacity(files.len());
        for file in files {
            match self.table(file)?.filter(|table| table.is_plain) {
                Some(table) => tables.push(table),
                None => return Ok(None),
            }
        }
        tables.reverse();
        let cursor = TableCursor {
            tables,
            table: None,
            window: Window::new(self.vfs, self.direct, read_bytes),
            index: Index::default(),
            block: Vec::new(),
            entries: Entries::default(),
            start: Some(start.to_vec()),
            end: end.map(<[u8]>::to_vec),
            reaches_end: false,
            state: State::Reading,
            key: Vec::new(),
            user_key_bytes: None,
            value: 0..0,
            counted: 0,
            from_beginning: true,
        };
        Ok(Some(cursor))
    }
}

/// A position in files that follow each other. It stands before the first entry until it is moved.
pub struct TableCursor<'v> {
    /// Those that are still to come; the next one is the last.
    tables: Vec<Table>,
    table: Option<Table>,
    window: Window<'v>,
    index: Index,
    /// The data block that is being read.
    block: Vec<u8>,
    entries: Entries,
    /// Where to begin, until the first entry is found.
    start: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
    /// The block may have keys at or after the end.
    reaches_end: bool,
    state: State,
    /// The key of the last entry, and its sequence number.
    key: Vec<u8>,
    user_key_bytes: Option<usize>,
    value: Range<usize>,
    /// Entries of the table that were read, and whether those are all so far.
    counted: u64,
    from_beginning: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// All there is has been read.
    Ended,
    /// What is still there will never be known.
    Failed,
}

/// What an entry is to the one before.
enum Step {
    Next,
    /// An older version of the same key.
    Older,
    /// Neither put nor deleted nor merged.
    Unknown,
    Damaged(&'static str),
}

impl TableCursor<'_> {
    /// The largest index that it holds at a time, as it lies in a file, in bytes.
    pub fn index_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.index.bytes).max().unwrap_or(0)
    }

    /// The entry on which it stands: encoded key and value.
    #[inline]
    pub fn entry(&self) -> (&[u8], &[u8]) {
        (&self.key[..self.user_key_bytes.unwrap_or(0)], &self.block[self.value.clone()])
    }

    /// To the next entry; false only when all there is has been read.
    ///
    /// # Errors
    /// `Corrupt` (a checksum does not hold, keys do not ascend, a file has fewer entries than were written),
    /// `Unsupported` (an entry of a sort that is not known here), `Io`. Each time, from the first error on.
    #[inline]
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            if self.entries.is_at_end() {
                if !self.next_block()? {
                    return Ok(false);
                }
                continue;
            }
            let step = match self.entries.next(&self.block) {
                Some(Some(entry)) => self.take(entry),
                _ => Step::Damaged("an entry is no entry"),
            };
            match step {
                Step::Next => {}
                Step::Older => continue,
                Step::Unknown => {
                    return Err(self.failed(ErrorKind::Unsupported, "an entry of a sort that is not known"));
                }
                Step::Damaged(what) => return Err(self.failed(ErrorKind::Corrupt, what)),
            }
            if let Some(start) = &self.start {
                if self.entry().0 < start.as_slice() {
                    continue;
                }
                self.start = None;
            }
            if self.reaches_end && self.end.as_deref().is_some_and(|end| self.entry().0 >= end) {
                self.entries = Entries::default();
                self.state = State::Ended;
                return Ok(false);
            }
            return Ok(true);
        }
    }

    /// Takes over the key and the place of the value.
    #[inline]
    fn take(&mut self, Entry { shared, delta, value }: Entry) -> Step {
        let delta = &self.block[delta];
        if shared > self.key.len() {
            return Step::Damaged("a key shares more bytes than the one before has");
        }
        let Some(user_key_bytes) = (shared + delta.len()).checked_sub(SEQUENCE_BYTES) else {
            return Step::Damaged("a key has no sequence number");
        };
        let order = self.user_key_bytes.map(|before| match user_key_bytes.checked_sub(shared) {
            // What both share need not be compared.
            Some(rest) if shared < before => self.key[shared..before].cmp(&delta[..rest]),
            _ => before.cmp(&user_key_bytes),
        });
        self.key.truncate(shared);
        self.key.extend_from_slice(delta);
        if self.key[user_key_bytes] != PUT {
            return Step::Unknown;
        }
        self.user_key_bytes = Some(user_key_bytes);
        self.counted += 1;
        match order {
            None | Some(Ordering::Less) => {
                self.value = value;
                Step::Next
            }
            Some(Ordering::Equal) => Step::Older,
            Some(Ordering::Greater) => Step::Damaged("keys do not ascend"),
        }
    }

    /// To the next data block; false if there is none.
    #[cold]
    fn next_block(&mut self) -> Result<bool> {
        match self.state {
            State::Reading => {}
            State::Ended => return Ok(false),
            State::Failed => return Err(self.failed(ErrorKind::Corrupt, "it could not be read before")),
        }
        // Whoever asks again after an error must not be told of the block after it.
        self.state = State::Failed;
        let more = self.read_next_block()?;
        self.state = if more { State::Reading } else { State::Ended };
        Ok(more)
    }

    fn read_next_block(&mut self) -> Result<bool> {
        self.value = 0..0;
        loop {
            let Some(table) = &self.table else {
                if !self.next_table()? {
                    return Ok(false);
                }
                continue;
            };
            // What follows the block in its file is at or after the end. Another file may still begin before it.
            if self.reaches_end {
                (self.table, self.reaches_end) = (None, false);
                continue;
            }
            if !self.index.next(table)? {
                if self.from_beginning && self.counted != table.entries {
                    let what = format!("{} entries of {} are there", self.counted, table.entries);
                    return Err(table.damaged(table.index, &what));
                }
                self.table = None;
                continue;
            }
            if self.start.as_deref().is_some_and(|start| self.index.key() < start) {
                self.from_beginning = false;
                continue;
            }
            self.reaches_end = self.end.as_deref().is_some_and(|end| self.index.key() >= end);
            self.window.read_block(table, self.index.handle, &mut self.block)?;
            let entries = Entries::new(&self.block);
            self.entries = entries.ok_or_else(|| table.damaged(self.index.handle, "a block of another sort"))?;
            return Ok(true);
        }
    }

    fn next_table(&mut self) -> Result<bool> {
        let Some(table) = self.tables.pop() else { return Ok(false) };
        self.window.clear();
        self.index.load(&table, &mut self.window)?;
        (self.table, self.counted, self.from_beginning) = (Some(table), 0, true);
        Ok(true)
    }

    #[cold]
    fn failed(&mut self, kind: ErrorKind, what: &str) -> Error {
        self.entries = Entries::default();
        self.state = State::Failed;
        let Some(table) = &self.table else { return Error::new(kind, STEP, what) };
        let message = format!("{what} (block at {})", self.index.handle.offset);
        Error::new(kind, STEP, message).at(&table.path)
    }
}
