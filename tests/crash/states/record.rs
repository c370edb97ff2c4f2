//! One run, recorded: each file operation of ours, with what RocksDB has done since the one before it.

use super::super::golden;
use super::disk::{Change, Inode, Node, Nodes, Set};
use morphkv::testing::{Operation, RealVfs, RecordingVfs, Vfs};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One of our operations.
#[derive(Debug, Clone)]
pub struct Step {
    /// As in a golden trace: `rename db -> db.backup`.
    pub label: String,
    /// What RocksDB did before it, and whether RocksDB is answerable for its durability: in the live directory, which it
    /// has open for writing, it is. In staging only our own syncs count.
    pub before: Vec<(Change, bool)>,
    /// What the operation does.
    pub own: Vec<Change>,
    /// What stands afterwards.
    pub after: Snapshot,
}

/// What stands in a directory.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub root: Inode,
    pub nodes: Nodes,
}

pub struct Recording {
    pub start: Snapshot,
    pub steps: Vec<Step>,
}

/// Runs `act` in `directory` and records it.
pub fn record(directory: &Path, act: impl FnOnce(Arc<dyn Vfs>)) -> Recording {
    let eye = Arc::new(Mutex::new(Eye { directory: directory.to_owned(), ids: BTreeMap::new(), next: 0 }));
    let start = eye.lock().look();
    let seen: Arc<Mutex<Vec<(Operation, Snapshot)>>> = Arc::default();
    let vfs = RecordingVfs::watched(Arc::new(RealVfs::default()), {
        let seen = seen.clone();
        move |operation| {
            if !matches!(operation, Operation::Trap(_)) {
                let snapshot = eye.lock().look();
                seen.lock().push((operation.clone(), snapshot));
            }
        }
    });
    act(Arc::new(vfs));
    let mut steps: Vec<Step> = Vec::new();
    for (operation, after) in seen.lock().drain(..) {
        let before = steps.last().map_or(&start, |step| &step.after);
        steps.push(step(directory, &operation, before, after));
    }
    Recording { start, steps }
}

/// Looks at a directory, and knows its files again: the kernel may give a number a second time.
struct Eye {
    directory: PathBuf,
    ids: BTreeMap<u64, Inode>,
    next: Inode,
}

/// RocksDB's log of messages and lock files say nothing about data.
fn is_ignored(name: &str) -> bool {
    name == "LOG" || name.starts_with("LOG.old") || name.ends_with(".lock")
}

impl Eye {
    fn look(&mut self) -> Snapshot {
        let mut nodes = Nodes::new();
        let mut met = BTreeSet::new();
        let directory = self.directory.clone();
        let root = self.walk(&directory, &mut nodes, &mut met).expect("the directory itself");
        self.ids.retain(|number, _| met.contains(number));
        Snapshot { root, nodes }
    }

    /// `None`: it has vanished meanwhile, by a thread of RocksDB.
    fn walk(&mut self, path: &Path, nodes: &mut Nodes, met: &mut BTreeSet<u64>) -> Option<Inode> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        let node = if metadata.is_dir() {
            let mut names = BTreeMap::new();
            for entry in std::fs::read_dir(path).ok()? {
                let name = entry.ok()?.file_name().into_string().unwrap();
                if !is_ignored(&name)
                    && let Some(inode) = self.walk(&path.join(&name), nodes, met)
                {
                    names.insert(name, inode);
                }
            }
            Node::Directory(names)
        } else {
            Node::File(std::fs::read(path).ok()?.into())
        };
        met.insert(metadata.ino());
        let inode = *self.ids.entry(metadata.ino()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        nodes.insert(inode, node);
        Some(inode)
    }
}

impl Snapshot {
    fn children(&self, inode: Inode) -> Option<&BTreeMap<String, Inode>> {
        match self.nodes.get(&inode)? {
            Node::Directory(names) => Some(names),
            Node::File(_) => None,
        }
    }

    pub fn find(&self, relative: &Path) -> Option<Inode> {
        relative.iter().try_fold(self.root, |inode, name| self.children(inode)?.get(name.to_str()?).copied())
    }

    /// All that is below the database's live directory.
    fn live(&self) -> BTreeSet<Inode> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<Inode> = self.find(Path::new("db")).into_iter().collect();
        while let Some(inode) = todo.pop() {
            if found.insert(inode) {
                todo.extend(self.children(inode).into_iter().flat_map(|names| names.values()));
            }
        }
        found
    }
}

fn step(directory: &Path, operation: &Operation, before: &Snapshot, after: Snapshot) -> Step {
    let own = own_changes(directory, operation, before, &after);
    let touched: BTreeSet<(Inode, String)> = own
        .iter()
        .filter_map(|change| match change {
            Change::Names(inode, sets) => Some(sets.iter().map(|(name, _)| (*inode, name.clone())).collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    let ours: BTreeSet<Inode> = own
        .iter()
        .filter_map(|change| match change {
            Change::New(inode, _) | Change::Contents(inode, _) => Some(*inode),
            _ => None,
        })
        .collect();
    let live = &before.live() | &after.live();
    let others = others_changes(before, &after, &touched, &ours);
    let before = others.into_iter().map(|change| (change.clone(), live.contains(&inode_of(&change)))).collect();
    let line = golden::line(directory, operation).unwrap_or_default();
    Step { label: line.split_whitespace().collect::<Vec<_>>().join(" "), before, own, after }
}

fn inode_of(change: &Change) -> Inode {
    match change {
        Change::New(inode, _)
        | Change::Names(inode, _)
        | Change::Contents(inode, _)
        | Change::SyncFile(inode)
        | Change::SyncDirectory(inode) => *inode,
    }
}

/// What the operation itself does.
fn own_changes(directory: &Path, operation: &Operation, before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let relative = |path: &Path| path.strip_prefix(directory).expect("a path below the directory").to_owned();
    let find = |path: &Path| after.find(&relative(path)).or_else(|| before.find(&relative(path)));
    let set = |path: &Path, inode: Option<Inode>| -> (Inode, Set) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (find(path.parent().unwrap()).expect("its directory"), (name, inode))
    };
    let named = |path: &Path, inode: Option<Inode>| {
        let (parent, set) = set(path, inode);
        Change::Names(parent, vec![set])
    };
    match operation {
        Operation::MakeDir(path) => {
            let inode = after.find(&relative(path)).expect("the new directory");
            vec![Change::New(inode, Node::Directory(BTreeMap::new())), named(path, Some(inode))]
        }
        Operation::CreateFile(path, contents) => {
            let inode = after.find(&relative(path)).expect("the new file");
            let contents: Arc<[u8]> = contents.as_slice().into();
            let new = Change::New(inode, Node::File(Arc::default()));
            vec![new, named(path, Some(inode)), Change::Contents(inode, contents)]
        }
        Operation::Append(path, _) => match (after.find(&relative(path)), before.find(&relative(path))) {
            (Some(inode), old) => {
                let Some(Node::File(contents)) = after.nodes.get(&inode) else { panic!("no file: {path:?}") };
                let mut changes = vec![Change::Contents(inode, contents.clone())];
                if old.is_none() {
                    changes.splice(..0, [Change::New(inode, Node::File(Arc::default())), named(path, Some(inode))]);
                }
                changes
            }
            _ => Vec::new(),
        },
        Operation::SyncFile(path) => find(path).map(Change::SyncFile).into_iter().collect(),
        Operation::SyncDir(path) => find(path).map(Change::SyncDirectory).into_iter().collect(),
        Operation::Rename(from, to) | Operation::RenameOver(from, to) => {
            let (parent, new) = set(to, after.find(&relative(to)));
            let (old_parent, old) = set(from, None);
            assert_eq!(parent, old_parent, "a rename within one directory");
            vec![Change::Names(parent, vec![new, old])]
        }
        Operation::RemoveFile(path) | Operation::RemoveDir(path) => vec![named(path, None)],
        Operation::HardLink(_, to) => vec![named(to, after.find(&relative(to)))],
        _ => Vec::new(),
    }
}

/// What is different and not by our operation: RocksDB's doing.
fn others_changes(
    before: &Snapshot,
    after: &Snapshot,
    touched: &BTreeSet<(Inode, String)>,
    ours: &BTreeSet<Inode>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut names = Vec::new();
    for (&inode, node) in &after.nodes {
        let old = before.nodes.get(&inode);
        match node {
            Node::File(contents) if !ours.contains(&inode) && old != Some(node) => {
                if old.is_none() {
                    changes.push(Change::New(inode, Node::File(Arc::default())));
                }
                changes.push(Change::Contents(inode, contents.clone()));
            }
            Node::File(_) => {}
            Node::Directory(now) => {
                if old.is_none() && !ours.contains(&inode) {
                    changes.push(Change::New(inode, Node::Directory(BTreeMap::new())));
                }
                let then = before.children(inode).cloned().unwrap_or_default();
                let all: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
                let different = all.into_iter().filter(|name| now.get(*name) != then.get(*name));
                let others = different.filter(|name| !touched.contains(&(inode, (*name).clone())));
                names.extend(others.map(|name| (inode, name.clone(), now.get(name).copied())));
            }
        }
    }
    // New names before the old ones go, as RocksDB does it.
    names.sort_by_key(|(.., now)| now.is_none());
    changes.extend(names.into_iter().map(|(inode, name, now)| Change::Names(inode, vec![(name, now)])));
    changes
}
