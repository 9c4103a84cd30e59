//! Every source file is on the map, and the map shows no file that is gone.
//!
//! The map is the part of `ARCHITECTURE.md` with a heading for each directory, such as
//! `` ### `src/store/` ``, and below it a line for each file: `` - `mod.rs`: what it is for ``.

use std::collections::BTreeSet;

use crate::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";

/// Every file that is missing on the map, and every entry that is missing on disk.
pub fn check(tree: &Tree) -> Vec<String> {
    let Some(map) = tree.documents.iter().find(|file| file.path == MAP) else {
        return vec![format!("{MAP} is missing")];
    };
    let shown = entries(&map.text);
    let files: BTreeSet<String> = tree.sources.iter().map(|file| file.path.clone()).collect();
    let missing = files.difference(&shown).map(|path| {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        format!("{MAP}: below `### `{directory}/`` add: - `{name}`: what {path} is for")
    });
    let gone = shown
        .difference(&files)
        .map(|path| format!("{MAP}: shows {path}, which is gone"));
    missing.chain(gone).collect()
}

fn entries(map: &str) -> BTreeSet<String> {
    let mut directory = "";
    let mut entries = BTreeSet::new();
    for line in map.lines() {
        if line.starts_with('#') {
            let named = line
                .strip_prefix("### `")
                .and_then(|it| it.split('`').next());
            directory = named.unwrap_or("");
        } else if let Some(entry) = line.strip_prefix("- `").filter(|_| !directory.is_empty()) {
            let name = entry.split_once("`: ").filter(|(_, text)| !text.is_empty());
            entries.extend(name.map(|(name, _)| format!("{directory}{name}")));
        }
    }
    entries
}

#[test]
fn missing_files_and_missing_entries_are_found() {
    use crate::tree::File;
    let map = "# Map\n- `not/an/entry.rs`: above\n### `src/`\n- `a.rs`: one\n- `b.rs`: \n- `c.rs`: gone\n";
    let tree = Tree {
        sources: vec![File::new("src/a.rs", ""), File::new("src/b.rs", "")],
        documents: vec![File::new(MAP, map)],
        ..Tree::default()
    };
    let complaints = check(&tree);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(
        complaints[0].contains("what src/b.rs is for"),
        "an entry must say something"
    );
    assert!(complaints[1].contains("src/c.rs, which is gone"));
    assert_eq!(check(&Tree::default()), ["ARCHITECTURE.md is missing"]);
}
