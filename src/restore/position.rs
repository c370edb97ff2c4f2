//! How far the log was applied, as it stands in the database that is being made.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::names::ContentHash;
use crate::restore::folder::Found;
use crate::restore::runs::LeftOut;
use crate::rocks::{Database, Family};
use crate::{control, layout::INTERNAL_RESTORE};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const POSITION_FORMAT: u32 = 1;

/// How far the log was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    format: u32,
    restore: Uuid,
    /// The leg of the plan; one behind the last once all are applied.
    pub(super) leg: usize,
    /// The segment that comes next.
    pub(super) next_segment: u64,
    /// The chain before it, if a segment of this leg was applied.
    pub(super) chain: Option<ContentHash>,
    /// The last sequence number that is in, and its time.
    pub(super) sequence: u64,
    pub(super) time: u64,
    /// Compactions whose segments are applied instead, since something is wrong with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<LeftOut>,
}

impl Position {
    /// The one that stands in the database; where none does, that of the base snapshot.
    ///
    /// # Errors
    /// `Corrupt`: it is that of another restore, or damaged; `Unsupported`; those of reading.
    pub(super) fn read(database: &Database, found: &Found) -> Result<Self> {
        let (plan, restore) = (&found.plan, found.spec.restore);
        let base = &plan.snapshot;
        let position: Position = match database.get(Family::Internal, INTERNAL_RESTORE)? {
            Some(bytes) => control::decode("read how far the log was applied", &bytes, POSITION_FORMAT)?,
            None => Position {
                format: POSITION_FORMAT,
                restore,
                leg: 0,
                next_segment: base.next_segment,
                chain: None,
                sequence: base.sequence,
                time: base.time,
                left_out: Vec::new(),
            },
        };
        if position.restore != restore || position.leg > plan.legs.len() {
            let message = "it belongs to another restore";
            return Err(Error::new(ErrorKind::Corrupt, "apply the log", message).at(database.path()));
        }
        Ok(position)
    }

    /// As it is written.
    ///
    /// # Errors
    /// `InvalidArgument`: it is too long.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        control::encode("write how far the log was applied", self)
    }
}
