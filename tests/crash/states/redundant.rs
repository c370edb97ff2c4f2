//! Steps whose loss, or whose place in the order, changes nothing that anyone can see, and what covers for them.

/// A mutant that survives, and why it may.
pub struct Redundant {
    /// Its name; one `*` stands for anything.
    pub mutant: &'static str,
    /// The changes in which it survives; none: in all that have it.
    pub scenarios: &'static [&'static str],
    pub covered_by: &'static str,
}

pub const REDUNDANT: &[Redundant] = &[];
