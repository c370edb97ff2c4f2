//! Moving a restored database to its place.
//!
//! It is given its identity where it was made, its files are linked into the target's staging directory, that is sealed,
//! and the rest is the swap of every change of a place, under a journal of kind `install`.
//!
//! | effect | after a crash here |
//! |---|---|
//! | the identity is written, both families flushed | the next attempt finds it |
//! | journal Building, staging, links | they are dropped, and made again |
//! | the log of an attached database is linked into staging, `LOG_BACKUP` there names a new timeline | the same |
//! | sealed, journal Ready | the recovery table rolls forward, whoever opens the target |
//! | journal Done, or Kept | the next attempt finds that the target carries the restore's id |

use crate::attachment::{self, Attachment};
use crate::conversion;
use crate::engine::{Options, prefix_end};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs};
use crate::layout::{INTERNAL_ENGINE, INTERNAL_IDENTITY, MARKER, OWNER, is_left_by_a_failed_open};
use crate::log_backup::archive::Archive;
use crate::marker::{self, Identity, Marker, Origin, OriginKind};
use crate::place::journal::{self, Journal, Kind};
use crate::place::{self, Built, Place, Rest};
use crate::restore::attached::{self, STEP, require_own_archive};
use crate::restore::folder::{Folder, Spec};
use crate::restore::plan::Plan;
use crate::rocks::{Database, Durability, Family, Settings, WriteBatch};
use crate::trap::trap;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// With so many files at level 0 a flush might wait for a compaction.
const FLUSHED_UNCOMPACTED: u64 = 12;

/// Gives the database the identity that it will have, and gives the marker that goes with it.
///
/// # Errors
/// It has the old identity, or the new one. Repeat.
pub(super) fn seal(vfs: &dyn Vfs, database: &Path, restore: Uuid, options: &Options) -> Result<Marker> {
    let look = Database::open_read_only(vfs, database, &options.settings())?;
    if let Some(identity) = place::read_identity(&look)?.filter(|identity| identity.origin.id == restore) {
        return Ok(marker_of(identity, look.last_sequence()));
    }
    drop(look);
    let missing = || Error::new(ErrorKind::Corrupt, STEP, "it has no marker").at(database);
    let old = marker::read(vfs, database)?.ok_or_else(missing)?;
    // What is owed of compaction is left to whoever opens it next: here it would only begin, and be broken off.
    let settings = Settings { bulk: true, ..options.settings() };
    let opened = Database::open(vfs, database, &settings)?;
    if opened.level0_files()? >= FLUSHED_UNCOMPACTED {
        opened.compact_by_itself()?;
    }
    place::check_identity(&opened, &old)?;
    let origin = Origin { kind: OriginKind::Install, id: restore };
    let identity = Identity { instance_id: Uuid::new_v4(), origin, ..old.identity() };
    let mut batch = WriteBatch::new();
    // The engine's half: what it knew of the log, and how far that was applied.
    batch.delete_range(&opened, Family::Internal, INTERNAL_ENGINE, &prefix_end(INTERNAL_ENGINE))?;
    batch.put(&opened, Family::Internal, INTERNAL_IDENTITY, &identity.to_bytes()?)?;
    opened.write(batch, Durability::Sync)?;
    opened.flush()?;
    let sequence = opened.last_sequence();
    opened.close()?;
    trap!(vfs, RestoreIdentityWritten);
    Ok(marker_of(identity, sequence))
}

fn marker_of(identity: Identity, sealed_sequence: u64) -> Marker {
    let Identity { format, database_id, instance_id, encoding, origin } = identity;
    Marker { format, database_id, instance_id, encoding, origin, sealed_sequence, sealed: None }
}

/// Makes sure that a restore may be moved to the target, and says what is there. The place is at rest then.
///
/// # Errors
/// `Conflict`: there is a database that is not to be replaced, an interrupted change, an old database that is kept, or a log
/// that was handed over and is not shipped; `Unsupported`: the database is attached to another log archive; those of looking.
pub(super) fn require_target(place: &mut Place, spec: &Spec) -> Result<Option<Marker>> {
    let live = place.layout.live.clone();
    let conflict = |message: &str| Error::new(ErrorKind::Conflict, STEP, message).at(&live);
    let marker = match place.settle()? {
        Rest::Absent => None,
        Rest::Open { marker: Some(marker), leftover } if marker.origin.id == spec.restore => {
            if let Some(leftover) = leftover {
                place.sweep(&leftover);
            }
            return Ok(Some(marker));
        }
        Rest::Open { .. } if !spec.replace => {
            let next = format!("morphkv restore start {} --replace ...", live.display());
            return Err(conflict("there is a database; nothing was touched").next(next));
        }
        Rest::Open { marker, leftover } => {
            if let Some(leftover) = leftover {
                place.try_sweep(&leftover)?;
            }
            marker
        }
        Rest::Building { journal, marker } if journal.id == spec.restore => {
            place::abandon(place, &journal)?;
            marker
        }
        Rest::Building { .. } => {
            let next = format!("morphkv recover {}", live.display());
            return Err(conflict("an interrupted change of the database must be finished first").next(next));
        }
    };
    place.require_no_strangers(STEP)?;
    if place::kept_journal(place)?.is_some() {
        let next = format!("morphkv drop-backup {}", live.display());
        return Err(conflict("an old database is kept beside it, and this one would be the second").next(next));
    }
    require_own_archive(&*place.vfs, &live, spec)?;
    Ok(marker)
}

/// Moves the sealed database to the target. Done before, it is done. An attached database gives way with its log: the restored
/// one carries what is not shipped of it, and a new timeline.
///
/// # Errors
/// Those of [`require_target`]; `Unsupported`: an attached database gives way only to an earlier state of itself; `Conflict`: the
/// archive is another database's by now, a bulk load was interrupted, or the database was written to meanwhile. The target is as
/// it was, attached as it was, or the restored database with the log; the next call goes on.
pub(super) fn install(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
    archive: &Archive,
    (spec, plan): (&Spec, &Plan),
    marker: &Marker,
    options: &Options,
) -> Result<()> {
    let mut place = Place::lock(Arc::clone(vfs), &folder.target.live)?.of_restore();
    let there = require_target(&mut place, spec)?;
    if there.as_ref().is_some_and(|there| there.origin.id == spec.restore) {
        return Ok(());
    }
    let mut journal = Journal::begin(Kind::Install, spec.restore);
    journal.to = Some(marker.encoding.clone());
    let made = replaced(&mut place, there.as_ref(), (spec, archive, marker), options).and_then(|replaced| {
        let successor = replaced.attachment.as_ref().zip(replaced.source.as_ref()).map(|(attachment, source)| {
            attached::successor(attachment, there.as_ref(), source.last_sequence, plan, marker.sealed_sequence)
        });
        journal.keep = replaced.source.is_some();
        journal.source = replaced.source;
        build(&place, folder, &journal, (marker, successor.transpose()?.as_ref()), options)
    });
    if let Err(error) = made {
        place::drop_staging_quietly(&place, &journal);
        place.unlock_rocks();
        return Err(error);
    }
    let rest = place.settle();
    place.unlock_rocks();
    match rest? {
        Rest::Open { marker: Some(found), leftover } if found.origin.id == spec.restore => {
            if let Some(leftover) = leftover {
                place.sweep(&leftover);
            }
            Ok(())
        }
        _ => {
            let message = "other software has written to the database just now; it was left as it is: repeat";
            Err(Error::new(ErrorKind::Conflict, STEP, message).at(&folder.target.live))
        }
    }
}

/// The database that gives way.
#[derive(Default)]
struct Replaced {
    source: Option<journal::Source>,
    attachment: Option<Attachment>,
}

/// The database that gives way, if there is one; nobody writes to it from here on.
fn replaced(
    place: &mut Place,
    marker: Option<&Marker>,
    (spec, archive, restored): (&Spec, &Archive, &Marker),
    options: &Options,
) -> Result<Replaced> {
    let vfs = Arc::clone(&place.vfs);
    let live = place.layout.live.clone();
    if vfs.stat(&live.join(crate::layout::ROCKSDB_CURRENT))?.is_none() {
        return Ok(Replaced::default());
    }
    place.lock_rocks()?;
    let attachment = require_own_archive(&*vfs, &live, spec)?;
    journal::sync_source(&*vfs, &live)?;
    let encoding = options.known(marker)?;
    let settings = Settings { comparator: encoding.comparator(), bulk: true, ..options.settings() };
    let database = Database::open_read_only(&*vfs, &live, &settings)?;
    if let Some(marker) = marker {
        place::check_identity(&database, marker)?;
    }
    if let Some(attachment) = &attachment {
        attached::require_same_database(&live, marker, restored)?;
        conversion::require_wal_inside(&*vfs, &live)?;
        attachment::require_no_load(&database, STEP)?;
        match attached::require_current(archive, attachment, &live) {
            // It said so when the restore began; the log goes with the database, and is shipped when the archive is back.
            Err(error) if error.kind() == ErrorKind::Io => tracing::warn!(%error, "the archive cannot be asked"),
            asked => asked?,
        }
    }
    let source = journal::source(&*vfs, &live, marker, database.last_sequence())?;
    Ok(Replaced { source: Some(source), attachment })
}

fn build(
    place: &Place,
    folder: &Folder,
    journal: &Journal,
    (marker, successor): (&Marker, Option<&Attachment>),
    options: &Options,
) -> Result<()> {
    let vfs = &*place.vfs;
    place::start(place, journal)?;
    for name in vfs.list(&folder.database)? {
        let path = folder.database.join(&name);
        let regular = vfs.stat(&path)?.is_some_and(|stat| stat.kind == FileKind::File);
        if !regular || name == MARKER || name == OWNER || is_left_by_a_failed_open(&name) {
            continue;
        }
        vfs.hard_link(&path, &place.layout.staging.join(&name))?;
        trap!(vfs, RestoreFileLinked);
    }
    if let Some(successor) = successor {
        trap!(vfs, RestoreHandoverBefore);
        attachment::hand_over_to(vfs, &place.layout.live, &place.layout.staging, successor)?;
        trap!(vfs, RestoreHandoverAfter);
    }
    place::sync_staging(place)?;
    place::finish(place, journal, || {
        let database = Database::open_read_only(vfs, &place.layout.staging, &options.settings())?;
        place::check_identity(&database, marker)?;
        if !database.files_are_there(vfs)? {
            return Err(Error::new(ErrorKind::Corrupt, STEP, "files of it are missing").at(&folder.database));
        }
        Ok(Built { marker: marker.clone() })
    })
}
