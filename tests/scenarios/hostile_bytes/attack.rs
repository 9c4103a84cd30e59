//! One hostile client: what it sends, how the server must end that, and how it went.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How a client sends.
#[derive(Clone)]
pub enum Speech {
    /// Everything at once, and nothing more.
    Once(Vec<u8>),
    /// One byte after the other, slowly.
    Drip(Vec<u8>),
    /// A beginning, and then the same again and again.
    Forever(Vec<u8>, Vec<u8>),
    /// Likewise, by one who never reads.
    Deaf(Vec<u8>, Vec<u8>),
}

/// How the server ends it. In each case the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With nothing more to be said, or it cannot be heard.
    Cut,
    /// After exactly one HTTP answer, of this status.
    Answer(u16),
    /// After an HTTP/2 GOAWAY with this code.
    GoAway(u32),
    /// After a WebSocket close with this code.
    Close(u16),
}

/// What is sent, and what must come of it.
#[derive(Clone)]
pub struct Case {
    pub what: &'static str,
    pub speech: Speech,
    pub end: End,
}

/// A case in one line.
pub fn case(what: &'static str, speech: Speech, end: End) -> Case {
    Case { what, speech, end }
}

/// What a client saw of the server.
pub struct Heard {
    /// The first of what came: as much as any answer has.
    bytes: Vec<u8>,
    /// How long it took until the connection was closed.
    pub took: Duration,
}

const KEPT_BYTES_MAX: usize = 256 * 1024;

/// Between the bytes of one who drips.
const DRIP_EVERY: Duration = Duration::from_millis(50);

/// Sends until the server has closed; between two rounds of the same a client rests for `pause`.
pub async fn play(address: &str, speech: &Speech, pause: Duration) -> Heard {
    let started = Instant::now();
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut from, mut to) = stream.into_split();
    let is_deaf = matches!(speech, Speech::Deaf(..));
    let write = async {
        // An error tells that the server has closed; who reads sees it there, too.
        let _ = say(&mut to, speech, pause).await;
        if !is_deaf {
            std::future::pending::<()>().await;
        }
    };
    let mut bytes = Vec::new();
    let read = async {
        if is_deaf {
            std::future::pending::<()>().await;
        }
        let mut piece = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            if bytes.len() < KEPT_BYTES_MAX {
                bytes.extend_from_slice(&piece[..count]);
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    Heard {
        bytes,
        took: started.elapsed(),
    }
}

async fn say(
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    speech: &Speech,
    pause: Duration,
) -> std::io::Result<()> {
    match speech {
        Speech::Once(bytes) => to.write_all(bytes).await,
        Speech::Drip(bytes) => {
            for byte in bytes {
                to.write_all(&[*byte]).await?;
                tokio::time::sleep(DRIP_EVERY).await;
            }
            Ok(())
        }
        Speech::Forever(head, again) | Speech::Deaf(head, again) => {
            to.write_all(head).await?;
            loop {
                to.write_all(again).await?;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl Heard {
    /// Whether it ended as it must, else why not.
    pub fn judge(&self, case: &Case) -> Result<(), String> {
        let is_endless = matches!(case.speech, Speech::Forever(..));
        let is_as_expected = match case.end {
            End::Cut => true,
            // A server that closes on somebody who still sends may destroy its last words. On a busy
            // machine a deadline may be quicker than a size.
            _ if is_endless && (self.bytes.is_empty() || self.statuses() == [408]) => true,
            End::Answer(status) => self.statuses() == [status],
            End::GoAway(code) => self.goaway() == Some(code),
            End::Close(code) => self.close_code() == Some(code),
        };
        let heard = || {
            let text = String::from_utf8_lossy(&self.bytes).into_owned();
            let start = text.chars().take(300).collect::<String>();
            format!("{}: not {:?}: {start:?}", case.what, case.end)
        };
        is_as_expected.then_some(()).ok_or_else(heard)
    }

    /// The status of each HTTP answer.
    fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.bytes);
        let statuses = text.split("HTTP/1.1 ").skip(1);
        statuses
            .filter_map(|rest| rest.get(..3)?.parse().ok())
            .collect()
    }

    /// The code of the last GOAWAY.
    fn goaway(&self) -> Option<u32> {
        let (mut rest, mut code) = (self.bytes.as_slice(), None);
        while let Some((&[high, middle, low, kind, ..], after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            let payload = after.get(..length)?;
            if kind == super::h2::GOAWAY {
                code = payload.get(4..8)?.try_into().ok().map(u32::from_be_bytes);
            }
            rest = &after[length..];
        }
        code
    }

    /// The code of the close frame that comes last.
    fn close_code(&self) -> Option<u16> {
        let upgraded = self.bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
        let (mut rest, mut code) = (&self.bytes[upgraded + 4..], None);
        while let Some((&[first, second], after)) = rest.split_first_chunk::<2>() {
            let (length, after) = match second {
                126 => {
                    let (length, after) = after.split_first_chunk::<2>()?;
                    (usize::from(u16::from_be_bytes(*length)), after)
                }
                length => (usize::from(length), after),
            };
            let payload = after.get(..length)?;
            if first == 0x88 {
                code = payload.first_chunk().copied().map(u16::from_be_bytes);
            }
            rest = &after[length..];
        }
        code
    }
}
