//! Scans: what they show, in which order, in every encoding.

use crate::harness::Place;

const KEYS: [&str; 14] =
    ["", "a", "a/b", "/", "/a", "/a/", "/a/1", "/a/2", "/a/2/x", "/a//", "/a//b", "/ab", "/ab/1", "/ü/1"];
const ENCODINGS: [&str; 2] = ["natural", "hierarchical"];

fn keys(place: &Place, arguments: &[&str]) -> Vec<String> {
    place.run("scan", &[&["--keys-only"], arguments].concat()).expect(0).lines()
}

fn sorted(mut keys: Vec<String>) -> Vec<String> {
    keys.sort();
    keys
}

fn reversed(mut keys: Vec<String>) -> Vec<String> {
    keys.reverse();
    keys
}

#[test]
fn all_of_it_in_the_order_of_the_encoding() {
    let mut natural = KEYS.map(String::from).to_vec();
    natural.sort();
    assert_eq!(keys(&Place::with_keys("natural", &KEYS), &[]), natural);
    let place = Place::with_keys("hierarchical", &KEYS);
    let hierarchical = keys(&place, &[]);
    assert_eq!(sorted(hierarchical.clone()), natural);
    let at = |key: &str| hierarchical.iter().position(|found| found == key).unwrap();
    assert!(at("/ab") < at("/a/1") && at("/ab/1") < at("/a/2/x"), "{hierarchical:?}");
    assert_eq!(keys(&place, &["--reverse"]), reversed(hierarchical.clone()));
    assert_eq!(keys(&place, &["--limit", "3"]), hierarchical[..3]);
    assert_eq!(keys(&place, &["--limit", "0"]), [""; 0]);
}

#[test]
fn bounds_are_keys_in_the_order_of_the_encoding() {
    let place = Place::with_keys("natural", &KEYS);
    assert_eq!(keys(&place, &["--from", "/a/1", "--to", "/ab"]), ["/a/1", "/a/2", "/a/2/x"]);
    let place = Place::with_keys("hierarchical", &KEYS);
    assert_eq!(keys(&place, &["--from", "/ab/1", "--to", "/a/2"]), ["/ab/1", "/a/", "/a/1"]);
    assert_eq!(keys(&place, &["--from", "/ab/1", "--to", "/a/2", "--reverse", "--limit", "1"]), ["/a/1"]);
    assert_eq!(keys(&place, &["--from", "/a/1", "--to", "/ab/1"]), [""; 0]);
    assert_eq!(keys(&place, &["--from", "/a/", "--prefix", "/a/2"]), ["/a/2", "/a/2/x"]);
}

#[test]
fn a_prefix_holds_in_every_encoding() {
    for encoding in ENCODINGS {
        let place = Place::with_keys(encoding, &KEYS);
        for prefix in ["", "a", "/", "/a", "/a/", "/a//", "/a/2", "/ü", "zzz"] {
            let expected: Vec<String> =
                KEYS.iter().filter(|key| key.starts_with(prefix)).map(|key| key.to_string()).collect();
            let found = keys(&place, &["--prefix", prefix]);
            assert_eq!(sorted(found.clone()), sorted(expected), "{encoding} {prefix}");
            assert_eq!(keys(&place, &["--prefix", prefix, "--reverse"]), reversed(found), "{encoding} {prefix}");
        }
        assert_eq!(place.run("scan", &["--hex", "--prefix", "ff"]).expect(0).stdout, b"", "{encoding}");
    }
}

#[test]
fn children_are_direct_in_every_encoding() {
    for encoding in ENCODINGS {
        let place = Place::with_keys(encoding, &KEYS);
        for (path, expected) in [
            ("/a", &["/a/1", "/a/2"][..]),
            ("/a/", &["/a/1", "/a/2"]),
            ("/a//", &["/a//b"]),
            ("/ab", &["/ab/1"]),
            ("/ü", &["/ü/1"]),
            ("a", &["a/b"]),
            ("", &["/a", "/ab"]),
            ("/", &["/a", "/ab"]),
            ("/none", &[]),
        ] {
            let found = keys(&place, &["--children-of", path]);
            assert_eq!(found, expected, "{encoding} {path}");
            assert_eq!(keys(&place, &["--children-of", path, "--reverse"]), reversed(found), "{encoding} {path}");
        }
        assert_eq!(place.run("scan", &["--hex", "--children-of", "ff"]).expect(0).stdout, b"", "{encoding}");
        place.run("scan", &["--children-of", "/a", "--prefix", "/"]).expect(2);
    }
}

#[test]
fn lines_hold_no_control_characters_and_json_is_one_object() {
    let place = Place::with_keys("natural", &["tab\there", "line\nfeed", "back\\slash", "esc\u{1b}[2J"]);
    let lines = place.run("scan", &[]).expect(0).lines();
    assert_eq!(
        lines,
        [
            r"back\\slash\\\\".replace(r"\\\\", "\t") + r"back\\slash",
            "esc\\x1b[2J\tesc\\x1b[2J".into(),
            "line\\nfeed\tline\\nfeed".into(),
            "tab\\there\ttab\\there".into(),
        ]
    );
    let object = place.json("scan", &["--limit", "2"]);
    assert_eq!(object["count"], 2);
    assert_eq!(object["entries"][0], serde_json::json!({"key": "back\\slash", "value": "back\\slash"}));
    let object = place.json("scan", &["--keys-only", "--reverse", "--limit", "1"]);
    assert_eq!(object["entries"], serde_json::json!([{"key": "tab\there"}]));
    assert_eq!(place.json("scan", &["--prefix", "none"])["entries"], serde_json::json!([]));
}
