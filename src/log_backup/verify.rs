//! Whether an archive still has what it says it has, without restoring anything: every object that something live refers to is
//! read, and its length and checksums are compared.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::head::Head;
use crate::log_backup::migration::Body;
use crate::log_backup::names::{ContentHash, LOG, ObjectName, ObjectReference, segment};
use crate::log_backup::pin::{Pin, PinRequest, TTL};
use crate::log_backup::referred::{listed, named};
use crate::log_backup::segment::SegmentStart;
use crate::log_backup::segment_reader::SegmentReader;
use crate::log_backup::tail::{self, Presence, presence};
use crate::log_backup::timelines::{floor_of, known_last};
use serde::Serialize;
use std::collections::BTreeSet;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

/// What is read of an object at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Segments that are sound and follow each other.
    pub segments: u64,
    /// Other objects that are sound.
    pub objects: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is not as it should be.
    pub faults: Vec<Fault>,
}

/// An object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads all that counts in an archive.
///
/// # Errors
/// `NotFound`, `Corrupt`: of HEAD itself; `Io`: the store could not be asked; `Lost`: the pin. What is wrong with an object is
/// no error.
pub fn verify(archive: &Archive) -> Result<Verified> {
    let request = PinRequest { owner: archive.url().to_owned(), purpose: "verify the archive".into(), ttl: TTL };
    let (pin, loaded) = Pin::take_and_load(archive, &request)?;
    let mut run = Check { archive, pin, verified: Verified::default(), seen: BTreeSet::new() };
    for timeline in &loaded.head.timelines {
        run.log(&loaded.head, timeline.id)?;
    }
    run.referred(&loaded.head)?;
    Ok(run.verified)
}

struct Check<'a> {
    archive: &'a Archive,
    pin: Pin,
    verified: Verified,
    /// Files are shared.
    seen: BTreeSet<ObjectName>,
}

impl Check<'_> {
    /// Notes what is wrong with an object; an error that says nothing about the object is handed on.
    fn judge<T>(&mut self, object: &ObjectName, found: Result<T>) -> Result<Option<T>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                let fault = Fault { object: object.to_string(), reason: error.message().to_owned() };
                self.verified.faults.push(fault);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn log(&mut self, head: &Head, timeline: Uuid) -> Result<()> {
        let floor = floor_of(head, timeline)?;
        let standing = self.standing(timeline)?;
        let Some(last) = known_last(head, &head.migrations.merged()?, timeline).max(standing.last().copied()) else {
            return Ok(());
        };
        let mut next: Option<SegmentStart> = None;
        for found in presence(floor, last, standing) {
            self.pin.check()?;
            let number = match found {
                Presence::Stands(number) => number,
                Presence::Missing(first, last) => {
                    let (object, reason) = (segment(timeline, first)?.to_string(), Presence::missing(first, last));
                    self.verified.faults.push(Fault { object, reason });
                    next = None;
                    continue;
                }
            };
            let name = segment(timeline, number)?;
            let found = self.segment(timeline, number, next.take());
            if let Some((after, bytes)) = self.judge(&name, found)? {
                self.verified.segments += 1;
                self.verified.bytes += bytes;
                next = Some(after);
            }
        }
        Ok(())
    }

    /// The segments that are there, ascending.
    fn standing(&self, timeline: Uuid) -> Result<Vec<u64>> {
        let mut standing = Vec::new();
        for listed in self.archive.list(&format!("{LOG}/{timeline}"))? {
            let name = listed?.name;
            // What has no segment's name is no segment.
            let number =
                name.last_part().parse().ok().filter(|number| segment(timeline, *number).is_ok_and(|own| own == name));
            standing.extend(number);
        }
        standing.sort_unstable();
        Ok(standing)
    }

    /// What the next segment begins with, and the length of this one.
    fn segment(&self, timeline: Uuid, number: u64, expected: Option<SegmentStart>) -> Result<(SegmentStart, u64)> {
        let bytes = tail::whole(self.archive, timeline, number)?;
        let mut reader = SegmentReader::new(&bytes)?;
        reader.by_ref().try_for_each(|frame| frame.map(|_| ()))?;
        if expected.is_some_and(|expected| expected != reader.header().start) {
            let message = "it does not follow the segment before it";
            return Err(Error::new(ErrorKind::Corrupt, "verify the archive", message));
        }
        Ok((reader.trailer().next(reader.header()), bytes.len() as u64))
    }

    fn referred(&mut self, head: &Head) -> Result<()> {
        let live = head.migrations.merged()?;
        for entry in live.entries.values() {
            // What a list of doomed objects lists may be gone already.
            if let Body::Gc(body) = &entry.body {
                self.object(&body.list)?;
                continue;
            }
            let (list, found) = (named(&entry.body), listed(self.archive, &entry.body));
            let Some(found) = self.judge(&list.name, found)? else { continue };
            self.verified.objects += 1;
            self.verified.bytes += list.size;
            found.iter().try_for_each(|object| self.object(object))?;
        }
        Ok(())
    }

    fn object(&mut self, reference: &ObjectReference) -> Result<()> {
        if !self.seen.insert(reference.name.clone()) {
            return Ok(());
        }
        let read = self.read(reference);
        if self.judge(&reference.name, read)?.is_some() {
            self.verified.objects += 1;
            self.verified.bytes += reference.size;
        }
        Ok(())
    }

    fn read(&self, reference: &ObjectReference) -> Result<()> {
        let corrupt = |message: String| Error::new(ErrorKind::Corrupt, "verify the archive", message);
        let size = self.archive.head(&reference.name)?.size;
        if size != reference.size {
            return Err(corrupt(format!("it has {size} bytes, {} were written", reference.size)));
        }
        let (mut hasher, mut offset) = (Xxh3::new(), 0);
        while offset < size {
            self.pin.check()?;
            let len = PIECE_BYTES.min(size - offset);
            hasher.update(&self.archive.get_range(&reference.name, offset, len as u32)?);
            offset += len;
        }
        let hash = ContentHash(hasher.digest128());
        if hash != reference.hash {
            return Err(corrupt(format!("its hash is {hash}, {} was written", reference.hash)));
        }
        Ok(())
    }
}
