//! morphkv
pub mod control;
pub mod conversion;
pub mod encoding;
pub mod error;
pub mod fs;
pub mod layout;
pub mod lock;
pub mod marker;
pub mod rocks;
pub mod trap;
