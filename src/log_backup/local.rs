//! A local directory as a store: object_store's own, and what it lacks.
//!
//! object_store's local store creates conditionally and atomically, but has no compare-and-swap, and syncs only when
//! asked. Here every write and every removal is durable when it returns, and a compare-and-swap is a look and a
//! replacement under a lock of the directory; plain replacements and removals take the lock too, creations need not,
//! since they never change what stands.
//!
//! The version of an object is the hash of its contents. object_store's own (inode, time, size) can come back within
//! one tick of the file system's clock. Files under construction are called `<name>#<number>`, which no name of ours is,
//! and never listed.

use crate::fs::{RealVfs, Vfs, parent_of};
use crate::lock::DirectoryLock;
use crate::log_backup::names::{ContentHash, SWAPPED_BYTES_MAX};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::path::PathBuf;
use xxhash_rust::xxh3::Xxh3;

/// A directory with compare-and-swap, durable.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: LocalFileSystem,
    root: PathBuf,
}

impl LocalStore {
    /// The store in the directory `root`, which must exist and is locked under the name given here.
    ///
    /// # Errors
    /// object_store's, if the directory is not there.
    pub fn new(root: PathBuf) -> Result<Self> {
        let inner = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        Ok(LocalStore { inner, root })
    }

    async fn lock(&self) -> Result<DirectoryLock> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || DirectoryLock::wait(&root)).await?.map_err(ours)
    }

    /// Makes what somebody else has just written durable, before anybody builds on having seen it.
    async fn settle(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let settled = tokio::task::spawn_blocking(move || {
            let vfs = RealVfs::default();
            vfs.sync_file(&path)?;
            vfs.sync_dir(parent_of(&path)?)
        });
        settled.await?.map_err(ours)
    }

    /// All of it where nobody can cancel it. Whoever waits no longer drops its future; if the lock went with that while the
    /// write goes on, the write would come over what others have committed since.
    async fn replace(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (store, location) = (self.clone(), location.clone());
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let _lock = DirectoryLock::wait(&store.root).map_err(ours)?;
            runtime.block_on(store.replace_locked(&location, payload, options))
        };
        tokio::task::spawn_blocking(work).await?
    }

    async fn replace_locked(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if let PutMode::Update(expected) = &options.mode {
            let found = match self.get_opts(location, GetOptions::default()).await {
                Ok(found) => found.meta.e_tag,
                Err(Error::NotFound { .. }) => None,
                Err(error) => return Err(error),
            };
            if found.is_none() || found != expected.e_tag {
                if found.is_some() {
                    self.settle(location).await?;
                }
                let source = "it was changed meanwhile".into();
                return Err(Error::Precondition { path: location.to_string(), source });
            }
        }
        options.mode = PutMode::Overwrite;
        self.inner.put_opts(location, payload, options).await
    }
}

fn ours(error: crate::error::Error) -> Error {
    Error::Generic { store: "directory", source: Box::new(error) }
}

fn hash_of(payload: &PutPayload) -> String {
    let mut hasher = Xxh3::new();
    payload.iter().for_each(|part| hasher.update(part));
    ContentHash(hasher.digest128()).to_string()
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let hash = hash_of(&payload);
        let mut result = if options.mode == PutMode::Create {
            match self.inner.put_opts(location, payload, options).await {
                Err(error @ Error::AlreadyExists { .. }) => {
                    self.settle(location).await?;
                    return Err(error);
                }
                other => other?,
            }
        } else {
            self.replace(location, payload, options).await?
        };
        result.e_tag = Some(hash);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let whole = !options.head && options.range.is_none();
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta.e_tag = None;
        if whole && found.meta.size <= SWAPPED_BYTES_MAX {
            let (mut meta, attributes, range) = (found.meta.clone(), found.attributes.clone(), found.range.clone());
            let bytes = found.bytes().await?;
            meta.e_tag = Some(ContentHash::of(&bytes).to_string());
            let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
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
                let _lock = store.lock().await?;
                store.inner.delete(&location).await?;
                let path = store.inner.path_to_filesystem(&location)?;
                let synced = tokio::task::spawn_blocking(move || RealVfs::default().sync_dir(parent_of(&path)?));
                synced.await?.map_err(ours)?;
                Ok(location)
            }
            .boxed()
        });
        removed.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{Either, select};
    use object_store::UpdateVersion;
    use std::time::Duration;

    /// A file under construction stands in the directory.
    fn is_written_to(root: &std::path::Path) -> bool {
        std::fs::read_dir(root).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains('#'))
    }

    /// Whoever has the lock sees nothing change, whatever became of those who had it before.
    #[test]
    fn a_swap_that_nobody_waits_for_any_more_keeps_the_lock_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let store = LocalStore::new(root.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let head = Path::from("HEAD");
        let mut given_up = 0;
        for round in 0..5 {
            let old = vec![round; 10];
            let put = store.put_opts(&head, old.clone().into(), PutMode::Overwrite.into());
            let version = runtime.block_on(put).unwrap();
            let mode = PutMode::Update(UpdateVersion { e_tag: version.e_tag, version: None });
            let ended = runtime.block_on(async {
                let put = Box::pin(store.put_opts(&head, vec![100 + round; 48 << 20].into(), mode.into()));
                let seen = Box::pin(async {
                    while !is_written_to(&root) {
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                });
                matches!(select(put, seen).await, Either::Left(_))
            });
            given_up += usize::from(!ended);
            let lock = DirectoryLock::wait(&root).unwrap();
            let before = std::fs::read(root.join("HEAD")).unwrap();
            assert!(!is_written_to(&root), "somebody writes who has no lock");
            std::thread::sleep(Duration::from_millis(200));
            assert!(std::fs::read(root.join("HEAD")).unwrap() == before, "it was changed under the lock");
            drop(lock);
        }
        assert!(given_up > 0, "every swap ended before it was given up");
    }
}
