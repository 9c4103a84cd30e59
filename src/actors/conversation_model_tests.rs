//! A random conversation against a plain model of what the device may be shown, and the tables of
//! rules that are easier to read against that model than frame by frame.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::actors::subscription::WINDOW;
use crate::push::{MessageId, Push};
use crate::token::Key;

const NOW: Millis = 1_000_000;

fn keys() -> Keyring {
    let key = || Key::new(1, &[1; 32]).expect("32 bytes");
    Keyring::new(&[key()], vec![key()]).expect("keys")
}

fn greeting() -> Greeting {
    Greeting {
        session: "s".to_owned(),
        time: NOW,
        ping_interval_ms: 270_000,
    }
}

/// A device, and a store that holds a counter for each of its tokens.
struct World {
    keys: Keyring,
    device: DeviceId,
    secret: String,
    conversation: Conversation,
    tokens: Vec<Token>,
    /// What the store has answered to an opening that the conversation has not heard yet.
    answers: Option<Vec<Attached>>,
    reads: Vec<(TokenAddress, Page)>,
    detached: Vec<TokenId>,
    frames: Vec<Value>,
    closed: Option<CloseReason>,
}

struct Token {
    address: TokenAddress,
    text: String,
    stored: Syn,
    acked: Syn,
    /// Dropped up to here.
    dropped: Syn,
    has_ended: bool,
    /// The device holds it, by what it was told.
    is_held: bool,
    /// The last that this socket was shown, and all of them.
    last_shown: Syn,
    seen: BTreeSet<Syn>,
}

impl World {
    fn new(tokens: usize) -> Self {
        let keys = keys();
        let (device, secret) = keys.mint_device(0);
        let mut world = Self {
            keys,
            device,
            secret: secret.to_string(),
            conversation: Conversation::new(None),
            tokens: Vec::new(),
            answers: None,
            reads: Vec::new(),
            detached: Vec::new(),
            frames: Vec::new(),
            closed: None,
        };
        for _ in 0..tokens {
            world.mint(device);
        }
        world
    }

    fn mint(&mut self, device: DeviceId) {
        let address = TokenAddress::mint(device, ProjectHash::of("demo"), NOW);
        self.tokens.push(Token {
            address,
            text: self.keys.seal(address).to_text(),
            stored: 0,
            acked: 0,
            dropped: 0,
            has_ended: false,
            is_held: false,
            last_shown: 0,
            seen: BTreeSet::new(),
        });
    }

    fn text(&self, token: usize) -> String {
        self.tokens[token].text.clone()
    }

    fn token(&mut self, id: TokenId) -> &mut Token {
        let token = self.tokens.iter_mut().find(|token| token.address.id == id);
        token.expect("a token of this world")
    }

    fn say(&mut self, frame: &Value) {
        let actions = self.conversation.on_text(&frame.to_string(), &self.keys);
        self.perform(actions);
    }

    /// The hello of all these tokens, answered.
    fn hello(&mut self, tokens: &[Value]) -> Value {
        self.say(&json!({
            "type": "hello",
            "device_id": self.device.to_text(),
            "device_secret": self.secret,
            "tokens": tokens,
        }));
        self.answer();
        self.frames.remove(0)
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    self.hear(&frame);
                    self.frames.push(frame);
                }
                Action::Attach { tokens, .. } => {
                    let answers = tokens.into_iter().map(|(address, min_syn)| {
                        let token = self.token(address.id);
                        token.acknowledge(min_syn.saturating_sub(1));
                        Ok(token.contact())
                    });
                    let answers = answers.collect();
                    assert!(
                        self.answers.replace(answers).is_none(),
                        "one opening at a time"
                    );
                }
                Action::Read {
                    address,
                    after,
                    limit,
                } => {
                    let page = self.token(address.id).page(after, limit);
                    self.reads.push((address, page));
                }
                Action::Ack(address, syn) => {
                    let token = self.token(address.id);
                    token.acknowledge(syn);
                    let acked = token.acked;
                    self.conversation.acked(address.id, acked);
                }
                Action::Detach(id) => self.detached.push(id),
                Action::Delivered { .. } => {}
                Action::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    /// What the device makes of a frame, and what may never be in one.
    fn hear(&mut self, frame: &Value) {
        let is_welcome = frame["type"] == "welcome";
        let is_first = self.frames.is_empty() && self.tokens.iter().all(|it| it.last_shown == 0);
        assert!(!is_welcome || is_first, "the welcome is the first frame");
        match frame["type"].as_str() {
            Some("welcome") => {
                for state in frame["tokens"].as_array().expect("states") {
                    self.begin(state);
                }
            }
            Some("subscribed") => self.begin(frame),
            Some("unregistered") => self.named(frame).is_held = false,
            Some("push") => self.named(frame).see(frame["syn"].as_u64().expect("a syn")),
            _ => {}
        }
    }

    fn begin(&mut self, state: &Value) {
        if let Some(token) = self.tokens.iter_mut().find(|it| state["token"] == it.text) {
            token.is_held = state["error"].is_null();
        }
    }

    fn named(&mut self, frame: &Value) -> &mut Token {
        let token = self.tokens.iter_mut().find(|it| frame["token"] == it.text);
        token.expect("a token of this device")
    }

    fn answer(&mut self) {
        if let Some(answers) = self.answers.take() {
            let attachment = Attachment { epoch: 1, answers };
            let actions = self
                .conversation
                .attached(attachment, greeting(), &self.keys);
            self.perform(actions);
        }
    }

    fn page(&mut self) {
        if !self.reads.is_empty() {
            let (address, page) = self.reads.remove(0);
            let actions = self.conversation.page(address.id, page, NOW, &self.keys);
            self.perform(actions);
        }
    }

    fn settle(&mut self, token: usize, is_heard: bool) {
        let token = &mut self.tokens[token];
        token.stored += 1;
        let delivery = Delivery {
            address: token.address,
            prev_syn: token.stored - 1,
            syn_stored: token.stored,
            deleted_up_to: None,
            push: Arc::new(push(token.stored)),
        };
        let id = token.address.id;
        if is_heard {
            let actions = self
                .conversation
                .on_delivery(&delivery, true, NOW, &self.keys);
            self.perform(actions);
        } else {
            self.conversation.on_behind(id);
        }
    }

    fn end(&mut self, token: usize) {
        let token = &mut self.tokens[token];
        token.has_ended = true;
        let id = token.address.id;
        let actions = self.conversation.on_ended(id, &self.keys);
        self.perform(actions);
    }

    fn look(&mut self) {
        let wanted = self.conversation.wanted(true);
        self.perform(wanted);
    }
}

impl Token {
    fn acknowledge(&mut self, up_to: Syn) {
        self.acked = self.acked.max(up_to.min(self.stored));
    }

    fn contact(&self) -> Contact {
        if self.has_ended {
            return Contact::Unregistered;
        }
        Contact::Live {
            syn_stored: self.stored,
            acked: self.acked,
            deleted_up_to: None,
        }
    }

    fn page(&self, after: Syn, limit: usize) -> Page {
        let last = if self.has_ended { 0 } else { self.stored };
        let syns = after.max(self.acked) + 1..=last;
        let pushes: Vec<Push> = syns.take(limit).map(push).collect();
        let read_up_to = pushes.last().map_or(last.max(after), |push| push.syn);
        Page {
            more: read_up_to < last,
            pushes,
            read_up_to,
            syn_stored: last,
            deleted_up_to: None,
        }
    }

    fn see(&mut self, syn: Syn) {
        assert!(
            self.is_held,
            "a push of a token that the device does not hold"
        );
        assert!(syn > self.last_shown, "{syn} after {}", self.last_shown);
        assert!(syn <= self.stored);
        let mut before = self.acked.max(self.dropped) + 1..syn;
        assert!(
            before.all(|it| self.seen.contains(&it)),
            "a hole before {syn}"
        );
        self.last_shown = syn;
        self.seen.insert(syn);
        let in_flight = self.seen.range(self.acked + 1..).count();
        assert!(in_flight <= WINDOW, "{in_flight} are in flight");
    }
}

fn push(syn: Syn) -> Push {
    Push {
        syn,
        message_id: MessageId::from_bytes([0; 16]),
        accepted_at: NOW,
        expires_at: NOW + 60_000,
        message: Bytes::from_static(b"{}"),
    }
}

fn is_rules_broken(reason: Option<&CloseReason>) -> bool {
    matches!(reason, Some(CloseReason::RulesBroken(_)))
}

#[test]
fn broken_frames_close_before_and_after_hello() {
    let broken = [
        "",
        "{",
        "[]",
        "7",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"hello","tokens":7}"#,
    ];
    let after = [
        r#"{"type":"ack","token":"x"}"#,
        r#"{"type":"ack","token":"x","syn":-1}"#,
        r#"{"type":"ack","token":"x","syn":"1"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","token":"x","min_syn":9007199254740992}"#,
        r#"{"type":"unsubscribe","token":7}"#,
    ];
    for (text, is_greeted) in broken
        .iter()
        .map(|it| (it, false))
        .chain(after.iter().map(|it| (it, true)))
    {
        let mut world = World::new(0);
        if is_greeted {
            world.hello(&[]);
        }
        let actions = world.conversation.on_text(text, &world.keys);
        world.perform(actions);
        assert!(is_rules_broken(world.closed.as_ref()), "{text}");
    }
}

#[test]
fn the_credential_is_the_headers_or_the_hellos_and_they_must_agree() {
    let keys = keys();
    let (device, secret) = keys.mint_device(0);
    let (other, other_secret) = keys.mint_device(0);
    let (id, other_id) = (device.to_text(), other.to_text());
    let cases = [
        (None, json!({}), false),
        (None, json!({"device_id": id}), false),
        (None, json!({"device_secret": *secret}), false),
        (
            None,
            json!({"device_id": id, "device_secret": *other_secret}),
            false,
        ),
        (
            None,
            json!({"device_id": "no id", "device_secret": *secret}),
            false,
        ),
        (
            None,
            json!({"device_id": id, "device_secret": *secret}),
            true,
        ),
        (Some(device), json!({}), true),
        (Some(device), json!({"device_id": id}), true),
        (
            Some(device),
            json!({"device_id": id, "device_secret": *secret}),
            true,
        ),
        (Some(device), json!({"device_id": other_id}), false),
        (Some(device), json!({"device_secret": *secret}), false),
        (
            Some(device),
            json!({"device_id": id, "device_secret": *other_secret}),
            false,
        ),
        (
            Some(device),
            json!({"device_id": other_id, "device_secret": *other_secret}),
            false,
        ),
    ];
    for (header, mut hello, is_good) in cases {
        hello["type"] = "hello".into();
        let mut conversation = Conversation::new(header);
        let actions = conversation.on_text(&hello.to_string(), &keys);
        if is_good {
            let claim = Right::Claim(device);
            assert!(
                matches!(&actions[..], [Action::Attach { right, .. }] if *right == claim),
                "{hello}"
            );
            assert_eq!(conversation.device(), Some(device));
        } else {
            assert!(
                matches!(
                    &actions[..],
                    [Action::Close(CloseReason::CredentialRefused)]
                ),
                "{hello}"
            );
            assert_eq!(conversation.device(), None);
        }
    }
}

#[test]
fn each_token_of_a_hello_has_its_answer_in_order() {
    let mut world = World::new(3);
    let (stranger, _) = world.keys.mint_device(0);
    world.mint(stranger);
    world.tokens[1].has_ended = true;
    world.tokens[2].stored = 2;
    let [live, dead, again, foreign] = [0, 1, 2, 3].map(|token| world.text(token));
    let asked = [
        &live,
        &dead,
        &foreign,
        &"garbage".to_owned(),
        &again,
        &again,
    ];
    let welcome = world.hello(&asked.map(|token| json!({"token": token})));
    let expected = json!([
        {"token": live, "syn_stored": 0},
        {"token": dead, "error": "UNREGISTERED"},
        {"token": foreign, "error": "PERMISSION_DENIED"},
        {"token": "garbage", "error": "INVALID_ARGUMENT"},
        {"token": again, "syn_stored": 2},
        {"token": again, "syn_stored": 2},
    ]);
    assert_eq!(welcome["tokens"], expected);
    assert_eq!(
        world.conversation.tokens().count(),
        2,
        "named twice, held once"
    );
    world.look();
    world.page();
    let syns: Vec<_> = world
        .frames
        .iter()
        .map(|frame| frame["syn"].as_u64())
        .collect();
    assert_eq!(syns, [Some(1), Some(2)], "and shown once");
    // Nothing that another device owns is attached, read or acknowledged.
    world.say(&json!({"type": "ack", "token": foreign, "syn": 1}));
    world.say(&json!({"type": "unsubscribe", "token": foreign}));
    world.say(&json!({"type": "unsubscribe", "token": "garbage"}));
    assert_eq!(
        world.detached,
        [world.tokens[1].address.id],
        "only the dead one was let go"
    );
    assert_eq!(world.closed, None);
}

#[test]
fn the_end_of_a_token_is_told_once_and_never_before_the_welcome() {
    let mut world = World::new(2);
    let (early, late) = (world.text(0), world.text(1));
    world.say(&json!({
        "type": "hello",
        "device_id": world.device.to_text(),
        "device_secret": world.secret,
        "tokens": [{"token": early}, {"token": late}],
    }));
    world.end(0);
    assert!(world.frames.is_empty());
    world.answer();
    let states = json!([
        {"token": early, "error": "UNREGISTERED"},
        {"token": late, "syn_stored": 0},
    ]);
    assert_eq!(world.frames.remove(0)["tokens"], states);
    world.end(1);
    world.end(1);
    assert_eq!(
        world.frames,
        [json!({"type": "unregistered", "token": late})]
    );
    assert_eq!(world.conversation.tokens().count(), 0);
}

#[test]
fn drops_are_told_after_the_welcome_and_before_what_follows_them() {
    let mut world = World::new(1);
    let token = world.text(0);
    world.say(&json!({
        "type": "hello",
        "device_id": world.device.to_text(),
        "device_secret": world.secret,
        "tokens": [{"token": token}],
    }));
    world.tokens[0].stored = 9;
    let address = world.tokens[0].address;
    let delivery = Delivery {
        address,
        prev_syn: 8,
        syn_stored: 9,
        deleted_up_to: Some(4),
        push: Arc::new(push(9)),
    };
    let actions = world
        .conversation
        .on_delivery(&delivery, true, NOW, &world.keys);
    assert!(actions.is_empty(), "nothing goes before the welcome");
    world.answer();
    world.look();
    let (_, mut page) = world.reads.remove(0);
    page.deleted_up_to = Some(4);
    world.tokens[0].dropped = 4;
    page.pushes.retain(|push| push.syn > 4);
    world.reads.push((address, page));
    world.page();
    let deleted = json!({"type": "deleted", "token": token, "up_to_syn": 4});
    assert_eq!(world.frames[1], deleted);
    assert_eq!(world.frames[2]["syn"], 5);
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(usize, Syn),
    Unsubscribe(usize),
    Ack(usize, Syn),
    Answer,
    Look,
    Page,
    Settle(usize, bool),
    Burst(usize),
    End(usize),
}

const TOKENS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let token = || 0..TOKENS;
    prop_oneof![
        2 => (token(), 0..20_u64).prop_map(|(token, min_syn)| Step::Subscribe(token, min_syn)),
        1 => token().prop_map(Step::Unsubscribe),
        3 => (token(), 0..120_u64).prop_map(|(token, syn)| Step::Ack(token, syn)),
        3 => Just(Step::Answer),
        3 => Just(Step::Look),
        3 => Just(Step::Page),
        8 => (token(), any::<bool>()).prop_map(|(token, heard)| Step::Settle(token, heard)),
        1 => token().prop_map(Step::Burst),
        1 => (0..TOKENS * 4).prop_map(Step::End),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        // While an opening waits for the store, no frame of the device is read.
        let can_speak = !self.conversation.is_opening();
        match *step {
            Step::Subscribe(token, min_syn) if can_speak => {
                let token = self.text(token);
                self.say(&json!({"type": "subscribe", "token": token, "min_syn": min_syn}));
            }
            Step::Unsubscribe(token) if can_speak => {
                self.tokens[token].is_held = false;
                let token = self.text(token);
                self.say(&json!({"type": "unsubscribe", "token": token}));
            }
            Step::Ack(token, syn) if can_speak => {
                // A device acknowledges what it was shown.
                let syn = syn.min(self.tokens[token].last_shown);
                let token = self.text(token);
                self.say(&json!({"type": "ack", "token": token, "syn": syn}));
            }
            Step::Answer => self.answer(),
            Step::Look => self.look(),
            Step::Page => self.page(),
            Step::Settle(token, is_heard) => self.settle(token, is_heard),
            Step::Burst(token) => (0..80).for_each(|_| self.settle(token, true)),
            Step::End(token) if token < TOKENS => self.end(token),
            _ => {}
        }
    }

    /// The network heals, and the device reads and acknowledges until nothing comes any more.
    fn heal(&mut self) {
        self.answer();
        for _ in 0..20 {
            while !self.reads.is_empty() {
                self.page();
            }
            for token in 0..TOKENS {
                let (text, syn) = (self.text(token), self.tokens[token].last_shown);
                self.say(&json!({"type": "ack", "token": text, "syn": syn}));
            }
            self.conversation.on_all_behind();
            self.look();
        }
        while !self.reads.is_empty() {
            self.page();
        }
    }
}

proptest! {
    #[test]
    fn a_device_is_shown_everything_it_holds_in_order_and_nothing_else(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(TOKENS);
        world.hello(&[json!({"token": world.text(0)}), json!({"token": world.text(1)})]);
        for step in &steps {
            world.take(step);
        }
        world.heal();
        prop_assert_eq!(&world.closed, &None);
        let held: Vec<TokenId> = world.conversation.tokens().map(|address| address.id).collect();
        for token in &world.tokens {
            prop_assert_eq!(held.contains(&token.address.id), token.is_held);
            prop_assert!(!(token.is_held && token.has_ended));
            if token.is_held {
                prop_assert_eq!(token.acked, token.stored, "shown up to the end, and acknowledged");
            }
        }
        prop_assert!(world.conversation.is_quiet());
    }
}
