//! Reading a database in the order of its keys: from its files where each key is in one place, else through RocksDB.

use crate::error::Result;
use crate::fs::Vfs;
use crate::rocks::{Cursor, Database, Family, LiveFile, Piece, TableCursor, TableFiles};

/// However small pieces are to be: less is hardly more than a few blocks.
const PIECE_BYTES_LEAST: u64 = 256 << 10;

/// A database to be read through, and its files where they may be read without RocksDB.
pub(super) struct Source<'d> {
    database: &'d Database,
    files: Option<TableFiles<'d>>,
}

impl<'d> Source<'d> {
    /// Read from its files where nothing lies in more than one of them.
    pub(super) fn of_files(vfs: &'d dyn Vfs, database: &'d Database) -> Result<Self> {
        Ok(Source { database, files: TableFiles::of(vfs, database)? })
    }

    /// Read by RocksDB alone.
    pub(super) fn of_database(database: &'d Database) -> Self {
        Source { database, files: None }
    }

    /// The database.
    pub(super) fn database(&self) -> &'d Database {
        self.database
    }

    /// A file in pieces of about `piece_bytes`; none if it is not known how to cut it.
    pub(super) fn pieces(&self, file: &LiveFile, piece_bytes: u64) -> Result<Option<Vec<Piece>>> {
        let piece_bytes = piece_bytes.max(PIECE_BYTES_LEAST);
        if file.bytes <= piece_bytes {
            return Ok(Some(vec![Piece { position: file.smallest.clone(), bytes: file.bytes }]));
        }
        self.files.as_ref().map_or(Ok(None), |files| files.pieces(file, piece_bytes))
    }

    /// A cursor over the files there; none if RocksDB has to read them.
    pub(super) fn cursor(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        read_bytes: usize,
    ) -> Result<Option<TableCursor<'d>>> {
        self.files.as_ref().map_or(Ok(None), |files| files.cursor(start, end, read_bytes))
    }
}

/// The entries from a start to before an end.
pub(super) enum Line<'d> {
    /// From files in which each is once.
    Files(Box<TableCursor<'d>>),
    /// As RocksDB finds them; whether it stands on one that was not given out.
    Database(Cursor<'d>, bool),
}

impl<'d> Line<'d> {
    const READAHEAD_BYTES: usize = 2 << 20;

    /// An empty start is the beginning: in every order the empty key is the least.
    pub(super) fn new(source: &Source<'d>, start: &[u8], end: Option<&[u8]>) -> Result<Self> {
        if let Some(cursor) = source.cursor(start, end, Self::READAHEAD_BYTES)? {
            return Ok(Line::Files(Box::new(cursor)));
        }
        let mut cursor = source.database.cursor_ahead(Family::Data, false, Self::READAHEAD_BYTES, end)?;
        if start.is_empty() {
            cursor.seek_first()?
        } else {
            cursor.seek(start)?
        }
        Ok(Line::Database(cursor, true))
    }

    /// The next entry; none only when the cursor is past the end without an error.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        match self {
            Line::Files(cursor) => Ok(cursor.advance()?.then(|| cursor.entry())),
            Line::Database(cursor, at_start) => {
                if std::mem::take(at_start) {
                    return Ok(cursor.entry());
                }
                cursor.next_entry()
            }
        }
    }
}
