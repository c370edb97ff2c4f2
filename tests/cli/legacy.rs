//! Databases from before the marker: they can be read and converted, not written.

use crate::common;
use crate::harness::Place;
use morphkv::Durability;
use morphkv::encoding::{Comparator, Natural};
use morphkv::testing::{Database, Family, Settings};
use std::sync::Arc;

fn legacy(content: &common::Content) -> Place {
    let place = Place::new();
    std::fs::create_dir(&place.database).unwrap();
    let settings = Settings { comparator: Comparator::SlashSpans, ..Settings::default() };
    let database = Database::create_data_only(&place.database, &settings).unwrap();
    for (key, value) in content {
        database.put(Family::Data, key, value, Durability::Buffered).unwrap();
    }
    database.close().unwrap();
    place
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// What `scan` shows of keys with control characters cannot be typed.
fn typed(shown: &str) -> String {
    assert!(!shown.contains('\\'), "choose another one than {shown}");
    shown.to_owned()
}

#[test]
fn it_is_read_as_it_is_and_converted() {
    let content = common::sample(300);
    let place = legacy(&content);
    let natural = Place::new();
    common::make(&natural.database, Arc::new(Natural), &content);

    let seen = place.json("inspect", &[]);
    assert_eq!((&seen["state"], &seen["encoding"]), (&"legacy".into(), &"slash-spans".into()));
    let digest = natural.json("digest", &[]);
    assert_eq!(place.json("digest", &[]), digest);
    assert_eq!(place.json("verify", &[])["ok"], true);
    assert_eq!(place.run("get", &["plain-2"]).expect(0).text(), "value of 2\n");
    let dump = sorted(natural.run("dump", &[]).expect(0).lines());
    assert_eq!(sorted(place.run("dump", &[]).expect(0).lines()), dump);
    for selection in [["--children-of", "/users/12"], ["--prefix", "/users/1"]] {
        let expected = sorted(natural.run("scan", &selection).expect(0).lines());
        assert!(!expected.is_empty());
        assert_eq!(sorted(place.run("scan", &selection).expect(0).lines()), expected, "{selection:?}");
    }

    let all = place.run("scan", &["--keys-only"]).expect(0).lines();
    let [first, last] = [&all[50], &all[200]].map(|key| typed(key));
    let within = place.run("scan", &["--keys-only", "--from", &first, "--to", &last]).expect(0).lines();
    assert_eq!(within, all[50..200], "bounds in an order that is not that of bytes");
    let back = ["--keys-only", "--reverse", "--from", &first, "--to", &last, "--limit", "2"];
    assert_eq!(place.run("scan", &back).expect(0).lines(), [all[199].clone(), all[198].clone()]);
    for (comparison, expected) in [("lower", 99), ("floor", 100), ("ceiling", 100), ("higher", 101)] {
        let line = place.run("lookup", &[comparison, &typed(&all[100])]).expect(0).text();
        assert_eq!(line.split('\t').next().unwrap(), all[expected], "{comparison}");
    }

    let error = place.run("put", &["k", "v", "--json"]).error();
    assert_eq!(error["kind"], "Refused");
    assert!(error["next"].as_str().unwrap().contains("convert"), "{error}");
    assert_eq!(place.json("convert", &["--to", "hierarchical"])["from"], "slash-spans r1");
    assert_eq!(place.json("digest", &[]), digest);
    assert_eq!(sorted(place.run("dump", &[]).expect(0).lines()), dump);
}
