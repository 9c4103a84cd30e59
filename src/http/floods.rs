//! Floods of devices: who may have a new device, open a socket or poll, and who must wait or work.
//!
//! A caller that shows a valid device credential is counted as that device, and by its address
//! among others who do; everybody else by the address alone, among their like. So strangers cannot
//! use up what known devices have. Nothing here touches a store, and no flood makes it grow.

mod client_address;
mod prefix;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use actix_http::{HttpMessage as _, Request};
use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;

use crate::actors::Node;
use crate::clock::Millis;
use crate::config::{self, Config};
use crate::http::auth;
use crate::http::error::{ApiError, Detail};
use crate::http::quota::bucket::{Bucket, Readmission};
use crate::http::quota::shared_buckets::SharedBuckets;
use crate::metrics::Shed;
use crate::token::{DeviceId, ProjectHash, Proof, ProofTerms};

use client_address::ClientAddresses;
use prefix::Prefix;

/// The header in which a device shows its work.
const PROOF: &str = "herald-proof";

/// Whom a caller is counted among.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Crowd {
    /// Those who show a device credential.
    Devices,
    /// Those who show none.
    Strangers,
}

/// Who calls.
#[derive(Clone, Copy)]
struct Caller {
    device: Option<DeviceId>,
    address: Option<IpAddr>,
}

/// What each address and each network may do.
struct PrefixLimits {
    by_address: SharedBuckets<(Crowd, Prefix)>,
    by_network: SharedBuckets<(Crowd, Prefix)>,
}

impl PrefixLimits {
    fn per_minute(address: u32, network: u32) -> Self {
        Self {
            by_address: SharedBuckets::per_minute(address),
            by_network: SharedBuckets::per_minute(network),
        }
    }

    fn take(&self, crowd: Crowd, address: Option<IpAddr>) -> Result<(), Duration> {
        // Without an address there is nobody to count.
        let Some(address) = address else {
            return Ok(());
        };
        self.by_address.take(&(crowd, Prefix::customer(address)))?;
        self.by_network.take(&(crowd, Prefix::network(address)))
    }
}

/// One thing that devices come for.
struct Door {
    by_device: SharedBuckets<DeviceId>,
    by_prefix: PrefixLimits,
    shed: Shed,
    refusal: fn(Duration) -> ApiError,
}

impl Door {
    fn take(&self, caller: Caller) -> Result<(), Duration> {
        let crowd = match caller.device {
            Some(device) => {
                self.by_device.take(&device)?;
                Crowd::Devices
            }
            None => Crowd::Strangers,
        };
        self.by_prefix.take(crowd, caller.address)
    }

    fn enter(&self, caller: Caller, node: &Node) -> Result<(), ApiError> {
        self.take(caller).map_err(|wait| {
            node.metrics().sheds.count(self.shed);
            (self.refusal)(wait)
        })
    }
}

/// Where a request comes from, by its own account.
pub struct Origin<'a> {
    peer: Option<SocketAddr>,
    headers: &'a HeaderMap,
}

impl<'a> From<&'a HttpRequest> for Origin<'a> {
    fn from(request: &'a HttpRequest) -> Self {
        Self {
            peer: request.peer_addr(),
            headers: request.headers(),
        }
    }
}

impl<'a> From<&'a Request> for Origin<'a> {
    fn from(request: &'a Request) -> Self {
        Self {
            peer: request.peer_addr(),
            headers: request.headers(),
        }
    }
}

/// All limits on devices.
pub struct Floods {
    addresses: ClientAddresses,
    mints: Door,
    connects: Door,
    polls: Door,
    free_by_prefix: PrefixLimits,
    free: Bucket,
    terms: ProofTerms,
    /// For new devices and for old ones apart.
    tokens_by_project: SharedBuckets<(ProjectHash, bool)>,
    new_device_ms: Millis,
    polls_by_project: SharedBuckets<ProjectHash>,
    handshakes: Bucket,
    readmission: Readmission,
    started: Instant,
}

impl Floods {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let floods = &config.floods;
        let handshakes = floods.connects_per_second;
        Self {
            addresses: ClientAddresses::new(&config.http),
            mints: mint_door(config),
            connects: connect_door(floods),
            polls: poll_door(floods),
            free_by_prefix: PrefixLimits::per_minute(
                floods.free_devices_per_minute_per_address,
                floods.free_devices_per_minute_per_network,
            ),
            free: Bucket::per_minute(floods.free_devices_per_minute),
            terms: proof_terms(floods),
            tokens_by_project: SharedBuckets::per_minute(floods.tokens_per_minute_per_project),
            new_device_ms: floods.new_device_ms,
            polls_by_project: SharedBuckets::per_minute(floods.polls_per_minute_per_project),
            handshakes: Bucket::per_second(handshakes),
            readmission: Readmission::per_second(handshakes),
            started: Instant::now(),
        }
    }

    /// Whether a caller may have a new device: `None` for the asking, or the work that it showed.
    ///
    /// # Errors
    /// 429: with a challenge if work would help, without one if nothing would.
    pub fn admit_new_device(
        &self,
        from: &Origin<'_>,
        node: &Node,
    ) -> Result<Option<Proof>, ApiError> {
        let address = self.addresses.find(from.peer, from.headers);
        let network = address.map(|it| Prefix::network(it).to_bytes());
        let network = network.unwrap_or_default();
        let proof = self.proof_of(from.headers, &network, node);
        if proof.is_none() {
            let free = self.take_free_device(address);
            free.map_err(|wait| self.ask_for_work(wait, &network, node))?;
        }
        let device = None;
        self.mints.enter(Caller { device, address }, node)?;
        Ok(proof)
    }

    /// The work that a request shows, if it is good. Work that is not is as none: a device that
    /// took too long gets another challenge.
    fn proof_of(&self, headers: &HeaderMap, network: &[u8], node: &Node) -> Option<Proof> {
        let shown = headers.get(PROOF)?.to_str().ok()?;
        let (lifetime_ms, now) = (self.terms.lifetime_ms, node.clock().now());
        node.keys().check_proof(shown, network, lifetime_ms, now)
    }

    fn take_free_device(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.free_by_prefix.take(Crowd::Strangers, address)?;
        self.free.take()
    }

    fn ask_for_work(&self, wait: Duration, network: &[u8], node: &Node) -> ApiError {
        if self.terms.bits == 0 {
            node.metrics().sheds.count(Shed::MintLimit);
            return ApiError::minting_limited(wait);
        }
        node.metrics().sheds.count(Shed::ProofAsked);
        let now = node.clock().now();
        ApiError::minting_limited(wait).with_detail(Detail::ProofOfWork {
            challenge: node.keys().challenge(self.terms, network, now),
            bits: self.terms.bits.into(),
        })
    }

    /// The device that asks for a token of a project, if it may have one.
    ///
    /// # Errors
    /// 401 without its credential, 429.
    pub fn admit_to_mint(&self, from: &Origin<'_>, node: &Node) -> Result<DeviceId, ApiError> {
        self.admit(&self.mints, from, node)
    }

    /// The device that polls, if it may.
    ///
    /// # Errors
    /// 401 without its credential, 429.
    pub fn admit_to_poll(&self, from: &Origin<'_>, node: &Node) -> Result<DeviceId, ApiError> {
        self.admit(&self.polls, from, node)
    }

    fn admit(&self, door: &Door, from: &Origin<'_>, node: &Node) -> Result<DeviceId, ApiError> {
        let shown = auth::device(from.headers, node.keys());
        let caller = Caller {
            device: shown.as_ref().ok().copied(),
            address: self.addresses.find(from.peer, from.headers),
        };
        door.enter(caller, node)?;
        shown
    }

    /// Whether a socket may be opened by this device, or by somebody who has not said yet.
    ///
    /// # Errors
    /// 429.
    pub fn admit_to_connect(
        &self,
        from: &Origin<'_>,
        device: Option<DeviceId>,
        node: &Node,
    ) -> Result<(), ApiError> {
        let address = self.addresses.find(from.peer, from.headers);
        self.connects.enter(Caller { device, address }, node)
    }

    /// Takes one of the handshakes that this node is good for.
    ///
    /// # Errors
    /// When to come back: another time for everybody.
    pub fn take_handshake(&self) -> Result<(), Duration> {
        let taken = self.handshakes.take();
        taken.map_err(|_| self.readmission.wait(self.started.elapsed()))
    }

    /// Takes one of the tokens that a project may have for devices as new as this one, or as old.
    ///
    /// # Errors
    /// 429.
    pub fn take_token_of(
        &self,
        project: ProjectHash,
        device: DeviceId,
        node: &Node,
    ) -> Result<(), ApiError> {
        let is_new = device.is_younger_than(self.new_device_ms, node.clock().now());
        self.tokens_by_project
            .take(&(project, is_new))
            .map_err(|wait| {
                node.metrics().sheds.count(self.mints.shed);
                (self.mints.refusal)(wait)
            })
    }

    /// Takes one of the entries about a project that polls may have.
    ///
    /// # Errors
    /// 429.
    pub fn take_poll_of(&self, project: ProjectHash, node: &Node) -> Result<(), ApiError> {
        self.polls_by_project.take(&project).map_err(|wait| {
            node.metrics().sheds.count(self.polls.shed);
            (self.polls.refusal)(wait)
        })
    }
}

/// New devices come as strangers, tokens are for devices.
fn mint_door(config: &Config) -> Door {
    let limits = &config.limits;
    Door {
        by_device: SharedBuckets::per_minute(config.floods.tokens_per_minute_per_device),
        by_prefix: PrefixLimits::per_minute(
            limits.mints_per_minute_per_address,
            limits.mints_per_minute_per_network,
        ),
        shed: Shed::MintLimit,
        refusal: ApiError::minting_limited,
    }
}

fn connect_door(floods: &config::Floods) -> Door {
    Door {
        by_device: SharedBuckets::per_minute(floods.connects_per_minute_per_device),
        by_prefix: PrefixLimits::per_minute(
            floods.connects_per_minute_per_address,
            floods.connects_per_minute_per_network,
        ),
        shed: Shed::ConnectLimit,
        refusal: ApiError::calls_limited,
    }
}

fn poll_door(floods: &config::Floods) -> Door {
    Door {
        by_device: SharedBuckets::per_minute(floods.polls_per_minute_per_device),
        by_prefix: PrefixLimits::per_minute(
            floods.polls_per_minute_per_address,
            floods.polls_per_minute_per_network,
        ),
        shed: Shed::PollLimit,
        refusal: ApiError::calls_limited,
    }
}

fn proof_terms(floods: &config::Floods) -> ProofTerms {
    ProofTerms {
        bits: u8::try_from(floods.proof_bits).unwrap_or(u8::MAX),
        lifetime_ms: floods.proof_lifetime_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "192.0.2.1";

    fn caller(device: Option<u8>, address: &str) -> Caller {
        Caller {
            device: device.map(|number| DeviceId([number; 16])),
            address: Some(address.parse().expect("an address")),
        }
    }

    fn door(device: u32, address: u32, network: u32) -> Door {
        Door {
            by_device: SharedBuckets::per_minute(device),
            by_prefix: PrefixLimits::per_minute(address, network),
            shed: Shed::PollLimit,
            refusal: ApiError::calls_limited,
        }
    }

    #[test]
    fn strangers_use_up_nothing_that_devices_have() {
        let door = door(0, 2, 0);
        while door.take(caller(None, PEER)).is_ok() {}
        assert_eq!(door.take(caller(Some(1), PEER)), Ok(()));
        assert_eq!(door.take(caller(Some(2), PEER)), Ok(()));
        assert!(
            door.take(caller(Some(3), PEER)).is_err(),
            "devices have limits too"
        );
    }

    #[test]
    fn one_device_does_not_use_up_what_its_neighbours_have() {
        let door = door(1, 3, 0);
        assert_eq!(door.take(caller(Some(1), PEER)), Ok(()));
        for _ in 0..10 {
            assert!(door.take(caller(Some(1), PEER)).is_err());
        }
        assert_eq!(door.take(caller(Some(2), PEER)), Ok(()));
        assert_eq!(door.take(caller(Some(3), PEER)), Ok(()));
    }

    #[test]
    fn a_network_has_a_limit_beside_those_of_its_addresses() {
        let door = door(0, 2, 3);
        for (address, passes) in [
            ("192.0.2.1", true),
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("192.0.2.3", false),
            ("192.0.3.3", true),
        ] {
            assert_eq!(
                door.take(caller(None, address)).is_ok(),
                passes,
                "{address}"
            );
        }
    }

    #[test]
    fn by_default_there_are_limits_and_with_dev_there_are_none() {
        let mint = |floods: &Floods| floods.take_free_device(PEER.parse().ok()).is_ok();
        let floods = Floods::new(&Config::default());
        assert_eq!((0..1_000).filter(|_| mint(&floods)).count(), 120);
        let floods = Floods::new(&Config::dev());
        assert!((0..100_000).all(|_| mint(&floods) && floods.take_handshake().is_ok()));
    }
}
