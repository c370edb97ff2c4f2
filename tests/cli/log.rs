//! The log backup from the command line.

use super::harness::{Answer, Place, run};
use serde_json::Value;

fn url(place: &Place) -> String {
    format!("file://{}", place.directory.path().join("archive").display())
}

fn log(place: &Place, command: &str, arguments: &[&str]) -> Answer {
    run(&[&["log", command, place.database.to_str().unwrap()], arguments].concat())
}

fn object(answer: Answer) -> Value {
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.object()
}

#[test]
fn a_log_is_attached_shipped_shown_and_detached() {
    let place = Place::with_keys("natural", &["a", "b"]);
    let url = url(&place);
    assert_eq!(log(&place, "status", &[]).code, 1, "it is not attached");
    assert_eq!(log(&place, "ship", &["--once"]).code, 2);
    let attached = object(log(&place, "attach", &["--archive", &url, "--json"]));
    assert!(attached["base_snapshot"].is_string(), "{attached}");
    assert_eq!(object(log(&place, "status", &["--json"]))["is_complete"], true);
    place.run("put", &["c", "3"]).expect(0);
    let behind = log(&place, "status", &["--json"]);
    assert_eq!((behind.code, behind.object()["is_complete"].clone()), (1, false.into()));
    let shipped = object(log(&place, "ship", &["--once", "--json"]));
    assert_eq!((shipped["writes"].clone(), shipped["timeline"].clone()), (1.into(), attached["timeline"].clone()));
    assert!(object(log(&place, "snapshot", &["--json"]))["base_snapshot"].is_string());

    let status = object(run(&["archive", "status", &url, "--json"]));
    assert_eq!(status["current"], attached["timeline"]);
    assert_eq!(status["timelines"][0]["bases"].as_array().unwrap().len(), 2, "{status}");
    let sequence = object(log(&place, "status", &["--json"]))["log"]["last_sequence"].clone();
    assert_eq!(status["timelines"][0]["end"]["sequence"], sequence);
    let span = &status["spans"][0];
    assert_eq!(
        (status["spans"].as_array().unwrap().len(), span["bases"].as_array().unwrap().len()),
        (1, 2),
        "{status}"
    );
    assert!(span["from"].as_u64() < span["to"].as_u64() && status["lag_seconds"].as_u64().unwrap() < 600, "{status}");
    assert!(status["bytes"].as_u64() > Some(1000) && status["pins"] == 0, "{status}");
    assert!(String::from_utf8_lossy(&run(&["archive", "status", &url]).stdout).contains("restorable"));
    let history = object(run(&["archive", "history", &url, "--json"]));
    assert_eq!(history["commits"].as_array().unwrap().len(), 3, "{history}");
    assert_eq!(object(run(&["archive", "locks", &url, "--json"]))["pins"].as_array().unwrap().len(), 0);
    let verified = object(run(&["archive", "verify", &url, "--json"]));
    assert_eq!((verified["faults"].clone(), verified["segments"].as_u64() > Some(2)), (Value::Array(vec![]), true));
    let id = "00000000-0000-0000-0000-000000000001";
    assert_eq!(run(&["archive", "locks", &url, "--break", id, "-y"]).code, 2);

    place.run("convert", &["--to", "hierarchical"]).expect(0);
    let converted = object(log(&place, "ship", &["--once", "--json"]));
    assert_ne!(converted["timeline"], attached["timeline"]);
    assert_eq!(object(run(&["archive", "status", &url, "--json"]))["timelines"].as_array().unwrap().len(), 2);
    assert_eq!(log(&place, "detach", &["--json"]).code, 2, "nobody was asked");
    assert_eq!(object(log(&place, "detach", &["-y", "--json"]))["archive"], *url);
    assert_eq!(log(&place, "detach", &["-y"]).code, 1);
    let refused = log(&place, "attach", &["--archive", &url]);
    assert!(refused.code == 2 && refused.stderr.contains("--take-over"), "{refused:?}");
    assert!(object(log(&place, "attach", &["--archive", &url, "--take-over", "--json"]))["base_snapshot"].is_string());
    for text in
        [["log", "status", place.database.to_str().unwrap()], ["archive", "status", &url], ["archive", "history", &url]]
    {
        let answer = run(&text);
        assert!(answer.code == 0 && !answer.stdout.is_empty(), "{answer:?}");
    }
}

#[test]
fn inspect_tells_of_the_archive_without_opening_anything() {
    let place = Place::with_keys("natural", &["a", "b"]);
    let url = url(&place);
    let inspect = || object(place.run("inspect", &["--json"]));
    assert_eq!((inspect()["attached"].clone(), inspect()["attachment"].clone()), (false.into(), Value::Null));
    let attached = object(log(&place, "attach", &["--archive", &url, "--json"]));
    let seen = inspect()["attachment"].clone();
    assert_eq!(
        (&seen["archive"], &seen["timeline"], &seen["cause"]),
        (&url.clone().into(), &attached["timeline"], &"init".into())
    );
    assert_eq!((&seen["unshipped_before_conversion"], &seen["reason"]), (&false.into(), &Value::Null));
    place.run("convert", &["--to", "hierarchical"]).expect(0);
    let seen = inspect()["attachment"].clone();
    assert_eq!((&seen["cause"], &seen["unshipped_before_conversion"]), (&"conversion".into(), &true.into()));
    assert_ne!(seen["timeline"], attached["timeline"]);
    let shown = String::from_utf8(place.run("inspect", &[]).stdout).unwrap();
    assert!(shown.contains(&url) && shown.contains("to be shipped"), "{shown}");

    let file = place.database.join("LOG_BACKUP");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let seen = inspect();
    assert_eq!((&seen["attached"], &seen["attachment"]["archive"]), (&true.into(), &Value::Null));
    assert!(seen["attachment"]["reason"].as_str().unwrap().contains("LOG_BACKUP"), "{seen}");
    let refused = place.run("put", &["c", "3"]);
    assert!(refused.code == 2 && refused.stderr.contains("morphkv inspect"), "{refused:?}");
}

#[test]
fn the_section_of_the_readme_works_as_typed() {
    let archive = tempfile::tempdir().unwrap();
    let url = format!("file://{}", archive.path().join("shard-7").display());
    super::readme::run(std::path::Path::new(env!("CARGO_BIN_EXE_morphkv")), &url);
}
