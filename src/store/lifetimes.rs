//! When a token may begin and when it ends: one answer for every store.

use super::FIRST_CONTACT_MS;
use crate::clock::Millis;
use crate::token::TokenAddress;

/// A token's last contact is written down at most this often, so that a device that polls every
/// minute does not cost a write every minute.
const CONTACT_REFRESH_MS: Millis = 24 * 60 * 60 * 1_000;

/// Lifetimes shorter than ten refreshes refresh ten times as often as they end.
const REFRESHES_PER_LIFETIME: Millis = 10;

/// The last moment at which a token without a record may get one.
pub(super) fn first_contact_closes_at(address: &TokenAddress) -> Millis {
    address.minted_at().saturating_add(FIRST_CONTACT_MS)
}

/// Whether a token without a record may get one, or is dead.
pub(super) fn may_make_first_contact(address: &TokenAddress, now: Millis) -> bool {
    now <= first_contact_closes_at(address)
}

/// Whether a contact now is worth writing down.
pub(super) fn is_contact_stale(last_contact: Millis, token_ttl: Millis, now: Millis) -> bool {
    now.saturating_sub(last_contact) >= contact_refresh(token_ttl)
}

/// When a token ends that was last heard of at `last_contact`. A refresh later than its lifetime
/// says, because what is written down may be that old: no token ends early.
pub(super) fn token_ends_at(last_contact: Millis, token_ttl: Millis) -> Millis {
    last_contact
        .saturating_add(token_ttl)
        .saturating_add(contact_refresh(token_ttl))
}

/// A token whose last contact is not after this has ended by `now`: [`token_ends_at`] turned round.
pub(super) fn ended_if_heard_by(token_ttl: Millis, now: Millis) -> Millis {
    now.saturating_sub(token_ttl)
        .saturating_sub(contact_refresh(token_ttl))
}

/// A last contact that is not after this is worth writing down anew: [`is_contact_stale`] turned
/// round.
pub(super) fn stale_if_heard_by(token_ttl: Millis, now: Millis) -> Millis {
    now.saturating_sub(contact_refresh(token_ttl))
}

/// How often a token's last contact is written down.
#[must_use]
pub fn contact_refresh(token_ttl: Millis) -> Millis {
    CONTACT_REFRESH_MS
        .min(token_ttl / REFRESHES_PER_LIFETIME)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_outlives_its_lifetime_whenever_it_was_heard_of() {
        for token_ttl in [1_000, 3_600_000, 30 * CONTACT_REFRESH_MS] {
            let written = 1_732_200_000_000;
            let unwritten = written + contact_refresh(token_ttl) - 1;
            assert!(!is_contact_stale(written, token_ttl, unwritten));
            assert!(token_ends_at(written, token_ttl) > unwritten + token_ttl);
            let stale_at = written + contact_refresh(token_ttl);
            for now in [stale_at - 1, stale_at] {
                let is_stale = written <= stale_if_heard_by(token_ttl, now);
                assert_eq!(is_stale, is_contact_stale(written, token_ttl, now));
            }
            let ends_at = token_ends_at(written, token_ttl);
            assert!(written > ended_if_heard_by(token_ttl, ends_at - 1));
            assert!(written <= ended_if_heard_by(token_ttl, ends_at));
        }
    }
}
