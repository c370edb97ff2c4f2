//! Checkpoints: a copy of an open database at another place of the same file system, made of hard links, in seconds.
//!
//! It is made at the name of the other place's staging directory, gets a marker of its own there, last, and is moved to
//! its name when it is complete and durable: what stands at that name is whole at every moment. It is another instance of
//! the same database: two instances with one id that both ship their log would look like a fork.

use super::bounds::prefix_end;
use super::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{remove_tree, sync_tree};
use crate::layout::{INTERNAL_ENGINE, INTERNAL_IDENTITY, Layout};
use crate::lock::PlaceLock;
use crate::marker::{self, Marker, Origin, OriginKind};
use crate::rocks::{Database, Durability, Family, Settings, WriteBatch};
use crate::trap::trap;
use std::path::Path;
use uuid::Uuid;

const STEP: &str = "make a checkpoint";

impl Engine {
    /// Makes a copy of the database at `path`, which must not exist and must be on the same file system. It shows all
    /// that was written before the call, is a database like any other, has no log backup, and is independent of this
    /// one: they share disk space until one of them rewrites it. Gives the marker of the copy.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that cannot name a database; `Locked` if somebody is at that place; `Conflict` if
    /// anything stands there already, or was left there by an earlier attempt that was killed: it is named, and is not
    /// touched. `NoSpace`, `Io`: nothing stands at `path`; something may be left beside it (an error of the very last
    /// sync: the copy stands, and may be gone after a power cut).
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<Marker> {
        let inner = &*self.inner;
        let target = Layout::new(path.as_ref())?;
        let _lock = PlaceLock::acquire(&*inner.vfs, &target)?;
        inner.require_free(&target)?;
        let made = inner.make_checkpoint(&target);
        if made.is_err() {
            // Nothing stood at these names when we had locked the place, so what stands there now is ours.
            for leftover in [&target.checkpoint_temporary, &target.staging] {
                if let Err(error) = remove_tree(&*inner.vfs, leftover) {
                    tracing::warn!(%error, "part of a failed checkpoint stays behind");
                }
            }
        }
        made
    }
}

impl Inner {
    /// RocksDB's own checkpoint at a path that does not exist.
    pub(super) fn copy_files(&self, path: &Path) -> Result<()> {
        let _wal_files = self.wal_files.lock();
        self.database.checkpoint(path)
    }

    /// RocksDB itself would remove what it takes for its own temporary directory.
    fn require_free(&self, target: &Layout) -> Result<()> {
        let names = [
            &target.live,
            &target.journal,
            &target.staging,
            &target.checkpoint_temporary,
            &target.backup_dir,
            &target.trash,
            &target.restore,
        ];
        for name in names {
            if self.vfs.stat(name)?.is_some() {
                let message = "something stands here already, and nothing was touched; move it away first";
                return Err(Error::new(ErrorKind::Conflict, STEP, message).at(name));
            }
        }
        Ok(())
    }

    fn make_checkpoint(&self, target: &Layout) -> Result<Marker> {
        let vfs = &*self.vfs;
        self.copy_files(&target.staging)?;
        vfs.make_private(&target.staging)?;
        trap!(vfs, CheckpointMade);
        let marker = self.give_identity(&target.staging)?;
        sync_tree(vfs, &target.staging)?;
        marker::write(vfs, &target.staging, &marker)?;
        trap!(vfs, CheckpointSealed);
        vfs.rename_no_replace(&target.staging, &target.live)?;
        vfs.sync_dir(&target.parent)?;
        Ok(marker)
    }

    /// Writes the copy's own identity into it, and drops what else the engine knows of the original (its log backup).
    fn give_identity(&self, staging: &Path) -> Result<Marker> {
        let settings =
            Settings { compression: self.database.settings().compression, bulk: true, ..Settings::default() };
        let copy = Database::open(&*self.vfs, staging, &settings)?;
        let mut marker = Marker {
            instance_id: Uuid::new_v4(),
            origin: Origin { kind: OriginKind::Checkpoint, id: Uuid::new_v4() },
            sealed: None,
            ..self.marker.clone()
        };
        let end = prefix_end(INTERNAL_ENGINE);
        let mut batch = WriteBatch::new();
        batch.delete_range(&copy, Family::Internal, INTERNAL_ENGINE, &end)?;
        batch.put(&copy, Family::Internal, INTERNAL_IDENTITY, &marker.identity().to_bytes()?)?;
        copy.write(batch, Durability::Sync)?;
        copy.flush()?;
        marker.sealed_sequence = copy.last_sequence();
        copy.close()?;
        Ok(marker)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::encoding::Hierarchical;
    use std::path::PathBuf;

    fn database(directory: &Path) -> (Engine, PathBuf) {
        let options = Options::new().create_if_missing(true).encoding(Hierarchical);
        let engine = Engine::open(directory.join("db"), options).unwrap();
        for number in 0..100 {
            engine.put(format!("/key/{number}"), "old").unwrap();
        }
        engine.internal().put("term", "7").unwrap();
        (engine, directory.join("copy"))
    }

    fn names(directory: &Path) -> Vec<String> {
        let names =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_checkpoint_is_another_instance_with_the_same_data() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, path) = database(directory.path());
        // What a log backup would keep there.
        engine.inner.put(Family::Internal, b"e/position", b"here").unwrap();
        engine.put("/key/7", "new").unwrap();
        let marker = engine.checkpoint(&path).unwrap();
        engine.delete_range(..).unwrap();

        let copy = Engine::open(&path, Options::new()).unwrap();
        assert_eq!(*copy.marker(), marker);
        assert_eq!(marker.database_id, engine.marker().database_id);
        assert_ne!(marker.instance_id, engine.marker().instance_id);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "nobody else may read it");
        assert_eq!(marker.origin.kind, OriginKind::Checkpoint);
        assert_ne!(marker.origin.id, engine.marker().origin.id);
        assert_eq!(marker.sealed_sequence, copy.last_sequence());
        assert_eq!(copy.encoding().name, "hierarchical");
        assert_eq!(copy.children("/key").unwrap().count(), 100);
        assert_eq!(copy.get("/key/7").unwrap().unwrap(), "new");
        assert_eq!(copy.internal().get("term").unwrap().unwrap(), "7");
        assert!(copy.inner.database.get(Family::Internal, b"e/position").unwrap().is_none());
        assert_eq!(names(directory.path()), ["copy", "db"]);
        copy.put("more", "").unwrap();
        assert!(engine.get("more").unwrap().is_none());
    }

    #[test]
    fn nothing_that_stands_there_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, path) = database(directory.path());
        for name in ["copy", "copy.converting", "copy.converting.tmp", "copy.backup", "copy.trash", "copy.conversion"] {
            let theirs = directory.path().join(name);
            std::fs::create_dir(&theirs).unwrap();
            std::fs::write(theirs.join("kept"), "").unwrap();
            let error = engine.checkpoint(&path).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Conflict, Some(&*theirs)));
            assert!(theirs.join("kept").exists());
            std::fs::remove_dir_all(theirs).unwrap();
        }
        for name in ["x.backup", "x.lock", "..", "x.converting"] {
            let error = engine.checkpoint(directory.path().join(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
        }
        assert_eq!(engine.checkpoint(engine.path()).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(engine.checkpoint(directory.path().join("no/copy")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(names(directory.path()), ["db"]);
    }

    #[cfg(feature = "traps")]
    #[test]
    fn a_failed_checkpoint_leaves_nothing_and_can_be_repeated() {
        use crate::fs::RealVfs;
        use crate::trap::{Trap, TrapAction, TrapPlan};
        use std::sync::Arc;

        let directory = tempfile::tempdir().unwrap();
        let (engine, path) = database(directory.path());
        engine.close().unwrap();
        for trap in [Trap::CheckpointMade, Trap::ControlFileWritten, Trap::ControlFileRenamed, Trap::CheckpointSealed] {
            let plan = Arc::new(TrapPlan::new().with(trap, 1, TrapAction::Error(ErrorKind::NoSpace)));
            let options = Options::new().vfs(Arc::new(RealVfs::with_traps(plan)));
            let engine = Engine::open(directory.path().join("db"), options).unwrap();
            assert_eq!(engine.checkpoint(&path).unwrap_err().kind(), ErrorKind::NoSpace, "{trap:?}");
            assert_eq!(names(directory.path()), ["db"]);
            engine.checkpoint(&path).unwrap();
            Engine::open(&path, Options::new()).unwrap().close().unwrap();
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
}
