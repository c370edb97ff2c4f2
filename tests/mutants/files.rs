//! Defects in the floors below the place: file operations, control files, the marker, the locks.

use super::plant::{Defect, defect};

const FS: &str = "src/fs/mod.rs";
const REAL: &str = "src/fs/real.rs";
const CONTROL: &str = "src/control.rs";
const LOCK: &str = "src/lock.rs";
const TRACES: &str = "crash::golden::traces";
const FAILED_SYNC: &str = "guarantees::syncs::a_sync_that_fails_ends_the_change";

pub fn defects() -> Vec<Defect> {
    [writing(), operations(), control_files(), locks()].into_iter().flatten().collect()
}

fn writing() -> Vec<Defect> {
    const SYNC: &str = "vfs.sync_file(temporary)?;\n    trap!(vfs, ControlFileSynced);";
    vec![
        defect("a control file is written in place")
            .edit(
                FS,
                "    vfs.remove_file(temporary)?;
    vfs.create_file(temporary, contents)?;
    trap!(vfs, ControlFileWritten);
    vfs.sync_file(temporary)?;
    trap!(vfs, ControlFileSynced);
    vfs.rename_file_over(temporary, path)?;
    trap!(vfs, ControlFileRenamed);
    vfs.sync_dir(parent_of(path)?)",
                "vfs.remove_file(path)?; vfs.create_file(path, contents)?; vfs.sync_file(path)",
            )
            .found_by(&[TRACES, "guarantees::syncs::a_control_file_is_replaced_whole_or_not_at_all"]),
        defect("a control file is not synced before it is renamed")
            .edit(FS, SYNC, "trap!(vfs, ControlFileSynced);")
            .found_by(&[TRACES]),
        defect("a control file's failed sync is ignored")
            .edit(FS, SYNC, "let _ = vfs.sync_file(temporary); trap!(vfs, ControlFileSynced);")
            .found_by(&[FAILED_SYNC]),
        defect("a control file's name is not synced")
            .edit(FS, "vfs.sync_dir(parent_of(path)?)", "Ok(())")
            .found_by(&[TRACES]),
        defect("the failed sync of a control file's name is ignored")
            .edit(FS, "vfs.sync_dir(parent_of(path)?)", "{ let _ = vfs.sync_dir(parent_of(path)?); Ok(()) }")
            .found_by(&[FAILED_SYNC]),
        defect("files of a tree are not synced")
            .edit(FS, "vfs.sync_file(&child)?", "()")
            .found_by(&[TRACES]),
        defect("the failed sync of a file in a tree is ignored")
            .edit(FS, "vfs.sync_file(&child)?", "drop(vfs.sync_file(&child))")
            .found_by(&[FAILED_SYNC]),
        defect("the marker is written in place, under its own name and without a sync")
            .edit(
                "src/marker.rs",
                "write_atomic(vfs, &path, &directory.join(format!(\"{MARKER}{TEMPORARY_SUFFIX}\")), &to_bytes(marker)?)",
                "vfs.create_file(&path, &to_bytes(marker)?)",
            )
            .found_by(&[TRACES]),
    ]
}

fn operations() -> Vec<Defect> {
    vec![
        defect("a failed look counts as absent")
            .edit(REAL, "error.kind() == io::ErrorKind::NotFound", "true")
            .found_by(&["unit::fs::real::tests::only_what_is_not_there_counts_as_absent"]),
        defect("a rename replaces what stands at the new name")
            .edit(
                REAL,
                "rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)",
                "rustix::fs::rename(from, to)",
            )
            .found_by(&["unit::fs::real::tests::renames_never_replace"]),
        defect("symbolic links are followed")
            .edit(REAL, "flags | OFlags::NOFOLLOW | OFlags::CLOEXEC", "flags | OFlags::CLOEXEC")
            .found_by(&["unit::fs::real::tests::links_are_not_followed"]),
        defect("a directory is made for everybody to read")
            .edit(REAL, "rustix::fs::mkdir(path, Mode::RWXU)", "rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))")
            .found_by(&["refusals::an_empty_directory_made_by_a_supervisor_in_the_middle_of_a_swap"]),
        defect("what is mounted inside a directory is removed with it")
            .edit(FS, "stat.device != device", "false")
            .found_by(&["guarantees::syncs::what_is_mounted_inside_trash_is_not_removed"]),
    ]
}

fn control_files() -> Vec<Defect> {
    vec![
        defect("the checksum of a control file is not compared")
            .edit(CONTROL, "&bytes[line.len()..] != expected.as_bytes()", "false")
            .found_by(&["unit::control::tests::every_truncation_and_every_bit_flip_is_refused"]),
        defect("a control file of a later format is read")
            .edit(CONTROL, "found != format", "false")
            .found_by(&["unit::control::tests::later_formats_and_unknown_fields_are_refused", "refusals::bad_markers"]),
        defect("a control file may be as long as it likes")
            .edit(REAL, "!metadata.is_file() || metadata.len() > max_len", "!metadata.is_file()")
            .found_by(&["unit::fs::real::tests::a_file_that_is_too_long_is_not_read"]),
    ]
}

fn locks() -> Vec<Defect> {
    vec![
        defect("the lock of the place is not taken")
            .edit(LOCK, "file.try_lock()", "Ok::<(), std::fs::TryLockError>(())")
            .found_by(&[
                "unit::lock::tests::a_second_opener_in_this_process_is_kept_out",
                "refusals::a_second_opener_in_this_process",
            ]),
        defect("RocksDB's own lock is not taken")
            .edit(LOCK, "fcntl(&file, FcntlArg::F_OFD_SETLK(&whole(sort)))", "Ok::<i32, Errno>(0)")
            .found_by(&["guarantees::others::rocksdb_itself_is_kept_out_of_a_source"]),
        defect("a child between fork and exec holds RocksDB's lock on")
            .edit(LOCK, "fcntl(&file, FcntlArg::F_OFD_SETLK(&whole(nix::libc::F_UNLCK)))", "Ok::<i32, Errno>(0)")
            .found_by(&["unit::lock::tests::a_child_that_has_the_open_file_does_not_hold_rocksdbs_lock_on"]),
    ]
}
