//! Where the sockets of parked sessions wait: one epoll set a worker, itself one descriptor in the
//! worker's runtime. Only the owning worker touches it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll;
use tokio::io::unix::AsyncFd;

use crate::actors::registry::SessionKey;

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 256;

/// The parked sockets of one worker.
#[derive(Debug)]
pub struct ParkingLot {
    set: AsyncFd<OwnedFd>,
}

impl ParkingLot {
    /// An empty set, watched by the runtime of this thread.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { set: watch(set)? })
    }

    /// Watches a socket until something can be read from it, or its peer is gone; then it is named
    /// by [`Self::readable`] once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, socket: BorrowedFd<'_>, session: SessionKey) -> io::Result<()> {
        let data = epoll::EventData::new_u64(session.to_bits());
        let interest =
            epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        Ok(epoll::add(self.set.get_ref(), socket, data, interest)?)
    }

    /// Stops watching. Must be called before the socket goes back to the runtime.
    ///
    /// # Errors
    /// When the socket is not in the set.
    pub fn remove(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(self.set.get_ref(), socket)?)
    }

    /// Waits for sockets to have something to say.
    ///
    /// # Errors
    /// When the set itself is broken, which ends the worker's service of parked sessions.
    pub async fn readable(&self) -> io::Result<Vec<SessionKey>> {
        let nothing = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        loop {
            let mut ready = self.set.readable().await?;
            let mut events = Vec::with_capacity(EVENTS_MAX);
            match epoll::wait(
                self.set.get_ref(),
                rustix::buffer::spare_capacity(&mut events),
                Some(&nothing),
            ) {
                // Only an empty set may be called quiet: the runtime hears of edges.
                Ok(0) => ready.clear_ready(),
                Ok(_) => {
                    let keys = events
                        .iter()
                        .map(|event| SessionKey::from_bits(event.data.u64()));
                    return Ok(keys.collect());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd that AsyncFd owns is sound"
)]
fn watch(set: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(set)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[actix_web::test]
    async fn a_parked_socket_is_named_when_its_peer_speaks_and_only_once() {
        let lot = ParkingLot::new().expect("a set");
        let (mut peer, parked) = UnixStream::pair().expect("a pair");
        let parked = OwnedFd::from(parked);
        lot.add(parked.as_fd(), SessionKey::from_bits(7))
            .expect("added");
        peer.write_all(b"x").expect("written");
        assert_eq!(
            lot.readable().await.expect("events"),
            [SessionKey::from_bits(7)]
        );
        let (mut other_peer, other) = UnixStream::pair().expect("a pair");
        let other = OwnedFd::from(other);
        lot.add(other.as_fd(), SessionKey::from_bits(8))
            .expect("added");
        other_peer.write_all(b"x").expect("written");
        let named = lot.readable().await.expect("events");
        assert_eq!(
            named,
            [SessionKey::from_bits(8)],
            "the first one has fired already"
        );
        lot.remove(parked.as_fd()).expect("removed");
    }

    #[actix_web::test]
    async fn a_vanished_peer_is_noticed() {
        let lot = ParkingLot::new().expect("a set");
        let (peer, parked) = UnixStream::pair().expect("a pair");
        let parked = OwnedFd::from(parked);
        lot.add(parked.as_fd(), SessionKey::from_bits(9))
            .expect("added");
        drop(peer);
        assert_eq!(
            lot.readable().await.expect("events"),
            [SessionKey::from_bits(9)]
        );
    }
}
