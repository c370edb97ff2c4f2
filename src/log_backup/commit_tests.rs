use super::archive::{Archive, ArchiveOptions};
use super::archive_tests::{faulty, quick};
use super::commit::{commit, create, load};
use super::fault_store::{Call, Effect, When};
use super::head::*;
use super::migration::{Body, IngestedBody, Key};
use super::names::{self, ContentHash, ObjectReference};
use crate::attachment::Cause;
use crate::encoding::{EncodingId, Natural};
use crate::error::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

pub(crate) fn first_timeline() -> Timeline {
    Timeline { id: Uuid::from_u128(1), parent: None, encoding: EncodingId::of(&Natural), cause: Cause::Init }
}

pub(crate) fn make(archive: &Archive) {
    create(archive, first_timeline(), Uuid::from_u128(77)).unwrap();
}

/// A change that counts: each one leaves one more timeline behind, so doing it twice shows.
fn count(head: &Head) -> crate::error::Result<Head> {
    let mut head = head.clone();
    let end = LogPosition { segment: 1, sequence: 2, time: 3 };
    let parent = Some(Parent { timeline: head.current, end });
    head.begin_timeline(Timeline { id: Uuid::new_v4(), parent, cause: Cause::Conversion, ..first_timeline() })?;
    Ok(head)
}

pub(crate) fn sample() -> Head {
    let mut head = Head::new(Uuid::from_u128(5), first_timeline(), Uuid::from_u128(6));
    for number in 1..4 {
        head = count(&head).unwrap().committed(Uuid::from_u128(number), &head).unwrap();
    }
    let hash = ContentHash::of(b"x");
    let list = ObjectReference { name: names::gc(Uuid::nil()), size: 1, hash };
    let body = Body::Ingested(IngestedBody { list, timeline: Uuid::from_u128(1), sequence: 1 });
    head.migrations.append([(Key::Ingested(Uuid::nil()), body)]).unwrap();
    head
}

#[test]
fn every_truncation_and_every_bit_flip_of_head_is_refused() {
    let head = sample();
    let bytes = head.to_bytes().unwrap();
    assert_eq!(Head::from_bytes(&bytes).unwrap(), head);
    for len in 0..bytes.len() {
        assert!(Head::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Head::from_bytes(&flipped).is_err(), "{bit}");
    }
}

#[test]
fn heads_that_no_commit_makes_are_refused() {
    type Case = (fn(&mut Head), ErrorKind);
    let broken: [Case; 9] = [
        (|head| head.format = 2, ErrorKind::Unsupported),
        (|head| head.generation += 1, ErrorKind::Corrupt),
        (|head| head.commits.clear(), ErrorKind::Corrupt),
        (|head| head.commits.rotate_left(1), ErrorKind::Corrupt),
        (|head| head.commits.reverse(), ErrorKind::Corrupt),
        (|head| head.current = Uuid::nil(), ErrorKind::Corrupt),
        (|head| head.timelines.reverse(), ErrorKind::Corrupt),
        (|head| head.timelines.push(head.timelines[0].clone()), ErrorKind::Corrupt),
        (|head| head.migrations.next_layer = 0, ErrorKind::Corrupt),
    ];
    for (number, (break_it, kind)) in broken.into_iter().enumerate() {
        let mut head = sample();
        break_it(&mut head);
        let bytes = crate::control::encode_within("test", &head, HEAD_BYTES_MAX).unwrap();
        assert_eq!(Head::from_bytes(&bytes).unwrap_err().kind(), kind, "{number}");
        if kind == ErrorKind::Corrupt {
            assert_eq!(head.to_bytes().unwrap_err().kind(), ErrorKind::InvalidArgument, "{number}");
        }
    }
}

#[test]
fn timelines_form_a_tree_and_beginning_one_can_be_repeated() {
    let mut head = sample();
    let line = head.ancestry(head.current).unwrap();
    assert_eq!(line.len(), 4);
    assert!(line[0].is_derivable() && !line[3].is_derivable());
    let again = head.timeline(head.current).unwrap().clone();
    let before = head.clone();
    head.begin_timeline(again.clone()).unwrap();
    assert_eq!(head, before);
    let other = Timeline { cause: Cause::Gap, ..again };
    assert_eq!(head.begin_timeline(other).unwrap_err().kind(), ErrorKind::Conflict);
    let end = LogPosition { segment: 1, sequence: 2, time: 3 };
    let orphan = Timeline { id: Uuid::nil(), parent: Some(Parent { timeline: Uuid::nil(), end }), ..first_timeline() };
    assert_eq!(head.begin_timeline(orphan).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_archive_is_made_once() {
    let (archive, _) = faulty();
    assert_eq!(load(&archive).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(commit(&archive, count).unwrap_err().kind(), ErrorKind::NotFound);
    make(&archive);
    commit(&archive, count).unwrap();
    make(&archive);
    assert_eq!(load(&archive).unwrap().head.timelines.len(), 2);
    let error = create(&archive, first_timeline(), Uuid::from_u128(78)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[test]
fn a_change_that_changes_nothing_is_no_commit_and_one_that_fails_changes_nothing() {
    let (archive, store) = faulty();
    make(&archive);
    commit(&archive, |head| Ok(head.clone())).unwrap();
    let refusal = || crate::error::Error::new(ErrorKind::Refused, "test", "no");
    assert_eq!(commit(&archive, |_| Err(refusal())).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(load(&archive).unwrap().head.generation, 1);
    assert!(store.calls().iter().all(|(call, _)| *call != Call::Update));
}

#[test]
fn a_commit_happens_once_whichever_call_fails_or_loses_its_answer() {
    let mut commits = 0;
    for effect in [Effect::Fail, Effect::LoseAnswer, Effect::Tear, Effect::Delay(Duration::from_millis(1))] {
        for first in 0..8 {
            for second in first..8 {
                let (archive, store) = faulty();
                make(&archive);
                store.plan(&[(When::Nth(first), effect), (When::Nth(second), effect)]);
                let answer = commit(&archive, count);
                store.plan(&[]);
                let head = load(&archive).unwrap().head;
                assert!(answer.is_ok(), "{effect:?} at {first} and {second}: {answer:?}");
                assert_eq!((head.timelines.len(), head.generation), (2, 2), "{effect:?} at {first} and {second}");
                commits += 1;
            }
        }
    }
    assert_eq!(commits, 144);
}

#[test]
fn a_commit_whose_every_answer_is_lost_happens_at_most_once() {
    let (archive, store) = faulty();
    make(&archive);
    store.plan_for(Call::Update, When::From(0), Effect::LoseAnswer);
    let head = commit(&archive, count).unwrap();
    assert_eq!((head.timelines.len(), head.generation), (2, 2));
    store.plan_for(Call::Update, When::From(0), Effect::Fail);
    assert_eq!(commit(&archive, count).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(load(&archive).unwrap().head.generation, 2);
}

/// The answer is lost, and somebody else commits before anybody looks: the nonce tells that both are in.
#[test]
fn a_lost_answer_under_somebody_elses_commit_is_found() {
    let (archive, store) = faulty();
    make(&archive);
    let rival = Archive::with_store(store.inner(), "memory://test", "some/prefix", quick()).unwrap();
    // Calls: the load, the write whose answer is lost, and the look after it, which comes late.
    store.plan(&[(When::Nth(1), Effect::LoseAnswer), (When::Nth(2), Effect::Delay(Duration::from_millis(700)))]);
    let found = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| {
            while load(&rival).unwrap().head.generation < 2 {
                std::thread::yield_now();
            }
            commit(&rival, count).unwrap()
        });
        let found = commit(&archive, count).unwrap();
        assert_eq!(theirs.join().unwrap().generation, 3);
        found
    });
    assert_eq!((found.generation, found.timelines.len()), (3, 3));
    assert_eq!(load(&archive).unwrap().head, found);
}

#[test]
fn head_says_when_it_has_forgotten() {
    let nonce = Uuid::from_u128(9);
    let head = sample();
    let mine = head.clone().committed(nonce, &head).unwrap();
    let later = |head: Head| head.clone().committed(Uuid::new_v4(), &head).unwrap();
    let remembered = (1..COMMITS_KEPT).fold(mine.clone(), |head, _| later(head));
    let forgotten = later(remembered.clone());
    let generation = mine.generation;
    assert_eq!(mine.knows(nonce, generation), Some(true));
    assert_eq!(remembered.knows(nonce, generation), Some(true));
    assert_eq!(forgotten.knows(nonce, generation), None);
    assert_eq!(head.knows(nonce, generation), Some(false));
    assert_eq!(forgotten.knows(Uuid::nil(), generation + 1), Some(false));
    assert_eq!(forgotten.commits.len(), COMMITS_KEPT);
}

fn storm(archive: &Archive, rivals: usize, each: usize) {
    make(archive);
    std::thread::scope(|scope| {
        for _ in 0..rivals {
            scope.spawn(|| {
                for _ in 0..each {
                    commit(archive, count).unwrap();
                }
            });
        }
    });
    let head = load(archive).unwrap().head;
    assert_eq!(head.timelines.len(), 1 + rivals * each);
    assert_eq!(head.generation, 1 + (rivals * each) as u64);
}

#[test]
fn no_commit_is_lost_or_doubled_in_a_storm() {
    let (_, store) = faulty();
    // With answers lost and calls failing all the while, and so many attempts that no call ever meets failures alone.
    store.plan(&[(When::Every(11), Effect::LoseAnswer), (When::Every(13), Effect::Fail)]);
    let options = ArchiveOptions { attempts: 16, ..quick() };
    let archive = Archive::with_store(Arc::new(store), "memory://test", "", options).unwrap();
    storm(&archive, 8, 12);
}

#[test]
fn no_commit_is_lost_or_doubled_in_a_storm_on_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    storm(&Archive::open(&url, quick()).unwrap(), 6, 6);
}
