//! What may be asked of a run, and cards that are dealt at random.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

/// `TORTURE_SEED`, or any number.
pub fn seed() -> u64 {
    asked_for("TORTURE_SEED").unwrap_or_else(rand::random)
}

/// `TORTURE_FOR`, in seconds, or a short time.
pub fn length(short: Duration) -> Duration {
    asked_for("TORTURE_FOR").map_or(short, Duration::from_secs)
}

fn asked_for(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Each card comes as often as it is in the deck, before the deck is shuffled anew.
pub struct Deck<Card> {
    all: Vec<Card>,
    left: Vec<Card>,
    dealt: BTreeMap<Card, usize>,
}

impl<Card: Copy + Ord> Deck<Card> {
    /// Cards, and how often each is in the deck.
    pub fn of(cards: &[(Card, usize)]) -> Self {
        let cards = cards.iter();
        let all = cards.flat_map(|(card, times)| std::iter::repeat_n(*card, *times));
        Self {
            all: all.collect(),
            left: Vec::new(),
            dealt: BTreeMap::new(),
        }
    }

    pub fn deal(&mut self, random: &mut SmallRng) -> Card {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.left.shuffle(random);
        }
        let card = self.left.pop().expect("a deck has cards");
        *self.dealt.entry(card).or_default() += 1;
        card
    }

    /// How often each was dealt.
    pub fn dealt(&self) -> &BTreeMap<Card, usize> {
        &self.dealt
    }
}
