//! Steps whose loss, or whose place in the order, changes nothing that anyone can see, and what covers for them.

/// A mutant that survives, and why it may.
pub struct Redundant {
    /// Its name; each `*` stands for anything.
    pub mutant: &'static str,
    /// The changes in which it survives; none: in all that have it.
    pub scenarios: &'static [&'static str],
    pub covered_by: &'static str,
}

const fn row(mutant: &'static str, scenarios: &'static [&'static str], covered_by: &'static str) -> Redundant {
    Redundant { mutant, scenarios, covered_by }
}

const UNTIL_READY: &str = "until the journal says Ready nothing of staging counts, and before it does every file and \
                           directory of staging is synced";
const ROCKSDB_MAKES_IT_AGAIN: &str =
    "RocksDB makes this file again if it is not whole, and none of its content is data";
const SECOND_RENAME: &str = "both renames are entries of one directory, and the sync after the second makes both \
                             durable; with the second alone the new database, which is sealed, is live";
const NEXT_SYNC_OF_THE_PARENT: &str =
    "the next step that relies on it is preceded by another sync of the same directory";
const TRASH: &str = "in trash nothing is read any more: the order in which it loses its files is the directory's own";
const NAME_OF_TRASH: &str = "a journal that says Done or destroy tells what goes, under the old name as under that of \
                             trash, and a directory that has lost files is not taken for the database that it was";
const OLD_JOURNAL: &str = "as long as the older journal is what is durable, recovery does the step again: it finds \
                           what is to be live in its place, and says Done once more";

const PROGRESS: &str = "PROGRESS tells what work need not be done again: where it is gone, torn, or tells of less than \
                        is there, that work is done again; what it tells of is compared with sizes, checksums, count \
                        and digest, and if it is not so, the conversion begins again";
const NEXT_SYNC_OF_STAGING: &str = "the removal of PROGRESS is followed by a sync of the same directory before the \
                                    journal says Ready, and a seal with PROGRESS beside it is a seal";
const LOAD_NOT_BEGUN: &str = "until the log says that a load began nothing of its folders counts";
const EITHER_NAME: &str = "a load that the log calls begun is repeated from the folder under either name";

/// All that sweep after they said Done, but for the drop of a kept database: there Done is what dooms it.
const SWEPT: &[&str] = &[
    "convert to hierarchical",
    "convert a legacy database",
    "convert to natural",
    "convert an attached database",
    "convert an unsynced source",
    "go on with a conversion",
    "create",
    "roll back",
];
/// Where another sync of the parent stands between the removal of trash and the next step.
const REMOVED: &[&str] = &[
    "convert to hierarchical",
    "convert a legacy database",
    "convert to natural",
    "convert an attached database",
    "convert an unsynced source",
    "go on with a conversion",
    "drop the kept database",
    "replace the kept database",
    "destroy",
];

/// The first row that fits counts.
pub const REDUNDANT: &[Redundant] = &[
    // While staging is built.
    row("without sync-dir (parent) after rename-over db.converting/OWNER.new *", &[], UNTIL_READY),
    row("without sync-dir db.converting/unshipped *", &[], UNTIL_READY),
    row("without sync-dir db.converting after sync-file *", &[], UNTIL_READY),
    row("without sync-dir db.converting after rename-over db.converting/LOG_BACKUP.new *", &[], UNTIL_READY),
    row("without sync-file db.converting/LOG_BACKUP.new", &[], UNTIL_READY),
    row("without sync-file db.converting/#.log", &[], "staging is flushed before it is closed: its WAL holds nothing"),
    row("without sync-file copy.converting/#.log", &[], "a checkpoint is made of flushed files: its WAL holds nothing"),
    row("without sync-file *.converting/IDENTITY", &[], ROCKSDB_MAKES_IT_AGAIN),
    row("without sync-file *.converting/OPTIONS-#", &[], ROCKSDB_MAKES_IT_AGAIN),
    row("without sync-file db.converting/LOCK", &[], ROCKSDB_MAKES_IT_AGAIN),
    row(
        "without sync-dir copy.converting after sync-file *",
        &[],
        "the marker's own sync of the same directory comes before the rename",
    ),
    row("db.converting/LOG_BACKUP written in place", &[], UNTIL_READY),
    row("create db.converting/* before sync-dir db.converting*", &[], UNTIL_READY),
    row("create copy.converting/* before sync-dir copy.converting*", &[], "the rename to its name comes after both"),
    row("make-dir db.converting/output before *", &[], UNTIL_READY),
    row("rename-over db.converting/* before sync-file *", &[], UNTIL_READY),
    row("rename-over copy.converting/* before sync-file *", &[], "the rename to its name comes after both"),
    row("sync-dir db.converting * before rename-over db.converting/LOG_BACKUP.new *", &[], UNTIL_READY),
    // How far a conversion has come.
    row("without sync-file db.converting/PROGRESS*", &[], PROGRESS),
    row("without sync-dir db.converting after rename-over db.converting/PROGRESS.new *", &[], PROGRESS),
    row("without sync-file db.converting/output/*", &[], PROGRESS),
    row("without sync-dir db.converting/output after *", &[], PROGRESS),
    row("append db.converting/PROGRESS before *", &[], PROGRESS),
    row("sync-file db.converting/PROGRESS before append *", &[], PROGRESS),
    row("sync-dir db.converting after rename-over db.converting/PROGRESS.new * before *", &[], PROGRESS),
    row("remove-file db.converting/unshipped/* before sync-dir db.converting after rename-over *", &[], PROGRESS),
    row("create db.converting/PROGRESS.new before make-dir db.converting/output", &[], PROGRESS),
    row("create db.converting/output/* before *", &[], PROGRESS),
    row("sync-file db.converting/output/* before *", &[], PROGRESS),
    row("remove-file db.converting/output/* before *", &[], PROGRESS),
    row("db.converting/PROGRESS written in place", &[], PROGRESS),
    row("without sync-dir db.converting after remove-file db.converting/LOG_BACKUP", &[], UNTIL_READY),
    row("sync-dir db.converting after remove-file db.converting/LOG_BACKUP before *", &[], UNTIL_READY),
    row("make-dir db.converting/unshipped before *", &[], UNTIL_READY),
    row("without sync-dir db.converting after rename-over db.converting/KEY_ENCODING.new *", &[], NEXT_SYNC_OF_STAGING),
    row(
        "sync-dir db.converting after rename-over db.converting/KEY_ENCODING.new * before *",
        &[],
        NEXT_SYNC_OF_STAGING,
    ),
    row("remove-file db.converting/PROGRESS before sync-dir *", &[], NEXT_SYNC_OF_STAGING),
    row("without sync-dir db.converting after remove-file db.converting/PROGRESS", &[], NEXT_SYNC_OF_STAGING),
    row("sync-dir db.converting after remove-file db.converting/PROGRESS before *", &[], NEXT_SYNC_OF_STAGING),
    row("create db.converting/KEY_ENCODING.new before sync-file db.converting/PROGRESS", &[], PROGRESS),
    // A load.
    row("make-dir db/pending_ingest before *", &[], LOAD_NOT_BEGUN),
    row("without sync-dir db/pending_ingest after rename *", &[], EITHER_NAME),
    row("sync-dir db/pending_ingest after rename * before *", &[], EITHER_NAME),
    // A control file's temporary name.
    row("create db.conversion.new * before remove-dir db.probe", &[], "the probe says nothing once it was tried"),
    row(
        "create db.converting/PROGRESS.new before remove-dir db.probe",
        &[],
        "the probe says nothing once it was tried",
    ),
    row(
        "create db.conversion.new * before sync-dir *",
        &[],
        "a temporary name is nobody's: it is removed before anything is looked at, whatever is in it",
    ),
    // The swap, and the way back.
    row("without sync-dir (parent) after rename db -> db.backup", &[], SECOND_RENAME),
    row("without sync-dir (parent) after rename db -> db.converting", &[], SECOND_RENAME),
    row("rename db.converting -> db before sync-dir (parent) after rename db -> db.backup", &[], SECOND_RENAME),
    row("rename db.backup -> db before sync-dir (parent) after rename db -> db.converting", &[], SECOND_RENAME),
    row("sync-dir (parent) after rename db -> db.backup before *", &[], SECOND_RENAME),
    row("sync-dir (parent) after rename db -> db.converting before *", &[], SECOND_RENAME),
    // An older backup directory gives way between Ready and the swap, with a sync of the parent before live moves.
    row(
        "without sync-dir (parent) after rename-over * [ready]",
        &["replace the kept database"],
        NEXT_SYNC_OF_THE_PARENT,
    ),
    row(
        "sync-dir (parent) after rename-over * [ready] before *",
        &["replace the kept database"],
        NEXT_SYNC_OF_THE_PARENT,
    ),
    row(
        "rename db.backup -> db.trash before sync-dir (parent) after rename-over * [ready]",
        &[],
        NEXT_SYNC_OF_THE_PARENT,
    ),
    row("rename db -> db.backup before sync-dir (parent) after remove-dir db.trash", &[], NEXT_SYNC_OF_THE_PARENT),
    // Done, and the sweep.
    row("without sync-dir (parent) after rename-over * [done]", SWEPT, OLD_JOURNAL),
    row("sync-dir (parent) after rename-over * [done] before *", SWEPT, OLD_JOURNAL),
    row("rename db.backup -> db.trash before sync-dir (parent) after rename-over * [done]", SWEPT, OLD_JOURNAL),
    row("rename db.converting -> db.trash before sync-dir (parent) after rename-over * [done]", &[], OLD_JOURNAL),
    row("remove-file db.trash/* before remove-file db.trash/*", &[], TRASH),
    row("without sync-dir (parent) after rename db -> db.trash", &[], NAME_OF_TRASH),
    row("without sync-dir (parent) after rename db.backup -> db.trash", &["destroy"], NAME_OF_TRASH),
    row("sync-dir (parent) after rename db -> db.trash before *", &[], NAME_OF_TRASH),
    row("sync-dir (parent) after rename db.backup -> db.trash before *", &["destroy"], NAME_OF_TRASH),
    row("remove-file db.trash/#.sst before sync-dir (parent) after rename db -> db.trash", &[], NAME_OF_TRASH),
    row(
        "remove-file db.trash/#.sst before sync-dir (parent) after rename db.converting -> db.trash",
        &[],
        NAME_OF_TRASH,
    ),
    row(
        "remove-file db.trash/#.sst before sync-dir (parent) after rename db.backup -> db.trash",
        &["destroy"],
        NAME_OF_TRASH,
    ),
    row("rename db -> db.trash before sync-dir (parent) after remove-dir db.trash", &["destroy"], NAME_OF_TRASH),
    row("without sync-dir (parent) after remove-dir db.trash", REMOVED, NEXT_SYNC_OF_THE_PARENT),
    row("sync-dir (parent) after remove-dir db.trash before *", REMOVED, NEXT_SYNC_OF_THE_PARENT),
];
