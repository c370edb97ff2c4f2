//! What may be at a place after what was done to it, and whether the log of a race can be true.
//!
//! The first thing that an attempt does under the lock is to say so; hence the order of those lines is the order of the
//! attempts, and each of them must have ended, and must have seen, what the one before it left. After an attempt that was
//! cut short by a kill the place is as before it or as after it, and the next one decides which.

use super::super::common::Content;
use super::orders::{ATTEMPTS_MAX, Attempt, Deed, Line, Seen, value_of};
use morphkv::Keep;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A database, and the old one that is kept beside it.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    pub encoding: String,
    pub content: Content,
    pub kept: Option<(String, Content)>,
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {} keys", self.encoding, self.content.len())?;
        match &self.kept {
            Some((encoding, content)) => write!(formatter, "; kept: {encoding}, {} keys", content.len()),
            None => Ok(()),
        }
    }
}

/// What may be at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub database: Option<Database>,
    /// An interrupted change waits for an attempt that brings the place to rest.
    pub unsettled: bool,
    /// What a reader may see until then: live as that change has not replaced it yet. A reader decides nothing.
    pub readable: Vec<Database>,
}

/// How an attempt may end (`None`: well), and what is there then.
type End = (Option<&'static str>, State);

impl State {
    fn with(&self, database: Option<Database>) -> State {
        State { database, unsettled: false, readable: Vec::new() }
    }

    fn new_database(&self, wanted: Option<&String>) -> State {
        let encoding = wanted.map_or("natural", |name| name).to_owned();
        self.with(Some(Database { encoding, content: Content::new(), kept: None }))
    }

    fn open(&self, wanted: Option<&String>, keep: Keep, create: bool) -> End {
        let Some(database) = &self.database else {
            let created = || (None, self.new_database(wanted));
            return if create { created() } else { (Some("NotFound"), self.with(None)) };
        };
        let mut next = database.clone();
        if let Some(wanted) = wanted.filter(|wanted| **wanted != database.encoding) {
            if database.kept.is_some() && keep != Keep::Replace {
                return (Some("Conflict"), self.with(Some(next)));
            }
            next.kept = (keep != Keep::No).then(|| (database.encoding.clone(), database.content.clone()));
            next.encoding = wanted.clone();
        }
        (None, self.with(Some(next)))
    }

    /// What is done with the kept database; it can be told from none only once the place is at rest.
    fn with_kept(&self, change: impl FnOnce(&mut Database, (String, Content))) -> Vec<End> {
        let mut database = self.database.clone();
        let kept = database.as_mut().and_then(|database| database.kept.take());
        let mut ends = Vec::new();
        if let (Some(database), Some(kept)) = (&mut database, kept) {
            change(database, kept);
            ends.push((None, self.with(Some(database.clone()))));
        }
        if self.unsettled || ends.is_empty() {
            ends.push((Some("NotFound"), self.clone()));
        }
        ends
    }

    fn read(&self) -> Vec<End> {
        let mut ends = vec![(self.database.is_none().then_some("NotFound"), self.clone())];
        if self.unsettled {
            ends.push((Some("Refused"), self.clone()));
        }
        ends
    }

    /// How the deed may end here.
    fn after(&self, deed: &Deed) -> Vec<End> {
        match deed {
            Deed::Open { wanted, keep, create, .. } => vec![self.open(wanted.as_ref(), *keep, *create)],
            Deed::Convert { wanted, keep } => vec![self.open(Some(wanted), *keep, false)],
            Deed::Create { .. } if self.database.is_some() => {
                vec![(Some("Conflict"), self.with(self.database.clone()))]
            }
            Deed::Create { wanted } => vec![(None, self.new_database(wanted.as_ref()))],
            Deed::Destroy => vec![(None, self.with(None))],
            Deed::RollBack => self.with_kept(|database, kept| (database.encoding, database.content) = kept),
            Deed::DropKept => self.with_kept(|_, _| {}),
            // An unfinished conversion is left to be gone on with, unless it is to be abandoned.
            Deed::Recover { abandon } => {
                vec![(None, State { unsettled: self.unsettled && !abandon, ..self.clone() })]
            }
            Deed::Read | Deed::Digest => self.read(),
            Deed::Inspect | Deed::OpenWithRocksdb { .. } => Vec::new(),
        }
    }
}

/// What other software may make an attempt end with, that has the lock of the place: it holds RocksDB's own lock, or it
/// replaces RocksDB's files while they are looked at, so that they seem damaged for that moment.
const DISTURBED: [&str; 2] = ["Locked", "Refused"];

/// Everything that the log says of one attempt, and at which line.
#[derive(Debug)]
struct Account {
    began: usize,
    deed: Deed,
    locked: Option<usize>,
    saw: Option<(usize, String, Seen)>,
    inspected: Option<String>,
    writing: Vec<String>,
    wrote: usize,
    ended: Option<usize>,
    failed: Option<(String, String)>,
    /// The line that says that its process is dead.
    killed: Option<usize>,
}

#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub attempts: usize,
    /// Attempts that had the place to themselves.
    pub winners: usize,
    /// Attempts that were told that somebody else has it.
    pub losers: usize,
    pub cut_short: usize,
    pub acknowledged: usize,
    pub acknowledged_by_rocksdb: usize,
    pub kept_out: usize,
    pub disturbed: usize,
    pub looks: usize,
    pub compared: usize,
    pub by_deed: BTreeMap<String, usize>,
    pub by_end: BTreeMap<String, usize>,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        let sums = [
            (&mut self.attempts, other.attempts),
            (&mut self.winners, other.winners),
            (&mut self.losers, other.losers),
            (&mut self.cut_short, other.cut_short),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.acknowledged_by_rocksdb, other.acknowledged_by_rocksdb),
            (&mut self.kept_out, other.kept_out),
            (&mut self.disturbed, other.disturbed),
            (&mut self.looks, other.looks),
            (&mut self.compared, other.compared),
        ];
        for (sum, part) in sums {
            *sum += part;
        }
        for (name, count) in &other.by_deed {
            *self.by_deed.entry(name.clone()).or_default() += count;
        }
        for (name, count) in &other.by_end {
            *self.by_end.entry(name.clone()).or_default() += count;
        }
    }
}

/// Whether other software takes part.
fn with_rocksdb(lines: &[Line]) -> bool {
    let theirs = |line: &Line| matches!(line, Line::Began { deed: Deed::OpenWithRocksdb { .. }, .. });
    lines.iter().any(theirs)
}

type Accounts = BTreeMap<Attempt, Account>;

fn accounts(lines: &[Line]) -> Result<Accounts, String> {
    let mut accounts = Accounts::new();
    for (at, line) in lines.iter().enumerate() {
        match line {
            Line::Began { attempt, deed } => {
                let (began, deed) = (at, deed.clone());
                let account = Account {
                    began,
                    deed,
                    locked: None,
                    saw: None,
                    inspected: None,
                    writing: Vec::new(),
                    wrote: 0,
                    ended: None,
                    failed: None,
                    killed: None,
                };
                if accounts.insert(*attempt, account).is_some() {
                    return Err(format!("attempt {attempt} began twice"));
                }
            }
            // A lock of RocksDB's that was found taken stays open: closing it could free it.
            Line::Leaked { file } if file.trim_end_matches(" (deleted)").ends_with("/LOCK") && with_rocksdb(lines) => {}
            Line::Intruded { .. } | Line::Panicked { .. } | Line::Leaked { .. } => return Err(format!("{line:?}")),
            Line::Killed { racers } => {
                let dead =
                    |attempt: &Attempt| racers.iter().any(|first| attempt / ATTEMPTS_MAX == first / ATTEMPTS_MAX);
                for (_, account) in accounts.iter_mut().filter(|(attempt, _)| dead(attempt)) {
                    account.killed = account.ended.is_none().then_some(at);
                }
            }
            Line::Locked { attempt } => accounts.get_mut(attempt).unwrap().locked = Some(at),
            Line::Saw { attempt, encoding, seen } => {
                accounts.get_mut(attempt).unwrap().saw = Some((at, encoding.clone(), seen.clone()));
            }
            Line::Writing { attempt, key } => accounts.get_mut(attempt).unwrap().writing.push(key.clone()),
            Line::Wrote { attempt, .. } => accounts.get_mut(attempt).unwrap().wrote += 1,
            Line::Inspected { attempt, state } => accounts.get_mut(attempt).unwrap().inspected = Some(state.clone()),
            Line::Ended { attempt, failed } => {
                let account = accounts.get_mut(attempt).unwrap();
                (account.ended, account.failed) = (Some(at), failed.clone());
            }
        }
    }
    for (attempt, account) in &accounts {
        if account.ended.is_none() && account.killed.is_none() {
            return Err(format!("attempt {attempt} never ended: {:?}", account.deed));
        }
    }
    Ok(accounts)
}

impl Account {
    fn kind(&self) -> Option<&str> {
        self.failed.as_ref().map(|(kind, _)| kind.as_str())
    }

    /// The last line at which it can have held the lock.
    fn over(&self) -> usize {
        self.ended.or(self.killed).unwrap()
    }
}

/// Whoever was told that somebody has the place was told the truth: another attempt was at it meanwhile.
fn require_honest(attempt: Attempt, loser: &Account, accounts: &Accounts, with_rocksdb: bool) -> Result<(), String> {
    let ended = loser.over();
    let held = |account: &Account| {
        let may_hold = match account.deed {
            Deed::Inspect => false,
            Deed::OpenWithRocksdb { .. } => with_rocksdb,
            // One that was killed may have locked the place and died before it could say so.
            _ => account.locked.is_some() || account.killed.is_some(),
        };
        may_hold && account.began < ended && account.over() > loser.began
    };
    let others = accounts.iter().filter(|(other, _)| **other != attempt);
    if others.into_iter().any(|(_, account)| held(account)) {
        return Ok(());
    }
    Err(format!("attempt {attempt} found the place locked, but nobody had it: {:?}", loser.failed))
}

/// Judges a race by its log. What it was before is one of the states; gives what may be there now.
pub fn judge(lines: &[Line], before: &[State]) -> Result<(Vec<State>, Tally), String> {
    let accounts = accounts(lines)?;
    let with_rocksdb = with_rocksdb(lines);
    let mut tally = Tally::default();
    for (attempt, account) in &accounts {
        count(account, &mut tally);
        match (&account.deed, account.locked, account.kind()) {
            (Deed::OpenWithRocksdb { .. }, ..) => {}
            (Deed::Inspect, _, None) if account.inspected.as_deref() == Some("refused") && !with_rocksdb => {
                return Err("a look called the place one that cannot be judged".into());
            }
            (Deed::Inspect, _, None) => {}
            (Deed::Inspect, ..) if account.ended.is_none() => {}
            (Deed::Inspect, ..) => return Err(format!("a look failed: {:?}", account.failed)),
            (_, None, Some("Locked")) => require_honest(*attempt, account, &accounts, false)?,
            (_, None, _) if account.ended.is_none() => {}
            (deed, None, _) => return Err(format!("{deed:?} ended without the lock: {:?}", account.failed)),
            (_, Some(_), Some("Locked")) => require_honest(*attempt, account, &accounts, with_rocksdb)?,
            _ => {}
        }
    }
    let mut winners: Vec<_> = accounts.iter().filter(|(_, account)| account.locked.is_some()).collect();
    winners.sort_by_key(|(_, account)| account.locked);
    let mut states = before.to_vec();
    for (attempt, account) in winners {
        let after = step(&states, account, with_rocksdb);
        if after.is_empty() {
            return Err(format!("attempt {attempt} cannot be true: {account:?}; before it: {states:#?}"));
        }
        states = after;
        require_theirs(account, &accounts)?;
    }
    Ok((states, tally))
}

/// What may be there after the attempt, if it ended as it says and saw what it says.
fn step(states: &[State], account: &Account, with_rocksdb: bool) -> Vec<State> {
    let mut after: Vec<State> = Vec::new();
    let cut_short = account.ended.is_none();
    for state in states {
        let mut ends = state.after(&account.deed);
        let unsettled = |next: &State| {
            let mut readable = state.readable.clone();
            // Once: states that differ in this alone would double with each attempt that was cut short.
            readable.extend(state.database.clone().filter(|database| !state.readable.contains(database)));
            State { unsettled: true, readable, ..next.clone() }
        };
        let reads = matches!(account.deed, Deed::Read | Deed::Digest);
        let disturbed = DISTURBED.into_iter().find(|kind| with_rocksdb && account.kind() == Some(kind));
        if let Some(kind) = disturbed {
            ends = ends.iter().map(|(_, state)| (Some(kind), unsettled(state))).collect();
            ends.push((Some(kind), unsettled(state)));
        }
        if cut_short {
            ends = ends.iter().map(|(_, state)| (None, unsettled(state))).collect();
            // It came to see the database only once its change was done.
            ends.extend(account.saw.is_none().then(|| (None, unsettled(state))));
        }
        for (kind, mut next) in ends {
            let seen = next.database.iter().chain(next.readable.iter().filter(|_| reads && next.unsettled));
            if kind != account.kind() && !cut_short || !fits(seen, account) {
                continue;
            }
            if let Some(database) = &mut next.database {
                let keys = account.writing.iter().map(|key| (key.clone().into_bytes(), value_of(key)));
                database.content.extend(keys.take(account.wrote));
            }
            let mut possible = vec![next];
            if let Some(key) = account.writing.get(account.wrote) {
                // It was killed in the write.
                let mut written = possible[0].clone();
                written.database.as_mut().unwrap().content.insert(key.clone().into_bytes(), value_of(key));
                possible.push(written);
            }
            possible.retain(|state| !after.contains(state));
            after.extend(possible);
        }
    }
    after
}

/// Whether the attempt has seen one of these, if it has seen anything.
fn fits<'d>(mut databases: impl Iterator<Item = &'d Database>, account: &Account) -> bool {
    let Some((_, encoding, seen)) = &account.saw else { return true };
    databases.any(|database| {
        let expected = Seen::of(&database.content);
        database.encoding == *encoding && (expected.entries, &expected.hash) == (seen.entries, &seen.hash)
    })
}

/// What other software wrote and had acknowledged is there, wherever it is looked for later; and nothing that it did not
/// write.
fn require_theirs(account: &Account, accounts: &Accounts) -> Result<(), String> {
    let Some((at, _, seen)) = &account.saw else { return Ok(()) };
    // A read-only handle shows the moment at which it was opened, and keeps nobody out of RocksDB.
    let at = if account.deed == Deed::Read { account.began } else { *at };
    let seen: BTreeSet<&String> = seen.theirs.iter().collect();
    let theirs = accounts.values().filter(|account| matches!(account.deed, Deed::OpenWithRocksdb { .. }));
    let mut may_be = BTreeSet::new();
    for their in theirs {
        may_be.extend(&their.writing);
        let done = if their.over() < at { their.wrote } else { 0 };
        if let Some(lost) = their.writing.iter().take(done).find(|key| !seen.contains(key)) {
            return Err(format!("{lost} was acknowledged by RocksDB, and is lost: {account:?}"));
        }
    }
    match seen.iter().find(|key| !may_be.contains(*key)) {
        Some(invented) => Err(format!("{invented} was never written: {account:?}")),
        None => Ok(()),
    }
}

fn count(account: &Account, tally: &mut Tally) {
    tally.attempts += 1;
    let name = format!("{:?}", account.deed);
    let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
    *tally.by_deed.entry(name).or_default() += 1;
    let end = if account.ended.is_none() { "Killed" } else { account.kind().unwrap_or("Done") };
    *tally.by_end.entry(end.to_owned()).or_default() += 1;
    tally.cut_short += usize::from(account.ended.is_none());
    tally.compared += usize::from(account.saw.is_some());
    match account.deed {
        Deed::Inspect => tally.looks += 1,
        Deed::OpenWithRocksdb { .. } => {
            tally.acknowledged_by_rocksdb += account.wrote;
            tally.kept_out += usize::from(account.failed.is_some());
        }
        _ => {
            tally.winners += usize::from(account.locked.is_some());
            tally.losers += usize::from(account.locked.is_none() && account.kind() == Some("Locked"));
            tally.disturbed += usize::from(account.locked.is_some() && account.kind() == Some("Locked"));
            tally.acknowledged += account.wrote;
        }
    }
}
