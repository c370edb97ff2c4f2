//! A conversion that is killed half-way, for real: another process of this program does it, and gets SIGKILL.

use crate::args::EncodingName;
use clap::ValueEnum;
use morphkv::{Error, Options, Result, inspect, manage};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// When it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// While the new database is written.
    WhileBuilding,
    /// While the two databases change places: none may be at the place itself.
    WhileSwapping,
}

/// What was found after the kill, and what became of it.
#[derive(Debug, Serialize)]
pub struct Crash {
    pub moment: Moment,
    /// `false`: the conversion was through before the signal came.
    pub killed: bool,
    pub state: String,
    pub next_action: String,
    pub actions: Vec<String>,
    pub state_afterwards: String,
}

const MARKER: &str = "KEY_ENCODING";
/// Between two looks while nothing is near.
const PAUSE: Duration = Duration::from_millis(2);

/// Converts in another process, kills that at `moment`, looks, and recovers.
///
/// # Errors
/// Whatever looking and recovering bring.
pub fn crash(database: &Path, to: EncodingName, moment: Moment) -> Result<Crash> {
    let places = Places::of(database)?;
    let mut child = start(database, to)?;
    let killed = wait_and_kill(&mut child, &places, moment)
        .map_err(|error| Error::io("kill the conversion", database, error))?;
    let seen = inspect::inspect(database, &Options::new())?;
    let recovery = manage::recover(database, &Options::new(), false)?;
    Ok(Crash {
        moment,
        killed,
        state: seen.state,
        next_action: seen.next_action,
        actions: recovery.actions,
        state_afterwards: recovery.state,
    })
}

struct Places {
    staging: PathBuf,
    backup_dir: PathBuf,
}

impl Places {
    fn of(database: &Path) -> Result<Self> {
        let seen = inspect::inspect(database, &Options::new())?;
        let path_of = |role| {
            let sibling = seen.siblings.iter().find(|sibling| sibling.role == role);
            sibling.map_or_else(PathBuf::new, |sibling| PathBuf::from(&sibling.path))
        };
        Ok(Places { staging: path_of("staging"), backup_dir: path_of("backup_dir") })
    }
}

fn start(database: &Path, to: EncodingName) -> Result<Child> {
    let failed = |error| Error::io("start this program once more", database, error);
    let program = std::env::current_exe().map_err(failed)?;
    let name = to.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    Command::new(program)
        .arg("convert")
        .arg(database)
        .args(["--to", &name, "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)
}

/// `false`: it ended before.
fn wait_and_kill(child: &mut Child, places: &Places, moment: Moment) -> std::io::Result<bool> {
    let stands = |path: &Path| path.symlink_metadata().is_ok();
    let sealed = places.staging.join(MARKER);
    loop {
        match moment {
            Moment::WhileBuilding if stands(&places.staging) => {
                std::thread::sleep(Duration::from_millis(100));
                break;
            }
            Moment::WhileSwapping if stands(&places.backup_dir) => break,
            // The swap takes a fraction of a millisecond: no pause once it is near.
            Moment::WhileSwapping if stands(&sealed) => {}
            _ => std::thread::sleep(PAUSE),
        }
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
    }
    let running = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    Ok(running)
}
