//! Which objects an entry of HEAD stands for: the one that it names, and those that are listed there.

use crate::error::{Error, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::compaction::{self, Run};
use crate::log_backup::group::{GROUP_BYTES_MAX, GroupReference};
use crate::log_backup::migration::Body;
use crate::log_backup::names::ObjectReference;
use crate::log_backup::snapshot_transfer::read_manifest;

/// The object that an entry names.
pub(super) fn named(body: &Body) -> &ObjectReference {
    match body {
        Body::Snapshot(body) => &body.manifest,
        Body::Ingested(body) => &body.list,
        Body::Compaction(body) => &body.result,
        Body::Gc(body) => &body.list,
    }
}

/// The objects that are listed in the one that an entry names. What a list of doomed objects lists is not referred to.
///
/// # Errors
/// `NotFound`, `Corrupt`: of the list; `Unsupported`, `Io`.
pub(super) fn listed(archive: &Archive, body: &Body) -> Result<Vec<ObjectReference>> {
    match body {
        Body::Snapshot(body) => {
            let manifest = read_manifest(archive, &body.manifest)?;
            Ok(manifest.files.into_iter().map(|file| file.object).collect())
        }
        Body::Ingested(body) => {
            let bytes = archive.get_verified(&body.list, GROUP_BYTES_MAX as u64)?;
            let place = |error: Error| error.at(archive.place(&body.list.name));
            let group = GroupReference::from_bytes(&bytes).map_err(place)?;
            Ok(group.files.into_iter().map(|file| file.object).collect())
        }
        Body::Compaction(body) => {
            let found = compaction::read(archive, body)?;
            let parts = found.runs.iter().flat_map(Run::objects);
            Ok(found.results.iter().chain(parts).cloned().collect())
        }
        Body::Gc(_) => Ok(Vec::new()),
    }
}
