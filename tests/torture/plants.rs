//! Planted bugs: patches that each break a promise. Whether the torture finds them is seen by
//! `plants.sh`, which builds each; here only that they still fit the source.

use std::path::Path;
use std::process::Command;

/// Fewer than this, and something was lost.
const PLANTS: usize = 20;

#[test]
fn every_plant_still_applies_and_says_what_it_breaks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = std::fs::read_dir(root.join("tests/torture/plants")).expect("plants");
    let paths = directory.map(|entry| entry.expect("an entry").path());
    let plants: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "patch"))
        .collect();
    assert!(plants.len() >= PLANTS, "{} plants", plants.len());
    for plant in plants {
        let text = std::fs::read_to_string(&plant).expect("a text");
        assert!(text.starts_with("# "), "{plant:?} must say what it breaks");
        let apply = Command::new("patch")
            .args(["--dry-run", "--quiet", "--force", "-p1", "-i"])
            .arg(&plant)
            .current_dir(root)
            .output()
            .expect("patch runs");
        let said = String::from_utf8_lossy(&apply.stdout);
        assert!(apply.status.success(), "{plant:?} must be redone: {said}");
    }
}
