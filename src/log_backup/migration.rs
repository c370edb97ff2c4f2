//! Migrations: what was added to an archive and what was taken from it, as a base and layers over it. Pure.
//!
//! A *layer* adds entries; its id comes from the commit of HEAD that brings it, and is never used again. The *base* is what
//! layers were folded into: which ids (`folded`), which entries are left of them, each with the ids that added it, and how
//! far each timeline was truncated. Removing an entry is leaving it out while its ids stay folded, so there are no
//! tombstones, and the base is as long as what lives.
//!
//! Merging two bases is idempotent, commutative and associative, and brings nothing back: an entry keeps the ids that both
//! sides have, and those that one side has and the other has never folded; with no id left it is gone. The body of a key
//! never changes; a second body is damage. Each struct here is taken apart field by field where it is merged, and a test
//! walks the fields that serde writes, so a field without a rule cannot be added.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::names::ObjectReference;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use uuid::Uuid;

/// The id of a layer, from 1 on.
pub type LayerId = u64;

/// So many layers fold by themselves.
pub const LAYERS_MAX: usize = 64;
/// The longest name of a compaction, in bytes.
pub const COMPACTION_NAME_BYTES_MAX: usize = 64;

const STEP: &str = "merge the archive's migrations";

/// What an entry is about. With its id it names the entry for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Key {
    /// A base snapshot.
    Snapshot(Uuid),
    /// A group of ingested files.
    Ingested(Uuid),
    /// A compaction that has ended.
    Compaction(Uuid),
    /// A list of doomed objects that are not all known to be gone.
    Gc(Uuid),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Snapshot(id) => write!(f, "snapshot/{id}"),
            Key::Ingested(id) => write!(f, "ingested/{id}"),
            Key::Compaction(id) => write!(f, "compaction/{id}"),
            Key::Gc(id) => write!(f, "gc/{id}"),
        }
    }
}

impl TryFrom<String> for Key {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::InvalidArgument, STEP, "an entry's key is no kind and id");
        let (kind, id) = text.split_once('/').ok_or_else(invalid)?;
        let id = Uuid::try_parse(id).map_err(|_| invalid())?;
        let key = match kind {
            "snapshot" => Key::Snapshot(id),
            "ingested" => Key::Ingested(id),
            "compaction" => Key::Compaction(id),
            "gc" => Key::Gc(id),
            _ => return Err(invalid()),
        };
        // Ids have more than one spelling; keys have one.
        if key.to_string() == text { Ok(key) } else { Err(invalid()) }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

/// What an entry says. It never changes for its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// Of a base snapshot.
    Snapshot(SnapshotBody),
    /// Of a group of ingested files.
    Ingested(IngestedBody),
    /// Of a compaction.
    Compaction(CompactionBody),
    /// Of a list of doomed objects.
    Gc(GcBody),
}

/// A base snapshot, and where in the log it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotBody {
    /// Its manifest.
    pub manifest: ObjectReference,
    /// The timeline that it is of.
    pub timeline: Uuid,
    /// The last sequence number in it.
    pub sequence: u64,
    /// The time of that, in the log: it can be restored from here on.
    pub time: u64,
    /// The first segment that may hold a later sequence number.
    pub next_segment: u64,
}

/// A group of ingested files, and where in the log it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestedBody {
    /// The object that lists the files.
    pub list: ObjectReference,
    /// The timeline that it is of.
    pub timeline: Uuid,
    /// The last sequence number before it.
    pub sequence: u64,
}

/// A compaction of a stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactionBody {
    /// Its name, for people.
    pub name: String,
    /// The object that lists its results.
    pub result: ObjectReference,
    /// The timeline that it is of.
    pub timeline: Uuid,
    /// Its first segment.
    pub first_segment: u64,
    /// The segment after its last.
    pub end_segment: u64,
    /// The last sequence number in it.
    pub end_sequence: u64,
}

/// A list of doomed objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcBody {
    /// The list.
    pub list: ObjectReference,
    /// The generation of HEAD that doomed them: a pin of an earlier one, or of none, may need them yet.
    pub generation: u64,
}

/// A set of layer ids: ranges, both ends included, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(LayerId, LayerId)>", into = "Vec<(LayerId, LayerId)>")]
pub struct LayerIds(Vec<(LayerId, LayerId)>);

impl LayerIds {
    /// Whether the id is in the set.
    pub fn contains(&self, id: LayerId) -> bool {
        let at = self.0.partition_point(|range| range.1 < id);
        self.0.get(at).is_some_and(|range| range.0 <= id)
    }

    /// The greatest id, 0 for the empty set.
    pub fn last(&self) -> LayerId {
        self.0.last().map_or(0, |range| range.1)
    }

    /// How many ranges there are.
    pub fn ranges(&self) -> usize {
        self.0.len()
    }

    /// The set of one id.
    pub fn of(id: LayerId) -> Self {
        LayerIds(vec![(id, id)])
    }

    /// What is in either set.
    #[must_use]
    pub fn union(&self, other: &LayerIds) -> LayerIds {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut joined: Vec<(LayerId, LayerId)> = Vec::with_capacity(all.len());
        for range in all {
            match joined.last_mut() {
                Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
                _ => joined.push(range),
            }
        }
        LayerIds(joined)
    }
}

impl TryFrom<Vec<(LayerId, LayerId)>> for LayerIds {
    type Error = Error;

    fn try_from(ranges: Vec<(LayerId, LayerId)>) -> Result<Self> {
        let apart = ranges.windows(2).all(|pair| pair[0].1 < pair[1].0.saturating_sub(1));
        if !apart || ranges.iter().any(|range| range.0 == 0 || range.0 > range.1) {
            return Err(Error::new(ErrorKind::InvalidArgument, STEP, "the folded ids are not ranges in order"));
        }
        Ok(LayerIds(ranges))
    }
}

impl From<LayerIds> for Vec<(LayerId, LayerId)> {
    fn from(ids: LayerIds) -> Self {
        ids.0
    }
}

/// An entry of the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The layers that added it.
    pub added_by: BTreeSet<LayerId>,
    /// What it says.
    pub body: Body,
}

/// What layers were folded into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The layers whose entries are in it, or were and are removed.
    pub folded: LayerIds,
    /// What is left of them.
    pub entries: BTreeMap<Key, Entry>,
    /// The first segment of each truncated timeline that may be needed.
    pub floors: BTreeMap<Uuid, u64>,
}

/// Entries that one commit added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Its id.
    pub id: LayerId,
    /// What it adds.
    pub entries: BTreeMap<Key, Body>,
}

impl Base {
    /// The base that holds one layer.
    pub fn of(layer: &Layer) -> Self {
        let Layer { id, entries } = layer;
        let entry = |body: &Body| Entry { added_by: BTreeSet::from([*id]), body: body.clone() };
        Base {
            folded: LayerIds::of(*id),
            entries: entries.iter().map(|(key, body)| (*key, entry(body))).collect(),
            floors: BTreeMap::new(),
        }
    }

    /// What both hold.
    ///
    /// # Errors
    /// `Corrupt`: the two have different bodies for one key.
    pub fn merge(&self, other: &Base) -> Result<Base> {
        let (Base { folded, entries, floors }, Base { folded: their_folded, entries: theirs, floors: their_floors }) =
            (self, other);
        let mut merged = BTreeMap::new();
        for key in entries.keys().chain(theirs.keys().filter(|key| !entries.contains_key(*key))) {
            let sides = [(entries.get(key), their_folded), (theirs.get(key), folded)];
            if let Some(entry) = merge_entry(*key, sides)? {
                merged.insert(*key, entry);
            }
        }
        let mut merged_floors = floors.clone();
        for (timeline, floor) in their_floors {
            let merged = merged_floors.entry(*timeline).or_default();
            *merged = (*merged).max(*floor);
        }
        Ok(Base { folded: folded.union(their_folded), entries: merged, floors: merged_floors })
    }

    /// As merging with the base of a layer that was not folded yet, but looks at the layer's keys alone.
    fn take(&mut self, layer: &Layer) -> Result<()> {
        for (key, body) in &layer.entries {
            let new = || Entry { added_by: BTreeSet::new(), body: body.clone() };
            let entry = self.entries.entry(*key).or_insert_with(new);
            if entry.body != *body {
                return Err(corrupt(format!("{key} says two different things")));
            }
            entry.added_by.insert(layer.id);
        }
        match self.folded.0.last_mut() {
            Some(last) if last.1.checked_add(1) == Some(layer.id) => last.1 = layer.id,
            _ => self.folded = self.folded.union(&LayerIds::of(layer.id)),
        }
        Ok(())
    }

    /// Whether it could have come out of merging and removing.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn check(&self) -> Result<()> {
        for (key, entry) in &self.entries {
            let folded = entry.added_by.iter().all(|id| self.folded.contains(*id));
            if entry.added_by.is_empty() || !folded {
                return Err(corrupt(format!("{key} was added by no layer that was folded")));
            }
            check_body(*key, &entry.body)?;
        }
        Ok(())
    }
}

/// One key of a merge: what each side has, and which ids the other side has folded.
fn merge_entry(key: Key, sides: [(Option<&Entry>, &LayerIds); 2]) -> Result<Option<Entry>> {
    let [(ours, their_folded), (theirs, folded)] = sides;
    let none = BTreeSet::new();
    let ids = |entry: Option<&Entry>| entry.map(|Entry { added_by, body: _ }| added_by.clone()).unwrap_or(none.clone());
    let (our_ids, their_ids) = (ids(ours), ids(theirs));
    let both = our_ids.intersection(&their_ids).copied();
    let only_ours = our_ids.iter().filter(|id| !their_folded.contains(**id)).copied();
    let only_theirs = their_ids.iter().filter(|id| !folded.contains(**id)).copied();
    let added_by: BTreeSet<LayerId> = both.chain(only_ours).chain(only_theirs).collect();
    if let (Some(Entry { body, .. }), Some(Entry { body: their_body, .. })) = (ours, theirs)
        && body != their_body
    {
        return Err(corrupt(format!("{key} says two different things")));
    }
    Ok(ours.or(theirs).filter(|_| !added_by.is_empty()).map(|entry| Entry { added_by, body: entry.body.clone() }))
}

/// The base, the layers over it, and the next id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migrations {
    /// What is folded.
    pub base: Base,
    /// What is not, in the order of their ids.
    pub layers: Vec<Layer>,
    /// The id that the next layer gets.
    pub next_layer: LayerId,
}

impl Default for Migrations {
    fn default() -> Self {
        Migrations { base: Base::default(), layers: Vec::new(), next_layer: 1 }
    }
}

impl Migrations {
    /// All that lives: the base with all layers merged into it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn merged(&self) -> Result<Base> {
        let mut merged = self.base.clone();
        for layer in &self.layers {
            if merged.folded.contains(layer.id) {
                merged = merged.merge(&Base::of(layer))?;
            } else {
                merged.take(layer)?;
            }
        }
        Ok(merged)
    }

    /// Adds entries as a layer; folds when there are too many. Entries that live already are left out, and with nothing
    /// left there is no layer: so adding twice is adding once.
    ///
    /// # Errors
    /// `Corrupt`: a key has another body already; `InvalidArgument`: a key and its body do not belong together.
    pub fn append(&mut self, entries: impl IntoIterator<Item = (Key, Body)>) -> Result<Option<LayerId>> {
        let live = self.merged()?;
        let mut fresh = BTreeMap::new();
        for (key, body) in entries {
            check_body(key, &body)
                .map_err(|error| Error::new(ErrorKind::InvalidArgument, STEP, error.message().to_string()))?;
            let known = live.entries.get(&key).map(|entry| &entry.body).or(fresh.get(&key));
            match known {
                Some(known) if *known != body => return Err(corrupt(format!("{key} says two different things"))),
                Some(_) => {}
                None => {
                    fresh.insert(key, body);
                }
            }
        }
        if fresh.is_empty() {
            return Ok(None);
        }
        let id = self.next_layer;
        self.next_layer = id.checked_add(1).ok_or_else(|| corrupt("there are no more ids".into()))?;
        self.layers.push(Layer { id, entries: fresh });
        if self.layers.len() >= LAYERS_MAX {
            self.fold()?;
        }
        Ok(Some(id))
    }

    /// Folds all layers into the base.
    ///
    /// # Errors
    /// `Corrupt`; nothing was changed.
    pub fn fold(&mut self) -> Result<()> {
        self.base = self.merged()?;
        self.layers.clear();
        Ok(())
    }

    /// Takes entries out; those that are not there are left out already. Only what is *proven* to be done with belongs here.
    ///
    /// # Errors
    /// `Corrupt`; nothing was changed.
    pub fn remove<'k>(&mut self, keys: impl IntoIterator<Item = &'k Key>) -> Result<()> {
        self.fold()?;
        for key in keys {
            self.base.entries.remove(key);
        }
        Ok(())
    }

    /// Truncates a timeline: its segments before `segment` are needed no more. A floor never falls.
    pub fn raise_floor(&mut self, timeline: Uuid, segment: u64) {
        let floor = self.base.floors.entry(timeline).or_default();
        *floor = (*floor).max(segment);
    }

    /// Whether these could have come out of the calls above.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn check(&self) -> Result<()> {
        self.base.check()?;
        let mut last = 0;
        for layer in &self.layers {
            if layer.id <= last || layer.entries.is_empty() || self.base.folded.contains(layer.id) {
                return Err(corrupt(format!("layer {} is out of order, empty, or folded already", layer.id)));
            }
            last = layer.id;
            layer.entries.iter().try_for_each(|(key, body)| check_body(*key, body))?;
        }
        if self.layers.len() >= LAYERS_MAX || self.next_layer <= last.max(self.base.folded.last()) {
            return Err(corrupt("there are too many layers, or the next id was used already".into()));
        }
        self.merged().map(|_| ())
    }
}

fn check_body(key: Key, body: &Body) -> Result<()> {
    let fits = match (key, body) {
        (Key::Snapshot(_), Body::Snapshot(_)) | (Key::Ingested(_), Body::Ingested(_)) | (Key::Gc(_), Body::Gc(_)) => {
            true
        }
        (Key::Compaction(_), Body::Compaction(body)) => {
            body.name.len() <= COMPACTION_NAME_BYTES_MAX && body.first_segment < body.end_segment
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(corrupt(format!("what {key} says is not of its kind"))) }
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, STEP, message)
}
