//! Restores over a database that is attached to the archive that is restored from: it goes on in the archive, with a timeline
//! of its own, and nothing that was written is lost.

use crate::common::{Content, content, options, scratch};
use crate::source::{Clock, all_of, open_archive, request};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::log_backup::archive::Archive;
use morphkv::log_backup::attach::{TakeOver, attach, detach};
use morphkv::log_backup::commit::load;
use morphkv::log_backup::head::{Cause, Timeline};
use morphkv::log_backup::needed::Until;
use morphkv::log_backup::shipper::{Pass, ShipOptions, Shipper};
use morphkv::log_backup::truncate::TruncateOptions;
use morphkv::log_backup::{fsck, tail, truncate, verify};
use morphkv::restore::folder::Found;
use morphkv::restore::moment::Moment;
use morphkv::restore::unreachable::Unreachable;
use morphkv::restore::{self, GoesOn, Request};
use morphkv::testing::RealVfs;
use morphkv::testing::attachment::{self, Attachment};
use morphkv::{Engine, ErrorKind, Options, Result, manage};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The content at a time.
#[derive(Debug, Clone)]
pub struct State {
    pub time: u64,
    pub content: Content,
}

/// An attached database, and its archive.
pub struct Attached {
    pub directory: tempfile::TempDir,
    pub path: PathBuf,
    pub archive: Archive,
    pub clock: Arc<Clock>,
}

/// Small segments, so that a few writes make several.
pub fn ship_options() -> ShipOptions {
    let (head_after, idle_after) = (Duration::ZERO, Duration::ZERO);
    ShipOptions { segment_bytes: 256, head_after, idle_after, ..ShipOptions::default() }
}

pub fn attachment_of(path: &Path) -> Attachment {
    attachment::read(&RealVfs::default(), path).unwrap().unwrap()
}

impl Attached {
    /// With a base snapshot, and a segment or more after it.
    pub fn new() -> Self {
        let directory = scratch();
        let archive = open_archive(&directory.path().join("archive"));
        let path = directory.path().join("db");
        let attached = Attached { path, archive, clock: Clock::begin(), directory };
        let created = attached.options().create_if_missing(true).encoding(Natural);
        Engine::open(&attached.path, created).unwrap().close().unwrap();
        attach(&attached.path, attached.options(), &attached.archive, TakeOver::No).unwrap().close().unwrap();
        attached.ship();
        attached.write("first", 0..10);
        attached.ship();
        attached
    }

    pub fn options(&self) -> Options {
        options().hooks(self.clock.clone())
    }

    pub fn open(&self) -> Engine {
        Engine::open(&self.path, self.options()).unwrap()
    }

    /// Writes, each a moment after the one before; the state after it.
    pub fn write(&self, word: &str, numbers: std::ops::Range<u32>) -> State {
        let engine = self.open();
        for number in numbers {
            self.clock.advance(10);
            engine.put(format!("/{word}/{number}"), word).unwrap();
        }
        self.state(engine)
    }

    /// The state now; time goes on.
    fn state(&self, engine: Engine) -> State {
        let state = State { time: self.clock.now(), content: content(&engine) };
        engine.close().unwrap();
        self.clock.advance(1000);
        state
    }

    /// What was not meant: all is deleted, and a little is written, a bulk load among it.
    fn mistake(&self) -> State {
        let engine = self.open();
        engine.delete_range(..).unwrap();
        engine.put("/mistake", "1").unwrap();
        self.clock.advance(10);
        engine.ingest((0..30).map(|number| Ok((format!("/mistake/{number:02}"), "loaded")))).unwrap();
        self.state(engine)
    }

    /// All that was written; then that time goes on, which the last segment does not say if it is full.
    pub fn ship(&self) -> Pass {
        let engine = self.open();
        let mut shipper = Shipper::new(engine.clone(), self.archive.clone(), ship_options());
        let pass = shipper.ship_once().unwrap();
        self.clock.advance(10);
        shipper.ship_once().unwrap();
        drop(shipper);
        engine.close().unwrap();
        self.clock.advance(1000);
        pass
    }

    pub fn timeline(&self) -> Timeline {
        let head = load(&self.archive).unwrap().head;
        head.timeline(head.current).unwrap().clone()
    }

    pub fn replacing(&self, moment: Moment) -> Request {
        Request { replace: true, ..request(moment) }
    }

    /// Restores over the database.
    fn replace(&self, time: u64, options: Options) -> Result<Found> {
        restore::run(&self.path, &self.archive, &self.replacing(Moment::Time(time)), &options)
    }

    /// What a restore to another place gives.
    pub fn restored(&self, moment: Moment, timeline: Option<Uuid>) -> Content {
        let directory = scratch();
        let target = directory.path().join("copy");
        restore::run(&target, &self.archive, &Request { timeline, ..request(moment) }, &options())
            .unwrap_or_else(|error| panic!("{moment} {timeline:?}: {error:?}"));
        assert!(!target.join("LOG_BACKUP").exists(), "a copy is attached to nothing");
        all_of(&target).0
    }

    pub fn assert_at(&self, state: &State, timeline: Option<Uuid>, what: &str) {
        assert_eq!(self.restored(Moment::Time(state.time), timeline), state.content, "{what}");
    }

    pub fn assert_sound(&self) {
        let verified = verify::verify(&self.archive).unwrap();
        assert!(verified.faults.is_empty(), "{verified:?}");
        let checked = fsck::fsck(&self.archive, false).unwrap();
        assert!(checked.faults.is_empty() && checked.orphans.is_empty(), "{checked:?}");
    }

    fn content(&self) -> Content {
        let engine = self.open();
        let found = content(&engine);
        engine.close().unwrap();
        found
    }
}

fn encodings() -> [Option<Arc<dyn KeyEncoding>>; 2] {
    [None, Some(Arc::new(Hierarchical))]
}

#[test]
fn a_mistake_is_undone_and_the_database_goes_on_in_its_archive() {
    for encoding in encodings() {
        for shipped in [false, true] {
            let what = format!("{:?}, shipped {shipped}", encoding.as_ref().map(|encoding| encoding.name()));
            let live = Attached::new();
            let early = live.write("early", 0..3);
            let good = live.write("good", 0..10);
            let old = live.timeline().id;
            let mistake = live.mistake();
            live.ship();
            let later = live.write("later", 0..5);
            if shipped {
                live.ship();
            }
            let wanted = match &encoding {
                Some(encoding) => live.options().encoding(encoding.clone()),
                None => live.options(),
            };
            let found = live.replace(good.time, wanted).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let goes_on = restore::goes_on(&live.path, &found, &options()).unwrap().unwrap();
            let own = attachment_of(&live.path);
            assert_eq!(goes_on, GoesOn { timeline: own.timeline, replaced: old }, "{what}");
            assert_eq!(own.cause, Cause::Restore);
            assert_eq!(live.content(), good.content, "{what}");
            // Before anything of it was shipped.
            let first = live.write("after", 0..4);
            let pass = live.ship();
            assert_eq!((pass.timeline, pass.begun.len(), pass.base_snapshot), (own.timeline, 0, None), "{what}");
            assert!(!live.path.join("unshipped").exists());
            let timeline = live.timeline();
            assert_eq!((timeline.id, timeline.cause), (own.timeline, Cause::Restore));
            let parent = timeline.parent.unwrap();
            assert_eq!((parent.timeline, parent.end.sequence), (old, found.plan.reached.sequence), "{what}");
            let last = tail::last_number(&live.archive, old, 0).unwrap().unwrap();
            let end = tail::ends(&live.archive, old, last).unwrap().trailer;
            assert_eq!(end.successor, Some(own.timeline), "{what}");
            let second = live.write("after", 4..20);
            live.ship();
            for state in [&early, &good, &first, &second] {
                live.assert_at(state, None, &what);
            }
            // What came between is another history, and is not lost.
            live.assert_at(&mistake, Some(old), &what);
            live.assert_at(&later, Some(old), &what);
            assert_eq!(live.restored(Moment::Latest, Some(old)), later.content, "{what}");
            for between in [&mistake, &later] {
                assert_eq!(live.restored(Moment::Time(between.time), None), good.content, "{what}");
            }
            assert_eq!(live.restored(Moment::Latest, None), second.content, "{what}");
            live.assert_sound();
        }
    }
}

#[test]
fn one_restored_database_is_replaced_by_another_and_every_history_stays() {
    let live = Attached::new();
    let first = live.timeline().id;
    let one = live.write("one", 0..5);
    let two = live.write("two", 0..5);
    live.ship();
    live.replace(one.time, live.options()).unwrap();
    manage::drop_backup(&live.path, &live.options()).unwrap();
    let three = live.write("three", 0..5);
    // The log that was handed over must not be left behind.
    let refused = live.replace(two.time, live.options()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}");
    assert!(refused.next_command().unwrap().starts_with("morphkv log ship"), "{refused:?}");
    live.ship();
    let second = live.timeline().id;
    let four = live.write("four", 0..5);
    // Into the branch that the first restore has left: nothing of what came after it is lost, shipped or not.
    let back = Request { timeline: Some(first), ..live.replacing(Moment::Time(two.time)) };
    restore::run(&live.path, &live.archive, &back, &live.options()).unwrap();
    manage::drop_backup(&live.path, &live.options()).unwrap();
    let five = live.write("five", 0..5);
    live.ship();
    let third = live.timeline();
    assert_eq!((third.cause, third.parent.map(|parent| parent.timeline)), (Cause::Restore, Some(first)));
    // And within the branch that is current now, with a moment before its beginning.
    live.replace(one.time, live.options().encoding(Hierarchical)).unwrap();
    manage::drop_backup(&live.path, &live.options()).unwrap();
    let six = live.write("six", 0..5);
    live.ship();
    assert_eq!(load(&live.archive).unwrap().head.timelines.len(), 4);
    live.assert_at(&one, None, "the current line");
    live.assert_at(&six, None, "the current line");
    live.assert_at(&two, Some(first), "the first");
    live.assert_at(&three, Some(second), "the second");
    live.assert_at(&four, Some(second), "the second");
    live.assert_at(&two, Some(third.id), "the third");
    live.assert_at(&five, Some(third.id), "the third");
    live.assert_sound();
}

/// Its timeline is known, and nothing of it was shipped but what came before.
#[test]
fn a_timeline_without_a_segment_is_brought_to_its_end_too() {
    let live = Attached::new();
    let one = live.write("one", 0..5);
    live.ship();
    live.replace(one.time, live.options()).unwrap();
    manage::drop_backup(&live.path, &live.options()).unwrap();
    // The shipper dies when HEAD knows the new timeline.
    let plan = morphkv::testing::TrapPlan::new().with(
        morphkv::testing::Trap::ShipUnshippedRemoved,
        1,
        morphkv::testing::TrapAction::Error(ErrorKind::Io),
    );
    let engine = Engine::open(&live.path, live.options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan))))).unwrap();
    let died = Shipper::new(engine.clone(), live.archive.clone(), ship_options()).ship_once();
    assert_eq!(died.unwrap_err().kind(), ErrorKind::Io);
    engine.close().unwrap();
    let second = live.timeline().id;
    assert_eq!(tail::last_number(&live.archive, second, 0).unwrap(), None);
    let two = live.write("two", 0..5);
    live.replace(one.time, live.options()).unwrap();
    let three = live.write("three", 0..5);
    live.ship();
    assert_eq!(live.restored(Moment::Latest, Some(second)), two.content);
    live.assert_at(&three, None, "the current line");
    live.assert_sound();
}

#[test]
fn the_archive_is_away_while_it_is_moved_in_and_the_log_goes_with_it() {
    let live = Attached::new();
    let good = live.write("good", 0..5);
    let old = live.timeline().id;
    live.ship();
    let mistake = live.mistake();
    let request = live.replacing(Moment::Time(good.time));
    restore::start(&live.path, &live.archive, &request, &live.options()).unwrap();
    restore::step(&live.path, &live.archive, &live.options()).unwrap();
    restore::step(&live.path, &live.archive, &live.options()).unwrap();
    // Written while the restore is under way.
    let later = live.write("later", 0..5);
    let (there, away) = (live.directory.path().join("archive"), live.directory.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    std::fs::write(&there, "no directory").unwrap();
    let found = restore::step(&live.path, &live.archive, &live.options()).unwrap();
    assert_eq!(found.status.step, morphkv::restore::folder::Step::Clear);
    std::fs::remove_file(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    let after = live.write("after", 0..5);
    assert!(live.ship().begun.is_empty());
    live.assert_at(&good, None, "the current line");
    live.assert_at(&after, None, "the current line");
    live.assert_at(&mistake, Some(old), "the old one");
    live.assert_at(&later, Some(old), "the old one");
}

#[test]
fn what_would_mix_histories_is_refused_and_stays_as_it_was() {
    let live = Attached::new();
    let good = live.write("good", 0..5);
    live.ship();
    let first = live.timeline().id;
    // Attached to another archive.
    let other = open_archive(&live.directory.path().join("other"));
    let target = live.directory.path().join("target");
    Engine::open(&target, options().create_if_missing(true)).unwrap().close().unwrap();
    attach(&target, options(), &other, TakeOver::No).unwrap().close().unwrap();
    let own = attachment_of(&target);
    let detach_it = format!("morphkv log detach {}", target.display());
    let refused = restore::run(&target, &live.archive, &live.replacing(Moment::Latest), &options()).unwrap_err();
    assert_eq!((refused.kind(), refused.next_command()), (ErrorKind::Unsupported, Some(&*detach_it)), "{refused:?}");
    assert_eq!(attachment_of(&target), own);
    assert!(!target.with_extension("restore").exists());
    // Another database, which has taken the archive over.
    detach(&target, options()).unwrap();
    let engine = attach(&target, options(), &live.archive, TakeOver::Yes).unwrap();
    engine.put("/other", "1").unwrap();
    Shipper::new(engine.clone(), live.archive.clone(), ship_options()).ship_once().unwrap();
    engine.close().unwrap();
    let own = attachment_of(&target);
    let of_first = Request { timeline: Some(first), ..live.replacing(Moment::Time(good.time)) };
    let refused = restore::run(&target, &live.archive, &of_first, &options()).unwrap_err();
    assert_eq!((refused.kind(), refused.next_command()), (ErrorKind::Unsupported, Some(&*detach_it)), "{refused:?}");
    assert!(restore::abort(&target, &options()).unwrap());
    assert_eq!((attachment_of(&target), all_of(&target).0.len()), (own, 1));
    // The first one has lost its archive.
    let before = live.content();
    let refused = restore::run(&live.path, &live.archive, &of_first, &live.options()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}");
    assert!(refused.next_command().unwrap().contains("morphkv log detach"), "{refused:?}");
    assert_eq!((attachment_of(&live.path).timeline, live.content()), (first, before));
    // Detached, it is replaced, and attached to nothing.
    detach(&live.path, live.options()).unwrap();
    restore::run(&live.path, &live.archive, &of_first, &live.options()).unwrap();
    assert!(!live.path.join("LOG_BACKUP").exists());
    assert_eq!(live.content(), good.content);
}

#[test]
fn a_restore_that_is_rolled_back_leaves_the_old_database_attached() {
    for shipped in [false, true] {
        let live = Attached::new();
        let good = live.write("good", 0..5);
        live.ship();
        let mistake = live.mistake();
        let old = live.timeline().id;
        live.replace(good.time, live.options()).unwrap();
        let lost = live.write("lost", 0..5);
        let new = attachment_of(&live.path).timeline;
        if shipped {
            live.ship();
        }
        manage::rollback(&live.path, &live.options()).unwrap();
        assert_eq!((attachment_of(&live.path).timeline, live.content()), (old, mistake.content.clone()));
        let last = live.write("last", 0..5);
        let pass = live.ship();
        let begun: Vec<_> = pass.begun.iter().map(|(cause, _)| *cause).collect();
        assert_eq!(begun, if shipped { vec![Cause::Diverged] } else { vec![] });
        assert_eq!(live.restored(Moment::Latest, None), last.content);
        if shipped {
            live.assert_at(&lost, Some(new), "the restored one");
        }
        live.assert_sound();
    }
}

/// Truncation keeps what the new timeline goes on from; where that is gone already, it gets a base snapshot of its own.
#[test]
fn truncation_leaves_no_timeline_without_a_beginning() {
    for shipped in [false, true] {
        let live = Attached::new();
        let good = live.write("good", 0..5);
        live.ship();
        let mistake = live.mistake();
        let engine = live.open();
        let mut shipper = Shipper::new(engine.clone(), live.archive.clone(), ship_options());
        // After the moment that is restored to.
        shipper.want_snapshot();
        assert!(shipper.ship_once().unwrap().base_snapshot.is_some());
        drop(shipper);
        engine.close().unwrap();
        let old = live.timeline().id;
        live.replace(good.time, live.options()).unwrap();
        if shipped {
            live.ship();
        }
        let now = TruncateOptions { grace: Duration::ZERO, dry_run: false };
        let truncated = truncate::truncate(&live.archive, Until::Latest, now).unwrap();
        assert!(truncated.deleted_objects > 0, "{truncated:?}");
        let after = live.write("after", 0..5);
        assert_eq!(live.ship().base_snapshot.is_some(), !shipped);
        let last = live.write("last", 0..5);
        live.ship();
        live.assert_at(&last, None, "the current line");
        live.assert_at(&mistake, Some(old), "the old one");
        if shipped {
            live.assert_at(&good, None, "the current line");
            live.assert_at(&after, None, "the current line");
        } else {
            // The first moment is that of its own base snapshot, not of one that is after the place it goes on from.
            let to_good = request(Moment::Time(good.time));
            let error = restore::preview(&live.archive, &to_good, &options()).unwrap_err();
            let why = error.source().unwrap().downcast_ref::<Unreachable>().unwrap();
            let Unreachable::Before { first: Some(first), truncated: true } = why else { panic!("{why:?}") };
            assert!(*first >= after.time && *first < last.time, "{why:?}");
        }
        live.assert_sound();
    }
}
