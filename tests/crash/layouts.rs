//! Every combination of what can stand at the five names of a place is opened, and what becomes of it is compared with the
//! recovery table as it stands in `ARCHITECTURE.md`: which rows are taken, in which order, whether it opens and with what,
//! or refuses with not a byte changed, and what stands at every name afterwards.

mod distorted;
mod judge;
mod place;
mod table;
pub mod templates;

use super::common::{self, figures};
use judge::{Bench, Case, Outcome, Request};
use place::{Paper, Place, Thing};
use serde_json::json;
use std::collections::BTreeMap;
use table::Row;
use templates::{Db, State, Templates};

/// What may stand at one of the names of a directory, in the words of the change that the journal speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Absent,
    /// An empty directory.
    Empty,
    /// The new database, with its owner file, not sealed yet.
    Unsealed,
    /// The new database, sealed, a file of it missing.
    Damaged,
    /// The source of the change, as it was.
    Old,
    /// The source, written to by others since.
    Written,
    /// The source, a file of it missing.
    Lost,
    /// The new database, whole.
    New,
    /// Kept from the change before.
    Older,
    /// Somebody else's database.
    Stranger,
    /// Somebody else's folder.
    Folder,
    /// A symbolic link to a real database.
    Link,
    /// A real database that may not be looked at.
    Unreadable,
}

use What::{Absent, Damaged, Empty, Folder, Link, Lost, New, Old, Older, Stranger, Unreadable, Unsealed, Written};

const LIVES: [What; 12] =
    [Absent, Empty, Unsealed, Damaged, Old, Written, Lost, New, Stranger, Folder, Link, Unreadable];
const STAGINGS: [What; 10] = [Absent, Empty, Unsealed, Damaged, Old, New, Stranger, Folder, Link, Unreadable];
const BACKUPS: [What; 11] = [Absent, Empty, Unsealed, Old, Written, Lost, New, Older, Stranger, Link, Unreadable];
const TRASHES: [What; 8] = [Absent, Empty, Unsealed, Old, New, Stranger, Link, Unreadable];

/// What may stand at the journal's name: no journal that can be read, and each phase of each change.
const PAPERS: [&str; 20] = [
    "none",
    "empty",
    "torn",
    "later",
    "link",
    "unreadable",
    "foreign",
    "convert building",
    "convert ready",
    "convert ready, keeping",
    "convert done",
    "convert kept",
    "replacing building",
    "replacing ready",
    "create building",
    "create ready",
    "create done",
    "rollback ready",
    "rollback done",
    "destroy",
];

/// One of the combinations, by its numbers.
#[derive(Debug, Clone, Copy)]
struct Combination {
    paper: &'static str,
    live: What,
    staging: What,
    backup: What,
    trash: What,
}

fn thing(what: What, paper: &str) -> Thing {
    let (old, new) = match paper.split(' ').next() {
        Some("create") => (Db::Base, Db::Created),
        Some("replacing") => (Db::Converted, Db::Again),
        _ => (Db::Base, Db::Converted),
    };
    // Before it is settled, nobody has had a handle to the new database.
    let before = ["building", "ready"].iter().any(|phase| paper.contains(phase)) && !paper.starts_with("rollback");
    let whole = if before { State::Whole } else { State::Acknowledged };
    match what {
        Absent => Thing::Absent,
        Empty => Thing::Empty,
        Unsealed => Thing::Database(new, State::Unsealed),
        Damaged => Thing::Database(new, State::Lost),
        Old => Thing::Database(old, Templates::as_it_was(old)),
        Written => Thing::Database(old, State::Written),
        Lost => Thing::Database(old, State::Lost),
        New => Thing::Database(new, whole),
        // Of the other changes it is a database that the journal does not speak of.
        Older if paper.starts_with("replacing") => Thing::Database(Db::Base, State::Whole),
        Older => Thing::Database(Db::Again, State::Whole),
        Stranger => Thing::Database(Db::Stranger, State::Whole),
        Folder => Thing::Folder,
        Link => Thing::Link,
        Unreadable => Thing::Denied(new, whole),
    }
}

impl Combination {
    fn case(self, templates: &Templates, request: Request) -> Case {
        let paper = match self.paper {
            "none" => Paper::None,
            "empty" | "torn" | "later" | "link" => Paper::Unreadable,
            "unreadable" => Paper::Denied,
            name => Paper::Read(Box::new(templates.journals[name].clone())),
        };
        let at = |what| thing(what, self.paper);
        let place = Place {
            paper,
            live: at(self.live),
            staging: at(self.staging),
            backup: at(self.backup),
            trash: at(self.trash),
        };
        let name = format!(
            "journal {}, live {:?}, staging {:?}, backup {:?}, trash {:?}, opened as {request:?}",
            self.paper, self.live, self.staging, self.backup, self.trash
        );
        Case { name, journal: self.paper, place, request }
    }
}

/// A number that looks like chance and is the same in every run.
fn mixed(number: usize) -> usize {
    let mut mixed = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 1) as usize
}

/// In CI every combination of journal, live, staging and backup, each with another trash in turn; in the large size with
/// every trash, and each opened in every way that can be asked for.
fn combinations() -> Vec<(Combination, Request)> {
    let mut all = Vec::new();
    for paper in PAPERS {
        for live in LIVES {
            for staging in STAGINGS {
                for backup in BACKUPS {
                    let turn = mixed(all.len());
                    let combination = |trash| Combination { paper, live, staging, backup, trash };
                    if figures::torture() {
                        for trash in TRASHES {
                            all.extend(Request::ALL.map(|request| (combination(trash), request)));
                        }
                    } else {
                        let request = [Request::Unset, Request::Create][turn / 8 % 2];
                        all.push((combination(TRASHES[turn % 8]), request));
                    }
                }
            }
        }
    }
    all
}

#[derive(Default)]
struct Tally {
    cases: usize,
    outcomes: BTreeMap<Outcome, usize>,
    /// Cases whose way through the table meets the row.
    rows: BTreeMap<u8, usize>,
}

impl Tally {
    fn add(&mut self, outcome: Outcome, rows: &[u8]) {
        self.cases += 1;
        *self.outcomes.entry(outcome).or_default() += 1;
        for row in rows {
            *self.rows.entry(*row).or_default() += 1;
        }
    }

    fn merge(mut self, other: Tally) -> Tally {
        self.cases += other.cases;
        other.outcomes.into_iter().for_each(|(outcome, count)| *self.outcomes.entry(outcome).or_default() += count);
        other.rows.into_iter().for_each(|(row, count)| *self.rows.entry(row).or_default() += count);
        self
    }

    fn of(&self, outcome: Outcome) -> usize {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }
}

fn run(templates: &Templates, table: &[Row], cases: &[(Combination, Request)], half: usize) -> Tally {
    let (bench, mut tally) = (Bench::new(templates, table), Tally::default());
    for (combination, request) in cases.iter().skip(half).step_by(2) {
        let (outcome, rows) = bench.check(&combination.case(templates, *request));
        tally.add(outcome, &rows);
    }
    if half == 0 {
        // Row 1 asks for one directory under two names, whatever the journal.
        for paper in PAPERS.into_iter().filter(|paper| *paper != "unreadable") {
            let combination = Combination { paper, live: Old, staging: New, backup: Old, trash: Old };
            for (outcome, rows) in bench.check_twins(&combination.case(templates, Request::Unset)) {
                tally.add(outcome, &rows);
            }
        }
    }
    tally
}

#[test]
fn every_layout_opens_as_the_recovery_table_says() {
    let figures = figures::Figures::new("layouts");
    let (templates, table) = (Templates::make(), table::read());
    let cases = combinations();
    let tally = std::thread::scope(|scope| {
        let odd = scope.spawn(|| run(&templates, &table, &cases, 1));
        run(&templates, &table, &cases, 0).merge(odd.join().unwrap())
    });
    let by_row: Vec<_> = tally.rows.iter().map(|(row, cases)| json!({"row": row, "cases": cases})).collect();
    let rows_met = tally.rows.len();
    figures
        .with("cases", tally.cases)
        .with("opened", tally.of(Outcome::Opened))
        .with("converted", tally.of(Outcome::Converted))
        .with("created", tally.of(Outcome::Created))
        .with("absent", tally.of(Outcome::Absent))
        .with("refused", tally.of(Outcome::Refused))
        .with("errors", tally.of(Outcome::Error))
        .with("rows_met", rows_met)
        .with("by_row", by_row)
        .print();
    assert!(tally.cases >= figures::scale(8_000, 61_440), "{} cases", tally.cases);
    assert_eq!(rows_met, 34, "rows that no layout meets: {:?}", tally.rows);
}
