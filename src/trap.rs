//! Crash traps: named points at which a test can make the process die, fail or wait.
//!
//! A trap is a value that a [`Vfs`](crate::fs::Vfs) carries; there are no globals. Without the feature `traps` the macro
//! expands to nothing and no name reaches the artefact. [`Trap::ALL`] lets a test sweep every one of them.

/// Stops here if the `Vfs` was told so: `trap!(vfs, JournalReadyBefore)`.
macro_rules! trap {
    ($vfs:expr, $name:ident) => {
        #[cfg(feature = "traps")]
        $vfs.trap($crate::trap::Trap::$name)?;
        #[cfg(not(feature = "traps"))]
        let _: &_ = &$vfs;
    };
}
pub(crate) use trap;

#[cfg(all(feature = "traps", not(debug_assertions)))]
const _: () = assert!(
    option_env!("MORPHKV_ALLOW_RELEASE_TRAPS").is_some(),
    "the feature `traps` is for tests; set MORPHKV_ALLOW_RELEASE_TRAPS at build time to have it in an optimised build"
);

#[cfg(feature = "traps")]
#[path = "trap/plan.rs"]
mod plan;

#[cfg(feature = "traps")]
pub use armed::Trap;
#[cfg(feature = "traps")]
pub(crate) use plan::die;
#[cfg(feature = "traps")]
pub use plan::{TrapAction, TrapPlan};

#[cfg(feature = "traps")]
mod armed {
    macro_rules! traps {
        ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
            /// Every point where a test can stop the process, in the order in which a conversion meets them.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            #[non_exhaustive]
            pub enum Trap { $($(#[$doc])* $name,)* }

            /// Kept by the linker, so that one look at a binary tells whether traps are in it.
            #[used]
            static NAMES: [&str; [$($text),*].len()] = [$($text),*];

            impl Trap {
                /// All of them.
                pub const ALL: &'static [Trap] = &[$(Trap::$name),*];
            }
        };
    }

    traps! {
        /// The lock of the place is held, nothing has been looked at.
        LockTaken = "morphkv-trap-lock-taken",
        /// Preflight is through, nothing has been written.
        PreflightDone = "morphkv-trap-preflight-done",
        /// Before the journal says Building.
        JournalBuildingBefore = "morphkv-trap-journal-building-before",
        /// The journal says Building.
        JournalBuildingAfter = "morphkv-trap-journal-building-after",
        /// A control file is written under its temporary name, not synced.
        ControlFileWritten = "morphkv-trap-control-file-written",
        /// A control file is synced, not renamed.
        ControlFileSynced = "morphkv-trap-control-file-synced",
        /// A control file is renamed, its directory not synced.
        ControlFileRenamed = "morphkv-trap-control-file-renamed",
        /// Before the staging directory is made.
        StagingBefore = "morphkv-trap-staging-before",
        /// The staging directory stands empty.
        StagingMade = "morphkv-trap-staging-made",
        /// The staging directory's owner file is written.
        StagingOwned = "morphkv-trap-staging-owned",
        /// Before the source's WAL files are linked into staging.
        WalHandoverBefore = "morphkv-trap-wal-handover-before",
        /// The source's WAL files are linked into staging.
        WalHandoverAfter = "morphkv-trap-wal-handover-after",
        /// Before the source is read.
        RewriteBefore = "morphkv-trap-rewrite-before",
        /// Before the part of a progress file that counts is written anew.
        ProgressReplaceBefore = "morphkv-trap-progress-replace-before",
        /// The progress file is the part that counts.
        ProgressReplaceAfter = "morphkv-trap-progress-replace-after",
        /// The log in staging is taken back, to be handed over again.
        LogTakenBack = "morphkv-trap-log-taken-back",
        /// What no line speaks of is gone from the output folder.
        OutputCleared = "morphkv-trap-output-cleared",
        /// Before the progress file is begun.
        ProgressPlanBefore = "morphkv-trap-progress-plan-before",
        /// The progress file holds the plan.
        ProgressPlanAfter = "morphkv-trap-progress-plan-after",
        /// A task of the rewrite begins.
        RewriteTaskBegun = "morphkv-trap-rewrite-task-begun",
        /// A task of the rewrite ended.
        RewriteTaskDone = "morphkv-trap-rewrite-task-done",
        /// What a line speaks of is durable, the line is not written.
        ProgressLineBefore = "morphkv-trap-progress-line-before",
        /// A line is written, not synced.
        ProgressLineAppended = "morphkv-trap-progress-line-appended",
        /// A line is durable.
        ProgressLineAfter = "morphkv-trap-progress-line-after",
        /// Before a spill file goes that was merged.
        MergedSpillBefore = "morphkv-trap-merged-spill-before",
        /// All of the source is in files that are not ingested yet.
        RewriteAfter = "morphkv-trap-rewrite-after",
        /// What there was of a staging database is gone.
        StagingDatabaseRemoved = "morphkv-trap-staging-database-removed",
        /// The disjoint files are ingested, the overflow is not.
        IngestDisjoint = "morphkv-trap-ingest-disjoint",
        /// The overflow is ingested, not compacted.
        IngestOverflow = "morphkv-trap-ingest-overflow",
        /// Nothing is owed to compaction.
        IngestSettled = "morphkv-trap-ingest-settled",
        /// The internal column family is copied and the new identity written.
        InternalCopied = "morphkv-trap-internal-copied",
        /// Staging is flushed and closed, not synced by us.
        StagingClosed = "morphkv-trap-staging-closed",
        /// Every file of staging is synced.
        StagingSynced = "morphkv-trap-staging-synced",
        /// Staging is verified.
        VerifyAfter = "morphkv-trap-verify-after",
        /// Before staging's marker is written.
        SealBefore = "morphkv-trap-seal-before",
        /// Staging is sealed.
        SealAfter = "morphkv-trap-seal-after",
        /// Staging is sealed, and its progress file is gone, not durably.
        ProgressRemoved = "morphkv-trap-progress-removed",
        /// Before the journal says Ready.
        JournalReadyBefore = "morphkv-trap-journal-ready-before",
        /// The journal says Ready.
        JournalReadyAfter = "morphkv-trap-journal-ready-after",
        /// Before live is moved to the backup directory.
        LiveToBackupBefore = "morphkv-trap-live-to-backup-before",
        /// Live is moved to the backup directory, the parent is not synced.
        LiveToBackupMoved = "morphkv-trap-live-to-backup-moved",
        /// Live is in the backup directory, durably.
        LiveToBackupAfter = "morphkv-trap-live-to-backup-after",
        /// Before staging is moved to live.
        StagingToLiveBefore = "morphkv-trap-staging-to-live-before",
        /// Staging is moved to live, the parent is not synced.
        StagingToLiveMoved = "morphkv-trap-staging-to-live-moved",
        /// The new database is live, durably.
        StagingToLiveAfter = "morphkv-trap-staging-to-live-after",
        /// Before the backup directory is moved back to live.
        BackupToLiveBefore = "morphkv-trap-backup-to-live-before",
        /// The backup directory is moved to live, the parent is not synced.
        BackupToLiveMoved = "morphkv-trap-backup-to-live-moved",
        /// The old database is live again, durably.
        BackupToLiveAfter = "morphkv-trap-backup-to-live-after",
        /// Before live is moved to staging.
        LiveToStagingBefore = "morphkv-trap-live-to-staging-before",
        /// Live is moved to staging, the parent is not synced.
        LiveToStagingMoved = "morphkv-trap-live-to-staging-moved",
        /// Live is in staging, durably.
        LiveToStagingAfter = "morphkv-trap-live-to-staging-after",
        /// Before the journal says Done or Kept.
        JournalSettledBefore = "morphkv-trap-journal-settled-before",
        /// The journal says Done or Kept.
        JournalSettledAfter = "morphkv-trap-journal-settled-after",
        /// The new database is open, the sweep has not begun.
        SweepBefore = "morphkv-trap-sweep-before",
        /// Before a directory is moved to trash.
        ToTrashBefore = "morphkv-trap-to-trash-before",
        /// A directory is moved to trash, the parent is not synced.
        ToTrashMoved = "morphkv-trap-to-trash-moved",
        /// A directory is in trash, durably.
        ToTrashAfter = "morphkv-trap-to-trash-after",
        /// Trash is half removed.
        TrashHalfRemoved = "morphkv-trap-trash-half-removed",
        /// Trash is removed, the parent is not synced.
        TrashRemoved = "morphkv-trap-trash-removed",
        /// Before the journal is dropped.
        JournalDropBefore = "morphkv-trap-journal-drop-before",
        /// The journal is dropped, the parent is not synced.
        JournalDropped = "morphkv-trap-journal-dropped",
        /// The journal is dropped, durably.
        JournalDropAfter = "morphkv-trap-journal-drop-after",
        /// Before the journal of a rollback says Ready.
        RollbackBefore = "morphkv-trap-rollback-before",
        /// The journal of a rollback says Ready.
        RollbackAfter = "morphkv-trap-rollback-after",
        /// Before the journal of a destruction is written.
        DestroyBefore = "morphkv-trap-destroy-before",
        /// The journal of a destruction stands.
        DestroyAfter = "morphkv-trap-destroy-after",
        /// adopt: the identity is inside the database, the marker is not written.
        AdoptIdentity = "morphkv-trap-adopt-identity",
        /// adopt: the marker is written.
        AdoptMarker = "morphkv-trap-adopt-marker",
        /// A load into an attached database: its files are linked for the log, which does not know of it yet.
        LoadLinked = "morphkv-trap-load-linked",
        /// A load into an attached database: the log says that it begins.
        LoadIntended = "morphkv-trap-load-intended",
        /// A load into an attached database: its folder has its name.
        LoadNamed = "morphkv-trap-load-named",
        /// A load into an attached database: the files are in, the log does not say so.
        LoadTaken = "morphkv-trap-load-taken",
        /// A load into an attached database: the log says that it is in.
        LoadNoted = "morphkv-trap-load-noted",
        /// A load whose files RocksDB has removed, although its MANIFEST names them: one of them is back.
        LoadBroughtBack = "morphkv-trap-load-brought-back",
        /// checkpoint: RocksDB's checkpoint stands without a marker.
        CheckpointMade = "morphkv-trap-checkpoint-made",
        /// checkpoint: complete under its temporary name.
        CheckpointSealed = "morphkv-trap-checkpoint-sealed",
        /// attach: the file that says so is written, the archive does not know of it.
        ShipAttachNoted = "morphkv-trap-ship-attach-noted",
        /// The archive knows a timeline, nothing of it is shipped.
        ShipTimelineBegun = "morphkv-trap-ship-timeline-begun",
        /// The database is told that it goes on in a new timeline, the archive is not.
        ShipTimelineNoted = "morphkv-trap-ship-timeline-noted",
        /// A batch of an attached database has its stamp, and is not queued: others may overtake it.
        ShipWriteStamped = "morphkv-trap-ship-write-stamped",
        /// Before a segment is stored.
        ShipSegmentBefore = "morphkv-trap-ship-segment-before",
        /// A segment is stored.
        ShipSegmentAfter = "morphkv-trap-ship-segment-after",
        /// The files of a load are stored, the archive's HEAD does not know of them.
        ShipLoadStored = "morphkv-trap-ship-load-stored",
        /// HEAD knows the files of a load, no segment speaks of them.
        ShipLoadCommitted = "morphkv-trap-ship-load-committed",
        /// Before the files of a load go that was shipped.
        ShipLoadRemoveBefore = "morphkv-trap-ship-load-remove-before",
        /// Before WAL files go that were shipped.
        ShipWalRemoveBefore = "morphkv-trap-ship-wal-remove-before",
        /// WAL files are gone that were shipped.
        ShipWalRemoveAfter = "morphkv-trap-ship-wal-remove-after",
        /// The copy for a base snapshot stands, nothing of it is stored.
        ShipBaseCopied = "morphkv-trap-ship-base-copied",
        /// A base snapshot is in HEAD, its copy is not removed.
        ShipBaseStored = "morphkv-trap-ship-base-stored",
        /// The timeline that a conversion or a restore left has its end, HEAD does not know the new one.
        ShipParentEnded = "morphkv-trap-ship-parent-ended",
        /// The timeline that a conversion or a restore began is in HEAD, the log before it is not removed.
        ShipHandoverCommitted = "morphkv-trap-ship-handover-committed",
        /// The log that was handed over is removed.
        ShipUnshippedRemoved = "morphkv-trap-ship-unshipped-removed",
        /// detach: the file is gone, what was kept for the log is not.
        ShipDetached = "morphkv-trap-ship-detached",
        /// compact: the archive is pinned.
        CompactPinned = "morphkv-trap-compact-pinned",
        /// compact: it is put down what the compaction is of.
        CompactSpecified = "morphkv-trap-compact-specified",
        /// compact: a file of a shard is written here, and not stored.
        CompactPartWritten = "morphkv-trap-compact-part-written",
        /// compact: a part of a shard is stored, and nothing refers to it.
        CompactPartStored = "morphkv-trap-compact-part-stored",
        /// compact: all parts of a stretch are stored, and there is no note of it.
        CompactNoteBefore = "morphkv-trap-compact-note-before",
        /// compact: how far a shard has come is noted.
        CompactNoteAfter = "morphkv-trap-compact-note-after",
        /// compact: before the result of a shard is made.
        CompactResultBefore = "morphkv-trap-compact-result-before",
        /// compact: the result of a shard stands.
        CompactResultAfter = "morphkv-trap-compact-result-after",
        /// compact: the notes of how far a shard had come are gone, since its result stands.
        CompactNotesRemoved = "morphkv-trap-compact-notes-removed",
        /// compact: its end stands, and HEAD does not know of it.
        CompactEnded = "morphkv-trap-compact-ended",
        /// compact: HEAD knows it.
        CompactCommitted = "morphkv-trap-compact-committed",
        /// restore: the folder stands empty.
        RestoreFolderMade = "morphkv-trap-restore-folder-made",
        /// restore: what was asked for is written.
        RestoreSpecWritten = "morphkv-trap-restore-spec-written",
        /// restore: what is to be read is written.
        RestorePlanWritten = "morphkv-trap-restore-plan-written",
        /// restore: it has begun.
        RestoreBegun = "morphkv-trap-restore-begun",
        /// restore: its status is replaced.
        RestoreStatusWritten = "morphkv-trap-restore-status-written",
        /// restore: a file of the base snapshot is about to be fetched.
        RestoreFetching = "morphkv-trap-restore-fetching",
        /// restore: the base snapshot is there.
        RestoreFetched = "morphkv-trap-restore-fetched",
        /// restore: what the base snapshot says of a log backup is gone.
        RestoreDetached = "morphkv-trap-restore-detached",
        /// A segment of the log was gone through; what it holds may be in memory yet.
        RestoreSegmentRead = "morphkv-trap-restore-segment-read",
        /// The files of a part of the log are written, beside the database.
        RestorePartWritten = "morphkv-trap-restore-part-written",
        /// A part of the log is in the database.
        RestorePartTaken = "morphkv-trap-restore-part-taken",
        /// How far the log is in was noted.
        RestorePartNoted = "morphkv-trap-restore-part-noted",
        /// restore: the files of a bulk load are fetched.
        RestoreLoadFetched = "morphkv-trap-restore-load-fetched",
        /// restore: the files of a bulk load are in.
        RestoreLoadTaken = "morphkv-trap-restore-load-taken",
        /// restore: the files of a part of a compaction are fetched.
        RestoreRunFetched = "morphkv-trap-restore-run-fetched",
        /// restore: the files of a part of a compaction are in.
        RestoreRunTaken = "morphkv-trap-restore-run-taken",
        /// restore: a compaction is in, or left out, maybe not durably.
        RestoreRunEnded = "morphkv-trap-restore-run-ended",
        /// restore: the database is in the encoding that comes next.
        RestoreConverted = "morphkv-trap-restore-converted",
        /// restore: a timeline is applied, durably.
        RestoreLegApplied = "morphkv-trap-restore-leg-applied",
        /// restore: the database has the identity that it will have.
        RestoreIdentityWritten = "morphkv-trap-restore-identity-written",
        /// restore: a file is linked into staging.
        RestoreFileLinked = "morphkv-trap-restore-file-linked",
        /// restore: the log of the attached database that gives way is about to be linked into staging.
        RestoreHandoverBefore = "morphkv-trap-restore-handover-before",
        /// restore: that log is linked into staging, and staging's attachment names the new timeline.
        RestoreHandoverAfter = "morphkv-trap-restore-handover-after",
        /// restore: the database is at its place, and its status does not say so.
        RestoreInstalled = "morphkv-trap-restore-installed",
        /// restore: what was needed on the way is gone.
        RestoreCleared = "morphkv-trap-restore-cleared",
        /// restore: it is being aborted, and the database that it made is gone.
        RestoreDatabaseDropped = "morphkv-trap-restore-database-dropped",
        /// restore in two phases: the record of a run is made.
        PhaseRunMade = "morphkv-trap-phase-run-made",
        /// restore in two phases: a worker has begun.
        PhaseWorkerBegun = "morphkv-trap-phase-worker-begun",
        /// restore in two phases: a worker has done its part, and does not say so yet.
        PhaseWorkerDone = "morphkv-trap-phase-worker-done",
        /// restore in two phases: the run has a result, and its worker lives.
        PhaseWorkerEnded = "morphkv-trap-phase-worker-ended",
        /// truncate: the archive is pinned, nothing was looked at.
        TruncatePinned = "morphkv-trap-truncate-pinned",
        /// truncate: the list of what is doomed is about to be written.
        TruncateListBefore = "morphkv-trap-truncate-list-before",
        /// truncate: the list of what is doomed stands, HEAD does not know it.
        TruncateListWritten = "morphkv-trap-truncate-list-written",
        /// truncate: HEAD knows the list, and has no use for what is on it.
        TruncateCommitted = "morphkv-trap-truncate-committed",
        /// truncate: a doomed object is about to be deleted.
        TruncateDeleteBefore = "morphkv-trap-truncate-delete-before",
        /// truncate: a doomed object is deleted.
        TruncateDeleted = "morphkv-trap-truncate-deleted",
        /// truncate: all of a list is deleted, and HEAD still knows the list.
        TruncateAllDeleted = "morphkv-trap-truncate-all-deleted",
        /// truncate: HEAD knows a list no more, and the list stands.
        TruncateListForgotten = "morphkv-trap-truncate-list-forgotten",
        /// truncate: a list is gone.
        TruncateListRemoved = "morphkv-trap-truncate-list-removed",
    }

    impl Trap {
        /// Its name, as `MORPHKV_TRAP` takes it (with or without the prefix `morphkv-trap-`).
        pub fn name(self) -> &'static str {
            NAMES[self as usize]
        }

        /// The trap of that name.
        pub fn from_name(name: &str) -> Option<Trap> {
            Trap::ALL
                .iter()
                .copied()
                .find(|trap| trap.name() == name || trap.name().strip_prefix("morphkv-trap-") == Some(name))
        }
    }
}

#[cfg(all(test, feature = "traps"))]
#[path = "trap/tests.rs"]
mod tests;
