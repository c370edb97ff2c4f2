//! One merge of all that runs did not take: sorted spill files, and a buffer, into SST files around those that stand.
//!
//! Where there are more spill files than can be read at a time, passes merge some of them into fewer first. A recorded
//! merge can be gone on with: each line names the files so far, the first key that is not in them, and for each input
//! the block to read on from. What lies before that goes, file by file, once the line is durable.

use super::buffer::SortBuffer;
use super::heads::Heads;
use super::output::{FileMaker, OutputFile, duplicate};
use super::placer::Placer;
use super::progress::Reporter;
use super::record::{FileLine, MergeLine, PassLine, Position, SpillLine, files_before, sequences};
use super::resume::{Recorder, position};
use super::sorter::{Spill, SpillReader, SpillWriter};
use crate::encoding::KeyEncoding;
use crate::error::Result;
use crate::fs::Vfs;
use crate::trap::trap;
use std::collections::BTreeMap;
use std::path::Path;

/// Spill files that hold one ascending sequence, one after the other.
type Sequence = Vec<Spill>;

/// Merges sorted spill files and a buffer into one ascending sequence.
pub(super) struct Merge<'j> {
    pub(super) vfs: &'j dyn Vfs,
    pub(super) folder: &'j Path,
    /// Names the error when a key comes twice.
    pub(super) encoding: &'j dyn KeyEncoding,
    /// How many sequences are read at a time: each takes a block of memory.
    pub(super) at_once: usize,
    /// After about so many bytes what was merged is recorded.
    pub(super) part_bytes: u64,
    pub(super) recorder: Option<&'j Recorder<'j>>,
    pub(super) progress: &'j Reporter,
}

/// An entry, and where the inputs stand before it is taken.
struct Head<'h> {
    key: &'h [u8],
    value: &'h [u8],
    offsets: &'h dyn Fn() -> Vec<u64>,
}

impl Head<'_> {
    fn position(&self) -> Position {
        position(self.key, (self.offsets)())
    }

    fn bytes(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }
}

impl<'j> Merge<'j> {
    /// Merges `spills` and `memory` around the files that stand; the spill files are gone then. Files that are disjoint
    /// from those, and others. What is in memory cannot be recorded: with it nothing is.
    pub(super) fn around(
        &self,
        standing: &[OutputFile],
        spills: Vec<Spill>,
        memory: SortBuffer,
        maker: FileMaker<'j>,
    ) -> Result<(Vec<OutputFile>, Vec<OutputFile>)> {
        let recorder = self.recorder.filter(|_| memory.is_empty());
        let taken = recorder.and_then(|recorder| recorder.taken().merged.clone()).unwrap_or_default();
        let mut placer = Placer::new(maker, standing);
        placer.maker.made = (taken.disjoint.len() + taken.overflow.len()) as u32;
        placer.disjoint.extend(taken.disjoint.iter().map(|file| file.in_folder(self.folder)));
        placer.overflow.extend(taken.overflow.iter().map(|file| file.in_folder(self.folder)));
        let ended = recorder.is_some_and(|recorder| recorder.taken().is_rewritten());
        if ended || spills.is_empty() && memory.is_empty() {
            return placer.finish();
        }
        let sequences = self.passes(recorder, spills)?;
        let tell = !sequences.is_empty();
        let mut part = Part { recorder, recorded: placer.counts(), bytes: 0 };
        let mut passed = Passed::default();
        let mut untold = 0;
        self.merge(&sequences, taken.next.as_ref(), memory, |head| {
            if part.bytes >= self.part_bytes && recorder.is_some() {
                placer.end_file()?;
                let position = head.position();
                part.record(&placer, Some(position.clone()))?;
                self.remove_passed(&sequences, &position, &mut passed)?;
            }
            part.bytes += head.bytes();
            untold += head.bytes();
            if tell && untold >= super::progress::PACE_BYTES {
                self.progress.advance(std::mem::take(&mut untold), 0);
            }
            placer.put(head.key, head.value)
        })?;
        placer.end_file()?;
        part.record(&placer, None)?;
        self.remove(&sequences)?;
        placer.finish()
    }

    /// Merges sequences until they are few enough. Those that are left, in an order that depends on nothing but them.
    fn passes(&self, recorder: Option<&Recorder<'_>>, spills: Vec<Spill>) -> Result<Vec<Sequence>> {
        let most = self.at_once.max(2);
        let mut sequences: BTreeMap<String, Sequence> = match recorder {
            Some(recorder) => in_folder(recorder.sequences(), self.folder),
            None => in_folder(sequences(spills.iter().map(SpillLine::of)), self.folder),
        };
        let mut count = recorder.map_or(0, |recorder| recorder.taken().passes.len());
        let unfinished =
            recorder.and_then(|recorder| recorder.taken().passes.last()).filter(|pass| pass.next.is_some());
        if let Some(pass) = unfinished {
            let segments = pass.segments.iter().map(|segment| segment.in_folder(self.folder)).collect();
            let pass = Pass { number: count, inputs: pass.inputs.clone(), segments, next: pass.next.clone() };
            self.pass(recorder, pass, &mut sequences)?;
        }
        // Once the last merge has begun, its inputs stay as they are, whatever the memory is now.
        let last = recorder.is_some_and(|recorder| recorder.taken().merged.is_some());
        while sequences.len() > most && !last {
            // The small ones first: what is merged twice should be little.
            let bytes = |sequence: &Sequence| sequence.iter().map(|spill| spill.bytes).sum::<u64>();
            let mut names: Vec<(u64, String)> =
                sequences.iter().map(|(name, sequence)| (bytes(sequence), name.clone())).collect();
            names.sort();
            let surplus = sequences.len() - most + 1;
            let inputs = names.into_iter().take(surplus.min(most)).map(|(_, name)| name).collect();
            count += 1;
            let pass = Pass { number: count, inputs, segments: Vec::new(), next: None };
            self.pass(recorder, pass, &mut sequences)?;
        }
        Ok(sequences.into_values().collect())
    }

    /// Does a pass, or the rest of it, and puts its result in the place of its inputs.
    fn pass(
        &self,
        recorder: Option<&Recorder<'_>>,
        pass: Pass,
        sequences: &mut BTreeMap<String, Sequence>,
    ) -> Result<()> {
        let Pass { number, inputs, mut segments, next } = pass;
        let merged: Vec<Sequence> = inputs.iter().filter_map(|name| sequences.remove(name)).collect();
        let create = |segment: usize| {
            let name = format!("merged-{number:06}-{segment:06}.spill");
            SpillWriter::create(self.vfs, self.folder.join(name))
        };
        let record = |segment: &Spill, next: Option<Position>| match recorder {
            Some(recorder) => {
                recorder.pass(PassLine { pass: number, inputs: inputs.clone(), segment: SpillLine::of(segment), next })
            }
            None => Ok(()),
        };
        let (mut writer, mut bytes, mut passed) = (create(segments.len() + 1)?, 0, Passed::default());
        self.merge(&merged, next.as_ref(), SortBuffer::default(), |head| {
            if bytes >= self.part_bytes && recorder.is_some() {
                bytes = 0;
                let segment = std::mem::replace(&mut writer, create(segments.len() + 2)?).finish()?;
                let position = head.position();
                record(&segment, Some(position.clone()))?;
                self.remove_passed(&merged, &position, &mut passed)?;
                segments.push(segment);
            }
            bytes += head.bytes();
            writer.put(head.key, head.value)
        })?;
        let segment = writer.finish()?;
        record(&segment, None)?;
        segments.push(segment);
        self.remove(&merged)?;
        sequences.insert(SpillLine::of(&segments[0]).name, segments);
        Ok(())
    }

    /// Passes every entry to `sink`, in ascending order of keys, from `from` on.
    fn merge(
        &self,
        inputs: &[Sequence],
        from: Option<&Position>,
        mut memory: SortBuffer,
        mut sink: impl FnMut(Head<'_>) -> Result<()>,
    ) -> Result<()> {
        memory.sort();
        let mut readers = Vec::with_capacity(inputs.len());
        for (input, sequence) in inputs.iter().enumerate() {
            let offset = from.map_or(0, |from| from.offsets[input]);
            let mut reader = SequenceReader::open(self.vfs, sequence, input, offset);
            let mut more = reader.advance()?;
            while more && from.is_some_and(|from| reader.entry().0 < from.key.0.as_slice()) {
                more = reader.advance()?;
            }
            if more {
                readers.push(reader);
            }
        }
        let ends: Vec<u64> = inputs.iter().map(|sequence| sequence.iter().map(|spill| spill.bytes).sum()).collect();
        let mut heads = Heads::new(readers.len(), |left, right| readers[left].entry().0 < readers[right].entry().0);
        let mut at = 0;
        let mut last: Option<Vec<u8>> = None;
        loop {
            let from_memory = (at < memory.len()).then(|| memory.entry(at));
            let from_spill = heads.first().map(|head| (head, readers[head].entry()));
            let (head, (key, value)) = match (from_memory, from_spill) {
                (Some(entry), Some((head, spilled))) if spilled.0 < entry.0 => (Some(head), spilled),
                (Some(entry), _) => (None, entry),
                (None, Some((head, spilled))) => (Some(head), spilled),
                (None, None) => break,
            };
            match &mut last {
                Some(last) if last.as_slice() >= key => return Err(duplicate(self.encoding, key)),
                Some(last) => {
                    last.clear();
                    last.extend_from_slice(key);
                }
                None => last = Some(key.to_vec()),
            }
            let offsets = || {
                let mut offsets = ends.clone();
                let under_way = readers.iter().filter(|reader| !reader.ended);
                under_way.for_each(|reader| offsets[reader.input] = reader.offset());
                offsets
            };
            sink(Head { key, value, offsets: &offsets })?;
            match head {
                None => at += 1,
                Some(head) => {
                    let more = readers[head].advance()?;
                    heads.changed(more, |left, right| readers[left].entry().0 < readers[right].entry().0);
                }
            }
        }
        Ok(())
    }

    /// Removes what no reader will come back to, once a line says where they go on. After an `Err` some of it may stand.
    fn remove_passed(&self, inputs: &[Sequence], position: &Position, passed: &mut Passed) -> Result<()> {
        passed.0.resize(inputs.len(), 0);
        for ((sequence, offset), gone) in inputs.iter().zip(&position.offsets).zip(&mut passed.0) {
            let before = files_before(sequence.iter().map(|spill| spill.bytes), *offset);
            for spill in sequence.get(*gone..before).unwrap_or_default() {
                trap!(self.vfs, MergedSpillBefore);
                self.vfs.remove_file(&spill.path)?;
            }
            *gone = before;
        }
        Ok(())
    }

    fn remove(&self, sequences: &[Sequence]) -> Result<()> {
        for spill in sequences.iter().flatten() {
            trap!(self.vfs, MergedSpillBefore);
            self.vfs.remove_file(&spill.path)?;
        }
        Ok(())
    }
}

fn in_folder(sequences: BTreeMap<String, Vec<SpillLine>>, folder: &Path) -> BTreeMap<String, Sequence> {
    let sequence = |lines: Vec<SpillLine>| lines.iter().map(|line| line.in_folder(folder)).collect();
    sequences.into_iter().map(|(name, lines)| (name, sequence(lines))).collect()
}

/// How many files of each input are gone.
#[derive(Default)]
struct Passed(Vec<usize>);

/// A pass to be done.
struct Pass {
    number: usize,
    inputs: Vec<String>,
    segments: Vec<Spill>,
    next: Option<Position>,
}

/// What was merged since the last line.
struct Part<'r, 'j> {
    recorder: Option<&'r Recorder<'j>>,
    /// Files that lines speak of.
    recorded: (usize, usize),
    bytes: u64,
}

impl Part<'_, '_> {
    fn record(&mut self, placer: &Placer<'_, '_>, next: Option<Position>) -> Result<()> {
        let Some(recorder) = self.recorder else { return Ok(()) };
        let lines = |files: &[OutputFile]| files.iter().map(FileLine::of).collect();
        let disjoint = lines(&placer.disjoint[self.recorded.0..]);
        let overflow = lines(&placer.overflow[self.recorded.1..]);
        self.recorded = placer.counts();
        recorder.merge(MergeLine { disjoint, overflow, bytes: std::mem::take(&mut self.bytes), next })
    }
}

/// Reads the files of a sequence, one after the other.
struct SequenceReader<'j> {
    vfs: &'j dyn Vfs,
    files: Sequence,
    at: usize,
    /// Bytes of the files before that one.
    before: u64,
    reader: SpillReader<'j>,
    input: usize,
    ended: bool,
}

impl<'j> SequenceReader<'j> {
    /// Begins at the block at `offset`, counted over all files.
    fn open(vfs: &'j dyn Vfs, files: &Sequence, input: usize, offset: u64) -> Self {
        let (mut at, mut before) = (0, 0);
        while at + 1 < files.len() && offset >= before + files[at].bytes {
            before += files[at].bytes;
            at += 1;
        }
        let reader = SpillReader::open_at(vfs, files[at].clone(), offset - before);
        SequenceReader { vfs, files: files.clone(), at, before, reader, input, ended: false }
    }

    fn entry(&self) -> (&[u8], &[u8]) {
        self.reader.entry()
    }

    /// Where the block of the entry begins.
    fn offset(&self) -> u64 {
        self.before + self.reader.block_begins()
    }

    /// To the next entry; false at the end.
    fn advance(&mut self) -> Result<bool> {
        while !self.reader.advance()? {
            if self.at + 1 == self.files.len() {
                self.ended = true;
                return Ok(false);
            }
            self.before += self.files[self.at].bytes;
            self.at += 1;
            self.reader = SpillReader::open_at(self.vfs, self.files[self.at].clone(), 0);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sorter::{BLOCK_BYTES, Sorter};
    use super::*;
    use crate::encoding::Natural;
    use crate::error::ErrorKind;
    use crate::fs::RealVfs;

    type Entries = Vec<(Vec<u8>, Vec<u8>)>;

    fn spilled(vfs: &dyn Vfs, folder: &Path, entries: &[(Vec<u8>, Vec<u8>)], each: usize) -> (Vec<Spill>, SortBuffer) {
        let mut sorter = Sorter::new(vfs, folder, "test", 16 << 10, SortBuffer::default());
        for chunk in entries.chunks(each) {
            sorter.spill().unwrap();
            chunk.iter().for_each(|(key, value)| sorter.buffer.push(key, value));
        }
        sorter.finish()
    }

    fn merged(folder: &Path, spills: Vec<Spill>, memory: SortBuffer, at_once: usize) -> Result<Entries> {
        let mut seen = Vec::new();
        let progress = Reporter::silent();
        let merge = Merge {
            vfs: &RealVfs::default(),
            folder,
            encoding: &Natural,
            at_once,
            part_bytes: 1 << 20,
            recorder: None,
            progress: &progress,
        };
        let sequences = merge.passes(None, spills)?;
        merge.merge(&sequences, None, memory, |head| {
            seen.push((head.key.to_vec(), head.value.to_vec()));
            Ok(())
        })?;
        merge.remove(&sequences)?;
        Ok(seen)
    }

    /// Distinct keys in no order; among the values one that is longer than a block.
    fn entries() -> Entries {
        let key = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
        let value = |at: u64| vec![at as u8; if at == 500 { 2 * BLOCK_BYTES } else { at as usize % 700 }];
        (0..2000).map(|at| (key(at), value(at))).collect()
    }

    #[test]
    fn whatever_the_passes_all_comes_back_in_order() {
        let entries = entries();
        let mut sorted = entries.clone();
        sorted.sort();
        for (each, spills_at_once) in [(5000, 8), (300, 8), (97, 8), (97, 2), (20, 3), (20, 0), (1000, 1)] {
            let directory = tempfile::tempdir().unwrap();
            let (spills, memory) = spilled(&RealVfs::default(), directory.path(), &entries, each);
            let sequences = spills.iter().filter(|spill| !spill.follows).count();
            assert_eq!(sequences, entries.len().div_ceil(each) - 1);
            assert!(each < 97 || each == 5000 || spills.len() > sequences, "none is cut");
            assert!(merged(directory.path(), spills, memory, spills_at_once).unwrap() == sorted, "{each}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "spill files are removed");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_an_error() {
        let mut entries = entries();
        entries.push(entries[3].clone());
        for each in [100, 5000] {
            let directory = tempfile::tempdir().unwrap();
            let (spills, memory) = spilled(&RealVfs::default(), directory.path(), &entries, each);
            let error = merged(directory.path(), spills, memory, 8).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unrepresentable);
            assert!(error.to_string().contains("natural r1"), "{error}");
        }
    }

    #[test]
    fn damage_is_never_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let entries = &entries()[..400];
        let (spills, _) = spilled(&RealVfs::default(), directory.path(), entries, 399);
        let path = spills[0].path.clone();
        let whole = std::fs::read(&path).unwrap();
        let tried = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            merged(directory.path(), spills.clone(), SortBuffer::default(), 8)
        };
        for at in [0, 3, 4, 7, 8, 12, 100, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert_eq!(tried(&flipped).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        }
        for len in [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 1] {
            assert_eq!(tried(&whole[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
        }
        assert_eq!(tried(&whole).unwrap().len(), 399);
    }

    #[test]
    fn a_file_that_ends_between_two_blocks_is_not_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (mut spills, _) = spilled(&RealVfs::default(), directory.path(), &entries(), 1999);
        let head = std::fs::read(&spills[0].path).unwrap();
        spills[0].bytes = u64::from(u32::from_le_bytes(head[..4].try_into().unwrap())) + 8;
        assert!(spills[0].bytes < head.len() as u64, "more than one block");
        let error = merged(directory.path(), spills, SortBuffer::default(), 8).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("missing"), "{error}");
    }
}
