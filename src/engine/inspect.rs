//! Looking at a place without a lock and without writing: what stands there, and what the next open would do.

use super::options::Options;
use crate::attachment::{self, Cause};
use crate::control::BYTES_MAX;
use crate::error::{ErrorKind, Result};
use crate::fs::{FileKind, Vfs, tree_size};
use crate::layout::{Layout, UNSHIPPED};
use crate::marker::Sealed;
use crate::place::decide::{self, Action, Change, Live};
use crate::place::journal::{Journal, Phase};
use crate::place::{self, Sight};
use crate::rocks::{Database, Settings};
use serde::Serialize;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What stands at one of the names beside a database, or at its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sibling {
    /// The full path.
    pub path: String,
    /// `live`, `lock`, `journal`, `staging`, `backup_dir`, `trash`, `restore`.
    pub role: &'static str,
    /// What it is: `absent`, `present`, or what the recovery table calls it.
    pub state: String,
    /// Bytes in its files.
    pub bytes: u64,
}

/// The log archive that a database is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachedTo {
    /// The archive's URL, without credentials; `None`: what says so is damaged, and the database cannot be opened.
    pub archive: Option<String>,
    /// The timeline that this directory writes.
    pub timeline: Option<Uuid>,
    /// Why that timeline began.
    pub cause: Option<Cause>,
    /// The log from before the last conversion or restore is still to be shipped: another one has to wait for it.
    pub unshipped_before_conversion: bool,
    /// Why it cannot be read.
    pub reason: Option<String>,
}

/// What [`inspect`] saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The live directory.
    pub path: String,
    /// The encoding's name, if it is known.
    pub encoding: Option<String>,
    /// Its revision.
    pub revision: Option<u32>,
    /// The database's id.
    pub database_id: Option<String>,
    /// The id of this copy.
    pub instance_id: Option<String>,
    /// `absent`, `whole`, `legacy`, `building`, `ready`, `done`, `kept`, `destroying` or `refused`.
    pub state: String,
    /// What the next open would do, in words.
    pub next_action: String,
    /// The row of the recovery table.
    pub row: u8,
    /// What is wrong, if anything.
    pub reason: Option<String>,
    /// Entries, as RocksDB estimates them.
    pub entries_estimate: Option<u64>,
    /// Bytes of the live directory.
    pub bytes: u64,
    /// Count and digest when it was sealed.
    pub sealed: Option<Sealed>,
    /// The change under way.
    pub journal: Option<Journal>,
    /// Whether it is attached to a log archive.
    pub attached: bool,
    /// To which, if it is.
    pub attachment: Option<AttachedTo>,
    /// Everything that belongs, or may belong, to it.
    pub siblings: Vec<Sibling>,
}

/// A look is repeated so many times while the place is being changed. A change has fewer steps than that.
const LOOKS_MAX: usize = 40;

/// Looks at the place of `path`. Takes no lock and writes nothing, so while another process changes it the answer may be
/// of a moment ago; but it is of one moment.
///
/// # Errors
/// `InvalidArgument` (the name), `Io`.
pub fn inspect(path: impl AsRef<Path>, options: &Options) -> Result<Inspection> {
    let vfs = options.file_operations()?;
    let layout = Layout::new(path.as_ref())?;
    let mut before = Scene::of(&*vfs, &layout)?;
    let mut looks = 0;
    loop {
        let seen = look(&*vfs, &layout, options);
        let after = Scene::of(&*vfs, &layout)?;
        looks += 1;
        if before == after || looks == LOOKS_MAX {
            return seen;
        }
        before = after;
    }
}

/// What stands at the names of a place, and what the journal says: every step of a change alters it. Without the lock
/// that is how a look knows that it saw no mixture.
#[derive(PartialEq)]
struct Scene {
    journal: Option<Vec<u8>>,
    /// Device and inode of each.
    siblings: Vec<Option<(u64, u64)>>,
}

impl Scene {
    fn of(vfs: &dyn Vfs, layout: &Layout) -> Result<Scene> {
        // What is no journal, or is just being replaced, has no bytes here; looking at it tells.
        let journal = vfs.read(&layout.journal, BYTES_MAX).ok();
        let names = [&layout.live, &layout.staging, &layout.backup_dir, &layout.trash, &layout.restore];
        let which = |path: &PathBuf| Ok(vfs.stat(path)?.map(|stat| (stat.device, stat.inode)));
        let siblings = names.into_iter().map(which).collect::<Result<_>>()?;
        Ok(Scene { journal, siblings })
    }
}

fn look(vfs: &dyn Vfs, layout: &Layout, options: &Options) -> Result<Inspection> {
    let sight = place::observe(vfs, layout)?;
    let (row, action) = decide::decide(&sight.observed);
    let legacy = sight.observed.live == Live::Whole && sight.marker.is_none();
    let encoding = match &sight.marker {
        Some(marker) => Some(marker.encoding.clone()),
        None => legacy.then(|| crate::encoding::EncodingId::of(&crate::encoding::SlashSpans)),
    };
    let siblings = siblings(vfs, layout, &sight)?;
    let attachment = attached_to(vfs, layout)?;
    Ok(Inspection {
        path: layout.live.display().to_string(),
        encoding: encoding.as_ref().map(|id| id.name.clone()),
        revision: encoding.as_ref().map(|id| id.revision),
        database_id: sight.marker.as_ref().map(|marker| marker.database_id.to_string()),
        instance_id: sight.marker.as_ref().map(|marker| marker.instance_id.to_string()),
        state: state_name(&sight, action).into(),
        next_action: next_action(action, &sight),
        row,
        reason: (action == Action::Refuse).then(|| place::refusal(layout, row, &sight).message().to_owned()),
        entries_estimate: entries_estimate(vfs, layout, options, legacy, &sight),
        bytes: siblings.iter().find(|sibling| sibling.role == "live").map_or(0, |sibling| sibling.bytes),
        sealed: sight.marker.as_ref().and_then(|marker| marker.sealed.clone()),
        attached: attachment.is_some(),
        attachment,
        journal: sight.journal,
        siblings,
    })
}

fn attached_to(vfs: &dyn Vfs, layout: &Layout) -> Result<Option<AttachedTo>> {
    let found = match attachment::read(vfs, &layout.live) {
        Ok(None) => return Ok(None),
        Ok(Some(found)) => Ok(found),
        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
        Err(error) => Err(error.to_string()),
    };
    let said = found.as_ref().ok();
    Ok(Some(AttachedTo {
        archive: said.map(|found| found.archive.clone()),
        timeline: said.map(|found| found.timeline),
        cause: said.map(|found| found.cause),
        unshipped_before_conversion: vfs.stat(&layout.live.join(UNSHIPPED))?.is_some(),
        reason: found.err(),
    }))
}

/// The name of a place's state.
///
/// # Errors
/// `Io`.
pub(super) fn state_of(vfs: &dyn Vfs, layout: &Layout) -> Result<String> {
    let sight = place::observe(vfs, layout)?;
    let (_, action) = decide::decide(&sight.observed);
    Ok(state_name(&sight, action).into())
}

fn state_name(sight: &Sight, action: Action) -> &'static str {
    if action == Action::Refuse {
        return "refused";
    }
    match sight.observed.change {
        Change::None if action == Action::Absent => "absent",
        Change::None if sight.marker.is_none() => "legacy",
        Change::None => "whole",
        Change::Unreadable => "refused",
        Change::Of { kind: crate::place::journal::Kind::Destroy, .. } => "destroying",
        Change::Of { phase, .. } => match phase {
            Phase::Building => "building",
            Phase::Ready => "ready",
            Phase::Done => "done",
            Phase::Kept => "kept",
        },
    }
}

fn next_action(action: Action, sight: &Sight) -> String {
    match action {
        Action::Refuse => "refuse, and touch nothing",
        Action::Absent => "say that there is no database (or create one, if asked)",
        Action::Open if sight.marker.is_none() => "refuse to write; convert if an encoding is named",
        Action::Open => "open it",
        Action::Keep => {
            "open it; the unfinished conversion goes on if its encoding is asked for, and is dropped if not"
        }
        Action::OpenThenSweep => "open it, then remove what the finished change left",
        Action::Drop => "remove the unfinished staging directory, then open what is live",
        Action::DiscardOlder => "go on with the swap: the database that was kept before is removed",
        Action::LiveToBackup => "go on with the swap: live moves to the backup directory",
        Action::StagingToLive => "go on with the swap: staging moves to live",
        Action::BackupToLive => "put the old database back from the backup directory",
        Action::LiveToStaging => "move live out of the way, then put the old database back",
        Action::Settle => "settle the finished swap, then open it",
        Action::KeepAfterAll => "give the rollback up and open what is live",
        Action::RollbackDone => "settle the rollback, then open it",
        Action::OpenThenSweepRollback => "open it, then remove what was rolled back",
        Action::DropJournal => "open it; the kept database is gone",
        Action::Destroy => "go on with the destruction",
    }
    .into()
}

fn siblings(vfs: &dyn Vfs, layout: &Layout, sight: &Sight) -> Result<Vec<Sibling>> {
    let seen = &sight.observed;
    let rows = [
        (&layout.live, "live", format!("{:?}", seen.live).to_lowercase()),
        (&layout.lock, "lock", "present".into()),
        (&layout.journal, "journal", "present".into()),
        (&layout.staging, "staging", format!("{:?}", seen.staging).to_lowercase()),
        (&layout.backup_dir, "backup_dir", format!("{:?}", seen.backup).to_lowercase()),
        (&layout.trash, "trash", "present".into()),
        (&layout.restore, "restore", "present".to_string()),
    ];
    let mut siblings = Vec::new();
    for (path, role, state) in rows {
        let (state, bytes) = match vfs.stat(path)? {
            None => ("absent".to_owned(), 0),
            Some(stat) if stat.kind == FileKind::Directory => (state, tree_size(vfs, path)?),
            Some(stat) => (state, stat.len),
        };
        siblings.push(Sibling { path: path.display().to_string(), role, state, bytes });
    }
    Ok(siblings)
}

/// RocksDB's estimate, from a read-only open that writes nothing; `None` where that is not possible just now.
fn entries_estimate(vfs: &dyn Vfs, layout: &Layout, options: &Options, legacy: bool, sight: &Sight) -> Option<u64> {
    if sight.marker.is_none() && !legacy {
        return None;
    }
    let mut settings = Settings { bulk: true, ..options.settings() };
    if legacy {
        settings.comparator = crate::encoding::Comparator::SlashSpans;
    }
    let database = Database::open_read_only(vfs, &layout.live, &settings).ok()?;
    database.stats().ok().map(|stats| stats.entries_estimate)
}
