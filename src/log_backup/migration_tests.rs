use super::migration::*;
use super::names::{self, ContentHash, ObjectName, ObjectReference};
use crate::error::ErrorKind;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

fn object(name: &str) -> ObjectReference {
    ObjectReference { name: ObjectName::new(format!("v1/{name}")).unwrap(), size: 1, hash: ContentHash::of(b"x") }
}

fn ingested(number: u128) -> (Key, Body) {
    let list = object(&format!("ingested/{number}"));
    let body = IngestedBody { list, timeline: Uuid::from_u128(9), sequence: number as u64 };
    (Key::Ingested(Uuid::from_u128(number)), Body::Ingested(body))
}

fn snapshot(number: u128) -> (Key, Body) {
    let manifest = object(&format!("snapshots/{number}"));
    let body = SnapshotBody { manifest, timeline: Uuid::from_u128(9), sequence: 1, time: 2, next_segment: 3 };
    (Key::Snapshot(Uuid::from_u128(number)), Body::Snapshot(body))
}

fn compaction(number: u128) -> (Key, Body) {
    let body = CompactionBody {
        name: "nightly".into(),
        result: object("compactions/nightly"),
        timeline: Uuid::from_u128(9),
        first_segment: 1,
        end_segment: 2,
        end_sequence: 3,
    };
    (Key::Compaction(Uuid::from_u128(number)), Body::Compaction(body))
}

fn gc(number: u128) -> (Key, Body) {
    (Key::Gc(Uuid::from_u128(number)), Body::Gc(GcBody { list: object(&format!("gc/{number}")), generation: 7 }))
}

fn layer(id: LayerId, entries: impl IntoIterator<Item = (Key, Body)>) -> Layer {
    Layer { id, entries: entries.into_iter().collect() }
}

fn keys(base: &Base) -> Vec<Key> {
    base.entries.keys().copied().collect()
}

#[test]
fn four_ingested_references_of_two_sides_are_four() {
    let ours = Base::of(&layer(1, [ingested(1), ingested(2)]));
    let theirs = Base::of(&layer(2, [ingested(3), ingested(4)]));
    let merged = ours.merge(&theirs).unwrap();
    assert_eq!(keys(&merged), [1, 2, 3, 4].map(|number| ingested(number).0));
    assert_eq!(theirs.merge(&ours).unwrap(), merged);
    assert_eq!(merged.merge(&merged).unwrap(), merged);
}

#[test]
fn rounds_of_append_and_truncate_stay_bounded() {
    let mut migrations = Migrations::default();
    for round in 1..=1000 {
        migrations.append([ingested(round)]).unwrap();
        migrations.remove(&[ingested(round - 1).0]).unwrap();
        assert_eq!(keys(&migrations.merged().unwrap()), [ingested(round).0]);
        assert_eq!((migrations.layers.len(), migrations.base.folded.ranges()), (0, 1));
    }
    let size = serde_json::to_string(&migrations).unwrap().len();
    assert!(size < 1000, "{size}");
    migrations.check().unwrap();
}

#[test]
fn what_was_removed_does_not_come_back_with_an_older_copy() {
    let mut migrations = Migrations::default();
    migrations.append([ingested(1), snapshot(2)]).unwrap();
    let older = migrations.merged().unwrap();
    migrations.remove(&[ingested(1).0]).unwrap();
    let merged = migrations.base.merge(&older).unwrap();
    assert_eq!(keys(&merged), [snapshot(2).0]);
    assert_eq!(older.merge(&migrations.base).unwrap(), merged);
}

#[test]
fn a_second_body_for_a_key_is_damage() {
    let mut other = ingested(1);
    other.1 = Body::Ingested(IngestedBody { list: object("x"), timeline: Uuid::nil(), sequence: 1 });
    let error = Base::of(&layer(1, [ingested(1)])).merge(&Base::of(&layer(2, [other.clone()]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let mut migrations = Migrations::default();
    migrations.append([ingested(1)]).unwrap();
    let before = migrations.clone();
    assert_eq!(migrations.append([ingested(2), other]).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(migrations, before);
    let mismatch = (ingested(1).0, snapshot(1).1);
    assert_eq!(migrations.append([mismatch]).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn layers_fold_by_themselves_and_adding_twice_is_adding_once() {
    let mut migrations = Migrations::default();
    for number in 1..140 {
        assert_eq!(migrations.append([ingested(number)]).unwrap(), Some(number as u64));
        assert_eq!(migrations.append([ingested(number)]).unwrap(), None);
        assert!(migrations.layers.len() < LAYERS_MAX);
        migrations.check().unwrap();
    }
    assert_eq!(migrations.merged().unwrap().entries.len(), 139);
    migrations.raise_floor(Uuid::nil(), 7);
    migrations.raise_floor(Uuid::nil(), 3);
    assert_eq!(migrations.base.floors[&Uuid::nil()], 7);
}

/// A value for every field that serde writes. No `..`: a new field must come here.
fn full() -> Base {
    let entries = [ingested(1), snapshot(2), compaction(3), gc(4)];
    let entry = |body| Entry { added_by: BTreeSet::from([3, 5]), body };
    Base {
        folded: LayerIds::of(3).union(&LayerIds::of(5)),
        entries: entries.into_iter().map(|(key, body)| (key, entry(body))).collect(),
        floors: BTreeMap::from([(Uuid::from_u128(1), 4)]),
    }
}

/// The paths of all leaves.
fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(name, value)| leaves(value, format!("{path}/{}", name.replace('/', "~1")), found))
        }
        Value::Array(values) if !values.is_empty() => {
            values.iter().enumerate().for_each(|(at, value)| leaves(value, format!("{path}/{at}"), found))
        }
        _ => found.push(path),
    }
}

#[test]
fn every_field_that_serde_writes_survives_a_merge() {
    let full = full();
    let written = serde_json::to_value(&full).unwrap();
    let empty = serde_json::to_value(Base::default()).unwrap();
    for (field, value) in written.as_object().unwrap() {
        assert_ne!(value, &empty[field], "`{field}` has no value in this test: give it one, and a rule in `merge`");
    }
    for merged in [full.merge(&Base::default()), Base::default().merge(&full), full.merge(&full)] {
        let merged = serde_json::to_value(merged.unwrap()).unwrap();
        let mut paths = Vec::new();
        leaves(&written, String::new(), &mut paths);
        assert!(paths.len() > 30, "{}", paths.len());
        for path in paths {
            assert_eq!(merged.pointer(&path), written.pointer(&path), "{path} is lost by `merge`: give it a rule");
        }
    }
    // Each kind of entry is in the sample: a new one must come here.
    let kind = |key: &Key| match key {
        Key::Snapshot(_) => 0,
        Key::Ingested(_) => 1,
        Key::Compaction(_) => 2,
        Key::Gc(_) => 3,
    };
    let kinds: BTreeSet<_> = full.entries.keys().map(kind).collect();
    assert_eq!(kinds.len(), 4);
}

#[test]
fn contents_that_no_commit_makes_are_refused() {
    let mut sound = Migrations::default();
    sound.append([ingested(1)]).unwrap();
    sound.fold().unwrap();
    sound.append([snapshot(2)]).unwrap();
    sound.check().unwrap();
    let broken: [fn(&mut Migrations); 9] = [
        |m| m.next_layer = 2,
        |m| m.next_layer = 0,
        |m| m.layers[0].id = 1,
        |m| m.layers[0].entries.clear(),
        |m| m.layers.push(m.layers[0].clone()),
        |m| m.base.folded = LayerIds::default(),
        |m| m.base.entries.values_mut().for_each(|entry| entry.added_by.clear()),
        |m| m.base.entries.values_mut().for_each(|entry| entry.body = snapshot(1).1),
        |m| {
            m.layers[0].entries.insert(ingested(1).0, {
                let Body::Ingested(body) = ingested(1).1 else { unreachable!() };
                Body::Ingested(IngestedBody { sequence: 99, ..body })
            });
        },
    ];
    for (number, break_it) in broken.into_iter().enumerate() {
        let mut migrations = sound.clone();
        break_it(&mut migrations);
        assert_eq!(migrations.check().err().map(|error| error.kind()), Some(ErrorKind::Corrupt), "{number}");
    }
    for json in ["[[0,1]]", "[[2,1]]", "[[1,2],[3,4]]", "[[5,6],[1,2]]", "[[1,5],[5,7]]"] {
        assert!(serde_json::from_str::<LayerIds>(json).is_err(), "{json}");
    }
    for key in [
        "snapshot",
        "snapshot/",
        "other/00000000-0000-0000-0000-000000000001",
        "snapshot/{00000000-0000-0000-0000-000000000001}",
    ] {
        assert!(Key::try_from(key.to_string()).is_err(), "{key}");
    }
}

/// A side that has seen some layers of one history and removed some keys after it had folded them.
fn side() -> impl Strategy<Value = Base> {
    let folded = proptest::collection::btree_set(1u64..12, 0..8);
    let removed = proptest::collection::btree_set(0u128..8, 0..5);
    let floors = proptest::collection::btree_map(0u128..3, 0u64..5, 0..3);
    (folded, removed, floors).prop_map(|(folded, removed, floors)| {
        let mut base = Base::default();
        for id in folded {
            // Which keys a layer adds is part of the history, the same for all.
            let added = (0u128..8).filter(|key| ((id * 2_654_435_761) >> (key * 3)) & 3 == 0).map(ingested);
            base = base.merge(&Base::of(&layer(id, added))).unwrap();
        }
        removed.into_iter().for_each(|key| {
            base.entries.remove(&ingested(key).0);
        });
        base.floors = floors.into_iter().map(|(timeline, floor)| (Uuid::from_u128(timeline), floor)).collect();
        base
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn merging_is_idempotent_commutative_and_associative(a in side(), b in side(), c in side()) {
        let merge = |a: &Base, b: &Base| a.merge(b).unwrap();
        prop_assert_eq!(merge(&a, &a), a.clone());
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
        prop_assert!(merge(&a, &b).check().is_ok());
    }

    #[test]
    fn merging_brings_nothing_back_and_loses_nothing(a in side(), b in side()) {
        let merged = a.merge(&b).unwrap();
        for key in a.entries.keys().chain(b.entries.keys()) {
            let ids = |base: &Base| base.entries.get(key).map(|entry| entry.added_by.clone()).unwrap_or_default();
            // An id lives on unless one side has folded it and no longer has it.
            let lives = |id: &LayerId| {
                (ids(&a).contains(id) || !a.folded.contains(*id)) && (ids(&b).contains(id) || !b.folded.contains(*id))
            };
            let expected: BTreeSet<LayerId> = ids(&a).union(&ids(&b)).copied().filter(lives).collect();
            prop_assert_eq!(ids(&merged), expected);
        }
    }
}

/// Merging looks at the keys of a layer alone; it must come to what merging whole bases comes to.
#[test]
fn taking_layers_is_merging_their_bases() {
    let entry = |number: u128| {
        let list = ObjectReference { name: names::gc(Uuid::from_u128(number)), size: 1, hash: ContentHash(number) };
        let body = IngestedBody { list, timeline: Uuid::nil(), sequence: 1 };
        (Key::Ingested(Uuid::from_u128(number)), Body::Ingested(body))
    };
    for seed in 0..200u64 {
        let pick = |n: u64| seed.wrapping_mul(0x9e37_79b9).rotate_left((n % 64) as u32) ^ n.wrapping_mul(0x85eb_ca6b);
        let layers: Vec<_> = (0..12)
            .map(|n| Layer {
                id: 1 + n * (1 + pick(n) % 2) + n,
                entries: (0..1 + pick(n) % 4).map(|m| entry(u128::from(pick(n * 7 + m) % 20))).collect(),
            })
            .collect();
        let base = Base::of(&Layer { id: 1 + seed % 30, entries: (0..6).map(entry).collect() });
        let expected = layers.iter().try_fold(base.clone(), |base, layer| base.merge(&Base::of(layer))).unwrap();
        let migrations = Migrations { base, layers, next_layer: 100 };
        assert_eq!(migrations.merged().unwrap(), expected, "{seed}");
    }
}

#[test]
fn a_floor_never_falls() {
    let mut migrations = Migrations::default();
    for (segment, floor) in [(3, 3), (5, 5), (4, 5), (0, 5), (6, 6)] {
        migrations.raise_floor(Uuid::from_u128(9), segment);
        assert_eq!(migrations.merged().unwrap().floors[&Uuid::from_u128(9)], floor);
    }
}
