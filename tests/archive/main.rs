//! Looking after an archive: what truncation leaves is what is needed, and all of it.

mod checked;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod compacted;
mod crashes;
mod needed;
mod rounds;
mod scale;
mod world;
