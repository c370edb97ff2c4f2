//! What is known of objects, and how the answers of a store are read.

use crate::log_backup::names::ObjectName;
use bytes::Bytes;
use futures::StreamExt;
use object_store::{GetResult, GetResultPayload, ObjectMeta, PutMode, PutResult, UpdateVersion};
use std::io::{Read, Seek, SeekFrom};

/// Which version of an object was seen; means something to its store alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(UpdateVersion);

/// What is known of an object without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStat {
    /// Its length in bytes.
    pub size: u64,
    /// When it was written, by the store's clock, in microseconds of the Unix epoch.
    pub modified: i64,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its contents.
    pub bytes: Bytes,
    /// Which version it is.
    pub version: Version,
    /// What else is known of it.
    pub stat: ObjectStat,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// What is known of it.
    pub stat: ObjectStat,
}

impl Version {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        Version(UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() })
    }

    pub(super) fn of_put(put: PutResult) -> Self {
        Version(put.into())
    }

    /// Whether the store says anything that a compare-and-swap could be conditional on.
    pub(super) fn is_known(&self) -> bool {
        self.0.e_tag.is_some() || self.0.version.is_some()
    }

    /// As a condition.
    pub(super) fn as_mode(&self) -> PutMode {
        PutMode::Update(self.0.clone())
    }
}

impl ObjectStat {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        ObjectStat { size: meta.size, modified: meta.last_modified.timestamp_micros() }
    }
}

/// All bytes of an answer, `None` if they are more than `bytes_max`; an error if they are not what the store announced.
pub(super) async fn collect(found: GetResult, bytes_max: u64) -> object_store::Result<Option<Bytes>> {
    let announced = found.range.end.saturating_sub(found.range.start);
    if announced > bytes_max {
        return Ok(None);
    }
    if let GetResultPayload::File(file, _) = found.payload {
        return read_range(file, found.range.start, announced).await.map(Some);
    }
    let mut parts = Vec::new();
    let mut len = 0;
    let mut stream = found.into_stream();
    while let Some(part) = stream.next().await {
        let part = part?;
        len += part.len() as u64;
        if len > announced {
            return Err(failed("more bytes came than were announced"));
        }
        parts.push(part);
    }
    if len != announced {
        return Err(failed("the answer ended early"));
    }
    Ok(Some(if parts.len() == 1 { parts.remove(0) } else { parts.concat().into() }))
}

/// A range of a file in one go: as a stream it would come in pieces of 8 KiB, each by way of another thread.
async fn read_range(mut file: std::fs::File, start: u64, len: u64) -> object_store::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        // The file is that long, or was just now.
        bytes.try_reserve_exact(usize::try_from(len).map_err(std::io::Error::other)?)?;
        file.take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let read: std::io::Result<Vec<u8>> = read.await?;
    let bytes = read.map_err(|error| object_store::Error::Generic { store: "archive", source: Box::new(error) })?;
    if bytes.len() as u64 == len { Ok(bytes.into()) } else { Err(failed("the answer ended early")) }
}

/// An error that a retry may mend.
pub(super) fn failed(message: &str) -> object_store::Error {
    object_store::Error::Generic { store: "archive", source: message.into() }
}
