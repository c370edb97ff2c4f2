//! `inspect` takes no lock; the directory that it looks at may be moved away between any two of its calls.

use super::child::{self, Orders};
use super::common::{self, options, sample, scratch};
use super::library::Library;
use super::scenario::{self, database};
use morphkv::encoding::{Hierarchical, Natural};
use morphkv::{Engine, Keep};
use std::path::Path;
use std::sync::Arc;

fn plain(directory: &Path) {
    common::make(&database(directory), Arc::new(Natural), &sample(20));
}

fn kept(directory: &Path) {
    plain(directory);
    let options = options().encoding(Hierarchical).keep_backup(Keep::Yes);
    Engine::open(database(directory), options).unwrap().close().unwrap();
}

fn legacy(directory: &Path) {
    scenario::legacy(&database(directory), &sample(20));
}

pub fn overtaken() {
    let library = Library::make();
    let mut moments = 0;
    for (name, prepare) in [("whole", plain as fn(&Path)), ("kept", kept), ("legacy", legacy)] {
        let before = scratch();
        prepare(before.path());
        for at in 0.. {
            let room = scratch();
            let directory = room.path().join("place");
            common::copy_tree(before.path(), &directory);
            let (live, elsewhere) = (database(&directory), directory.join("elsewhere"));
            let orders = Orders::Inspect { directory: directory.clone() };
            let moved = child::run_moving(&library, &orders, &directory, at, (&live, &elsewhere));
            let told = moved.unwrap_or_else(|wrong| panic!("{name}, moved at call {at}: {wrong}"));
            if !elsewhere.exists() {
                assert!(at > 20 && told.is_none(), "{name}: only {at} calls, {told:?}");
                break;
            }
            assert!(!live.exists(), "{name}, moved at call {at}: the look made a directory, and said {told:?}");
            moments += 1;
        }
    }
    println!("moments at which live was moved away: {moments}");
}
