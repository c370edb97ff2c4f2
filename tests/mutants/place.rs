//! Defects in what happens to a place: the order of a change, its steps, the table, the look, the sweep.

use super::plant::{Defect, defect};

const APPLY: &str = "src/place/apply.rs";
const CHANGE: &str = "src/place/change.rs";
const DECIDE: &str = "src/place/decide.rs";
const OBSERVE: &str = "src/place/observe.rs";
const SWEEP: &str = "src/place/sweep.rs";
const PLACE: &str = "src/place/mod.rs";
const ROLLBACK: &str = "src/place/rollback.rs";
const TRACES: &str = "crash::golden::traces";
const TABLE: &str = "unit::place::decide::tests::every_state_is_decided_as_the_table_says";
const MODEL: &str = "unit::place::model::every_reachable_state_keeps_all_keys";

pub fn defects() -> Vec<Defect> {
    [building(), steps(), table(), looks(), sweeping(), rolling_back()].into_iter().flatten().collect()
}

fn building() -> Vec<Defect> {
    const SYNC: &str = "sync_tree(vfs, &layout.staging)?;";
    const SEAL: &str = "marker::write(vfs, &layout.staging, &built.marker)?;";
    vec![
        defect("staging is never synced").edit(CHANGE, SYNC, "").found_by(&[TRACES]),
        defect("staging is sealed before it is synced")
            .edit(CHANGE, SYNC, "")
            .edit(CHANGE, "trap!(vfs, SealAfter);", "sync_tree(vfs, &layout.staging)?; trap!(vfs, SealAfter);")
            .found_by(&[TRACES]),
        defect("the journal says Ready before staging is sealed")
            .edit(
                CHANGE,
                SEAL,
                "journal::write(vfs, layout, &journal.in_phase(Phase::Ready))?;
                marker::write(vfs, &layout.staging, &built.marker)?;",
            )
            .found_by(&[TRACES]),
        defect("the name of staging is not synced")
            .edit(CHANGE, "vfs.sync_dir(&layout.parent)?;\n    trap!(vfs, StagingOwned);", "trap!(vfs, StagingOwned);")
            .found_by(&[TRACES]),
        defect("staging is made before the journal speaks of it")
            .edit(
                CHANGE,
                "    trap!(vfs, JournalBuildingBefore);
    journal::write(vfs, layout, journal)?;",
                "vfs.make_dir(&layout.staging)?; trap!(vfs, JournalBuildingBefore); journal::write(vfs, layout, journal)?;",
            )
            .edit(CHANGE, "vfs.make_dir(&layout.staging)?;", "")
            .found_by(&[TRACES]),
    ]
}

fn steps() -> Vec<Defect> {
    vec![
        defect("live -> backup is not synced")
            .edit(APPLY, "trap!(place.vfs, LiveToBackupMoved);\n    sync_parent(place)?;", "")
            .found_by(&[TRACES]),
        defect("staging -> live is not synced")
            .edit(APPLY, "trap!(place.vfs, StagingToLiveMoved);\n    sync_parent(place)?;", "")
            .found_by(&[TRACES, "crash::golden::trace_of_a_recovery"]),
        defect("backup -> live is not synced")
            .edit(APPLY, "trap!(place.vfs, BackupToLiveMoved);\n    sync_parent(place)?;", "")
            .found_by(&[TRACES]),
        defect("live -> staging is not synced")
            .edit(APPLY, "trap!(place.vfs, LiveToStagingMoved);\n    sync_parent(place)?;", "")
            .found_by(&[TRACES]),
        defect("failed syncs after renames are ignored")
            .edit(
                APPLY,
                "place.vfs.sync_dir(&place.layout.parent)",
                "{ let _ = place.vfs.sync_dir(&place.layout.parent); Ok(()) }",
            )
            .found_by(&["guarantees::syncs::a_sync_that_fails_ends_the_change"]),
        defect("a handle is given before Done is durable")
            .edit(
                APPLY,
                "journal::write(&*place.vfs, &place.layout, &settled)?;",
                "place.vfs.create_file(&place.layout.journal_temporary, &journal::to_bytes(&settled)?)?;
                place.vfs.rename_file_over(&place.layout.journal_temporary, &place.layout.journal)?;",
            )
            .found_by(&[TRACES]),
        defect("the order of a destruction is turned round: live first")
            .edit(
                "src/place/destroy.rs",
                "[&layout.staging, &layout.backup_dir, &layout.live]",
                "[&layout.live, &layout.backup_dir, &layout.staging]",
            )
            .found_by(&[TRACES]),
        defect("a destruction leaves the kept database")
            .edit(
                "src/place/destroy.rs",
                "[&layout.staging, &layout.backup_dir, &layout.live]",
                "[&layout.staging, &layout.live, &layout.live]",
            )
            .found_by(&[TRACES, "guarantees::others::what_is_destroyed_does_not_come_back"]),
    ]
}

fn table() -> Vec<Defect> {
    vec![
        defect("the old database is put back after Done")
            .edit(
                DECIDE,
                "(23, Action::Refuse)",
                "if seen.live == Live::Absent && seen.backup == Backup::Source {
                    (23, Action::BackupToLive)
                } else {
                    (23, Action::Refuse)
                }",
            )
            .found_by(&[
                TABLE,
                "guarantees::others::a_live_that_is_gone_after_the_swap_is_not_replaced_by_the_old_one",
            ]),
        defect("a handle is given while the journal says Ready")
            .edit(DECIDE, "(18, Settle)", "(18, Action::OpenThenSweep)")
            .found_by(&[TABLE, MODEL, TRACES]),
        defect("a source that has moved on is swapped out")
            .edit(DECIDE, "(12, Drop)", "(12, LiveToBackup)")
            .found_by(&[TABLE, MODEL]),
        defect("a backup directory without a live is taken for the database whatever the journal says")
            .edit(
                DECIDE,
                "    match seen.live {
        Live::Whole => (3, Action::Open),
        Live::Absent if alone => (4, Action::Absent),
        _ => (5, Action::Refuse),
    }",
                "match seen.live {
                    Live::Whole => (3, Action::Open),
                    Live::Absent if alone => (4, Action::Absent),
                    Live::Absent if seen.backup != Backup::Absent => (5, Action::BackupToLive),
                    _ => (5, Action::Refuse),
                }",
            )
            .found_by(&[TABLE]),
        defect("what stands beside an absent database is not looked at")
            .edit(
                DECIDE,
                "seen.staging == Staging::Absent && seen.backup == Backup::Absent && !seen.trash && !seen.restore",
                "true",
            )
            .found_by(&[TABLE, "refusals::an_operators_copy_beside_the_database_is_left_alone"]),
        defect("an unreadable journal counts as none")
            .edit(DECIDE, "(2, Action::Refuse)", "without_journal(seen)")
            .found_by(&[TABLE]),
    ]
}

fn looks() -> Vec<Defect> {
    const IDENTITY: &str = "refused(\"the database does not hold the identity that its marker names\")";
    vec![
        defect("RocksDB may write to a database that is read")
            .edit(PLACE, "self.rocks_lock = lock;", "")
            .found_by(&["crash::races::moments::who_reads_keeps_rocksdb_out_and_is_kept_out"]),
        defect("a database is read while RocksDB writes to it")
            .edit(PLACE, "RocksLock::to_read(&self.layout.live)?", "None")
            .found_by(&["crash::races::moments::who_reads_keeps_rocksdb_out_and_is_kept_out"]),
        defect("the identity is not compared with the marker")
            .edit(OBSERVE, "identity != marker.identity()", "false")
            .found_by(&["refusals::a_marker_of_another_database", "refusals::bad_markers"]),
        defect("a database without an identity passes for the marker's")
            .edit(OBSERVE, IDENTITY, "Ok(())")
            .found_by(&["guarantees::others::a_marker_over_a_plain_database_is_refused"]),
        defect("the fingerprint is not compared before the swap")
            .edit(OBSERVE, "now == source.fingerprint", "true")
            .found_by(&["refusals::writes_of_other_software_after_sealing_are_never_thrown_away"]),
        defect("a source that lost its WAL counts as one that moved on")
            .edit(OBSERVE, "!now.may_follow(&source.fingerprint)", "false")
            .found_by(&["others_doings::a_lost_wal_is_seen_although_the_manifest_knows_a_later_sequence"]),
        defect("missing SST files of a source are not looked for")
            .edit(
                OBSERVE,
                "Ok(database.files_are_there(vfs)?.then(|| database.last_sequence()))",
                "Ok(Some(database.last_sequence()))",
            )
            .found_by(&["others_doings::a_missing_sst_file_that_rocksdb_does_not_look_at_is_seen_all_the_same"]),
        defect("a rollback does not open the old database")
            .edit(OBSERVE, "same && kind != Kind::Rollback", "same")
            .found_by(&["others_doings::a_rollback_opens_the_old_database_before_the_new_one_goes"]),
        defect("any database without a marker is legacy")
            .edit(OBSERVE, "description.comparator == Some(Comparator::SlashSpans)", "description.comparator.is_some()")
            .found_by(&["refusals::a_plain_rocksdb_database"]),
        defect("a directory without CURRENT is empty")
            .edit(
                OBSERVE,
                "vfs.stat(&layout.live.join(ROCKSDB_CURRENT))?.is_some() || !vfs.list(&layout.live)?.is_empty()",
                "vfs.stat(&layout.live.join(ROCKSDB_CURRENT))?.is_some()",
            )
            .found_by(&["guarantees::others::a_database_without_current_is_not_made_anew"]),
        defect("one directory under two names is not seen")
            .edit(OBSERVE, "ids[..index].contains(id)", "false")
            .found_by(&["guarantees::syncs::one_directory_under_two_names_is_refused"]),
    ]
}

fn sweeping() -> Vec<Defect> {
    const TO_TRASH: &str = "        trap!(vfs, ToTrashBefore);
        vfs.rename_no_replace(path, &layout.trash)?;
        trap!(vfs, ToTrashMoved);
        vfs.sync_dir(&layout.parent)?;
        trap!(vfs, ToTrashAfter);
        remove_tree(vfs, &layout.trash)?;";
    vec![
        defect("what goes is emptied in place").edit(SWEEP, TO_TRASH, "remove_tree(vfs, path)?;").found_by(&[TRACES]),
        defect("trash is removed before its name is durable")
            .edit(
                SWEEP,
                "vfs.sync_dir(&layout.parent)?;\n        trap!(vfs, ToTrashAfter);",
                "trap!(vfs, ToTrashAfter);",
            )
            .found_by(&[TRACES]),
        defect("the journal goes before what it tells of")
            .edit(
                SWEEP,
                "        if !settled {
            return Err(
                Error::new(ErrorKind::Refused, \"sweep\", \"live is not the settled database\").at(&self.layout.live)
            );
        }",
                "drop_journal(self)?;",
            )
            .found_by(&[TRACES]),
        defect("a backup directory that is not ours any more is swept")
            .edit(
                SWEEP,
                "self.warn(&format!(\"{} is not ours any more and was left alone\", self.layout.backup_dir.display()))",
                "discard(self, &self.layout.backup_dir)?",
            )
            .found_by(&["guarantees::others::an_old_database_that_was_written_to_since_the_swap_stays"]),
        defect("a change that came to nothing forgets the database kept before")
            .edit(SWEEP, "journal::write(&*place.vfs, &place.layout, older)", "drop_journal(place)")
            .found_by(&["others_doings::a_kept_database_gives_way_only_to_one_that_is_ready"]),
    ]
}

fn rolling_back() -> Vec<Defect> {
    vec![
        defect("a rollback that is refused happens later")
            .edit(ROLLBACK, "return Err(refusal(&place.layout, row, &sight))", "{ let _ = row; }")
            .found_by(&["others_doings::a_refused_rollback_does_not_happen_later"]),
        defect("a rollback does not ask for strangers")
            .edit(
                ROLLBACK,
                "place.require_no_strangers(step)?;\n    journal.kind = Kind::Rollback;",
                "journal.kind = Kind::Rollback;",
            )
            .found_by(&["others_doings::strangers_beside_a_kept_database_stay_and_do_not_stop_it"]),
    ]
}
