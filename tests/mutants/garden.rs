//! The copy of the source in which the defects are planted: its own tree and its own target directory, so that the main
//! one is not disturbed. Both stay for the next run, which then compiles only what has changed.

use super::plant::{Defect, MODULE, SWITCH, plant};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What the library and its tests are built from.
const COPIED: [&str; 7] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo", "src", "tests", "benches"];
/// Tests that run longer, each on average, hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a garden is laid out for.
pub struct Ground {
    /// Its folder in the target directory.
    pub folder: &'static str,
    /// The features that it is built with.
    pub features: &'static str,
    /// Whether its tests start the command line, which cargo would else build for every test.
    pub command_line: bool,
}

/// The engine without the log backup, which is a third of the source.
pub const ENGINE: Ground = Ground { folder: "mutants", features: "traps", command_line: false };
/// All of it: the tests of the archive and of the restore ask for the command line.
pub const ARCHIVE: Ground = Ground { folder: "mutants-archive", features: "cli,traps", command_line: true };

pub struct Garden {
    tree: PathBuf,
    target: PathBuf,
    features: &'static str,
    /// Nobody else builds here meanwhile.
    _lock: std::fs::File,
}

/// What became of the tests that were run.
pub struct Outcome {
    pub passed: Vec<String>,
    pub failed: Vec<String>,
    pub seconds: f64,
}

impl Garden {
    /// Copies the source with all the defects in it.
    pub fn new(ground: &Ground, defects: &[&Defect]) -> Garden {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(ground.folder);
        std::fs::create_dir_all(&home).unwrap();
        let lock = std::fs::File::create(home.join("lock")).unwrap();
        lock.lock().unwrap();
        let features = ground.features;
        let garden = Garden { tree: home.join("tree"), target: home.join("target"), features, _lock: lock };
        let mut files = planted(defects);
        if !ground.command_line {
            leave_the_binary_out(&mut files);
        }
        files.get_mut(Path::new("src/lib.rs")).unwrap().extend_from_slice(b"\nmod planted;\n");
        files.insert("src/planted.rs".into(), MODULE.into());
        garden.write(&files);
        garden.take_over_dependencies();
        garden
    }

    /// Writes what differs, so that cargo compiles no more than that, and removes what is gone.
    fn write(&self, files: &BTreeMap<PathBuf, Vec<u8>>) {
        let mut old = BTreeMap::new();
        collect(&self.tree, &self.tree, &mut old);
        for path in old.keys().filter(|path| !files.contains_key(*path)) {
            std::fs::remove_file(self.tree.join(path)).unwrap();
        }
        for (path, bytes) in files.iter().filter(|(path, bytes)| old.get(*path) != Some(bytes)) {
            let path = self.tree.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// Compiled dependencies are the same for every checkout, so those of the main target directory are copied once; cargo
    /// builds what it cannot use.
    fn take_over_dependencies(&self) {
        let main = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("debug");
        for folder in ["build", "deps", ".fingerprint"].map(|folder| Path::new("debug").join(folder)) {
            let target = self.target.join(&folder);
            let Ok(entries) = std::fs::read_dir(main.join(folder.file_name().unwrap())) else { continue };
            if target.exists() {
                continue;
            }
            std::fs::create_dir_all(&target).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            let others = paths.filter(|path| !path.to_str().unwrap().rsplit('/').next().unwrap().contains("morphkv"));
            let mut copy = Command::new("cp");
            // Cargo goes by the times of files.
            let _ = copy.args(["-a", "-t"]).arg(&target).args(others).stderr(Stdio::null()).status().unwrap();
        }
    }

    /// Builds the test binaries of that name; `unit` is the library's own.
    pub fn build(&self, binaries: &BTreeSet<&str>) -> BTreeMap<String, PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["test", "--no-run", "--locked", "--offline", "--features", self.features]);
        build.args(["--message-format", "json-render-diagnostics", "--target-dir"]).arg(&self.target);
        // Nobody looks for the line of a planted defect, and each test runs for a moment: it is the build that takes long.
        build.args(["--config", "profile.dev.package.morphkv.debug=false"]);
        build.args(["--config", "profile.dev.package.morphkv.opt-level=0"]);
        for name in binaries {
            if *name == "unit" {
                build.arg("--lib")
            } else {
                build.args(["--test", name])
            };
        }
        clean(&mut build);
        let output = build.current_dir(&self.tree).stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the planted source does not compile:\n{errors}");
        let found = executables(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), *binaries, "{errors}");
        found
    }

    /// Runs these tests of one binary with these defects awake.
    ///
    /// # Errors
    /// They did not run, or not to their end: that proves nothing.
    pub fn run(&self, binary: &Path, tests: &[&str], awake: &[&str]) -> Result<Outcome, String> {
        let began = Instant::now();
        let mut command = Command::new("timeout");
        let patience = PATIENCE.as_secs() * tests.len() as u64;
        command.args(["--foreground", "--kill-after=5", &patience.to_string()]).arg(binary);
        command.args(["--exact", "--test-threads=1"]).args(tests);
        clean(&mut command);
        // A snapshot that differs is an error, and is not written anywhere.
        command.env(SWITCH, awake.join("\n")).env("INSTA_UPDATE", "no").env("INSTA_FORCE_PASS", "0");
        let output = command.current_dir(&self.tree).stdin(Stdio::null()).output().unwrap();
        let (passed, failed) = verdicts(&output)?;
        if passed.len() + failed.len() != tests.len() {
            return Err(format!("{} tests were named, these ran: {passed:?} {failed:?}", tests.len()));
        }
        Ok(Outcome { passed, failed, seconds: began.elapsed().as_secs_f64() })
    }
}

/// The source with all defects in it, all asleep.
pub fn planted(defects: &[&Defect]) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    COPIED.iter().for_each(|name| collect(root, &root.join(name), &mut files));
    for edit in defects.iter().flat_map(|defect| &defect.edits) {
        assert!(files.contains_key(Path::new(edit.file)), "there is no file {}", edit.file);
    }
    let mut wrong = Vec::new();
    for (path, bytes) in &mut files {
        let name = path.to_str().unwrap().to_owned();
        if name.starts_with("src/") {
            let text = String::from_utf8(std::mem::take(bytes)).unwrap();
            match plant(&name, &text, defects) {
                Ok(planted) => *bytes = planted.into_bytes(),
                Err(error) => wrong.push(error),
            }
        }
    }
    assert!(wrong.is_empty(), "the table of defects does not fit the source:\n{}", wrong.join("\n"));
    files
}

/// Tests that the tables name, and that do not stand where they say.
pub fn missing_tests<'t>(tests: impl IntoIterator<Item = &'t str>) -> Vec<&'t str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    ["src", "tests"].iter().for_each(|name| collect(root, &root.join(name), &mut files));
    let stands = |test: &&str| {
        let (binary, path) = test.split_once("::").unwrap();
        let function = format!("fn {}(", path.rsplit("::").next().unwrap());
        let folder = if binary == "unit" { "src/".to_owned() } else { format!("tests/{binary}") };
        let own = files.iter().filter(|(path, _)| path.to_str().unwrap().starts_with(&folder));
        own.into_iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(&function))
    };
    tests.into_iter().filter(|test| !stands(test)).collect()
}

/// Cargo would build the command line for every test.
fn leave_the_binary_out(files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    files.retain(|path, _| !path.starts_with("src/bin"));
    let manifest = files.get_mut(Path::new("Cargo.toml")).unwrap();
    let text = String::from_utf8(std::mem::take(manifest)).unwrap();
    let (before, binary) = text.split_once("[[bin]]\n").expect("Cargo.toml names the binary");
    let (_, after) = binary.split_once("\n\n").unwrap();
    let lines = before.lines().filter(|line| !line.starts_with("default-run"));
    *manifest = format!("{}\n{after}", lines.collect::<Vec<_>>().join("\n")).into_bytes();
}

/// Takes away what an outer cargo or nextest has set for this test, and what would steer the inner one.
fn clean(command: &mut Command) {
    let own =
        ["CARGO_MANIFEST", "CARGO_PKG", "CARGO_BIN", "CARGO_CRATE", "CARGO_PRIMARY", "CARGO_TARGET", "CARGO_ENCODED"];
    let steers = ["NEXTEST", "RUST_TEST", "RUST_BACKTRACE", "MORPHKV", "INSTA", "RUSTC_W", "LLVM_PROFILE"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let exact = ["CARGO", "CARGO_BUILD_TARGET_DIR", "LD_LIBRARY_PATH", "MAKEFLAGS", "PROPTEST_CASES"];
        if exact.contains(&&*text) || own.iter().chain(&steers).any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

/// The test binaries that cargo tells of, by name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let Some(executable) = message["executable"].as_str() else { continue };
        // The command line comes with the tests that start it.
        if message["target"]["kind"][0] == "bin" {
            continue;
        }
        let library = message["target"]["kind"][0] == "lib";
        let name = if library { "unit" } else { message["target"]["name"].as_str().unwrap() };
        found.insert(name.to_owned(), executable.into());
    }
    found
}

/// The tests that passed and those that failed by an assertion, or another panic.
fn verdicts(output: &Output) -> Result<(Vec<String>, Vec<String>), String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let ended = text.contains("\ntest result: ");
    if !ended || !matches!(output.status.code(), Some(0 | 101)) {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the tests did not end ({}):\n{text}\n{errors}", output.status));
    }
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("test ")) {
        // What a test prints past the harness may stand between its name and its verdict.
        let Some((name, verdict)) = line.split_once(" ... ") else { continue };
        match verdict {
            "ok" => passed.push(name.to_owned()),
            "FAILED" if text.contains(&format!("---- {name} stdout ----")) => failed.push(name.to_owned()),
            other => return Err(format!("{name}: {other}")),
        }
    }
    Ok((passed, failed))
}

fn collect(root: &Path, path: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(root, &entry.unwrap().path(), files);
        }
    } else if path.exists() {
        files.insert(path.strip_prefix(root).unwrap().to_path_buf(), std::fs::read(path).unwrap());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn said(code: i32, text: &str) -> Output {
        Output { status: std::process::ExitStatus::from_raw(code << 8), stdout: text.into(), stderr: Vec::new() }
    }

    #[test]
    fn only_tests_that_ended_prove_something() {
        let text =
            "\nrunning 2 tests\ntest a::b ... ok\ntest c ... FAILED\n\n---- c stdout ----\n\ntest result: FAILED.";
        assert_eq!(verdicts(&said(101, text)).unwrap(), (vec!["a::b".to_owned()], vec!["c".to_owned()]));
        assert!(verdicts(&said(134, text)).is_err(), "it died");
        assert!(verdicts(&said(101, "\nrunning 1 test\n")).is_err(), "it did not come to an end");
        assert_eq!(verdicts(&said(0, "\nrunning 0 tests\n\ntest result: ok.")).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn test_binaries_are_known_by_name() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"morphkv"},"executable":"/a"}
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"rocksdb"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"morphkv"},"executable":"/c"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"crash"},"executable":"/b"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("crash".into(), "/b".into()), ("unit".into(), "/a".into())]
        );
    }
}
