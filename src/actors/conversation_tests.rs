//! The rules of the device socket, frame by frame: who may speak when, to what, and what is said
//! back.

use std::sync::Arc;

use bytes::Bytes;
use herald_protocol::CloseCode;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::hostile_tests::{changed_text, changes};
use crate::push::{MessageId, Push};
use crate::store::StoreError;
use crate::token::Key;

const NOW: Millis = 1_000_000;

/// A node's keys, with one device of it.
struct Stage {
    keys: Keyring,
    device: DeviceId,
    secret: String,
}

impl Stage {
    fn new() -> Self {
        let key = || Key::new(1, &[1; 32]).expect("32 bytes");
        let keys = Keyring::new(&[key()], vec![key()]).expect("keys");
        let (device, secret) = keys.mint_device(0);
        let secret = secret.to_string();
        Self {
            keys,
            device,
            secret,
        }
    }

    /// A token of `device`, and its text.
    fn token_of(&self, device: DeviceId) -> (TokenAddress, String) {
        let address = TokenAddress::mint(device, ProjectHash::of("demo"), NOW);
        (address, self.keys.seal(address).to_text())
    }

    fn token(&self) -> (TokenAddress, String) {
        self.token_of(self.device)
    }

    fn hello(&self, tokens: &[&str]) -> Value {
        let tokens: Vec<_> = tokens.iter().map(|token| json!({"token": token})).collect();
        json!({
            "type": "hello", "device_id": self.device.to_text(), "device_secret": self.secret,
            "tokens": tokens,
        })
    }

    fn say(&self, conversation: &mut Conversation, frame: &Value) -> Vec<Action> {
        conversation.on_text(&frame.to_string(), &self.keys)
    }

    /// A session that was greeted and holds these tokens, all of them live and empty.
    fn greeted(&self, tokens: &[&str]) -> Conversation {
        let mut conversation = Conversation::new(None);
        self.say(&mut conversation, &self.hello(tokens));
        let answers = vec![Ok(live(0)); tokens.len()];
        conversation.attached(attachment(answers), greeting(), &self.keys);
        conversation
    }
}

fn live(syn_stored: Syn) -> Contact {
    Contact::Live {
        syn_stored,
        acked: 0,
        deleted_up_to: None,
    }
}

fn attachment(answers: Vec<Attached>) -> Attachment {
    Attachment {
        epoch: Epoch::default(),
        answers,
    }
}

fn greeting() -> Greeting {
    Greeting {
        session: "s".to_owned(),
        time: NOW,
        ping_interval_ms: 270_000,
    }
}

fn delivery(address: TokenAddress, syn: Syn) -> Delivery {
    Delivery {
        address,
        prev_syn: syn - 1,
        syn_stored: syn,
        deleted_up_to: None,
        push: Arc::new(Push {
            syn,
            message_id: MessageId::from_bytes([7; 16]),
            accepted_at: NOW,
            expires_at: NOW + 60_000,
            message: Bytes::from_static(b"{\"data\":{}}"),
        }),
    }
}

/// The frames among the actions.
fn frames(actions: &[Action]) -> Vec<Value> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(text) => Some(serde_json::from_str(text).expect("a frame of JSON")),
            _ => None,
        })
        .collect()
}

#[track_caller]
fn assert_closes(actions: &[Action], code: CloseCode) {
    match actions {
        [Action::Close(reason)] => assert_eq!(reason.code(), Some(code)),
        other => panic!("no close: {other:?}"),
    }
}

#[test]
fn a_hello_is_answered_token_by_token_in_its_order() {
    let stage = Stage::new();
    let (_, first) = stage.token();
    let (_, alien) = stage.token_of(DeviceId([9; 16]));
    let (_, dead) = stage.token();
    let (_, away) = stage.token();
    let mut conversation = Conversation::new(None);
    let hello = stage.hello(&[&first, &alien, &dead, "nonsense", &away]);
    let asked = stage.say(&mut conversation, &hello);
    let [Action::Attach { right, tokens }] = asked.as_slice() else {
        panic!("nothing asked: {asked:?}");
    };
    assert_eq!(*right, Right::Claim(stage.device));
    assert_eq!(tokens.len(), 3, "only its own tokens are asked for");
    assert!(conversation.is_opening() && !conversation.is_quiet());
    let answers = vec![
        Ok(live(5)),
        Ok(Contact::Unregistered),
        Err(StoreError::Unavailable("a test")),
    ];
    let welcome = frames(&conversation.attached(attachment(answers), greeting(), &stage.keys));
    assert_eq!(
        welcome,
        [json!({
            "type": "welcome", "session": "s", "time": NOW, "ping_interval_ms": 270_000,
            "tokens": [
                {"token": first, "syn_stored": 5},
                {"token": alien, "error": "PERMISSION_DENIED"},
                {"token": dead, "error": "UNREGISTERED"},
                {"token": "nonsense", "error": "INVALID_ARGUMENT"},
                {"token": away, "error": "UNAVAILABLE"},
            ],
        })]
    );
    assert_eq!(conversation.tokens().count(), 1, "the others are forgotten");
}

#[test]
fn a_wrong_credential_is_refused() {
    let stage = Stage::new();
    let (other, other_secret) = stage.keys.mint_device(0);
    let mut wrong = stage.hello(&[]);
    wrong["device_secret"] = json!(*other_secret);
    let mut half = stage.hello(&[]);
    half["device_id"] = Value::Null;
    for hello in [wrong, half, json!({"type": "hello"})] {
        let mut conversation = Conversation::new(None);
        let refused = stage.say(&mut conversation, &hello);
        assert_closes(&refused, CloseCode::CredentialRefused);
        assert!(!conversation.is_greeted());
    }
    let mut of_another = Conversation::new(Some(other));
    let refused = stage.say(&mut of_another, &stage.hello(&[]));
    assert_closes(&refused, CloseCode::CredentialRefused);
}

#[test]
fn the_header_of_the_upgrade_is_a_credential_too() {
    let stage = Stage::new();
    let id_only = json!({"type": "hello", "device_id": stage.device.to_text()});
    for hello in [json!({"type": "hello"}), stage.hello(&[]), id_only] {
        let mut conversation = Conversation::new(Some(stage.device));
        assert_eq!(conversation.device(), None, "not before its hello");
        stage.say(&mut conversation, &hello);
        assert_eq!(conversation.device(), Some(stage.device), "{hello}");
    }
}

#[test]
fn frames_out_of_turn_break_the_rules() {
    let stage = Stage::new();
    let (_, token) = stage.token();
    for frame in [
        json!({"type": "ping"}),
        json!({"type": "ack", "token": token, "syn": 1}),
        json!({"type": "subscribe", "token": token}),
    ] {
        let answer = stage.say(&mut Conversation::new(None), &frame);
        assert_closes(&answer, CloseCode::RulesBroken);
    }
    let mut greeted = stage.greeted(&[]);
    for text in [
        stage.hello(&[]).to_string(),
        json!({"type": "ack", "token": token, "syn": -1}).to_string(),
        "{}".to_owned(),
        "not JSON".to_owned(),
    ] {
        let answer = greeted.on_text(&text, &stage.keys);
        assert_closes(&answer, CloseCode::RulesBroken);
    }
    let unknown = json!({"type": "dance", "partner": true});
    assert!(stage.say(&mut greeted, &unknown).is_empty(), "ignored");
    let pong = stage.say(&mut greeted, &json!({"type": "ping"}));
    assert_eq!(frames(&pong), [json!({"type": "pong"})]);
}

#[test]
fn a_session_has_a_hundred_tokens_at_most() {
    let stage = Stage::new();
    let texts: Vec<String> = (0..=TOKENS_MAX).map(|_| stage.token().1).collect();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let too_many = stage.say(&mut Conversation::new(None), &stage.hello(&all));
    assert_closes(&too_many, CloseCode::RulesBroken);
    let (last, most) = all.split_last().expect("more than one");
    let mut full = stage.greeted(most);
    stage.say(&mut full, &json!({"type": "subscribe", "token": last}));
    assert_eq!(
        frames(&full.attached(attachment(Vec::new()), greeting(), &stage.keys)),
        [json!({"type": "subscribed", "token": last, "error": "RESOURCE_EXHAUSTED"})]
    );
    let again = json!({"type": "subscribe", "token": most[0]});
    stage.say(&mut full, &again);
    let answer = frames(&full.attached(attachment(vec![Ok(live(3))]), greeting(), &stage.keys));
    assert_eq!(answer[0]["syn_stored"], 3, "a token it holds needs no room");
}

#[test]
fn an_ack_bites_only_on_a_token_of_its_own_device() {
    let stage = Stage::new();
    let (own, own_text) = stage.token();
    let (_, alien_text) = stage.token_of(DeviceId([9; 16]));
    let mut conversation = stage.greeted(&[]);
    let mut ack = |token: &str| {
        let frame = json!({"type": "ack", "token": token, "syn": 4});
        stage.say(&mut conversation, &frame)
    };
    let taken = ack(&own_text);
    assert!(
        matches!(taken.as_slice(), [Action::Ack(address, 4)] if *address == own),
        "{taken:?}"
    );
    assert!(ack(&alien_text).is_empty() && ack("nonsense").is_empty());
}

#[test]
fn a_push_is_shown_under_the_name_that_the_device_used() {
    let stage = Stage::new();
    let (address, token) = stage.token();
    let mut conversation = stage.greeted(&[&token]);
    let shown = conversation.on_delivery(&delivery(address, 1), true, NOW, &stage.keys);
    assert_eq!(
        frames(&shown),
        [json!({
            "type": "push", "token": token, "syn": 1, "time": NOW, "message": {"data": {}},
            "message_id": MessageId::from_bytes([7; 16]).to_string(),
        })]
    );
    let (stranger, _) = stage.token();
    let nothing = conversation.on_delivery(&delivery(stranger, 1), true, NOW, &stage.keys);
    assert!(nothing.is_empty(), "a token that the session does not hold");
}

#[test]
fn what_unsubscribes_or_ends_is_no_longer_shown() {
    let stage = Stage::new();
    let ((first, first_text), (second, second_text)) = (stage.token(), stage.token());
    let mut conversation = stage.greeted(&[&first_text, &second_text]);
    let unsubscribe = json!({"type": "unsubscribe", "token": first_text});
    let left = stage.say(&mut conversation, &unsubscribe);
    assert!(
        matches!(left.as_slice(), [Action::Detach(id)] if *id == first.id),
        "{left:?}"
    );
    assert!(stage.say(&mut conversation, &unsubscribe).is_empty());
    assert_eq!(conversation.tokens_of(ProjectHash::of("demo")), [second.id]);
    assert_eq!(
        frames(&conversation.on_ended(second.id, &stage.keys)),
        [json!({"type": "unregistered", "token": second_text})]
    );
    assert!(
        conversation.on_ended(second.id, &stage.keys).is_empty(),
        "said once"
    );
    for address in [first, second] {
        let shown = conversation.on_delivery(&delivery(address, 1), true, NOW, &stage.keys);
        assert!(shown.is_empty());
    }
}

#[test]
fn a_session_without_room_reads_later_and_is_not_quiet() {
    let stage = Stage::new();
    let (address, token) = stage.token();
    let mut conversation = stage.greeted(&[&token]);
    assert!(conversation.is_quiet());
    let shown = conversation.on_delivery(&delivery(address, 1), false, NOW, &stage.keys);
    assert!(shown.is_empty() && !conversation.is_quiet());
    assert!(conversation.wanted(false).is_empty());
    let wanted = conversation.wanted(true);
    assert!(
        matches!(wanted.as_slice(), [Action::Read { after: 0, .. }]),
        "{wanted:?}"
    );
}

// --- Any text at all -------------------------------------------------------------------------

/// What a device says whose token this is, before somebody changes it.
fn sayings(stage: &Stage, token: &str) -> Vec<Value> {
    vec![
        stage.hello(&[token, token]),
        json!({"type": "hello", "device_id": stage.device.to_text(), "tokens": []}),
        json!({"type": "subscribe", "token": token, "min_syn": 17}),
        json!({"type": "unsubscribe", "token": token}),
        json!({"type": "ack", "token": token, "syn": 9_007_199_254_740_991_u64}),
        json!({"type": "ping"}),
        json!({"type": "novel", "token": {"a": [1, null, 1e300, "\u{1f600}"]}}),
    ]
}

/// Whatever was said: nothing is done but for the device itself, in words that it can read.
fn assert_modest(stage: &Stage, actions: &[Action]) {
    for action in actions {
        match action {
            Action::Attach { right, tokens } => {
                let is_own = |(address, _): &(TokenAddress, Syn)| address.device == stage.device;
                assert!(tokens.iter().all(is_own), "{tokens:?}");
                if let Right::Claim(device) = right {
                    assert_eq!(*device, stage.device);
                }
            }
            // Of any number: one beyond all acknowledges what is settled.
            Action::Ack(address, _) => assert_eq!(address.device, stage.device),
            Action::Send(text) => drop(serde_json::from_str::<Value>(text).expect("JSON")),
            Action::Close(reason) => {
                let code = reason.code().expect("a code");
                assert!([CloseCode::RulesBroken, CloseCode::CredentialRefused].contains(&code));
            }
            Action::Detach(_) => {}
            other => panic!("nothing was shown or read: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn a_stranger_gets_nowhere(
        text in "\\PC{0,80}|\\{\"type\":\"(hello|subscribe|ack|ping)\"[\\[\\]{}\",:a-z0-9]{0,40}\\}?",
    ) {
        let stage = Stage::new();
        let mut conversation = Conversation::new(None);
        let actions = conversation.on_text(&text, &stage.keys);
        let is_closed = matches!(actions.as_slice(), [Action::Close(_)]);
        prop_assert!(is_closed, "{:?}", actions);
        assert_modest(&stage, &actions);
        prop_assert_eq!(conversation.device(), None);
    }

    #[test]
    fn changed_frames_do_nothing_for_others(
        which in 0..7_usize,
        changes in changes(),
        is_own in any::<bool>(),
        is_greeted in any::<bool>(),
    ) {
        let stage = Stage::new();
        let (_, own) = stage.token();
        let (_, alien) = stage.token_of(DeviceId([9; 16]));
        let mut conversation = match is_greeted {
            true => stage.greeted(&[&own]),
            false => Conversation::new(None),
        };
        let token = if is_own { &own } else { &alien };
        let text = changed_text(&sayings(&stage, token)[which].to_string(), &changes);
        let actions = conversation.on_text(&text, &stage.keys);
        assert_modest(&stage, &actions);
        let is_modest = is_greeted || matches!(actions[0], Action::Close(_) | Action::Attach { .. });
        prop_assert!(is_modest, "{:?}", actions);
    }
}
