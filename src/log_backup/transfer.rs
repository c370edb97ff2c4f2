//! Files to and from an archive, piece by piece, with their checksums taken on the way.

use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::log_backup::archive::Archive;
use crate::log_backup::names::{ContentHash, ObjectReference};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use object_store::{MultipartUpload, ObjectStoreExt, UploadPart};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Files up to this long are put whole; longer ones in parts of at least this.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// The longest file: what S3 takes.
pub const FILE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;
/// S3 takes 10,000 parts.
const PARTS_MAX: u64 = 9_000;
/// Parts that are on their way at a time; the memory of an upload is that many parts and one.
const PARTS_IN_FLIGHT: usize = 3;
/// Files that are downloaded at a time; the memory is a piece of each.
const FILES_IN_FLIGHT: usize = 4;
/// What is read of an object at a time.
const PIECE_BYTES: u64 = 8 * 1024 * 1024;

type Parts = FuturesUnordered<UploadPart>;

/// The length and the hash of a file.
///
/// # Errors
/// Any failure to read it. Changes nothing.
pub fn hash_file(vfs: &dyn Vfs, path: &Path) -> Result<(u64, ContentHash)> {
    let mut hasher = Xxh3::new();
    let (mut size, mut piece) = (0, Vec::new());
    loop {
        vfs.read_range(path, size, 1024 * 1024, &mut piece)?;
        if piece.is_empty() {
            return Ok((size, ContentHash(hasher.digest128())));
        }
        hasher.update(&piece);
        size += piece.len() as u64;
    }
}

/// Uploads a file as the object that `reference` names; its length and its hash are checked before the object stands.
/// The name holds a nonce, so nothing else can stand there but an earlier attempt of this one.
///
/// # Errors
/// `Conflict`: the file is not what the reference says (it was changed meanwhile). Otherwise the object may stand or not.
pub fn put_file(archive: &Archive, reference: &ObjectReference, vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let step = "upload a file";
    if reference.size > FILE_BYTES_MAX {
        let message = format!("it has {} bytes, {FILE_BYTES_MAX} are allowed", reference.size);
        return Err(Error::new(ErrorKind::Unsupported, step, message).at(path));
    }
    if reference.size <= PART_BYTES {
        let mut bytes = Vec::new();
        vfs.read_range(path, 0, PART_BYTES as usize + 1, &mut bytes)?;
        if bytes.len() as u64 != reference.size || ContentHash::of(&bytes) != reference.hash {
            return Err(changed(step, path));
        }
        return archive.put_create(&reference.name, bytes).map(|_| ());
    }
    let mut last = None;
    for attempt in 0..archive.attempts() {
        archive.wait_before(attempt);
        match put_in_parts(archive, reference, vfs, path) {
            Err(error) if error.kind() == ErrorKind::Io => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| archive.gave_up(step, &reference.name, None)))
}

fn put_in_parts(archive: &Archive, reference: &ObjectReference, vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let step = "upload a file";
    let failed = |error| archive.gave_up(step, &reference.name, Some(error));
    let begun = archive
        .repeat(step, &reference.name, |store, name| Box::pin(async move { store.put_multipart(&name).await }))?;
    let mut upload = begun;
    let sent = send_parts(archive, reference, vfs, path, upload);
    match sent {
        Ok(whole) => upload = whole,
        Err((error, rest)) => {
            abort(archive, rest);
            return Err(error);
        }
    }
    let completed = archive.once(Box::pin(async move {
        let completed = upload.complete().await;
        Ok((upload, completed))
    }));
    match completed {
        Ok((_, Ok(_))) => Ok(()),
        Ok((upload, Err(error))) => {
            abort(archive, Some(upload));
            Err(failed(error))
        }
        // The upload went with the time-out.
        Err(error) => Err(failed(error)),
    }
}

type Upload = Box<dyn MultipartUpload>;

/// Sends all parts and waits for them; the upload comes back either way.
fn send_parts(
    archive: &Archive,
    reference: &ObjectReference,
    vfs: &dyn Vfs,
    path: &Path,
    mut upload: Upload,
) -> Result<Upload, (Error, Option<Upload>)> {
    let step = "upload a file";
    let part_bytes = PART_BYTES.max(reference.size.div_ceil(PARTS_MAX)) as usize;
    let (mut hasher, mut size) = (Xxh3::new(), 0);
    let mut flight = Parts::new();
    loop {
        let mut piece = Vec::new();
        if let Err(error) = vfs.read_range(path, size, part_bytes, &mut piece) {
            return Err((error, Some(upload)));
        }
        hasher.update(&piece);
        size += piece.len() as u64;
        let ended = piece.is_empty();
        if size > reference.size || (ended && (size, hasher.digest128()) != (reference.size, reference.hash.0)) {
            return Err((changed(step, path), Some(upload)));
        }
        let room = if ended { 0 } else { PARTS_IN_FLIGHT - 1 };
        let sent = archive.once(Box::pin(async move {
            while flight.len() > room {
                if let Some(Err(error)) = flight.next().await {
                    return Ok((upload, flight, Some(error)));
                }
            }
            if !ended {
                flight.push(upload.put_part(Bytes::from(piece).into()));
            }
            Ok((upload, flight, None))
        }));
        match sent {
            Ok((rest, _, None)) if ended => return Ok(rest),
            Ok((rest, parts, None)) => (upload, flight) = (rest, parts),
            Ok((rest, _, Some(error))) => {
                return Err((archive.gave_up(step, &reference.name, Some(error)), Some(rest)));
            }
            // The upload went with the time-out.
            Err(error) => return Err((archive.gave_up(step, &reference.name, Some(error)), None)),
        }
    }
}

/// Frees what the store keeps of an upload. It is garbage either way, so a failure of this is not told.
fn abort(archive: &Archive, upload: Option<Upload>) {
    if let Some(mut upload) = upload {
        let _ = archive.once(Box::pin(async move { upload.abort().await }));
    }
}

/// Downloads an object into a file that must not exist; synced. What was not what the reference says is removed again.
///
/// # Errors
/// `NotFound`, `Corrupt`, `NoSpace`, `Io`. The file may stand with a part of the contents, never all of it unverified.
pub fn get_file(archive: &Archive, reference: &ObjectReference, vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let step = "download a file";
    let corrupt = |message: String| {
        Error::new(ErrorKind::Corrupt, step, message).at(format!("{}/{}", archive.url(), reference.name))
    };
    let size = archive.head(&reference.name)?.size;
    if size != reference.size {
        return Err(corrupt(format!("it has {size} bytes, {} were written", reference.size)));
    }
    vfs.create_file(path, &[])?;
    let fetched = fetch_pieces(archive, reference, vfs, path);
    match fetched {
        Ok(hash) if hash == reference.hash => vfs.sync_file(path),
        Ok(hash) => {
            vfs.remove_file(path)?;
            Err(corrupt(format!("its hash is {hash}, {} was written", reference.hash)))
        }
        Err(error) => {
            // The next attempt makes the file anew; the error that matters is the first.
            let _ = vfs.remove_file(path);
            Err(error)
        }
    }
}

/// Does something with each of some files, a few at a time. `go_on` is asked before each of them: the way to hear of a lost
/// pin.
///
/// # Errors
/// The first one that comes up; what was begun by then is done or has failed, and the rest was not begun.
pub fn each_in_flight<T: Sync>(
    files: &[T],
    go_on: &dyn Fn() -> Result<()>,
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    if let [file] = files {
        go_on()?;
        return work(file);
    }
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        let (give, take) = std::sync::mpsc::sync_channel::<&T>(0);
        let take = Arc::new(Mutex::new(take));
        for _ in 0..FILES_IN_FLIGHT.min(files.len()) {
            let (take, work, failed) = (Arc::clone(&take), &work, &failed);
            scope.spawn(move || {
                loop {
                    let next = take.lock().recv();
                    let Ok(file) = next else { return };
                    if let Err(error) = work(file) {
                        failed.lock().get_or_insert(error);
                    }
                }
            });
        }
        drop(take);
        for file in files {
            go_on()?;
            if failed.lock().is_some() || give.send(file).is_err() {
                break;
            }
        }
        Ok(())
    })?;
    failed.into_inner().map_or(Ok(()), Err)
}

fn fetch_pieces(archive: &Archive, reference: &ObjectReference, vfs: &dyn Vfs, path: &Path) -> Result<ContentHash> {
    let (mut hasher, mut offset) = (Xxh3::new(), 0);
    while offset < reference.size {
        let len = PIECE_BYTES.min(reference.size - offset);
        let piece = archive.get_range(&reference.name, offset, len as u32)?;
        hasher.update(&piece);
        vfs.append(path, &piece)?;
        offset += len;
    }
    Ok(ContentHash(hasher.digest128()))
}

fn changed(step: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::Conflict, step, "it was changed while it was being uploaded").at(path)
}
