//! Files and functions fit a reader's head: a smoke alarm, so an exception needs only its reason.

use crate::tree::{File, Tree};

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 400;

/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// What may be longer.
pub struct Exception {
    /// The file, or the file and the function: `src/a.rs::run`.
    pub place: &'static str,
    /// How long it may be at most.
    pub lines_max: usize,
    /// Why it may.
    #[expect(dead_code, reason = "for whoever reads the table")]
    pub reason: &'static str,
}

/// All exceptions.
pub const EXCEPTIONS: [Exception; 1] = [Exception {
    place: "src/server.rs::start",
    lines_max: 90,
    reason: "the order in which things start is the point, so it is on one screen",
}];

/// Everything that is too long, and every exception that has no work.
pub fn check(tree: &Tree, exceptions: &[Exception]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut needed = Vec::new();
    for file in tree.sources.iter().filter(|file| !file.is_test()) {
        let lines = file.code().lines().count();
        let whole = (file.path.clone(), lines, FILE_LINES_MAX);
        let functions = functions(file)
            .into_iter()
            .map(|(place, lines)| (place, lines, FUNCTION_LINES_MAX));
        for (place, lines, usual_max) in functions.chain([whole]) {
            if lines <= usual_max {
                continue;
            }
            let exception = exceptions.iter().find(|exception| exception.place == place);
            let lines_max = exception.map_or(usual_max, |exception| exception.lines_max);
            if lines > lines_max {
                complaints.push(format!("{place}: {lines} lines, at most {lines_max}"));
            }
            needed.push(place);
        }
    }
    let idle = exceptions
        .iter()
        .filter(|exception| !needed.iter().any(|place| place == exception.place));
    complaints.extend(idle.map(|idle| format!("{}: needs no exception any more", idle.place)));
    complaints
}

/// Every function with its lines, found by how rustfmt indents them.
fn functions(file: &File) -> Vec<(String, usize)> {
    let lines: Vec<&str> = file.code().lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let length = lines[start..]
            .iter()
            .position(|line| {
                let rest = line.strip_prefix(indent).unwrap_or("");
                let is_outside = !rest.starts_with(' ') && !rest.is_empty();
                is_outside && (rest.ends_with('}') || rest.ends_with(';'))
            })
            .unwrap_or(0);
        functions.push((format!("{}::{name}", file.path), length + 1));
    }
    functions
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let is_definition = before.split_whitespace().all(|word| {
        word.starts_with("pub") || ["const", "async", "in"].contains(&word) || word.ends_with(')')
    });
    let name = after
        .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .next()?;
    (is_definition && !name.is_empty()).then_some(name)
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let long = "//! x\n".repeat(FILE_LINES_MAX + 1);
    let tree = Tree::with_source("src/a.rs", &long);
    assert_eq!(check(&tree, &[]), ["src/a.rs: 401 lines, at most 400"]);
    let tests = format!("//! x\n\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert!(check(&Tree::with_source("src/a.rs", &tests), &[]).is_empty());
}

#[test]
fn a_long_function_is_found() {
    let body = "        line();\n".repeat(FUNCTION_LINES_MAX);
    let text = format!(
        "//! x\nimpl A {{\n    fn short() {{}}\n    fn declared();\n    \
         pub(crate) async fn long(\n        a: A,\n    ) -> B {{\n{body}    }}\n}}\n"
    );
    assert_eq!(
        check(&Tree::with_source("src/a.rs", &text), &[]),
        ["src/a.rs::long: 74 lines, at most 70"]
    );
}

#[test]
fn an_exception_bounds_what_it_allows_and_goes_when_it_is_idle() {
    let exception = |place, lines_max| Exception {
        place,
        lines_max,
        reason: "a test",
    };
    let tree = Tree::with_source("src/a.rs", &"//! x\n".repeat(410));
    assert!(check(&tree, &[exception("src/a.rs", 410)]).is_empty());
    assert_eq!(
        check(&tree, &[exception("src/a.rs", 409)]),
        ["src/a.rs: 410 lines, at most 409"]
    );
    let short = Tree::with_source("src/a.rs", "//! x\n");
    assert_eq!(
        check(&short, &[exception("src/a.rs", 500)]),
        ["src/a.rs: needs no exception any more"]
    );
}
