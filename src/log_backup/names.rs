//! The layout of an archive: every object name, in one place. Names here are for ever.
//!
//! ```text
//! v1/HEAD                                       what the archive is; the only object that is ever replaced, but pins
//! v1/log/<timeline>/<n div 4096>/<n>            segments of the log, consecutive numbers, each created once
//! v1/data/<hash, 2 digits>/<hash>-<nonce>       files of base snapshots and of ingested groups, never renamed or revived
//! v1/snapshots/<id>-<nonce>                     manifests of base snapshots; the one that HEAD names counts
//! v1/compactions/<name>/SPEC                    what a compaction is of, made once; its name is used up for ever
//! v1/compactions/<name>/results/<shard>         what came out of a shard, made once
//! v1/compactions/<name>/progress/<shard>/<nonce> how far a shard had come; means nothing once it has a result
//! v1/compactions/<name>/data/<hash>-<nonce>     files of it
//! v1/compactions/<name>/END                     how it ended, made once; the one that HEAD names counts
//! v1/gc/<id>                                    lists of doomed objects
//! v1/pins/<id>                                  what is in use, and by whom
//! v1/clock/<nonce>, v1/probe/<nonce>-<what>      an instant of a judge of pins; an instant of the probe of the store
//! ```
//!
//! Invariants: a name is made of 2 to 8 parts of `A-Z a-z 0-9 . _ -`, none of them `.` or `..`, at most 512 bytes in all,
//! and begins with `v1`; whatever else a store lists is foreign and is never read.

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// The first part of every name: the version of the layout.
pub const LAYOUT: &str = "v1";
/// Where segments stand.
pub const LOG: &str = "v1/log";
/// Where files of base snapshots and of ingested groups stand.
pub const DATA: &str = "v1/data";
/// Where manifests of base snapshots stand.
pub const SNAPSHOTS: &str = "v1/snapshots";
/// Where compactions stand.
pub const COMPACTIONS: &str = "v1/compactions";
/// Where lists of doomed objects stand.
pub const GC: &str = "v1/gc";
/// Where pins stand.
pub const PINS: &str = "v1/pins";
/// Where a judge of pins reads the store's clock.
pub const CLOCK: &str = "v1/clock";
/// Where the probe of a store tries it out.
pub const PROBE: &str = "v1/probe";

/// The longest object that is ever replaced by a compare-and-swap, in bytes.
pub const SWAPPED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 512;
/// The most parts of a name.
pub const NAME_PARTS_MAX: usize = 8;
/// Segments in one folder.
pub const SEGMENTS_PER_FOLDER: u64 = 4096;
/// Segment numbers are below this, so that their names have one width.
pub const SEGMENT_NUMBERS: u64 = 1_000_000_000_000;

/// A name that was checked, relative to the archive's prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidArgument` if it breaks a rule of this module's page.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let sound = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed);
        let parts = name.split('/').count();
        let whole = name.len() <= NAME_BYTES_MAX && (2..=NAME_PARTS_MAX).contains(&parts);
        if !whole || !name.split('/').all(sound) || !name.starts_with("v1/") {
            let message = format!("`{}` is no name of the archive's layout", crate::error::show_key(name.as_bytes()));
            return Err(Error::new(ErrorKind::InvalidArgument, "name an object", message));
        }
        Ok(ObjectName(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last `/`.
    pub fn last_part(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// A name from parts that this module made.
    fn made(name: String) -> Self {
        ObjectName::new(name).expect("the layout makes sound names")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        ObjectName::new(name)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.0
    }
}

/// The object that says what the archive is.
pub fn head() -> ObjectName {
    ObjectName::made(format!("{LAYOUT}/HEAD"))
}

/// Where the segments of a timeline stand.
pub fn log_of(timeline: Uuid) -> String {
    format!("{LOG}/{timeline}")
}

/// Segment `number` of a timeline.
///
/// # Errors
/// `InvalidArgument` if the number is not below [`SEGMENT_NUMBERS`].
pub fn segment(timeline: Uuid, number: u64) -> Result<ObjectName> {
    if number >= SEGMENT_NUMBERS {
        let message = format!("segment numbers end at {SEGMENT_NUMBERS}");
        return Err(Error::new(ErrorKind::InvalidArgument, "name a segment", message));
    }
    let folder = number / SEGMENTS_PER_FOLDER;
    Ok(ObjectName::made(format!("{LOG}/{timeline}/{folder:09}/{number:012}")))
}

/// A file with these contents; the nonce keeps the name from ever being used twice.
pub fn data(hash: ContentHash, nonce: Uuid) -> ObjectName {
    let hash = hash.to_string();
    ObjectName::made(format!("{DATA}/{}/{hash}-{}", &hash[..2], nonce.simple()))
}

/// A manifest of a base snapshot. Each attempt to store one has a nonce of its own.
pub fn snapshot(id: Uuid, nonce: Uuid) -> ObjectName {
    ObjectName::made(format!("{SNAPSHOTS}/{id}-{}", nonce.simple()))
}

/// What a compaction is of.
///
/// # Errors
/// `InvalidArgument` if its name is no part of a name.
pub fn compaction_spec(name: &str) -> Result<ObjectName> {
    of_compaction(name, "SPEC")
}

/// What came out of a shard of a compaction; shards count from 1.
///
/// # Errors
/// As [`compaction_spec`].
pub fn compaction_result(name: &str, shard: u32) -> Result<ObjectName> {
    of_compaction(name, &format!("results/{shard:06}"))
}

/// How far a shard of a compaction has come; each note of it has a nonce of its own.
///
/// # Errors
/// As [`compaction_spec`].
pub fn compaction_progress(name: &str, shard: u32, nonce: Uuid) -> Result<ObjectName> {
    of_compaction(name, &format!("progress/{shard:06}/{}", nonce.simple()))
}

/// Where the notes of how far a shard has come stand.
///
/// # Errors
/// As [`compaction_spec`].
pub fn compaction_progress_of(name: &str, shard: u32) -> Result<ObjectName> {
    of_compaction(name, &format!("progress/{shard:06}"))
}

/// A file of a compaction; the nonce keeps the name from ever being used twice.
///
/// # Errors
/// As [`compaction_spec`].
pub fn compaction_data(name: &str, hash: ContentHash, nonce: Uuid) -> Result<ObjectName> {
    of_compaction(name, &format!("data/{hash}-{}", nonce.simple()))
}

/// How a compaction ended.
///
/// # Errors
/// As [`compaction_spec`].
pub fn compaction_end(name: &str) -> Result<ObjectName> {
    of_compaction(name, "END")
}

fn of_compaction(name: &str, rest: &str) -> Result<ObjectName> {
    if name.contains('/') {
        let message = format!("`{}` is no name of a compaction", crate::error::show_key(name.as_bytes()));
        return Err(Error::new(ErrorKind::InvalidArgument, "name an object", message));
    }
    ObjectName::new(format!("{COMPACTIONS}/{name}/{rest}"))
}

/// A list of doomed objects.
pub fn gc(id: Uuid) -> ObjectName {
    ObjectName::made(format!("{GC}/{id}"))
}

/// A pin.
pub fn pin(id: Uuid) -> ObjectName {
    ObjectName::made(format!("{PINS}/{id}"))
}

/// An object that a judge of pins writes to read the store's clock.
pub fn clock(nonce: Uuid) -> ObjectName {
    ObjectName::made(format!("{CLOCK}/{nonce}"))
}

/// An object of the probe.
pub fn probe(nonce: Uuid, what: &str) -> ObjectName {
    ObjectName::made(format!("{PROBE}/{nonce}-{what}"))
}

/// What an object is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The archive's HEAD.
    Head,
    /// A segment of the log.
    Segment {
        /// Its timeline.
        timeline: Uuid,
        /// Its number.
        number: u64,
    },
    /// A file of a base snapshot or of an ingested group, or the list of such a group.
    Data,
    /// A manifest of a base snapshot.
    Snapshot,
    /// The SPEC of a compaction, which stays for ever: its name is used up.
    CompactionSpec,
    /// Anything else of a compaction.
    Compaction,
    /// A list of doomed objects.
    Gc,
    /// A pin.
    Pin(Uuid),
    /// What a judge of pins, or the probe, lets stand for an instant.
    Instant,
    /// None that this version makes.
    Unknown,
}

/// What an object is: names that differ in the least from those above are unknown.
pub fn kind(name: &ObjectName) -> Kind {
    let folder = name.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
    let (last, id) = (name.last_part(), Uuid::try_parse(name.last_part()).ok());
    let with_nonce = || {
        let (front, nonce) = last.rsplit_once('-')?;
        Some((front.to_owned(), Uuid::try_parse(nonce).ok()?))
    };
    let known = match folder {
        LAYOUT => Some((Kind::Head, head())),
        SNAPSHOTS => with_nonce()
            .and_then(|(front, nonce)| Some((Kind::Snapshot, snapshot(Uuid::try_parse(&front).ok()?, nonce)))),
        GC => id.map(|id| (Kind::Gc, gc(id))),
        PINS => id.map(|id| (Kind::Pin(id), pin(id))),
        CLOCK => id.map(|id| (Kind::Instant, clock(id))),
        PROBE => with_nonce_first(last).map(|(nonce, what)| (Kind::Instant, probe(nonce, what))),
        _ if folder.starts_with(DATA) => {
            with_nonce().and_then(|(front, nonce)| Some((Kind::Data, data(ContentHash::try_from(front).ok()?, nonce))))
        }
        _ if folder.starts_with(COMPACTIONS) => of_a_compaction(name),
        _ => folder.strip_prefix(LOG).and_then(|rest| {
            let timeline = Uuid::try_parse(rest.split('/').nth(1)?).ok()?;
            let number = last.parse().ok()?;
            Some((Kind::Segment { timeline, number }, segment(timeline, number).ok()?))
        }),
    };
    known.filter(|(_, made)| made == name).map_or(Kind::Unknown, |(kind, _)| kind)
}

/// The name of the compaction that an object is of, and what the object is called there.
fn in_compaction(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(COMPACTIONS)?.strip_prefix('/')?.split_once('/')
}

/// The name of the compaction that an object of this name is of.
pub fn compaction_of(name: &str) -> Option<&str> {
    in_compaction(name).map(|(compaction, _)| compaction)
}

fn of_a_compaction(name: &ObjectName) -> Option<(Kind, ObjectName)> {
    let (compaction, rest) = in_compaction(name.as_str())?;
    let made = match rest.split_once('/') {
        None if rest == "SPEC" => return Some((Kind::CompactionSpec, compaction_spec(compaction).ok()?)),
        None => compaction_end(compaction),
        Some(("results", shard)) => compaction_result(compaction, shard.parse().ok()?),
        Some(("progress", note)) => {
            let (shard, nonce) = note.split_once('/')?;
            compaction_progress(compaction, shard.parse().ok()?, Uuid::try_parse(nonce).ok()?)
        }
        Some((_, file)) => {
            let (hash, nonce) = file.split_once('-')?;
            let hash = ContentHash::try_from(hash.to_owned()).ok()?;
            compaction_data(compaction, hash, Uuid::try_parse(nonce).ok()?)
        }
    };
    Some((Kind::Compaction, made.ok()?))
}

/// An id and what follows it.
fn with_nonce_first(last: &str) -> Option<(Uuid, &str)> {
    let (nonce, what) = last.split_at_checked(36)?;
    Some((Uuid::try_parse(nonce).ok()?, what.strip_prefix('-')?))
}

/// xxh3-128 of some bytes: sound against accidents, not against forgers. Written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Of all these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        ContentHash(xxhash_rust::xxh3::xxh3_128(bytes))
    }

    /// As it stands in binary formats.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From a binary format.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        ContentHash(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for ContentHash {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = digits.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        let invalid = || Error::new(ErrorKind::InvalidArgument, "read a hash", "it is not 32 lower-case hex digits");
        hash.map(ContentHash).ok_or_else(invalid)
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

/// An object that something refers to: with it, a missing or damaged one is seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectReference {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub size: u64,
    /// The hash of its contents.
    pub hash: ContentHash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_documented_form() {
        let id = Uuid::from_u128(7);
        let text = "00000000-0000-0000-0000-000000000007";
        assert_eq!(head().as_str(), "v1/HEAD");
        assert_eq!(segment(id, 4097).unwrap().as_str(), format!("v1/log/{text}/000000001/000000004097"));
        assert_eq!(pin(id).as_str(), format!("v1/pins/{text}"));
        let name = data(ContentHash::of(b""), id);
        let hash = "99aa06d3014798d86001c324468d497f";
        assert_eq!(name.as_str(), format!("v1/data/99/{hash}-00000000000000000000000000000007"));
        assert_eq!(compaction_spec("2026-01").unwrap().as_str(), "v1/compactions/2026-01/SPEC");
        assert_eq!(compaction_result("x", 7).unwrap().as_str(), "v1/compactions/x/results/000007");
        assert_eq!(compaction_end("x").unwrap().as_str(), "v1/compactions/x/END");
        let note = compaction_progress("x", 7, id).unwrap();
        assert_eq!(note.as_str(), "v1/compactions/x/progress/000007/00000000000000000000000000000007");
        assert!(note.as_str().starts_with(compaction_progress_of("x", 7).unwrap().as_str()));
        let data = compaction_data("x", ContentHash::of(b""), id).unwrap();
        assert_eq!(data.as_str(), format!("v1/compactions/x/data/{hash}-00000000000000000000000000000007"));
        for name in ["", ".", "..", "a/b", "a b", "é"] {
            assert_eq!(compaction_spec(name).unwrap_err().kind(), ErrorKind::InvalidArgument, "{name}");
        }
        assert_eq!(segment(id, SEGMENT_NUMBERS).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(segment(id, 4095).unwrap() < segment(id, 4096).unwrap());
        assert!(segment(id, 9_999).unwrap() < segment(id, 10_000).unwrap());
    }

    #[test]
    fn every_name_that_is_made_is_known_and_no_other() {
        let (id, nonce) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let (timeline, number) = (id, 9_999);
        for (name, expected) in [
            (head(), Kind::Head),
            (segment(id, number).unwrap(), Kind::Segment { timeline, number }),
            (data(ContentHash(5), nonce), Kind::Data),
            (snapshot(id, nonce), Kind::Snapshot),
            (gc(id), Kind::Gc),
            (compaction_spec("x").unwrap(), Kind::CompactionSpec),
            (compaction_result("x", 7).unwrap(), Kind::Compaction),
            (compaction_progress("x", 7, nonce).unwrap(), Kind::Compaction),
            (compaction_data("x", ContentHash(5), nonce).unwrap(), Kind::Compaction),
            (compaction_end("x").unwrap(), Kind::Compaction),
            (pin(id), Kind::Pin(id)),
            (clock(id), Kind::Instant),
            (probe(id, "race"), Kind::Instant),
        ] {
            assert_eq!(kind(&name), expected, "{name}");
            for other in [format!("{name}x"), format!("{name}/x"), format!("v1/x{}", &name.as_str()[2..])] {
                let other = ObjectName::new(other).unwrap();
                let still = name.as_str().contains("probe") && !other.as_str().starts_with("v1/x");
                assert!(kind(&other) == Kind::Unknown || still && !other.as_str().ends_with("/x"), "{other}");
            }
        }
        let upper = data(ContentHash(0xab), nonce).to_string().replace("ab-", "AB-");
        for name in ["v1/HEAd", "v1/data/00", "v1/log/x/000000000/000000000001", "v1/compactions/x/results/7", &upper] {
            assert_eq!(kind(&ObjectName::new(name).unwrap()), Kind::Unknown, "{name}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = format!("v1/{}", "x".repeat(510));
        let deep = format!("v1{}", "/x".repeat(8));
        for name in [
            "", "v1", "v1/", "/v1/x", "v2/x", "v1//x", "v1/../x", "v1/.", "v1/a b", "v1/a#1", "v1/é", "v1/a\0", "v1/a/",
        ]
        .into_iter()
        .chain([long.as_str(), deep.as_str()])
        {
            assert_eq!(ObjectName::new(name).unwrap_err().kind(), ErrorKind::InvalidArgument, "{name}");
            let json = serde_json::to_string(name).unwrap();
            assert!(serde_json::from_str::<ObjectName>(&json).is_err(), "{name}");
        }
        assert!(ObjectName::new(format!("v1/{}", "x".repeat(509))).is_ok());
        assert!(ObjectName::new("v1/..x").is_ok());
    }

    #[test]
    fn hashes_have_one_spelling() {
        let hash = ContentHash(0xab);
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<ContentHash>(&text).unwrap(), hash);
        for wrong in ["", "ab", "000000000000000000000000000000AB", "+00000000000000000000000000000ab"] {
            assert!(ContentHash::try_from(wrong.to_string()).is_err(), "{wrong}");
        }
        assert_eq!(ContentHash::from_bytes(hash.to_bytes()), hash);
    }
}
