//! The child that converts and is killed: this binary again, with orders in its environment.

use super::{encoding, options, small};
use morphkv::testing::{Operation, RealVfs, RecordingVfs, Trap};
use morphkv::{Compression, Keep, Options, Verify, manage};
use rustix::process::{Pid, WaitId, WaitIdOptions, set_parent_process_death_signal, waitid};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const ORDERS: &str = "MORPHKV_TEST_ORDERS";

/// What a child is to do.
#[derive(Debug, Clone)]
pub struct Orders {
    path: PathBuf,
    encoding: String,
    pub threads: usize,
    pub memory_bytes: usize,
    pub verify: &'static str,
    pub keep: bool,
    pub zstd: bool,
    /// Where it dies: `name@nth`.
    pub trap: Option<String>,
}

/// What became of a child.
#[derive(Debug)]
pub struct Ended {
    /// The report of the conversion, unless it was killed.
    pub report: Option<Value>,
    /// Tasks that it began.
    pub tasks_begun: usize,
    /// Bytes that it read and wrote, by system calls.
    pub bytes: u64,
    pub killed: bool,
    pub errors: String,
}

impl Orders {
    pub fn new(path: &Path, encoding: &str) -> Self {
        let (path, encoding) = (path.to_owned(), encoding.to_owned());
        let (verify, keep, zstd, trap) = ("full", false, false, None);
        Orders { path, encoding, threads: 2, memory_bytes: 4 << 20, verify, keep, zstd, trap }
    }

    /// The same, but it dies at the `nth` hit of that trap.
    pub fn dying_at(&self, trap: &str, nth: usize) -> Orders {
        Orders { trap: Some(format!("{trap}@{nth}")), ..self.clone() }
    }

    fn to_text(&self) -> String {
        json!({
            "path": self.path, "encoding": self.encoding, "threads": self.threads, "memory_bytes": self.memory_bytes,
            "verify": self.verify, "keep": self.keep, "zstd": self.zstd,
        })
        .to_string()
    }

    fn beside(&self, name: &str) -> PathBuf {
        // Beside the directory of the place, which is copied and compared.
        let directory = self.path.parent().unwrap();
        directory.with_extension(name)
    }

    fn spawn(&self) -> Child {
        for name in ["tasks", "report"] {
            drop(std::fs::remove_file(self.beside(name)));
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child::child", "--exact", "--quiet", "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(self.beside("errors")).unwrap()).env(ORDERS, self.to_text());
        match &self.trap {
            Some(trap) => command.env("MORPHKV_TRAP", format!("{trap}=abort")),
            None => command.env_remove("MORPHKV_TRAP"),
        };
        command.spawn().unwrap()
    }

    fn ended(&self, mut child: Child) -> Ended {
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        // Not waited for yet: the kernel still knows what it did.
        let io = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
        let bytes =
            io.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| ["rchar", "wchar"].contains(name));
        let bytes = bytes.map(|(_, bytes)| bytes.parse::<u64>().unwrap()).sum();
        let status = child.wait().unwrap();
        let tasks_begun = std::fs::read(self.beside("tasks")).map_or(0, |tasks| tasks.len());
        let report = std::fs::read(self.beside("report")).ok();
        let report: Option<Value> = report.map(|report| serde_json::from_slice(&report).unwrap());
        let errors = std::fs::read_to_string(self.beside("errors")).unwrap();
        for name in ["tasks", "report", "errors"] {
            drop(std::fs::remove_file(self.beside(name)));
        }
        Ended { report, tasks_begun, bytes, killed: status.signal().is_some(), errors }
    }

    /// Runs the child until it ends or dies at its trap.
    pub fn run(&self) -> Ended {
        self.ended(self.spawn())
    }

    /// Runs the child, which must end well. Its report.
    pub fn finish(&self) -> Value {
        let ended = self.run();
        ended.report.unwrap_or_else(|| panic!("it did not end well: {}", ended.errors))
    }

    /// Runs the child until it ends or has run for so long.
    pub fn run_for(&self, time: Duration) -> Ended {
        let mut child = self.spawn();
        let began = std::time::Instant::now();
        while began.elapsed() < time && child.try_wait_without_reaping() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(child.kill());
        self.ended(child)
    }
}

trait StillRuns {
    fn try_wait_without_reaping(&self) -> bool;
}

impl StillRuns for Child {
    fn try_wait_without_reaping(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(Pid::from_child(self)), options).unwrap().is_none()
    }
}

fn wanted(orders: &Value) -> Options {
    let number = |name: &str| orders[name].as_u64().unwrap() as usize;
    let verify = match orders["verify"].as_str().unwrap() {
        "counts" => Verify::Counts,
        "full" => Verify::Full,
        _ => Verify::Both,
    };
    let compression = if orders["zstd"].as_bool().unwrap() { Compression::Zstd } else { Compression::Lz4 };
    let keep = if orders["keep"].as_bool().unwrap() { Keep::Yes } else { Keep::No };
    options()
        .encoding(encoding(orders["encoding"].as_str().unwrap()))
        .parallelism(number("threads"))
        .memory_bytes(number("memory_bytes"))
        .compression(compression)
        .verify(verify)
        .keep_backup(keep)
        .tuning(small())
}

/// Not a test of its own: what the children run. Without the variable it has nothing to do.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let orders: Value = serde_json::from_str(&orders).unwrap();
    let path = PathBuf::from(orders["path"].as_str().unwrap());
    let beside = path.parent().unwrap().to_owned();
    let tasks = OpenOptions::new().create(true).append(true).open(beside.with_extension("tasks")).unwrap();
    let witness = move |operation: &Operation| {
        if *operation == Operation::Trap(Trap::RewriteTaskBegun) {
            (&tasks).write_all(b"t").unwrap();
        }
    };
    let vfs = RecordingVfs::watched(Arc::new(RealVfs::new().unwrap()), witness);
    let report = manage::convert(&path, &wanted(&orders).vfs(Arc::new(vfs))).unwrap();
    let report = serde_json::to_vec(&report).unwrap();
    std::fs::write(beside.with_extension("report"), report).unwrap();
}
