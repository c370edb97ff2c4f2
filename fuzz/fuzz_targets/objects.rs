//! Any bytes as HEAD, as a list of doomed objects, and as what the workers of a compaction tell each other: what is accepted means the
//! same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv::log_backup::compaction::{
    END_BYTES_MAX, End, RESULT_BYTES_MAX, SPEC_BYTES_MAX, ShardResult, Spec, to_bytes,
};
use morphkv::log_backup::doom::DoomList;
use morphkv::log_backup::head::Head;
use morphkv::log_backup::names;
use uuid::Uuid;

fuzz_target!(|data: &[u8]| {
    check(data);
    // With a checksum that fits, the parser behind it is reached.
    let mut line = data.to_vec();
    line.retain(|&byte| byte != b'\n');
    line.push(b'\n');
    let checksum = format!("{:08x}\n", crc32fast::hash(&line));
    line.extend_from_slice(checksum.as_bytes());
    check(&line);
});

fn check(bytes: &[u8]) {
    let name = names::head();
    if let Ok(read) = Spec::from_bytes(bytes) {
        let written = to_bytes(&name, &read, SPEC_BYTES_MAX).expect("it was read").0;
        assert_eq!(Spec::from_bytes(&written).expect("it was written"), read);
        assert_eq!((read.segments(1).start, read.segments(read.shards).end), (read.first_segment, read.end_segment));
    }
    if let Ok(read) = ShardResult::from_bytes(bytes) {
        let written = to_bytes(&name, &read, RESULT_BYTES_MAX).expect("it was read").0;
        assert_eq!(ShardResult::from_bytes(&written).expect("it was written"), read);
    }
    if let Ok(read) = End::from_bytes(bytes) {
        let written = to_bytes(&name, &read, END_BYTES_MAX).expect("it was read").0;
        assert_eq!(End::from_bytes(&written).expect("it was written"), read);
        let without_results = End::of(&read.spec, &[]).expect("there is none that is another's");
        assert!(without_results.failure.is_some());
    }
    if let Ok(read) = DoomList::from_bytes(bytes) {
        let written = read.to_bytes().expect("it was read");
        assert_eq!(DoomList::from_bytes(&written).expect("it was written"), read);
    }
    if let Ok(read) = Head::from_bytes(bytes) {
        let written = read.to_bytes().expect("it was read");
        assert_eq!(Head::from_bytes(&written).expect("it was written"), read);
        let next = read.clone().committed(Uuid::nil(), &read);
        assert!(next.is_err() || next.is_ok_and(|next| next.to_bytes().is_ok()));
    }
}
