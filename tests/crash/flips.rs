//! Every truncation and every single-bit flip of the control files.
