//! Mutated control files on disk: a place with such a file is opened.

use super::mutations::{Mutation, Mutations, refit};
use super::{Counts, Right};
use crate::common::{self, figures, options};
use crate::layouts::templates::{Db, State, Templates, is_log, write_tree};
use morphkv::testing::{Database, Family, RealVfs, Settings, journal, marker};
use morphkv::{Durability, Engine, Error, ErrorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A place with one file that is to be mutated.
struct Target<'t> {
    name: &'static str,
    templates: &'t Templates,
    databases: &'static [(&'static str, Db, State)],
    journal: Option<&'static str>,
    /// Below the parent directory.
    file: &'static str,
    encodings: &'static [&'static str],
}

const OLD: (Db, State) = (Db::Base, State::Whole);
const NEW: (Db, State) = (Db::Converted, State::Whole);

/// Refused whatever is wrong with the file, with nothing changed.
fn refused(templates: &Templates) -> Vec<Target<'_>> {
    let mid = |name, databases, journal| Target {
        name,
        templates,
        databases,
        journal: Some(journal),
        file: "db.conversion",
        encodings: &["natural", "hierarchical"],
    };
    vec![
        Target {
            name: "the marker of a database",
            templates,
            databases: &[("db", OLD.0, OLD.1)],
            journal: None,
            file: "db/KEY_ENCODING",
            encodings: &["natural"],
        },
        mid(
            "the journal between the renames",
            &[("db.backup", OLD.0, OLD.1), ("db.converting", NEW.0, NEW.1)],
            "convert ready",
        ),
        mid(
            "the journal before the renames",
            &[("db", OLD.0, OLD.1), ("db.converting", NEW.0, NEW.1)],
            "convert ready",
        ),
        mid(
            "the journal after the renames",
            &[("db", NEW.0, NEW.1), ("db.backup", OLD.0, OLD.1)],
            "convert ready, keeping",
        ),
    ]
}

/// The marker of the new database, which has not moved in yet: without it, it is not whole, and the old one is put back.
fn staged<'t>(templates: &'t Templates, encodings: &'static [&'static str]) -> Target<'t> {
    Target {
        name: "the marker of staging",
        templates,
        databases: &[("db.backup", OLD.0, OLD.1), ("db.converting", NEW.0, NEW.1)],
        journal: Some("convert ready"),
        file: "db.converting/KEY_ENCODING",
        encodings,
    }
}

impl Target<'_> {
    fn build(&self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
        for (name, db, state) in self.databases {
            write_tree(&self.templates.template(*db, *state).tree, &directory.join(name));
        }
        if let Some(name) = self.journal {
            let bytes = journal::to_bytes(&self.templates.journals[name]).unwrap();
            std::fs::write(directory.join("db.conversion"), bytes).unwrap();
        }
    }

    fn right(&self) -> Right<'_> {
        Right { content: &self.templates.template(OLD.0, OLD.1).content, encodings: self.encodings }
    }
}

/// Whether it opened, which is right only with the right content.
fn opened_rightly(what: &str, opened: Result<Engine, Error>, right: &Right<'_>) -> bool {
    use ErrorKind::{Corrupt, Refused, UnknownEncoding, Unsupported};
    match opened {
        Ok(engine) => {
            assert_eq!(common::content(&engine), *right.content, "{what}: accepted wrongly, with the wrong content");
            assert!(right.encodings.contains(&engine.encoding().name.as_str()), "{what}: the wrong encoding");
            engine.close().unwrap();
            true
        }
        Err(error) => {
            let typed = matches!(error.kind(), Refused | Corrupt | Unsupported | UnknownEncoding);
            assert!(typed, "{what}: {error:?}");
            false
        }
    }
}

fn bytes(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut bytes = common::bytes_below(directory);
    bytes.retain(|name, _| !is_log(name));
    bytes
}

/// Every other of these, beginning with the `half`th, and of those one in `CI` where the large size is not asked for.
fn share(mutations: Vec<Mutation>, half: usize, one_in: usize) -> impl Iterator<Item = Mutation> {
    let one_in = figures::scale(one_in, 1);
    mutations.into_iter().skip(half).step_by(2).step_by(one_in)
}

/// Every truncation and every bit: a typed refusal, and not a byte changed.
fn all_refused(target: &Target<'_>, half: usize, counts: &mut Counts) {
    let scratch = common::scratch();
    let directory = scratch.path();
    target.build(directory);
    let file = directory.join(target.file);
    let original = std::fs::read(&file).unwrap();
    let mutations = Mutations::of(&original, 0);
    let mut expected = bytes(directory);
    for mutation in share(mutations.truncations(), half, 1).chain(share(mutations.flips(), half, 1)) {
        let what = format!("{}, {}", target.name, mutation.name);
        std::fs::write(&file, &mutation.bytes).unwrap();
        expected.insert(target.file.into(), mutation.bytes);
        match Engine::open(directory.join("db"), options()) {
            Ok(_) => panic!("{what}: accepted wrongly"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error:?}"),
        }
        assert!(bytes(directory) == expected, "{what}: refused, and yet changed");
        counts.on_disk += 1;
    }
    std::fs::write(&file, &original).unwrap();
    let opened = Engine::open(directory.join("db"), options());
    assert!(opened_rightly(target.name, opened, &target.right()), "{}: it opens as it was", target.name);
}

/// Mutations after which the place may open (or must), then with the right content; where it does not, it does so again
/// once the file is as it was.
fn opened(target: &Target<'_>, must: bool, mutations: impl Iterator<Item = Mutation>, counts: &mut Counts) {
    let scratch = common::scratch();
    let directory = scratch.path();
    let (file, path) = (directory.join(target.file), directory.join("db"));
    for mutation in mutations {
        let what = format!("{}, {}", target.name, mutation.name);
        target.build(directory);
        let original = std::fs::read(&file).unwrap();
        std::fs::write(&file, &mutation.bytes).unwrap();
        counts.on_disk += 1;
        if opened_rightly(&what, Engine::open(&path, options()), &target.right()) {
            counts.opened += 1;
        } else {
            assert!(!must, "{what}: it should open with the old database");
            let mended = std::fs::write(&file, original);
            mended.unwrap_or_else(|error| panic!("{what}: refused, and yet {} is gone: {error}", target.file));
            let what = format!("{what}, and mended");
            assert!(opened_rightly(&what, Engine::open(&path, options()), &target.right()), "{what}: it stays closed");
        }
    }
}

/// Flips whose checksum was made to fit: what is behind the checksum has to find them, or they say nothing that counts.
fn refitted(original: &[u8]) -> Vec<Mutation> {
    let flips = Mutations::of(original, 0).flips().into_iter().take((original.len() - 10) * 8);
    flips
        .map(|flip| Mutation { name: format!("{}, its checksum made to fit", flip.name), bytes: refit(&flip.bytes) })
        .filter(|flip| flip.bytes != original)
        .collect()
}

/// The identity inside a database, mutated there.
fn identities(templates: &Templates, half: usize, counts: &mut Counts) {
    const KEY: &[u8] = b"e/identity";
    let (scratch, vfs) = (common::scratch(), RealVfs::default());
    let path: PathBuf = scratch.path().join("db");
    let template = templates.template(OLD.0, OLD.1);
    write_tree(&template.tree, &path);
    let put = |identity: &[u8]| {
        let database = Database::open(&vfs, &path, &Settings::default()).unwrap();
        database.put(Family::Internal, KEY, identity, Durability::Buffered).unwrap();
        database.close().unwrap();
    };
    let right = Right { content: &template.content, encodings: &["natural"] };
    let marker = marker::from_bytes(template.tree["KEY_ENCODING"].as_ref().unwrap()).unwrap();
    let original = marker.identity().to_bytes().unwrap();
    let mutations = Mutations::of(&original, 0);
    let raw = share(mutations.truncations(), half, 24).chain(share(mutations.flips(), half, 24));
    for mutation in raw.chain(share(refitted(&original), half, 24)) {
        let what = format!("the identity inside, {}", mutation.name);
        put(&mutation.bytes);
        assert!(!opened_rightly(&what, Engine::open(&path, options()), &right), "{what}: accepted wrongly");
        counts.on_disk += 1;
    }
    put(&original);
    assert!(opened_rightly("the identity inside", Engine::open(&path, options()), &right), "it opens as it was");
}

/// All of it, in two halves.
pub fn all(templates: &Templates, half: usize) -> Counts {
    let mut counts = Counts::default();
    let targets = refused(templates);
    for target in &targets {
        all_refused(target, half, &mut counts);
    }
    let marker = |(db, state): (Db, State)| templates.template(db, state).tree["KEY_ENCODING"].clone().unwrap();
    let original = marker(NEW);
    let mutations = Mutations::of(&original, 0);
    let raw = share(mutations.truncations(), half, 24).chain(share(mutations.flips(), half, 24));
    opened(&staged(templates, &["natural"]), true, raw, &mut counts);
    let either = staged(templates, &["natural", "hierarchical"]);
    opened(&either, false, share(refitted(&original), half, 24), &mut counts);
    for target in &targets {
        let original = match target.journal {
            Some(name) => journal::to_bytes(&templates.journals[name]).unwrap(),
            None => marker(OLD),
        };
        opened(target, false, share(refitted(&original), half, 24), &mut counts);
    }
    identities(templates, half, &mut counts);
    counts
}
