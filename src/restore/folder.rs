//! The folder `<target>.restore/` and its control files.
//!
//! | file | holds | written |
//! |---|---|---|
//! | `LOCK` | nothing; whoever works on the restore has it locked | never |
//! | `SPEC` | what was asked for | once |
//! | `PLAN` | what is read, frozen | once |
//! | `STATUS` | how far it has come | last of the three, and replaced with each step |
//! | `runs/1`, `runs/2` | the runs of the two phases | |
//! | `db/` | the database that is being made, a database place of its own | |
//! | `loads/` | files of a bulk load on their way into it | |
//!
//! Invariants: without `STATUS` nothing has begun; each file has a version and a checksum and is replaced whole; all three
//! carry the restore's id, and files of different restores never pass for one.

use crate::control;
use crate::encoding::EncodingId;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs, write_atomic};
use crate::layout::{
    Layout, RESTORE_DATABASE, RESTORE_LOADS, RESTORE_LOCK, RESTORE_PLAN, RESTORE_SPEC, RESTORE_STATUS, TEMPORARY_SUFFIX,
};
use crate::lock::PlaceLock;
use crate::log_backup::names::ContentHash;
use crate::place::restore_phase::{RESTORE_FORMAT, RestorePhase};
use crate::restore::moment::Moment;
use crate::restore::plan::Plan;
use crate::restore::runs::LeftOut;
pub use crate::restore::state::{Failure, Status, Step};
use crate::trap::trap;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use uuid::Uuid;

/// The longest plan, in bytes: a leg for each timeline of an archive.
const PLAN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The version of the format.
    pub format: u32,
    /// The restore's id, and that of the change that moves the database in.
    pub restore: Uuid,
    /// The archive's URL, without credentials.
    pub archive: String,
    /// The moment.
    pub moment: Moment,
    /// Not the current timeline, but this.
    pub timeline: Option<Uuid>,
    /// Not the encoding that the timeline has, but this.
    pub encoding: Option<EncodingId>,
    /// The database at the target gives way.
    pub replace: bool,
    /// No pin is taken: the archive cannot be written.
    pub no_pin: bool,
    /// The archive is a replica.
    #[serde(default)]
    pub replica: bool,
    /// When it was created, in microseconds of the Unix epoch.
    pub created: u64,
    /// It is done in two phases, while a compaction is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_phase: Option<TwoPhase>,
}

/// What a restore in two phases waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwoPhase {
    /// The name of the compaction.
    pub compaction: String,
    /// The URL of where it stands; `None`: with the log.
    pub at: Option<String>,
    /// How long it is waited for after the creation of the restore, in microseconds; none, or none above 0: for ever.
    pub wait_timeout: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    format: u32,
    restore: Uuid,
    plan: Plan,
}

/// The folder of a restore.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The target and its siblings.
    pub target: Layout,
    /// The folder itself.
    pub path: PathBuf,
    /// The database that is being made.
    pub database: PathBuf,
    /// Files of a bulk load.
    pub loads: PathBuf,
}

/// What stands in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What was asked for.
    pub spec: Spec,
    /// What is read.
    pub plan: Plan,
    /// How far it has come.
    pub status: Status,
}

const READ: &str = "read the state of the restore";
const WRITE: &str = "write the state of the restore";

impl Found {
    /// Whether the database is at its place.
    pub fn is_complete(&self) -> bool {
        self.status.phase == RestorePhase::Complete
    }

    /// What was asked for and what is read, as hashes.
    pub(super) fn hashes(&self) -> Result<(ContentHash, ContentHash)> {
        let spec = control::encode(WRITE, &self.spec)?;
        let plan = control::encode_within(WRITE, &self.plan, PLAN_BYTES_MAX)?;
        Ok((ContentHash::of(&spec), ContentHash::of(&plan)))
    }
}

impl Folder {
    /// Of the restore to `target`; makes nothing, looks at nothing.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn of(target: &std::path::Path) -> Result<Self> {
        let target = Layout::new(target)?;
        let path = target.restore.clone();
        let (database, loads) = (path.join(RESTORE_DATABASE), path.join(RESTORE_LOADS));
        Ok(Folder { target, path, database, loads })
    }

    /// Takes the right to work on the restore; the folder must stand.
    ///
    /// # Errors
    /// `Locked`: somebody is at it.
    pub fn lock(&self, vfs: &dyn Vfs) -> Result<PlaceLock> {
        PlaceLock::acquire_file(vfs, &self.path.join(RESTORE_LOCK), &self.path)
    }

    /// Whether the folder stands.
    ///
    /// # Errors
    /// `Refused`: something else stands there; `Io`.
    pub fn stands(&self, vfs: &dyn Vfs) -> Result<bool> {
        match vfs.stat(&self.path)?.map(|stat| stat.kind) {
            None => Ok(false),
            Some(FileKind::Directory) => Ok(true),
            Some(_) => {
                let message = "it is no directory; nothing was touched";
                Err(Error::new(ErrorKind::Refused, READ, message).at(&self.path))
            }
        }
    }

    fn read_file<T: serde::de::DeserializeOwned>(
        &self,
        vfs: &dyn Vfs,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<T>> {
        let path = self.path.join(name);
        if vfs.stat(&path)?.is_none() {
            return Ok(None);
        }
        let bytes = vfs.read(&path, bytes_max)?;
        let read = control::decode_within(READ, &bytes, RESTORE_FORMAT, bytes_max);
        read.map(Some).map_err(|error| error.at(&path))
    }

    /// What stands in the folder; `None`: nothing has begun.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`: a file is damaged, missing, of another restore, or of a later version; `Io`.
    pub fn read(&self, vfs: &dyn Vfs) -> Result<Option<Found>> {
        let Some(status) = self.read_file::<Status>(vfs, RESTORE_STATUS, control::BYTES_MAX)? else { return Ok(None) };
        let spec: Option<Spec> = self.read_file(vfs, RESTORE_SPEC, control::BYTES_MAX)?;
        let plan: Option<PlanFile> = self.read_file(vfs, RESTORE_PLAN, PLAN_BYTES_MAX)?;
        let (Some(spec), Some(plan)) = (spec, plan) else {
            return Err(Error::new(ErrorKind::Corrupt, READ, "its SPEC or its PLAN is missing").at(&self.path));
        };
        if spec.restore != status.restore || plan.restore != status.restore || !plan.plan.is_sound() {
            let message = "its files are not of one restore";
            return Err(Error::new(ErrorKind::Corrupt, READ, message).at(&self.path));
        }
        Ok(Some(Found { spec, plan: plan.plan, status }))
    }

    fn write_file<T: Serialize>(&self, vfs: &dyn Vfs, name: &str, contents: &T, bytes_max: u64) -> Result<()> {
        let bytes = control::encode_within(WRITE, contents, bytes_max)?;
        write_atomic(vfs, &self.path.join(name), &self.path.join(format!("{name}{TEMPORARY_SUFFIX}")), &bytes)
    }

    /// Writes all three for a restore that begins; STATUS last.
    ///
    /// # Errors
    /// Nothing has begun, or it has.
    pub fn begin(&self, vfs: &dyn Vfs, spec: Spec, plan: Plan, left_out: Vec<LeftOut>) -> Result<Found> {
        let restore = spec.restore;
        self.write_file(vfs, RESTORE_SPEC, &spec, control::BYTES_MAX)?;
        trap!(vfs, RestoreSpecWritten);
        let file = PlanFile { format: RESTORE_FORMAT, restore, plan };
        self.write_file(vfs, RESTORE_PLAN, &file, PLAN_BYTES_MAX)?;
        trap!(vfs, RestorePlanWritten);
        let mut status = Status::new(restore, spec.two_phase.is_some());
        status.left_out = left_out;
        self.write_file(vfs, RESTORE_STATUS, &status, control::BYTES_MAX)?;
        vfs.sync_dir(&self.target.parent)?;
        trap!(vfs, RestoreBegun);
        Ok(Found { spec, plan: file.plan, status })
    }

    /// Replaces STATUS.
    ///
    /// # Errors
    /// `Conflict`: it is not what `found` says; else the old one stands, or the new one. `found` says the old one.
    pub fn note(&self, vfs: &dyn Vfs, found: &mut Found, change: impl FnOnce(&mut Status)) -> Result<()> {
        let stands = self.read_file::<Status>(vfs, RESTORE_STATUS, control::BYTES_MAX)?;
        if stands.as_ref() != Some(&found.status) {
            let message = "somebody else has written it meanwhile";
            return Err(Error::new(ErrorKind::Conflict, WRITE, message).at(self.path.join(RESTORE_STATUS)));
        }
        let mut status = found.status.clone();
        change(&mut status);
        status.generation += 1;
        self.write_file(vfs, RESTORE_STATUS, &status, control::BYTES_MAX)?;
        found.status = status;
        trap!(vfs, RestoreStatusWritten);
        Ok(())
    }
}
