//! Each command's answers and exit codes.

use crate::harness::{BINARY, Place, names, run, run_with};
use std::io::Read;
use std::process::{Command, Stdio};

#[test]
fn a_key_is_put_got_and_deleted() {
    let place = Place::with_database("natural");
    assert_eq!(place.run("put", &["/a/b", "one"]).expect(0).stdout, b"");
    assert_eq!(place.run("get", &["/a/b"]).expect(0).stdout, b"one\n");
    let absent = place.run("get", &["/a"]).expect(1);
    assert_eq!((absent.text(), absent.stderr.trim()), (String::new(), "the key is absent"));
    assert_eq!(place.run("get", &["/a", "--quiet"]).expect(1).stderr, "");
    place.run("delete", &["/a/b"]).expect(0);
    assert_eq!(place.run("delete", &["/a/b"]).expect(1).stderr.trim(), "the key was absent");
    place.run("get", &["/a/b"]).expect(1);
    place.run("put", &["k", "--", "-5"]).expect(0);
    assert_eq!(place.run("get", &["k"]).expect(0).stdout, b"-5\n");
}

#[test]
fn points_as_json() {
    let place = Place::with_database("hierarchical");
    let written = place.json("put", &["k", "v"]);
    assert_eq!((&written["written"], &written["key"]), (&true.into(), &"k".into()));
    let found = place.json("get", &["k"]);
    assert_eq!((&found["found"], &found["key"], &found["value"]), (&true.into(), &"k".into(), &"v".into()));
    let absent = place.run("get", &["none", "--json"]).expect(1).object();
    assert_eq!((&absent["found"], absent.get("value")), (&false.into(), None));
    assert_eq!(place.json("delete", &["k"])["deleted"], true);
    assert_eq!(place.run("delete", &["k", "--json"]).expect(1).object()["deleted"], false);
}

#[test]
fn hexadecimal_goes_in_and_out() {
    let place = Place::with_database("natural");
    place.run("put", &["--hex", "0x00ff", "0A0d00"]).expect(0);
    assert_eq!(place.run("get", &["--hex", "00FF"]).expect(0).text(), "0a0d00\n");
    assert_eq!(place.run("scan", &["--hex"]).expect(0).text(), "00ff\t0a0d00\n");
    assert_eq!(place.run("scan", &[]).expect(0).text(), "\\x00\\xff\t\\n\\r\\x00\n");
    let found = place.json("lookup", &["floor", "--hex", "ffff"]);
    assert_eq!((&found["key_hex"], &found["value_hex"]), (&"00ff".into(), &"0a0d00".into()));
    assert_eq!(place.run("get", &["--hex", "0"]).expect(2).stdout, b"");
    // A value is printed as it is, byte for byte.
    place.run("put", &["--hex", "61", "ff00fe"]).expect(0);
    assert_eq!(place.run("get", &["a"]).expect(0).stdout, b"\xff\x00\xfe\n");
}

#[test]
fn lookups_follow_the_order_of_the_encoding() {
    let keys = ["/a", "/b", "/a/x", "plain"];
    for (encoding, expected) in [
        ("natural", [None, Some("/a"), Some("/a/x"), Some("/a"), Some("/a/x")]),
        ("hierarchical", [None, Some("/a"), Some("/b"), Some("/a"), Some("/b")]),
    ] {
        let place = Place::with_keys(encoding, &keys);
        for (comparison, expected) in ["equal", "floor", "ceiling", "lower", "higher"].into_iter().zip(expected) {
            let answer = place.run("lookup", &[comparison, "/a/"]);
            // `/a/` is of the second level, with `/a/x`, in the hierarchical order.
            let expected = if encoding == "hierarchical" && matches!(comparison, "ceiling" | "higher") {
                Some("/a/x")
            } else if encoding == "hierarchical" && matches!(comparison, "floor" | "lower") {
                Some("/b")
            } else {
                expected
            };
            assert_eq!(answer.code, i32::from(expected.is_none()), "{encoding} {comparison}: {answer:?}");
            let line = expected.map_or(String::new(), |key| format!("{key}\t{key}\n"));
            assert_eq!(answer.text(), line, "{encoding} {comparison}");
        }
        assert_eq!(place.json("lookup", &["equal", "/b"])["value"], "/b");
        assert_eq!(place.run("lookup", &["equal", "/z", "--json"]).expect(1).object()["found"], false);
    }
    Place::with_database("natural").run("lookup", &["near", "k"]).expect(2);
}

#[test]
fn creating_tells_what_was_made() {
    let place = Place::new();
    let made = place.json("create", &["--encoding", "hierarchical"]);
    assert_eq!((&made["encoding"], &made["revision"]), (&"hierarchical".into(), &1.into()));
    let seen = place.json("inspect", &[]);
    assert_eq!(seen["database_id"], made["database_id"]);
    assert_eq!((&seen["encoding"], &seen["state"]), (&"hierarchical".into(), &"whole".into()));
    assert_eq!(seen["next_action"], "open it");
    assert!(seen["bytes"].as_u64().unwrap() > 0);
    let roles: Vec<&str> = seen["siblings"].as_array().unwrap().iter().map(|s| s["role"].as_str().unwrap()).collect();
    for role in ["live", "lock", "journal", "staging", "backup_dir", "trash"] {
        assert!(roles.contains(&role), "{roles:?}");
    }
    let text = place.run("inspect", &[]).expect(0).text();
    assert!(text.contains("state") && text.contains("hierarchical r1"), "{text}");
}

#[test]
fn inspecting_nothing_writes_nothing() {
    let place = Place::new();
    let seen = place.json("inspect", &[]);
    assert_eq!((&seen["state"], &seen["encoding"]), (&"absent".into(), &serde_json::Value::Null));
    assert_eq!(names(place.directory.path()), [""; 0]);
}

#[test]
fn content_is_digested_and_verified() {
    let keys = ["/a", "/a/b", "c"];
    let (natural, hierarchical) = (Place::with_keys("natural", &keys), Place::with_keys("hierarchical", &keys));
    let digest = natural.json("digest", &[]);
    assert_eq!(digest["entries"], 3);
    assert_eq!(digest, hierarchical.json("digest", &[]), "equal content, another encoding");
    let line = natural.run("digest", &[]).expect(0).text();
    assert_eq!(line, format!("{}\t3\n", digest["digest"].as_str().unwrap()));
    natural.run("put", &["c", "changed"]).expect(0);
    assert_ne!(digest["digest"], natural.json("digest", &[])["digest"]);
    let verified = hierarchical.json("verify", &[]);
    assert_eq!((&verified["ok"], &verified["entries"]), (&true.into(), &3.into()));
    assert_eq!(verified["digest"], digest["digest"]);
}

#[test]
fn damage_is_found_and_is_a_no() {
    let place = Place::with_keys("natural", &["/a", "/a/b", "c"]);
    let files: Vec<String> = names(&place.database).into_iter().filter(|name| name.ends_with(".sst")).collect();
    assert!(files.len() >= 2, "one for the data, one for the identity: {files:?}");
    for file in files {
        let path = place.database.join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[10] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let answer = place.run("verify", &["--json"]).expect(1).object();
        assert_eq!(answer["ok"], false);
        assert!(answer["findings"][0].as_str().unwrap().contains("checksum"), "{answer}");
        assert!(place.run("verify", &[]).expect(1).text().contains("NOT whole"));
        let read = place.run("dump", &["--json"]);
        assert_eq!(read.code, 2, "{read:?}");
        assert!(read.stderr.contains("\"kind\":\"Corrupt\"") && read.stderr.contains("morphkv verify"), "{read:?}");
        std::fs::write(&path, whole).unwrap();
    }
    place.run("verify", &[]).expect(0);
}

#[test]
fn destroying_asks_first() {
    let place = Place::with_keys("natural", &["k"]);
    let refused = place.run("destroy", &[]).expect(2);
    assert!(refused.stderr.contains(&format!("morphkv destroy {} -y", place.database.display())), "{}", refused.stderr);
    place.run("get", &["k"]).expect(0);
    assert_eq!(place.json("destroy", &["-y"])["destroyed"], true);
    assert_eq!(names(place.directory.path()), ["db.lock"]);
    assert_eq!(place.run("destroy", &["-y", "--json"]).expect(1).object()["destroyed"], false);
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = run(&["--help"]).expect(0).text();
    let commands = "demo create adopt inspect verify digest convert recover restore rollback drop-backup destroy get put delete \
                    lookup scan dump load completions man";
    for command in commands.split_whitespace() {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
        let own = run(&[command, "--help"]).expect(0).text();
        assert!(own.contains("Usage: morphkv") && own.contains("--json"), "{own}");
        assert!(
            own.lines().next().is_some_and(|about| about.len() > 10),
            "{command} does not say what it is for: {own}"
        );
    }
    assert!(help.contains("Exit codes: 0 yes"), "{help}");
    assert!(run(&["--version"]).expect(0).text().starts_with("morphkv "));
    run(&[]).expect(2);
}

#[test]
fn completions_and_manual_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).expect(0).text().contains("drop-backup"), "{shell}");
    }
    run(&["completions", "cmd.exe"]).expect(2);
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man").join("man1");
    let written = run(&["man", pages.to_str().unwrap(), "--json"]).expect(0).object();
    assert_eq!(written["pages"].as_u64().unwrap() as usize, names(&pages).len());
    let page = std::fs::read_to_string(pages.join("morphkv-convert.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("keep\\-backup"), "{page}");
    assert!(std::fs::read_to_string(pages.join("morphkv.1")).unwrap().contains("Exit codes"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let place = Place::new();
    let lines: String =
        (0..20_000).map(|number| format!("{{\"key\":\"{number}\",\"value\":\"{number}\"}}\n")).collect();
    place.feed("load", &[], lines.as_bytes()).expect(0);
    for command in ["scan", "dump"] {
        let mut child = Command::new(BINARY)
            .arg(command)
            .arg(&place.database)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        drop(stdout);
        let done = child.wait_with_output().unwrap();
        assert_eq!((done.status.code(), done.stderr.len()), (Some(0), 0), "{command}");
    }
}

#[test]
fn logs_go_to_stderr_in_the_form_that_was_asked_for() {
    let place = Place::with_keys("natural", &["k"]);
    // Something beside it that no journal speaks of: worth a warning.
    std::fs::create_dir(place.beside(".backup")).unwrap();
    std::fs::write(place.beside(".backup").join("x"), "x").unwrap();
    let text = place.run("put", &["a", "b"]).expect(0);
    assert!(text.stderr.contains("left alone") && text.stdout.is_empty(), "{}", text.stderr);
    let json = place.run("put", &["a", "b", "--json"]).expect(0);
    let line: serde_json::Value = serde_json::from_str(json.stderr.lines().next().unwrap()).unwrap();
    assert_eq!((&line["event"], &line["level"]), (&"log".into(), &"WARN".into()));
    assert!(line["message"].as_str().unwrap().contains("left alone"), "{line}");
    assert_eq!(place.run("put", &["a", "b", "--quiet"]).expect(0).stderr, "");
    let chosen = run_with(|run| {
        run.arg("put").arg(&place.database).args(["a", "b"]).env("RUST_LOG", "off");
    });
    assert_eq!(chosen.expect(0).stderr, "");
}
