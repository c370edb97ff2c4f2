//! How much work is done twice.

use super::common::figures::Figures;
use super::{measured, to};
use std::time::{Duration, Instant};

/// Of each conversion: the encoding, and how much more than without a kill all attempts together may read and write.
const MOST: f64 = 1.3;
const KILLS: usize = 10;

/// Killed again and again after a tenth of its steps, each time just before what was done would have counted.
#[test]
fn killed_at_each_tenth() {
    let before = measured();
    let mut figures = Figures::new("resume-work");
    for encoding in ["hierarchical", "reversed"] {
        let whole = before.copy();
        let orders = to(&whole.path, encoding);
        let undisturbed = orders.run();
        assert!(undisturbed.report.is_some(), "{}", undisturbed.errors);
        whole.require_whole(encoding, "undisturbed");
        let lines = lines_of(&before, encoding);
        let sandbox = before.copy();
        let orders = to(&sandbox.path, encoding);
        let (mut bytes, mut begun, mut attempts) = (0, 0, 0);
        let report = loop {
            // One more, since the last one of an attempt is lost.
            let ended = orders.dying_at("progress-line-before", lines / KILLS + 1).run();
            assert!(ended.killed || ended.report.is_some(), "{}", ended.errors);
            bytes += ended.bytes;
            begun += ended.tasks_begun;
            attempts += 1;
            assert!(attempts < 2 * KILLS, "it does not come to an end");
            if let Some(report) = ended.report {
                break report;
            }
        };
        assert!(attempts > KILLS / 2, "{attempts} attempts");
        assert_eq!(report["resumed"], true, "{report}");
        sandbox.require_whole(encoding, "killed at each tenth");
        let ratio = bytes as f64 / undisturbed.bytes as f64;
        let again = begun - undisturbed.tasks_begun;
        println!(
            "{encoding}: {lines} lines, {attempts} attempts, {begun} tasks begun of {}, work {ratio:.3}",
            undisturbed.tasks_begun
        );
        assert!(ratio <= MOST, "{encoding}: all attempts together did {ratio:.3} of the work");
        // One worker more than threads is in the middle of a task.
        assert!(again <= (attempts - 1) * (orders.threads + 1), "{encoding}: {again} tasks were done again");
        figures = figures
            .with(&format!("{encoding}: tasks"), undisturbed.tasks_begun)
            .with(&format!("{encoding}: attempts"), attempts)
            .with(&format!("{encoding}: tasks done again"), again)
            .with(&format!("{encoding}: work"), format!("{ratio:.3}"));
    }
    figures.print();
}

/// How many lines a conversion writes.
fn lines_of(before: &super::Sandbox, encoding: &str) -> usize {
    let sandbox = before.copy();
    let ended = to(&sandbox.path, encoding).dying_at("seal-before", 1).run();
    assert!(ended.killed, "{}", ended.errors);
    std::fs::read(sandbox.progress()).unwrap().split(|byte| *byte == b'\n').count() - 1
}

/// A supervisor that gives a start so long and no longer sees the conversion end, however short that is.
#[test]
fn killed_after_a_while_until_it_ends() {
    let before = measured();
    let mut figures = Figures::new("resume-supervisor");
    for encoding in ["hierarchical", "reversed"] {
        let whole = before.copy();
        let began = Instant::now();
        to(&whole.path, encoding).finish();
        let undisturbed = began.elapsed();
        let sandbox = before.copy();
        let orders = to(&sandbox.path, encoding);
        // Shorter than any of the phases.
        let mut patience = undisturbed / 8;
        let (mut kills, mut kills_in_a_row) = (0, 0);
        let mut lines = 0;
        loop {
            let ended = orders.run_for(patience);
            assert!(ended.killed || ended.report.is_some(), "{}", ended.errors);
            if ended.report.is_some() || !sandbox.path.with_extension("conversion").exists() && kills > 0 {
                break;
            }
            kills += 1;
            let now = std::fs::read(sandbox.progress()).map_or(0, |progress| progress.len());
            kills_in_a_row = if now > lines { 0 } else { kills_in_a_row + 1 };
            lines = now.max(lines);
            // A machine that is busy with something else now may not even open the source in that time.
            if kills_in_a_row == 5 {
                (patience, kills_in_a_row) = (patience * 3 / 2, 0);
            }
            assert!(kills < 400, "it does not come to an end");
        }
        assert!(kills >= 3, "killed {kills} times in {patience:?}, undisturbed it takes {undisturbed:?}");
        sandbox.require_whole(encoding, "killed after a while");
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap();
        figures = figures
            .with(&format!("{encoding}: undisturbed, ms"), millis(undisturbed))
            .with(&format!("{encoding}: killed after, ms"), millis(patience))
            .with(&format!("{encoding}: kills"), kills);
    }
    figures.print();
}

/// Files of the output folder that end in this: how many, and their bytes.
fn outputs(sandbox: &super::Sandbox, ending: &str) -> (usize, u64) {
    let entries = std::fs::read_dir(sandbox.staging().join("output")).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_name().to_str().unwrap().ends_with(ending));
    files.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.metadata().unwrap().len()))
}

/// What is sorted on disk is there once, and not twice, however far the merge has come.
#[test]
fn a_merge_gives_back_the_room_of_what_it_has_read() {
    let before = measured();
    let killed = |nth: usize| before.killed("reversed", "merged-spill-before", nth);
    let (count, spilled) = outputs(&killed(1), ".spill");
    assert!(count > 100, "{count} spill files");
    let mut written = 0;
    // Most of them are merged twice.
    for nth in [count / 4, count * 5 / 4, count * 2 - count / 16] {
        let sandbox = killed(nth);
        let ((left, spills), (_, files)) = (outputs(&sandbox, ".spill"), outputs(&sandbox, ".sst"));
        println!("{left} of {count} spill files are left; {spills} and {files} bytes stand for {spilled}");
        assert!(spills + files < spilled * 6 / 5, "{spills} and {files} bytes stand for {spilled}");
        written = written.max(files);
    }
    assert!(written > spilled / 8, "the last merge was not reached");
}
