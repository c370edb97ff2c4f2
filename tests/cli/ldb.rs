//! RocksDB's own tool and this one read each other's data. Without `ldb` (Debian: rocksdb-tools) it is skipped, and says so.

use crate::harness::Place;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether the tool is there; where it is not, the reason is printed.
fn has_ldb() -> bool {
    let there = Command::new("ldb").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("skipped: there is no `ldb` on this machine (Debian: apt-get install rocksdb-tools)");
    }
    there
}

fn ldb(database: &Path, arguments: &[&str], stdin: &str) -> String {
    let mut child = Command::new("ldb")
        // An `ldb` older than the RocksDB that wrote the database does not know all of its options.
        .args(["--ignore_unknown_options", "--hex"])
        .arg(format!("--db={}", database.display()))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// The entries of a dump, without the remarks that `ldb` makes in between.
fn entries(dump: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = dump.lines().filter(|line| line.starts_with("0x")).collect();
    lines.sort_unstable();
    lines
}

fn lines(count: u32) -> String {
    let line = |number: u32| {
        let key: String =
            format!("/tenant{}/{number}", number % 13).bytes().map(|byte| format!("{byte:02X}")).collect();
        format!("0x{key} ==> 0x{number:08X}\n")
    };
    (0..count).rev().map(line).collect::<String>() + "0x00 ==> 0x\n"
}

#[test]
fn a_database_of_rocksdbs_own_tool_is_adopted_and_converted_there_and_back() {
    if !has_ldb() {
        return;
    }
    let place = Place::new();
    ldb(&place.database, &["load", "--create_if_missing"], &lines(3000));
    let before = ldb(&place.database, &["dump"], "");
    assert_eq!(entries(&before).len(), 3001);

    let refused = place.run("get", &["k", "--json"]).error();
    assert!(refused["next"].as_str().unwrap().contains("adopt"), "{refused}");
    let wrong = place.run("adopt", &["--encoding", "hierarchical", "--json"]).error();
    assert_eq!(wrong["kind"], "Corrupt");
    assert!(wrong["next"].as_str().unwrap().ends_with("--encoding natural"), "{wrong}");
    place.run("adopt", &["--encoding", "natural"]).expect(0);
    let digest = place.json("digest", &[]);
    assert_eq!(digest["entries"], 3001);
    assert_eq!(entries(&place.run("dump", &["--format", "ldb-hex"]).expect(0).text()), entries(&before));

    place.run("convert", &["--to", "hierarchical"]).expect(0);
    assert_eq!(place.json("digest", &[]), digest);
    assert_eq!(entries(&place.run("dump", &["--format", "ldb-hex"]).expect(0).text()), entries(&before));

    place.run("convert", &["--to", "natural"]).expect(0);
    assert_eq!(place.json("digest", &[]), digest);
    assert_eq!(entries(&ldb(&place.database, &["dump"], "")), entries(&before));
}

#[test]
fn each_loads_what_the_other_dumps() {
    if !has_ldb() {
        return;
    }
    let ours = Place::new();
    ours.feed("load", &["--encoding", "hierarchical", "--format", "ldb-hex"], lines(500).as_bytes()).expect(0);
    let dump = ours.run("dump", &["--format", "ldb-hex"]).expect(0).text();
    let theirs = Place::new();
    ldb(&theirs.database, &["load", "--create_if_missing"], &dump);
    let dumped = ldb(&theirs.database, &["dump"], "");
    assert_eq!(entries(&dumped), entries(&dump));
    // With the remarks that `ldb` makes.
    let again = Place::new();
    again.feed("load", &["--format", "ldb-hex"], dumped.as_bytes()).expect(0);
    assert_eq!(again.json("digest", &[]), ours.json("digest", &[]));
}
