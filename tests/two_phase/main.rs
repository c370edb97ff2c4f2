//! Restores in two phases: every way in which the compaction can settle, every way in which coordinator and workers can
//! die, what belongs to another restore, damage, and the command line.

mod command;
#[path = "../common/mod.rs"]
mod common;
mod compactions;
mod endings;
mod identity;
mod kills;
mod ownership;
#[allow(dead_code)]
#[path = "../restore/source.rs"]
mod source;
mod world;
