//! The file paths of a machine: real keys, with values made of the files' metadata.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Never walked, even where they are no file systems of their own.
const SKIPPED: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];
/// Not in any key of the encoding `hierarchical`.
const NOT_HIERARCHICAL: u8 = 0xFF;

/// Paths and what is known of them.
#[derive(Debug, Default)]
pub struct Paths {
    /// Path and value, in natural order.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Paths with a byte that the encoding `hierarchical` cannot carry.
    pub skipped: u64,
}

/// Walks the one file system that holds `root`, until there are `most` paths. What cannot be read is passed over.
pub fn collect(root: &Path, most: usize) -> Paths {
    let mut paths = Paths::default();
    let Ok(device) = fs::symlink_metadata(root).map(|metadata| metadata.dev()) else { return paths };
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let Ok(listing) = fs::read_dir(&directory) else { continue };
        for entry in listing.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() && metadata.dev() == device && !is_skipped(&path) {
                directories.push(path.clone());
            }
            if paths.entries.len() < most {
                paths.push(path, &metadata);
            }
        }
        if paths.entries.len() >= most {
            break;
        }
    }
    paths.entries.sort_unstable();
    paths
}

fn is_skipped(path: &Path) -> bool {
    SKIPPED.iter().any(|skipped| path == Path::new(skipped))
}

impl Paths {
    fn push(&mut self, path: PathBuf, metadata: &Metadata) {
        let key = path.into_os_string().into_vec();
        if key.contains(&NOT_HIERARCHICAL) {
            self.skipped += 1;
            return;
        }
        let value = format!("size={} mtime={} mode={:o}", metadata.size(), metadata.mtime(), metadata.mode());
        self.entries.push((key, value.into_bytes()));
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// The directory with the most paths directly in it, and their number.
    pub fn fullest_directory(&self) -> (Vec<u8>, u64) {
        let mut counts = std::collections::HashMap::<&[u8], u64>::new();
        for (key, _) in &self.entries {
            let name_at = key.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            *counts.entry(&key[..name_at]).or_default() += 1;
        }
        let fullest = counts.into_iter().max_by_key(|(directory, count)| (*count, *directory));
        fullest.map_or_else(Default::default, |(directory, count)| (directory.to_vec(), count))
    }
}
