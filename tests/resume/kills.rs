//! Killed everywhere: in the rewrite, the merge, the ingest, the verification, and after it.

use super::common::figures::{Figures, scale, torture};
use super::{few, options, small, to};
use morphkv::testing::{RealVfs, Trap, TrapPlan};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The traps between Building and Ready that a conversion meets, and how often.
fn hits(encoding: &str) -> BTreeMap<&'static str, usize> {
    let sandbox = few();
    let plan = Arc::new(TrapPlan::new());
    let wanted = options().encoding(super::encoding(encoding)).memory_bytes(4 << 20).tuning(small());
    // One thread, so that the nth hit is the same each time.
    let wanted = wanted.parallelism(1).verify(morphkv::Verify::Full).vfs(Arc::new(RealVfs::with_traps(plan.clone())));
    morphkv::manage::convert(&sandbox.path, &wanted).unwrap();
    let hits = plan.hits();
    let at = |wanted: Trap| hits.iter().position(|trap| *trap == wanted).unwrap();
    let mut counts = BTreeMap::new();
    for trap in &hits[at(Trap::RewriteBefore)..at(Trap::JournalReadyBefore) + 1] {
        *counts.entry(trap.name()).or_default() += 1;
    }
    // Written together with the journals.
    counts.retain(|name, _| !name.contains("control-file"));
    counts
}

/// Each trap: at its first hit, at its last, and at some between. What was recorded is not done again, what was not
/// recorded is; and a second kill on the way changes nothing of that.
#[test]
fn at_every_step_of_the_building() {
    let figures = Figures::new("resume-kills");
    let before = few();
    let (mut kills, mut resumed, mut taken) = (0, 0, 0);
    for encoding in ["hierarchical", "reversed"] {
        for (trap, count) in hits(encoding) {
            let mut points: Vec<usize> =
                if torture() { (1..=count).collect() } else { vec![1, count.div_ceil(2), count] };
            points.dedup();
            for nth in points {
                let what = format!("{encoding}: killed at {trap} ({nth} of {count})");
                let killed = before.copy();
                let mut orders = to(&killed.path, encoding);
                orders.threads = 1;
                assert!(orders.dying_at(trap, nth).run().killed, "not {what}");
                kills += 1;
                let sealed = killed.staging().join("KEY_ENCODING").exists();
                let (done, all) = killed.tasks();
                let ended = to(&killed.path, encoding).run();
                let report = ended.report.unwrap_or_else(|| panic!("{what}: {}", ended.errors));
                assert_eq!(report["resumed"], done > 0 || sealed, "{what}");
                assert_eq!(report["entries"], before.content.len(), "{what}");
                if sealed {
                    assert_eq!(ended.tasks_begun, 0, "{what}");
                } else if done > 0 {
                    assert_eq!(ended.tasks_begun, all - done, "{what}");
                }
                resumed += usize::from(done > 0 || sealed);
                taken += done;
                killed.require_whole(encoding, &what);
            }
        }
    }
    figures.with("kills", kills).with("resumed", resumed).with("tasks taken over", taken).print();
    assert!(resumed > 40, "{resumed} of {kills}");
}

/// What is met again and again, as long as there is something to do.
const OFTEN: [&str; 5] = [
    "rewrite-task-begun",
    "rewrite-task-done",
    "progress-line-before",
    "progress-line-appended",
    "progress-line-after",
];

/// Killed again and again at whatever comes next, by seed: it always ends, with all that was there.
#[test]
fn many_times_at_random() {
    let figures = Figures::new("resume-random-kills");
    let before = few();
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % bound
    };
    let mut kills = 0;
    for round in 0..scale(6, 200) {
        let encoding = ["hierarchical", "reversed"][round % 2];
        let sandbox = before.copy();
        for _ in 0..40 {
            let trap = OFTEN[below(OFTEN.len())];
            let mut orders = to(&sandbox.path, encoding).dying_at(trap, 1 + below(5));
            (orders.threads, orders.memory_bytes) = (1 + below(3), (1 << 20) << below(4));
            let ended = orders.run();
            if !ended.killed {
                assert!(ended.report.is_some(), "{}", ended.errors);
                break;
            }
            kills += 1;
        }
        if sandbox.path.with_extension("converting").exists() {
            to(&sandbox.path, encoding).finish();
        }
        sandbox.require_whole(encoding, &format!("round {round}"));
    }
    assert!(kills > 12, "{kills}");
    figures.with("kills", kills).print();
}
