//! Every truncation and every single-bit flip of the control files, every byte overwritten, and mutations at random: read by
//! the parsers alone, and on disk, where a place with such a file is opened. What was not written so is never taken for it.

mod disk;
mod mutations;

use super::common::{Content, figures};
use super::layouts::templates::{Db, State, Templates};
use morphkv::ErrorKind;
use morphkv::testing::{journal, marker};
use mutations::{Chance, Mutation, Mutations};

/// A control file that was really written.
pub struct Original {
    pub name: String,
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Marker,
    Journal,
    Identity,
}

/// What a parser made of some bytes, as it would be written again.
fn parse(kind: Kind, bytes: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let read = match kind {
        Kind::Marker => marker::from_bytes(bytes).and_then(|marker| marker::to_bytes(&marker)),
        Kind::Journal => journal::from_bytes(bytes).and_then(|journal| journal::to_bytes(&journal)),
        Kind::Identity => marker::Identity::from_bytes(bytes).and_then(|identity| identity.to_bytes()),
    };
    read.map_err(|error| error.kind())
}

/// The markers, identities and journals of all databases and changes that the templates have.
fn originals(templates: &Templates) -> Vec<Original> {
    let mut originals = Vec::new();
    for db in [Db::Base, Db::Converted, Db::Again, Db::Created, Db::Stranger] {
        let bytes = templates.template(db, State::Whole).tree["KEY_ENCODING"].clone().unwrap();
        let identity = marker::from_bytes(&bytes).unwrap().identity().to_bytes().unwrap();
        originals.push(Original { name: format!("marker of {db:?}"), kind: Kind::Marker, bytes });
        originals.push(Original { name: format!("identity of {db:?}"), kind: Kind::Identity, bytes: identity });
    }
    for (name, journal) in &templates.journals {
        let bytes = journal::to_bytes(journal).unwrap();
        originals.push(Original { name: format!("journal {name}"), kind: Kind::Journal, bytes });
    }
    originals
}

#[derive(Default, Clone, Copy)]
pub struct Counts {
    truncations: usize,
    flips: usize,
    overwritten: usize,
    random: usize,
    /// Of those, with a checksum that fits, so that what lies behind it is reached.
    refitted: usize,
    /// Places that were opened with a mutated file.
    on_disk: usize,
    /// Of those, opened with the right content, since what was mutated says nothing that counts.
    opened: usize,
    fuzzed: u64,
}

impl Counts {
    fn add(self, other: Counts) -> Counts {
        Counts {
            truncations: self.truncations + other.truncations,
            flips: self.flips + other.flips,
            overwritten: self.overwritten + other.overwritten,
            random: self.random + other.random,
            refitted: self.refitted + other.refitted,
            on_disk: self.on_disk + other.on_disk,
            opened: self.opened + other.opened,
            fuzzed: self.fuzzed + other.fuzzed,
        }
    }
}

/// Reads what a mutation gives. Whether it was taken for what was written, wrongly.
fn accepted(original: &Original, mutation: &Mutation) -> bool {
    assert_ne!(mutation.bytes, original.bytes);
    match parse(original.kind, &mutation.bytes) {
        Ok(_) => {
            eprintln!("accepted wrongly: {}, {}", original.name, mutation.name);
            true
        }
        Err(kind) => {
            let typed = matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported);
            assert!(typed, "{}, {}: {kind:?}", original.name, mutation.name);
            false
        }
    }
}

/// With a checksum that fits, bytes may be accepted; then they mean the same when they are written again.
fn check_refitted(kind: Kind, name: &str, bytes: &[u8]) {
    match parse(kind, bytes) {
        Ok(again) => assert_eq!(parse(kind, &again).as_ref(), Ok(&again), "{name}: read, written, and read otherwise"),
        Err(error) => {
            let typed = matches!(error, ErrorKind::Corrupt | ErrorKind::Unsupported);
            assert!(typed, "{name}: {error:?}");
        }
    }
}

const RANDOM: usize = 10_000;

/// All mutations of one file, through its parser. The counts, and how many were accepted wrongly.
fn parser(original: &Original, seed: u64) -> (Counts, usize) {
    let mut mutations = Mutations::of(&original.bytes, seed);
    let (truncations, flips, overwritten) = (mutations.truncations(), mutations.flips(), mutations.overwritten());
    let random = mutations.random(RANDOM);
    let counts = Counts {
        truncations: truncations.len(),
        flips: flips.len(),
        overwritten: overwritten.len(),
        random: random.len(),
        refitted: flips.len() + random.len(),
        ..Counts::default()
    };
    for mutation in flips.iter().chain(&random) {
        let name = format!("{}, {}, its checksum made to fit", original.name, mutation.name);
        check_refitted(original.kind, &name, &mutations::refit(&mutation.bytes));
    }
    let all = truncations.iter().chain(&flips).chain(&overwritten).chain(&random);
    (counts, all.filter(|mutation| accepted(original, mutation)).count())
}

/// What the fuzz targets do, on mutations of real files and on bytes that are none.
fn fuzz(originals: &[Original], seed: u64, executions: u64) -> Counts {
    let mut chance = Chance::new(seed);
    for execution in 0..executions {
        let original = &originals[chance.below(originals.len())];
        let bytes = match execution % 4 {
            0 => {
                let len = chance.below(600);
                (0..len).map(|_| chance.byte()).collect()
            }
            _ => mutations::mutated(&original.bytes, &mut chance),
        };
        let name = format!("{}, execution {execution} of seed {seed}", original.name);
        let read = parse(original.kind, &bytes);
        assert!(bytes == original.bytes || read.is_err(), "{name}: accepted {}", String::from_utf8_lossy(&bytes));
        check_refitted(original.kind, &name, &mutations::refit(&bytes));
    }
    Counts { fuzzed: executions, ..Counts::default() }
}

fn half(templates: &Templates, originals: &[Original], half: usize) -> (Counts, usize) {
    let (mut counts, mut wrong) = (Counts::default(), 0);
    for (index, original) in originals.iter().enumerate().skip(half).step_by(2) {
        let (found, accepted) = parser(original, index as u64 + 1);
        counts = counts.add(found);
        wrong += accepted;
    }
    let executions = figures::scale(100_000, 5_000_000);
    counts = counts.add(fuzz(originals, 1_000 + half as u64, executions));
    (counts.add(disk::all(templates, half)), wrong)
}

#[test]
fn no_mutated_control_file_is_taken_for_what_was_written() {
    let figures = figures::Figures::new("flips");
    let templates = Templates::make();
    let originals = originals(&templates);
    let (counts, wrong) = std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(&templates, &originals, 1));
        let (even, wrong) = half(&templates, &originals, 0);
        let (odd, also_wrong) = odd.join().unwrap();
        (even.add(odd), wrong + also_wrong)
    });
    figures
        .with("files", originals.len())
        .with("truncations", counts.truncations)
        .with("flips", counts.flips)
        .with("overwritten", counts.overwritten)
        .with("random", counts.random)
        .with("refitted", counts.refitted)
        .with("fuzzed", counts.fuzzed)
        .with("on_disk", counts.on_disk)
        .with("opened_rightly", counts.opened)
        .with("accepted_wrongly", wrong)
        .print();
    assert_eq!(wrong, 0, "a mutated control file was accepted");
    let whole: usize = originals.iter().map(|original| original.bytes.len()).sum();
    assert_eq!((counts.truncations, counts.flips), (whole, whole * 8), "every truncation and every bit");
    assert!(counts.fuzzed >= figures::scale(200_000, 10_000_000));
    assert!(counts.opened > 0 && counts.on_disk > counts.opened);
}

/// What a mutated place must hold if it opens.
pub struct Right<'t> {
    pub content: &'t Content,
    pub encodings: &'static [&'static str],
}
