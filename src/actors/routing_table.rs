//! Which session holds a token, which session holds a device. The pure half of Router.
//!
//! A session key is never used twice, so a late goodbye of an old session cannot remove what a
//! newer one has entered. Claims of a device are numbered, so neither can an old session's late
//! attach take a token from the newer one: claims and attaches meet in different shards, in any
//! order.

use std::collections::BTreeSet;

use crate::actors::registry::SessionKey;
use crate::dense_map::DenseMap;
use crate::store::region::Epoch;
use crate::token::{DeviceId, TokenId};

/// The sessions of one shard of tokens and devices.
#[derive(Debug, Default)]
pub struct RoutingTable {
    tokens: DenseMap<TokenId, Holder>,
    devices: DenseMap<DeviceId, Holder>,
    /// In an order that is the same in every run.
    behind: BTreeSet<TokenId>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    session: SessionKey,
    epoch: Epoch,
}

impl RoutingTable {
    /// `session` is the device's only one from now on, unless a newer claim has come before it.
    /// Returns the session that has to go: the one before it, or itself.
    pub fn claim(
        &mut self,
        device: DeviceId,
        session: SessionKey,
        epoch: Epoch,
    ) -> Option<SessionKey> {
        let holder = self.devices.get(&device).copied();
        if holder.is_some_and(|holder| holder.epoch > epoch) {
            return Some(session);
        }
        self.devices.insert(device, Holder { session, epoch });
        holder
            .map(|holder| holder.session)
            .filter(|it| *it != session)
    }

    /// A session elsewhere has taken the device over from the claim `epoch`; returns the session
    /// that has to go.
    pub fn supersede(&mut self, device: DeviceId, epoch: Epoch) -> Option<SessionKey> {
        let holder = self.devices.get(&device);
        holder.filter(|holder| holder.epoch <= epoch)?;
        self.devices.remove(&device).map(|holder| holder.session)
    }

    /// A newer session of the device holds this token elsewhere, which nobody could tell; returns
    /// the session that has to go. Its goodbye will take its tokens off.
    #[must_use]
    pub fn supersede_holder(&self, token: TokenId, epoch: Epoch) -> Option<SessionKey> {
        let holder = self.tokens.get(&token)?;
        (holder.epoch <= epoch).then_some(holder.session)
    }

    /// The session lets go of its device, unless a newer one holds it by now; returns its claim.
    pub fn release(&mut self, device: DeviceId, session: SessionKey) -> Option<Epoch> {
        let holder = self.devices.get(&device);
        holder.filter(|holder| holder.session == session)?;
        self.devices.remove(&device).map(|holder| holder.epoch)
    }

    /// Pushes of `token` go to `session` from now on, unless a newer one of its device has it.
    pub fn attach(&mut self, token: TokenId, session: SessionKey, epoch: Epoch) {
        let newcomer = Holder { session, epoch };
        let holder = self.tokens.get(&token);
        if holder.is_none_or(|holder| holder.epoch <= epoch) {
            self.tokens.insert(token, newcomer);
        }
    }

    /// The session lets go of a token, unless a newer one holds it by now; returns its claim.
    pub fn detach(&mut self, token: TokenId, session: SessionKey) -> Option<Epoch> {
        let holder = self.tokens.get(&token);
        holder.filter(|holder| holder.session == session)?;
        self.behind.remove(&token);
        self.tokens.remove(&token).map(|holder| holder.epoch)
    }

    /// Every token that is held, with the claim it is held by.
    #[must_use]
    pub fn held(&self) -> Vec<(TokenId, Epoch)> {
        let held = self.tokens.iter();
        held.map(|(token, holder)| (*token, holder.epoch)).collect()
    }

    /// Those of some tokens that are held, with the claim each is held by.
    #[must_use]
    pub fn held_of(&self, tokens: &[TokenId]) -> Vec<(TokenId, Epoch)> {
        let held = tokens.iter().filter_map(|token| {
            let holder = self.tokens.get(token)?;
            Some((*token, holder.epoch))
        });
        held.collect()
    }

    /// The session that holds a token.
    #[must_use]
    pub fn session_of(&self, token: TokenId) -> Option<SessionKey> {
        self.tokens.get(&token).map(|holder| holder.session)
    }

    /// The token ended: returns the session to tell.
    pub fn end(&mut self, token: TokenId) -> Option<SessionKey> {
        self.behind.remove(&token);
        self.tokens.remove(&token).map(|holder| holder.session)
    }

    /// A delivery to this token's session could not be handed over: the session must be told to
    /// look into the store. At most one note a token, so the notes are bounded by the table.
    pub fn note_behind(&mut self, token: TokenId) {
        if self.tokens.contains_key(&token) {
            self.behind.insert(token);
        }
    }

    /// Takes up to `limit` tokens whose sessions are to be told, with those sessions.
    pub fn take_behind(&mut self, limit: usize) -> Vec<(TokenId, SessionKey)> {
        let chunk: Vec<TokenId> = self.behind.iter().take(limit).copied().collect();
        chunk
            .into_iter()
            .filter_map(|token| {
                self.behind.remove(&token);
                self.session_of(token).map(|session| (token, session))
            })
            .collect()
    }

    #[cfg(test)]
    fn sizes(&self) -> (usize, usize) {
        (self.tokens.len(), self.devices.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenId = TokenId([1; 16]);
    const DEVICE: DeviceId = DeviceId([2; 16]);

    fn key(number: u64) -> SessionKey {
        SessionKey::from_bits(number)
    }

    #[test]
    fn a_newer_session_takes_over_and_the_older_goodbye_removes_nothing() {
        let mut table = RoutingTable::default();
        assert_eq!(table.claim(DEVICE, key(1), 1), None);
        table.attach(TOKEN, key(1), 1);
        assert_eq!(table.claim(DEVICE, key(2), 2), Some(key(1)));
        table.attach(TOKEN, key(2), 2);
        assert_eq!(table.detach(TOKEN, key(1)), None);
        assert_eq!(table.release(DEVICE, key(1)), None);
        assert_eq!(table.session_of(TOKEN), Some(key(2)));
        assert_eq!(table.held(), [(TOKEN, 2)]);
        assert_eq!(table.claim(DEVICE, key(3), 3), Some(key(2)));
    }

    #[test]
    fn a_claim_that_comes_late_has_to_go_itself() {
        let mut table = RoutingTable::default();
        assert_eq!(table.claim(DEVICE, key(2), 2), None);
        assert_eq!(table.claim(DEVICE, key(1), 1), Some(key(1)));
        assert_eq!(table.release(DEVICE, key(1)), None);
        assert_eq!(table.release(DEVICE, key(2)), Some(2));
    }

    #[test]
    fn a_takeover_elsewhere_ends_the_claims_before_it_and_none_after() {
        let mut table = RoutingTable::default();
        table.claim(DEVICE, key(2), 5);
        assert_eq!(table.supersede(DEVICE, 4), None, "this one is newer");
        assert_eq!(table.supersede(DEVICE, 5), Some(key(2)));
        assert_eq!(table.supersede(DEVICE, 5), None);
    }

    #[test]
    fn whoever_holds_a_token_by_an_older_claim_has_to_go_and_no_newer_one() {
        let mut table = RoutingTable::default();
        table.attach(TOKEN, key(2), 5);
        assert_eq!(table.supersede_holder(TOKEN, 4), None, "this one is newer");
        assert_eq!(table.supersede_holder(TOKEN, 5), Some(key(2)));
        assert_eq!(table.held_of(&[TOKEN, TokenId([9; 16])]), [(TOKEN, 5)]);
        assert_eq!(table.detach(TOKEN, key(2)), Some(5));
        assert_eq!(table.supersede_holder(TOKEN, 5), None);
    }

    #[test]
    fn a_late_attach_of_the_older_session_takes_nothing_back() {
        let mut table = RoutingTable::default();
        table.attach(TOKEN, key(2), 2);
        table.attach(TOKEN, key(1), 1);
        assert_eq!(table.session_of(TOKEN), Some(key(2)));
        assert_eq!(table.detach(TOKEN, key(1)), None);
        assert_eq!(table.session_of(TOKEN), Some(key(2)));
    }

    #[test]
    fn a_goodbye_of_the_holder_removes_everything() {
        let mut table = RoutingTable::default();
        table.claim(DEVICE, key(1), 1);
        table.attach(TOKEN, key(1), 1);
        assert_eq!(table.detach(TOKEN, key(1)), Some(1));
        assert_eq!(table.release(DEVICE, key(1)), Some(1));
        assert_eq!(table.sizes(), (0, 0));
    }

    #[test]
    fn lost_deliveries_are_noted_once_and_forgotten_with_their_session() {
        let mut table = RoutingTable::default();
        table.note_behind(TOKEN);
        assert!(table.take_behind(8).is_empty(), "nobody to tell");
        table.attach(TOKEN, key(1), 1);
        table.note_behind(TOKEN);
        table.note_behind(TOKEN);
        assert_eq!(table.take_behind(8), [(TOKEN, key(1))]);
        assert!(table.take_behind(8).is_empty());
        table.note_behind(TOKEN);
        table.detach(TOKEN, key(1));
        assert!(table.take_behind(8).is_empty());
    }

    #[test]
    fn an_ended_token_names_its_session_once() {
        let mut table = RoutingTable::default();
        table.attach(TOKEN, key(1), 1);
        assert_eq!(table.end(TOKEN), Some(key(1)));
        assert_eq!(table.end(TOKEN), None);
    }
}
