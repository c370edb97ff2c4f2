//! The archive over years: who changed a key, and when; compactions of the log, and the restores that use them.
#![allow(dead_code)] // The sources of histories are shared with the tests of restores.

mod changes;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod forged;
#[path = "../restore/history.rs"]
mod history;
mod kills;
mod pauses;
mod resumed;
mod runs;
mod shipped;
#[path = "../restore/source.rs"]
mod source;
