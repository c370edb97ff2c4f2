//! Looking at a place: what stands at each of its names, as far as the recovery table asks.
//!
//! Invariants: nothing is changed by looking; only `NotFound` counts as absent; a directory is called *not whole* only
//! on positive evidence (a file missing, torn, of another id, or RocksDB's `Corruption`), while a passing failure (too
//! many open files, an I/O error, no permission) is returned as an error, so that nothing moves because of it.

use super::decide::{Backup, Change, Live, Observed, Staging};
use super::journal::{self, Journal, JournalState, Kind, Phase, Source};
use super::restore_phase::is_restore_under_way;
use crate::encoding::Comparator;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Stat, Vfs};
use crate::layout::{INTERNAL_IDENTITY, Layout, OWNER, ROCKSDB_CURRENT, TEMPORARY_SUFFIX, is_left_by_a_failed_open};
use crate::marker::{self, Identity, Marker};
use crate::rocks::{Database, Family, Settings};
use std::path::Path;
use uuid::Uuid;

/// What was seen, with what later steps and messages need.
#[derive(Debug, Clone)]
pub struct Sight {
    /// What the decision depends on.
    pub observed: Observed,
    /// The journal, if it could be read.
    pub journal: Option<Journal>,
    /// Live's marker, if it has a valid one.
    pub marker: Option<Marker>,
    /// In words, what is wrong with live or with the journal.
    pub reason: String,
    /// The error of live's marker, if that is what is wrong.
    pub marker_error: Option<(ErrorKind, String)>,
}

enum MarkerFound {
    None,
    Bad(Error),
    Good(Box<Marker>),
}

fn read_marker(vfs: &dyn Vfs, directory: &Path) -> Result<MarkerFound> {
    match marker::read(vfs, directory) {
        Ok(None) => Ok(MarkerFound::None),
        Ok(Some(marker)) => Ok(MarkerFound::Good(Box::new(marker))),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            Ok(MarkerFound::Bad(error))
        }
        Err(error) => Err(error),
    }
}

/// Looks at all names of a place.
///
/// # Errors
/// Any failure of a look. Nothing was changed.
pub fn observe(vfs: &dyn Vfs, layout: &Layout) -> Result<Sight> {
    observe_under(vfs, layout, journal::read(vfs, layout)?)
}

/// As [`observe`], as if this were the journal: to learn what the table would say before it is written.
///
/// # Errors
/// Any failure of a look. Nothing was changed.
pub fn observe_under(vfs: &dyn Vfs, layout: &Layout, state: JournalState) -> Result<Sight> {
    let live = vfs.stat(&layout.live)?;
    let staging = vfs.stat(&layout.staging)?;
    let backup = vfs.stat(&layout.backup_dir)?;
    let trash = vfs.stat(&layout.trash)?;
    let mut sight = Sight {
        observed: Observed {
            change: Change::None,
            live: Live::Absent,
            staging: Staging::Absent,
            backup: Backup::Absent,
            trash: trash.is_some(),
            restore: is_restore_under_way(vfs, layout)?,
            twins: twins(&[live, staging, backup, trash]),
        },
        journal: None,
        marker: None,
        reason: String::new(),
        marker_error: None,
    };
    if sight.observed.twins {
        sight.reason = "one directory stands under two of its names, as after a torn rename".into();
        return Ok(sight);
    }
    match state {
        JournalState::Unreadable(why) => {
            sight.observed.change = Change::Unreadable;
            sight.reason = format!("the journal {} cannot be read: {why}", layout.journal.display());
        }
        JournalState::None => {
            sight.observed.staging = if staging.is_some() { Staging::Foreign } else { Staging::Absent };
            sight.observed.backup = if backup.is_some() { Backup::Foreign } else { Backup::Absent };
            sight.observed.live = live_alone(vfs, layout, live, &mut sight)?;
        }
        JournalState::Read(journal) => {
            sight.observed.change = Change::Of {
                kind: journal.kind,
                phase: journal.phase,
                replaces: journal.source.is_some(),
                keep: journal.keep,
            };
            sight.observed.live = live_under(vfs, layout, live, &journal, &mut sight)?;
            sight.observed.staging = staging_under(vfs, layout, staging, &journal)?;
            sight.observed.backup = backup_under(vfs, layout, backup, &journal)?;
            sight.journal = Some(*journal);
        }
    }
    Ok(sight)
}

fn twins(siblings: &[Option<Stat>]) -> bool {
    let ids: Vec<_> = siblings.iter().flatten().map(|stat| (stat.device, stat.inode)).collect();
    ids.iter().enumerate().any(|(index, id)| ids[..index].contains(id))
}

/// What can be said of live without looking into it: absent, or no directory. An empty directory on the parent's file
/// system counts as absent, since a supervisor made it. `None`: something is in it.
fn at_a_glance(vfs: &dyn Vfs, layout: &Layout, stat: Option<Stat>, sight: &mut Sight) -> Result<Option<Live>> {
    let Some(stat) = stat else { return Ok(Some(Live::Absent)) };
    if stat.kind != FileKind::Directory {
        sight.reason = "it is no directory (symbolic links are not followed)".into();
        return Ok(Some(Live::Foreign));
    }
    // A database may hold thousands of files: it is listed only where it seems to be none.
    if vfs.stat(&layout.live.join(ROCKSDB_CURRENT))?.is_some() || !vfs.list(&layout.live)?.is_empty() {
        return Ok(None);
    }
    let parent = vfs.stat(&layout.parent)?.filter(|parent| parent.kind == FileKind::Directory);
    if parent.is_some_and(|parent| parent.device != stat.device) {
        sight.reason = "it is an empty mount point, which cannot be swapped; use a directory inside it".into();
        return Ok(Some(Live::Foreign));
    }
    Ok(Some(Live::Absent))
}

fn live_alone(vfs: &dyn Vfs, layout: &Layout, stat: Option<Stat>, sight: &mut Sight) -> Result<Live> {
    if let Some(live) = at_a_glance(vfs, layout, stat, sight)? {
        return Ok(live);
    }
    let has_database = vfs.stat(&layout.live.join(ROCKSDB_CURRENT))?.is_some();
    match read_marker(vfs, &layout.live)? {
        MarkerFound::Good(_) if !has_database => {
            sight.reason = "its marker is valid, but RocksDB's CURRENT is missing".into();
            Ok(Live::Foreign)
        }
        MarkerFound::Good(marker) => {
            sight.marker = Some(*marker);
            Ok(Live::Whole)
        }
        MarkerFound::Bad(error) => {
            sight.reason = format!("its marker is unusable: {}", error.message());
            sight.marker_error = Some((error.kind(), error.message().to_owned()));
            Ok(Live::Foreign)
        }
        MarkerFound::None if !has_database => {
            sight.reason = "the directory holds no database of ours and is not empty".into();
            Ok(Live::Foreign)
        }
        MarkerFound::None => legacy(vfs, layout, sight),
    }
}

/// A database without a marker is legacy only on positive evidence: the comparator that it records.
fn legacy(vfs: &dyn Vfs, layout: &Layout, sight: &mut Sight) -> Result<Live> {
    let description = match crate::rocks::describe(vfs, &layout.live) {
        Ok(description) => description,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            sight.reason = format!("it has no marker, and RocksDB says: {}", error.message());
            return Ok(Live::Foreign);
        }
        Err(error) => return Err(error),
    };
    if description.comparator == Some(Comparator::SlashSpans) {
        return Ok(Live::Whole);
    }
    sight.reason = match description.comparator {
        Some(_) => "a RocksDB database without a marker: nobody says how its keys are encoded".into(),
        None => format!("a RocksDB database with the unknown comparator `{}`", description.comparator_name),
    };
    Ok(Live::Foreign)
}

fn live_under(
    vfs: &dyn Vfs,
    layout: &Layout,
    stat: Option<Stat>,
    journal: &Journal,
    sight: &mut Sight,
) -> Result<Live> {
    if let Some(live) = at_a_glance(vfs, layout, stat, sight)? {
        return Ok(live);
    }
    let directory = layout.live.as_path();
    // Other software that wants to open live while the change has it elsewhere leaves this, and no data.
    let in_vain = || Ok(vfs.list(directory)?.iter().all(|name| is_left_by_a_failed_open(name)));
    if vfs.stat(&directory.join(ROCKSDB_CURRENT))?.is_none() && in_vain()? {
        return Ok(Live::Absent);
    }
    match read_marker(vfs, directory)? {
        MarkerFound::Good(marker) if marker.origin.id == journal.id => {
            let whole = is_whole(vfs, directory, &marker)?;
            if !whole {
                sight.reason = "it carries the id of the change, but is damaged".into();
            }
            sight.marker = Some(*marker);
            Ok(if whole { Live::New } else { Live::Partial })
        }
        MarkerFound::Good(marker) => {
            let live = match &journal.source {
                Some(source) if source.marker_id == Some(marker.origin.id) => {
                    match compare(vfs, directory, source, Some(&marker), journal.kind)? {
                        Compared::Same => Live::Source,
                        Compared::MovedOn => Live::SourceChanged,
                        Compared::Damaged => {
                            sight.reason = LOST.into();
                            Live::Foreign
                        }
                    }
                }
                _ => {
                    sight.reason = "it is neither the database that the journal speaks of nor its replacement".into();
                    Live::Foreign
                }
            };
            sight.marker = Some(*marker);
            Ok(live)
        }
        MarkerFound::Bad(error) => {
            sight.reason = format!("its marker is unusable: {}", error.message());
            let ours = error.kind() == ErrorKind::Corrupt && owned(vfs, directory, journal.id)?;
            Ok(if ours { Live::Partial } else { Live::Foreign })
        }
        MarkerFound::None => live_unmarked(vfs, directory, journal, sight),
    }
}

fn live_unmarked(vfs: &dyn Vfs, directory: &Path, journal: &Journal, sight: &mut Sight) -> Result<Live> {
    if let Some(source) = journal.source.as_ref().filter(|source| source.marker_id.is_none())
        && has_identity_file(vfs, directory, source)?
    {
        return match compare(vfs, directory, source, None, journal.kind)? {
            Compared::Same => Ok(Live::Source),
            Compared::MovedOn => Ok(Live::SourceChanged),
            Compared::Damaged => {
                sight.reason = LOST.into();
                Ok(Live::Foreign)
            }
        };
    }
    sight.reason = "it has no marker".into();
    let ours = owned(vfs, directory, journal.id)? || identity_id(vfs, directory)? == Some(journal.id);
    Ok(if ours { Live::Partial } else { Live::Foreign })
}

fn staging_under(vfs: &dyn Vfs, layout: &Layout, stat: Option<Stat>, journal: &Journal) -> Result<Staging> {
    let Some(stat) = stat else { return Ok(Staging::Absent) };
    // While an old database is kept, staging is not ours, whatever it holds.
    if stat.kind != FileKind::Directory || journal.phase == Phase::Kept {
        return Ok(Staging::Foreign);
    }
    let directory = layout.staging.as_path();
    match read_marker(vfs, directory)? {
        MarkerFound::Good(marker) if marker.origin.id == journal.id => {
            Ok(if is_whole(vfs, directory, &marker)? { Staging::New } else { Staging::Partial })
        }
        MarkerFound::Good(_) => Ok(Staging::Foreign),
        MarkerFound::None | MarkerFound::Bad(_) => {
            let ours = owned(vfs, directory, journal.id)? || identity_id(vfs, directory)? == Some(journal.id);
            Ok(if ours { Staging::Partial } else { Staging::Foreign })
        }
    }
}

fn backup_under(vfs: &dyn Vfs, layout: &Layout, stat: Option<Stat>, journal: &Journal) -> Result<Backup> {
    let Some(stat) = stat else { return Ok(Backup::Absent) };
    if stat.kind != FileKind::Directory {
        return Ok(Backup::Foreign);
    }
    let directory = layout.backup_dir.as_path();
    let marker = match read_marker(vfs, directory)? {
        MarkerFound::Good(marker) => Some(*marker),
        MarkerFound::None => None,
        MarkerFound::Bad(_) => return Ok(Backup::Foreign),
    };
    let is = |source: &Source| -> Result<bool> {
        Ok(source.marker_id == marker.as_ref().map(|marker| marker.origin.id)
            && has_identity_file(vfs, directory, source)?)
    };
    let settled = matches!(journal.phase, Phase::Done | Phase::Kept) && journal.kind != Kind::Rollback;
    if let Some(source) = &journal.source
        && is(source)?
    {
        // Once settled, all that matters is whether it is as it was: anything else is left alone.
        if settled {
            let same = journal::fingerprint(vfs, directory)? == source.fingerprint;
            return Ok(if same { Backup::Source } else { Backup::SourceChanged });
        }
        return Ok(match compare(vfs, directory, source, marker.as_ref(), journal.kind)? {
            Compared::Same => Backup::Source,
            Compared::MovedOn => Backup::SourceChanged,
            Compared::Damaged => Backup::Foreign,
        });
    }
    let older = journal.older.as_ref().and_then(|older| older.source.as_ref());
    match older {
        Some(older) if is(older)? && journal::fingerprint(vfs, directory)? == older.fingerprint => Ok(Backup::Older),
        _ => Ok(Backup::Foreign),
    }
}

const LOST: &str = "it is the database that the journal speaks of, but files of it are missing or damaged since";

/// How a directory that carries the source's id stands to the source as the journal describes it.
enum Compared {
    /// Not a byte was written.
    Same,
    /// It opens, and holds all that the source held, and maybe more: other software has been at it.
    MovedOn,
    /// It has lost something. It is not the truth any more, and nothing may be thrown away in its favour.
    Damaged,
}

fn compare(vfs: &dyn Vfs, directory: &Path, source: &Source, marker: Option<&Marker>, kind: Kind) -> Result<Compared> {
    let now = journal::fingerprint(vfs, directory)?;
    let same = now == source.fingerprint;
    // A rollback throws the new database away for this one: names and sizes do not prove enough for that.
    if same && kind != Kind::Rollback {
        return Ok(Compared::Same);
    }
    if vfs.stat(&directory.join(ROCKSDB_CURRENT))?.is_none() || !now.may_follow(&source.fingerprint) {
        return Ok(Compared::Damaged);
    }
    let comparator = if marker.is_some() { Comparator::Bytewise } else { Comparator::SlashSpans };
    let opened = Database::open_read_only(vfs, directory, &Settings { comparator, ..look_settings() });
    let sequence = opened.and_then(|database| {
        marker.map_or(Ok(()), |marker| check_identity(&database, marker))?;
        Ok(database.files_are_there(vfs)?.then(|| database.last_sequence()))
    });
    match sequence {
        Ok(Some(sequence)) if sequence >= source.last_sequence => {
            Ok(if same { Compared::Same } else { Compared::MovedOn })
        }
        Ok(_) => Ok(Compared::Damaged),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused) => Ok(Compared::Damaged),
        Err(error) => Err(error),
    }
}

/// Whether the directory is the source by RocksDB's own identity, which lies in a file.
fn has_identity_file(vfs: &dyn Vfs, directory: &Path, source: &Source) -> Result<bool> {
    Ok(journal::rocksdb_identity(vfs, directory)? == source.fingerprint.identity)
}

/// Whether the directory was made by the change `id`: its owner file says so, or it holds nothing else yet.
fn owned(vfs: &dyn Vfs, directory: &Path, id: Uuid) -> Result<bool> {
    let temporary = format!("{OWNER}{TEMPORARY_SUFFIX}");
    if vfs.list(directory)?.iter().all(|name| *name == OWNER || *name == temporary) {
        return Ok(true);
    }
    let path = directory.join(OWNER);
    match vfs.stat(&path)? {
        Some(stat) if stat.kind == FileKind::File => {}
        _ => return Ok(false),
    }
    let contents = match vfs.read(&path, 256) {
        Ok(contents) => contents,
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8(contents).is_ok_and(|text| text.trim_end() == id.to_string()))
}

/// Whether the marked directory opens and holds the identity of its marker. `false` only on positive evidence.
fn is_whole(vfs: &dyn Vfs, directory: &Path, marker: &Marker) -> Result<bool> {
    if vfs.stat(&directory.join(ROCKSDB_CURRENT))?.is_none() {
        return Ok(false);
    }
    let database = match Database::open_read_only(vfs, directory, &look_settings()) {
        Ok(database) => database,
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused) => return Ok(false),
        Err(error) => return Err(error),
    };
    match check_identity(&database, marker) {
        Ok(()) => database.files_are_there(vfs),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused) => Ok(false),
        Err(error) => Err(error),
    }
}

fn identity_id(vfs: &dyn Vfs, directory: &Path) -> Result<Option<Uuid>> {
    if vfs.stat(&directory.join(ROCKSDB_CURRENT))?.is_none() {
        return Ok(None);
    }
    let opened = Database::open_read_only(vfs, directory, &look_settings());
    let identity = opened.and_then(|database| read_identity(&database));
    match identity {
        Ok(identity) => Ok(identity.map(|identity| identity.origin.id)),
        Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Locked) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A look needs little memory.
fn look_settings() -> Settings {
    Settings { bulk: true, ..Settings::default() }
}

/// The identity inside an open database.
///
/// # Errors
/// `Corrupt`, `Unsupported`, `Io`. Nothing was changed.
pub fn read_identity(database: &Database) -> Result<Option<Identity>> {
    if !database.has_internal() {
        return Ok(None);
    }
    match database.get(Family::Internal, INTERNAL_IDENTITY)? {
        Some(bytes) => Identity::from_bytes(&bytes).map(Some).map_err(|error| error.at(database.path())),
        None => Ok(None),
    }
}

/// Compares the identity inside an open database with its marker.
///
/// # Errors
/// `Refused` if they differ; `Corrupt`, `Io`. Nothing was changed.
pub fn check_identity(database: &Database, marker: &Marker) -> Result<()> {
    let refused = |what: &str| {
        let message = format!("{what}; the marker or the database was exchanged; both are intact as they stand");
        Err(Error::new(ErrorKind::Refused, "compare marker and database", message)
            .at(database.path())
            .next(format!("morphkv inspect {}", database.path().display())))
    };
    match read_identity(database)? {
        None => refused("the database does not hold the identity that its marker names"),
        Some(identity) if identity != marker.identity() => {
            refused("the identity inside the database is not its marker's")
        }
        Some(_) => Ok(()),
    }
}
