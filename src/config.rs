//! Every setting and every limit, once: name, default, unit in the name, range, reason.
//!
//! The table at the end of this file is the only place that knows a setting. From it come the
//! typed [`Config`], what a TOML file and the environment may say, `herald print-config`, and
//! `docs/settings.md`. Layers, weakest first: defaults, file, `HERALD_SECTION__KEY`, flags. With
//! `--dev` some defaults are others; what is set anywhere still wins over them.

mod backends;
mod layers;
mod mistake;
mod proxies;
mod reference;
mod table;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use backends::{ContactPoint, Identifier, Name, RedisUrl};
pub use layers::{ADMIN_TOKEN_VARIABLE, ADMIN_URL_VARIABLE, Flag, Sources};
pub use mistake::{Mistake, Mistakes};
pub use proxies::TrustedProxies;
pub use reference::settings_reference;
pub use value::{ClientHeader, LogFilter, LogFormat, Secret, SettingValue, StoreKind};

use layers::Layers;
use table::settings;

use crate::token::Key;

const MIB: usize = 1024 * 1024;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// An admin token shorter than this is worth a warning: it can be guessed.
const ADMIN_TOKEN_CHARS_ADVISED: usize = 16;

impl Config {
    /// Reads all layers and checks every value.
    ///
    /// # Errors
    /// Every mistake found, in every layer, at once.
    pub fn load(sources: &Sources) -> Result<Self, Mistakes> {
        let mut layers = Layers::gather(sources, Self::KEYS, Self::SECTIONS);
        let config = Self::read(&mut layers, sources.dev);
        let mut mistakes = layers.into_mistakes(Self::KEYS);
        // Rules between settings would only repeat what is wrong with one of them.
        if mistakes.is_empty() {
            config.check_together(&mut mistakes);
        }
        Mistakes::none_or(mistakes).map(|()| config)
    }

    /// The defaults of a development server: quotas off, a short drain.
    #[must_use]
    pub fn dev() -> Self {
        Self::read(&mut Layers::default(), true)
    }

    /// What is allowed but deserves a line in the log.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.store.kind == StoreKind::Memory {
            warnings.push("store.kind is memory: nothing survives a restart".to_owned());
        }
        if let Some(token) = &self.secrets.admin_token
            && token.reveal().len() < ADMIN_TOKEN_CHARS_ADVISED
        {
            warnings.push(format!(
                "secrets.admin_token is shorter than {ADMIN_TOKEN_CHARS_ADVISED} characters"
            ));
        }
        if !self.admin_listen.ip().is_loopback() {
            warnings.push(
                "admin_listen is reachable from other machines: keep it inside a trusted network"
                    .to_owned(),
            );
        }
        warnings
    }

    fn check_together(&self, mistakes: &mut Vec<Mistake>) {
        let mut refuse = |key: &str, message: String| mistakes.push(Mistake::of(key, message));
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            let (missing, given) = match self.tls.cert {
                Some(_) => ("tls.key", "tls.cert"),
                None => ("tls.cert", "tls.key"),
            };
            refuse(missing, format!("must be set together with {given}"));
        }
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            refuse(
                "admin_listen",
                format!("must not be the same address as listen ({})", self.listen),
            );
        }
        let closing_ms = self.drain.delay_ms + self.drain.window_ms;
        if self.drain.deadline_ms < closing_ms {
            refuse(
                "drain.deadline_ms",
                format!("must be at least drain.delay_ms + drain.window_ms = {closing_ms}"),
            );
        }
        if self.store.kind == StoreKind::Cluster {
            let unnamed = [
                ("store.redis", self.store.redis.is_empty()),
                ("store.scylla", self.store.scylla.is_empty()),
            ];
            for (key, _) in unnamed.iter().filter(|(_, is_empty)| *is_empty) {
                refuse(
                    key,
                    "must name a node when store.kind is cluster".to_owned(),
                );
            }
        }
        if self.store.scylla_user.is_some() != self.secrets.scylla_password.is_some() {
            refuse(
                "secrets.scylla_password",
                "must be set together with store.scylla_user".to_owned(),
            );
        }
        if self.http.send_body_bytes < self.limits.message_bytes {
            refuse(
                "http.send_body_bytes",
                format!(
                    "must be at least limits.message_bytes = {}",
                    self.limits.message_bytes
                ),
            );
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&mut Layers::default(), false)
    }
}

settings! {
    top {
        /// Where devices and senders connect: address and port, port 0 for any free one.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        /// Where operators and the metrics' scraper connect.
        admin_listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
        /// The directory of the embedded store, of `admin.token` and of `dev.json`.
        data_dir: PathBuf = PathBuf::from("herald-data");
    }

    /// How requests are read and how many at a time.
    section http: Http {
        /// Threads that serve connections; 0 = one per core.
        workers: usize = 0, in 0..=1_024;
        /// Connections that are no device sockets, open at a time; one more gets 503.
        connections_max: usize = 20_000, in 1..=10_000_000;
        /// A request's headers must be complete this soon, also when no byte ever comes.
        headers_timeout_ms: u64 = 5_000, in 10..=600_000;
        /// A request's body must be complete this soon after its headers.
        body_timeout_ms: u64 = 10_000, in 10..=600_000;
        /// A client that takes no byte of its answers for this long is cut off.
        answer_timeout_ms: u64 = 30_000, in 10..=600_000;
        /// A connection may be quiet this long between requests: longer than the 60 s of common
        /// load balancers, so that they close first.
        keep_alive_ms: u64 = 75_000, in 1_000..=3_600_000;
        /// Largest body of a send or of a device's request.
        send_body_bytes: usize = 64 * 1024, in 4_096..=16 * 1024 * 1024;
        /// Largest body of a poll.
        poll_body_bytes: usize = 256 * 1024, in 4_096..=16 * 1024 * 1024;
        /// Largest body on the admin listener.
        admin_body_bytes: usize = MIB, in 4_096..=64 * 1024 * 1024;
        /// Proxies in front, as addresses or prefixes like `10.0.0.0/8`: only of these is the word
        /// taken on whose request they pass on. Anybody can write such a word, so by default nobody
        /// is believed.
        trusted_proxies: Vec<TrustedProxies> = Vec::new();
        /// Where those proxies name the client: `x-forwarded-for` or `forwarded`. The other one is
        /// not looked at, because a proxy that does not write it passes on what the client made up.
        client_header: ClientHeader = ClientHeader::XForwardedFor;
    }

    /// Device sockets.
    section socket: Socket {
        /// A device must say hello this soon after connecting.
        hello_timeout_ms: u64 = 5_000, in 10..=600_000;
        /// A device is asked to be heard this often; it is closed after 1.5 times as long. Long,
        /// because waking a phone's radio costs battery; below the 5 minutes after which many
        /// mobile networks forget a connection.
        ping_interval_ms: u64 = 270_000, in 100..=3_600_000;
        /// A write that makes no progress for this long closes the socket.
        write_timeout_ms: u64 = 10_000, in 10..=600_000;
        /// Bytes that may wait unsent in one session; more pushes wait in the store.
        outbox_bytes: usize = 256 * 1024, in 8_192..=64 * 1024 * 1024;
        /// A session with nothing in flight gives its memory back after this long.
        park_after_ms: u64 = 2_000, in 0..=3_600_000;
        /// Messages that may wait for one session; what does not fit is read from the store later.
        mailbox: usize = 64, in 1..=65_536;
        /// Device sockets of the whole node; one more gets 503.
        sessions_max: usize = 10_000_000, in 1..=100_000_000;
    }

    /// Bounds on what one token, one device or one queue may hold.
    section limits: Limits {
        /// Unacknowledged pushes of a token; past it the oldest are dropped one by one.
        pending_per_token: usize = 10_000, in 1..=1_000_000;
        /// A token lives this long after its device's last hello or poll.
        token_ttl_ms: u64 = 30 * DAY_MS, in 1_000..=3_650 * DAY_MS;
        /// Sends of a token that the store works on at once.
        in_flight_per_token: usize = 64, in 1..=10_000;
        /// Sends of a token that may wait for their number; one more gets 429.
        queued_per_token: usize = 1_024, in 1..=1_000_000;
        /// Topics that one token may be subscribed to: as many as FCM allows.
        topics_per_token: usize = 2_000, in 1..=100_000;
        /// Pushes of a project to topics or conditions that are on their way; one more gets 429. As
        /// many as FCM allows.
        fan_outs_per_project: usize = 1_000, in 1..=1_000_000;
        /// Copies of such pushes that a node stores in a second, so that sends to single tokens do
        /// not wait behind them; 0 = as fast as it can.
        fan_out_copies_per_second: u32 = 10_000, in 0..=10_000_000;
        /// Messages that may wait for one storage or router actor; one more gets 503.
        mailbox: usize = 16_384, in 1..=1_048_576;
        /// A sender has its answer this soon, be it that the outcome is unknown.
        append_timeout_ms: u64 = 10_000, in 10..=600_000;
        /// What FCM counts as a message's payload.
        message_bytes: usize = 4_096, in 1..=MIB as u64;
        /// A poll's reply is cut short near this size.
        poll_response_bytes: usize = MIB, in 8_192..=64 * 1024 * 1024;
        /// New devices that one address (an IPv4 address, an IPv6 /64) may ask for, whatever work it
        /// shows, and apart from them tokens; 0 = any number. Whole mobile networks share an address.
        mints_per_minute_per_address: u32 = 6_000, dev 0, in 0..=100_000_000;
        /// The same for a network: an IPv4 /24, an IPv6 /48.
        mints_per_minute_per_network: u32 = 60_000, dev 0, in 0..=100_000_000;
    }

    /// Floods of devices, by address (an IPv4 address, an IPv6 /64), network (an IPv4 /24, an IPv6
    /// /48), device or project; 0 = any number. Who shows a device credential is counted apart from
    /// those who show none, so that a flood of the latter leaves the former alone.
    section floods: Floods {
        /// New devices that one address gets for the asking; for more it must show work. A few
        /// installations a minute are usual, some dozens behind the address of a mobile network.
        free_devices_per_minute_per_address: u32 = 120, dev 0, in 0..=100_000_000;
        /// The same for a network.
        free_devices_per_minute_per_network: u32 = 1_200, dev 0, in 0..=100_000_000;
        /// The same for everybody together: a flood may come from many networks.
        free_devices_per_minute: u32 = 60_000, dev 0, in 0..=100_000_000;
        /// Zero bits of the proof of work: 20 are a million hashes, a fraction of a second of a
        /// phone's time. Each bit more doubles it; 0 = no proof is asked for, so the answer is 429.
        proof_bits: u32 = 20, in 0..=24;
        /// A challenge is good for this long: a slow phone must have the time.
        proof_lifetime_ms: u64 = 180_000, in 1_000..=600_000;
        /// Tokens that one device may ask for: it has at most 100 of them on its socket.
        tokens_per_minute_per_device: u32 = 100, dev 0, in 0..=100_000_000;
        /// Tokens of one project for all new devices together, and as many for all others: so fast
        /// can its part of the store grow.
        tokens_per_minute_per_project: u32 = 60_000, dev 0, in 0..=100_000_000;
        /// A device is new for this long. Who floods a project with devices made for that leaves
        /// its older ones alone.
        new_device_ms: u64 = DAY_MS, in 0..=365 * DAY_MS;
        /// Sockets that one device may open: it needs one.
        connects_per_minute_per_device: u32 = 120, dev 0, in 0..=100_000_000;
        /// Sockets opened from one address. Behind it may be a whole mobile network that comes back.
        connects_per_minute_per_address: u32 = 60_000, dev 0, in 0..=100_000_000;
        /// Sockets opened from one network.
        connects_per_minute_per_network: u32 = 600_000, dev 0, in 0..=100_000_000;
        /// Sockets opened at this node; further ones are closed with 1013 and told when to come
        /// back, spread, so that a storm of devices comes in as fast as it can be served.
        connects_per_second: u32 = 10_000, dev 0, in 0..=100_000_000;
        /// Polls of one device: one without a socket polls every few minutes.
        polls_per_minute_per_device: u32 = 600, dev 0, in 0..=100_000_000;
        /// Polls from one address.
        polls_per_minute_per_address: u32 = 60_000, dev 0, in 0..=100_000_000;
        /// Polls from one network.
        polls_per_minute_per_network: u32 = 600_000, dev 0, in 0..=100_000_000;
        /// Entries of polls about one project's tokens, for all devices together. Off, because one
        /// that is used up keeps a project's devices from their pushes.
        polls_per_minute_per_project: u32 = 0, in 0..=100_000_000;
    }

    /// What one project may do, 0 = as much as it likes. Token buckets that hold one period.
    section quota: Quota {
        /// Sends of a project.
        sends_per_minute_per_project: u32 = 600_000, dev 0, in 0..=4_000_000_000;
        /// Sends to one token.
        sends_per_minute_per_token: u32 = 0, in 0..=4_000_000_000;
        /// Tokens of a project that join or leave topics.
        topic_changes_per_second_per_project: u32 = 3_000, dev 0, in 0..=4_000_000_000;
    }

    /// What happens at SIGTERM. `/readyz` says 503 at once.
    section drain: Drain {
        /// New connections are still taken this long, until load balancers have noticed.
        delay_ms: u64 = 2_000, dev 200, in 0..=3_600_000;
        /// Sockets are closed evenly over this long, so that devices do not all return at once.
        window_ms: u64 = 10_000, dev 1_000, in 0..=3_600_000;
        /// Devices whose sockets were closed are asked to come back within this long.
        retry_spread_ms: u64 = 10_000, dev 1_000, in 0..=3_600_000;
        /// The whole drain; what still runs then is cut off.
        deadline_ms: u64 = 30_000, dev 5_000, in 0..=7_200_000;
    }

    /// HTTPS on the public listener, when both are set.
    section tls: Tls {
        /// PEM file with the certificate chain.
        cert: Option<PathBuf> = None;
        /// PEM file with the private key.
        key: Option<PathBuf> = None;
    }

    /// Where pushes survive.
    section store: StoreSettings {
        /// `embedded` keeps them in the data directory, `cluster` in Redis and Scylla, `memory`
        /// nowhere.
        kind: StoreKind = StoreKind::Embedded;
        /// `cluster`: some nodes of the Redis Cluster.
        redis: Vec<RedisUrl> = Vec::new();
        /// `cluster`: some nodes of the Scylla cluster.
        scylla: Vec<ContactPoint> = Vec::new();
        /// `cluster`: the user that Scylla knows this node by, with `secrets.scylla_password`.
        scylla_user: Option<Name> = None;
        /// `cluster`: the keyspace of the region; made if it does not exist.
        keyspace: Identifier = Identifier::fixed("herald");
        /// `cluster`: the data centre whose replicas answer.
        datacenter: Name = Name::fixed("datacenter1");
        /// `cluster`: copies of each row, when the keyspace is made here; one that exists is taken
        /// as it is.
        replication_factor: usize = 3, in 1..=16;
        /// `cluster`: begins every key and channel in Redis; another one for every region.
        key_prefix: Identifier = Identifier::fixed("herald");
        /// Bytes that may wait for a commit; past them sends get 503.
        queue_bytes: usize = 32 * MIB, in 65_536..=1 << 40;
        /// Blocks of the data files kept in memory.
        block_cache_bytes: usize = 64 * MIB, in MIB as u64..=1 << 40;
        /// Memory for what is known of tokens, about 90 bytes each; others are read from disk.
        ledger_cache_bytes: usize = 256 * MIB, in MIB as u64..=1 << 40;
        /// How often what has expired is looked for.
        sweep_interval_ms: u64 = 1_000, in 10..=3_600_000;
    }

    /// Made once and kept in the store, unless set here. A key is `<id>:<base64 of 32 bytes>`, its
    /// id from 0 to 255; the first of a list makes, all of them open, so keys rotate by putting a
    /// new one in front.
    section secrets: Secrets {
        /// Keys that seal push tokens.
        sealing_keys: Vec<Key> = Vec::new();
        /// Keys that device secrets are made with.
        device_keys: Vec<Key> = Vec::new();
        /// What operators show on the admin listener; also `HERALD_ADMIN_TOKEN`. Unset, it is made
        /// and kept in `admin.token` in the data directory, in cluster mode in the keyspace.
        admin_token: Option<Secret> = None;
        /// What `store.scylla_user` shows to Scylla.
        scylla_password: Option<Secret> = None;
    }

    /// What is written to standard error.
    section log: Log {
        /// Which events, as in `info,herald=debug`.
        filter: LogFilter = LogFilter::default();
        /// `text` for people, `json` for machines.
        format: LogFormat = LogFormat::Text;
    }
}

#[cfg(test)]
mod tests;
