//! Bulk loading: sorted entries become SST files that RocksDB takes in as they are, past WAL and memtables.
//!
//! The log of an attached database would not see them. There, the files are linked into `pending_ingest/`, and two batches
//! say when a load begins and how it has ended, with nothing written between them: so whoever ships the log knows what it
//! was and where it belongs, and an open after a crash in between repeats it, on the very state that it met.
//!
//! An ingest is in as soon as RocksDB's MANIFEST names its files. If that is reported to have failed, RocksDB removes the
//! files, but the disk may have done what it said it had not. So second names of them stand, durably, before RocksDB is
//! asked, and stay where the MANIFEST has changed; and whoever opens the database first brings back, under the names in the
//! MANIFEST, what is missing.

use super::attached::{Alone, Attached};
use super::{Engine, Inner};
use crate::attachment::{LOAD_FORMAT, Load, LoadState};
use crate::error::{Error, ErrorKind, Result, show_key};
use crate::fs::{FileKind, Vfs, remove_tree};
use crate::layout::{INGEST, INTERNAL_INGEST, Layout, PENDING_INGEST, TEMPORARY_SUFFIX};
use crate::rocks::{Database, Family, LiveFile, Settings, SstOptions, SstWriter, WriteBatch};
use crate::trap::trap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// A file is completed when it has this many bytes.
const FILE_BYTES: u64 = 64 << 20;

/// Removes what bulk loads have left behind; nobody may be at one.
pub(super) fn sweep(vfs: &dyn Vfs, layout: &Layout) {
    let output = layout.live.join(INGEST);
    let swept = vfs.stat(&output).and_then(|found| match found {
        None => Ok(()),
        Some(_) => remove_tree(vfs, &output),
    });
    if let Err(error) = swept {
        tracing::warn!(%error, "files of an interrupted bulk load stay behind");
    }
}

/// Files of a load that the MANIFEST names and that are not there.
pub(super) struct Missing {
    /// Where second names of them are.
    folder: PathBuf,
    /// Their names there, and what the MANIFEST calls them.
    files: Vec<(String, String)>,
}

impl Missing {
    /// Looks where a load has left files. What is missing and stands nowhere is met when the database is opened.
    pub(super) fn find(vfs: &dyn Vfs, live: &Path, settings: &Settings) -> Result<Option<Self>> {
        let folders = folders_of_loads(vfs, live)?;
        if folders.is_empty() {
            return Ok(None);
        }
        let (mut named, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for file in Database::named_files(vfs, live, settings)? {
            let Some(number) = file.name.strip_suffix(".sst").and_then(|number| number.parse::<u64>().ok()) else {
                continue;
            };
            if vfs.stat(&live.join(&file.name))?.is_none() {
                missing.insert(number);
            }
            named.insert(number, file);
        }
        for folder in folders {
            if let Some(first) = first_number(&lengths(vfs, &folder)?, &named, &missing) {
                let name = |number: &u64| (sst_name((number - first) as usize), named[number].name.clone());
                return Ok(Some(Missing { files: missing.iter().map(name).collect(), folder }));
            }
        }
        Ok(None)
    }

    /// Brings them back; their names are not durable yet.
    ///
    /// # Errors
    /// Some of them may be back; repeated, it goes on.
    pub(super) fn bring_back(self, vfs: &dyn Vfs, live: &Path) -> Result<()> {
        for (kept, name) in &self.files {
            vfs.hard_link(&self.folder.join(kept), &live.join(name))?;
            trap!(vfs, LoadBroughtBack);
        }
        tracing::warn!(files = self.files.len(), "files of a bulk load were brought back, which RocksDB had removed");
        Ok(())
    }
}

/// The number that RocksDB gave to the first file of a load: it gives them in the order of the files, one after the other,
/// and all of them are in its MANIFEST or none. A load that came before may have had files of the same lengths, so the
/// greatest number that fits is the one. (RocksDB checks, when it opens a file, that it is the very one.)
fn first_number(lengths: &[u64], named: &BTreeMap<u64, LiveFile>, missing: &BTreeSet<u64>) -> Option<u64> {
    let (least, greatest) = (*missing.first()?, *missing.last()?);
    let from = greatest.saturating_add(1).saturating_sub(lengths.len() as u64);
    let fits = |first: &u64| {
        let file = |at: usize| named.get(&first.saturating_add(at as u64));
        (0..lengths.len()).all(|at| file(at).is_some_and(|file| file.bytes == lengths[at]))
    };
    (from..=least).rev().find(fits)
}

/// The lengths of the files of a load.
fn lengths(vfs: &dyn Vfs, folder: &Path) -> Result<Vec<u64>> {
    let mut lengths = Vec::new();
    while let Some(stat) = vfs.stat(&folder.join(sst_name(lengths.len())))? {
        lengths.push(stat.len);
    }
    Ok(lengths)
}

/// Whether a load has left anything, that its log still needs or that is to be swept.
pub(super) fn has_left_files(vfs: &dyn Vfs, live: &Path) -> Result<bool> {
    Ok(!folders_of_loads(vfs, live)?.is_empty())
}

/// The folders that loads have left, the youngest first.
fn folders_of_loads(vfs: &dyn Vfs, live: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for room in [live.join(INGEST), live.join(PENDING_INGEST)] {
        if vfs.stat(&room)?.is_none_or(|stat| stat.kind != FileKind::Directory) {
            continue;
        }
        let mut names = vfs.list(&room)?;
        names.sort_by_key(|name| (name.len(), name.clone()));
        folders.extend(names.iter().rev().map(|name| room.join(name)));
    }
    Ok(folders)
}

fn sst_name(number: usize) -> String {
    format!("{number:06}.sst")
}

/// Makes a directory that others may be making too.
fn ensure_dir(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let there = || Ok(vfs.stat(path)?.is_some_and(|stat| stat.kind == FileKind::Directory));
    if there()? {
        return Ok(());
    }
    vfs.make_dir(path).or_else(|error| if there()? { Ok(()) } else { Err(error) })
}

impl Engine {
    /// Loads entries that come sorted in encoding order, each key once, much faster than puts would, and all of them or
    /// none. Where a key is in the database already, the loaded value counts. Durable when it returns. Gives the number
    /// of entries.
    ///
    /// It takes as much room on the disk as the entries do, inside the database's directory, while they come in.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that is not after the one before it, `Unrepresentable`, the error that the entries
    /// themselves brought, `NoSpace`, `Io`: nothing was loaded. If the disk failed while RocksDB noted the load, the next
    /// open has all of it or nothing. In a database with a log backup, an error while the log is told may leave open
    /// whether they are in: then every later write fails with `Closed`, and the next open loads them.
    pub fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = Result<(K, V)>>,
    ) -> Result<u64> {
        let inner = &*self.inner;
        let output = inner.layout.live.join(INGEST);
        let folder = output.join(inner.ingests.fetch_add(1, Ordering::Relaxed).to_string());
        ensure_dir(&*inner.vfs, &output)?;
        inner.vfs.make_dir(&folder)?;
        let mut needed = false;
        let loaded = self.write_files(&folder, entries).and_then(|(files, count)| {
            match &inner.attached {
                _ if files.is_empty() => {}
                Some(attached) => inner.loading(attached).load(&files)?,
                None => self.take(&folder, &files, &mut needed)?,
            }
            Ok(count)
        });
        // RocksDB has moved what it took; what is left is swept again when the database is opened.
        if !needed {
            forget(&*inner.vfs, &folder);
        }
        loaded
    }

    /// Gives the files to RocksDB.
    ///
    /// # Errors
    /// All of the files are in the database or none. With `needed` the MANIFEST may name them although they are gone: those
    /// in the folder, whose names are durable, must stay for the next open.
    fn take(&self, folder: &Path, files: &[PathBuf], needed: &mut bool) -> Result<()> {
        let (vfs, live, database) = (&*self.inner.vfs, &self.inner.layout.live, &self.inner.database);
        vfs.sync_dir(folder)?;
        vfs.sync_dir(&live.join(INGEST))?;
        vfs.sync_dir(live)?;
        let before = database.manifest(vfs)?;
        let taken = database.ingest(files);
        *needed = taken.is_err() && database.manifest(vfs).map_or(true, |after| after != before);
        taken
    }

    fn write_files<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        folder: &Path,
        entries: impl IntoIterator<Item = Result<(K, V)>>,
    ) -> Result<(Vec<PathBuf>, u64)> {
        let options = SstOptions::new(self.inner.database.settings());
        let (mut files, mut count) = (Vec::new(), 0);
        let mut writer: Option<SstWriter<'_>> = None;
        let (mut encoded, mut last) = (Vec::new(), None::<Vec<u8>>);
        for entry in entries {
            let (key, value) = entry?;
            encoded.clear();
            self.inner.encode(key.as_ref(), &mut encoded)?;
            match &mut last {
                Some(last) if encoded <= *last => return Err(self.not_ascending(key.as_ref(), last)),
                Some(last) => last.clone_from(&encoded),
                None => last = Some(encoded.clone()),
            }
            if let Some(full) = writer.take_if(|writer| writer.is_full(FILE_BYTES)) {
                files.push(full.finish()?);
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                None => {
                    let path = folder.join(sst_name(files.len()));
                    writer.insert(SstWriter::create(&options, &path)?)
                }
            };
            writer.put(&encoded, value.as_ref())?;
            count += 1;
        }
        if let Some(writer) = writer {
            files.push(writer.finish()?);
        }
        Ok((files, count))
    }

    fn not_ascending(&self, key: &[u8], last: &[u8]) -> Error {
        let mut before = Vec::new();
        let before = match self.inner.encoding.decode(last, &mut before) {
            Ok(()) => show_key(&before),
            Err(_) => show_key(last),
        };
        let message = format!(
            "entries must ascend in {} order: the key {} is not after {before}",
            self.inner.marker.encoding,
            show_key(key)
        );
        self.inner.place(Error::new(ErrorKind::InvalidArgument, "load entries", message))
    }
}

/// An attached database that files are loaded into.
pub(super) struct Loading<'a> {
    pub vfs: &'a dyn Vfs,
    pub live: &'a Path,
    pub database: &'a Database,
    pub attached: &'a Attached,
}

impl Loading<'_> {
    fn folders(&self) -> PathBuf {
        self.live.join(PENDING_INGEST)
    }

    /// The folder of a load, and what it is called before the log knows of it.
    fn folder(&self, group: Uuid) -> (PathBuf, PathBuf) {
        let folders = self.folders();
        (folders.join(group.to_string()), folders.join(format!("{group}{TEMPORARY_SUFFIX}")))
    }

    fn load(&self, files: &[PathBuf]) -> Result<()> {
        let group = Uuid::new_v4();
        let (named, unnamed) = self.folder(group);
        ensure_dir(self.vfs, &self.folders())?;
        if let Err(error) = self.link(files, &unnamed) {
            forget(self.vfs, &unnamed);
            return Err(error);
        }
        trap!(self.vfs, LoadLinked);
        let mut alone = self.attached.alone(self.database)?;
        let mut load = Load {
            format: LOAD_FORMAT,
            group,
            files: u32::try_from(files.len()).unwrap_or(u32::MAX),
            sequence: self.database.last_sequence() + 1,
            state: LoadState::Begun,
        };
        alone.begin();
        self.note(&alone, &load)?;
        trap!(self.vfs, LoadIntended);
        let taken = self.name(&unnamed, &named).and_then(|()| self.database.ingest(files));
        if let Err(error) = taken {
            load.state = LoadState::Failed { after: self.database.last_sequence() };
            self.note(&alone, &load)?;
            alone.end();
            forget(self.vfs, &named);
            forget(self.vfs, &unnamed);
            return Err(error);
        }
        trap!(self.vfs, LoadTaken);
        self.end(&mut alone, load)
    }

    /// Links the files into a folder that is durable then.
    fn link(&self, files: &[PathBuf], folder: &Path) -> Result<()> {
        self.vfs.make_dir(folder)?;
        for (number, file) in files.iter().enumerate() {
            self.vfs.hard_link(file, &folder.join(sst_name(number)))?;
        }
        self.vfs.sync_dir(folder)?;
        self.vfs.sync_dir(&self.folders())?;
        self.vfs.sync_dir(self.live)
    }

    /// Gives a folder the name that says that the log knows of it.
    fn name(&self, unnamed: &Path, named: &Path) -> Result<()> {
        self.vfs.rename_no_replace(unnamed, named)?;
        self.vfs.sync_dir(&self.folders())?;
        trap!(self.vfs, LoadNamed);
        Ok(())
    }

    fn note(&self, alone: &Alone<'_>, load: &Load) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(self.database, Family::Internal, INTERNAL_INGEST, &load.to_bytes()?)?;
        alone.write(self.database, batch)
    }

    fn end(&self, alone: &mut Alone<'_>, mut load: Load) -> Result<()> {
        load.state = LoadState::Done { after: self.database.last_sequence() };
        self.note(alone, &load)?;
        alone.end();
        trap!(self.vfs, LoadNoted);
        Ok(())
    }

    /// Repeats a load that a crash has interrupted, and removes what the log does not know of. Nobody else may load.
    /// `in_log`: the log tells of loads, so one that it calls begun is missed also where no folder is left of it.
    pub(super) fn finish(&self, in_log: bool) -> Result<()> {
        let folders = self.vfs.stat(&self.folders())?.is_some();
        if !folders && !in_log {
            return Ok(());
        }
        let last = Load::last(self.database)?;
        if let Some(load) = last.as_ref().filter(|load| load.state == LoadState::Begun) {
            self.repeat(load)?;
        }
        if !folders {
            return Ok(());
        }
        let failed =
            last.filter(|load| matches!(load.state, LoadState::Failed { .. })).map(|load| load.group.to_string());
        for name in self.vfs.list(&self.folders())? {
            if name.ends_with(TEMPORARY_SUFFIX) || failed.as_ref() == Some(&name) {
                forget(self.vfs, &self.folders().join(name));
            }
        }
        Ok(())
    }

    fn repeat(&self, load: &Load) -> Result<()> {
        let (named, unnamed) = self.folder(load.group);
        if self.vfs.stat(&named)?.is_none() && self.vfs.stat(&unnamed)?.is_some() {
            self.name(&unnamed, &named)?;
        }
        let mut alone = self.attached.alone(self.database)?;
        alone.begin();
        let again = self.live.join(INGEST).join("again");
        self.database.ingest(&self.link_again(&named, load.files, &again)?)?;
        trap!(self.vfs, LoadTaken);
        self.end(&mut alone, load.clone())?;
        forget(self.vfs, &again);
        Ok(())
    }

    /// RocksDB moves what it takes, and the log still needs it: it is given second names.
    fn link_again(&self, folder: &Path, files: u32, again: &Path) -> Result<Vec<PathBuf>> {
        ensure_dir(self.vfs, &self.live.join(INGEST))?;
        remove_tree(self.vfs, again)?;
        self.vfs.make_dir(again)?;
        let mut links = Vec::new();
        for name in (0..files as usize).map(sst_name) {
            let (file, link) = (folder.join(&name), again.join(&name));
            if self.vfs.stat(&file)?.is_none() {
                let message = "a file of a bulk load that was interrupted is gone";
                return Err(Error::new(ErrorKind::Corrupt, "repeat a bulk load", message).at(file));
            }
            self.vfs.hard_link(&file, &link)?;
            links.push(link);
        }
        Ok(links)
    }
}

fn forget(vfs: &dyn Vfs, folder: &Path) {
    if let Err(error) = remove_tree(vfs, folder) {
        tracing::warn!(%error, "files of a bulk load stay behind");
    }
}

impl Inner {
    fn loading<'a>(&'a self, attached: &'a Attached) -> Loading<'a> {
        Loading { vfs: &*self.vfs, live: &self.layout.live, database: &self.database, attached }
    }
}

impl Engine {
    /// Brings a bulk load to an end that a crash has interrupted. Also where the database is not attached any more: later
    /// it would be repeated on top of what was written since.
    pub(super) fn finish_load(&self) -> Result<()> {
        match &self.inner.attached {
            Some(attached) => self.inner.loading(attached).finish(true),
            None => self.inner.loading(&Attached::new(Arc::clone(&self.inner.vfs), None)).finish(false),
        }
    }
}
