//! Every combination of what can stand at the names of a place.
