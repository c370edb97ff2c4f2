//! One step of the recovery table, done.
//!
//! Order of effects: a rename, the sync of the parent, then the next look. After an `Err` the place is before or after
//! the step, and both are states of the table.

use super::decide::Action;
use super::journal::{self, Journal, Kind, Phase};
use super::observe::Sight;
use super::{Place, destroy, refusal_without_journal, sweep};
use crate::error::Result;
use crate::trap::trap;
use std::path::Path;

/// Does the step.
///
/// # Errors
/// The step is done, half durable, or not done; a repeated look tells which.
pub(super) fn apply(place: &mut Place, sight: &Sight, step: Action) -> Result<()> {
    let journal = sight.journal.as_ref().ok_or_else(|| refusal_without_journal(&place.layout))?;
    match step {
        Action::Drop => {
            clear_empty_live(place)?;
            sweep::drop_staging(place, journal)
        }
        Action::DiscardOlder => sweep::discard(place, &place.layout.backup_dir),
        Action::LiveToBackup => live_to_backup(place),
        Action::StagingToLive => staging_to_live(place),
        Action::BackupToLive => backup_to_live(place),
        Action::LiveToStaging => live_to_staging(place),
        Action::Settle => settle(place, journal),
        Action::KeepAfterAll => {
            let kept = Journal { kind: Kind::Convert, keep: true, ..journal.in_phase(Phase::Kept) };
            write_settled(place, &kept)
        }
        Action::RollbackDone => write_settled(place, &journal.in_phase(Phase::Done)),
        Action::DropJournal => sweep::drop_journal(place),
        Action::Destroy => destroy::go_on(place),
        Action::Refuse
        | Action::Absent
        | Action::Open
        | Action::Keep
        | Action::OpenThenSweep
        | Action::OpenThenSweepRollback => Ok(()),
    }
}

/// An empty directory at live's name counts as absent; it goes by `rmdir`, which cannot remove anything else.
fn clear_empty_live(place: &Place) -> Result<()> {
    let stands = place.vfs.stat(&place.layout.live)?.is_some_and(|stat| stat.kind == crate::fs::FileKind::Directory);
    if stands && place.vfs.list(&place.layout.live)?.is_empty() {
        place.vfs.remove_dir(&place.layout.live)?;
    }
    Ok(())
}

fn rename(place: &Place, from: &Path, to: &Path) -> Result<()> {
    place.vfs.rename_no_replace(from, to)
}

fn sync_parent(place: &Place) -> Result<()> {
    place.vfs.sync_dir(&place.layout.parent)
}

fn live_to_backup(place: &mut Place) -> Result<()> {
    trap!(place.vfs, LiveToBackupBefore);
    place.lock_rocks()?;
    rename(place, &place.layout.live, &place.layout.backup_dir)?;
    trap!(place.vfs, LiveToBackupMoved);
    sync_parent(place)?;
    trap!(place.vfs, LiveToBackupAfter);
    Ok(())
}

fn staging_to_live(place: &mut Place) -> Result<()> {
    trap!(place.vfs, StagingToLiveBefore);
    clear_empty_live(place)?;
    rename(place, &place.layout.staging, &place.layout.live)?;
    trap!(place.vfs, StagingToLiveMoved);
    sync_parent(place)?;
    // The swap is durable: whoever held the old directory open may have it.
    place.unlock_rocks();
    trap!(place.vfs, StagingToLiveAfter);
    Ok(())
}

fn backup_to_live(place: &mut Place) -> Result<()> {
    trap!(place.vfs, BackupToLiveBefore);
    clear_empty_live(place)?;
    rename(place, &place.layout.backup_dir, &place.layout.live)?;
    trap!(place.vfs, BackupToLiveMoved);
    sync_parent(place)?;
    place.unlock_rocks();
    trap!(place.vfs, BackupToLiveAfter);
    Ok(())
}

fn live_to_staging(place: &mut Place) -> Result<()> {
    trap!(place.vfs, LiveToStagingBefore);
    place.lock_rocks()?;
    rename(place, &place.layout.live, &place.layout.staging)?;
    trap!(place.vfs, LiveToStagingMoved);
    sync_parent(place)?;
    trap!(place.vfs, LiveToStagingAfter);
    Ok(())
}

/// The new database is live, opened and checked by the look that led here.
fn settle(place: &mut Place, journal: &Journal) -> Result<()> {
    place.unlock_rocks();
    if !journal.keep {
        return write_settled(place, &journal.in_phase(Phase::Done));
    }
    // Under Kept nothing is known any more of a staging directory, nor of trash (a kept one that gave way may lie there).
    sweep::discard(place, &place.layout.staging)?;
    write_settled(place, &journal.in_phase(Phase::Kept))
}

fn write_settled(place: &Place, journal: &Journal) -> Result<()> {
    trap!(place.vfs, JournalSettledBefore);
    // What was kept before is gone, or is nothing to this change any more.
    let settled = Journal { older: None, ..journal.clone() };
    journal::write(&*place.vfs, &place.layout, &settled)?;
    trap!(place.vfs, JournalSettledAfter);
    Ok(())
}
