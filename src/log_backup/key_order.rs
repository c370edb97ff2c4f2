//! Putting keys in order that lie scattered in memory. Pure.
//!
//! Comparing two of them would fetch both, each time. Here eight bytes of each are fetched at once, the rest is compared
//! among those that agree in these: a key is looked at once for every eight bytes that it has in common with another.

/// Eight bytes of a key, and where the key stands.
#[derive(Clone, Copy)]
struct Item {
    piece: u64,
    /// How many bytes the key has from these on, up to one more than fit.
    len: u8,
    index: u32,
}

const PIECE_BYTES: usize = 8;
/// The key goes on beyond its piece.
const GOES_ON: u8 = PIECE_BYTES as u8 + 1;
/// So few are compared one with the other.
const FEW: usize = 12;

/// In the order of their keys, of each key the last.
pub(super) fn last_of_each<'b, P: Copy>(points: Vec<P>, key: impl Fn(&P) -> &'b [u8]) -> Vec<P> {
    // There are fewer: each takes at least a byte of the log, and more than a byte of memory.
    debug_assert!(u32::try_from(points.len()).is_ok());
    let mut items: Vec<Item> = (0..points.len() as u32).map(|index| Item { piece: 0, len: 0, index }).collect();
    order(&mut items, |item| key(&points[item.index as usize]));
    let mut kept: Vec<P> = Vec::with_capacity(items.len());
    let mut last: Option<&[u8]> = None;
    for item in items {
        let point = points[item.index as usize];
        let at = key(&point);
        if last == Some(at) {
            kept.pop();
        }
        kept.push(point);
        last = Some(at);
    }
    kept
}

/// By key, and then by index.
fn order<'b>(items: &mut [Item], key: impl Fn(&Item) -> &'b [u8]) {
    // Stretches that agree in so many bytes. Each gets shorter or its keys end, so this does.
    let mut left = vec![(0, items.len(), 0)];
    while let Some((start, end, depth)) = left.pop() {
        let run = &mut items[start..end];
        if run.len() <= FEW {
            run.sort_unstable_by(|left, right| {
                key(left)[depth..].cmp(&key(right)[depth..]).then(left.index.cmp(&right.index))
            });
            continue;
        }
        let depth = depth + common(run, depth, &key);
        for item in run.iter_mut() {
            let rest = &key(item)[depth..];
            let mut piece = [0; PIECE_BYTES];
            let len = rest.len().min(PIECE_BYTES);
            piece[..len].copy_from_slice(&rest[..len]);
            item.piece = u64::from_be_bytes(piece);
            item.len = rest.len().min(GOES_ON as usize) as u8;
        }
        run.sort_unstable_by_key(|item| (item.piece, item.len, item.index));
        let mut at = start;
        for same in run.chunk_by(|left, right| (left.piece, left.len) == (right.piece, right.len)) {
            if same.len() > 1 && same[0].len == GOES_ON {
                left.push((at, at + same.len(), depth + PIECE_BYTES));
            }
            at += same.len();
        }
    }
}

/// How many bytes from `depth` on all of them have in common.
fn common<'b>(run: &[Item], depth: usize, key: impl Fn(&Item) -> &'b [u8]) -> usize {
    let Some((first, others)) = run.split_first() else { return 0 };
    let mut common = &key(first)[depth..];
    for item in others {
        let len = common.iter().zip(&key(item)[depth..]).take_while(|(left, right)| left == right).count();
        common = &common[..len];
        if common.is_empty() {
            break;
        }
    }
    common.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let head = prop::sample::select(vec![&b""[..], b"a", b"/objects/", b"/objects/of/a/long/name/", &[0; 9]]);
        let tail = prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', 0xff]), 0..12);
        let key = (head, tail).prop_map(|(head, tail)| [head, &tail].concat());
        prop::collection::vec(key, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn of_each_key_the_last_stays_and_they_are_in_order(keys in keys()) {
            let found = last_of_each((0..keys.len()).collect(), |index: &usize| keys[*index].as_slice());
            let expected: std::collections::BTreeMap<_, _> = keys.iter().zip(0..).collect();
            prop_assert_eq!(found, expected.into_values().collect::<Vec<usize>>());
        }
    }
}
