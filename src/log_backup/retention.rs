//! WAL files that are kept for a shipper that does not come fill the disk in the end: beyond a limit the oldest go.

use crate::engine::Engine;
use crate::error::{ErrorKind, Result};
use crate::fs::Vfs;
use crate::layout::ROCKSDB_ARCHIVE;
use crate::rocks::wal::{Position, file_name, file_numbers};

/// What WAL files may take unless told otherwise, in bytes.
const BYTES_MAX: u64 = 16 << 30;

/// The bytes of WAL files: in all, and after a position.
///
/// # Errors
/// `Io`.
pub(super) fn wal_bytes(vfs: &dyn Vfs, engine: &Engine, after: Position) -> Result<(u64, u64)> {
    let (mut all, mut later) = (0, 0);
    for directory in [engine.path().to_owned(), engine.path().join(ROCKSDB_ARCHIVE)] {
        for number in file_numbers(vfs, &directory)? {
            // It may be moved to the archive meanwhile.
            let Some(stat) = vfs.stat(&directory.join(file_name(number)))? else { continue };
            all += stat.len;
            later += match number.cmp(&after.file) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => stat.len.saturating_sub(after.offset),
                std::cmp::Ordering::Greater => stat.len,
            };
        }
    }
    Ok((all, later))
}

/// Removes the oldest WAL files that RocksDB needs no more, until the rest is within the limit.
///
/// # Errors
/// `Io`.
pub(super) fn drop_oldest(engine: &Engine, vfs: &dyn Vfs, limit: Option<u64>) -> Result<()> {
    let limit = match limit {
        Some(limit) => limit,
        None => BYTES_MAX.min(vfs.space(engine.path())?.total / 10),
    };
    let (mut bytes, _) = wal_bytes(vfs, engine, Position::default())?;
    let archive = engine.path().join(ROCKSDB_ARCHIVE);
    for number in engine.archived_wal_files()? {
        if bytes <= limit {
            return Ok(());
        }
        let len = match vfs.stat(&archive.join(file_name(number))) {
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            stat => stat?.map_or(0, |stat| stat.len),
        };
        tracing::error!(
            file = number,
            bytes,
            limit,
            "WAL files that are not shipped take too much room: the oldest goes, and the log backup has a gap"
        );
        engine.remove_archived_wal_files(number + 1)?;
        bytes = bytes.saturating_sub(len);
    }
    Ok(())
}
