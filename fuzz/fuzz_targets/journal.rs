//! Any bytes as a journal: what is accepted means the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv_fuzz::place::journal;

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
    if let Ok(journal) = journal::from_bytes(bytes) {
        assert_eq!(journal.format, journal::JOURNAL_FORMAT);
        let again = journal::from_bytes(&journal::to_bytes(&journal).expect("it was read")).expect("it was written");
        assert_eq!(again, journal);
    }
}
