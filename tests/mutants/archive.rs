//! Defects in the archive of the log backup: HEAD, migrations, pins, truncation, fsck, compaction, shipping, the store.

use super::plant::{Defect, defect};

const ARCHIVE: &str = "src/log_backup/archive.rs";
const COMMIT: &str = "src/log_backup/commit.rs";
const COMPACT: &str = "src/log_backup/compact.rs";
const COMPACTION: &str = "src/log_backup/compaction.rs";
const FSCK: &str = "src/log_backup/fsck.rs";
const MIGRATION: &str = "src/log_backup/migration.rs";
const NEEDED: &str = "src/log_backup/needed.rs";
const PIN: &str = "src/log_backup/pin.rs";
const SHIPPER: &str = "src/log_backup/shipper.rs";
const TRANSFER: &str = "src/log_backup/transfer.rs";
const TRUNCATE: &str = "src/log_backup/truncate.rs";

pub fn defects() -> Vec<Defect> {
    [committing(), merging(), storing(), pinning(), truncating(), checking(), compacting(), shipping()]
        .into_iter()
        .flatten()
        .collect()
}

fn committing() -> Vec<Defect> {
    vec![
        defect("after an unclear answer HEAD's nonces are not asked")
            .edit(COMMIT, "loaded.head.knows(nonce, first)", "Some(false)")
            .found_by(&["unit::log_backup::commit_tests::a_lost_answer_under_somebody_elses_commit_is_found"]),
        defect("HEAD is put without a condition")
            .edit(
                COMMIT,
                "archive.compare_and_swap(&names::head(), &loaded.version, wanted.to_bytes()?)",
                "archive.put(&names::head(), wanted.to_bytes()?).map(|()| loaded.version.clone())",
            )
            .found_by(&["unit::log_backup::commit_tests::no_commit_is_lost_or_doubled_in_a_storm"]),
    ]
}

fn merging() -> Vec<Defect> {
    const LAWS: &str = "unit::log_backup::migration_tests::merging_is_idempotent_commutative_and_associative";
    const FIELDS: &str = "unit::log_backup::migration_tests::every_field_that_serde_writes_survives_a_merge";
    vec![
        defect("a merge forgets what the other side has folded")
            .edit(MIGRATION, "folded.union(their_folded)", "folded.clone()")
            .found_by(&[FIELDS, LAWS]),
        defect("a merge forgets the floors of the other side")
            .edit(MIGRATION, "*merged = (*merged).max(*floor);", "let _ = (merged, floor);")
            .found_by(&[FIELDS, LAWS]),
        defect("a merge forgets the ids of the other side")
            .edit(MIGRATION, "both.chain(only_ours).chain(only_theirs).collect()", "both.chain(only_ours).collect()")
            .found_by(&["unit::log_backup::migration_tests::four_ingested_references_of_two_sides_are_four"]),
        defect("a merge brings back what was removed")
            .edit(MIGRATION, "!their_folded.contains(**id)", "true")
            .found_by(&["unit::log_backup::migration_tests::what_was_removed_does_not_come_back_with_an_older_copy"]),
        defect("a merge takes the first of two bodies")
            .edit(MIGRATION, "body != their_body", "false")
            .found_by(&["unit::log_backup::migration_tests::a_second_body_for_a_key_is_damage"]),
        defect("a floor can fall")
            .edit(MIGRATION, "*floor = (*floor).max(segment);", "*floor = segment;")
            .found_by(&["unit::log_backup::migration_tests::a_floor_never_falls"]),
    ]
}

fn storing() -> Vec<Defect> {
    const CREATED: &str =
        "unit::log_backup::archive_tests::an_object_is_created_once_swapped_by_version_listed_and_removed";
    const RANGES: &str = "unit::log_backup::archive_tests::ranges_are_exact_or_an_error";
    vec![
        defect("whatever stands at a name is taken for ours")
            .edit(ARCHIVE, "object.bytes == *bytes", "true")
            .found_by(&[CREATED]),
        defect("the hash of an object is not compared")
            .edit(
                ARCHIVE,
                "found.bytes.len() as u64 != reference.size || ContentHash::of(&found.bytes) != reference.hash",
                "found.bytes.len() as u64 != reference.size",
            )
            .found_by(&[RANGES]),
        defect("an object is read whatever its length")
            .edit("src/log_backup/object.rs", "announced > bytes_max", "false")
            .found_by(&[CREATED]),
        defect("an answer that ends early is taken for the whole")
            .edit("src/log_backup/object.rs", "len != announced", "false")
            .found_by(&["unit::log_backup::archive_tests::one_failure_or_lost_answer_at_any_call_changes_nothing"]),
        defect("a swap in a directory does not look at what stands there")
            .edit("src/log_backup/local.rs", "found.is_none() || found != expected.e_tag", "false")
            .found_by(&[CREATED, "unit::log_backup::archive_tests::of_many_creators_and_swappers_one_wins"]),
        defect("the hash of a file that was downloaded is not compared")
            .edit(TRANSFER, "hash == reference.hash", "true")
            .found_by(&[
                "unit::log_backup::archive_tests::files_go_up_and_come_down_whole_or_not_at_all",
                "unit::log_backup::snapshot_tests::a_damaged_object_is_seen_and_leaves_no_file",
            ]),
        defect("a file that was changed meanwhile is uploaded")
            .edit(
                TRANSFER,
                "bytes.len() as u64 != reference.size || ContentHash::of(&bytes) != reference.hash",
                "false",
            )
            .found_by(&["unit::log_backup::archive_tests::files_go_up_and_come_down_whole_or_not_at_all"]),
        defect("the hash of a segment's body is not compared")
            .edit("src/log_backup/segment_reader.rs", "ContentHash::of(body) != trailer.body", "false")
            .found_by(&["unit::log_backup::segment_tests::every_truncation_and_every_bit_flip_is_refused"]),
        defect("the checksum of a control file is not compared")
            .edit("src/control.rs", "&bytes[line.len()..] != expected.as_bytes()", "false")
            .found_by(&[
                "unit::log_backup::commit_tests::every_truncation_and_every_bit_flip_of_head_is_refused",
                "restore::damage::a_damaged_state_of_a_restore_is_an_error_and_keeps_the_place_closed",
            ]),
    ]
}

fn pinning() -> Vec<Defect> {
    const LEFT: &str = "unit::log_backup::pin_tests::a_head_that_cannot_be_read_leaves_no_pin";
    const NOTED: &str = "archive::rounds::what_a_pin_may_need_is_deleted_when_the_pin_is_gone";
    vec![
        defect("HEAD is loaded before the pin is taken")
            .edit(
                PIN,
                "let pin = Pin::take(archive, request)?;
        let loaded = commit::load(archive)?;
        pin.note_generation(loaded.head.generation)?;
        Ok((pin, loaded))",
                "let loaded = commit::load(archive)?;
                let pin = Pin::take(archive, request)?;
                pin.note_generation(loaded.head.generation)?;
                Ok((pin, loaded))",
            )
            .found_by(&[LEFT, "archive::rounds::a_malformed_layer_fails_the_truncation_and_leaves_no_pin"]),
        defect("a pin outlives its guard")
            .edit(PIN, "self.thread.is_none()", "true")
            .found_by(&[LEFT, "archive::rounds::a_malformed_layer_fails_the_truncation_and_leaves_no_pin"]),
        defect("a pin that knows no HEAD yet needs nothing")
            .edit(
                PIN,
                "generation.is_none_or(|generation| generation < doomed_in)",
                "generation.is_some_and(|generation| generation < doomed_in)",
            )
            .found_by(&[NOTED]),
        defect("a pin of an earlier HEAD needs nothing")
            .edit(PIN, "generation < doomed_in", "generation > doomed_in")
            .found_by(&[NOTED]),
        defect("the pin of a living holder is taken for dead")
            .edit(PIN, "self.age > ttl", "self.age > ttl / 2")
            .found_by(&["unit::log_backup::pin_tests::expiry_is_judged_in_the_stores_time"]),
        defect("what cannot be read is no pin")
            .edit(PIN, "pins.push(PinState { id, contents: None, age: Duration::ZERO });", "")
            .found_by(&["unit::log_backup::pin_tests::what_cannot_be_read_is_live_and_may_need_everything"]),
        defect("the holder of a pin that was broken does not hear of it")
            .edit(PIN, "self.lose(\"somebody has removed it\")", "()")
            .found_by(&["unit::log_backup::pin_tests::one_that_is_broken_or_changed_is_lost_and_its_holder_knows"]),
        defect("a holder that cannot renew its pin goes on")
            .edit(PIN, "state.lost.is_none() && Instant::now() >= state.until", "false")
            .found_by(&[
                "unit::log_backup::pin_tests::a_holder_that_cannot_renew_gives_up_in_time_even_while_the_store_hangs",
            ]),
    ]
}

fn truncating() -> Vec<Defect> {
    const NEEDED_TEST: &str = "archive::needed::what_a_truncation_leaves_is_what_every_later_moment_needs";
    const GRACE: &str = "archive::rounds::a_grace_is_waited_for_in_the_stores_time";
    vec![
        defect("what is doomed is deleted before HEAD knows the list")
            .edit(
                TRUNCATE,
                "trap!(self.vfs, TruncateListWritten);",
                "self.delete(&list)?; trap!(self.vfs, TruncateListWritten);",
            )
            .found_by(&[GRACE, "archive::rounds::what_a_pin_may_need_is_deleted_when_the_pin_is_gone"]),
        defect("the grace is not waited for").edit(TRUNCATE, "left > Duration::ZERO", "false").found_by(&[GRACE]),
        defect("a truncation does not ask for pins")
            .edit(TRUNCATE, "pin.blocks(body.generation)", "false")
            .found_by(&["archive::rounds::what_a_pin_may_need_is_deleted_when_the_pin_is_gone"]),
        defect("a truncation goes by a HEAD that is none any more")
            .edit(TRUNCATE, "head.generation != seen.generation", "false")
            .found_by(&["archive::crashes::what_is_committed_while_a_truncation_is_under_way_stays_whole"]),
        defect("what could not be deleted is forgotten")
            .edit(
                TRUNCATE,
                "if let Some(error) = error {\n            return failed(error.to_string());\n        }",
                "drop(error);",
            )
            .found_by(&["archive::rounds::what_cannot_be_deleted_is_pending_and_goes_later"]),
        defect("files that a later snapshot shares are doomed")
            .edit(TRUNCATE, "objects.retain(|name, _| !kept.contains(name));", "")
            .found_by(&[NEEDED_TEST]),
        defect("a base snapshot is a base although a file of it is cut")
            .edit(TRUNCATE, "size != object.size", "false")
            .found_by(&["archive::rounds::an_old_base_stays_while_the_new_one_is_not_whole"]),
        defect("the floor of a truncation is the moment and not what its base needs")
            .edit(NEEDED, "kept.segment.min(extent.resume)", "extent.resume")
            .found_by(&[
                NEEDED_TEST,
                "archive::needed::a_base_after_the_place_that_a_timeline_goes_on_from_is_none_of_its_bases",
            ]),
        defect("the segment that the shipper compares is truncated")
            .edit(NEEDED, "kept.segment.min(extent.resume)", "kept.segment")
            .found_by(&["archive::rounds::a_database_that_was_put_back_is_seen_after_a_truncation_too"]),
        defect("a bulk load right behind the base is useless")
            .edit(NEEDED, "body.sequence >= kept.sequence", "body.sequence > kept.sequence")
            .found_by(&["archive::needed::a_bulk_load_right_behind_the_base_is_needed"]),
        defect("a compaction that begins before the base is useless")
            .edit(NEEDED, "body.end_segment > kept.segment", "body.first_segment >= kept.segment")
            .found_by(&["archive::needed::a_compaction_is_needed_as_long_as_it_ends_after_the_base"]),
        defect("other timelines are not kept")
            .edit(NEEDED, "timeline.id != head.current && reaches", "false")
            .found_by(&[NEEDED_TEST]),
    ]
}

fn checking() -> Vec<Defect> {
    const SWEPT: &str = "archive::checked::old_orphans_are_swept_and_young_ones_and_those_of_an_upload_stay";
    const LIMITS: &str = "self.marked.is_partial || !self.checked.uploaders.is_empty()";
    vec![
        defect("young orphans are swept").edit(FSCK, "age >= age_min", "true").found_by(&[SWEPT]),
        defect("orphans are swept while somebody uploads")
            .edit(FSCK, LIMITS, "self.marked.is_partial")
            .found_by(&[SWEPT]),
        defect("orphans are swept although a list cannot be read")
            .edit(FSCK, LIMITS, "!self.checked.uploaders.is_empty()")
            .found_by(&[SWEPT]),
        defect("whoever has a pin for something unknown only reads")
            .edit(
                FSCK,
                "pin.contents.as_ref().is_some_and(|pin| READERS.contains(&pin.purpose.as_str()))",
                "pin.contents.as_ref().is_some_and(|pin| !pin.purpose.starts_with(\"store \"))",
            )
            .found_by(&[SWEPT]),
        defect("the old half of what is left of a compaction goes alone")
            .edit(FSCK, "self.keep_compactions_together();", "")
            .found_by(&["archive::compacted::what_is_left_of_a_compaction_goes_as_a_whole"]),
    ]
}

fn compacting() -> Vec<Defect> {
    const JUDGED: &str =
        "unit::log_backup::compaction::tests::it_is_complete_only_if_all_shards_are_ok_and_follow_each_other";
    vec![
        defect("a compaction enters HEAD without its END")
            .edit(
                COMPACT,
                "self.out.put_create(&name, bytes)?;\n        trap!(self.vfs, CompactEnded);",
                "drop(bytes);",
            )
            .found_by(&["compaction::runs::workers_that_race_make_one_compaction"]),
        defect("the chains of shards are not compared")
            .edit(COMPACTION, "place.is_some_and(|place| place != begin) && failure.is_none()", "false")
            .found_by(&[JUDGED]),
        defect("a shard that has failed does not count")
            .edit(
                COMPACTION,
                "failure.get_or_insert_with(|| format!(\"shard {number} failed ({kind}): {message}\"));",
                "let _ = (kind, message);",
            )
            .found_by(&[JUDGED]),
        defect("the end of a compaction is not compared")
            .edit(COMPACTION, "place != Some(end)", "false")
            .found_by(&[JUDGED]),
        defect("segments within a shard need not follow each other")
            .edit("src/log_backup/shard.rs", "expected.as_ref().is_some_and(|expected| expected != start)", "false")
            .found_by(&["compaction::forged::a_segment_of_another_history_fails_its_shard"]),
        defect("a bulk load is compacted before what came before it")
            .edit(
                "src/log_backup/shard.rs",
                "self.store(&stretch.take())?;\n                    self.load(group);",
                "self.load(group);",
            )
            .found_by(&["compaction::runs::what_comes_last_counts"]),
        defect("a range deletion takes back what came after it")
            .edit("src/log_backup/stretch.rs", "point.is_put() && point.at() > piece.last", "false")
            .found_by(&["unit::log_backup::net_effect::tests::it_is_the_stretch_whatever_was_there"]),
        defect("a range deletion takes nothing back")
            .edit("src/log_backup/stretch.rs", "point.is_put() && point.at() > piece.last", "point.is_put()")
            .found_by(&["unit::log_backup::net_effect::tests::it_is_the_stretch_whatever_was_there"]),
        defect("a compaction whose segments were truncated enters HEAD")
            .edit(COMPACT, "!known && floor_of(&head, self.spec.timeline)? <= self.spec.first_segment", "!known")
            .found_by(&["archive::compacted::a_compaction_that_ends_after_its_segments_were_truncated_is_outdated"]),
        defect("a compaction may end at the last number that there is")
            .edit(COMPACTION, "self.end_sequence >= u64::MAX - 1", "false")
            .found_by(&[
                "unit::log_backup::compaction::tests::hostile_specs_are_refused",
                "unit::log_backup::hostile_tests::what_is_accepted_means_the_same_when_it_is_written_again",
            ]),
        defect("a segment that has not come yet fails its shard for ever")
            .edit(COMPACT, "error.kind() != ErrorKind::NotFound || truncated", "true")
            .found_by(&["compaction::runs::a_segment_that_is_not_there_yet_is_waited_for"]),
    ]
}

fn shipping() -> Vec<Defect> {
    vec![
        defect("a segment replaces what stands at its name")
            .edit(
                "src/log_backup/stream.rs",
                "archive.put_create(&name, built.segment.bytes.clone())",
                "archive.put(&name, built.segment.bytes.clone())
                    .and_then(|()| archive.put_create(&name, built.segment.bytes.clone()))",
            )
            .found_by(&["log_backup::histories::a_copy_that_ships_beside_the_original_is_refused"]),
        defect("the last write shipped is not compared with the log")
            .edit("src/log_backup/continuity.rs", "!is_same(batches, batch, frame)", "false")
            .found_by(&["log_backup::histories::a_database_that_was_put_back_to_an_older_copy_begins_a_new_timeline"]),
        defect("WAL files go although the next start needs the last one")
            .edit(
                SHIPPER,
                "self.engine.remove_archived_wal_files(published.end.file)?;",
                "self.engine.remove_archived_wal_files(u64::MAX)?;",
            )
            .found_by(&["log_backup::histories::the_file_of_the_last_write_shipped_is_kept"]),
        defect("WAL files go before their segment stands")
            .edit(
                "src/log_backup/shipper.rs",
                "        let limit = self.durable()?.limit;
        if let Some(why) = self.ship_to(limit, time, false, pass)? {
            return Ok(Some(why));
        }",
                "let limit = self.durable()?.limit;
                self.engine.remove_archived_wal_files(u64::MAX)?;
                if let Some(why) = self.ship_to(limit, time, false, pass)? { return Ok(Some(why)); }",
            )
            .found_by(&["log_backup::histories::the_file_of_the_last_write_shipped_is_kept"]),
        defect("files that are doomed are shared")
            .edit(
                "src/log_backup/snapshot_transfer.rs",
                "refuse_doomed(archive, head, manifest, previous, &mut lists)?;",
                "let _ = &mut lists;",
            )
            .found_by(&[
                "unit::log_backup::snapshot_tests::doomed_objects_are_never_referred_to_again",
                "unit::log_backup::snapshot_tests::files_of_a_snapshot_that_left_head_are_not_shared",
            ]),
        defect("a snapshot enters HEAD without its manifest")
            .edit("src/log_backup/snapshot_transfer.rs", "archive.put_create(&reference.name, bytes)?;", "drop(bytes);")
            .found_by(&[
                "unit::log_backup::snapshot_tests::a_snapshot_is_in_head_whole_or_not_at_all_whichever_call_fails",
            ]),
        defect("a database that is shut out ships on")
            .edit(SHIPPER, "head.current != running.own.timeline", "false")
            .found_by(&["log_backup::background::a_database_that_is_shut_out_stops_and_says_so"]),
    ]
}
