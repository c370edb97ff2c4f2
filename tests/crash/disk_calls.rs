//! The calls that RocksDB itself makes of the operating system: each fails in turn.
