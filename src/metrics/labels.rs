//! The values that labels can have. No label ever holds a token.

/// A label whose values are all known.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Self::index`].
    const ALL: &'static [Self];

    /// The value as metrics show it.
    fn text(self) -> &'static str;

    /// Its place in [`Self::ALL`].
    fn index(self) -> usize;
}

/// What a send can be answered with.
pub const SEND_CODES: [u16; 14] = [
    200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 503, 504,
];

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $( $(#[$value_doc:meta])* $value:ident = $text:literal, )+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$value_doc])* $value, )+
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[ $( Self::$value, )+ ];

            fn text(self) -> &'static str {
                match self {
                    $( Self::$value => $text, )+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels!(
    /// How an attempt to open a session ended.
    Handshake {
        /// The device was welcomed.
        Welcome = "welcome",
        /// The upgrade request was malformed.
        BadRequest = "bad_request",
        /// No credential, or a wrong one.
        CredentialRefused = "credential_refused",
        /// No hello in time.
        NoHello = "no_hello",
        /// Something else than a good hello came first.
        RulesBroken = "rules_broken",
        /// The device left before it was welcomed.
        Gone = "gone",
        /// The node is full, draining, or its store is away.
        Shed = "shed",
    }
);

labels!(
    /// Why a session ended.
    CloseLabel {
        /// The device closed, or its stream ended.
        Gone = "gone",
        /// Broken framing.
        ProtocolError = "protocol_error",
        /// A binary frame.
        Binary = "binary",
        /// A text that is not UTF-8.
        BadUtf8 = "bad_utf8",
        /// Broken JSON, a frame out of turn, missing or wrong keys.
        RulesBroken = "rules_broken",
        /// A message above the limit.
        TooBig = "too_big",
        /// No hello in time.
        NoHello = "no_hello",
        /// The credential was refused.
        CredentialRefused = "credential_refused",
        /// Nothing was heard for too long.
        Silent = "silent",
        /// A newer connection of the same device took over.
        Replaced = "replaced",
        /// The node restarts.
        Restart = "restart",
        /// The device does not read what is sent to it.
        SlowReader = "slow_reader",
        /// The node could not serve the session.
        Overloaded = "overloaded",
    }
);

labels!(
    /// What was refused, and at which bound.
    Shed {
        /// More connections than `http.connections_max`.
        ConnectionsFull = "connections_full",
        /// More sockets than `socket.sessions_max`.
        SessionsFull = "sessions_full",
        /// An actor's mailbox, `limits.mailbox`.
        MailboxFull = "mailbox_full",
        /// Writes waiting for a commit, `store.queue_bytes`.
        StoreQueueFull = "store_queue_full",
        /// Sends waiting for one token, `limits.queued_per_token`.
        TokenQueueFull = "token_queue_full",
        /// A project's quota of sends.
        ProjectQuota = "project_quota",
        /// A token's quota of sends.
        TokenQuota = "token_quota",
        /// A project's quota of topic changes.
        TopicQuota = "topic_quota",
        /// A project's pushes to many that are on their way.
        FanOutsFull = "fan_outs_full",
        /// A limit of new devices and tokens.
        MintLimit = "mint_limit",
        /// New devices that were asked to show work.
        ProofAsked = "proof_asked",
        /// A limit of opened sockets, of one device or from one prefix.
        ConnectLimit = "connect_limit",
        /// A limit of polls.
        PollLimit = "poll_limit",
        /// The node's limit of opened sockets, `floods.connects_per_second`.
        HandshakeLimit = "handshake_limit",
        /// The store cannot be written to.
        StoreUnavailable = "store_unavailable",
        /// The node is shutting down.
        Draining = "draining",
    }
);

labels!(
    /// A queue whose depth shows.
    Queue {
        /// Appends waiting for storage actors.
        Storage = "storage",
        /// Deliveries waiting for router actors.
        Router = "router",
        /// Pushes that are not durable yet.
        Commit = "commit",
        /// Sends waiting because their token has too many on their way.
        Token = "token",
    }
);

labels!(
    /// What became of pushes.
    PushState {
        /// Answered 200.
        Accepted = "accepted",
        /// Found pending at start.
        Recovered = "recovered",
        /// Made durable and settled.
        Stored = "stored",
        /// Written on a socket.
        Delivered = "delivered",
        /// Acknowledged by its device.
        Acked = "acked",
        /// Its TTL passed.
        Expired = "expired",
        /// Replaced by a newer push of the same collapse key.
        Collapsed = "collapsed",
        /// Dropped by the pending cap.
        Dropped = "dropped",
        /// Its token ended.
        Deleted = "deleted",
    }
);

labels!(
    /// Where a push to many stands.
    FanOutState {
        /// Durable, and its sender was told.
        Accepted = "accepted",
        /// Found unfinished: its node has stopped.
        Resumed = "resumed",
        /// Everybody has a copy, or it has expired.
        Finished = "finished",
    }
);

labels!(
    /// What became of one try to store a copy.
    FanOutCopy {
        /// Stored.
        Stored = "stored",
        /// Was there already, from before a restart.
        Repeated = "repeated",
        /// Its token is dead.
        Unregistered = "unregistered",
        /// Not taken now: tried again.
        Retried = "retried",
    }
);
