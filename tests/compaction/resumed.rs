//! Workers that are killed inside their shard: the next one goes on behind what is noted, and what it cannot believe is as if
//! it were not there.

use crate::common::figures::Figures;
use crate::common::{options, scratch};
use crate::faults::copy;
use crate::kills::die;
use crate::runs::{compactions, files, request, small};
use crate::source::{self, Source, all_of};
use morphkv::encoding::Natural;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::compact::{Report, Request, State, compact};
use morphkv::log_backup::compaction::{COMPACTION_FORMAT, read, to_bytes};
use morphkv::log_backup::fault_store::{Call, FaultStore};
use morphkv::log_backup::fsck::fsck;
use morphkv::log_backup::names::{self, ContentHash};
use morphkv::log_backup::progress::{NOTE_AGE_MAX, NOTE_BYTES_MAX, Note, STRETCHES};
use morphkv::log_backup::verify::verify;
use morphkv::restore;
use morphkv::restore::moment::Moment;
use morphkv::testing::{RealVfs, Trap, TrapAction, TrapPlan};
use morphkv::{Engine, ErrorKind, Options, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

const NAME: &str = "killed";

fn shard(archive: &Archive, shard: u32, shards: u32, options: &Options) -> Result<Report> {
    compact(archive, &request(NAME, shard, shards, scratch().path()), options)
}

/// Fails at the nth time that this trap is met.
fn stopped(trap: Trap, nth: u32) -> Options {
    let plan = TrapPlan::new().with(trap, nth, TrapAction::Error(ErrorKind::Io));
    options().vfs(Arc::new(RealVfs::with_traps(Arc::new(plan))))
}

/// A log of over a hundred segments after its base snapshot.
fn long() -> Source {
    let mut source = Source::new(Arc::new(Natural));
    source.frames = 1;
    for number in 0..128 {
        source.put(&format!("/key/{}", number % 50), &format!("{number}"));
        if number % 40 == 7 {
            source.engine().delete_range("/key/1".."/key/3").unwrap();
            source.remove_range(b"/key/1", b"/key/3");
            source.note();
            source.clock.advance(1);
        }
    }
    source.ship(None);
    source
}

/// Gets of segments, or of parts of them.
fn fetched(store: &FaultStore) -> u64 {
    store.calls().iter().filter(|(call, name)| *call == Call::Get && name.contains("v1/log/")).count() as u64
}

fn assert_right(source: &Source, archive: &Archive, what: &str) {
    assert_eq!(verify(archive).unwrap().faults, [], "{what}");
    let target = source.directory.path().join("target");
    let found = restore::run(&target, archive, &source::request(Moment::Latest), &options()).unwrap();
    assert_eq!((found.plan.runs().count(), found.status.left_out.len()), (1, 0), "{what}");
    let (content, internal) = all_of(&target);
    assert!(content == source.content && internal == source.internal, "{what}");
    Engine::destroy(&target, Options::new()).unwrap();
    restore::abort(&target, &Options::new()).unwrap();
}

#[test]
fn a_worker_that_is_killed_again_and_again_reads_little_twice() {
    let figures = Figures::new("compaction-resumed");
    let source = long();
    let root = source.directory.path().join("archive");
    let fresh = || {
        let store = FaultStore::in_memory();
        let archive =
            Archive::with_store(Arc::new(store.clone()), "memory://test", "prefix", ArchiveOptions::default()).unwrap();
        copy(&root, &root, &archive);
        (store, archive)
    };
    let attempt = |archive: &Archive, options: &Options| {
        let directory = scratch();
        let whole = Request { part_bytes: 1 << 20, stretch_segments: 1, ..request(NAME, 1, 1, directory.path()) };
        compact(archive, &whole, options)
    };
    let (store, archive) = fresh();
    let report = attempt(&archive, &options()).unwrap();
    assert_eq!((report.state, report.taken_over), (State::Complete, 0));
    let uninterrupted = fetched(&store);
    let segments = report.end_segment - report.first_segment;
    let stretch = segments.div_ceil(STRETCHES);
    assert!(segments > 100, "{segments}");
    let (mut kills, mut most) = (0, 0);
    // Killed behind each note; before each second one, so that a stretch is lost every time; within a stretch.
    for (trap, nth) in [
        (Trap::CompactNoteAfter, 1),
        (Trap::CompactNoteBefore, 2),
        (Trap::CompactPartStored, 2),
        (Trap::CompactNoteAfter, 3),
        (Trap::CompactResultBefore, 1),
    ] {
        let what = format!("{} {nth}", trap.name());
        let (store, archive) = fresh();
        let (mut killed, mut last) = (0, None);
        while last.is_none() {
            match attempt(&archive, &stopped(trap, nth)) {
                Ok(report) => last = Some(report),
                // Met in every attempt.
                Err(_) if trap == Trap::CompactResultBefore && killed == 2 => {
                    last = Some(attempt(&archive, &options()).unwrap());
                    killed += 1;
                }
                Err(error) => {
                    assert!(error.message().contains(trap.name()), "{what}: {error:?}");
                    killed += 1;
                }
            }
            assert!(killed < 20, "{what}: it comes to no end");
        }
        let report = last.unwrap();
        assert!(report.taken_over > 0 && report.taken_over < segments && killed > 1, "{what}: {report:?}");
        assert_eq!(report.state, State::Complete, "{what}");
        let all = fetched(&store);
        assert!(
            all * 10 <= uninterrupted * 13 + killed * stretch * 10,
            "{what}: {all}, {uninterrupted}, {killed} kills"
        );
        (kills, most) = (kills + killed, most.max(all));
        assert!(
            archive.list(names::COMPACTIONS).unwrap().all(|listed| !listed.unwrap().name.as_str().contains("progress"))
        );
        assert_right(&source, &archive, &what);
    }
    figures
        .with("segments", segments)
        .with("fetched without a kill", uninterrupted)
        .with("kills", kills)
        .with("fetched at most", most)
        .with("wrong", 0)
        .print();
}

/// By a signal, not by an error.
#[test]
fn a_worker_that_dies_is_taken_over_from() {
    let source = small();
    die(&source, Trap::CompactNoteAfter, 1);
    let report = shard(&source.archive, 1, 3, &options()).unwrap();
    assert_eq!((report.taken_over, report.was_done), (2, false), "{report:?}");
    for number in 2..=3 {
        assert_eq!(shard(&source.archive, number, 3, &options()).unwrap().taken_over, 0);
    }
    assert_right(&source, &source.archive, "after a kill");
    // Its pin stands, and will expire; nothing else is left.
    let checked = fsck(&source.archive, false).unwrap();
    assert!(checked.orphans.is_empty() && checked.faults.is_empty(), "{checked:?}");
}

fn notes(source: &Source) -> Vec<PathBuf> {
    let folder = source.directory.path().join("archive/v1/compactions").join(NAME).join("progress");
    if folder.exists() { files(&folder) } else { Vec::new() }
}

/// A shard of which three notes stand, and how many segments they say are done, in that order.
fn noted() -> (Source, Vec<(PathBuf, Note)>) {
    let source = small();
    shard(&source.archive, 1, 1, &stopped(Trap::CompactNoteAfter, 3)).unwrap_err();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(source.directory.path().join("archive")).unwrap().to_str().unwrap().to_owned();
        let name = names::ObjectName::new(name).unwrap();
        let (_, note) = morphkv::log_backup::compaction::find(&source.archive, &name, NOTE_BYTES_MAX).unwrap().unwrap();
        (path, note)
    };
    let mut notes: Vec<(PathBuf, Note)> = notes(&source).into_iter().map(read).collect();
    notes.sort_by_key(|(_, note)| note.next_segment);
    assert_eq!(notes.len(), 3);
    (source, notes)
}

fn write(path: &PathBuf, note: &Note) {
    let name = names::compaction_progress(NAME, 1, Uuid::nil()).unwrap();
    std::fs::write(path, to_bytes(&name, note, NOTE_BYTES_MAX).unwrap().0).unwrap();
}

/// Goes on, and comes to the right end whatever the notes are.
fn assert_goes_on(source: &Source, taken_over: u64, what: &str) {
    let report = shard(&source.archive, 1, 1, &options()).unwrap();
    assert_eq!((report.taken_over, report.state, report.was_done), (taken_over, State::Complete, false), "{what}");
    assert_right(source, &source.archive, what);
    assert_eq!(notes(source), Vec::<PathBuf>::new(), "{what}");
    assert_eq!(compactions(source).len(), 1);
}

type Change = fn(&mut Note);

/// Each with a sound checksum.
const CHANGES: [(&str, Change); 9] = [
    ("format", |note| note.format = COMPACTION_FORMAT + 1),
    ("compaction", |note| note.compaction = Uuid::nil()),
    ("shard", |note| note.shard = 2),
    ("at the begin", |note| note.next_segment = note.next_segment.saturating_sub(100)),
    ("beyond the end", |note| note.next_segment += 100),
    ("another segment", |note| note.next_segment += 1),
    ("no bounds", |note| note.run.bounds = None),
    ("another history", |note| note.run.bounds.as_mut().unwrap().1.chain = ContentHash(7)),
    ("files of others", |note| {
        let own = note.run.parts.iter_mut().find_map(|part| part.files.first_mut().filter(|_| part.load.is_none()));
        own.unwrap().object.name = names::head();
    }),
];

#[test]
fn a_note_that_cannot_be_believed_is_as_if_it_were_not_there() {
    let figures = Figures::new("compaction-hostile-notes");
    let mut hostile = 0;
    for (what, change) in CHANGES {
        for all in [false, true] {
            let (source, notes) = noted();
            let before = if all { 0 } else { notes[1].1.run.bounds.map_or(0, |_| 4) };
            for (path, note) in notes.iter().skip(if all { 0 } else { 2 }) {
                let mut note = note.clone();
                change(&mut note);
                write(path, &note);
                hostile += 1;
            }
            assert_goes_on(&source, before, &format!("{what}, all: {all}"));
        }
    }
    // Bytes.
    let mut random = crate::history::Random::new(5);
    for round in 0..20 {
        let (source, notes) = noted();
        let bytes = std::fs::read(&notes[2].0).unwrap();
        let at = random.below(bytes.len());
        let mut wrong = bytes[..if round % 2 == 0 { bytes.len() } else { at }].to_vec();
        if let Some(byte) = wrong.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
        std::fs::write(&notes[2].0, wrong).unwrap();
        hostile += 1;
        assert_goes_on(&source, 4, &format!("byte {at}, round {round}"));
    }
    figures.with("hostile notes", hostile).with("wrong", 0).print();
}

#[test]
fn a_note_of_which_files_are_missing_or_that_is_too_old_is_not_believed() {
    for cut in [false, true] {
        let (source, notes) = noted();
        let object = notes[2].1.run.own_objects().last().unwrap();
        let path = source.directory.path().join("archive").join(object.name.as_str());
        if cut {
            std::fs::write(&path, "x").unwrap()
        } else {
            std::fs::remove_file(&path).unwrap()
        }
        assert_goes_on(&source, 4, &format!("cut: {cut}"));
    }
    for (old, taken_over) in [(NOTE_AGE_MAX + Duration::from_secs(1), 0), (NOTE_AGE_MAX - Duration::from_secs(60), 6)] {
        let (source, notes) = noted();
        for (path, _) in &notes {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - old).unwrap();
        }
        assert_goes_on(&source, taken_over, &format!("{old:?}"));
    }
}

/// The first stands still, the second goes on from its notes and ends: the first throws away what it has stored, and nothing
/// that the result speaks of.
#[test]
fn two_attempts_at_a_shard_use_one_note_and_harm_nobody() {
    for (trap, nth) in [(Trap::CompactNoteBefore, 3), (Trap::CompactNoteAfter, 2), (Trap::CompactPartStored, 2)] {
        let what = trap.name();
        let source = small();
        let file = source.directory.path().join("pause");
        let plan = TrapPlan::new().with(trap, nth, TrapAction::Pause(file.clone()));
        let vfs = Arc::new(RealVfs::with_traps(Arc::new(plan)));
        let archive = source.archive.clone();
        let first = std::thread::spawn(move || shard(&archive, 1, 1, &options().vfs(vfs)));
        while !file.exists() {
            assert!(!first.is_finished(), "{what} is not met");
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = shard(&source.archive, 1, 1, &options()).unwrap();
        assert!(second.state == State::Complete && second.taken_over > 0 || nth < 3, "{what}: {second:?}");
        std::fs::remove_file(&file).unwrap();
        let first = first.join().unwrap().unwrap();
        assert!(first.was_done && first.state == State::Complete, "{what}: {first:?}");
        assert_right(&source, &source.archive, what);
        let complete = read(&source.archive, &compactions(&source)[0]).unwrap();
        let referred = complete.runs.iter().flat_map(|run| run.own_objects()).count();
        let data = source.directory.path().join("archive/v1/compactions").join(NAME).join("data");
        assert_eq!(files(&data).len(), referred, "{what}");
        assert_eq!(fsck(&source.archive, false).unwrap().orphans, [], "{what}");
    }
}
