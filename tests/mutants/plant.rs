//! Planting defects into source text: each behind a switch, so that one build holds all of them and an environment
//! variable says which of them are awake.

use std::ops::Range;

/// One change of one file.
pub struct Edit {
    /// The file, from the root of the repository.
    pub file: &'static str,
    /// What stands there: exactly once in the file, else the table has to be mended.
    pub find: &'static str,
    /// What a careless author might have written instead.
    pub replace: &'static str,
}

/// A defect: its name and its edits.
pub struct Defect {
    pub name: &'static str,
    pub edits: Vec<Edit>,
    /// Tests that must fail with it, each of them: `file::path` for those of `tests/`, `unit::path` for those in `src/`.
    pub found_by: &'static [&'static str],
}

/// A defect of that name, to be gone on with.
pub fn defect(name: &'static str) -> Defect {
    Defect { name, edits: Vec::new(), found_by: &[] }
}

impl Defect {
    /// In `file` stands `replace` where now `find` stands. Statements end in `;` or `}`; anything else is an expression.
    pub fn edit(mut self, file: &'static str, find: &'static str, replace: &'static str) -> Defect {
        self.edits.push(Edit { file, find, replace });
        self
    }

    /// The tests that must fail with it.
    pub fn found_by(self, found_by: &'static [&'static str]) -> Defect {
        Defect { found_by, ..self }
    }
}

/// Which defects are awake, by name, one a line.
pub const SWITCH: &str = "MORPHKV_PLANTED";

/// The module that the switches ask; it is added to the copy of the library.
pub const MODULE: &str = "//! Which planted defects are awake.

static AWAKE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| std::env::var(\"MORPHKV_PLANTED\").unwrap_or_default());

/// Whether the defect is awake.
pub fn is(name: &str) -> bool {
    !AWAKE.is_empty() && AWAKE.lines().any(|awake| awake == name)
}
";

struct Place<'e> {
    name: &'e str,
    span: Range<usize>,
    replace: &'e str,
}

/// The text of `file` with all defects in it, all asleep.
///
/// # Errors
/// What is wrong with the table.
pub fn plant(file: &str, text: &str, defects: &[&Defect]) -> Result<String, String> {
    let (mut places, mut wrong) = (Vec::new(), Vec::new());
    for defect in defects {
        for edit in defect.edits.iter().filter(|edit| edit.file == file) {
            let found: Vec<usize> = text.match_indices(edit.find).map(|(at, _)| at).collect();
            let [start] = found[..] else {
                let times = found.len();
                wrong.push(format!("`{}`: in {file} the text stands {times} times: {}", defect.name, edit.find));
                continue;
            };
            places.push(Place { name: defect.name, span: start..start + edit.find.len(), replace: edit.replace });
        }
    }
    places.sort_by_key(|place| (place.span.start, std::cmp::Reverse(place.span.end)));
    for pair in places.windows(2) {
        if pair[1].span.start < pair[0].span.end && pair[1].span.end > pair[0].span.end {
            wrong.push(format!("`{}` and `{}` overlap in {file}", pair[0].name, pair[1].name));
        }
    }
    if wrong.is_empty() { Ok(render(text, 0..text.len(), &places)) } else { Err(wrong.join("\n")) }
}

/// The span with every place in it switched; a place may hold others.
fn render(text: &str, span: Range<usize>, mut places: &[Place<'_>]) -> String {
    let (mut out, mut at) = (String::new(), span.start);
    while let Some(first) = places.first() {
        let same = places.iter().take_while(|place| place.span == first.span).count();
        let inside = places[same..].iter().take_while(|place| place.span.start < first.span.end).count();
        let original = render(text, first.span.clone(), &places[same..same + inside]);
        out += &text[at..first.span.start];
        out += &switch(&places[..same], &text[first.span.clone()], &original);
        at = first.span.end;
        places = &places[same + inside..];
    }
    out + &text[at..span.end]
}

/// Statements stay statements, an expression stays one expression.
fn switch(places: &[Place<'_>], plain: &str, original: &str) -> String {
    let ways: Vec<_> =
        places.iter().map(|place| format!("if crate::planted::is({:?}) {{ {} }}", place.name, place.replace)).collect();
    let whole = format!("{} else {{ {original} }}", ways.join(" else "));
    if plain.ends_with([';', '}']) { whole } else { format!("({whole})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer() -> Defect {
        defect("outer").edit("a.rs", "a;\nb;", "b;")
    }

    fn inner() -> Defect {
        defect("inner").edit("a.rs", "b;", "")
    }

    #[test]
    fn defects_are_switched_where_they_stand() {
        let twin = defect("twin").edit("a.rs", "b;", "c;");
        let value = defect("value").edit("a.rs", "x == y", "true");
        let planted = plant("a.rs", "a;\nb;\nif x == y {}\n", &[&outer(), &inner(), &twin, &value]).unwrap();
        let switched = "if crate::planted::is(\"inner\") {  } else if crate::planted::is(\"twin\") { c; } else { b; }";
        let around = format!("if crate::planted::is(\"outer\") {{ b; }} else {{ a;\n{switched} }}");
        let value = "(if crate::planted::is(\"value\") { true } else { x == y })";
        assert_eq!(planted, format!("{around}\nif {value} {{}}\n"));
        assert_eq!(plant("b.rs", "a;", &[&outer()]).unwrap(), "a;", "another file");
    }

    #[test]
    fn a_text_that_is_gone_or_stands_twice_is_an_error_of_the_table() {
        for text in ["a;", "b;\nb;"] {
            let error = plant("a.rs", text, &[&inner()]).unwrap_err();
            assert!(error.contains("`inner`: in a.rs the text stands"), "{error}");
        }
        let crossing = defect("crossing").edit("a.rs", "b;\nc;", "");
        let error = plant("a.rs", "a;\nb;\nc;", &[&outer(), &crossing]).unwrap_err();
        assert!(error.contains("overlap"), "{error}");
    }
}
