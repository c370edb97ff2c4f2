//! The handle to an archive: synchronous calls on validated names, with every wait, retry and length bounded.
//!
//! What is conditional has one of two ends, or says that it does not know:
//! - [`Archive::put_create`]: the object stands with our bytes, or `Conflict`: with others;
//! - [`Archive::compare_and_swap`]: our bytes have replaced the expected version, or `Conflict`: they have not, and
//!   something else stands there;
//! - any other error: the store did not say, and was asked again in vain; the effect may come yet. Callers that must know
//!   put a nonce into the bytes and look for it later.
//!
//! Stores answer wrongly in known ways, and all are met by looking: a conflict that is said to be "already exists", a
//! retry that meets its own first attempt, an answer that is lost.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::address::{Address, Provider};
use crate::log_backup::names::{ContentHash, LAYOUT, ObjectName, ObjectReference, SWAPPED_BYTES_MAX};
pub use crate::log_backup::object::{Listed, Object, ObjectStat, Version};
use crate::log_backup::object::{collect, failed};
use crate::log_backup::runtime::ArchiveRuntime;
use crate::log_backup::stores;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long an archive waits, and how often it tries.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// The longest that one attempt at one request may take.
    pub timeout: Duration,
    /// How often a request is tried in all, at least once.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each further one, up to [`BACKOFF_MAX`].
    pub backoff: Duration,
    /// Makes the directory of a local archive (not its parents) if it is not there.
    pub create_directory: bool,
    /// The thread to share with other archives; a new one if there is none.
    pub runtime: Option<ArchiveRuntime>,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        ArchiveOptions {
            timeout: Duration::from_secs(120),
            attempts: 4,
            backoff: Duration::from_millis(200),
            create_directory: false,
            runtime: None,
        }
    }
}

/// The longest wait between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A handle to an archive; cheap to clone, for many threads. Nothing is read or written by opening it.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    url: String,
    runtime: ArchiveRuntime,
    options: ArchiveOptions,
}

/// One attempt at a request, ready to be run on the runtime.
type Attempt<T> = BoxFuture<'static, object_store::Result<T>>;

impl Archive {
    /// Opens the archive at a URL (`address.rs` says which there are). Credentials come from the environment.
    ///
    /// # Errors
    /// `InvalidArgument` for the URL; `NotFound` for a local directory that is not there; `Io`, `Unsupported` for what
    /// the environment says. At most an empty directory was made.
    pub fn open(url: &str, options: ArchiveOptions) -> Result<Self> {
        let environment = |name: &str| std::env::var(name).ok();
        let address = stores::locate(Address::parse(url)?.complete(environment)?, options.create_directory)?;
        let store = stores::connect(&address, options.timeout)?;
        let prefix = if address.provider == Provider::Local { String::new() } else { address.prefix.clone() };
        Archive::new(store, address.to_string(), prefix, options)
    }

    /// Uses a host's store. `url` is what is recorded as the place of the archive, and `prefix` what the names of its
    /// objects begin with in that store.
    ///
    /// # Errors
    /// `InvalidArgument`, `Io`.
    pub fn with_store(store: Arc<dyn ObjectStore>, url: &str, prefix: &str, options: ArchiveOptions) -> Result<Self> {
        let url = Address::parse(url)?.to_string();
        let prefix = Path::parse(prefix).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, "open the archive", error.to_string()).because(error)
        })?;
        Archive::new(store, url, prefix.to_string(), options)
    }

    /// Another archive, with the same thread and options. The URL of this one gives this one, also that of a host's store.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn beside(&self, url: &str) -> Result<Self> {
        let options = ArchiveOptions { runtime: Some(self.0.runtime.clone()), ..self.0.options.clone() };
        if url == self.0.url { Ok(self.clone()) } else { Archive::open(url, options) }
    }

    fn new(store: Arc<dyn ObjectStore>, url: String, prefix: String, options: ArchiveOptions) -> Result<Self> {
        let runtime = options.runtime.clone().map_or_else(ArchiveRuntime::start, Ok)?;
        Ok(Archive(Arc::new(Inner { store, prefix, url, runtime, options })))
    }

    /// The archive's URL: canonical, and without credentials.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// A whole object of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if it is longer; `Io`.
    pub fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Object> {
        let step = "read an object";
        let found = self.repeat(step, name, |store, path| {
            Box::pin(async move {
                let found = store.get_opts(&path, GetOptions::default()).await?;
                let meta = found.meta.clone();
                Ok((collect(found, bytes_max).await?, meta))
            })
        })?;
        match found {
            (Some(bytes), meta) => Ok(Object { bytes, version: Version::of(&meta), stat: ObjectStat::of(&meta) }),
            (None, meta) => Err(self.too_long(step, name, meta.size, bytes_max)),
        }
    }

    /// An object that something refers to; it has that length and that hash.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt`; `Io`.
    pub fn get_verified(&self, reference: &ObjectReference, bytes_max: u64) -> Result<Bytes> {
        let step = "read an object";
        if reference.size > bytes_max {
            return Err(self.too_long(step, &reference.name, reference.size, bytes_max));
        }
        let found = self.get(&reference.name, reference.size)?;
        if found.bytes.len() as u64 != reference.size || ContentHash::of(&found.bytes) != reference.hash {
            let message = "it is not what was written: its length or its hash differs";
            return Err(self.error(ErrorKind::Corrupt, step, &reference.name, message));
        }
        Ok(found.bytes)
    }

    /// Exactly `len` bytes of an object from `offset` on. They are not checked: what is read so has a checksum of its own.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the object ends before; `Io`.
    pub fn get_range(&self, name: &ObjectName, offset: u64, len: u32) -> Result<Bytes> {
        let step = "read a part of an object";
        let Some(end) = offset.checked_add(u64::from(len)).filter(|_| len > 0) else {
            return Err(self.error(ErrorKind::InvalidArgument, step, name, "the range is empty or has no end"));
        };
        let found = self.repeat(step, name, move |store, path| {
            Box::pin(async move {
                let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
                let found = store.get_opts(&path, options).await?;
                let bytes = collect(found, u64::from(len)).await?;
                Ok(bytes.filter(|bytes| bytes.len() == len as usize))
            })
        });
        let short = || self.error(ErrorKind::Corrupt, step, name, format!("it ends before byte {end}"));
        match found {
            Ok(bytes) => bytes.ok_or_else(short),
            // Stores disagree about ranges that begin past the end; the length settles it.
            Err(error) if error.kind() == ErrorKind::Io && self.head(name).is_ok_and(|stat| stat.size < end) => {
                Err(short().because(error))
            }
            Err(error) => Err(error),
        }
    }

    /// What is known of an object without its contents.
    ///
    /// # Errors
    /// `NotFound`; `Io`.
    pub fn head(&self, name: &ObjectName) -> Result<ObjectStat> {
        let found =
            self.repeat("look at an object", name, |store, path| Box::pin(async move { store.head(&path).await }))?;
        Ok(ObjectStat::of(&found))
    }

    /// Makes an object that must not exist. If it stands with the same bytes already, that is success, whoever wrote
    /// them: bytes that must tell their writer apart hold a nonce.
    ///
    /// # Errors
    /// `Conflict`: it stands with other bytes. Any other error: it is not known whether it stands.
    pub fn put_create(&self, name: &ObjectName, bytes: impl Into<Bytes>) -> Result<Version> {
        let (step, bytes) = ("create an object", bytes.into());
        self.conditional(step, name, &PutMode::Create, &bytes, |_| true)
    }

    /// Replaces the version `expected` of an object. The bytes must differ from all that ever stood there: they hold a
    /// nonce or a count.
    ///
    /// # Errors
    /// `Conflict`: another version stands there, and not with these bytes; `NotFound`: none stands there. Any other error:
    /// it is not known which version stands.
    pub fn compare_and_swap(&self, name: &ObjectName, expected: &Version, bytes: impl Into<Bytes>) -> Result<Version> {
        let (step, bytes) = ("replace an object", bytes.into());
        if bytes.len() as u64 > SWAPPED_BYTES_MAX {
            let message = format!("at most {SWAPPED_BYTES_MAX} bytes can be swapped");
            return Err(self.error(ErrorKind::InvalidArgument, step, name, message));
        }
        let mode = expected.as_mode();
        self.conditional(step, name, &mode, &bytes, |found| found == expected)
    }

    /// Puts until it is known how it ended. After an error that a retry would meet again, and after every unclear one, the
    /// object is looked at: with our bytes, it was us. `open` says of a version that stands there whether the put can
    /// still succeed.
    fn conditional(
        &self,
        step: &'static str,
        name: &ObjectName,
        mode: &PutMode,
        bytes: &Bytes,
        open: impl Fn(&Version) -> bool,
    ) -> Result<Version> {
        let mut last = None;
        for attempt in 0..self.attempts() {
            self.wait_before(attempt);
            let error = match self.put_once(name, mode.clone(), bytes.clone()) {
                Ok(version) => return Ok(version),
                Err(error) => error,
            };
            let refused = matches!(
                error,
                object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. }
                    | object_store::Error::NotFound { .. }
            );
            if !refused && !stores::is_transient(&error) {
                return Err(stores::error(step, self.place(name), error));
            }
            let creates = *mode == PutMode::Create;
            let bytes_max = if creates { bytes.len() as u64 } else { SWAPPED_BYTES_MAX };
            match self.get_if_there(name, bytes_max)? {
                Some(Found::Object(object)) if object.bytes == *bytes => {
                    // One that was not refused may not be durable yet: it is put again, and the refusal makes it so.
                    if refused || attempt + 1 == self.attempts() {
                        return Ok(object.version);
                    }
                }
                // A create never succeeds over anything; a swap may still do so over the version that it expects.
                Some(Found::Object(object)) if creates || !open(&object.version) => {
                    return Err(self.changed(step, name));
                }
                Some(Found::Longer) => return Err(self.changed(step, name)),
                None if !creates => return Err(stores::error(step, self.place(name), missing())),
                Some(_) | None => {}
            }
            last = Some(if refused { failed("it refuses the write, though nothing stands in its way") } else { error });
        }
        Err(self.gave_up(step, name, last))
    }

    /// Writes an object, over whatever stood there.
    ///
    /// # Errors
    /// The old object or the new one stands.
    pub fn put(&self, name: &ObjectName, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes = bytes.into();
        self.repeat("write an object", name, |store, path| {
            let payload = PutPayload::from(bytes.clone());
            Box::pin(async move { store.put(&path, payload).await.map(|_| ()) })
        })
    }

    /// Removes an object; one that is not there is removed.
    ///
    /// # Errors
    /// It may stand or not.
    pub fn delete(&self, name: &ObjectName) -> Result<()> {
        let removed =
            self.repeat("remove an object", name, |store, path| Box::pin(async move { store.delete(&path).await }));
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The objects whose names begin with the parts of `folder`, as the store yields them: not in any order, and not all
    /// at once. Whatever has no name of the layout is skipped and counted.
    ///
    /// # Errors
    /// `InvalidArgument` for a folder that no name can begin with. What goes wrong later comes out of the listing, which
    /// then ends.
    pub fn list(&self, folder: &str) -> Result<Listing> {
        let prefix = if folder == LAYOUT { self.path_of(folder) } else { self.path(&ObjectName::new(folder)?) };
        Ok(Listing { archive: self.clone(), prefix, stream: None, ready: Vec::new(), ended: false, foreign: 0 })
    }

    pub(crate) fn put_once(&self, name: &ObjectName, mode: PutMode, bytes: Bytes) -> object_store::Result<Version> {
        let (store, path) = (Arc::clone(&self.0.store), self.path(name));
        let put = self.once(Box::pin(async move { store.put_opts(&path, bytes.into(), mode.into()).await }))?;
        Ok(Version::of_put(put))
    }

    fn get_if_there(&self, name: &ObjectName, bytes_max: u64) -> Result<Option<Found>> {
        match self.get(name, bytes_max) {
            Ok(object) => Ok(Some(Found::Object(object))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some(Found::Longer)),
            Err(error) => Err(error),
        }
    }

    /// Tries a request that can be repeated without harm.
    pub(crate) fn repeat<T: Send + 'static>(
        &self,
        step: &'static str,
        name: &ObjectName,
        request: impl Fn(Arc<dyn ObjectStore>, Path) -> Attempt<T>,
    ) -> Result<T> {
        let mut last = None;
        for attempt in 0..self.attempts() {
            self.wait_before(attempt);
            match self.once(request(Arc::clone(&self.0.store), self.path(name))) {
                Ok(value) => return Ok(value),
                Err(error) if stores::is_transient(&error) => last = Some(error),
                Err(error) => return Err(stores::error(step, self.place(name), error)),
            }
        }
        Err(self.gave_up(step, name, last))
    }

    /// One attempt, within the time-out.
    pub(crate) fn once<T: Send + 'static>(&self, attempt: Attempt<T>) -> object_store::Result<T> {
        let timeout = self.0.options.timeout;
        let answer = self.0.runtime.run(async move { tokio::time::timeout(timeout, attempt).await });
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(failed(&format!("no answer within {timeout:?}"))),
            // Called on the archive's own thread: no retry mends that.
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                Err(object_store::Error::NotSupported { source: Box::new(error) })
            }
            Err(error) => Err(object_store::Error::Generic { store: "archive", source: Box::new(error) }),
        }
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.0.options.attempts.max(1)
    }

    /// Waits before a further attempt: twice as long each time, and a random part of it, so that rivals part.
    pub(crate) fn wait_before(&self, attempt: u32) {
        if attempt > 0 {
            let whole = self.0.options.backoff.saturating_mul(1 << (attempt - 1).min(16)).min(BACKOFF_MAX);
            let random = u32::from(Uuid::new_v4().as_bytes()[0]);
            std::thread::sleep(whole / 2 + whole * random / 512);
        }
    }

    pub(crate) fn path(&self, name: &ObjectName) -> Path {
        self.path_of(name.as_str())
    }

    fn path_of(&self, name: &str) -> Path {
        if self.0.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.0.prefix)) }
    }

    /// What an error calls an object.
    pub(crate) fn place(&self, name: &ObjectName) -> String {
        format!("{}/{name}", self.0.url)
    }

    pub(crate) fn error(
        &self,
        kind: ErrorKind,
        step: &'static str,
        name: &ObjectName,
        message: impl Into<String>,
    ) -> Error {
        Error::new(kind, step, message).at(self.place(name))
    }

    fn too_long(&self, step: &'static str, name: &ObjectName, size: u64, bytes_max: u64) -> Error {
        self.error(ErrorKind::Corrupt, step, name, format!("it has {size} bytes, {bytes_max} are expected at most"))
    }

    fn changed(&self, step: &'static str, name: &ObjectName) -> Error {
        self.error(ErrorKind::Conflict, step, name, "something else stands there, written by somebody else")
    }

    pub(crate) fn gave_up(&self, step: &'static str, name: &ObjectName, last: Option<object_store::Error>) -> Error {
        stores::error(step, self.place(name), last.unwrap_or_else(|| failed("no attempt was made")))
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive({})", self.0.url)
    }
}

enum Found {
    Object(Object),
    /// It is longer than ours.
    Longer,
}

/// A listing under way; an iterator.
pub struct Listing {
    archive: Archive,
    prefix: Path,
    stream: Option<futures::stream::BoxStream<'static, object_store::Result<ObjectMeta>>>,
    /// Fetched and not yielded yet, the next one last.
    ready: Vec<ObjectMeta>,
    ended: bool,
    foreign: u64,
}

/// Objects fetched at a time: one page of S3.
const LISTED_AT_ONCE: usize = 1000;

impl Listing {
    /// How many objects were skipped, since their names are none of the layout.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    fn fetch(&mut self) -> object_store::Result<()> {
        let mut attempt = 0;
        loop {
            self.archive.wait_before(attempt);
            attempt += 1;
            let fresh = self.stream.is_none();
            let store = Arc::clone(&self.archive.0.store);
            let (stream, prefix) = (self.stream.take(), self.prefix.clone());
            let fetched = self.archive.once(Box::pin(async move {
                let mut stream = stream.unwrap_or_else(|| store.list(Some(&prefix)));
                let mut page = Vec::new();
                while page.len() < LISTED_AT_ONCE {
                    match stream.next().await {
                        Some(meta) => page.push(meta?),
                        None => return Ok((page, None)),
                    }
                }
                Ok((page, Some(stream)))
            }));
            match fetched {
                Ok((page, stream)) => {
                    (self.ended, self.stream) = (stream.is_none(), stream);
                    self.ready = page;
                    self.ready.reverse();
                    return Ok(());
                }
                // What was yielded already cannot be taken back, so only a listing that has not begun begins again.
                Err(error) if fresh && stores::is_transient(&error) && attempt < self.archive.attempts() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Iterator for Listing {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let Some(meta) = self.ready.pop() {
                let path = meta.location.as_ref();
                let prefix = &self.archive.0.prefix;
                let own = if prefix.is_empty() { Some(path) } else { path.strip_prefix(prefix.as_str()) };
                match own.map(|name| ObjectName::new(name.trim_start_matches('/'))) {
                    Some(Ok(name)) => return Some(Ok(Listed { name, stat: ObjectStat::of(&meta) })),
                    _ => self.foreign += 1,
                }
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.fetch() {
                self.ended = true;
                let place = format!("{}/{}", self.archive.0.url, self.prefix);
                return Some(Err(stores::error("list objects", place, error)));
            }
        }
    }
}

fn missing() -> object_store::Error {
    object_store::Error::NotFound { path: String::new(), source: "it is gone".into() }
}
