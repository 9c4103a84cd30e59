//! Files say what they are for, have honest names, and leave nothing undone.

use crate::tree::{File, Tree};

/// Names that say nothing of what is inside.
const NAMES: [&str; 8] = [
    "common", "helper", "helpers", "manager", "misc", "types", "util", "utils",
];

/// What has no place in code, and why. Written in two halves, so that this table does not name
/// itself.
const WORDS: [(&str, &str); 7] = [
    (concat!("TO", "DO"), "do it, or leave it out"),
    (concat!("FIX", "ME"), "mend it"),
    (concat!("dbg", "!("), "left over from a search"),
    (concat!("to", "do!("), "do it"),
    (concat!("unimpl", "emented!("), "implement it"),
    (
        concat!("do_", "send("),
        "it ignores the mailbox's limit: use try_send",
    ),
    (
        concat!("#[", "allow("),
        "#[expect] tells when it is no longer needed",
    ),
];

/// What only tests may do.
const WORDS_OF_TESTS: [(&str, &str); 2] = [
    (concat!(".unw", "rap()"), "what comes from outside may fail"),
    (
        concat!("#[ig", "nore"),
        "a test that does not run is no test",
    ),
];

/// Every file that says nothing, hides something, or is badly named.
pub fn check(tree: &Tree) -> Vec<String> {
    tree.sources.iter().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(format!("{}{what}", file.path));
    if !file.text.starts_with("//! ") {
        complain(": its first line must say what it is for (`//! …`)".to_owned());
    }
    // What is looked at ends where the tests begin, so nothing may hide behind them.
    let tests = &file.text[file.code().len()..];
    if tests.find("\n}\n").is_some_and(|end| end + 3 < tests.len()) {
        complain(": tests stand at the end".to_owned());
    }
    let parts = file.path.split(['/', '.']);
    if let Some(name) = parts.clone().find(|part| NAMES.contains(part)) {
        complain(format!(": `{name}` names nothing"));
    }
    for (index, line) in file.text.lines().enumerate() {
        for (word, why) in WORDS.iter().filter(|(word, _)| line.contains(word)) {
            complain(format!(":{}: `{word}`: {why}", index + 1));
        }
    }
    if !file.is_test() {
        for (number, line) in file.code_lines() {
            for (word, why) in WORDS_OF_TESTS
                .iter()
                .filter(|(word, _)| line.contains(word))
            {
                complain(format!(":{number}: `{word}`: {why}"));
            }
        }
    }
    complaints
}

#[test]
fn a_file_that_says_nothing_is_found() {
    let tree = Tree::with_source("src/a.rs", "use std::io;\n");
    assert_eq!(check(&tree).len(), 1);
}

#[test]
fn nothing_hides_behind_the_tests() {
    let text = "//! x\n\n#[cfg(test)]\nmod tests {\n}\n";
    assert!(check(&Tree::with_source("src/a.rs", text)).is_empty());
    let more = format!("{text}fn f() {{}}\n");
    assert_eq!(
        check(&Tree::with_source("src/a.rs", &more)),
        ["src/a.rs: tests stand at the end"]
    );
}

#[test]
fn a_name_that_says_nothing_is_found() {
    for path in ["src/utils.rs", "src/store/types/a.rs", "sdk/src/helpers.rs"] {
        assert_eq!(
            check(&Tree::with_source(path, "//! x\n")).len(),
            1,
            "{path}"
        );
    }
}

#[test]
fn every_banned_word_is_found() {
    for (word, _) in WORDS.iter().chain(&WORDS_OF_TESTS) {
        let text = format!("//! x\nfn f() {{ {word}; }}\n");
        assert_eq!(
            check(&Tree::with_source("src/a.rs", &text)).len(),
            1,
            "{word}"
        );
    }
}

#[test]
fn tests_may_unwrap_and_comments_may_speak_of_it() {
    let (unwrap, _) = WORDS_OF_TESTS[0];
    let text =
        format!("//! x\n// no {unwrap} here\n\n#[cfg(test)]\nmod tests {{\n    a{unwrap};\n}}\n");
    assert!(check(&Tree::with_source("src/a.rs", &text)).is_empty());
    let text = format!("//! x\nfn f() {{ a{unwrap}; }}\n");
    assert!(check(&Tree::with_source("tests/scenarios/a.rs", &text)).is_empty());
}
