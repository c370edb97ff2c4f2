//! Which of many sorted sequences has the least head: a binary heap of their numbers. The heads themselves stay where
//! they are, so nothing is copied; the caller compares them.

pub(super) struct Heads(Vec<usize>);

impl Heads {
    /// The sequences `0..count`, each with a head.
    pub(super) fn new(count: usize, less: impl Fn(usize, usize) -> bool) -> Self {
        let mut heads = Heads((0..count).collect());
        for at in (0..count / 2).rev() {
            heads.sift_down(at, &less);
        }
        heads
    }

    /// The sequence with the least head; none if all have ended.
    pub(super) fn first(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// The first sequence has another head now, or (`more` is false) it has ended.
    pub(super) fn changed(&mut self, more: bool, less: impl Fn(usize, usize) -> bool) {
        if !more {
            self.0.swap_remove(0);
        }
        self.sift_down(0, &less);
    }

    fn sift_down(&mut self, mut at: usize, less: &impl Fn(usize, usize) -> bool) {
        let heap = &mut self.0;
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < heap.len() && less(heap[child], heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            heap.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_any_number_of_sequences() {
        for count in 0..20_usize {
            // Sequence n holds n numbers, and none of them is in another one.
            let sequences: Vec<Vec<usize>> =
                (0..count).map(|n| (0..n).map(|at| (at * 7919 % 1000) * 20 + n).collect()).collect();
            let mut sequences: Vec<Vec<usize>> =
                sequences.into_iter().filter(|sequence| !sequence.is_empty()).collect();
            sequences.iter_mut().for_each(|sequence| sequence.sort_unstable_by(|left, right| right.cmp(left)));
            let mut expected: Vec<usize> = sequences.concat();
            expected.sort_unstable();
            let mut heads = Heads::new(sequences.len(), |left, right| sequences[left].last() < sequences[right].last());
            let mut merged = Vec::new();
            while let Some(first) = heads.first() {
                merged.extend(sequences[first].pop());
                let more = !sequences[first].is_empty();
                heads.changed(more, |left, right| sequences[left].last() < sequences[right].last());
            }
            assert_eq!(merged, expected);
        }
    }
}
