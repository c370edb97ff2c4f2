//! One database, opened in one key encoding after another: `cargo run --release --example convert_on_open`.
//!
//! Kill it at any moment and run it again: the next open finishes what was begun, or goes on as if it had not begun.

use morphkv::{Engine, Error, Options, encoding::Hierarchical, encoding::Natural};
use std::time::Instant;

const DIRECTORIES: u32 = 200;
const FILES: u32 = 500;

fn main() -> Result<(), Error> {
    let path = std::env::temp_dir().join("morphkv-convert-on-open");
    fill(&Engine::open(&path, Options::new().create_if_missing(true))?)?;
    for _ in 0..2 {
        let started = Instant::now();
        let engine = Engine::open(&path, Options::new().encoding(Hierarchical))?;
        println!("hierarchical after {:?}: {} children of /d7/", started.elapsed(), count(&engine, "/d7/", "/d7//")?);
        drop(engine);

        let started = Instant::now();
        let engine = Engine::open(&path, Options::new().encoding(Natural))?;
        println!("natural after {:?}: {} keys from /d7/ to /d70", started.elapsed(), count(&engine, "/d7/", "/d70")?);
    }
    Ok(())
}

/// One batch a directory: all of it or nothing.
fn fill(engine: &Engine) -> Result<(), Error> {
    for directory in 0..DIRECTORIES {
        let mut batch = engine.batch();
        for file in 0..FILES {
            let key = format!("/d{directory}/f{file}");
            batch.put(key.as_bytes(), file.to_be_bytes())?;
        }
        batch.commit()?;
    }
    Ok(())
}

fn count(engine: &Engine, from: &str, to: &str) -> Result<usize, Error> {
    let mut entries = 0;
    for entry in engine.range(from..to)? {
        entry?;
        entries += 1;
    }
    Ok(entries)
}
