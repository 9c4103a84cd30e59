//! What a device and the server say to each other: the pure half of Session. It has no socket, no
//! clock and no store; it takes what happened and answers with what to do.

use herald_protocol::{DeviceFrame, Hello, ServerFrame, TokenCursor};
use thin_vec::ThinVec;

use crate::actors::action::{Action, Attached, Attachment, Right};
use crate::actors::close_reason::CloseReason;
use crate::actors::opening::{Greeting, Opening};
use crate::actors::showing::{show, show_all};
use crate::actors::subscription::Subscription;
use crate::clock::Millis;
use crate::push::{Delivery, Syn};
use crate::store::region::Epoch;
use crate::store::{Contact, Page};
use crate::token::{DeviceId, Keyring, ProjectHash, TokenAddress, TokenError, TokenId};

/// Tokens of one session, hello and subscribe together.
pub const TOKENS_MAX: usize = 100;

/// How finely a session remembers when its tokens were last said to be in use.
const CONTACT_TICK_MS: u64 = 100;

/// A device's side of one session.
#[derive(Debug, Default)]
pub struct Conversation {
    /// Known from the upgrade's header or from hello.
    device: Option<DeviceId>,
    greeted: bool,
    /// When its tokens were last said to be in use, in [`CONTACT_TICK_MS`] of the caller's clock.
    contacted: u32,
    epoch: Epoch,
    subscriptions: ThinVec<Subscription>,
    opening: Option<Box<Opening>>,
}

impl Conversation {
    /// A new session; `device` when the upgrade carried a credential.
    #[must_use]
    pub fn new(device: Option<DeviceId>) -> Self {
        Self {
            device,
            ..Self::default()
        }
    }

    /// Whether hello was taken.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// The device, once it has proven who it is.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        self.device.filter(|_| self.greeted)
    }

    /// The tokens of this session.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenAddress> {
        let wanted = self.subscriptions.iter().filter(|it| it.is_wanted());
        wanted.map(|subscription| &subscription.address)
    }

    /// Those of its tokens that belong to a project.
    #[must_use]
    pub fn tokens_of(&self, project: ProjectHash) -> Vec<TokenId> {
        self.tokens()
            .filter(|address| address.project == project)
            .map(|address| address.id)
            .collect()
    }

    /// The device was heard at `now_ms`: its tokens that the store should hear of again, because it
    /// last did so `every_ms` ago, and the claim they are held by. A session may live longer than a
    /// token that nobody asks for.
    pub fn due_for_contact(&mut self, now_ms: u64, every_ms: u64) -> (Vec<TokenAddress>, Epoch) {
        let tick = |ms: u64| u32::try_from(ms / CONTACT_TICK_MS).unwrap_or(u32::MAX);
        let age = tick(now_ms).saturating_sub(self.contacted);
        if !self.greeted || self.opening.is_some() || age < tick(every_ms).max(1) {
            return (Vec::new(), self.epoch);
        }
        self.contacted = tick(now_ms);
        (self.tokens().copied().collect(), self.epoch)
    }

    /// A hello was answered: the store has just heard of its tokens.
    pub fn note_contact(&mut self, now_ms: u64) {
        self.contacted = u32::try_from(now_ms / CONTACT_TICK_MS).unwrap_or(u32::MAX);
    }

    /// While a hello or subscribe waits for the store, further frames must wait too.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// Nothing is being waited for, so the session may park.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.greeted
            && self.opening.is_none()
            && self
                .subscriptions
                .iter()
                .all(|subscription| subscription.is_quiet())
    }

    /// A text message came.
    pub fn on_text(&mut self, text: &str, keys: &Keyring) -> Vec<Action> {
        let frame = match DeviceFrame::parse(text) {
            Ok(frame) => frame,
            Err(error) => return close(CloseReason::RulesBroken(error.to_string())),
        };
        match frame {
            DeviceFrame::Hello(hello) if !self.greeted => self.on_hello(hello, keys),
            DeviceFrame::Hello(_) => broken("a session has one hello"),
            _ if !self.greeted => broken("the first frame must be a hello"),
            DeviceFrame::Subscribe(cursor) => self.on_subscribe(cursor, keys),
            DeviceFrame::Unsubscribe { token } => self.on_unsubscribe(&token, keys),
            DeviceFrame::Ack { token, syn } => self.on_ack(&token, syn, keys),
            DeviceFrame::Ping => vec![Action::Send(ServerFrame::Pong.to_text())],
            DeviceFrame::Unknown => Vec::new(),
        }
    }

    fn on_hello(&mut self, hello: Hello, keys: &Keyring) -> Vec<Action> {
        let Some(device) = self.authenticate(&hello, keys) else {
            return close(CloseReason::CredentialRefused);
        };
        if hello.tokens.len() > TOKENS_MAX {
            return broken("a session has at most 100 tokens");
        }
        self.device = Some(device);
        self.greeted = true;
        self.open(Right::Claim(device), hello.tokens, keys)
    }

    /// The credential is the header's or the hello's; if both came they must agree.
    fn authenticate(&self, hello: &Hello, keys: &Keyring) -> Option<DeviceId> {
        match (&hello.device_id, &hello.device_secret) {
            (None, None) => self.device,
            (Some(id), Some(secret)) => {
                let device = keys.check_device(id, secret)?;
                self.device
                    .is_none_or(|header| header == device)
                    .then_some(device)
            }
            // The id alone may repeat what the header has proven.
            (Some(id), None) => self.device.filter(|device| device.to_text() == *id),
            (None, Some(_)) => None,
        }
    }

    fn on_subscribe(&mut self, cursor: TokenCursor, keys: &Keyring) -> Vec<Action> {
        self.open(Right::Held(self.epoch), vec![cursor], keys)
    }

    /// Asks for what the store knows of these tokens.
    fn open(&mut self, right: Right, cursors: Vec<TokenCursor>, keys: &Keyring) -> Vec<Action> {
        let mut tokens = Vec::with_capacity(cursors.len());
        let mut opening = Opening::new(matches!(right, Right::Claim(_)));
        for TokenCursor {
            token: text,
            min_syn,
        } in cursors
        {
            let asked = self.enlist(&text, keys).map(|address| {
                tokens.push((address, min_syn));
                address.id
            });
            opening.add(text, asked);
        }
        self.opening = Some(Box::new(opening));
        vec![Action::Attach { right, tokens }]
    }

    /// Makes room for a token, before its router hears of it: a push that is settled from then on
    /// finds the subscription here.
    fn enlist(&mut self, text: &str, keys: &Keyring) -> Result<TokenAddress, &'static str> {
        let (address, seal) = keys.open_text(text).map_err(|error| match error {
            TokenError::Malformed => "INVALID_ARGUMENT",
            TokenError::KeyGone => "UNREGISTERED",
        })?;
        if Some(address.device) != self.device {
            return Err("PERMISSION_DENIED");
        }
        if let Some(subscription) = self.find(address.id) {
            subscription.put_back();
            return Ok(address);
        }
        if self.subscriptions.len() >= TOKENS_MAX {
            self.make_room().ok_or("RESOURCE_EXHAUSTED")?;
        }
        // One more and not twice as many: most devices have few tokens, and keep them for long.
        self.subscriptions.reserve_exact(1);
        self.subscriptions.push(Subscription::new(address, seal));
        Ok(address)
    }

    /// Gives up what was remembered of a token that the device has taken off.
    fn make_room(&mut self) -> Option<()> {
        let mut subscriptions = self.subscriptions.iter();
        let forgettable = subscriptions.position(|it| it.may_be_forgotten())?;
        self.subscriptions.remove(forgettable);
        Some(())
    }

    fn on_unsubscribe(&mut self, text: &str, keys: &Keyring) -> Vec<Action> {
        let Ok((address, _)) = keys.open_text(text) else {
            return Vec::new();
        };
        self.take_off(address.id).into_iter().collect()
    }

    /// Stops showing a token, and tells its router so.
    fn take_off(&mut self, token: TokenId) -> Option<Action> {
        let subscription = self.find(token).filter(|it| it.is_wanted())?;
        subscription.take_off();
        Some(Action::Detach(token))
    }

    /// An ack needs no subscription, but it bites only on tokens of this device.
    fn on_ack(&mut self, text: &str, syn: Syn, keys: &Keyring) -> Vec<Action> {
        match keys.open_text(text) {
            Ok((address, _)) if Some(address.device) == self.device => {
                vec![Action::Ack(address, syn)]
            }
            _ => Vec::new(),
        }
    }

    /// The answer to [`Action::Attach`].
    pub fn attached(
        &mut self,
        attachment: Attachment,
        greeting: Greeting,
        keys: &Keyring,
    ) -> Vec<Action> {
        let Some(opening) = self.opening.take() else {
            return Vec::new();
        };
        self.epoch = attachment.epoch;
        let mut afterwards = Vec::new();
        let frames = opening.answer(attachment.answers, greeting, |token, answer| {
            self.take_answer(token, answer, keys, &mut afterwards)
        });
        let mut actions: Vec<Action> = frames
            .iter()
            .map(|frame| Action::Send(frame.to_text()))
            .collect();
        actions.append(&mut afterwards);
        actions
    }

    fn take_answer(
        &mut self,
        token: TokenId,
        answer: Attached,
        keys: &Keyring,
        afterwards: &mut Vec<Action>,
    ) -> Result<Syn, &'static str> {
        let status = match answer {
            Ok(Contact::Live {
                syn_stored,
                acked,
                deleted_up_to,
            }) => {
                // Named twice, and the store had no answer the first time.
                let wanted = self.find(token).filter(|it| it.is_wanted());
                let subscription = wanted.ok_or("UNAVAILABLE")?;
                let shown = subscription.attached(syn_stored, acked, deleted_up_to);
                afterwards.extend(shown.map(|shown| show(subscription, &shown, keys)));
                return Ok(syn_stored);
            }
            Ok(Contact::Unregistered) => "UNREGISTERED",
            Err(_) => "UNAVAILABLE",
        };
        afterwards.extend(self.take_off(token));
        if status == "UNREGISTERED" {
            self.forget(token);
        }
        Err(status)
    }

    /// A settled push came over the short way.
    pub fn on_delivery(
        &mut self,
        delivery: &Delivery,
        room: bool,
        now: Millis,
        keys: &Keyring,
    ) -> Vec<Action> {
        let Some(subscription) = self.find(delivery.address.id) else {
            return Vec::new();
        };
        let shown = subscription.deliver(delivery, room, now);
        show_all(subscription, &shown, true, keys)
    }

    /// Deliveries of this token were lost on the way: look into the store at the next
    /// [`Self::wanted`].
    pub fn on_behind(&mut self, token: TokenId) {
        if let Some(subscription) = self.find(token) {
            subscription.suspect();
        }
    }

    /// Deliveries of no one knows which token were lost on the way.
    pub fn on_all_behind(&mut self) {
        for subscription in &mut self.subscriptions {
            subscription.suspect();
        }
    }

    /// Which pages to read now. `room`: the outbox can take more.
    pub fn wanted(&mut self, room: bool) -> Vec<Action> {
        if !room || !self.greeted {
            return Vec::new();
        }
        let reads = self.subscriptions.iter_mut().filter_map(|subscription| {
            let (after, limit) = subscription.start_reading()?;
            Some(Action::Read {
                address: subscription.address,
                after,
                limit,
            })
        });
        reads.collect()
    }

    /// A page that [`Action::Read`] asked for.
    pub fn page(&mut self, token: TokenId, page: Page, now: Millis, keys: &Keyring) -> Vec<Action> {
        let Some(subscription) = self.find(token) else {
            return Vec::new();
        };
        let shown = subscription.page(page, now);
        show_all(subscription, &shown, false, keys)
    }

    /// The page could not be read: a later [`Self::wanted`] asks again.
    pub fn page_failed(&mut self, token: TokenId) {
        if let Some(subscription) = self.find(token) {
            subscription.page_failed();
        }
    }

    /// The store took an ack, up to `syn`.
    pub fn acked(&mut self, token: TokenId, syn: Syn) {
        if let Some(subscription) = self.find(token) {
            subscription.acked(syn);
        }
    }

    /// The token ended while connected. A device that waits for the answer to its hello or subscribe
    /// reads it there.
    pub fn on_ended(&mut self, token: TokenId, keys: &Keyring) -> Vec<Action> {
        if let Some(opening) = &mut self.opening
            && opening.end(token)
        {
            return Vec::new();
        }
        let ended = self.forget(token).filter(|it| it.is_wanted());
        ended.map_or_else(Vec::new, |subscription| {
            let token = subscription.text(keys);
            vec![Action::Send(ServerFrame::Unregistered { token }.to_text())]
        })
    }

    fn find(&mut self, token: TokenId) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|subscription| subscription.address.id == token)
    }

    fn forget(&mut self, token: TokenId) -> Option<Subscription> {
        let index = self
            .subscriptions
            .iter()
            .position(|subscription| subscription.address.id == token)?;
        Some(self.subscriptions.remove(index))
    }
}

fn close(reason: CloseReason) -> Vec<Action> {
    vec![Action::Close(reason)]
}

fn broken(rule: &str) -> Vec<Action> {
    close(CloseReason::RulesBroken(rule.to_owned()))
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "conversation_model_tests.rs"]
mod model_tests;
