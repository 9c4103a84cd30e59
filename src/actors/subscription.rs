//! One token of a session: what has been shown, what is waiting, what is unacknowledged.
//!
//! The rules that keep promises 4 and 6 are here. The *cursor* is the last syn that was shown or is
//! known to be gone; `known` is the highest watermark heard of. A delivery is shown only when
//! nothing can lie between the cursor and it; otherwise the store is read from the cursor up.

use std::sync::Arc;

use thin_vec::ThinVec;

use crate::clock::Millis;
use crate::push::{Delivery, Push, Syn};
use crate::store::Page;
use crate::token::{Keyring, Seal, TokenAddress};

/// Unacknowledged pushes of one token in flight on one socket; the rest follows the acks.
pub const WINDOW: usize = 64;

/// What a session remembers of one token, awake or parked.
#[derive(Debug)]
pub struct Subscription {
    /// The token's address.
    pub address: TokenAddress,
    /// With it the token can be written as the device wrote it.
    seal: Seal,
    cursor: Syn,
    known: Syn,
    deleted_shown: Syn,
    unacked: ThinVec<Syn>,
    state: State,
    /// A page is on its way: until it is here deliveries only raise `known`. It outlives an
    /// unsubscribe, so there is never a second one.
    is_reading: bool,
    suspected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The store has not answered yet: deliveries only raise `known`.
    Attaching,
    /// Deliveries may be shown.
    Live,
    /// Taken off: shows nothing, but remembers what this socket has been shown, lest it come twice
    /// when the token is put back.
    Off,
}

/// Something to show to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A push.
    Push(Arc<Push>),
    /// Pushes up to here were dropped by the pending cap.
    Deleted(Syn),
}

impl Subscription {
    /// A token whose watermark is not known yet.
    #[must_use]
    pub fn new(address: TokenAddress, seal: Seal) -> Self {
        Self {
            address,
            seal,
            cursor: 0,
            known: 0,
            deleted_shown: 0,
            unacked: ThinVec::new(),
            state: State::Attaching,
            is_reading: false,
            suspected: false,
        }
    }

    /// The token as the device wrote it, so that frames name it the same way. `keys` opened it.
    #[must_use]
    pub fn text(&self, keys: &Keyring) -> String {
        let sealed = keys.seal_again(self.address, self.seal);
        sealed.map_or_else(String::new, |sealed| sealed.to_text())
    }

    /// The device wants the token again, after [`Self::take_off`] or twice in a row.
    pub fn put_back(&mut self) {
        if self.state == State::Off {
            self.state = State::Attaching;
        }
    }

    /// The device no longer wants the token on this socket.
    pub fn take_off(&mut self) {
        self.state = State::Off;
        self.suspected = false;
    }

    /// Whether the device wants the token on this socket.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.state != State::Off
    }

    /// Nothing would go wrong without it but that pushes come twice.
    #[must_use]
    pub fn may_be_forgotten(&self) -> bool {
        self.state == State::Off && !self.is_reading
    }

    /// The store has answered: everything up to `acked` is done with.
    pub fn attached(
        &mut self,
        syn_stored: Syn,
        acked: Syn,
        deleted_up_to: Option<Syn>,
    ) -> Option<Shown> {
        self.state = State::Live;
        self.cursor = self.cursor.max(acked);
        self.known = self.known.max(syn_stored);
        self.show_deleted(deleted_up_to)
    }

    fn show_deleted(&mut self, deleted_up_to: Option<Syn>) -> Option<Shown> {
        let up_to = deleted_up_to.filter(|up_to| *up_to > self.deleted_shown)?;
        self.deleted_shown = up_to;
        Some(Shown::Deleted(up_to))
    }

    /// A settled push has come over the short way. `room`: the outbox can take more.
    pub fn deliver(&mut self, delivery: &Delivery, room: bool, now: Millis) -> Vec<Shown> {
        if self.state == State::Off {
            return Vec::new();
        }
        self.known = self.known.max(delivery.syn_stored);
        if self.state == State::Attaching {
            // Nothing goes before the answer to hello; a page will tell of what was dropped.
            self.suspected |= delivery.deleted_up_to.is_some();
            return Vec::new();
        }
        let deleted = self.show_deleted(delivery.deleted_up_to);
        let mut shown: Vec<Shown> = deleted.into_iter().collect();
        // Above the watermark an older push may still come in.
        let is_settled = delivery.push.syn <= delivery.syn_stored;
        let next_in_line =
            is_settled && self.cursor >= delivery.prev_syn && self.cursor < delivery.push.syn;
        if next_in_line && !self.is_reading && room && self.window() > 0 {
            self.cursor = delivery.push.syn;
            if !delivery.push.is_expired(now) {
                self.unacked.push(delivery.push.syn);
                shown.push(Shown::Push(Arc::clone(&delivery.push)));
            }
        }
        shown
    }

    /// A delivery may have been lost on the way: the next read looks past everything heard of, and
    /// its page tells the true watermark.
    pub fn suspect(&mut self) {
        self.suspected = self.is_wanted();
    }

    /// Whether the store must be read, and from where; the subscription counts as reading from
    /// now on.
    pub fn start_reading(&mut self) -> Option<(Syn, usize)> {
        if self.state != State::Live || self.is_reading || !self.is_behind() {
            return None;
        }
        self.is_reading = true;
        self.suspected = false;
        Some((self.cursor, self.window()))
    }

    /// A page that [`Self::start_reading`] asked for.
    pub fn page(&mut self, page: Page, now: Millis) -> Vec<Shown> {
        self.is_reading = false;
        if self.state != State::Live {
            // The token was taken off meanwhile; once it is put back, the next read begins there.
            return Vec::new();
        }
        self.known = self.known.max(page.syn_stored);
        let mut shown = Vec::with_capacity(page.pushes.len() + 1);
        shown.extend(self.show_deleted(page.deleted_up_to));
        for push in page.pushes {
            if push.syn > self.cursor && !push.is_expired(now) {
                self.unacked.push(push.syn);
                shown.push(Shown::Push(Arc::new(push)));
            }
        }
        // An ack that came while the page was read may have moved the cursor further already.
        self.cursor = self.cursor.max(page.read_up_to);
        shown
    }

    /// The page could not be read: a later [`Self::start_reading`] asks again.
    pub fn page_failed(&mut self) {
        self.is_reading = false;
        self.suspect();
    }

    /// Everything up to `syn` is acknowledged.
    pub fn acked(&mut self, syn: Syn) {
        self.cursor = self.cursor.max(syn.min(self.known));
        self.unacked.retain(|shown| *shown > syn);
        if self.unacked.is_empty() {
            self.unacked = ThinVec::new();
        }
    }

    fn window(&self) -> usize {
        WINDOW.saturating_sub(self.unacked.len())
    }

    /// Nothing is being waited for, so the session may park.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match self.state {
            State::Attaching => false,
            State::Live => !self.is_reading && !self.is_behind(),
            State::Off => !self.is_reading,
        }
    }

    /// There is something to read, and the window has room for it.
    fn is_behind(&self) -> bool {
        (self.cursor < self.known || self.suspected) && self.window() > 0
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
