//! Which entries a scan shows, and in which order.
//!
//! Bounds make it fast, the filter makes it right: a prefix is one range in natural order only, and in hierarchical order a
//! range of children may hold more than children where a path has empty names (`/a//`).

use clap::Args;
use morphkv::encoding::Comparator;
use morphkv::{Engine, Result};
use std::ops::Bound;

const SEPARATOR: u8 = b'/';
/// The encoding of databases from before the marker.
const LEGACY: &str = "slash-spans";
/// Not in any key of the encoding `hierarchical`.
const NOT_HIERARCHICAL: u8 = 0xFF;

/// A selection as it was typed.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// From this key on, in encoding order
    #[arg(long, value_name = "KEY")]
    pub from: Option<String>,
    /// Up to this key, without it
    #[arg(long, value_name = "KEY")]
    pub to: Option<String>,
    /// Only keys that begin so; in an encoding where they do not lie together, that reads what lies between
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Only the direct children of this path: the keys that are PATH, a `/`, and a name without a `/`. PATH may end in `/`;
    /// the key `PATH/`, which would be a child without a name, is none
    #[arg(long, value_name = "PATH", conflicts_with_all = ["from", "to", "prefix"])]
    pub children_of: Option<String>,
    /// From the end
    #[arg(long)]
    pub reverse: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// A selection in bytes.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub from: Option<Vec<u8>>,
    pub to: Option<Vec<u8>>,
    pub prefix: Option<Vec<u8>>,
    pub children_of: Option<Vec<u8>>,
    pub reverse: bool,
    pub limit: Option<usize>,
}

type Entries<'a> = Box<dyn Iterator<Item = Result<(Vec<u8>, Vec<u8>)>> + 'a>;
type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

const EVERYTHING: Bounds = (Bound::Unbounded, Bound::Unbounded);

impl Selection {
    /// The entries; an error is the last one.
    ///
    /// # Errors
    /// `Unrepresentable` for a bound that the encoding cannot carry.
    pub fn entries<'a>(&'a self, engine: &'a Engine) -> Result<Entries<'a>> {
        let encoding = engine.encoding().name;
        let entries: Entries<'a> = match (&self.children_of, encoding.as_str()) {
            // The engine knows how to jump over what lies between.
            (Some(path), "natural" | "hierarchical") if !self.reverse && carries(&encoding, path) => {
                Box::new(engine.children(path)?)
            }
            _ => {
                let range = engine.range(self.bounds(&encoding))?;
                if self.reverse { Box::new(range.rev()) } else { Box::new(range) }
            }
        };
        let is_legacy = encoding == LEGACY;
        let holds = move |key: &[u8]| self.holds(key) && (!is_legacy || self.is_within_legacy_bounds(key));
        let chosen = entries.filter(move |entry| entry.as_ref().map_or(true, |(key, _)| holds(key)));
        Ok(Box::new(chosen.take(self.limit.unwrap_or(usize::MAX))))
    }

    /// Bounds of all that is selected, as narrow as is sure in that encoding.
    fn bounds(&self, encoding: &str) -> Bounds {
        // The engine's bounds are compared as bytes, which is not the order of a legacy database.
        if encoding == LEGACY {
            return EVERYTHING;
        }
        if let Some(path) = &self.children_of {
            let directory = directory(path);
            let end = match encoding {
                "natural" => after_all_with_prefix(&directory).map_or(Bound::Unbounded, Bound::Excluded),
                "hierarchical" => Bound::Excluded([&directory[..], &[SEPARATOR]].concat()),
                _ => return EVERYTHING,
            };
            return if carries(encoding, path) { (Bound::Included(directory), end) } else { EVERYTHING };
        }
        if self.from.is_some() || self.to.is_some() {
            let from = self.from.clone().map_or(Bound::Unbounded, Bound::Included);
            return (from, self.to.clone().map_or(Bound::Unbounded, Bound::Excluded));
        }
        match &self.prefix {
            Some(prefix) if encoding == "natural" => {
                let end = after_all_with_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
                (Bound::Included(prefix.clone()), end)
            }
            // A longer key has no lower level, and within a level it comes after its prefix.
            Some(prefix) if encoding == "hierarchical" && carries(encoding, prefix) => {
                (Bound::Included(prefix.clone()), Bound::Unbounded)
            }
            _ => EVERYTHING,
        }
    }

    fn is_within_legacy_bounds(&self, key: &[u8]) -> bool {
        let compare = |bound: &Vec<u8>| Comparator::SlashSpans.compare(key, bound);
        self.from.as_ref().is_none_or(|from| compare(from).is_ge())
            && self.to.as_ref().is_none_or(|to| compare(to).is_lt())
    }

    /// Whether a key within the bounds is selected.
    fn holds(&self, key: &[u8]) -> bool {
        let in_prefix = self.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix));
        in_prefix && self.children_of.as_ref().is_none_or(|path| is_child(path, key))
    }
}

/// The path with one `/` at its end.
fn directory(path: &[u8]) -> Vec<u8> {
    [path.strip_suffix(&[SEPARATOR]).unwrap_or(path), &[SEPARATOR]].concat()
}

fn is_child(path: &[u8], key: &[u8]) -> bool {
    let name = key.strip_prefix(&directory(path)[..]);
    name.is_some_and(|name| !name.is_empty() && !name.contains(&SEPARATOR))
}

/// Whether the encoding can carry these bytes; if not, no key holds them, and they are no bound.
fn carries(encoding: &str, bytes: &[u8]) -> bool {
    encoding != "hierarchical" || !bytes.contains(&NOT_HIERARCHICAL)
}

/// The first key after all that begin with `prefix`; `None`: there is none.
fn after_all_with_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(after_all_with_prefix(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(after_all_with_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_all_with_prefix(b"\xff"), None);
        assert_eq!(after_all_with_prefix(b""), None);
    }

    #[test]
    fn children_are_direct_and_have_a_name() {
        for path in [&b"/a"[..], b"/a/"] {
            assert!(is_child(path, b"/a/b"));
            for other in [&b"/a/"[..], b"/a", b"/a/b/", b"/a//b", b"/ab", b"a/b", b"/a//"] {
                assert!(!is_child(path, other), "{other:?}");
            }
        }
        assert!(is_child(b"/a//", b"/a//b") && is_child(b"", b"/a") && is_child(b"/", b"/a"));
    }
}
