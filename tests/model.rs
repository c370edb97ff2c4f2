//! The engine against a sorted map: random operations with conversions both ways, reopenings, flushes and rollbacks in
//! between. Seeds are printed, so that a failure can be repeated.
#![cfg(feature = "traps")]

mod common;

use common::{Content, content, options};
use morphkv::encoding::{Hierarchical, KeyEncoding, Natural};
use morphkv::{Comparison, Durability, Engine, Keep, manage};
use proptest::prelude::*;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Batch(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Flush,
    Reopen,
    Convert(bool),
    ConvertAndRollBack(bool),
    Lookup(Vec<u8>),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(prop::sample::select(b"a/b_\x00".to_vec()), 0..7),
        1 => prop::collection::vec(any::<u8>().prop_filter("0xFF", |byte| *byte != 0xff), 0..40),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![9 => prop::collection::vec(any::<u8>(), 0..20), 1 => Just(vec![7; 5000])]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        8 => key().prop_map(Step::Delete),
        4 => (key(), key()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        8 => prop::collection::vec((key(), prop::option::of(value())), 0..12).prop_map(Step::Batch),
        2 => Just(Step::Flush),
        2 => Just(Step::Reopen),
        2 => any::<bool>().prop_map(Step::Convert),
        1 => any::<bool>().prop_map(Step::ConvertAndRollBack),
        8 => key().prop_map(Step::Lookup),
    ]
}

fn named(hierarchical: bool) -> Arc<dyn KeyEncoding> {
    if hierarchical { Arc::new(Hierarchical) } else { Arc::new(Natural) }
}

struct Run {
    path: std::path::PathBuf,
    engine: Option<Engine>,
    model: Content,
}

impl Run {
    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    fn encoded(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        named(self.engine().encoding().name == "hierarchical").encode(key, &mut out).unwrap();
        out
    }

    /// The model's keys in encoding order.
    fn ordered(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut ordered: Vec<_> = self.model.clone().into_iter().collect();
        ordered.sort_by_cached_key(|(key, _)| self.encoded(key));
        ordered
    }

    fn reopen(&mut self, hierarchical: Option<bool>) {
        drop(self.engine.take());
        self.engine = Some(open(&self.path, hierarchical));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(key, value) => {
                self.engine().put(key, value).unwrap();
                self.model.insert(key.clone(), value.clone());
            }
            Step::Delete(key) => {
                self.engine().delete(key).unwrap();
                self.model.remove(key);
            }
            Step::DeleteRange(from, to) => {
                self.engine().delete_range((Bound::Included(from), Bound::Excluded(to))).unwrap();
                let (from, to) = (self.encoded(from), self.encoded(to));
                let gone: Vec<_> =
                    self.model.keys().filter(|key| (&from..&to).contains(&&self.encoded(key))).cloned().collect();
                gone.iter().for_each(|key| drop(self.model.remove(key)));
            }
            Step::Batch(operations) => {
                let mut batch = self.engine().batch();
                let mut after = self.model.clone();
                for (key, value) in operations {
                    match value {
                        Some(value) => batch.put(key, value).map(|_| after.insert(key.clone(), value.clone())).unwrap(),
                        None => batch.delete(key).map(|_| after.remove(key)).unwrap(),
                    };
                    assert_eq!(batch.get(key).unwrap().map(|value| value.to_vec()).as_ref(), value.as_ref());
                }
                batch.commit().unwrap();
                self.model = after;
            }
            Step::Flush => self.engine().flush().unwrap(),
            Step::Reopen => self.reopen(None),
            Step::Convert(hierarchical) => self.reopen(Some(*hierarchical)),
            Step::ConvertAndRollBack(hierarchical) => self.convert_and_roll_back(*hierarchical),
            Step::Lookup(key) => self.lookup(key),
        }
    }

    fn convert_and_roll_back(&mut self, hierarchical: bool) {
        let before = self.engine().encoding();
        if before.name == named(hierarchical).name() {
            return;
        }
        drop(self.engine.take());
        let converted =
            Engine::open(&self.path, options().encoding(named(hierarchical)).keep_backup(Keep::Yes)).unwrap();
        assert_eq!(content(&converted), self.model);
        converted.put(b"lost by the rollback", b"1").unwrap();
        drop(converted);
        let report = manage::rollback(&self.path, &options()).unwrap();
        assert!(report.lost_writes >= Some(1), "{report:?}");
        self.reopen(None);
        assert_eq!(self.engine().encoding(), before);
    }

    fn lookup(&self, key: &[u8]) {
        let (ordered, encoded) = (self.ordered(), self.encoded(key));
        let at = |keep: &dyn Fn(&Vec<u8>) -> bool, last: bool| {
            let mut fitting = ordered.iter().filter(|(key, _)| keep(&self.encoded(key)));
            if last { fitting.next_back().cloned() } else { fitting.next().cloned() }
        };
        for (comparison, wanted) in [
            (Comparison::Equal, at(&|found| *found == encoded, false)),
            (Comparison::Floor, at(&|found| *found <= encoded, true)),
            (Comparison::Lower, at(&|found| *found < encoded, true)),
            (Comparison::Ceiling, at(&|found| *found >= encoded, false)),
            (Comparison::Higher, at(&|found| *found > encoded, false)),
        ] {
            let found = self.engine().lookup(key, comparison).unwrap().map(|(key, value)| (key, value.to_vec()));
            assert_eq!(found, wanted, "{comparison:?} {key:?}");
        }
    }

    fn compare(&self) {
        let found: Vec<_> = self.engine().range(..).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(found, self.ordered());
        assert_eq!(content(self.engine()), self.model);
    }
}

fn open(path: &Path, hierarchical: Option<bool>) -> Engine {
    let options = options().create_if_missing(true).durability(Durability::Buffered);
    let options = match hierarchical {
        Some(hierarchical) => options.encoding(named(hierarchical)),
        None => options,
    };
    Engine::open(path, options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_is_a_sorted_map_that_changes_its_order(steps in prop::collection::vec(step(), 20..90), start: bool) {
        let directory = common::scratch();
        let path = directory.path().join("db");
        let engine = open(&path, Some(start));
        let mut run = Run { path, engine: Some(engine), model: Content::new() };
        for step in &steps {
            run.step(step);
            if matches!(step, Step::Reopen | Step::Convert(_) | Step::ConvertAndRollBack(_)) {
                run.compare();
            }
        }
        run.compare();
    }
}

#[test]
fn there_and_back_a_thousand_keys_byte_for_byte() {
    let directory = common::scratch();
    let path = directory.path().join("db");
    let wanted = common::sample(1000);
    common::make(&path, Arc::new(Natural), &wanted);
    let digest = manage::digest(&path, &options()).unwrap();
    for hierarchical in [true, false, true, false] {
        let engine = open(&path, Some(hierarchical));
        assert_eq!(content(&engine), wanted);
        assert_eq!(&*engine.internal().get(b"offset").unwrap().unwrap(), b"42");
        engine.close().unwrap();
        assert_eq!(manage::digest(&path, &options()).unwrap(), digest);
        let verification = manage::verify(&path, &options()).unwrap();
        assert!(verification.ok, "{verification:?}");
    }
}
