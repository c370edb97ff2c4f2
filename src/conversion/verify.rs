//! Reading all of a database and summing it up, in parallel.

use super::codec::Decoder;
use super::digest::Content;
use super::line::{Line, Source};
use super::parallel::{Stop, in_parallel};
use super::progress::{PACE_BYTES, Phase, Reporter};
use super::record::{ContentLine, Scan, TileLine, Tiles};
use super::resume::Recorder;
use super::tasks::{cuts, file_bytes, pieces};
use crate::encoding::KeyEncoding;
use crate::error::Result;
use crate::layout::INTERNAL_USER;
use crate::rocks::{Database, Family};

/// Where a scan cuts the key space into tiles. The result is the same; but a second scan that is to catch an error of
/// the first one should not repeat its cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cuts {
    /// Where SST files begin.
    #[default]
    AtFiles,
    /// Within SST files, and into more tiles.
    WithinFiles,
    /// Into tiles of about so many bytes of SST files.
    #[cfg(test)]
    Every(u64),
}

impl Cuts {
    /// Bytes of a piece that a cut may follow, and of a tile, where even tiles had `even` bytes, and the greatest `most`.
    fn sizes(self, even: u64, most: u64) -> (u64, u64) {
        match self {
            Cuts::AtFiles => (most, even),
            // Pieces that are no divisor of a file begin elsewhere than files do.
            Cuts::WithinFiles => (even / 3 + 1, even * 2 / 3),
            #[cfg(test)]
            Cuts::Every(bytes) => (bytes, bytes),
        }
    }
}

/// A database smaller than the one is one tile, and a tile is at most as large as the other, in bytes of SST files.
pub(super) const TILE_BYTES: (u64, u64) = (4 << 20, 128 << 20);

/// Counts and digests all of the caller's entries; every key must decode, strictly.
///
/// # Errors
/// `Corrupt` (the database is damaged, or a key in it is not what the encoding makes), `Io`. Never a part of the
/// content: each tile has been read to its end.
pub fn scan(database: &Database, encoding: &dyn KeyEncoding, threads: usize, progress: &Reporter) -> Result<Content> {
    scan_with(database, encoding, threads, Cuts::default(), progress)
}

/// As [`scan`], with a choice of where to cut.
///
/// # Errors
/// As [`scan`].
pub fn scan_with(
    database: &Database,
    encoding: &dyn KeyEncoding,
    threads: usize,
    cut: Cuts,
    progress: &Reporter,
) -> Result<Content> {
    let source = Source::of_database(database);
    let cuts = tiles(&source, encoding, threads, cut, TILE_BYTES)?;
    let tiles = Tiles { cuts, ..Tiles::default() };
    scan_tiles(&source, encoding, threads, tiles, &|_, _, _| Ok(()), progress)
}

/// As [`scan_with`]; what of it was read is recorded, and not read again.
///
/// # Errors
/// As [`scan`].
pub(super) fn scan_recorded(
    source: &Source<'_>,
    encoding: &dyn KeyEncoding,
    threads: usize,
    (of, cut, tile_bytes): (Scan, Cuts, (u64, u64)),
    recorder: &Recorder<'_>,
    progress: &Reporter,
) -> Result<Content> {
    let tiles = recorder.scan(of, || tiles(source, encoding, threads, cut, tile_bytes))?;
    let record = |tile: usize, content: &Content, bytes: u64| {
        recorder.tile(TileLine { of, tile, content: ContentLine::of(content), bytes })
    };
    scan_tiles(source, encoding, threads, tiles, &record, progress)
}

/// Where tiles are cut.
fn tiles(
    source: &Source<'_>,
    encoding: &dyn KeyEncoding,
    threads: usize,
    cut: Cuts,
    (least, most): (u64, u64),
) -> Result<Vec<Vec<u8>>> {
    let even = (file_bytes(source.database())? / (4 * threads.max(1) as u64)).clamp(least, most);
    let (piece_bytes, tile_bytes) = cut.sizes(even, most);
    let pieces = pieces(source, encoding.comparator(), piece_bytes)?;
    Ok(cuts(pieces, encoding.comparator(), tile_bytes))
}

fn scan_tiles(
    source: &Source<'_>,
    encoding: &dyn KeyEncoding,
    threads: usize,
    Tiles { cuts, read }: Tiles,
    record: &(dyn Fn(usize, &Content, u64) -> Result<()> + Sync),
    progress: &Reporter,
) -> Result<Content> {
    let database = source.database();
    let logical_bytes = database.table_figures().map_or(0, |figures| figures.logical_bytes());
    progress.begin(Phase::Verify, logical_bytes);
    let mut all = Content::default();
    for (content, bytes) in read.values() {
        all.merge(*content);
        progress.advance(*bytes, content.entries);
    }
    let todo: Vec<usize> = (0..=cuts.len()).filter(|tile| !read.contains_key(tile)).collect();
    // Reads past the page cache wait for the disk: half of the threads hash meanwhile.
    let scanning = threads.max(1) * if database.settings().direct_reads { 2 } else { 1 };
    let contents = in_parallel(scanning, todo.len(), |at, stop| {
        let tile = todo[at];
        let start = tile.checked_sub(1).map_or(&[][..], |before| cuts[before].as_slice());
        let end = cuts.get(tile).map(Vec::as_slice);
        let line = Line::new(source, start, end)?;
        let (content, bytes) = scan_tile(line, encoding, stop, progress)?;
        record(tile, &content, bytes)?;
        Ok(content)
    })?;
    contents.into_iter().for_each(|content| all.merge(content));
    progress.end();
    Ok(all)
}

/// The content of a tile, and the bytes of it that were read.
fn scan_tile(
    mut line: Line<'_>,
    encoding: &dyn KeyEncoding,
    stop: &Stop,
    progress: &Reporter,
) -> Result<(Content, u64)> {
    let mut content = Content::default();
    let mut decoder = Decoder::new(encoding);
    let (mut bytes, mut told, mut all_bytes) = (0, 0, 0);
    while let Some((encoded, value)) = line.next()? {
        content.add(decoder.decode(encoded)?, value);
        bytes += (encoded.len() + value.len()) as u64;
        if bytes >= PACE_BYTES {
            stop.check()?;
            progress.advance(bytes, content.entries - told);
            all_bytes += bytes;
            (bytes, told) = (0, content.entries);
        }
    }
    progress.advance(bytes, content.entries - told);
    Ok((content, all_bytes + bytes))
}

/// Counts and digests the caller's half of the internal records, with their names as they are stored. A database
/// without the internal family has none.
///
/// # Errors
/// `Corrupt`, `Io`.
pub fn scan_internal_user(database: &Database) -> Result<Content> {
    let mut content = Content::default();
    if !database.has_internal() {
        return Ok(content);
    }
    let mut cursor = database.cursor(Family::Internal, false)?;
    cursor.seek(INTERNAL_USER)?;
    while let Some((key, value)) = cursor.entry().filter(|(key, _)| key.starts_with(INTERNAL_USER)) {
        content.add(key, value);
        cursor.next()?;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Hierarchical, Natural};
    use crate::error::ErrorKind;
    use crate::layout::INTERNAL_IDENTITY;
    use crate::rocks::{Durability, Settings};

    #[test]
    fn the_internal_records_of_the_caller_are_summed_up_alone() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(directory.path(), &Settings::default()).unwrap();
        let put = |key: &[u8]| database.put(Family::Internal, key, b"value", Durability::Buffered).unwrap();
        put(INTERNAL_IDENTITY);
        assert_eq!(scan_internal_user(&database).unwrap(), Content::default());
        [&b"u/term"[..], b"u/offset", b"u", b"u0", b"v/x"].into_iter().for_each(put);
        let mut expected = Content::default();
        [&b"u/offset"[..], b"u/term"].iter().for_each(|key| expected.add(key, b"value"));
        assert_eq!(scan_internal_user(&database).unwrap(), expected);
    }

    #[test]
    fn a_key_of_another_encoding_is_corrupt_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(directory.path(), &Settings::default()).unwrap();
        database.put(Family::Data, b"/not/hierarchical", b"", Durability::Buffered).unwrap();
        assert_eq!(scan(&database, &Natural, 1, &Reporter::silent()).unwrap().entries, 1);
        let error = scan(&database, &Hierarchical, 1, &Reporter::silent()).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("/not/hierarchical"), "{error}");
    }
}
