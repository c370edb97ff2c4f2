//! Crash tests: a child process dies at every trap of every change, and what it leaves is opened, recovered, and killed
//! again in the middle of recovery.

#[path = "../common/mod.rs"]
mod common;
mod golden;
mod scenario;
mod sweep;
