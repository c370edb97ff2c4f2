//! Power cuts while a database is written to: what was acknowledged is there afterwards, whatever else is lost.

use super::child::{self, Orders};
use super::common::{self, Content, figures::scale, options, sample};
use super::cuts::Tally;
use super::disks::Disk;
use super::power::{self, Weather, random};
use super::scenario::database;
use morphkv::Engine;
use morphkv::encoding::{Hierarchical, Natural};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const WRITERS: u64 = 2;
/// What the database holds before.
const COUNT: usize = 80;

fn key(writer: u64, number: u64) -> Vec<u8> {
    format!("/writer-{writer}/{number:06}").into_bytes()
}

/// Of many lengths, so that memtables fill and files are written between two cuts.
fn value(writer: u64, number: u64) -> Vec<u8> {
    let byte = (random(writer, number) % 251) as u8;
    vec![byte; 10 + (random(number, writer) % 1_500) as usize]
}

fn promised_in(acknowledged: &Path) -> PathBuf {
    acknowledged.with_extension("promised")
}

/// What the child does: each writer puts one key after the other, synced, and acknowledges each in a file on another file
/// system, until the power ends.
pub fn write(directory: &Path, acknowledged: &Path, convert: bool, after_micros: u64, weather: Weather) {
    let disk = File::open(directory).unwrap();
    if weather.neighbour {
        power::neighbour(directory.parent().unwrap());
    }
    let options = options().write_buffer_bytes(64 << 10);
    let options = if convert { options.encoding(Hierarchical) } else { options };
    let engine = Engine::open(database(directory), options).unwrap();
    let file = OpenOptions::new().append(true).create(true).open(acknowledged).unwrap();
    for writer in 0..WRITERS {
        let (engine, mut file) = (engine.clone(), file.try_clone().unwrap());
        std::thread::spawn(move || {
            for number in 0.. {
                // A put that meets the end of the power fails, or never returns; it is not acknowledged.
                if engine.put(key(writer, number), value(writer, number)).is_err() {
                    return;
                }
                file.write_all(format!("{writer} {number}\n").as_bytes()).unwrap();
            }
        });
    }
    std::thread::sleep(Duration::from_micros(after_micros));
    // The end of the power takes no time, shutting a file system down does, and a sync that meets it half-way may be told
    // that there is nothing left to wait for. What counts is what was acknowledged before.
    let promised = std::fs::read(acknowledged).unwrap();
    std::fs::write(promised_in(acknowledged), promised).unwrap();
    power::cut(&disk, weather.cut);
}

/// Cuts the power of writers, and counts what they had acknowledged.
pub fn cuts(disk: &Disk, room: &Path, tally: &mut Tally) {
    let prepared = common::scratch();
    common::make(&database(prepared.path()), Arc::new(Natural), &sample(COUNT));
    for round in 0..scale(16, 300) {
        let (convert, neighbour) = (round % 2 == 0, round % 4 < 2);
        let after_micros = 500 + random(round, 1) % 60_000;
        let weather = Weather { neighbour, seed: round, ..Weather::CALM };
        let what = format!("writers, cut after {after_micros} microseconds (convert first: {convert}, {weather:?})");
        let acknowledged = room.join("acknowledged");
        File::create(&acknowledged).unwrap();
        disk.put_in_place(prepared.path());
        let directory = disk.place();
        let orders = Orders::Write { directory, acknowledged: acknowledged.clone(), convert, after_micros, weather };
        assert!(child::lost_power(&child::run(&orders), &what), "{what}: it came to its end");
        assert!(disk.is_off(), "{what}: the file system goes on");
        disk.power_on();
        tally.cut(if convert { "write to a converted database" } else { "write" });
        let promised = std::fs::read_to_string(promised_in(&acknowledged)).unwrap();
        let attempted = std::fs::read_to_string(&acknowledged).unwrap();
        let mut found = 0;
        tally.judge(1, &what, || found = check(&disk.place(), &promised, &attempted, &what));
        tally.acknowledged += found;
    }
}

/// Opens what the power cut has left and compares it with what was acknowledged: gives the number of such writes.
fn check(place: &Path, promised: &str, attempted: &str, what: &str) -> u64 {
    let engine = Engine::open(database(place), options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let mut found: Content = common::content(&engine);
    for (key, value) in sample(COUNT) {
        assert_eq!(found.remove(&key), Some(value), "{what}: {key:?} was there before");
    }
    let mut sum = 0;
    for writer in 0..WRITERS {
        let of_writer = |text: &str| text.lines().filter(|line| line.starts_with(&format!("{writer} "))).count() as u64;
        let (promised, attempted) = (of_writer(promised), of_writer(attempted));
        let mut there = 0;
        while let Some(value_found) = found.remove(&key(writer, there)) {
            assert_eq!(value_found, value(writer, there), "{what}: number {there} of writer {writer}");
            there += 1;
        }
        // One more may have become durable just before it would have been acknowledged.
        assert!(
            (promised..=attempted + 1).contains(&there),
            "{what}: writer {writer} was promised {promised}, {there} are there"
        );
        sum += promised;
    }
    assert!(found.is_empty(), "{what}: {} keys that nobody wrote, or behind a hole", found.len());
    engine.close().unwrap();
    sum
}
