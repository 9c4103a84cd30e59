//! Who the simulated devices are: made from their numbers, so that millions of them need no list.

use herald::clock::Millis;
use herald::token::{DeviceId, ProjectHash, TokenAddress, TokenId};

/// All devices of a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Population {
    /// How many.
    pub devices: u64,
    /// Worker threads that they are spread over.
    pub workers: usize,
    /// Share of the sessions that never park.
    pub awake_share: f64,
}

impl Population {
    /// Devices of one worker, in turn with the others.
    pub fn of_worker(self, worker: usize) -> impl Iterator<Item = u64> {
        (worker as u64..self.devices).step_by(self.workers.max(1))
    }

    /// The address of device `number`'s only token.
    pub fn address(self, number: u64, now: Millis) -> TokenAddress {
        let id = |salt: u64| {
            let (first, second) = (mixed(number ^ salt), mixed(mixed(number) ^ salt));
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&first.to_le_bytes());
            bytes[8..].copy_from_slice(&second.to_le_bytes());
            bytes
        };
        TokenAddress {
            id: TokenId(id(0x746f_6b65_6e00_0000)),
            device: DeviceId(id(0x6465_7669_6365_0000)),
            project: ProjectHash::of("simulation"),
            minted_minutes: u32::try_from(now / 60_000).unwrap_or(u32::MAX),
        }
    }

    /// Whether device `number`'s session parks when it is idle.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share needs no more than a float's digits"
    )]
    pub fn parks(self, number: u64) -> bool {
        mixed(!number) as f64 / u64::MAX as f64 >= self.awake_share
    }

    /// The device that send `number` is for: any of them, parked or awake.
    pub fn receiver(self, number: u64) -> u64 {
        mixed(number).checked_rem(self.devices).unwrap_or(0)
    }
}

/// A number that looks random: the finish of the `SplitMix64` generator, which maps different
/// numbers to different ones.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SOME: Population = Population {
        devices: 10_000,
        workers: 3,
        awake_share: 0.1,
    };

    #[test]
    fn everybody_is_somebody_else_and_has_one_worker() {
        let addresses = (0..SOME.devices).map(|number| SOME.address(number, 60_000));
        let ids: HashSet<_> = addresses.map(|it| (it.id, it.device)).collect();
        assert_eq!(ids.len(), 10_000);
        let numbers: HashSet<u64> = (0..3).flat_map(|worker| SOME.of_worker(worker)).collect();
        assert_eq!(numbers.len(), 10_000);
        let shards: HashSet<u64> = (0..100)
            .map(|number| SOME.address(number, 0).id.shard_hash() % 3)
            .collect();
        assert_eq!(shards.len(), 3);
    }

    #[test]
    fn a_share_is_awake_and_sends_go_to_many() {
        let awake = (0..SOME.devices).filter(|number| !SOME.parks(*number));
        let awake = awake.count();
        assert!((900..1_100).contains(&awake), "{awake} of 10,000");
        let receivers: HashSet<u64> = (0..10_000).map(|number| SOME.receiver(number)).collect();
        assert!(receivers.len() > 6_000);
        let nobody = Population {
            awake_share: 0.0,
            ..SOME
        };
        assert!((0..SOME.devices).all(|number| nobody.parks(number)));
    }
}
