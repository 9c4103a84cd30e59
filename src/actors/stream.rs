//! The byte streams that sessions run over, and which of them can park.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What a session needs of its stream. Anything that is read and written will do; only a plain TCP
/// stream can leave the runtime and come back.
pub trait DeviceStream: AsyncRead + AsyncWrite + Unpin + Sized + 'static {
    /// What is left of it while it is parked.
    type Parked: 'static;

    /// Takes the stream off the runtime.
    ///
    /// # Errors
    /// It stays awake, or it broke on the way.
    fn park(self) -> Result<Self::Parked, NotParked<Self>>;

    /// Tells by which descriptor it is seen that a parked stream has something to say. `None` for
    /// one without, such as a simulation's: only the server's own events wake its session.
    fn descriptor(parked: &Self::Parked) -> Option<BorrowedFd<'_>>;

    /// Puts a parked stream back on the runtime of this thread.
    ///
    /// # Errors
    /// When the runtime cannot watch the descriptor.
    fn wake(parked: Self::Parked) -> io::Result<Self>;
}

/// Why a stream did not leave the runtime.
#[derive(Debug)]
pub enum NotParked<S> {
    /// It is of a kind that cannot.
    Stays(S),
    /// It broke: the session is over.
    Broken(io::Error),
}

/// A connection of the public listener.
#[derive(Debug)]
pub enum Connection {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS that ends in this process. Its keys and buffers live in user space, so it never parks.
    Tls(Box<TlsStream<TcpStream>>),
}

impl DeviceStream for Connection {
    type Parked = OwnedFd;

    fn park(self) -> Result<OwnedFd, NotParked<Self>> {
        match self {
            Self::Plain(stream) => stream
                .into_std()
                .map(OwnedFd::from)
                .map_err(NotParked::Broken),
            Self::Tls(_) => Err(NotParked::Stays(self)),
        }
    }

    fn descriptor(parked: &OwnedFd) -> Option<BorrowedFd<'_>> {
        Some(parked.as_fd())
    }

    fn wake(parked: OwnedFd) -> io::Result<Self> {
        // The descriptor is still in non-blocking mode: parking does not change it.
        TcpStream::from_std(parked.into()).map(Self::Plain)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
