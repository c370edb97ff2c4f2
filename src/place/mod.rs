//! What happens to a database *place* (the live directory and its siblings), whatever the cause.
//!
//! Invariants, for every change (create, convert, install, rollback, destroy) and at every instant of it:
//! 1. all keys are in live or, when live is absent, in the one directory that the journal and the markers single out;
//! 2. a journal stands from before the first effect until after the last, and nothing is moved or removed without one;
//! 3. nothing is removed before the parent directory holds, durably, the state in which it is not needed;
//! 4. a directory leaves its name by a rename onto a free name, never by being emptied in place;
//! 5. a handle is given out only when the journal says, durably, that the place is settled;
//! 6. whatever is not positively ours is left as it is.
//!
//! One way of doing it, whether the change began a moment ago or before a crash: look ([`observe`]), decide
//! ([`decide`], a pure table), do one step (`apply`), and again until the place is at rest.

mod apply;
mod change;
pub mod decide;
mod destroy;
pub mod journal;
#[cfg(test)]
mod model;
mod observe;
mod refuse;
pub mod restore_phase;
mod rollback;
mod sweep;

pub use change::{
    Built, NewDatabase, abandon, building, create, drop_staging_quietly, finish, ready, start, sync_staging,
};
pub use destroy::destroy;
use observe::observe_under;
pub use observe::{Sight, check_identity, observe, read_identity};
pub use refuse::refusal;
pub use rollback::{drop_backup, kept_journal, require_kept, rollback, writes_since_seal};

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs};
use crate::layout::{Layout, ROCKSDB_LOCK};
use crate::lock::{PlaceLock, RocksLock};
use crate::marker::Marker;
use crate::rocks::{Database, Settings};
use crate::trap::trap;
use decide::{Action, Change, Live};
use journal::Journal;
use std::path::Path;
use std::sync::Arc;

/// A locked database place.
#[derive(Debug)]
pub struct Place {
    /// The file operations.
    pub vfs: Arc<dyn Vfs>,
    /// The names.
    pub layout: Layout,
    // Dropped in this order: none of us opens live while RocksDB's lock is given back.
    rocks_lock: Option<RocksLock>,
    lock: PlaceLock,
    notes: Vec<String>,
    /// Held by a restore: its own folder is nothing strange to it.
    restores: bool,
}

/// A place at rest.
#[derive(Debug)]
pub enum Rest {
    /// There is no database.
    Absent,
    /// Live is whole. `None`: a legacy database, which has no marker.
    Open {
        /// Its marker.
        marker: Option<Marker>,
        /// A change whose leftovers are to be swept once live is open: give it to [`Place::sweep`].
        leftover: Option<Journal>,
    },
    /// Live is whole, and an interrupted change has left an unsealed staging directory.
    Building {
        /// Live's marker.
        marker: Option<Marker>,
        /// The interrupted change.
        journal: Journal,
    },
}

/// More steps than any way through the table has.
const STEPS_MAX: usize = 32;

impl Place {
    /// Locks the place at `path`. Nothing is looked at before.
    ///
    /// # Errors
    /// `InvalidArgument` (the name), `NotFound` (the parent), `Locked`. At most an empty lock file was made.
    pub fn lock(vfs: Arc<dyn Vfs>, path: &Path) -> Result<Self> {
        let layout = Layout::new(path)?;
        journal::require_parent(&*vfs, &layout)?;
        let lock = PlaceLock::acquire(&*vfs, &layout)?;
        trap!(vfs, LockTaken);
        Ok(Place { vfs, layout, lock, rocks_lock: None, notes: Vec::new(), restores: false })
    }

    /// The same place, for a restore whose folder stands beside it.
    #[cfg(feature = "log-backup")]
    #[must_use]
    pub fn of_restore(self) -> Self {
        Place { restores: true, ..self }
    }

    fn sight(&self) -> Result<Sight> {
        let mut sight = observe(&*self.vfs, &self.layout)?;
        sight.observed.restore &= !self.restores;
        Ok(sight)
    }

    /// Looks, decides and acts until the place is at rest.
    ///
    /// # Errors
    /// `Refused` with advice when the table has no action, the place untouched; any failure of a step, after which the
    /// place is in a state of the table and the next call goes on.
    pub fn settle(&mut self) -> Result<Rest> {
        for _ in 0..STEPS_MAX {
            let sight = self.sight()?;
            let (row, action) = decide::decide(&sight.observed);
            tracing::debug!(row, ?action, path = %self.layout.live.display(), "recovery step");
            if action != Action::Refuse {
                self.clear_temporary_journal()?;
            }
            match action {
                Action::Refuse => return Err(refusal(&self.layout, row, &sight)),
                Action::Absent => return Ok(Rest::Absent),
                Action::Open => {
                    self.warn_of_siblings(&sight);
                    return Ok(Rest::Open { marker: sight.marker, leftover: None });
                }
                Action::OpenThenSweep | Action::OpenThenSweepRollback => {
                    return Ok(Rest::Open { marker: sight.marker, leftover: sight.journal });
                }
                Action::Keep => {
                    let journal = sight.journal.ok_or_else(|| refusal_without_journal(&self.layout))?;
                    return Ok(Rest::Building { marker: sight.marker, journal });
                }
                step => {
                    apply::apply(self, &sight, step)?;
                    self.note(step_name(step));
                }
            }
        }
        let message = format!("the place is not at rest after {STEPS_MAX} steps; nothing was lost");
        Err(Error::new(ErrorKind::Refused, "recover the database", message).at(&self.layout.live))
    }

    /// A journal that was never renamed says nothing; it is the one name that may go without a journal.
    fn clear_temporary_journal(&self) -> Result<()> {
        let temporary = &self.layout.journal_temporary;
        match self.vfs.stat(temporary)?.map(|stat| stat.kind) {
            Some(FileKind::File) => self.vfs.remove_file(temporary),
            _ => Ok(()),
        }
    }

    /// Looks and decides, and acts not at all: for commands that only read. Live is read where it is whole, whatever an
    /// interrupted change has yet to do: a disk may be too full to do it, and what is there must be seen all the same.
    ///
    /// # Errors
    /// `Refused` if live is not whole as it stands, or is being destroyed; `NotFound` if there is none.
    pub fn look(&mut self) -> Result<Option<Marker>> {
        let sight = observe(&*self.vfs, &self.layout)?;
        let (_, action) = decide::decide(&sight.observed);
        let whole = matches!(sight.observed.live, Live::Source | Live::SourceChanged | Live::New);
        if whole && !matches!(action, Action::Refuse | Action::Destroy) {
            return Ok(sight.marker);
        }
        self.judge(sight)
    }

    /// As [`Place::look`], for commands that tell what a change would do: an interrupted one has to be finished first,
    /// unless it will come to nothing.
    ///
    /// # Errors
    /// As [`Place::look`]; `Refused` while an interrupted change is to be finished.
    pub fn look_before_change(&mut self) -> Result<Option<Marker>> {
        let sight = observe(&*self.vfs, &self.layout)?;
        self.judge(sight)
    }

    fn judge(&self, sight: Sight) -> Result<Option<Marker>> {
        let (row, action) = decide::decide(&sight.observed);
        let whole_under_journal = matches!((row, action), (7, Action::Drop) | (24, _) | (25, _));
        match action {
            Action::Refuse => Err(refusal(&self.layout, row, &sight)),
            Action::Absent => Err(absent(&self.layout)),
            Action::Open | Action::Keep | Action::OpenThenSweep | Action::OpenThenSweepRollback => Ok(sight.marker),
            _ if whole_under_journal => Ok(sight.marker),
            Action::Drop if row == 8 || row == 17 => Err(absent(&self.layout)),
            _ => {
                Err(Error::new(ErrorKind::Refused, "read the database", "an interrupted change must be finished first")
                    .at(&self.layout.live)
                    .next(format!("morphkv recover {}", self.layout.live.display())))
            }
        }
    }

    /// Refuses a change while siblings stand that no journal speaks of, since they are somebody's.
    ///
    /// # Errors
    /// `Conflict` naming them. Nothing was changed.
    pub fn require_no_strangers(&self, step: &'static str) -> Result<()> {
        let sight = self.sight()?;
        let names = strangers(&self.layout, &sight);
        if names.is_empty() {
            return Ok(());
        }
        let message =
            format!("something that is not ours stands beside the database: {}; move it away", names.join(", "));
        Err(Error::new(ErrorKind::Conflict, step, message).at(&self.layout.live))
    }

    fn warn_of_siblings(&self, sight: &Sight) {
        let names = strangers(&self.layout, sight);
        if !names.is_empty() {
            self.warn(&format!("left alone, since no journal speaks of it: {}", names.join(", ")));
        }
    }

    fn warn(&self, warning: &str) {
        tracing::warn!(path = %self.layout.live.display(), "{warning}");
    }

    /// Takes RocksDB's own lock on live, unless it is held.
    ///
    /// # Errors
    /// `Locked`: another process has live open with RocksDB.
    pub fn lock_rocks(&mut self) -> Result<()> {
        if self.rocks_lock.is_none() {
            self.rocks_lock = Some(RocksLock::acquire(&self.layout.live)?);
        }
        Ok(())
    }

    /// Opens live for reading alone, and keeps RocksDB from opening it for writing meanwhile: whoever reads while RocksDB
    /// begins to write may find neither the WAL that was there nor the files that it became, and no error.
    ///
    /// # Errors
    /// `Locked`: another process, or this one, has live open with RocksDB, or had just now. As [`Database::open_read_only`].
    pub fn open_to_read(&mut self, settings: &Settings) -> Result<Database> {
        let lock = RocksLock::to_read(&self.layout.live)?;
        let database = Database::open_read_only(&*self.vfs, &self.layout.live, settings)?;
        // RocksDB makes its lock file before it touches anything.
        if lock.is_none() && self.vfs.stat(&self.layout.live.join(ROCKSDB_LOCK))?.is_some() {
            let message = "it was opened with RocksDB meanwhile";
            return Err(Error::new(ErrorKind::Locked, "read the database", message).at(&self.layout.live));
        }
        self.rocks_lock = lock;
        Ok(database)
    }

    /// Works with RocksDB's own lock on live.
    ///
    /// # Errors
    /// As [`Place::lock_rocks`]; those of the work.
    pub fn with_rocks_locked<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let held = self.rocks_lock.is_some();
        self.lock_rocks()?;
        let worked = work();
        if !held {
            self.unlock_rocks();
        }
        worked
    }

    /// Gives RocksDB's own lock back, so that RocksDB itself can take it.
    pub fn unlock_rocks(&mut self) {
        self.rocks_lock = None;
    }

    /// Notes what was done, for the report of a recovery.
    pub fn note(&mut self, done: &str) {
        self.notes.push(done.to_owned());
    }

    /// What was done since the place was locked, in order.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// The parts that an engine keeps.
    pub fn into_parts(self) -> (Arc<dyn Vfs>, Layout, PlaceLock, Option<RocksLock>) {
        (self.vfs, self.layout, self.lock, self.rocks_lock)
    }
}

fn step_name(step: Action) -> &'static str {
    match step {
        Action::Drop => "remove the unfinished staging directory",
        Action::DiscardOlder => "remove the database that was kept before",
        Action::LiveToBackup => "move live to the backup directory",
        Action::StagingToLive => "move staging to live",
        Action::BackupToLive => "put the old database back from the backup directory",
        Action::LiveToStaging => "move live out of the way",
        Action::Settle => "settle the finished swap",
        Action::KeepAfterAll => "give the rollback up",
        Action::RollbackDone => "settle the rollback",
        Action::DropJournal => "drop the journal of a kept database that is gone",
        Action::Destroy => "finish the destruction",
        _ => "look",
    }
}

fn absent(layout: &Layout) -> Error {
    Error::new(ErrorKind::NotFound, "open the database", "there is none")
        .at(&layout.live)
        .next(format!("morphkv create {} --encoding natural", layout.live.display()))
}

fn refusal_without_journal(layout: &Layout) -> Error {
    Error::new(ErrorKind::Refused, "recover the database", "the journal vanished while it was read").at(&layout.live)
}

/// The siblings that no journal speaks of.
fn strangers(layout: &Layout, sight: &Sight) -> Vec<String> {
    use decide::{Backup, Staging};
    let seen = &sight.observed;
    // While an old database is kept nothing is being built or swept: what stands at those names is somebody's.
    let at_rest = matches!(seen.change, Change::None | Change::Of { phase: journal::Phase::Kept, .. });
    [
        (seen.staging == Staging::Foreign, &layout.staging),
        (matches!(seen.backup, Backup::Foreign | Backup::SourceChanged), &layout.backup_dir),
        (seen.trash && at_rest, &layout.trash),
        (seen.restore, &layout.restore),
    ]
    .into_iter()
    .filter(|(stands, _)| *stands)
    .map(|(_, path)| path.display().to_string())
    .collect()
}
