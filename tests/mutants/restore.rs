//! Defects in the restore: what is fetched and applied, in which order, and who may write what.

use super::plant::{Defect, defect};

const APPLY: &str = "src/restore/apply.rs";
const COMPACTED: &str = "src/restore/compacted.rs";
const PARTS: &str = "src/restore/parts.rs";
const RECORD: &str = "src/restore/record.rs";
const SIGHTING: &str = "src/restore/sighting.rs";
const STATE: &str = "src/restore/state.rs";
const WORKER: &str = "src/restore/worker.rs";

pub fn defects() -> Vec<Defect> {
    [fetching(), applying(), taking_parts_in(), using_compactions(), deciding(), owning()]
        .into_iter()
        .flatten()
        .collect()
}

fn fetching() -> Vec<Defect> {
    vec![
        defect("a restored copy goes on with the log that it came from")
            .edit(WORKER, "vfs.remove_file(&folder.database.join(LOG_BACKUP))?;", "")
            .found_by(&["restore::moments::a_restored_copy_is_attached_to_nothing"]),
        defect("what an interrupted download has left is believed")
            .edit("src/log_backup/snapshot_transfer.rs", "hash_file(vfs, &path)? == (object.size, object.hash)", "true")
            .found_by(&["unit::log_backup::snapshot_tests::a_file_of_that_length_that_is_another_is_fetched_again"]),
        defect("a restore takes no pin")
            .edit(WORKER, "found.spec.no_pin", "true")
            .found_by(&["restore::moments::what_a_restore_reads_is_pinned_while_it_is_read"]),
    ]
}

fn applying() -> Vec<Defect> {
    const FORGED: &str = "restore::damage::a_segment_of_another_history_is_seen";
    const LOOP: &str = "position.next_segment < end";
    vec![
        defect("the chain of segments is not compared")
            .edit(APPLY, "chain == start.chain", "true")
            .found_by(&[FORGED]),
        defect("the last segment need not be the planned one")
            .edit(APPLY, "last && leg.chain != Some(trailer.chain)", "false")
            .found_by(&[FORGED]),
        defect("a hole between two compactions is left out")
            .edit(
                APPLY,
                LOOP,
                "{ if next.is_some() { position.next_segment = end; position.chain = None; } position.next_segment < end }",
            )
            .found_by(&["compaction::forged::a_hole_between_compactions_is_gone_through"]),
        defect("the log behind the last compaction is left out")
            .edit(
                APPLY,
                LOOP,
                "{ if next.is_none() { position.next_segment = end; } position.next_segment < end }",
            )
            .found_by(&["compaction::runs::a_compaction_is_used_exactly_where_it_covers"]),
        defect("frames behind the moment are applied")
            .edit(APPLY, "!leg.limit.holds(frame.first_sequence, frame.operations, frame.time)", "false")
            .found_by(&["restore::moments::any_moment_of_random_histories"]),
    ]
}

fn taking_parts_in() -> Vec<Defect> {
    const NOTED: &str = "restore::parts::what_was_noted_is_in_wherever_a_part_ends";
    vec![
        defect("the position is durable before the files of its part are in")
            .edit(
                PARTS,
                "self.take(&files)?;
        trap!(self.vfs, RestorePartTaken);
        self.note(&reached)?;",
                "self.note(&reached)?; self.flush()?; trap!(self.vfs, RestorePartTaken); self.take(&files)?;",
            )
            .found_by(&[NOTED]),
        defect("the range deletions of a part come after its puts")
            .edit(
                PARTS,
                "self.operations(&effect)?;
        drop(effect);
        self.take(&files)?;
        trap!(self.vfs, RestorePartTaken);
        self.note(&reached)?;",
                "self.take(&files)?;
                self.operations(&effect)?;
                drop(effect);
                trap!(self.vfs, RestorePartTaken);
                self.note(&reached)?;",
            )
            .found_by(&["restore::parts::wherever_a_part_ends"]),
        defect("a part is noted with the position of the one that comes next")
            .edit(PARTS, "self.note(&reached)?;", "self.note(&self.reached)?;")
            .found_by(&[NOTED]),
        defect("what is gathered at the end of a log is left behind")
            .edit(
                PARTS,
                "if !self.stretch.is_empty() {
            let effect = self.stretch.take();
            self.begin(effect)?;
        }",
                "",
            )
            .found_by(&["restore::parts::wherever_a_part_ends"]),
    ]
}

fn using_compactions() -> Vec<Defect> {
    const NAMED: &str = "two_phase::compactions::one_that_does_not_fit_the_plan_is_named_and_not_used";
    const FIELDS: &str = "unit::restore::sighting::tests::each_field_alone_that_does_not_fit_is_named";
    vec![
        defect("a compaction is used past the moment")
            .edit(SIGHTING, "spec.end_sequence > last", "false")
            .found_by(&[FIELDS, NAMED]),
        defect("a compaction is planned although its last segment is cut")
            .edit("src/restore/plan.rs", "u64::from(last.is_some_and(is_cut))", "u64::from(last.is_some_and(is_cut) && false)")
            .found_by(&["compaction::forged::a_compaction_whose_last_segment_is_cut_is_not_used"]),
        defect("a compaction of another history is used")
            .edit(SIGHTING, "spec.end_segment == leg.end_segment && leg.chain != Some(spec.chain)", "false")
            .found_by(&[FIELDS]),
        defect("the END of one compaction ends another")
            .edit(SIGHTING, "end.spec != spec", "false")
            .found_by(&["two_phase::compactions::an_end_of_another_compaction_is_none"]),
        defect("a compaction that was made anew is used for the one that has settled")
            .edit(SIGHTING, "Some(run.id) == settled.compaction", "true")
            .found_by(&["two_phase::compactions::one_that_is_made_anew_after_settling_is_not_used"]),
        defect("a damaged compaction fails the restore")
            .edit(
                COMPACTED,
                "tracing::warn!(%error, compaction = %run.body.name, \"a compaction cannot be used; its segments are\");",
                "return Err(error);",
            )
            .found_by(&["compaction::runs::a_damaged_compaction_is_found_and_never_fails_a_restore"]),
    ]
}

fn deciding() -> Vec<Defect> {
    const MODEL: &str = "unit::restore::state_model::random_interleavings_agree_with_the_oracle";
    vec![
        defect("a marker moves the phase")
            .edit(
                STATE,
                "status.markers.snapshot_restored.get_or_insert(now);",
                "reach(RestorePhase::LogRestore, \"restored\"); status.markers.snapshot_restored.get_or_insert(now);",
            )
            .found_by(&[MODEL]),
        defect("phase and step move in two writes")
            .edit(
                STATE,
                "reach(RestorePhase::LogRestore, \"gate-passed\");
                status.step = Step::Apply;",
                "let _ = &mut reach; status.step = Step::Apply;",
            )
            .found_by(&[MODEL]),
        defect("a compaction in an unknown state fails the restore")
            .edit(
                STATE,
                "(message.as_str(), None)",
                "return Some(Change::Fail(Cause { kind: \"Unsupported\".into(), message: message.clone() }))",
            )
            .found_by(&[MODEL, "two_phase::compactions::one_that_fails_never_ends_or_is_not_there_opens_the_gate_too"]),
        defect("a compaction that fails fails the restore")
            .edit(
                STATE,
                "Change::Settle(Reason::Failed, message.clone(), Some(*id))",
                "{ let _ = id; Change::Fail(Cause { kind: \"Corrupt\".into(), message: message.clone() }) }",
            )
            .found_by(&[MODEL, "two_phase::compactions::one_that_fails_never_ends_or_is_not_there_opens_the_gate_too"]),
        defect("phase 2 does not wait for the compaction")
            .edit(
                STATE,
                "self.snapshot_restored.is_some() && self.compaction_settled.is_some()",
                "self.snapshot_restored.is_some()",
            )
            .found_by(&[MODEL]),
        defect("a phase whose record is gone is done again")
            .edit(STATE, "markers.snapshot_restored.is_some()", "false")
            .found_by(&[MODEL]),
        defect("what is over is gone on with").edit(STATE, "phase.is_over()", "false").found_by(&[MODEL]),
    ]
}

fn owning() -> Vec<Defect> {
    vec![
        defect("STATUS is written over whatever its generation")
            .edit("src/restore/folder.rs", "stands.as_ref() != Some(&found.status)", "false")
            .found_by(&["two_phase::ownership::a_write_over_another_generation_is_refused"]),
        defect("the run of another restore is taken for ours")
            .edit(RECORD, "restore != self.restore", "false")
            .found_by(&["two_phase::identity::the_run_of_another_restore_is_not_taken_for_ours"]),
        defect("a run that was made for another plan is gone on with")
            .edit("src/restore/phases.rs", "(run.spec, run.plan) != found.hashes()?", "false")
            .found_by(&["two_phase::identity::a_run_that_was_made_for_another_plan_is_refused"]),
        defect("a RESULT that was left behind ends the next run")
            .edit(RECORD, "self.vfs.remove_file(&self.path.join(RESTORE_RESULT))?;", "")
            .found_by(&["two_phase::identity::a_result_whose_record_is_gone_is_not_believed"]),
        defect("the lock of a living holder is broken")
            .edit("src/lock.rs", "file.try_lock()", "Ok::<(), std::fs::TryLockError>(())")
            .found_by(&[
                "two_phase::ownership::while_a_worker_lives_nobody_else_is_started_and_nothing_is_given_up",
                "unit::lock::tests::a_second_opener_in_this_process_is_kept_out",
            ]),
        defect("a worker that lives is taken for one that has died")
            .edit(RECORD, "Ok(true)", "Ok(false)")
            .found_by(&[
                "two_phase::ownership::while_a_worker_lives_nobody_else_is_started_and_nothing_is_given_up",
            ]),
        defect("a worker that has died once fails the restore")
            .edit(STATE, "*attempts <= RESTARTS_MAX", "*attempts == 0")
            .found_by(&["two_phase::endings::a_worker_that_is_killed_while_the_compaction_is_deleted_is_noticed"]),
        defect("a restore that has failed to note its end is failed")
            .edit("src/restore/coordinator.rs", "self.write(Change::Complete, steps::now())", "self.write(Change::Complete, steps::now()).or_else(|error| self.write(Change::Fail(Cause { kind: error.kind().name().into(), message: error.to_string() }), steps::now()))")
            .found_by(&["two_phase::endings::a_last_write_of_status_that_fails_is_repeated_and_nothing_else_is"]),
    ]
}
