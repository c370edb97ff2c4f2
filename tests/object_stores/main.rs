//! The archive on real protocols: S3's, spoken by moto one request at a time, which makes its conditions atomic, and Azure's,
//! spoken by Azurite.
//!
//! Without Python and moto (`pip install 'moto[server,s3]'`), or Azurite (`npm install azurite`), the tests are *ignored*, never
//! passed. Each runs in a child process that has the server's credentials in its environment, as an archive reads them.

#[path = "../common/readme.rs"]
mod readme;
mod server;

use libtest_mimic::{Arguments, Failed, Trial};
use morphkv::encoding::{EncodingId, Natural};
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::commit::{commit, create, load};
use morphkv::log_backup::head::{Cause, Head, LogPosition, Parent, Timeline};
use morphkv::log_backup::names::{self, ContentHash, ObjectName, ObjectReference, PINS};
use morphkv::log_backup::pin::{self, Pin, PinRequest, TTL};
use morphkv::log_backup::probe::probe_store;
use morphkv::log_backup::transfer;
use morphkv::testing::RealVfs;
use morphkv::{Error, ErrorKind};
use server::{Provider, Server};
use std::path::Path;
use std::process::ExitCode;
use uuid::Uuid;

/// What a child is told: the name of its test.
const ORDER: &str = "MORPHKV_OBJECT_STORE_TEST";

type Test = (&'static str, fn(Provider));

const TESTS: [Test; 5] = [
    ("the_probe_accepts_it", the_probe_accepts_it),
    ("an_object_is_created_once_and_swapped_by_version", an_object_is_created_once_and_swapped_by_version),
    ("no_commit_is_lost_or_doubled_in_a_storm", no_commit_is_lost_or_doubled_in_a_storm),
    ("a_pin_holds_while_a_file_goes_up_in_parts_and_down", a_pin_holds_while_a_file_goes_up_in_parts_and_down),
    ("the_section_of_the_readme_works_as_typed", the_section_of_the_readme_works_as_typed),
];

fn main() -> ExitCode {
    if let Ok(order) = std::env::var(ORDER) {
        let (provider, order) = order.split_once("::").expect("a provider");
        let provider = Provider::ALL.into_iter().find(|known| known.name() == provider).expect("a provider");
        let (_, test) = TESTS.iter().find(|(name, _)| *name == order).expect("a test of this file");
        test(provider);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for provider in Provider::ALL {
        let lacking = provider.lacks();
        trials.extend(TESTS.map(|(name, _)| {
            let name = format!("{}::{name}", provider.name());
            match lacking {
                None => Trial::test(name.clone(), move || in_a_child(provider, &name)),
                Some(why) => Trial::test(name, move || Err(format!("it cannot run here: {why}").into()))
                    .with_kind(format!("skipped: {why}"))
                    .with_ignored_flag(true),
            }
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn in_a_child(provider: Provider, name: &str) -> Result<(), Failed> {
    let server = Server::start(provider)?;
    let mut child = std::process::Command::new(std::env::current_exe()?);
    let output = child.env(ORDER, name).envs(server.environment()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said.into()) }
}

fn open(provider: Provider) -> Archive {
    Archive::open(&provider.archive("some/prefix"), ArchiveOptions::default()).unwrap()
}

fn name(last: &str) -> ObjectName {
    ObjectName::new(format!("v1/test/{last}")).unwrap()
}

fn the_section_of_the_readme_works_as_typed(provider: Provider) {
    readme::run(Path::new(env!("CARGO_BIN_EXE_morphkv")), &provider.archive("shard-7"));
}

fn the_probe_accepts_it(provider: Provider) {
    let archive = &open(provider);
    if provider == Provider::S3 {
        assert!(archive.url().starts_with("s3://archive/some/prefix?endpoint=http://127.0.0.1:"), "{}", archive.url());
    }
    probe_store(archive).unwrap();
    assert_eq!(archive.list("v1").unwrap().count(), 0);
}

fn an_object_is_created_once_and_swapped_by_version(provider: Provider) {
    let archive = &open(provider);
    let key = name("a");
    assert_eq!(archive.get(&key, 1).unwrap_err().kind(), ErrorKind::NotFound);
    let first = archive.put_create(&key, "one").unwrap();
    assert_eq!(archive.put_create(&key, "one").unwrap(), first);
    assert_eq!(archive.put_create(&key, "two").unwrap_err().kind(), ErrorKind::Conflict);
    let second = archive.compare_and_swap(&key, &first, "0123456789").unwrap();
    assert_eq!(archive.compare_and_swap(&key, &first, "three").unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(archive.get(&key, 10).unwrap().version, second);
    assert_eq!(archive.get(&key, 9).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(archive.get_range(&key, 2, 3).unwrap().as_ref(), b"234");
    for (offset, len) in [(9, 2), (10, 1), (1000, 1)] {
        assert_eq!(archive.get_range(&key, offset, len).unwrap_err().kind(), ErrorKind::Corrupt, "{offset}");
    }
    for number in 0..20 {
        archive.put(&name(&format!("many/{number}")), "x").unwrap();
    }
    let mut listing = archive.list("v1/test/many").unwrap();
    assert_eq!((listing.by_ref().filter(Result::is_ok).count(), listing.foreign()), (20, 0));
    archive.delete(&key).unwrap();
    archive.delete(&key).unwrap();
    assert_eq!(archive.head(&key).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(archive.compare_and_swap(&key, &second, "x").unwrap_err().kind(), ErrorKind::NotFound);
}

fn timeline(id: Uuid, parent: Option<Parent>) -> Timeline {
    Timeline { id, parent, encoding: EncodingId::of(&Natural), cause: Cause::Init }
}

fn no_commit_is_lost_or_doubled_in_a_storm(provider: Provider) {
    let archive = &open(provider);
    create(archive, timeline(Uuid::from_u128(1), None), Uuid::from_u128(2)).unwrap();
    let grow = |head: &Head| -> Result<Head, Error> {
        let mut head = head.clone();
        let end = LogPosition { segment: 1, sequence: 2, time: 3 };
        let parent = Parent { timeline: head.current, end };
        head.begin_timeline(timeline(Uuid::new_v4(), Some(parent)))?;
        Ok(head)
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| drop(commit(archive, grow).unwrap())));
        }
    });
    let head = load(archive).unwrap().head;
    assert_eq!((head.generation, head.timelines.len()), (21, 21));
}

fn a_pin_holds_while_a_file_goes_up_in_parts_and_down(provider: Provider) {
    let archive = &open(provider);
    create(archive, timeline(Uuid::from_u128(1), None), Uuid::from_u128(2)).unwrap();
    let request = PinRequest { owner: "test".into(), purpose: "upload".into(), ttl: TTL };
    let (pin, loaded) = Pin::take_and_load(archive, &request).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..17_000_001_u32).map(|at| (at * 7 + at / 251) as u8).collect();
    let path = directory.path().join("file");
    std::fs::write(&path, &bytes).unwrap();
    let (size, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
    let reference = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
    let vfs = RealVfs::default();
    transfer::put_file(archive, &reference, &vfs, &path).unwrap();
    let back = directory.path().join("back");
    transfer::get_file(archive, &reference, &vfs, &back).unwrap();
    assert!(std::fs::read(&back).unwrap() == bytes);
    pin.check().unwrap();
    let listed = pin::list(archive).unwrap();
    assert_eq!((listed.len(), listed[0].id, listed[0].is_expired()), (1, pin.id(), false));
    assert_eq!(listed[0].contents.as_ref().unwrap().generation, Some(loaded.head.generation));
    pin.release().unwrap();
    assert_eq!(archive.list(PINS).unwrap().count(), 0);
}
