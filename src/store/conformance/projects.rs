//! Projects and secrets, and the end of a project's tokens.

use super::*;

fn project(id: &str, version: u64) -> Project {
    Project {
        project_id: id.to_owned(),
        name: format!("{id}, version {version}"),
        package_name: "com.example.app".to_owned(),
        cert_sha256: vec!["91:AC".to_owned()],
        service_tokens: Vec::new(),
        created_at: START,
        version,
        deleted: false,
    }
}

pub async fn projects_are_written_in_turn(open: Open<'_>) {
    let subject = open(LIMITS);
    assert_eq!(
        subject.save(&project("a", 2)).await,
        Saved::Conflict,
        "never made"
    );
    assert_eq!(subject.save(&project("a", 1)).await, Saved::Saved);
    assert_eq!(subject.save(&project("b", 1)).await, Saved::Saved);
    assert_eq!(
        subject.save(&project("a", 1)).await,
        Saved::Conflict,
        "the id is taken"
    );
    let (ours, theirs) = (project("a", 2), project("a", 2));
    let (ours, theirs) = tokio::join!(subject.save(&ours), subject.save(&theirs));
    let saved = [ours, theirs]
        .iter()
        .filter(|it| **it == Saved::Saved)
        .count();
    assert_eq!(saved, 1, "one of two wins: {ours:?}, {theirs:?}");
    let ended = Project {
        deleted: true,
        ..project("a", 3)
    };
    assert_eq!(subject.save(&ended).await, Saved::Saved);
    assert_eq!(
        subject.save(&project("a", 1)).await,
        Saved::Conflict,
        "ids stay taken"
    );
    let mut projects = subject.store.projects().await.expect("the store lists");
    projects.sort_by(|a, b| a.project_id.cmp(&b.project_id));
    assert_eq!(projects, [ended, project("b", 1)]);
}

pub async fn secrets_are_made_once(open: Open<'_>) {
    let subject = open(LIMITS);
    let keep = |name, proposed| subject.store.keep_secret(name, proposed);
    let (one, two) = tokio::join!(keep("sealing", b"one"), keep("sealing", b"two"));
    let kept = one.expect("kept");
    assert_eq!(two.expect("kept"), kept, "whichever was first stays");
    assert!(kept == b"one" || kept == b"two");
    assert_eq!(keep("sealing", b"three").await.expect("kept"), kept);
    assert_eq!(keep("device", b"two").await.expect("kept"), b"two");
    let look = |name| subject.store.kept_secret(name);
    assert_eq!(look("sealing").await.expect("read"), Some(kept));
    assert_eq!(look("nothing").await.expect("read"), None);
    assert_eq!(keep("nothing", b"now").await.expect("kept"), b"now");
}

pub async fn deleting_a_project_ends_its_tokens_only(open: Open<'_>) {
    let subject = open(LIMITS);
    let ended: Vec<_> = (0..600).map(|_| token_of("ended")).collect();
    let kept: Vec<_> = (0..20).map(|_| token_of("kept")).collect();
    let mut reports = Reports::new();
    for token in ended.iter().chain(&kept) {
        subject.store.append(push(*token, START), 0, &reports.sink);
    }
    for _ in 0..620 {
        reports.next().await.outcome.expect("stored");
    }
    let deleted = subject
        .store
        .delete_tokens_of(ProjectHash::of("ended"), START)
        .await;
    deleted.expect("the store begins");
    subject.await_deleted(600, 20).await;
    for token in &ended {
        assert_eq!(
            subject.contact(token, 1, START).await,
            Contact::Unregistered
        );
    }
    for token in &kept {
        assert_eq!(subject.syns(token, START).await, [1]);
    }
    subject.assert_totals(20, 20);
    subject.assert_conserved(620).await;
}
