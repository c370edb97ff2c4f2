//! The demonstration, with the real files of this machine.

use crate::harness::{names, run_with};
use std::time::Duration;

#[test]
fn the_demonstration_loses_nothing_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let answer = run_with(|run| {
        run.args(["demo", "--json"]).env("TMPDIR", temporary.path()).timeout(Duration::from_secs(120));
    });
    let found = answer.expect(0).object();
    assert_eq!((&found["ok"], &found["lost"], &found["wrong"]), (&true.into(), &0.into(), &0.into()), "{found}");
    let keys = found["keys"].as_u64().unwrap();
    assert!(keys > 1000, "{found}");
    for step in found["steps"].as_array().unwrap() {
        assert_eq!(step["keys"], keys, "{step}");
        assert!(step["seconds"].as_f64().unwrap() > 0.0, "{step}");
    }
    let children = found["children"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    assert_eq!(children[0]["children"], children[1]["children"], "the same in both encodings");
    let crashes = found["crashes"].as_array().unwrap();
    assert_eq!(crashes.len(), 2);
    assert_eq!(crashes[1]["state_afterwards"], "whole", "{crashes:?}");
    println!("{} keys; killed: {}, {}", keys, crashes[0]["killed"], crashes[1]["killed"]);
    assert_eq!(names(temporary.path()), [""; 0], "the temporary directory is removed");
}
