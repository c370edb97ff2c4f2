//! `dump` and `load`: nothing is lost on the way, and hostile lines are refused by their numbers.

use crate::common;
use crate::harness::{Place, names};
use morphkv::{Engine, Options};

fn place_with(encoding: &str, content: &common::Content) -> Place {
    let place = Place::new();
    let encoding = morphkv::encoding::Encodings::builtin().by_name(encoding).unwrap();
    common::make(&place.database, encoding, content);
    place
}

fn content(place: &Place) -> common::Content {
    common::content(&Engine::open_read_only(&place.database, Options::new()).unwrap())
}

/// Keys of every kind but those with 0xFF.
fn odd_content() -> common::Content {
    let mut content = common::sample(300);
    for (key, value) in
        [(&b"\xfe\x00"[..], &b"\xff\xff"[..]), (b"a\nb\t", b" ==> "), (b"\"\\", b""), (b"0x61", b"\r\n")]
    {
        content.insert(key.to_vec(), value.to_vec());
    }
    content
}

#[test]
fn everything_survives_every_format_and_encoding_in_any_order() {
    let content = odd_content();
    for format in ["jsonl", "ldb-hex"] {
        for (from, to) in [("natural", "hierarchical"), ("hierarchical", "natural"), ("natural", "natural")] {
            let source = place_with(from, &content);
            let dump = source.run("dump", &["--format", format]).expect(0);
            let mut lines = dump.lines();
            assert_eq!(lines.len(), content.len());
            lines.reverse();
            let shuffled = lines.join("\n");
            let target = Place::new();
            let loaded = target.feed("load", &["--format", format, "--encoding", to, "--json"], shuffled.as_bytes());
            let loaded = loaded.expect(0).object();
            assert_eq!((&loaded["entries"], &loaded["encoding"]), (&content.len().into(), &format!("{to} r1").into()));
            assert_eq!(self::content(&target), content, "{format}, {from} to {to}");
            assert_eq!(source.json("digest", &[]), target.json("digest", &[]));
            // Loading again does no harm.
            target.feed("load", &["--format", format], shuffled.as_bytes()).expect(0);
            assert_eq!(source.json("digest", &[]), target.json("digest", &[]));
        }
    }
}

#[test]
fn lines_come_from_a_file_too_and_the_last_of_a_key_counts() {
    let place = Place::new();
    let file = place.directory.path().join("entries");
    std::fs::write(&file, "{\"key\":\"k\",\"value\":\"1\"}\n\n{\"key_hex\":\"6B\",\"value\":\"2\"}\r\n").unwrap();
    let text = place.run("load", &[file.to_str().unwrap()]).expect(0).text();
    assert!(text.contains("loaded 2 entries") && text.contains("natural r1"), "{text}");
    assert_eq!(place.run("dump", &[]).expect(0).text(), "{\"key\":\"k\",\"value\":\"2\"}\n");
    assert_eq!(place.run("dump", &["--hex"]).expect(0).text(), "{\"key_hex\":\"6b\",\"value_hex\":\"32\"}\n");
    assert_eq!(place.run("dump", &["--format", "ldb-hex"]).expect(0).text(), "0x6B ==> 0x32\n");
    let missing = place.run("load", &["/no/such/file", "--json"]).error();
    assert_eq!((&missing["kind"], &missing["path"]), (&"NotFound".into(), &"/no/such/file".into()));
}

#[test]
fn loading_nothing_makes_an_empty_database() {
    let place = Place::new();
    place.feed("load", &["--encoding", "hierarchical"], b"").expect(0);
    let seen = place.json("inspect", &[]);
    assert_eq!((&seen["encoding"], &seen["state"]), (&"hierarchical".into(), &"whole".into()));
    assert_eq!(place.run("dump", &[]).expect(0).stdout, b"");
}

#[test]
fn a_bad_first_line_makes_nothing() {
    let huge = vec![b'x'; 3 << 20];
    let good = "{\"key\":\"k\",\"value\":\"v\"}\n".as_bytes();
    for (format, lines, line, words) in [
        ("jsonl", b"junk".to_vec(), 1, "it is no JSON object"),
        ("jsonl", [good, b"{\"key\":\"k\"}"].concat(), 2, "neither value nor value_hex"),
        ("jsonl", [good, good, b"{\"key_hex\":\"6\",\"value\":\"\"}"].concat(), 3, "two digits a byte"),
        ("jsonl", b"{\"key\":\"\xff\",\"value\":\"\"}".to_vec(), 1, "unicode"),
        ("jsonl", [good, &b"{\"key\":".repeat(100_000)].concat(), 2, "at column"),
        ("jsonl", huge.clone(), 1, "longer than 1 MiB (--max-line)"),
        ("ldb-hex", b"0x61 ==> 0x62\n0x61 = 0x62".to_vec(), 2, "there is no ` ==> `"),
        ("ldb-hex", b"0x61 ==> 0xzz".to_vec(), 1, "`z` is no hexadecimal digit"),
        ("ldb-hex", huge, 1, "longer than 1 MiB"),
    ] {
        let place = Place::new();
        let arguments = ["--format", format, "--max-line", "1", "--json"];
        let error = place.feed("load", &arguments, &lines).error();
        let message = error["message"].as_str().unwrap();
        assert_eq!(error["kind"], "InvalidArgument", "{error}");
        assert!(message.contains(&format!("line {line}: ")) && message.contains(words), "{message}");
        assert!(message.ends_with("nothing was loaded"), "{message}");
        assert_eq!(names(place.directory.path()), [""; 0], "{message}");
    }
}

#[test]
fn a_bad_line_later_tells_what_is_loaded() {
    let place = Place::new();
    let line = |number: usize| format!("{{\"key\":\"{number:06}\",\"value\":\"{}\"}}\n", "v".repeat(500));
    let mut lines: String = (0..5000).map(line).collect();
    lines.push_str("junk\n");
    lines.push_str(&line(9999));
    let error = place.feed("load", &["--json"], lines.as_bytes()).error();
    let message = error["message"].as_str().unwrap();
    let loaded = content(&place);
    assert!(message.contains("line 5001: ") && !loaded.is_empty() && loaded.len() < 5000, "{message}");
    let counted = format!("{},{:03}", loaded.len() / 1000, loaded.len() % 1000);
    assert!(message.contains(&format!("the first {counted} entries are loaded")), "{} {message}", loaded.len());
    assert!(
        loaded
            .keys()
            .eq((0..loaded.len()).map(|number| format!("{number:06}").into_bytes()).collect::<Vec<_>>().iter())
    );
}

#[test]
fn a_key_that_the_encoding_cannot_carry_is_named_by_its_line() {
    let place = Place::new();
    let lines = b"{\"key\":\"a\",\"value\":\"\"}\n{\"key_hex\":\"ff\",\"value\":\"\"}\n";
    let error = place.feed("load", &["--encoding", "hierarchical", "--json"], lines).error();
    assert_eq!(error["kind"], "Unrepresentable");
    assert!(error["message"].as_str().unwrap().contains("line 2: "), "{error}");
}
