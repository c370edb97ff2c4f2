//! Golden traces: the order of the file operations of each change. A lost sync is a difference.

use super::common::{self, options};
use super::scenario::{self, database};
use morphkv::testing::{Operation, RealVfs, RecordingVfs};
use std::path::Path;
use std::sync::Arc;

fn shown(directory: &Path, path: &Path) -> String {
    let name =
        path.strip_prefix(directory).map_or_else(|_| path.display().to_string(), |name| name.display().to_string());
    let name = if name.is_empty() { "(parent)".to_owned() } else { name };
    // The id of a load is another one each time.
    let plain_id = |part: &str| match part.split_at_checked(36) {
        Some((id, rest)) if uuid::Uuid::parse_str(id).is_ok() => format!("(id){rest}"),
        _ => part.to_owned(),
    };
    let name = name.split('/').map(plain_id).collect::<Vec<String>>().join("/");
    // File numbers and ids are RocksDB's business.
    let mut plain = String::new();
    for character in name.chars() {
        if !character.is_ascii_digit() {
            plain.push(character);
        } else if !plain.ends_with('#') {
            plain.push('#');
        }
    }
    plain
}

/// One operation as it stands in a trace; traps do not.
pub fn line(directory: &Path, operation: &Operation) -> Option<String> {
    let show = |path: &Path| shown(directory, path);
    Some(match operation {
        Operation::MakeDir(path) => format!("make-dir     {}", show(path)),
        Operation::MakePrivate(path) => format!("make-private {}", show(path)),
        Operation::CreateFile(path, _) => format!("create       {}", show(path)),
        Operation::Append(path, _) => format!("append       {}", show(path)),
        Operation::SyncFile(path) => format!("sync-file    {}", show(path)),
        Operation::SyncDir(path) => format!("sync-dir     {}", show(path)),
        Operation::Rename(from, to) => format!("rename       {} -> {}", show(from), show(to)),
        Operation::RenameOver(from, to) => format!("rename-over  {} -> {}", show(from), show(to)),
        Operation::RemoveFile(path) => format!("remove-file  {}", show(path)),
        Operation::RemoveDir(path) => format!("remove-dir   {}", show(path)),
        Operation::HardLink(from, to) => format!("hard-link    {} -> {}", show(from), show(to)),
        Operation::Trap(_) => return None,
    })
}

fn trace(directory: &Path, operations: Vec<Operation>) -> String {
    let mut lines: Vec<String> = operations.iter().filter_map(|operation| line(directory, operation)).collect();
    lines.dedup(); // One line for a run of like files.
    lines.join("\n")
}

#[test]
fn traces() {
    for scenario in scenario::all() {
        let directory = common::scratch();
        (scenario.prepare)(directory.path());
        let vfs = Arc::new(RecordingVfs::new(Arc::new(RealVfs::default())));
        (scenario.act)(directory.path(), options().vfs(vfs.clone())).unwrap();
        snapshot(scenario.name, trace(directory.path(), vfs.take()));
    }
}

#[test]
fn trace_of_a_recovery() {
    // Live is in the backup directory, staging is sealed, the journal says Ready: what a crash between the two renames
    // of a swap leaves. Made by hand from a conversion that was kept.
    let directory = common::scratch();
    let path = database(directory.path());
    common::make(&path, Arc::new(morphkv::encoding::Natural), &common::sample(20));
    let keep = options().encoding(morphkv::encoding::Hierarchical).keep_backup(morphkv::Keep::Yes);
    drop(morphkv::Engine::open(&path, keep).unwrap());
    std::fs::rename(&path, directory.path().join("db.converting")).unwrap();
    let vfs = Arc::new(RecordingVfs::new(Arc::new(RealVfs::default())));
    let journal = morphkv::testing::journal::read(&*vfs, &morphkv::testing::Layout::new(&path).unwrap()).unwrap();
    let morphkv::testing::journal::JournalState::Read(mut journal) = journal else { panic!("{journal:?}") };
    journal.phase = morphkv::testing::journal::Phase::Ready;
    journal.keep = false;
    morphkv::testing::journal::write(&*vfs, &morphkv::testing::Layout::new(&path).unwrap(), &journal).unwrap();
    vfs.take();
    let recovery = morphkv::manage::recover(&path, &options().vfs(vfs.clone()), false).unwrap();
    assert_eq!(recovery.state, "whole", "{recovery:?}");
    let engine = morphkv::Engine::open(&path, options()).unwrap();
    assert_eq!(common::content(&engine), common::sample(20));
    snapshot("recover between the renames", trace(directory.path(), vfs.take()));
}

fn snapshot(name: &str, trace: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name.replace(' ', "-"), trace));
}
