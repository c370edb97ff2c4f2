//! Where a timeline ends in an archive. Nothing is listed: numbers are consecutive, so a segment is found by halving.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::names::{self, SEGMENT_NUMBERS};
use crate::log_backup::segment::{HEADER_BYTES, Header, SEGMENT_BYTES_MAX, SegmentStart, TRAILER_BYTES, Trailer};
use crate::log_backup::segment_reader::{SegmentReader, read_header, read_trailer};
use bytes::Bytes;
use uuid::Uuid;

const STEP: &str = "find the end of the log in the archive";

/// The shortest segment, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = (HEADER_BYTES + TRAILER_BYTES) as u64;

/// A segment without its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Its header.
    pub header: Header,
    /// Its trailer.
    pub trailer: Trailer,
}

impl Ends {
    /// What the next segment begins with.
    pub fn next(&self) -> SegmentStart {
        self.trailer.next(&self.header)
    }
}

/// Whether a segment stands there.
///
/// # Errors
/// `Io`.
pub fn exists(archive: &Archive, timeline: Uuid, number: u64) -> Result<bool> {
    match archive.head(&names::segment(timeline, number)?) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What there is of the segments that a timeline should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// One that stands.
    Stands(u64),
    /// These do not, the last one included. However many: a name says what it likes.
    Missing(u64, u64),
}

impl Presence {
    /// What is wrong with segments that are missing, told of the first of them.
    pub fn missing(first: u64, last: u64) -> String {
        match last - first {
            0 => "it is not there".into(),
            more => format!("it is not there, and {more} after it"),
        }
    }
}

/// Goes through the segments from `floor` to `last`, of which `standing` are there, ascending.
pub fn presence(floor: u64, last: u64, standing: impl IntoIterator<Item = u64>) -> impl Iterator<Item = Presence> {
    let mut next = floor;
    let standing = standing.into_iter().filter(move |number| (floor..=last).contains(number)).map(Some);
    standing.chain([None]).flat_map(move |number| {
        let end = number.unwrap_or(last.saturating_add(1));
        let missing = (next < end).then(|| Presence::Missing(next, end - 1));
        next = end.saturating_add(1);
        missing.into_iter().chain(number.map(Presence::Stands))
    })
}

/// The last segment of a timeline, whose first one that was not deleted is `floor`; `None` if there is none.
///
/// # Errors
/// `Io`.
pub fn last_number(archive: &Archive, timeline: Uuid, floor: u64) -> Result<Option<u64>> {
    if floor >= SEGMENT_NUMBERS || !exists(archive, timeline, floor)? {
        return Ok(None);
    }
    let (mut there, mut step) = (floor, 1);
    let mut missing = loop {
        let next = there.saturating_add(step).min(SEGMENT_NUMBERS);
        if next == SEGMENT_NUMBERS || !exists(archive, timeline, next)? {
            break next;
        }
        (there, step) = (next, step * 2);
    };
    while missing - there > 1 {
        let middle = there + (missing - there) / 2;
        if exists(archive, timeline, middle)? { there = middle } else { missing = middle }
    }
    Ok(Some(there))
}

/// Header and trailer of a segment, by ranged gets.
///
/// # Errors
/// `NotFound`; `Corrupt`: also if it is another segment than its name says; `Unsupported`, `Io`.
pub fn ends(archive: &Archive, timeline: Uuid, number: u64) -> Result<Ends> {
    let name = names::segment(timeline, number)?;
    let place = |error: Error| error.at(archive.place(&name));
    let head = archive.get_range(&name, 0, HEADER_BYTES as u32)?;
    let header = read_header(&head).map_err(place)?;
    require_named(&header, timeline, number).map_err(place)?;
    let offset = header.object_bytes() - TRAILER_BYTES as u64;
    let tail = archive.get_range(&name, offset, TRAILER_BYTES as u32)?;
    let trailer = read_trailer(&tail).map_err(place)?;
    // The trailer repeats the header's checksum.
    if tail[TRAILER_BYTES - 8..TRAILER_BYTES - 4] != head[HEADER_BYTES - 4..] {
        return Err(place(Error::new(ErrorKind::Corrupt, STEP, "its header and its trailer do not belong together")));
    }
    Ok(Ends { header, trailer })
}

/// The header of a segment.
///
/// # Errors
/// As [`ends`].
pub fn header(archive: &Archive, timeline: Uuid, number: u64) -> Result<Header> {
    let name = names::segment(timeline, number)?;
    let place = |error: Error| error.at(archive.place(&name));
    let header = read_header(&archive.get_range(&name, 0, HEADER_BYTES as u32)?).map_err(place)?;
    require_named(&header, timeline, number).map_err(place)?;
    Ok(header)
}

fn require_named(header: &Header, timeline: Uuid, number: u64) -> Result<()> {
    if (header.start.timeline, header.start.number) == (timeline, number) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, STEP, "it is another segment than its name says"))
}

/// A whole segment; its checksums hold, and it is the one that its name says.
///
/// # Errors
/// As [`ends`].
pub fn whole(archive: &Archive, timeline: Uuid, number: u64) -> Result<Bytes> {
    let name = names::segment(timeline, number)?;
    let bytes = archive.get(&name, SEGMENT_BYTES_MAX)?.bytes;
    let read = SegmentReader::new(&bytes).and_then(|reader| require_named(reader.header(), timeline, number));
    read.map_err(|error| error.at(archive.place(&name)))?;
    Ok(bytes)
}

/// The last segment in `floor..=last` that has a frame with a sequence number up to `sequence`, if the log in them reaches
/// that far back.
///
/// # Errors
/// As [`ends`].
pub fn holding(archive: &Archive, timeline: Uuid, floor: u64, last: u64, sequence: u64) -> Result<Option<u64>> {
    let begins_after = |number| Ok(header(archive, timeline, number)?.start.first_sequence > sequence);
    if begins_after(floor)? {
        return Ok(None);
    }
    let (mut before, mut after) = (floor, last + 1);
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if begins_after(middle)? { after = middle } else { before = middle }
    }
    Ok(Some(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_one_however_wide() {
        let of = |floor, last, standing: &[u64]| presence(floor, last, standing.iter().copied()).collect::<Vec<_>>();
        use Presence::{Missing, Stands};
        assert_eq!(of(0, 2, &[0, 1, 2]), [Stands(0), Stands(1), Stands(2)]);
        assert_eq!(
            of(2, 1 << 40, &[0, 3, 1 << 40]),
            [Missing(2, 2), Stands(3), Missing(4, (1 << 40) - 1), Stands(1 << 40)]
        );
        assert_eq!(of(5, 9, &[]), [Missing(5, 9)]);
        assert_eq!(of(5, u64::MAX, &[]), [Missing(5, u64::MAX - 1)]);
        assert_eq!(of(0, 3, &[1]), [Missing(0, 0), Stands(1), Missing(2, 3)]);
        assert_eq!(
            (Presence::missing(3, 3), Presence::missing(3, 5)),
            ("it is not there".into(), "it is not there, and 2 after it".into())
        );
    }
}
