//! One step of the recovery table, done.
//!
//! Order of effects: a rename, the sync of the parent, then the next look. After an `Err` the place is before or after
//! the step, and both are states of the table.

use super::decide::Action;
use super::journal::{self, Journal, Kind, Phase};
use super::observe::Sight;
use super::{Place, destroy, refusal_without_journal, sweep};
use crate::error::{ErrorKind, Result};
use crate::fs::FileKind;
use crate::layout::is_left_by_a_failed_open;
use crate::lock::RocksLock;
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

/// An empty directory at live's name counts as absent, and so does one where other software looked for a database in
/// vain. It goes by `rmdir`, which cannot remove anything else.
fn clear_empty_live(place: &Place) -> Result<()> {
    let (vfs, live) = (&*place.vfs, &place.layout.live);
    if !vfs.stat(live)?.is_some_and(|stat| stat.kind == FileKind::Directory) {
        return Ok(());
    }
    let names = vfs.list(live)?;
    if !names.iter().all(|name| is_left_by_a_failed_open(name)) {
        return Ok(());
    }
    // Held, nobody is just making a database there.
    let _lock = (!names.is_empty()).then(|| RocksLock::acquire(live)).transpose()?;
    for name in vfs.list(live)?.iter().filter(|name| is_left_by_a_failed_open(name)) {
        vfs.remove_file(&live.join(name))?;
    }
    match vfs.remove_dir(live) {
        // Somebody looks for a database there once more: the next look at the place decides.
        Err(_) if vfs.stat(live)?.is_some() && !vfs.list(live)?.is_empty() => Ok(()),
        removed => removed,
    }
}

/// Moves a directory to live. Where something has come to stand there since the look, nothing moves, and the next look
/// decides. Whether it was moved.
fn rename_to_live(place: &Place, from: &Path) -> Result<bool> {
    clear_empty_live(place)?;
    match rename(place, from, &place.layout.live) {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        renamed => renamed.map(|()| true),
    }
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
    if !rename_to_live(place, &place.layout.staging)? {
        return Ok(());
    }
    trap!(place.vfs, StagingToLiveMoved);
    sync_parent(place)?;
    // The swap is durable: whoever held the old directory open may have it.
    place.unlock_rocks();
    trap!(place.vfs, StagingToLiveAfter);
    Ok(())
}

fn backup_to_live(place: &mut Place) -> Result<()> {
    trap!(place.vfs, BackupToLiveBefore);
    if !rename_to_live(place, &place.layout.backup_dir)? {
        return Ok(());
    }
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
