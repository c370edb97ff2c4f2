//! Pins: who uses an archive, and since which HEAD. There is no exclusive lock; what a live pin may need is not deleted.
//!
//! A pin is an object of its own under an id that is never used again. It is made *before* HEAD is loaded, and then told
//! HEAD's generation: so whoever dooms objects later, in a later generation, sees that this one may need them. It is
//! renewed by a thread, at a third of its time to live, with a compare-and-swap on its own version. Dropping its guard
//! removes it, whatever the error was that led there.
//!
//! Whether a pin is live is judged in the store's own time: the judge writes an object, *then* looks at the pins, and
//! compares the times that the store gave to them. So a pin is never taken for older than it is, and no two hosts' clocks
//! are compared. The holder counts by its own monotonic clock, from before each renewal was sent: it gives up no later than
//! a judge can, if that clock runs. It stands still while a machine sleeps, or is frozen; so after each renewal the holder
//! looks at the times that the store gave to it and to the one before: further apart than the time to live, a judge may have
//! come between. A holder that finds its pin removed or changed, or renewed too late, has lost it, for good: what it relies
//! on may be deleted from then on.

use crate::control;
use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::{Archive, Version};
use crate::log_backup::commit::{self, Loaded};
use crate::log_backup::names::{self, ObjectName, PINS};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The version of the format of a pin.
pub const PIN_FORMAT: u32 = 1;
/// The longest pin, in bytes.
pub const PIN_BYTES_MAX: u64 = 4096;
/// The time to live of a pin whose holder runs all the time.
pub const TTL: Duration = Duration::from_secs(15 * 60);
/// The time to live of a pin that must survive a reboot: a restore's.
pub const TTL_RESTORE: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest time to live.
pub const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const STEP: &str = "pin the archive";
const TEXT_BYTES_MAX: usize = 256;

/// What a pin says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinContents {
    /// [`PIN_FORMAT`].
    pub format: u32,
    /// Its id, and the end of its name.
    pub id: Uuid,
    /// The database, or the person.
    pub owner: String,
    /// The machine.
    pub host: String,
    /// The process.
    pub process: u32,
    /// What for.
    pub purpose: String,
    /// It is live this long after it was last written, in milliseconds.
    pub ttl_milliseconds: u64,
    /// The generation of the HEAD that its holder has loaded; `None` before it has.
    pub generation: Option<u64>,
    /// How often it was written: no two versions of it are equal.
    pub renewals: u64,
}

/// A pin as a judge sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinState {
    /// Its id.
    pub id: Uuid,
    /// What it says; `None` if that cannot be read, and then it is live and may need everything.
    pub contents: Option<PinContents>,
    /// How long ago it was written, in the store's time; never more than it really is.
    pub age: Duration,
}

impl PinState {
    /// Whether its time to live is over.
    pub fn is_expired(&self) -> bool {
        let ttl = self.contents.as_ref().map(|contents| Duration::from_millis(contents.ttl_milliseconds));
        ttl.is_some_and(|ttl| self.age > ttl)
    }

    /// Whether its holder may need what was doomed in this generation of HEAD.
    pub fn blocks(&self, doomed_in: u64) -> bool {
        let generation = self.contents.as_ref().and_then(|contents| contents.generation);
        !self.is_expired() && generation.is_none_or(|generation| generation < doomed_in)
    }
}

/// What a pin is taken for.
#[derive(Debug, Clone)]
pub struct PinRequest {
    /// The database, or the person; cut after 256 bytes.
    pub owner: String,
    /// What for; cut after 256 bytes.
    pub purpose: String,
    /// The time to live: up to [`TTL_MAX`].
    pub ttl: Duration,
}

/// A pin that is held. Dropping it removes the object, which waits for the store, within the archive's time-outs.
#[derive(Debug)]
pub struct Pin {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    archive: Archive,
    name: ObjectName,
    id: Uuid,
    ttl: Duration,
    /// Locked while the store is waited for, so that no two writes of this process meet.
    written: Mutex<Written>,
    /// Locked for an instant: asking whether the pin is held never waits for the store.
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct Written {
    contents: PinContents,
    version: Version,
    /// When a version was written that was renewed, and it is not known when that was.
    unsure_since: Option<i64>,
}

#[derive(Debug)]
struct State {
    /// It is live at least until then, by this process's monotonic clock.
    until: Instant,
    /// Why it was lost.
    lost: Option<&'static str>,
    ends: bool,
}

impl Pin {
    /// Takes a pin. Load HEAD only afterwards, and then [`Pin::note_generation`]; or do all with [`Pin::take_and_load`].
    ///
    /// # Errors
    /// `InvalidArgument` for the time to live; `Io`, `Unsupported`. If a pin was made nevertheless it expires by itself.
    pub fn take(archive: &Archive, request: &PinRequest) -> Result<Self> {
        if request.ttl < Duration::from_millis(10) || request.ttl > TTL_MAX {
            return Err(Error::new(ErrorKind::InvalidArgument, STEP, format!("it must live up to {TTL_MAX:?}")));
        }
        let id = Uuid::new_v4();
        let uname = rustix::system::uname();
        let contents = PinContents {
            format: PIN_FORMAT,
            id,
            owner: cut(&request.owner),
            host: cut(&uname.nodename().to_string_lossy()),
            process: std::process::id(),
            purpose: cut(&request.purpose),
            ttl_milliseconds: request.ttl.as_millis() as u64,
            generation: None,
            renewals: 0,
        };
        let name = names::pin(id);
        let until = Instant::now() + request.ttl;
        let version = match archive.put_create(&name, encode(&contents)?) {
            Ok(version) => version,
            Err(error) => {
                // It may stand: nobody holds it, so it goes, or expires.
                let _ = archive.delete(&name);
                return Err(error);
            }
        };
        let state = Mutex::new(State { until, lost: None, ends: false });
        let written = Mutex::new(Written { contents, version, unsure_since: None });
        let (archive, ttl) = (archive.clone(), request.ttl);
        let shared = Arc::new(Shared { archive, name, id, ttl, written, state, wake: Condvar::new() });
        let mut pin = Pin { shared: Arc::clone(&shared), thread: None };
        let thread = std::thread::Builder::new().name("morphkv-pin".into()).spawn(move || shared.keep());
        pin.thread = Some(thread.map_err(|error| Error::new(ErrorKind::Io, STEP, error.to_string()).because(error))?);
        Ok(pin)
    }

    /// Takes a pin, loads HEAD, and notes its generation in the pin. The way to begin every operation that reads what HEAD
    /// refers to, or is about to refer to what stands already.
    ///
    /// # Errors
    /// Those of [`Pin::take`], of [`commit::load`] and of [`Pin::note_generation`]; no pin is left.
    pub fn take_and_load(archive: &Archive, request: &PinRequest) -> Result<(Self, Loaded)> {
        let pin = Pin::take(archive, request)?;
        let loaded = commit::load(archive)?;
        pin.note_generation(loaded.head.generation)?;
        Ok((pin, loaded))
    }

    /// Tells the pin which HEAD its holder goes by: what was doomed up to that one is no longer needed.
    ///
    /// # Errors
    /// `Lost`. Any other error: it may not be noted; the pin holds on to more than it must.
    pub fn note_generation(&self, generation: u64) -> Result<()> {
        self.check()?;
        let mut written = self.shared.written.lock();
        let earlier = written.contents.generation.replace(generation);
        let noted = self.shared.write(&mut written);
        if noted.is_err() {
            // The next renewal must not promise what the caller was told has failed.
            written.contents.generation = earlier;
        }
        self.check().and(noted)
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    /// Whether it still protects what its holder reads: to be asked before each step that relies on it.
    ///
    /// # Errors
    /// `Lost`, and from then on always.
    pub fn check(&self) -> Result<()> {
        self.shared.check()
    }

    /// As [`Pin::check`], but the store is asked, by a renewal: to be called before something is made that relies on what
    /// was stored under this pin. A holder that stood still may not know how long, where its clock stood still too; whoever
    /// swept what it has stored has removed its pin first.
    ///
    /// # Errors
    /// `Lost`, and from then on always; `Io`: the store could not be asked.
    pub fn confirm(&self) -> Result<()> {
        self.check()?;
        let mut written = self.shared.written.lock();
        // The first may meet an earlier one whose answer never came.
        let renewed = self.shared.write(&mut written).or_else(|_| self.shared.write(&mut written));
        drop(written);
        self.check().and(renewed)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// `Io`: it may stand, and expires by itself.
    pub fn release(mut self) -> Result<()> {
        self.end()
    }

    /// Ends the thread first: a renewal that is still under way must not write after the removal.
    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.shared.state.lock().ends = true;
        self.shared.wake.notify_all();
        let _ = thread.join();
        self.shared.archive.delete(&self.shared.name)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.thread.is_none() {
            return;
        }
        if let Err(error) = self.end() {
            tracing::warn!(%error, pin = %self.shared.id, "a pin of the archive could not be removed; it expires by itself");
        }
    }
}

impl Shared {
    fn check(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.lost.is_none() && Instant::now() >= state.until {
            state.lost = Some("it could not be renewed in time");
        }
        let Some(why) = state.lost else { return Ok(()) };
        let message = format!("the pin is lost: {why}; what it protected may be deleted");
        Err(Error::new(ErrorKind::Lost, "use the archive", message).at(self.archive.place(&self.name)))
    }

    /// Renews at a third of the time to live; after a failure, more often.
    fn keep(&self) {
        let mut wait = self.ttl / 3;
        loop {
            let mut state = self.state.lock();
            let due = Instant::now() + wait;
            while !state.ends && Instant::now() < due {
                self.wake.wait_until(&mut state, due);
            }
            if state.ends {
                return;
            }
            drop(state);
            if self.check().is_err() {
                return;
            }
            wait = if self.write(&mut self.written.lock()).is_ok() { self.ttl / 3 } else { self.ttl / 30 };
        }
    }

    fn write(&self, written: &mut Written) -> Result<()> {
        let until = Instant::now() + self.ttl;
        let before = self.modified()?;
        let before = written.unsure_since.map_or(before, |since| since.min(before));
        written.unsure_since = Some(before);
        written.contents.renewals += 1;
        match self.archive.compare_and_swap(&self.name, &written.version, encode(&written.contents)?) {
            Ok(version) => {
                written.version = version;
                let between = self.modified()?.saturating_sub(before).max(0).cast_unsigned();
                written.unsure_since = None;
                if Duration::from_micros(between) > self.ttl {
                    self.lose("it was renewed too late");
                }
                self.state.lock().until = until;
                Ok(())
            }
            Err(error) => {
                self.lose_if_gone(&error);
                if error.kind() == ErrorKind::Conflict {
                    self.look_again(written);
                }
                Err(error)
            }
        }
    }

    /// When it was last written, in the store's time.
    fn modified(&self) -> Result<i64> {
        let found = self.archive.head(&self.name).inspect_err(|error| self.lose_if_gone(error));
        found.map(|stat| stat.modified)
    }

    fn lose_if_gone(&self, error: &Error) {
        if error.kind() == ErrorKind::NotFound {
            self.lose("somebody has removed it");
        }
    }

    fn lose(&self, why: &'static str) {
        self.state.lock().lost.get_or_insert(why);
    }

    /// Another version stands there. An earlier write of ours whose answer never came is no loss: it goes on from that
    /// version, and counts from its own last success.
    fn look_again(&self, written: &mut Written) {
        let Ok(found) = self.archive.get(&self.name, PIN_BYTES_MAX) else { return };
        match decode(&found.bytes) {
            Ok(contents) if contents.id == self.id && contents.process == written.contents.process => {
                written.version = found.version;
            }
            _ => self.lose("somebody has changed it"),
        }
    }
}

/// The store's clock, in microseconds of the Unix epoch. Lets an object of its own stand for an instant.
///
/// # Errors
/// `Io`.
pub(super) fn store_time(archive: &Archive) -> Result<i64> {
    let clock = names::clock(Uuid::new_v4());
    archive.put_create(&clock, Vec::new())?;
    let now = archive.head(&clock);
    // Garbage under a name of its own; it must not hide the answer.
    let _ = archive.delete(&clock);
    Ok(now?.modified)
}

/// All pins, each judged in the store's time. Lets an object of its own stand for an instant.
///
/// # Errors
/// `Io`. What it returns is complete, or it is an error: who would delete by it must not miss one.
pub fn list(archive: &Archive) -> Result<Vec<PinState>> {
    let now = store_time(archive)?;
    let mut pins = Vec::new();
    for listed in archive.list(PINS)? {
        let name = listed?.name;
        let Ok(id) = Uuid::try_parse(name.last_part()) else { continue };
        match archive.get(&name, PIN_BYTES_MAX) {
            Ok(object) => {
                let contents = decode(&object.bytes).ok().filter(|contents| contents.id == id);
                let age = Duration::from_micros(now.saturating_sub(object.stat.modified).max(0) as u64);
                pins.push(PinState { id, contents, age });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                pins.push(PinState { id, contents: None, age: Duration::ZERO });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(pins)
}

/// Removes a pin of somebody else; its holder finds out at its next renewal, at the latest when it asks.
///
/// # Errors
/// `NotFound`: there is none of this id; `Io`: it may stand.
pub fn break_pin(archive: &Archive, id: Uuid) -> Result<()> {
    let name = names::pin(id);
    archive.head(&name)?;
    archive.delete(&name)
}

fn encode(contents: &PinContents) -> Result<Vec<u8>> {
    control::encode_within(STEP, contents, PIN_BYTES_MAX)
}

fn decode(bytes: &[u8]) -> Result<PinContents> {
    let contents: PinContents = control::decode_within("read a pin", bytes, PIN_FORMAT, PIN_BYTES_MAX)?;
    let texts = [&contents.owner, &contents.host, &contents.purpose];
    let sound = u128::from(contents.ttl_milliseconds) <= TTL_MAX.as_millis();
    if !sound || texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(Error::new(ErrorKind::Corrupt, "read a pin", "it is out of bounds"));
    }
    Ok(contents)
}

/// A text for people: no control characters, and not too long.
fn cut(text: &str) -> String {
    let mut text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    while text.len() > TEXT_BYTES_MAX {
        text.pop();
    }
    text
}
