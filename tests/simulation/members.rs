//! Who is subscribed to what, as far as that can be known from outside.

use std::collections::BTreeMap;

use herald::topic::{Reach, TopicName};
use tokio::time::Instant;

/// What is known of a token and a topic: nothing while a change is on its way, or if nobody knows how
/// it ended.
#[derive(Clone, Copy)]
struct Known {
    is_subscribed: bool,
    since: Instant,
}

/// All subscriptions.
pub struct Members {
    begun: Instant,
    known: BTreeMap<(usize, TopicName), Option<Known>>,
}

impl Members {
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            known: BTreeMap::new(),
        }
    }

    /// Somebody is about to change a subscription.
    pub fn changes(&mut self, token: usize, topic: &TopicName) {
        self.known.insert((token, topic.clone()), None);
    }

    /// A change has ended well.
    pub fn changed(&mut self, token: usize, topic: &TopicName, is_subscribed: bool) {
        let since = Instant::now();
        let known = Known {
            is_subscribed,
            since,
        };
        self.known.insert((token, topic.clone()), Some(known));
    }

    /// Whether a token is subscribed and has been so since, or is not and has not; `None` if that is
    /// not known, or not the same for all of that time.
    fn all_along(&self, token: usize, topic: &TopicName, since: Instant) -> Option<bool> {
        let never = Some(Known {
            is_subscribed: false,
            since: self.begun,
        });
        let known = self.known.get(&(token, topic.clone())).unwrap_or(&never);
        let known = known.filter(|known| known.since < since)?;
        Some(known.is_subscribed)
    }

    /// Whether a token is just about to join or leave one of the topics of a push that is sent now. Its
    /// subscription counts from a moment before it is there, and whoever leaves another topic right
    /// then may be met twice.
    pub fn is_in_between(&self, token: usize, reach: &Reach) -> bool {
        let now = Instant::now();
        let mut topics = reach.asks_for().into_iter();
        topics.any(|topic| self.all_along(token, &topic, now).is_none())
    }

    /// Whether a push to many that was sent then reaches a token: `None` if it may or may not.
    pub fn is_reached(&self, token: usize, reach: &Reach, since: Instant) -> Option<bool> {
        let condition = match reach {
            Reach::Topic(topic) => return self.all_along(token, topic, since),
            Reach::Condition(condition) => condition,
        };
        let topics = condition.topics();
        let along = topics.iter().map(|it| self.all_along(token, it, since));
        let along: Option<Vec<bool>> = along.collect();
        let along = along?;
        Some(condition.holds(|asked| {
            let place = topics.iter().position(|topic| topic == asked);
            place.is_some_and(|place| along[place])
        }))
    }
}
