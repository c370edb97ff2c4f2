//! The lines of `PROGRESS`, and what they add up to.
//!
//! A line is the crc32 of its text (eight lower-case hex digits), a blank, the text (JSON), and a line feed. The first
//! line names format and conversion, the second one holds the plan; each later one says that one more thing is done.
//!
//! Invariants of reading:
//! - lines count up to the first that does not fit its checksum. What follows is a torn tail, unless a later line does
//!   fit: then the middle is damaged, and nothing counts;
//! - a line that fits its checksum and cannot be understood, or cannot come after those before it, is of another version
//!   or a mistake: nothing counts;
//! - so whatever is cut off or flipped, what is read is a state that this conversion was in, or nothing.
//!
//! Pure: no file is touched here.

use super::borders::Order;
use super::digest::{Content, Digest};
use super::output::OutputFile;
use super::sorter::Spill;
use super::tasks::Plan;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use uuid::Uuid;

/// The version of the format that this code writes, and the only one that it goes on with.
pub const PROGRESS_FORMAT: u32 = 2;
/// A longer file was not written by us. Checked before it is read.
pub(super) const PROGRESS_BYTES_MAX: u64 = 256 << 20;

/// Bytes that stand in a line as lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hex(pub(super) Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        let text: String = self.0.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte & 0xF)]).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
        bytes.filter(|_| rest.is_empty()).map(Hex).ok_or_else(|| serde::de::Error::custom("no hexadecimal digits"))
    }
}

/// A name in the output folder, and nothing that leads elsewhere.
fn is_plain(name: &str) -> bool {
    let known = name.ends_with(".sst") || name.ends_with(".spill");
    known && !name.starts_with('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// A finished SST file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLine {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) smallest: Hex,
    pub(super) largest: Hex,
}

impl FileLine {
    pub(super) fn of(file: &OutputFile) -> Self {
        FileLine {
            name: name_of(&file.path),
            bytes: file.bytes,
            entries: file.entries,
            smallest: Hex(file.smallest.clone()),
            largest: Hex(file.largest.clone()),
        }
    }

    pub(super) fn in_folder(&self, folder: &Path) -> OutputFile {
        OutputFile {
            path: folder.join(&self.name),
            entries: self.entries,
            bytes: self.bytes,
            smallest: self.smallest.0.clone(),
            largest: self.largest.0.clone(),
        }
    }
}

/// A finished spill file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpillLine {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) entries: u64,
    /// It goes on where the file before it in the task ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) follows: bool,
}

impl SpillLine {
    pub(super) fn of(spill: &Spill) -> Self {
        let Spill { entries, bytes, follows, .. } = *spill;
        SpillLine { name: name_of(&spill.path), bytes, entries, follows }
    }

    pub(super) fn in_folder(&self, folder: &Path) -> Spill {
        let SpillLine { entries, bytes, follows, .. } = *self;
        Spill { path: folder.join(&self.name), entries, bytes, follows }
    }
}

/// The sequences of spill files, each by the name of its first file: its files hold keys that ascend, one after the other.
pub(super) fn sequences(spills: impl IntoIterator<Item = SpillLine>) -> BTreeMap<String, Vec<SpillLine>> {
    let mut sequences: Vec<Vec<SpillLine>> = Vec::new();
    for spill in spills {
        match sequences.last_mut().filter(|_| spill.follows) {
            Some(last) => last.push(spill),
            None => sequences.push(vec![spill]),
        }
    }
    sequences.into_iter().map(|sequence| (sequence[0].name.clone(), sequence)).collect()
}

/// How many files of a sequence from the front hold nothing from `offset` on, counted over all of them.
pub(super) fn files_before(bytes: impl IntoIterator<Item = u64>, offset: u64) -> usize {
    let ends = bytes.into_iter().scan(0_u64, |sum, bytes| {
        *sum = sum.saturating_add(bytes);
        Some(*sum)
    });
    ends.take_while(|&end| end <= offset).count()
}

fn name_of(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}

/// A count and a digest, as a line has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentLine {
    pub(super) entries: u64,
    digest: String,
}

impl ContentLine {
    pub(super) fn of(content: &Content) -> Self {
        ContentLine { entries: content.entries, digest: content.digest.to_string() }
    }

    pub(super) fn content(&self) -> Option<Content> {
        Some(Content { entries: self.entries, digest: self.digest.parse::<Digest>().ok()? })
    }
}

/// A task that ended: all of it is in these files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskLine {
    pub(super) task: usize,
    pub(super) files: Vec<FileLine>,
    pub(super) spills: Vec<SpillLine>,
    pub(super) content: ContentLine,
    pub(super) bytes_read: u64,
    pub(super) late_entries: u64,
    /// Runs had shown that they do not pay when it ended.
    pub(super) gave_up: bool,
}

/// Where a merge goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The first key that is not written yet.
    pub(super) key: Hex,
    /// For each input, in order: where the block begins that holds its first entry from that key on.
    pub(super) offsets: Vec<u64>,
}

/// A part of what comes of merging some of the spill files into fewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PassLine {
    /// Counted from 1.
    pub(super) pass: usize,
    /// The inputs, each by the name of its first file.
    pub(super) inputs: Vec<String>,
    pub(super) segment: SpillLine,
    /// None: it ended.
    pub(super) next: Option<Position>,
}

/// A part of what comes of the last merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MergeLine {
    pub(super) disjoint: Vec<FileLine>,
    pub(super) overflow: Vec<FileLine>,
    /// Bytes of keys and values merged since the line before.
    pub(super) bytes: u64,
    /// None: it ended.
    pub(super) next: Option<Position>,
}

/// Which database is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scan {
    /// The new one.
    Staging,
    /// The old one, a second time.
    Source,
}

/// The tile of a scan that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TileLine {
    pub(super) of: Scan,
    pub(super) tile: usize,
    pub(super) content: ContentLine,
    pub(super) bytes: u64,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Line {
    Begin {
        format: u32,
        conversion: Uuid,
    },
    Plan {
        order: Order,
        levels: Vec<u16>,
        cuts: Vec<Hex>,
    },
    Task(TaskLine),
    /// Files of this task are not as they were: it is done again.
    Forget {
        task: usize,
    },
    Pass(PassLine),
    Merge(MergeLine),
    /// The staging database is complete, closed, and every file of it synced.
    Built {},
    /// A scan is divided so.
    Scan {
        of: Scan,
        cuts: Vec<Hex>,
    },
    Tile(TileLine),
}

impl Line {
    pub(super) fn plan(plan: &Plan) -> Self {
        let cuts = plan.cuts.iter().cloned().map(Hex).collect();
        Line::Plan { order: plan.order, levels: plan.levels.clone(), cuts }
    }

    /// Its bytes in the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // None of these types can fail to become JSON: keys are strings, and there is no float.
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes())).into_bytes()
    }
}

/// The text of a line, without its line feed, if it fits its checksum.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (checksum, rest) = line.split_at_checked(8)?;
    let text = rest.strip_prefix(b" ")?;
    (format!("{:08x}", crc32fast::hash(text)).as_bytes() == checksum).then_some(text)
}

/// A merge of some spill files into one sequence of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) inputs: Vec<String>,
    pub(super) segments: Vec<SpillLine>,
    pub(super) next: Option<Position>,
}

/// The last merge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Merged {
    pub(super) disjoint: Vec<FileLine>,
    pub(super) overflow: Vec<FileLine>,
    pub(super) bytes: u64,
    pub(super) next: Option<Position>,
}

/// A scan under way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tiles {
    pub(super) cuts: Vec<Vec<u8>>,
    pub(super) read: BTreeMap<usize, (Content, u64)>,
}

/// Whether a merge that was at the one place may be at the other later.
fn goes_on(before: Option<&Position>, after: Option<&Position>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    let mut offsets = before.offsets.iter().zip(&after.offsets);
    before.key.0 < after.key.0 && offsets.all(|(before, after)| before <= after)
}

/// What all lines together say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Recorded {
    pub(super) plan: Option<Plan>,
    pub(super) tasks: BTreeMap<usize, TaskLine>,
    pub(super) passes: Vec<Pass>,
    pub(super) merged: Option<Merged>,
    pub(super) built: bool,
    pub(super) scans: BTreeMap<Scan, Tiles>,
}

impl Recorded {
    /// Reads a file of this conversion. What it says, and how many bytes of it do; `None`: it says nothing that counts.
    pub(super) fn read(bytes: &[u8], conversion: Uuid) -> Option<(Self, usize)> {
        let begin = Line::Begin { format: PROGRESS_FORMAT, conversion }.to_bytes();
        let mut len = begin.len();
        let mut recorded = Recorded::default();
        let mut lines = bytes.strip_prefix(begin.as_slice())?.split_inclusive(|&byte| byte == b'\n');
        while let Some(line) = lines.next() {
            let Some(text) = line.strip_suffix(b"\n").and_then(checked) else {
                let torn = lines.all(|line| line.strip_suffix(b"\n").and_then(checked).is_none());
                return torn.then_some((recorded, len));
            };
            recorded.add(serde_json::from_slice(text).ok()?)?;
            len += line.len();
        }
        Some((recorded, len))
    }

    /// Adds a line; `None` if it cannot come here.
    pub(super) fn add(&mut self, line: Line) -> Option<()> {
        match line {
            Line::Begin { .. } => None,
            Line::Plan { order, levels, cuts } => {
                let cuts = cuts.into_iter().map(|cut| cut.0).collect();
                self.plan.is_none().then(|| self.plan = Some(Plan { order, levels, cuts }))
            }
            Line::Task(task) => self.add_task(task),
            Line::Forget { task } => {
                let forgettable = !self.merge_has_begun() && !self.built;
                forgettable.then(|| self.tasks.remove(&task))?.map(drop)
            }
            Line::Pass(pass) => self.add_pass(pass),
            Line::Merge(merge) => self.add_merge(merge),
            Line::Built {} => (self.is_rewritten() && !self.built).then(|| self.built = true),
            Line::Scan { of, cuts } => {
                let cuts = cuts.into_iter().map(|cut| cut.0).collect();
                let fits = self.built && !self.scans.contains_key(&of);
                fits.then(|| self.scans.insert(of, Tiles { cuts, read: BTreeMap::new() })).map(drop)
            }
            Line::Tile(tile) => {
                let scan = self.scans.get_mut(&tile.of).filter(|scan| tile.tile <= scan.cuts.len())?;
                let content = tile.content.content()?;
                scan.read.insert(tile.tile, (content, tile.bytes)).is_none().then_some(())
            }
        }
    }

    fn add_task(&mut self, task: TaskLine) -> Option<()> {
        task.content.content()?;
        let in_plan = self.plan.as_ref().is_some_and(|plan| task.task < plan.len());
        let begins = task.spills.first().is_none_or(|first| !first.follows);
        let plain = task.files.iter().map(|file| &file.name).chain(task.spills.iter().map(|spill| &spill.name));
        let fits =
            in_plan && begins && plain.into_iter().all(|name| is_plain(name)) && !self.merge_has_begun() && !self.built;
        (fits && !self.tasks.contains_key(&task.task)).then(|| self.tasks.insert(task.task, task)).map(drop)
    }

    fn add_pass(&mut self, line: PassLine) -> Option<()> {
        if !self.tasks_are_done() || self.merged.is_some() || self.built || !is_plain(&line.segment.name) {
            return None;
        }
        let PassLine { pass, inputs, segment, next } = line;
        if next.as_ref().is_some_and(|next| next.offsets.len() != inputs.len()) {
            return None;
        }
        let count = self.passes.len();
        if let Some(last) = self.passes.last_mut().filter(|last| last.next.is_some()) {
            let again = last.segments.iter().any(|other| other.name == segment.name);
            if pass != count || last.inputs != inputs || again || !goes_on(last.next.as_ref(), next.as_ref()) {
                return None;
            }
            last.segments.push(segment);
            last.next = next;
            return Some(());
        }
        let known = self.sequences();
        let distinct: BTreeSet<&String> = inputs.iter().collect();
        let fits = pass == count + 1 && distinct.len() == inputs.len() && !inputs.is_empty();
        if !fits || !inputs.iter().all(|name| known.contains_key(name)) {
            return None;
        }
        self.passes.push(Pass { inputs, segments: vec![segment], next });
        Some(())
    }

    fn add_merge(&mut self, line: MergeLine) -> Option<()> {
        let inputs = self.sequences().len();
        let under_way = self.merged.as_ref().is_none_or(|merged| merged.next.is_some());
        let passes_ended = self.passes.last().is_none_or(|pass| pass.next.is_none());
        let plain = line.disjoint.iter().chain(&line.overflow).all(|file| is_plain(&file.name));
        let before = self.merged.as_ref().and_then(|merged| merged.next.as_ref());
        let places =
            line.next.as_ref().is_none_or(|next| next.offsets.len() == inputs) && goes_on(before, line.next.as_ref());
        if !self.tasks_are_done() || !under_way || !passes_ended || !plain || !places || self.built {
            return None;
        }
        let merged = self.merged.get_or_insert_default();
        merged.disjoint.extend(line.disjoint);
        merged.overflow.extend(line.overflow);
        merged.bytes = merged.bytes.checked_add(line.bytes)?;
        merged.next = line.next;
        Some(())
    }

    /// Every task ended: they tile the source.
    pub(super) fn tasks_are_done(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| self.tasks.len() == plan.len())
    }

    pub(super) fn merge_has_begun(&self) -> bool {
        !self.passes.is_empty() || self.merged.is_some()
    }

    /// All of the source is in SST files.
    pub(super) fn is_rewritten(&self) -> bool {
        let merged = match &self.merged {
            Some(merged) => merged.next.is_none(),
            None => self.tasks.values().all(|task| task.spills.is_empty()),
        };
        self.tasks_are_done() && merged
    }

    /// Work was done, and can be taken over.
    pub(super) fn has_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// The ascending sequences of spill files that are still to be merged, by the name of their first file: those of the
    /// tasks, but for what passes that ended have made of them. Files that a merge has passed are among them.
    pub(super) fn sequences(&self) -> BTreeMap<String, Vec<SpillLine>> {
        let mut sequences = sequences(self.tasks.values().flat_map(|task| &task.spills).cloned());
        for pass in self.passes.iter().filter(|pass| pass.next.is_none()) {
            pass.inputs.iter().for_each(|input| drop(sequences.remove(input)));
            if let Some(first) = pass.segments.first() {
                sequences.insert(first.name.clone(), pass.segments.clone());
            }
        }
        sequences
    }

    /// Every SST file of the rewrite so far.
    pub(super) fn files(&self) -> impl Iterator<Item = &FileLine> {
        let merged = self.merged.iter().flat_map(|merged| merged.disjoint.iter().chain(&merged.overflow));
        self.tasks.values().flat_map(|task| &task.files).chain(merged)
    }

    /// Every spill file that is still needed.
    pub(super) fn spills(&self) -> Vec<SpillLine> {
        if self.is_rewritten() {
            return Vec::new();
        }
        let mut sequences = self.sequences();
        let unfinished = self.passes.iter().rfind(|pass| pass.next.is_some());
        let (inputs, next) = match unfinished {
            Some(pass) => (pass.inputs.clone(), pass.next.as_ref()),
            None => (sequences.keys().cloned().collect(), self.merged.as_ref().and_then(|merged| merged.next.as_ref())),
        };
        for (input, offset) in inputs.iter().zip(next.iter().flat_map(|next| &next.offsets)) {
            if let Some(sequence) = sequences.get_mut(input) {
                let passed = files_before(sequence.iter().map(|spill| spill.bytes), *offset);
                sequence.drain(..passed);
            }
        }
        let segments = unfinished.into_iter().flat_map(|pass| pass.segments.clone());
        sequences.into_values().flatten().chain(segments).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, smallest: &str, largest: &str) -> FileLine {
        let hex = |text: &str| Hex(text.as_bytes().to_vec());
        FileLine { name: name.into(), bytes: 4096, entries: 10, smallest: hex(smallest), largest: hex(largest) }
    }

    /// A name behind a `+` follows the one before it.
    fn spill(name: &str) -> SpillLine {
        let follows = name.starts_with('+');
        SpillLine { name: name.trim_start_matches('+').into(), bytes: 300, entries: 3, follows }
    }

    fn content(entries: u64) -> ContentLine {
        let mut content = Content::default();
        (0..entries).for_each(|entry| content.add(b"key", &entry.to_le_bytes()));
        ContentLine::of(&content)
    }

    fn task(task: usize, spills: &[&str]) -> Line {
        Line::Task(TaskLine {
            task,
            files: vec![file(&format!("{task:06}-000001.sst"), "a", "b\u{1}")],
            spills: spills.iter().map(|name| spill(name)).collect(),
            content: content(13),
            bytes_read: 1000,
            late_entries: 1,
            gave_up: false,
        })
    }

    fn position(key: &str, offsets: &[u64]) -> Option<Position> {
        Some(Position { key: Hex(key.into()), offsets: offsets.to_vec() })
    }

    fn pass(number: usize, segment: &str, next: Option<Position>) -> Line {
        let inputs = vec!["000000-000001.spill".into(), "000001-000001.spill".into()];
        Line::Pass(PassLine { pass: number, inputs, segment: spill(segment), next })
    }

    fn merge(name: &str, next: Option<Position>) -> Line {
        Line::Merge(MergeLine { disjoint: vec![file(name, "m", "n")], overflow: Vec::new(), bytes: 70, next })
    }

    fn conversion() -> Uuid {
        Uuid::from_u128(0x6d6f_7270_686b_7600_0000_0000_0000_0001)
    }

    /// A file with every sort of line, from the beginning to the end of a conversion.
    fn lines() -> Vec<Line> {
        let tile = |of, tile| Line::Tile(TileLine { of, tile, content: content(2), bytes: 40 });
        vec![
            Line::Begin { format: PROGRESS_FORMAT, conversion: conversion() },
            Line::Plan {
                order: Order::Levels,
                levels: vec![0, 2],
                cuts: vec![Hex(b"m".to_vec()), Hex(b"x\xff".to_vec())],
            },
            task(1, &["000001-000001.spill"]),
            task(0, &["000000-000001.spill"]),
            Line::Forget { task: 1 },
            task(2, &["000002-000001.spill", "+000002-000002.spill"]),
            task(1, &["000001-000001.spill"]),
            pass(1, "merged-000001-000001.spill", position("g", &[0, 300])),
            pass(1, "merged-000001-000002.spill", None),
            merge("merged-000001.sst", position("o", &[300, 599])),
            merge("merged-000002.sst", None),
            Line::Built {},
            Line::Scan { of: Scan::Staging, cuts: vec![Hex(b"m".to_vec())] },
            tile(Scan::Staging, 1),
            tile(Scan::Staging, 0),
            Line::Scan { of: Scan::Source, cuts: vec![Hex(Vec::new())] },
            tile(Scan::Source, 0),
        ]
    }

    fn bytes(lines: &[Line]) -> Vec<u8> {
        lines.iter().flat_map(Line::to_bytes).collect()
    }

    /// What the first so many lines say.
    fn states() -> Vec<Recorded> {
        let lines = lines();
        let state = |count: usize| Recorded::read(&bytes(&lines[..count]), conversion()).unwrap().0;
        (1..=lines.len()).map(state).collect()
    }

    #[test]
    fn the_format_never_changes() {
        let golden = include_str!("../../tests/golden/PROGRESS-2.txt");
        assert_eq!(String::from_utf8(bytes(&lines())).unwrap(), golden, "a change of the format is another format");
        let (recorded, len) = Recorded::read(golden.as_bytes(), conversion()).unwrap();
        assert_eq!((len, &recorded), (golden.len(), states().last().unwrap()));
        assert!(recorded.is_rewritten() && recorded.built && recorded.spills().is_empty());
        assert_eq!(recorded.files().count(), 5);
        assert_eq!(recorded.scans[&Scan::Staging].read.len(), 2);
    }

    /// Spill files were not compressed then.
    #[test]
    fn an_older_format_is_no_progress() {
        assert_eq!(Recorded::read(include_bytes!("../../tests/golden/PROGRESS-1.txt"), conversion()), None);
    }

    #[test]
    fn what_a_merge_has_passed_is_not_needed_any_more() {
        let needed = |state: usize| {
            let spills = states()[state].spills();
            let mut names: Vec<String> =
                spills.iter().map(|spill| spill.name.trim_end_matches(".spill").to_owned()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(needed(6), "000000-000001 000001-000001 000002-000001 000002-000002");
        assert_eq!(needed(7), "000000-000001 000002-000001 000002-000002 merged-000001-000001");
        assert_eq!(needed(8), "000002-000001 000002-000002 merged-000001-000001 merged-000001-000002");
        assert_eq!(needed(9), "000002-000002 merged-000001-000002");
        assert_eq!(needed(10), "");
        let sequences = states()[6].sequences();
        assert_eq!(sequences.len(), 3);
        assert_eq!(sequences["000002-000001.spill"].len(), 2);
        assert_eq!([0, 299, 300, 700, 900].map(|offset| files_before([300, 400], offset)), [0, 0, 1, 2, 2]);
        let mut recorded = states()[6].clone();
        recorded.tasks.remove(&2);
        assert_eq!(recorded.add(task(2, &["+000002-000001.spill"])), None, "it follows nothing");
    }

    #[test]
    fn what_is_cut_off_is_the_state_before_it() {
        let (all, states) = (bytes(&lines()), states());
        for len in 0..=all.len() {
            let whole = all[..len].iter().filter(|&&byte| byte == b'\n').count();
            let read = Recorded::read(&all[..len], conversion());
            match whole {
                0 => assert_eq!(read, None, "{len}"),
                _ => {
                    let counted = all[..len].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
                    assert_eq!(read, Some((states[whole - 1].clone(), counted)), "{len}");
                }
            }
        }
    }

    #[test]
    fn whatever_bit_is_flipped_what_counts_was_once_so() {
        let (all, states) = (bytes(&lines()), states());
        let mut nothing = 0;
        for bit in 0..all.len() * 8 {
            let mut flipped = all.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match Recorded::read(&flipped, conversion()) {
                None => nothing += 1,
                Some((recorded, len)) => {
                    assert!(states[..states.len() - 1].contains(&recorded), "bit {bit}");
                    assert!(len <= bit / 8 && all.starts_with(&flipped[..len]), "bit {bit}");
                }
            }
        }
        assert!(nothing > all.len() * 7, "only the last line can be torn: {nothing} of {}", all.len() * 8);
    }

    /// With a checksum that fits, a line that says something else is refused, or it says what another file could say.
    #[test]
    fn lines_that_do_not_follow_from_those_before_are_refused() {
        let lines = lines();
        for index in 0..lines.len() {
            let mut twice = lines.clone();
            twice.insert(index, lines[index].clone());
            assert_eq!(Recorded::read(&bytes(&twice), conversion()), None, "line {index} twice");
            let mut without = lines.clone();
            without.remove(index);
            let last = index == lines.len() - 1;
            // A tile more or less, or a part of a merge but the last one, makes another file that could be.
            let could_be = matches!(lines[index], Line::Tile(_)) || [7, 9].contains(&index);
            assert_eq!(
                Recorded::read(&bytes(&without), conversion()).is_some(),
                last || could_be,
                "without line {index}"
            );
        }
        assert_eq!(Recorded::read(&bytes(&lines), Uuid::nil()), None, "of another conversion");
        let later = Line::Begin { format: PROGRESS_FORMAT + 1, conversion: conversion() };
        assert_eq!(Recorded::read(&[later.to_bytes(), bytes(&lines[1..])].concat(), conversion()), None);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["../x.sst", "a/b.sst", "/x.sst", ".sst", "x", "", "x.sst\0", "..sst"] {
            let mut recorded = states()[1].clone();
            let mut line = task(0, &[]);
            let Line::Task(task) = &mut line else { panic!() };
            task.files[0].name = name.into();
            assert_eq!(recorded.add(line), None, "{name:?}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_read_strictly() {
        assert_eq!(serde_json::to_string(&Hex(vec![0, 0x0f, 0xff])).unwrap(), "\"000fff\"");
        assert_eq!(serde_json::from_str::<Hex>("\"000fff\"").unwrap(), Hex(vec![0, 0x0f, 0xff]));
        for wrong in ["\"0\"", "\"0F\"", "\"0g\"", "\"+1\"", "\" 0\""] {
            assert!(serde_json::from_str::<Hex>(wrong).is_err(), "{wrong}");
        }
    }
}
