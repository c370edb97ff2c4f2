//! The command line: compact shard by shard, verify, restore with it, and restore without it.

use crate::common::copy_tree;
use crate::runs::{files, small};
use crate::source::{Source, all_of};
use morphkv::Engine;
use morphkv::Options;
use morphkv::encoding::Hierarchical;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;

fn morphkv(arguments: &[&str], code: i32) -> (Value, String) {
    let run = |json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_morphkv"));
        command.args(arguments).env_remove("MORPHKV_TRAP");
        if json { command.arg("--json") } else { &mut command }.output().unwrap()
    };
    let done = run(true);
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(code), "{arguments:?}: {stderr}");
    let text = if code == 2 { stderr.lines().last().unwrap_or_default().as_bytes() } else { &done.stdout };
    (serde_json::from_slice(text).unwrap(), stderr)
}

#[test]
fn shards_are_worked_one_by_one_and_restores_tell_what_they_use() {
    let source = small();
    let url = source.archive.url();
    let scratch = source.directory.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let compact = |shard: &str, code| {
        let arguments = [
            "archive",
            "compact",
            url,
            "--name",
            "n",
            "--shard",
            shard,
            "--to",
            "latest",
            "--scratch",
            scratch.to_str().unwrap(),
        ];
        morphkv(&arguments, code).0
    };
    let second = compact("2/2", 0);
    assert_eq!(
        (&second["state"], &second["was_done"], &second["shard"]),
        (&"running".into(), &json!(false), &json!(2))
    );
    assert_eq!(compact("2/2", 0)["was_done"], true);
    let first = compact("1/2", 0);
    assert_eq!((&first["state"], &first["failure"], &first["shards"]), (&"complete".into(), &Value::Null, &json!(2)));
    assert_eq!(
        (&first["shard_first_segment"], &first["first_segment"]),
        (&first["first_segment"], &first["first_segment"])
    );
    assert_eq!(first["shard_end_segment"], second["shard_first_segment"]);
    assert!(first["entries"].as_u64().unwrap() > 0 && first["bytes"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    for shard in ["0/2", "3/2", "1/3", "1", "x/y", ""] {
        assert_eq!(compact(shard, 2)["kind"], "InvalidArgument", "{shard}");
    }
    assert_eq!(morphkv(&["archive", "verify", url], 0).0["faults"], json!([]));
    let target = source.directory.path().join("target");
    let path = target.to_str().unwrap();
    let restore = || {
        let found = morphkv(&["restore", "run", path, "--archive", url, "--to", "latest"], 0).0;
        assert!(all_of(&target).0 == source.content);
        let status = morphkv(&["restore", "status", path], 0).0;
        assert_eq!(status["compactions_left_out"], found["compactions_left_out"]);
        Engine::destroy(&target, Options::new()).unwrap();
        std::fs::remove_dir_all(target.with_extension("restore")).unwrap();
        found
    };
    let found = restore();
    assert_eq!((&found["compactions"], &found["compactions_left_out"]), (&json!(["n"]), &json!([])));
    let data = files(&source.directory.path().join("archive/v1/compactions/n/data"));
    std::fs::remove_file(&data[0]).unwrap();
    assert_eq!(morphkv(&["archive", "verify", url], 1).0["faults"].as_array().unwrap().len(), 1);
    let found = restore();
    let left_out = &found["compactions_left_out"][0];
    assert_eq!((&left_out["name"], found["compactions_left_out"].as_array().unwrap().len()), (&"n".into(), 1));
    assert!(left_out["reason"].as_str().unwrap().contains("v1/compactions/n/data/"), "{left_out}");
}

/// A shard of a compaction that stands in another place than the log.
fn compact_elsewhere(log: &str, name: &str, shard: &str, out: &str, code: i32) -> Value {
    let what = ["archive", "compact", log, "--name", name, "--shard", shard, "--to", "latest", "--out", out];
    morphkv(&what, code).0
}

/// Restores, compares, and tells what was said; and that a dry run says the same of compactions.
fn restored(source: &Source, archive: &str, arguments: &[&str]) -> Value {
    let target = source.directory.path().join("target");
    let what = ["restore", "run", target.to_str().unwrap(), "--archive", archive, "--to", "latest"];
    let what = [&what[..], arguments].concat();
    let dry = morphkv(&[&what[..], &["--dry-run"]].concat(), 0).0;
    let found = morphkv(&what, 0).0;
    assert!(all_of(&target).0 == source.content, "{arguments:?}");
    for field in ["compactions", "compactions_left_out"] {
        assert_eq!(dry[field], found[field], "{arguments:?}");
    }
    Engine::destroy(&target, Options::new()).unwrap();
    std::fs::remove_dir_all(target.with_extension("restore")).unwrap();
    found
}

/// The only reason for which the compaction is not used.
fn reason(found: &Value) -> &str {
    assert_eq!((&found["compactions"], found["compactions_left_out"].as_array().unwrap().len()), (&json!([]), 1));
    found["compactions_left_out"][0]["reason"].as_str().unwrap()
}

#[test]
fn a_compaction_elsewhere_says_where_and_a_restore_that_is_told_uses_it() {
    let source = small();
    let url = source.archive.url();
    let out = format!("file://{}", source.directory.path().join("out").display());
    let first = compact_elsewhere(url, "n", "1/2", &out, 0);
    assert_eq!((&first["at"], &first["archive"], &first["state"]), (&json!(out), &json!(url), &json!("running")));
    let named = ["--compaction", "n", "--compaction-at", &out];
    assert!(reason(&restored(&source, url, &named)).contains("it has not ended"));
    let second = compact_elsewhere(url, "n", "2/2", &out, 0);
    assert_eq!((&second["at"], &second["state"]), (&json!(out), &json!("complete")));
    let mut plain = Command::new(env!("CARGO_BIN_EXE_morphkv"));
    plain.args(["archive", "compact", url, "--name", "n", "--shard", "1/2", "--to", "latest", "--out", &out]);
    let plain = String::from_utf8(plain.env_remove("MORPHKV_TRAP").output().unwrap().stdout).unwrap();
    assert!(plain.contains(&format!("--compaction n --compaction-at {out}")) && plain.contains(url), "{plain}");
    let used = restored(&source, url, &named);
    assert_eq!((&used["compactions"], &used["compactions_left_out"]), (&json!(["n"]), &json!([])));
    // Nobody has told this one, and HEAD does not know.
    let untold = restored(&source, url, &[]);
    assert_eq!((&untold["compactions"], &untold["compactions_left_out"]), (&json!([]), &json!([])));
    // One that stands with its log says so.
    let what = ["archive", "compact", url, "--name", "own", "--shard", "1/1", "--to", "latest"];
    let own = morphkv(&what, 0).0;
    assert_eq!((&own["at"], &own["archive"]), (&json!(url), &json!(url)));
}

/// It can only save time: whatever is wrong with it, the restore does without, says why, and ends well.
#[test]
fn a_compaction_that_is_named_and_cannot_be_used_is_left_out_with_its_reason() {
    let mut source = small();
    let url = source.archive.url().to_owned();
    let directory = source.directory.path().to_owned();
    let out = format!("file://{}", directory.join("out").display());
    compact_elsewhere(&url, "n", "1/1", &out, 0);
    let named = |name: &str, at: &str, source: &Source| {
        reason(&restored(source, &url, &["--compaction", name, "--compaction-at", at])).to_owned()
    };
    assert!(named("none", &out, &source).contains("there is no compaction of that name"));
    assert!(named("a/b", &out, &source).contains("no name of a compaction"));
    let nowhere = format!("file://{}", directory.join("nowhere").display());
    assert!(named("n", &nowhere, &source).contains("nowhere"));
    assert!(!directory.join("nowhere").exists(), "a place was made for it");
    assert!(!named("n", "not a URL", &source).is_empty());
    // It is looked for with the log, where it is not.
    assert!(reason(&restored(&source, &url, &["--compaction", "n"])).contains("there is no compaction of that name"));
    // The same log, copied: it is not known to be the same.
    let copy = format!("file://{}", directory.join("copied").display());
    copy_tree(&directory.join("archive"), &directory.join("copied"));
    let elsewhere = restored(&source, &copy, &["--replica", "--compaction", "n", "--compaction-at", &out]);
    assert!(reason(&elsewhere).contains("the path differs"), "{elsewhere}");
    assert_eq!(elsewhere["replica"], true);
    // Each of its objects but SPEC, gone.
    for path in files(&directory.join("out/v1/compactions/n")) {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        if path.ends_with("SPEC") {
            assert_eq!(
                restored(&source, &url, &["--compaction", "n", "--compaction-at", &out])["compactions"],
                json!(["n"])
            );
        } else if path.ends_with("END") {
            assert!(named("n", &out, &source).contains("it has not ended"));
        } else {
            let reason = named("n", &out, &source);
            let object = path.strip_prefix(directory.join("out")).unwrap().display().to_string();
            assert!(reason.contains(&object), "{reason}");
        }
        std::fs::write(&path, bytes).unwrap();
    }
    // The database goes on in another timeline, from a base snapshot of its own.
    source.convert(Arc::new(Hierarchical));
    source.put("/later", "1");
    source.snapshot();
    assert!(named("n", &out, &source).contains("a timeline of which nothing is restored"));
}

#[test]
fn what_cannot_be_meant_or_read_is_refused() {
    let source = small();
    let url = source.archive.url();
    let directory = source.directory.path();
    let target = directory.join("target");
    let out = format!("file://{}", directory.join("out").display());
    let nowhere = format!("file://{}", directory.join("nowhere").display());
    let restore = |archive: &str, arguments: &[&str]| {
        let what = ["restore", "run", target.to_str().unwrap(), "--archive", archive, "--to", "latest"];
        let refused = morphkv(&[&what[..], arguments].concat(), 2).0;
        assert!(!target.exists() && !target.with_extension("restore").exists(), "{arguments:?}");
        refused["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(restore(url, &["--compaction-at", &out]), "InvalidArgument");
    assert_eq!(restore(url, &["--two-phase"]), "InvalidArgument");
    assert_eq!(restore(&nowhere, &["--replica"]), "NotFound");
    // A replica in which nothing has arrived, then one in which the manifest of the base snapshot has not.
    let replica = directory.join("replica");
    std::fs::create_dir(&replica).unwrap();
    let at = format!("file://{}", replica.display());
    assert_eq!(restore(&at, &["--replica"]), "NotFound");
    copy_tree(&directory.join("archive"), &replica);
    let file = files(&replica.join("v1/snapshots")).remove(0);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(restore(&at, &["--replica"]), "NotFound");
    // The name is one of a log in another place; there is no such place; there is no such log.
    compact_elsewhere(url, "n", "1/1", &out, 0);
    assert_eq!(compact_elsewhere(&at, "n", "1/1", &out, 2)["kind"], "Conflict");
    assert_eq!(compact_elsewhere(url, "n", "1/2", &out, 2)["kind"], "InvalidArgument");
    assert_eq!(compact_elsewhere(url, "n", "1/1", "not a URL", 2)["kind"], "InvalidArgument");
    assert_eq!(compact_elsewhere(&nowhere, "n", "1/1", &out, 2)["kind"], "NotFound");
}
