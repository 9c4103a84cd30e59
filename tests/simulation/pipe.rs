//! A socket that is two buffers in memory: it takes as few bytes at a time as it is told to hold.

use std::convert::Infallible;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use herald::actors::stream::{DeviceStream, NotParked};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// The server's end. It has no descriptor, so its session never parks: the set of parked sockets
/// belongs to the kernel, which knows nothing of virtual time.
pub struct Pipe(pub DuplexStream);

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
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
