//! A restore that dies at every trap, in a child; what stands then is refused or right, and it goes on to the end.

use crate::common::figures::Figures;
use crate::common::{Content, content, options};
use crate::history::Random;
use crate::source::{Source, open_archive};
use crate::source::{all_of, request};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::log_backup::compact::{self, Until};
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::testing::{RealVfs, Trap, TrapPlan};
use morphkv::{Engine, ErrorKind, Options, manage};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

const ORDERS: &str = "MORPHKV_TEST_RESTORE";

/// Compacts the log so far; the names of the compaction's files.
fn compact(source: &Source, name: &str) -> Vec<PathBuf> {
    let scratch = crate::common::scratch();
    for shard in 1..=2 {
        let (name, until, scratch) = (name.to_owned(), Until::Latest, scratch.path().to_owned());
        let request =
            compact::Request { name, shard, shards: 2, until, scratch, part_bytes: 1 << 20, stretch_segments: 2 };
        compact::compact(&source.archive, &request, &options()).unwrap();
    }
    let folder = source.directory.path().join("archive/v1/compactions").join(name).join("data");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
    files
}

/// A source whose log has all that a restore can meet: a conversion, loads, several segments, a compaction, and one that
/// turns out to be damaged when a part of it is in.
pub fn source() -> Source {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 3;
    let loaded = |prefix: &str| -> Content {
        (0..5).map(|number| (format!("{prefix}/{number}").into_bytes(), b"loaded".to_vec())).collect()
    };
    for number in 0..5 {
        source.put(&format!("/key/{number}"), "1");
    }
    source.ingest(loaded("/key"));
    source.clock.advance(1);
    source.ship(None);
    let files = compact(&source, "damaged");
    std::fs::remove_file(&files[files.len() - 1]).unwrap();
    source.convert(Arc::new(Hierarchical));
    source.ingest(loaded("/later"));
    source.clock.advance(1);
    source.put("/key/3", "2");
    source.engine().delete_range("/key/".."/key/2").unwrap();
    source.remove_range(b"/key/", b"/key/2");
    source.note();
    source.clock.advance(1);
    source.ship(None);
    compact(&source, "used");
    source.put("/key/4", "3");
    source.ship(None);
    source
}

/// Nothing stands at the target, or an old database does.
fn target(source: &Source, replace: bool) -> (PathBuf, Content) {
    let parent = source.directory.path().join("place");
    drop(std::fs::remove_dir_all(&parent));
    std::fs::create_dir(&parent).unwrap();
    let target = parent.join("target");
    let old = crate::common::sample(20);
    if replace {
        crate::common::make(&target, Arc::new(Natural), &old);
    }
    (target, old)
}

fn latest(replace: bool) -> Request {
    Request { replace, ..request(Moment::Latest) }
}

/// The encoding that is asked for makes for one more conversion. Where nothing is replaced, the log comes in parts of an
/// operation each.
fn wanted(replace: bool) -> Options {
    let options = options().encoding(Natural);
    if replace { options } else { options.memory_bytes(1) }
}

/// The traps that a whole restore meets, each with how often it was met until then.
fn hits(source: &Source, replace: bool) -> Vec<(Trap, usize)> {
    let (target, _) = target(source, replace);
    let plan = Arc::new(TrapPlan::new());
    let vfs = Arc::new(RealVfs::with_traps(plan.clone()));
    let found = restore::run(&target, &source.archive, &latest(replace), &wanted(replace).vfs(vfs)).unwrap();
    let left_out: Vec<_> = found.status.left_out.iter().map(|left_out| left_out.name.as_str()).collect();
    assert_eq!((found.plan.runs().count(), &left_out[..]), (2, &["damaged"][..]));
    let hits = plan.hits();
    let nth = |index: usize| hits[..=index].iter().filter(|other| **other == hits[index]).count();
    (0..hits.len()).map(|index| (hits[index], nth(index))).collect()
}

fn die(source: &Source, target: &Path, action: &str, replace: bool, trap: Trap, nth: usize) {
    let orders = json!({"archive": source.directory.path().join("archive"), "target": target, "action": action,
        "replace": replace});
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["kills::child", "--exact", "--quiet", "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::null());
    child.stderr(Stdio::null()).env(ORDERS, orders.to_string());
    child.env("MORPHKV_TRAP", format!("{}@{nth}=abort", trap.name()));
    let status = child.status().unwrap();
    assert!(status.signal().is_some(), "{} {nth}: it did not die: {status}", trap.name());
}

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Value = serde_json::from_str(&orders).unwrap();
    let path = |name: &str| PathBuf::from(orders[name].as_str().unwrap());
    let archive = open_archive(&path("archive"));
    // One for all that it does, so that hits are counted through.
    let vfs = Arc::new(RealVfs::new().unwrap());
    match orders["action"].as_str().unwrap() {
        "abort" => drop(restore::abort(&path("target"), &options().vfs(vfs)).unwrap()),
        _ => {
            let replace = orders["replace"].as_bool().unwrap();
            restore::run(&path("target"), &archive, &latest(replace), &wanted(replace).vfs(vfs)).unwrap();
        }
    }
}

/// Whoever opens the target meanwhile gets the old database, the restored one, or a refusal; never an empty one.
fn look(target: &Path, replace: bool, old: &Content, restored: &Content, what: &str) {
    match Engine::open(target, options().create_if_missing(true)) {
        Ok(engine) => {
            let found = content(&engine);
            assert!(found == *restored || (replace && found == *old), "{what}: {} entries", found.len());
        }
        Err(error) => {
            assert!(!replace, "{what}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error:?}");
            assert!(error.next_command().unwrap().contains("restore status"), "{what}: {error:?}");
        }
    }
}

fn sweep(replace: bool) -> (usize, BTreeSet<&'static str>) {
    let source = source();
    let expected = source.states.last().unwrap();
    let all = hits(&source, replace);
    let mut random = Random::new(7);
    for (index, &(trap, nth)) in all.iter().enumerate() {
        let what = format!("replace {replace}, {} {nth}", trap.name());
        let (target, old) = target(&source, replace);
        die(&source, &target, "run", replace, trap, nth);
        // Of one that has not begun nothing is known; the folder that may stand keeps the place closed all the same.
        let begun = restore::status(&target, &options()).unwrap().is_some();
        if index % 2 == 0 && (begun || replace) {
            look(&target, replace, &old, &expected.content, &what);
        }
        if random.below(4) == 0 && begun {
            // It dies once more, on its way on.
            let (again, nth) = all[random.below(all.len())];
            let plan =
                Arc::new(TrapPlan::new().with(again, nth as u32, morphkv::testing::TrapAction::Error(ErrorKind::Io)));
            let vfs = Arc::new(RealVfs::with_traps(plan));
            drop(restore::run(&target, &source.archive, &latest(replace), &wanted(replace).vfs(vfs)));
        }
        let complete = restore::status(&target, &options()).unwrap().is_some_and(|found| found.is_complete());
        if !complete {
            let found = restore::run(&target, &source.archive, &latest(replace), &wanted(replace));
            assert!(found.unwrap_or_else(|error| panic!("{what}: {error:?}")).is_complete(), "{what}");
        }
        let (content, internal) = all_of(&target);
        assert!(content == expected.content && internal == expected.internal, "{what}");
        assert!(!target.with_extension("restore").join("db").exists() || complete, "{what}");
        if replace {
            manage::rollback(&target, &options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert!(all_of(&target).0 == old, "{what}");
        }
    }
    (all.len(), all.iter().map(|(trap, _)| trap.name()).collect())
}

#[test]
fn it_goes_on_after_dying_at_any_trap() {
    let figures = Figures::new("restore-kills");
    let ((kills, met), (replacing, met_replacing)) = std::thread::scope(|scope| {
        let other = scope.spawn(|| sweep(true));
        (sweep(false), other.join().unwrap())
    });
    let met: BTreeSet<_> = met.union(&met_replacing).copied().collect();
    let of_a_restore = Trap::ALL.iter().map(|trap| trap.name()).filter(|name| name.contains("-trap-restore-"));
    // One belongs to aborting, and is met below; the others to an attached database, see `replaced_kills.rs`.
    let elsewhere = [Trap::RestoreDatabaseDropped, Trap::RestoreHandoverBefore, Trap::RestoreHandoverAfter];
    let missed: Vec<_> =
        of_a_restore.filter(|name| !met.contains(name) && !elsewhere.iter().any(|trap| trap.name() == *name)).collect();
    figures.with("kills", kills + replacing).with("traps", met.len()).with("wrong", 0).print();
    assert!(missed.is_empty(), "traps that no restore meets: {missed:?}");
}

#[test]
fn it_can_be_given_up_after_dying_at_any_of_its_traps() {
    let source = source();
    let expected = source.states.last().unwrap();
    for replace in [false, true] {
        let of_it = |hit: &(Trap, usize)| hit.0.name().contains("-trap-restore-");
        let mut seen = BTreeSet::new();
        for (trap, nth) in hits(&source, replace).into_iter().filter(of_it).filter(|hit| seen.insert(hit.0.name())) {
            let what = format!("replace {replace}, {} {nth}", trap.name());
            let (target, old) = target(&source, replace);
            die(&source, &target, "run", replace, trap, nth);
            if replace {
                // Killed while it is given up, and given up again.
                let stands = target.with_extension("restore").exists();
                let installed = matches!(trap, Trap::RestoreInstalled | Trap::RestoreCleared);
                if stands && !installed {
                    die(&source, &target, "abort", replace, Trap::RestoreDatabaseDropped, 1);
                }
            }
            let aborted = restore::abort(&target, &options());
            if trap == Trap::RestoreInstalled {
                assert_eq!(aborted.unwrap_err().kind(), ErrorKind::Conflict, "{what}");
                continue;
            }
            assert!(aborted.unwrap_or_else(|error| panic!("{what}: {error:?}")), "{what}");
            assert!(!target.with_extension("restore").exists(), "{what}");
            let installed = trap == Trap::RestoreCleared;
            match Engine::open(&target, options()) {
                Ok(engine) => {
                    assert!(content(&engine) == if installed { expected.content.clone() } else { old }, "{what}")
                }
                Err(error) => {
                    assert!(error.kind() == ErrorKind::NotFound && !replace && !installed, "{what}: {error:?}")
                }
            }
            if !replace && !installed {
                restore::run(&target, &source.archive, &latest(false), &wanted(false)).unwrap();
                assert!(all_of(&target).0 == expected.content, "{what}");
            }
        }
    }
}
