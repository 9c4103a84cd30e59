//! A socket that is two buffers in memory: it takes as few bytes at a time as it is told to hold.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use herald::actors::stream::{DeviceStream, NotParked};
use herald::clock::{Clock, Millis};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// The server's end. It has no descriptor, so its session never parks: the set of parked sockets
/// belongs to the kernel, which knows nothing of virtual time.
pub struct Pipe {
    pub stream: DuplexStream,
    pub clock: Clock,
    pub handed_over: Rc<RefCell<HandedOver>>,
}

/// When the server has handed over its bytes.
#[derive(Default)]
pub struct HandedOver {
    /// Up to which byte, and when at the earliest.
    stretches: VecDeque<(u64, Millis)>,
    bytes: u64,
    /// Since when bytes may have waited for room: until all have gone, nobody can tell when the
    /// server gave up one or the other.
    waiting_since: Option<Millis>,
    read: u64,
}

impl HandedOver {
    fn note(&mut self, offered: usize, taken: usize, now: Millis) {
        let since = *self.waiting_since.get_or_insert(now);
        if taken > 0 {
            self.bytes += taken as u64;
            self.stretches.push_back((self.bytes, since));
        }
        if taken == offered {
            self.waiting_since = None;
        }
    }

    /// The device has read a message of so many bytes: when it was handed over, at the earliest.
    pub fn read(&mut self, message: usize) -> Millis {
        while self.stretches.front().is_some_and(|it| it.0 <= self.read) {
            self.stretches.pop_front();
        }
        // As the server frames them: not masked, and never in pieces.
        let header = if message < 126 { 2 } else { 4 };
        self.read += header + message as u64;
        self.stretches.front().expect("it was written").1
    }
}

impl DeviceStream for Pipe {
    type Parked = Infallible;

    fn park(self) -> Result<Infallible, NotParked<Self>> {
        Err(NotParked::Stays(self))
    }

    fn descriptor(parked: &Infallible) -> Option<BorrowedFd<'_>> {
        match *parked {}
    }

    fn wake(parked: Infallible) -> io::Result<Self> {
        match parked {}
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes)?;
        let taken = match written {
            Poll::Ready(taken) => taken,
            Poll::Pending => 0,
        };
        let (now, mut handed_over) = (self.clock.now(), self.handed_over.borrow_mut());
        handed_over.note(bytes.len(), taken, now);
        drop(handed_over);
        written.map(Ok)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
