//! Writing to a database that is attached to a log archive: stamps, and the gate that a bulk load closes.

use super::hooks::{Hooks, Stamps};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Vfs;
use crate::rocks::{Database, Durability, WriteBatch};
use crate::trap::trap;
#[cfg(any(test, feature = "log-backup", feature = "traps"))]
use parking_lot::RwLockReadGuard;
use parking_lot::{RwLock, RwLockWriteGuard};
use std::sync::Arc;

/// What an attached database has besides.
#[derive(Debug)]
pub(super) struct Attached {
    vfs: Arc<dyn Vfs>,
    stamps: Stamps,
    /// Writers hold it shared, a bulk load alone. `true`: a load began, and it is not noted how it ended.
    unfinished: RwLock<bool>,
}

/// The right to write alone.
pub(super) struct Alone<'a> {
    attached: &'a Attached,
    unfinished: RwLockWriteGuard<'a, bool>,
}

impl Attached {
    pub(super) fn new(vfs: Arc<dyn Vfs>, hooks: Option<Arc<dyn Hooks>>) -> Self {
        Attached { vfs, stamps: Stamps::new(hooks), unfinished: RwLock::new(false) }
    }

    #[cfg(any(test, feature = "log-backup", feature = "traps"))]
    pub(super) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    pub(super) fn write(&self, database: &Database, batch: WriteBatch, durability: Durability) -> Result<()> {
        let unfinished = self.unfinished.read();
        require_finished(database, *unfinished)?;
        self.write_stamped(database, batch, durability)
    }

    fn write_stamped(&self, database: &Database, mut batch: WriteBatch, durability: Durability) -> Result<()> {
        batch.log_data(&self.stamps.next());
        trap!(self.vfs, ShipWriteStamped);
        database.write(batch, durability)
    }

    /// Keeps bulk loads out, not writers.
    #[cfg(any(test, feature = "log-backup", feature = "traps"))]
    pub(super) fn without_loads(&self, database: &Database) -> Result<RwLockReadGuard<'_, bool>> {
        let unfinished = self.unfinished.read();
        require_finished(database, *unfinished)?;
        Ok(unfinished)
    }

    /// Waits for the writers under way, and keeps others out.
    pub(super) fn alone(&self, database: &Database) -> Result<Alone<'_>> {
        let unfinished = self.unfinished.write();
        require_finished(database, *unfinished)?;
        Ok(Alone { attached: self, unfinished })
    }
}

impl Alone<'_> {
    /// From here on nobody may write, until [`Alone::end`]: also not after an error that leaves it open whether the load
    /// is in, since the next open repeats it, on top of whatever was written after it.
    pub(super) fn begin(&mut self) {
        *self.unfinished = true;
    }

    pub(super) fn end(&mut self) {
        *self.unfinished = false;
    }

    /// Writes durably.
    pub(super) fn write(&self, database: &Database, batch: WriteBatch) -> Result<()> {
        self.attached.write_stamped(database, batch, Durability::Sync)
    }
}

fn require_finished(database: &Database, unfinished: bool) -> Result<()> {
    if !unfinished {
        return Ok(());
    }
    let message = "a bulk load failed half-way, and nothing may be written after it; open the database again";
    Err(Error::new(ErrorKind::Closed, "write", message).at(database.path()))
}
