//! The command line, and the script that plays the whole disaster.

use crate::common::options;
use crate::source::{Source, all_of};
use crate::world::{compact_all, folder, log};
use morphkv::log_backup::compact::Until;
use morphkv::{Engine, Options};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn morphkv(target: &Path, action: &str, arguments: &[&str], code: i32) -> (Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_morphkv"));
    command.args(["restore", action]).arg(target).args(arguments).arg("--json").env_remove("MORPHKV_TRAP");
    let done = command.output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(code), "{action} {arguments:?}: {stderr}");
    let text = if code == 2 { stderr.lines().last().unwrap_or_default().as_bytes() } else { &done.stdout };
    (serde_json::from_slice(text).unwrap(), stderr)
}

fn ready() -> (Source, PathBuf) {
    let source = log(false);
    let target = source.directory.path().join("target");
    (source, target)
}

#[test]
fn a_restore_in_two_phases_is_coordinated_and_told_of() {
    let (source, target) = ready();
    let what = ["--archive", source.archive.url(), "--to", "latest", "--two-phase"];
    let named = [&what[..], &["--compaction", "n", "--wait-timeout", "1h"]].concat();
    for (arguments, kind) in [
        (&what[..], "InvalidArgument"),
        (&[&what[..], &["--compaction", "a/b"]].concat()[..], "InvalidArgument"),
        (&[&what[..], &["--compaction", "n", "--wait-timeout", "soon"]].concat()[..], "InvalidArgument"),
    ] {
        assert_eq!(morphkv(&target, "start", arguments, 2).0["kind"], kind, "{arguments:?}");
    }
    assert!(!folder(&target).exists());
    let begun = morphkv(&target, "start", &named, 0).0;
    assert_eq!((&begun["phase"], &begun["step"]), (&"pending".into(), &"begin".into()));
    let two_phase = &begun["two_phase"];
    assert_eq!((&two_phase["compaction"], &two_phase["wait_timeout"]), (&"n".into(), &json!(3_600_000_000u64)));
    assert_eq!(two_phase["markers"], json!({"snapshot_restored": null, "compaction_settled": null}));
    assert!(morphkv(&target, "step", &[], 0).0["did"].as_str().unwrap().contains("phase 1 begins"));
    assert!(morphkv(&target, "step", &[], 0).0["did"].as_str().unwrap().contains("run of phase 1 is made"));
    // It tells of the worker, and starts none.
    for _ in 0..2 {
        let told = morphkv(&target, "step", &[], 0).0;
        assert_eq!(told["worker_command"], format!("morphkv restore worker {} --phase 1", target.display()));
        assert_eq!(told["two_phase"]["runs"][0]["state"], "waiting");
    }
    for number in ["3", "-1", "99"] {
        assert_eq!(morphkv(&target, "worker", &["--phase", number], 2).0["kind"], "InvalidArgument", "{number}");
    }
    morphkv(&target, "worker", &["--phase", "1"], 0);
    assert_eq!(morphkv(&target, "worker", &["--phase", "2"], 2).0["kind"], "Conflict");
    assert_eq!(morphkv(&target, "status", &[], 0).0["two_phase"]["runs"][0]["state"], "ok");
    let other = [&what[..], &["--compaction", "other"]].concat();
    assert_eq!(morphkv(&target, "run", &other, 2).0["kind"], "Conflict");
    compact_all(&source, "n", Until::Latest);
    let done = morphkv(&target, "run", &named, 0).0;
    assert_eq!((&done["phase"], &done["step"]), (&"complete".into(), &"clear".into()));
    assert_eq!(done["two_phase"]["markers"]["compaction_settled"]["reason"], "complete");
    assert_eq!(done["two_phase"]["mode"]["fast"]["body"]["name"], "n");
    assert_eq!(morphkv(&target, "run", &[], 0).0["phase"], "complete");
    assert!(all_of(&target).0 == source.content);
    Engine::destroy(&target, Options::new()).unwrap();
    // Without any compaction, begun and done by `run`; and given up.
    let none = [&what[..], &["--compaction", "none", "--wait-timeout", "1s"]].concat();
    morphkv(&target, "start", &none, 0);
    assert_eq!(morphkv(&target, "abort", &["-y"], 0).0["aborted"], true);
    let done = morphkv(&target, "run", &none, 0).0;
    assert_eq!(done["two_phase"]["markers"]["compaction_settled"]["reason"], "wait-timeout");
    assert!(done["two_phase"]["mode"]["raw"].as_str().unwrap().contains("not there"), "{done}");
    assert!(all_of(&target).0 == source.content);
}

#[test]
fn a_restore_that_has_failed_says_so_and_what_to_type() {
    let (source, target) = ready();
    let what = ["--archive", source.archive.url(), "--to", "latest", "--two-phase", "--compaction", "none"];
    morphkv(&target, "start", &[&what[..], &["--wait-timeout", "1s"]].concat(), 0);
    // The base snapshot is gone.
    std::fs::remove_dir_all(source.directory.path().join("archive/v1/data")).unwrap();
    let failed = morphkv(&target, "run", &[], 2).0;
    assert_eq!(
        (&failed["kind"], failed["next"].as_str().unwrap().contains("restore abort")),
        (&"Refused".into(), true)
    );
    let status = morphkv(&target, "status", &[], 0).0;
    assert_eq!(
        (&status["phase"], &status["step"], &status["failure"]["kind"]),
        (&"failed".into(), &"fetch".into(), &"NotFound".into())
    );
    assert_eq!(status["two_phase"]["runs"][0]["attempts"], 4);
    assert_eq!(status["two_phase"]["conditions"][1]["reason"], "snapshot-restore-failed");
    assert_eq!(morphkv(&target, "start", &what, 2).0["kind"], "Conflict");
    morphkv(&target, "abort", &["-y"], 0);
    assert!(Engine::open(&target, options()).is_err());
}

#[test]
fn the_script_of_the_disaster_ends_well() {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cross_region.sh"));
    script
        .env("MORPHKV", env!("CARGO_BIN_EXE_morphkv"))
        .env("CROSS_REGION_KEYS", "2000")
        .env("CROSS_REGION_ROUNDS", "3");
    let done = script.env_remove("MORPHKV_TRAP").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("nothing differs"), "{out}\n{err}");
    assert_eq!(out.matches("the same:").count(), 3, "{out}");
}
