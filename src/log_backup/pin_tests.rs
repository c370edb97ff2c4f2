use super::archive::{Archive, ArchiveOptions};
use super::archive_tests::{faulty, quick};
use super::commit_tests::make;
use super::fault_store::{Call, Effect, FaultStore, When};
use super::names::{self, PINS};
use super::pin::*;
use crate::error::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

fn request(ttl: Duration) -> PinRequest {
    PinRequest { owner: "shard-7\n".into(), purpose: "test".into(), ttl }
}

const LONG: Duration = Duration::from_secs(600);

fn pins(archive: &Archive) -> usize {
    archive.list(PINS).unwrap().count()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Pull request 67850's third test in our terms: a HEAD that cannot be read gives that very error, and the pin that was
/// taken before is gone; the store saw it come and go.
#[test]
fn a_head_that_cannot_be_read_leaves_no_pin() {
    let (archive, store) = faulty();
    archive.put(&names::head(), "garbage").unwrap();
    let error = Pin::take_and_load(&archive, &request(LONG)).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Corrupt, "read the archive's HEAD"));
    assert_eq!(pins(&archive), 0);
    let calls = store.calls();
    let at = |wanted: Call, part: &str| {
        calls.iter().position(|(call, name)| *call == wanted && name.contains(part)).expect("the store saw it")
    };
    let (made, loaded, removed) = (at(Call::Create, PINS), at(Call::Get, "v1/HEAD"), at(Call::Delete, PINS));
    assert!(made < loaded && loaded < removed, "{calls:?}");
    assert_eq!(calls[made].1, calls[removed].1);
}

#[test]
fn a_pin_notes_the_generation_is_listed_and_goes_with_its_guard() {
    let (archive, _) = faulty();
    make(&archive);
    let (pin, loaded) = Pin::take_and_load(&archive, &request(LONG)).unwrap();
    let listed = list(&archive).unwrap();
    let [state] = listed.as_slice() else { panic!("{listed:?}") };
    let contents = state.contents.clone().unwrap();
    assert_eq!((state.id, contents.generation), (pin.id(), Some(loaded.head.generation)));
    assert_eq!((contents.owner.as_str(), contents.process), ("shard-7 ", std::process::id()));
    assert!(!state.is_expired() && state.blocks(2) && !state.blocks(1));
    pin.check().unwrap();
    pin.release().unwrap();
    assert_eq!((pins(&archive), archive.list(names::CLOCK).unwrap().count()), (0, 0));
    drop(Pin::take(&archive, &request(LONG)).unwrap());
    assert_eq!(pins(&archive), 0);
    let error = Pin::take(&archive, &request(TTL_MAX + LONG)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn no_failure_on_the_way_leaves_a_pin_or_a_wrong_answer() {
    let (archive, store) = faulty();
    make(&archive);
    store.plan(&[]);
    drop(Pin::take_and_load(&archive, &request(LONG)).unwrap());
    let calls = store.counted();
    assert!(calls >= 4, "{calls}");
    for effect in [Effect::Fail, Effect::LoseAnswer, Effect::Tear] {
        for call in 0..calls + 3 {
            store.plan(&[(When::Nth(call), effect)]);
            let (pin, loaded) = Pin::take_and_load(&archive, &request(LONG)).unwrap();
            store.plan(&[]);
            let listed = list(&archive).unwrap();
            let generation = listed[0].contents.as_ref().unwrap().generation;
            assert_eq!((listed.len(), generation), (1, Some(loaded.head.generation)));
            pin.check().unwrap();
            store.plan(&[(When::Nth(call % 3), effect)]);
            pin.release().unwrap();
            store.plan(&[]);
            assert_eq!(pins(&archive), 0, "{effect:?} at {call}");
        }
        // From some call on all fails, for a while: there is an error, and what could not be removed has no holder. The last
        // call is the removal itself.
        for call in 0..calls - 1 {
            store.plan(&[(When::From(call), effect)]);
            let error = Pin::take_and_load(&archive, &request(LONG)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{effect:?} from {call}");
            store.plan(&[]);
            list(&archive).unwrap().iter().for_each(|pin| break_pin(&archive, pin.id).unwrap());
        }
    }
}

#[test]
fn it_is_renewed_and_survives_failing_renewals_for_a_while() {
    let (archive, store) = faulty();
    let pin = Pin::take(&archive, &request(Duration::from_millis(900))).unwrap();
    let renewals = |archive: &Archive| list(archive).unwrap()[0].contents.as_ref().unwrap().renewals;
    wait_for("a renewal", || renewals(&archive) >= 2);
    store.plan_for(Call::Update, When::Every(2), Effect::LoseAnswer);
    let before = renewals(&archive);
    wait_for("a renewal", || renewals(&archive) >= before + 2);
    pin.check().unwrap();
}

#[test]
fn one_that_is_broken_or_changed_is_lost_and_its_holder_knows() {
    for change in [true, false] {
        let (archive, _) = faulty();
        make(&archive);
        let pin = Pin::take(&archive, &request(Duration::from_millis(300))).unwrap();
        if change {
            archive.put(&names::pin(pin.id()), "something else").unwrap();
        } else {
            break_pin(&archive, pin.id()).unwrap();
            assert_eq!(break_pin(&archive, pin.id()).unwrap_err().kind(), ErrorKind::NotFound);
        }
        wait_for("the loss", || pin.check().is_err());
        let error = pin.check().unwrap_err();
        let why = if change { "changed" } else { "removed" };
        assert!(error.kind() == ErrorKind::Lost && error.message().contains(why), "{error}");
        assert_eq!(pin.note_generation(1).unwrap_err().kind(), ErrorKind::Lost);
        drop(pin);
        assert_eq!(pins(&archive), 0, "a lost pin is not written again");
    }
}

/// The holder gives up before a judge may: it counts from before each write was sent, with no store to ask.
#[test]
fn a_holder_that_cannot_renew_gives_up_in_time_even_while_the_store_hangs() {
    let store = FaultStore::in_memory();
    let options = ArchiveOptions { timeout: Duration::from_millis(700), attempts: 2, ..quick() };
    let archive = Archive::with_store(Arc::new(store.clone()), "memory://test", "", options).unwrap();
    let taken = Instant::now();
    let pin = Pin::take(&archive, &request(Duration::from_millis(200))).unwrap();
    store.plan(&[(When::From(0), Effect::Delay(Duration::from_secs(3600)))]);
    while pin.check().is_ok() {
        let asked = Instant::now();
        let _ = pin.check();
        assert!(asked.elapsed() < Duration::from_millis(300), "asking waits for the store");
        assert!(taken.elapsed() < Duration::from_secs(5), "it is never given up");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(pin.check().unwrap_err().kind(), ErrorKind::Lost);
    store.plan(&[]);
}

#[test]
fn expiry_is_judged_in_the_stores_time() {
    let (archive, store) = faulty();
    let pin = Pin::take(&archive, &request(LONG)).unwrap();
    assert!(!list(&archive).unwrap()[0].is_expired());
    store.make_older(PINS, LONG - Duration::from_secs(60));
    assert!(!list(&archive).unwrap()[0].is_expired());
    store.make_older(PINS, Duration::from_secs(61));
    let state = list(&archive).unwrap().remove(0);
    assert!(state.is_expired() && !state.blocks(u64::MAX), "{state:?}");
    drop(pin);
}

#[test]
fn what_cannot_be_read_is_live_and_may_need_everything() {
    let (archive, _) = faulty();
    let id = Uuid::new_v4();
    archive.put(&names::pin(id), "garbage").unwrap();
    archive.put(&names::pin(Uuid::new_v4()), "x".repeat(10_000)).unwrap();
    let listed = list(&archive).unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|pin| pin.contents.is_none() && !pin.is_expired() && pin.blocks(1)));
    break_pin(&archive, id).unwrap();
    assert_eq!(list(&archive).unwrap().len(), 1);
}

#[test]
fn a_judge_that_cannot_see_all_pins_has_no_answer() {
    let (archive, store) = faulty();
    let _pins = [Pin::take(&archive, &request(LONG)).unwrap(), Pin::take(&archive, &request(LONG)).unwrap()];
    store.plan(&[]);
    assert_eq!(list(&archive).unwrap().len(), 2);
    let calls = store.counted();
    for call in 0..calls {
        store.plan(&[(When::Nth(call), Effect::Fail)]);
        assert_eq!(list(&archive).unwrap().len(), 2);
        store.plan(&[(When::From(call), Effect::Fail)]);
        match list(&archive) {
            Ok(listed) => assert_eq!((listed.len(), call), (2, calls)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
        }
    }
}

/// Its clock stood still, as that of a machine that slept: it had time left by it, and none by the store's.
#[test]
fn a_holder_whose_clock_stood_still_finds_out_when_it_renews() {
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::open(&format!("file://{}", directory.path().display()), quick()).unwrap();
    let age = |pin: &Pin, by: Duration| {
        let path = directory.path().join(names::pin(pin.id()).as_str());
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - by).unwrap();
    };
    let pin = Pin::take(&archive, &request(LONG)).unwrap();
    age(&pin, LONG - Duration::from_secs(60));
    pin.confirm().unwrap();
    age(&pin, LONG + Duration::from_secs(1));
    pin.check().unwrap();
    let error = pin.confirm().unwrap_err();
    assert!(error.kind() == ErrorKind::Lost && error.message().contains("too late"), "{error}");
    assert_eq!(pin.check().unwrap_err().kind(), ErrorKind::Lost);
    // Removed; and one whose renewal fails is not lost.
    let pin = Pin::take(&archive, &request(LONG)).unwrap();
    break_pin(&archive, pin.id()).unwrap();
    pin.check().unwrap();
    let error = pin.confirm().unwrap_err();
    assert!(error.kind() == ErrorKind::Lost && error.message().contains("removed"), "{error}");
    let (archive, store) = faulty();
    let pin = Pin::take(&archive, &request(LONG)).unwrap();
    store.plan(&[(When::From(0), Effect::Fail)]);
    assert_eq!(pin.confirm().unwrap_err().kind(), ErrorKind::Io);
    store.plan(&[]);
    pin.confirm().unwrap();
}
