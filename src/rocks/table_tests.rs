//! Files that are read without RocksDB, against what RocksDB reads; and everything that is left to it.

use super::table::{Handle, Index, Table, Window, named};
use super::table_cursor::TableFiles;
use super::wal_tests::Random;
use super::{Compression, Database, Durability, Family, Settings, SstOptions, SstWriter};
use crate::error::{ErrorKind, Result};
use crate::fs::RealVfs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Numbers as the tests here need them.
struct Numbers(Random);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }

    fn bytes_below(&mut self, bound: usize) -> Vec<u8> {
        let len = self.below(bound);
        self.bytes(len)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn vfs() -> &'static RealVfs {
    Box::leak(Box::new(RealVfs::default()))
}

/// What is read without RocksDB; none if it is left to RocksDB.
fn read(files: &TableFiles<'_>, start: &[u8], end: Option<&[u8]>, read_bytes: usize) -> Result<Option<Entries>> {
    let Some(mut cursor) = files.cursor(start, end, read_bytes)? else { return Ok(None) };
    let mut entries = Entries::new();
    loop {
        match cursor.advance() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert!(cursor.advance().is_err() && cursor.advance().is_err(), "an error stays one");
                return Err(error);
            }
        }
        let (key, value) = cursor.entry();
        entries.push((key.to_vec(), value.to_vec()));
    }
    assert!(!cursor.advance()?, "beyond the end it stays there");
    Ok(Some(entries))
}

fn read_all(database: &Database) -> Result<Option<Entries>> {
    TableFiles::of(vfs(), database)?.map_or(Ok(None), |files| read(&files, b"", None, 1 << 20))
}

fn of_rocks(database: &Database, start: &[u8], end: Option<&[u8]>) -> Entries {
    let mut cursor = database.cursor_ahead(Family::Data, false, 0, end).unwrap();
    cursor.seek(start).unwrap();
    let mut entries = Entries::new();
    while let Some((key, value)) = cursor.entry() {
        entries.push((key.to_vec(), value.to_vec()));
        cursor.next().unwrap();
    }
    entries
}

/// Entries of many shapes: short keys and long ones, much and little in common, values of all sizes.
fn some_entries(random: &mut Numbers, count: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..count)
        .map(|_| {
            let mut key = Vec::new();
            for _ in 0..random.below(6) {
                key.extend_from_slice([&b"a/"[..], b"b", b"\xff", b"\0", b"directory/"][random.below(5)]);
            }
            match random.below(20) {
                0 => key.resize(key.len() + random.below(700), b'k'),
                1 => key.extend(random.bytes_below(40)),
                _ => key.extend_from_slice(random.below(count).to_string().as_bytes()),
            }
            let value_bytes = match random.below(100) {
                0 => random.below(60_000),
                1..10 => random.below(3000),
                _ => random.below(200),
            };
            let value = if random.below(2) == 0 { random.bytes(value_bytes) } else { vec![b'v'; value_bytes] };
            (key, value)
        })
        .collect()
}

/// A database that has the entries in several files at the bottom, opened to be read.
fn settled(path: &Path, entries: &BTreeMap<Vec<u8>, Vec<u8>>, files: usize, settings: &Settings) -> Database {
    std::fs::create_dir(path).unwrap();
    let database = Database::create(path, settings).unwrap();
    let options = SstOptions::new(settings);
    let mut paths: Vec<PathBuf> = Vec::new();
    let all: Vec<_> = entries.iter().collect();
    for part in all.chunks(all.len().div_ceil(files).max(1)) {
        let file = path.join(format!("{}.tmp", paths.len()));
        let mut writer = SstWriter::create(&options, &file).unwrap();
        part.iter().for_each(|(key, value)| writer.put(key, value).unwrap());
        paths.push(writer.finish().unwrap());
    }
    database.ingest(&paths).unwrap();
    database.close().unwrap();
    Database::open_read_only(vfs(), path, settings).unwrap()
}

#[test]
fn any_part_of_any_files_is_what_rocksdb_reads() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Numbers(Random(1));
    let mut parts = 0;
    for round in 0..24 {
        let compression = if round % 4 == 0 { Compression::None } else { Compression::Lz4 };
        // Where the file system has reads past the page cache: elsewhere such a database does not open.
        let settings = Settings { compression, ..Settings::default() };
        let entries = some_entries(&mut random, [1, 7, 300, 3000][round % 4]);
        let path = directory.path().join(round.to_string());
        let mut database = settled(&path, &entries, 1 + round % 5, &settings);
        let direct = Settings { direct_reads: true, ..settings };
        if let Some(opened) = Database::open_read_only(vfs(), &path, &direct).ok().filter(|_| round % 2 == 1) {
            database = opened;
        }
        let files = TableFiles::of(vfs(), &database).unwrap().unwrap();
        let keys: Vec<_> = entries.keys().collect();
        assert_eq!(read_all(&database).unwrap().unwrap(), of_rocks(&database, b"", None));
        for _ in 0..40 {
            let mut bound = || match random.below(4) {
                0 => random.bytes_below(4),
                1 => [keys[random.below(keys.len())].as_slice(), b"\0"].concat(),
                2 => keys[random.below(keys.len())][..].split_last().map_or(Vec::new(), |(_, rest)| rest.to_vec()),
                _ => keys[random.below(keys.len())].clone(),
            };
            let (start, end) = (bound(), Some(bound()).filter(|end| !end.is_empty()));
            let read_bytes = [0, 100, 5000, 1 << 20][parts % 4];
            let found = read(&files, &start, end.as_deref(), read_bytes).unwrap().unwrap();
            assert!(found == of_rocks(&database, &start, end.as_deref()), "{round} {start:?} {end:?}");
            parts += 1;
        }
    }
    assert_eq!(parts, 24 * 40);
}

#[test]
fn of_several_versions_the_newest_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    std::fs::create_dir(&path).unwrap();
    let database = Database::create(&path, &Settings::default()).unwrap();
    let put = |round: u8| {
        for number in 0..2000_u16 {
            let key = number.to_be_bytes();
            // Some keys are written once, so that versions lie on either side of a block's border, or not.
            if round == 0 || number % 3 > 0 {
                database.put(Family::Data, &key, &[round; 40], Durability::Buffered).unwrap();
            }
        }
    };
    // RocksDB keeps what snapshots may ask for.
    put(0);
    let first = database.snapshot();
    put(1);
    let second = database.snapshot();
    put(2);
    database.flush().unwrap();
    drop((first, second));
    database.close().unwrap();
    let database = Database::open_read_only(vfs(), &path, &Settings::default()).unwrap();
    assert!(database.table_figures().unwrap().entries > 4500, "older versions are in the file");
    let found = read_all(&database).unwrap().unwrap();
    assert_eq!((found.len(), &found), (2000, &of_rocks(&database, b"", None)));
}

#[test]
fn pieces_are_of_like_size_and_lie_between_directories() {
    let directory = tempfile::tempdir().unwrap();
    let name = |number: u32| format!("tenants/{:02}/objects/{:05}", number / 1000, number % 1000).into_bytes();
    let mut random = Numbers(Random(3));
    let entries = (0..50_000).map(|number| (name(number), random.bytes(20))).collect();
    let database = settled(&directory.path().join("db"), &entries, 1, &Settings::default());
    let files = TableFiles::of(vfs(), &database).unwrap().unwrap();
    let file = &database.live_files().unwrap()[0];
    let pieces = files.pieces(file, file.bytes / 10).unwrap().unwrap();
    assert!((8..=15).contains(&pieces.len()), "{}", pieces.len());
    assert_eq!(pieces[0].position, file.smallest);
    assert!(
        pieces.windows(2).all(|pair| pair[0].position < pair[1].position)
            && pieces[pieces.len() - 1].position <= file.largest
    );
    for super::Piece { position, bytes } in &pieces[1..] {
        assert!(position.len() <= "tenants/00".len(), "{}", String::from_utf8_lossy(position));
        assert!(*bytes >= file.bytes / 25 && *bytes <= file.bytes / 5, "{bytes} of {}", file.bytes);
    }
    let one = files.pieces(file, u64::MAX / 2).unwrap().unwrap();
    assert_eq!(one.len(), 1);
}

/// A database of another make, with two families as ours; opened to be read.
fn of_others(path: &Path, change: impl Fn(&mut rocksdb::Options, &mut rocksdb::BlockBasedOptions)) -> Database {
    let (mut options, mut table) = (rocksdb::Options::default(), rocksdb::BlockBasedOptions::default());
    options.create_if_missing(true);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    table.set_format_version(5);
    change(&mut options, &mut table);
    options.set_block_based_table_factory(&table);
    let database = rocksdb::DB::open(&options, path).unwrap();
    for number in 0..3000_u16 {
        database.put(number.to_be_bytes(), [b'v'; 50]).unwrap();
    }
    database.flush().unwrap();
    drop(database);
    Database::open_read_only(vfs(), path, &Settings::default()).unwrap()
}

#[test]
fn what_is_not_known_is_left_to_rocksdb() {
    use rocksdb::{BlockBasedIndexType, ChecksumType, DBCompressionType, DataBlockIndexType};
    type Change = fn(&mut rocksdb::Options, &mut rocksdb::BlockBasedOptions);
    let changes: [(&str, bool, Change); 12] = [
        ("nothing", true, |_, _| {}),
        ("no compression", true, |options, _| options.set_compression_type(DBCompressionType::None)),
        ("small blocks", true, |_, table| table.set_block_size(500)),
        ("an index with fewer restarts", true, |_, table| table.set_index_block_restart_interval(7)),
        ("no filter, other restarts", true, |_, table| table.set_block_restart_interval(1)),
        ("zstd", false, |options, _| options.set_compression_type(DBCompressionType::Zstd)),
        ("version 6", false, |_, table| table.set_format_version(6)),
        ("version 4", false, |_, table| table.set_format_version(4)),
        ("another checksum", false, |_, table| table.set_checksum_type(ChecksumType::CRC32c)),
        ("an index of hashes", false, |_, table| table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash)),
        ("an index in parts", false, |_, table| table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch)),
        ("a dictionary", false, |options, _| {
            options.set_bottommost_compression_type(DBCompressionType::Lz4);
            options.set_compression_options(-14, 32767, 0, 4096);
        }),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (number, (what, is_read, change)) in changes.into_iter().enumerate() {
        let database = of_others(&directory.path().join(number.to_string()), change);
        let found = read_all(&database).unwrap();
        assert_eq!(found.is_some(), is_read, "{what}");
        let theirs = of_rocks(&database, b"", None);
        assert_eq!(found.unwrap_or_else(|| theirs.clone()), theirs, "{what}");
    }
}

#[test]
fn where_a_key_may_be_in_several_places_rocksdb_reads() {
    let directory = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut reads = |what: &str, change: &dyn Fn(&Database)| {
        number += 1;
        let path = directory.path().join(number.to_string());
        std::fs::create_dir(&path).unwrap();
        let database = Database::create(&path, &Settings::default()).unwrap();
        database.put(Family::Data, b"b", b"1", Durability::Sync).unwrap();
        database.put(Family::Data, b"d", b"1", Durability::Sync).unwrap();
        database.flush().unwrap();
        change(&database);
        let written = TableFiles::of(vfs(), &database).unwrap().unwrap();
        assert_eq!(read(&written, b"", None, 0).unwrap(), None, "{what}: somebody may write");
        database.close().unwrap();
        let database = Database::open_read_only(vfs(), &path, &Settings::default()).unwrap();
        let files = TableFiles::of(vfs(), &database).unwrap().unwrap();
        let all = read(&files, b"", None, 0).unwrap();
        let theirs = of_rocks(&database, b"", None);
        assert!(all.as_ref().is_none_or(|all| *all == theirs), "{what}");
        (all.is_some(), read(&files, b"m", None, 0).unwrap().is_some())
    };
    let put = |database: &Database, key: &[u8]| database.put(Family::Data, key, b"2", Durability::Sync).unwrap();
    assert_eq!(reads("one file", &|_| ()), (true, true));
    assert_eq!(reads("a memtable", &|database| put(database, b"z")), (false, false));
    let of_another_family = |database: &Database| database.put(Family::Internal, b"x", b"2", Durability::Sync).unwrap();
    assert_eq!(reads("a memtable of the other family", &of_another_family), (true, true));
    let file_behind = |database: &Database| {
        put(database, b"z");
        database.flush().unwrap();
    };
    assert_eq!(reads("two files, one behind the other", &file_behind), (true, true));
    let overlapping = |database: &Database| {
        put(database, b"c");
        database.flush().unwrap();
    };
    assert_eq!(reads("two files that overlap", &overlapping), (false, true));
    let touching = |database: &Database| {
        put(database, b"d");
        put(database, b"e");
        database.flush().unwrap();
    };
    assert_eq!(reads("a key in two files", &touching), (false, true));
    let deleted = |database: &Database| {
        database.delete(Family::Data, b"y", Durability::Sync).unwrap();
        database.flush().unwrap();
    };
    assert_eq!(reads("a deletion of nothing", &deleted), (false, false));
    let ranges = |database: &Database| {
        let mut batch = super::WriteBatch::new();
        batch.delete_range(database, Family::Data, b"x", b"y").unwrap();
        database.write(batch, Durability::Sync).unwrap();
        database.flush().unwrap();
    };
    assert_eq!(reads("a deletion of a range", &ranges), (false, false));
}

/// A database of one small file with several blocks.
fn small(directory: &Path) -> (Database, PathBuf, Entries) {
    let entries = (0..600_u16).map(|number| (number.to_be_bytes().to_vec(), vec![number as u8; 100])).collect();
    let database = settled(&directory.join("db"), &entries, 1, &Settings::default());
    let file = directory.join("db").join(&database.live_files().unwrap()[0].name);
    (database, file, entries.into_iter().collect())
}

#[test]
fn a_damaged_file_is_an_error_or_left_to_rocksdb() {
    let directory = tempfile::tempdir().unwrap();
    let (database, path, entries) = small(directory.path());
    let whole = std::fs::read(&path).unwrap();
    let files = TableFiles::of(vfs(), &database).unwrap().unwrap();
    let (mut errors, mut left) = (0, 0);
    let mut check = |what: String| match read(&files, b"", None, 1 << 20) {
        Ok(Some(found)) => assert_eq!(found, entries, "{what}"),
        Ok(None) => left += 1,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
            errors += 1;
        }
    };
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&path, damaged).unwrap();
        check(format!("a bit of byte {at} of {}", whole.len()));
    }
    for len in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..len]).unwrap();
        check(format!("the first {len} bytes of {}", whole.len()));
    }
    assert!(errors > whole.len() / 2 && left > 10, "{errors} errors, {left} left to RocksDB, of {} bytes", whole.len());
}

/// Where the blocks of the small file are.
fn blocks(path: &Path) -> Vec<Handle> {
    let bytes = std::fs::metadata(path).unwrap().len();
    let table = Table::open(vfs(), false, path.to_path_buf(), bytes).unwrap().unwrap();
    let (mut window, mut index, mut blocks) = (Window::new(vfs(), false, 0), Index::default(), vec![table.index]);
    index.load(&table, &mut window).unwrap();
    while index.next(&table).unwrap() {
        blocks.push(index.handle);
    }
    blocks
}

/// With checksums that fit: what RocksDB never writes.
#[test]
fn no_block_makes_it_panic_and_no_index_leaves_out_a_block() {
    let directory = tempfile::tempdir().unwrap();
    let (database, path, entries) = small(directory.path());
    let whole = std::fs::read(&path).unwrap();
    let files = TableFiles::of(vfs(), &database).unwrap().unwrap();
    let blocks = blocks(&path);
    assert!(blocks.len() > 3, "{blocks:?}");
    let (mut errors, mut others) = (0, 0);
    for (number, handle) in blocks.into_iter().enumerate() {
        let (begin, end) = (handle.offset as usize, (handle.offset + handle.bytes) as usize);
        for (at, bits) in (begin..=end).map(|at| (at, 1 << (at % 8))) {
            let mut bent = whole.clone();
            bent[at] ^= bits;
            let kind = u32::from(bent[end]);
            let sum = xxhash_rust::xxh3::xxh3_64(&bent[begin..end]) as u32 ^ kind.wrapping_mul(0x6b90_83d9);
            bent[end + 1..end + 5].copy_from_slice(&sum.to_le_bytes());
            std::fs::write(&path, bent).unwrap();
            match read(&files, b"", None, 1 << 20) {
                Ok(Some(found)) => {
                    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
                    // Two keys may have become one; but the index is the first of the blocks.
                    assert!(found.len() <= entries.len() && (number > 0 || found == entries), "byte {at}");
                    others += 1;
                }
                Ok(None) => others += 1,
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}");
                    errors += 1;
                }
            }
        }
    }
    assert!(errors > 100 && others > 100, "{errors} {others}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (database, path, _) = small(directory.path());
    let files = TableFiles::of(vfs(), &database).unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(read(&files, b"", None, 0).is_err());
    std::fs::create_dir(&path).unwrap();
    assert!(read(&files, b"", None, 0).is_err());
}

#[test]
fn a_short_block_makes_no_long_names() {
    // A name of 500,000 bytes, and 100,000 names that share all of it, in 0.8 MB: would be 50 GB.
    let mut block = vec![0, 0xa0, 0xc2, 0x1e, 0];
    block.resize(block.len() + 500_000, b'n');
    (0..100_000).for_each(|_| block.extend_from_slice(&[0xa0, 0xc2, 0x1e, 0, 0]));
    block.extend_from_slice(&[0, 1, 1, b'a', b'v']);
    block.extend_from_slice(&[0; 4]);
    assert_eq!(named(&block).unwrap(), [(b"a".to_vec(), &b"v"[..])]);
}
