//! Which session holds a token, which session holds a device. The pure half of Router.
//!
//! A session key is never used twice, so a late goodbye of an old session cannot remove what a
//! newer one has entered. Claims of a device are numbered, so neither can an old session's late
//! attach take a token from the newer one: claims and attaches meet in different shards, in any
//! order.

use crate::actors::FastSet;
use crate::actors::registry::SessionKey;
use crate::dense_map::DenseMap;
use crate::token::{DeviceId, TokenId};

/// The sessions of one shard of tokens and devices.
#[derive(Debug, Default)]
pub struct RoutingTable {
    tokens: DenseMap<TokenId, Holder>,
    devices: DenseMap<DeviceId, SessionKey>,
    behind: FastSet<TokenId>,
    last_epoch: Epoch,
}

/// The number of a claim: of two sessions of one device, the one with the higher is the newer.
pub type Epoch = u64;

#[derive(Debug, Clone, Copy)]
struct Holder {
    session: SessionKey,
    epoch: Epoch,
}

impl RoutingTable {
    /// `session` is the device's only one from now on; returns the claim's number, and the session
    /// it replaces.
    pub fn claim(&mut self, device: DeviceId, session: SessionKey) -> (Epoch, Option<SessionKey>) {
        self.last_epoch += 1;
        let previous = self.devices.insert(device, session);
        let replaced = previous.filter(|previous| *previous != session);
        (self.last_epoch, replaced)
    }

    /// The session lets go of its device, unless a newer one holds it by now.
    pub fn release(&mut self, device: DeviceId, session: SessionKey) {
        if self.devices.get(&device) == Some(&session) {
            self.devices.remove(&device);
        }
    }

    /// Pushes of `token` go to `session` from now on, unless a newer one of its device has it.
    pub fn attach(&mut self, token: TokenId, session: SessionKey, epoch: Epoch) {
        let newcomer = Holder { session, epoch };
        let holder = self.tokens.get(&token);
        if holder.is_none_or(|holder| holder.epoch <= epoch) {
            self.tokens.insert(token, newcomer);
        }
    }

    /// The session lets go of a token, unless a newer one holds it by now.
    pub fn detach(&mut self, token: TokenId, session: SessionKey) {
        if self.session_of(token) == Some(session) {
            self.tokens.remove(&token);
            self.behind.remove(&token);
        }
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
        assert_eq!(table.claim(DEVICE, key(1)), (1, None));
        table.attach(TOKEN, key(1), 1);
        assert_eq!(table.claim(DEVICE, key(2)), (2, Some(key(1))));
        table.attach(TOKEN, key(2), 2);
        table.detach(TOKEN, key(1));
        table.release(DEVICE, key(1));
        assert_eq!(table.session_of(TOKEN), Some(key(2)));
        assert_eq!(table.claim(DEVICE, key(3)), (3, Some(key(2))));
    }

    #[test]
    fn a_late_attach_of_the_older_session_takes_nothing_back() {
        let mut table = RoutingTable::default();
        let (older, _) = table.claim(DEVICE, key(1));
        let (newer, _) = table.claim(DEVICE, key(2));
        table.attach(TOKEN, key(2), newer);
        table.attach(TOKEN, key(1), older);
        assert_eq!(table.session_of(TOKEN), Some(key(2)));
        table.detach(TOKEN, key(1));
        assert_eq!(table.session_of(TOKEN), Some(key(2)));
    }

    #[test]
    fn a_goodbye_of_the_holder_removes_everything() {
        let mut table = RoutingTable::default();
        table.claim(DEVICE, key(1));
        table.attach(TOKEN, key(1), 1);
        table.detach(TOKEN, key(1));
        table.release(DEVICE, key(1));
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
