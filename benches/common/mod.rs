//! What the benchmarks share: where they work, and on what machine.

use serde_json::{Value, json};
use std::path::PathBuf;

/// `target/bench`, on the disk that is measured.
pub fn root() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let root = target.join("bench");
    std::fs::create_dir_all(&root).expect("make target/bench");
    root
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A number that looks random, always the same for one `number`.
pub fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Fills a value of which LZ4 can save half.
pub fn fill(value: &mut [u8], number: u64) {
    for (index, chunk) in value.chunks_mut(32).enumerate() {
        let random = [scatter(number ^ (index as u64) << 40), scatter(!number ^ (index as u64) << 40)];
        for (place, byte) in chunk.iter_mut().enumerate() {
            *byte = if place < 16 { random[place / 8].to_le_bytes()[place % 8] } else { b'.' };
        }
    }
}

/// What the figures were measured on.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    json!({
        "cpu": line(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": line(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "file_system_magic": rustix::fs::statfs(root()).map(|found| format!("{:#x}", found.f_type)).ok(),
    })
}
