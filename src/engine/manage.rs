//! What an operator does to a database as a whole. Every function locks the place for as long as it runs.

use super::open::{Settled, bring_back, convert_if_wanted, open_to_read, settled};
use super::options::Options;
use crate::conversion::{self, Content, Plan, Report, Reporter};
use crate::encoding::{Comparator, EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::INTERNAL_IDENTITY;
use crate::marker::{self, MARKER_FORMAT, Marker, Origin, OriginKind};
use crate::place::{self, NewDatabase, Place, Rest};
use crate::rocks::{Database, Durability, Family, Settings};
use crate::trap::trap;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

fn lock(path: &Path, options: &Options) -> Result<Place> {
    Place::lock(options.file_operations()?, path)
}

/// Makes a new, empty database in the encoding that the options name (natural, if none).
///
/// # Errors
/// `Conflict` if there is one. Otherwise there is none, or an empty one.
pub fn create(path: impl AsRef<Path>, options: &Options) -> Result<Marker> {
    let mut place = lock(path.as_ref(), options)?;
    let natural: Arc<dyn KeyEncoding> = Arc::new(crate::encoding::Natural);
    let encoding = options.encoding.as_ref().unwrap_or(&natural);
    let rest = place::create(&mut place, &NewDatabase { encoding, settings: &options.settings() })?;
    let Rest::Open { marker: Some(marker), leftover } = rest else {
        return Err(Error::new(ErrorKind::Io, "create a database", "it is not there after all").at(&place.layout.live));
    };
    if let Some(leftover) = &leftover {
        place.sweep(leftover);
    }
    Ok(marker)
}

/// Converts the database to the encoding that the options name. `None`: it has that encoding already. A conversion to it
/// that was interrupted goes on where it was, verified and kept as it was begun.
///
/// # Errors
/// As opening it; see [`crate::Engine::open`].
pub fn convert(path: impl AsRef<Path>, options: &Options) -> Result<Option<Report>> {
    let mut place = lock(path.as_ref(), options)?;
    let rest = place.settle()?;
    let now = settled(options, &mut place, rest)?;
    let (now, report) = convert_if_wanted(&mut place, options, now)?;
    let database = Database::open_read_only(&*place.vfs, &place.layout.live, &settings_for(options, &now))?;
    if let Some(marker) = &now.marker {
        place::check_identity(&database, marker)?;
    }
    drop(database);
    if let Some(leftover) = &now.leftover {
        place.sweep(leftover);
    }
    Ok(report)
}

fn settings_for(options: &Options, now: &Settled) -> Settings {
    Settings { comparator: now.encoding.comparator(), ..options.settings() }
}

/// What [`convert`] would do. `None`: nothing. Changes nothing.
///
/// # Errors
/// What preflight would refuse; `Refused` while an interrupted change is to be recovered first.
pub fn plan_conversion(path: impl AsRef<Path>, options: &Options) -> Result<Option<Plan>> {
    let mut place = lock(path.as_ref(), options)?;
    let marker = place.look_before_change()?;
    let from = options.known(marker.as_ref()).map_err(|error| error.at(&place.layout.live))?;
    let Some(to) = options.encoding.clone() else { return Ok(None) };
    if EncodingId::of(&*from) == EncodingId::of(&*to) {
        return Ok(None);
    }
    let (settings, reporter) = (options.settings(), Reporter::silent());
    let job = options.conversion(from, to, marker.as_ref(), &settings, &reporter);
    conversion::plan(&mut place, &job).map(Some)
}

/// What [`recover`] found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// What was done (or, in a dry run, would be done first), in order.
    pub actions: Vec<String>,
    /// The state afterwards, as [`super::inspect::inspect`] names it.
    pub state: String,
}

/// Brings a place to rest: finishes what is Ready, sweeps what is Done, and leaves an unfinished conversion to be gone on
/// with by [`convert`], or drops it if `abandon` is set.
///
/// # Errors
/// `Refused` for what is not ours to judge; any failure of a step, after which the next call goes on.
pub fn recover(path: impl AsRef<Path>, options: &Options, abandon: bool) -> Result<Recovery> {
    let mut place = lock(path.as_ref(), options)?;
    let rest = place.settle()?;
    if let Rest::Open { marker: Some(_), .. } | Rest::Building { marker: Some(_), .. } = &rest {
        bring_back(&mut place, options)?;
    }
    match &rest {
        Rest::Absent => {}
        Rest::Open { leftover: Some(leftover), .. } => {
            place.try_sweep(leftover)?;
            place.note("sweep what a finished change left");
        }
        Rest::Open { .. } => {}
        Rest::Building { journal, .. } if abandon => {
            place::abandon(&mut place, journal)?;
            place.note("drop the unfinished conversion");
        }
        Rest::Building { .. } => {}
    }
    let state = super::inspect::state_of(&*place.vfs, &place.layout)?;
    Ok(Recovery { actions: place.take_notes(), state })
}

/// What [`rollback`] did, or would lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollbackReport {
    /// The encoding of the database that is live now.
    pub encoding: String,
    /// Sequence numbers used since the conversion: the writes that a rollback loses. `None`: the database that went was
    /// too damaged to tell.
    pub lost_writes: Option<u64>,
}

/// The writes that a rollback would lose: sequence numbers used since the conversion.
///
/// # Errors
/// `NotFound` if no old database is kept.
pub fn rollback_loss(path: impl AsRef<Path>, options: &Options) -> Result<u64> {
    let mut place = lock(path.as_ref(), options)?;
    place::require_kept(&place)?;
    place::writes_since_seal(&mut place, &options.settings())
}

/// Puts the kept old database back.
///
/// # Errors
/// `NotFound` if none is kept; `Refused` if it was changed. Once begun, the next open goes on.
pub fn rollback(path: impl AsRef<Path>, options: &Options) -> Result<RollbackReport> {
    let mut place = lock(path.as_ref(), options)?;
    let lost_writes = match place::writes_since_seal(&mut place, &options.settings()) {
        Ok(lost) => Some(lost),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused | ErrorKind::NotFound) => None,
        Err(error) => return Err(error),
    };
    let rest = place::rollback(&mut place)?;
    let now = settled(options, &mut place, rest)?;
    if let Some(leftover) = &now.leftover {
        place.sweep(leftover);
    }
    Ok(RollbackReport { encoding: EncodingId::of(&*now.encoding).to_string(), lost_writes })
}

/// Removes the kept old database.
///
/// # Errors
/// `NotFound` if none is kept. Once begun, the next open goes on.
pub fn drop_backup(path: impl AsRef<Path>, options: &Options) -> Result<()> {
    place::drop_backup(&mut lock(path.as_ref(), options)?)
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verification {
    /// The encoding that every key was decoded from; empty if damage stopped it before.
    pub encoding: String,
    /// Entries of the caller's family.
    pub entries: u64,
    /// Their digest.
    pub digest: String,
    /// Whether there was a sealed count and digest to compare with (nothing was written since).
    pub compared_with_seal: bool,
    /// Whether all agrees.
    pub ok: bool,
    /// What does not agree.
    pub findings: Vec<String>,
}

/// Reads everything: checksums of all blocks, every key decoded strictly, count and digest compared with the marker as
/// long as nothing was written since it was sealed. Changes nothing.
///
/// # Errors
/// Those of opening it to read; damage found on the way is told in the result.
pub fn verify(path: impl AsRef<Path>, options: &Options) -> Result<Verification> {
    let mut found = Verification::default();
    let opened = open_to_scan(path.as_ref(), options);
    let (_place, marker, encoding, database) = match opened {
        Ok(opened) => opened,
        // Damage in what is read first is damage like any other.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            found.findings.push(error.to_string());
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let reporter = options.reporter();
    found.encoding = EncodingId::of(&*encoding).to_string();
    match conversion::scan(&database, &*encoding, options.parallelism, &reporter) {
        Ok(content) => {
            found.entries = content.entries;
            found.digest = content.digest.to_string();
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => found.findings.push(error.to_string()),
        Err(error) => return Err(error),
    }
    if let Err(error) = conversion::scan_internal_user(&database) {
        found.findings.push(format!("internal records: {error}"));
    }
    let sealed = marker.as_ref().filter(|marker| marker.sealed_sequence == database.last_sequence());
    if let Some(sealed) = sealed.and_then(|marker| marker.sealed.as_ref()).filter(|_| found.findings.is_empty()) {
        found.compared_with_seal = true;
        if (sealed.entries, sealed.digest.as_str()) != (found.entries, found.digest.as_str()) {
            found.findings.push(format!("the marker says {} entries, digest {}", sealed.entries, sealed.digest));
        }
    }
    found.ok = found.findings.is_empty();
    Ok(found)
}

/// The number of entries and their digest, equal for equal content in any encoding. Changes nothing.
///
/// # Errors
/// Those of opening it to read; `Corrupt`.
pub fn digest(path: impl AsRef<Path>, options: &Options) -> Result<Content> {
    let (_place, _, encoding, database) = open_to_scan(path.as_ref(), options)?;
    conversion::scan(&database, &*encoding, options.parallelism, &options.reporter())
}

type Opened = (Place, Option<Marker>, Arc<dyn KeyEncoding>, Database);

fn open_to_scan(path: &Path, options: &Options) -> Result<Opened> {
    let mut place = lock(path, options)?;
    let marker = place.look()?;
    let encoding = options.known(marker.as_ref()).map_err(|error| error.at(&place.layout.live))?;
    let settings = Settings { comparator: encoding.comparator(), bulk: true, ..options.settings() };
    let database = open_to_read(&mut place, &settings)?;
    match &marker {
        Some(marker) => place::check_identity(&database, marker)?,
        None => conversion::require_wal_inside(&*place.vfs, &place.layout.live)?,
    }
    Ok((place, marker, encoding, database))
}

/// Takes over a plain RocksDB database whose keys lie in `encoding`: writes the identity into it, then its marker.
///
/// Every key is decoded first, so that a wrong encoding is refused. Wide-column entities cannot be told from plain ones
/// by RocksDB's C interface: of them only the default column is seen.
///
/// # Errors
/// `Conflict` if it has a marker, `Refused` for what is no plain RocksDB database in bytewise order, `Corrupt` for a key
/// that is not in that encoding, `Unsupported` for foreign column families. After an error in the middle the identity
/// may be inside without a marker; adopting again finishes it.
pub fn adopt(path: impl AsRef<Path>, encoding: &Arc<dyn KeyEncoding>, options: &Options) -> Result<Marker> {
    let mut place = lock(path.as_ref(), options)?;
    require_adoptable(&place, encoding)?;
    let settings = options.settings();
    let database = place.open_to_read(&Settings { bulk: true, ..settings.clone() })?;
    let id = EncodingId::of(&**encoding);
    let identity = place::read_identity(&database)?;
    if let Some(identity) = identity.as_ref().filter(|identity| identity.encoding != id) {
        let live = &place.layout.live;
        let message = format!("the identity inside it says that its keys are in {}", identity.encoding);
        return Err(Error::new(ErrorKind::Conflict, "adopt the database", message).at(live).next(format!(
            "morphkv adopt {} --encoding {}",
            live.display(),
            identity.encoding.name
        )));
    }
    conversion::scan(&database, &**encoding, options.parallelism, &options.reporter())?;
    drop(database);
    place.unlock_rocks();
    let (vfs, live) = (&*place.vfs, &place.layout.live);
    let origin = Origin { kind: OriginKind::Adopt, id: Uuid::new_v4() };
    let mut marker = Marker {
        format: MARKER_FORMAT,
        database_id: identity.as_ref().map_or_else(Uuid::new_v4, |identity| identity.database_id),
        instance_id: identity.as_ref().map_or_else(Uuid::new_v4, |identity| identity.instance_id),
        encoding: id,
        origin: identity.as_ref().map_or(origin, |identity| identity.origin),
        sealed_sequence: 0,
        sealed: None,
    };
    let database = Database::open_adding_internal(vfs, live, &settings)?;
    database.put(Family::Internal, INTERNAL_IDENTITY, &marker.identity().to_bytes()?, Durability::Sync)?;
    database.flush()?;
    marker.sealed_sequence = database.last_sequence();
    database.close()?;
    vfs.sync_dir(live)?;
    trap!(vfs, AdoptIdentity);
    marker::write(vfs, live, &marker)?;
    trap!(vfs, AdoptMarker);
    Ok(marker)
}

fn require_adoptable(place: &Place, encoding: &Arc<dyn KeyEncoding>) -> Result<()> {
    let (step, live) = ("adopt the database", &place.layout.live);
    if encoding.comparator() != Comparator::Bytewise {
        let message =
            "a legacy slash-spans database needs no marker: it is known by its comparator and can be converted";
        return Err(Error::new(ErrorKind::InvalidArgument, step, message).at(live));
    }
    let sight = place::observe(&*place.vfs, &place.layout)?;
    place.require_no_strangers(step)?;
    use place::decide::{Change, Live};
    match (sight.observed.change, sight.observed.live) {
        (Change::None, Live::Foreign) => {}
        (Change::None, Live::Absent) => {
            return Err(Error::new(ErrorKind::NotFound, step, "there is no database").at(live));
        }
        (Change::None, Live::Whole) if sight.marker.is_some() => {
            return Err(Error::new(ErrorKind::Conflict, step, "it has a marker already").at(live));
        }
        (Change::None, _) => {
            let message = "it is a legacy slash-spans database, known by its comparator; convert it instead";
            return Err(Error::new(ErrorKind::Conflict, step, message)
                .at(live)
                .next(format!("morphkv convert {} --to hierarchical", live.display())));
        }
        _ => {
            let message = "a change of this place is under way";
            return Err(Error::new(ErrorKind::Conflict, step, message)
                .at(live)
                .next(format!("morphkv recover {}", live.display())));
        }
    }
    if sight.marker_error.is_some() || !sight.reason.contains("without a marker") {
        return Err(Error::new(ErrorKind::Refused, step, format!("{}; nothing was touched", sight.reason)).at(live));
    }
    let description = crate::rocks::describe(&*place.vfs, live)?;
    let foreign = description.foreign_families();
    if !foreign.is_empty() {
        let message = format!("it holds column families that are not ours: {}", foreign.join(", "));
        return Err(Error::new(ErrorKind::Unsupported, step, message).at(live));
    }
    let ours = live.join(crate::layout::INGEST);
    if place.vfs.stat(&ours)?.is_some() {
        let message = "a name that morphkv uses for itself stands in it; move it away";
        return Err(Error::new(ErrorKind::Conflict, step, message).at(ours));
    }
    conversion::require_wal_inside(&*place.vfs, live)
}
