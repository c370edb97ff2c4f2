//! Bulk loads in the archive: the files of one are stored, listed, and known to HEAD before any segment speaks of them.

use crate::attachment::Load;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, remove_tree};
use crate::layout::{DATA_FAMILY, INGEST};
use crate::log_backup::archive::Archive;
use crate::log_backup::commit::commit;
use crate::log_backup::group::{GROUP_BYTES_MAX, GroupFile, GroupReference};
use crate::log_backup::head::Head;
use crate::log_backup::migration::{Body, IngestedBody, Key};
use crate::log_backup::names::{self, ContentHash, ObjectReference};
use crate::log_backup::pin::{Pin, PinRequest, TTL};
use crate::log_backup::transfer::{hash_file, put_file};
use crate::rocks::{Database, Settings};
use crate::trap::trap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const STEP: &str = "store the files of a bulk load";

/// Where the loads of a log are, and where they go.
pub(super) struct Loads<'a> {
    pub archive: &'a Archive,
    pub vfs: &'a dyn Vfs,
    /// The folder with a folder for each load.
    pub folder: PathBuf,
    /// The database directory: room for an instant.
    pub live: &'a Path,
    /// The timeline that speaks of them.
    pub timeline: Uuid,
}

/// The sizes and keys of SST files.
struct Described {
    entries: u64,
    smallest: Vec<u8>,
    largest: Vec<u8>,
}

impl Loads<'_> {
    /// Stores a load that comes after the sequence number `sequence`. One that HEAD knows is not stored again.
    ///
    /// # Errors
    /// `Lost`: its files are gone. Otherwise it may be stored or not; repeat.
    pub fn store(&self, load: &Load, sequence: u64) -> Result<GroupReference> {
        let request =
            PinRequest { owner: self.live.display().to_string(), purpose: "store a bulk load".into(), ttl: TTL };
        let (pin, loaded) = Pin::take_and_load(self.archive, &request)?;
        if let Some(known) = self.known(&loaded.head, load.group)? {
            return Ok(known);
        }
        let paths = self.paths(load)?;
        let described = self.describe(&paths)?;
        let mut files = Vec::new();
        for (path, Described { entries, smallest, largest }) in paths.iter().zip(described) {
            pin.check()?;
            let (size, hash) = hash_file(self.vfs, path)?;
            let object = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
            put_file(self.archive, &object, self.vfs, path)?;
            files.push(GroupFile { object, entries, smallest, largest });
        }
        let group = GroupReference { group: load.group, files };
        let bytes = group.to_bytes()?;
        let (size, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
        let list = ObjectReference { name: names::data(hash, Uuid::new_v4()), size, hash };
        self.archive.put_create(&list.name, bytes)?;
        trap!(self.vfs, ShipLoadStored);
        let body = IngestedBody { list, timeline: self.timeline, sequence };
        let mut there = None;
        commit(self.archive, |head| {
            pin.check()?;
            there = self.known(head, load.group)?;
            let mut head = head.clone();
            if there.is_none() {
                head.migrations.append([(Key::Ingested(load.group), Body::Ingested(body.clone()))])?;
            }
            Ok(head)
        })?;
        trap!(self.vfs, ShipLoadCommitted);
        Ok(there.unwrap_or(group))
    }

    fn known(&self, head: &Head, group: Uuid) -> Result<Option<GroupReference>> {
        let live = head.migrations.merged()?;
        let Some(Body::Ingested(body)) = live.entries.get(&Key::Ingested(group)).map(|entry| &entry.body) else {
            return Ok(None);
        };
        let bytes = self.archive.get_verified(&body.list, GROUP_BYTES_MAX as u64)?;
        GroupReference::from_bytes(&bytes).map(Some).map_err(|error| error.at(self.archive.place(&body.list.name)))
    }

    fn paths(&self, load: &Load) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join(load.group.to_string());
        let paths: Vec<_> = (0..load.files).map(|number| folder.join(format!("{number:06}.sst"))).collect();
        for path in &paths {
            if self.vfs.stat(path)?.is_none() {
                let message = "a file of a bulk load that is not shipped is gone";
                return Err(Error::new(ErrorKind::Lost, STEP, message).at(path));
            }
        }
        Ok(paths)
    }

    /// What RocksDB says of the files. It tells that of files of a database alone, so they are given to one for an instant,
    /// under second names.
    fn describe(&self, paths: &[PathBuf]) -> Result<Vec<Described>> {
        let room = self.live.join(INGEST);
        let (links, scratch) = (room.join("described"), room.join("describing"));
        if self.vfs.stat(&room)?.is_none() {
            self.vfs.make_dir(&room)?;
        }
        for folder in [&links, &scratch] {
            remove_tree(self.vfs, folder)?;
            self.vfs.make_dir(folder)?;
        }
        let database = Database::create(&scratch, &Settings::default())?;
        let mut entries = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            let link = links.join(format!("{number:06}.sst"));
            self.vfs.hard_link(path, &link)?;
            database.ingest(&[link])?;
            // RocksDB tells the sum alone.
            entries.push(database.table_figures()?.entries.saturating_sub(entries.iter().sum()));
        }
        let mut files = database.live_files()?;
        database.close()?;
        files.retain(|file| file.family == DATA_FAMILY);
        files.sort_by(|left, right| left.smallest.cmp(&right.smallest));
        if files.len() != paths.len() {
            let message = format!("{} files were described, there are {}", files.len(), paths.len());
            return Err(Error::new(ErrorKind::Io, STEP, message).at(&self.folder));
        }
        for folder in [&links, &scratch] {
            remove_tree(self.vfs, folder)?;
        }
        let described = files.into_iter().zip(entries);
        Ok(described
            .map(|(file, entries)| Described { entries, smallest: file.smallest, largest: file.largest })
            .collect())
    }
}
