//! Any bytes as the migrations in the HEAD of an archive, and as the operations of a compaction: what is accepted means the same when it is
//! written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv_fuzz::log_backup::migration::Migrations;
use morphkv_fuzz::log_backup::net_effect::{operations_from_bytes, operations_to_bytes};
use morphkv_fuzz::rocks::batch_decoder::Operation;

fuzz_target!(|data: &[u8]| {
    migrations(data);
    operations(data);
    let empty = operations_to_bytes(std::iter::empty()).expect("it is short");
    // Its head, then a batch of none: sequence number and count; its checksum.
    let mut written = empty[..empty.len() - 16].to_vec();
    written.extend_from_slice(data);
    let checksum = crc32fast::hash(&written).to_le_bytes();
    written.extend_from_slice(&checksum);
    operations(&written);
});

fn operations(bytes: &[u8]) {
    let Ok(batch) = operations_from_bytes(bytes) else { return };
    let Ok(read) = batch.operations().collect::<Result<Vec<_>, _>>() else { return };
    let read: Vec<_> =
        read.into_iter().filter(|operation| !matches!(operation, Operation::LogData(_) | Operation::Noop)).collect();
    let written = operations_to_bytes(read.iter().copied()).expect("it was read");
    let again = operations_from_bytes(&written).expect("it was written");
    let again: Vec<_> = again.operations().map(|operation| operation.expect("it was written")).collect();
    assert_eq!(again, read);
}

/// HEAD is this behind its checksum, with timelines.
fn migrations(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<Migrations>(bytes) else { return };
    if read.check().is_err() {
        return;
    }
    let written = serde_json::to_vec(&read).expect("it was read");
    assert_eq!(serde_json::from_slice::<Migrations>(&written).expect("it was written"), read);
    let merged = read.merged().expect("it was checked");
    assert_eq!(merged.merge(&merged).expect("it is the same"), merged);
}
