//! Changing the key encoding of a database.
//!
//! Invariants:
//! - live is only read, and read only, until the swap; its own lock of RocksDB is held from before the first read until
//!   the swap is durable, so that nobody writes to what is being replaced;
//! - the new database is complete, synced, verified and marked before the journal says Ready; from then on nothing of
//!   it is written by us until it is live;
//! - a key that the new encoding cannot carry, a row that does not decode, an iterator that fails: each ends the
//!   conversion before the swap, with live as it was;
//! - every failure before Ready drops staging; every failure after it is judged by the recovery table alone.
//!
//! | step | effect on disk | after an `Err` |
//! |---|---|---|
//! | [`preflight`] | none (a probe directory comes and goes) | nothing |
//! | [`place::start`] | journal Building, staging with its owner file | staging is dropped |
//! | hand over the log | links in staging | the same |
//! | rewrite, ingest, copy the internal family | files in staging | the same |
//! | flush, close, sync every file | the same | the same |
//! | verify | none | the same |
//! | seal | staging's marker | the same |
//! | [`place::finish`] | journal Ready | the next look decides |
//! | [`Place::settle`] | the swap, journal Done or Kept | the next look decides |

mod borders;
mod buffer;
mod codec;
mod digest;
mod heads;
#[cfg(test)]
mod hostile_tests;
mod ingest;
#[cfg(test)]
mod model_tests;
mod output;
mod parallel;
mod placer;
mod preflight;
mod progress;
mod rewrite;
mod runs;
mod sorter;
mod source;
mod tasks;
mod verify;

pub use digest::{Content, Digest};
pub(crate) use preflight::require_wal_inside;
pub use progress::{Phase, Progress, ProgressCallback, Reporter};
pub(crate) use verify::{scan, scan_internal_user};

use ingest::ingest;
use rewrite::{Rewrite, rewrite, sorts_on_disk};
use verify::{Cuts, scan_with};

use crate::attachment::{self, Attachment};
use crate::encoding::{Comparator, EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::INTERNAL_IDENTITY;
use crate::marker::{MARKER_FORMAT, Marker, Origin, OriginKind, Sealed};
use crate::place::journal::{self, Journal, Keep, Kind, Verify};
use crate::place::{self, Built, Place, Rest};
use crate::rocks::{Database, Durability, Family, Settings, WalRecovery, WriteBatch};
use crate::trap::trap;
use serde::Serialize;
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
}

/// What a conversion did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The old encoding.
    pub from: String,
    /// The new encoding.
    pub to: String,
    /// Entries of the caller's family.
    pub entries: u64,
    /// Their digest, the same in every encoding.
    pub digest: String,
    /// Bytes of keys and values read.
    pub bytes_read: u64,
    /// Bytes of SST files written.
    pub bytes_written: u64,
    /// Bytes written to spill files and read back, for what had to be sorted on disk.
    pub bytes_spilled: u64,
    /// How long it took.
    pub seconds: f64,
    /// Entries that came too late for their run and took the slower way.
    pub overflow_entries: u64,
    /// Whether an interrupted conversion was resumed.
    pub resumed: bool,
    /// How it was verified.
    pub verify: Verify,
    /// Whether verification read from the device (past the page cache).
    pub verified_from_device: bool,
}

/// What a conversion would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The old encoding.
    pub from: String,
    /// The new encoding.
    pub to: String,
    /// Entries, as RocksDB estimates them.
    pub entries_estimate: u64,
    /// Bytes of the live directory.
    pub live_bytes: u64,
    /// Bytes that must be free.
    pub needed_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
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
    let room =
        preflight::room(&*vfs, &place.layout, &source, job.settings.compression, sorts_on_disk(&*job.from, &*job.to))?;
    Ok(Plan {
        from: EncodingId::of(&*job.from).to_string(),
        to: EncodingId::of(&*job.to).to_string(),
        entries_estimate: source.stats()?.entries_estimate,
        live_bytes: room.live_bytes,
        needed_bytes: room.needed_bytes,
        free_bytes: room.free_bytes,
    })
}

fn prepare(place: &mut Place, job: &Conversion<'_>) -> Result<Prepared> {
    require_target(place, job)?;
    let vfs = place.vfs.clone();
    place.require_no_strangers("convert")?;
    preflight::require_no_kept(&*vfs, &place.layout, job.keep)?;
    place.lock_rocks()?;
    preflight::require_renamable(&*vfs, &place.layout)?;
    let attachment = attachment::read(&*vfs, &place.layout.live)?;
    if attachment.is_some() {
        attachment::require_shipped(&*vfs, &place.layout.live)?;
    }
    journal::sync_source(&*vfs, &place.layout.live)?;
    let mut journal = Journal::begin(Kind::Convert, Uuid::new_v4());
    let mut replaced = journal::source(&*vfs, &place.layout.live, job.marker, 0)?;
    let source = Database::open_read_only(&*vfs, &place.layout.live, &source_settings(job))?;
    if let Some(marker) = job.marker {
        place::check_identity(&source, marker)?;
    }
    require_whole_wal(place, job, &source)?;
    preflight::require_convertible(&*vfs, &place.layout, &source, job.from.comparator())?;
    let room =
        preflight::room(&*vfs, &place.layout, &source, job.settings.compression, sorts_on_disk(&*job.from, &*job.to))?;
    let reservation = preflight::reserve(&*vfs, &place.layout, room)?;
    replaced.last_sequence = source.last_sequence();
    journal.source = Some(replaced);
    journal.to = Some(EncodingId::of(&*job.to));
    journal.keep = job.keep != Keep::No;
    journal.verify = job.verify;
    journal.older = place::kept_journal(place)?.map(Box::new);
    trap!(vfs, PreflightDone);
    Ok(Prepared { source, journal, attachment, _reservation: reservation })
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
/// and sweeps.
///
/// # Errors
/// Before the swap: live is as it was, and staging is gone or will be. After it: the next look at the place decides,
/// and either database is whole.
pub fn convert(place: &mut Place, job: &Conversion<'_>) -> Result<(Report, Rest)> {
    let began = Instant::now();
    let prepared = match prepare(place, job) {
        Ok(prepared) => prepared,
        Err(error) => {
            place.unlock_rocks();
            return Err(error);
        }
    };
    let journal = prepared.journal.clone();
    let built = build(place, job, prepared);
    let mut report = match built {
        Ok(report) => report,
        Err(error) => {
            place::drop_staging_quietly(place, &journal);
            place.unlock_rocks();
            return Err(error);
        }
    };
    let rest = place.settle();
    place.unlock_rocks();
    let rest = rest?;
    require_converted(place, &rest, &journal)?;
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

fn build(place: &Place, job: &Conversion<'_>, prepared: Prepared) -> Result<Report> {
    let (vfs, layout) = (&*place.vfs, &place.layout);
    let Prepared { source, journal, attachment, _reservation } = prepared;
    place::start(place, &journal)?;
    if let Some(attachment) = &attachment {
        trap!(vfs, WalHandoverBefore);
        attachment::hand_over(vfs, &layout.live, &layout.staging, attachment, source.last_sequence())?;
        trap!(vfs, WalHandoverAfter);
    }
    trap!(vfs, RewriteBefore);
    let staging_settings = bulk(job.settings, Comparator::Bytewise);
    let output = rewrite(&Rewrite {
        vfs,
        source: &source,
        from: &*job.from,
        to: &*job.to,
        staging: &layout.staging,
        settings: &staging_settings,
        memory_bytes: job.memory_bytes,
        threads: job.threads,
        progress: job.reporter,
    })?;
    trap!(vfs, RewriteAfter);
    let mut marker = new_marker(job, &journal);
    let database = Database::create(&layout.staging, &staging_settings)?;
    ingest(vfs, &database, &output, job.reporter)?;
    copy_internal(&source, &database)?;
    database.put(Family::Internal, INTERNAL_IDENTITY, &marker.identity().to_bytes()?, Durability::Buffered)?;
    database.flush()?;
    trap!(vfs, InternalCopied);
    database.close()?;
    trap!(vfs, StagingClosed);
    let mut from_device = false;
    place::finish(place, &journal, || {
        let wanted = Content { entries: output.entries, digest: output.digest };
        let (database, direct) = open_for_verification(place, &staging_settings)?;
        from_device = direct;
        place::check_identity(&database, &marker)?;
        verify_staging(job, &source, &database, &wanted)?;
        marker.sealed_sequence = database.last_sequence();
        marker.sealed = Some(Sealed { entries: wanted.entries, digest: wanted.digest.to_string() });
        Ok(Built { marker })
    })?;
    Ok(Report {
        from: EncodingId::of(&*job.from).to_string(),
        to: EncodingId::of(&*job.to).to_string(),
        entries: output.entries,
        digest: output.digest.to_string(),
        bytes_read: output.bytes_read,
        bytes_written: output.bytes_written,
        bytes_spilled: output.bytes_spilled,
        seconds: 0.0,
        overflow_entries: output.overflow_entries,
        resumed: false,
        verify: job.verify,
        verified_from_device: from_device,
    })
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

/// Bytes of a batch of internal records.
const INTERNAL_BATCH_BYTES: usize = 1 << 20;

/// Copies the internal family as it is, but for the identity, which is the new database's own.
fn copy_internal(source: &Database, target: &Database) -> Result<()> {
    if !source.has_internal() {
        return Ok(());
    }
    let mut cursor = source.cursor(Family::Internal, false)?;
    cursor.seek_first()?;
    let (mut batch, mut bytes) = (WriteBatch::new(), 0);
    while let Some((key, value)) = cursor.entry() {
        if key != INTERNAL_IDENTITY {
            batch.put(target, Family::Internal, key, value)?;
            bytes += key.len() + value.len();
        }
        if bytes >= INTERNAL_BATCH_BYTES {
            target.write(std::mem::take(&mut batch), Durability::Buffered)?;
            bytes = 0;
        }
        cursor.next()?;
    }
    target.write(batch, Durability::Buffered)
}

/// Opens staging read only, past the page cache where the file system allows it. Says whether it did.
fn open_for_verification(place: &Place, settings: &Settings) -> Result<(Database, bool)> {
    let direct = Settings { direct_reads: true, ..settings.clone() };
    match Database::open_read_only(&*place.vfs, &place.layout.staging, &direct) {
        Ok(database) => Ok((database, true)),
        Err(_) => Ok((Database::open_read_only(&*place.vfs, &place.layout.staging, settings)?, false)),
    }
}

fn verify_staging(job: &Conversion<'_>, source: &Database, staging: &Database, wanted: &Content) -> Result<()> {
    let step = "verify the converted database";
    let differs = |what: &str, found: String, wanted: String| {
        let message = format!("{what}: found {found}, expected {wanted}; the old database is untouched");
        Err(Error::new(ErrorKind::Corrupt, step, message).at(staging.path()))
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
    let found = scan(staging, &*job.to, job.threads, job.reporter)?;
    if found != *wanted {
        return differs("content", format!("{found:?}"), format!("{wanted:?}"));
    }
    if job.verify == Verify::Both {
        let again = scan_with(source, &*job.from, job.threads, Cuts::WithinFiles, job.reporter)?;
        if again != *wanted {
            return differs("content of the source, read again", format!("{again:?}"), format!("{wanted:?}"));
        }
    }
    Ok(())
}
