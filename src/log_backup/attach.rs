//! Attaching a database to an archive, and detaching it.

use crate::attachment::{self, ATTACHMENT_FORMAT, Attachment, Cause};
use crate::engine::{Engine, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{RealVfs, remove_tree};
use crate::layout::{LOG_BACKUP, Layout, PENDING_INGEST, UNSHIPPED};
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::load;
use crate::log_backup::head::{Head, Timeline};
use crate::log_backup::probe::probe_store;
use crate::log_backup::timelines::{commit_timeline, ensure};
use crate::trap::trap;
use std::path::Path;
use uuid::Uuid;

const STEP: &str = "attach the database to a log archive";

/// What happens if the archive is another database's already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TakeOver {
    /// Attaching is refused. The default.
    #[default]
    No,
    /// This database goes on in it, and the other one is refused from then on.
    Yes,
}

/// Attaches the database at `path`, and opens it: from here on every write goes to the archive once a
/// [`Shipper`](super::shipper::Shipper) runs; its first pass takes the base snapshot. A database that is attached to this
/// archive already is only opened.
///
/// # Errors
/// `Unsupported`: the store does not keep what an archive needs; `Conflict`: another database has the archive, or this one
/// has another archive; those of opening. After an error of the archive the database may be attached: repeat.
pub fn attach(path: impl AsRef<Path>, options: Options, archive: &Archive, take_over: TakeOver) -> Result<Engine> {
    let path = path.as_ref();
    probe_store(archive)?;
    let engine = Engine::open(path, options.clone())?;
    let vfs = engine.file_operations();
    let own = match attachment::read(&*vfs, engine.path())? {
        Some(own) if own.archive != archive.url() => {
            let message = format!("it is attached to {}; nothing was changed", own.archive);
            let next = format!("morphkv log detach {}", path.display());
            return Err(Error::new(ErrorKind::Conflict, STEP, message).at(path).next(next));
        }
        Some(own) => own,
        None => Attachment {
            format: ATTACHMENT_FORMAT,
            archive: archive.url().to_owned(),
            timeline: Uuid::new_v4(),
            start_sequence: engine.last_sequence(),
            parent: None,
            cause: Cause::Init,
            restored: None,
        },
    };
    let head = existing(archive, &own, take_over)?;
    attachment::write(&*vfs, engine.path(), &own)?;
    trap!(vfs, ShipAttachNoted);
    match head {
        Some(head) if own.cause == Cause::Init => {
            let encoding = engine.encoding();
            let timeline = Timeline { id: own.timeline, parent: None, encoding, cause: Cause::Init };
            commit_timeline(archive, &timeline, &head)?;
        }
        // What any other attachment goes on from, the first pass sees to.
        Some(_) => {}
        None => drop(ensure(archive, &*vfs, &own, &engine.encoding())?),
    }
    // RocksDB keeps WAL files only if it was opened so.
    drop(vfs);
    engine.close()?;
    Engine::open(path, options)
}

/// HEAD, if the archive has one that this database may go on in.
fn existing(archive: &Archive, own: &Attachment, take_over: TakeOver) -> Result<Option<Head>> {
    let head = match load(archive) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        loaded => loaded?.head,
    };
    let known = head.timelines.iter().any(|timeline| timeline.id == own.timeline);
    if !known && own.cause == Cause::Init && take_over == TakeOver::No {
        let message = "another database has this archive, and would be shut out of it; nothing was changed";
        let next = "attach to another prefix, or repeat with --take-over if the other database is gone for good";
        return Err(Error::new(ErrorKind::Conflict, STEP, message).at(archive.url()).next(next));
    }
    Ok(Some(head))
}

/// Detaches the database at `path`: its log is not kept any more, what was not shipped never will be, and the archive stays
/// as it is. Gives the URL of
/// that archive; `None` if it was not.
///
/// # Errors
/// Those of opening; `Io`: it may be detached, with files left; repeat.
pub fn detach(path: impl AsRef<Path>, options: Options) -> Result<Option<String>> {
    let engine = Engine::open(path, options)?;
    let vfs = engine.file_operations();
    let live = engine.path();
    let own = attachment::read(&*vfs, live)?;
    vfs.remove_file(&live.join(LOG_BACKUP))?;
    vfs.sync_dir(live)?;
    trap!(vfs, ShipDetached);
    // Also where an earlier attempt has come no further.
    for name in [UNSHIPPED, PENDING_INGEST] {
        remove_tree(&*vfs, &live.join(name))?;
    }
    engine.remove_archived_wal_files(u64::MAX)?;
    vfs.sync_dir(live)?;
    drop(vfs);
    engine.close()?;
    Ok(own.map(|own| own.archive))
}

/// The URL of the archive that the database at `path` is attached to.
///
/// # Errors
/// Those of reading the file that says so. Nothing was changed.
pub fn archive_url(path: impl AsRef<Path>) -> Result<Option<String>> {
    let layout = Layout::new(path.as_ref())?;
    Ok(attachment::read(&RealVfs::new()?, &layout.live)?.map(|own| own.archive))
}
