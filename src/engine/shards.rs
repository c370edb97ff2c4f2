//! Many databases under one directory, `namespace/shard-N`, with one block cache and one budget of write buffers.

use super::{Engine, Options};
use crate::error::{Error, ErrorKind, Result, show_key};
use crate::fs::{FileKind, RealVfs, Vfs, parent_of};
use crate::layout::{Layout, SHARD_PREFIX};
use crate::rocks::SharedMemory;
use std::path::{Path, PathBuf};

/// The longest name of a namespace, in bytes.
const NAMESPACE_BYTES_MAX: usize = 64;

/// What the databases of [`Shards`] share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardsOptions {
    /// Bytes of block cache for all of them together. Default: 512 MiB.
    pub cache_bytes: usize,
    /// Bytes of memtables of all of them together. Default: 256 MiB.
    pub write_buffer_bytes: usize,
}

impl Default for ShardsOptions {
    fn default() -> Self {
        ShardsOptions { cache_bytes: 512 << 20, write_buffer_bytes: 256 << 20 }
    }
}

/// Many databases under one directory. It holds none of them open: that is the caller's part.
#[derive(Debug, Clone)]
pub struct Shards {
    root: PathBuf,
    memory: SharedMemory,
}

impl Shards {
    /// The databases under `root`. Looks at nothing and makes nothing.
    pub fn new(root: impl Into<PathBuf>, options: ShardsOptions) -> Self {
        let memory = SharedMemory::new(options.cache_bytes, options.write_buffer_bytes);
        Shards { root: root.into(), memory }
    }

    /// The directory of the shard.
    ///
    /// # Errors
    /// `InvalidArgument` for a namespace that is not 1 to 64 of `A-Z`, `a-z`, `0-9`, `_` and `-`.
    pub fn path(&self, namespace: &str, shard: u64) -> Result<PathBuf> {
        Ok(self.namespace(namespace)?.join(format!("{SHARD_PREFIX}{shard}")))
    }

    /// Opens a shard, with the shared memory and otherwise as `options` says. With
    /// [`create_if_missing`](Options::create_if_missing), missing directories above it are made too.
    ///
    /// # Errors
    /// `InvalidArgument` as for [`Shards::path`], `Refused` if something else than a directory stands above it, and
    /// whatever [`Engine::open`] meets.
    pub fn open(&self, namespace: &str, shard: u64, options: Options) -> Result<Engine> {
        let path = self.path(namespace, shard)?;
        let vfs = options.file_operations()?;
        let create = options.create_if_missing;
        // The root may be reached through a link: it is the operator's choice, as is all above it.
        if create && !self.root.is_dir() {
            make_durably(&*vfs, &self.root)?;
        }
        let namespace = parent_of(&path)?;
        match vfs.stat(namespace)?.map(|stat| stat.kind) {
            // Whoever made it may have died before it was durable.
            Some(FileKind::Directory) if create => vfs.sync_dir(&self.root)?,
            Some(FileKind::Directory) => {}
            Some(_) => return Err(Error::new(ErrorKind::Refused, "open a shard", "it is no directory").at(namespace)),
            None if create => make_durably(&*vfs, namespace)?,
            None => return Err(Error::new(ErrorKind::NotFound, "open a shard", "there is no such shard").at(path)),
        }
        Engine::open(&path, options.shared(self.memory.clone()))
    }

    /// The shards of a namespace, ascending: those that stand there, and those that a change was interrupted at, which
    /// may stand at another name until they are opened. An unknown namespace has none.
    ///
    /// # Errors
    /// `InvalidArgument` as for [`Shards::path`]; `Io`; `Refused` for names that are not UTF-8.
    pub fn list(&self, namespace: &str) -> Result<Vec<u64>> {
        let directory = self.namespace(namespace)?;
        let vfs = RealVfs::default();
        let mut shards = Vec::new();
        for name in list_directory(&vfs, &directory)? {
            let Some(shard) = shard_of(&name) else { continue };
            let layout = Layout::new(&directory.join(format!("{SHARD_PREFIX}{shard}")))?;
            let path = directory.join(&name);
            let stands = vfs.stat(&path)?.is_some_and(|stat| stat.kind == FileKind::Directory);
            if (path == layout.live && stands) || path == layout.journal {
                shards.push(shard);
            }
        }
        shards.sort_unstable();
        shards.dedup();
        Ok(shards)
    }

    /// The namespaces, sorted.
    ///
    /// # Errors
    /// `Io`; `Refused` for names that are not UTF-8.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        let vfs = RealVfs::default();
        let mut names = list_directory(&vfs, &self.root)?;
        names.retain(|name| is_namespace(name));
        let mut namespaces = Vec::with_capacity(names.len());
        for name in names {
            if vfs.stat(&self.root.join(&name))?.is_some_and(|stat| stat.kind == FileKind::Directory) {
                namespaces.push(name);
            }
        }
        Ok(namespaces)
    }

    /// Removes a shard with all that stands beside it. The directory of its namespace stays.
    ///
    /// # Errors
    /// `InvalidArgument` as for [`Shards::path`], and whatever [`Engine::destroy`] meets.
    pub fn destroy(&self, namespace: &str, shard: u64, options: Options) -> Result<bool> {
        Engine::destroy(&self.path(namespace, shard)?, options)
    }

    fn namespace(&self, name: &str) -> Result<PathBuf> {
        if !is_namespace(name) {
            let shown = show_key(name.as_bytes());
            let message = format!("the namespace \"{shown}\" is not 1 to 64 of A-Z, a-z, 0-9, _ and -");
            return Err(Error::new(ErrorKind::InvalidArgument, "name a shard", message));
        }
        Ok(self.root.join(name))
    }
}

fn is_namespace(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=NAMESPACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// The shard that a directory entry belongs to; only the one way to write its number counts.
fn shard_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(SHARD_PREFIX)?;
    let number = number.split_once('.').map_or(number, |(number, _)| number);
    let shard: u64 = number.parse().ok()?;
    (shard.to_string() == number).then_some(shard)
}

/// What is in a directory; nothing if it is not there.
fn list_directory(vfs: &dyn Vfs, path: &Path) -> Result<Vec<String>> {
    match vfs.list(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Makes a directory that others may be making too; it survives a power cut.
fn make_durably(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    if let Err(error) = vfs.make_dir(path) {
        match vfs.stat(path)?.map(|stat| stat.kind) {
            Some(FileKind::Directory) => {}
            _ => return Err(error),
        }
    }
    vfs.sync_dir(parent_of(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Hierarchical;
    use crate::rocks::Durability;

    fn create() -> Options {
        Options::new().create_if_missing(true).durability(Durability::Buffered)
    }

    fn shards(root: &Path) -> Shards {
        Shards::new(root, ShardsOptions { cache_bytes: 8 << 20, write_buffer_bytes: 4 << 20 })
    }

    #[test]
    fn hostile_namespaces_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let shards = shards(directory.path());
        let long = "n".repeat(65);
        for name in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a.b", "ü", "a b", "a\n", &long] {
            for error in [
                shards.open(name, 1, create()).unwrap_err(),
                shards.list(name).unwrap_err(),
                shards.destroy(name, 1, Options::new()).unwrap_err(),
                shards.path(name, 1).unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
                assert!(error.to_string().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            }
        }
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn shards_are_apart_listed_and_destroyed() {
        let directory = tempfile::tempdir().unwrap();
        let shards = shards(&directory.path().join("root"));
        assert_eq!(shards.namespaces().unwrap(), Vec::<String>::new());
        let missing = shards.open("a", 1, Options::new()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let first = shards.open("a", u64::MAX, create().encoding(Hierarchical)).unwrap();
        let second = shards.open("a", 2, create()).unwrap();
        shards.open("B_-9", 0, create()).unwrap();
        first.put("key", "first").unwrap();
        assert!(second.get("key").unwrap().is_none());
        assert_eq!(first.encoding().name, "hierarchical");
        assert_eq!(shards.namespaces().unwrap(), ["B_-9", "a"]);
        assert_eq!(shards.list("a").unwrap(), [2, u64::MAX]);
        assert_eq!(shards.list("none").unwrap(), [0; 0]);
        assert_eq!(shards.destroy("a", 2, Options::new()).unwrap_err().kind(), ErrorKind::Locked);
        second.close().unwrap();
        shards.destroy("a", 2, Options::new()).unwrap();
        assert_eq!(shards.list("a").unwrap(), [u64::MAX]);
    }

    #[test]
    fn a_shard_in_the_middle_of_a_change_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        let shards = shards(directory.path());
        let namespace = directory.path().join("n");
        for name in
            ["shard-5", "shard-05", "shard-", "shard-x", "shard-18446744073709551616", "shard-4.backup", "other"]
        {
            std::fs::create_dir_all(namespace.join(name)).unwrap();
        }
        for name in ["shard-7.conversion", "shard-5.conversion", "shard-8", "shard-9.lock", "shard-3.conversion.new"] {
            std::fs::write(namespace.join(name), "").unwrap();
        }
        assert_eq!(shards.list("n").unwrap(), [5, 7]);
    }

    #[test]
    fn a_namespace_that_is_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let shards = shards(directory.path());
        std::os::unix::fs::symlink("/", directory.path().join("n")).unwrap();
        assert_eq!(shards.open("n", 1, create()).unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(shards.namespaces().unwrap(), Vec::<String>::new());
    }
}
