//! Which fan-outs must wait for which: those to the same topic or condition of a project go one
//! after another. No clock, no I/O.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use crate::actors::FastMap;
use crate::push::MessageId;
use crate::token::ProjectHash;
use crate::topic::FanOut;

/// What those share that must go one after another. Two that share it by chance wait for nothing,
/// which does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(u64);

impl Lane {
    /// The lane of a fan-out.
    pub fn of(fan_out: &FanOut) -> Self {
        let ProjectHash(project) = fan_out.project;
        Self::named(&(project, fan_out.reach.to_text()))
    }

    /// A lane of its own.
    pub fn alone(message_id: MessageId) -> Self {
        Self::named(&message_id)
    }

    fn named(name: &impl std::hash::Hash) -> Self {
        Self(BuildHasherDefault::<DefaultHasher>::default().hash_one(name))
    }
}

/// All lanes in which something is on its way, with those that wait.
#[derive(Debug, Default)]
pub struct Lanes(FastMap<Lane, VecDeque<MessageId>>);

impl Lanes {
    /// One more; it is given back if it may begin.
    pub fn enter(&mut self, lane: Lane, message_id: MessageId) -> Option<(MessageId, Lane)> {
        match self.0.entry(lane) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(message_id);
                None
            }
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some((message_id, lane))
            }
        }
    }

    /// The one on its way has ended; the next may begin.
    pub fn leave(&mut self, lane: Lane) -> Option<(MessageId, Lane)> {
        let next = self.0.get_mut(&lane)?.pop_front();
        if next.is_none() {
            self.0.remove(&lane);
        }
        next.map(|message_id| (message_id, lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_lets_one_go_at_a_time_in_order() {
        let ids: Vec<MessageId> = (1..=4).map(MessageId::generate).collect();
        let (news, sport) = (Lane(1), Lane(2));
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter(news, ids[0]), Some((ids[0], news)));
        assert_eq!(lanes.enter(news, ids[1]), None);
        assert_eq!(lanes.enter(news, ids[2]), None);
        assert_eq!(lanes.enter(sport, ids[3]), Some((ids[3], sport)));
        assert_eq!(lanes.leave(news), Some((ids[1], news)));
        assert_eq!(lanes.leave(news), Some((ids[2], news)));
        assert_eq!(lanes.leave(news), None);
        assert_eq!(lanes.leave(sport), None);
        assert!(lanes.0.is_empty(), "an idle lane costs nothing");
        assert_eq!(lanes.leave(news), None);
    }
}
