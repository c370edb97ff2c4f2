//! The README's section on backup and restore, run as it is typed.

use std::path::Path;
use std::process::Command;

/// The commands of the section, in other directories and with another archive.
fn script(data: &Path, archive: &str) -> String {
    let readme = include_str!("../../README.md");
    let section = readme.split_once("\n## Back up and restore\n").expect("the section").1;
    let section = section.split_once("\n## ").expect("another section").0;
    let block = section.split("```").nth(1).expect("a block of commands");
    assert!(section.lines().filter(|line| !line.is_empty()).count() <= 12, "the section is to have at most 12 lines");
    let places =
        [block.contains("/data/shard-7 "), block.contains("/data/copy "), block.contains("file:///backup/shard-7")];
    assert_eq!(places, [true; 3], "{block}");
    block.replace("file:///backup/shard-7", archive).replace("/data/", &format!("{}/", data.display()))
}

/// Runs it on a database of a few keys and compares what was restored with what was there.
pub fn run(binary: &Path, archive: &str) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let morphkv = |arguments: &[&str]| {
        let output = Command::new(binary).current_dir(data).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    morphkv(&["create", "shard-7", "--encoding", "hierarchical"]);
    for number in 0..20 {
        morphkv(&["put", "shard-7", &format!("/a/{number}"), "1"]);
    }
    let path = [binary.parent().unwrap().to_str().unwrap(), &std::env::var("PATH").unwrap()].join(":");
    let script = format!("set -e\n{}", script(data, archive));
    let output = Command::new("bash").args(["-c", &script]).current_dir(data).env("PATH", path).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{script}\n{}\n{}", said[0], said[1]);
    let there = morphkv(&["digest", "shard-7", "--json"]);
    assert!(there.contains("\"entries\":20"), "{there}");
    assert_eq!(morphkv(&["digest", "copy", "--json"]), there);
}
