//! Processes and threads that open, convert and destroy one place at the same time.
