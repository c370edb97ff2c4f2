//! `archive truncate` from the command line.

use crate::crashes::{open, sample};
use crate::world::objects;
use morphkv::log_backup::pin::{Pin, PinRequest, TTL};
use serde_json::Value;
use std::process::Command;

fn morphkv(url: &str, arguments: &[&str], code: i32) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_morphkv"));
    command.args(["archive", "truncate", url]).args(arguments).arg("--json").env_remove("MORPHKV_TRAP");
    let done = command.output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(code), "{arguments:?}: {stderr}");
    let text = if code == 2 { stderr.lines().last().unwrap_or_default().as_bytes() } else { &done.stdout };
    serde_json::from_slice(text).unwrap()
}

#[test]
fn an_archive_is_truncated_in_two_steps_and_the_exit_code_tells_the_truth() {
    let place = crate::common::scratch();
    let directory = place.path().join("archive");
    let (mut world, until) = sample(open(&directory));
    let url = world.archive.url().to_owned();
    let until = until.to_string();
    let standing = world.objects();

    let told = morphkv(&url, &["--until", &until, "--dry-run"], 0);
    let would = told["would_delete"].as_array().unwrap();
    assert_eq!((told["dry_run"].as_bool(), told["doomed_objects"].as_u64()), (Some(true), Some(would.len() as u64)));
    let bytes: u64 = would.iter().map(|object| object["bytes"].as_u64().unwrap()).sum();
    assert_eq!((told["doomed_bytes"].as_u64(), would.len() > 10), (Some(bytes), true));
    assert_eq!(world.objects(), standing);

    // Nothing is deleted without a yes, or before a moment that there is no base for.
    assert_eq!(morphkv(&url, &["--until", &until], 2)["kind"], "InvalidArgument");
    assert_eq!(morphkv(&url, &["--until", "1", "-y"], 1)["base"], Value::Null);
    for wrong in [&["-y"][..], &["--until", "soon", "-y"], &["--until", "latest", "--keep", "7d", "-y"]] {
        assert_eq!(morphkv(&url, wrong, 2)["kind"], "InvalidArgument", "{wrong:?}");
    }
    assert_eq!(morphkv(&url, &["--keep", "7d", "--grace", "soon", "-y"], 2)["kind"], "InvalidArgument");
    assert_eq!(world.objects(), standing);

    let doomed = morphkv(&url, &["--until", &until, "-y"], 1);
    let left = doomed["pending"][0]["reason"]["grace"]["seconds_left"].as_u64().unwrap();
    assert!((3500..=3601).contains(&left), "{doomed}");
    let request = PinRequest { owner: "a restore".into(), purpose: "test".into(), ttl: TTL };
    let pin = Pin::take(&world.archive, &request).unwrap();
    let pinned = morphkv(&url, &["--until", &until, "--grace", "0s", "-y"], 1);
    assert_eq!(pinned["pending"][0]["reason"]["pinned"]["pins"][0], pin.id().to_string());
    drop(pin);
    let done = morphkv(&url, &["--until", &until, "--grace", "0s", "-y"], 0);
    assert_eq!((done["deleted_objects"].as_u64(), &done["pending"]), (Some(would.len() as u64), &Value::Array(vec![])));
    let gone: Vec<_> = standing.keys().filter(|name| !objects(&world.archive).contains_key(*name)).collect();
    let would: Vec<_> = would.iter().map(|object| object["object"].as_str().unwrap()).collect();
    assert!(gone.len() == would.len() && gone.iter().all(|name| would.contains(&name.as_str())));
    world.assert_goes_on();

    let mut text = Command::new(env!("CARGO_BIN_EXE_morphkv"));
    let text = text.args(["archive", "truncate", &url, "--until", "latest", "--grace", "0", "-y"]).output().unwrap();
    let stdout = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.status.success() && stdout.contains("truncated file://") && stdout.contains("restores from"),
        "{stdout}"
    );
}
