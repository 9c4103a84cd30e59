//! The project's files, read once: Rust sources, and documents.

use std::path::Path;

/// Where Rust sources are.
const SOURCE_ROOTS: [&str; 7] = [
    "src", "protocol", "sdk", "loadtest", "region", "tests", "benches",
];

/// Where documents are, beside those at the root.
const DOCUMENT_ROOT: &str = "docs";

/// Directories that cargo fills.
const BUILD_DIRECTORY: &str = "target";

/// One file.
pub struct File {
    /// From the project's root, with slashes.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// All files that are looked at.
#[derive(Default)]
pub struct Tree {
    /// `*.rs`.
    pub sources: Vec<File>,
    /// `*.md`.
    pub documents: Vec<File>,
    /// Everything else that a document may link to, by path.
    pub others: Vec<String>,
}

impl File {
    /// A file that only tests are made of.
    pub fn is_test(&self) -> bool {
        let in_tests = |part| part == "tests" || part == "conformance";
        let name = self.name();
        name == "tests.rs" || name.ends_with("_tests.rs") || self.path.split('/').any(in_tests)
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The lines before the tests at the file's end.
    pub fn code(&self) -> &str {
        let tests = self.text.find("\n#[cfg(test)]\nmod tests {");
        &self.text[..tests.map_or(self.text.len(), |start| start + 1)]
    }

    /// The code, numbered from 1, without lines that are only a comment.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code().lines().enumerate();
        numbered
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

impl Tree {
    /// The project that this test belongs to.
    pub fn of_this_project() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut tree = Self::default();
        for directory in SOURCE_ROOTS.into_iter().chain([DOCUMENT_ROOT]) {
            tree.walk(root, &root.join(directory));
        }
        for entry in std::fs::read_dir(root).expect("the project's root") {
            let path = entry.expect("an entry of the root").path();
            if path.is_file() {
                tree.add(root, &path);
            }
        }
        assert!(tree.sources.len() > 100 && !tree.documents.is_empty());
        tree
    }

    fn walk(&mut self, root: &Path, directory: &Path) {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries {
            let path = entry.expect("an entry of a directory").path();
            if path.is_file() {
                self.add(root, &path);
            } else if path.file_name().is_some_and(|name| name != BUILD_DIRECTORY) {
                self.walk(root, &path);
            }
        }
    }

    fn add(&mut self, root: &Path, path: &Path) {
        let relative = path.strip_prefix(root).expect("a path below the root");
        let path_text = relative.to_str().expect("a path in UTF-8").to_owned();
        let files = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => &mut self.sources,
            Some("md") => &mut self.documents,
            _ => return self.others.push(path_text),
        };
        files.push(File {
            text: std::fs::read_to_string(path).expect("a text in UTF-8"),
            path: path_text,
        });
    }

    /// A tree of one source, for planted faults.
    pub fn with_source(path: &str, text: &str) -> Self {
        Self {
            sources: vec![File::new(path, text)],
            ..Self::default()
        }
    }
}

impl File {
    /// A file that is nowhere on disk.
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }
}
