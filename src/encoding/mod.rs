//! Key encodings: named, versioned, injective maps from a caller's keys to the bytes that RocksDB sees, and so an order.
//!
//! Pure: no file, no database. What is promised is in [`laws`].
