//! The archive over years: who changed a key, and when.
#![allow(dead_code)] // The sources of histories are shared with the tests of restores.

mod changes;
#[path = "../common/mod.rs"]
mod common;
#[path = "../restore/history.rs"]
mod history;
#[path = "../restore/source.rs"]
mod source;
