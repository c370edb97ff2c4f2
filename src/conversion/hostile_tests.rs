//! Sources that are damaged, keys that do not fit, encodings that are broken, disks that fail.

#[cfg(test)]
mod tests {
    use crate::conversion::model_tests::tests::*;
    use crate::conversion::rewrite::Rewritten;
    use crate::conversion::rewrite::rewrite_tuned;
    use crate::conversion::verify::scan_with;
    use crate::conversion::{Content, Cuts, Phase, Progress, Reporter, Rewrite, Tuning, ingest, scan};
    use crate::encoding::{Comparator, Hierarchical, KeyEncoding, Natural};
    use crate::error::{Error, ErrorKind, Result};
    use crate::fs::{RealVfs, Vfs};
    use crate::rocks::{Database, Durability, Family, Settings, WriteBatch};
    use parking_lot::Mutex;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    /// Only rewrites; for what must fail.
    fn try_rewrite(
        vfs: &dyn Vfs,
        source: &Database,
        (from, to): (&dyn KeyEncoding, &dyn KeyEncoding),
        staging: &Path,
        (memory_bytes, threads, tuning): (u64, usize, Tuning),
    ) -> Result<Rewritten> {
        std::fs::create_dir_all(staging).unwrap();
        let (settings, progress) = (settings(Comparator::Bytewise), Reporter::silent());
        let settings = &settings;
        let progress = &progress;
        rewrite_tuned(
            &Rewrite { vfs, source, from, to, staging, settings, memory_bytes, threads, progress, recorder: None },
            &tuning,
        )
    }

    fn some_keys() -> Model {
        model((0..3000).map(|at| format!("/dir{}/file-{at:05}", at % 7)))
    }

    #[test]
    fn deleted_keys_and_deleted_ranges_are_not_carried() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source");
        std::fs::create_dir(&path).unwrap();
        let settings = settings(Comparator::Bytewise);
        let database = Database::create(&path, &settings).unwrap();
        let mut model = some_keys();
        for (at, (key, value)) in model.iter().enumerate() {
            database.put(Family::Data, key, value, Durability::NoWal).unwrap();
            if at % 500 == 499 {
                database.flush().unwrap();
            }
        }
        let mut batch = WriteBatch::new();
        batch.delete_range(&database, Family::Data, b"/dir3/", b"/dir4/file-01").unwrap();
        batch.delete(&database, Family::Data, b"/dir0/file-00000").unwrap();
        batch.put(&database, Family::Data, b"/dir3/file-00003", b"again").unwrap();
        database.write(batch, Durability::Sync).unwrap();
        model.retain(|key, _| !(&b"/dir3/"[..]..b"/dir4/file-01").contains(&key.as_slice()));
        model.remove(&b"/dir0/file-00000"[..]).unwrap();
        model.insert(b"/dir3/file-00003".to_vec(), b"again".to_vec());
        // Half of it in files, the other half (deletions without files, then with) only in the WAL.
        for flushed in [false, true] {
            database.put(Family::Data, b"late", &[u8::from(flushed)], Durability::Sync).unwrap();
            model.insert(b"late".to_vec(), vec![u8::from(flushed)]);
            if flushed {
                database.flush().unwrap();
            }
            let source = Database::open_read_only(&RealVfs::default(), &path, &settings).unwrap();
            let staging = directory.path().join(format!("staging-{flushed}"));
            convert(&source, (&Natural, &Hierarchical), &staging, (TINY_MEMORY, 2, tiny()), &model);
        }
    }

    fn sst_files(path: &Path) -> Vec<PathBuf> {
        let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).collect()
    }

    #[test]
    fn a_flipped_byte_is_an_error_and_never_a_short_copy() {
        let encodings = [&Natural as &dyn KeyEncoding, &Hierarchical];
        for (encoding, in_memory) in encodings.into_iter().flat_map(|encoding| [(encoding, false), (encoding, true)]) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("source");
            let to: &dyn KeyEncoding = if encoding.leveled() { &Natural } else { &Hierarchical };
            let settings = settings(Comparator::Bytewise);
            let written = database(&path, encoding, &some_keys());
            // What is settled is read from its file.
            drop(if in_memory { written } else { settled(written) });
            if in_memory {
                // What lies in a memtable, too, is read by RocksDB.
                let mut late = Vec::new();
                encoding.encode(b"/dir0/file-00000", &mut late).unwrap();
                let database = Database::open(&RealVfs::default(), &path, &settings).unwrap();
                database.put(Family::Data, &late, b"late", Durability::Sync).unwrap();
                database.close().unwrap();
            }
            let whole = Database::open_read_only(&RealVfs::default(), &path, &settings).unwrap();
            let expected = scan(&whole, encoding, 1, &Reporter::silent()).unwrap();
            drop(whole);
            let file = sst_files(&path).swap_remove(0);
            let bytes = std::fs::read(&file).unwrap();
            let mut found = 0;
            for part in 0..12 {
                let mut damaged = bytes.clone();
                damaged[bytes.len() * part / 12 + 5] ^= 0x04;
                std::fs::write(&file, &damaged).unwrap();
                let source = Database::open_read_only(&RealVfs::default(), &path, &settings).unwrap();
                let one_task = Tuning { task_bytes: (64 << 20, 64 << 20), ..tiny() };
                let means = if in_memory { (TINY_MEMORY, 2, one_task) } else { (64 << 20, 2, tiny()) };
                let staging = directory.path().join("staging");
                let rewritten = try_rewrite(&RealVfs::default(), &source, (encoding, to), &staging, means);
                let scanned = scan_with(&source, encoding, 2, Cuts::Every(10_000), &Reporter::silent());
                match (rewritten, scanned) {
                    (Err(rewritten), Err(scanned)) => {
                        assert_eq!((rewritten.kind(), scanned.kind()), (ErrorKind::Corrupt, ErrorKind::Corrupt));
                        found += 1;
                    }
                    // A byte of a filter or of the properties: no key is read through it.
                    (Ok(rewritten), Ok(scanned)) => {
                        let copied = Content { entries: rewritten.entries, digest: rewritten.digest };
                        assert!(copied == expected && scanned == expected, "part {part}");
                    }
                    (rewritten, scanned) => panic!("one saw it, one did not: {:?} {scanned:?}", rewritten.err()),
                }
            }
            assert!(found >= 9, "most bytes are data, {found} of 12 were noticed");
        }
    }

    #[test]
    fn keys_that_the_target_cannot_carry_are_named_in_order() {
        for refused in [1, 9, 10, 40] {
            let mut model = some_keys();
            let names: Vec<String> = (0..refused).map(|at| format!("/dir{}/file-{:05}", at % 7, at * 70)).collect();
            for name in &names {
                model.insert([name.as_bytes(), b"\xff"].concat(), b"x".to_vec());
            }
            let mut expected: Vec<String> = names.iter().map(|name| format!("{name}\\xff")).collect();
            expected.sort();
            expected.truncate(10);
            let directory = tempfile::tempdir().unwrap();
            let source = database(&directory.path().join("source"), &Natural, &model);
            for threads in [1, 3] {
                let means = (TINY_MEMORY, threads, tiny());
                let staging = directory.path().join("staging");
                let pair: (&dyn KeyEncoding, &dyn KeyEncoding) = (&Natural, &Hierarchical);
                let error = try_rewrite(&RealVfs::default(), &source, pair, &staging, means).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unrepresentable);
                let named: Vec<&str> = error.message().split_once("more: ").map_or_else(
                    || error.message().split_once("keys: ").unwrap().1.split(", ").collect(),
                    |(_, keys)| keys.split(", ").collect(),
                );
                assert_eq!(named, expected);
            }
        }
    }

    #[test]
    fn a_row_that_is_not_of_the_source_encoding_is_corrupt_and_named() {
        for row in [&b"\x00\x05\xffa"[..], b"\x00\x01/a", b"\x00", b""] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("source");
            drop(database(&path, &Hierarchical, &some_keys()));
            let settings = settings(Comparator::Bytewise);
            let writable = Database::open(&RealVfs::default(), &path, &settings).unwrap();
            writable.put(Family::Data, row, b"", Durability::Sync).unwrap();
            writable.close().unwrap();
            let source = Database::open_read_only(&RealVfs::default(), &path, &settings).unwrap();
            let means = (TINY_MEMORY, 2, tiny());
            let pair: (&dyn KeyEncoding, &dyn KeyEncoding) = (&Hierarchical, &Natural);
            let error =
                try_rewrite(&RealVfs::default(), &source, pair, &directory.path().join("s"), means).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.message().contains(&crate::error::show_key(row)), "{error}");
        }
    }

    /// Keeps the first eight bytes of a key; its decoding is as bad as its encoding.
    struct Truncating;

    impl KeyEncoding for Truncating {
        fn name(&self) -> &str {
            "truncating"
        }
        fn revision(&self) -> u32 {
            1
        }
        fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.extend(key.iter().take(8));
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.extend_from_slice(encoded);
            Ok(())
        }
    }

    #[test]
    fn a_broken_target_encoding_loses_nothing_in_silence() {
        let directory = tempfile::tempdir().unwrap();
        let source = database(&directory.path().join("source"), &Natural, &some_keys());
        let means = (TINY_MEMORY, 2, tiny());
        let staging = directory.path().join("staging");
        let error = try_rewrite(&RealVfs::default(), &source, (&Natural, &Truncating), &staging, means).unwrap_err();
        assert!(error.kind() == ErrorKind::Unrepresentable && error.message().contains("truncating r1"), "{error}");
    }

    #[test]
    fn slash_spans_is_no_target() {
        let directory = tempfile::tempdir().unwrap();
        let source = database(&directory.path().join("source"), &Natural, &Model::new());
        let means = (TINY_MEMORY, 1, tiny());
        let pair: (&dyn KeyEncoding, &dyn KeyEncoding) = (&Natural, &crate::encoding::SlashSpans);
        let error = try_rewrite(&RealVfs::default(), &source, pair, &directory.path().join("s"), means).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!directory.path().join("s").join(crate::layout::OUTPUT).exists());
    }

    #[test]
    fn what_an_earlier_attempt_left_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let source = database(&directory.path().join("source"), &Natural, &some_keys());
        let staging = directory.path().join("staging");
        let means = (TINY_MEMORY, 2, tiny());
        let pair: (&dyn KeyEncoding, &dyn KeyEncoding) = (&Natural, &Reversed);
        let first = try_rewrite(&RealVfs::default(), &source, pair, &staging, means).unwrap();
        let output = staging.join(crate::layout::OUTPUT);
        std::fs::write(output.join("000000-000001.spill"), b"half").unwrap();
        let second = try_rewrite(&RealVfs::default(), &source, pair, &staging, means).unwrap();
        assert_eq!(first.digest, second.digest);
        let files = std::fs::read_dir(output).unwrap().count();
        assert_eq!(files, second.disjoint.len() + second.overflow.len());
    }

    #[test]
    fn progress_ends_with_all_of_it() {
        let model = some_keys();
        let directory = tempfile::tempdir().unwrap();
        let source = database(&directory.path().join("source"), &Natural, &model);
        let last = Arc::new(Mutex::new(Progress::default()));
        let sink = last.clone();
        let progress = Reporter::new(Arc::new(move |progress: &Progress| *sink.lock() = *progress));
        let (vfs, settings) = (RealVfs::default(), Settings::default());
        let staging = directory.path().join("staging");
        std::fs::create_dir(&staging).unwrap();
        let job = Rewrite {
            vfs: &vfs,
            source: &source,
            from: &Natural,
            to: &Hierarchical,
            staging: &staging,
            settings: &settings,
            memory_bytes: 16 << 20,
            threads: 2,
            progress: &progress,
            recorder: None,
        };
        let rewritten = rewrite_tuned(&job, &Tuning::default()).unwrap();
        let seen = *last.lock();
        assert_eq!((seen.phase, seen.entries, seen.bytes_done), (Phase::Rewrite, 3000, rewritten.bytes_read));
        let database = Database::create(&staging, &settings).unwrap();
        ingest(&vfs, &database, &rewritten, 512, &progress).unwrap();
        let seen = *last.lock();
        assert_eq!((seen.phase, seen.entries, seen.bytes_done), (Phase::Ingest, 3000, rewritten.bytes_written));
        scan(&database, &Hierarchical, 2, &progress).unwrap();
        let seen = *last.lock();
        let prefix_bytes = 2 * 3000;
        assert_eq!((seen.phase, seen.entries), (Phase::Verify, 3000));
        assert_eq!((seen.bytes_done, seen.bytes_total), (rewritten.bytes_read + prefix_bytes, seen.bytes_done));
    }

    #[cfg(feature = "traps")]
    mod faults {
        use super::*;
        use crate::fs::{EIO, ENOSPC, Fault, FaultyVfs};
        use crate::trap::{Trap, TrapAction, TrapPlan};

        #[test]
        fn a_failing_file_operation_is_an_error_of_the_rewrite() {
            let directory = tempfile::tempdir().unwrap();
            let source = database(&directory.path().join("source"), &Natural, &some_keys());
            let means = (TINY_MEMORY / 4, 1, tiny());
            let mut tried = 0;
            let attempt = |fault: Option<Fault>| {
                let vfs = FaultyVfs::new(Arc::new(RealVfs::default()), fault);
                let staging = directory.path().join("staging");
                let result = try_rewrite(&vfs, &source, (&Natural, &Reversed), &staging, means);
                (result, vfs.calls(), vfs.failed())
            };
            let (whole, calls, _) = attempt(None);
            let whole = whole.unwrap();
            assert!(calls > 100, "{calls} operations");
            for at in 0..calls {
                for errno in [EIO, ENOSPC] {
                    if errno == ENOSPC && at % 4 != 0 {
                        continue;
                    }
                    let (result, _, failed) = attempt(Some(Fault { at, sticky: false, errno }));
                    tried += failed;
                    match result {
                        Ok(rewritten) => assert_eq!((failed, rewritten.digest), (0, whole.digest)),
                        Err(error) => {
                            assert_eq!(failed, 1);
                            let kind = if errno == ENOSPC { ErrorKind::NoSpace } else { ErrorKind::Io };
                            assert_eq!(error.kind(), kind, "operation {at}: {error}");
                        }
                    }
                }
            }
            assert!(tried > calls, "{tried} operations failed");
        }

        #[test]
        fn traps_stand_after_each_task_and_each_step_of_the_ingest() {
            let directory = tempfile::tempdir().unwrap();
            // Four files, and so as many tasks.
            let keys = model((0..7000).map(|at| format!("/dir{}/file-{at:05}", at % 7)));
            let source = database(&directory.path().join("source"), &Natural, &keys);
            let steps = [Trap::RewriteTaskDone, Trap::IngestDisjoint, Trap::IngestOverflow, Trap::IngestSettled];
            for (at, &trap) in steps.iter().enumerate() {
                let nth = if at == 0 { 3 } else { 1 };
                let plan = Arc::new(TrapPlan::new().with(trap, nth, TrapAction::Error(ErrorKind::Lost)));
                let vfs = RealVfs::with_traps(plan.clone());
                let staging = directory.path().join(format!("staging-{at}"));
                let pair: (&dyn KeyEncoding, &dyn KeyEncoding) = (&Natural, &Hierarchical);
                let rewritten = try_rewrite(&vfs, &source, pair, &staging, (TINY_MEMORY, 2, tiny()));
                let ended: Result<()> = rewritten.and_then(|rewritten| {
                    let database = Database::create(&staging, &settings(Comparator::Bytewise))?;
                    ingest(&vfs, &database, &rewritten, 3, &Reporter::silent())
                });
                assert_eq!(ended.map_err(|error: Error| error.kind()), Err(ErrorKind::Lost), "{trap:?}");
                let last_steps: Vec<Trap> = plan.hits().into_iter().filter(|hit| steps[1..].contains(hit)).collect();
                assert_eq!(last_steps, steps[1..=at.max(1)][..at]);
            }
        }
    }
}
