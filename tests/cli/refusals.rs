//! What is refused: each with exit code 2, a kind, and the next command to type.

use crate::harness::{Place, names, run, run_with};
use morphkv::{Engine, Options};

/// Runs the command with and without `--json`, and expects the same refusal both times.
fn refused(place: &Place, command: &str, arguments: &[&str], kind: &str, next: &str) -> String {
    let next = next.replace("DB", place.database.to_str().unwrap());
    let object = place.run(command, &[arguments, &["--json"]].concat()).error();
    assert_eq!((&object["kind"], &object["next"]), (&kind.into(), &next.as_str().into()), "{object}");
    let text = place.run(command, arguments).expect(2);
    assert_eq!(text.stdout, b"", "{command}: data only on stdout");
    assert!(text.stderr.starts_with("error: cannot "), "{}", text.stderr);
    assert!(text.stderr.contains(&format!("next: {next}")), "{}", text.stderr);
    assert!(text.stderr.contains(place.database.to_str().unwrap()), "the path: {}", text.stderr);
    text.stderr
}

#[test]
fn nothing_there() {
    let place = Place::new();
    for (command, arguments) in [
        ("get", &["k"][..]),
        ("put", &["k", "v"]),
        ("delete", &["k"]),
        ("scan", &[]),
        ("lookup", &["floor", "k"]),
        ("dump", &[]),
        ("digest", &[]),
        ("verify", &[]),
        ("convert", &["--to", "hierarchical"]),
        ("convert", &["--to", "hierarchical", "--dry-run"]),
    ] {
        refused(&place, command, arguments, "NotFound", "morphkv create DB --encoding natural");
    }
    assert_eq!(names(place.directory.path()), ["db.lock"], "and nothing is made");
    let lost = run(&["get", "/no/such/parent/db", "k", "--json"]).error();
    assert_eq!(lost["kind"], "NotFound");
}

#[test]
fn a_second_opener() {
    let place = Place::with_keys("natural", &["k"]);
    let held = Engine::open(&place.database, Options::new()).unwrap();
    for (command, arguments) in [
        ("get", &["k"][..]),
        ("put", &["k", "v"]),
        ("dump", &[]),
        ("convert", &["--to", "hierarchical"]),
        ("recover", &[]),
        ("rollback", &["-y"]),
        ("drop-backup", &["-y"]),
        ("destroy", &["-y"]),
        ("adopt", &["--encoding", "natural"]),
        ("create", &["--encoding", "natural"]),
        ("load", &[]),
    ] {
        let text = refused(&place, command, arguments, "Locked", "morphkv inspect DB");
        assert!(text.contains(&format!("pid {}", std::process::id())), "who holds it: {text}");
        assert!(text.contains("data: intact"), "{text}");
    }
    assert_eq!(place.json("inspect", &[])["state"], "whole", "inspecting needs no lock");
    held.close().unwrap();
    place.run("get", &["k"]).expect(0);
}

#[test]
fn a_plain_rocksdb_database_wants_to_be_adopted() {
    let place = Place::with_keys("natural", &["k"]);
    std::fs::remove_file(place.database.join("KEY_ENCODING")).unwrap();
    for (command, arguments) in [("get", &["k"][..]), ("convert", &["--to", "hierarchical"]), ("recover", &[])] {
        let text = refused(&place, command, arguments, "Refused", "morphkv adopt DB --encoding natural");
        assert!(text.contains("the data is intact"), "{text}");
    }
    let seen = place.json("inspect", &[]);
    assert_eq!((&seen["state"], &seen["next_action"]), (&"refused".into(), &"refuse, and touch nothing".into()));
    assert!(seen["reason"].as_str().unwrap().contains("without a marker"), "{seen}");
    assert_eq!(place.run("recover", &["--dry-run", "--json"]).error()["kind"], "Refused");
    place.run("adopt", &["--encoding", "natural"]).expect(0);
    assert_eq!(place.run("get", &["k"]).expect(0).stdout, b"k\n");
    assert_eq!(place.run("adopt", &["--encoding", "natural", "--json"]).error()["kind"], "Conflict");
}

#[test]
fn adopting_in_the_wrong_encoding() {
    let place = Place::with_keys("natural", &["k"]);
    std::fs::remove_file(place.database.join("KEY_ENCODING")).unwrap();
    let error = place.run("adopt", &["--encoding", "hierarchical", "--json"]).error();
    assert!(error["next"].as_str().unwrap().contains("--encoding natural"), "{error}");
    place.run("adopt", &["--encoding", "natural"]).expect(0);
}

#[test]
fn a_torn_marker() {
    let place = Place::with_keys("natural", &["k"]);
    let marker = place.database.join("KEY_ENCODING");
    let whole = std::fs::read(&marker).unwrap();
    std::fs::write(&marker, &whole[..whole.len() / 2]).unwrap();
    for (command, arguments) in [("get", &["k"][..]), ("put", &["k", "v"]), ("verify", &[])] {
        let text = refused(&place, command, arguments, "Refused", "morphkv inspect DB");
        assert!(text.contains("the data is intact, nothing was touched"), "{text}");
    }
    assert_eq!(place.json("inspect", &[])["state"], "refused");
    std::fs::write(&marker, whole).unwrap();
    assert_eq!(place.run("get", &["k"]).expect(0).stdout, b"k\n");
}

#[test]
fn a_database_that_is_there_already() {
    let place = Place::with_keys("natural", &["k"]);
    let error = place.run("create", &["--encoding", "natural", "--json"]).error();
    assert_eq!(error["kind"], "Conflict");
    assert_eq!(place.run("get", &["k"]).expect(0).stdout, b"k\n");
}

#[test]
fn another_encoding_than_the_databases() {
    let place = Place::with_keys("natural", &["k"]);
    refused(&place, "load", &["--encoding", "hierarchical"], "Conflict", "morphkv convert DB --to hierarchical");
    assert_eq!(place.json("inspect", &[])["encoding"], "natural", "loading converts nothing");
    place.run("load", &["--encoding", "natural"]).expect(0);
}

#[test]
fn keys_that_the_encoding_cannot_carry() {
    let place = Place::with_database("natural");
    place.run("put", &["--hex", "ff61", "00"]).expect(0);
    let error = place.run("convert", &["--to", "hierarchical", "--json"]).error();
    assert_eq!(error["kind"], "Unrepresentable");
    assert!(error["message"].as_str().unwrap().contains("\\xffa"), "it names the key: {error}");
    assert_eq!(place.run("get", &["--hex", "ff61"]).expect(0).text(), "00\n");
    assert_eq!(names(place.directory.path()), ["db", "db.lock"]);
    let place = Place::with_database("hierarchical");
    assert_eq!(place.run("put", &["--hex", "ff", "00", "--json"]).error()["kind"], "Unrepresentable");
}

#[test]
fn a_reserved_name() {
    let place = Place::new();
    let path = place.beside(".backup");
    let error = run(&["create", path.to_str().unwrap(), "--encoding", "natural", "--json"]).error();
    assert_eq!(error["kind"], "InvalidArgument");
    assert!(error["message"].as_str().unwrap().contains("reserved"), "{error}");
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let place = Place::with_database("natural");
    for (command, arguments) in [
        ("get", &[][..]),
        ("convert", &["--to", "zigzag"]),
        ("convert", &["--to", "hierarchical", "--threads", "0"]),
        ("convert", &["--to", "hierarchical", "--memory", "1"]),
        ("scan", &["--limit", "-1"]),
        ("scan", &["--no-such-flag"]),
        ("dump", &["--format", "xml"]),
        ("put", &["k", "v", "-q", "-v"]),
    ] {
        let text = place.run(command, arguments).expect(2);
        assert!(text.stderr.starts_with("error: ") && text.stdout.is_empty(), "{}", text.stderr);
        let object = place.run(command, &[arguments, &["--json"]].concat()).error();
        assert_eq!(object["kind"], "InvalidArgument", "{object}");
    }
    run(&["no-such-command"]).expect(2);
}

#[test]
fn no_colours_without_a_terminal_or_with_no_color() {
    let place = Place::new();
    assert!(!place.run("get", &["k"]).expect(2).stderr.contains('\u{1b}'));
    let forced = run_with(|run| {
        run.arg("get").arg(&place.database).arg("k").env("CLICOLOR_FORCE", "1");
    });
    assert!(forced.expect(2).stderr.contains('\u{1b}'));
}
