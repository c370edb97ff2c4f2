//! Opening: lock, bring the place to rest, read the marker, bring back what a failed load lacks, convert if a named encoding
//! differs, open, check, sweep.
//!
//! Invariants: nothing is looked at before the lock is held; the wanted encoding is compared only after the place is at
//! rest; the identity inside the database is compared with its marker before a handle is given out; opening a database
//! that needs nothing writes nothing of ours but the lock's informative content.

use super::attached::Attached;
use super::ingest::{Loading, Missing};
use super::options::{OnMismatch, Options};
use super::{Engine, Parts};
use crate::attachment;
use crate::conversion::{self, Conversion, Report, Reporter};
use crate::encoding::{EncodingId, KeyEncoding, Natural, SlashSpans};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::PENDING_INGEST;
use crate::marker::Marker;
use crate::place::journal::Journal;
use crate::place::{self, NewDatabase, Place, Rest};
use crate::rocks::{Database, Durability, Settings};
use std::path::Path;
use std::sync::Arc;

/// A place whose live database is whole.
pub(super) struct Settled {
    /// The encoding that it is in.
    pub encoding: Arc<dyn KeyEncoding>,
    /// Its marker; `None` for a legacy database.
    pub marker: Option<Marker>,
    /// What is to be swept once live is open.
    pub leftover: Option<Journal>,
    /// A change towards its replacement that was interrupted.
    pub interrupted: Option<Journal>,
}

impl Options {
    /// Where progress goes.
    pub(super) fn reporter(&self) -> Reporter {
        self.progress.clone().map_or_else(Reporter::silent, Reporter::new)
    }

    /// The encoding that a marker names; without one the database is legacy.
    ///
    /// # Errors
    /// `UnknownEncoding`.
    pub(crate) fn known(&self, marker: Option<&Marker>) -> Result<Arc<dyn KeyEncoding>> {
        match marker {
            Some(marker) => self.encodings()?.get(&marker.encoding),
            None => Ok(Arc::new(SlashSpans)),
        }
    }

    /// The job of converting to `to`.
    pub(super) fn conversion<'a>(
        &self,
        from: Arc<dyn KeyEncoding>,
        to: Arc<dyn KeyEncoding>,
        marker: Option<&'a Marker>,
        settings: &'a Settings,
        reporter: &'a Reporter,
    ) -> Conversion<'a> {
        Conversion {
            from,
            to,
            marker,
            settings,
            verify: self.verify,
            keep: self.keep_backup,
            memory_bytes: self.memory_bytes as u64,
            threads: self.parallelism,
            reporter,
            tuning: self.tuning,
        }
    }
}

impl Engine {
    /// Opens the database at `path`, converting it first if the options name another encoding than its marker.
    ///
    /// # Errors
    /// `NotFound` (and creating was not asked for), `Locked`, `Refused` with advice for what is not ours to judge,
    /// `UnknownEncoding`, `Corrupt`, `NoSpace`, `Unrepresentable` (a key that the wanted encoding cannot carry),
    /// `Conflict` (another encoding, and converting was not allowed). No error loses a key: the next open goes on from
    /// whatever state was reached.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Engine> {
        let mut place = Place::lock(options.file_operations()?, path.as_ref())?;
        let settled = settle_or_create(&mut place, &options)?;
        let (settled, _) = convert_if_wanted(&mut place, &options, settled)?;
        let Some(marker) = settled.marker else { return Err(legacy(&place)) };
        let attached = attachment::read(&*place.vfs, &place.layout.live)?.is_some();
        if attached && options.durability == Durability::NoWal {
            let message = "it is attached to a log archive, which needs the WAL";
            return Err(Error::new(ErrorKind::InvalidArgument, "open the database", message).at(&place.layout.live));
        }
        let settings = Settings { keep_wal: attached, ..options.settings() };
        let database = Database::open(&*place.vfs, &place.layout.live, &settings)?;
        place::check_identity(&database, &marker)?;
        if let Some(leftover) = &settled.leftover {
            place.sweep(leftover);
        }
        super::ingest::sweep(&*place.vfs, &place.layout);
        let engine = assemble(place, database, settled.encoding, marker, &options, attached)?;
        engine.finish_load()?;
        Ok(engine)
    }

    /// Opens the database at `path` for reading alone: neither recovers nor converts, and writes nothing.
    ///
    /// # Errors
    /// `NotFound`, `Locked`, `Refused` if it is not whole as it stands (the message names `morphkv recover`).
    pub fn open_read_only(path: impl AsRef<Path>, options: Options) -> Result<Engine> {
        let mut place = Place::lock(options.file_operations()?, path.as_ref())?;
        let marker = place.look()?;
        let encoding = options.known(marker.as_ref()).map_err(|error| error.at(&place.layout.live))?;
        let settings = Settings { comparator: encoding.comparator(), ..options.settings() };
        let database = open_to_read(&mut place, &settings)?;
        let marker = match marker {
            Some(marker) => {
                place::check_identity(&database, &marker)?;
                marker
            }
            None => {
                conversion::require_wal_inside(&*place.vfs, &place.layout.live)?;
                legacy_marker(&database)
            }
        };
        assemble(place, database, encoding, marker, &options, false)
    }

    /// Removes the database at `path` with everything that belongs to it. Says whether there was one.
    ///
    /// # Errors
    /// `Locked`; `Conflict` while something that is not ours stands beside it; `Refused`. Once begun, the next open of
    /// the place finishes it.
    pub fn destroy(path: impl AsRef<Path>, options: Options) -> Result<bool> {
        let mut place = Place::lock(options.file_operations()?, path.as_ref())?;
        place::destroy(&mut place)
    }
}

fn assemble(
    place: Place,
    database: Database,
    encoding: Arc<dyn KeyEncoding>,
    marker: Marker,
    options: &Options,
    attached: bool,
) -> Result<Engine> {
    let (vfs, layout, lock, rocks_lock) = place.into_parts();
    Ok(Engine::assemble(Parts {
        vfs,
        layout,
        lock,
        rocks_lock,
        database,
        encoding,
        marker,
        durability: options.durability,
        attached,
        hooks: options.hooks.clone(),
    }))
}

/// What a legacy database would say of itself.
fn legacy_marker(database: &Database) -> Marker {
    Marker {
        format: crate::marker::MARKER_FORMAT,
        database_id: uuid::Uuid::nil(),
        instance_id: uuid::Uuid::nil(),
        encoding: EncodingId::of(&SlashSpans),
        origin: crate::marker::Origin { kind: crate::marker::OriginKind::Adopt, id: uuid::Uuid::nil() },
        sealed_sequence: database.last_sequence(),
        sealed: None,
    }
}

fn legacy(place: &Place) -> Error {
    let message = "it is a legacy slash-spans database, which can be read and converted, not written; name an encoding";
    Error::new(ErrorKind::Refused, "open the database", message)
        .at(&place.layout.live)
        .next(format!("morphkv convert {} --to hierarchical", place.layout.live.display()))
}

/// The settled state of a place at rest.
pub(super) fn settled(options: &Options, place: &mut Place, rest: Rest) -> Result<Settled> {
    let (marker, leftover, interrupted) = match rest {
        Rest::Open { marker, leftover } => (marker, leftover, None),
        Rest::Building { marker, journal } => (marker, None, Some(journal)),
        Rest::Absent => {
            return Err(Error::new(ErrorKind::NotFound, "open the database", "there is none")
                .at(&place.layout.live)
                .next(format!("morphkv create {} --encoding natural", place.layout.live.display())));
        }
    };
    if marker.is_some() {
        bring_back(place, options)?;
    }
    let encoding = options.known(marker.as_ref()).map_err(|error| error.at(&place.layout.live))?;
    Ok(Settled { encoding, marker, leftover, interrupted })
}

/// Brings back the files of a bulk load that RocksDB has removed, although its MANIFEST names them.
///
/// # Errors
/// `Locked`, those of a look; some of the files may be back, and what the load has left stands: repeated, it goes on.
pub(super) fn bring_back(place: &mut Place, options: &Options) -> Result<()> {
    let (vfs, live) = (Arc::clone(&place.vfs), place.layout.live.clone());
    if !super::ingest::has_left_files(&*vfs, &live)? {
        return Ok(());
    }
    let back = place.with_rocks_locked(|| {
        let missing = Missing::find(&*vfs, &live, &options.settings())?;
        let back = missing.map(|missing| missing.bring_back(&*vfs, &live)).transpose()?;
        // Also those that were brought back before a crash: their second names go soon.
        vfs.sync_dir(&live)?;
        Ok(back)
    })?;
    if back.is_some() {
        place.note("bring back the files of a bulk load");
    }
    Ok(())
}

/// Opens a database for reading alone.
pub(super) fn open_to_read(place: &mut Place, settings: &Settings) -> Result<Database> {
    place.open_to_read(settings).map_err(|error| {
        let live = &place.layout.live;
        if !matches!(Missing::find(&*place.vfs, live, settings), Ok(Some(_))) {
            return error;
        }
        let message = "files of a bulk load that failed have to be brought back";
        Error::new(ErrorKind::Refused, "open the database", message)
            .at(live)
            .next(format!("morphkv recover {}", live.display()))
            .because(error)
    })
}

fn settle_or_create(place: &mut Place, options: &Options) -> Result<Settled> {
    let mut rest = place.settle()?;
    if matches!(rest, Rest::Absent) && options.create_if_missing {
        let natural: Arc<dyn KeyEncoding> = Arc::new(Natural);
        let encoding = options.encoding.as_ref().unwrap_or(&natural);
        rest = place::create(place, &NewDatabase { encoding, settings: &options.settings() })?;
    }
    settled(options, place, rest)
}

/// Brings a bulk load to an end that a crash has interrupted: its files are in the encoding that is to be left.
fn finish_load(place: &Place, options: &Options, now: &Settled) -> Result<()> {
    let live = &place.layout.live;
    let Some(marker) = &now.marker else { return Ok(()) };
    if place.vfs.stat(&live.join(PENDING_INGEST))?.is_none() {
        return Ok(());
    }
    let mut settings = options.settings();
    settings.keep_wal = attachment::read(&*place.vfs, live)?.is_some();
    let database = Database::open(&*place.vfs, live, &settings)?;
    place::check_identity(&database, marker)?;
    super::ingest::sweep(&*place.vfs, &place.layout);
    let attached = Attached::new(Arc::clone(&place.vfs), options.hooks.clone());
    Loading { vfs: &*place.vfs, live, database: &database, attached: &attached }.finish(false)?;
    database.close()
}

/// Converts if the options name another encoding than the database has. A conversion that was interrupted is gone on
/// with if that encoding is its target; if not, what it has built is dropped, since whoever gets a handle may write, and
/// what was built of the state before is worth nothing then.
pub(super) fn convert_if_wanted(
    place: &mut Place,
    options: &Options,
    mut now: Settled,
) -> Result<(Settled, Option<Report>)> {
    let has = EncodingId::of(&*now.encoding);
    let differs = |wanted: &&Arc<dyn KeyEncoding>| EncodingId::of(&***wanted) != has;
    let Some(wanted) = options.encoding.as_ref().filter(differs) else {
        // Nobody writes to a legacy database.
        if let Some(journal) = now.interrupted.take_if(|_| now.marker.is_some()) {
            place::abandon(place, &journal)?;
        }
        return Ok((now, None));
    };
    let wants = EncodingId::of(&**wanted);
    if options.on_mismatch == OnMismatch::Refuse {
        let message = format!("it is in the encoding {has}, {wants} was asked for, and converting was not allowed");
        return Err(Error::new(ErrorKind::Conflict, "open the database", message)
            .at(&place.layout.live)
            .next(format!("morphkv convert {} --to {}", place.layout.live.display(), wants.name)));
    }
    if let Some(leftover) = now.leftover.take() {
        place.try_sweep(&leftover)?;
    }
    finish_load(place, options, &now)?;
    let settings = options.settings();
    let reporter = options.reporter();
    let job = options.conversion(now.encoding.clone(), wanted.clone(), now.marker.as_ref(), &settings, &reporter);
    let (report, rest) = conversion::convert(place, &job, now.interrupted.as_ref())?;
    Ok((settled(options, place, rest)?, Some(report)))
}
