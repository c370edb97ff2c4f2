//! Conversions on real databases, held against a `BTreeMap`.

#[cfg(test)]
mod tests {
    use crate::conversion::ingest::ingest;
    use crate::conversion::rewrite::{Rewrite, Rewritten, Tuning, rewrite_tuned};
    use crate::conversion::verify::{Cuts, scan_with};
    use crate::conversion::*;
    use crate::encoding::{Comparator, Hierarchical, KeyEncoding, Natural, SlashSpans};
    use crate::error::{Error, ErrorKind, Result};
    use crate::fs::RealVfs;
    use crate::layout::{DATA_FAMILY, OUTPUT};
    use crate::rocks::{Compression, Database, Durability, Family, Settings, WriteBatch};
    use std::collections::BTreeMap;
    use std::path::Path;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    /// Keys back to front: an order that goes with no other.
    #[derive(Debug)]
    struct Reversed;

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
    fn tiny() -> Tuning {
        Tuning { task_bytes: (16 << 10, 16 << 10), file_bytes: 24 << 10, small_bytes: 2 << 10, sample_entries: 500 }
    }

    const TINY_MEMORY: u64 = 128 << 10;

    fn settings(comparator: Comparator) -> Settings {
        Settings { comparator, compression: Compression::None, bulk: true, ..Settings::default() }
    }

    /// A database with these keys, written in an order of its own, opened read only.
    fn database(path: &Path, encoding: &dyn KeyEncoding, model: &Model) -> Database {
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
        database.close().unwrap();
        Database::open_read_only(&RealVfs::default(), path, &settings).unwrap()
    }

    /// Rewrites and ingests, and checks all that is promised of the result.
    fn convert(
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
        };
        let rewritten = rewrite_tuned(&job, &tuning).unwrap();
        let leftover = std::fs::read_dir(staging.join(OUTPUT)).unwrap().count();
        assert_eq!(leftover, rewritten.disjoint.len() + rewritten.overflow.len(), "only the files are left");
        let database = Database::create(staging, &settings).unwrap();
        ingest(&vfs, &database, &rewritten).unwrap();
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

    fn number(at: u64) -> u64 {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at >> 7)
    }

    fn model(keys: impl IntoIterator<Item = String>) -> Model {
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

    #[test]
    #[ignore = "for exploring"]
    fn explore() {
        for (name, model) in shapes() {
            for (memory, threads, tuning) in [(TINY_MEMORY, 2, tiny()), (64 << 20, 1, Tuning::default())] {
                let directory = tempfile::tempdir().unwrap();
                let began = std::time::Instant::now();
                let natural = database(&directory.path().join("n"), &Natural, &model);
                let made = began.elapsed();
                let (there, hierarchical) = convert(
                    &natural,
                    (&Natural, &Hierarchical),
                    &directory.path().join("h"),
                    (memory, threads, tuning),
                    &model,
                );
                let t1 = began.elapsed();
                let (back, _) = convert(
                    &hierarchical,
                    (&Hierarchical, &Natural),
                    &directory.path().join("b"),
                    (memory, threads, tuning),
                    &model,
                );
                let t2 = began.elapsed();
                let spans = database(&directory.path().join("s"), &SlashSpans, &model);
                let (from_spans, _) = convert(
                    &spans,
                    (&SlashSpans, &Hierarchical),
                    &directory.path().join("sh"),
                    (memory, threads, tuning),
                    &model,
                );
                let (rev, _) = convert(
                    &natural,
                    (&Natural, &Reversed),
                    &directory.path().join("r"),
                    (memory, threads, tuning),
                    &model,
                );
                let (hint, hinted) = convert(
                    &natural,
                    (&Natural, &WrongHint),
                    &directory.path().join("w"),
                    (memory, threads, tuning),
                    &model,
                );
                let (unhint, _) = convert(
                    &hinted,
                    (&WrongHint, &Natural),
                    &directory.path().join("w2"),
                    (memory, threads, tuning),
                    &model,
                );
                println!(
                    "{name} ({} keys): made {made:?} {:?} {:?} all {:?}",
                    model.len(),
                    t1 - made,
                    t2 - t1,
                    began.elapsed()
                );
                for r in [there, back, from_spans, rev, hint, unhint] {
                    println!(
                        "   disjoint {} overflow {} late {} of {} bytes {}",
                        r.disjoint.len(),
                        r.overflow.len(),
                        r.overflow_entries,
                        r.entries,
                        r.bytes_written
                    );
                }
            }
        }
    }
}
