//! As much of the CQL protocol as it takes to ask a node one question.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Version 4 of the protocol, a request.
const REQUEST: u8 = 0x04;

/// The same, an answer.
const ANSWER: u8 = 0x84;

const STARTUP: u8 = 0x01;
const READY: u8 = 0x02;
const QUERY: u8 = 0x07;
const RESULT: u8 = 0x08;

/// What we ask for fits in much less.
const ANSWER_BYTES_MAX: u32 = 1024 * 1024;

/// Consistency levels that are numbers of replicas have the codes 1, 2 and 3.
pub(super) const REPLICAS_ASKED_MAX: u16 = 3;

/// Asks a node for something that so many replicas must agree to, at most
/// [`REPLICAS_ASKED_MAX`]; the bytes of the result.
///
/// # Errors
/// It does not listen, or answers with an error.
pub(super) async fn ask(node: SocketAddr, query: &str, replicas: u16) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    let mut startup = 1_u16.to_be_bytes().to_vec();
    for word in ["CQL_VERSION", "3.0.0"] {
        startup.extend(u16::try_from(word.len())?.to_be_bytes());
        startup.extend(word.as_bytes());
    }
    exchange(&mut stream, STARTUP, &startup, READY).await?;
    let mut question = u32::try_from(query.len())?.to_be_bytes().to_vec();
    question.extend(query.as_bytes());
    question.extend(replicas.min(REPLICAS_ASKED_MAX).to_be_bytes());
    // No flags: no values, no pages.
    question.push(0);
    let answer = exchange(&mut stream, QUERY, &question, RESULT).await;
    answer.with_context(|| format!("{node}: {query}"))
}

/// One request and its answer, which must be of this kind.
async fn exchange(
    stream: &mut TcpStream,
    request: u8,
    body: &[u8],
    expected: u8,
) -> anyhow::Result<Vec<u8>> {
    // Version, flags, stream (two bytes), kind, length.
    let mut frame = vec![REQUEST, 0, 0, 0, request];
    frame.extend(u32::try_from(body.len())?.to_be_bytes());
    frame.extend(body);
    stream.write_all(&frame).await?;
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let length = stream.read_u32().await?;
    let [version, _, _, _, kind] = header;
    ensure!(version == ANSWER, "no CQL: {header:?}");
    ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
    let mut answer = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut answer).await?;
    if kind != expected {
        // An error is a code, a length of two bytes, and a text.
        let text = answer.get(6..).unwrap_or_default();
        bail!("answer {kind}: {}", String::from_utf8_lossy(text));
    }
    Ok(answer)
}
