//! The byte streams that sessions run over, and which of them can park.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

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

impl Connection {
    /// A device is heard of in its own time: from now on only its session judges its silence.
    pub fn wait_for_device(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // At worst a device without a network has to connect again.
        let _ = give_up_after(stream, None);
    }
}

/// Has the kernel end a connection whose peer leaves what was sent to it untaken or unconfirmed for
/// so long; by default it waits for a quarter of an hour, and for ever for one that confirms but
/// does not read.
///
/// # Errors
/// When the kernel refuses.
pub fn give_up_after(stream: &TcpStream, patience: Option<Duration>) -> io::Result<()> {
    let millis = patience.map_or(0, |patience| patience.as_millis());
    let millis = u32::try_from(millis).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?)
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
