//! Processes and threads that open, convert, destroy, create, roll back and recover one place at the same time, and one of
//! them is killed in the middle now and then: at any instant one alone has the place, everybody else is told so, and what
//! was acknowledged is there at the end.

#[path = "../guarantees/bent.rs"]
mod bent;
mod judge;
mod looks;
mod moments;
mod orders;
mod racers;
mod starts;

use super::common::figures::{Figures, scale};
use super::common::{self, scratch};
use super::kills::steps::Random;
use super::sweep::on_two_threads;
use judge::{State, Tally, judge};
use morphkv::Keep;
use orders::{ATTEMPTS_MAX, Deed, Line, Log, Orders, Racer, place};
use racers::{Process, attempt_once};
use serde_json::to_value;
use starts::Start;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const SEED: u64 = 0x7261_6365;
/// Processes that race in one place, at most.
const PROCESSES: usize = 3;
/// The attempts of the parent, when the race is over.
const AFTERWARDS: u32 = 900 * ATTEMPTS_MAX;

/// What happens in a race: all of it follows from its number.
#[derive(Debug)]
struct Race {
    number: u64,
    start: usize,
    orders: Vec<Vec<Racer>>,
    /// Which process is killed, and when.
    kill: Option<(usize, u64)>,
    with_rocksdb: bool,
    asked_for_afterwards: Option<String>,
}

impl Race {
    fn of(number: u64, starts: &[Start]) -> Race {
        let mut random = Random(SEED ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let with_rocksdb = random.below(6) == 0;
        let start = loop {
            let start = random.below(starts.len());
            if starts[start].with_rocksdb || !with_rocksdb {
                break start;
            }
        };
        let processes = 2 + random.below(PROCESSES - 1);
        let mut racers = 0;
        let mut orders = Vec::new();
        for _ in 0..processes {
            // Some race in threads of one process as well.
            let threads = 1 + usize::from(random.below(4) == 0);
            orders.push((0..threads).map(|_| racer(&mut random, &mut racers, with_rocksdb)).collect());
        }
        let kill = (random.below(4) == 0).then(|| (random.below(processes), random.below(25_000) as u64));
        let asked_for_afterwards = [None, Some("natural"), Some("hierarchical")][random.below(3)].map(str::to_owned);
        Race { number, start, orders, kill, with_rocksdb, asked_for_afterwards }
    }
}

fn racer(random: &mut Random, racers: &mut u32, with_rocksdb: bool) -> Racer {
    *racers += 1;
    let deeds = (0..1 + random.below(2)).map(|_| Deed::random(random, with_rocksdb)).collect();
    Racer {
        first: *racers * ATTEMPTS_MAX,
        delay_micros: random.below(400) as u64,
        deeds,
        patience: [0, 0, 20][random.below(3)],
    }
}

/// Who races: the processes live through many races, but for those that are killed.
struct Racers {
    processes: Vec<Option<Process>>,
    errors: TempDir,
}

impl Racers {
    fn new() -> Racers {
        Racers { processes: (0..PROCESSES).map(|_| None).collect(), errors: scratch() }
    }

    fn process(&mut self, index: usize) -> &mut Process {
        let errors = self.errors.path().join(index.to_string());
        self.processes[index].get_or_insert_with(|| Process::start(&errors))
    }

    fn run(&mut self, race: &Race, room: &Path) {
        for (index, racers) in race.orders.iter().enumerate() {
            let orders = Orders { room: room.into(), racers: racers.clone() };
            self.process(index).prepare(&orders);
        }
        for index in 0..race.orders.len() {
            self.process(index).go();
        }
        if let Some((victim, micros)) = race.kill {
            std::thread::sleep(Duration::from_micros(micros));
            self.processes[victim].take().unwrap().kill();
            let racers = race.orders[victim].iter().map(|racer| racer.first).collect();
            Log::open(room).add(&Line::Killed { racers });
        }
        for index in 0..race.orders.len() {
            if race.kill.is_none_or(|(victim, _)| victim != index) {
                self.process(index).wait_until_over();
            }
        }
    }
}

/// Runs a race and judges it. What is wrong, if anything is.
fn run(race: &Race, start: &Start, racers: &mut Racers) -> Result<Tally, String> {
    let room = scratch();
    let room = room.path();
    common::copy_tree(start.directory.path(), &place(room));
    racers.run(race, room);
    let log = Log::open(room);
    let open = |wanted: Option<String>| Deed::Open { wanted, keep: Keep::No, create: false, writes: 1, hold_micros: 0 };
    for (last, wanted) in (AFTERWARDS..).zip([race.asked_for_afterwards.clone(), None]) {
        attempt_once(room, &log, last, &open(wanted));
    }
    let lines = Log::read(room);
    let judged = judge(&lines, &start.states).and_then(|(states, tally)| {
        at_rest(&place(room), &states, race.with_rocksdb)?;
        Ok(tally)
    });
    judged.map_err(|wrong| {
        let lines: Vec<_> = lines.iter().map(|line| format!("  {}", serde_json::to_string(line).unwrap())).collect();
        format!("race {} from `{}`: {wrong}\n{}\n{race:#?}", race.number, start.name, lines.join("\n"))
    })
}

/// What stands at a place that nobody uses and that was opened last.
fn at_rest(place: &Path, states: &[State], with_rocksdb: bool) -> Result<(), String> {
    let mut names: Vec<_> =
        std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    // The probe of a conversion that was killed before it began: the next conversion removes it.
    names.retain(|name| name != "db.probe");
    let fits = |state: &State| match &state.database {
        None => names == ["db.lock"] || with_rocksdb && names == ["db", "db.lock"],
        Some(database) if database.kept.is_some() => names == ["db", "db.backup", "db.conversion", "db.lock"],
        Some(_) => names == ["db", "db.lock"],
    };
    if states.iter().any(fits) { Ok(()) } else { Err(format!("at rest there stand {names:?}; expected: {states:#?}")) }
}

#[test]
fn one_alone_has_the_place() {
    let figures = Figures::new("races");
    let wanted: u64 = scale(500, 20_000);
    let starts = starts::all();
    println!("seed: {SEED:#x}, starts: {}", starts.len());
    let lanes = on_two_threads(&[0, 1], |lane| {
        let (mut racers, mut tally, mut sums) = (Racers::new(), Tally::default(), [0_u64; 5]);
        for number in (*lane..wanted).step_by(2) {
            let race = Race::of(number, &starts);
            let ran = run(&race, &starts[race.start], &mut racers);
            let of_race = ran.unwrap_or_else(|wrong| panic!("{wrong}"));
            assert!(of_race.winners > 0, "race {number}: nobody had the place");
            sums[0] += 1;
            sums[1] += race.orders.len() as u64;
            sums[2] += race.orders.iter().map(Vec::len).sum::<usize>() as u64;
            sums[3] += u64::from(race.kill.is_some());
            sums[4] += u64::from(of_race.losers > 0);
            tally.add(&of_race);
        }
        (tally, sums)
    });
    let mut tally = Tally::default();
    lanes.iter().for_each(|(lane, _)| tally.add(lane));
    let sum = |index: usize| lanes.iter().map(|(_, sums)| sums[index]).sum::<u64>();
    assert!(sum(0) >= wanted && sum(4) * 3 > wanted, "{} races, in {} of them somebody lost", sum(0), sum(4));
    figures
        .with("races", sum(0))
        .with("processes", sum(1))
        .with("threads", sum(2))
        .with("kills", sum(3))
        .with("races-with-losers", sum(4))
        .with("attempts", tally.attempts)
        .with("had-the-place", tally.winners)
        .with("locked-out", tally.losers)
        .with("cut-short", tally.cut_short)
        .with("writes-acknowledged", tally.acknowledged)
        .with("contents-compared", tally.compared)
        .with("looks-without-lock", tally.looks)
        .with("writes-of-rocksdb", tally.acknowledged_by_rocksdb)
        .with("rocksdb-kept-out", tally.kept_out)
        .with("disturbed-by-rocksdb", tally.disturbed)
        .with("lost", 0)
        .with("deeds", to_value(&tally.by_deed).unwrap())
        .with("ends", to_value(&tally.by_end).unwrap())
        .print();
}
