//! A disk as a power cut sees it: what is durable, what is only in memory yet, and which of the latter may have reached
//! the medium.
//!
//! Three models. *Journalled* metadata (ext4, XFS, btrfs): names change in one global order, and a sync of anything makes
//! all earlier ones durable. *Weak* (POSIX's word alone): of the names changed in a directory since it was synced any may
//! have reached the disk, in any combination. *Split*: as weak, and a rename may have made the new name and left the old.
//! In all of them the contents of a file that was not synced are the old ones, none, a half, zeros, or all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which file or directory, whatever its names.
pub type Inode = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    File(Arc<[u8]>),
    Directory(BTreeMap<String, Inode>),
}

pub type Nodes = BTreeMap<Inode, Node>;

/// A name and what it stands for from now on.
pub type Set = (String, Option<Inode>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file or directory comes to be, empty and without a name.
    New(Inode, Node),
    /// One operation on the names of a directory; a rename sets two, the new one first.
    Names(Inode, Vec<Set>),
    /// A file has these contents.
    Contents(Inode, Arc<[u8]>),
    /// The contents are durable.
    SyncFile(Inode),
    /// The names are durable.
    SyncDirectory(Inode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    Journalled,
    Weak,
    Split,
}

impl Model {
    pub const ALL: [Model; 3] = [Model::Journalled, Model::Weak, Model::Split];

    pub fn name(self) -> &'static str {
        match self {
            Model::Journalled => "journalled",
            Model::Weak => "weak",
            Model::Split => "split",
        }
    }
}

/// How much of a change of names has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    Not,
    /// The new name is there, the old one too.
    Half,
    Whole,
}

#[derive(Debug, Clone)]
enum Pending {
    Names(Inode, Vec<Set>),
    Contents(Inode, Arc<[u8]>),
}

/// What is durable, and what is not yet, in the order in which it was done.
#[derive(Debug, Clone)]
pub struct Disk {
    pub root: Inode,
    model: Model,
    durable: Nodes,
    pending: Vec<Pending>,
}

/// A small deterministic generator, for the choice among more combinations than are tried.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

/// How many names of one directory may be pending before not every combination of them is tried.
const ALL_SUBSETS_OF: usize = 5;

impl Disk {
    pub fn new(root: Inode, durable: Nodes, model: Model) -> Self {
        Disk { root, model, durable, pending: Vec::new() }
    }

    /// Does `change`; a trusted one is durable at once, since somebody else is answerable for it.
    pub fn apply(&mut self, change: &Change, trusted: bool) {
        match change {
            Change::New(inode, node) => {
                self.durable.insert(*inode, node.clone());
            }
            Change::Names(directory, sets) if trusted => set_names(&mut self.durable, *directory, sets),
            Change::Contents(inode, contents) if trusted => {
                self.pending.retain(|pending| !matches!(pending, Pending::Contents(other, _) if other == inode));
                self.durable.insert(*inode, Node::File(contents.clone()));
            }
            Change::Names(directory, sets) => self.pending.push(Pending::Names(*directory, sets.clone())),
            Change::Contents(inode, contents) => {
                self.pending.retain(|pending| !matches!(pending, Pending::Contents(other, _) if other == inode));
                self.pending.push(Pending::Contents(*inode, contents.clone()));
            }
            Change::SyncFile(inode) | Change::SyncDirectory(inode) => self.sync(*inode),
        }
    }

    fn sync(&mut self, inode: Inode) {
        let journalled = self.model == Model::Journalled;
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Names(directory, sets) if journalled || directory == inode => {
                    set_names(&mut self.durable, directory, &sets);
                }
                Pending::Contents(file, contents) if file == inode => {
                    self.durable.insert(file, Node::File(contents));
                }
                other => self.pending.push(other),
            }
        }
    }

    /// What may stand on the medium if the power goes now; more than `most` of them are sampled.
    pub fn states(&self, most: usize, chance: &mut Chance) -> Vec<Nodes> {
        let names: Vec<&Pending> = self.pending.iter().filter(|one| matches!(one, Pending::Names(..))).collect();
        let choices = self.choices_of_names(&names, most, chance);
        let mut states = Vec::new();
        let mut others = Vec::new();
        for choice in &choices {
            let mut nodes = self.durable.clone();
            for (pending, reached) in names.iter().zip(choice) {
                if let Pending::Names(directory, sets) = pending {
                    let sets = match reached {
                        Reached::Not => &sets[..0],
                        Reached::Half => &sets[..1],
                        Reached::Whole => &sets[..],
                    };
                    set_names(&mut nodes, *directory, sets);
                }
            }
            let mut with_contents = self.with_contents(&nodes, chance);
            // All of its contents, and all names or none: these are tried with everything, the others as there is room.
            states.push(with_contents.remove(0));
            let uniform = choice.windows(2).all(|pair| pair[0] == pair[1]);
            let kept = if uniform { &mut states } else { &mut others };
            kept.append(&mut with_contents);
        }
        while states.len() < most && !others.is_empty() {
            let chosen = chance.below(others.len());
            states.push(others.swap_remove(chosen));
        }
        states
    }

    /// For each pending change of names, how much of it is there: all combinations that the model allows.
    fn choices_of_names(&self, names: &[&Pending], most: usize, chance: &mut Chance) -> Vec<Vec<Reached>> {
        let prefix = |len: usize| {
            (0..names.len()).map(|index| if index < len { Reached::Whole } else { Reached::Not }).collect::<Vec<_>>()
        };
        if self.model == Model::Journalled {
            return (0..=names.len()).map(prefix).collect();
        }
        let mut choices = vec![prefix(0)];
        let directories: BTreeSet<Inode> = names.iter().map(|pending| directory_of(pending)).collect();
        for directory in directories {
            let members: Vec<usize> =
                (0..names.len()).filter(|index| directory_of(names[*index]) == directory).collect();
            let ways = self.ways(names, &members, chance);
            choices = ways
                .iter()
                .flat_map(|way| choices.iter().map(|choice| merged(choice, &members, way)).collect::<Vec<_>>())
                .collect();
            while choices.len() > most.max(2) {
                choices.swap_remove(1 + chance.below(choices.len() - 2));
            }
        }
        choices
    }

    /// The combinations of one directory: all of them where they are few; else all prefixes, each one missing, each one
    /// alone, and some by chance.
    fn ways(&self, names: &[&Pending], members: &[usize], chance: &mut Chance) -> Vec<Vec<Reached>> {
        let steps = |index: usize| match names[index] {
            Pending::Names(_, sets) if sets.len() > 1 && self.model == Model::Split => 3,
            _ => 2,
        };
        let reached = |index: usize, step: usize| match (step, steps(index)) {
            (0, _) => Reached::Not,
            (1, 3) => Reached::Half,
            _ => Reached::Whole,
        };
        if members.len() <= ALL_SUBSETS_OF {
            let mut ways: Vec<Vec<Reached>> = vec![Vec::new()];
            for &member in members {
                let longer = |way: &Vec<Reached>| {
                    (0..steps(member))
                        .map(|step| [way.clone(), vec![reached(member, step)]].concat())
                        .collect::<Vec<_>>()
                };
                ways = ways.iter().flat_map(longer).collect();
            }
            return ways;
        }
        let way = |is_there: &dyn Fn(usize) -> bool| {
            (0..members.len()).map(|at| if is_there(at) { Reached::Whole } else { Reached::Not }).collect::<Vec<_>>()
        };
        let count = members.len();
        let mut ways: Vec<_> = (0..=count).map(|len| way(&|at| at < len)).collect();
        for one in 0..count {
            ways.insert(1, way(&|at| at == one));
            ways.insert(1, way(&|at| at != one));
        }
        for _ in 0..count {
            let picks: Vec<bool> = (0..count).map(|_| chance.below(2) == 1).collect();
            ways.insert(1, way(&|at| picks[at]));
        }
        ways
    }

    /// The state with each way in which the contents of unsynced files may be; the first has all of them.
    fn with_contents(&self, nodes: &Nodes, chance: &mut Chance) -> Vec<Nodes> {
        let reachable = reachable(nodes, self.root);
        let files: Vec<(Inode, Vec<Arc<[u8]>>)> = self
            .pending
            .iter()
            .filter_map(|pending| match pending {
                Pending::Contents(inode, contents) if reachable.contains(inode) => {
                    Some((*inode, versions(self.durable.get(inode), contents)))
                }
                _ => None,
            })
            .collect();
        let mut picks: Vec<Vec<usize>> = vec![vec![0; files.len()]];
        for at in 0..files.len() {
            for version in 1..files[at].1.len() {
                let mut one = vec![0; files.len()];
                one[at] = version;
                picks.push(one);
            }
        }
        if files.len() > 1 {
            let longest = files.iter().map(|(_, versions)| versions.len()).max().unwrap_or(0);
            picks.extend((1..longest).map(|version| files.iter().map(|file| version.min(file.1.len() - 1)).collect()));
            picks.extend((0..4).map(|_| files.iter().map(|file| chance.below(file.1.len())).collect::<Vec<_>>()));
        }
        let build = |pick: &Vec<usize>| {
            let mut nodes = nodes.clone();
            for ((inode, versions), version) in files.iter().zip(pick) {
                nodes.insert(*inode, Node::File(versions[*version].clone()));
            }
            nodes
        };
        picks.iter().map(build).collect()
    }
}

fn directory_of(pending: &Pending) -> Inode {
    match pending {
        Pending::Names(inode, _) | Pending::Contents(inode, _) => *inode,
    }
}

fn merged(choice: &[Reached], members: &[usize], way: &[Reached]) -> Vec<Reached> {
    let mut merged = choice.to_vec();
    for (member, reached) in members.iter().zip(way) {
        merged[*member] = *reached;
    }
    merged
}

fn set_names(nodes: &mut Nodes, directory: Inode, sets: &[Set]) {
    let Some(Node::Directory(names)) = nodes.get_mut(&directory) else { return };
    for (name, inode) in sets {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

/// What a file that was not synced may hold: all, what it held, nothing, a half, zeros. What was appended to a durable
/// beginning cannot take the beginning with it.
fn versions(durable: Option<&Node>, contents: &Arc<[u8]>) -> Vec<Arc<[u8]>> {
    let old: &[u8] = match durable {
        Some(Node::File(old)) => old,
        _ => &[],
    };
    let kept = if contents.starts_with(old) { old.len() } else { 0 };
    let half = kept + (contents.len() - kept) / 2;
    let mut zeros = contents.to_vec();
    zeros[kept..].fill(0);
    let mut versions: Vec<Arc<[u8]>> = vec![contents.clone()];
    for version in [old.into(), contents[..kept].into(), contents[..half].into(), zeros.into()] {
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    versions
}

fn reachable(nodes: &Nodes, root: Inode) -> BTreeSet<Inode> {
    let mut found = BTreeSet::new();
    let mut todo = vec![root];
    while let Some(inode) = todo.pop() {
        if found.insert(inode)
            && let Some(Node::Directory(names)) = nodes.get(&inode)
        {
            todo.extend(names.values());
        }
    }
    found
}
