//! The common course of every change that builds a new directory: journal Building, staging with its owner file, the
//! build, sync, seal, journal Ready. From there on [`Place::settle`] does the rest, as it would after a crash.
//!
//! | effect | after a crash here the table says |
//! |---|---|
//! | journal Building | 6, 7 or 8: live is the truth |
//! | staging, its owner file, synced | the same |
//! | the build, flushed, closed, every file synced | the same |
//! | marker, synced | the same |
//! | the file that told how far the building had come goes | the same |
//! | journal Ready | 10 or 14: roll forward |

use super::decide::Staging;
use super::journal::{self, Journal, JournalState, Kind, Phase};
use super::{Place, Rest, observe, sweep};
use crate::encoding::{EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, sync_tree, write_atomic};
use crate::layout::{INTERNAL_IDENTITY, Layout, OWNER, PROGRESS, TEMPORARY_SUFFIX};
use crate::marker::{self, MARKER_FORMAT, Marker, Origin, OriginKind};
use crate::rocks::{Database, Durability, Family, Settings};
use crate::trap::trap;
use std::sync::Arc;
use uuid::Uuid;

/// What a build has made: its marker, to be written last.
#[derive(Debug)]
pub struct Built {
    /// The marker that seals it.
    pub marker: Marker,
}

/// A database to be made.
pub struct NewDatabase<'a> {
    /// The key encoding.
    pub encoding: &'a Arc<dyn KeyEncoding>,
    /// How it is opened.
    pub settings: &'a Settings,
}

/// Begins a change: journal Building, staging, owner file, all durable.
///
/// # Errors
/// The journal says Building, or there is none; live is untouched. [`drop_staging_quietly`] clears up.
pub fn start(place: &Place, journal: &Journal) -> Result<()> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    trap!(vfs, JournalBuildingBefore);
    journal::write(vfs, layout, journal)?;
    trap!(vfs, JournalBuildingAfter);
    trap!(vfs, StagingBefore);
    vfs.make_dir(&layout.staging)?;
    trap!(vfs, StagingMade);
    let owner = layout.staging.join(OWNER);
    let temporary = layout.staging.join(format!("{OWNER}{TEMPORARY_SUFFIX}"));
    write_atomic(vfs, &owner, &temporary, format!("{}\n", journal.id).as_bytes())?;
    vfs.sync_dir(&layout.parent)?;
    trap!(vfs, StagingOwned);
    Ok(())
}

/// Syncs all of a staging directory that is built.
///
/// # Errors
/// Final: the change has to be dropped.
pub fn sync_staging(place: &Place) -> Result<()> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    sync_tree(vfs, &layout.staging)?;
    trap!(vfs, StagingSynced);
    Ok(())
}

/// Ends the building: verifies staging, which is synced, with `verify`, seals it, and lets the journal say Ready.
///
/// # Errors
/// Before Ready the change can be dropped; if the write of Ready failed, the next look decides.
pub fn finish(place: &Place, journal: &Journal, verify: impl FnOnce() -> Result<Built>) -> Result<()> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    let built = verify()?;
    trap!(vfs, VerifyAfter);
    trap!(vfs, SealBefore);
    marker::write(vfs, &layout.staging, &built.marker)?;
    trap!(vfs, SealAfter);
    ready(place, journal)
}

/// Lets the journal of a sealed staging directory say Ready. What told how far its building had come goes before.
///
/// # Errors
/// The next look decides.
pub fn ready(place: &Place, journal: &Journal) -> Result<()> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    let progress = layout.staging.join(PROGRESS);
    if vfs.stat(&progress)?.is_some() {
        vfs.remove_file(&progress)?;
        trap!(vfs, ProgressRemoved);
        vfs.sync_dir(&layout.staging)?;
    }
    trap!(vfs, JournalReadyBefore);
    journal::write(vfs, layout, &journal.in_phase(Phase::Ready))?;
    trap!(vfs, JournalReadyAfter);
    Ok(())
}

/// After a failed build: removes staging and the journal if they can be removed; what remains is told by the journal.
/// Nothing happens once the journal says Ready, since then only the table may judge, and a directory at staging's name
/// that is not ours stays.
pub fn drop_staging_quietly(place: &Place, journal: &Journal) {
    if let Err(error) = try_drop_staging(place, journal) {
        tracing::warn!(path = %place.layout.staging.display(), %error, "a failed change could not be cleared up yet");
    }
}

fn try_drop_staging(place: &Place, journal: &Journal) -> Result<()> {
    let sight = observe(&*place.vfs, &place.layout)?;
    match sight.journal {
        Some(found) if found.id == journal.id && found.phase == Phase::Building => {}
        _ => return Ok(()),
    }
    match sight.observed.staging {
        Staging::Foreign => sweep::end_change(place, journal),
        Staging::Absent | Staging::Partial | Staging::New => sweep::drop_staging(place, journal),
    }
}

/// The journal of a change that is being built, if there is one.
///
/// # Errors
/// `Io`. Nothing was changed.
pub fn building(vfs: &dyn Vfs, layout: &Layout) -> Result<Option<Journal>> {
    Ok(match journal::read(vfs, layout)? {
        JournalState::Read(journal) if journal.phase == Phase::Building => Some(*journal),
        _ => None,
    })
}

/// Drops an interrupted change that [`Rest::Building`] told of; live stays as it is.
///
/// # Errors
/// The same state, or live alone.
pub fn abandon(place: &mut Place, journal: &Journal) -> Result<()> {
    match place.settle()? {
        Rest::Building { journal: found, .. } if found == *journal => sweep::drop_staging(place, journal),
        _ => Err(Error::new(ErrorKind::Conflict, "abandon a change", "it is not under way").at(&place.layout.live)),
    }
}

/// Makes a new, empty database where there is none, and brings the place to rest with it.
///
/// # Errors
/// `Conflict` if something stands there; otherwise there is no database, or an empty one.
pub fn create(place: &mut Place, new: &NewDatabase<'_>) -> Result<Rest> {
    let step = "create a database";
    match place.settle()? {
        Rest::Absent => {}
        _ => return Err(Error::new(ErrorKind::Conflict, step, "there is one already").at(&place.layout.live)),
    }
    let encoding = EncodingId::of(&**new.encoding);
    if new.encoding.comparator() != crate::encoding::Comparator::Bytewise {
        let message = format!("{encoding} is a legacy encoding that can only be converted from");
        return Err(Error::new(ErrorKind::InvalidArgument, step, message).at(&place.layout.live));
    }
    let mut journal = Journal::begin(Kind::Create, Uuid::new_v4());
    journal.to = Some(encoding.clone());
    let origin = Origin { kind: OriginKind::Create, id: journal.id };
    let mut marker = Marker {
        format: MARKER_FORMAT,
        database_id: Uuid::new_v4(),
        instance_id: Uuid::new_v4(),
        encoding,
        origin,
        sealed_sequence: 0,
        sealed: None,
    };
    let made = start(place, &journal).and_then(|()| {
        let database = Database::create(&place.layout.staging, new.settings)?;
        database.put(Family::Internal, INTERNAL_IDENTITY, &marker.identity().to_bytes()?, Durability::Sync)?;
        database.flush()?;
        marker.sealed_sequence = database.last_sequence();
        database.close()?;
        trap!(place.vfs, StagingClosed);
        sync_staging(place)?;
        finish(place, &journal, || Ok(Built { marker }))
    });
    if let Err(error) = made {
        drop_staging_quietly(place, &journal);
        return Err(error);
    }
    place.settle()
}
