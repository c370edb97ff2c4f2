//! Whether a store keeps the promises that an archive stands on. Many servers accept conditions and ignore them; some
//! check them first and write later, so that two rivals win. Silence is the common failure, so this asks.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::names::{ObjectName, PROBE, probe};
use bytes::Bytes;
use futures::future::join_all;
use object_store::Error as Cause;
use object_store::{ObjectStore, PutMode};
use std::sync::Arc;
use uuid::Uuid;

const STEP: &str = "probe the archive's store";

/// Rivals for one name in a round, and rounds: a store that checks first and writes later lets two win nearly every time.
const RIVALS: u8 = 8;
const ROUNDS: u32 = 3;

/// Tries the store out, in objects of its own that it removes: creates twice, swaps a stale version, lets rivals race,
/// reads and lists what it wrote. To be called once, when a database is attached.
///
/// # Errors
/// `Unsupported`: the store does not keep a promise, and the message says which. `Io`: it could not be asked. A few
/// objects may be left under `v1/probe`.
pub fn probe_store(archive: &Archive) -> Result<()> {
    let mut last = None;
    for attempt in 0..archive.attempts() {
        archive.wait_before(attempt);
        let nonce = Uuid::new_v4();
        let names = [probe(nonce, "once"), probe(nonce, "race")];
        let answer = try_conditions(archive, &names[0]).and_then(|()| try_race(archive, &names[1]));
        for name in &names {
            // What is left over is garbage under a name of its own; it must not hide the answer.
            let _ = archive.delete(name);
        }
        match answer {
            // A lost answer makes an honest store look strange, so it is asked again about another name.
            Err(error) if error.kind() == ErrorKind::Io => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| Error::new(ErrorKind::Io, STEP, "it was not asked").at(archive.url())))
}

fn try_conditions(archive: &Archive, name: &ObjectName) -> Result<()> {
    let (first, second, third) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"), Bytes::from_static(b"3"));
    let put = |mode, bytes: &Bytes| archive.put_once(name, mode, bytes.clone());
    let created = put(PutMode::Create, &first).map_err(|error| unclear(archive, name, error))?;
    if !created.is_known() {
        return Err(refuse(archive, "it gives objects no version (no etag), so nothing can be replaced safely"));
    }
    match put(PutMode::Create, &second) {
        Ok(_) => return Err(refuse(archive, "it lets one object be created twice (it ignores If-None-Match)")),
        Err(Cause::AlreadyExists { .. } | Cause::Precondition { .. }) => {}
        Err(error) => return Err(unclear(archive, name, error)),
    }
    let swapped = put(created.as_mode(), &second).map_err(|error| unclear(archive, name, error))?;
    match put(created.as_mode(), &third) {
        Ok(_) => return Err(refuse(archive, "it lets a stale version be replaced (it ignores If-Match)")),
        Err(Cause::AlreadyExists { .. } | Cause::Precondition { .. }) => {}
        Err(error) => return Err(unclear(archive, name, error)),
    }
    let found = archive.get(name, 1024)?;
    if found.bytes != second || found.version != swapped {
        return Err(refuse(archive, "what it yields is not what was last written"));
    }
    let mut listed = archive.list(PROBE)?;
    if !listed.by_ref().try_fold(false, |seen, entry| Ok::<_, Error>(seen | (entry?.name == *name)))? {
        return Err(refuse(archive, "it does not list what was just written"));
    }
    Ok(())
}

fn try_race(archive: &Archive, name: &ObjectName) -> Result<()> {
    for _ in 0..ROUNDS {
        archive.delete(name)?;
        let answers = archive.repeat(STEP, name, |store, path| {
            Box::pin(async move {
                let rivals = (0..RIVALS).map(|rival| {
                    let (store, path): (Arc<dyn ObjectStore>, _) = (Arc::clone(&store), path.clone());
                    async move { store.put_opts(&path, vec![rival].into(), PutMode::Create.into()).await }
                });
                Ok(join_all(rivals).await)
            })
        })?;
        let mut winners = answers.iter().filter(|answer| answer.is_ok()).count();
        for error in answers.into_iter().filter_map(|answer| answer.err()) {
            if !matches!(error, Cause::AlreadyExists { .. } | Cause::Precondition { .. }) {
                // Its answer is lost; it may be the winner.
                if winners > 1 {
                    break;
                }
                return Err(unclear(archive, name, error));
            }
        }
        if winners == 0 && archive.head(name).is_ok() {
            winners = 1;
        }
        if winners != 1 {
            let message = format!("{winners} of {RIVALS} rivals created one object (its conditions are not atomic)");
            return Err(refuse(archive, &message));
        }
    }
    Ok(())
}

fn refuse(archive: &Archive, what: &str) -> Error {
    let message =
        format!("{what}; two writers could destroy each other's work, so it is refused and nothing was begun");
    let next = "choose a store with conditional writes: S3, GCS, Azure Blob Storage, or a local directory";
    Error::new(ErrorKind::Unsupported, STEP, message).at(archive.url()).next(next)
}

/// An answer that is neither yes nor the no that was asked for.
fn unclear(archive: &Archive, name: &ObjectName, error: Cause) -> Error {
    let error = match error {
        Cause::AlreadyExists { .. } | Cause::Precondition { .. } | Cause::NotFound { .. } => {
            Cause::Generic { store: "probe", source: Box::new(error) }
        }
        other => other,
    };
    archive.gave_up(STEP, name, Some(error))
}
