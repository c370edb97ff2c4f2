//! Reading HEAD, and changing it so that each change happens once, whatever the store answers.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::{Archive, Version};
use crate::log_backup::head::{HEAD_BYTES_MAX, Head, Timeline};
use crate::log_backup::names;
use uuid::Uuid;

const STEP: &str = "commit to the archive's HEAD";

/// How often a change is built anew for a HEAD that somebody else has just changed.
const REBUILDS_MAX: u32 = 256;

/// HEAD as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Its contents.
    pub head: Head,
    /// Its version in the store.
    pub version: Version,
}

/// Reads HEAD. Take a pin first if you are going to read what it refers to.
///
/// # Errors
/// `NotFound`: there is no archive; `Corrupt`; `Unsupported`: it is of a later version; `Io`.
pub fn load(archive: &Archive) -> Result<Loaded> {
    let name = names::head();
    let object = archive.get(&name, HEAD_BYTES_MAX).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "read the archive's HEAD", "there is no archive here")
            .at(archive.place(&name))
            .because(error),
        _ => error,
    })?;
    let head = Head::from_bytes(&object.bytes).map_err(|error| error.at(archive.place(&name)))?;
    Ok(Loaded { head, version: object.version })
}

/// Makes a new archive whose first timeline is `first`. `nonce` tells this archive apart: calling it again with the same
/// one is success.
///
/// # Errors
/// `Conflict`: an archive stands there. Any other error: it may have been made; call again with the same nonce.
pub fn create(archive: &Archive, first: Timeline, nonce: Uuid) -> Result<Head> {
    let head = Head::new(nonce, first, nonce);
    match archive.put_create(&names::head(), head.to_bytes()?) {
        Ok(_) => Ok(head),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            // Ours, with commits since?
            let found = load(archive)?.head;
            if found.archive == nonce { Ok(found) } else { Err(error.next("choose another prefix for a new archive")) }
        }
        Err(error) => Err(error),
    }
}

/// Changes HEAD: `change` makes the new contents out of the old ones (generation and commits are seen to here). It is
/// called again whenever somebody else was faster, always with the HEAD that is then current. A change that changes nothing
/// is no commit.
///
/// The commit carries one nonce, whatever is tried. After any error of the write HEAD is read: with the nonce in it the
/// commit has come through, maybe with others after it; without, it has not, and is built anew. So it happens once.
///
/// # Errors
/// What `change` returns, then nothing was changed; `Conflict` if others were always faster; `NotFound`, `Corrupt`,
/// `Unsupported` of [`load`]. `Io`: it is not known whether the change came through; `change` should be such that
/// a repetition does no harm.
pub fn commit(archive: &Archive, mut change: impl FnMut(&Head) -> Result<Head>) -> Result<Head> {
    let nonce = Uuid::new_v4();
    let mut loaded = load(archive)?;
    let mut failures = 0;
    for rebuild in 0..REBUILDS_MAX {
        let wanted = change(&loaded.head)?;
        if wanted == loaded.head {
            return Ok(wanted);
        }
        let wanted = wanted.committed(nonce, &loaded.head)?;
        // Earlier attempts are dead: each was conditional on a version that is no more, and HEAD does not know the nonce.
        let first = wanted.generation;
        let error = match archive.compare_and_swap(&names::head(), &loaded.version, wanted.to_bytes()?) {
            Ok(_) => return Ok(wanted),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Conflict {
            failures += 1;
        }
        loaded = load(archive)?;
        match loaded.head.knows(nonce, first) {
            Some(true) => return Ok(loaded.head),
            Some(false) if failures < archive.attempts() => {}
            Some(false) => return Err(error),
            None => {
                let message = "HEAD has forgotten whether the commit came through: too many others did since";
                return Err(Error::new(ErrorKind::Io, STEP, message).at(archive.url()).because(error));
            }
        }
        archive.wait_before(1 + rebuild.min(5));
    }
    let message = format!("others changed HEAD {REBUILDS_MAX} times while this was trying to; repeat");
    Err(Error::new(ErrorKind::Conflict, STEP, message).at(archive.url()))
}
