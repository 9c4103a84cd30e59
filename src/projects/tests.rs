//! Projects and service tokens over a store that is shared by several nodes.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Contact, StoreLimits};
use crate::token::{DeviceId, TokenAddress};

const FINGERPRINT: &str = "91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b";
const NOW: Millis = 1_700_000_000_000;

/// A store as it is before anyone has made a project.
pub(crate) fn memory_store() -> Arc<MemoryStore> {
    let limits = StoreLimits {
        pending_per_token: 10,
        token_ttl_ms: 1_000_000,
        topics_per_token: 8,
    };
    Arc::new(MemoryStore::new(limits, Arc::default()))
}

fn demo() -> NewProject {
    NewProject {
        project_id: "demo".to_owned(),
        name: Some("Demo".to_owned()),
        package_name: "com.example.app".to_owned(),
        cert_sha256: vec![FINGERPRINT.to_owned()],
    }
}

async fn node(store: &Arc<MemoryStore>) -> Projects {
    let store = Arc::clone(store) as Arc<dyn Store>;
    Projects::load(store, Clock::manual(NOW))
        .await
        .expect("projects to load")
}

/// Whether the store knows a push token, or takes it in now.
async fn is_live(store: &MemoryStore, token: &TokenAddress) -> bool {
    let contact = store.contact(token, 1, None, NOW).await.expect("an answer");
    matches!(contact, Contact::Live { .. })
}

async fn node_with_demo() -> (Arc<MemoryStore>, Projects) {
    let store = memory_store();
    let projects = node(&store).await;
    projects.create(demo()).await.expect("a project");
    (store, projects)
}

#[tokio::test]
async fn a_project_survives_in_the_store() {
    let (store, projects) = node_with_demo().await;
    let made = projects.get("demo").expect("the project");
    assert_eq!((made.version, made.created_at), (1, NOW));
    assert_eq!(made.cert_sha256[0].len(), 95);
    let after_restart = node(&store).await;
    assert_eq!(after_restart.get("demo"), Some(made));
    assert!(after_restart.get("other").is_none());
}

#[tokio::test]
async fn an_app_is_known_by_package_and_any_spelling_of_its_fingerprint() {
    let (_, projects) = node_with_demo().await;
    let project = projects.get("demo").expect("the project");
    assert!(project.admits("com.example.app", FINGERPRINT));
    assert!(project.admits("com.example.app", &project.cert_sha256[0].to_lowercase()));
    assert!(!project.admits("com.example.other", FINGERPRINT));
    assert!(!project.admits("com.example.app", &FINGERPRINT.replace("91", "92")));
    assert!(!project.admits("com.example.app", ""));
}

#[tokio::test]
async fn fields_that_break_a_rule_are_named() {
    let (_, projects) = node_with_demo().await;
    let long = "x".repeat(129);
    let with = |edit: &dyn Fn(&mut NewProject)| {
        let mut new = NewProject {
            project_id: "other".to_owned(),
            ..demo()
        };
        edit(&mut new);
        new
    };
    let mut cases = vec![
        (with(&|new| new.name = Some(" ".to_owned())), "name"),
        (with(&|new| new.name = Some(long.clone())), "name"),
        (with(&|new| new.name = Some("a\nb".to_owned())), "name"),
        (with(&|new| new.cert_sha256.clear()), "cert_sha256"),
        (
            with(&|new| new.cert_sha256.push("91:AC".to_owned())),
            "cert_sha256",
        ),
        (
            with(&|new| new.cert_sha256.push(FINGERPRINT.replace('9', "g"))),
            "cert_sha256",
        ),
        (
            with(&|new| new.cert_sha256 = vec![FINGERPRINT.to_owned(); 17]),
            "cert_sha256",
        ),
        (
            with(&|new| new.cert_sha256 = vec!["é".repeat(32)]),
            "cert_sha256",
        ),
    ];
    let long_id = "a".repeat(64);
    for id in [
        "",
        "Demo",
        "1demo",
        "de mo",
        "demo-",
        "de/mo",
        "démo",
        long_id.as_str(),
    ] {
        cases.push((with(&|new| new.project_id = id.to_owned()), "project_id"));
    }
    for package in [
        "",
        "app",
        "com.",
        ".com",
        "com..app",
        "com.1app",
        "com.exam ple",
    ] {
        cases.push((
            with(&|new| new.package_name = package.to_owned()),
            "package_name",
        ));
    }
    for (new, expected) in cases {
        let shown = format!("{new:?}");
        match projects.create(new).await {
            Err(ProjectError::Invalid { field, .. }) => assert_eq!(field, expected, "{shown}"),
            other => panic!("{shown} gave {other:?}"),
        }
    }
    assert!(projects.get("other").is_none());
}

#[test]
fn fingerprints_have_one_canonical_form() {
    let canonical = canonical_fingerprint(FINGERPRINT).expect("a fingerprint");
    assert!(canonical.starts_with("91:AC:2F:0B:91"));
    assert_eq!(canonical_fingerprint(&canonical), Some(canonical.clone()));
    assert_eq!(
        canonical_fingerprint(&canonical.to_lowercase()),
        Some(canonical.clone())
    );
    assert_eq!(
        canonical_fingerprint(&canonical.replacen(':', "-", 1)),
        None
    );
    assert_eq!(
        canonical_fingerprint(&canonical.replacen("91:AC", "9:1AC", 1)),
        None
    );
}

#[tokio::test]
async fn a_change_touches_only_what_it_names() {
    let (store, projects) = node_with_demo().await;
    let change = ProjectChange {
        name: Some(" New ".to_owned()),
        ..ProjectChange::default()
    };
    let changed = projects.change("demo", change).await.expect("a change");
    assert_eq!((changed.name.as_str(), changed.version), ("New", 2));
    assert_eq!(changed.package_name, "com.example.app");
    assert_eq!(node(&store).await.get("demo"), Some(changed));
    let bad = ProjectChange {
        package_name: Some("x".to_owned()),
        ..ProjectChange::default()
    };
    assert!(projects.change("demo", bad).await.is_err());
    let nobody = projects.change("other", ProjectChange::default()).await;
    assert!(matches!(nobody, Err(ProjectError::NotFound(_))));
}

#[tokio::test]
async fn a_service_token_speaks_for_its_project_until_it_is_revoked() {
    let (store, projects) = node_with_demo().await;
    let new = projects
        .create_service_token("demo", "ci")
        .await
        .expect("a token");
    let text = new.text.as_str();
    assert!(
        text.starts_with("herald_") && text.len() == 7 + 16 + 1 + 64,
        "{text}"
    );
    assert!(!format!("{new:?} {:?}", projects.get("demo")).contains(&text[24..]));
    let project = projects.authenticate(text).expect("its project");
    assert_eq!(project.project_id, "demo");
    assert!(node(&store).await.authenticate(text).is_some());

    projects
        .delete_service_token("demo", &new.kept.id)
        .await
        .expect("revoked");
    assert!(projects.authenticate(text).is_none());
    let again = projects.delete_service_token("demo", &new.kept.id).await;
    assert!(matches!(again, Err(ProjectError::ServiceTokenNotFound(_))));
}

#[tokio::test]
async fn what_is_no_service_token_speaks_for_nobody() {
    let (_, projects) = node_with_demo().await;
    let new = projects
        .create_service_token("demo", "ci")
        .await
        .expect("a token");
    let good = new.text.as_str();
    let last = if good.ends_with('0') { '1' } else { '0' };
    let wrong_secret = format!("{}{last}", &good[..good.len() - 1]);
    let wrong_id = good.replacen(&new.kept.id, "0123456789abcdef", 1);
    for bad in [
        "",
        "herald_",
        "herald__",
        "Bearer x",
        &good[1..],
        &wrong_secret,
        &wrong_id,
    ] {
        assert!(projects.authenticate(bad).is_none(), "{bad}");
    }
}

#[tokio::test]
async fn last_use_is_known_to_the_minute() {
    let store = memory_store();
    let clock = Clock::manual(NOW);
    let projects = Projects::load(store, clock.clone())
        .await
        .expect("projects");
    projects.create(demo()).await.expect("a project");
    let new = projects
        .create_service_token("demo", "ci")
        .await
        .expect("a token");
    let id = new.kept.id.as_str();
    assert_eq!(projects.last_used(id), None);
    projects.authenticate(&new.text).expect("its project");
    assert_eq!(projects.last_used(id), Some(NOW));
    clock.advance(LAST_USED_STEP_MS - 1);
    projects.authenticate(&new.text).expect("its project");
    assert_eq!(projects.last_used(id), Some(NOW));
    clock.advance(1);
    projects.authenticate(&new.text).expect("its project");
    assert_eq!(projects.last_used(id), Some(NOW + LAST_USED_STEP_MS));
}

#[tokio::test]
async fn twenty_parallel_creates_on_two_nodes_make_exactly_five_tokens() {
    let (store, first) = node_with_demo().await;
    let nodes = [Arc::new(first), Arc::new(node(&store).await)];
    let attempts = (0..20).map(|attempt| {
        let node = Arc::clone(&nodes[attempt % 2]);
        tokio::spawn(async move { node.create_service_token("demo", "ci").await })
    });
    let mut made = Vec::new();
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.expect("no panic") {
            Ok(new) => made.push(new),
            Err(error) => assert!(
                matches!(error, ProjectError::TooManyServiceTokens),
                "{error}"
            ),
        }
    }
    assert_eq!(made.len(), SERVICE_TOKENS_MAX);
    for node in &nodes {
        node.refresh().await.expect("a refresh");
        assert_eq!(
            node.get("demo").expect("the project").service_tokens.len(),
            5
        );
        assert!(
            made.iter()
                .all(|new| node.authenticate(&new.text).is_some())
        );
    }
}

#[tokio::test]
async fn a_deleted_project_is_gone_and_its_id_stays_taken() {
    let (store, projects) = node_with_demo().await;
    let other_node = node(&store).await;
    let new = projects
        .create_service_token("demo", "ci")
        .await
        .expect("a token");
    other_node.refresh().await.expect("a refresh");
    let hash = ProjectHash::of("demo");
    let push_token = TokenAddress::mint(DeviceId([1; 16]), hash, NOW);
    assert!(is_live(&store, &push_token).await);
    let ended = Arc::new(AtomicUsize::new(0));
    for node in [&projects, &other_node] {
        let ended = Arc::clone(&ended);
        node.when_deleted(move |project| {
            assert_eq!(project.project_id, "demo");
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }

    projects.delete("demo").await.expect("deleted");
    assert!(projects.get("demo").is_none() && projects.get_by_hash(hash).is_none());
    assert!(projects.list().is_empty());
    assert!(projects.authenticate(&new.text).is_none());
    assert!(!is_live(&store, &push_token).await);
    assert_eq!(ended.load(Ordering::Relaxed), 1);

    assert!(other_node.authenticate(&new.text).is_some(), "not told yet");
    other_node.refresh().await.expect("a refresh");
    other_node.refresh().await.expect("a refresh");
    assert!(other_node.authenticate(&new.text).is_none());
    assert_eq!(ended.load(Ordering::Relaxed), 2, "once a node");

    let after_restart = node(&store).await;
    for node in [&projects, &other_node, &after_restart] {
        assert!(matches!(
            node.create(demo()).await,
            Err(ProjectError::AlreadyExists(_))
        ));
        assert!(matches!(
            node.delete("demo").await,
            Err(ProjectError::NotFound(_))
        ));
    }
}

#[tokio::test]
async fn an_ending_that_was_cut_short_is_taken_up_again() {
    let (store, projects) = node_with_demo().await;
    projects.delete("demo").await.expect("deleted");
    let left_over = TokenAddress::mint(DeviceId([1; 16]), ProjectHash::of("demo"), NOW);
    assert!(is_live(&store, &left_over).await);
    let after_restart = node(&store).await;
    after_restart.end_tokens_of_deleted().await.expect("ended");
    assert!(!is_live(&store, &left_over).await);
}

#[tokio::test]
async fn an_id_taken_on_another_node_is_refused() {
    let (store, first) = node_with_demo().await;
    let second = node(&store).await;
    let new = NewProject {
        project_id: "second".to_owned(),
        ..demo()
    };
    first.create(new.clone()).await.expect("a project");
    let taken = second.create(new).await;
    assert!(matches!(taken, Err(ProjectError::AlreadyExists(_))));
    assert!(second.get("second").is_some(), "it has learnt of it");
}

#[tokio::test]
async fn readers_and_writers_do_not_wait_for_each_other_for_ever() {
    let (_, projects) = node_with_demo().await;
    let projects = Arc::new(projects);
    let new = projects
        .create_service_token("demo", "ci")
        .await
        .expect("a token");
    let readers = (0..4).map(|_| {
        let (projects, text) = (Arc::clone(&projects), new.text.clone());
        tokio::task::spawn_blocking(move || {
            (0..5_000).all(|_| projects.authenticate(&text).is_some())
        })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..200 {
        let extra = projects
            .create_service_token("demo", "extra")
            .await
            .expect("a token");
        projects
            .delete_service_token("demo", &extra.kept.id)
            .await
            .expect("revoked");
    }
    for reader in readers {
        assert!(reader.await.expect("no panic"));
    }
}
