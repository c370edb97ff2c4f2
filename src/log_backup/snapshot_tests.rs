use super::archive::Archive;
use super::archive_tests::faulty;
use super::commit::{commit, load};
use super::commit_tests::{first_timeline, make};
use super::doom::{self, DoomList};
use super::fault_store::{Call, Effect, FaultStore, When};
use super::migration::{Body, GcBody, Key};
use super::names::DATA;
use super::pin::{Pin, PinRequest, TTL};
use super::snapshot_format::*;
use super::snapshot_transfer::*;
use crate::encoding::{EncodingId, Natural};
use crate::error::{ErrorKind, Result};
use crate::fs::RealVfs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::TempDir;
use uuid::Uuid;

const FILES: [&str; 5] = ["000007.sst", "CURRENT", "KEY_ENCODING", "MANIFEST-000004", "OPTIONS-000006"];

fn database() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in FILES {
        std::fs::write(directory.path().join(file), format!("contents of {file}")).unwrap();
    }
    directory
}

fn place(id: u128) -> SnapshotPlace {
    SnapshotPlace {
        id: Uuid::from_u128(id),
        timeline: first_timeline().id,
        sequence: 10,
        time: 20,
        next_segment: 1,
        encoding: EncodingId::of(&Natural),
    }
}

fn pin(archive: &Archive) -> Pin {
    let request = PinRequest { owner: "test".into(), purpose: "snapshot".into(), ttl: TTL };
    Pin::take_and_load(archive, &request).unwrap().0
}

fn store(archive: &Archive, directory: &Path, id: u128, previous: Option<&Manifest>) -> Result<(Manifest, Uploaded)> {
    store_snapshot(archive, &pin(archive), &RealVfs::default(), directory, &place(id), previous)
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

fn fetch(archive: &Archive, manifest: &Manifest, directory: &Path) -> Result<()> {
    download(archive, manifest, &RealVfs::default(), directory, &|| Ok(()))
}

/// The manifests that HEAD knows.
fn committed(archive: &Archive) -> Vec<Manifest> {
    let live = load(archive).unwrap().head.migrations.merged().unwrap();
    let manifest = |body: &Body| match body {
        Body::Snapshot(snapshot) => Some(read_manifest(archive, &snapshot.manifest).unwrap()),
        _ => None,
    };
    live.entries.values().filter_map(|entry| manifest(&entry.body)).collect()
}

fn ready() -> (Archive, FaultStore, TempDir) {
    let (archive, store) = faulty();
    make(&archive);
    (archive, store, database())
}

#[test]
fn a_directory_comes_back_as_it_was_and_what_is_shared_goes_up_once() {
    let (archive, _, directory) = ready();
    let (first, uploaded) = store(&archive, directory.path(), 1, None).unwrap();
    assert_eq!((uploaded.files, uploaded.shared_files, first.bytes()), (5, 0, uploaded.bytes));
    std::fs::write(directory.path().join("000009.sst"), "new").unwrap();
    let (second, uploaded) = store(&archive, directory.path(), 2, Some(&first)).unwrap();
    assert_eq!((uploaded.files, uploaded.bytes, uploaded.shared_files), (1, 3, 5));
    assert_eq!(committed(&archive), [first.clone(), second.clone()]);
    assert_eq!(archive.list(DATA).unwrap().count(), 6);
    let target = tempfile::tempdir().unwrap();
    fetch(&archive, &second, &target.path().join("db")).unwrap();
    assert_eq!(contents(&target.path().join("db")), contents(directory.path()));
    // Repeated over what an interrupted download left: torn files are fetched again.
    let db = target.path().join("db");
    std::fs::write(db.join("CURRENT"), "torn").unwrap();
    std::fs::remove_file(db.join("000009.sst")).unwrap();
    fetch(&archive, &second, &db).unwrap();
    assert_eq!(contents(&db), contents(directory.path()));
    std::fs::write(db.join("foreign"), "x").unwrap();
    assert_eq!(fetch(&archive, &second, &db).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn storing_one_snapshot_twice_is_storing_it_once() {
    let (archive, _, directory) = ready();
    let (first, _) = store(&archive, directory.path(), 1, None).unwrap();
    let (again, _) = store(&archive, directory.path(), 1, None).unwrap();
    assert_eq!((again, committed(&archive).len()), (first, 1));
    assert_eq!(archive.list(super::names::SNAPSHOTS).unwrap().count(), 1);
}

#[test]
fn a_snapshot_is_in_head_whole_or_not_at_all_whichever_call_fails() {
    let (archive, calls, directory) = ready();
    let holder = pin(&archive);
    let vfs = RealVfs::default();
    calls.plan(&[]);
    store_snapshot(&archive, &holder, &vfs, directory.path(), &place(1), None).unwrap();
    let count = calls.counted();
    assert!(count >= 8, "{count}");
    for effect in [Effect::Fail, Effect::LoseAnswer, Effect::Tear] {
        for call in 0..count {
            for sticky in [false, true] {
                let (archive, calls, _) = ready();
                let holder = pin(&archive);
                calls.plan(&[(if sticky { When::From(call) } else { When::Nth(call) }, effect)]);
                let answer = store_snapshot(&archive, &holder, &vfs, directory.path(), &place(1), None);
                calls.plan(&[]);
                let found = committed(&archive);
                assert!(answer.is_ok() || sticky, "{effect:?} at {call}: {answer:?}");
                if let Ok((manifest, _)) = &answer {
                    assert_eq!(found, std::slice::from_ref(manifest));
                }
                for manifest in &found {
                    let target = tempfile::tempdir().unwrap();
                    fetch(&archive, manifest, target.path()).unwrap();
                }
                // Whatever was left, the next attempt makes one of it.
                store_snapshot(&archive, &holder, &vfs, directory.path(), &place(1), None).unwrap();
                assert_eq!(committed(&archive).len(), 1, "{effect:?} at {call}");
            }
        }
    }
}

/// Dooms the objects of a manifest.
fn doom_all(archive: &Archive, manifest: &Manifest) {
    let objects: BTreeSet<_> = manifest.files.iter().map(|file| file.object.name.clone()).collect();
    let list = DoomList::new(objects, Vec::new());
    let reference = doom::write(archive, &list).unwrap();
    assert_eq!(doom::read(archive, &reference).unwrap(), list);
    commit(archive, |head| {
        let mut head = head.clone();
        let body = Body::Gc(GcBody { list: reference.clone(), generation: head.generation + 1 });
        head.migrations.append([(Key::Gc(list.id), body)])?;
        Ok(head)
    })
    .unwrap();
}

#[test]
fn doomed_objects_are_never_referred_to_again() {
    let (archive, _, directory) = ready();
    let holder = pin(&archive);
    let vfs = RealVfs::default();
    let (first, _) = store(&archive, directory.path(), 1, None).unwrap();
    doom_all(&archive, &first);
    let (shared, _) = upload(&archive, &holder, &vfs, directory.path(), &place(2), Some(&first)).unwrap();
    let error = publish(&archive, &holder, &shared, Some(&first)).unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.message().contains("doomed"), "{error}");
    assert_eq!(committed(&archive).len(), 1);
    // By itself it uploads everything anew, under other names.
    let (second, uploaded) = store(&archive, directory.path(), 2, Some(&first)).unwrap();
    assert_eq!((uploaded.files, uploaded.shared_files), (5, 0));
    let names =
        |manifest: &Manifest| manifest.files.iter().map(|file| file.object.name.clone()).collect::<BTreeSet<_>>();
    assert!(names(&first).is_disjoint(&names(&second)));
}

#[test]
fn files_of_a_snapshot_that_left_head_are_not_shared() {
    let (archive, _, directory) = ready();
    let (first, _) = store(&archive, directory.path(), 1, None).unwrap();
    commit(&archive, |head| {
        let mut head = head.clone();
        head.migrations.remove(&[Key::Snapshot(Uuid::from_u128(1))])?;
        Ok(head)
    })
    .unwrap();
    let (second, uploaded) = store(&archive, directory.path(), 2, Some(&first)).unwrap();
    assert_eq!((uploaded.files, committed(&archive)), (5, vec![second]));
}

#[test]
fn a_lost_pin_or_an_unknown_timeline_commits_nothing() {
    let (archive, _, directory) = ready();
    let vfs = RealVfs::default();
    let holder = pin(&archive);
    let (manifest, _) = upload(&archive, &holder, &vfs, directory.path(), &place(1), None).unwrap();
    super::pin::break_pin(&archive, holder.id()).unwrap();
    let noted = holder.note_generation(9).unwrap_err();
    assert_eq!(noted.kind(), ErrorKind::Lost);
    assert_eq!(publish(&archive, &holder, &manifest, None).unwrap_err().kind(), ErrorKind::Lost);
    let lost = upload(&archive, &holder, &vfs, directory.path(), &place(1), None).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Lost);
    let elsewhere = SnapshotPlace { timeline: Uuid::nil(), ..place(1) };
    let holder = pin(&archive);
    let error = store_snapshot(&archive, &holder, &vfs, directory.path(), &elsewhere, None).unwrap_err();
    assert_eq!((error.kind(), committed(&archive).len()), (ErrorKind::NotFound, 0));
}

#[test]
fn directories_and_manifests_with_strange_names_are_refused() {
    for name in ["foreign", "000007.sst.tmp", "x.sst", ".log", "MANIFEST-", "LOCK", "LOG"] {
        let (archive, _, directory) = ready();
        std::fs::write(directory.path().join(name), "x").unwrap();
        let error = store(&archive, directory.path(), 1, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{name}");
    }
    let (archive, _, directory) = ready();
    let (sound, _) = store(&archive, directory.path(), 1, None).unwrap();
    let bytes = sound.to_bytes().unwrap();
    assert_eq!(Manifest::from_bytes(&bytes).unwrap(), sound);
    for len in 0..bytes.len() {
        assert!(Manifest::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::from_bytes(&flipped).is_err(), "{bit}");
    }
    let broken: [fn(&mut Manifest); 7] = [
        |m| m.files[0].file = "../CURRENT".into(),
        |m| m.files[0].file = "/etc/passwd".into(),
        |m| m.files[0].file = "a/000007.sst".into(),
        |m| m.files[0].file = "LOCK".into(),
        |m| m.files.reverse(),
        |m| m.files.push(m.files[4].clone()),
        |m| m.files.retain(|file| file.file != "CURRENT"),
    ];
    for (number, break_it) in broken.into_iter().enumerate() {
        let mut manifest = sound.clone();
        break_it(&mut manifest);
        assert_eq!(manifest.to_bytes().unwrap_err().kind(), ErrorKind::InvalidArgument, "{number}");
        let forged = crate::control::encode_within("test", &manifest, MANIFEST_BYTES_MAX).unwrap();
        assert_eq!(Manifest::from_bytes(&forged).unwrap_err().kind(), ErrorKind::Corrupt, "{number}");
    }
}

#[test]
fn a_damaged_object_is_seen_and_leaves_no_file() {
    let (archive, calls, directory) = ready();
    let (manifest, _) = store(&archive, directory.path(), 1, None).unwrap();
    let object = &manifest.files[0].object;
    let whole = archive.get(&object.name, 1000).unwrap().bytes.to_vec();
    let target = tempfile::tempdir().unwrap();
    let mut flipped = whole.clone();
    flipped[3] ^= 1;
    for damaged in [flipped, whole[1..].to_vec(), [whole.as_slice(), b"x"].concat(), Vec::new()] {
        archive.put(&object.name, damaged).unwrap();
        assert_eq!(fetch(&archive, &manifest, target.path()).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(!target.path().join(&manifest.files[0].file).exists());
    }
    archive.delete(&object.name).unwrap();
    assert_eq!(fetch(&archive, &manifest, target.path()).unwrap_err().kind(), ErrorKind::NotFound);
    archive.put(&object.name, whole).unwrap();
    // Now and then a torn answer: it is asked again.
    calls.plan_for(Call::Get, When::Every(2), Effect::Tear);
    fetch(&archive, &manifest, target.path()).unwrap();
    assert_eq!(contents(target.path()), contents(directory.path()));
}

#[test]
fn a_file_of_that_length_that_is_another_is_fetched_again() {
    let (archive, _, directory) = ready();
    let (manifest, _) = store(&archive, directory.path(), 1, None).unwrap();
    let target = tempfile::tempdir().unwrap();
    for file in FILES {
        std::fs::write(target.path().join(file), format!("contentz of {file}")).unwrap();
    }
    fetch(&archive, &manifest, target.path()).unwrap();
    assert_eq!(contents(target.path()), contents(directory.path()));
}
