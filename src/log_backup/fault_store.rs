//! A store for tests: it records what is asked of it, and fails, delays, tears or loses the answer where it is told.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a call was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A put without a condition.
    Put,
    /// A put that must create.
    Create,
    /// A put that must replace a version.
    Update,
    /// The begin of an upload in parts.
    Multipart,
    /// A part.
    Part,
    /// The end of an upload in parts.
    Complete,
    /// A get of an object or of a range.
    Get,
    /// A get of what is known of an object.
    Head,
    /// A delete.
    Delete,
    /// A listing.
    List,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call has no effect and fails.
    Fail,
    /// The call has its effect, and its answer is lost.
    LoseAnswer,
    /// The call takes this long first.
    Delay(Duration),
    /// A get yields all but the end of the contents; other calls fail.
    Tear,
}

/// Which calls it happens to, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The one with this number.
    Nth(u64),
    /// Every one with a number that can be divided by this.
    Every(u64),
    /// All from this one on.
    From(u64),
}

impl When {
    fn holds(self, number: u64) -> bool {
        match self {
            When::Nth(nth) => number == nth,
            When::Every(every) => every > 0 && number.is_multiple_of(every),
            When::From(first) => number >= first,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    faults: Vec<(When, Option<Call>, Effect)>,
    calls: Vec<(Call, String)>,
    ignores_conditions: bool,
    older: Vec<(String, Duration)>,
}

/// The store. Clones are one store.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    /// Around another store; all goes well until told otherwise.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        FaultStore { inner, state: Arc::default() }
    }

    /// Around an empty store in memory.
    pub fn in_memory() -> Self {
        FaultStore::new(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Counts from 0 again, with these faults alone.
    pub fn plan(&self, faults: &[(When, Effect)]) {
        let faults = faults.iter().map(|(when, effect)| (*when, None, *effect)).collect();
        let mut state = self.state.lock();
        (state.number, state.faults) = (0, faults);
    }

    /// As [`FaultStore::plan`], for calls of one kind; the others are not counted.
    pub fn plan_for(&self, call: Call, when: When, effect: Effect) {
        let mut state = self.state.lock();
        (state.number, state.faults) = (0, vec![(when, Some(call), effect)]);
    }

    /// Ignores conditions from now on, as many servers do: every conditional put succeeds.
    pub fn ignore_conditions(&self) {
        self.state.lock().ignores_conditions = true;
    }

    /// Makes objects whose names hold `part` look older by `age`.
    pub fn make_older(&self, part: &str, age: Duration) {
        self.state.lock().older.push((part.into(), age));
    }

    /// How many calls were counted since the last plan.
    pub fn counted(&self) -> u64 {
        self.state.lock().number
    }

    /// Every call so far, with the object's name.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.state.lock().calls.clone()
    }

    /// The store beneath.
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    fn begin(&self, call: Call, name: &Path) -> Option<Effect> {
        let mut state = self.state.lock();
        state.calls.push((call, name.to_string()));
        let counts = state.faults.iter().all(|(_, only, _)| only.is_none_or(|only| only == call));
        if !counts {
            return None;
        }
        let number = state.number;
        state.number += 1;
        state.faults.iter().find(|(when, _, _)| when.holds(number)).map(|(_, _, effect)| *effect)
    }

    /// Waits or fails as planned, then does it, then loses the answer if that was planned.
    async fn call<T>(&self, call: Call, name: &Path, work: impl Future<Output = Result<T>>) -> Result<T> {
        let effect = self.begin(call, name);
        match effect {
            Some(Effect::Fail | Effect::Tear) => return Err(broken("it fails")),
            Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
            Some(Effect::LoseAnswer) | None => {}
        }
        let answer = work.await;
        if effect == Some(Effect::LoseAnswer) { Err(broken("the answer is lost")) } else { answer }
    }

    fn aged(&self, mut meta: ObjectMeta) -> ObjectMeta {
        for (part, age) in &self.state.lock().older {
            if meta.location.as_ref().contains(part.as_str()) {
                meta.last_modified -= *age;
            }
        }
        meta
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic { store: "fault store", source: what.into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault store over {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let call = match options.mode {
            PutMode::Overwrite => Call::Put,
            PutMode::Create => Call::Create,
            PutMode::Update(_) => Call::Update,
        };
        if self.state.lock().ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        self.call(call, location, self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.inner.put_multipart_opts(location, options);
        let upload = self.call(Call::Multipart, location, begun).await?;
        Ok(Box::new(FaultUpload { store: self.clone(), upload, name: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let call = if options.head { Call::Head } else { Call::Get };
        let effect = self.begin(call, location);
        match effect {
            Some(Effect::Fail | Effect::LoseAnswer) => return Err(broken("it fails")),
            Some(Effect::Tear) if call == Call::Head => return Err(broken("it fails")),
            Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
            Some(Effect::Tear) | None => {}
        }
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta = self.aged(found.meta);
        if effect == Some(Effect::Tear) {
            let (meta, attributes, range) = (found.meta.clone(), found.attributes.clone(), found.range.clone());
            let bytes = found.bytes().await?;
            let torn: Bytes = bytes.slice(..bytes.len().saturating_sub(1));
            let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(torn) }).boxed());
            found = GetResult { payload, meta, range, attributes, extensions: Default::default() };
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let removed = locations.then(move |location| {
            let store = store.clone();
            async move {
                let location = location?;
                store.call(Call::Delete, &location, store.inner.delete(&location)).await?;
                Ok(location)
            }
            .boxed()
        });
        removed.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let effect = self.begin(Call::List, prefix.unwrap_or(&Path::default()));
        if matches!(effect, Some(Effect::Fail | Effect::LoseAnswer)) {
            return futures::stream::once(async { Err(broken("it fails")) }).boxed();
        }
        let store = self.clone();
        let listed = self.inner.list(prefix).map_ok(move |meta| store.aged(meta));
        if effect == Some(Effect::Tear) {
            return listed.take(1).chain(futures::stream::once(async { Err(broken("it ends")) })).boxed();
        }
        listed.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix);
        self.call(Call::List, prefix.unwrap_or(&Path::default()), listed).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(Call::Put, to, self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultUpload {
    store: FaultStore,
    upload: Box<dyn MultipartUpload>,
    name: Path,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, name, part) = (self.store.clone(), self.name.clone(), self.upload.put_part(data));
        async move { store.call(Call::Part, &name, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.call(Call::Complete, &self.name, self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
