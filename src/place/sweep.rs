//! Removing what a change has left, under its journal.
//!
//! Order: a directory is first moved to the trash name and that made durable, then removed, so that no other name ever
//! holds half a database; the journal goes last.

use super::decide::{Backup, Live, Staging};
use super::journal::{self, Journal, Kind, Phase};
use super::{Place, observe};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::remove_tree;
use crate::trap::trap;
use std::path::Path;

/// Moves a directory to trash, durably, and removes it, durably.
///
/// # Errors
/// It stands under its own name or, whole or in part, as trash.
pub(super) fn discard(place: &Place, path: &Path) -> Result<()> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    remove_tree(vfs, &layout.trash)?;
    if vfs.stat(path)?.is_some() {
        trap!(vfs, ToTrashBefore);
        vfs.rename_no_replace(path, &layout.trash)?;
        trap!(vfs, ToTrashMoved);
        vfs.sync_dir(&layout.parent)?;
        trap!(vfs, ToTrashAfter);
        remove_tree(vfs, &layout.trash)?;
    }
    trap!(vfs, TrashRemoved);
    vfs.sync_dir(&layout.parent)
}

/// Removes the journal, the last effect of every change.
///
/// # Errors
/// It stands or not.
pub(super) fn drop_journal(place: &Place) -> Result<()> {
    trap!(place.vfs, JournalDropBefore);
    journal::remove(&*place.vfs, &place.layout)?;
    trap!(place.vfs, JournalDropAfter);
    Ok(())
}

/// DROP of the table: staging goes, and the journal, or the one that stood before comes back.
///
/// # Errors
/// A state of the same row, or the state before the change.
pub(super) fn drop_staging(place: &Place, journal: &Journal) -> Result<()> {
    discard(place, &place.layout.staging)?;
    end_change(place, journal)
}

/// The last effect of a change that came to nothing.
///
/// # Errors
/// The journal stands, or what stood before it.
pub(super) fn end_change(place: &Place, journal: &Journal) -> Result<()> {
    match &journal.older {
        Some(older) => journal::write(&*place.vfs, &place.layout, older),
        None => drop_journal(place),
    }
}

impl Place {
    /// Sweeps what a finished change has left, once live is open. Never fails: what could not be removed is told as a
    /// warning, and the journal stays for the next open.
    pub fn sweep(&mut self, leftover: &Journal) {
        if let Err(error) = self.try_sweep(leftover) {
            self.warn(&format!("what an earlier change left could not be removed yet: {error}"));
        }
    }

    /// As [`Place::sweep`], for callers that came to sweep.
    ///
    /// # Errors
    /// What is left is told by the journal, which stands.
    pub fn try_sweep(&mut self, leftover: &Journal) -> Result<()> {
        trap!(self.vfs, SweepBefore);
        let sight = observe(&*self.vfs, &self.layout)?;
        let seen = sight.observed;
        if sight.journal.as_ref() != Some(leftover) || leftover.phase != Phase::Done {
            let message = "the journal is not the one that was to be swept";
            return Err(Error::new(ErrorKind::Refused, "sweep", message).at(&self.layout.journal));
        }
        let settled = match leftover.kind {
            Kind::Rollback => matches!(seen.live, Live::Source | Live::SourceChanged),
            _ => seen.live == Live::New,
        };
        if !settled {
            return Err(
                Error::new(ErrorKind::Refused, "sweep", "live is not the settled database").at(&self.layout.live)
            );
        }
        match seen.backup {
            Backup::Source if leftover.kind != Kind::Rollback => discard(self, &self.layout.backup_dir)?,
            Backup::Absent => {}
            _ => self.warn(&format!("{} is not ours any more and was left alone", self.layout.backup_dir.display())),
        }
        match seen.staging {
            Staging::New | Staging::Partial | Staging::Absent => discard(self, &self.layout.staging)?,
            Staging::Foreign => {
                self.warn(&format!("{} is not ours and was left alone", self.layout.staging.display()));
            }
        }
        drop_journal(self)
    }
}
