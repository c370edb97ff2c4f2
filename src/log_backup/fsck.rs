//! Whether what stands in an archive is what its HEAD speaks of: marks from HEAD, lists everything, and compares. With
//! `repair` it sweeps what nothing speaks of.
//!
//! Contents are not read, as `verify.rs` does, but lists and the headers of segments. What it sweeps, and why that is safe:
//! - *orphans*, what an upload left that was never committed: older than [`ORPHAN_AGE`] in the store's own time, and only
//!   while no pin is live but those of readers. The pins are listed first, then HEAD is read, then the objects are listed:
//!   so whoever uploads has a pin that is seen, or has committed before HEAD was read, or began later and its objects are
//!   young. Nothing is swept while a list cannot be read, since what is on it looks like an orphan;
//! - pins that have expired: their holders have given up by then;
//! - what a judge of pins or the probe let stand for an instant, an hour later.
//!
//! Names that this version does not know are told of, and never touched.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::load;
use crate::log_backup::doom::{self, SegmentRange};
use crate::log_backup::head::Head;
use crate::log_backup::migration::{Base, Body};
use crate::log_backup::names::{Kind, LAYOUT, ObjectName, compaction_of, kind, segment};
use crate::log_backup::object::Listed;
use crate::log_backup::pin::{self, Pin, PinRequest, PinState, TTL};
use crate::log_backup::referred::{listed, named};
use crate::log_backup::tail::{self, Presence, presence};
use crate::log_backup::timelines::known_last;
use crate::log_backup::verify::Fault;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// What is younger is not swept.
pub const ORPHAN_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What stands for an instant alone is stale after this.
pub const INSTANT_AGE: Duration = Duration::from_secs(60 * 60);

const PURPOSE: &str = "check the archive";

/// What pins are for that need nothing but what HEAD speaks of. All others may be uploading.
const READERS: [&str; 4] = ["restore", "verify the archive", "truncate the archive", PURPOSE];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The generation of HEAD that it goes by.
    pub generation: u64,
    /// Objects that HEAD speaks of, and that are there with their length.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is missing, has another length, or is a list that cannot be read.
    pub faults: Vec<Fault>,
    /// What nothing speaks of.
    pub orphans: Vec<Leftover>,
    /// Expired pins, and what was to stand for an instant.
    pub stale: Vec<Leftover>,
    /// Objects that are doomed and not deleted yet.
    pub doomed: u64,
    /// Objects whose names this version does not make.
    pub unknown: Vec<String>,
    /// Objects whose names are none of the layout.
    pub foreign: u64,
    /// Orphans and stale objects that were removed.
    pub removed: u64,
    /// Pins of those who may be uploading: orphans stay as long as there are some.
    pub uploaders: Vec<Uuid>,
}

/// An object that is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The object.
    pub object: String,
    /// Its length.
    pub bytes: u64,
    /// How long ago it was written, in the store's time.
    pub age_seconds: u64,
    /// Whether it is old enough to go.
    pub is_old: bool,
    /// Whether it is gone.
    pub is_removed: bool,
}

impl Checked {
    /// Whether nothing is wrong, and nothing old is left over.
    pub fn is_sound(&self) -> bool {
        let left = |leftover: &Leftover| leftover.is_old && !leftover.is_removed;
        self.faults.is_empty() && !self.orphans.iter().chain(&self.stale).any(left)
    }
}

/// Compares what stands with what HEAD speaks of; `repair` sweeps what is left over.
///
/// # Errors
/// `NotFound`, `Corrupt`: of HEAD itself; `Io`: the store could not be asked, or something could not be removed; `Lost`: the
/// pin. What is wrong with an object is no error. Whatever the error, nothing that HEAD speaks of was touched.
pub fn fsck(archive: &Archive, repair: bool) -> Result<Checked> {
    let request = PinRequest { owner: archive.url().to_owned(), purpose: PURPOSE.into(), ttl: TTL };
    let (pin, _) = Pin::take_and_load(archive, &request)?;
    let now = pin::store_time(archive)?;
    let pins: Vec<_> = pin::list(archive)?.into_iter().filter(|state| state.id != pin.id()).collect();
    // After the pins.
    let head = load(archive)?.head;
    let live = head.migrations.merged()?;
    let checked = Checked { generation: head.generation, uploaders: uploaders(&pins), ..Checked::default() };
    let mut run = Run { archive, pin, now, head, live, marked: Marked::default(), checked };
    run.mark()?;
    let standing = run.list(&pins)?;
    run.missing(&standing)?;
    if repair {
        run.sweep()?;
    }
    Ok(run.checked)
}

/// The live pins of those who may be uploading.
fn uploaders(pins: &[PinState]) -> Vec<Uuid> {
    let reads = |pin: &PinState| pin.contents.as_ref().is_some_and(|pin| READERS.contains(&pin.purpose.as_str()));
    pins.iter().filter(|pin| !pin.is_expired() && !reads(pin)).map(|pin| pin.id).collect()
}

/// What HEAD speaks of.
#[derive(Default)]
struct Marked {
    /// What must stand, and its length.
    needed: BTreeMap<ObjectName, u64>,
    /// What may stand.
    doomed: BTreeSet<ObjectName>,
    doomed_segments: Vec<SegmentRange>,
    /// A list could not be read, so what is on it is not known.
    is_partial: bool,
}

/// What stands of the log: its segments, with their lengths.
type Standing = BTreeMap<Uuid, BTreeMap<u64, u64>>;

struct Run<'a> {
    archive: &'a Archive,
    pin: Pin,
    now: i64,
    head: Head,
    live: Base,
    marked: Marked,
    checked: Checked,
}

impl Run<'_> {
    /// Notes what is wrong with an object, once.
    fn fault(&mut self, object: &ObjectName, reason: impl Into<String>) {
        let object = object.to_string();
        if self.checked.faults.iter().all(|fault| fault.object != object) {
            self.checked.faults.push(Fault { object, reason: reason.into() });
        }
    }

    fn mark(&mut self) -> Result<()> {
        let bodies: Vec<Body> = self.live.entries.values().map(|entry| entry.body.clone()).collect();
        for body in &bodies {
            self.pin.check()?;
            self.marked.needed.insert(named(body).name.clone(), named(body).size);
            let read = match body {
                Body::Gc(body) => doom::read(self.archive, &body.list).map(|list| {
                    self.marked.doomed.extend(list.objects);
                    self.marked.doomed_segments.extend(list.segments);
                }),
                _ => listed(self.archive, body).map(|listed| {
                    self.marked.needed.extend(listed.into_iter().map(|object| (object.name, object.size)));
                }),
            };
            match read {
                Ok(()) => {}
                Err(error) if is_of_the_object(&error) => {
                    self.marked.is_partial = true;
                    // A list that is not there is told of with everything else that is not.
                    if error.kind() != ErrorKind::NotFound {
                        self.fault(&named(body).name, error.message());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sorts everything that stands. What is needed and there is taken off the marks.
    fn list(&mut self, pins: &[PinState]) -> Result<Standing> {
        let mut standing = Standing::new();
        let mut listing = self.archive.list(LAYOUT)?;
        for listed in listing.by_ref() {
            let listed = listed?;
            self.pin.check()?;
            match kind(&listed.name) {
                Kind::Head => {}
                Kind::Segment { timeline, number } => self.segment(&listed, timeline, number, &mut standing),
                Kind::Data | Kind::Snapshot | Kind::Gc | Kind::Compaction => self.object(&listed),
                Kind::CompactionSpec => {
                    self.checked.objects += 1;
                    self.checked.bytes += listed.stat.size;
                }
                Kind::Pin(id) => {
                    let expired = pins.iter().any(|pin| pin.id == id && pin.is_expired());
                    if expired {
                        let stale = self.leftover(&listed, Duration::ZERO);
                        self.checked.stale.push(stale);
                    }
                }
                Kind::Instant => {
                    let stale = self.leftover(&listed, INSTANT_AGE);
                    if stale.is_old {
                        self.checked.stale.push(stale);
                    }
                }
                Kind::Unknown => self.checked.unknown.push(listed.name.to_string()),
            }
        }
        self.checked.foreign = listing.foreign();
        self.keep_compactions_together();
        Ok(standing)
    }

    fn leftover(&self, listed: &Listed, age_min: Duration) -> Leftover {
        let age = Duration::from_micros(self.now.saturating_sub(listed.stat.modified).max(0).cast_unsigned());
        Leftover {
            object: listed.name.to_string(),
            bytes: listed.stat.size,
            age_seconds: age.as_secs(),
            is_old: age >= age_min,
            is_removed: false,
        }
    }

    fn orphan(&mut self, listed: &Listed) {
        let orphan = self.leftover(listed, ORPHAN_AGE);
        self.checked.orphans.push(orphan);
    }

    /// What is left of a compaction goes as a whole: its END tells a worker that comes late that all of it stands.
    fn keep_compactions_together(&mut self) {
        let young = self.checked.orphans.iter().filter(|orphan| !orphan.is_old);
        let young: BTreeSet<String> =
            young.filter_map(|orphan| compaction_of(&orphan.object)).map(str::to_owned).collect();
        for orphan in &mut self.checked.orphans {
            orphan.is_old &= compaction_of(&orphan.object).is_none_or(|name| !young.contains(name));
        }
    }

    fn object(&mut self, listed: &Listed) {
        match self.marked.needed.remove(&listed.name) {
            Some(size) if size == listed.stat.size => {
                self.checked.objects += 1;
                self.checked.bytes += size;
            }
            Some(size) => {
                self.fault(&listed.name, format!("it has {} bytes, {size} were written", listed.stat.size));
            }
            None if self.marked.doomed.contains(&listed.name) => self.checked.doomed += 1,
            None => self.orphan(listed),
        }
    }

    fn segment(&mut self, listed: &Listed, timeline: Uuid, number: u64, standing: &mut Standing) {
        let floor = self.live.floors.get(&timeline).copied().unwrap_or(0);
        let holds = |range: &&SegmentRange| range.timeline == timeline && (range.first..range.end).contains(&number);
        if self.marked.doomed_segments.iter().find(holds).is_some() {
            self.checked.doomed += 1;
        } else if self.head.timeline(timeline).is_err() || number < floor {
            self.orphan(listed);
        } else {
            standing.entry(timeline).or_default().insert(number, listed.stat.size);
        }
    }

    /// Tells of what is needed and was not listed, and of segments that are missing or cut.
    fn missing(&mut self, standing: &Standing) -> Result<()> {
        for name in std::mem::take(&mut self.marked.needed).into_keys() {
            self.fault(&name, "it is not there");
        }
        let timelines: Vec<Uuid> = self.head.timelines.iter().map(|timeline| timeline.id).collect();
        let none = BTreeMap::new();
        for timeline in timelines {
            let standing = standing.get(&timeline).unwrap_or(&none);
            let floor = self.live.floors.get(&timeline).copied().unwrap_or(0);
            let known = known_last(&self.head, &self.live, timeline);
            let Some(last) = known.max(standing.keys().next_back().copied()) else { continue };
            for found in presence(floor, last, standing.keys().copied()) {
                self.pin.check()?;
                let number = match found {
                    Presence::Stands(number) => number,
                    Presence::Missing(first, last) => {
                        self.fault(&segment(timeline, first)?, Presence::missing(first, last));
                        continue;
                    }
                };
                let (name, size) = (segment(timeline, number)?, standing.get(&number).copied().unwrap_or_default());
                match tail::header(self.archive, timeline, number) {
                    Ok(header) if header.object_bytes() == size => {
                        self.checked.objects += 1;
                        self.checked.bytes += size;
                    }
                    Ok(header) => {
                        let written = header.object_bytes();
                        self.fault(&name, format!("it has {size} bytes, {written} were written"));
                    }
                    Err(error) if is_of_the_object(&error) => self.fault(&name, error.message()),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn sweep(&mut self) -> Result<()> {
        for leftover in self.checked.stale.iter_mut().filter(|leftover| leftover.is_old) {
            self.archive.delete(&ObjectName::new(leftover.object.clone())?)?;
            leftover.is_removed = true;
            self.checked.removed += 1;
        }
        if self.marked.is_partial || !self.checked.uploaders.is_empty() {
            return Ok(());
        }
        for leftover in self.checked.orphans.iter_mut().filter(|leftover| leftover.is_old) {
            self.pin.check()?;
            self.archive.delete(&ObjectName::new(leftover.object.clone())?)?;
            leftover.is_removed = true;
            self.checked.removed += 1;
        }
        Ok(())
    }
}

/// Whether an error says something about an object, and not about the store.
fn is_of_the_object(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Unsupported)
}
