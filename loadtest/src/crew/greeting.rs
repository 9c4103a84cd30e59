//! From no connection to a greeted one: connect, upgrade, hello, welcome.

use std::time::Duration;

use anyhow::{Context as _, bail};
use herald_protocol::{CONNECT_PATH, DeviceFrame, Hello, ServerFrame, TokenCursor, Welcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tally::Crew;
use crate::http;
use crate::register::Identity;
use crate::websocket::{Incoming, Opcode, read_frame, read_upgrade, upgrade_request, write_frame};

/// From the first SYN to the welcome.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that has been greeted.
pub struct Greeted {
    /// The connection.
    pub stream: TcpStream,
    /// What came after the welcome.
    pub rest: Vec<u8>,
    /// How often the server wants to hear something.
    pub ping_interval: Duration,
    /// Up to where the token's log goes.
    pub syn_stored: u64,
}

/// Connects a device with its token.
pub async fn open(crew: &Crew, identity: &Identity, min_syn: u64) -> anyhow::Result<Greeted> {
    timeout(GREETING_TIMEOUT, greet(crew, identity, min_syn))
        .await
        .context("no welcome in time")?
}

async fn greet(crew: &Crew, identity: &Identity, min_syn: u64) -> anyhow::Result<Greeted> {
    let target = &crew.target;
    let mut stream = http::connect(target.server, crew.next_source())
        .await
        .context("connecting")?;
    let upgrade = upgrade_request(&target.host, CONNECT_PATH);
    stream.write_all(upgrade.as_bytes()).await?;
    let mut bytes = Vec::with_capacity(512);
    while !take_upgrade(&mut bytes)? {
        read_more(&mut stream, &mut bytes).await?;
    }
    stream.write_all(&hello(identity, min_syn)).await?;
    let welcome = loop {
        if let Some(welcome) = take_welcome(&mut bytes)? {
            break welcome;
        }
        read_more(&mut stream, &mut bytes).await?;
    };
    let state = welcome.tokens.first();
    if let Some(error) = state.and_then(|token| token.error.as_ref()) {
        bail!("the welcome refuses the token: {error}");
    }
    let syn_stored = state.and_then(|token| token.syn_stored).unwrap_or(0);
    bytes.shrink_to_fit();
    Ok(Greeted {
        stream,
        rest: bytes,
        ping_interval: Duration::from_millis(welcome.ping_interval_ms.max(1)),
        syn_stored,
    })
}

/// Takes the answer to the upgrade off the front of `bytes`; false when more must come.
fn take_upgrade(bytes: &mut Vec<u8>) -> anyhow::Result<bool> {
    match read_upgrade(bytes) {
        Ok(Some(taken)) => {
            bytes.drain(..taken);
            Ok(true)
        }
        Ok(None) => Ok(false),
        Err(broken) => {
            let head = String::from_utf8_lossy(bytes);
            bail!("{}: {}", broken.0, head.lines().next().unwrap_or_default())
        }
    }
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    if stream.read_buf(bytes).await? == 0 {
        bail!("the connection ended before the welcome");
    }
    Ok(())
}

fn hello(identity: &Identity, min_syn: u64) -> Vec<u8> {
    let hello = DeviceFrame::Hello(Hello {
        device_id: Some(identity.device_id.clone()),
        device_secret: Some(identity.device_secret.clone()),
        tokens: vec![TokenCursor {
            token: identity.token.clone(),
            min_syn,
        }],
        client: Some(concat!("swarm/", env!("CARGO_PKG_VERSION")).to_owned()),
    });
    let mut frame = Vec::new();
    write_frame(&mut frame, Opcode::Text, hello.to_text().as_bytes());
    frame
}

/// Takes the welcome off the front of `bytes`, once it is whole.
fn take_welcome(bytes: &mut Vec<u8>) -> anyhow::Result<Option<Welcome>> {
    let Some((frame, taken)) =
        read_frame(bytes).map_err(|broken| anyhow::anyhow!("{}", broken.0))?
    else {
        return Ok(None);
    };
    let welcome = match frame {
        Incoming::Text(text) => match ServerFrame::parse(text)? {
            ServerFrame::Welcome(welcome) => welcome,
            other => bail!("not a welcome: {}", other.to_text()),
        },
        Incoming::Close(code, reason) => bail!("closed with {code} {reason}"),
        Incoming::Ping(_) | Incoming::Pong => bail!("not a welcome"),
    };
    bytes.drain(..taken);
    Ok(Some(welcome))
}
