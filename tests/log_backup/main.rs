//! The log backup from the first write to the archive: what is shipped is decoded again and compared with what was written.

#[path = "../common/mod.rs"]
mod common;
mod harness;
mod whole;
