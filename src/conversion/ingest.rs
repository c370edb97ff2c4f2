//! Taking the files of a rewrite into the staging database, so that compaction owes nothing afterwards.

use super::output::OutputFile;
use super::placer::groups;
use super::progress::{Phase, Reporter};
use super::resume::is_there;
use super::rewrite::Rewritten;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::{DATA_FAMILY, OUTPUT};
use crate::rocks::{Database, LiveFile};
use crate::trap::trap;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Ingests the disjoint files (one overlapping pair in a call would lift every file of it above the bottom), then the
/// overflow, but for what an attempt before has ingested; compacts the ranges of the overflow, and checks that every file
/// lies at the bottom level and that not an entry is missing. The output folder is gone then.
///
/// # Errors
/// `NoSpace`, `Io` (also when files are left above the bottom: what was promised is not so), `Corrupt` (entries are
/// missing, or a file is). Some calls may be in the database and some not: repeated, it goes on.
pub fn ingest(
    vfs: &dyn Vfs,
    staging: &Database,
    output: &Rewritten,
    files_at_once: usize,
    progress: &Reporter,
) -> Result<()> {
    progress.begin(Phase::Ingest, output.bytes_written);
    let there = Ingested::of(staging)?;
    let disjoint = there.rest(vfs, &output.disjoint)?;
    progress.advance(there.bytes(&output.disjoint), there.entries(&output.disjoint));
    for files in disjoint.chunks(files_at_once.max(1)) {
        staging.ingest(&paths(files.iter()))?;
        progress.advance(files.iter().map(|file| file.bytes).sum(), files.iter().map(|file| file.entries).sum());
    }
    trap!(vfs, IngestDisjoint);
    for group in groups(&there.rest(vfs, &output.overflow)?) {
        for files in group.chunks(files_at_once.max(1)) {
            staging.ingest(&paths(files.iter().copied()))?;
        }
    }
    trap!(vfs, IngestOverflow);
    for (from, to) in ranges(&output.overflow) {
        staging.compact(Some(from), Some(to))?;
    }
    check_settled(staging)?;
    check_files(vfs, staging)?;
    check_entries(staging, output.entries)?;
    vfs.remove_dir(&staging.path().join(OUTPUT))?;
    progress.advance(output.overflow.iter().map(|file| file.bytes).sum(), output.overflow_entries);
    progress.end();
    trap!(vfs, IngestSettled);
    Ok(())
}

/// The files that a staging database has: those of this attempt's, and of an attempt before.
struct Ingested(BTreeMap<Vec<u8>, (Vec<u8>, u64)>);

impl Ingested {
    fn of(staging: &Database) -> Result<Self> {
        let files = staging.live_files()?.into_iter().filter(|file| file.family == DATA_FAMILY);
        Ok(Ingested(files.map(|file| (file.smallest, (file.largest, file.bytes))).collect()))
    }

    /// Whether the database has the file as it is. No key is in two files of a rewrite, so its range tells.
    fn has(&self, file: &OutputFile) -> bool {
        self.0.get(&file.smallest).is_some_and(|(largest, bytes)| *largest == file.largest && *bytes == file.bytes)
    }

    fn bytes(&self, files: &[OutputFile]) -> u64 {
        files.iter().filter(|file| self.has(file)).map(|file| file.bytes).sum()
    }

    fn entries(&self, files: &[OutputFile]) -> u64 {
        files.iter().filter(|file| self.has(file)).map(|file| file.entries).sum()
    }

    /// Those that are still to be ingested. A file that the database has goes from the output folder. One that is
    /// neither here nor there was ingested and compacted, or is lost: the count of entries will tell.
    fn rest(&self, vfs: &dyn Vfs, files: &[OutputFile]) -> Result<Vec<OutputFile>> {
        let mut rest = Vec::new();
        for file in files {
            if !is_there(vfs, &file.path, file.bytes)? {
                continue;
            }
            if self.has(file) {
                vfs.remove_file(&file.path)?;
            } else {
                rest.push(file.clone());
            }
        }
        Ok(rest)
    }
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

/// Of a file that is gone RocksDB says, at times, no more than that it has no figures.
fn check_files(vfs: &dyn Vfs, staging: &Database) -> Result<()> {
    if staging.files_are_there(vfs)? {
        return Ok(());
    }
    let message = "an SST file is gone, or has another length";
    Err(Error::new(ErrorKind::Corrupt, "look at the converted database", message).at(staging.path()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Comparator;
    use crate::fs::RealVfs;
    use crate::rocks::{Durability, Family, Settings, SstOptions, SstWriter};
    use std::path::Path;

    fn file(folder: &Path, name: &str, keys: &[&str]) -> OutputFile {
        let options = SstOptions::new(&Settings::default());
        let mut writer = SstWriter::create(&options, &folder.join(name)).unwrap();
        keys.iter().for_each(|key| writer.put(key.as_bytes(), b"value").unwrap());
        let path = writer.finish().unwrap();
        let bytes = std::fs::metadata(&path).unwrap().len();
        let (smallest, largest) = (keys[0].into(), keys[keys.len() - 1].into());
        OutputFile { path, entries: keys.len() as u64, bytes, smallest, largest }
    }

    fn staging(folder: &Path) -> Database {
        std::fs::create_dir(folder.join(OUTPUT)).unwrap();
        let settings = Settings { comparator: Comparator::Bytewise, bulk: true, ..Settings::default() };
        Database::create(folder, &settings).unwrap()
    }

    fn rewritten(disjoint: Vec<OutputFile>, overflow: Vec<OutputFile>) -> Rewritten {
        let count = |files: &[OutputFile]| files.iter().map(|file| file.entries).sum::<u64>();
        let overflow_entries = count(&overflow);
        let entries = count(&disjoint) + overflow_entries;
        Rewritten { disjoint, overflow, entries, overflow_entries, ..Rewritten::default() }
    }

    #[test]
    fn overflow_of_any_depth_ends_at_the_bottom() {
        let directory = tempfile::tempdir().unwrap();
        let database = staging(directory.path());
        let folder = directory.path().join(OUTPUT);
        let disjoint = vec![file(&folder, "1", &["a", "c"]), file(&folder, "2", &["h", "p"])];
        let overflow = vec![
            file(&folder, "3", &["b", "m"]),
            file(&folder, "4", &["i", "k"]),
            file(&folder, "5", &["j", "z"]),
            file(&folder, "6", &["zz"]),
        ];
        ingest(&RealVfs::default(), &database, &rewritten(disjoint, overflow), 512, &Reporter::silent()).unwrap();
        assert!(database.live_files().unwrap().iter().all(|file| file.level == 6));
        assert_eq!(database.table_figures().unwrap().entries, 11);
        assert!(!folder.exists());
    }

    /// A process that dies in an ingest leaves files in the database, under their old names, or both.
    #[test]
    fn what_an_attempt_before_has_ingested_is_not_ingested_again() {
        let directory = tempfile::tempdir().unwrap();
        let database = staging(directory.path());
        let folder = directory.path().join(OUTPUT);
        let disjoint =
            vec![file(&folder, "1", &["a", "c"]), file(&folder, "2", &["h", "p"]), file(&folder, "3", &["q"])];
        let overflow = vec![file(&folder, "4", &["b", "m"]), file(&folder, "5", &["i", "k"])];
        let output = rewritten(disjoint, overflow);
        for (kept, ingested) in [("1", true), ("2", false), ("4", true)] {
            std::fs::copy(folder.join(kept), directory.path().join("kept")).unwrap();
            database.ingest(&[folder.join(kept)]).unwrap();
            assert!(!folder.join(kept).exists());
            if ingested {
                std::fs::rename(directory.path().join("kept"), folder.join(kept)).unwrap();
            }
        }
        ingest(&RealVfs::default(), &database, &output, 1, &Reporter::silent()).unwrap();
        assert!(database.live_files().unwrap().iter().all(|file| file.level == 6));
        assert_eq!(database.table_figures().unwrap().entries, 9);
        assert!(!folder.exists());
        // And once more, when all of it is done.
        ingest(&RealVfs::default(), &database, &output, 1, &Reporter::silent()).unwrap();
        assert_eq!(database.table_figures().unwrap().entries, 9);
    }

    #[test]
    fn a_file_that_is_lost_on_the_way_is_missed() {
        let directory = tempfile::tempdir().unwrap();
        let database = staging(directory.path());
        let folder = directory.path().join(OUTPUT);
        let output = rewritten(vec![file(&folder, "1", &["a", "c"]), file(&folder, "2", &["h", "p"])], Vec::new());
        std::fs::remove_file(folder.join("2")).unwrap();
        let error = ingest(&RealVfs::default(), &database, &output, 8, &Reporter::silent()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }

    #[test]
    fn two_keys_that_met_are_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let database = staging(directory.path());
        let folder = directory.path().join(OUTPUT);
        let output = rewritten(vec![file(&folder, "1", &["a", "b", "c"])], vec![file(&folder, "2", &["b"])]);
        let error = ingest(&RealVfs::default(), &database, &output, 512, &Reporter::silent()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("4 entries were written, 3 are in the database"), "{error}");
    }

    #[test]
    fn what_is_owed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let database = staging(directory.path());
        check_settled(&database).unwrap();
        database.put(Family::Data, b"a", b"1", Durability::Buffered).unwrap();
        database.flush().unwrap();
        let error = check_settled(&database).unwrap_err();
        assert!(error.kind() == ErrorKind::Io && error.to_string().contains("1 files"), "{error}");
        database.compact(None, None).unwrap();
        check_settled(&database).unwrap();
    }
}
