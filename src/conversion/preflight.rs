//! What is checked before a conversion does any work, so that it cannot fail at the end of hours for a reason that was
//! known at the beginning. Nothing is changed but the probe directory, which is removed again.

use crate::encoding::Comparator;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, Vfs, parent_of, tree_size};
use crate::layout::{Layout, ROCKSDB_CURRENT};
use crate::place::journal::Keep;
use crate::rocks::{Compression, Database};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;

const STEP: &str = "prepare a conversion";

/// The room kept free beside the new database: 64 MiB.
const RESERVE_BYTES: u64 = 64 << 20;

/// Bytes that conversions of this process are going to write, by device: many databases may convert at once.
static RESERVED: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

/// Room set aside for one conversion; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    device: u64,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(reserved) = RESERVED.lock().get_mut(&self.device) {
            *reserved = reserved.saturating_sub(self.bytes);
        }
    }
}

/// What a conversion will need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the live directory.
    pub live_bytes: u64,
    /// Bytes that must be free.
    pub needed_bytes: u64,
    /// Bytes that are free and not set aside for other conversions of this process.
    pub free_bytes: u64,
}

/// Measures the room that a conversion of `source` needs and has. `spills`: all is sorted on disk, uncompressed, on the
/// way. `built_bytes`: what an attempt before has built, which needs no room any more.
///
/// # Errors
/// `Io`. Nothing was changed.
pub fn room(
    vfs: &dyn Vfs,
    layout: &Layout,
    source: &Database,
    target: Compression,
    spills: bool,
    built_bytes: u64,
) -> Result<Room> {
    let live_bytes = tree_size(vfs, &layout.live)?;
    let output = live_bytes.max(expected_output(source, target, live_bytes)?);
    let spilled = if spills { source.table_figures()?.logical_bytes() } else { 0 };
    let beside = (output / 10).saturating_mul(11).saturating_add(spilled).saturating_sub(built_bytes);
    let needed_bytes = beside.saturating_add(RESERVE_BYTES);
    let free = vfs.space(&layout.parent)?.free;
    let device = device(vfs, &layout.parent)?;
    let reserved = RESERVED.lock().get(&device).copied().unwrap_or(0);
    Ok(Room { live_bytes, needed_bytes, free_bytes: free.saturating_sub(reserved) })
}

/// Sets the room aside.
///
/// # Errors
/// `NoSpace` with both figures. Nothing was changed.
pub fn reserve(vfs: &dyn Vfs, layout: &Layout, room: Room) -> Result<Reservation> {
    let device = device(vfs, &layout.parent)?;
    // Measured again under the lock: another conversion of this process may have reserved meanwhile.
    let mut all = RESERVED.lock();
    let reserved = all.entry(device).or_insert(0);
    let free_bytes = vfs.space(&layout.parent)?.free.saturating_sub(*reserved);
    if free_bytes < room.needed_bytes {
        let message = format!(
            "{} bytes are needed beside the database, {free_bytes} are free; the data is intact, nothing was touched",
            room.needed_bytes
        );
        return Err(Error::new(ErrorKind::NoSpace, STEP, message).at(&layout.parent));
    }
    *reserved += room.needed_bytes;
    Ok(Reservation { device, bytes: room.needed_bytes })
}

fn device(vfs: &dyn Vfs, path: &Path) -> Result<u64> {
    Ok(vfs.stat(path)?.map_or(0, |stat| stat.device))
}

/// The size of the output if it is compressed less than the source.
fn expected_output(source: &Database, target: Compression, live_bytes: u64) -> Result<u64> {
    let raw = source.table_figures()?.logical_bytes();
    let properties = source.property("rocksdb.aggregated-table-properties")?.unwrap_or_default();
    let compressed_better = ["ZSTD", "Zlib", "BZip2"].iter().any(|name| properties.contains(name));
    Ok(match target {
        Compression::None => raw,
        Compression::Lz4 if compressed_better => raw.min(live_bytes.saturating_mul(2)),
        Compression::Lz4 | Compression::Zstd => 0,
    })
}

/// Refuses a database that a rewrite would not carry whole.
///
/// # Errors
/// `Unsupported` or `Refused`, naming what was found. Nothing was changed.
pub fn require_convertible(vfs: &dyn Vfs, layout: &Layout, source: &Database, comparator: Comparator) -> Result<()> {
    let description = crate::rocks::describe(vfs, &layout.live)?;
    let unsupported = |message: String| {
        Error::new(ErrorKind::Unsupported, STEP, format!("{message}; the data is intact, nothing was touched"))
            .at(&layout.live)
    };
    let foreign = description.foreign_families();
    if !foreign.is_empty() {
        return Err(unsupported(format!("it holds column families that are not ours: {}", foreign.join(", "))));
    }
    if description.comparator != Some(comparator) {
        return Err(unsupported(format!("it is ordered by the comparator `{}`", description.comparator_name)));
    }
    let merges = source.table_figures()?.merge_operands;
    if merges > 0 {
        return Err(unsupported(format!(
            "it holds {merges} merge operands, which only their own operator understands"
        )));
    }
    let blobs =
        source.property("rocksdb.num-blob-files")?.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    if blobs > 0 {
        return Err(unsupported(format!("it keeps values in {blobs} blob files")));
    }
    require_wal_inside(vfs, &layout.live)
}

/// Refuses a database whose WAL files do not lie in its own directory: opening it without them would lose what is in
/// them, silently.
///
/// # Errors
/// `Unsupported`, naming the directory. Nothing was changed.
pub(crate) fn require_wal_inside(vfs: &dyn Vfs, live: &Path) -> Result<()> {
    let Some(named) = wal_directory(vfs, live)? else { return Ok(()) };
    if may_hold_its_wal(vfs, Path::new(&named), live)? {
        let message = format!("its WAL files may lie elsewhere, in {named}; the data is intact, nothing was touched");
        return Err(Error::new(ErrorKind::Unsupported, STEP, message).at(live));
    }
    Ok(())
}

/// The `wal_dir` of the newest OPTIONS file, the only place where RocksDB records it.
fn wal_directory(vfs: &dyn Vfs, live: &Path) -> Result<Option<String>> {
    let newest =
        vfs.list(live)?.into_iter().filter(|name| name.starts_with("OPTIONS-") && !name.ends_with("dbtmp")).max();
    let Some(name) = newest else { return Ok(None) };
    let text = vfs.read(&live.join(name), 1 << 20)?;
    let text = String::from_utf8_lossy(&text);
    let value = text.lines().find_map(|line| line.trim().strip_prefix("wal_dir="));
    Ok(value.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned))
}

/// What RocksDB records is the name that it was given once: a relative one, or one of a directory that has been moved
/// since, says nothing by itself. What counts is whether WAL files lie there.
fn may_hold_its_wal(vfs: &dyn Vfs, named: &Path, live: &Path) -> Result<bool> {
    // The dot follows a link at the end. A relative name was relative to a process that is gone; beside live is likely.
    let named = parent_of(live)?.join(named).join(".");
    let Some(there) = vfs.stat(&named)? else { return Ok(false) };
    let own = vfs.stat(live)?.is_some_and(|own| (own.device, own.inode) == (there.device, there.inode));
    if own || there.kind != FileKind::Directory {
        return Ok(false);
    }
    // With a CURRENT it is another database, which stands where this one once was.
    let another = vfs.stat(&named.join(ROCKSDB_CURRENT))?.is_some();
    Ok(!another && vfs.list(&named)?.iter().any(|name| name.ends_with(".log")))
}

/// Tries the swap: a rename of live onto a non-empty directory runs every check of the kernel and cannot succeed.
///
/// # Errors
/// `Unsupported` (mount point, overlay), `NoSpace`, `Io` (permission, read-only parent). The probe directory is removed
/// again, also after a failure; a crash may leave it to the next preflight.
pub fn require_renamable(vfs: &dyn Vfs, layout: &Layout) -> Result<()> {
    let inside = layout.probe.join("in-the-way");
    clear_probe(vfs, layout, &inside)?;
    let tried = try_swap(vfs, layout, &inside);
    let cleared = clear_probe(vfs, layout, &inside);
    tried.and(cleared)
}

fn try_swap(vfs: &dyn Vfs, layout: &Layout, inside: &Path) -> Result<()> {
    vfs.make_dir(&layout.probe)?;
    vfs.make_dir(inside)?;
    vfs.probe_rename(&layout.live, &layout.probe)
}

/// Removes our probe by `rmdir` alone, which cannot remove anything that holds something.
fn clear_probe(vfs: &dyn Vfs, layout: &Layout, inside: &Path) -> Result<()> {
    if vfs.stat(&layout.probe)?.is_some() {
        vfs.remove_dir(inside)?;
        vfs.remove_dir(&layout.probe)?;
    }
    Ok(())
}

/// Refuses to lose an old database that is kept from an earlier conversion.
///
/// # Errors
/// `Conflict` naming the two ways out. Nothing was changed.
pub fn require_no_kept(vfs: &dyn Vfs, layout: &Layout, keep: Keep) -> Result<()> {
    if keep == Keep::Replace || vfs.stat(&layout.backup_dir)?.is_none() {
        return Ok(());
    }
    let (bytes, live) = (tree_size(vfs, &layout.backup_dir)?, layout.live.display());
    let message = format!(
        "the database from before the last conversion is still kept ({bytes} bytes); bring it back with `morphkv \
         rollback {live} -y` or remove it first"
    );
    Err(Error::new(ErrorKind::Conflict, STEP, message)
        .at(&layout.backup_dir)
        .next(format!("morphkv drop-backup {live} -y")))
}
