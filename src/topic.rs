//! Topics: their names, whom a push to many reaches, and such a push on its way.

mod condition;
mod fan_out;

use std::fmt;
use std::sync::Arc;

use crate::clock::Millis;
use crate::digest::half_of_sha256;

pub use condition::{CONDITION_TOPICS_MAX, Condition, ConditionError};
pub use fan_out::{Checkpoint, FanOut, Place};

/// Length of a topic name in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 900;

/// Whether the text may name a topic: `[a-zA-Z0-9-_.~%]{1,900}`.
#[must_use]
pub fn is_topic_name(text: &str) -> bool {
    (1..=TOPIC_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_topic_byte)
}

/// The first 16 bytes of a topic name's SHA-256: names may be long, keys must stay small.
pub type TopicDigest = [u8; 16];

/// The name of a topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The text, if it may name a topic.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_topic_name(text).then(|| Self(Arc::from(text)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What keys hold in its place.
    #[must_use]
    pub fn digest(&self) -> TopicDigest {
        half_of_sha256(&[self.0.as_bytes()])
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'%')
}

/// Whom a push to many is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Everybody subscribed to one topic.
    Topic(TopicName),
    /// Everybody a condition holds for.
    Condition(Condition),
}

/// Tokens that are gone through one after another to find those that are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Walk {
    /// All that are subscribed to a topic.
    Members(TopicName),
    /// All living tokens of the project.
    Everyone,
}

/// How a token is met that a push reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meeting {
    /// It has had its copy on an earlier walk.
    pub has_copy: bool,
    /// It is not on a later walk: nobody has to know of its copy any more.
    pub is_last: bool,
}

impl Meeting {
    /// Of everybody, where there is one walk.
    pub const ONLY: Self = Self {
        has_copy: false,
        is_last: true,
    };
}

impl Reach {
    /// The walks that together meet everybody it reaches: as few as may be.
    #[must_use]
    pub fn walks(&self) -> Vec<Walk> {
        match self {
            Self::Topic(topic) => vec![Walk::Members(topic.clone())],
            Self::Condition(condition) => match condition.cover() {
                Some(topics) => topics.into_iter().map(Walk::Members).collect(),
                None => vec![Walk::Everyone],
            },
        }
    }

    /// The topics that must be asked about for each token that is met. None for a plain topic.
    #[must_use]
    pub fn asks_for(&self) -> Vec<TopicName> {
        match self {
            Self::Topic(_) => Vec::new(),
            Self::Condition(condition) => condition.topics(),
        }
    }

    /// What to do with a token that is met on the walk number `at` of its [`Self::walks`], for a push
    /// that was accepted then; nothing if it is not reached by it, or has its copy. `since` knows the
    /// topics of [`Self::asks_for`]: since when the token is subscribed.
    ///
    /// Tokens come and go while others are walked, and still none may have two copies. Who is on one of
    /// the earlier walks and was there at the accept has met it there. Who has come to this walk only
    /// since then may have left an earlier one, and may go without. Who goes on to be met on a later
    /// walk is to be known there, even if it leaves this one.
    pub fn meets(
        &self,
        walks: &[Walk],
        at: usize,
        accepted_at: Millis,
        since: impl Fn(&TopicName) -> Option<Millis>,
    ) -> Option<Meeting> {
        let Self::Condition(condition) = self else {
            return Some(Meeting::ONLY);
        };
        if !condition.holds(|topic| since(topic).is_some()) {
            return None;
        }
        let is_on = |walk: &Walk, by: Millis| match walk {
            Walk::Members(topic) => since(topic).is_some_and(|since| since <= by),
            Walk::Everyone => true,
        };
        let has_copy = walks[..at].iter().any(|walk| is_on(walk, accepted_at));
        let is_late = at > 0 && !is_on(&walks[at], accepted_at);
        let is_last = !walks[at + 1..].iter().any(|it| is_on(it, Millis::MAX));
        (has_copy || !is_late).then_some(Meeting { has_copy, is_last })
    }

    /// A text that [`Self::from_text`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Topic(topic) => format!("topic {topic}"),
            Self::Condition(condition) => format!("condition {}", condition.as_str()),
        }
    }

    /// The inverse of [`Self::to_text`].
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("topic", name) => TopicName::parse(name).map(Self::Topic),
            ("condition", text) => Condition::parse(text).ok().map(Self::Condition),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).expect("a name")
    }

    fn reach(condition: &str) -> Reach {
        Reach::Condition(Condition::parse(condition).expect("a condition"))
    }

    fn members(names: &[&str]) -> Vec<Walk> {
        names
            .iter()
            .map(|name| Walk::Members(topic(name)))
            .collect()
    }

    #[test]
    fn names_are_what_fcm_takes_for_them() {
        for name in ["a", "News-2_0.~%", &"x".repeat(TOPIC_NAME_BYTES_MAX)] {
            assert_eq!(topic(name).as_str(), name);
        }
        let too_long = "x".repeat(TOPIC_NAME_BYTES_MAX + 1);
        for text in ["", "a b", "a/b", "/topics/a", "é", "a\n", &too_long] {
            assert_eq!(TopicName::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn no_more_is_walked_than_must_be() {
        let both = "'a' in topics && 'b' in topics";
        assert_eq!(reach(both).walks().len(), 1);
        let either = "'a' in topics || 'b' in topics";
        assert_eq!(reach(either).walks(), members(&["a", "b"]));
        let one = "'a' in topics && ('b' in topics || !('c' in topics))";
        assert_eq!(reach(one).walks(), members(&["a"]));
        assert_eq!(reach("!('a' in topics)").walks(), [Walk::Everyone]);
        let never = "'a' in topics && !('a' in topics)";
        assert_eq!(reach(never).walks(), []);
    }

    #[test]
    fn everybody_who_is_reached_is_met_once() {
        let conditions = [
            "'a' in topics || 'b' in topics || 'c' in topics",
            "('a' in topics || 'b' in topics) && 'c' in topics",
            "'a' in topics && !('b' in topics) || 'c' in topics",
            "!('a' in topics && 'b' in topics) && !('c' in topics)",
        ];
        let topics = ["a", "b", "c"].map(topic);
        for condition in conditions {
            let reach = reach(condition);
            let Reach::Condition(parsed) = &reach else {
                panic!("a condition");
            };
            for subscribed in 0..8_u8 {
                let is_subscribed = |asked: &TopicName| {
                    let place = topics.iter().position(|topic| topic == asked);
                    place.is_some_and(|place| subscribed >> place & 1 == 1)
                };
                let walks = reach.walks();
                let since = |asked: &TopicName| is_subscribed(asked).then_some(1);
                let met = walks.iter().enumerate().filter(|(number, walk)| {
                    let meeting = reach.meets(&walks, *number, 2, since);
                    is_on(walk, since) && meeting.is_some_and(|meeting| !meeting.has_copy)
                });
                let expected = usize::from(parsed.holds(is_subscribed));
                assert_eq!(met.count(), expected, "{condition}, {subscribed:b}");
            }
        }
    }

    fn is_on(walk: &Walk, since: impl Fn(&TopicName) -> Option<Millis>) -> bool {
        match walk {
            Walk::Members(topic) => since(topic).is_some(),
            Walk::Everyone => true,
        }
    }

    /// What a topic may be to a token on the first and on the second walk, of a push accepted at 2:
    /// since when it is in it. It may leave, join, or join again in between.
    fn histories() -> Vec<[Option<Millis>; 2]> {
        let begins = [None, Some(1), Some(3)];
        let goes_on = |begin| [[begin, begin], [begin, None], [begin, Some(4)]];
        begins.into_iter().flat_map(goes_on).collect()
    }

    #[test]
    fn who_comes_or_goes_between_the_walks_has_no_second_copy() {
        let reach = reach("'a' in topics || 'b' in topics");
        let walks = reach.walks();
        let (every_a, every_b) = (histories(), histories());
        let all = every_a
            .iter()
            .flat_map(|a| every_b.iter().map(move |b| (a, b)));
        for (a, b) in all {
            let (mut copies, mut is_marked) = (0, false);
            for (at, walk) in walks.iter().enumerate() {
                let since = |asked: &TopicName| match asked.as_str() {
                    "a" => a[at],
                    _ => b[at],
                };
                let meeting = reach.meets(&walks, at, 2, since);
                if let Some(meeting) = meeting.filter(|_| is_on(walk, since)) {
                    copies += usize::from(!is_marked && !meeting.has_copy);
                    is_marked = !meeting.is_last;
                }
            }
            let is_due = [a, b].contains(&&[Some(1), Some(1)]);
            assert!(copies <= 1, "{copies} copies: {a:?}, {b:?}");
            assert!(copies == 1 || !is_due, "no copy: {a:?}, {b:?}");
        }
    }

    #[test]
    fn a_reach_can_be_written_down() {
        for reach in [
            Reach::Topic(topic("news")),
            reach("!('a' in topics) && 'b' in topics"),
        ] {
            assert_eq!(Reach::from_text(&reach.to_text()), Some(reach));
        }
        for text in ["", "topic", "topic a b", "condition 'a'", "tokens a"] {
            assert_eq!(Reach::from_text(text), None);
        }
    }
}
