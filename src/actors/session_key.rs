//! The eight bytes by which routers know a session, instead of an address that costs allocations.

/// Names one session of this node: its worker, its seat, and a serial number that tells the seat's
/// holders apart. 4 billion sessions of one worker pass before a number comes again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(u64);

const SERIAL_BITS: u32 = 32;
const SEAT_BITS: u32 = 24;

/// Workers that session keys can name.
pub const WORKERS_MAX: usize = 1 << (u64::BITS - SERIAL_BITS - SEAT_BITS);

/// Sessions that one worker can seat.
pub const SEATS_MAX: usize = 1 << SEAT_BITS;

impl SessionKey {
    pub(super) fn new(worker: usize, seat: usize, serial: u32) -> Self {
        Self(
            (worker as u64) << (SERIAL_BITS + SEAT_BITS)
                | (seat as u64) << SERIAL_BITS
                | u64::from(serial),
        )
    }

    /// The worker whose registry seats the session.
    #[must_use]
    pub fn worker(self) -> usize {
        (self.0 >> (SERIAL_BITS + SEAT_BITS)) as usize
    }

    pub(super) fn seat(self) -> usize {
        (self.0 >> SERIAL_BITS) as usize & (SEATS_MAX - 1)
    }

    pub(super) fn serial(self) -> u32 {
        self.0 as u32
    }

    /// The key as a number, for the kernel to keep.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The inverse of [`Self::to_bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}
