//! morphkv
pub mod attachment;
pub mod control;
pub mod encoding;
pub mod error;
pub mod fs;
pub mod layout;
pub mod lock;
pub mod marker;
pub mod place;
pub mod rocks;
pub mod trap;
