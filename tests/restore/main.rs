//! Restores from an archive: to any moment of random histories, with damage, and killed anywhere.

#[path = "../common/mod.rs"]
#[allow(dead_code)]
mod common;
mod history;
mod moments;
mod source;
