//! The command line, through the built binary.
#![cfg(feature = "cli")]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod conversion;
mod demo;
mod formats;
mod harness;
mod ldb;
#[cfg(feature = "traps")]
mod legacy;
mod log;
#[path = "../common/readme.rs"]
mod readme;
mod refusals;
mod scans;
