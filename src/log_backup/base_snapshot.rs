//! Copying a database for a base snapshot, and storing the copy.
//!
//! The copy is RocksDB's checkpoint: hard links, made in an instant beside writers. Its position in the log is read from the
//! copy itself. It counts only once the log is shipped up to there and HEAD knows it.

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs, remove_tree};
use crate::layout::{INGEST, MARKER, PENDING_INGEST, TEMPORARY_SUFFIX, is_left_by_a_failed_open};
use crate::log_backup::archive::Archive;
use crate::log_backup::head::Head;
use crate::log_backup::pin::{Pin, PinRequest, TTL};
use crate::log_backup::snapshot_format::{Manifest, SnapshotPlace};
use crate::log_backup::snapshot_transfer::{Uploaded, read_manifest, store_snapshot};
use crate::log_backup::timelines::latest_base;
use crate::rocks::{Database, Settings};
use crate::trap::trap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// The longest marker, in bytes.
const MARKER_BYTES_MAX: u64 = 64 * 1024;

/// A copy that is not stored yet; removed when it goes.
pub(super) struct Copy {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    /// The last sequence number in it.
    pub sequence: u64,
    /// Loads that are in it whole.
    pub loads: Vec<Uuid>,
}

impl Copy {
    /// Makes one.
    ///
    /// # Errors
    /// `NoSpace`, `Io`, `Closed`: what there is of it goes at the next attempt, or when the database is opened.
    pub fn make(engine: &Engine) -> Result<Self> {
        let vfs = engine.file_operations();
        let room = engine.path().join(INGEST);
        if vfs.stat(&room)?.is_none() {
            vfs.make_dir(&room)?;
        }
        let directory = room.join("base");
        for path in [&directory, &room.join("base.tmp")] {
            remove_tree(&*vfs, path)?;
        }
        let loads = pending_loads(&*vfs, engine.path())?;
        engine.copy_for_base_snapshot(&directory)?;
        let mut copy = Copy { vfs, directory, sequence: 0, loads };
        copy.complete(engine)?;
        trap!(copy.vfs, ShipBaseCopied);
        Ok(copy)
    }

    fn complete(&mut self, engine: &Engine) -> Result<()> {
        let vfs = &*self.vfs;
        let database = Database::open_read_only(vfs, &self.directory, &Settings::default())?;
        self.sequence = database.last_sequence();
        database.close()?;
        for name in vfs.list(&self.directory)? {
            if is_left_by_a_failed_open(&name) {
                vfs.remove_file(&self.directory.join(name))?;
            }
        }
        let marker = vfs.read(&engine.path().join(MARKER), MARKER_BYTES_MAX)?;
        vfs.create_file(&self.directory.join(MARKER), &marker)
    }

    /// Stores it at its place in the log, which must be shipped up to there.
    ///
    /// # Errors
    /// As [`store_snapshot`]; repeat with the same place.
    pub fn store(&self, archive: &Archive, place: &SnapshotPlace, owner: &Path) -> Result<(Manifest, Uploaded)> {
        let request =
            PinRequest { owner: owner.display().to_string(), purpose: "store a base snapshot".into(), ttl: TTL };
        let (pin, loaded) = Pin::take_and_load(archive, &request)?;
        let previous = previous(archive, &loaded.head, place.timeline)?;
        let stored = store_snapshot(archive, &pin, &*self.vfs, &self.directory, place, previous.as_ref())?;
        trap!(self.vfs, ShipBaseStored);
        Ok(stored)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&*self.vfs, &self.directory) {
            tracing::warn!(%error, "the copy for a base snapshot stays behind until the database is opened again");
        }
    }
}

/// The snapshot whose files are shared; if it cannot be read, nothing is.
fn previous(archive: &Archive, head: &Head, timeline: Uuid) -> Result<Option<Manifest>> {
    let Some(body) = latest_base(head, timeline)? else { return Ok(None) };
    match read_manifest(archive, &body.manifest) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
            tracing::warn!(%error, "an earlier base snapshot cannot be read, so all files are stored again");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The loads whose files are kept for the log.
///
/// # Errors
/// `Io`.
pub(super) fn pending_loads(vfs: &dyn Vfs, live: &Path) -> Result<Vec<Uuid>> {
    let folder = live.join(PENDING_INGEST);
    if !vfs.stat(&folder)?.is_some_and(|stat| stat.kind == FileKind::Directory) {
        return Ok(Vec::new());
    }
    let names = vfs.list(&folder)?;
    let named = names.iter().filter(|name| !name.ends_with(TEMPORARY_SUFFIX));
    let id = |name: &String| {
        Uuid::try_parse(name).map_err(|error| {
            let message = "a folder of it is named after no bulk load";
            Error::new(ErrorKind::Refused, "list bulk loads", message).at(folder.join(name)).because(error)
        })
    };
    named.map(id).collect()
}
