//! What is there after a kill is not what was written: the progress file is cut off or flipped, files are gone, cut off or
//! flipped. Nothing of that is ever taken for what it is not.

use super::common::figures::{Figures, scale};
use super::{Sandbox, few, options};
use morphkv::{Engine, ErrorKind, Verify};
use std::path::{Path, PathBuf};

/// What became of an attempt to go on.
#[derive(Default)]
struct Tally {
    cases: usize,
    resumed: usize,
    begun_again: usize,
}

impl Tally {
    /// Goes on with what stands there, which must end well, with exactly the content.
    fn go_on(&mut self, sandbox: &Sandbox, encoding: &str, what: &str) -> bool {
        let report = sandbox.convert(encoding, |options| options.verify(Verify::Full));
        let report = report.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(report.entries, sandbox.content.len() as u64, "{what}");
        sandbox.require_whole(encoding, what);
        self.cases += 1;
        self.resumed += usize::from(report.resumed);
        self.begun_again += usize::from(!report.resumed);
        report.resumed
    }

    fn print(&self, figures: Figures) {
        figures
            .with("cases", self.cases)
            .with("resumed", self.resumed)
            .with("begun again", self.begun_again)
            .with("accepted wrongly", 0)
            .print();
    }
}

/// The bytes of a progress file: each step of them cut off, each step of the bits flipped.
fn mutations(bytes: &[u8], step: usize) -> Vec<(String, Vec<u8>)> {
    let cut = (0..bytes.len()).step_by(step).map(|len| (format!("cut off after {len} bytes"), bytes[..len].to_vec()));
    let flipped = (0..bytes.len() * 8).step_by(8 * step + 1).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit} flipped"), flipped)
    });
    cut.chain(flipped).collect()
}

#[test]
fn a_progress_file_that_is_cut_off_or_flipped() {
    let figures = Figures::new("resume-progress-mutations");
    let before = few();
    let mut tally = Tally::default();
    for (trap, nth) in [("progress-line-after", 4), ("staging-closed", 1), ("verify-after", 1), ("seal-after", 1)] {
        let killed = before.killed("hierarchical", trap, nth);
        let bytes = std::fs::read(killed.progress()).unwrap();
        let each = scale(bytes.len() / 12 + 1, 7);
        for (mutation, mutated) in mutations(&bytes, each) {
            let case = killed.copy();
            std::fs::write(case.progress(), mutated).unwrap();
            tally.go_on(&case, "hierarchical", &format!("{trap} ({nth}): {mutation}"));
        }
    }
    assert!(
        tally.resumed > 15 && tally.begun_again > 10,
        "{} resumed, {} begun again",
        tally.resumed,
        tally.begun_again
    );
    tally.print(figures);
}

#[test]
fn a_progress_file_of_another_conversion_or_version_or_no_file_at_all() {
    let before = few();
    let killed = before.killed("hierarchical", "progress-line-after", 4);
    let text = std::fs::read_to_string(killed.progress()).unwrap();
    let mut tally = Tally::default();
    let first = text.lines().next().unwrap();
    let rewritten = |line: &str| {
        let line = &line[9..];
        text.replacen(first, &format!("{:08x} {line}", crc32fast::hash(line.as_bytes())), 1)
    };
    let other = before.killed("hierarchical", "progress-line-after", 4);
    let cases = [
        std::fs::read_to_string(other.progress()).unwrap(),
        rewritten(&first.replace("\"format\":2", "\"format\":1")),
        rewritten(&first.replace("\"format\":2", "\"format\":3")),
        rewritten(&first.replace("\"format\":2", "\"format\":2,\"more\":true")),
        text.replacen(first, "", 1),
        String::new(),
    ];
    for (index, progress) in cases.into_iter().enumerate() {
        assert_ne!(progress, text);
        let case = killed.copy();
        std::fs::write(case.progress(), progress).unwrap();
        assert!(!tally.go_on(&case, "hierarchical", &format!("case {index}")), "case {index}: taken over");
    }
    for what in ["gone", "a directory", "a link"] {
        let case = killed.copy();
        let elsewhere = case.directory.path().join("elsewhere");
        std::fs::rename(case.progress(), &elsewhere).unwrap();
        match what {
            "a directory" => std::fs::create_dir(case.progress()).unwrap(),
            "a link" => std::os::unix::fs::symlink(&elsewhere, case.progress()).unwrap(),
            _ => {}
        }
        assert!(!tally.go_on(&case, "hierarchical", what), "{what}: taken over");
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), text, "{what}: a link was followed");
    }
    // The tail is torn in every way, and there is nothing wrong with the rest.
    for torn in ["x", "00000000 {}", "00000000 {}\n", "\n\n\n", "\0\0\0\0\0\0\0\0", &text[..first.len() - 1]] {
        let case = killed.copy();
        std::fs::write(case.progress(), format!("{text}{torn}")).unwrap();
        assert!(tally.go_on(&case, "hierarchical", torn), "{torn:?}: not taken over");
    }
    // A line in the middle is not what it was.
    let case = killed.copy();
    std::fs::write(case.progress(), text.replacen("\"entries\":", "\"entriez\":", 1)).unwrap();
    assert!(!tally.go_on(&case, "hierarchical", "the middle"));
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // One that was just begun holds nothing yet.
    let filled = |path: &PathBuf| path.to_str().unwrap().ends_with(end) && path.metadata().unwrap().len() > 0;
    let mut files: Vec<PathBuf> = entries.filter(filled).collect();
    files.sort();
    files
}

/// Ways in which a file is not as it was.
const DAMAGE: [&str; 6] = ["gone", "half", "empty", "longer", "flipped", "zeros"];

fn damage(path: &Path, how: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let half = bytes.len() / 2;
    match how {
        "gone" => return std::fs::remove_file(path).unwrap(),
        "half" => bytes.truncate(half),
        "empty" => bytes.clear(),
        "longer" => bytes.push(0),
        "flipped" => bytes[half] ^= 1,
        _ => bytes.fill(0),
    }
    // Not in place: where it is ingested, the old name and the new one may be one file.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// In the rewrite, before the ingest, in the merge; then in the database, before and after it is complete, while it is
/// verified. What sizes do not tell, the verification does.
#[test]
fn files_that_are_not_as_they_were() {
    let figures = Figures::new("resume-damaged-files");
    let before = few();
    let mut tally = Tally::default();
    let moments = [
        ("hierarchical", "progress-line-after", 4, "output", ".sst"),
        ("reversed", "progress-line-after", 4, "output", ".spill"),
        ("hierarchical", "rewrite-after", 1, "output", ".sst"),
        ("reversed", "rewrite-after", 1, "output", ".sst"),
        ("hierarchical", "ingest-disjoint", 1, "", ".sst"),
        ("hierarchical", "staging-closed", 1, "", ".sst"),
        ("hierarchical", "verify-after", 1, "", ".sst"),
    ];
    for (encoding, trap, nth, folder, end) in moments {
        let killed = before.killed(encoding, trap, nth);
        let found = files(&killed.staging().join(folder), end);
        assert!(!found.is_empty(), "{trap}: no {end}");
        // What was verified is not read again.
        let seen_later = if trap == "verify-after" { ["flipped", "zeros"].as_slice() } else { &[] };
        for how in DAMAGE.into_iter().filter(|how| !seen_later.contains(how)) {
            for at in [0, found.len() - 1] {
                let case = killed.copy();
                let file =
                    case.path.parent().unwrap().join(found[at].strip_prefix(killed.path.parent().unwrap()).unwrap());
                damage(&file, how);
                tally.go_on(&case, encoding, &format!("{trap} ({nth}): {} {how}", file.display()));
            }
        }
    }
    assert!(tally.resumed > 5 && tally.begun_again > 5, "{} resumed, {} begun again", tally.resumed, tally.begun_again);
    tally.print(figures);
}

/// With counts alone nothing reads the new database, and what was verified is not read again: a flipped bit stays, and is
/// RocksDB's to find. It is found.
#[test]
fn where_nothing_is_read_again_damage_is_an_error_later_and_never_other_content() {
    for (verify, trap, folder) in [("counts", "rewrite-after", "output"), ("full", "verify-after", "")] {
        let killed = few();
        let mut orders = super::to(&killed.path, "hierarchical").dying_at(trap, 1);
        orders.verify = verify;
        assert!(orders.run().killed);
        let found = files(&killed.staging().join(folder), ".sst");
        damage(found.iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap(), "flipped");
        let report = killed.convert("hierarchical", |options| options).unwrap();
        assert!(report.resumed, "{trap}");
        let engine = Engine::open(&killed.path, options()).unwrap();
        let mut read = 0;
        let damaged = engine.range(..).unwrap().find_map(|entry| match entry {
            Ok((key, value)) => {
                read += 1;
                assert_eq!(killed.content.get(&key), Some(&value));
                None
            }
            Err(error) => Some(error),
        });
        assert!(damaged.is_some_and(|error| error.kind() == ErrorKind::Corrupt), "{trap}: {read} entries were read");
    }
}

/// What a killed attempt has left and no line speaks of is removed, whatever it is.
#[test]
fn strangers_in_the_output_folder_do_not_count() {
    let killed = few().killed("hierarchical", "progress-line-after", 4);
    let folder = killed.staging().join("output");
    std::fs::write(folder.join("000009-000001.sst"), "not an SST file").unwrap();
    std::fs::write(folder.join("merged-000001.sst"), "nor this").unwrap();
    std::fs::create_dir_all(folder.join("a/b")).unwrap();
    let (done, all) = killed.tasks();
    let ended = super::to(&killed.path, "hierarchical").run();
    assert_eq!(ended.report.unwrap()["resumed"], true);
    assert_eq!(ended.tasks_begun, all - done);
    killed.require_whole("hierarchical", "strangers");
}
