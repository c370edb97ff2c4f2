//! What this machine can do, and the mount namespace in which the tests do it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a test needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Mounts of ext4 images.
    Ext4,
    /// Mounts of XFS images.
    Xfs,
    /// Mounts of memory.
    Tmpfs,
}

/// Set once this process is in its own mount namespace.
const INSIDE: &str = "MORPHKV_TEST_OWN_MOUNTS";

/// What this machine lacks; `None` where it lacks nothing.
pub struct Machine {
    mounts: Option<String>,
    loops: Option<String>,
    ext4: Option<String>,
    xfs: Option<String>,
    workspace: PathBuf,
}

impl Machine {
    /// Finds out by trying, in a namespace that is gone again with the trial.
    pub fn look() -> Self {
        let workspace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("media");
        let mounts = if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all(&workspace).unwrap();
            let trial = ["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs"];
            let tried = run(Command::new("unshare").args(trial).arg(&workspace));
            tried.err().map(|why| format!("no file system can be mounted here, {why}"))
        } else {
            Some("mounting needs root".to_owned())
        };
        let loops = run(Command::new(tool("losetup")).arg("--find"));
        Machine {
            mounts,
            loops: loops.err().map(|why| format!("there is no loop device, {why}")),
            ext4: lacking_tool("mkfs.ext4", "e2fsprogs"),
            xfs: lacking_tool("mkfs.xfs", "xfsprogs"),
            workspace,
        }
    }

    /// Why a test with this need cannot run here.
    pub fn lacks(&self, need: Need) -> Option<String> {
        let wanted: &[&Option<String>] = match need {
            Need::Ext4 => &[&self.mounts, &self.loops, &self.ext4],
            Need::Xfs => &[&self.mounts, &self.loops, &self.xfs],
            Need::Tmpfs => &[&self.mounts],
        };
        wanted.iter().find_map(|lacking| (*lacking).clone())
    }

    /// Begins this process anew in a mount namespace of its own, if it may mount at all: what it mounts is gone with its
    /// last process, also when that is killed.
    pub fn enter(&self) {
        if self.mounts.is_some() {
            return;
        }
        if std::env::var_os(INSIDE).is_none() {
            let mut again = Command::new("unshare");
            again.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
            let error = again.args(std::env::args_os().skip(1)).env(INSIDE, "1").exec();
            panic!("a mount namespace cannot be entered: {error}");
        }
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&self.workspace)).unwrap();
    }

    /// The directory of a test: in memory, and nobody else's, where something can be mounted.
    pub fn room(&self, test: &str) -> PathBuf {
        self.workspace.join(test)
    }
}

/// The path of an administrator's tool, which need not be in the search path.
pub fn tool(name: &str) -> PathBuf {
    let searched = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&searched).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

fn lacking_tool(name: &str, package: &str) -> Option<String> {
    (!tool(name).is_file()).then(|| format!("{name} is missing (package {package})"))
}

/// Runs a command to its end. What it said, if it failed.
pub fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(format!("{name}: {}: {said}", output.status))
}
