//! The command line: compact shard by shard, verify, restore with it, and restore without it.

use crate::runs::{files, small};
use crate::source::all_of;
use morphkv::Engine;
use morphkv::Options;
use serde_json::{Value, json};
use std::process::Command;

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
