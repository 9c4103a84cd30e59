//! What nodes tell each other, over sharded publish and subscribe: one channel a node, one
//! subscriber connection a channel.
//!
//! Redis loses such messages silently: when a subscriber reconnects, when a primary fails over,
//! when a reader is slow. So every node numbers what it tells each other node, says the number
//! again every second, and a node that sees one missing looks after all its tokens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{PushInfo, PushKind, Value};
use serde::Deserialize as _;
use tokio::sync::mpsc;

use super::backends::Backends;
use super::health::Health;
use super::letters::{Letter, Word, hint_of};
use super::records::client;
use crate::store::region::{Hint, NodeId};

/// Hints that may wait for this node's routers; more of them are lost, which is noticed.
const HINTS_MAX: usize = 16_384;

/// Hints that may wait to be told; more of them are lost, which is noticed there.
const TOLD_MAX: usize = 16_384;

/// Hints on their way to Redis at a time.
const PUBLISHING_MAX: usize = 256;

/// How often a node tells itself and those it has hinted to that it lives, and with which number.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Its own beats have not come back for so long: the subscription is made anew.
const DEAF_AFTER: Duration = Duration::from_millis(3_500);

/// A node that was told nothing for so long is not told the number any more.
const TELL_FOR: Duration = Duration::from_secs(60);

/// Notices that may wait; what comes beyond them costs latency.
pub(super) const NOTICES_MAX: usize = 65_536;

/// The count of what a node was told is kept for so long after the last word.
const COUNT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Lists in lists in a letter: it has three of its own, the rest is for later versions.
const LETTER_DEPTH_MAX: usize = 32;

/// What came to light at the backends and others must know.
#[derive(Debug)]
pub(super) enum Notice {
    /// For this node's own sessions.
    ForUs(Hint),
    /// For whoever it concerns: nobody here knows who that is.
    ForAll(Hint),
    /// For one node.
    For(NodeId, Hint),
}

/// What this node has told others.
struct Told {
    number: u64,
    last: Instant,
}

/// The way to other nodes and back.
pub(super) struct Hints {
    node: NodeId,
    told: Mutex<HashMap<NodeId, Told>>,
    letters: mpsc::Sender<(NodeId, Letter)>,
    heard: Mutex<Option<mpsc::Receiver<Hint>>>,
}

impl Hints {
    /// Subscribes to this node's channel and begins to tell, on this runtime.
    pub(super) fn start(
        backends: &Arc<Backends>,
        notices: mpsc::Receiver<Notice>,
        urls: &[String],
        key_prefix: &str,
    ) -> Arc<Self> {
        let (letters, outbox) = mpsc::channel(TOLD_MAX);
        let (hints, heard) = mpsc::channel(HINTS_MAX);
        let this = Arc::new(Self {
            node: backends.node,
            told: Mutex::default(),
            letters,
            heard: Mutex::new(Some(heard)),
        });
        tokio::spawn(publish(Arc::clone(backends), key_prefix.to_owned(), outbox));
        tokio::spawn(beat(Arc::downgrade(&this)));
        let ear = Ear {
            urls: urls.to_vec(),
            channel: channel(key_prefix, backends.node),
            mail: Arc::new(Mail {
                hints: hints.clone(),
                inbox: Mutex::new(Inbox::new(backends.node)),
                has_lost: AtomicBool::new(false),
            }),
        };
        tokio::spawn(ear.listen(Arc::downgrade(&this)));
        tokio::spawn(follow_upheavals(backends.health.upheavals(), hints.clone()));
        let health = Arc::clone(&backends.health);
        tokio::spawn(pass_on(Arc::downgrade(&this), health, notices, hints));
        this
    }

    /// What others tell this node; `None` from the second time on.
    pub(super) fn heard(&self) -> Option<mpsc::Receiver<Hint>> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Tells another node; what does not fit is missed there by its number.
    pub(super) fn tell(&self, node: NodeId, hint: Hint) {
        if let Some(word) = Word::of(hint) {
            self.send(node, word);
        }
    }

    fn send(&self, node: NodeId, word: Word) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = told.entry(node).or_insert_with(|| Told {
            number: 0,
            last: Instant::now(),
        });
        if !matches!(word, Word::Beat) {
            entry.number += 1;
            entry.last = Instant::now();
        }
        let letter = Letter {
            from: self.node.bytes(),
            number: entry.number,
            word,
        };
        // Under the lock, so that letters go out in the order of their numbers.
        if self.letters.try_send((node, letter)).is_err() {
            tracing::debug!(?node, "too many hints wait to be told");
        }
    }

    /// The nodes that are told the number: this one, and whoever was told something lately.
    fn beat_to(&self) -> Vec<NodeId> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // The count stays when the telling ends: one that began anew would hide what is lost then.
        told.retain(|_, told| told.last.elapsed() < COUNT_FOR);
        let lately = told
            .iter()
            .filter(|(_, told)| told.last.elapsed() < TELL_FOR);
        let others = lately
            .map(|(node, _)| *node)
            .filter(|node| *node != self.node);
        others.chain([self.node]).collect()
    }
}

/// Reads a letter. The reader calls itself for each list in a list: as deep as the library lets it
/// go by itself is deeper than a thread's stack.
///
/// # Errors
/// When it is no letter, or one that says more than this version understands.
pub(super) fn read_letter(bytes: &[u8]) -> Result<Letter, rmp_serde::decode::Error> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(LETTER_DEPTH_MAX);
    Letter::deserialize(&mut reader)
}

fn channel(key_prefix: &str, node: NodeId) -> String {
    format!("{key_prefix}:hints:{{{}}}", node.to_text())
}

async fn publish(
    backends: Arc<Backends>,
    key_prefix: String,
    mut outbox: mpsc::Receiver<(NodeId, Letter)>,
) {
    use futures_util::StreamExt as _;
    let letters = futures_util::stream::poll_fn(move |cx| outbox.poll_recv(cx));
    // `buffered` begins them in their order, and one connection keeps it.
    let mut published = letters
        .map(|(node, letter)| {
            let (backends, channel) = (&backends, channel(&key_prefix, node));
            async move {
                if let Ok(bytes) = rmp_serde::to_vec_named(&letter) {
                    // Whoever does not hear it misses its number later.
                    let _ = backends.records.publish(&channel, &bytes).await;
                }
            }
        })
        .buffered(PUBLISHING_MAX);
    while published.next().await.is_some() {}
}

async fn beat(hints: std::sync::Weak<Hints>) {
    while let Some(hints) = hints.upgrade() {
        for node in hints.beat_to() {
            hints.send(node, Word::Beat);
        }
        drop(hints);
        tokio::time::sleep(BEAT_EVERY).await;
    }
}

/// Gives notices to those whom they concern.
async fn pass_on(
    this: std::sync::Weak<Hints>,
    health: Arc<Health>,
    mut notices: mpsc::Receiver<Notice>,
    hints: mpsc::Sender<Hint>,
) {
    while let Some(notice) = notices.recv().await {
        let Some(this) = this.upgrade() else {
            return;
        };
        let hint = match notice {
            Notice::ForUs(hint) => hint,
            Notice::For(node, hint) if node != this.node => {
                this.tell(node, hint);
                continue;
            }
            Notice::For(_, hint) => hint,
            Notice::ForAll(hint) => {
                let others = health.known_nodes();
                for node in others.into_iter().filter(|node| *node != this.node) {
                    this.tell(node, hint.clone());
                }
                hint
            }
        };
        drop(this);
        if hints.send(hint).await.is_err() {
            return;
        }
    }
}

/// A primary that has become another one may have forgotten who holds what.
async fn follow_upheavals(
    mut upheavals: tokio::sync::watch::Receiver<u64>,
    hints: mpsc::Sender<Hint>,
) {
    while upheavals.changed().await.is_ok() {
        if hints.send(Hint::Resync).await.is_err() {
            return;
        }
    }
}

/// What was heard of each sender.
struct Inbox {
    node: NodeId,
    last: HashMap<NodeId, u64>,
    own_beat_at: Instant,
}

impl Inbox {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            last: HashMap::new(),
            own_beat_at: Instant::now(),
        }
    }

    /// Takes in a letter's number; true when something before it is missing.
    fn note(&mut self, from: NodeId, number: u64, is_beat: bool) -> bool {
        if from == self.node {
            self.own_beat_at = Instant::now();
            return false;
        }
        // A sender counts from one; a number below the last says that it has begun anew.
        let last = self.last.insert(from, number).unwrap_or_default();
        let last = if last > number { 0 } else { last };
        let expected = match is_beat {
            true => last,
            false => last + 1,
        };
        number > expected
    }
}

/// Where letters arrive: called by the connection, must not block.
struct Mail {
    hints: mpsc::Sender<Hint>,
    inbox: Mutex<Inbox>,
    has_lost: AtomicBool,
}

impl Mail {
    fn take(&self, info: &PushInfo) {
        match info.kind {
            PushKind::SMessage => {}
            PushKind::Disconnection | PushKind::SUnsubscribe => {
                self.has_lost.store(true, Ordering::Relaxed);
                return;
            }
            _ => return,
        }
        let Some(Value::BulkString(bytes)) = info.data.get(1) else {
            return;
        };
        let Ok(letter) = read_letter(bytes) else {
            // Of a version that says more than this one understands.
            self.has_lost.store(true, Ordering::Relaxed);
            return;
        };
        let is_beat = matches!(letter.word, Word::Beat);
        let from = NodeId::from_bytes(letter.from);
        let is_missing = self.inbox().note(from, letter.number, is_beat);
        let hint = hint_of(letter.word);
        let is_full = hint.is_some_and(|hint| self.hints.try_send(hint).is_err());
        if is_missing || is_full {
            self.has_lost.store(true, Ordering::Relaxed);
        }
    }

    fn inbox(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the subscription.
struct Ear {
    urls: Vec<String>,
    channel: String,
    mail: Arc<Mail>,
}

impl Ear {
    /// Listens until nobody holds the hints any more.
    async fn listen(self, hints: std::sync::Weak<Hints>) {
        let mut subscription = None;
        while hints.strong_count() > 0 {
            let deaf_for = self.mail.inbox().own_beat_at.elapsed();
            if subscription.is_none() || deaf_for > DEAF_AFTER {
                subscription = self.subscribe().await;
                self.mail.inbox().own_beat_at = Instant::now();
                // Whoever looks after tokens while still deaf has to do it again.
                if subscription.is_some() {
                    self.mail.has_lost.store(true, Ordering::Relaxed);
                }
            }
            if self.mail.has_lost.swap(false, Ordering::Relaxed)
                && self.mail.hints.send(Hint::Resync).await.is_err()
            {
                return;
            }
            tokio::time::sleep(BEAT_EVERY / 4).await;
        }
    }

    async fn subscribe(&self) -> Option<redis::cluster_async::ClusterConnection> {
        let mail = Arc::clone(&self.mail);
        let take = move |info: PushInfo| -> Result<(), std::convert::Infallible> {
            mail.take(&info);
            Ok(())
        };
        let connect = async {
            let client = client(&self.urls)?
                .use_protocol(redis::ProtocolVersion::RESP3)
                .push_sender(take)
                .build()?;
            let mut connection = client.get_async_connection().await?;
            connection.ssubscribe(&self.channel).await?;
            Ok::<_, redis::RedisError>(connection)
        };
        match tokio::time::timeout(DEAF_AFTER, connect).await {
            Ok(Ok(connection)) => Some(connection),
            Ok(Err(error)) => {
                tracing::debug!(%error, "this node cannot hear the others");
                None
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_letter_is_noticed_by_the_next_one_or_by_a_beat() {
        let (me, other) = (NodeId::generate(), NodeId::generate());
        let mut inbox = Inbox::new(me);
        assert!(!inbox.note(other, 1, false));
        assert!(inbox.note(other, 4, false), "2 and 3 are missing");
        assert!(!inbox.note(other, 5, false));
        assert!(!inbox.note(other, 5, true));
        assert!(inbox.note(other, 7, false), "6 is missing");
        assert!(!inbox.note(other, 7, true));
        assert!(inbox.note(other, 8, true), "8 was told and has not come");
        assert!(!inbox.note(other, 9, false));
        assert!(!inbox.note(other, 1, false), "it has begun anew");
        assert!(inbox.note(other, 2, true));
        let third = NodeId::generate();
        assert!(inbox.note(third, 1, true), "its first word has not come");
        assert!(
            !inbox.note(me, 99, false),
            "own letters only show that one hears"
        );
    }
}
