//! No document has a dead link: neither to a file of the project nor to a heading in one.

use crate::tree::{File, Tree};

/// Every relative link that leads nowhere.
pub fn check(tree: &Tree) -> Vec<String> {
    let documents = tree.documents.iter();
    documents
        .flat_map(|document| {
            links(&document.text)
                .filter(|link| !leads_somewhere(tree, document, link))
                .map(|link| format!("{}: `{link}` leads nowhere", document.path))
        })
        .collect()
}

/// The targets of all links that stay within the project.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(start, opening)| {
        let target = text[start + opening.len()..].split(')').next()?;
        let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
        (!is_elsewhere).then_some(target)
    })
}

fn leads_somewhere(tree: &Tree, from: &File, link: &str) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => from.path.clone(),
        _ => resolve(&from.path, path),
    };
    let document = tree.documents.iter().find(|file| file.path == target);
    if !heading.is_empty() {
        return document.is_some_and(|file| headings(&file.text).any(|it| it == heading));
    }
    let mut paths = tree
        .others
        .iter()
        .chain(tree.sources.iter().map(|file| &file.path));
    let directory = format!("{}/", target.trim_end_matches('/'));
    document.is_some()
        || paths.any(|known| *known == target || known.starts_with(&directory))
        || tree
            .documents
            .iter()
            .any(|file| file.path.starts_with(&directory))
}

/// `link`, as seen from the document `from`, from the project's root.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The names by which headings are linked to.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.map(|letter| if letter == ' ' { '-' } else { letter })
                .collect()
        })
}

#[test]
fn dead_links_are_found_and_live_ones_are_not() {
    let text = "# A title, `quoted`\n[a](../README.md) [b](protocol.md#close-codes) [c](#a-title-quoted)\n\
                [d](decisions/) [e](https://example.com/x) [f](gone.md) [g](protocol.md#gone) [h](#gone)\n";
    let tree = Tree {
        documents: vec![
            File::new("README.md", ""),
            File::new("docs/a.md", text),
            File::new("docs/protocol.md", "## Close codes\n"),
            File::new("docs/decisions/0001-a.md", ""),
        ],
        ..Tree::default()
    };
    let dead = ["gone.md", "protocol.md#gone", "#gone"];
    let expected = dead.map(|link| format!("docs/a.md: `{link}` leads nowhere"));
    assert_eq!(check(&tree), expected);
}
