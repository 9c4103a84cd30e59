//! Sealing keys of one node and of two, by a clock that is moved by hand.

use super::*;
use crate::projects::tests::memory_store;
use crate::token::{DeviceId, ProjectHash, TokenAddress};

const LEAD_MS: Millis = 600_000;

fn stage() -> (Arc<dyn Store>, Clock) {
    (memory_store(), Clock::manual(1_000))
}

async fn node(store: &Arc<dyn Store>, clock: &Clock) -> (Arc<Keyring>, SealingKeys) {
    let first = SealingKeys::first(&**store).await.expect("a key");
    let device = Key::new(1, &[1; KEY_BYTES]).expect("a key");
    let ring = Arc::new(Keyring::new(&[first], vec![device]).expect("keys"));
    let (store, clock) = (Arc::clone(store), clock.clone());
    let keys = SealingKeys::load(Arc::clone(&ring), store, clock, LEAD_MS);
    (ring, keys.await.expect("keys"))
}

/// The keys of a node that is alone.
pub(crate) async fn own_keys() -> Arc<SealingKeys> {
    let store: Arc<dyn Store> = memory_store();
    let (_, keys) = node(&store, &Clock::manual(1_000)).await;
    Arc::new(keys)
}

fn address() -> TokenAddress {
    TokenAddress::mint(DeviceId([3; 16]), ProjectHash::of("demo"), 0)
}

#[tokio::test]
async fn all_nodes_know_a_key_before_one_seals_with_it() {
    let (store, clock) = stage();
    let (here, keys_here) = node(&store, &clock).await;
    let (there, keys_there) = node(&store, &clock).await;
    let old = here.seal(address());
    assert!(there.open(&old).is_ok(), "one region, one first key");
    let made = keys_here.rotate().await.expect("a new key");
    assert_eq!(
        (made.id, made.seals_from, made.seals),
        (2, 1_000 + LEAD_MS, false)
    );
    assert_eq!(here.seals_with(), 1);
    keys_there.refresh().await.expect("read");
    clock.advance(LEAD_MS);
    keys_here.refresh().await.expect("read");
    assert_eq!((here.seals_with(), there.seals_with()), (2, 1));
    assert!(there.open(&here.seal(address())).is_ok());
    keys_there.refresh().await.expect("read");
    assert_eq!(there.seals_with(), 2);
    for ring in [&here, &there] {
        assert!(ring.open(&old).is_ok(), "tokens sealed before stay valid");
    }
}

#[tokio::test]
async fn keys_outlive_the_node_that_made_them() {
    let (store, clock) = stage();
    let (ring, keys) = node(&store, &clock).await;
    let mut sealed = vec![ring.seal(address())];
    for _ in 0..3 {
        keys.rotate().await.expect("a new key");
        clock.advance(LEAD_MS);
        keys.refresh().await.expect("read");
        sealed.push(ring.seal(address()));
    }
    let (later, keys) = node(&store, &clock).await;
    assert_eq!(later.seals_with(), 4);
    assert!(sealed.iter().all(|token| later.open(token).is_ok()));
    let seals: Vec<(u8, bool)> = keys.list().iter().map(|key| (key.id, key.seals)).collect();
    assert_eq!(seals, [(1, false), (2, false), (3, false), (4, true)]);
}

#[tokio::test]
async fn rotations_come_one_after_the_other() {
    let (store, clock) = stage();
    let (_, keys) = node(&store, &clock).await;
    let (_, others) = node(&store, &clock).await;
    keys.rotate().await.expect("a new key");
    for keys in [&keys, &others] {
        let refused = keys.rotate().await.expect_err("under way");
        assert!(
            matches!(refused, RotationError::UnderWay { id: 2 }),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn keys_of_the_settings_are_not_touched() {
    let device = Key::new(1, &[1; KEY_BYTES]).expect("a key");
    let sealing = [device.clone()];
    let ring = Keyring::new(&sealing, vec![device]).expect("keys");
    let keys = SealingKeys::of_settings(Arc::new(ring), Clock::manual(1_000));
    assert!(matches!(
        keys.rotate().await,
        Err(RotationError::InSettings)
    ));
}

#[tokio::test]
async fn what_is_no_key_is_not_taken_for_one() {
    let (store, clock) = stage();
    let (_, keys) = node(&store, &clock).await;
    store
        .keep_secret("sealing_key_2", b"short")
        .await
        .expect("kept");
    assert!(matches!(keys.refresh().await, Err(StoreError::Corrupt(_))));
}
