//! A model of a place, walked through every state that changes, crashes, crashes inside recovery, and other people's
//! doings in between can reach. It uses the real [`decide`] and mirrors the effects of `apply`, `sweep`, `change`,
//! `rollback` and `destroy`, one by one.
//!
//! What is checked in every state: a place that opens holds all keys; acknowledged writes to the new database are never
//! thrown away but by a rollback or a destruction; writes that other software made to the old database are never thrown
//! away; recovery comes to rest; only states that a change cannot have made itself are refused.

use super::decide::{Action, Backup, Change, Live, Observed, Staging, decide};
use super::journal::{Kind, Phase};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// The old database.
    Old,
    /// The old database, written to by other software since.
    OldWritten,
    /// The old database, with files of it gone since.
    OldShrunk,
    /// An older database still, kept from the conversion before this one.
    Older,
    /// The new database, being built.
    Unsealed,
    /// The new database, sealed; nobody has had a handle.
    Sealed,
    /// The new database after a handle was given out: it may hold acknowledged writes.
    Acknowledged,
    /// An empty directory that a supervisor made.
    EmptyDirectory,
    /// A damaged directory of ours.
    Damaged,
    /// Half removed.
    Half,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    live: Option<Thing>,
    staging: Option<Thing>,
    backup: Option<Thing>,
    trash: Option<Thing>,
    /// Kind as a number (convert 0, create 1, rollback 2, destroy 3), phase as a number, keep.
    journal: Option<(u8, u8, bool)>,
    /// The journal carries the one of an older, kept database.
    older: bool,
}

const KINDS: [Kind; 4] = [Kind::Convert, Kind::Create, Kind::Rollback, Kind::Destroy];
const PHASES: [Phase; 4] = [Phase::Building, Phase::Ready, Phase::Done, Phase::Kept];

#[derive(Debug, Clone, Copy)]
enum Effect {
    Journal(u8, u8, bool),
    /// A conversion begins that is to replace the kept database: what was new is the source now.
    BeginReplacing,
    /// The journal goes, or the one before it comes back.
    EndChange,
    MakeStaging,
    Seal,
    Move(Name, Name),
    HalfRemoveTrash,
    RemoveTrash,
    RemoveEmptyLive,
    Acknowledge,
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Live,
    Staging,
    Backup,
    Trash,
}

impl State {
    fn at(&mut self, name: Name) -> &mut Option<Thing> {
        match name {
            Name::Live => &mut self.live,
            Name::Staging => &mut self.staging,
            Name::Backup => &mut self.backup,
            Name::Trash => &mut self.trash,
        }
    }

    fn after(mut self, effect: Effect) -> State {
        match effect {
            Effect::Journal(kind, phase, keep) => {
                self.journal = Some((kind, phase, keep));
                self.older &= phase < 2;
            }
            Effect::BeginReplacing => {
                self = State { live: Some(Thing::Old), journal: Some((0, 0, true)), older: true, ..self };
                self.backup = self.backup.map(|_| Thing::Older);
            }
            Effect::EndChange if self.older => {
                let whole = matches!(self.live, Some(Thing::Old | Thing::OldWritten));
                self.live = if whole { Some(Thing::Acknowledged) } else { self.live };
                self.backup = self.backup.map(|thing| if thing == Thing::Older { Thing::Old } else { thing });
                (self.journal, self.older) = (Some((0, 3, true)), false);
            }
            Effect::EndChange => self.journal = None,
            Effect::MakeStaging => self.staging = Some(Thing::Unsealed),
            Effect::Seal => self.staging = Some(Thing::Sealed),
            Effect::Move(from, to) => {
                let thing = self.at(from).take();
                assert!(self.at(to).is_none(), "a rename never replaces: {self:?} {effect:?}");
                *self.at(to) = thing;
            }
            Effect::HalfRemoveTrash => self.trash = self.trash.map(|_| Thing::Half),
            Effect::RemoveTrash => self.trash = None,
            Effect::RemoveEmptyLive => self.live = self.live.filter(|thing| *thing != Thing::EmptyDirectory),
            Effect::Acknowledge => {
                self.live = self.live.map(|thing| if thing == Thing::Sealed { Thing::Acknowledged } else { thing });
            }
        }
        self
    }

    fn seen(&self) -> Observed {
        let change = match self.journal {
            None => Change::None,
            Some((kind, phase, keep)) => {
                Change::Of { kind: KINDS[kind as usize], phase: PHASES[phase as usize], replaces: kind != 1, keep }
            }
        };
        let alone = self.journal.is_none();
        let live = match self.live {
            None | Some(Thing::EmptyDirectory) => Live::Absent,
            Some(Thing::Old | Thing::OldWritten | Thing::Sealed | Thing::Acknowledged) if alone => Live::Whole,
            Some(_) if alone => Live::Foreign,
            Some(Thing::Old) => Live::Source,
            Some(Thing::OldWritten) => Live::SourceChanged,
            Some(Thing::Sealed | Thing::Acknowledged) => Live::New,
            Some(Thing::Unsealed | Thing::Damaged) => Live::Partial,
            Some(Thing::Half | Thing::OldShrunk | Thing::Older) => Live::Foreign,
        };
        let staging = match self.staging {
            None => Staging::Absent,
            Some(_) if alone => Staging::Foreign,
            Some(Thing::Sealed | Thing::Acknowledged) => Staging::New,
            Some(Thing::Unsealed | Thing::Damaged) => Staging::Partial,
            Some(_) => Staging::Foreign,
        };
        let backup = match self.backup {
            None => Backup::Absent,
            Some(_) if alone => Backup::Foreign,
            Some(Thing::Old) => Backup::Source,
            Some(Thing::OldWritten) => Backup::SourceChanged,
            Some(Thing::Older) if self.older => Backup::Older,
            Some(_) => Backup::Foreign,
        };
        Observed { change, live, staging, backup, trash: self.trash.is_some(), restore: false, twins: false }
    }
}

fn discard(name: Name) -> Vec<Effect> {
    vec![
        Effect::HalfRemoveTrash,
        Effect::RemoveTrash,
        Effect::Move(name, Name::Trash),
        Effect::HalfRemoveTrash,
        Effect::RemoveTrash,
    ]
}

fn discard_all(names: &[Name]) -> Vec<Effect> {
    names.iter().flat_map(|name| discard(*name)).chain([Effect::EndChange]).collect()
}

/// The effects of one step, as `apply` and `sweep` do them; `None`: at rest.
fn effects(state: &State) -> (u8, Option<Vec<Effect>>) {
    use Name::{Backup as B, Live as L, Staging as S};
    let (row, action) = decide(&state.seen());
    let (kind, _, keep) = state.journal.unwrap_or((0, 0, false));
    let steps = match action {
        Action::Refuse | Action::Absent | Action::Open | Action::Keep => return (row, None),
        Action::OpenThenSweep => {
            let mut steps = vec![Effect::Acknowledge];
            if state.seen().backup == Backup::Source {
                steps.extend(discard(B));
            }
            steps.extend(discard_all(&[S]));
            steps
        }
        Action::OpenThenSweepRollback => discard_all(&[S]),
        Action::Drop => [vec![Effect::RemoveEmptyLive], discard_all(&[S])].concat(),
        Action::DiscardOlder => discard(B),
        Action::LiveToBackup => vec![Effect::Move(L, B)],
        Action::StagingToLive => vec![Effect::RemoveEmptyLive, Effect::Move(S, L)],
        Action::BackupToLive => vec![Effect::RemoveEmptyLive, Effect::Move(B, L)],
        Action::LiveToStaging => vec![Effect::Move(L, S)],
        Action::Settle if keep => [discard(S), vec![Effect::Journal(kind, 3, true)]].concat(),
        Action::Settle => vec![Effect::Journal(kind, 2, false)],
        Action::KeepAfterAll => vec![Effect::Journal(0, 3, true)],
        Action::RollbackDone => vec![Effect::Journal(2, 2, keep)],
        Action::DropJournal => vec![Effect::EndChange],
        Action::Destroy => discard_all(&[S, B, L]),
    };
    (row, Some(steps))
}

/// What may begin in a state at rest.
fn beginnings(state: &State) -> Vec<Vec<Effect>> {
    let build = |kind, keep| {
        vec![Effect::Journal(kind, 0, keep), Effect::MakeStaging, Effect::Seal, Effect::Journal(kind, 1, keep)]
    };
    let alone = state.staging.is_none() && state.backup.is_none() && state.trash.is_none();
    match (decide(&state.seen()).1, state.journal) {
        (Action::Absent, _) => vec![build(1, false)],
        (Action::Open, None) if alone && matches!(state.live, Some(Thing::Old | Thing::OldWritten)) => {
            vec![build(0, false), build(0, true), vec![Effect::Journal(3, 1, false)]]
        }
        (Action::Open, Some((0, 3, true))) => {
            let replace = vec![Effect::BeginReplacing, Effect::MakeStaging, Effect::Seal, Effect::Journal(0, 1, true)];
            let mut ways = vec![vec![Effect::Journal(0, 2, true)]];
            if state.staging.is_none() && state.trash.is_none() {
                ways.push(replace);
            }
            if state.backup == Some(Thing::Old) {
                ways.push(vec![Effect::Journal(2, 1, true)]);
            }
            ways
        }
        _ => Vec::new(),
    }
}

/// What other people may do while none of our processes runs.
fn meddling(state: &State) -> Vec<State> {
    let mut states = Vec::new();
    for name in [Name::Live, Name::Backup] {
        let mut meddled = *state;
        if *meddled.at(name) == Some(Thing::Old) {
            *meddled.at(name) = Some(Thing::OldWritten);
            states.push(meddled);
            *meddled.at(name) = Some(Thing::OldShrunk);
            states.push(meddled);
        }
    }
    if state.journal == Some((0, 3, true)) && state.live.is_some() {
        states.push(State { backup: None, ..*state });
    }
    if state.live.is_none() {
        states.push(State { live: Some(Thing::EmptyDirectory), ..*state });
    }
    if state.live == Some(Thing::Sealed) && state.journal.is_some_and(|(_, phase, _)| phase == 1) {
        states.push(State { live: Some(Thing::Damaged), ..*state });
    }
    if matches!(state.staging, Some(Thing::Sealed | Thing::Unsealed)) {
        states.push(State { staging: None, ..*state });
        states.push(State { staging: Some(Thing::Damaged), ..*state });
    }
    states
}

/// Whether the keys are there: somewhere a whole database stands that recovery will not lose.
fn keys_are_safe(state: &State) -> bool {
    let whole = |thing: Option<Thing>| {
        matches!(thing, Some(Thing::Old | Thing::OldWritten | Thing::Sealed | Thing::Acknowledged))
    };
    whole(state.live) || whole(state.backup) || whole(state.staging)
}

fn holds(state: &State, thing: Thing) -> bool {
    [state.live, state.staging, state.backup].contains(&Some(thing))
}

/// Follows recovery from `state` to rest, adding every state on the way, since a crash may stop it there.
fn recover(state: State, reached: &mut BTreeSet<State>, rows: &mut BTreeSet<u8>) -> State {
    let mut now = state;
    for _ in 0..64 {
        let (row, steps) = effects(&now);
        rows.insert(row);
        let Some(steps) = steps else { return now };
        for effect in steps {
            now = now.after(effect);
            reached.insert(now);
        }
    }
    panic!("recovery does not come to rest from {state:?}");
}

#[test]
fn every_reachable_state_keeps_all_keys() {
    let old = State { live: Some(Thing::Old), staging: None, backup: None, trash: None, journal: None, older: false };
    let empty = State { live: None, ..old };
    let mut todo = vec![old, empty];
    let mut done = BTreeSet::new();
    let mut rows = BTreeSet::new();
    let mut refused: BTreeMap<u8, u32> = BTreeMap::new();
    while let Some(state) = todo.pop() {
        if !done.insert(state) {
            continue;
        }
        let created = state.journal.is_some_and(|(kind, ..)| kind == 1) || done.is_empty();
        let destroying = state.journal.is_some_and(|(kind, ..)| kind == 3);
        let mut reached = BTreeSet::new();
        let rest = recover(state, &mut reached, &mut rows);
        if !destroying && !created && keys_are_safe(&state) {
            assert!(keys_are_safe(&rest), "keys lost: {state:?} -> {rest:?}");
        }
        let rolling_back = state.journal.is_some_and(|(kind, ..)| kind == 2);
        if !destroying && holds(&state, Thing::OldWritten) {
            // A replacing conversion that is dropped gives the live database its earlier name back.
            let renamed = state.older && !rest.older && rest.live == Some(Thing::Acknowledged);
            assert!(renamed || holds(&rest, Thing::OldWritten), "others' writes lost: {state:?} -> {rest:?}");
        }
        if !destroying && !rolling_back && holds(&state, Thing::Acknowledged) {
            assert!(holds(&rest, Thing::Acknowledged), "acknowledged writes lost: {state:?} -> {rest:?}");
        }
        let (row, action) = decide(&rest.seen());
        if action == Action::Refuse {
            *refused.entry(row).or_default() += 1;
            println!("refused: {rest:?}");
        }
        if action == Action::Open && rest.journal.is_none() {
            assert!(rest.trash.is_none(), "left behind: {state:?} -> {rest:?}");
        }
        todo.extend(reached);
        for way in beginnings(&rest) {
            let mut now = rest;
            for effect in way {
                now = now.after(effect);
                todo.push(now);
            }
        }
        todo.extend(meddling(&state));
    }
    println!("model of a place: {} states, rows {rows:?}, refused {refused:?}", done.len());
    assert!(done.len() > 150, "{}", done.len());
    for row in [3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16, 17, 18, 19, 21, 22, 24, 25, 27, 28, 29, 30, 31, 32, 34] {
        assert!(rows.contains(&row), "row {row} was not reached");
    }
}
