//! A conversion against the naive way and against RocksDB's own compaction, as ratios.
//!
//! `make bench-conversion` measures all of it. Slices add their figures to `target/bench/conversion.json`:
//! `cargo bench --bench conversion -- --size small --direction natural-to-hierarchical --only none,compaction --rounds 3`

#[path = "../common/mod.rs"]
mod common;
mod contender;
mod engine;
mod page;
mod record;
mod shapes;
mod source;
mod ways;

use common::root;
use contender::{CONTENDERS, Contender};
use record::Record;
use serde_json::json;
use source::{DIRECTIONS, Direction, SIZES, Size, source};

/// What of all there is to be measured: parts of names, with commas; nothing means all.
struct Wanted {
    sizes: Option<String>,
    directions: Option<String>,
    only: Option<String>,
    /// A part of the name of a shape.
    shape: Option<String>,
    rounds: usize,
}

impl Wanted {
    fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value")).clone())
        };
        Wanted {
            sizes: value("--size"),
            directions: value("--direction"),
            only: value("--only"),
            shape: value("--shape"),
            rounds: value("--rounds").map_or(1, |rounds| rounds.parse().expect("--rounds is a number")),
        }
    }
}

fn is_wanted(wanted: &Option<String>, name: &str) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|wanted| wanted == name))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip_while(|argument| argument != "--child").skip(1).collect();
    if !arguments.is_empty() {
        return shapes::child(&arguments);
    }
    if std::env::args().any(|argument| argument == "--report") {
        return Record::read().draw();
    }
    let wanted = Wanted::from_arguments();
    for size in SIZES.into_iter().filter(|size| is_wanted(&wanted.sizes, size.name)) {
        for direction in DIRECTIONS.into_iter().filter(|direction| is_wanted(&wanted.directions, direction.name())) {
            compare(&wanted, size, direction);
        }
    }
    others(&wanted);
}

/// What is measured at one size alone.
fn others(wanted: &Wanted) {
    let mut record = Record::read();
    let small = |direction: Direction| source(&root(), SIZES[0], &direction.from());
    if is_wanted(&wanted.only, "memory") {
        shapes::measure(&root(), wanted.shape.as_deref()).into_iter().for_each(|figures| record.keep_shape(figures));
    }
    if is_wanted(&wanted.only, "threads") {
        let figures = DIRECTIONS.map(|direction| ways::threads(&root(), &small(direction), direction, wanted.rounds));
        record.set("threads", json!(figures));
    }
    if is_wanted(&wanted.only, "listening") {
        record.set("listening", ways::listening(&root(), &small(Direction::Forth), Direction::Forth, wanted.rounds));
    }
    if is_wanted(&wanted.only, "engine") {
        record.set("engine", engine::measure(&root(), wanted.rounds));
        record.set("encodings", engine::encodings(wanted.rounds));
    }
    record.write();
}

/// The contenders take turns, so that a change of the machine meets all of them.
fn compare(wanted: &Wanted, size: Size, direction: Direction) {
    let contenders: Vec<Contender> =
        CONTENDERS.into_iter().filter(|contender| is_wanted(&wanted.only, contender.name())).collect();
    if contenders.is_empty() {
        return;
    }
    let source = source(&root(), size, &direction.from());
    println!("{} {}: {} entries, {} bytes", size.name, direction.name(), source.entries, source.bytes);
    let mut seconds = vec![Vec::new(); contenders.len()];
    for _ in 0..wanted.rounds {
        for (contender, seconds) in contenders.iter().zip(&mut seconds) {
            seconds.push(contender.run(&root(), &source, direction));
            println!("  {:13} {:8.2} s", contender.name(), seconds[seconds.len() - 1]);
        }
    }
    let mut record = Record::read();
    for (contender, seconds) in contenders.iter().zip(&seconds) {
        record.keep(size, direction, *contender, &source, seconds);
    }
    record.write();
}
