//! Every moment that is restored to is the one of the model.

use crate::common::{Content, options};
use crate::source::{Source, State};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::restore::moment::Moment;
use morphkv::restore::{self, Request};
use morphkv::{Engine, Options};
use std::path::Path;
use std::sync::Arc;

pub fn request(moment: Moment) -> Request {
    Request { moment, timeline: None, replace: false, no_pin: false }
}

/// The content and the caller's internal records of a database.
pub fn all_of(path: &Path) -> (Content, Content) {
    let engine = Engine::open(path, options()).unwrap();
    let content = engine.range(..).unwrap().map(|entry| entry.unwrap()).collect();
    let internal = engine.internal().scan(..).unwrap().map(|entry| entry.unwrap()).collect();
    engine.close().unwrap();
    (content, internal)
}

pub fn check(source: &Source, moment: Moment, options: Options, expected: &State, what: &str) {
    let target = source.directory.path().join("target");
    let found = restore::run(&target, &source.archive, &request(moment), &options)
        .unwrap_or_else(|error| panic!("{what}: {moment}: {error:?}"));
    assert_eq!(found.plan.reached.time, expected.time, "{what}: {moment}");
    let (content, internal) = all_of(&target);
    assert!(content == expected.content, "{what}: {moment}: {} of {}", content.len(), expected.content.len());
    assert_eq!(internal, expected.internal, "{what}: {moment}");
    Engine::destroy(&target, Options::new()).unwrap();
    assert!(restore::abort(&target, &Options::new()).unwrap());
}

#[test]
fn a_base_and_its_log_come_back_at_the_latest_moment_and_at_one_before() {
    let mut source = Source::new(Arc::new(Natural));
    for number in 0..10 {
        source.put(&format!("/key/{number}"), &number.to_string());
    }
    source.snapshot();
    for number in 5..25 {
        source.put(&format!("/key/{number}"), "new");
    }
    source.ship(None);
    let latest = source.states.last().unwrap().clone();
    check(&source, Moment::Latest, options(), &latest, "latest");
    let middle = source.states[17].clone();
    check(&source, Moment::Time(middle.time + 3), options(), &middle, "in the middle");
    check(&source, Moment::Time(middle.time), options().encoding(Hierarchical), &middle, "in another encoding");
    source.convert(Arc::new(Hierarchical));
    source.put("/after/conversion", "1");
    source.ship(None);
    let latest = source.states.last().unwrap().clone();
    check(&source, Moment::Latest, options(), &latest, "over a conversion");
    let _: &dyn KeyEncoding = &*source.encoding;
}
