//! Restoring a database from an archive to any moment.
//!
//! What a restore makes stands in `<target>.restore/` until it is complete, and is moved to its place by the swap of a
//! conversion: the target is absent, or the old database, or the restored one, and nothing else. It goes on after a crash
//! wherever that was; while it is not complete, opening an absent target is refused.
//!
//! | step | does | can be done again, since |
//! |---|---|---|
//! | fetch | downloads the base snapshot | files that are whole are kept |
//! | apply | applies the log, converts where the encoding changes | the database knows how far it has come |
//! | install | gives it its identity, moves it in | the target carries the restore's id once it is there |
//! | clear | removes what was needed on the way | |

mod apply;
mod attached;
mod compacted;
pub mod consistent;
pub mod coordinator;
pub mod folder;
mod install;
pub mod log;
pub mod moment;
pub mod named;
mod parts;
mod phases;
pub mod plan;
mod position;
pub mod record;
pub mod replica;
pub mod runs;
mod search;
mod segments;
mod sighting;
pub mod state;
#[cfg(test)]
mod state_model;
#[cfg(test)]
mod state_tests;
pub mod unreachable;
mod worker;

pub use attached::{GoesOn, goes_on};
pub use phases::{Part, worker};
pub use worker::{Request, abort, go_on, preview, preview_fully, run, start, status, step};
