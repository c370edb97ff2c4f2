//! Any bytes as an SST file, with checksums that fit: nothing panics, no block is read twice, and none is left out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv_fuzz::error::ErrorKind;
use morphkv_fuzz::memory::Files;
use morphkv_fuzz::rocks::read_table;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|data: &[u8]| {
    let Some((&[shape, cuts @ ..], rest)) = data.split_first_chunk::<4>() else { return };
    let file = built(shape, cuts, rest);
    let len = file.len() as u64;
    match read_table(&Files([("table".into(), file)].into()), Path::new("table"), len) {
        Ok(Some((_, blocks, in_pieces))) => assert!(blocks <= len / 5 && in_pieces <= len),
        Ok(None) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
    }
    // The bytes as they came.
    let _ = read_table(&Files([("table".into(), rest.to_vec())].into()), Path::new("table"), rest.len() as u64);
});

/// A file whose data and index are parts of `bytes`, and whose properties are as RocksDB writes them, but for those that
/// `shape` changes.
fn built(shape: u8, cuts: [u8; 3], bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut rest = bytes;
    let mut part = |share: u8| {
        let (part, after) = rest.split_at(rest.len() * usize::from(share) / 255);
        rest = after;
        part.to_vec()
    };
    let (first, second, index) = (part(cuts[0]), part(cuts[1]), part(cuts[2]));
    let first = add(&mut file, shape & 1, closed(first));
    let second = add(&mut file, shape >> 1 & 1, closed(second));
    let index = if shape & 4 == 0 {
        // Both blocks, each with a key.
        closed([entry(b"k", &first), entry(b"n", &second)].concat())
    } else {
        closed(index)
    };
    let index = add(&mut file, 0, index);
    let flags = [shape >> 3 & 1, shape >> 4 & 1];
    let properties = [
        entry(b"rocksdb.block.based.table.index.type", &[0; 4]),
        entry(b"rocksdb.comparator", b"leveldb.BytewiseComparator"),
        entry(b"rocksdb.compression", b"LZ4"),
        entry(b"rocksdb.deleted.keys", &[0]),
        entry(b"rocksdb.index.key.is.user.key", &flags[..1]),
        entry(b"rocksdb.index.value.is.delta.encoded", &flags[1..]),
        entry(b"rocksdb.merge.operands", &[0]),
        entry(b"rocksdb.num.entries", &[7]),
        entry(b"rocksdb.num.range-deletions", &[0]),
        if shape & 32 == 0 { Vec::new() } else { rest.to_vec() },
    ];
    let properties = add(&mut file, 0, closed(properties.concat()));
    let names = [entry(b"rocksdb.properties", &properties), if shape & 64 == 0 { Vec::new() } else { rest.to_vec() }];
    let metaindex = add(&mut file, 0, closed(names.concat()));
    let mut handles = [metaindex, index].concat();
    handles.resize(40, 0);
    file.push(4);
    file.extend_from_slice(&handles);
    file.extend_from_slice(&5_u32.to_le_bytes());
    file.extend_from_slice(&0x88e2_41b7_85f4_cff7_u64.to_le_bytes());
    file
}

/// An entry that shares nothing with the one before.
fn entry(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0, key.len() as u8, value.len() as u8], key, value].concat()
}

/// With one place of a restart.
fn closed(mut entries: Vec<u8>) -> Vec<u8> {
    entries.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    entries
}

/// Adds a block, compressed if `lz4` is 1 (whatever its bytes then mean), and gives its handle.
fn add(file: &mut Vec<u8>, lz4: u8, block: Vec<u8>) -> Vec<u8> {
    let handle = [varint(file.len() as u64), varint(block.len() as u64)].concat();
    let kind = lz4 * 4;
    let sum = xxh3_64(&block) as u32 ^ u32::from(kind).wrapping_mul(0x6b90_83d9);
    file.extend_from_slice(&block);
    file.push(kind);
    file.extend_from_slice(&sum.to_le_bytes());
    handle
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
