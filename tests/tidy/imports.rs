//! Imports run one way: main, server, {http, actors, store}, the plain things below. Each module
//! names what it may know; what is absent from its row is an invariant.

use crate::tree::{File, Tree};

/// A module of `src/`, and which of its neighbours it may name.
const MAY_KNOW: [(&str, &[&str]); 20] = [
    ("main", &["cli"]),
    (
        "cli",
        &[
            "admin_token",
            "clock",
            "config",
            "dev",
            "server",
            "store",
            "token",
        ],
    ),
    (
        "server",
        &[
            "actors",
            "admin_token",
            "clock",
            "config",
            "http",
            "metrics",
            "projects",
            "sealing_keys",
            "store",
            "token",
        ],
    ),
    ("dev", &["clock", "private_file", "projects"]),
    ("digest", &[]),
    (
        "http",
        &[
            "actors",
            "admin_token",
            "clock",
            "config",
            "digest",
            "metrics",
            "projects",
            "push",
            "sealing_keys",
            "store",
            "token",
            "topic",
        ],
    ),
    (
        "actors",
        &[
            "clock",
            "dense_map",
            "metrics",
            "push",
            "store",
            "token",
            "topic",
        ],
    ),
    (
        "store",
        &["clock", "dense_map", "projects", "push", "token", "topic"],
    ),
    ("projects", &["clock", "store", "token"]),
    ("topic", &["clock", "digest", "push", "token"]),
    ("sealing_keys", &["clock", "store", "token"]),
    ("push", &["clock", "token"]),
    ("token", &["clock"]),
    ("config", &["token"]),
    ("admin_token", &["config", "private_file"]),
    ("metrics", &[]),
    ("clock", &[]),
    ("dense_map", &[]),
    ("private_file", &[]),
    ("lib", &[]),
];

/// What HTTP may name of the store: answers and their bounds, but no store.
const STORE_WORDS_OF_HTTP: [&str; 7] = [
    "Contact",
    "Page",
    "PageLimit",
    "StoreError",
    "Subscribed",
    "Subscription",
    "Unsubscribed",
];

/// A crate from outside, and where alone it may be named: so much is to be changed when it goes.
const WALLS: [(&str, &[&str]); 9] = [
    // The system that the whole server runs on is started in one more place.
    ("actix::", &["src/actors/", "src/cli/serve.rs"]),
    ("fjall::", &["src/store/embedded/"]),
    ("redis::", &["src/store/cluster/", "region/src/"]),
    ("scylla::", &["src/store/cluster/"]),
    ("rmp_serde::", &["src/store/cluster/hints.rs"]),
    ("prometheus::", &["src/metrics"]),
    ("governor::", &["src/http/quota"]),
    ("aes_gcm_siv::", &["src/token/keyring.rs"]),
    ("reqwest::", &["src/cli/", "sdk/src/"]),
];

/// A workspace member, and which of the others it may name; a part of one comes before the whole.
const MEMBERS: [(&str, &[&str]); 5] = [
    // The one exception to the swarm knowing nothing of the server: here it runs the server's own
    // sessions, in its own process, because there are not so many file descriptors in the world.
    ("loadtest/src/simulation/", &["herald", "herald_protocol"]),
    ("protocol/", &[]),
    ("sdk/", &["herald_protocol"]),
    ("loadtest/", &["herald_protocol"]),
    ("region/", &[]),
];

/// Everything that imports what it may not know.
pub fn check(tree: &Tree) -> Vec<String> {
    let sources = tree.sources.iter().filter(|file| !file.is_test());
    sources
        .flat_map(|file| {
            let mut complaints = neighbours(file);
            complaints.extend(walls(file));
            complaints.extend(members(file));
            complaints
        })
        .collect()
}

fn neighbours(file: &File) -> Vec<String> {
    let Some(below) = file.path.strip_prefix("src/") else {
        return Vec::new();
    };
    let module = below.split(['/', '.']).next().unwrap_or(below);
    let Some((_, known)) = MAY_KNOW.iter().find(|(name, _)| *name == module) else {
        return vec![format!(
            "{}: `{module}` has no row in MAY_KNOW: say what it may know",
            file.path
        )];
    };
    let mut complaints = Vec::new();
    for (number, line) in file.code_lines() {
        for named in words_after(line, "crate::") {
            if named != module && !known.contains(&named) {
                complaints.push(format!(
                    "{}:{number}: `{module}` must not know `{named}`",
                    file.path
                ));
            }
        }
    }
    if module == "http" {
        let alien = store_words(file.code()).filter(|word| !STORE_WORDS_OF_HTTP.contains(word));
        complaints.extend(
            alien.map(|word| format!("{}: http must not know the store's `{word}`", file.path)),
        );
    }
    complaints
}

fn walls(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in file.code_lines() {
        for (name, places) in WALLS {
            let is_inside = places.iter().any(|place| file.path.starts_with(place));
            if !is_inside && finds_path(line, name) {
                complaints.push(format!(
                    "{}:{number}: `{name}` only in {}",
                    file.path,
                    places.join(", ")
                ));
            }
        }
        if !file.path.starts_with("src/actors/") && finds_path(line, "Addr<") {
            complaints.push(format!("{}:{number}: `Addr` only in src/actors", file.path));
        }
    }
    complaints
}

fn members(file: &File) -> Vec<String> {
    let Some((_, known)) = MEMBERS
        .iter()
        .find(|(directory, _)| file.path.starts_with(directory))
    else {
        return Vec::new();
    };
    let mut complaints = Vec::new();
    for (number, line) in file.code_lines() {
        let named = ["herald_protocol", "herald_sdk", "herald"]
            .into_iter()
            .filter(|name| finds_path(line, &format!("{name}::")))
            .find(|name| !known.contains(name));
        complaints
            .extend(named.map(|name| format!("{}:{number}: must not know `{name}`", file.path)));
    }
    complaints
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Whether `path` stands in the line as a path of its own, not as the end of another.
fn finds_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        before.is_none_or(|letter| !is_word(letter) && letter != ':')
    })
}

/// The word after each `prefix`.
fn words_after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter_map(move |(start, _)| {
        let rest = &line[start + prefix.len()..];
        let is_own = !line[..start].ends_with('$');
        is_own.then(|| rest.split(|letter| !is_word(letter)).next().unwrap_or(rest))
    })
}

/// Everything that is named of the store, also in lists over several lines.
fn store_words(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("crate::store")
        .flat_map(|(start, path)| {
            let rest = code[start + path.len()..].trim_start_matches("::");
            let end = if rest.starts_with('{') { '}' } else { ';' };
            let named = rest.split(end).next().unwrap_or(rest);
            let words = named.split(|letter| !is_word(letter));
            let is_list = end == '}';
            words
                .take(if is_list { usize::MAX } else { 1 })
                .filter(move |word| !is_list || !word.is_empty())
        })
}

#[test]
fn a_store_that_knows_actors_is_found() {
    let tree = Tree::with_source("src/store/mod.rs", "//! x\nuse crate::actors::Node;\n");
    assert_eq!(
        check(&tree),
        ["src/store/mod.rs:2: `store` must not know `actors`"]
    );
}

#[test]
fn http_that_opens_a_store_is_found() {
    let text = "//! x\nuse crate::store::{\n    Contact, Store,\n};\n\
                use crate::store::StoreError;\nuse crate::store;\n";
    assert_eq!(
        check(&Tree::with_source("src/http/send.rs", text)),
        [
            "src/http/send.rs: http must not know the store's `Store`",
            "src/http/send.rs: http must not know the store's ``",
        ]
    );
}

#[test]
fn a_crate_outside_its_wall_is_found() {
    let text = "//! x\nuse fjall::Database;\nfn f(a: Addr<B>, s: SocketAddr<C>) {}\n";
    let complaints = check(&Tree::with_source("src/server.rs", text));
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    let elsewhere = Tree::with_source("src/actors/mod.rs", "//! x\nuse actix::Addr<A>;\n");
    assert!(check(&elsewhere).is_empty());
}

#[test]
fn a_protocol_that_knows_the_sdk_is_found() {
    let tree = Tree::with_source("protocol/src/lib.rs", "//! x\nuse herald_sdk::Device;\n");
    assert_eq!(
        check(&tree),
        ["protocol/src/lib.rs:2: must not know `herald_sdk`"]
    );
}

#[test]
fn only_the_simulation_in_the_swarm_may_know_the_server() {
    let text = "//! x\nuse herald::actors::Node;\n";
    let outside = Tree::with_source("loadtest/src/sender.rs", text);
    assert_eq!(
        check(&outside),
        ["loadtest/src/sender.rs:2: must not know `herald`"]
    );
    let inside = Tree::with_source("loadtest/src/simulation/worker.rs", text);
    assert!(check(&inside).is_empty());
}

#[test]
fn a_new_module_must_be_placed() {
    let tree = Tree::with_source("src/unheard.rs", "//! x\n");
    assert_eq!(check(&tree).len(), 1);
}

#[test]
fn tests_may_know_everything() {
    let text = "//! x\n\n#[cfg(test)]\nmod tests {\n    use crate::actors::Node;\n}\n";
    assert!(check(&Tree::with_source("src/store/mod.rs", text)).is_empty());
    let whole = "//! x\nuse crate::actors::Node;\n";
    assert!(check(&Tree::with_source("src/store/tests.rs", whole)).is_empty());
}
