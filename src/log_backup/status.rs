//! How the log backup of an open database stands.

use crate::error::{Error, ErrorKind};
use crate::log_backup::shipper::Pass;
use serde::Serialize;
use uuid::Uuid;

/// Whether the log reaches the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogBackupState {
    /// The first pass has not ended.
    #[default]
    Starting,
    /// The last pass succeeded.
    Shipping,
    /// The last pass failed; it is tried again.
    Failing,
    /// It is not tried again until the database is opened anew.
    Stopped,
}

/// How far the log has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LogBackupStatus {
    /// Whether it reaches the archive.
    pub state: LogBackupState,
    /// The timeline, once that is known.
    pub timeline: Option<Uuid>,
    /// All up to this sequence number is in the archive.
    pub shipped_sequence: u64,
    /// The time of that, in microseconds of the Unix epoch.
    pub shipped_time: u64,
    /// The log can be restored to every time up to this one.
    pub resolved: u64,
    /// How long ago that is, in seconds, if something is not shipped; else 0.
    pub lag_seconds: u64,
    /// WAL bytes that are not shipped.
    pub lag_bytes: u64,
    /// Bytes of all WAL files.
    pub retained_wal_bytes: u64,
    /// Segments stored since the start.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Base snapshots taken since the start.
    pub base_snapshots: u64,
    /// Timelines begun since the start because the log did not go on.
    pub timelines_begun: u64,
    /// Failures since the last success.
    pub failures: u64,
    /// The last error.
    pub last_error: Option<String>,
}

impl LogBackupStatus {
    pub(super) fn succeeded(&mut self, pass: &Pass) {
        self.state = LogBackupState::Shipping;
        self.timeline = Some(pass.timeline);
        (self.shipped_sequence, self.shipped_time, self.resolved) =
            (pass.shipped_sequence, pass.shipped_time, pass.resolved);
        (self.segments, self.segment_bytes) = (self.segments + pass.segments, self.segment_bytes + pass.bytes);
        self.base_snapshots += u64::from(pass.base_snapshot.is_some());
        self.timelines_begun += pass.begun.len() as u64;
        (self.failures, self.last_error) = (0, None);
    }

    pub(super) fn failed(&mut self, error: &Error, failures: u32) {
        let for_good = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Refused | ErrorKind::InvalidArgument);
        self.state = if for_good { LogBackupState::Stopped } else { LogBackupState::Failing };
        self.failures = u64::from(failures);
        self.last_error = Some(error.to_string());
    }
}
