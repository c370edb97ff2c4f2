//! Running the binary, and reading what it says.

use serde_json::Value;
use std::path::{Path, PathBuf};

pub const BINARY: &str = env!("CARGO_BIN_EXE_morphkv");

/// A place for one database, removed at the end.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub database: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("db");
        Place { directory, database }
    }

    /// With an empty database in it.
    pub fn with_database(encoding: &str) -> Self {
        let place = Place::new();
        place.run("create", &["--encoding", encoding]).expect(0);
        place
    }

    /// With a database that holds these keys, each with itself as its value.
    pub fn with_keys(encoding: &str, keys: &[&str]) -> Self {
        let place = Place::new();
        let line = |key: &&str| format!("{}\n", serde_json::json!({"key": key, "value": key}));
        let lines: String = keys.iter().map(line).collect();
        place.feed("load", &["--encoding", encoding], lines.as_bytes()).expect(0);
        place
    }

    pub fn run(&self, command: &str, arguments: &[&str]) -> Answer {
        self.feed(command, arguments, b"")
    }

    pub fn feed(&self, command: &str, arguments: &[&str], stdin: &[u8]) -> Answer {
        run_with(|run| {
            run.arg(command).arg(&self.database).args(arguments).write_stdin(stdin);
        })
    }

    /// The object that a command prints with `--json`.
    pub fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let answer = self.run(command, &[arguments, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.object()
    }

    pub fn beside(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("db{suffix}"))
    }
}

/// Runs the binary as `prepare` says.
pub fn run_with(prepare: impl FnOnce(&mut assert_cmd::Command)) -> Answer {
    let mut run = assert_cmd::Command::new(BINARY);
    run.env_remove("RUST_LOG").env_remove("MORPHKV_TRAP");
    prepare(&mut run);
    let done = run.output().unwrap();
    Answer {
        code: done.status.code().unwrap_or(-1),
        stdout: done.stdout,
        stderr: String::from_utf8(done.stderr).unwrap(),
    }
}

pub fn run(arguments: &[&str]) -> Answer {
    run_with(|run| {
        run.args(arguments);
    })
}

impl Answer {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.text(), self.stderr);
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// Stdout as the one object that it must be.
    #[track_caller]
    pub fn object(&self) -> Value {
        let object: Value = serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(object["schema"], 1, "{object}");
        object
    }

    /// Stderr as the object that says what failed; stdout holds nothing then.
    #[track_caller]
    pub fn error(&self) -> Value {
        assert_eq!((self.code, self.stdout.len()), (2, 0), "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        let object: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let fields: Vec<&String> = object.as_object().unwrap().keys().collect();
        assert_eq!(fields.len(), 4, "{object}");
        for field in ["kind", "message", "path", "next"] {
            assert!(object.get(field).is_some(), "{field} in {object}");
        }
        object
    }
}

/// Names below a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
