//! Bringing the kept old database back, and dropping it.
//!
//! | effect of a rollback | after a crash here the table says |
//! |---|---|
//! | journal Ready rollback | 27: goes on (31: given up if the old database is no longer whole) |
//! | live -> staging, synced | 28 |
//! | backup directory -> live, synced | 30 |
//! | journal Done | 32: open, then sweep |
//! | staging removed, journal dropped | 3 |

use super::decide::{Action, Live, decide};
use super::journal::{self, Journal, JournalState, Kind, Phase};
use super::{Place, Rest, observe_under, refusal};
use crate::error::{Error, ErrorKind, Result};
use crate::rocks::Settings;
use crate::trap::trap;

fn kept(place: &Place, step: &'static str) -> Result<Journal> {
    let none = |place: &Place| Error::new(ErrorKind::NotFound, step, "no old database is kept").at(&place.layout.live);
    let journal = match journal::read(&*place.vfs, &place.layout)? {
        JournalState::Read(journal) => journal,
        JournalState::None => return Err(none(place)),
        JournalState::Unreadable(why) => {
            let message = format!("the journal cannot be read: {why}; nothing was touched");
            return Err(Error::new(ErrorKind::Refused, step, message).at(&place.layout.journal));
        }
    };
    if journal.phase == Phase::Kept { Ok(*journal) } else { Err(none(place)) }
}

/// Makes sure that an old database is kept.
///
/// # Errors
/// `NotFound` if none is; `Refused` if the journal cannot be read. Nothing was changed.
pub fn require_kept(place: &Place) -> Result<()> {
    kept(place, "look for the kept database").map(drop)
}

/// The sequence numbers that live has used since it was sealed: the writes that a rollback loses.
///
/// # Errors
/// `Corrupt` if live is too damaged to tell, `Io`; nothing was changed.
pub fn writes_since_seal(place: &mut Place, settings: &Settings) -> Result<u64> {
    let Some(marker) = crate::marker::read(&*place.vfs, &place.layout.live)? else {
        let message = "live has no marker, so nobody can tell what was written to it";
        return Err(Error::new(ErrorKind::Corrupt, "count the writes", message).at(&place.layout.live));
    };
    let last_sequence = place.open_to_read(settings)?.last_sequence();
    place.unlock_rocks();
    Ok(last_sequence.saturating_sub(marker.sealed_sequence))
}

/// Puts the kept old database back in live's place; what was written since the conversion goes.
///
/// # Errors
/// `NotFound` if none is kept; `Refused` if it was changed since. Once begun, the next open goes on.
pub fn rollback(place: &mut Place) -> Result<Rest> {
    let step = "roll back";
    let mut journal = kept(place, step)?;
    place.require_no_strangers(step)?;
    journal.kind = Kind::Rollback;
    journal.phase = Phase::Ready;
    // Written only if the table will carry it through: a rollback that was refused must not happen later.
    let sight = observe_under(&*place.vfs, &place.layout, JournalState::Read(Box::new(journal.clone())))?;
    match decide(&sight.observed) {
        (_, Action::LiveToStaging | Action::BackupToLive) => {}
        (_, Action::KeepAfterAll) => {
            let message =
                "the old database in the backup directory is not as the conversion left it; nothing was touched";
            return Err(Error::new(ErrorKind::Refused, step, message).at(&place.layout.backup_dir));
        }
        (row, _) => return Err(refusal(&place.layout, row, &sight)),
    }
    if sight.observed.live != Live::Absent {
        place.lock_rocks()?;
    }
    trap!(place.vfs, RollbackBefore);
    journal::write(&*place.vfs, &place.layout, &journal)?;
    trap!(place.vfs, RollbackAfter);
    let rest = place.settle();
    place.unlock_rocks();
    rest
}

/// The journal of the kept old database, if one is kept.
///
/// # Errors
/// `Refused` if the journal cannot be read. Nothing was changed.
pub fn kept_journal(place: &Place) -> Result<Option<Journal>> {
    match kept(place, "look for the kept database") {
        Ok(journal) => Ok(Some(journal)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the kept old database.
///
/// # Errors
/// `NotFound` if none is kept; `Conflict` if what stands in its place is not what was kept. Once begun, the next open
/// goes on.
pub fn drop_backup(place: &mut Place) -> Result<()> {
    let step = "drop the kept database";
    let journal = kept(place, step)?;
    place.require_no_strangers(step)?;
    match place.settle()? {
        Rest::Open { .. } => {}
        _ => return Err(Error::new(ErrorKind::Refused, step, "live is not whole").at(&place.layout.live)),
    }
    if matches!(journal::read(&*place.vfs, &place.layout)?, JournalState::None) {
        return Ok(()); // The backup directory was gone already, and settling has noticed.
    }
    let done = journal.in_phase(Phase::Done);
    trap!(place.vfs, JournalSettledBefore);
    journal::write(&*place.vfs, &place.layout, &done)?;
    trap!(place.vfs, JournalSettledAfter);
    match place.settle()? {
        Rest::Open { leftover: Some(leftover), .. } => place.try_sweep(&leftover),
        _ => Ok(()),
    }
}
