//! A restore over an attached database, and the first pass of its log after it, die at every trap, in a child. Whatever stands
//! then is the old database, attached as before, or the new one with the log of the old one; and when all is done again, each
//! history is whole.

use crate::common::figures::Figures;
use crate::common::{Content, content, options};
use crate::history::Random;
use crate::replaced::{Attached, attachment_of, ship_options};
use crate::source::open_archive;
use morphkv::encoding::Hierarchical;
use morphkv::log_backup::head::Cause;
use morphkv::log_backup::shipper::Shipper;
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::testing::{RealVfs, Trap, TrapPlan};
use morphkv::{Engine, Options, Result, manage};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

const ORDERS: &str = "MORPHKV_TEST_RESTORE_REPLACED";

/// A database with something to undo, and the moment before it.
fn ready() -> (Attached, u64, Content) {
    let live = Attached::new();
    let good = live.write("good", 0..4);
    live.ship();
    let engine = live.open();
    engine.delete_range(..).unwrap();
    engine.ingest((0..9).map(|number| Ok((format!("/mistake/{number}"), "loaded")))).unwrap();
    engine.close().unwrap();
    (live, good.time, good.content)
}

/// The restore, and then writes that are shipped; from wherever an earlier attempt has come to.
fn act(directory: &Path, time: u64, options: &Options) -> Result<()> {
    let (path, archive) = (directory.join("db"), open_archive(&directory.join("archive")));
    let complete = restore::status(&path, options)?.is_some_and(|found| found.is_complete());
    if !complete {
        let wanted = Request { replace: true, ..crate::source::request(Moment::Time(time)) };
        restore::run(&path, &archive, &wanted, &options.clone().encoding(Hierarchical))?;
    }
    let engine = Engine::open(&path, options.clone())?;
    for number in 0..3 {
        engine.put(format!("/after/{number}"), "after")?;
    }
    Shipper::new(engine.clone(), archive, ship_options()).ship_once()?;
    engine.close()
}

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Value = serde_json::from_str(&orders).unwrap();
    let directory = PathBuf::from(orders["directory"].as_str().unwrap());
    // One for all that it does, so that hits are counted through.
    let vfs = Arc::new(RealVfs::new().unwrap());
    act(&directory, orders["time"].as_u64().unwrap(), &options().vfs(vfs)).unwrap();
}

fn die(live: &Attached, time: u64, trap: Trap, nth: usize) {
    let orders = json!({"directory": live.directory.path(), "time": time});
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["replaced_kills::child", "--exact", "--quiet", "--nocapture"]).stdin(Stdio::null());
    child.stdout(Stdio::null()).stderr(Stdio::null()).env(ORDERS, orders.to_string());
    child.env("MORPHKV_TRAP", format!("{}@{nth}=abort", trap.name()));
    let status = child.status().unwrap();
    assert!(status.signal().is_some(), "{} {nth}: it did not die: {status}", trap.name());
}

/// The traps that all of it meets, the first and the last time of each.
fn hits() -> Vec<(Trap, usize)> {
    let (live, time, _) = ready();
    let plan = Arc::new(TrapPlan::new());
    let vfs = Arc::new(RealVfs::with_traps(plan.clone()));
    act(live.directory.path(), time, &options().vfs(vfs)).unwrap();
    let hits = plan.hits();
    let count = |trap: Trap| hits.iter().filter(|hit| **hit == trap).count();
    let mut seen = Vec::new();
    for &trap in &hits {
        for nth in [1, count(trap)] {
            if !seen.contains(&(trap, nth)) {
                seen.push((trap, nth));
            }
        }
    }
    seen
}

fn kill(trap: Trap, nth: usize, random: &mut Random) {
    let what = format!("{} {nth}", trap.name());
    let (live, time, good) = ready();
    let (path, old) = (&live.path, live.timeline().id);
    let mut before = Content::from([]);
    before.extend((0..9).map(|number| (format!("/mistake/{number}").into_bytes(), b"loaded".to_vec())));
    die(&live, time, trap, nth);
    if random.below(2) == 0 {
        // Somebody opens it meanwhile, and writes.
        let engine = Engine::open(path, options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let found = content(&engine);
        let own = attachment_of(path);
        if own.timeline == old {
            assert_eq!(found, before, "{what}: the old one");
            engine.put("/meanwhile", "1").unwrap();
            before.insert(b"/meanwhile".to_vec(), b"1".to_vec());
        } else {
            let found: Content = found.into_iter().filter(|(key, _)| !key.starts_with(b"/after/")).collect();
            assert_eq!((found, own.cause), (good.clone(), Cause::Restore), "{what}: the new one");
            assert_eq!(own.parent.map(|parent| parent.timeline), Some(old), "{what}");
        }
        engine.close().unwrap();
    }
    act(live.directory.path(), time, &options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let mut after = good;
    after.extend((0..3).map(|number| (format!("/after/{number}").into_bytes(), b"after".to_vec())));
    let engine = Engine::open(path, options()).unwrap();
    assert_eq!(content(&engine), after, "{what}");
    engine.close().unwrap();
    let new = live.timeline();
    assert_eq!((new.id, new.cause), (attachment_of(path).timeline, Cause::Restore), "{what}");
    assert_eq!(live.restored(Moment::Latest, None), after, "{what}: the new history");
    assert_eq!(live.restored(Moment::Latest, Some(old)), before, "{what}: the old history");
    manage::rollback(path, &options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(attachment_of(path).timeline, old, "{what}: it is kept as it was");
}

#[test]
fn whoever_dies_at_any_trap_no_history_is_lost_or_mixed() {
    let figures = Figures::new("restore-over-attached-kills");
    let all = hits();
    let names: BTreeSet<_> = all.iter().map(|(trap, _)| *trap as usize).collect();
    let wanted = [
        Trap::RestoreHandoverBefore,
        Trap::RestoreHandoverAfter,
        Trap::RestoreInstalled,
        Trap::ShipParentEnded,
        Trap::ShipHandoverCommitted,
        Trap::ShipUnshippedRemoved,
    ];
    assert!(wanted.iter().all(|trap| names.contains(&(*trap as usize))), "traps that it does not meet");
    let (odd, even): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(index, _)| index % 2 == 1);
    let sweep = |part: &[(usize, &(Trap, usize))], seed| {
        let mut random = Random::new(seed);
        part.iter().for_each(|(_, (trap, nth))| kill(*trap, *nth, &mut random));
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| sweep(&odd, 3));
        sweep(&even, 4);
        other.join().unwrap();
    });
    figures.with("kills", all.len()).with("traps", names.len()).with("wrong", 0).print();
}
