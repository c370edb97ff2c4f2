//! What whoever ships the log needs of an engine.

use super::Engine;
use crate::error::Result;

impl Engine {
    /// Makes everything written so far durable in the WAL, whatever durability the writes had: one call for many of them.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: what of it is durable is unknown.
    pub fn flush_wal(&self) -> Result<()> {
        self.inner.database.flush_wal(true)
    }
}

#[cfg(any(test, feature = "log-backup", feature = "traps"))]
mod shipping {
    use super::Engine;
    use crate::error::Result;
    use crate::fs::remove_tree;
    use crate::layout::{PENDING_INGEST, ROCKSDB_ARCHIVE};
    use crate::rocks::Family;
    use crate::rocks::wal::{file_name, file_numbers};
    use std::path::{Path, PathBuf};
    use uuid::Uuid;

    /// For the log backup. `path()` is where its WAL files lie, and `last_sequence()` where the log ends.
    #[doc(hidden)]
    impl Engine {
        /// A time that no later stamp is below; `None` for a database that is not attached. Read it before the last
        /// sequence number: once all up to that one is shipped, everything before this time is.
        pub fn log_time(&self) -> Option<u64> {
            self.inner.attached.as_ref().map(|attached| u64::from_le_bytes(attached.stamps().next()))
        }

        /// No stamp is below `floor`, the last time in the archive, from now on.
        pub fn raise_log_time(&self, floor: u64) {
            if let Some(attached) = &self.inner.attached {
                attached.stamps().raise(floor);
            }
        }

        /// The file operations that it was opened with.
        #[cfg(feature = "log-backup")]
        pub(crate) fn file_operations(&self) -> std::sync::Arc<dyn crate::fs::Vfs> {
            std::sync::Arc::clone(&self.inner.vfs)
        }

        /// The id that internal records have in the log. The data has the id of the default family.
        ///
        /// # Errors
        /// `Refused`: there is no such family.
        pub fn internal_family_id(&self) -> Result<u32> {
            self.inner.database.family_id(Family::Internal)
        }

        /// The numbers of the WAL files that RocksDB itself needs no more, ascending.
        ///
        /// # Errors
        /// `Io`.
        pub fn archived_wal_files(&self) -> Result<Vec<u64>> {
            file_numbers(&*self.inner.vfs, &self.inner.layout.live.join(ROCKSDB_ARCHIVE))
        }

        /// Removes the archived WAL files before file number `before`, which is the one that the last shipped record
        /// ends in: it is how the log is known again after a restart. Gives the numbers of what was removed.
        ///
        /// # Errors
        /// `Io`: some may be gone. Repeat.
        pub fn remove_archived_wal_files(&self, before: u64) -> Result<Vec<u64>> {
            let _wal_files = self.inner.wal_files.lock();
            let mut files = self.archived_wal_files()?;
            files.retain(|file| *file < before);
            let archive = self.inner.layout.live.join(ROCKSDB_ARCHIVE);
            // The oldest first: what is left is always the end of the log.
            for file in &files {
                self.inner.vfs.remove_file(&archive.join(file_name(*file)))?;
            }
            Ok(files)
        }

        /// RocksDB's own checkpoint at `path`, which must not exist: with the identity and the log state of this database,
        /// to be read and shipped, never to be opened beside it. No bulk load is under way in it.
        ///
        /// # Errors
        /// `NoSpace`, `Io`; `Closed` after a bulk load that failed half-way. Part of it, or a `.tmp` beside it, may stand.
        pub fn copy_for_base_snapshot(&self, path: &Path) -> Result<()> {
            let inner = &*self.inner;
            let attached = inner.attached.as_ref();
            let _without_loads = attached.map(|attached| attached.without_loads(&inner.database)).transpose()?;
            inner.copy_files(path)
        }

        /// Where the files of a bulk load lie until they are shipped.
        pub fn loaded_files(&self, group: Uuid) -> PathBuf {
            self.inner.layout.live.join(PENDING_INGEST).join(group.to_string())
        }

        /// Removes the files of a bulk load that is shipped.
        ///
        /// # Errors
        /// `Io`: some may be gone. Repeat.
        pub fn remove_loaded_files(&self, group: Uuid) -> Result<()> {
            remove_tree(&*self.inner.vfs, &self.loaded_files(group))
        }
    }
}
