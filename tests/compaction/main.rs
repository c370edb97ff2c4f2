//! The archive over years: who changed a key, and when; compactions of the log, and the restores that use them.
#![allow(dead_code)] // The sources of histories are shared with the tests of restores.

mod changes;
#[path = "../common/mod.rs"]
mod common;
#[path = "../restore/history.rs"]
mod history;
mod runs;
#[path = "../restore/source.rs"]
mod source;
