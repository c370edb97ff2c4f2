//! Doing a restore, step by step. Each step can be killed anywhere and is then done again, from where it had come.

use crate::encoding::EncodingId;
use crate::engine::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, remove_tree};
use crate::layout::{LOG_BACKUP, RESTORE_LOCK, RESTORE_PLAN, RESTORE_SPEC, RESTORE_STATUS};
use crate::lock::PlaceLock;
use crate::log_backup::archive::Archive;
use crate::log_backup::commit;
use crate::log_backup::pin::{Pin, PinRequest, TTL_RESTORE};
use crate::log_backup::snapshot_transfer::{download, read_manifest};
use crate::place::journal::require_parent;
use crate::place::restore_phase::{RESTORE_FORMAT, RestorePhase};
use crate::place::{self, Place, Rest};
use crate::restore::apply::Applier;
use crate::restore::attached::{require_current, require_own_archive, require_snapshot_of_same};
use crate::restore::folder::{Failure, Folder, Found, Spec, Step, TwoPhase};
use crate::restore::install::{install, require_target, seal};
use crate::restore::log::ArchiveLog;
use crate::restore::moment::Moment;
use crate::restore::named::Named;
use crate::restore::plan::{Plan, plan};
use crate::restore::record::require_no_worker;
use crate::restore::replica::plan_replica;
use crate::restore::runs::LeftOut;
use crate::trap::trap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

const STEP: &str = "restore the database";

/// The clock, in microseconds of the Unix epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// What is asked of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The moment.
    pub moment: Moment,
    /// Not the current timeline of the archive, but this.
    pub timeline: Option<Uuid>,
    /// A database at the target gives way, and is kept in its backup directory. One that is attached to the archive hands its
    /// log over, and the restored one goes on in it, with a new timeline.
    pub replace: bool,
    /// No pin is taken, since the archive cannot be written: what is read may be deleted meanwhile.
    pub no_pin: bool,
    /// The archive is a replica, whose objects arrive in any order: `replica.rs` says what follows.
    pub replica: bool,
    /// A compaction to use if it can be, whether HEAD knows it or not.
    pub compaction: Option<Named>,
}

/// What a restore would read; changes nothing but a pin that comes and goes.
///
/// # Errors
/// As [`plan`], those of the archive, and `UnknownEncoding` where a conversion is needed.
pub fn preview(archive: &Archive, request: &Request, options: &Options) -> Result<Plan> {
    preview_fully(archive, request, options).map(|(plan, _)| plan)
}

/// As [`preview`], and which compactions would be left out, and why.
///
/// # Errors
/// As [`preview`].
pub fn preview_fully(archive: &Archive, request: &Request, options: &Options) -> Result<(Plan, Vec<LeftOut>)> {
    planned(archive, request, options).map(|(plan, left_out, _)| (plan, left_out))
}

fn pin_request(target: &str) -> PinRequest {
    PinRequest { owner: target.to_owned(), purpose: "restore".into(), ttl: TTL_RESTORE }
}

type Planned = (Plan, Vec<LeftOut>, Option<Pin>);

fn planned(archive: &Archive, request: &Request, options: &Options) -> Result<Planned> {
    let (pin, head) = if request.no_pin || request.replica {
        (None, commit::load(archive)?.head)
    } else {
        let (pin, loaded) = Pin::take_and_load(archive, &pin_request(""))?;
        (Some(pin), loaded.head)
    };
    let plan = if request.replica {
        plan_replica(archive, &head, request.moment, request.timeline)
    } else {
        plan(&head, &ArchiveLog::new(archive), request.moment, request.timeline).map(|plan| (plan, Vec::new()))
    };
    let (mut plan, mut left_out) =
        plan.map_err(|error| if error.path().is_some() { error } else { error.at(archive.url()) })?;
    left_out.extend(request.compaction.as_ref().and_then(|named| named.take_into(&mut plan, archive)));
    // A restore of a day must not end with an encoding that nobody knows.
    let wanted = options.encoding.as_ref().map(|encoding| EncodingId::of(&**encoding));
    let steps: Vec<&EncodingId> = plan.legs.iter().map(|leg| &leg.encoding).chain(&wanted).collect();
    for pair in steps.windows(2).filter(|pair| pair[0] != pair[1]) {
        for id in pair {
            options.encodings()?.get(id)?;
        }
    }
    Ok((plan, left_out, pin))
}

/// Begins a restore to `target`: finds out what is to be read, and writes that down beside it. The encoding that the
/// options name is the one that the database gets; unset, it is the one that it had at that moment.
///
/// # Errors
/// As [`preview`]; `Conflict`: there is a database that is not to be replaced, or a restore is under way; `Unsupported`: the
/// database is attached to another archive. Nothing has begun then; an empty folder may stand.
pub fn start(target: &Path, archive: &Archive, request: &Request, options: &Options) -> Result<Found> {
    let vfs = options.file_operations()?;
    begin(&vfs, &Folder::of(target)?, archive, request, None, options).map(|(found, _)| found)
}

pub(super) fn begin(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
    archive: &Archive,
    request: &Request,
    two_phase: Option<&TwoPhase>,
    options: &Options,
) -> Result<(Found, PlaceLock)> {
    require_parent(&**vfs, &folder.target)?;
    let restore = Uuid::new_v4();
    let spec = Spec {
        format: RESTORE_FORMAT,
        restore,
        archive: archive.url().to_owned(),
        moment: request.moment,
        timeline: request.timeline,
        encoding: options.encoding.as_ref().map(|encoding| EncodingId::of(&**encoding)),
        replace: request.replace,
        no_pin: request.no_pin || request.replica,
        replica: request.replica,
        created: now(),
        two_phase: two_phase.cloned(),
    };
    require_none_under_way(&**vfs, folder)?;
    require_target(&mut Place::lock(Arc::clone(vfs), &folder.target.live)?.of_restore(), &spec)?;
    if let Some(attachment) = require_own_archive(&**vfs, &folder.target.live, &spec)? {
        require_current(archive, &attachment, &folder.target.live)?;
    }
    let (mut plan, left_out, pin) = planned(archive, request, options)?;
    if two_phase.is_some() {
        // The one that was asked for, or none: what phase 2 uses is decided once, when its run is made.
        plan.legs.iter_mut().for_each(|leg| leg.runs.clear());
    }
    if !folder.stands(&**vfs)? {
        vfs.make_dir(&folder.path)?;
        vfs.sync_dir(&folder.target.parent)?;
        trap!(vfs, RestoreFolderMade);
    }
    let lock = folder.lock(&**vfs)?;
    // Looked at again, now that nobody else can begin one.
    require_none_under_way(&**vfs, folder)?;
    require_no_worker(&**vfs, folder)?;
    clear(&**vfs, folder)?;
    let found = folder.begin(&**vfs, spec, plan, left_out)?;
    drop(pin);
    Ok((found, lock))
}

fn require_none_under_way(vfs: &dyn Vfs, folder: &Folder) -> Result<()> {
    if !folder.stands(vfs)? {
        return Ok(());
    }
    match folder.read(vfs)? {
        Some(found) if !found.is_complete() => {
            let failed = found.status.phase == RestorePhase::Failed;
            let (message, command) = if failed {
                ("a restore to this place has failed; give it up first", "abort")
            } else {
                ("a restore to this place is under way already", "status")
            };
            let next = format!("morphkv restore {command} {}", folder.target.live.display());
            Err(Error::new(ErrorKind::Conflict, STEP, message).at(&folder.path).next(next))
        }
        _ => Ok(()),
    }
}

/// Removes what was needed on the way, of this restore or of one that never began.
pub(super) fn clear(vfs: &dyn Vfs, folder: &Folder) -> Result<()> {
    for name in vfs.list(&folder.path)? {
        let keep = [RESTORE_LOCK, RESTORE_SPEC, RESTORE_PLAN, RESTORE_STATUS].contains(&name.as_str());
        if !keep {
            remove_tree(vfs, &folder.path.join(name))?;
        }
    }
    vfs.sync_dir(&folder.path)
}

/// What stands of a restore to `target`; `None`: none has begun.
///
/// # Errors
/// `Corrupt`, `Unsupported`, `Io`.
pub fn status(target: &Path, options: &Options) -> Result<Option<Found>> {
    let vfs = options.file_operations()?;
    let folder = Folder::of(target)?;
    if folder.stands(&*vfs)? { folder.read(&*vfs) } else { Ok(None) }
}

/// Goes on with the restore to `target` until the database is at its place. One that is complete is left as it is.
///
/// # Errors
/// `NotFound`: none has begun; `Locked`: somebody is at it; `InvalidArgument`: it reads another archive; whatever a step
/// meets, which is noted in its status. The next call goes on.
pub fn go_on(target: &Path, archive: &Archive, options: &Options) -> Result<Found> {
    resume(target, archive, options, Until::Complete)
}

/// Does the next step of the restore to `target`.
///
/// # Errors
/// As [`go_on`].
pub fn step(target: &Path, archive: &Archive, options: &Options) -> Result<Found> {
    resume(target, archive, options, Until::OneStep)
}

fn resume(target: &Path, archive: &Archive, options: &Options, until: Until) -> Result<Found> {
    let vfs = options.file_operations()?;
    let folder = Folder::of(target)?;
    let none = || {
        Error::new(ErrorKind::NotFound, STEP, "no restore to this place has begun")
            .at(target)
            .next(format!("morphkv restore start {} ...", target.display()))
    };
    if !folder.stands(&*vfs)? {
        return Err(none());
    }
    let lock = folder.lock(&*vfs)?;
    let found = folder.read(&*vfs)?.ok_or_else(none)?;
    require_one_phase(&folder, &found)?;
    finish(&vfs, &folder, found, (archive, options), until, lock)
}

fn require_one_phase(folder: &Folder, found: &Found) -> Result<()> {
    if found.spec.two_phase.is_none() {
        return Ok(());
    }
    let message = "it is a restore in two phases, which has a coordinator";
    let next = format!("morphkv restore run {}", folder.target.live.display());
    Err(Error::new(ErrorKind::InvalidArgument, STEP, message).at(&folder.path).next(next))
}

/// Begins a restore, or goes on with the one that is under way, until the database is at its place.
///
/// # Errors
/// As [`start`] and [`go_on`]; `Conflict`: the one that is under way was asked for something else.
pub fn run(target: &Path, archive: &Archive, request: &Request, options: &Options) -> Result<Found> {
    let vfs = options.file_operations()?;
    let folder = Folder::of(target)?;
    match status(target, options)? {
        Some(found) if !found.is_complete() => {
            let Spec { archive: url, timeline, encoding, replace, .. } = &found.spec;
            let wanted = options.encoding.as_ref().map(|encoding| EncodingId::of(&**encoding));
            // Not the moment: `-30m` is another one each time.
            if (url.as_str(), timeline, encoding, *replace)
                != (archive.url(), &request.timeline, &wanted, request.replace)
            {
                let message = "the restore that is under way was asked for something else";
                let next = format!("morphkv restore status {}", target.display());
                return Err(Error::new(ErrorKind::Conflict, STEP, message).at(&folder.path).next(next));
            }
            go_on(target, archive, options)
        }
        _ => {
            let (found, lock) = begin(&vfs, &folder, archive, request, None, options)?;
            finish(&vfs, &folder, found, (archive, options), Until::Complete, lock)
        }
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    OneStep,
    Complete,
}

/// What a step needs.
pub(super) struct Work<'a> {
    pub(super) vfs: &'a Arc<dyn Vfs>,
    pub(super) folder: &'a Folder,
    pub(super) archive: &'a Archive,
    pub(super) options: Options,
    pub(super) pin: Option<Pin>,
}

fn finish(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
    mut found: Found,
    (archive, options): (&Archive, &Options),
    until: Until,
    _lock: PlaceLock,
) -> Result<Found> {
    require_archive(folder, &found, archive)?;
    let reads = matches!(found.status.step, Step::Fetch | Step::Apply);
    let pin = if reads { take_pin(folder, &found, archive)? } else { None };
    let mut work = Work { vfs, folder, archive, options: own_options(options), pin };
    while !found.is_complete() {
        work.step(&mut found)?;
        if until == Until::OneStep {
            return Ok(found);
        }
    }
    clear(&**vfs, folder)?;
    trap!(vfs, RestoreCleared);
    Ok(found)
}

/// A restore goes on with the archive that it was planned with.
pub(super) fn require_archive(folder: &Folder, found: &Found, archive: &Archive) -> Result<()> {
    if found.spec.archive == archive.url() {
        return Ok(());
    }
    let message = format!("it reads the archive {}, and not {}", found.spec.archive, archive.url());
    Err(Error::new(ErrorKind::InvalidArgument, STEP, message).at(&folder.path))
}

/// Holds what is read; `None` where the archive cannot be written.
pub(super) fn take_pin(folder: &Folder, found: &Found, archive: &Archive) -> Result<Option<Pin>> {
    if found.spec.no_pin {
        return Ok(None);
    }
    let pin = Pin::take(archive, &pin_request(&folder.target.live.display().to_string()))?;
    // What was doomed since the plan was made is held, as far as it is not gone.
    pin.note_generation(found.plan.generation)?;
    Ok(Some(pin))
}

/// The options of what is made on the way.
pub(super) fn own_options(options: &Options) -> Options {
    Options { keep_backup: crate::place::journal::Keep::No, ..options.clone() }
}

impl Work<'_> {
    /// One step, and its end in STATUS, in one write.
    fn step(&mut self, found: &mut Found) -> Result<()> {
        let (vfs, step) = (&**self.vfs, found.status.step);
        let left_out = match self.work(found) {
            Ok(left_out) => left_out,
            Err(error) => return Err(self.failed(found, error)),
        };
        if step == Step::Apply {
            self.pin = None;
        }
        self.folder.note(vfs, found, |status| {
            status.failure = None;
            if step == Step::Apply {
                status.left_out.extend(left_out);
            }
            (status.step, status.phase) = match step {
                Step::Fetch => (Step::Apply, RestorePhase::Running),
                Step::Apply => (Step::Install, RestorePhase::Running),
                _ => (Step::Clear, RestorePhase::Complete),
            };
        })
    }

    /// Notes why it could not go on, once.
    pub(super) fn failed(&self, found: &mut Found, error: Error) -> Error {
        let failure = Failure { step: found.status.step, kind: error.kind().name().into(), message: error.to_string() };
        if found.status.failure.as_ref() == Some(&failure) {
            return error;
        }
        if let Err(second) = self.folder.note(&**self.vfs, found, |status| status.failure = Some(failure)) {
            tracing::warn!(%second, "why the restore has stopped could not be noted");
        }
        error
    }

    /// Does the step that comes next; says which planned compactions could not be used.
    pub(super) fn work(&self, found: &Found) -> Result<Vec<LeftOut>> {
        let (vfs, folder) = (&**self.vfs, self.folder);
        match found.status.step {
            Step::Fetch => {
                self.fetch(&found.plan)?;
                require_snapshot_of_same(vfs, folder, &found.spec).map(|()| Vec::new())
            }
            Step::Apply => {
                let go_on = || self.check_pin();
                let (archive, options) = (self.archive, &self.options);
                Applier { vfs, archive, folder, found, options, go_on: &go_on }.apply()
            }
            Step::Install => {
                let marker = seal(vfs, &folder.database, found.spec.restore, &self.options)?;
                install(self.vfs, folder, self.archive, (&found.spec, &found.plan), &marker, &self.options)?;
                trap!(vfs, RestoreInstalled);
                Ok(Vec::new())
            }
            Step::Clear => Ok(Vec::new()),
            Step::Begin | Step::Unknown => {
                let message = "its STATUS says a step that this version does not know";
                Err(Error::new(ErrorKind::Unsupported, STEP, message).at(&folder.path))
            }
        }
    }

    fn check_pin(&self) -> Result<()> {
        self.pin.as_ref().map_or(Ok(()), Pin::check)
    }

    fn fetch(&self, plan: &Plan) -> Result<()> {
        let (vfs, folder) = (&**self.vfs, self.folder);
        let manifest = read_manifest(self.archive, &plan.snapshot.manifest)?;
        let place = &manifest.place;
        let planned = (plan.base, plan.snapshot.timeline, plan.snapshot.sequence, plan.legs.first());
        let encoding = planned.3.map(|leg| &leg.encoding);
        if (place.id, place.timeline, place.sequence, Some(&place.encoding))
            != (planned.0, planned.1, planned.2, encoding)
        {
            let message = "its manifest says another place in the log than the archive's HEAD";
            return Err(Error::new(ErrorKind::Corrupt, "download a base snapshot", message).at(self.archive.url()));
        }
        let free = vfs.space(&folder.path)?.free;
        let there =
            if vfs.stat(&folder.database)?.is_some() { crate::fs::tree_size(vfs, &folder.database)? } else { 0 };
        let needed = manifest.bytes().saturating_sub(there);
        if free < needed {
            let message = format!("the base snapshot needs {needed} bytes more, {free} are free");
            return Err(Error::new(ErrorKind::NoSpace, "download a base snapshot", message).at(&folder.path));
        }
        let go_on = || {
            trap!(vfs, RestoreFetching);
            self.check_pin()
        };
        download(self.archive, &manifest, vfs, &folder.database, &go_on)?;
        trap!(vfs, RestoreFetched);
        // A restored copy is attached to nothing: a drill must never ship into the log that it came from. One that replaces
        // an attached database is attached when it is moved in.
        vfs.remove_file(&folder.database.join(LOG_BACKUP))?;
        vfs.sync_dir(&folder.database)?;
        trap!(vfs, RestoreDetached);
        Ok(())
    }
}

/// Ends a restore to `target` that is not complete, and removes what it has made. The target stays as it is. Says whether
/// there was one.
///
/// # Errors
/// `Conflict`: the database is at its place already; `Locked`: somebody is at it; any failure to remove. Repeat.
pub fn abort(target: &Path, options: &Options) -> Result<bool> {
    let vfs = options.file_operations()?;
    let folder = Folder::of(target)?;
    if !folder.stands(&*vfs)? {
        return Ok(false);
    }
    let lock = folder.lock(&*vfs)?;
    require_no_worker(&*vfs, &folder)?;
    if let Some(found) = folder.read(&*vfs)?.filter(|found| !found.is_complete()) {
        require_not_installed(&vfs, &folder, &found.spec)?;
    }
    remove_tree(&*vfs, &folder.database)?;
    clear(&*vfs, &folder)?;
    trap!(vfs, RestoreDatabaseDropped);
    // First, since without it nothing has begun, whatever else stands.
    vfs.remove_file(&folder.path.join(RESTORE_STATUS))?;
    vfs.sync_dir(&folder.path)?;
    remove_tree(&*vfs, &folder.path)?;
    vfs.sync_dir(&folder.target.parent)?;
    drop(lock);
    Ok(true)
}

/// What is being moved in is given up, if that can be; a database that is in stays.
fn require_not_installed(vfs: &Arc<dyn Vfs>, folder: &Folder, spec: &Spec) -> Result<()> {
    let mut place = Place::lock(Arc::clone(vfs), &folder.target.live)?.of_restore();
    match place.settle()? {
        Rest::Open { marker: Some(marker), .. } if marker.origin.id == spec.restore => {
            let message = "the restored database is at its place already; only the end of the restore is to be noted";
            let next = format!("morphkv restore run {}", folder.target.live.display());
            Err(Error::new(ErrorKind::Conflict, "abort the restore", message).at(&folder.target.live).next(next))
        }
        Rest::Building { journal, .. } if journal.id == spec.restore => place::abandon(&mut place, &journal),
        _ => Ok(()),
    }
}
