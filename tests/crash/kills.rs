//! A child is killed at every file operation, and at random instants under load.
