//! Every call of the file operations fails in turn: once, from then on, and after it was carried out.
