//! Changing a database's key encoding.

mod borders;
mod buffer;
mod codec;
mod digest;
mod heads;
#[cfg(test)]
mod hostile_tests;
mod ingest;
#[cfg(test)]
mod model_tests;
mod output;
mod parallel;
mod placer;
mod progress;
mod rewrite;
mod runs;
mod sorter;
mod source;
mod tasks;
mod verify;

pub use digest::{Content, Digest};
pub use ingest::{ingest, ingest_reporting};
pub use output::OutputFile;
pub use progress::{Callback, Phase, Progress, Reporter};
pub use rewrite::{Rewrite, Rewritten, rewrite, sorts_on_disk};
pub use verify::{Cuts, scan, scan_internal_user, scan_with};
