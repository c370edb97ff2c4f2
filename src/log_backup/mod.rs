//! The log backup: a continuous copy of a database's log, and of the database from time to time, in an object store.
//!
//! The place of it all is an *archive*: a prefix of an object store, with the layout of [`names`]. It has no server and no
//! exclusive lock. What keeps its writers apart:
//! - an object has a name that is used once, and is created only where nothing stands;
//! - one object, [`head`], is ever replaced, by compare-and-swap: it says what counts;
//! - who reads or is about to refer to objects holds a [`pin`]: what a live pin may need is not deleted.
//!
//! Everything that is read is hostile until its checksum, its lengths and its names were checked.

pub mod address;
pub mod archive;
#[cfg(test)]
mod archive_tests;
pub mod attach;
pub mod background;
mod base_snapshot;
pub mod changes;
pub mod commit;
#[cfg(test)]
mod commit_tests;
pub mod compact;
pub mod compaction;
mod continuity;
pub mod doom;
#[cfg(any(test, feature = "traps"))]
pub mod fault_store;
pub mod frames;
pub mod fsck;
pub mod group;
mod handover;
pub mod head;
#[cfg(test)]
mod hostile_tests;
mod key_order;
mod loads;
mod local;
pub mod location;
pub mod metrics;
pub mod migration;
#[cfg(test)]
mod migration_tests;
pub mod names;
pub mod needed;
pub mod net_effect;
mod object;
pub mod overview;
pub mod pin;
#[cfg(test)]
mod pin_tests;
pub mod probe;
pub mod progress;
mod referred;
mod retention;
pub mod runtime;
pub mod segment;
pub mod segment_reader;
#[cfg(test)]
mod segment_tests;
mod shard;
pub mod shipper;
pub mod snapshot_format;
#[cfg(test)]
mod snapshot_tests;
pub mod snapshot_transfer;
mod status;
mod stores;
mod stream;
pub mod stretch;
pub mod tail;
pub(crate) mod timelines;
pub mod transfer;
pub mod truncate;
pub mod verify;
