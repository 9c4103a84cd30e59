//! What a configuration may say, and what is said back when it is wrong.

use std::ffi::OsString;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::hostile_tests::{changed, changes, nonsense};

fn load(
    file: impl AsRef<[u8]>,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Loaded {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("herald.toml");
    std::fs::write(&path, file.as_ref()).expect("a file to read");
    Config::load(&Sources {
        file: Some(path),
        environment: environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect(),
        flags: flags
            .iter()
            .map(|(key, value)| Flag {
                flag: "--flag",
                key,
                text: (*value).to_owned(),
            })
            .collect(),
        dev: false,
    })
}

type Loaded = Result<Config, Mistakes>;

fn mistakes(loaded: Loaded) -> Vec<(String, String)> {
    loaded
        .expect_err("a configuration with mistakes")
        .list()
        .iter()
        .map(|mistake| (mistake.key.clone(), mistake.message.clone()))
        .collect()
}

#[test]
fn the_contract_names_these_defaults() {
    let config = Config::default();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8081");
    assert_eq!(config.socket.hello_timeout_ms, 5_000);
    assert_eq!(config.socket.ping_interval_ms, 270_000);
    assert_eq!(config.socket.outbox_bytes, 262_144);
    assert_eq!(config.limits.pending_per_token, 10_000);
    assert_eq!(config.limits.poll_response_bytes, 1_048_576);
    assert_eq!(config.quota.sends_per_minute_per_project, 600_000);
    let drain = [2_000, 10_000, 30_000];
    let Drain {
        delay_ms,
        window_ms,
        deadline_ms,
        ..
    } = config.drain;
    assert_eq!([delay_ms, window_ms, deadline_ms], drain);
}

#[test]
fn dev_turns_quotas_off_and_drains_fast() {
    let config = Config::dev();
    let Drain {
        delay_ms,
        window_ms,
        deadline_ms,
        ..
    } = config.drain;
    assert_eq!([delay_ms, window_ms, deadline_ms], [200, 1_000, 5_000]);
    assert_eq!(config.quota.sends_per_minute_per_project, 0);
    assert_eq!(config.quota.topic_changes_per_second_per_project, 0);
    assert_eq!(config.limits.mints_per_minute_per_address, 0);
}

#[test]
fn what_is_set_wins_over_a_dev_default() {
    let config = Config::load(&Sources {
        environment: vec![(
            "HERALD_LIMITS__MINTS_PER_MINUTE_PER_ADDRESS".into(),
            "7".into(),
        )],
        dev: true,
        ..Sources::default()
    })
    .expect("a good configuration");
    assert_eq!(config.limits.mints_per_minute_per_address, 7);
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\ndata_dir = \"file\"\n";
    let environment = [
        ("HERALD_ADMIN_LISTEN", "127.0.0.1:3"),
        ("HERALD_DATA_DIR", "environment"),
        ("HERALD_SOCKET__PING_INTERVAL_MS", "1_000"),
    ];
    let config = load(file, &environment, &[("data_dir", "flag")]).expect("a good configuration");
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.admin_listen.port(), 3);
    assert_eq!(config.data_dir, PathBuf::from("flag"));
    assert_eq!(config.socket.ping_interval_ms, 1_000);
    assert_eq!(config.socket.mailbox, 64);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_name() {
    let file = "listen = 8080\nfoo = 1\n[socket]\nhello_timeout_ms = 1\nmailbocks = 3\n[nothing]\n";
    let environment = [("HERALD_STORE__KIND", "disk"), ("HERALD_LISTEM", "x")];
    let found = mistakes(load(file, &environment, &[("admin_listen", "8081")]));
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    let expected = [
        "listen",
        "admin_listen",
        "socket.hello_timeout_ms",
        "store.kind",
        "foo",
        "listem",
        "nothing",
        "socket.mailbocks",
    ];
    assert_eq!(keys, expected);
}

/// What a file says, the setting that is wrong with it, and why.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "[socket]\nmailbox = 0",
        "socket.mailbox",
        "must be from 1 to 65536, is 0",
    ),
    (
        "[socket]\nmailbox = -1",
        "socket.mailbox",
        "-1 is out of range",
    ),
    (
        "[socket]\nmailbox = 1.5",
        "socket.mailbox",
        "must be a whole number, is a fraction",
    ),
    (
        "[socket]\nmailbox = \"9\"",
        "socket.mailbox",
        "must be a whole number, is a string",
    ),
    (
        "socket = 3",
        "socket",
        "is a section: write [socket] above its settings",
    ),
    (
        "[socket]\nmailbx = 9",
        "socket.mailbx",
        "there is no such setting; did you mean socket.mailbox?",
    ),
    ("zzz = 9", "zzz", "there is no such setting"),
    (
        "listen = \"localhost:80\"",
        "listen",
        "must be an IP address and a port like 127.0.0.1:8080, is `localhost:80`",
    ),
    ("data_dir = \"\"", "data_dir", "must not be empty"),
    (
        "[store]\nkind = \"disk\"",
        "store.kind",
        "must be one of `embedded`, `memory`, `cluster`, is `disk`",
    ),
    (
        "[log]\nformat = \"xml\"",
        "log.format",
        "must be one of `text`, `json`, is `xml`",
    ),
    (
        "[tls]\ncert = \"a.pem\"",
        "tls.key",
        "must be set together with tls.cert",
    ),
    (
        "[drain]\ndeadline_ms = 5",
        "drain.deadline_ms",
        "must be at least drain.delay_ms + drain.window_ms = 12000",
    ),
    (
        "admin_listen = \"127.0.0.1:8080\"",
        "admin_listen",
        "must not be the same address as listen (127.0.0.1:8080)",
    ),
    (
        "[limits]\nmessage_bytes = 65537",
        "http.send_body_bytes",
        "must be at least limits.message_bytes = 65537",
    ),
    (
        "[secrets]\nadmin_token = \"a b\"",
        "secrets.admin_token",
        "must be visible ASCII without spaces",
    ),
    (
        "[secrets]\nsealing_keys = \"1:AA\"",
        "secrets.sealing_keys",
        "must be a list of strings, is a string",
    ),
    (
        "[secrets]\nsealing_keys = [\"AA\"]",
        "secrets.sealing_keys",
        "must hold keys of the form <id>:<base64 of 32 bytes>",
    ),
    (
        "[secrets]\nsealing_keys = [\"256:AA==\"]",
        "secrets.sealing_keys",
        "has a key whose id `256` is not a number from 0 to 255",
    ),
    (
        "[secrets]\nsealing_keys = [\"1:AA==\"]",
        "secrets.sealing_keys",
        "has key 1 of 1 bytes, not 32",
    ),
    (
        "[secrets]\nsealing_keys = [\"1:***\"]",
        "secrets.sealing_keys",
        "has key 1 whose secret is not base64",
    ),
];

#[test]
fn a_mistake_says_what_would_be_right() {
    for (file, key, message) in MISTAKES {
        let expected = vec![((*key).to_owned(), (*message).to_owned())];
        assert_eq!(mistakes(load(file, &[], &[])), expected, "for {file}");
    }
}

#[test]
fn a_broken_file_is_named_by_line_and_not_quoted() {
    let file = "[secrets]\nadmin_token = \"hunter2hunter2\" oops\n";
    let found = mistakes(load(file, &[], &[]));
    assert!(found[0].1.starts_with("line 2 is not TOML"), "{found:?}");
    assert!(!found[0].1.contains("hunter2"), "{found:?}");
}

#[test]
fn a_missing_file_is_a_mistake() {
    let found = mistakes(Config::load(&Sources {
        file: Some(PathBuf::from("/nonexistent/herald.toml")),
        ..Sources::default()
    }));
    assert_eq!(found[0].0, "/nonexistent/herald.toml");
}

#[test]
fn keys_come_from_file_and_environment() {
    let key = "8J+RiyBoZWxsbywgYSBrZXkgb2YgMzIgYnl0ZXMhISE=";
    let file = format!("[secrets]\nsealing_keys = [\"2:{key}\", \"1:{key}\"]\n");
    let both = format!("7:{key}, 8:{key}");
    let environment = [("HERALD_SECRETS__DEVICE_KEYS", both.as_str())];
    let config = load(&file, &environment, &[]).expect("a good configuration");
    let ids = |keys: &[Key]| keys.iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(&config.secrets.sealing_keys), [2, 1]);
    assert_eq!(ids(&config.secrets.device_keys), [7, 8]);
    let twice = format!("7:{key},7:{key}");
    let found = mistakes(load("", &[("HERALD_SECRETS__DEVICE_KEYS", &twice)], &[]));
    assert_eq!(found[0].1, "has two keys with the id 7");
}

#[test]
fn the_admin_token_has_a_short_name_too() {
    let config = load("", &[("HERALD_ADMIN_TOKEN", "open-sesame")], &[]).expect("good");
    let token = config.secrets.admin_token.as_ref().expect("a token");
    assert_eq!(token.reveal(), "open-sesame");
    let both = [
        ("HERALD_ADMIN_TOKEN", "a"),
        ("HERALD_SECRETS__ADMIN_TOKEN", "b"),
    ];
    assert_eq!(mistakes(load("", &both, &[]))[0].0, "secrets.admin_token");
}

#[test]
fn what_is_no_setting_of_ours_in_the_environment_is_left_alone() {
    let environment = [
        ("HERALD_ADMIN_URL", "http://127.0.0.1:8081"),
        ("HERALD_SERVICE_HOST", "10.0.0.1"),
        ("HERALD_SERVICE_PORT", "8080"),
        ("HERALD_SERVICE_PORT_HTTP", "8080"),
        ("HERALD_PORT", "tcp://10.0.0.1:8080"),
        ("HERALD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("HERALD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("HERALD_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("HERALDRY", "yes"),
    ];
    load("", &environment, &[]).expect("nothing to refuse");
}

#[test]
fn print_config_can_be_read_again_and_shows_no_secret() {
    let key = "8J+RiyBoZWxsbywgYSBrZXkgb2YgMzIgYnl0ZXMhISE=";
    let file = format!("[secrets]\nsealing_keys = [\"2:{key}\"]\nadmin_token = \"hunter2hunter2\"");
    let config = load(&file, &[], &[("listen", "[::1]:9")]).expect("a good configuration");
    let shown = config.to_toml();
    assert!(
        !shown.contains("hunter2") && !shown.contains(key),
        "{shown}"
    );
    assert!(!format!("{config:?}").contains("hunter2"));
    let table: toml::Table = shown.parse().expect("valid TOML");
    assert_eq!(table["listen"].as_str(), Some("[::1]:9"));
    assert_eq!(table["drain"]["delay_ms"].as_integer(), Some(2_000));
}

#[test]
fn the_printed_defaults_load_again() {
    let config = load(Config::default().to_toml(), &[], &[]).expect("the defaults are good");
    assert_eq!(config.to_toml(), Config::default().to_toml());
}

#[test]
fn weak_settings_are_warned_of() {
    assert_eq!(Config::default().warnings(), Vec::<String>::new());
    let file =
        "admin_listen = \"0.0.0.0:1\"\n[store]\nkind = \"memory\"\n[secrets]\nadmin_token = \"x\"";
    assert_eq!(load(file, &[], &[]).expect("allowed").warnings().len(), 3);
}

/// Run with `UPDATE_DOCS=1` to write the file anew.
#[test]
fn the_settings_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, settings_reference()).expect("a page to write");
    }
    let page = std::fs::read_to_string(path).expect("docs/settings.md");
    assert_eq!(
        page,
        settings_reference(),
        "run the test with UPDATE_DOCS=1"
    );
}

// --- Any file at all -------------------------------------------------------------------------

/// A file with something of every kind in it.
fn sound_file() -> String {
    let secrets = "[secrets]\nadmin_token = \"hunter2hunter2\"\n\
                   device_keys = [\"7:8J+RiyBoZWxsbywgYSBrZXkgb2YgMzIgYnl0ZXMhISE=\"]\n";
    format!("{}\n{secrets}", include_str!("../../deploy/cluster.toml"))
}

/// A configuration, or mistakes with a place each, none of which shows a secret.
fn assert_judged(file: &[u8]) {
    let Err(mistakes) = load(file, &[], &[]) else {
        return;
    };
    assert!(!mistakes.list().is_empty());
    for mistake in mistakes.list() {
        assert!(
            !mistake.key.is_empty() && !mistake.message.is_empty(),
            "{mistake:?}"
        );
    }
    let text = mistakes.to_string();
    for secret in [
        "hunter2hunter2",
        "8J+RiyBoZWxsbywgYSBrZXkgb2YgMzIgYnl0ZXMhISE=",
    ] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn the_sound_file_is_sound() {
    load(sound_file(), &[], &[]).expect("a good configuration");
}

#[test]
fn deep_files_are_refused_and_nothing_falls_over() {
    for file in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("{}x = 1", "a.".repeat(100_000)),
        format!("[{}x]", "a.".repeat(100_000)),
        format!("listen = {}", "9".repeat(1_000_000)),
    ] {
        assert!(!mistakes(load(file, &[], &[])).is_empty());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_fall_over(file in nonsense()) {
        assert_judged(&file);
    }

    #[test]
    fn no_text_makes_it_fall_over(
        file in "([a-z_.\"']{1,12}( ?= ?|\\.)|\\[{1,2}(http|store|limits|x)\\]{1,2}|[\\[{\"']{1,3}|[0-9eE:+_.-]{1,9}|\n|#|true){0,20}",
    ) {
        assert_judged(file.as_bytes());
    }

    #[test]
    fn a_changed_file_is_read_or_refused_with_a_place(changes in changes()) {
        assert_judged(&changed(sound_file().into_bytes(), &changes));
    }
}
