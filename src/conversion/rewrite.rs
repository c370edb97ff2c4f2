//! Rewriting all of a source into SST files in another key encoding.

use super::borders::{Order, Swap};
use super::buffer::{SortBuffer, SpareMemory};
use super::codec::{Decoder, Encoder};
use super::digest::{Content, Digest};
use super::line::Source;
use super::merge::Merge;
use super::output::{FileMaker, OutputFile};
use super::parallel::{Stop, Turns, in_parallel};
use super::placer::separate;
use super::progress::{PACE_BYTES, Phase, Reporter};
use super::record::{ContentLine, FileLine, SpillLine, TaskLine};
use super::resume::Recorder;
use super::runs::{Limits, Runs, Written};
use super::sorter::{READER_BYTES, Sorter};
use super::source::{Probe, Reader, cut_as_key};
use super::tasks::{Plan, Task, file_bytes};
use super::tuning::Tuning;
use crate::encoding::{Comparator, EncodingId, KeyEncoding};
use crate::error::{Error, ErrorKind, Result, show_key};
use crate::fs::Vfs;
use crate::layout::OUTPUT;
use crate::rocks::{Database, Settings, SstOptions};
use crate::trap::trap;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is to be rewritten, into what, with which means.
#[derive(Clone, Copy)]
pub struct Rewrite<'a> {
    /// For the files that RocksDB does not write.
    pub vfs: &'a dyn Vfs,
    /// Open read only; nobody may write to it meanwhile.
    pub source: &'a Database,
    /// The source's encoding.
    pub from: &'a dyn KeyEncoding,
    /// The encoding to write.
    pub to: &'a dyn KeyEncoding,
    /// The staging directory; the folder of the files is made in it, and what nothing speaks of removed if it stands.
    pub staging: &'a Path,
    /// How the staging database is opened.
    pub settings: &'a Settings,
    /// Memory for all workers together, in bytes; six times the largest entry for each worker comes on top.
    pub memory_bytes: u64,
    /// Threads that work.
    pub threads: usize,
    /// Who is told how far it is.
    pub progress: &'a Reporter,
    /// What was done by an attempt before, and where to record what is done; none: nothing is recorded.
    pub(super) recorder: Option<&'a Recorder<'a>>,
}

/// All of the source, in files.
#[derive(Debug, Clone, Default)]
pub struct Rewritten {
    /// Files of which none overlaps another, ascending.
    pub disjoint: Vec<OutputFile>,
    /// Files that overlap those, and maybe each other.
    pub overflow: Vec<OutputFile>,
    /// Entries in all of them; as many were read.
    pub entries: u64,
    /// The digest of what was read.
    pub digest: Digest,
    /// Entries in `overflow`.
    pub overflow_entries: u64,
    /// Bytes of encoded keys and values read.
    pub bytes_read: u64,
    /// Bytes of the files.
    pub bytes_written: u64,
    /// Bytes that went through spill files, which are gone.
    pub bytes_spilled: u64,
}

/// So many that threads which run dry at the end wait for little.
const TASKS_PER_THREAD: u64 = 8;
/// Of how many entries one may be late before runs are given up for a sort: 5 %.
const ENTRIES_PER_LATE: u64 = 20;
/// How many keys an error names that the target cannot carry.
const NAMED_KEYS: usize = 10;
/// In so many parts at least is merged what was spilled: after each of them, room is given back.
const PARTS: u64 = 24;
/// A part costs a sync.
const PART_BYTES_LEAST: u64 = 16 << 20;
/// What a file that is being written takes.
const OPEN_FILE_BYTES: usize = 4 << 20;

/// One worker more than may compute at a time: it does while another waits for a file to be synced. A single thread is
/// one worker, so that everything happens in one order.
fn workers(threads: usize) -> usize {
    if threads > 1 { threads + 1 } else { 1 }
}

/// Whether rewriting from one encoding into the other has to sort everything on disk, since nothing is known of how
/// their orders go together: that takes room for all keys and values once more, at worst not compressed.
pub fn sorts_on_disk(from: &dyn KeyEncoding, to: &dyn KeyEncoding) -> bool {
    !runs_pay(Order::of(from), Order::of(to))
}

fn runs_pay(from: Order, to: Order) -> bool {
    let into_levels = matches!((from, to), (Order::Natural | Order::Spans | Order::Levels, Order::Levels));
    into_levels || matches!((from, to), (Order::Natural | Order::Levels, Order::Natural))
}

/// Reads all of the source, decodes and encodes every key, and writes SST files into staging.
///
/// Every key is proved to come back from its encoded form, and every row of the source to be the one encoded form of
/// its key (of this crate's encodings, by its tests); as many entries are in the files as were read.
///
/// # Errors
/// `Corrupt` (the source is damaged, or a row in it is not what its encoding makes), `Unrepresentable` (the target
/// cannot carry some keys: the message names up to ten, in the order of reading), `Unsupported` (the target needs a
/// comparator of its own), `NoSpace`, `Io`. Files may lie in staging's output folder; the source is untouched.
pub(super) fn rewrite_tuned(job: &Rewrite<'_>, tuning: &Tuning) -> Result<Rewritten> {
    if job.to.comparator() != Comparator::Bytewise {
        let message = format!("{} can be converted from, not to", EncodingId::of(job.to));
        return Err(Error::new(ErrorKind::Unsupported, "rewrite a database", message));
    }
    let folder = job.staging.join(OUTPUT);
    match job.recorder {
        Some(recorder) if recorder.taken().built => {}
        Some(recorder) => recorder.clear_folder()?,
        None => {
            crate::fs::remove_tree(job.vfs, &folder)?;
            job.vfs.make_dir(&folder)?;
        }
    }
    // Figures for the progress alone: if a file cannot be read, reading it will say so.
    let logical_bytes = job.source.table_figures().map_or(0, |figures| figures.logical_bytes());
    let memory = job.source.stats().map_or(0, |stats| stats.memtable_bytes);
    let passes = if sorts_on_disk(job.from, job.to) { 2 } else { 1 };
    job.progress.begin(Phase::Rewrite, (logical_bytes + memory).saturating_mul(passes));
    let threads = job.threads.max(1);
    let source = Source::of_files(job.vfs, job.source)?;
    let make_plan = || {
        let wanted = file_bytes(job.source)? / (TASKS_PER_THREAD * threads as u64);
        Plan::new(&source, job.from, wanted.clamp(tuning.task_bytes.0, tuning.task_bytes.1))
    };
    let plan = match job.recorder {
        Some(recorder) => recorder.plan(make_plan)?,
        None => make_plan()?,
    };
    let orders = (plan.order, Order::of(job.to));
    let mut work = Work {
        job: *job,
        source,
        tuning: *tuning,
        workers: workers(threads).min(plan.len()),
        turns: Turns::new(threads),
        swap: Swap::between(orders.0, orders.1),
        by_level: orders.1 == Order::Levels,
        options: SstOptions::new(job.settings),
        spare: Arc::default(),
        folder,
        plan,
        unsorted: AtomicBool::new(sorts_on_disk(job.from, job.to)),
        entries: AtomicU64::new(0),
        late_entries: AtomicU64::new(0),
        refused: Mutex::new(BTreeMap::new()),
        refusing: AtomicBool::new(false),
    };
    let mut outputs = work.take_over();
    let todo: Vec<usize> = (0..work.plan.len()).filter(|task| !outputs.contains_key(task)).collect();
    let done = in_parallel(work.workers, todo.len(), |at, stop| work.task(todo[at], stop))?;
    work.report_refused()?;
    outputs.extend(todo.into_iter().zip(done));
    let rewritten = work.join(outputs.into_values().collect())?;
    job.progress.end();
    Ok(rewritten)
}

/// A rewrite under way.
struct Work<'a> {
    job: Rewrite<'a>,
    source: Source<'a>,
    tuning: Tuning,
    workers: usize,
    turns: Turns,
    plan: Plan,
    swap: Swap,
    by_level: bool,
    options: SstOptions,
    spare: Arc<SpareMemory>,
    folder: PathBuf,
    /// Runs do not pay, or have shown that they do not.
    unsorted: AtomicBool,
    entries: AtomicU64,
    late_entries: AtomicU64,
    /// By task: the first keys that the target cannot carry.
    refused: Mutex<BTreeMap<usize, Vec<String>>>,
    /// There are some: nothing needs to be written any more.
    refusing: AtomicBool,
}

/// What became of a task.
#[derive(Default)]
struct TaskOutput {
    written: Written,
    content: Content,
    bytes_read: u64,
}

impl Work<'_> {
    fn worker_bytes(&self) -> usize {
        usize::try_from(self.job.memory_bytes).unwrap_or(usize::MAX) / self.workers
    }

    fn maker(&self, prefix: String) -> FileMaker<'_> {
        FileMaker {
            vfs: self.job.vfs,
            options: &self.options,
            encoding: self.job.to,
            folder: self.folder.clone(),
            turns: Some(&self.turns),
            prefix,
            file_bytes: self.tuning.file_bytes,
            made: 0,
        }
    }

    fn runs(&self, task: Task<'_>) -> Runs<'_> {
        let prefix = format!("{:06}", task.index);
        let limits = Limits {
            buffer_bytes: (self.worker_bytes() / 2).max(4 << 10),
            files: (self.worker_bytes() / OPEN_FILE_BYTES).clamp(4, 64),
            small_bytes: self.tuning.small_bytes,
        };
        let sorter =
            Sorter::new(self.job.vfs, &self.folder, &prefix, self.tuning.spill_bytes, SortBuffer::new(&self.spare));
        Runs::new(self.maker(prefix), sorter, self.by_level, limits)
    }

    /// The tasks that an attempt before has done.
    fn take_over(&mut self) -> BTreeMap<usize, TaskOutput> {
        let Some(recorder) = self.job.recorder else { return BTreeMap::new() };
        let taken = recorder.taken();
        let outputs: BTreeMap<usize, TaskOutput> =
            taken.tasks.iter().filter_map(|(index, task)| Some((*index, self.output_of(task)?))).collect();
        let entries = outputs.values().map(|output| output.content.entries).sum();
        *self.entries.get_mut() = entries;
        *self.late_entries.get_mut() = taken.tasks.values().map(|task| task.late_entries).sum();
        *self.unsorted.get_mut() |= taken.tasks.values().any(|task| task.gave_up);
        let merged = taken.merged.as_ref().map_or(0, |merged| merged.bytes);
        self.job.progress.advance(outputs.values().map(|output| output.bytes_read).sum::<u64>() + merged, entries);
        outputs
    }

    fn output_of(&self, task: &TaskLine) -> Option<TaskOutput> {
        let written = Written {
            files: task.files.iter().map(|file| file.in_folder(&self.folder)).collect(),
            spills: task.spills.iter().map(|spill| spill.in_folder(&self.folder)).collect(),
            ..Written::default()
        };
        Some(TaskOutput { written, content: task.content.content()?, bytes_read: task.bytes_read })
    }

    /// Records a task that ended.
    fn record(&self, task: usize, output: &TaskOutput, late_entries: u64) -> Result<()> {
        let Some(recorder) = self.job.recorder else { return Ok(()) };
        recorder.task(TaskLine {
            task,
            files: output.written.files.iter().map(FileLine::of).collect(),
            spills: output.written.spills.iter().map(SpillLine::of).collect(),
            content: ContentLine::of(&output.content),
            bytes_read: output.bytes_read,
            late_entries,
            gave_up: self.unsorted.load(Ordering::Relaxed) && !sorts_on_disk(self.job.from, self.job.to),
        })
    }

    /// Reads a task to its end and writes all of it.
    fn task(&self, index: usize, stop: &Stop) -> Result<TaskOutput> {
        let task = self.plan.task(index);
        let mut output = TaskOutput::default();
        if self.refused_up_to(index) >= NAMED_KEYS {
            return Ok(output);
        }
        let Rewrite { from, to, .. } = self.job;
        let _turn = self.turns.take();
        trap!(self.job.vfs, RewriteTaskBegun);
        let mut reader = Reader::new(&self.source, &self.plan, task, self.worker_bytes() / 4)?;
        let mut borders = Borders::new(self, task)?;
        let mut runs = self.runs(task);
        let (mut decoder, mut encoder) = (Decoder::new(from), Encoder::new(to));
        let mut pace = Pace::default();
        while let Some((encoded, value)) = reader.next()? {
            let key = decoder.decode(encoded)?;
            output.content.add(key, value);
            output.bytes_read += (encoded.len() + value.len()) as u64;
            match encoder.encode(key)? {
                Some(_) if self.refusing.load(Ordering::Relaxed) => {}
                Some(target) if self.unsorted.load(Ordering::Relaxed) => runs.add_unsorted(target, value),
                Some(target) => runs.add(target, value),
                None if self.refuse(index, key) => return Ok(output),
                None => {}
            }
            while runs.is_full() {
                pace.tell(self, &output);
                let late_before = runs.late_entries();
                if runs.relieve(borders.at(key)?)? {
                    borders.keep();
                }
                self.count_late(runs.late_entries() - late_before);
            }
            if pace.is_due(&output) {
                stop.check()?;
                pace.tell(self, &output);
            }
        }
        pace.tell(self, &output);
        if self.refusing.load(Ordering::Relaxed) {
            return Ok(output);
        }
        let late_entries = runs.late_entries();
        output.written = runs.finish(borders.at_end(task)?, self.plan.len() == 1)?;
        trap!(self.job.vfs, RewriteTaskDone);
        // What is in memory cannot be recorded: with it a lone task is recorded once it is merged.
        if output.written.memory.is_empty() {
            self.turns.lend(|| self.record(index, &output, late_entries))?;
        }
        Ok(output)
    }
}

impl Work<'_> {
    /// Notes a key that the target cannot carry; true once enough of them are known.
    fn refuse(&self, task: usize, key: &[u8]) -> bool {
        self.refusing.store(true, Ordering::Relaxed);
        self.refused.lock().entry(task).or_default().push(show_key(key));
        self.refused_up_to(task + 1) >= NAMED_KEYS
    }

    /// How many such keys are known of the tasks before `end`: later ones come later in the order of reading.
    fn refused_up_to(&self, end: usize) -> usize {
        self.refused.lock().range(..end).map(|(_, keys)| keys.len()).sum()
    }

    fn report_refused(&self) -> Result<()> {
        let refused = self.refused.lock();
        let keys: Vec<&str> = refused.values().flatten().map(String::as_str).take(NAMED_KEYS).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let what = if keys.len() < NAMED_KEYS { "these keys" } else { "these keys, and maybe more" };
        let message = format!("{} cannot carry {what}: {}", EncodingId::of(self.job.to), keys.join(", "));
        Err(Error::new(ErrorKind::Unrepresentable, "rewrite a database", message).at(self.job.source.path()))
    }

    /// Gives runs up when they do not pay.
    fn count_late(&self, entries: u64) {
        if entries == 0 {
            return;
        }
        self.job.progress.advance_overflow(entries);
        let late = self.late_entries.fetch_add(entries, Ordering::Relaxed) + entries;
        let all = self.entries.load(Ordering::Relaxed);
        let too_many = all >= self.tuning.sample_entries && late.saturating_mul(ENTRIES_PER_LATE) > all;
        if too_many && !self.unsorted.swap(true, Ordering::Relaxed) {
            tracing::warn!(late, entries = all, "the orders do not go together, so the rest is sorted on disk");
        }
    }

    /// Merges what no run took around the files of the runs.
    fn join(&self, outputs: Vec<TaskOutput>) -> Result<Rewritten> {
        let (mut files, mut spills, mut memory) = (Vec::new(), Vec::new(), SortBuffer::default());
        let (mut content, mut bytes_read) = (Content::default(), 0);
        for output in outputs {
            content.merge(output.content);
            bytes_read += output.bytes_read;
            files.extend(output.written.files);
            spills.extend(output.written.spills);
            if !output.written.memory.is_empty() {
                // Only a task that is alone keeps anything in memory.
                memory = output.written.memory;
            }
        }
        let gave_up = self.late_entries.load(Ordering::Relaxed) > 0 && self.unsorted.load(Ordering::Relaxed);
        let in_files: u64 = files.iter().map(|file| file.bytes).sum();
        let in_spills: u64 = spills.iter().map(|spill| spill.bytes).sum();
        // Runs that were given up early are in the way of nearly all that follows: the lesser part makes way.
        let (standing, mut overflow) =
            if gave_up && in_files < in_spills { (Vec::new(), files) } else { separate(files) };
        let lone = !memory.is_empty();
        let merge = Merge {
            vfs: self.job.vfs,
            folder: &self.folder,
            encoding: self.job.to,
            at_once: usize::try_from(self.job.memory_bytes).unwrap_or(usize::MAX) / 2 / READER_BYTES,
            part_bytes: (bytes_read / PARTS).max(PART_BYTES_LEAST).min(self.tuning.part_bytes),
            recorder: self.job.recorder,
            progress: self.job.progress,
        };
        let maker = FileMaker { turns: None, ..self.maker("merged".into()) };
        let (between, late) = merge.around(&standing, spills, memory, maker)?;
        overflow.extend(late);
        let mut disjoint = standing;
        disjoint.extend(between);
        disjoint.sort_by(|left, right| left.smallest.cmp(&right.smallest));
        let rewritten = Rewritten {
            entries: content.entries,
            digest: content.digest,
            overflow_entries: overflow.iter().map(|file| file.entries).sum(),
            bytes_read,
            bytes_spilled: in_spills,
            bytes_written: disjoint.iter().chain(&overflow).map(|file| file.bytes).sum(),
            disjoint,
            overflow,
        };
        self.check_counts(&rewritten)?;
        if lone {
            let files = rewritten.disjoint.iter().chain(&rewritten.overflow).cloned().collect();
            let written = Written { files, ..Written::default() };
            let late_entries = self.late_entries.load(Ordering::Relaxed);
            self.record(0, &TaskOutput { written, content, bytes_read }, late_entries)?;
        }
        Ok(rewritten)
    }

    fn check_counts(&self, rewritten: &Rewritten) -> Result<()> {
        let written: u64 = rewritten.disjoint.iter().chain(&rewritten.overflow).map(|file| file.entries).sum();
        if written == rewritten.entries {
            return Ok(());
        }
        let message = format!("{} entries were read and {written} written; the source is untouched", rewritten.entries);
        Err(Error::new(ErrorKind::Corrupt, "rewrite a database", message).at(&self.folder))
    }
}

/// Where files of a task must end.
struct Borders<'w> {
    swap: Swap,
    order: Order,
    probe: Probe<'w>,
    /// Those towards what the tasks before this one write, and other lasting ones.
    lasting: Vec<Vec<u8>>,
    all: Vec<Vec<u8>>,
}

impl<'w> Borders<'w> {
    fn new(work: &'w Work<'_>, task: Task<'_>) -> Result<Self> {
        let probe = Probe::new(work.job.source, &work.plan)?;
        let order = work.plan.order;
        let mut borders = Borders { swap: work.swap, order, probe, lasting: Vec::new(), all: Vec::new() };
        if let Some(start) = task.start {
            borders.lasting = borders.of(&cut_as_key(order, start))?;
        }
        Ok(borders)
    }

    fn of(&mut self, point: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.swap.borders(point, |block| self.probe.holds(block))
    }

    /// When everything up to `key` has been read.
    fn at(&mut self, key: &[u8]) -> Result<&[Vec<u8>]> {
        self.all = self.of(key)?;
        self.all.extend_from_slice(&self.lasting);
        self.all.sort_unstable();
        self.all.dedup();
        Ok(&self.all)
    }

    /// Those asked for last hold until the task ends.
    fn keep(&mut self) {
        self.lasting = std::mem::take(&mut self.all);
    }

    /// When all of the task has been read: the later tasks are still to come.
    fn at_end(&mut self, task: Task<'_>) -> Result<&[Vec<u8>]> {
        match task.end {
            Some(end) => self.at(&cut_as_key(self.order, end)),
            None => Ok(&self.lasting),
        }
    }
}

/// Tells progress now and then, not for each entry.
#[derive(Default)]
struct Pace {
    bytes: u64,
    entries: u64,
}

impl Pace {
    #[inline]
    fn is_due(&self, output: &TaskOutput) -> bool {
        output.bytes_read - self.bytes >= PACE_BYTES
    }

    fn tell(&mut self, work: &Work<'_>, output: &TaskOutput) {
        let entries = output.content.entries - self.entries;
        work.entries.fetch_add(entries, Ordering::Relaxed);
        work.job.progress.advance(output.bytes_read - self.bytes, entries);
        *self = Pace { bytes: output.bytes_read, entries: output.content.entries };
    }
}
