//! The thread on which everything asynchronous runs: object_store needs tokio, and nothing above this file does.

use crate::error::{Error, ErrorKind, Result};
use futures::channel::oneshot;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long dropping the last handle waits for file operations that are under way.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A tokio runtime of one thread, or a host's; cheap to clone. Many archives can share one.
#[derive(Debug, Clone)]
pub struct ArchiveRuntime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: Handle,
    /// The thread of our own, and what ends it.
    own: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl ArchiveRuntime {
    /// Starts a thread for it.
    ///
    /// # Errors
    /// `Io` if the system gives no thread.
    pub fn start() -> Result<Self> {
        let step = "start the archive's thread";
        let failed = |error: std::io::Error| Error::new(ErrorKind::Io, step, error.to_string()).because(error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("morphkv-archive".into()).spawn(move || {
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(SHUTDOWN);
        });
        let own = Mutex::new(Some((stop, thread.map_err(failed)?)));
        Ok(ArchiveRuntime(Arc::new(Inner { handle, own })))
    }

    /// Uses a host's runtime, which must have its time and I/O drivers enabled and must outlive this.
    pub fn of_host(handle: Handle) -> Self {
        ArchiveRuntime(Arc::new(Inner { handle, own: Mutex::new(None) }))
    }

    /// Runs a future to its end, on that thread, while this one waits.
    ///
    /// # Errors
    /// `InvalidArgument` when called on the thread itself, which would wait for ever; `Io` if the future panicked or
    /// the runtime has ended.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let step = "wait for the archive's thread";
        let own = self.0.own.lock().as_ref().map(|(_, thread)| thread.thread().id());
        if own == Some(thread::current().id()) {
            return Err(Error::new(ErrorKind::InvalidArgument, step, "it was called on that thread"));
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.0.handle.spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| Error::new(ErrorKind::Io, step, "it gave up the work (panicked, or has ended)"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.own.lock().take() {
            let _ = stop.send(());
            // The last handle may be dropped by a task.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_panics_included_and_ends() {
        let runtime = ArchiveRuntime::start().unwrap();
        assert_eq!(runtime.run(async { 7 }).unwrap(), 7);
        let panicked = runtime.run(async { panic!("for the test") }).map(|(): ()| ());
        assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Io);
        let again = runtime.clone();
        let inner = runtime.run(async move { again.run(async { 1 }).map(|_| ()) }).unwrap();
        assert_eq!(inner.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(runtime.run(async { 8 }).unwrap(), 8);
    }

    #[test]
    fn it_serves_callers_within_a_hosts_runtime() {
        let host = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runtime = ArchiveRuntime::start().unwrap();
        assert_eq!(host.block_on(async { runtime.run(async { 7 }) }).unwrap(), 7);
    }
}
