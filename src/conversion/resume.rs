//! Going on with a conversion that was interrupted.
//!
//! While staging is built, `PROGRESS` in it tells what is done. Its lines are in [`record`](super::record).
//!
//! Invariants:
//! - **what a line speaks of is durable before the line is written, and the line is durable before anything relies on
//!   it**: files, and the folder with their names, are synced; then the line is appended and synced; only then may what
//!   it makes superfluous go (the spill files of a merge, the tasks that nobody will do again);
//! - **what no line speaks of does not count**: files in the output folder that no line names are removed before work
//!   goes on. A file that a line names is never written again: before a task is done again, a line that forgets it is
//!   durable;
//! - **the plan is made once.** Tasks, passes, merges and tiles go on as they were planned, whatever the threads, the
//!   memory and the compression of this attempt; verification, keeping and target are the journal's;
//! - **the source is the same**: nothing is taken over unless its files, its last sequence number and its identity are
//!   those of the journal, looked at while RocksDB's own lock on it is held;
//! - **nothing is taken over on trust**: `PROGRESS` that does not add up, of another conversion or of another version is
//!   no progress; a file that is not there in its size is not there; whatever else is damaged shows as RocksDB's
//!   checksums, counts and digest are compared, and then what was taken over is dropped and all begins again, once;
//! - **before a file is written to again, it is made anew**: what a killed process has appended need not be durable, and
//!   a sync that failed is not repeated. So `PROGRESS` is replaced, whole, by the part of it that counts.
//!
//! | effect | after a crash, or an `Err`, there may be |
//! |---|---|
//! | the output folder is made | a folder without `PROGRESS`: begun again |
//! | `PROGRESS` is begun, with the plan | the plan or not; its temporary file |
//! | a task's files are written, synced, and their folder | files that no line names: removed |
//! | a line is appended and synced | the line, a part of it, or not |
//! | `PROGRESS` is replaced by the part that counts | the one or the other; both say the same |
//! | files that no line names are removed | some of them |
//! | a spill file of which a line says that a merge has passed it is removed | it or not |
//! | the staging database is made anew, as long as every output file stands | a part of it: made anew |
//! | output files are ingested | in the database, under the old name, or both: which, the database says |
//! | internal records are copied | some of them: copied again |
//! | everything is synced, then the line that says so | as before, or complete |
//! | a tile is verified, then the line | the line or not |
//! | the seal: staging's marker | sealed, with `PROGRESS`: only Ready is missing |
//! | `PROGRESS` is removed | the same, without |

use super::record::{FileLine, Line, MergeLine, PROGRESS_BYTES_MAX, PROGRESS_FORMAT, PassLine, Position, Recorded};
use super::record::{Scan, SpillLine, TaskLine, TileLine, Tiles};
use super::tasks::Plan;
use crate::attachment;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs, remove_tree, write_atomic};
use crate::layout::{LOG_BACKUP, OUTPUT, OWNER, PROGRESS, ROCKSDB_CURRENT, TEMPORARY_SUFFIX, UNSHIPPED};
use crate::marker::{self, Marker};
use crate::place::decide::Staging;
use crate::place::journal::Journal;
use crate::place::{self, Place};
use crate::trap::trap;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What an interrupted conversion has left.
pub(super) enum Left {
    /// Staging is sealed.
    Sealed(Box<Marker>),
    /// A part is done.
    Part(Box<Part>),
}

/// The part that is done.
pub(super) struct Part {
    recorded: Recorded,
    /// The bytes that say so.
    lines: Vec<u8>,
    /// Tasks of which files are missing.
    forget: Vec<usize>,
}

/// Looks at what the conversion of this journal has left. `None`: nothing that can be gone on with.
///
/// # Errors
/// Any failure of a look. Nothing was changed.
pub(super) fn look(place: &Place, journal: &Journal) -> Result<Option<Left>> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    let staging = place::observe(vfs, layout)?.observed.staging;
    match staging {
        Staging::Absent | Staging::Foreign => return Ok(None),
        Staging::New if same_log(vfs, &layout.live, &layout.staging)? => {
            return Ok(marker::read(vfs, &layout.staging)?.map(|marker| Left::Sealed(Box::new(marker))));
        }
        Staging::New => return Ok(None),
        Staging::Partial if vfs.stat(&layout.staging.join(crate::layout::MARKER))?.is_some() => return Ok(None),
        Staging::Partial => {}
    }
    let path = layout.staging.join(PROGRESS);
    match vfs.stat(&path)? {
        Some(stat) if stat.kind == FileKind::File && stat.len <= PROGRESS_BYTES_MAX => {}
        _ => return Ok(None),
    }
    let bytes = vfs.read(&path, PROGRESS_BYTES_MAX)?;
    let Some((recorded, len)) = Recorded::read(&bytes, journal.id).filter(|(recorded, _)| recorded.plan.is_some())
    else {
        return Ok(None);
    };
    let lines = bytes[..len].to_vec();
    let Some(forget) = missing(vfs, &layout.staging, &recorded)? else { return Ok(None) };
    Ok(Some(Left::Part(Box::new(Part { recorded, lines, forget }))))
}

/// The tasks that have to be done again, since files of theirs are not there. `None`: nothing can be taken over.
fn missing(vfs: &dyn Vfs, staging: &Path, recorded: &Recorded) -> Result<Option<Vec<usize>>> {
    let folder = staging.join(OUTPUT);
    if recorded.built || recorded.is_rewritten() && vfs.stat(&staging.join(ROCKSDB_CURRENT))?.is_some() {
        // The database may have the files; it will say so.
        return Ok(Some(Vec::new()));
    }
    if recorded.merge_has_begun() {
        let whole = are_there(vfs, &folder, recorded.files(), &recorded.spills())?;
        return Ok(whole.then(Vec::new));
    }
    let mut forget = Vec::new();
    for (index, task) in &recorded.tasks {
        if !are_there(vfs, &folder, task.files.iter(), &task.spills)? {
            forget.push(*index);
        }
    }
    Ok(Some(forget))
}

fn are_there<'f>(
    vfs: &dyn Vfs,
    folder: &Path,
    files: impl Iterator<Item = &'f FileLine>,
    spills: &[SpillLine],
) -> Result<bool> {
    let files = files.map(|file| (&file.name, file.bytes));
    for (name, bytes) in files.chain(spills.iter().map(|spill| (&spill.name, spill.bytes))) {
        if !is_there(vfs, &folder.join(name), bytes)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a file stands there in this size.
pub(super) fn is_there(vfs: &dyn Vfs, path: &Path, bytes: u64) -> Result<bool> {
    Ok(vfs.stat(path)?.is_some_and(|stat| stat.kind == FileKind::File && stat.len == bytes))
}

/// Whether a sealed staging carries on the log of live as it is attached now.
fn same_log(vfs: &dyn Vfs, live: &Path, staging: &Path) -> Result<bool> {
    let (live, staging) = (attachment::read(vfs, live)?, attachment::read(vfs, staging)?);
    Ok(match (live, staging) {
        (None, None) => true,
        (Some(live), Some(staging)) => {
            live.archive == staging.archive && staging.parent.is_some_and(|parent| parent.timeline == live.timeline)
        }
        _ => false,
    })
}

/// Takes back a log that was handed over to staging, so that it can be handed over as it is now.
///
/// # Errors
/// A part of it may stand.
pub(super) fn take_log_back(vfs: &dyn Vfs, staging: &Path) -> Result<()> {
    let (links, attachment) = (staging.join(UNSHIPPED), staging.join(LOG_BACKUP));
    if vfs.stat(&links)?.is_some() || vfs.stat(&attachment)?.is_some() {
        remove_tree(vfs, &links)?;
        vfs.remove_file(&attachment)?;
        vfs.sync_dir(staging)?;
        trap!(vfs, LogTakenBack);
    }
    Ok(())
}

/// Removes what there is of a staging database, and nothing else of staging.
///
/// # Errors
/// A part of it may stand.
pub(super) fn remove_database(vfs: &dyn Vfs, staging: &Path) -> Result<()> {
    const OURS: [&str; 5] = [OWNER, PROGRESS, OUTPUT, UNSHIPPED, LOG_BACKUP];
    for name in vfs.list(staging)? {
        if !OURS.contains(&name.trim_end_matches(TEMPORARY_SUFFIX)) {
            remove_tree(vfs, &staging.join(name))?;
        }
    }
    trap!(vfs, StagingDatabaseRemoved);
    Ok(())
}

/// The writer of `PROGRESS`. Many threads may use it.
pub(super) struct Recorder<'p> {
    vfs: &'p dyn Vfs,
    staging: PathBuf,
    conversion: Uuid,
    recorded: Mutex<Recorded>,
    /// What was taken over.
    taken: Recorded,
}

impl<'p> Recorder<'p> {
    /// For a conversion that begins. Nothing is written before the plan.
    pub(super) fn new(vfs: &'p dyn Vfs, staging: &Path, conversion: Uuid) -> Self {
        let recorded = Mutex::default();
        Recorder { vfs, staging: staging.into(), conversion, recorded, taken: Recorded::default() }
    }

    /// For one that goes on with a part.
    ///
    /// # Errors
    /// `PROGRESS` is the old one or the new one, which say the same but for tasks that are forgotten.
    pub(super) fn go_on(vfs: &'p dyn Vfs, staging: &Path, conversion: Uuid, part: Part) -> Result<Self> {
        let mut recorder = Self::new(vfs, staging, conversion);
        trap!(vfs, ProgressReplaceBefore);
        recorder.write(&part.lines)?;
        trap!(vfs, ProgressReplaceAfter);
        recorder.recorded = Mutex::new(part.recorded);
        for task in part.forget {
            recorder.append(Line::Forget { task })?;
        }
        recorder.taken = recorder.recorded.lock().clone();
        Ok(recorder)
    }

    fn path(&self) -> PathBuf {
        self.staging.join(PROGRESS)
    }

    fn folder(&self) -> PathBuf {
        self.staging.join(OUTPUT)
    }

    fn write(&self, lines: &[u8]) -> Result<()> {
        let temporary = self.staging.join(format!("{PROGRESS}{TEMPORARY_SUFFIX}"));
        write_atomic(self.vfs, &self.path(), &temporary, lines)
    }

    /// What had been done when this attempt began.
    pub(super) fn taken(&self) -> &Recorded {
        &self.taken
    }

    /// The plan of the conversion: the one that was recorded, or `make`'s, which is recorded.
    pub(super) fn plan(&self, make: impl FnOnce() -> Result<Plan>) -> Result<Plan> {
        if let Some(plan) = &self.taken.plan {
            return Ok(plan.clone());
        }
        let plan = make()?;
        let begin = Line::Begin { format: PROGRESS_FORMAT, conversion: self.conversion };
        trap!(self.vfs, ProgressPlanBefore);
        self.write(&[begin.to_bytes(), Line::plan(&plan).to_bytes()].concat())?;
        trap!(self.vfs, ProgressPlanAfter);
        self.recorded.lock().plan = Some(plan.clone());
        Ok(plan)
    }

    /// The sequences of spill files that are to be merged, as things are now.
    pub(super) fn sequences(&self) -> BTreeMap<String, Vec<SpillLine>> {
        self.recorded.lock().sequences()
    }

    fn append(&self, line: Line) -> Result<()> {
        let bytes = line.to_bytes();
        // Held until the line is durable: the order of the lines is the order in which they count.
        let mut recorded = self.recorded.lock();
        recorded.add(line).ok_or_else(|| {
            let message = "a step that does not follow from those before it";
            Error::new(ErrorKind::Lost, "record the progress of a conversion", message).at(self.path())
        })?;
        trap!(self.vfs, ProgressLineBefore);
        self.vfs.append(&self.path(), &bytes)?;
        trap!(self.vfs, ProgressLineAppended);
        self.vfs.sync_file(&self.path())?;
        trap!(self.vfs, ProgressLineAfter);
        Ok(())
    }

    /// Makes files of the output folder durable, with their names.
    fn sync<'n>(&self, names: impl Iterator<Item = &'n String>) -> Result<()> {
        let folder = self.folder();
        for name in names {
            self.vfs.sync_file(&folder.join(name))?;
        }
        self.vfs.sync_dir(&folder)
    }

    /// A task ended.
    pub(super) fn task(&self, task: TaskLine) -> Result<()> {
        self.sync(task.files.iter().map(|file| &file.name).chain(task.spills.iter().map(|spill| &spill.name)))?;
        self.append(Line::Task(task))
    }

    /// A pass has come so far.
    pub(super) fn pass(&self, pass: PassLine) -> Result<()> {
        self.sync(std::iter::once(&pass.segment.name))?;
        self.append(Line::Pass(pass))
    }

    /// The last merge has come so far.
    pub(super) fn merge(&self, merge: MergeLine) -> Result<()> {
        self.sync(merge.disjoint.iter().chain(&merge.overflow).map(|file| &file.name))?;
        self.append(Line::Merge(merge))
    }

    /// The staging database is complete and durable.
    pub(super) fn built(&self) -> Result<()> {
        self.append(Line::Built {})
    }

    /// How a scan is divided, and what of it was read: as it was recorded, or as `make` says, which is recorded.
    pub(super) fn scan(&self, of: Scan, make: impl FnOnce() -> Result<Vec<Vec<u8>>>) -> Result<Tiles> {
        if let Some(tiles) = self.taken.scans.get(&of) {
            return Ok(tiles.clone());
        }
        let cuts = make()?;
        // A scan of one tile has nothing to go on with.
        if !cuts.is_empty() {
            let cuts = cuts.iter().cloned().map(super::record::Hex).collect();
            self.append(Line::Scan { of, cuts })?;
        }
        Ok(Tiles { cuts, ..Tiles::default() })
    }

    /// A tile was read.
    pub(super) fn tile(&self, tile: TileLine) -> Result<()> {
        let divided = self.recorded.lock().scans.contains_key(&tile.of);
        if divided { self.append(Line::Tile(tile)) } else { Ok(()) }
    }

    /// Removes what no line speaks of from the output folder, which is made if need be.
    pub(super) fn clear_folder(&self) -> Result<()> {
        let folder = self.folder();
        if self.vfs.stat(&folder)?.is_none() {
            return self.vfs.make_dir(&folder);
        }
        let spills = self.taken.spills();
        let named: BTreeSet<&str> = self
            .taken
            .files()
            .map(|file| file.name.as_str())
            .chain(spills.iter().map(|spill| spill.name.as_str()))
            .collect();
        for name in self.vfs.list(&folder)? {
            if !named.contains(name.as_str()) {
                remove_tree(self.vfs, &folder.join(name))?;
            }
        }
        trap!(self.vfs, OutputCleared);
        Ok(())
    }
}

/// What of a merge's inputs is where.
pub(super) fn position(key: &[u8], offsets: Vec<u64>) -> Position {
    Position { key: super::record::Hex(key.to_vec()), offsets }
}
