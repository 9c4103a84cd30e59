//! What every SDK goes through, whatever its language.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Credential, FaultyDisk, Project, Server, message, text_of, texts_of};
use crate::plan::{Outcome, Report, dry, multicast, send, send_each};
use crate::sdk::{Language, Place, Sdk, Way};

/// Messages of one call, the most that an SDK takes.
const EACH: usize = 500;

/// Tokens that they go to in turn.
const TOKENS: usize = 20;

/// Everybody that is sent to.
struct Cast {
    device: Credential,
    foreign: String,
    dead: String,
    good: Vec<String>,
}

const MALFORMED: &str = "not-a-token";

impl Cast {
    async fn of(server: &Server) -> Self {
        let device = server.device().await;
        let other: Project = server.project("other").await;
        let foreign = server.token_in(&other, &device).await;
        let dead = server.token(&device).await;
        assert_eq!(server.delete_token("demo", &device, &dead).await, 204);
        let mut good = Vec::new();
        for _ in 0..TOKENS {
            good.push(server.token(&device).await);
        }
        Self {
            device,
            foreign,
            dead,
            good,
        }
    }

    /// Good tokens with others among them.
    fn mixed(&self) -> Vec<String> {
        let token_at = |index: usize| match index % 10 {
            3 => &self.dead,
            5 => &self.foreign,
            7 => MALFORMED,
            _ => &self.good[index % TOKENS],
        };
        (0..EACH).map(|index| token_at(index).to_owned()).collect()
    }
}

/// Every outcome of messages to [`Cast::mixed`], and that the right ones arrived.
async fn assert_mixed(place: &Place, cast: &Cast, sdk: &Sdk, outcomes: &[Outcome]) {
    assert_eq!(outcomes.len(), EACH);
    let mut accepted = BTreeSet::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        match index % 10 {
            3 => outcome.assert_refused(sdk.words.unregistered),
            5 => outcome.assert_refused(sdk.words.sender_id_mismatch),
            7 => outcome.assert_refused(sdk.words.invalid_argument),
            _ => {
                outcome.assert_accepted();
                accepted.insert(index.to_string());
            }
        }
    }
    let mut arrived = Vec::new();
    for token in &cast.good {
        let page = place.server.poll_token(&cast.device, token, 1).await;
        let pushes = page["messages"].as_array().expect("messages");
        for push in pushes {
            assert_eq!(push["message"], json!({"data": {"text": text_of(push)}}));
            arrived.push(text_of(push).to_owned());
        }
        forget(place, cast, token, &page).await;
    }
    assert_eq!(arrived.len(), accepted.len(), "nothing came twice");
    assert_eq!(arrived.into_iter().collect::<BTreeSet<_>>(), accepted);
}

/// Acknowledges a page.
async fn forget(place: &Place, cast: &Cast, token: &str, page: &Value) {
    let next = page["syn_stored"].as_u64().expect("a number") + 1;
    let page = place.server.poll_token(&cast.device, token, next).await;
    assert_eq!(page["messages"], json!([]));
}

/// A new token, and the socket of a device that listens on it if the server has no TLS.
struct Listener {
    device: Credential,
    token: String,
}

impl Listener {
    async fn new(server: &Server) -> Self {
        let device = server.device().await;
        let token = server.token(&device).await;
        Self { device, token }
    }

    async fn messages(&self, place: &Place) -> Vec<Value> {
        let page = place.server.poll_token(&self.device, &self.token, 1).await;
        let pushes = page["messages"].as_array().expect("messages");
        pushes.iter().map(|push| push["message"].clone()).collect()
    }
}

/// All that goes well, with what does not go well among it.
pub async fn a_day_of_sends(sdk: &Sdk, way: &Way) {
    let place = Place::new(*way, Vec::new()).await;
    let server = &place.server;
    let cast = Cast::of(server).await;
    let whole = Listener::new(server).await;
    let tried = Listener::new(server).await;
    let now = Listener::new(server).await;
    let score = Listener::new(server).await;
    let many = Listener::new(server).await;
    let mut socket = match way {
        Way::Told => Some(server.hello(&now.device, &[(&now.token, 1)]).await.0),
        _ => None,
    };
    let mixed = cast.mixed();
    let some = [&many.token, &cast.dead, &cast.foreign, MALFORMED].map(|token| token.to_owned());
    let steps = vec![
        send("whole", &whole.token, ""),
        dry(send("text", &tried.token, "tried")),
        dry(send("text", &cast.dead, "tried")),
        send("now_or_never", &now.token, "now"),
        send("collapsible", &score.token, "1:0"),
        send("collapsible", &score.token, "2:0"),
        send("text", &cast.dead, ""),
        send("text", &cast.foreign, ""),
        send("text", MALFORMED, ""),
        send_each("send_each", &mixed),
        multicast(&some),
        dry(send_each("send_each", &some)),
    ];
    let report = sdk.run(&place, steps).await;
    let words = sdk.words;
    for accepted in [0, 1, 3, 4, 5] {
        report.one(accepted).assert_accepted();
    }
    for unregistered in [2, 6] {
        report.one(unregistered).assert_refused(words.unregistered);
    }
    report.one(7).assert_refused(words.sender_id_mismatch);
    report.one(8).assert_refused(words.invalid_argument);
    for batch in [10, 11] {
        let [sent, dead, foreign, malformed] = report.many(batch) else {
            panic!("{:?}", report.many(batch));
        };
        sent.assert_accepted();
        dead.assert_refused(words.unregistered);
        foreign.assert_refused(words.sender_id_mismatch);
        malformed.assert_refused(words.invalid_argument);
    }
    assert_mixed(&place, &cast, sdk, report.many(9)).await;
    assert_eq!(whole.messages(&place).await, [sdk.whole()]);
    assert_eq!(tried.messages(&place).await, [] as [Value; 0]);
    assert_eq!(
        many.messages(&place).await,
        [json!({"data": {"text": "to all"}})]
    );
    let [last] = score
        .messages(&place)
        .await
        .try_into()
        .expect("the newer one");
    assert_eq!(last["data"], json!({"text": "2:0"}));
    assert_eq!(last["android"]["collapse_key"], "score");
    assert_eq!(last["android"]["ttl"], "60s");
    assert_eq!(
        last["android"]["priority"]
            .as_str()
            .map(str::to_lowercase)
            .as_deref(),
        Some("normal")
    );
    if let Some(socket) = &mut socket {
        let push = socket.push().await;
        assert_eq!(push["message"]["data"], json!({"text": "now"}));
        assert_eq!(push["message"]["android"]["ttl"], "0s");
    } else {
        assert_eq!(now.messages(&place).await, [] as [Value; 0]);
    }
    what_only_some_have(sdk, &place, &cast).await;
    told(sdk, way, &report);
}

/// The newer target, and Python's other client.
async fn what_only_some_have(sdk: &Sdk, place: &Place, cast: &Cast) {
    if sdk.has_fid() {
        let by_fid = Listener::new(&place.server).await;
        let step = send("fid", &by_fid.token, "by fid");
        let report = sdk.run(place, vec![step]).await;
        report.one(0).assert_accepted();
        let text = json!({"data": {"text": "by fid"}});
        assert_eq!(by_fid.messages(place).await, [text]);
    }
    if sdk.language == Language::Python {
        let step = send_each("send_each_concurrently", &cast.mixed());
        let report = sdk.run(place, vec![step]).await;
        assert_mixed(place, cast, sdk, report.many(0)).await;
    }
}

fn told(sdk: &Sdk, way: &Way, report: &Report) {
    println!(
        "{:?} SDK {} {way:?}: {} steps",
        sdk.language,
        report.sdk,
        report.outcomes.len()
    );
}

/// What the caller or the server is not up to.
pub async fn all_refusals(sdk: &Sdk) {
    a_wrong_service_token(sdk).await;
    used_up_quotas(sdk).await;
    an_overloaded_server(sdk).await;
}

async fn a_wrong_service_token(sdk: &Sdk) {
    let place = Place::new(Way::Told, Vec::new()).await;
    let listener = Listener::new(&place.server).await;
    let step = send("text", &listener.token, "");
    let report = sdk.run_as(&place, "wrong".to_owned(), vec![step]).await;
    report.one(0).assert_refused(sdk.words.unauthenticated);
    assert_eq!(listener.messages(&place).await, [] as [Value; 0]);
}

/// The token's own, and then the project's.
async fn used_up_quotas(sdk: &Sdk) {
    let settings = vec![
        ("HERALD_QUOTA__SENDS_PER_MINUTE_PER_TOKEN", "1".to_owned()),
        ("HERALD_QUOTA__SENDS_PER_MINUTE_PER_PROJECT", "3".to_owned()),
    ];
    let place = Place::new(Way::Told, settings).await;
    let one = Listener::new(&place.server).await;
    let other = Listener::new(&place.server).await;
    // Python's other client does as it is told and repeats the send after a minute.
    let verb = match sdk.language {
        Language::Python => "send_each_concurrently",
        _ => "send_each",
    };
    let targets = [&one, &one, &other, &other];
    let steps = targets.map(|to| send_each(verb, std::slice::from_ref(&to.token)));
    let report = sdk.run(&place, steps.to_vec()).await;
    for (step, is_accepted) in [true, false, true, false].into_iter().enumerate() {
        let [outcome] = report.many(step) else {
            panic!("{:?}", report.many(step));
        };
        if is_accepted {
            outcome.assert_accepted();
        } else {
            outcome.assert_refused(sdk.words.quota_exceeded);
        }
    }
    for listener in [one, other] {
        let page = place
            .server
            .poll_token(&listener.device, &listener.token, 1)
            .await;
        assert_eq!(texts_of(&page), ["0"]);
    }
}

/// Its disk stalls, and as many sends wait as may.
async fn an_overloaded_server(sdk: &Sdk) {
    const WAITING: usize = 40;
    let disk = FaultyDisk::new();
    let settings = vec![
        ("HERALD_HTTP__WORKERS", "1".to_owned()),
        ("HERALD_LIMITS__MAILBOX", "8".to_owned()),
        ("HERALD_LIMITS__APPEND_TIMEOUT_MS", "120000".to_owned()),
    ];
    let settings = disk.options(settings).settings;
    let place = Place::new(Way::Told, settings).await;
    let server = &place.server;
    let listener = Listener::new(server).await;
    let mut tokens = Vec::new();
    for _ in 0..WAITING {
        tokens.push(server.token(&listener.device).await);
    }
    disk.stall();
    let (full, mut is_full) = tokio::sync::mpsc::channel(WAITING);
    let waiting = tokens.iter().map(|token| {
        let full = full.clone();
        async move {
            if server.send(&message(token, "waits")).await.0 == 503 {
                let _ = full.send(()).await;
            }
        }
    });
    let sdk_meanwhile = async {
        crate::harness::soon("a refusal", is_full.recv()).await;
        let step = send("text", &listener.token, "");
        let report = sdk.run(&place, vec![step]).await;
        disk.resume();
        report
    };
    let (_, report) = tokio::join!(futures_util::future::join_all(waiting), sdk_meanwhile);
    report.one(0).assert_refused(sdk.words.unavailable);
    assert_eq!(listener.messages(&place).await, [] as [Value; 0]);
}
