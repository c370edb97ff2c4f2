//! What becomes of a state: it is built, opened for each encoding that may be asked for, and compared.

use super::super::common::{self, options};
use super::super::scenario::{self, Found, Scenario, database};
use super::build::{Built, identity};
use super::disk::{Inode, Nodes};
use morphkv::{Engine, ErrorKind};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a state was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It opens as before the change.
    Old,
    /// It opens as after the change.
    New,
    /// There is no database, and there may be none.
    Absent,
    /// It is refused, with every byte where it was: a directory under two names, which only fsck can mend.
    Refused,
}

/// A state that is wrong, and how.
pub type Verdict = Result<Outcome, String>;

/// A state of one scenario.
#[derive(Clone)]
pub struct State {
    pub root: Inode,
    pub nodes: Nodes,
}

impl State {
    pub fn identity(&self) -> u128 {
        identity(self.root, &self.nodes)
    }
}

/// Which encodings are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    Unset,
    All,
}

/// Opens the state, once for each request, each in a place of its own.
pub fn judge(scenario: &Scenario, state: &State, requests: Requests, encoding_after: &str) -> Verdict {
    let mut verdict = Outcome::New;
    for (index, encoding) in scenario::requests().into_iter().enumerate() {
        if index > 0 && requests == Requests::Unset {
            break;
        }
        let built = Built::new(state.root, &state.nodes);
        let name = encoding.as_ref().map_or("unset", |encoding| encoding.name()).to_owned();
        if !built.twins.is_empty() {
            return refused_whole(scenario, &built);
        }
        let options = options().vfs(built.vfs());
        let found = scenario::look(scenario, built.directory.path(), encoding, &options)
            .map_err(|wrong| format!("opened as {name}: {wrong}"))?;
        copy_is_whole(&built)?;
        if index == 0 {
            verdict = match found {
                Found::Whole(encoding) if encoding == encoding_after => Outcome::New,
                Found::Whole(_) | Found::Adoptable => Outcome::Old,
                Found::Absent => Outcome::Absent,
            };
        }
    }
    Ok(verdict)
}

/// A directory under two names: refused, nothing touched, and all the content under one of its names.
fn refused_whole(scenario: &Scenario, built: &Built) -> Verdict {
    let path = built.directory.path();
    let before = common::bytes_below(path);
    match Engine::open(database(path), options().vfs(built.vfs())) {
        Err(error) if error.kind() == ErrorKind::Refused => {}
        Err(error) => return Err(format!("a directory under two names: {error:?}")),
        Ok(_) => return Err("a directory under two names was opened".into()),
    }
    let after = common::bytes_below(path);
    if after != before {
        let changed: Vec<_> =
            before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name)).collect();
        return Err(format!("refused, but something was changed: {changed:?}"));
    }
    // fsck takes one of the two names away: either way the rest is a state like any other.
    for (first, second) in &built.twins {
        for gone in [first, second] {
            let copy = common::scratch();
            common::copy_tree(path, copy.path());
            std::fs::remove_dir_all(copy.path().join(gone.strip_prefix(path).unwrap())).unwrap();
            scenario::look(scenario, copy.path(), None, &options())
                .map_err(|wrong| format!("without {}: {wrong}", gone.display()))?;
        }
    }
    Ok(Outcome::Refused)
}

/// A checkpoint that has its name is whole.
fn copy_is_whole(built: &Built) -> Result<(), String> {
    let copy = built.directory.path().join("copy");
    if !copy.exists() {
        return Ok(());
    }
    let engine = Engine::open(copy, options()).map_err(|error| format!("the checkpoint: {error:?}"))?;
    let whole = common::content(&engine) == common::sample(scenario::COUNT);
    if whole { Ok(()) } else { Err("the checkpoint has another content".into()) }
}

/// Judges all of `states`, each once, with two threads.
pub fn judge_all(
    scenario: &Scenario,
    states: &[(u128, State)],
    requests: Requests,
    encoding_after: &str,
) -> HashMap<u128, Verdict> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut verdicts = Vec::new();
        while let Some((identity, state)) = states.get(next.fetch_add(1, Ordering::Relaxed)) {
            verdicts.push((*identity, judge(scenario, state, requests, encoding_after)));
        }
        verdicts
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut verdicts: HashMap<_, _> = work().into_iter().collect();
        verdicts.extend(other.join().unwrap());
        verdicts
    })
}
