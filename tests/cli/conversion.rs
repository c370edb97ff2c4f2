//! Conversions, and what is done about interrupted and regretted ones.

use crate::common;
use crate::harness::{BINARY, Place, names};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A database in natural order with `count` keys and more.
fn filled(count: usize) -> Place {
    let place = Place::new();
    common::make(&place.database, Arc::new(morphkv::encoding::Natural), &common::sample(count));
    place
}

#[test]
fn a_conversion_reports_and_a_second_one_does_nothing() {
    let place = filled(600);
    let digest = place.json("digest", &[]);
    let planned = place.json("convert", &["--to", "hierarchical", "--dry-run"]);
    assert_eq!(
        (&planned["dry_run"], &planned["converts"], &planned["enough_room"]),
        (&true.into(), &true.into(), &true.into())
    );
    assert!(
        planned["free_bytes"].as_u64() > planned["needed_bytes"].as_u64() && planned["needed_bytes"].as_u64() > Some(0)
    );
    assert_eq!(place.json("inspect", &[])["encoding"], "natural", "a dry run changes nothing");

    let report =
        place.json("convert", &["--to", "hierarchical", "--threads", "2", "--memory", "16", "--verify", "counts"]);
    assert_eq!((&report["converted"], &report["resumed"]), (&true.into(), &false.into()));
    assert_eq!((&report["from"], &report["to"]), (&"natural r1".into(), &"hierarchical r1".into()));
    assert_eq!((&report["entries"], &report["digest"]), (&digest["entries"], &digest["digest"]));
    for field in ["bytes_read", "bytes_written", "overflow_entries"] {
        assert!(report[field].is_u64(), "{field} in {report}");
    }
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(place.json("digest", &[]), digest);

    let nothing = place.json("convert", &["--to", "hierarchical"]);
    let fields = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&nothing), fields(&report), "the same fields, whether or not there was something to do");
    assert_eq!((&nothing["converted"], &nothing["to"]), (&false.into(), &"hierarchical r1".into()));
    assert_eq!(place.json("convert", &["--to", "hierarchical", "--dry-run"])["converts"], false);

    let text = place.run("convert", &["--to", "natural"]).expect(0).text();
    assert!(text.contains("from hierarchical r1 to natural r1") && text.contains("entries"), "{text}");
    assert!(place.run("convert", &["--to", "natural"]).expect(0).text().contains("nothing to do"));
    assert_eq!(place.json("digest", &[]), digest);
    assert_eq!(place.json("verify", &[])["ok"], true);
    assert_eq!(names(place.directory.path()), ["db", "db.lock"]);
}

#[test]
fn progress_goes_to_stderr_as_json_lines() {
    let place = filled(600);
    let answer = place.run("convert", &["--to", "hierarchical", "--json"]).expect(0);
    let lines: Vec<Value> = answer.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let phases: Vec<&str> = lines.iter().filter_map(|line| line["phase"].as_str()).collect();
    assert!(phases.contains(&"rewrite") && phases.contains(&"verify"), "{lines:?}");
    assert!(lines.iter().all(|line| line["event"] == "progress" && line["bytes_total"].is_u64()), "{lines:?}");
    assert_eq!(place.run("convert", &["--to", "natural"]).expect(0).stderr, "", "no terminal, and no 10 seconds");
}

#[test]
fn a_kept_old_database_comes_back_or_goes() {
    let place = filled(200);
    let digest = place.json("digest", &[]);
    place.run("convert", &["--to", "hierarchical", "--keep-backup"]).expect(0);
    assert_eq!(place.json("inspect", &[])["state"], "kept");
    assert_eq!(place.json("recover", &[])["actions"], serde_json::json!([]), "kept is at rest");
    let refused = place.run("convert", &["--to", "natural", "--json"]).error();
    assert_eq!(refused["kind"], "Conflict");
    assert!(refused["next"].as_str().unwrap().contains("drop-backup"), "{refused}");
    place.run("put", &["later", "1"]).expect(0);
    place.run("put", &["later", "2"]).expect(0);
    let asked = place.run("rollback", &[]).expect(2).stderr;
    assert!(asked.contains("loses 2 writes") && asked.contains("rollback") && asked.contains("-y"), "{asked}");
    assert_eq!(place.json("inspect", &[])["state"], "kept", "nothing was touched");
    let done = place.json("rollback", &["-y"]);
    assert_eq!((&done["encoding"], &done["lost_writes"]), (&"natural r1".into(), &2.into()));
    assert_eq!(place.json("digest", &[]), digest);
    assert_eq!(place.run("rollback", &["-y", "--json"]).error()["kind"], "NotFound");

    place.run("convert", &["--to", "hierarchical", "--keep-backup"]).expect(0);
    let asked = place.run("drop-backup", &[]).expect(2).stderr;
    assert!(asked.contains(&format!("morphkv drop-backup {} -y", place.database.display())), "{asked}");
    assert!(place.beside(".backup").exists());
    assert_eq!(place.json("drop-backup", &["-y"])["dropped"], true);
    assert!(!place.beside(".backup").exists());
    assert_eq!(place.run("drop-backup", &["-y", "--json"]).error()["kind"], "NotFound");
    assert_eq!(place.json("digest", &[]), digest);
}

/// Converts in a process of its own, and kills it as soon as something stands at the staging directory's name.
fn killed_while_building(place: &Place) -> bool {
    let mut child = Command::new(BINARY)
        .args(["convert", "--to", "hierarchical"])
        .arg(&place.database)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !place.beside(".converting").exists() && child.try_wait().unwrap().is_none() {}
    let _ = child.kill();
    child.wait().unwrap().signal() == Some(9)
}

#[test]
fn a_killed_conversion_loses_nothing_and_is_gone_on_with() {
    let place = filled(60_000);
    let digest = place.json("digest", &[]);
    assert!(killed_while_building(&place), "the conversion of so many keys was through before it could be killed");
    let seen = place.json("inspect", &[]);
    assert_eq!(seen["state"], "building", "{seen}");
    assert_eq!(place.json("digest", &[]), digest, "reading commands read what is live");
    let planned = place.json("recover", &["--dry-run"]);
    assert_eq!((&planned["dry_run"], &planned["actions"]), (&true.into(), &serde_json::json!([])));
    assert!(place.run("recover", &[]).expect(0).text().contains("recover --abandon"));
    let planned = place.json("recover", &["--dry-run", "--abandon"]);
    assert_eq!(planned["actions"], serde_json::json!(["drop the unfinished conversion"]));
    assert!(place.beside(".converting").exists(), "a dry run drops nothing");
    let dropped = place.json("recover", &["--abandon"]);
    assert_eq!(dropped["state"], "whole");
    assert_eq!(names(place.directory.path()), ["db", "db.lock"]);

    assert!(killed_while_building(&place));
    assert_eq!(place.json("convert", &["--to", "hierarchical"])["digest"], digest["digest"]);
    assert_eq!(place.json("inspect", &[])["state"], "whole");
    assert_eq!(place.json("digest", &[]), digest);
}

#[test]
fn recovering_what_is_whole_does_nothing() {
    let place = filled(10);
    let done = place.json("recover", &[]);
    assert_eq!((&done["actions"], &done["state"]), (&serde_json::json!([]), &"whole".into()));
    assert!(place.run("recover", &["--dry-run"]).expect(0).text().contains("nothing: it is at rest"));
}
