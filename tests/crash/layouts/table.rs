//! The recovery table, as it stands in `ARCHITECTURE.md`: the test knows no other. A cell or an action that is worded in a
//! way that is not known here is a panic, so that the page and this reading of it cannot drift apart.

use morphkv::testing::journal::{Kind, Phase};

/// The names that a row moves and removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Live,
    Staging,
    Backup,
}

/// A part of a row's action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Refuse,
    Absent,
    Open,
    Drop,
    Move(Name, Name),
    Remove(Name),
    /// Only what is ours.
    Sweep(Name),
    Journal(Phase),
    /// Kept if the old database is to stay, and staging removed before; else Done.
    JournalSettled,
    DropJournal,
    /// `K` goes; if there is none, live moves.
    RemoveOlderElseMove,
}

/// The journal as far as the table asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Unreadable,
    Of { kind: Kind, phase: Phase, over: bool },
}

/// What stands at the names, in letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letters {
    pub live: char,
    pub staging: char,
    pub backup: char,
    pub trash: bool,
    pub twins: bool,
}

#[derive(Debug)]
pub struct Row {
    pub number: u8,
    journal: String,
    live: String,
    staging: String,
    backup: String,
    /// It holds only where nothing stands at the name of trash.
    no_trash: bool,
    pub steps: Vec<Step>,
    /// The rows that can come next, where the row names them.
    pub then: Vec<u8>,
}

/// The table of the page.
pub fn read() -> Vec<Row> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md")).unwrap();
    let (_, recovery) = page.split_once("\n## Recovery\n").expect("the page has a part on recovery");
    let (recovery, _) = recovery.split_once("\n## ").expect("and another after it");
    let rows: Vec<Row> = recovery.lines().filter(|line| line.starts_with("| ")).filter_map(row).collect();
    let numbers: Vec<u8> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=34).collect::<Vec<u8>>(), "the rows of the table");
    rows
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
    let number = cells[0].parse().ok()?;
    let [_, journal, live, staging, backup, action] = cells[..] else { panic!("not six cells: {line}") };
    let (steps, then) = steps(&plain(action));
    Some(Row {
        number,
        journal: journal.into(),
        live: live.into(),
        staging: staging.into(),
        backup: backup.into(),
        no_trash: action.contains("no trash"),
        steps,
        then,
    })
}

/// Without what is said in parentheses.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for part in text.split('(') {
        plain.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ,", ",").replace(" ;", ";")
}

fn name(word: &str) -> Name {
    match word {
        "live" => Name::Live,
        "staging" => Name::Staging,
        "backup" => Name::Backup,
        _ => panic!("no name of a place: `{word}`"),
    }
}

fn names(words: &str) -> Vec<Name> {
    words.replace(" and ", ", ").split(", ").map(name).collect()
}

fn steps(action: &str) -> (Vec<Step>, Vec<u8>) {
    if action == "journal Done; where the old one is to stay: remove staging, journal Kept" {
        return (vec![Step::JournalSettled], Vec::new());
    }
    let (mut steps, mut then) = (Vec::new(), Vec::new());
    for part in action.split("; ") {
        match part {
            "refuse" => steps.push(Step::Refuse),
            "there is no database" => steps.push(Step::Absent),
            "open" => steps.push(Step::Open),
            "DROP" => steps.push(Step::Drop),
            // Opening does the former; only a conversion towards the same encoding could do the latter.
            "DROP and open, or resume the change" => steps.extend([Step::Drop, Step::Open]),
            "remove the backup if it is K, else live -> backup" => steps.push(Step::RemoveOlderElseMove),
            "journal Done" => steps.push(Step::Journal(Phase::Done)),
            "journal Kept" => steps.push(Step::Journal(Phase::Kept)),
            "drop the journal" => steps.push(Step::DropJournal),
            _ => match (part.split_once(" -> "), part.split_once(' ')) {
                (Some((from, to)), _) => steps.push(Step::Move(name(from), name(to))),
                (_, Some(("sweep", what))) => steps.extend(names(what).into_iter().map(Step::Sweep)),
                (_, Some(("remove", what))) => steps.extend(names(what).into_iter().map(Step::Remove)),
                (_, Some(("then", rows))) => then.extend(rows.split(" or ").map(|row| row.parse::<u8>().unwrap())),
                _ => panic!("the table says something that is not known here: `{part}`"),
            },
        }
    }
    (steps, then)
}

/// Whether the letter is among those of the cell. `over`: the change replaces a database.
fn fits(cell: &str, letter: char, backup: char, over: bool) -> bool {
    if let Some((first, nothing)) = cell.split_once("; into nothing: ") {
        return fits(if over { first } else { nothing }, letter, backup, over);
    }
    if let Some((usual, with)) = cell.split_once(" (with ") {
        let (which, special) = with.trim_end_matches(')').split_once(": ").expect("a letter and what holds with it");
        let special_holds = which.chars().eq([backup]);
        return fits(if special_holds { special } else { usual }, letter, backup, over);
    }
    let but = ["all but ", "any but ", "not "].iter().find_map(|start| cell.strip_prefix(start));
    match (cell, but) {
        ("" | "any" | "else", _) => true,
        (_, Some(but)) => !but.chars().eq([letter]),
        _ => cell.split(", ").any(|one| {
            assert!(one.chars().count() == 1 && "-WOXNPFK".contains(one), "no letter: `{one}`");
            one.chars().eq([letter])
        }),
    }
}

impl Row {
    /// Whether the row is of this state, if none above it is.
    pub fn is_of(&self, change: Change, letters: &Letters) -> bool {
        if self.live.starts_with("two names") {
            return letters.twins;
        }
        let over = matches!(change, Change::Of { over: true, .. });
        self.is_of_journal(change)
            && !(self.no_trash && letters.trash)
            && fits(&self.live, letters.live, letters.backup, over)
            && fits(&self.staging, letters.staging, letters.backup, over)
            && fits(&self.backup, letters.backup, letters.backup, over)
    }

    fn is_of_journal(&self, change: Change) -> bool {
        let words: Vec<&str> = self.journal.split(", ").collect();
        match change {
            Change::None => words == ["none"],
            Change::Unreadable => words == ["unreadable", "or of a later version"],
            Change::Of { kind, phase, over } => {
                let phase = format!("{phase:?}");
                let special = match kind {
                    Kind::Rollback => "rollback",
                    Kind::Destroy => return words == ["destroy"],
                    _ => "",
                };
                let way = if over { "over" } else { "into nothing" };
                words.iter().all(|word| [phase.as_str(), way, special].contains(word))
                    && words.contains(&"rollback") == (special == "rollback")
            }
        }
    }
}
