//! A state of the disk, made real: files and directories in a scratch directory.

use super::super::common;
use super::disk::{Inode, Node, Nodes};
use morphkv::Result;
use morphkv::testing::{RealVfs, Space, Stat, Trap, Vfs};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that tells one state from another: names, contents, which names are one file. The directory's own number
/// does not.
pub fn identity(root: Inode, nodes: &Nodes) -> u128 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut first_names = BTreeMap::new();
    describe(root, nodes, "", &mut first_names, &mut |line, contents| {
        hasher.update(&(line.len() as u64).to_le_bytes());
        hasher.update(line.as_bytes());
        hasher.update(&(contents.len() as u64).to_le_bytes());
        hasher.update(contents);
    });
    hasher.digest128()
}

fn describe(
    inode: Inode,
    nodes: &Nodes,
    path: &str,
    first_names: &mut BTreeMap<Inode, String>,
    tell: &mut impl FnMut(&str, &[u8]),
) {
    let first = first_names.entry(inode).or_insert_with(|| path.to_owned()).clone();
    match &nodes[&inode] {
        Node::File(contents) => tell(&format!("file {path} {first}"), contents),
        Node::Directory(names) => {
            tell(&format!("directory {path} {first}"), &[]);
            for (name, child) in names {
                describe(*child, nodes, &format!("{path}/{name}"), first_names, tell);
            }
        }
    }
}

/// A state in a directory of its own.
pub struct Built {
    pub directory: tempfile::TempDir,
    /// Pairs of names that are one directory: a rename that was torn. No file system makes such a thing to order, so the
    /// second one is a copy, and the `Vfs` tells that it is the first.
    pub twins: Vec<(PathBuf, PathBuf)>,
}

impl Built {
    pub fn new(root: Inode, nodes: &Nodes) -> Self {
        let mut built = Built { directory: common::scratch(), twins: Vec::new() };
        let path = built.directory.path().to_owned();
        built.fill(root, nodes, &path, &mut BTreeMap::new());
        built
    }

    fn fill(&mut self, inode: Inode, nodes: &Nodes, path: &Path, made: &mut BTreeMap<Inode, PathBuf>) {
        let Node::Directory(names) = &nodes[&inode] else { panic!("no directory: {path:?}") };
        for (name, child) in names {
            let path = path.join(name);
            match &nodes[child] {
                Node::File(contents) => match made.get(child) {
                    Some(first) => std::fs::hard_link(first, &path).unwrap(),
                    None => {
                        std::fs::write(&path, contents).unwrap();
                        made.insert(*child, path);
                    }
                },
                Node::Directory(_) => {
                    std::fs::create_dir(&path).unwrap();
                    if let Some(first) = made.get(child) {
                        // A checkpoint under two names is nobody's business but its own.
                        // An id may begin with these letters, too.
                        if name == "db" || name.starts_with("db.") {
                            self.twins.push((first.clone(), path.clone()));
                        }
                        self.fill(*child, nodes, &path, &mut BTreeMap::new());
                    } else {
                        made.insert(*child, path.clone());
                        self.fill(*child, nodes, &path, made);
                    }
                }
            }
        }
    }

    /// The file operations in it.
    pub fn vfs(&self) -> Arc<dyn Vfs> {
        if self.twins.is_empty() {
            return Arc::new(RealVfs::default());
        }
        Arc::new(TwinVfs { real: RealVfs::default(), twins: self.twins.clone() })
    }
}

/// Says of the second of two twins that it is the first.
#[derive(Debug)]
struct TwinVfs {
    real: RealVfs,
    twins: Vec<(PathBuf, PathBuf)>,
}

impl Vfs for TwinVfs {
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let twin = self.twins.iter().find(|(_, second)| second == path);
        self.real.stat(twin.map_or(path, |(first, _)| first))
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.real.list(path)
    }
    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>> {
        self.real.read(path, max_len)
    }
    fn read_range(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.real.read_range(path, offset, len, out)
    }

    fn read_device(&self, path: &Path, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<Range<usize>> {
        self.real.read_device(path, offset, len, out)
    }
    fn make_dir(&self, path: &Path) -> Result<()> {
        self.real.make_dir(path)
    }
    fn make_private(&self, path: &Path) -> Result<()> {
        self.real.make_private(path)
    }
    fn create_file(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.real.create_file(path, contents)
    }
    fn append(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.real.append(path, contents)
    }
    fn sync_file(&self, path: &Path) -> Result<()> {
        self.real.sync_file(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.real.sync_dir(path)
    }
    fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.real.rename_no_replace(from, to)
    }
    fn rename_file_over(&self, from: &Path, to: &Path) -> Result<()> {
        self.real.rename_file_over(from, to)
    }
    fn probe_rename(&self, from: &Path, onto: &Path) -> Result<()> {
        self.real.probe_rename(from, onto)
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        self.real.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.real.remove_dir(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.real.hard_link(from, to)
    }
    fn space(&self, path: &Path) -> Result<Space> {
        self.real.space(path)
    }
    fn trap(&self, trap: Trap) -> Result<()> {
        self.real.trap(trap)
    }
}
