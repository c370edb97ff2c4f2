//! HEAD: the one object that says what counts in an archive. Pure; `commit.rs` reads and replaces it.
//!
//! One JSON line and its crc32, as every control file. What is read was written whole by a version that knew the format;
//! any other bytes, and any contents that no commit makes, are an error.

pub use crate::attachment::Cause;
use crate::control;
use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::migration::Migrations;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of HEAD's format that this code writes, and the only one that it reads.
pub const HEAD_FORMAT: u32 = 1;
/// The longest HEAD, in bytes.
pub const HEAD_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How many commits HEAD remembers.
pub const COMMITS_KEPT: usize = 64;
/// The most timelines of an archive.
pub const TIMELINES_MAX: usize = 10_000;

const STEP: &str = "read the archive's HEAD";

/// A commit that HEAD remembers: whoever finds its nonce here knows that it came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitMark {
    /// What the commit was called by whoever made it.
    pub nonce: Uuid,
    /// The generation that it made.
    pub generation: u64,
}

/// A place in a timeline's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPosition {
    /// The segment.
    pub segment: u64,
    /// The last sequence number.
    pub sequence: u64,
    /// The time of that, in the log.
    pub time: u64,
}

/// Where a timeline goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// The earlier timeline.
    pub timeline: Uuid,
    /// Where it ends for this one.
    pub end: LogPosition,
}

/// One history of a database, in one encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// Its id.
    pub id: Uuid,
    /// What it goes on from; `None` for the first.
    pub parent: Option<Parent>,
    /// How its keys are encoded.
    pub encoding: EncodingId,
    /// Why it began.
    pub cause: Cause,
}

impl Timeline {
    /// Whether its beginning can be had from its parent's end; otherwise nothing in it can be restored before it has a
    /// base snapshot.
    pub fn is_derivable(&self) -> bool {
        self.parent.is_some() && matches!(self.cause, Cause::Conversion | Cause::Restore)
    }
}

/// The contents of HEAD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`HEAD_FORMAT`].
    pub format: u32,
    /// The archive.
    pub archive: Uuid,
    /// How many commits there were.
    pub generation: u64,
    /// The last [`COMMITS_KEPT`] of them, the latest last.
    pub commits: Vec<CommitMark>,
    /// All timelines; a parent stands before its children.
    pub timelines: Vec<Timeline>,
    /// The timeline that the attached database writes.
    pub current: Uuid,
    /// Snapshots, ingested groups, compactions, doomed objects, floors.
    pub migrations: Migrations,
}

impl Head {
    /// The HEAD of a new archive, whose making counts as commit `nonce`.
    pub fn new(archive: Uuid, first: Timeline, nonce: Uuid) -> Self {
        Head {
            format: HEAD_FORMAT,
            archive,
            generation: 1,
            commits: vec![CommitMark { nonce, generation: 1 }],
            current: first.id,
            timelines: vec![first],
            migrations: Migrations::default(),
        }
    }

    /// The timeline of this id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn timeline(&self, id: Uuid) -> Result<&Timeline> {
        let found = self.timelines.iter().find(|timeline| timeline.id == id);
        let missing =
            || Error::new(ErrorKind::NotFound, "find a timeline", format!("the archive has none called {id}"));
        found.ok_or_else(missing)
    }

    /// A timeline, its parent, and so on to the first.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn ancestry(&self, id: Uuid) -> Result<Vec<&Timeline>> {
        let mut line = vec![self.timeline(id)?];
        while let Some(parent) = line.last().and_then(|timeline| timeline.parent) {
            line.push(self.timeline(parent.timeline)?);
        }
        Ok(line)
    }

    /// Adds a timeline and makes it the current one; one that is there already (with the same contents) only becomes
    /// current, so that a commit can be repeated.
    ///
    /// # Errors
    /// `NotFound`: its parent is not there; `Conflict`: its id has other contents.
    pub fn begin_timeline(&mut self, timeline: Timeline) -> Result<()> {
        let step = "begin a timeline";
        if let Some(parent) = timeline.parent {
            self.timeline(parent.timeline)?;
        }
        match self.timelines.iter().find(|known| known.id == timeline.id) {
            Some(known) if *known != timeline => {
                let message = format!("{} stands in the archive with other contents", timeline.id);
                return Err(Error::new(ErrorKind::Conflict, step, message));
            }
            Some(_) => {}
            None if self.timelines.len() >= TIMELINES_MAX => {
                let message = format!("the archive has {TIMELINES_MAX} timelines already");
                return Err(Error::new(ErrorKind::Unsupported, step, message).next("attach to a new archive"));
            }
            None => self.timelines.push(timeline.clone()),
        }
        self.current = timeline.id;
        Ok(())
    }

    /// Whether a commit came through, as far as this HEAD can tell: `None` if it would be forgotten by now.
    pub fn knows(&self, nonce: Uuid, generation: u64) -> Option<bool> {
        if self.commits.iter().any(|mark| mark.nonce == nonce) {
            return Some(true);
        }
        let oldest = self.commits.first().map_or(0, |mark| mark.generation);
        (oldest <= generation || self.generation < generation).then_some(false)
    }

    /// This HEAD after one more commit.
    ///
    /// # Errors
    /// `Unsupported` after 2^64 of them.
    pub fn committed(mut self, nonce: Uuid, earlier: &Head) -> Result<Head> {
        let none =
            || Error::new(ErrorKind::Unsupported, "commit to the archive's HEAD", "there are no more generations");
        self.generation = earlier.generation.checked_add(1).ok_or_else(none)?;
        self.commits.clone_from(&earlier.commits);
        self.commits.push(CommitMark { nonce, generation: self.generation });
        let over = self.commits.len().saturating_sub(COMMITS_KEPT);
        self.commits.drain(..over);
        (self.format, self.archive) = (HEAD_FORMAT, earlier.archive);
        Ok(self)
    }

    /// The bytes of HEAD.
    ///
    /// # Errors
    /// `InvalidArgument` if it would be too long, or could not be read again.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let step = "write the archive's HEAD";
        self.check().map_err(|error| Error::new(ErrorKind::InvalidArgument, step, error.message().to_string()))?;
        control::encode_within(step, self, HEAD_BYTES_MAX)
    }

    /// Reads HEAD.
    ///
    /// # Errors
    /// `Corrupt`; `Unsupported` for a later format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let head: Head = control::decode_within(STEP, bytes, HEAD_FORMAT, HEAD_BYTES_MAX)?;
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<()> {
        let corrupt = |message: &str| Err(Error::new(ErrorKind::Corrupt, STEP, message));
        let marks = &self.commits;
        let consecutive = marks.windows(2).all(|pair| pair[1].generation.checked_sub(1) == Some(pair[0].generation));
        let complete = marks.len() as u64 == self.generation.min(COMMITS_KEPT as u64);
        let latest = marks.last().is_some_and(|mark| mark.generation == self.generation);
        if !consecutive || !complete || !latest {
            return corrupt("its list of commits does not fit its generation");
        }
        if self.timelines.len() > TIMELINES_MAX {
            return corrupt("it has too many timelines");
        }
        let mut known = std::collections::BTreeSet::new();
        for timeline in &self.timelines {
            if timeline.parent.is_some_and(|parent| !known.contains(&parent.timeline)) || !known.insert(timeline.id) {
                return corrupt("its timelines are no tree");
            }
        }
        if !known.contains(&self.current) {
            return corrupt("its current timeline is none of its timelines");
        }
        self.migrations.check()
    }
}
