//! A place as it was built, in the letters of the recovery table, and what becomes of it by that table. The letters are
//! known by construction: nothing on disk is looked at here.

use super::table::{Change, Letters, Name, Row, Step};
use super::templates::{Db, State, Templates};
use morphkv::testing::decide::{self, Backup, Live, Observed, Staging};
use morphkv::testing::journal::{Journal, Kind, Phase};

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing {
    Absent,
    /// An empty directory.
    Empty,
    Database(Db, State),
    /// A folder of somebody else.
    Folder,
    /// A symbolic link to a real database.
    Link,
    /// A real database that may not be looked at.
    Denied(Db, State),
}

/// What stands at the journal's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paper {
    None,
    /// It cannot be understood.
    Unreadable,
    /// It may not be looked at.
    Denied,
    Read(Box<Journal>),
}

/// All of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub paper: Paper,
    pub live: Thing,
    pub staging: Thing,
    pub backup: Thing,
    pub trash: Thing,
}

/// How opening it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Live is opened.
    Open,
    Absent,
    Refused,
    /// Something may not be looked at.
    Denied,
}

/// What the table says.
#[derive(Debug)]
pub struct Prediction {
    pub rows: Vec<u8>,
    /// The place at rest.
    pub place: Place,
    pub end: End,
}

impl Thing {
    pub fn stands(self) -> bool {
        self != Thing::Absent
    }

    /// Without the question of who may look at it.
    pub fn on_disk(self) -> Thing {
        match self {
            Thing::Denied(db, state) => Thing::Database(db, state),
            thing => thing,
        }
    }
}

impl Place {
    fn change(&self) -> Change {
        match &self.paper {
            Paper::None => Change::None,
            Paper::Unreadable => Change::Unreadable,
            Paper::Denied => panic!("nobody can say"),
            Paper::Read(journal) => {
                Change::Of { kind: journal.kind, phase: journal.phase, over: journal.source.is_some() }
            }
        }
    }

    pub fn letters(&self, templates: &Templates) -> Letters {
        let trash = self.trash.stands();
        match &self.paper {
            Paper::Read(journal) => Letters {
                live: live_letter(journal, templates, self.live),
                staging: staging_letter(journal, templates, self.staging),
                backup: backup_letter(journal, templates, self.backup),
                trash,
                twins: false,
            },
            _ => {
                let live = match self.live {
                    Thing::Absent | Thing::Empty => '-',
                    Thing::Database(_, State::Unsealed) => 'F',
                    Thing::Database(..) => 'W',
                    _ => 'F',
                };
                let beside = |thing: Thing| if thing.stands() { 'F' } else { '-' };
                Letters { live, staging: beside(self.staging), backup: beside(self.backup), trash, twins: false }
            }
        }
    }

    pub fn at(&mut self, name: Name) -> &mut Thing {
        match name {
            Name::Live => &mut self.live,
            Name::Staging => &mut self.staging,
            Name::Backup => &mut self.backup,
        }
    }

    fn denied(&self) -> bool {
        let things = [self.live, self.staging, self.backup, self.trash];
        self.paper == Paper::Denied || things.iter().any(|thing| matches!(thing, Thing::Denied(..)))
    }

    /// Whether something stands beside live, which a change has to refuse then.
    pub fn has_siblings(&self) -> bool {
        [self.staging, self.backup, self.trash].into_iter().any(Thing::stands)
    }
}

fn live_letter(journal: &Journal, templates: &Templates, thing: Thing) -> char {
    let source = journal.source.as_ref().and_then(|source| source.marker_id);
    match thing {
        Thing::Absent | Thing::Empty => '-',
        Thing::Database(db, state) if templates.id(db) == journal.id => match state {
            State::Unsealed | State::Lost => 'P',
            State::Whole | State::Acknowledged | State::Written => 'N',
        },
        Thing::Database(db, state) if Some(templates.id(db)) == source => source_letter(db, state),
        _ => 'F',
    }
}

fn source_letter(db: Db, state: State) -> char {
    match state {
        _ if state == Templates::as_it_was(db) => 'O',
        State::Written => 'X',
        _ => 'F',
    }
}

fn staging_letter(journal: &Journal, templates: &Templates, thing: Thing) -> char {
    match thing {
        Thing::Absent => '-',
        _ if journal.phase == Phase::Kept => 'F',
        Thing::Empty => 'P',
        Thing::Database(db, state) if templates.id(db) == journal.id => match state {
            State::Unsealed | State::Lost => 'P',
            State::Whole | State::Acknowledged | State::Written => 'N',
        },
        _ => 'F',
    }
}

fn backup_letter(journal: &Journal, templates: &Templates, thing: Thing) -> char {
    let source = |journal: &Journal| journal.source.as_ref().and_then(|source| source.marker_id);
    let settled = matches!(journal.phase, Phase::Done | Phase::Kept) && journal.kind != Kind::Rollback;
    let older = journal.older.as_deref().and_then(source);
    match thing {
        Thing::Absent => '-',
        Thing::Database(_, State::Unsealed) => 'F',
        Thing::Database(db, state) if Some(templates.id(db)) == source(journal) => {
            let letter = source_letter(db, state);
            if letter == 'F' && settled { 'X' } else { letter }
        }
        Thing::Database(db, state) if Some(templates.id(db)) == older && state == Templates::as_it_was(db) => 'K',
        _ => 'F',
    }
}

/// The first row that fits.
pub fn row_of<'t>(table: &'t [Row], change: Change, letters: &Letters) -> &'t Row {
    table.iter().find(|row| row.is_of(change, letters)).expect("the table has a last row for every journal")
}

/// What the table says of a place, step by step until it rests.
pub fn follow(table: &[Row], templates: &Templates, mut place: Place) -> Prediction {
    let (mut rows, mut allowed) = (Vec::new(), Vec::new());
    if place.denied() {
        return Prediction { rows, place, end: End::Denied };
    }
    for _ in 0..32 {
        let letters = place.letters(templates);
        let row = row_of(table, place.change(), &letters);
        assert_eq!(row.number, decided(place.change(), &letters), "decide() and the page differ: {place:?}");
        assert!(allowed.is_empty() || allowed.contains(&row.number), "row {} after {rows:?}: {place:?}", row.number);
        allowed.clone_from(&row.then);
        if rows.last() != Some(&row.number) {
            rows.push(row.number);
        }
        let mut end = None;
        for step in &row.steps {
            match step {
                Step::Refuse => end = Some(End::Refused),
                Step::Absent => end = Some(End::Absent),
                Step::Open => end = Some(End::Open),
                step => apply(&mut place, &letters, *step),
            }
        }
        if let Some(end) = end {
            return Prediction { rows, place, end };
        }
    }
    panic!("the table does not come to rest: {rows:?}, {place:?}");
}

fn apply(place: &mut Place, letters: &Letters, step: Step) {
    match step {
        Step::Move(from, to) => {
            let thing = std::mem::replace(place.at(from), Thing::Absent);
            let free = matches!((to, *place.at(to)), (_, Thing::Absent) | (Name::Live, Thing::Empty));
            assert!(thing.stands() && free, "the table moves {from:?} onto {to:?}: {place:?}");
            *place.at(to) = thing;
        }
        Step::Remove(name) => {
            *place.at(name) = Thing::Absent;
            place.trash = Thing::Absent;
        }
        Step::RemoveOlderElseMove if letters.backup == 'K' => apply(place, letters, Step::Remove(Name::Backup)),
        Step::RemoveOlderElseMove => apply(place, letters, Step::Move(Name::Live, Name::Backup)),
        Step::Sweep(name) => {
            let ours = match name {
                Name::Backup => letters.backup == 'O',
                _ => letters.staging != 'F',
            };
            if ours {
                apply(place, letters, Step::Remove(name));
            }
        }
        Step::Drop => {
            if place.live == Thing::Empty {
                place.live = Thing::Absent;
            }
            apply(place, letters, Step::Remove(Name::Staging));
            let older = journal(place).older.clone();
            place.paper = older.map_or(Paper::None, Paper::Read);
        }
        Step::JournalSettled if journal(place).keep => {
            apply(place, letters, Step::Remove(Name::Staging));
            apply(place, letters, Step::Journal(Phase::Kept));
        }
        Step::JournalSettled => apply(place, letters, Step::Journal(Phase::Done)),
        Step::Journal(phase) => {
            let mut settled = Journal { older: None, ..journal(place).in_phase(phase) };
            if phase == Phase::Kept {
                (settled.kind, settled.keep) = (Kind::Convert, true);
            }
            place.paper = Paper::Read(Box::new(settled));
        }
        Step::DropJournal => place.paper = Paper::None,
        Step::Refuse | Step::Absent | Step::Open => {}
    }
}

fn journal(place: &Place) -> &Journal {
    match &place.paper {
        Paper::Read(journal) => journal,
        _ => panic!("a row without a journal asks for one: {place:?}"),
    }
}

/// The row that the product's own table gives for the same letters.
pub fn decided(change: Change, letters: &Letters) -> u8 {
    let live = match letters.live {
        '-' => Live::Absent,
        'W' => Live::Whole,
        'O' => Live::Source,
        'X' => Live::SourceChanged,
        'N' => Live::New,
        'P' => Live::Partial,
        _ => Live::Foreign,
    };
    let staging = match letters.staging {
        '-' => Staging::Absent,
        'N' => Staging::New,
        'P' => Staging::Partial,
        _ => Staging::Foreign,
    };
    let backup = match letters.backup {
        '-' => Backup::Absent,
        'O' => Backup::Source,
        'X' => Backup::SourceChanged,
        'K' => Backup::Older,
        _ => Backup::Foreign,
    };
    let change = match change {
        Change::None => decide::Change::None,
        Change::Unreadable => decide::Change::Unreadable,
        Change::Of { kind, phase, over } => decide::Change::Of { kind, phase, replaces: over, keep: false },
    };
    let (trash, twins) = (letters.trash, letters.twins);
    decide::decide(&Observed { change, live, staging, backup, trash, restore: false, twins }).0
}
