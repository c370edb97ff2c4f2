use super::archive::{Archive, ArchiveOptions};
use super::fault_store::{Call, Effect, FaultStore, When};
use super::names::{self, ContentHash, ObjectName, ObjectReference};
use super::probe::probe_store;
use super::transfer::{self, PART_BYTES};
use crate::error::ErrorKind;
use crate::fs::RealVfs;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Options with which nothing waits long.
pub(crate) fn quick() -> ArchiveOptions {
    ArchiveOptions {
        timeout: Duration::from_secs(20),
        backoff: Duration::from_millis(1),
        runtime: Some(runtime()),
        ..ArchiveOptions::default()
    }
}

/// One thread for all archives of a test.
fn runtime() -> super::runtime::ArchiveRuntime {
    super::runtime::ArchiveRuntime::start().unwrap()
}

/// An archive in memory, and the store that fails it.
pub(crate) fn faulty() -> (Archive, FaultStore) {
    let store = FaultStore::in_memory();
    let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "some/prefix", quick()).unwrap();
    (archive, store)
}

fn local(directory: &std::path::Path) -> Archive {
    Archive::open(&format!("file://{}", directory.display()), quick()).unwrap()
}

fn name(last: &str) -> ObjectName {
    ObjectName::new(format!("v1/test/{last}")).unwrap()
}

/// Every archive that a test of the plain contract runs on.
fn with_each(test: impl Fn(&Archive)) {
    let directory = tempfile::tempdir().unwrap();
    test(&faulty().0);
    test(&local(directory.path()));
}

#[test]
fn an_object_is_created_once_swapped_by_version_listed_and_removed() {
    with_each(|archive| {
        let key = name("a");
        assert_eq!(archive.get(&key, 10).unwrap_err().kind(), ErrorKind::NotFound);
        let first = archive.put_create(&key, "one").unwrap();
        assert_eq!(archive.put_create(&key, "one").unwrap(), first);
        assert_eq!(archive.put_create(&key, "two").unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(archive.put_create(&key, "another").unwrap_err().kind(), ErrorKind::Conflict);
        let second = archive.compare_and_swap(&key, &first, "two").unwrap();
        assert_ne!(first, second);
        let stale = archive.compare_and_swap(&key, &first, "three").unwrap_err();
        assert_eq!(stale.kind(), ErrorKind::Conflict);
        let found = archive.get(&key, 3).unwrap();
        assert_eq!((found.bytes.as_ref(), &found.version, found.stat.size), (b"two".as_slice(), &second, 3));
        assert_eq!(archive.get(&key, 2).unwrap_err().kind(), ErrorKind::Corrupt);
        archive.put(&name("b/c"), "x").unwrap();
        let mut listed: Vec<_> = archive.list("v1/test").unwrap().map(|listed| listed.unwrap().name).collect();
        listed.sort();
        assert_eq!(listed, [key.clone(), name("b/c")]);
        assert_eq!(archive.list("v1").unwrap().count(), 2);
        assert_eq!(archive.list("v2").err().map(|error| error.kind()), Some(ErrorKind::InvalidArgument));
        assert!(archive.head(&key).unwrap().modified > 1_500_000_000_000_000);
        archive.delete(&key).unwrap();
        archive.delete(&key).unwrap();
        let gone = archive.compare_and_swap(&key, &second, "four").unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        assert_eq!(archive.head(&key).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn ranges_are_exact_or_an_error() {
    with_each(|archive| {
        let key = name("a");
        archive.put(&key, "0123456789").unwrap();
        assert_eq!(archive.get_range(&key, 2, 3).unwrap().as_ref(), b"234");
        assert_eq!(archive.get_range(&key, 9, 1).unwrap().as_ref(), b"9");
        for (offset, len) in [(9, 2), (10, 1), (1000, 1)] {
            assert_eq!(archive.get_range(&key, offset, len).unwrap_err().kind(), ErrorKind::Corrupt, "{offset}");
        }
        assert_eq!(archive.get_range(&key, 0, 0).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(archive.get_range(&key, u64::MAX, 1).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let right = ObjectReference { name: key.clone(), size: 10, hash: ContentHash::of(b"0123456789") };
        assert_eq!(archive.get_verified(&right, 10).unwrap().as_ref(), b"0123456789");
        let wrong = [
            ObjectReference { size: 9, ..right.clone() },
            ObjectReference { size: 11, ..right.clone() },
            ObjectReference { hash: ContentHash::of(b""), ..right.clone() },
        ];
        for reference in wrong {
            assert_eq!(archive.get_verified(&reference, 100).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert_eq!(archive.get_verified(&right, 9).unwrap_err().kind(), ErrorKind::Corrupt);
    });
}

/// What `operation` leaves behind must be one of two states, whichever call fails or loses its answer; and where it returns
/// Ok, the second one.
fn sweep(
    effect: Effect,
    operation: impl Fn(&Archive) -> crate::error::Result<()>,
    done: impl Fn(&Archive) -> bool,
) -> u64 {
    let (archive, store) = faulty();
    store.plan(&[]);
    operation(&archive).unwrap();
    let calls = store.counted();
    for call in 0..calls + 2 {
        let (archive, store) = faulty();
        store.plan(&[(When::Nth(call), effect)]);
        let answer = operation(&archive);
        assert!(answer.is_ok(), "{effect:?} at call {call}: {answer:?}");
        store.plan(&[]);
        assert!(done(&archive), "{effect:?} at call {call}");
    }
    calls
}

const EFFECTS: [Effect; 4] = [Effect::Fail, Effect::LoseAnswer, Effect::Tear, Effect::Delay(Duration::from_millis(2))];

#[test]
fn one_failure_or_lost_answer_at_any_call_changes_nothing() {
    for effect in EFFECTS {
        let operation = |archive: &Archive| {
            let key = name("a");
            let first = archive.put_create(&key, "one")?;
            let second = archive.compare_and_swap(&key, &first, "two")?;
            archive.compare_and_swap(&key, &second, "a longer one")?;
            archive.get(&key, 100)?;
            archive.get_range(&key, 1, 2)?;
            archive.put(&name("b"), "x")?;
            let listed = archive.list("v1/test")?.collect::<crate::error::Result<Vec<_>>>()?;
            assert_eq!(listed.len(), 2);
            archive.delete(&name("b"))
        };
        let done = |archive: &Archive| {
            archive.get(&name("a"), 100).unwrap().bytes.as_ref() == b"a longer one" && archive.head(&name("b")).is_err()
        };
        // A listing that breaks off in the middle cannot be taken back; here it breaks off after its first entry, before
        // any was yielded.
        assert!(sweep(effect, operation, done) >= 8);
    }
}

#[test]
fn a_store_that_always_fails_is_an_error_with_advice_after_bounded_attempts() {
    let (archive, store) = faulty();
    store.plan(&[(When::From(0), Effect::Fail)]);
    let error = archive.put_create(&name("a"), "x").unwrap_err();
    assert_eq!((error.kind(), error.next_command().is_some()), (ErrorKind::Io, true));
    assert!(store.counted() <= 20, "{}", store.counted());
    let entries: Vec<_> = archive.list("v1/test").unwrap().collect();
    assert!(matches!(entries.as_slice(), [Err(error)] if error.kind() == ErrorKind::Io), "{entries:?}");
}

#[test]
fn an_answer_that_never_comes_is_given_up() {
    let store = FaultStore::in_memory();
    let options = ArchiveOptions { timeout: Duration::from_millis(50), attempts: 2, ..quick() };
    let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "", options).unwrap();
    store.plan(&[(When::From(0), Effect::Delay(Duration::from_secs(3600)))]);
    let begun = std::time::Instant::now();
    let error = archive.get(&name("a"), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(begun.elapsed() < Duration::from_secs(20) && error.to_string().contains("no answer"), "{error}");
}

#[test]
fn of_many_creators_and_swappers_one_wins() {
    with_each(|archive| {
        for round in 0..10 {
            let key = name(&format!("race-{round}"));
            let race = |work: &(dyn Fn(u32) -> crate::error::Result<()> + Sync)| {
                std::thread::scope(|scope| {
                    let rivals: Vec<_> = (0..8).map(|rival| scope.spawn(move || work(rival).is_ok())).collect();
                    rivals.into_iter().filter_map(|rival| rival.join().ok()).filter(|won| *won).count()
                })
            };
            assert_eq!(race(&|rival| archive.put_create(&key, rival.to_string()).map(|_| ())), 1);
            let version = archive.get(&key, 10).unwrap().version;
            let swap = |rival: u32| archive.compare_and_swap(&key, &version, (rival + 100).to_string()).map(|_| ());
            assert_eq!(race(&swap), 1);
        }
    });
}

#[test]
fn a_version_of_a_local_object_does_not_come_back() {
    // object_store's own etag is inode, time and size: it comes back when a file is replaced twice within one tick.
    let directory = tempfile::tempdir().unwrap();
    let archive = local(directory.path());
    let key = name("a");
    let first = archive.put_create(&key, "0").unwrap();
    let mut last = first.clone();
    for count in 1..100 {
        last = archive.compare_and_swap(&key, &last, (count % 10).to_string() + &"x".repeat(count)).unwrap();
        assert_ne!(last, first, "{count}");
    }
    assert!(archive.compare_and_swap(&key, &first, "y").is_err());
}

#[test]
fn a_local_archive_lists_no_unfinished_file_and_says_what_is_foreign() {
    let directory = tempfile::tempdir().unwrap();
    let archive = local(directory.path());
    archive.put(&name("a"), "x").unwrap();
    std::fs::write(directory.path().join("v1/test/a#1"), "torn").unwrap();
    std::fs::write(directory.path().join("v1/test/a b"), "foreign").unwrap();
    let mut listing = archive.list("v1/test").unwrap();
    let listed: Vec<_> = listing.by_ref().map(|listed| listed.unwrap().name).collect();
    assert_eq!((listed, listing.foreign()), (vec![name("a")], 1));
    // An unfinished file of a process that died is in nobody's way.
    archive.put(&name("a"), "y").unwrap();
    assert_eq!(archive.get(&name("a"), 9).unwrap().bytes.as_ref(), b"y");
}

#[test]
fn urls_are_canonical_and_in_memory_archives_are_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let archive = local(&directory.path().join("."));
    assert_eq!(archive.url(), format!("file://{}", real.display()));
    let missing = Archive::open(&format!("file://{}/missing", real.display()), quick()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let made = ArchiveOptions { create_directory: true, ..quick() };
    Archive::open(&format!("file://{}/missing", real.display()), made).unwrap();
    let one = Archive::open("memory://found-again/p", quick()).unwrap();
    one.put(&name("a"), "x").unwrap();
    let other = Archive::open("memory://found-again/p/", quick()).unwrap();
    assert_eq!(other.get(&name("a"), 1).unwrap().bytes.as_ref(), b"x");
    assert!(Archive::open("memory://found-again/q", quick()).unwrap().get(&name("a"), 1).is_err());
}

#[test]
fn the_probe_refuses_stores_that_ignore_conditions_or_race() {
    let (archive, store) = faulty();
    probe_store(&archive).unwrap();
    assert_eq!(archive.list("v1").unwrap().count(), 0, "it cleans up");
    store.ignore_conditions();
    let error = probe_store(&archive).unwrap_err();
    assert_eq!((error.kind(), error.next_command().is_some()), (ErrorKind::Unsupported, true));
    let directory = tempfile::tempdir().unwrap();
    probe_store(&local(directory.path())).unwrap();
    // object_store's own local store has no compare-and-swap.
    let plain = object_store::local::LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    let plain = Archive::with_store(Arc::new(plain), "memory://plain", "", quick()).unwrap();
    assert_eq!(probe_store(&plain).unwrap_err().kind(), ErrorKind::Unsupported);
    let racy = Archive::with_store(Arc::new(racy::RacyStore::default()), "memory://racy", "", quick()).unwrap();
    let error = probe_store(&racy).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.message().contains("atomic"), "{error}");
}

#[test]
fn the_probe_takes_no_lost_answer_for_a_broken_promise() {
    let (archive, store) = faulty();
    store.plan(&[]);
    probe_store(&archive).unwrap();
    let calls = store.counted();
    assert!(calls > 30, "{calls}");
    for effect in [Effect::Fail, Effect::LoseAnswer] {
        for call in 0..calls {
            store.plan(&[(When::Nth(call), effect)]);
            probe_store(&archive).unwrap_or_else(|error| panic!("{effect:?} at {call}: {error}"));
        }
        store.plan(&[(When::From(0), effect)]);
        assert_eq!(probe_store(&archive).unwrap_err().kind(), ErrorKind::Io);
    }
}

#[test]
fn files_go_up_and_come_down_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let vfs = RealVfs::default();
    let path = directory.path().join("file");
    with_each(|archive| {
        for len in [0, 1, PART_BYTES as usize, 2 * PART_BYTES as usize + 12_345] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let (size, hash) = transfer::hash_file(&vfs, &path).unwrap();
            assert_eq!((size, hash), (len as u64, ContentHash::of(&bytes)));
            let reference = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
            transfer::put_file(archive, &reference, &vfs, &path).unwrap();
            let back = directory.path().join("back");
            transfer::get_file(archive, &reference, &vfs, &back).unwrap();
            assert!(std::fs::read(&back).unwrap() == bytes);
            std::fs::remove_file(&back).unwrap();
            if len == 0 {
                continue;
            }
            let other = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
            std::fs::write(&path, &bytes[1..]).unwrap();
            let error = transfer::put_file(archive, &other, &vfs, &path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert_eq!(archive.head(&other.name).unwrap_err().kind(), ErrorKind::NotFound);
            let wrong = ObjectReference { hash: ContentHash::of(b"?"), ..reference.clone() };
            assert_eq!(transfer::get_file(archive, &wrong, &vfs, &back).unwrap_err().kind(), ErrorKind::Corrupt);
            assert!(!back.exists());
        }
    });
}

#[test]
fn an_upload_in_parts_survives_each_failure() {
    let directory = tempfile::tempdir().unwrap();
    let vfs = RealVfs::default();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![7; PART_BYTES as usize * 2 + 1]).unwrap();
    let (size, hash) = transfer::hash_file(&vfs, &path).unwrap();
    let reference = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
    let calls = |store: &FaultStore| store.counted();
    let (archive, store) = faulty();
    store.plan(&[]);
    transfer::put_file(&archive, &reference, &vfs, &path).unwrap();
    for effect in [Effect::Fail, Effect::LoseAnswer] {
        for call in 0..calls(&store) {
            let (archive, store) = faulty();
            store.plan(&[(When::Nth(call), effect)]);
            transfer::put_file(&archive, &reference, &vfs, &path).unwrap();
            let back = directory.path().join("back");
            store.plan(&[(When::Every(2), effect)]);
            transfer::get_file(&archive, &reference, &vfs, &back).unwrap();
            std::fs::remove_file(&back).unwrap();
        }
    }
    assert!(store.calls().iter().any(|(call, _)| *call == Call::Complete));
}

/// A store that checks first and writes later, as some servers do.
mod racy {
    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::path::Path;
    use object_store::*;

    #[derive(Debug, Default)]
    pub(super) struct RacyStore(memory::InMemory);

    impl std::fmt::Display for RacyStore {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("racy")
        }
    }

    #[async_trait]
    impl ObjectStore for RacyStore {
        async fn put_opts(&self, at: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
            if options.mode == PutMode::Create {
                if self.0.head(at).await.is_ok() {
                    return Err(Error::AlreadyExists { path: at.to_string(), source: "there".into() });
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                options.mode = PutMode::Overwrite;
            }
            self.0.put_opts(at, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(at, options).await
        }

        async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
            self.0.get_opts(at, options).await
        }

        fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.0.delete_stream(names)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.0.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }
}
