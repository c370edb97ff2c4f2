//! The example of `README.md`: `cargo run --example quickstart`.

use morphkv::{Comparison, Engine, Options, encoding::Hierarchical};

fn main() -> Result<(), morphkv::Error> {
    let path = std::env::temp_dir().join("morphkv-quickstart");
    let engine = Engine::open(&path, Options::new().create_if_missing(true))?;
    engine.put(b"/a/b", b"1")?;
    assert_eq!(engine.get(b"/a/b")?.as_deref(), Some(b"1".as_slice()));
    engine.close()?;

    let engine = Engine::open(&path, Options::new().encoding(Hierarchical))?; // Converted, atomically, then opened.
    for entry in engine.range("/a/".."/a//")? {
        let (key, value) = entry?; // The direct children of /a/, nothing from deeper down.
        println!("{} = {}", key.escape_ascii(), value.escape_ascii());
    }
    assert!(engine.lookup(b"/a/c", Comparison::Lower)?.is_some());
    Ok(())
}
