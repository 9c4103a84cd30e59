//! What became of every send, as its sender saw it, held against what arrived.

use crate::arrivals::SendSet;

/// How a send ended for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200: must arrive.
    Accepted,
    /// Any other answer but 504: must not arrive.
    Refused,
    /// 504, or no answer: may arrive.
    Unknown,
}

/// The account of all sends of a run, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    begun: u64,
    accepted: SendSet,
    refused: SendSet,
    unknown: u64,
}

/// The ledger held against the arrivals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted, but never arrived.
    pub lost: u64,
    /// Refused, and arrived all the same.
    pub invented: u64,
}

impl Ledger {
    /// The number of the next send.
    pub fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun - 1
    }

    /// Send `number` is over.
    pub fn settle(&mut self, number: u64, outcome: Outcome) {
        match outcome {
            Outcome::Accepted => drop(self.accepted.insert(number)),
            Outcome::Refused => drop(self.refused.insert(number)),
            Outcome::Unknown => self.unknown += 1,
        }
    }

    /// Sends begun.
    pub fn sent(&self) -> u64 {
        self.begun
    }

    /// Sends accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.len()
    }

    /// Sends refused.
    pub fn refused(&self) -> u64 {
        self.refused.len()
    }

    /// Sends whose outcome nobody knows.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Holds the account against everything that arrived.
    pub fn judge(&self, arrived: &SendSet) -> Verdict {
        let arrived_of = |sends: &SendSet| sends.clone().merge(arrived);
        Verdict {
            lost: self.accepted.len() - arrived_of(&self.accepted),
            invented: arrived_of(&self.refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_inventions_are_found_and_unknown_sends_excused() {
        let mut ledger = Ledger::default();
        let outcomes = [
            Outcome::Accepted,
            Outcome::Accepted,
            Outcome::Refused,
            Outcome::Refused,
            Outcome::Unknown,
            Outcome::Unknown,
        ];
        for outcome in outcomes {
            let number = ledger.begin();
            ledger.settle(number, outcome);
        }
        assert_eq!((ledger.sent(), ledger.accepted()), (6, 2));
        assert_eq!((ledger.refused(), ledger.unknown()), (2, 2));

        let mut arrived = SendSet::default();
        for number in [0, 1, 4] {
            arrived.insert(number);
        }
        assert_eq!(ledger.judge(&arrived), Verdict::default());
        arrived = SendSet::default();
        for number in [1, 2, 5] {
            arrived.insert(number);
        }
        let verdict = Verdict {
            lost: 1,
            invented: 1,
        };
        assert_eq!(ledger.judge(&arrived), verdict);
    }
}
