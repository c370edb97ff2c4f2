//! Taking the files of a rewrite into the staging database, so that compaction owes nothing afterwards.

use super::placer::groups;
use super::progress::{Phase, Reporter};
use super::rewrite::{OutputFile, Rewritten};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::{DATA_FAMILY, OUTPUT};
use crate::rocks::{Database, LiveFile};
use crate::trap::trap;
use std::path::PathBuf;

/// Ingests the disjoint files in one call (one overlapping pair in it would lift every file above the bottom), then the
/// overflow, compacts the ranges of the overflow, and checks that every file lies at the bottom level and that not an
/// entry is missing. The output folder is gone then.
///
/// # Errors
/// `NoSpace`, `Io` (also when files are left above the bottom: what was promised is not so), `Corrupt` (entries are
/// missing). Some calls may be in the database and some not; start over with an empty staging.
pub fn ingest(vfs: &dyn Vfs, staging: &Database, output: &Rewritten) -> Result<()> {
    ingest_reporting(vfs, staging, output, &Reporter::silent())
}

/// As [`ingest`], telling how far it is.
///
/// # Errors
/// As [`ingest`].
pub fn ingest_reporting(vfs: &dyn Vfs, staging: &Database, output: &Rewritten, progress: &Reporter) -> Result<()> {
    progress.begin(Phase::Ingest, output.bytes_written);
    staging.ingest(&paths(output.disjoint.iter()))?;
    let entries = output.entries - output.overflow_entries;
    progress.advance(output.disjoint.iter().map(|file| file.bytes).sum(), entries);
    trap!(vfs, IngestDisjoint);
    for group in groups(&output.overflow) {
        staging.ingest(&paths(group.iter().copied()))?;
    }
    trap!(vfs, IngestOverflow);
    for (from, to) in ranges(&output.overflow) {
        staging.compact(Some(from), Some(to))?;
    }
    check_settled(staging)?;
    check_entries(staging, output.entries)?;
    vfs.remove_dir(&staging.path().join(OUTPUT))?;
    progress.advance(output.overflow.iter().map(|file| file.bytes).sum(), output.overflow_entries);
    progress.end();
    trap!(vfs, IngestSettled);
    Ok(())
}

fn paths<'f>(files: impl Iterator<Item = &'f OutputFile>) -> Vec<PathBuf> {
    files.map(|file| file.path.clone()).collect()
}

/// The ranges that the files cover, those that overlap as one.
fn ranges(files: &[OutputFile]) -> Vec<(&[u8], &[u8])> {
    let mut sorted: Vec<(&[u8], &[u8])> = files.iter().map(|file| (&file.smallest[..], &file.largest[..])).collect();
    sorted.sort_unstable();
    let mut ranges: Vec<(&[u8], &[u8])> = Vec::new();
    for (from, to) in sorted {
        match ranges.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => ranges.push((from, to)),
        }
    }
    ranges
}

/// That nothing is owed is a promise, and `compact_range` reports nothing: so this looks.
fn check_settled(staging: &Database) -> Result<()> {
    let files: Vec<LiveFile> = staging.live_files()?.into_iter().filter(|file| file.family == DATA_FAMILY).collect();
    let Some(bottom) = files.iter().map(|file| file.level).max() else { return Ok(()) };
    let owed: Vec<&LiveFile> = files.iter().filter(|file| file.level < bottom || file.level == 0).collect();
    if owed.is_empty() {
        return Ok(());
    }
    let bytes: u64 = owed.iter().map(|file| file.bytes).sum();
    let message = format!("{} files of {bytes} bytes are left above level {bottom}", owed.len());
    Err(Error::new(ErrorKind::Io, "compact the overflow", message).at(staging.path()))
}

/// Two keys that met in one encoded key would show here, whatever hid them before.
fn check_entries(staging: &Database, entries: u64) -> Result<()> {
    let figures = staging.table_figures()?;
    let others = figures.deletions + figures.merge_operands + figures.range_deletions;
    if figures.entries == entries && others == 0 {
        return Ok(());
    }
    let message =
        format!("{entries} entries were written, {} are in the database (and {others} others)", figures.entries);
    Err(Error::new(ErrorKind::Corrupt, "ingest files", message).at(staging.path()))
}
