//! Restores from a replica whose objects arrive in any order: a state that the source had, or what is missing is named.

use crate::common::figures::{Figures, scale};
use crate::common::{Content, options};
use crate::history::Random;
use crate::source::{Source, State, all_of, open_archive, request};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::log_backup::archive::Archive;
use morphkv::log_backup::compact::{self, Until};
use morphkv::log_backup::names;
use morphkv::restore::folder::Found;
use morphkv::restore::moment::Moment;
use morphkv::restore::named::Named;
use morphkv::restore::plan::Leg;
use morphkv::restore::unreachable::{NotArrived, Unreachable};
use morphkv::restore::{self, Request};
use morphkv::{Engine, Error, ErrorKind, Options, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

type Objects = BTreeMap<String, Vec<u8>>;

const HEAD: &str = "v1/HEAD";

/// All files below a directory.
fn tree(directory: &Path) -> Objects {
    let (mut found, mut folders) = (Objects::new(), vec![directory.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let name = entry.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&entry).unwrap());
            }
        }
    }
    found
}

/// A source with a conversion, loads, a second base snapshot and compactions; and each HEAD that it had.
struct Origin {
    source: Source,
    heads: Vec<Vec<u8>>,
    /// What was stored, in that order.
    stored: Vec<(String, Vec<u8>)>,
}

impl Origin {
    fn new() -> Self {
        let mut origin = Origin { source: Source::new(Arc::new(Natural)), heads: Vec::new(), stored: Vec::new() };
        origin.source.frames = 3;
        origin.put(0, 7);
        origin.load("a");
        origin.source.snapshot();
        origin.put(7, 8);
        origin.compact("first");
        origin.load("b");
        origin.source.convert(Arc::new(Hierarchical));
        origin.put(3, 9);
        origin.compact("second");
        origin.put(12, 4);
        origin.load("c");
        origin
    }

    fn put(&mut self, from: usize, keys: usize) {
        for number in from..from + keys {
            self.source.clock.advance(1);
            self.source.put(&format!("/key/{}", number % 13), &format!("{number} {keys}"));
        }
        self.ship();
    }

    fn load(&mut self, what: &str) {
        self.source.clock.advance(1);
        let entry = |number| (format!("/{what}/{number}").into_bytes(), what.as_bytes().to_vec());
        self.source.ingest((0..4).map(entry).collect::<Content>());
        self.ship();
    }

    fn ship(&mut self) {
        self.source.clock.advance(1);
        self.source.ship(None);
        self.note();
    }

    fn note(&mut self) {
        let known: BTreeSet<_> = self.stored.iter().map(|(name, _)| name.clone()).collect();
        self.stored.extend(self.objects().into_iter().filter(|(name, _)| !known.contains(name)));
        let head = std::fs::read(self.root().join(HEAD)).unwrap();
        if self.heads.last() != Some(&head) {
            self.stored.push((HEAD.to_owned(), head.clone()));
            self.heads.push(head);
        }
    }

    fn compact(&mut self, name: &str) {
        let scratch = crate::common::scratch();
        for shard in 1..=2 {
            let (name, until, scratch) = (name.to_owned(), Until::Latest, scratch.path().to_owned());
            let request =
                compact::Request { name, shard, shards: 2, until, scratch, part_bytes: 1 << 20, stretch_segments: 2 };
            compact::compact(&self.source.archive, &request, &options()).unwrap();
        }
        self.note();
    }

    fn root(&self) -> std::path::PathBuf {
        self.source.directory.path().join("archive")
    }

    fn objects(&self) -> Objects {
        let mut objects = tree(&self.root());
        objects.retain(|name, _| name.starts_with("v1/") && name != HEAD);
        objects
    }

    /// All that arrives: each up to so many places too late. Of HEAD one version after the other.
    fn arrivals(&self, random: &mut Random, late: usize) -> Vec<(String, Vec<u8>)> {
        let stored = self.stored.iter().enumerate();
        let mut placed: Vec<_> = stored.map(|(place, object)| (place + random.below(late), object.clone())).collect();
        placed.sort_by_key(|(place, _)| *place);
        let mut arrivals: Vec<_> = placed.into_iter().map(|(_, object)| object).collect();
        let mut heads = self.heads.iter();
        for (name, bytes) in &mut arrivals {
            if name == HEAD {
                bytes.clone_from(heads.next().unwrap());
            }
        }
        arrivals
    }
}

/// An archive that somebody copies objects into.
struct Replica {
    directory: tempfile::TempDir,
    archive: Archive,
}

impl Replica {
    fn new() -> Self {
        let directory = crate::common::scratch();
        let archive = open_archive(&directory.path().join("replica"));
        Replica { directory, archive }
    }

    fn arrive(&self, name: &str, bytes: &[u8]) {
        let path = self.directory.path().join("replica").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// What a restore brings back; nothing in the replica may have changed.
    fn restored(&self, request: &Request) -> Result<(Found, Content, Content)> {
        let target = self.directory.path().join("target");
        let before = tree(&self.directory.path().join("replica"));
        let done = restore::run(&target, &self.archive, request, &options());
        assert!(tree(&self.directory.path().join("replica")) == before, "the restore wrote to the replica");
        let done = done.map(|found| {
            let (content, internal) = all_of(&target);
            Engine::destroy(&target, Options::new()).unwrap();
            (found, content, internal)
        });
        restore::abort(&target, &Options::new()).unwrap();
        done
    }
}

fn of_replica(moment: Moment) -> Request {
    Request { replica: true, ..request(moment) }
}

/// What an error says is missing.
fn not_arrived(error: &Error) -> Option<&str> {
    let source = error.source()?.downcast_ref::<NotArrived>()?;
    Some(&source.object)
}

/// The log was begun with, and speaks of a file that is not there.
fn lacks_a_file(error: &Error, name: &str) -> bool {
    let place = error.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) && place.contains(name)
}

/// An error of a replica says that something is not there yet.
fn assert_typed(error: &Error, what: &str) {
    assert_eq!(error.kind(), ErrorKind::NotFound, "{what}: {error:?}");
    let unreachable = error.source().is_some_and(|source| source.is::<Unreachable>());
    let no_head = error.path().is_some_and(|path| path.ends_with("v1/HEAD"));
    assert!(not_arrived(error).is_some() || unreachable || no_head, "{what}: {error:?}");
}

#[test]
fn objects_arrive_in_any_order() {
    let figures = Figures::new("replica-arrivals");
    let (mut prefixes, mut restored, mut refused, mut late, mut earlier) = (0, 0, 0, 0, 0);
    let mut random = Random::new(11);
    let origin = Origin::new();
    let states = &origin.source.states;
    let is_state =
        |state: &State, content: &Content, internal: &Content| state.content == *content && state.internal == *internal;
    for order in 0..scale(3, 30) {
        let replica = Replica::new();
        let delay = [4, 20, 1000][order % 3];
        for (number, (name, bytes)) in origin.arrivals(&mut random, delay).into_iter().enumerate() {
            replica.arrive(&name, &bytes);
            let state = &states[random.below(states.len())];
            for moment in [Moment::Latest, Moment::Time(state.time)] {
                let what = format!("order {order}, {number} objects, {moment}");
                prefixes += 1;
                match replica.restored(&of_replica(moment)) {
                    Ok((found, content, internal)) => {
                        restored += 1;
                        let reached = found.plan.reached;
                        // A timeline of which nothing has arrived yet begins where the one before it ends.
                        let read = found.plan.legs.iter().rfind(|leg| leg.first_segment < leg.end_segment);
                        let timeline = read.map_or(found.plan.snapshot.timeline, |leg| leg.timeline);
                        let expected = match moment {
                            Moment::Time(time) => origin.source.at(time),
                            _ => states
                                .iter()
                                .rev()
                                .find(|state| (state.timeline, state.sequence) == (timeline, reached.sequence))
                                .unwrap_or_else(|| panic!("{what}: {reached:?} is no state of the source")),
                        };
                        earlier +=
                            u64::from(moment == Moment::Latest && !std::ptr::eq(expected, &states[states.len() - 1]));
                        assert!(is_state(expected, &content, &internal), "{what}: another state");
                    }
                    // This source tells HEAD nothing of its loads: their files are found to be missing later.
                    Err(error) if lacks_a_file(&error, "v1/data/") => late += 1,
                    Err(error) => {
                        refused += 1;
                        assert_typed(&error, &what);
                    }
                }
            }
        }
        let (found, content, internal) = replica.restored(&of_replica(Moment::Latest)).unwrap();
        assert!(is_state(&states[states.len() - 1], &content, &internal) && found.status.left_out.is_empty());
        assert!(found.plan.runs().count() > 0, "no compaction is used");
    }
    assert!(restored > prefixes / 20 && refused > prefixes / 4 && earlier > 0, "{restored} {refused} {earlier}");
    let figures = figures.with("restores", prefixes).with("states of the source", restored).with("refused", refused);
    figures.with("of an earlier end", earlier).with("stopped at a load", late).with("wrong", 0).print();
}

#[test]
fn a_hole_ends_the_log_and_what_is_beyond_it_is_told() {
    let origin = Origin::new();
    let objects = origin.objects();
    let replica = Replica::new();
    replica.arrive(HEAD, &origin.heads[0]);
    let timeline = origin.source.states[0].timeline.to_string();
    let log: Vec<_> = objects.keys().filter(|name| name.contains(&timeline)).collect();
    let hole = log[3];
    for (name, bytes) in objects.iter().filter(|(name, _)| *name != hole) {
        replica.arrive(name, bytes);
    }
    let (found, ..) = replica.restored(&of_replica(Moment::Latest)).unwrap();
    assert_eq!(found.plan.legs[0].end_segment, 3, "the hole is not where the log ends");
    let last = origin.source.states.iter().rfind(|state| state.timeline.to_string() == timeline).unwrap();
    let error = replica.restored(&of_replica(Moment::Time(last.time))).unwrap_err();
    let beyond = error.source().and_then(|source| source.downcast_ref::<Unreachable>());
    assert!(matches!(beyond, Some(Unreachable::Beyond { resolved }) if *resolved == found.plan.resolved), "{error:?}");
    // A restore that believes it to be the whole archive takes the hole for damage.
    let whole = Request { no_pin: true, ..request(Moment::Latest) };
    assert_eq!(replica.restored(&whole).unwrap_err().kind(), ErrorKind::Corrupt);
    replica.arrive(hole, &objects[hole]);
    replica.restored(&of_replica(Moment::Time(last.time))).unwrap();
}

/// At the time of a disaster what has not arrived never will.
#[test]
fn each_object_that_is_missing_or_short_is_named_or_done_without() {
    let figures = Figures::new("replica-missing");
    let origin = Origin::new();
    let (objects, last) = (origin.objects(), origin.source.states.last().unwrap().clone());
    let (mut named, mut done_without) = (0, 0);
    for (name, bytes) in &objects {
        for short in [false, true].into_iter().take(1 + bytes.len().min(1)) {
            let what = format!("{name}, {}", if short { "short" } else { "missing" });
            let replica = Replica::new();
            replica.arrive(HEAD, origin.heads.last().unwrap());
            for (other, bytes) in objects.iter().filter(|(other, _)| *other != name) {
                replica.arrive(other, bytes);
            }
            if short {
                replica.arrive(name, &bytes[..bytes.len() - 1]);
            }
            match replica.restored(&of_replica(Moment::Sequence { timeline: last.timeline, sequence: last.sequence })) {
                Ok((found, content, internal)) => {
                    done_without += 1;
                    assert!(content == last.content && internal == last.internal, "{what}: another state");
                    // Everything but the log from the base snapshot on has a stand-in, or is not used.
                    let reads = |leg: &Leg| {
                        let mut segments = leg.first_segment..leg.end_segment;
                        segments.any(|number| names::segment(leg.timeline, number).unwrap().as_str() == name)
                    };
                    assert!(!found.plan.legs.iter().any(reads), "{what}");
                }
                Err(error) if lacks_a_file(&error, name) => named += 1,
                Err(error) => {
                    named += 1;
                    assert_typed(&error, &what);
                    if let Some(object) = not_arrived(&error) {
                        assert_eq!(object, name, "{what}");
                    }
                }
            }
        }
    }
    assert!(named > 10 && done_without > 10, "{named} {done_without}");
    figures.with("objects", objects.len()).with("named", named).with("done without", done_without).print();
}

#[test]
fn a_compaction_is_found_by_its_name_where_head_does_not_know_it() {
    let origin = Origin::new();
    let archive = &origin.source.archive;
    // The same place, but HEAD is of before the compactions.
    let current = std::fs::read(origin.root().join(HEAD)).unwrap();
    let earlier = origin.heads.iter().find(|head| !String::from_utf8_lossy(head).contains("compactions")).unwrap();
    std::fs::write(origin.root().join(HEAD), earlier).unwrap();
    let first = origin.source.states.iter().rfind(|state| state.timeline == origin.source.states[0].timeline).unwrap();
    let moment = Moment::Sequence { timeline: first.timeline, sequence: first.sequence };
    let named = |name: &str| {
        let compaction = Some(Named { name: name.into(), at: None });
        let target = origin.source.directory.path().join("target");
        let request = Request { compaction, ..of_replica(moment) };
        let found = restore::run(&target, archive, &request, &options()).unwrap();
        let (content, internal) = all_of(&target);
        assert!(content == first.content && internal == first.internal, "{name}");
        Engine::destroy(&target, Options::new()).unwrap();
        restore::abort(&target, &Options::new()).unwrap();
        found
    };
    let used = named("first");
    assert_eq!((used.plan.runs().count(), used.status.left_out.len()), (1, 0));
    // Of the next timeline; of no timeline; none at all.
    for (name, reason) in [("second", "of which nothing is restored"), ("none", "there is no compaction of that name")]
    {
        let left = named(name);
        assert_eq!(left.plan.runs().count(), 0);
        assert!(left.status.left_out[0].reason.contains(reason), "{:?}", left.status.left_out);
    }
    std::fs::write(origin.root().join(HEAD), current).unwrap();
    // Copied elsewhere it is one of a log in another place.
    let replica = Replica::new();
    replica.arrive(HEAD, earlier);
    origin.objects().iter().for_each(|(name, bytes)| replica.arrive(name, bytes));
    let compaction = Some(Named { name: "first".into(), at: None });
    let (found, content, _) = replica.restored(&Request { compaction, ..of_replica(moment) }).unwrap();
    assert!(content == first.content && found.plan.runs().count() == 0);
    assert!(found.status.left_out[0].reason.contains("the path differs"), "{:?}", found.status.left_out);
}

#[test]
fn a_compaction_of_a_replica_goes_elsewhere_and_is_used_from_there() {
    let origin = Origin::new();
    let replica = Replica::new();
    replica.arrive(HEAD, &origin.heads[0]);
    let plain = origin.objects().into_iter().filter(|(name, _)| !name.contains("/compactions/"));
    plain.for_each(|(name, bytes)| replica.arrive(&name, &bytes));
    let (directory, scratch) = (crate::common::scratch(), crate::common::scratch());
    let out = open_archive(&directory.path().join("out"));
    let before = tree(&replica.directory.path().join("replica"));
    for shard in 1..=3 {
        let (name, until, scratch) = ("elsewhere".to_owned(), Until::Latest, scratch.path().to_owned());
        let request = compact::Request { name, shard, shards: 3, until, scratch, part_bytes: 400, stretch_segments: 2 };
        let report = compact::compact_into(&replica.archive, &out, &request, &options()).unwrap();
        assert_eq!(report.state == compact::State::Complete, shard == 3, "{report:?}");
    }
    assert!(tree(&replica.directory.path().join("replica")) == before, "the log's archive was written to");
    assert!(tree(&directory.path().join("out")).keys().all(|name| !name.contains("/pins/")), "a pin is left");
    let last = origin.source.states.iter().rfind(|state| state.timeline == origin.source.states[0].timeline).unwrap();
    let moment = Moment::Latest;
    let with = |name: &str, at: &str| {
        let compaction = Some(Named { name: name.into(), at: Some(at.into()) });
        let (found, content, internal) = replica.restored(&Request { compaction, ..of_replica(moment) }).unwrap();
        assert!(content == last.content && internal == last.internal, "{name} {at}");
        found
    };
    let used = with("elsewhere", out.url());
    assert_eq!((used.plan.runs().count(), used.status.left_out.len()), (1, 0), "{:?}", used.status.left_out);
    assert_eq!(with("none", out.url()).status.left_out.len(), 1);
    assert_eq!(with("elsewhere", "file:///not/there").status.left_out.len(), 1);
    // The same name for the log in another place.
    let (name, until, scratch) = ("elsewhere".to_owned(), Until::Latest, scratch.path().to_owned());
    let request = compact::Request { name, shard: 1, shards: 3, until, scratch, part_bytes: 400, stretch_segments: 2 };
    let error = compact::compact_into(&origin.source.archive, &out, &request, &options()).unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.message().contains("the path differs"), "{error:?}");
    // A file of it is gone when it is about to be taken in: the log is gone through.
    let target = replica.directory.path().join("target");
    let compaction = Some(Named { name: "elsewhere".into(), at: Some(out.url().into()) });
    let request = Request { compaction, ..of_replica(moment) };
    restore::start(&target, &replica.archive, &request, &options()).unwrap();
    std::fs::remove_dir_all(directory.path().join("out/v1/compactions/elsewhere/data")).unwrap();
    let found = restore::go_on(&target, &replica.archive, &options()).unwrap();
    assert_eq!(found.status.left_out.len(), 1);
    let (content, internal) = all_of(&target);
    assert!(content == last.content && internal == last.internal);
}
