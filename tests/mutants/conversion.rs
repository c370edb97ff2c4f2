//! Defects in the conversion: what is read, what is written, what is compared, what is asked before.

use super::plant::{Defect, defect};

const CONVERSION: &str = "src/conversion/mod.rs";
const PREFLIGHT: &str = "src/conversion/preflight.rs";
const REWRITE: &str = "src/conversion/rewrite.rs";
const LINE: &str = "src/conversion/line.rs";
const SOURCE: &str = "src/conversion/source.rs";
const TABLE: &str = "src/rocks/table.rs";
const TABLE_CURSOR: &str = "src/rocks/table_cursor.rs";
const CODEC: &str = "src/conversion/codec.rs";
const FLIPPED: &str = "unit::conversion::hostile_tests::tests::a_flipped_byte_is_an_error_and_never_a_short_copy";
const THERE_AND_BACK: &str = "unit::conversion::model_tests::tests::natural_to_hierarchical_and_back";

pub fn defects() -> Vec<Defect> {
    [reading(), writing(), verifying(), asking_before()].into_iter().flatten().collect()
}

fn reading() -> Vec<Defect> {
    vec![
        defect("the status of a cursor is never asked for")
            .edit("src/rocks/cursor.rs", "if self.raw.valid() { Ok(()) } else { self.status() }", "Ok(())")
            .edit("src/rocks/cursor.rs", "self.status().map(|()| None)", "Ok(None)")
            .found_by(&[FLIPPED, "unit::engine::iter::tests::a_damaged_file_is_never_the_end"]),
        defect("the conversion takes a failed step of its cursor for the end")
            .edit(LINE, "cursor.next_entry()", "Ok(cursor.next_entry().unwrap_or(None))")
            .found_by(&[FLIPPED]),
        defect("the conversion takes a file that cannot be read for the end")
            .edit(
                LINE,
                "Ok(cursor.advance()?.then(|| cursor.entry()))",
                "Ok(cursor.advance().unwrap_or(false).then(|| cursor.entry()))",
            )
            .found_by(&[FLIPPED]),
        defect("a block of a file is taken without its checksum")
            .edit(TABLE, "trailer[1..] != sum.to_le_bytes()", "false")
            .found_by(&["unit::rocks::table_tests::a_damaged_file_is_an_error_or_left_to_rocksdb"]),
        defect("the entries of a file are not counted")
            .edit(TABLE_CURSOR, "self.from_beginning && self.counted != table.entries", "false")
            .found_by(&["unit::rocks::table_tests::no_block_makes_it_panic_and_no_index_leaves_out_a_block"]),
        defect("an older version of a key is an entry of its own")
            .edit(TABLE_CURSOR, "before.cmp(&user_key_bytes)", "before.cmp(&user_key_bytes).then(Ordering::Less)")
            .edit(
                TABLE_CURSOR,
                "self.key[shared..before].cmp(&delta[..rest])",
                "self.key[shared..before].cmp(&delta[..rest]).then(Ordering::Less)",
            )
            .found_by(&["unit::rocks::table_tests::of_several_versions_the_newest_is_read"]),
        defect("files are read although something lies in a memtable")
            .edit(
                TABLE_CURSOR,
                "database.is_read_only() && database.memtable_entries_of(Family::Data)? == 0",
                "database.is_read_only()",
            )
            .found_by(&["unit::rocks::table_tests::where_a_key_may_be_in_several_places_rocksdb_reads"]),
        defect("files are read although they overlap")
            .edit(TABLE_CURSOR, "pair[0].largest >= pair[1].smallest", "false")
            .found_by(&["unit::rocks::table_tests::where_a_key_may_be_in_several_places_rocksdb_reads"]),
        defect("a file with deletions is read as if it had none")
            .edit(TABLE, "self.is_plain &= others.iter().all(|name| number(name) == Some(0));", "let _ = others;")
            .found_by(&["unit::rocks::table_tests::where_a_key_may_be_in_several_places_rocksdb_reads"]),
        defect("the conversion of levels takes a failed step for the end")
            .edit(
                SOURCE,
                "self.entries.push((begin, begin + key.len(), self.bytes.len()));\n            cursor.next()?;",
                "self.entries.push((begin, begin + key.len(), self.bytes.len()));
                if cursor.next().is_err() {
                    break;
                }",
            )
            .found_by(&[FLIPPED]),
        defect("an encoded key need not be the one form of its key")
            .edit(CODEC, "self.back == encoded", "true")
            .found_by(&["unit::conversion::codec::tests::an_encoded_key_that_is_not_the_only_one_is_corrupt"]),
        defect("a key need not come back from its encoded form")
            .edit(CODEC, "self.back == key", "true")
            .found_by(&["unit::conversion::codec::tests::a_key_that_does_not_come_back_is_refused"]),
        defect("decoding takes any level for a path")
            .edit(
                "src/encoding/hierarchical.rs",
                "u16::from_be_bytes(*stored_level) != level(seen.replaced, path.ends_with(&[ENCODED_SEPARATOR; 2]))",
                "false",
            )
            .found_by(&["unit::encoding::hierarchical::tests::bytes_that_encoding_never_makes_are_refused"]),
        defect("what is read is opened for writing")
            .edit(
                "src/rocks/database.rs",
                "DB::open_cf_descriptors_read_only(&options, never_made(path), families, false)",
                "DB::open_cf_descriptors(&options, path, families)",
            )
            .found_by(&["refusals::inspecting_writes_nothing"]),
        defect("the source's identity is not compared with its marker")
            .edit(CONVERSION, "place::check_identity(&source, marker)?;", "")
            .found_by(&["refusals::bad_markers"]),
    ]
}

fn writing() -> Vec<Defect> {
    vec![
        defect("late keys of the rewrite are dropped")
            .edit(REWRITE, "overflow.extend(late);", "drop(late);")
            .found_by(&["unit::conversion::model_tests::tests::a_wrong_hint_costs_speed_and_no_data"]),
        defect("what a task could not place in files is dropped")
            .edit(REWRITE, "spills.extend(output.written.spills);", "")
            .found_by(&[THERE_AND_BACK]),
        defect("keys that the target cannot carry are left out")
            .edit(REWRITE, "work.report_refused()?;", "")
            .found_by(&["refusals::keys_that_the_wanted_encoding_cannot_carry"]),
        defect("the internal family is not copied")
            .edit(CONVERSION, "copy_internal(source, &database)?;", "")
            .found_by(&["crash::golden::traces"]),
        defect("keeping the old database is forgotten")
            .edit(CONVERSION, "job.keep != Keep::No", "false")
            .found_by(&["refusals::a_kept_backup_is_in_the_way_of_the_next_conversion"]),
        defect("the log of an attached database is not handed over")
            .edit(
                CONVERSION,
                "attachment::hand_over(vfs, &layout.live, &layout.staging, attachment, source.last_sequence())?;",
                "",
            )
            .found_by(&["attached::a_conversion_hands_the_log_over"]),
    ]
}

fn verifying() -> Vec<Defect> {
    const ALTERED: &str = "guarantees::verification::a_new_database_that_is_not_what_was_read_is_never_swapped_in";
    vec![
        defect("verification is skipped")
            .edit(CONVERSION, "verify_staging(place, job, &recorder, (&source, &database), &wanted)?;", "")
            .found_by(&["refusals::a_new_database_that_rots_before_it_is_verified_is_never_swapped_in", ALTERED]),
        defect("verification compares the count and not the digest")
            .edit(CONVERSION, "found != *wanted", "found.entries != wanted.entries")
            .found_by(&[ALTERED]),
        defect("verification does not compare the internal records")
            .edit(CONVERSION, "ours != theirs", "false")
            .found_by(&[ALTERED]),
        defect("verification by counts compares nothing")
            .edit(CONVERSION, "counted != wanted.entries", "false")
            .found_by(&["guarantees::verification::counts_are_compared_even_where_the_digest_is_not"]),
        defect("the source is not read a second time")
            .edit(CONVERSION, "job.verify == Verify::Both", "false")
            .found_by(&[
                "guarantees::verification::a_source_that_rots_after_it_was_read_is_noticed_where_both_are_read",
            ]),
        defect("verification does not compare the identity")
            .edit(CONVERSION, "place::check_identity(&database, &marker)?;", "")
            .found_by(&[ALTERED]),
        defect("verification opens staging for writing")
            .edit(
                CONVERSION,
                "Database::open_read_only(&*place.vfs, &place.layout.staging, &direct)",
                "Database::open(&*place.vfs, &place.layout.staging, &direct)",
            )
            .found_by(&["guarantees::verification::what_is_sealed_is_what_was_synced"]),
    ]
}

fn asking_before() -> Vec<Defect> {
    const NOT_CARRIED: &str = "guarantees::others::what_a_rewrite_would_not_carry_is_refused";
    vec![
        defect("the rename is not tried before the work")
            .edit(CONVERSION, "preflight::require_renamable(&*vfs, &place.layout)?;", "")
            .found_by(&["crash::golden::traces"]),
        defect("the source is not made durable before it is taken for granted")
            .edit(CONVERSION, "journal::sync_source(&*vfs, &place.layout.live)?;", "")
            .found_by(&["crash::golden::traces"]),
        defect("room on the disk is not asked for")
            .edit(PREFLIGHT, "free_bytes < room.needed_bytes", "false")
            .found_by(&["guarantees::syncs::too_little_room_is_told_before_any_work"]),
        defect("damage in the middle of the WAL is carried over as a hole")
            .edit(CONVERSION, "require_whole_wal(place, job, &source)?;", "")
            .found_by(&["others_doings::a_wal_that_is_damaged_in_the_middle_is_not_converted_into_a_hole"]),
        defect("WAL files that lie elsewhere are left behind")
            .edit(PREFLIGHT, "may_hold_its_wal(vfs, Path::new(&named), live)?", "false")
            .found_by(&["others_doings::wal_files_that_lie_elsewhere_are_not_left_behind"]),
        defect("column families of others are left behind")
            .edit(PREFLIGHT, "!foreign.is_empty()", "false")
            .found_by(&[NOT_CARRIED]),
        defect("merge operands are carried as if they were values")
            .edit(PREFLIGHT, "merges > 0", "false")
            .found_by(&[NOT_CARRIED]),
        defect("an old database that is kept is forgotten")
            .edit(PREFLIGHT, "keep == Keep::Replace || vfs.stat(&layout.backup_dir)?.is_none()", "true")
            .found_by(&["refusals::a_kept_backup_is_in_the_way_of_the_next_conversion"]),
        defect("siblings of others do not stop a conversion")
            .edit(
                CONVERSION,
                "place.require_no_strangers(\"convert\")?;
    preflight::require_no_kept(&*vfs, &place.layout, job.keep)?;
    place.lock_rocks()?;",
                "preflight::require_no_kept(&*vfs, &place.layout, job.keep)?; place.lock_rocks()?;",
            )
            .found_by(&["refusals::an_operators_copy_beside_the_database_is_left_alone"]),
        defect("a log that is not shipped does not stop a conversion")
            .edit(CONVERSION, "attachment::require_shipped(&*vfs, &place.layout.live)?;", "")
            .found_by(&["attached::a_conversion_hands_the_log_over"]),
    ]
}
