//! morphkv
pub mod encoding;
pub mod error;
pub mod trap;
