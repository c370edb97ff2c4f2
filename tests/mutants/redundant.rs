//! Defects that no test can see, because another step covers for what they leave out.

use super::plant::{Defect, defect};

pub struct Redundant {
    pub defect: Defect,
    /// Defects of the covering steps, or of what is guarded against: together with them the tests fail.
    pub together_with: &'static [&'static str],
    /// Why nothing is to be seen.
    pub covered_by: &'static str,
}

pub fn defects() -> Vec<Redundant> {
    vec![
        Redundant {
            defect: defect("the rewrite does not count what it read and what it wrote")
                .edit("src/conversion/rewrite.rs", "self.check_counts(&rewritten)?;", "")
                .found_by(&["unit::conversion::model_tests::tests::a_wrong_hint_costs_speed_and_no_data"]),
            together_with: &["late keys of the rewrite are dropped"],
            covered_by: "the ingest compares the entries in the database with those that were read, and so does \
                         verification; this check only tells it earlier",
        },
        Redundant {
            defect: defect("a recovery moves live away without RocksDB's own lock")
                .edit(
                    "src/place/apply.rs",
                    "place.lock_rocks()?;\n    rename(place, &place.layout.live, &place.layout.backup_dir)?;",
                    "rename(place, &place.layout.live, &place.layout.backup_dir)?;",
                )
                .found_by(&["guarantees::others::a_recovery_does_not_move_what_rocksdb_has_open"]),
            together_with: &["the fingerprint is not compared before the swap"],
            covered_by: "whoever opens live for writing begins a new MANIFEST, so the next look sees a source that has \
                         moved on, and it goes back to its name (row 15)",
        },
        Redundant {
            defect: defect("a failed change drops staging even if the journal says Ready")
                .edit("src/place/change.rs", "found.id == journal.id && found.phase == Phase::Building", "true")
                .found_by(&["guarantees::syncs::a_sync_that_fails_ends_the_change"]),
            together_with: &[],
            covered_by: "the swap has not begun then: live is the whole old database whatever becomes of staging",
        },
    ]
}

/// Those of the archive and of the restore.
pub fn of_the_archive() -> Vec<Redundant> {
    vec![
        Redundant {
            defect: defect("a frame is as long as it says")
                .edit(
                    "src/log_backup/segment_reader.rs",
                    "needed > room || parsed.payload_bytes > PAYLOAD_BYTES_MAX",
                    "false",
                )
                .found_by(&["unit::log_backup::segment_tests::a_bomb_costs_no_more_than_it_is_long"]),
            together_with: &[],
            covered_by: "the payload grows as bytes come and not as its length says, its checksum is compared, and all frames \
                     together must be as long as the header says",
        },
        Redundant {
            defect: defect("what is in the base snapshot is applied again")
                .edit("src/restore/apply.rs", "frame.first_sequence <= skip", "false")
                .found_by(&["restore::moments::a_base_and_its_log_come_back_at_the_latest_moment_and_at_one_before"]),
            together_with: &[],
            covered_by: "every operation sets what it touches, so what is done again in the order of the log, up to where the \
                     snapshot ends, changes nothing",
        },
    ]
}
