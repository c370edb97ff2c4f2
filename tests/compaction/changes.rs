//! Who wrote or deleted a key, and when: what the log says is what the model knows.

use crate::common::Content;
use crate::common::figures::{Figures, scale};
use crate::history::history;
use crate::source::{Source, State};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::log_backup::changes::{Change, Found, Keys, Question, changes};
use morphkv::log_backup::names;
use morphkv::{ErrorKind, Options};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

fn ask(source: &Source, keys: Keys, from: Option<u64>, to: Option<u64>) -> Vec<Found> {
    let mut all = Vec::new();
    let question = Question { keys, from, to };
    changes(&source.archive, &question, &Options::new(), &mut |found| {
        all.push(found);
        Ok(())
    })
    .unwrap();
    all
}

/// What the changes so far say of a key.
#[derive(Clone, PartialEq, Debug)]
enum Known {
    Is(Option<Vec<u8>>),
    /// A load may hold it.
    Unknown,
}

/// The states of the model, one after the other, against what was found of one key.
fn check_key(source: &Source, key: &[u8], found: &[Found]) -> (usize, usize) {
    let lines: Vec<_> = source.states.iter().map(|state| state.timeline).fold(Vec::new(), |mut lines, timeline| {
        if lines.last() != Some(&timeline) {
            lines.push(timeline);
        }
        lines
    });
    let place = |timeline, sequence: u64| (lines.iter().position(|line| *line == timeline).unwrap(), sequence);
    let (mut known, mut next, mut compared, mut unknown) = (Known::Is(None), found.iter().peekable(), 0, 0);
    for State { timeline, sequence, content, .. } in &source.states {
        while let Some(found) =
            next.next_if(|found| place(found.timeline, found.sequence) <= place(*timeline, *sequence))
        {
            known = match &found.change {
                Change::Put { value, .. } => Known::Is(Some(value.clone())),
                Change::Delete { .. } | Change::DeleteRange { .. } => Known::Is(None),
                Change::Load { .. } => Known::Unknown,
                Change::Begun { .. } => panic!("no such timeline here"),
            };
        }
        match &known {
            Known::Is(known) => {
                assert_eq!(
                    known.as_ref(),
                    content.get(key),
                    "{:?} at {sequence} of {timeline}",
                    String::from_utf8_lossy(key)
                );
                compared += 1;
            }
            Known::Unknown => unknown += 1,
        }
    }
    assert!(next.peek().is_none(), "changes after the last state: {:?}", next.peek());
    (compared, unknown)
}

fn touches(found: &Found, test: impl Fn(&[u8]) -> bool) -> Option<bool> {
    match &found.change {
        Change::Put { key, .. } | Change::Delete { key } => Some(test(key.key.as_ref().unwrap())),
        _ => None,
    }
}

#[test]
fn what_is_found_of_each_key_of_random_histories_is_what_happened() {
    let figures = Figures::new("changes");
    let (mut compared, mut unknown, mut keys_asked) = (0, 0, 0);
    for seed in 0..scale(12, 100) {
        let (source, mut random) = history(7000 + seed, 60);
        let all = ask(&source, Keys::All, None, None);
        assert!(all.windows(2).all(|pair| pair[0].time <= pair[1].time));
        let mut keys: BTreeSet<Vec<u8>> =
            source.states.iter().flat_map(|state| state.content.keys().cloned()).collect();
        keys.insert(b"/never/written".to_vec());
        for key in keys.iter().step_by(1 + keys.len() / 20) {
            let found = ask(&source, Keys::One(key.clone()), None, None);
            let (a, b) = check_key(&source, key, &found);
            (compared, unknown, keys_asked) = (compared + a, unknown + b, keys_asked + 1);
            // What is narrowed by time is the same, cut.
            let times = [random.below(all.len()), random.below(all.len())].map(|index| all[index].time);
            let (from, to) = (times[0].min(times[1]), times[0].max(times[1]));
            let cut: Vec<_> = found.iter().filter(|found| found.time >= from && found.time <= to).cloned().collect();
            assert_eq!(ask(&source, Keys::One(key.clone()), Some(from), Some(to)), cut, "seed {seed}");
            // A prefix finds all that it should; ranges and loads of it are among all there are.
            let prefix = &key[..key.len().min(3)];
            let of_prefix = ask(&source, Keys::Prefix(prefix.to_vec()), None, None);
            let points = |all: &[Found]| -> Vec<Found> {
                all.iter()
                    .filter(|found| touches(found, |key| key.starts_with(prefix)) == Some(true))
                    .cloned()
                    .collect()
            };
            assert_eq!(points(&of_prefix), points(&all), "seed {seed}");
            assert!(of_prefix.iter().all(|found| touches(found, |key| key.starts_with(prefix)) != Some(false)));
            assert!(found.iter().all(|found| of_prefix.iter().any(|other| other.sequence == found.sequence)));
        }
    }
    figures
        .with("keys asked for", keys_asked)
        .with("states compared", compared)
        .with("unknown for a load", unknown)
        .print();
    assert!(compared > 4 * unknown && compared > 2000, "{compared} {unknown}");
}

/// Puts, a deletion by range, a load, a conversion, and a deletion in the new encoding.
fn small() -> Source {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 2;
    source.put("/dir/a", "1");
    source.put("/dir/b", "2");
    source.put("/else", "3");
    source.engine().delete_range("/dir/".."/dir/b").unwrap();
    source.remove_range(b"/dir/", b"/dir/b");
    source.note();
    source.clock.advance(1);
    let loaded: Content = [(b"/dir/a".to_vec(), b"loaded".to_vec()), (b"/dir/z".to_vec(), b"loaded".to_vec())].into();
    source.ingest(loaded);
    source.clock.advance(1);
    source.convert(Arc::new(Hierarchical));
    source.put("/dir/b", "4");
    source.engine().delete("/dir/b").unwrap();
    source.clock.advance(1);
    source.engine().delete_range("/dir/".."/dir//").unwrap();
    source.clock.advance(1);
    source.ship(None);
    source
}

fn cli(source: &Source, arguments: &[&str], code: i32) -> (Value, String) {
    let run = |json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_morphkv"));
        command.args(["archive", "changes", source.archive.url()]).args(arguments).env_remove("MORPHKV_TRAP");
        let done = if json { command.arg("--json") } else { &mut command }.output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {stderr}");
        (String::from_utf8(done.stdout).unwrap(), stderr)
    };
    let (out, errors) = run(true);
    let json = if code == 2 { errors.lines().last().unwrap_or_default() } else { &out };
    (serde_json::from_str(json).unwrap(), run(false).0)
}

#[test]
fn the_command_line_tells_puts_deletions_loads_and_ranges_over_a_conversion() {
    let source = small();
    let (found, text) = cli(&source, &["--key", "/dir/b"], 0);
    let kinds = |found: &Value| -> Vec<String> {
        found["changes"].as_array().unwrap().iter().map(|change| change["change"].as_str().unwrap().into()).collect()
    };
    assert_eq!(kinds(&found), ["put", "load", "put", "delete", "delete-range"], "{found}");
    assert_eq!((&found["count"], &found["schema"]), (&json!(5), &json!(1)));
    let last = &found["changes"][4];
    assert_eq!(
        (&last["from"], &last["to"], &last["timeline"]),
        (&"/dir/".into(), &"/dir//".into(), &source.timeline.to_string().into())
    );
    assert_eq!(last["time_microseconds"], json!(source.clock.now() - 1));
    assert!(last["time"].as_str().unwrap().starts_with("2023-11-14T"), "{last}");
    let load = &found["changes"][1];
    assert_eq!((&load["first"], &load["last"], &load["entries"]), (&"/dir/a".into(), &"/dir/z".into(), &json!(2)));
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().nth(2).unwrap().ends_with("\tput\t/dir/b\t4"), "{text}");
    let (found, text) = cli(&source, &["--key", "2f6469722f62", "--hex"], 0);
    assert_eq!((kinds(&found).len(), &found["changes"][0]["key_hex"]), (5, &"2f6469722f62".into()));
    assert!(text.lines().next().unwrap().ends_with("\tput\t2f6469722f62\t32"), "{text}");
    let (found, _) = cli(&source, &["--key", "/dir/a"], 0);
    assert_eq!(kinds(&found), ["put", "delete-range", "load", "delete-range"]);
    let (found, _) = cli(&source, &["--prefix", "/el"], 0);
    assert_eq!(kinds(&found), ["put"]);
    let conversion = source.states.iter().find(|state| state.timeline == source.timeline).unwrap().time;
    let (found, _) = cli(&source, &["--prefix", "/dir", "--from", &conversion.to_string()], 0);
    assert_eq!(kinds(&found), ["put", "delete", "delete-range"]);
    let (found, _) = cli(&source, &["--to", &source.states[1].time.to_string()], 0);
    assert_eq!(kinds(&found), ["put"]);
    let (found, _) = cli(&source, &["--key", "/nothing"], 0);
    assert_eq!((kinds(&found).len(), &found["count"]), (0, &json!(0)));
    let (error, _) = cli(&source, &["--from", "latest"], 2);
    assert_eq!(error["kind"], "InvalidArgument");
    assert_eq!(std::fs::read_dir(source.directory.path().join("archive/v1/pins")).map_or(0, Iterator::count), 0);
}

/// The operations of a batch have numbers of their own, and its time.
#[test]
fn each_change_has_its_place_in_the_log() {
    let mut source = Source::new(Arc::new(Natural));
    source.put("/first", "1");
    let before = source.states.last().unwrap().clone();
    let mut batch = source.engine().batch();
    batch.put("/a", "1").unwrap();
    batch.put_internal("/a", "not a key");
    batch.delete("/b").unwrap();
    batch.delete_range("/c".."/d").unwrap();
    batch.put("/e", "2").unwrap();
    batch.commit().unwrap();
    let time = source.clock.now();
    source.clock.advance(1);
    source.ship(None);
    let found = ask(&source, Keys::All, None, None);
    let places: Vec<_> = found.iter().map(|found| (found.sequence, found.time, found.timeline)).collect();
    let expected = [0, 1, 3, 4, 5].map(|number| {
        let time = if number == 0 { before.time } else { time };
        (before.sequence + number, time, source.timeline)
    });
    assert_eq!(places, expected);
}

#[test]
fn a_segment_that_is_missing_or_damaged_is_an_error_and_only_what_is_asked_for_is_read() {
    let source = small();
    let all = ask(&source, Keys::All, None, None);
    let parent = source.states[0].timeline;
    let path = |number| source.directory.path().join("archive").join(names::segment(parent, number).unwrap().as_str());
    let question = Question { keys: Keys::All, from: None, to: None };
    let asked = |question: &Question| changes(&source.archive, question, &Options::new(), &mut |_| Ok(()));
    let second = path(2);
    let good = std::fs::read(&second).unwrap();
    std::fs::remove_file(&second).unwrap();
    assert_eq!(asked(&question).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    std::fs::write(&second, flipped).unwrap();
    assert_eq!(asked(&question).unwrap_err().kind(), ErrorKind::Corrupt);
    // Times after it do not need its contents.
    let later = Question { from: all.last().map(|found| found.time), ..question.clone() };
    asked(&later).unwrap();
    std::fs::write(&second, good).unwrap();
    asked(&question).unwrap();
}
