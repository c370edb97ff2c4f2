//! Restores from an archive: to any moment of random histories, with damage, and killed anywhere.

mod command;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod history;
mod kills;
mod lines;
mod moments;
mod parts;
mod replaced;
mod replaced_kills;
mod replica;
mod source;
mod stores;
