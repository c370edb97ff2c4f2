//! Crash tests: a child process dies at every trap and every file operation of every change, every call fails in turn,
//! every disk that a power cut can leave is built, and what stands then is opened, recovered, and crashed again.

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod flips;
mod golden;
mod kills;
mod layouts;
mod outcome;
mod races;
mod scenario;
mod states;
mod sweep;
