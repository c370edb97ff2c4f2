//! The rules of the house, as tests over the source: who may use whom, how long a file and a function may be, what
//! product code never does. Each message names the place and what to do instead.
//!
//! Strings and comments are blanked before anything is looked for, and what stands under `#[cfg(test)]` is no product
//! code. The last tests feed small bad sources to the rules and see each of them fire.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// The floors of the house (`ARCHITECTURE.md`), lowest first. A module may use lower floors and, on its own floor, what
/// stands to its left.
const FLOORS: [&[&str]; 9] = [
    &["error"],
    &["encoding", "trap", "control"],
    &["fs", "layout"],
    &["lock", "marker", "rocks", "attachment"],
    &["place"],
    &["conversion"],
    &["engine"],
    &["log_backup"],
    &["restore"],
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// One file, split so that each rule sees only what it judges.
struct Source {
    path: String,
    raw: String,
    /// Strings, characters and comments are blanks.
    code: String,
    /// As `code`, and items under `#[cfg(test)]` are blanks.
    product: String,
    product_lines: usize,
    /// Files of modules that are declared under `#[cfg(test)]`.
    test_files: Vec<String>,
}

impl Source {
    fn new(path: &str, raw: &str) -> Self {
        let code = blank(raw);
        let mut product = code.clone().into_bytes();
        let mut test_lines = 0;
        let mut test_files = Vec::new();
        for range in test_items(&code) {
            test_lines += line(&code, range.end) - line(&code, range.start) + 1;
            test_files.extend(declared_file(path, &code[range.clone()]));
            product[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        Source {
            path: path.into(),
            raw: raw.into(),
            product: String::from_utf8(product).unwrap(),
            product_lines: raw.lines().count() - test_lines,
            code,
            test_files,
        }
    }

    /// `["place", "apply"]` for `src/place/apply.rs`, nothing for `src/lib.rs`.
    fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.split('/').filter(|part| !["mod", "lib"].contains(part)).map(String::from).collect()
    }

    fn is_product(&self) -> bool {
        self.path.starts_with("src/")
    }

    fn is_binary(&self) -> bool {
        self.path.starts_with("src/bin/")
    }

    fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.path, line(&self.code, offset))
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Blanks strings, characters and comments; every other byte stays where it is.
fn blank(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end.max(at + 1);
    }
    String::from_utf8(out).unwrap()
}

/// The end of the comment, string or character that begins at `at`; `at` itself if none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        rest[from..]
            .windows(what.len())
            .position(|window| window == what)
            .map_or(bytes.len(), |found| at + from + found)
    };
    match rest {
        [b'/', b'/', ..] => find(2, b"\n"),
        [b'/', b'*', ..] => {
            let (mut depth, mut end) = (1, 2);
            while depth > 0 && end < rest.len() {
                let (change, step) = match &rest[end..] {
                    [b'/', b'*', ..] => (1, 2),
                    [b'*', b'/', ..] => (-1, 2),
                    _ => (0, 1),
                };
                depth += change;
                end += step;
            }
            at + end
        }
        [b'"', ..] => {
            let mut end = 1;
            while end < rest.len() && rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            (at + end + 1).min(bytes.len())
        }
        [b'r', b'"' | b'#', ..] if at == 0 || !is_word(bytes[at - 1]) || matches!(bytes[at - 1], b'b' | b'c') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return at; // A raw identifier.
            }
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            (find(2 + hashes, &close) + close.len()).min(bytes.len())
        }
        [b'\'', b'\\', ..] => (find(3, b"'") + 1).min(bytes.len()),
        [b'\'', first, ..] => {
            let width = [1, 1, 2, 3, 4][(first.leading_ones() as usize).min(4)];
            if rest.get(1 + width) == Some(&b'\'') { at + width + 2 } else { at }
        }
        _ => at,
    }
}

/// A word, `::`, or one other character, and its offset.
type Token<'a> = (&'a str, usize);

fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = match &bytes[at..] {
            [byte, ..] if is_word(*byte) => bytes[at..].iter().take_while(|byte| is_word(**byte)).count(),
            [b':', b':', ..] => 2,
            _ => 1,
        };
        if !bytes[at].is_ascii_whitespace() {
            all.push((&code[at..at + len], at));
        }
        at += len;
    }
    all
}

/// The index of the token that closes the bracket at `open`.
fn closing(all: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (index, (text, _)) in all.iter().enumerate().skip(open) {
        match *text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    all.len() - 1
}

/// The index of the token that ends an item: its `;` or the `}` of its body.
fn item_end(all: &[Token<'_>], mut at: usize) -> usize {
    while at < all.len() {
        match all[at].0 {
            ";" => return at,
            "{" => return closing(all, at),
            "(" | "[" => at = closing(all, at),
            _ => {}
        }
        at += 1;
    }
    all.len() - 1
}

fn words<'a>(all: &[Token<'a>], from: usize, count: usize) -> Vec<&'a str> {
    all.iter().skip(from).take(count).map(|token| token.0).collect()
}

/// Items under `#[cfg(test)]` or `#[cfg(all(test, ..))]`, attributes included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let all = tokens(code);
    let mut items: Vec<Range<usize>> = Vec::new();
    for start in 0..all.len() {
        let attribute = words(&all, start, 7);
        let is_test = attribute.starts_with(&["#", "[", "cfg", "(", "test", ")"])
            || attribute.starts_with(&["#", "[", "cfg", "(", "all", "(", "test"]);
        if !is_test || items.last().is_some_and(|last| last.contains(&all[start].1)) {
            continue;
        }
        let mut item = start;
        while words(&all, item, 2) == ["#", "["] {
            item = closing(&all, item + 1) + 1;
        }
        items.push(all[start].1..all[item_end(&all, item)].1 + 1);
    }
    items
}

/// The file of a module that the test item only declares: `mod samples;`.
fn declared_file(path: &str, item: &str) -> Option<String> {
    let all = tokens(item);
    let name = all.iter().position(|token| token.0 == "mod").and_then(|at| all.get(at + 1))?.0;
    let declares = all.last().is_some_and(|token| token.0 == ";");
    let folder = path.trim_end_matches("mod.rs").trim_end_matches("lib.rs").trim_end_matches(".rs");
    declares.then(|| format!("{}/{name}.rs", folder.trim_end_matches('/')))
}

/// Every path of two or more segments, and every imported one, groups taken apart.
fn paths(all: &[Token<'_>]) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let continues = at > 0 && [".", "'"].contains(&all[at - 1].0);
        if !continues && is_word(all[at].0.as_bytes()[0]) && all[at].0 != "use" {
            let imported = at > 0 && all[at - 1].0 == "use";
            let before = found.len();
            let end = path_tree(all, at, &[], &mut found);
            if !imported && found.len() == before + 1 && found[before].0.len() < 2 {
                found.pop();
            }
            at = end.max(at + 1);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path or group after `prefix`; returns the index after it.
fn path_tree(all: &[Token<'_>], mut at: usize, prefix: &[String], found: &mut Vec<(Vec<String>, usize)>) -> usize {
    let mut path = prefix.to_vec();
    let start = all.get(at).map_or(0, |token| token.1);
    while let Some((text, _)) = all.get(at) {
        if *text == "{" && path.len() > prefix.len() {
            let end = closing(all, at);
            at += 1;
            while at < end {
                at = if [",", "::"].contains(&all[at].0) { at + 1 } else { path_tree(all, at, &path, found) };
            }
            return end + 1;
        }
        path.push((*text).to_string());
        at += 1;
        let goes_on = all.get(at).is_some_and(|token| token.0 == "::")
            && all.get(at + 1).is_some_and(|token| is_word(token.0.as_bytes()[0]) || ["{", "*"].contains(&token.0));
        if !goes_on {
            break;
        }
        at += 1;
    }
    found.push((path, start));
    while all.get(at).is_some_and(|token| token.0 == "as") {
        at += 2;
    }
    at
}

/// The inline modules `mod name { .. }` that hold `offset`.
fn inline_modules(all: &[Token<'_>], offset: usize) -> Vec<String> {
    let opens = |at: &usize| words(all, *at, 1) == ["mod"] && words(all, *at + 2, 1) == ["{"];
    let holds = |at: &usize| (all[*at].1..all[closing(all, *at + 2)].1).contains(&offset);
    (0..all.len()).filter(opens).filter(holds).map(|at| all[at + 1].0.to_string()).collect()
}

/// `super::super::x` in `a::b` is `x`; `None` for a path that is not relative to this crate.
fn resolve(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|segment| *segment == "super").count();
    match path[0].as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => Some([&module[..module.len().saturating_sub(supers)], &path[supers..]].concat()),
        _ => None,
    }
}

fn floor(module: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, modules)| Some((floor, modules.iter().position(|m| *m == module)?)))
}

/// All complaints about a set of files.
fn complaints(files: &[(&str, &str)]) -> Vec<String> {
    let mut sources: Vec<Source> = files.iter().map(|(path, raw)| Source::new(path, raw)).collect();
    let test_files: BTreeSet<String> = sources.iter().flat_map(|source| source.test_files.clone()).collect();
    let mut found = Vec::new();
    let mut edges = BTreeMap::new();
    for source in &mut sources {
        if test_files.contains(&source.path) {
            (source.product, source.product_lines) = (String::new(), 0);
        }
        leftovers(source, &mut found);
        if source.is_product() {
            let all = tokens(&source.product);
            lengths(source, &all, &mut found);
            calls(source, &all, &mut found);
            crates(source, &all, &mut found);
            arrows(source, &all, &mut edges, &mut found);
        }
    }
    circles(&edges, &mut found);
    found
}

/// Of product and tests alike.
fn leftovers(source: &Source, found: &mut Vec<String>) {
    for (number, text) in source.raw.lines().enumerate() {
        if [concat!("FIX", "ME"), concat!("XX", "X")].iter().any(|word| text.contains(word)) {
            found.push(format!("{}:{}: a note to self; do it now, or file an issue", source.path, number + 1));
        }
    }
    let all = tokens(&source.code);
    for (index, token) in all.iter().enumerate() {
        let here = words(&all, index, 3);
        if here.starts_with(&["#", "[", "ignore"]) {
            found.push(format!("{}: an ignored test; mend it, or remove it", source.at(token.1)));
        }
        if here.starts_with(&["todo", "!"]) || here.starts_with(&["unimplemented", "!"]) {
            found.push(format!("{}: a stub; write it, or return ErrorKind::Unsupported", source.at(token.1)));
        }
    }
}

fn lengths(source: &Source, all: &[Token<'_>], found: &mut Vec<String>) {
    if source.product_lines > FILE_LINES_MAX {
        let (path, lines) = (&source.path, source.product_lines);
        found.push(format!("{path}:1: {lines} product lines, {FILE_LINES_MAX} are allowed; split the file by concern"));
    }
    for (index, token) in all.iter().enumerate().filter(|(_, token)| token.0 == "fn") {
        let Some(name) = all.get(index + 1).filter(|name| is_word(name.0.as_bytes()[0])) else { continue };
        let end = all[item_end(all, index)].1;
        let lines = line(&source.code, end) - line(&source.code, token.1) + 1;
        if lines > FUNCTION_LINES_MAX {
            let (at, name) = (source.at(token.1), name.0);
            found.push(format!("{at}: `{name}` has {lines} lines, {FUNCTION_LINES_MAX} are allowed; take out a step"));
        }
    }
}

fn calls(source: &Source, all: &[Token<'_>], found: &mut Vec<String>) {
    let in_fs = source.path.starts_with("src/fs/");
    for (index, token) in all.iter().enumerate() {
        let here = words(all, index, 3);
        let complaint = match here.as_slice() {
            [".", "unwrap", "("] => {
                "unwrap; return a typed error, or `expect(\"why it cannot fail\")` for an invariant"
            }
            [".", "exists", "("] if !own_files(source) => "`exists` takes every failure for absence; use `Vfs::stat`",
            ["." | "::", "rename" | "persist" | "persist_noclobber" | "rename_file_over", "("] if !in_fs => {
                "a replacement of its own; call `fs::write_atomic` or `Vfs::rename_no_replace` and sync the directory"
            }
            ["dbg", "!", _] => "dbg; use `tracing`, or nothing",
            ["print" | "println" | "eprint" | "eprintln", "!", _] if !source.is_binary() => {
                "a library does not print; return it, or use `tracing`"
            }
            _ => continue,
        };
        found.push(format!("{}: {complaint}", source.at(token.1)));
    }
}

/// Files that may use the operating system's file calls. A paused trap makes its file past the Vfs that it pauses.
fn own_files(source: &Source) -> bool {
    let path = source.path.as_str();
    source.is_binary() || path.starts_with("src/fs/") || path == "src/lock.rs" || path.starts_with("src/trap")
}

fn crates(source: &Source, all: &[Token<'_>], found: &mut Vec<String>) {
    for (path, offset) in paths(all) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let complaint = match path.as_slice() {
            ["rocksdb", ..] if !source.path.starts_with("src/rocks/") => {
                "the rocksdb crate is used in src/rocks alone; add what you need to `crate::rocks`"
            }
            ["std" | "core" | "rustix", "fs", ..] if !own_files(source) => {
                "file calls go through a `Vfs`, so that tests can record them and make them fail; add what is missing to src/fs"
            }
            _ => continue,
        };
        found.push(format!("{}: `{}`: {complaint}", source.at(offset), path.join("::")));
    }
}

type Edges = BTreeMap<(String, String), BTreeSet<String>>;

fn arrows(source: &Source, all: &[Token<'_>], edges: &mut Edges, found: &mut Vec<String>) {
    if source.is_binary() {
        return binary_arrows(source, all, found);
    }
    let module = source.module();
    let Some(own) = module.first() else { return };
    let Some(own_floor) = floor(own) else {
        found.push(format!("{}:1: it has no floor; give it one in FLOORS and in ARCHITECTURE.md", source.path));
        return;
    };
    for (path, offset) in paths(all) {
        let place = [module.clone(), inline_modules(all, offset)].concat();
        let Some(target) = resolve(&place, &path) else { continue };
        let Some(top) = target.first() else { continue };
        let at = source.at(offset);
        match floor(top) {
            None => found.push(format!("{at}: `{top}` by way of the front page; name the module that owns it")),
            Some(floor) if floor > own_floor => found.push(format!(
                "{at}: {own} (floor {}) uses {top} (floor {}), upwards; move what both need down, or pass it in",
                own_floor.0, floor.0
            )),
            Some(_) => {}
        }
        if let ([folder, file], Some(sibling)) = (module.as_slice(), target.get(1))
            && (top == folder && sibling != file && place.len() == 2)
        {
            edges.entry((folder.clone(), file.clone())).or_default().insert(sibling.clone());
        }
    }
}

fn binary_arrows(source: &Source, all: &[Token<'_>], found: &mut Vec<String>) {
    for (path, offset) in paths(all).into_iter().filter(|(path, _)| path[0] == "morphkv" && path.len() > 2) {
        if path[1].starts_with(|first: char| first.is_lowercase()) && floor(&path[1]).is_none() {
            let at = source.at(offset);
            found.push(format!("{at}: `morphkv::{}` has no floor; give it one in FLOORS and ARCHITECTURE.md", path[1]));
        }
    }
}

/// The files of one folder stand on each other too: following them never leads back.
fn circles(edges: &Edges, found: &mut Vec<String>) {
    for (folder, file) in edges.keys() {
        let mut reached = BTreeSet::new();
        let mut next = vec![file];
        while let Some(from) = next.pop() {
            for to in edges.get(&(folder.clone(), from.clone())).into_iter().flatten() {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
        if reached.contains(file) {
            found.push(format!(
                "src/{folder}/{file}.rs:1: it uses a file of its folder that uses it in turn; move what both need into a lower file"
            ));
        }
    }
}

fn collect(folder: &Path, root: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"] {
        collect(&root.join(folder), root, &mut files);
    }
    assert!(files.iter().any(|(path, _)| path == "src/place/decide.rs"), "the source was not found");
    let files: Vec<_> = files.iter().map(|(path, raw)| (path.as_str(), raw.as_str())).collect();
    let found = complaints(&files);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_architecture_page_names_every_row_of_the_recovery_table() {
    let table = Source::new("src/place/decide.rs", &read("src/place/decide.rs"));
    let all = tokens(&table.product);
    let rows = (0..all.len()).filter(|at| words(&all, *at, 1) == ["("] && words(&all, *at + 2, 1) == [","]);
    let decided: BTreeSet<u8> = rows.filter_map(|at| all[at + 1].0.parse().ok()).collect();
    let page = read("ARCHITECTURE.md");
    let (_, recovery) = page.split_once("\n## Recovery\n").unwrap();
    let named: Vec<u8> = recovery
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .filter_map(|cell| cell.parse().ok())
        .collect();
    assert_eq!(named, (1..=34).collect::<Vec<u8>>(), "one line a row, in order");
    assert_eq!(decided, named.into_iter().collect());
}

#[test]
fn the_architecture_page_names_every_module() {
    let page = read("ARCHITECTURE.md");
    for module in FLOORS.iter().flat_map(|modules| modules.iter()) {
        let stands = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module).is_dir()
            || Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{module}.rs")).is_file();
        assert!(!stands || page.contains(&format!("`{module}`")), "ARCHITECTURE.md does not name `{module}`");
    }
}

/// A page that names a test is true only as long as there is such a test.
#[test]
fn the_page_of_guarantees_names_tests_and_defects_that_exist() {
    let page = read("docs/guarantees.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        collect(&root.join(folder), root, &mut files);
    }
    let exists = |name: &str| {
        let [function, module] = [format!("fn {name}("), format!("mod {name};")];
        let own_file = format!("/{name}/main.rs");
        files.iter().any(|(path, raw)| raw.contains(&function) || raw.contains(&module) || path.ends_with(&own_file))
    };
    let is_name = |text: &&str| {
        let plain =
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:".contains(&byte));
        plain && (text.contains('_') || text.contains("::"))
    };
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_name).collect();
    let missing: Vec<&&str> = named.iter().filter(|name| !name.split("::").all(exists)).collect();
    assert!(named.len() > 50 && missing.is_empty(), "docs/guarantees.md names what is not there: {missing:?}");
    let planted: Vec<&str> = page.split("planted: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let known = |defect: &&&str| files.iter().any(|(_, raw)| raw.contains(&format!("defect(\"{defect}\")")));
    let missing: Vec<&&str> = planted.iter().filter(|defect| !known(defect)).collect();
    assert!(
        planted.len() > 3 && missing.is_empty(),
        "docs/guarantees.md names defects that are not planted: {missing:?}"
    );
}

#[test]
fn the_readme_shows_the_quickstart_example_as_it_compiles() {
    let example = read("examples/quickstart.rs");
    let (_, code) = example.split_once("\n\n").unwrap();
    assert!(read("README.md").contains(&format!("```rust\n{code}```\n")), "copy examples/quickstart.rs into README.md");
}

// What follows proves the checker.

/// The complaints about one file.
fn of(path: &str, raw: &str) -> Vec<String> {
    complaints(&[(path, raw)])
}

#[track_caller]
fn assert_fires(path: &str, raw: &str, expected: &str) {
    let found = of(path, raw);
    assert!(found.len() == 1 && found[0].contains(expected), "expected one `{expected}`, got {found:#?}");
}

#[track_caller]
fn assert_quiet(path: &str, raw: &str) {
    assert_eq!(of(path, raw), Vec::<String>::new());
}

#[test]
fn upward_arrows_are_found() {
    assert_fires("src/fs/real.rs", "use crate::place::Place;", "fs (floor 2) uses place (floor 4)");
    assert_fires("src/fs/real.rs", "\nfn f() { crate::engine::go() }", "src/fs/real.rs:2: fs (floor 2) uses engine");
    assert_fires("src/fs/real.rs", "use crate::{error::Error, trap::{self, trap}, marker::Marker};", "uses marker");
    assert_fires("src/fs/real.rs", "use super::super::lock;", "uses lock");
    assert_fires("src/fs/mod.rs", "use super::lock::{self as l};", "uses lock");
    assert_fires("src/marker.rs", "mod inner { fn f() { super::super::place::go() } }", "uses place");
    assert_fires("src/fs/mod.rs", "pub(in crate::engine) struct A;", "uses engine");
    assert_fires("src/place/mod.rs", "macro_rules! m { () => { $crate::engine::x() } }", "uses engine");
    assert_fires("src/control.rs", "use crate::Engine;", "by way of the front page");
    assert_fires("src/utils.rs", "", "it has no floor");
    assert_fires("src/bin/morphkv/main.rs", "use morphkv::helpers::x;", "has no floor");
}

#[test]
fn arrows_down_and_within_a_module_are_right() {
    assert_quiet(
        "src/place/apply.rs",
        "use super::decide::Action; use crate::{error::Error, fs::Vfs}; use self::x::y;",
    );
    assert_quiet("src/layout.rs", "fn f() { crate::fs::parent_of() }");
    assert_fires("src/fs/mod.rs", "use crate::layout::Layout;", "uses layout (floor 2)");
    assert_quiet("src/lib.rs", "pub use crate::engine::Engine; pub use self::restore::x; mod unknown;");
    assert_quiet("src/marker.rs", "mod inner { use super::Marker; use super::super::fs::Vfs; }");
    assert_quiet("src/bin/morphkv/main.rs", "use crate::args::Args; use morphkv::{Engine, place::Place};");
    assert_quiet("src/fs/mod.rs", "fn f() { place.engine.restore(crate::trap::Trap::ALL) }");
}

#[test]
fn circles_in_a_folder_are_found() {
    let a = ("src/place/a.rs", "use super::b::B;");
    let b = ("src/place/b.rs", "use super::{Place, c};");
    let c = ("src/place/c.rs", "fn f() { super::a::f() }");
    assert_eq!(complaints(&[a, b]), Vec::<String>::new());
    let found = complaints(&[a, b, c]);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|complaint| complaint.contains("uses a file of its folder that uses it")), "{found:?}");
}

#[test]
fn long_files_and_functions_are_found() {
    let lines = "\n".repeat(500);
    assert_quiet("src/marker.rs", &lines);
    assert_fires("src/marker.rs", &format!("{lines}\n"), "501 product lines");
    let body = "\n".repeat(68);
    let tests = format!("{}#[cfg(test)]\nmod tests {{{lines}}}\n", "\n".repeat(499));
    assert_quiet("src/marker.rs", &tests);
    assert_fires("src/marker.rs", &format!("{tests}\n\n"), "501 product lines");
    assert_fires("src/marker.rs", &format!("fn long() -> [u8; 2] {{{body}\n\n}}"), "`long` has 71 lines");
    assert_quiet("src/marker.rs", &format!("fn long() -> [u8; 2] {{{body}\n}}\nfn next();{body}"));
    assert_quiet("src/marker.rs", &format!("#[cfg(test)]\nfn long() {{{body}\n\n}}"));
}

#[test]
fn forbidden_calls_are_found() {
    assert_fires("src/marker.rs", "fn f() { x\n.unwrap() }", "src/marker.rs:2: unwrap");
    assert_fires("src/marker.rs", concat!("fn f() { to", "do!() }"), "a stub");
    assert_fires("tests/open.rs", concat!("fn f() { unimple", "mented!(\"later\") }"), "a stub");
    assert_fires("src/marker.rs", concat!("// FIX", "ME: later"), "a note to self");
    assert_fires("fuzz/fuzz_targets/a.rs", concat!("// XX", "X"), "a note to self");
    assert_fires("tests/open.rs", concat!("#[", "ignore = \"slow\"] #[test] fn f() {}"), "an ignored test");
    assert_fires("src/marker.rs", concat!("#[cfg(test)] mod t { #[", "ignore] #[test] fn f() {} }"), "an ignored test");
    assert_fires("src/marker.rs", "fn f() { dbg!(1); }", "dbg");
    assert_fires("src/marker.rs", "fn f() { println!(\"x\") }", "does not print");
    assert_quiet("src/bin/morphkv/main.rs", "fn f() { println!(\"x\") }");
    assert_quiet("tests/open.rs", "fn f() { x.unwrap() }");
}

#[test]
fn file_calls_outside_the_file_layer_are_found() {
    assert_fires("src/place/apply.rs", "fn f() { std::fs::write(a, b) }", "file calls go through a `Vfs`");
    assert_fires("src/place/apply.rs", "use std::{fs, io};", "file calls go through a `Vfs`");
    assert_fires("src/place/apply.rs", "use rustix::fs::Mode;", "file calls go through a `Vfs`");
    assert_fires("src/place/apply.rs", "fn f() { path.exists() }", "`exists` takes every failure");
    assert_fires("src/place/apply.rs", "fn f() { file.persist(path) }", "a replacement of its own");
    assert_fires("src/bin/morphkv/main.rs", "fn f() { std::fs::rename(a, b) }", "a replacement of its own");
    assert_fires("src/place/apply.rs", "fn f() { vfs.rename_file_over(a, b) }", "a replacement of its own");
    assert_fires("src/engine/mod.rs", "fn f() -> rocksdb::Error { x }", "the rocksdb crate is used in src/rocks alone");
    assert_fires("src/engine/mod.rs", "use rocksdb as r;", "the rocksdb crate is used in src/rocks alone");
    for path in ["src/fs/real.rs", "src/lock.rs", "src/bin/morphkv/main.rs"] {
        assert_quiet(path, "use std::fs::File; use rustix::fs::open;");
    }
    assert_quiet("src/fs/real.rs", "fn f() { std::fs::rename(a, b) }");
    assert_quiet("src/rocks/mod.rs", "use rocksdb::DB;");
    assert_quiet("src/place/apply.rs", "use crate::fs::Vfs; use std::os::unix::fs::MetadataExt; fn rename(a: A) {}");
}

#[test]
fn strings_comments_and_tests_are_no_product_code() {
    assert_quiet(
        "src/fs/mod.rs",
        r####"
        //! `crate::place::Place` and .unwrap()
        /* crate::engine /* nested .unwrap() */ crate::engine */
        const A: &str = "crate::place::Place \" .unwrap()";
        const B: &[u8] = br##"crate::engine::x "# .unwrap()"##;
        const C: [char; 3] = ['"', '\'', 'é'];
        fn f<'a>(r#type: &'a str) -> &'a str { r#type }
        #[cfg(test)] #[allow(dead_code)] mod tests { use crate::place::Place; fn f() { x.unwrap() } }
    "####,
    );
    // The checker is not blind after a quote or a lifetime.
    assert_fires("src/fs/mod.rs", "const C: char = '\"'; fn f<'a>() { x.unwrap() } // \"", "unwrap");
    assert_fires("src/fs/mod.rs", "#[cfg(test)]\nuse a::{b};\nfn f() { x.unwrap() }", "src/fs/mod.rs:3: unwrap");
    assert_fires("src/fs/mod.rs", "#[cfg(any(test, feature = \"traps\"))]\nfn f() { x.unwrap() }", "unwrap");
    let test_file = [("src/fs/mod.rs", "#[cfg(test)] mod samples;"), ("src/fs/samples.rs", "fn f() { x.unwrap() }")];
    assert_eq!(complaints(&test_file), Vec::<String>::new());
}
