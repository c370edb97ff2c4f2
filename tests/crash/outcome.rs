//! How a change has ended, where something got in its way.

use super::common::{self, options};
use super::scenario::database;
use morphkv::{Engine, ErrorKind};
use std::path::Path;

/// What stands at a place that came to rest: content, encoding, and whether an old database is kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome(Option<(common::Content, String, bool)>);

impl Outcome {
    pub fn of(directory: &Path, what: &str) -> Outcome {
        let path = database(directory);
        let engine = match Engine::open(&path, options()) {
            Ok(engine) => engine,
            Err(error) if error.kind() == ErrorKind::NotFound => return Outcome(None),
            Err(error) => panic!("{what}: {error:?}"),
        };
        let kept = path.with_extension("backup").exists();
        Outcome(Some((common::content(&engine), engine.encoding().name, kept)))
    }
}

/// Nothing stands beside the database but what a journal speaks of: without one nobody would ever touch it again.
pub fn require_spoken_of(directory: &Path, name: &str) {
    if directory.join("db.conversion").exists() {
        return;
    }
    for suffix in ["converting", "backup", "trash"] {
        assert!(!directory.join(format!("db.{suffix}")).exists(), "{name}: db.{suffix} stands there without a journal");
    }
}
