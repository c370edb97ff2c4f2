//! The library that stands between a child and the C library: how it is made, told what to do, and what it reports.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// As `struct report` in `interpose.c`.
const KINDS_MAX: usize = 65_520;
const HEADER_BYTES: usize = 16;

/// A way in which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    pub name: &'static str,
    /// The kinds of calls that can fail so, as letters of `interpose.c`.
    pub kinds: &'static str,
    pub errno: i32,
    pub flags: &'static str,
}

/// The nth call that can fail so.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub sort: Sort,
    pub at: usize,
}

impl Fault {
    /// As the library is told.
    pub fn told(self) -> String {
        let Fault { sort, at } = self;
        format!("{} {at} {} {}", sort.kinds, sort.errno, sort.flags)
    }
}

/// The compiler of this machine.
fn compiler() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".into())
}

/// Why the library cannot be made here; `None` if it can.
pub fn lacking() -> Option<String> {
    if !cfg!(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")) {
        return Some("it is written for 64-bit Linux with glibc".into());
    }
    let found = Command::new(compiler()).arg("--version").stdin(Stdio::null()).output();
    match found {
        Ok(output) if output.status.success() => None,
        _ => Some(format!("there is no C compiler (`{}`)", compiler())),
    }
}

/// The library, compiled.
pub struct Library {
    directory: TempDir,
}

impl Library {
    pub fn make() -> Library {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let library = Library { directory };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk_calls/interpose.c");
        let mut command = Command::new(compiler());
        command.args(["-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-o"]).arg(library.path());
        let output = command.arg(source).arg("-ldl").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("libinterpose.so")
    }

    /// Has the command's process report, in the file, what it calls on paths that begin with `place`.
    pub fn load(&self, command: &mut Command, place: &str, report: &Path) {
        File::create(report).unwrap().set_len((HEADER_BYTES + KINDS_MAX) as u64).unwrap();
        command.env("LD_PRELOAD", self.path()).env("MORPHKV_DISK_PLACE", place).env("MORPHKV_DISK_REPORT", report);
    }
}

/// What a process called.
pub struct Report {
    /// The kind of each call.
    pub kinds: Vec<u8>,
    pub failed: usize,
}

impl Report {
    pub fn read(path: &Path) -> Report {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let (calls, failed) = (number(0), number(8));
        assert!(calls <= KINDS_MAX, "{calls} calls are more than the report holds");
        Report { kinds: bytes[HEADER_BYTES..HEADER_BYTES + calls].to_vec(), failed }
    }

    /// The calls that can fail so.
    pub fn eligible(&self, sort: Sort) -> usize {
        self.kinds.iter().filter(|kind| sort.kinds.as_bytes().contains(kind)).count()
    }
}
