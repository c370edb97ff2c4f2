//! Conversions on real databases, held against a `BTreeMap`.

#[cfg(test)]
pub(super) mod tests {
    use crate::conversion::rewrite::Rewritten;
    use crate::conversion::rewrite::rewrite_tuned;
    use crate::conversion::verify::scan_with;
    use crate::conversion::{Content, Cuts, Reporter, Rewrite, Tuning, ingest, sorts_on_disk};
    use crate::encoding::{Comparator, Hierarchical, KeyEncoding, Natural, SlashSpans};
    use crate::error::{Error, ErrorKind, Result};
    use crate::fs::RealVfs;
    use crate::layout::{DATA_FAMILY, OUTPUT};
    use crate::rocks::{Compression, Database, Durability, Family, Settings, WriteBatch};
    use std::collections::BTreeMap;
    use std::path::Path;

    pub(in crate::conversion) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    /// Keys back to front: an order that goes with no other.
    #[derive(Debug)]
    pub(in crate::conversion) struct Reversed;

    impl KeyEncoding for Reversed {
        fn name(&self) -> &str {
            "reversed"
        }
        fn revision(&self) -> u32 {
            1
        }
        fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.extend(key.iter().rev());
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.extend(encoded.iter().rev());
            Ok(())
        }
    }

    /// Says that it has levels and sorts within them back to front: the hint that costs speed, never data.
    #[derive(Debug)]
    struct WrongHint;

    impl KeyEncoding for WrongHint {
        fn name(&self) -> &str {
            "wrong-hint"
        }
        fn revision(&self) -> u32 {
            1
        }
        fn encode(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
            out.extend_from_slice(&[0, key.len() as u8 % 3]);
            out.extend(key.iter().rev());
            Ok(())
        }
        fn decode(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
            let wrong = || Error::new(ErrorKind::Corrupt, "decode a key", "no level");
            let (level, rest) = encoded.split_first_chunk::<2>().ok_or_else(wrong)?;
            if *level != [0, rest.len() as u8 % 3] {
                return Err(wrong());
            }
            out.extend(rest.iter().rev());
            Ok(())
        }
        fn leveled(&self) -> bool {
            true
        }
    }

    /// Everything small, so that a few thousand keys go down every path.
    pub(in crate::conversion) fn tiny() -> Tuning {
        Tuning {
            task_bytes: (16 << 10, 16 << 10),
            file_bytes: 24 << 10,
            small_bytes: 2 << 10,
            sample_entries: 500,
            spill_bytes: 4 << 10,
            ..Tuning::default()
        }
    }

    pub(in crate::conversion) const TINY_MEMORY: u64 = 128 << 10;

    pub(in crate::conversion) fn settings(comparator: Comparator) -> Settings {
        Settings { comparator, compression: Compression::None, bulk: true, ..Settings::default() }
    }

    /// A database with these keys, written in an order of its own, opened read only.
    pub(in crate::conversion) fn database(path: &Path, encoding: &dyn KeyEncoding, model: &Model) -> Database {
        std::fs::create_dir(path).unwrap();
        let settings = settings(encoding.comparator());
        let database = Database::create(path, &settings).unwrap();
        let mut entries: Vec<(&Vec<u8>, &Vec<u8>)> = model.iter().collect();
        entries.sort_by_key(|(key, _)| xxhash_rust::xxh3::xxh3_64(key));
        for chunk in entries.chunks(2000) {
            let mut batch = WriteBatch::new();
            for (key, value) in chunk {
                let mut encoded = Vec::new();
                encoding.encode(key, &mut encoded).unwrap();
                batch.put(&database, Family::Data, &encoded, value).unwrap();
            }
            database.write(batch, Durability::NoWal).unwrap();
            database.flush().unwrap();
        }
        reopened(database)
    }

    /// Opened to be read.
    fn reopened(database: Database) -> Database {
        let (path, settings) = (database.path().to_path_buf(), database.settings().clone());
        database.close().unwrap();
        Database::open_read_only(&RealVfs::default(), &path, &settings).unwrap()
    }

    /// The same with each key in one place.
    pub(in crate::conversion) fn settled(database: Database) -> Database {
        let (path, settings) = (database.path().to_path_buf(), database.settings().clone());
        drop(database);
        let database = Database::open(&RealVfs::default(), &path, &settings).unwrap();
        database.compact(None, None).unwrap();
        reopened(database)
    }

    /// Rewrites and ingests, and checks all that is promised of the result.
    pub(in crate::conversion) fn convert(
        source: &Database,
        (from, to): (&dyn KeyEncoding, &dyn KeyEncoding),
        staging: &Path,
        (memory_bytes, threads, tuning): (u64, usize, Tuning),
        model: &Model,
    ) -> (Rewritten, Database) {
        let vfs = RealVfs::default();
        let settings = settings(Comparator::Bytewise);
        std::fs::create_dir(staging).unwrap();
        let progress = Reporter::silent();
        let job = Rewrite {
            vfs: &vfs,
            source,
            from,
            to,
            staging,
            settings: &settings,
            memory_bytes,
            threads,
            progress: &progress,
            recorder: None,
        };
        let rewritten = rewrite_tuned(&job, &tuning).unwrap();
        let leftover = std::fs::read_dir(staging.join(OUTPUT)).unwrap().count();
        assert_eq!(leftover, rewritten.disjoint.len() + rewritten.overflow.len(), "only the files are left");
        let database = Database::create(staging, &settings).unwrap();
        ingest(&vfs, &database, &rewritten, 3, &Reporter::silent()).unwrap();
        assert!(!staging.join(OUTPUT).exists());
        let files = database.live_files().unwrap();
        assert!(
            files.iter().filter(|file| file.family == DATA_FAMILY).all(|file| file.level == 6),
            "all at the bottom"
        );
        let mut expected: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut content = Content::default();
        for (key, value) in model {
            let mut encoded = Vec::new();
            to.encode(key, &mut encoded).unwrap();
            content.add(key, value);
            expected.push((encoded, value.clone()));
        }
        expected.sort();
        let mut cursor = database.cursor(Family::Data, false).unwrap();
        cursor.seek_first().unwrap();
        for (at, (key, value)) in expected.iter().enumerate() {
            assert!(cursor.entry() == Some((key, value)), "entry {at}");
            cursor.next().unwrap();
        }
        assert_eq!(cursor.entry(), None);
        drop(cursor);
        assert_eq!(Content { entries: rewritten.entries, digest: rewritten.digest }, content);
        for cut in [Cuts::AtFiles, Cuts::WithinFiles, Cuts::Every(5000)] {
            assert_eq!(scan_with(&database, to, 2, cut, &progress).unwrap(), content, "{cut:?}");
            assert_eq!(scan_with(source, from, 2, cut, &progress).unwrap(), content, "{cut:?}");
        }
        (rewritten, database)
    }

    pub(in crate::conversion) fn number(at: u64) -> u64 {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at >> 7)
    }

    pub(in crate::conversion) fn model(keys: impl IntoIterator<Item = String>) -> Model {
        let value = |at: u64| number(at).to_be_bytes().repeat(1 + at as usize % 12);
        keys.into_iter().enumerate().map(|(at, key)| (key.into_bytes(), value(at as u64))).collect()
    }

    fn shapes() -> Vec<(&'static str, Model)> {
        let letters = ["/", "/", "a", "b", "-", "0", "\u{1}", "z", "/b", "\0"];
        let random = |at: u64| -> String {
            let len = number(at) % 14;
            (0..len).map(|place| letters[(number(at * 64 + place) >> 20) as usize % letters.len()]).collect()
        };
        let mut big = model((0..300).map(|at| format!("/big/{at}")));
        big.insert(b"/big/100/".to_vec(), vec![7; 3 << 20]);
        big.insert(b"/big/11".to_vec(), vec![8; 1 << 20]);
        big.insert(vec![b'k'; 60_000], vec![9; 100_000]);
        vec![
            ("empty", Model::new()),
            ("one key", model(["/a/b".into()])),
            ("the empty key", model([String::new(), "a".into()])),
            (
                "one huge directory",
                model((0..4000).map(|at| match at % 40 {
                    0 => format!("/d{at}"),
                    1 => format!("/d-{at}/x"),
                    2 => format!("/d0/{at}"),
                    3 => format!("/c/{at}"),
                    4 => format!("/d/{at}/deeper"),
                    _ => format!("/d/file-{at:06}"),
                })),
            ),
            (
                "unpadded siblings",
                model((0..150).flat_map(|user| (0..40).map(move |at| format!("/users/{user}/item-{at}")))),
            ),
            (
                "unpadded siblings, large",
                model(
                    [1, 10, 100, 101, 11, 2]
                        .iter()
                        .flat_map(|user| (0..1200).map(move |at| format!("/u/{user}/{at:05}"))),
                ),
            ),
            ("one-key directories", model((0..4000).map(|at| format!("/x/{at}/k")))),
            ("hundreds of levels", model((0..3000).map(|at| format!("{}k{at}", "a/".repeat(at % 400))))),
            ("random", model((0..6000).map(random))),
            ("big values", big),
        ]
    }

    type Pair<'e> = (&'e dyn KeyEncoding, &'e dyn KeyEncoding);

    /// Each shape from one encoding into another and back, with next to no memory and many tasks.
    fn there_and_back((from, to): Pair<'_>, mut check: impl FnMut(&str, &Rewritten, &Rewritten)) {
        // What is settled is read from its files, the rest by RocksDB.
        for (name, model, settle) in
            shapes().into_iter().flat_map(|(name, model)| [(name, model.clone(), false), (name, model, true)])
        {
            let directory = tempfile::tempdir().unwrap();
            let (there, back) = (directory.path().join("there"), directory.path().join("back"));
            let mut source = database(&directory.path().join("source"), from, &model);
            if settle {
                source = settled(source);
            }
            let means = (TINY_MEMORY, 2, tiny());
            let (first, mut converted) = convert(&source, (from, to), &there, means, &model);
            if settle {
                converted = reopened(converted);
            }
            let (second, _) = convert(&converted, (to, from), &back, means, &model);
            check(name, &first, &second);
            if settle {
                // With room for a window of each level these are read from their files, too.
                let again = directory.path().join("again");
                convert(&converted, (to, from), &again, (64 << 20, 2, tiny()), &model);
            }
        }
    }

    #[test]
    fn natural_to_hierarchical_and_back() {
        there_and_back((&Natural, &Hierarchical), |name, there, back| {
            // However the directories swap, whatever the memory: nothing comes late in these orders.
            assert_eq!((there.overflow_entries, back.overflow_entries), (0, 0), "{name}");
            if there.entries > 1000 {
                assert!(there.disjoint.len() > 5 && back.disjoint.len() > 5, "{name}: files are cut and tasks divided");
            }
            if ["hundreds of levels", "random"].contains(&name) {
                assert!(there.bytes_spilled > 0, "{name}: levels too small for a run share spill files");
            }
        });
    }

    #[test]
    fn slash_spans_to_hierarchical() {
        for (name, model) in shapes() {
            let directory = tempfile::tempdir().unwrap();
            let source = database(&directory.path().join("source"), &SlashSpans, &model);
            let means = (TINY_MEMORY, 2, tiny());
            let pair: Pair<'_> = (&SlashSpans, &Hierarchical);
            let (rewritten, _) = convert(&source, pair, &directory.path().join("there"), means, &model);
            assert_eq!(rewritten.overflow_entries, 0, "{name}");
        }
    }

    #[test]
    fn orders_that_do_not_go_together_are_sorted_on_disk() {
        assert!(sorts_on_disk(&Natural, &Reversed) && sorts_on_disk(&Reversed, &Hierarchical));
        assert!(sorts_on_disk(&SlashSpans, &Natural) && !sorts_on_disk(&Hierarchical, &Natural));
        there_and_back((&Natural, &Reversed), |name, there, back| {
            assert_eq!((there.overflow_entries, back.overflow_entries), (0, 0), "{name}: a sort leaves nothing over");
            assert_eq!(there.bytes_spilled > 0, there.entries > 10, "{name}");
        });
    }

    #[test]
    fn a_wrong_hint_costs_speed_and_no_data() {
        let mut overflowed = 0;
        there_and_back((&Natural, &WrongHint), |_, there, back| {
            overflowed += usize::from(there.overflow_entries > 0) + usize::from(back.overflow_entries > 0);
        });
        assert!(overflowed > 8, "{overflowed} conversions had an overflow");
    }

    #[test]
    fn runs_are_given_up_when_too_much_comes_late() {
        let model = model((0..20_000).map(|at| format!("{:016x}", number(at))));
        let directory = tempfile::tempdir().unwrap();
        let source = database(&directory.path().join("source"), &Natural, &model);
        // One large task, so that what comes late is seen while there is still much to read.
        let tuning = Tuning { task_bytes: (64 << 20, 64 << 20), ..tiny() };
        let pair: Pair<'_> = (&Natural, &WrongHint);
        let (rewritten, _) =
            convert(&source, pair, &directory.path().join("there"), (4 * TINY_MEMORY, 1, tuning), &model);
        assert!(
            rewritten.overflow_entries > 0 && rewritten.overflow_entries < rewritten.entries / 4,
            "{}",
            rewritten.overflow_entries
        );
        assert!(rewritten.bytes_spilled > rewritten.bytes_read / 8, "compressed, they are shorter");
    }

    #[test]
    fn with_memory_to_spare_a_small_database_is_one_file() {
        let (_, model) = shapes().swap_remove(3);
        let directory = tempfile::tempdir().unwrap();
        let source = database(&directory.path().join("source"), &Natural, &model);
        let means = (64 << 20, 4, Tuning::default());
        let pair: Pair<'_> = (&Natural, &Hierarchical);
        let (rewritten, _) = convert(&source, pair, &directory.path().join("there"), means, &model);
        assert_eq!((rewritten.disjoint.len(), rewritten.overflow.len(), rewritten.bytes_spilled), (1, 0, 0));
        let logical: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(rewritten.bytes_read, logical as u64);
        assert_eq!(rewritten.bytes_written, rewritten.disjoint[0].bytes);
    }

    #[test]
    fn whatever_the_memory_threads_and_sizes() {
        let parts = ["/", "/", "/a", "b", "-", "0", "1", "10", "/x", "z", "/1"];
        for seed in 0..12_u64 {
            let random = |at: u64| number(seed * 1_000_003 + at) >> 16;
            let key = |at: u64| -> String {
                (0..1 + random(at) % 9)
                    .map(|place| parts[(random(at * 16 + place) >> 3) as usize % parts.len()])
                    .collect()
            };
            let model = model((0..1500).map(key));
            let tuning = Tuning {
                task_bytes: (1 << (12 + random(1) % 6), 1 << (12 + random(1) % 6)),
                file_bytes: 1 << (12 + random(2) % 8),
                small_bytes: 1 << (6 + random(3) % 8),
                sample_entries: 100 << (random(4) % 8),
                spill_bytes: 1 << (8 + random(8) % 8),
                ..Tuning::default()
            };
            let means = (1 << (12 + random(5) % 10), 1 + random(6) as usize % 3, tuning);
            let directory = tempfile::tempdir().unwrap();
            let source = database(&directory.path().join("source"), &SlashSpans, &model);
            let (there, back) = (directory.path().join("there"), directory.path().join("back"));
            let (_, mut hierarchical) = convert(&source, (&SlashSpans, &Hierarchical), &there, means, &model);
            if random(7) % 2 == 0 {
                hierarchical = reopened(hierarchical);
            }
            convert(&hierarchical, (&Hierarchical, &Natural), &back, means, &model);
        }
    }
}
