//! Bringing the kept old database back, and dropping it.
//!
//! | effect of a rollback | after a crash here the table says |
//! |---|---|
//! | journal Ready rollback | 27: goes on (31: given up if the old database is no longer whole) |
//! | live -> staging, synced | 28 |
//! | backup directory -> live, synced | 30 |
//! | journal Done | 32: open, then sweep |
//! | staging removed, journal dropped | 3 |

use super::journal::{self, Journal, Kind, Phase};
use super::{Place, Rest, observe};
use crate::error::{Error, ErrorKind, Result};
use crate::rocks::{Database, Settings};
use crate::trap::trap;

fn kept(place: &Place, step: &'static str) -> Result<Journal> {
    let none = |place: &Place| Error::new(ErrorKind::NotFound, step, "no old database is kept").at(&place.layout.live);
    let journal = match journal::read(&*place.vfs, &place.layout)? {
        journal::JournalState::Read(journal) => journal,
        journal::JournalState::None => return Err(none(place)),
        journal::JournalState::Unreadable(why) => {
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
/// `Corrupt`, `Io`; nothing was changed.
pub fn writes_since_seal(place: &Place, settings: &Settings) -> Result<u64> {
    let vfs = &*place.vfs;
    let Some(marker) = crate::marker::read(vfs, &place.layout.live)? else { return Ok(0) };
    let database = Database::open_read_only(vfs, &place.layout.live, settings)?;
    Ok(database.last_sequence().saturating_sub(marker.sealed_sequence))
}

/// Puts the kept old database back in live's place; what was written since the conversion goes.
///
/// # Errors
/// `NotFound` if none is kept; `Refused` if it was changed since. Once begun, the next open goes on.
pub fn rollback(place: &mut Place) -> Result<Rest> {
    let step = "roll back";
    let mut journal = kept(place, step)?;
    let sight = observe(&*place.vfs, &place.layout)?;
    if sight.observed.backup != super::decide::Backup::Source {
        let message = "the old database in the backup directory is not as the conversion left it; nothing was touched";
        return Err(Error::new(ErrorKind::Refused, step, message).at(&place.layout.backup_dir));
    }
    if sight.observed.staging != super::decide::Staging::Absent || sight.observed.trash {
        let message = "something stands at the name of the staging directory or the trash; move it away";
        return Err(Error::new(ErrorKind::Conflict, step, message).at(&place.layout.staging));
    }
    if sight.observed.live == super::decide::Live::New {
        place.lock_rocks()?;
    }
    journal.kind = Kind::Rollback;
    journal.phase = Phase::Ready;
    trap!(place.vfs, RollbackBefore);
    journal::write(&*place.vfs, &place.layout, &journal)?;
    trap!(place.vfs, RollbackAfter);
    let rest = place.settle();
    place.unlock_rocks();
    rest
}

/// Removes the kept old database.
///
/// # Errors
/// `NotFound` if none is kept. Once begun, the next open goes on.
pub fn drop_backup(place: &mut Place) -> Result<()> {
    let journal = kept(place, "drop the kept database")?;
    match place.settle()? {
        Rest::Open { .. } => {}
        _ => {
            return Err(
                Error::new(ErrorKind::Refused, "drop the kept database", "live is not whole").at(&place.layout.live)
            );
        }
    }
    if matches!(journal::read(&*place.vfs, &place.layout)?, journal::JournalState::None) {
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
