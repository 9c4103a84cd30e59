//! What every SDK goes through with topics: tokens join and leave them in each of its ways, and
//! pushes reach those that are in, and nobody else.

use serde_json::{Value, json};

use crate::harness::{Credential, Project, Server, text_of};
use crate::plan::{Report, change, dry, send_to};
use crate::sdk::{Place, Sdk, Way};

/// One of an SDK's ways to manage topics, and its words for what can be wrong.
#[derive(Debug, Clone, Copy)]
pub struct Managing {
    /// What the script calls it.
    pub how: &'static str,
    /// One request for many tokens: an Instance ID call, which can fail as a whole.
    pub is_one_request: bool,
    pub unregistered: &'static str,
    pub foreign: &'static str,
    pub malformed: &'static str,
    /// For a name that no topic has.
    pub bad_topic: &'static str,
    pub too_many_topics: &'static str,
    pub unauthenticated: &'static str,
    /// `None` if it waits as told until it gets through.
    pub quota_exceeded: Option<&'static str>,
}

const MALFORMED: &str = "not-a-token";

/// Longer than a name may be, which no SDK checks by itself.
fn bad_topic() -> String {
    "x".repeat(901)
}

/// Everybody a push could come to by mistake, too.
struct Crowd {
    device: Credential,
    member: String,
    leaver: String,
    outsider: String,
    dead: String,
    other: Project,
    foreign: String,
}

impl Crowd {
    async fn of(server: &Server) -> Self {
        let device = server.device().await;
        let other: Project = server.project("other").await;
        let foreign = server.token_in(&other, &device).await;
        let dead = server.token(&device).await;
        assert_eq!(server.delete_token("demo", &device, &dead).await, 204);
        let outsider = server.token(&device).await;
        let crowd = Self {
            member: server.token(&device).await,
            leaver: server.token(&device).await,
            device,
            outsider,
            dead,
            other,
            foreign,
        };
        // A token that nobody has heard of is not there.
        assert_eq!(crowd.pushes(server, "demo", &crowd.outsider).await, []);
        assert_eq!(crowd.pushes(server, "other", &crowd.foreign).await, []);
        crowd
    }

    /// The text and the message id of all pushes to a token, sorted.
    async fn pushes(&self, server: &Server, project_id: &str, token: &str) -> Vec<(String, Value)> {
        let request = json!([{"project_id": project_id, "token": token, "limit": 1000}]);
        let (status, page) = server.poll(&self.device, request).await;
        assert_eq!(status, 200, "{page}");
        let pushes = page["by_token"][0]["messages"].as_array();
        let pushes = pushes.unwrap_or_else(|| panic!("{page}"));
        let shown = |push: &Value| {
            assert_eq!(push["message"], json!({"data": {"text": text_of(push)}}));
            (text_of(push).to_owned(), push["message_id"].clone())
        };
        let mut pushes: Vec<_> = pushes.iter().map(shown).collect();
        pushes.sort_by(|one, other| one.0.cmp(&other.0));
        pushes
    }

    /// That a token has exactly these pushes, by their steps.
    async fn assert_pushes(&self, server: &Server, report: &Report, token: &str, sent: &[Sent]) {
        let mut expected: Vec<_> = sent.iter().map(|it| it.push(report)).collect();
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(self.pushes(server, "demo", token).await, expected);
    }
}

/// A message that was accepted.
#[derive(Debug, Clone)]
struct Sent {
    step: usize,
    text: String,
}

impl Sent {
    fn push(&self, report: &Report) -> (String, Value) {
        let name = report.one(self.step).name.as_deref();
        let name = name.unwrap_or_else(|| panic!("{:?}", report.one(self.step)));
        let id = name.rsplit('/').next();
        (self.text.clone(), json!(id))
    }
}

/// The topic of one way, so that none sees what another did.
fn topic_of(managing: &Managing) -> String {
    format!("news-{}.~%25", managing.how)
}

/// Tokens join and leave in all of an SDK's ways, and it sends to topics and conditions.
pub async fn topics(sdk: &Sdk, way: Way, ways: &[Managing]) {
    let place = Place::new(way, Vec::new()).await;
    let crowd = Crowd::of(&place.server).await;
    join_and_send(sdk, &place, &crowd, ways).await;
    leave_and_send(sdk, &place, &crowd, ways).await;
    println!(
        "{:?} SDK {way:?}: topics in {} ways",
        sdk.language,
        ways.len()
    );
}

/// Steps of one way before the sends.
const STEPS: usize = 4;

async fn join_and_send(sdk: &Sdk, place: &Place, crowd: &Crowd, ways: &[Managing]) {
    let server = &place.server;
    let mut steps: Vec<Value> = ways.iter().flat_map(|it| joining(it, crowd)).collect();
    let conditions = conditions(ways);
    let sends = ways.iter().map(|it| ("topic", topic_of(it)));
    let sends = sends.chain(conditions.iter().map(|it| ("condition", it.clone())));
    let sends: Vec<_> = sends.collect();
    let first = steps.len();
    steps.extend(sends.iter().map(|(kind, to)| send_to(kind, to, to)));
    steps.push(dry(send_to("topic", &sends[0].1, "only tried")));
    for (kind, to) in [
        ("topic", bad_topic()),
        ("condition", "'a' in topics &&".to_owned()),
    ] {
        steps.push(send_to(kind, &to, "refused"));
    }
    let report = sdk.run(place, steps).await;
    for (index, managing) in ways.iter().enumerate() {
        assert_joined(managing, &report, index * STEPS);
    }
    let sent = sends.iter().enumerate().map(|(index, (_, to))| Sent {
        step: first + index,
        text: to.clone(),
    });
    let sent: Vec<_> = sent.collect();
    let tried = first + sent.len();
    report.one(tried).assert_accepted();
    report
        .one(tried + 1)
        .assert_refused(sdk.words.invalid_argument);
    report
        .one(tried + 2)
        .assert_refused(sdk.words.bad_condition);
    server
        .metric_becomes("herald_fan_outs_unfinished", 0.0)
        .await;
    let (to_members, to_others) = sent.split_at(sent.len() - 1);
    crowd
        .assert_pushes(server, &report, &crowd.member, to_members)
        .await;
    for other in [&crowd.leaver, &crowd.outsider] {
        crowd.assert_pushes(server, &report, other, to_others).await;
    }
    assert_eq!(
        crowd.pushes(server, &crowd.other.id, &crowd.foreign).await,
        []
    );
}

/// The first holds for members, the second for everybody else.
fn conditions(ways: &[Managing]) -> [String; 2] {
    let topic = topic_of(&ways[0]);
    let is_member = format!("'{topic}' in topics");
    [
        format!("('none' in topics || {is_member}) && !('other' in topics)"),
        format!("!({is_member})"),
    ]
}

fn joining(managing: &Managing, crowd: &Crowd) -> [Value; STEPS] {
    let (how, topic) = (managing.how, topic_of(managing));
    let all = [
        &crowd.member,
        &crowd.dead,
        &crowd.foreign,
        MALFORMED,
        &crowd.leaver,
    ];
    let leaving = [&crowd.leaver, &crowd.dead, &crowd.foreign, MALFORMED];
    [
        change("subscribe", how, &all, &topic),
        change(
            "subscribe",
            how,
            &[&crowd.member],
            &format!("/topics/{topic}"),
        ),
        change("unsubscribe", how, &leaving, &topic),
        change("subscribe", how, &[&crowd.leaver], &bad_topic()),
    ]
}

fn assert_joined(managing: &Managing, report: &Report, first: usize) {
    let Managing {
        unregistered,
        foreign,
        malformed,
        ..
    } = *managing;
    let failures = [(1, unregistered), (2, foreign), (3, malformed)];
    report.changed(first).assert_done(2, &failures);
    report.changed(first + 1).assert_done(1, &[]);
    report.changed(first + 2).assert_done(1, &failures);
    managing.assert_refused(report, first + 3, managing.bad_topic);
}

impl Managing {
    /// A call for one token was refused, in this word.
    fn assert_refused(&self, report: &Report, step: usize, word: &str) {
        match self.is_one_request {
            true => report.one(step).assert_refused(word),
            false => report.changed(step).assert_done(0, &[(0, word)]),
        }
    }
}

/// Who has left gets nothing more; to leave again does no harm.
async fn leave_and_send(sdk: &Sdk, place: &Place, crowd: &Crowd, ways: &[Managing]) {
    let server = &place.server;
    let before = crowd.pushes(server, "demo", &crowd.member).await;
    let both = [crowd.member.as_str(), &crowd.leaver];
    let mut steps = Vec::new();
    for managing in ways {
        let topic = topic_of(managing);
        steps.push(change("unsubscribe", managing.how, &both, &topic));
        steps.push(change("unsubscribe", managing.how, &both, &topic));
        steps.push(send_to("topic", &topic, "to nobody"));
    }
    let report = sdk.run(place, steps).await;
    for index in 0..ways.len() {
        report.changed(index * 3).assert_done(2, &[]);
        report.changed(index * 3 + 1).assert_done(2, &[]);
        report.one(index * 3 + 2).assert_accepted();
    }
    server
        .metric_becomes("herald_fan_outs_unfinished", 0.0)
        .await;
    assert_eq!(crowd.pushes(server, "demo", &crowd.member).await, before);
}

/// What the caller is not up to, or may not do now.
pub async fn topic_refusals(sdk: &Sdk, ways: &[Managing]) {
    too_many_topics_and_a_wrong_token(sdk, ways).await;
    used_up_quota(sdk, ways).await;
}

async fn too_many_topics_and_a_wrong_token(sdk: &Sdk, ways: &[Managing]) {
    let settings = vec![("HERALD_LIMITS__TOPICS_PER_TOKEN", "1".to_owned())];
    let place = Place::new(Way::Told, settings).await;
    let device = place.server.device().await;
    let (mut steps, mut unknown) = (Vec::new(), Vec::new());
    for managing in ways {
        let token = place.server.token(&device).await;
        steps.push(change("subscribe", managing.how, &[&token], "one"));
        steps.push(change("subscribe", managing.how, &[&token], "two"));
        unknown.push(change("subscribe", managing.how, &[&token], "three"));
    }
    let report = sdk.run(&place, steps).await;
    for (index, managing) in ways.iter().enumerate() {
        report.changed(index * 2).assert_done(1, &[]);
        let refused = report.changed(index * 2 + 1);
        refused.assert_done(0, &[(0, managing.too_many_topics)]);
    }
    let report = sdk.run_as(&place, "wrong".to_owned(), unknown).await;
    for (index, managing) in ways.iter().enumerate() {
        managing.assert_refused(&report, index, managing.unauthenticated);
    }
}

/// More tokens than there are changes, and more calls than seconds.
async fn used_up_quota(sdk: &Sdk, ways: &[Managing]) {
    const CALLS: usize = 10;
    let quota = "HERALD_QUOTA__TOPIC_CHANGES_PER_SECOND_PER_PROJECT";
    let place = Place::new(Way::Told, vec![(quota, "1".to_owned())]).await;
    let device = place.server.device().await;
    let token = place.server.token(&device).await;
    for managing in ways {
        let Some(word) = managing.quota_exceeded else {
            continue;
        };
        let tokens = [token.as_str(); CALLS];
        let call = change("subscribe", managing.how, &tokens, "news");
        let report = sdk.run(&place, vec![call; CALLS]).await;
        let refused = (0..CALLS).map(|step| match managing.is_one_request {
            true => usize::from(report.is_refused(step, word)),
            false => report.changed(step).failures_in(word),
        });
        assert!(refused.sum::<usize>() > 0, "{report:?}");
    }
}
