//! Any bytes as a marker, and as the identity inside a database: what is accepted was written so, to the byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv_fuzz::control;
use morphkv_fuzz::marker::{self, Identity, Marker};

fuzz_target!(|data: &[u8]| {
    if let Ok(marker) = marker::from_bytes(data) {
        // serde accepts white space and other orders of fields, which we never write; the meaning must survive.
        let again = marker::from_bytes(&marker::to_bytes(&marker).expect("it was read")).expect("it was written");
        assert_eq!(again, marker);
    }
    let _ = Identity::from_bytes(data);
    // With a checksum that fits, the parser behind it is reached.
    let mut line = data.to_vec();
    line.retain(|&byte| byte != b'\n');
    line.push(b'\n');
    let checksum = format!("{:08x}\n", crc32fast::hash(&line));
    line.extend_from_slice(checksum.as_bytes());
    if let Ok(marker) = control::decode::<Marker>("fuzz", &line, marker::MARKER_FORMAT) {
        assert_eq!(marker.format, marker::MARKER_FORMAT);
        let again = marker::from_bytes(&marker::to_bytes(&marker).expect("it was read")).expect("it was written");
        assert_eq!(again, marker);
    }
});
