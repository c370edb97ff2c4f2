//! Defects in the engine: opening, the internal family, iterators, what is durable.

use super::plant::{Defect, defect};

const OPEN: &str = "src/engine/open.rs";
const INGEST: &str = "src/engine/ingest.rs";
const WALK: &str = "src/engine/walk.rs";

pub fn defects() -> Vec<Defect> {
    vec![
        defect("a walk takes a failed step of its cursor for the end")
            .edit(WALK, "self.cursor.next_entry()?", "self.cursor.next_entry().unwrap_or(None)")
            .edit(
                WALK,
                "        match self.standing {
            Standing::On(Direction::Forward) => self.cursor.next()?,
            Standing::Before(Direction::Forward) => {}
            _ => self.cursor.seek(&self.low)?,
        }",
                "match self.standing {
                    Standing::On(Direction::Forward) => drop(self.cursor.next()),
                    Standing::Before(Direction::Forward) => {}
                    _ => drop(self.cursor.seek(&self.low)),
                }",
            )
            .found_by(&["unit::engine::iter::tests::a_damaged_file_is_never_the_end"]),
        defect("the marker is written again at every open")
            .edit(
                OPEN,
                "assemble(place, database, settled.encoding, marker, &options, attached)?",
                "{
            place.vfs.remove_file(&place.layout.live.join(crate::layout::MARKER))?;
            crate::marker::write(&*place.vfs, &place.layout.live, &marker)?;
            assemble(place, database, settled.encoding, marker, &options, attached)?
        }",
            )
            .found_by(&["guarantees::syncs::opening_what_is_whole_writes_nothing_of_ours"]),
        defect("a sweep that fails fails the open")
            .edit(OPEN, "place.sweep(leftover);", "place.try_sweep(leftover)?;")
            .found_by(&["refusals::a_live_damaged_after_the_swap_is_never_replaced_by_the_old_one"]),
        defect("the WAL of an attached database is not kept")
            .edit(OPEN, "Settings { keep_wal: attached, ..options.settings() }", "options.settings()")
            .found_by(&["attached::wal_files_are_kept_through_flushes_and_openings"]),
        defect("a database is converted although that was forbidden")
            .edit(OPEN, "options.on_mismatch == OnMismatch::Refuse", "false")
            .found_by(&["guarantees::others::a_conversion_that_was_forbidden_does_not_happen"]),
        defect("files of a load that RocksDB has removed are not brought back")
            .edit(INGEST, "missing.insert(number);", "")
            .found_by(&["guarantees::loads::whoever_opens_it_brings_them_back"]),
        defect("second names of files that were brought back go before the first are durable")
            .edit(OPEN, "vfs.sync_dir(&live)?;", "")
            .found_by(&["guarantees::loads::they_are_durable_before_their_second_names_go"]),
        defect("the files of an earlier load are taken for those that are missing")
            .edit(INGEST, "(from..=least).rev().find(fits)", "(from..=least).find(fits)")
            .found_by(&["guarantees::loads::whichever_of_them_are_missing"]),
        defect("whatever a load has left is taken for what is missing")
            .edit(INGEST, "file.bytes == lengths[at]", "file.bytes > 0")
            .found_by(&["guarantees::loads::nothing_else_is_put_in_their_place"]),
        defect("who reads is not told that files of a load are to be brought back")
            .edit(OPEN, "matches!(Missing::find(&*place.vfs, live, settings), Ok(Some(_)))", "false")
            .found_by(&["guarantees::loads::so_does_a_conversion_and_a_recovery"]),
    ]
}
