//! A map for tables with an entry for every token or device: it keeps entries side by side and grows
//! by an eighth. A plain hash map doubles, and is half empty on the day after.
//!
//! Beside each entry it takes five bytes to ten for its place.

use std::hash::Hash;

use ahash::RandomState;
use hashbrown::HashTable;

/// It grows by this part of what it holds.
const GROWTH_SHARE: usize = 8;

/// But by so many entries at least.
const GROWTH_MIN: usize = 4;

/// A map without order. It holds at most `u32::MAX` entries: insertions beyond are lost.
#[derive(Debug)]
pub struct DenseMap<K, V> {
    entries: Vec<(K, V)>,
    /// Where in `entries` the keys are.
    places: HashTable<u32>,
    hasher: RandomState,
}

impl<K, V> Default for DenseMap<K, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            places: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<K: Hash + Eq, V> DenseMap<K, V> {
    /// How many entries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.entries.iter()
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// Whether there is a value under a key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_some()
    }

    /// The value under a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let (_, value) = self.entries.get(self.place(key)?)?;
        Some(value)
    }

    /// The value under a key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(key)?;
        let (_, value) = self.entries.get_mut(place)?;
        Some(value)
    }

    /// Puts a value under a key; returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(held) = self.get_mut(&key) {
            return Some(std::mem::replace(held, value));
        }
        let place = u32::try_from(self.entries.len()).ok()?;
        if self.entries.len() == self.entries.capacity() {
            let growth = (self.entries.len() / GROWTH_SHARE).max(GROWTH_MIN);
            self.entries.reserve_exact(growth);
        }
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = hasher.hash_one(&key);
        let hash_of = |place: &u32| hash_at(entries, hasher, *place);
        self.places.insert_unique(hash, place, hash_of);
        self.entries.push((key, value));
        None
    }

    /// Takes out the value under a key.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let entries = &self.entries;
        let is_here = |place: &u32| key_at(entries, *place) == Some(key);
        let (place, _) = self.places.find_entry(hash, is_here).ok()?.remove();
        let last = u32::try_from(self.entries.len() - 1).ok()?;
        if place != last {
            // The last entry moves into the gap.
            let hash = hash_at(&self.entries, &self.hasher, last);
            if let Some(moved) = self.places.find_mut(hash, |at| *at == last) {
                *moved = place;
            }
        }
        let (_, value) = self.entries.swap_remove(index(place));
        Some(value)
    }

    /// Keeps only what `is_kept` wants.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&K, &V) -> bool) {
        let mut kept = Self::default();
        for (key, value) in std::mem::take(&mut self.entries) {
            if is_kept(&key, &value) {
                kept.insert(key, value);
            }
        }
        *self = kept;
    }

    fn place(&self, key: &K) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let is_here = |place: &u32| key_at(&self.entries, *place) == Some(key);
        self.places.find(hash, is_here).map(|place| index(*place))
    }
}

fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

fn key_at<K, V>(entries: &[(K, V)], place: u32) -> Option<&K> {
    entries.get(index(place)).map(|(key, _)| key)
}

fn hash_at<K: Hash, V>(entries: &[(K, V)], hasher: &RandomState, place: u32) -> u64 {
    key_at(entries, place).map_or(0, |key| hasher.hash_one(key))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u32),
        Remove(u8),
        Change(u8, u32),
        KeepEven,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (any::<u8>(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            5 => any::<u8>().prop_map(Step::Remove),
            2 => (any::<u8>(), any::<u32>()).prop_map(|(key, value)| Step::Change(key, value)),
            1 => Just(Step::KeepEven),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_map_does(steps in proptest::collection::vec(step(), 0..400)) {
            let (mut dense, mut plain) = (DenseMap::default(), HashMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        prop_assert_eq!(dense.insert(key, value), plain.insert(key, value));
                    }
                    Step::Remove(key) => {
                        prop_assert_eq!(dense.remove(&key), plain.remove(&key));
                    }
                    Step::Change(key, value) => {
                        let (ours, theirs) = (dense.get_mut(&key), plain.get_mut(&key));
                        prop_assert_eq!(&ours, &theirs);
                        if let (Some(ours), Some(theirs)) = (ours, theirs) {
                            (*ours, *theirs) = (value, value);
                        }
                    }
                    Step::KeepEven => {
                        dense.retain(|key, _| key % 2 == 0);
                        plain.retain(|key, _| key % 2 == 0);
                    }
                }
                prop_assert_eq!(dense.len(), plain.len());
                prop_assert_eq!(dense.is_empty(), plain.is_empty());
            }
            for key in 0..=u8::MAX {
                prop_assert_eq!(dense.get(&key), plain.get(&key));
                prop_assert_eq!(dense.contains_key(&key), plain.contains_key(&key));
            }
            let mut values: Vec<u32> = dense.values().copied().collect();
            let mut expected: Vec<u32> = plain.values().copied().collect();
            values.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(values, expected);
        }
    }

    #[test]
    fn it_never_holds_room_for_many_more_than_it_has() {
        let mut dense = DenseMap::default();
        for key in 0..10_000 {
            dense.insert(key, ());
            let room = dense.entries.capacity();
            assert!(room <= dense.len() + (dense.len() / GROWTH_SHARE).max(GROWTH_MIN));
        }
    }
}
