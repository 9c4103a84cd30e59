//! What happened, counted: a fault that never happens proves nothing.

use herald_protocol::CloseCode;

/// The counts of one seed, or of all.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    pub sends: u64,
    pub to_many: u64,
    /// Copies that were not made again after a crash.
    pub repeated: u64,
    pub stored: u64,
    pub refused: u64,
    pub unknown: u64,
    pub shown: u64,
    pub shown_again: u64,
    /// Pushes that nobody was shown in time.
    pub expired: u64,
    pub replaced: u64,
    pub dropped: u64,
    pub told_dropped: u64,
    pub polls: u64,
    pub sockets: u64,
    pub takeovers: u64,
    pub silent: u64,
    pub without_hello: u64,
    pub slow: u64,
    /// Deliveries that found a mailbox full.
    pub shed: u64,
    pub crashes: u64,
    pub faults: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for (sum, more) in self.all_mut().into_iter().zip(other.all_mut()) {
            *sum += *more;
        }
    }

    /// The server has closed a socket.
    pub fn closed(&mut self, code: u16) {
        let is = |other: CloseCode| code == other.as_u16();
        match code {
            _ if is(CloseCode::Replaced) => self.takeovers += 1,
            _ if is(CloseCode::Silent) => self.silent += 1,
            _ if is(CloseCode::NoHello) => self.without_hello += 1,
            _ => {
                let is_ours = is(CloseCode::Normal) || is(CloseCode::TryAgainLater);
                assert!(is_ours, "closed with {code}");
            }
        }
    }

    fn all_mut(&mut self) -> [&mut u64; 21] {
        [
            &mut self.sends,
            &mut self.to_many,
            &mut self.repeated,
            &mut self.stored,
            &mut self.refused,
            &mut self.unknown,
            &mut self.shown,
            &mut self.shown_again,
            &mut self.expired,
            &mut self.replaced,
            &mut self.dropped,
            &mut self.told_dropped,
            &mut self.polls,
            &mut self.sockets,
            &mut self.takeovers,
            &mut self.silent,
            &mut self.without_hello,
            &mut self.slow,
            &mut self.shed,
            &mut self.crashes,
            &mut self.faults,
        ]
    }

    pub fn assert_all_happened(mut self) {
        let story = format!("{self:?}");
        assert!(self.all_mut().iter().all(|count| **count > 0), "{story}");
    }
}
