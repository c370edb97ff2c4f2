//! What the children do, and what may be found afterwards: the changes of `scenario.rs`, and work on an open database.

use super::common::{self, Content, options, sample};
use super::scenario::{self, Expect, Scenario, database};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Engine, Error, ErrorKind, Options, Result, manage};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MANY: usize = 1500;
/// So many keys lie in each SST file.
const PER_FILE: usize = 250;

/// Beside the directory of the place, so that writing to it never fails.
pub fn acknowledged(directory: &Path) -> PathBuf {
    directory.with_extension("acknowledged")
}

fn many() -> Content {
    let mut content = sample(MANY);
    for (number, value) in content.values_mut().enumerate() {
        // Not to be compressed away, so that a file has more than one block.
        let noise = (0..20_u64).map(|part| ((number as u64 + 1) * (part + 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        value.extend(noise.flat_map(u64::to_le_bytes));
    }
    content
}

/// A database of several SST files, and a WAL that holds more.
fn make_many(path: &Path, encoding: Arc<dyn KeyEncoding>) {
    let engine = Engine::open(path, options().create_if_missing(true).encoding(encoding)).unwrap();
    for (number, (key, value)) in many().into_iter().enumerate() {
        engine.put(key, value).unwrap();
        if number % PER_FILE == PER_FILE - 1 && number + PER_FILE < MANY {
            engine.flush().unwrap();
        }
    }
    engine.close().unwrap();
}

fn all_of_many() -> Expect {
    Expect::OneOf(vec![many()])
}

fn convert(directory: &Path, options: Options, to: impl KeyEncoding) -> Result<()> {
    Engine::open(database(directory), options.encoding(to))?.close()
}

/// Everything that an engine shows, read in each of the ways there are; a read that fails is an error.
fn read_everything(engine: &Engine, expected: &Content) -> Result<()> {
    let forwards: Vec<_> = engine.range(..)?.collect::<Result<_>>()?;
    let backwards: Vec<_> = engine.range(..)?.rev().collect::<Result<_>>()?;
    assert!(forwards.iter().eq(backwards.iter().rev()), "both ways it is not the same");
    let found: Content = forwards.into_iter().collect();
    assert!(found == *expected, "it reads {} of {} entries, and no error", found.len(), expected.len());
    for (key, value) in expected.iter().step_by(7) {
        assert!(engine.get(key)?.is_some_and(|found| *found == **value), "a key is not found, and no error");
    }
    let some: Vec<_> = expected.keys().step_by(31).collect();
    let found = engine.multi_get(some.clone())?;
    assert!(found.iter().all(Option::is_some), "keys of many are not found, and no error");
    Ok(())
}

fn read(directory: &Path, options: Options) -> Result<()> {
    let engine = Engine::open(database(directory), options.clone())?;
    read_everything(&engine, &many())?;
    engine.close()?;
    let engine = Engine::open_read_only(database(directory), options.clone())?;
    read_everything(&engine, &many())?;
    engine.close()?;
    let digest = manage::digest(database(directory), &options)?;
    assert_eq!(digest.entries as usize, many().len(), "a digest of less than there is, and no error");
    let verified = manage::verify(database(directory), &options)?;
    if !verified.ok {
        // What verifying finds is told in its result, not as an error.
        return Err(Error::new(ErrorKind::Corrupt, "verify", verified.findings.join("; ")));
    }
    Ok(())
}

pub const WRITES: usize = 400;

/// The nth key that is written under load, and its value; few are overwritten.
pub fn written(number: usize) -> (Vec<u8>, Vec<u8>) {
    let key = format!("/load/{}/{number}", number % 13);
    (key.into_bytes(), vec![number as u8; 300 + number % 700])
}

/// Writes, flushes and compacts; after a failure it tries on, as a server may. Acknowledged is what returned well.
fn write_under_load(directory: &Path, options: Options) -> Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(acknowledged(directory)).unwrap();
    let engine = Engine::open(database(directory), options.write_buffer_bytes(64 << 10))?;
    let mut failed = None;
    for number in 0..WRITES {
        let (key, value) = written(number);
        match engine.put(key, value) {
            Ok(()) => log.write_all(format!("{number}\n").as_bytes()).unwrap(),
            Err(error) => drop(failed.get_or_insert(error)),
        }
        if number % 150 == 149
            && let Err(error) = engine.flush()
        {
            failed.get_or_insert(error);
        }
    }
    let closed = engine.close();
    failed.map_or(closed, Err)
}

/// What was acknowledged under load.
pub fn acknowledged_of(directory: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(acknowledged(directory)).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn load() -> Content {
    (0..300).map(|number| (format!("/loaded/{number:04}").into_bytes(), vec![number as u8; 200])).collect()
}

fn with_load() -> Content {
    let mut content = sample(scenario::COUNT);
    content.extend(load());
    content
}

pub const UNDER_LOAD: &str = "write under load";
pub const CHECKPOINT: &str = "checkpoint";

/// Everything that children do under faults.
pub fn all() -> Vec<Scenario> {
    let mut all = scenario::all();
    let natural = |directory: &Path| common::make(&database(directory), Arc::new(Natural), &sample(scenario::COUNT));
    for scenario in all.iter_mut().filter(|scenario| scenario.name == CHECKPOINT) {
        // Without a look into the copy, which is judged afterwards.
        scenario.act = |directory, options| {
            Engine::open(database(directory), options)?.checkpoint(directory.join("copy")).map(drop)
        };
    }
    all.push(Scenario {
        name: "convert many to hierarchical",
        prepare: Box::new(|directory| make_many(&database(directory), Arc::new(Natural))),
        act: |directory, options| convert(directory, options, Hierarchical),
        expect: Box::new(all_of_many),
    });
    all.push(Scenario {
        name: "convert many to natural",
        prepare: Box::new(|directory| make_many(&database(directory), Arc::new(Hierarchical))),
        act: |directory, options| convert(directory, options, Natural),
        expect: Box::new(all_of_many),
    });
    all.push(Scenario {
        name: "read",
        prepare: Box::new(|directory| make_many(&database(directory), Arc::new(Hierarchical))),
        act: read,
        expect: Box::new(all_of_many),
    });
    all.push(Scenario {
        name: UNDER_LOAD,
        prepare: Box::new(natural),
        act: write_under_load,
        expect: Box::new(|| unreachable!("what is expected there was acknowledged")),
    });
    all.push(Scenario {
        name: "bulk load",
        prepare: Box::new(natural),
        act: |directory, options| {
            let engine = Engine::open(database(directory), options)?;
            engine.ingest(load().iter().map(|(key, value)| Ok((key, value))))?;
            engine.close()
        },
        expect: Box::new(|| Expect::OneOf(vec![sample(scenario::COUNT), with_load()])),
    });
    all
}

/// The one of that name.
pub fn named(name: &str) -> Scenario {
    all().into_iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}
