//! What races start from: places at rest, and places that a crash has left in the middle of a change.

use super::super::common::{Content, scratch};
use super::super::scenario::{self, later};
use super::super::sweep::crash;
use super::judge::{Database, State};
use super::orders::before;
use morphkv::testing::Trap;
use tempfile::TempDir;

/// A place, and what may be there.
pub struct Start {
    pub name: String,
    pub directory: TempDir,
    pub states: Vec<State>,
    /// Other software may be let loose on it: nothing in it is about to be removed.
    pub with_rocksdb: bool,
}

type Kept = Option<(&'static str, Content)>;

fn state(encoding: &str, content: Content, kept: Kept) -> State {
    let kept = kept.map(|(encoding, content)| (encoding.to_owned(), content));
    State {
        database: Some(Database { encoding: encoding.to_owned(), content, kept }),
        unsettled: false,
        readable: Vec::new(),
    }
}

const NOTHING: State = State { database: None, unsettled: false, readable: Vec::new() };

fn at_rest(scenario: &str, states: Vec<State>) -> Start {
    let directory = scratch();
    (scenario::named(scenario).prepare)(directory.path());
    let with_rocksdb = states[0] != NOTHING;
    Start { name: format!("before: {scenario}"), directory, states, with_rocksdb }
}

/// Where the scenario dies at the trap. What other software does meanwhile decides whether the change goes on.
fn crashed(scenario: &str, trap: &str, after: State, before: Option<State>) -> Start {
    let mut start = at_rest(scenario, vec![after]);
    let trap = Trap::from_name(trap).unwrap();
    assert!(crash(scenario, start.directory.path(), (trap, 1), "abort"), "{scenario}: no crash at {}", trap.name());
    start.name = format!("{scenario}, crashed at {}", trap.name());
    start.with_rocksdb = before.is_some();
    start.states.extend(before);
    let databases: Vec<Database> = start.states.iter().filter_map(|state| state.database.clone()).collect();
    start.states.iter_mut().for_each(|state| (state.unsettled, state.readable) = (true, databases.clone()));
    start
}

/// The same, where nothing but a reader can see what was before.
fn crashed_for_good(scenario: &str, trap: &str, after: State, before: &State) -> Start {
    let mut start = crashed(scenario, trap, after, None);
    start.states.iter_mut().for_each(|state| state.readable.extend(before.database.clone()));
    start
}

pub fn all() -> Vec<Start> {
    let (natural, hierarchical) = (state("natural", before(), None), state("hierarchical", before(), None));
    let kept = state("hierarchical", later(&before()), Some(("natural", before())));
    let created = state("hierarchical", Content::new(), None);
    let replaced = state("natural", later(&before()), Some(("hierarchical", later(&before()))));
    let converted_and_kept = state("hierarchical", before(), Some(("natural", before())));
    let convert = |trap: &str, after: &State, before: &State| {
        crashed("convert to hierarchical", trap, after.clone(), Some(before.clone()))
    };
    vec![
        at_rest("create", vec![NOTHING]),
        at_rest("convert to hierarchical", vec![natural.clone()]),
        at_rest("convert to natural", vec![hierarchical.clone()]),
        at_rest("convert to hierarchical", vec![natural.clone()]),
        at_rest("convert to natural", vec![hierarchical.clone()]),
        at_rest("roll back", vec![kept.clone()]),
        at_rest("drop the kept database", vec![kept.clone()]),
        convert("rewrite-before", &natural, &natural),
        convert("live-to-backup-before", &hierarchical, &natural),
        convert("live-to-backup-moved", &hierarchical, &natural),
        convert("staging-to-live-moved", &hierarchical, &natural),
        convert("sweep-before", &hierarchical, &hierarchical),
        crashed("convert and keep", "live-to-backup-moved", converted_and_kept, None),
        crashed("replace the kept database", "rewrite-before", kept.clone(), None),
        crashed_for_good("replace the kept database", "journal-ready-after", replaced, &kept),
        crashed_for_good("roll back", "rollback-after", natural.clone(), &kept),
        crashed("roll back", "live-to-staging-moved", natural, None),
        crashed("drop the kept database", "sweep-before", state("hierarchical", later(&before()), None), None),
        crashed("destroy", "to-trash-moved", NOTHING, None),
        crashed("create", "staging-to-live-before", created, None),
    ]
}
