//! A child that writes, converts and rolls back all the time is killed at a random instant, again and again.
//!
//! Each step is acknowledged, in a file beside the database, after its call has returned. What is found afterwards is
//! the state after the last acknowledged step, or after the one that was under way, and nothing else. The same database
//! goes on through many kills, some of them in the middle of the recovery from the one before.

use super::super::common::figures::{Figures, scale};
use super::super::common::{options, scratch};
use super::super::scenario::database;
use super::super::sweep::{CHILD_DIRECTORY, child_that_runs, on_two_threads};
use super::SIGKILL;
use super::steps::{Random, Seen, State, Step, copy, encoding, is_kept};
use morphkv::{Engine, ErrorKind, manage};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

const CHILD_SEED: &str = "MORPHKV_TEST_SEED";
/// The step that the child begins with.
const CHILD_FIRST: &str = "MORPHKV_TEST_FIRST";
/// The child opens the database for this encoding (`unset`: for none) and does nothing else.
const CHILD_OPENS: &str = "MORPHKV_TEST_OPENS";
/// What the child writes to its standard output when it is up.
const UP: u8 = 6;
/// A child is killed so many milliseconds at most after it is up, and every fourth one after so many, since on a busy
/// machine a conversion takes longer.
const DELAY_MS: usize = 150;
const LONG_DELAY_MS: usize = 600;
/// After so many kills a database has grown old, and a new one is made.
const KILLS_PER_DATABASE: usize = 25;
/// The checks that go on beside each other, each with its own databases.
const SEEDS: [u64; 2] = [0x6d6f_7270_686b_7601, 0x6d6f_7270_686b_7602];

/// Not a test of its own: what the children run. Without the variables it has nothing to do.
#[test]
fn child() {
    let (Ok(first), Ok(directory)) = (std::env::var(CHILD_FIRST), std::env::var(CHILD_DIRECTORY)) else { return };
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let (mut index, directory): (u64, PathBuf) = (first.parse().unwrap(), directory.into());
    let path = database(&directory);
    let mut acknowledgements = OpenOptions::new().append(true).open(directory.join("acknowledged")).unwrap();
    std::io::stdout().write_all(&[UP]).unwrap();
    std::io::stdout().flush().unwrap();
    if let Ok(wanted) = std::env::var(CHILD_OPENS) {
        let wanted = if wanted == "unset" { options() } else { options().encoding(encoding(&wanted)) };
        match Engine::open(&path, wanted) {
            Ok(_) => {}
            // Converting has to wait while an old database is kept.
            Err(error) if error.kind() == ErrorKind::Conflict && is_kept(&path) => {}
            Err(error) => panic!("{error:?}"),
        }
        std::thread::sleep(Duration::from_secs(20));
        return;
    }
    let seed = std::env::var(CHILD_SEED).unwrap().parse().unwrap();
    let mut engine = Engine::open(&path, options().create_if_missing(index == 0)).unwrap();
    loop {
        acknowledgements.write_all(&index.to_le_bytes()).unwrap();
        let step = Step::of(seed, index);
        engine = step.act(&path, engine).unwrap_or_else(|error| panic!("step {index}, {}: {error:?}", step.name()));
        index += 1;
    }
}

#[derive(Default)]
struct Tally {
    kills: usize,
    in_recovery: usize,
    acknowledged: u64,
    converted: usize,
    opened: usize,
    copies: usize,
    /// What was under way when the child died, and how often it was there afterwards.
    under_way: BTreeMap<&'static str, usize>,
    carried_out: usize,
    databases: usize,
}

/// A database that goes through many kills.
struct Victim {
    directory: TempDir,
    seed: u64,
    /// The step that the next child begins with.
    first: u64,
    state: State,
    name: String,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let (directory, state) = (scratch(), State::default());
        Victim { directory, seed, first: 0, state, name: format!("database of seed {seed:#x}") }
    }

    fn path(&self) -> PathBuf {
        database(self.directory.path())
    }

    /// Starts a child, kills it `delay` after it is up, and gives what it has acknowledged: every step before that one.
    fn kill(&self, opens: Option<&str>, delay: Duration) -> Option<u64> {
        let beside = |name: &str| self.directory.path().join(name);
        File::create(beside("acknowledged")).unwrap();
        let mut command = child_that_runs("kills::load::child");
        command.env(CHILD_SEED, self.seed.to_string()).env(CHILD_FIRST, self.first.to_string());
        command.env(CHILD_DIRECTORY, self.directory.path());
        if let Some(opens) = opens {
            command.env(CHILD_OPENS, opens);
        }
        command.stdout(Stdio::piped()).stderr(File::create(beside("errors")).unwrap());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).bytes().map_while(Result::ok);
        let up = said.into_iter().any(|byte| byte == UP);
        std::thread::sleep(delay);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let errors = || std::fs::read_to_string(beside("errors")).unwrap();
        assert!(up && status.signal() == Some(SIGKILL), "{}: the child ended itself: {}", self.name, errors());
        let acknowledged = std::fs::read(beside("acknowledged")).unwrap();
        let (acknowledged, rest) = acknowledged.as_chunks::<8>();
        assert!(rest.is_empty(), "an acknowledgement is one write");
        acknowledged.last().map(|index| u64::from_le_bytes(*index))
    }

    /// One kill of a child under load, none or some of the recovery from it, and the comparison.
    fn round(&mut self, random: &mut Random, tally: &mut Tally) {
        let delay = if tally.kills % 4 == 3 { LONG_DELAY_MS } else { DELAY_MS };
        let acknowledged = self.kill(None, Duration::from_micros(random.below(delay * 1000) as u64));
        let done = acknowledged.unwrap_or(self.first);
        for index in self.first..done {
            let step = Step::of(self.seed, index);
            tally.converted += usize::from(matches!(step, Step::Convert { .. }));
            self.state.go_on(&step);
        }
        tally.acknowledged += done - self.first;
        let under_way = acknowledged.map(|index| Step::of(self.seed, index));
        let step = under_way.as_ref().map_or("open", Step::name);
        self.name = format!("database of seed {:#x}, killed in step {done} ({step})", self.seed);
        *tally.under_way.entry(step).or_default() += 1;
        let mut converted = false;
        while done > 0 && random.below(3) == 0 {
            let wanted = ["unset", "natural", "hierarchical"][random.below(3)];
            self.kill(Some(wanted), Duration::from_micros(random.below(40_000) as u64));
            tally.in_recovery += 1;
            converted |= wanted != "unset";
        }
        self.compare(acknowledged.is_none(), under_way, converted, tally);
        self.first = if acknowledged.is_some() { done + 1 } else { done };
    }

    /// Opens what is left, compares, and takes it for the state that the next child begins with.
    fn compare(&mut self, before_any: bool, under_way: Option<Step>, converted: bool, tally: &mut Tally) {
        let (path, name) = (self.path(), &self.name);
        let after = under_way.as_ref().map_or_else(|| self.state.clone(), |step| self.state.after(step));
        let engine = match Engine::open(&path, options()) {
            Ok(engine) => engine,
            Err(error) if error.kind() == ErrorKind::NotFound && before_any && self.first == 0 => return,
            Err(error) => panic!("{name}: {error:?}"),
        };
        tally.opened += 1;
        let seen = Seen::of(&engine);
        let (is_before, is_after) = (seen == self.state.seen, seen == after.seen);
        let lost = |wanted: &Seen| wanted.content.keys().filter(|key| !seen.content.contains_key(*key)).count();
        assert!(
            is_before || is_after,
            "{name}: {} keys, of {} acknowledged {} are lost, of {} with the step under way {}; records {:?}, {:?}, {:?}",
            seen.content.len(),
            self.state.seen.content.len(),
            lost(&self.state.seen),
            after.seen.content.len(),
            lost(&after.seen),
            seen.record,
            self.state.seen.record,
            after.seen.record,
        );
        let now = engine.encoding().name;
        assert!(converted || now == self.state.encoding || now == after.encoding, "{name}: it is in {now}");
        engine.close().unwrap();
        let kept = is_kept(&path);
        let may_be = [self.state.kept.is_some(), after.kept.is_some()];
        assert!(may_be.contains(&kept), "{name}: kept: {kept}, expected {may_be:?}");
        self.compare_copy(&after, tally);
        tally.carried_out += usize::from(is_after && !is_before);
        if !is_before {
            self.state = after;
        }
        (self.state.encoding, self.state.copy) = (now, None);
        if under_way.is_some_and(|step| step.touches_kept()) {
            // Which of two it is cannot be told; the next child begins without.
            if kept {
                manage::drop_backup(&path, &options()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            }
            self.state.kept = None;
        }
    }

    /// A copy stands whole at its name or not at all, and an acknowledged one stands. It goes afterwards, and with it
    /// what the kill has left of another.
    fn compare_copy(&self, after: &State, tally: &mut Tally) {
        let copy = copy(&self.path());
        if copy.exists() {
            let engine = Engine::open(&copy, options()).unwrap_or_else(|error| panic!("{}: {error:?}", self.name));
            assert_eq!(Some(Seen::of(&engine)), after.copy, "{}: the copy differs", self.name);
            tally.copies += 1;
        } else {
            assert!(self.state.copy.is_none(), "{}: the copy is gone", self.name);
        }
        for entry in std::fs::read_dir(self.directory.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().as_encoded_bytes().starts_with(b"copy") {
                remove(&entry.path());
            }
        }
    }
}

fn remove(path: &Path) {
    if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
}

fn kill_again_and_again(seed: u64, kills: usize) -> Tally {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut victim = Victim::new(seed);
    while tally.kills < kills {
        if tally.kills.is_multiple_of(KILLS_PER_DATABASE) {
            // By turns one that is changed as a whole most of the time, and one that is written to.
            let turn = (tally.databases as u64 + seed) & 1;
            victim = Victim::new(random.next() & !1 | turn);
            tally.databases += 1;
        }
        victim.round(&mut random, &mut tally);
        tally.kills += 1;
    }
    tally
}

#[test]
fn at_random_instants() {
    let figures = Figures::new("random-kills");
    let wanted = scale(150, 10_000);
    println!("seeds: {SEEDS:#x?}");
    let tallies = on_two_threads(&SEEDS, |seed| kill_again_and_again(*seed, wanted / SEEDS.len()));
    let sum = |part: fn(&Tally) -> usize| tallies.iter().map(part).sum::<usize>();
    let mut under_way: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in tallies.iter().flat_map(|tally| &tally.under_way) {
        *under_way.entry(name).or_default() += count;
    }
    let shown: Vec<_> = under_way.iter().map(|(name, count)| format!("{count} in {name}")).collect();
    println!("the child was killed: {}", shown.join(", "));
    let kills = sum(|tally| tally.kills);
    assert!(kills >= wanted && sum(|tally| tally.converted) > 0, "{kills} kills");
    figures
        .with("kills", kills)
        .with("kills-in-recovery", sum(|tally| tally.in_recovery))
        .with("databases", sum(|tally| tally.databases))
        .with("steps-acknowledged", tallies.iter().map(|tally| tally.acknowledged).sum::<u64>())
        .with("conversions-acknowledged", sum(|tally| tally.converted))
        .with("under-way-and-there", sum(|tally| tally.carried_out))
        .with("opened", sum(|tally| tally.opened))
        .with("copies-compared", sum(|tally| tally.copies))
        .with("under-way", serde_json::to_value(&under_way).unwrap())
        .print();
}
