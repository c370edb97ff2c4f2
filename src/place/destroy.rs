//! Removing a database with all its siblings, live last.
//!
//! | effect | after a crash here |
//! |---|---|
//! | journal destroy | row 34: goes on |
//! | staging, backup directory, live: each to trash, removed | row 34: goes on |
//! | journal dropped | there is no database |

use super::journal::{self, Journal, Kind, Phase};
use super::{Place, Rest, sweep};
use crate::error::Result;
use crate::trap::trap;
use uuid::Uuid;

/// Destroys the database of a place. Says whether there was one.
///
/// # Errors
/// `Conflict` while something that is not ours stands beside it; `Refused` in states that are not ours to judge. Once
/// begun, the destruction goes on at the next open of the place.
pub fn destroy(place: &mut Place) -> Result<bool> {
    match place.settle()? {
        Rest::Absent => return Ok(false),
        Rest::Open { leftover: Some(journal), .. } => place.try_sweep(&journal)?,
        Rest::Open { .. } | Rest::Building { .. } => {}
    }
    place.require_no_strangers("destroy the database")?;
    place.lock_rocks()?;
    let journal = Journal::begin(Kind::Destroy, Uuid::new_v4()).in_phase(Phase::Ready);
    trap!(place.vfs, DestroyBefore);
    journal::write(&*place.vfs, &place.layout, &journal)?;
    trap!(place.vfs, DestroyAfter);
    let destroyed = place.settle();
    place.unlock_rocks();
    destroyed.map(|_| true)
}

/// Row 34.
///
/// # Errors
/// Some of it is gone; the journal stands.
pub(super) fn go_on(place: &Place) -> Result<()> {
    let layout = &place.layout;
    for path in [&layout.staging, &layout.backup_dir, &layout.live] {
        sweep::discard(place, path)?;
    }
    sweep::drop_journal(place)
}
