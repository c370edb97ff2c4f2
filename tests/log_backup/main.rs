//! The log backup from the first write to the archive: what is shipped is decoded again and compared with what was written.

mod background;
#[path = "../common/mod.rs"]
mod common;
mod delayed;
mod faults;
mod harness;
mod histories;
mod kills;
mod verified;
mod whole;
