//! An archive is verified; every object in turn is removed, cut off, or has a bit flipped, and each is found.

use crate::common::{fill, options, sample};
use crate::harness::*;
use morphkv::Engine;
use morphkv::encoding::Hierarchical;
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::shipper::Shipper;
use morphkv::log_backup::verify::verify;
use std::path::{Path, PathBuf};

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_object_that_is_gone_or_damaged_is_found() {
    let directory = crate::common::scratch();
    let (path, archive) = (directory.path().join("db"), file_archive(directory.path()));
    let engine = Engine::open(&path, creating()).unwrap();
    fill(&engine, &sample(60));
    engine.close().unwrap();
    let engine = attach(&path, options(), &archive, TakeOver::No).unwrap();
    let mut shipper = Shipper::new(engine.clone(), archive.clone(), ship_options());
    shipper.ship_once().unwrap();
    engine.ingest((0..100).map(|number| Ok((format!("loaded/{number:04}"), "loaded")))).unwrap();
    fill(&engine, &sample(120));
    shipper.ship_once().unwrap();
    drop(shipper);
    engine.close().unwrap();
    let engine = Engine::open(&path, options().encoding(Hierarchical)).unwrap();
    Shipper::new(engine.clone(), archive.clone(), ship_options()).ship_once().unwrap();

    let sound = verify(&archive).unwrap();
    assert_eq!(sound.faults, []);
    let all = files(&directory.path().join("archive"));
    let all: Vec<_> = all.into_iter().filter(|path| !path.ends_with("HEAD") && !path.ends_with("LOCK")).collect();
    let objects = all.iter().filter(|path| path.to_str().unwrap().contains("/v1/")).count();
    assert_eq!(sound.segments + sound.objects, objects as u64, "{all:?}");
    let (mut tried, mut damaged) = (0, 0);
    for path in all.iter().filter(|path| path.to_str().unwrap().contains("/v1/")) {
        let bytes = std::fs::read(path).unwrap();
        let mut wrongs = vec![None, Some([&bytes[..], b"x"].concat())];
        // A WAL file in a base snapshot may be empty.
        if !bytes.is_empty() {
            let mut flipped = bytes.clone();
            flipped[bytes.len() / 2] ^= 1;
            wrongs.extend([Some(flipped), Some(bytes[..bytes.len() - 1].to_vec())]);
        }
        for wrong in wrongs {
            tried += 1;
            match &wrong {
                Some(wrong) => std::fs::write(path, wrong).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let found = verify(&archive).unwrap();
            // The last segment of a timeline can be missing without a sign; the next test of its database finds it.
            let is_last = wrong.is_none() && found.segments + 1 == sound.segments && found.faults.is_empty();
            assert!(!found.faults.is_empty() || is_last, "{}: {wrong:?}", path.display());
            damaged += usize::from(!found.faults.is_empty());
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(verify(&archive).unwrap(), sound);
    println!("objects {objects}, damages found {damaged} of {tried}");
    assert!(damaged + 2 >= tried, "at most the last segment of a timeline may be gone without a sign");
}
