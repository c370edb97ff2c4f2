//! A process that attaches, ships, loads, converts, loses a WAL file and detaches is killed at each trap of the log backup;
//! the next one does the same again, and the archive has everything.

use crate::common::figures::Figures;
use crate::common::{content, fill, options, sample, scratch};
use crate::harness::*;
use morphkv::encoding::Hierarchical;
use morphkv::log_backup::attach::{TakeOver, attach, detach};
use morphkv::log_backup::shipper::Shipper;
use morphkv::testing::Trap;
use morphkv::{Engine, Result};
use std::path::Path;
use std::process::Command;

const DIRECTORY: &str = "MORPHKV_TEST_DIRECTORY";

/// How many hits of each trap die.
const HITS: u32 = 3;

fn ship(engine: &Engine, directory: &Path) -> Result<()> {
    Shipper::new(engine.clone(), file_archive(directory), ship_options()).ship_once().map(|_| ())
}

fn write(engine: &Engine, word: &str) -> Result<()> {
    for number in 0..30 {
        engine.put(format!("/{word}/{number}"), format!("{word} {number} ").repeat(6))?;
    }
    Ok(())
}

/// Everything that a log backup does, from whatever an earlier attempt has left.
fn act(directory: &Path) -> Result<()> {
    let path = directory.join("db");
    let engine = Engine::open(&path, creating())?;
    if engine.get("/filled")?.is_none() {
        fill(&engine, &sample(20));
        engine.put("/filled", "yes")?;
    }
    engine.close()?;
    let engine = attach(&path, options(), &file_archive(directory), TakeOver::Yes)?;
    write(&engine, "before the first pass")?;
    ship(&engine, directory)?;
    write(&engine, "shipped")?;
    engine.ingest((0..20).map(|number| Ok((format!("loaded/{number:04}"), "loaded"))))?;
    engine.flush()?;
    ship(&engine, directory)?;
    write(&engine, "handed over")?;
    engine.ingest((20..40).map(|number| Ok((format!("loaded/{number:04}"), "loaded"))))?;
    engine.close()?;
    let engine = Engine::open(&path, options().encoding(Hierarchical))?;
    ship(&engine, directory)?;
    write(&engine, "lost from the log")?;
    engine.flush()?;
    engine.close()?;
    Engine::open(&path, options())?.close()?;
    for entry in std::fs::read_dir(path.join("archive")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let engine = Engine::open(&path, options())?;
    ship(&engine, directory)?;
    write(&engine, "last")?;
    ship(&engine, directory)?;
    engine.close()?;
    detach(&path, options()).map(|_| ())
}

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    act(Path::new(&directory)).unwrap();
}

fn run(directory: &Path, trap: Option<String>) -> std::process::Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kills::child", "--nocapture"]).env(DIRECTORY, directory).env_remove("MORPHKV_TRAP");
    if let Some(trap) = trap {
        child.env("MORPHKV_TRAP", trap);
    }
    child.output().unwrap()
}

/// Dies at a trap, goes on, and compares. Whether the trap was met.
fn kill(trap: Trap, hit: u32) -> bool {
    let directory = scratch();
    let dead = run(directory.path(), Some(format!("{}@{hit}=abort", trap.name())));
    let died = std::os::unix::process::ExitStatusExt::signal(&dead.status).is_some();
    assert!(died || dead.status.success(), "{trap:?}@{hit}: {}", String::from_utf8_lossy(&dead.stderr));
    let next = run(directory.path(), None);
    assert!(next.status.success(), "after {trap:?}@{hit}: {}", String::from_utf8_lossy(&next.stderr));
    let engine = Engine::open(directory.path().join("db"), options()).unwrap();
    assert_eq!(content(&engine).keys().filter(|key| key.starts_with(b"/last/")).count(), 30);
    assert_restorable(&file_archive(directory.path()), &engine);
    died
}

#[test]
fn a_process_that_dies_at_any_trap_is_gone_on_from() {
    let traps: Vec<_> =
        Trap::ALL.iter().copied().filter(|trap| trap.name().starts_with("morphkv-trap-ship-")).collect();
    let points: Vec<_> = traps.iter().flat_map(|trap| (1..=HITS).map(|hit| (*trap, hit))).collect();
    let (a, b) = points.split_at(points.len() / 2);
    let sweep = |points: &[(Trap, u32)]| {
        points.iter().filter(|(trap, hit)| kill(*trap, *hit)).map(|(trap, _)| *trap).collect::<Vec<_>>()
    };
    let (mut met, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| sweep(b));
        (sweep(a), other.join().unwrap())
    });
    met.extend(other);
    let missed: Vec<_> = traps.iter().filter(|trap| !met.contains(trap)).collect();
    Figures::new("log-backup-kills").with("traps", traps.len()).with("kills", met.len()).print();
    assert!(missed.is_empty(), "traps that nothing meets: {missed:?}");
}
