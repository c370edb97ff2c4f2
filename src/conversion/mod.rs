//! Changing the key encoding of a database.
//!
//! Invariants:
//! - live is only read, and read only, until the swap; its own lock of RocksDB is held from before the first read until
//!   the swap is durable, so that nobody writes to what is being replaced;
//! - the new database is complete, synced, verified and marked before the journal says Ready; from then on nothing of
//!   it is written by us until it is live;
//! - a key that the new encoding cannot carry, a row that does not decode, an iterator that fails: each ends the
//!   conversion before the swap, with live as it was;
//! - every failure before Ready drops staging; every failure after it is judged by the recovery table alone;
//! - a crash before Ready costs what was under way and nothing that was done: the next attempt goes on ([`resume`]).
//!
//! | step | effect on disk | after an `Err` |
//! |---|---|---|
//! | [`preflight`] | none (a probe directory comes and goes) | nothing |
//! | [`place::start`], if it begins | journal Building, staging with its owner file | staging is dropped |
//! | [`Recorder::go_on`], if it goes on | staging's `PROGRESS`, the part that counts | the same |
//! | hand over the log | links in staging | the same |
//! | plan | `PROGRESS` is begun | the same |
//! | rewrite | output files, a line for each task and each part of the merge | the same |
//! | ingest, copy the internal family, flush, close | the staging database | the same |
//! | sync every file | a line | the same |
//! | verify | a line for each tile | the same |
//! | seal | staging's marker; `PROGRESS` goes | the same |
//! | [`place::ready`] | journal Ready | the next look decides |
//! | [`Place::settle`] | the swap, journal Done or Kept | the next look decides |

mod borders;
mod buffer;
mod codec;
mod digest;
mod heads;
#[cfg(test)]
mod hostile_tests;
mod ingest;
mod internal;
mod line;
mod merge;
#[cfg(test)]
mod model_tests;
mod output;
mod parallel;
mod placer;
mod preflight;
mod progress;
mod record;
mod report;
mod resume;
mod rewrite;
mod runs;
mod sorter;
mod source;
mod tasks;
mod tuning;
mod verify;

pub use digest::{Content, Digest};
pub(crate) use preflight::require_wal_inside;
pub use progress::{Phase, Progress, ProgressCallback, Reporter};
pub use report::{Plan, Report};
pub use tuning::Tuning;
pub(crate) use verify::{scan, scan_internal_user};

use ingest::ingest;
use internal::copy_internal;
use line::Source;
use record::Scan;
use report::{report, report_of_sealed};
use resume::{Left, Recorder};
use rewrite::{Rewrite, Rewritten, rewrite_tuned, sorts_on_disk};
use verify::{Cuts, scan_recorded};

use crate::attachment::{self, Attachment};
use crate::encoding::{Comparator, EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::tree_size;
use crate::layout::INTERNAL_IDENTITY;
use crate::marker::{MARKER_FORMAT, Marker, Origin, OriginKind, Sealed};
use crate::place::journal::{self, Journal, Keep, Kind, Verify};
use crate::place::{self, Built, Place, Rest};
use crate::rocks::{Database, Durability, Family, Settings, WalRecovery};
use crate::trap::trap;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// A conversion to be done.
pub struct Conversion<'a> {
    /// The encoding that the database is in.
    pub from: Arc<dyn KeyEncoding>,
    /// The encoding that it is to have.
    pub to: Arc<dyn KeyEncoding>,
    /// Its marker; `None` for a legacy database.
    pub marker: Option<&'a Marker>,
    /// How the database will be opened: compression above all.
    pub settings: &'a Settings,
    /// How much is read again.
    pub verify: Verify,
    /// What becomes of the old database.
    pub keep: Keep,
    /// Memory for the rewrite, in bytes.
    pub memory_bytes: u64,
    /// Worker threads.
    pub threads: usize,
    /// Where progress goes.
    pub reporter: &'a Reporter,
    /// How the work is divided.
    pub tuning: Tuning,
}

/// Everything that was opened, locked and set aside before the first effect.
struct Prepared {
    source: Database,
    journal: Journal,
    attachment: Option<Attachment>,
    _reservation: preflight::Reservation,
}

/// Staging and source open with few files and a small cache.
fn bulk(settings: &Settings, comparator: Comparator) -> Settings {
    Settings { bulk: true, shared: None, keep_wal: false, comparator, ..settings.clone() }
}

fn source_settings(job: &Conversion<'_>) -> Settings {
    Settings { wal_recovery: WalRecovery::TornTailOnly, ..bulk(job.settings, job.from.comparator()) }
}

fn require_target(place: &Place, job: &Conversion<'_>) -> Result<()> {
    if job.to.comparator() != Comparator::Bytewise {
        let message = format!("{} is a legacy encoding that can only be converted from", EncodingId::of(&*job.to));
        return Err(Error::new(ErrorKind::InvalidArgument, "convert", message).at(&place.layout.live));
    }
    Ok(())
}

/// What a conversion would do; changes nothing.
///
/// # Errors
/// What preflight would refuse, but for the lack of room, which the figures tell.
pub fn plan(place: &mut Place, job: &Conversion<'_>) -> Result<Plan> {
    require_target(place, job)?;
    let vfs = place.vfs.clone();
    place.require_no_strangers("convert")?;
    preflight::require_no_kept(&*vfs, &place.layout, job.keep)?;
    let source = Database::open_read_only(&*vfs, &place.layout.live, &source_settings(job))?;
    preflight::require_convertible(&*vfs, &place.layout, &source, job.from.comparator())?;
    let room = room(place, job, &source, place::building(&*vfs, &place.layout)?.as_ref())?;
    Ok(Plan {
        from: EncodingId::of(&*job.from).to_string(),
        to: EncodingId::of(&*job.to).to_string(),
        entries_estimate: source.stats()?.entries_estimate,
        live_bytes: room.live_bytes,
        needed_bytes: room.needed_bytes,
        free_bytes: room.free_bytes,
    })
}

/// The room for a conversion, less what an interrupted one has built that is gone on with.
fn room(
    place: &Place,
    job: &Conversion<'_>,
    source: &Database,
    interrupted: Option<&Journal>,
) -> Result<preflight::Room> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    let built = match interrupted {
        Some(journal) if journal.to == Some(EncodingId::of(&*job.to)) => tree_size(vfs, &layout.staging)?,
        _ => 0,
    };
    let spills = sorts_on_disk(&*job.from, &*job.to);
    preflight::room(vfs, layout, source, job.settings.compression, spills, built)
}

fn prepare(place: &mut Place, job: &Conversion<'_>, interrupted: Option<&Journal>) -> Result<Prepared> {
    require_target(place, job)?;
    let vfs = place.vfs.clone();
    place.require_no_strangers("convert")?;
    preflight::require_no_kept(&*vfs, &place.layout, job.keep)?;
    place.lock_rocks()?;
    let attachment = attachment::read(&*vfs, &place.layout.live)?;
    if attachment.is_some() {
        attachment::require_shipped(&*vfs, &place.layout.live)?;
    }
    journal::sync_source(&*vfs, &place.layout.live)?;
    let mut replaced = journal::source(&*vfs, &place.layout.live, job.marker, 0)?;
    let source = Database::open_read_only(&*vfs, &place.layout.live, &source_settings(job))?;
    if let Some(marker) = job.marker {
        place::check_identity(&source, marker)?;
    }
    attachment::require_no_load(&source, "convert")?;
    require_whole_wal(place, job, &source)?;
    preflight::require_convertible(&*vfs, &place.layout, &source, job.from.comparator())?;
    let room = room(place, job, &source, interrupted)?;
    let reservation = preflight::reserve(&*vfs, &place.layout, room)?;
    // After the figures of a full disk, which would not hold the probe either.
    preflight::require_renamable(&*vfs, &place.layout)?;
    replaced.last_sequence = source.last_sequence();
    let journal = match interrupted {
        Some(journal) => require_same_source(place, journal, &replaced)?,
        None => new_journal(place, job, replaced)?,
    };
    trap!(vfs, PreflightDone);
    Ok(Prepared { source, journal, attachment, _reservation: reservation })
}

fn new_journal(place: &Place, job: &Conversion<'_>, replaced: journal::Source) -> Result<Journal> {
    let mut journal = Journal::begin(Kind::Convert, Uuid::new_v4());
    journal.source = Some(replaced);
    journal.to = Some(EncodingId::of(&*job.to));
    journal.keep = job.keep != Keep::No;
    journal.verify = job.verify;
    journal.older = place::kept_journal(place)?.map(Box::new);
    Ok(journal)
}

/// What was built of another state of the source is worth nothing. The look before the lock said that it is the same;
/// the next one will say that it is not.
fn require_same_source(place: &Place, journal: &Journal, found: &journal::Source) -> Result<Journal> {
    if journal.source.as_ref() == Some(found) {
        return Ok(journal.clone());
    }
    let message = "other software has written to it just now; nothing was touched: repeat";
    Err(Error::new(ErrorKind::Conflict, "go on with a conversion", message).at(&place.layout.live))
}

/// Damage in the middle of the WAL must not be carried over as a hole: opened as usual, RocksDB would end before it.
fn require_whole_wal(place: &Place, job: &Conversion<'_>, source: &Database) -> Result<()> {
    let usual = Settings { wal_recovery: WalRecovery::PointInTime, ..source_settings(job) };
    let usual = Database::open_read_only(&*place.vfs, &place.layout.live, &usual)?;
    let seen = |database: &Database| Ok((database.last_sequence(), database.memtable_entries()?));
    if seen(&usual)? == seen(source)? {
        return Ok(());
    }
    let message = "its WAL is damaged in the middle: opened without converting, it will end before the damage, at the \
                   last state that is whole; nothing was touched";
    Err(Error::new(ErrorKind::Corrupt, "convert", message).at(&place.layout.live))
}

/// Converts the database of a settled place and brings the place to rest with the new one. The caller then opens live
/// and sweeps. A conversion that was interrupted is gone on with if it has the same target, and dropped if not.
///
/// # Errors
/// Before any work: as it was. Before the swap: live is as it was, and staging is gone or will be. After it: the next
/// look at the place decides, and either database is whole.
pub fn convert(place: &mut Place, job: &Conversion<'_>, interrupted: Option<&Journal>) -> Result<(Report, Rest)> {
    let began = Instant::now();
    if let Some((journal, left)) = what_is_left(place, job, interrupted)? {
        let keep = match (&journal.older, journal.keep) {
            (Some(_), _) => Keep::Replace,
            (None, true) => Keep::Yes,
            (None, false) => Keep::No,
        };
        let verify = journal.verify;
        if (job.keep == Keep::No) == journal.keep || job.verify != verify {
            let path = place.layout.live.display();
            tracing::warn!(%path, ?keep, ?verify, "gone on with as it was begun, whatever was asked for now");
        }
        let job = Conversion { from: job.from.clone(), to: job.to.clone(), keep, verify, ..*job };
        match attempt(place, &job, Some((journal, left)), began) {
            Err(Failure { error, of_staging: true }) => {
                let path = place.layout.live.display();
                tracing::warn!(%path, %error, "what an interrupted conversion has left is of no use: begun again");
                if let Rest::Building { journal, .. } = place.settle()? {
                    place::abandon(place, &journal)?;
                }
            }
            done => return done.map_err(|failure| failure.error),
        }
    }
    attempt(place, job, None, began).map_err(|failure| failure.error)
}

/// What can be gone on with. Anything else of an interrupted change is dropped.
fn what_is_left(
    place: &mut Place,
    job: &Conversion<'_>,
    interrupted: Option<&Journal>,
) -> Result<Option<(Journal, Left)>> {
    let Some(journal) = interrupted else { return Ok(None) };
    let same = journal.kind == Kind::Convert && journal.to == Some(EncodingId::of(&*job.to));
    if same && let Some(left) = resume::look(place, journal)? {
        return Ok(Some((journal.clone(), left)));
    }
    place::abandon(place, journal)?;
    Ok(None)
}

struct Failure {
    error: Error,
    /// It may be the fault of what was taken over.
    of_staging: bool,
}

fn attempt(
    place: &mut Place,
    job: &Conversion<'_>,
    interrupted: Option<(Journal, Left)>,
    began: Instant,
) -> std::result::Result<(Report, Rest), Failure> {
    let (interrupted, left) = interrupted.map_or((None, None), |(journal, left)| (Some(journal), Some(left)));
    let prepared = match prepare(place, job, interrupted.as_ref()) {
        Ok(prepared) => prepared,
        Err(error) => {
            place.unlock_rocks();
            return Err(Failure { error, of_staging: false });
        }
    };
    let journal = prepared.journal.clone();
    let resumed = left.is_some();
    let built = build(place, job, prepared, left);
    let mut report = match built {
        Ok(report) => report,
        Err(error) => {
            place::drop_staging_quietly(place, &journal);
            place.unlock_rocks();
            let damage =
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused | ErrorKind::NotFound | ErrorKind::Lost);
            // Of a file that it cannot read RocksDB tells no reason when it is asked for figures.
            let of_staging = resumed && (damage || error.step() == crate::rocks::READ_FIGURES);
            return Err(Failure { error, of_staging });
        }
    };
    let rest = place.settle();
    place.unlock_rocks();
    let rest = rest.map_err(|error| Failure { error, of_staging: false })?;
    require_converted(place, &rest, &journal).map_err(|error| Failure { error, of_staging: false })?;
    report.seconds = began.elapsed().as_secs_f64();
    Ok((report, rest))
}

/// The table does not swap out a source that was written to while it was read; the caller must not be told otherwise.
fn require_converted(place: &Place, rest: &Rest, journal: &Journal) -> Result<()> {
    match rest {
        Rest::Open { marker: Some(marker), .. } if marker.origin.id == journal.id => Ok(()),
        _ => {
            let message = "other software wrote to the database while it was converted; it is as that left it, and not \
                           converted; stop that software first";
            Err(Error::new(ErrorKind::Locked, "convert", message).at(&place.layout.live))
        }
    }
}

fn build(place: &Place, job: &Conversion<'_>, prepared: Prepared, left: Option<Left>) -> Result<Report> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    let Prepared { source, journal, attachment, _reservation } = prepared;
    let recorder = match left {
        None => {
            place::start(place, &journal)?;
            Recorder::new(vfs, &layout.staging, journal.id)
        }
        Some(Left::Sealed(marker)) => {
            place::ready(place, &journal)?;
            return Ok(report_of_sealed(job, &marker));
        }
        Some(Left::Part(part)) => {
            let recorder = Recorder::go_on(vfs, &layout.staging, journal.id, *part)?;
            resume::take_log_back(vfs, &layout.staging)?;
            recorder
        }
    };
    if let Some(attachment) = &attachment {
        trap!(vfs, WalHandoverBefore);
        attachment::hand_over(vfs, &layout.live, &layout.staging, attachment, source.last_sequence())?;
        trap!(vfs, WalHandoverAfter);
    }
    trap!(vfs, RewriteBefore);
    let staging_settings = bulk(job.settings, Comparator::Bytewise);
    let rewrite = Rewrite {
        vfs,
        source: &source,
        from: &*job.from,
        to: &*job.to,
        staging: &layout.staging,
        settings: &staging_settings,
        memory_bytes: job.memory_bytes,
        threads: job.threads,
        progress: job.reporter,
        recorder: Some(&recorder),
    };
    let output = rewrite_tuned(&rewrite, &job.tuning)?;
    trap!(vfs, RewriteAfter);
    let mut marker = new_marker(job, &journal);
    if !recorder.taken().built {
        build_database(place, job, &rewrite, &output, &marker)?;
        place::sync_staging(place)?;
        recorder.built()?;
    }
    let mut from_device = false;
    place::finish(place, &journal, || {
        let wanted = Content { entries: output.entries, digest: output.digest };
        let (database, direct) = open_for_verification(place, &staging_settings)?;
        from_device = direct;
        if recorder.taken().built && job.marker.is_none() {
            // A legacy database has no ids. Those of the new one were made by the attempt that built it.
            let identity = place::read_identity(&database)?;
            let ids = identity.map(|identity| (identity.database_id, identity.instance_id));
            (marker.database_id, marker.instance_id) = ids.unwrap_or((marker.database_id, marker.instance_id));
        }
        place::check_identity(&database, &marker)?;
        verify_staging(place, job, &recorder, (&source, &database), &wanted)?;
        marker.sealed_sequence = database.last_sequence();
        marker.sealed = Some(Sealed { entries: wanted.entries, digest: wanted.digest.to_string() });
        Ok(Built { marker })
    })?;
    Ok(report(job, &output, recorder.taken().has_work(), from_device))
}

/// Makes the staging database of the output files, or goes on making it.
fn build_database(
    place: &Place,
    job: &Conversion<'_>,
    rewrite: &Rewrite<'_>,
    output: &Rewritten,
    marker: &Marker,
) -> Result<()> {
    let Rewrite { vfs, source, settings, .. } = *rewrite;
    let database = staging_database(place, rewrite, output, settings)?;
    ingest(vfs, &database, output, job.tuning.ingest_files, job.reporter)?;
    copy_internal(source, &database)?;
    database.put(Family::Internal, INTERNAL_IDENTITY, &marker.identity().to_bytes()?, Durability::NoWal)?;
    database.flush()?;
    trap!(vfs, InternalCopied);
    database.close()?;
    trap!(vfs, StagingClosed);
    Ok(())
}

/// The staging database: as long as every output file stands, a new one; else the one that has the others.
fn staging_database(place: &Place, rewrite: &Rewrite<'_>, output: &Rewritten, settings: &Settings) -> Result<Database> {
    let (vfs, staging) = (&*place.vfs, &place.layout.staging);
    if rewrite.recorder.is_some_and(|recorder| recorder.taken().plan.is_some()) {
        for file in output.disjoint.iter().chain(&output.overflow) {
            if !resume::is_there(vfs, &file.path, file.bytes)? {
                return Database::open(vfs, staging, settings);
            }
        }
        resume::remove_database(vfs, staging)?;
    }
    Database::create(staging, settings)
}

fn new_marker(job: &Conversion<'_>, journal: &Journal) -> Marker {
    Marker {
        format: MARKER_FORMAT,
        database_id: job.marker.map_or_else(Uuid::new_v4, |marker| marker.database_id),
        instance_id: job.marker.map_or_else(Uuid::new_v4, |marker| marker.instance_id),
        encoding: EncodingId::of(&*job.to),
        origin: Origin { kind: OriginKind::Convert, id: journal.id },
        sealed_sequence: 0,
        sealed: None,
    }
}

/// Opens staging read only, past the page cache where the file system allows it. Says whether it did.
fn open_for_verification(place: &Place, settings: &Settings) -> Result<(Database, bool)> {
    let direct = Settings { direct_reads: true, ..settings.clone() };
    match Database::open_read_only(&*place.vfs, &place.layout.staging, &direct) {
        Ok(database) => Ok((database, true)),
        Err(_) => Ok((Database::open_read_only(&*place.vfs, &place.layout.staging, settings)?, false)),
    }
}

fn verify_staging(
    place: &Place,
    job: &Conversion<'_>,
    recorder: &Recorder<'_>,
    (source, staging): (&Database, &Database),
    wanted: &Content,
) -> Result<()> {
    let differs = |what: &str, found: String, wanted: String| {
        let message = format!("{what}: found {found}, expected {wanted}; the old database is untouched");
        Err(Error::new(ErrorKind::Corrupt, "verify the converted database", message).at(staging.path()))
    };
    let counted = staging.table_figures()?.entries;
    if counted != wanted.entries {
        return differs("entries in its files", counted.to_string(), wanted.entries.to_string());
    }
    let (ours, theirs) = (scan_internal_user(staging)?, scan_internal_user(source)?);
    if ours != theirs {
        return differs("internal records", ours.digest.to_string(), theirs.digest.to_string());
    }
    if job.verify == Verify::Counts {
        return Ok(());
    }
    // RocksDB wrote the files, this crate reads them if it can: what one of the two gets wrong the other shows.
    let part = (Scan::Staging, Cuts::AtFiles, job.tuning.tile_bytes);
    let files = Source::of_files(&*place.vfs, staging)?;
    let found = scan_recorded(&files, &*job.to, job.threads, part, recorder, job.reporter)?;
    if found != *wanted {
        return differs("content", format!("{found:?}"), format!("{wanted:?}"));
    }
    if job.verify == Verify::Both {
        // For the rewrite this crate may have read the files, now RocksDB does.
        let part = (Scan::Source, Cuts::WithinFiles, job.tuning.tile_bytes);
        let again = scan_recorded(&Source::of_database(source), &*job.from, job.threads, part, recorder, job.reporter)?;
        if again != *wanted {
            return differs("content of the source, read again", format!("{again:?}"), format!("{wanted:?}"));
        }
    }
    Ok(())
}
