//! The command line: start, step, status, run, abort.

use crate::common::options;
use crate::source::Source;
use crate::source::all_of;
use morphkv::encoding::Natural;
use morphkv::{Engine, Options};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn morphkv(target: &Path, action: &str, arguments: &[&str], code: i32) -> (Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_morphkv"));
    command.args(["restore", action]).arg(target).args(arguments).arg("--json").env_remove("MORPHKV_TRAP");
    let done = command.output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(code), "{action} {arguments:?}: {stderr}");
    let text = if code == 2 { stderr.lines().last().unwrap_or_default().as_bytes() } else { &done.stdout };
    (serde_json::from_slice(text).unwrap(), stderr)
}

fn ready() -> (Source, std::path::PathBuf) {
    let mut source = Source::new(Arc::new(Natural));
    for number in 0..10 {
        source.put(&format!("/key/{number}"), "1");
    }
    source.ship(None);
    let target = source.directory.path().join("target");
    (source, target)
}

#[test]
fn a_restore_is_planned_begun_done_step_by_step_and_told_of() {
    let (source, target) = ready();
    let url = source.archive.url();
    let middle = source.states[4].clone();
    let to = middle.time.to_string();
    let what = ["--archive", url, "--to", &to];
    let planned = morphkv(&target, "run", &[&what[..], &["--dry-run"]].concat(), 0).0;
    assert_eq!((&planned["dry_run"], &planned["reached_time"]), (&true.into(), &middle.time.into()));
    assert_eq!(planned["reached_sequence"], middle.sequence);
    assert!(!target.with_extension("restore").exists(), "a dry run writes nothing");
    assert_eq!(morphkv(&target, "status", &[], 1).0["phase"], Value::Null);
    let begun = morphkv(&target, "start", &what, 0).0;
    assert_eq!((&begun["phase"], &begun["step"]), (&"running".into(), &"fetch".into()));
    assert_eq!(morphkv(&target, "start", &what, 2).0["kind"], "Conflict");
    // Nobody makes an empty database of it meanwhile.
    let error = Engine::open(&target, options().create_if_missing(true)).unwrap_err();
    assert_eq!(error.next_command(), Some(&*format!("morphkv restore status {}", target.display())));
    for step in ["apply", "install", "clear"] {
        assert_eq!(morphkv(&target, "step", &[], 0).0["step"], step);
    }
    let done = morphkv(&target, "run", &[], 0).0;
    assert_eq!((&done["phase"], &done["reached_sequence"]), (&"complete".into(), &middle.sequence.into()));
    assert_eq!((&done["timeline"], &done["gaps"]), (&source.timeline.to_string().into(), &Value::Array(Vec::new())));
    assert_eq!(morphkv(&target, "status", &[], 0).0["phase"], "complete");
    assert!(all_of(&target).0 == middle.content);
    // A complete one is in nobody's way: the database can be converted.
    Engine::open(&target, options().encoding(morphkv::encoding::Hierarchical)).unwrap().close().unwrap();
}

#[test]
fn a_database_gives_way_only_where_that_was_asked_for_and_an_aborted_restore_leaves_it() {
    let (source, target) = ready();
    let url = source.archive.url();
    crate::common::make(&target, Arc::new(Natural), &crate::common::sample(3));
    let old = all_of(&target).0;
    let latest = ["--archive", url, "--to", "latest"];
    let refused = morphkv(&target, "run", &latest, 2).0;
    assert_eq!(refused["kind"], "Conflict");
    let replacing = [&latest[..], &["--replace"]].concat();
    morphkv(&target, "start", &replacing, 0);
    morphkv(&target, "step", &[], 0);
    assert_eq!(morphkv(&target, "abort", &[], 2).0["kind"], "InvalidArgument");
    assert_eq!(morphkv(&target, "abort", &["-y"], 0).0["aborted"], true);
    assert!(all_of(&target).0 == old && !target.with_extension("restore").exists());
    assert_eq!(morphkv(&target, "run", &replacing, 0).0["phase"], "complete");
    assert!(all_of(&target).0 == source.content);
    morphkv::manage::rollback(&target, &Options::new()).unwrap();
    assert!(all_of(&target).0 == old);
}

#[test]
fn a_restore_that_is_under_way_is_not_one_to_another_moment() {
    let (source, target) = ready();
    let url = source.archive.url();
    let [first, second] = [4, 7].map(|at: usize| source.states[at].time.to_string());
    let at = |moment: &str| ["--archive", url, "--to", moment].map(str::to_owned);
    let run = |moment: &str, code| {
        let arguments = at(moment);
        morphkv(&target, "run", &arguments.each_ref().map(String::as_str), code).0
    };
    morphkv(&target, "start", &at(&first).each_ref().map(String::as_str), 0);
    for other in [&second, "latest"] {
        let refused = run(other, 2);
        assert_eq!(refused["kind"], "Conflict");
        assert!(refused["message"].as_str().unwrap().contains("not to"), "{refused}");
    }
    assert_eq!(run(&first, 0)["phase"], "complete");
    assert!(all_of(&target).0 == source.states[4].content);
}

#[test]
fn what_cannot_be_reached_is_refused_with_the_time_that_can() {
    let (source, target) = ready();
    let url = source.archive.url();
    for (to, word) in [("2099-01-01T00:00:00Z", "reaches to 2023-11-14"), ("1970-01-02T00:00:00Z", "first moment")] {
        let refused = morphkv(&target, "run", &["--archive", url, "--to", to], 2).0;
        assert_eq!(refused["kind"], "NotFound");
        assert!(refused["message"].as_str().unwrap().contains(word), "{refused}");
    }
    assert_eq!(morphkv(&target, "run", &["--archive", url, "--to", "soon"], 2).0["kind"], "InvalidArgument");
    assert_eq!(morphkv(&target, "run", &[], 2).0["kind"], "InvalidArgument");
    assert_eq!(morphkv(&target, "step", &[], 2).0["kind"], "NotFound");
    assert!(!target.with_extension("restore").exists());
}

#[test]
fn a_database_that_is_attached_to_the_archive_goes_on_in_it_and_is_told_how() {
    let mut source = Source::new(Arc::new(Natural));
    source.put("/key/1", "1");
    let good = source.states.last().unwrap().clone();
    source.put("/key/2", "2");
    source.ship(None);
    let (old, path) = (source.timeline.to_string(), source.path.clone());
    source.close();
    let to = good.time.to_string();
    let what = ["--archive", source.archive.url(), "--to", &to, "--replace"];
    assert_eq!(morphkv(&path, "start", &what, 0).0["goes_on"], Value::Null);
    let done = morphkv(&path, "run", &[], 0).0;
    assert_eq!((&done["phase"], &done["goes_on"]["replaced"]), (&"complete".into(), &Value::from(old.as_str())));
    let own = crate::replaced::attachment_of(&path);
    let new = own.timeline.to_string();
    assert_eq!(done["goes_on"]["timeline"], new);
    assert!(path.join("unshipped").exists());
    let mut command = Command::new(env!("CARGO_BIN_EXE_morphkv"));
    let told = command.args(["restore", "status"]).arg(&path).env_remove("MORPHKV_TRAP").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&new) && told.contains(&format!("--timeline {old}")), "{told}");
    assert!(all_of(&path).0 == good.content);
}
