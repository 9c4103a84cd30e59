//! From where on the time indexes have to be swept.
//!
//! What was swept leaves tombstones at the front of its index until the engine has merged them away. To
//! read over them again each second would cost more and more, the more expires.

use std::sync::atomic::{AtomicU32, Ordering};

use super::record::kind;

/// For each time index the earliest second that may have an entry: 0 in a store that was just opened.
#[derive(Debug, Default)]
pub(super) struct Unswept {
    wakes: AtomicU32,
    answer_ends: AtomicU32,
}

impl Unswept {
    /// Where a sweep of an index begins. It tells afterwards from where on it has left entries, with
    /// [`Self::note`].
    pub(super) fn begin(&self, index: u8) -> u32 {
        let earliest = self.earliest(index);
        earliest.map_or(0, |earliest| earliest.swap(u32::MAX, Ordering::AcqRel))
    }

    /// There are entries from this second on. A new one is noted when it can be read, or a sweep that is on
    /// its way would miss it and forget the note.
    pub(super) fn note(&self, index: u8, second: u32) {
        if let Some(earliest) = self.earliest(index) {
            earliest.fetch_min(second, Ordering::AcqRel);
        }
    }

    fn earliest(&self, index: u8) -> Option<&AtomicU32> {
        match index {
            kind::WAKE => Some(&self.wakes),
            kind::ANSWER_END => Some(&self.answer_ends),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_begins_at_the_earliest_of_what_is_left_and_what_is_new() {
        let unswept = Unswept::default();
        assert_eq!(unswept.begin(kind::WAKE), 0);
        unswept.note(kind::WAKE, 100);
        unswept.note(kind::WAKE, 40);
        unswept.note(kind::WAKE, 70);
        assert_eq!(unswept.begin(kind::WAKE), 40);
        assert_eq!(unswept.begin(kind::ANSWER_END), 0, "each has its own");
    }
}
