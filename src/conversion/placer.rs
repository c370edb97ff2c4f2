//! Which of the files may be ingested at the bottom, and where the rest goes.

use super::output::{FileMaker, OpenFile, OutputFile};
use crate::error::Result;

/// Divides files into those that overlap none of them, ascending, and the others. Of two that overlap, the larger stays.
///
/// Tasks tile the source, but their files may overlap in the target's order where directories swap at the border of a
/// task and nothing told them so.
pub(super) fn separate(mut files: Vec<OutputFile>) -> (Vec<OutputFile>, Vec<OutputFile>) {
    files.sort_by(|left, right| left.smallest.cmp(&right.smallest));
    let (mut disjoint, mut others): (Vec<OutputFile>, Vec<OutputFile>) = (Vec::new(), Vec::new());
    for file in files {
        match disjoint.last_mut() {
            Some(last) if last.largest >= file.smallest => {
                // Whatever came before the last one ends before it begins, and so before this one.
                let other = if last.bytes < file.bytes { std::mem::replace(last, file) } else { file };
                others.push(other);
            }
            _ => disjoint.push(file),
        }
    }
    (disjoint, others)
}

/// Divides files into groups of which each holds disjoint files, ascending; as few groups as possible.
pub(super) fn groups(files: &[OutputFile]) -> Vec<Vec<&OutputFile>> {
    let mut sorted: Vec<&OutputFile> = files.iter().collect();
    sorted.sort_by(|left, right| left.smallest.cmp(&right.smallest));
    let mut groups: Vec<Vec<&OutputFile>> = Vec::new();
    for file in sorted {
        match groups.iter_mut().find(|group| group.last().is_none_or(|last| last.largest < file.smallest)) {
            Some(group) => group.push(file),
            None => groups.push(vec![file]),
        }
    }
    groups
}

/// Writes an ascending sequence of entries around files that stand: what lies between them goes to files that are
/// disjoint from them, what lies within one of them to overflow.
pub(super) struct Placer<'j, 'f> {
    pub(super) maker: FileMaker<'j>,
    standing: &'f [OutputFile],
    /// The first standing file that does not end before the last entry.
    at: usize,
    open: Option<(Spot, OpenFile<'j>)>,
    pub(super) disjoint: Vec<OutputFile>,
    pub(super) overflow: Vec<OutputFile>,
}

/// Before or within the standing file of that number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spot {
    Before(usize),
    Within(usize),
}

impl<'j, 'f> Placer<'j, 'f> {
    /// `standing`: disjoint and ascending.
    pub(super) fn new(maker: FileMaker<'j>, standing: &'f [OutputFile]) -> Self {
        Placer { maker, standing, at: 0, open: None, disjoint: Vec::new(), overflow: Vec::new() }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        while self.standing.get(self.at).is_some_and(|file| file.largest.as_slice() < key) {
            self.at += 1;
        }
        let within = self.standing.get(self.at).is_some_and(|file| file.smallest.as_slice() <= key);
        let spot = if within { Spot::Within(self.at) } else { Spot::Before(self.at) };
        let is_full = self.open.as_mut().is_some_and(|(_, file)| file.is_full());
        let (_, file) = match &mut self.open {
            Some(open) if open.0 == spot && !is_full => open,
            _ => {
                self.end_file()?;
                self.open.insert((spot, self.maker.create()?))
            }
        };
        file.put(key, value)?;
        file.reached(key);
        Ok(())
    }

    /// How many files there are: disjoint ones, and others.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.disjoint.len(), self.overflow.len())
    }

    /// Ends the file that is open; the next entry begins another.
    pub(super) fn end_file(&mut self) -> Result<()> {
        if let Some((spot, file)) = self.open.take() {
            let files = if matches!(spot, Spot::Within(_)) { &mut self.overflow } else { &mut self.disjoint };
            files.push(file.finish()?);
        }
        Ok(())
    }

    /// Completes the last file.
    pub(super) fn finish(mut self) -> Result<(Vec<OutputFile>, Vec<OutputFile>)> {
        self.end_file()?;
        Ok((self.disjoint, self.overflow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(smallest: &str, largest: &str, bytes: u64) -> OutputFile {
        OutputFile {
            path: format!("{smallest}-{largest}").into(),
            entries: 1,
            bytes,
            smallest: smallest.into(),
            largest: largest.into(),
        }
    }

    fn names(files: &[OutputFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.to_str().unwrap()).collect()
    }

    #[test]
    fn of_two_files_that_overlap_the_larger_stays() {
        let (disjoint, others) = separate(vec![
            file("m", "p", 5),
            file("a", "c", 1),
            file("b", "f", 9),
            file("f", "g", 2),
            file("h", "h", 1),
            file("o", "z", 5),
        ]);
        assert_eq!(names(&disjoint), ["b-f", "h-h", "m-p"]);
        assert_eq!(names(&others), ["a-c", "f-g", "o-z"]);
        assert!(disjoint.windows(2).all(|pair| pair[0].largest < pair[1].smallest));
    }

    #[test]
    fn groups_are_disjoint_and_few() {
        let files = [file("a", "c", 1), file("b", "f", 1), file("c", "d", 1), file("g", "h", 1), file("i", "i", 1)];
        let groups = groups(&files);
        assert_eq!(groups.len(), 3);
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), files.len());
        for group in groups {
            assert!(group.windows(2).all(|pair| pair[0].largest < pair[1].smallest));
        }
    }
}
