//! Any bytes, as a key and as an encoded key, against the laws of all builtin encodings.

#![no_main]

use libfuzzer_sys::fuzz_target;
use morphkv_fuzz::encoding::{Comparator, Encodings, KeyEncoding, laws};
use std::cmp::Ordering;

/// For short inputs all neighbours of an encoded key are tried too; for longer ones that is the fuzzer's own work.
const NEIGHBOURS_LEN_MAX: usize = 8;

fuzz_target!(|data: &[u8]| {
    // The first byte cuts the rest in two, so that laws on pairs are reached.
    let Some((&cut, rest)) = data.split_first() else { return };
    let (left, right) = rest.split_at(usize::from(cut).min(rest.len()));
    let known = Encodings::builtin();
    for id in known.ids() {
        let encoding = known.get(id).expect("listed");
        check_pair(&*encoding, left, right);
        if rest.len() <= NEIGHBOURS_LEN_MAX {
            laws::check(&*encoding, [left, right, rest]).expect("laws");
        }
    }
});

fn check_pair(encoding: &dyn KeyEncoding, left: &[u8], right: &[u8]) {
    for bytes in [left, right] {
        laws::check_decode(encoding, bytes).expect("laws of decode");
    }
    let left_encoded = laws::check_encode(encoding, left).expect("laws of encode");
    let right_encoded = laws::check_encode(encoding, right).expect("laws of encode");
    if let (Some(left_encoded), Some(right_encoded)) = (left_encoded, right_encoded) {
        assert_eq!(left == right, left_encoded == right_encoded, "two keys met");
        check_order(encoding.comparator(), &left_encoded, &right_encoded);
    }
}

fn check_order(comparator: Comparator, left: &[u8], right: &[u8]) {
    let order = comparator.compare(left, right);
    assert_eq!(order == Ordering::Equal, left == right);
    assert_eq!(comparator.compare(right, left), order.reverse());
    // An open lower bound is the empty key.
    assert_ne!(comparator.compare(b"", left), Ordering::Greater);
}
