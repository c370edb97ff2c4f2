//! Base snapshots to and from an archive: a directory file by file, then its manifest, then the commit to HEAD. Only the
//! commit makes it count; whatever stands without it is an orphan.

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs};
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::commit;
use crate::log_backup::doom;
use crate::log_backup::head::Head;
use crate::log_backup::migration::{Body, Key, SnapshotBody};
use crate::log_backup::names::{self, ContentHash, ObjectName, ObjectReference};
use crate::log_backup::pin::Pin;
use crate::log_backup::snapshot_format::{
    MANIFEST_BYTES_MAX, MANIFEST_FORMAT, Manifest, SnapshotFile, SnapshotPlace, is_database_file,
};
use crate::log_backup::transfer::{each_in_flight, get_file, hash_file, put_file};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use uuid::Uuid;

const STEP: &str = "store a base snapshot";

/// How often a snapshot is stored anew because something that it shares was doomed meanwhile.
const ROUNDS_MAX: u32 = 3;

/// What an upload took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Files that were uploaded.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that an earlier snapshot has already.
    pub shared_files: u64,
}

/// Stores a directory as a base snapshot, and commits it to HEAD. `directory` is a checkpoint: nobody writes it. Files that
/// `previous`, a snapshot in HEAD, has already are not uploaded again. `pin` was taken before `previous` was looked for.
///
/// # Errors
/// `Lost`: the pin; `Refused`: the directory holds what no database has; `Conflict`: a file was changed meanwhile, or what
/// is shared was doomed again and again. Whatever the error: the snapshot is in HEAD whole, or orphans stand. Calling it
/// again with the same `place` never makes two.
pub fn store_snapshot(
    archive: &Archive,
    pin: &Pin,
    vfs: &dyn Vfs,
    directory: &Path,
    place: &SnapshotPlace,
    previous: Option<&Manifest>,
) -> Result<(Manifest, Uploaded)> {
    let mut previous = previous;
    let mut round = 1;
    loop {
        let (manifest, uploaded) = upload(archive, pin, vfs, directory, place, previous)?;
        match publish(archive, pin, &manifest, previous) {
            // What is shared is being deleted: everything is uploaded, under new names.
            Err(error) if error.kind() == ErrorKind::Conflict && previous.is_some() && round < ROUNDS_MAX => {
                previous = None;
            }
            Err(error) => return Err(error),
            Ok(stored) => return Ok((stored, uploaded)),
        }
        round += 1;
    }
}

/// Uploads the files; the manifest that it returns is not stored yet.
///
/// # Errors
/// As [`store_snapshot`]; only orphans stand.
pub fn upload(
    archive: &Archive,
    pin: &Pin,
    vfs: &dyn Vfs,
    directory: &Path,
    place: &SnapshotPlace,
    previous: Option<&Manifest>,
) -> Result<(Manifest, Uploaded)> {
    let mut known: BTreeMap<(u64, ContentHash), ObjectName> = BTreeMap::new();
    for SnapshotFile { object: ObjectReference { name, size, hash }, .. } in previous.iter().flat_map(|m| &m.files) {
        known.insert((*size, *hash), name.clone());
    }
    let (mut files, mut uploaded) = (Vec::new(), Uploaded::default());
    for file in vfs.list(directory)? {
        let path = directory.join(&file);
        let regular = vfs.stat(&path)?.is_some_and(|stat| stat.kind == FileKind::File);
        if !regular || !is_database_file(&file) {
            let message = "it is no file that a database has; nothing was stored";
            return Err(Error::new(ErrorKind::Refused, STEP, message).at(path));
        }
        pin.check()?;
        let (size, hash) = hash_file(vfs, &path)?;
        let name = if let Some(name) = known.get(&(size, hash)) {
            uploaded.shared_files += 1;
            name.clone()
        } else {
            let object = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
            put_file(archive, &object, vfs, &path)?;
            (uploaded.files, uploaded.bytes) = (uploaded.files + 1, uploaded.bytes + size);
            known.insert((size, hash), object.name.clone());
            object.name
        };
        files.push(SnapshotFile { file, object: ObjectReference { name, size, hash } });
    }
    files.sort_by(|left, right| left.file.cmp(&right.file));
    Ok((Manifest { format: MANIFEST_FORMAT, place: place.clone(), files }, uploaded))
}

/// Stores the manifest and commits the snapshot to HEAD. If HEAD has a snapshot of this id already, that one is returned.
///
/// # Errors
/// `Conflict`: an object of it is doomed, or `previous` is in HEAD no more: upload it again under new names. `Lost`: the pin.
pub fn publish(archive: &Archive, pin: &Pin, manifest: &Manifest, previous: Option<&Manifest>) -> Result<Manifest> {
    let id = manifest.place.id;
    let bytes = manifest.to_bytes()?;
    // An earlier attempt may have left a manifest that names other objects: this one has a name of its own.
    let (name, size) = (names::snapshot(id, Uuid::new_v4()), bytes.len() as u64);
    let reference = ObjectReference { name, size, hash: ContentHash::of(&bytes) };
    archive.put_create(&reference.name, bytes)?;
    let SnapshotPlace { timeline, sequence, time, next_segment, .. } = manifest.place;
    let body = SnapshotBody { manifest: reference.clone(), timeline, sequence, time, next_segment };
    let mut lists = BTreeMap::new();
    let mut there = None;
    let committed = commit(archive, |head| {
        pin.check()?;
        let live = head.migrations.merged()?;
        if let Some(Body::Snapshot(stored)) = live.entries.get(&Key::Snapshot(id)).map(|entry| &entry.body) {
            there = (stored.manifest != reference).then(|| stored.manifest.clone());
            return Ok(head.clone());
        }
        there = None;
        head.timeline(timeline)?;
        refuse_doomed(archive, head, manifest, previous, &mut lists)?;
        let mut head = head.clone();
        head.migrations.append([(Key::Snapshot(id), Body::Snapshot(body.clone()))])?;
        Ok(head)
    });
    // Refused here, or there already: it is known not to count, and would stay as an orphan. After any other error it may
    // count yet.
    let refused = |error: &Error| error.kind() == ErrorKind::Conflict && error.step() == STEP;
    if there.is_some() || committed.as_ref().is_err_and(refused) {
        let _ = archive.delete(&reference.name);
    }
    committed?;
    there.map_or_else(|| Ok(manifest.clone()), |stored| read_manifest(archive, &stored))
}

/// What the snapshot refers to must not be on its way out.
fn refuse_doomed(
    archive: &Archive,
    head: &Head,
    manifest: &Manifest,
    previous: Option<&Manifest>,
    lists: &mut BTreeMap<ObjectName, BTreeSet<ObjectName>>,
) -> Result<()> {
    let live = head.migrations.merged()?;
    let doomed = |what: String| {
        let message = format!("{what}; the snapshot was not committed, and must be uploaded under new names");
        Err(Error::new(ErrorKind::Conflict, STEP, message).at(archive.url()))
    };
    if let Some(previous) = previous.filter(|previous| !live.entries.contains_key(&Key::Snapshot(previous.place.id))) {
        return doomed(format!("snapshot {}, whose files it shares, is in HEAD no more", previous.place.id));
    }
    for entry in live.entries.values() {
        let Body::Gc(gc) = &entry.body else { continue };
        if !lists.contains_key(&gc.list.name) {
            lists.insert(gc.list.name.clone(), doom::read(archive, &gc.list)?.objects);
        }
        let list = &lists[&gc.list.name];
        if let Some(file) = manifest.files.iter().find(|file| list.contains(&file.object.name)) {
            return doomed(format!("{} is doomed", file.object.name));
        }
    }
    Ok(())
}

/// Reads the manifest that HEAD refers to.
///
/// # Errors
/// `NotFound`, `Corrupt`, `Unsupported`, `Io`.
pub fn read_manifest(archive: &Archive, reference: &ObjectReference) -> Result<Manifest> {
    let bytes = archive.get_verified(reference, MANIFEST_BYTES_MAX)?;
    Manifest::from_bytes(&bytes).map_err(|error| error.at(archive.place(&reference.name)))
}

/// Downloads the files of a snapshot into a directory, made if need be; each is verified and synced, and so is the
/// directory. Several files come at a time. Those that an interrupted download left whole are kept, so it can be repeated.
/// `go_on` is asked before each file: the way to hear of a lost pin.
///
/// # Errors
/// `Corrupt`, `NotFound`: an object is damaged or gone; `Refused`: something else stands in the directory. Some files stand.
pub fn download(
    archive: &Archive,
    manifest: &Manifest,
    vfs: &dyn Vfs,
    directory: &Path,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<()> {
    if vfs.stat(directory)?.is_none() {
        vfs.make_dir(directory)?;
        vfs.sync_dir(crate::fs::parent_of(directory)?)?;
    }
    let expected: BTreeSet<&str> = manifest.files.iter().map(|file| file.file.as_str()).collect();
    for name in vfs.list(directory)? {
        if !expected.contains(name.as_str()) {
            let message = "it is not part of the snapshot; nothing was downloaded";
            return Err(Error::new(ErrorKind::Refused, "download a base snapshot", message).at(directory.join(name)));
        }
    }
    each_in_flight(&manifest.files, go_on, |SnapshotFile { file, object }| {
        let path = directory.join(file);
        if let Some(stat) = vfs.stat(&path)? {
            let whole = stat.kind == FileKind::File
                && stat.len == object.size
                && hash_file(vfs, &path)? == (object.size, object.hash);
            if whole {
                return vfs.sync_file(&path);
            }
            vfs.remove_file(&path)?;
        }
        get_file(archive, object, vfs, &path)
    })?;
    vfs.sync_dir(directory)
}
