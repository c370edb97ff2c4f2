//! The internal family of a database that is converted.

use crate::error::Result;
use crate::layout::{INTERNAL_IDENTITY, INTERNAL_INGEST};
use crate::rocks::{Database, Durability, Family, WriteBatch};

/// Bytes of a batch of internal records.
const INTERNAL_BATCH_BYTES: usize = 1 << 20;

/// Copies the internal family as it is, but for the identity, which is the new database's own, and the last load, which
/// is the old log's. Not in the WAL, for which RocksDB would take room of more than a memtable: to be flushed.
pub(super) fn copy_internal(source: &Database, target: &Database) -> Result<()> {
    if !source.has_internal() {
        return Ok(());
    }
    let mut cursor = source.cursor(Family::Internal, false)?;
    cursor.seek_first()?;
    let (mut batch, mut bytes) = (WriteBatch::new(), 0);
    while let Some((key, value)) = cursor.entry() {
        if key != INTERNAL_IDENTITY && key != INTERNAL_INGEST {
            batch.put(target, Family::Internal, key, value)?;
            bytes += key.len() + value.len();
        }
        if bytes >= INTERNAL_BATCH_BYTES {
            target.write(std::mem::take(&mut batch), Durability::NoWal)?;
            bytes = 0;
        }
        cursor.next()?;
    }
    target.write(batch, Durability::NoWal)
}
