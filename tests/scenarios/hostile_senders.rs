//! Senders that mean harm: what they send costs next to no time and no memory.

use std::time::{Duration, Instant};

use reqwest::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Server, soon};

/// What any body may take of the server's time, even of one that is not optimised, on a busy machine.
const TIME_MAX: Duration = Duration::from_millis(250);

/// Each body is sent this often, and the quickest time counts: the machine may be busy.
const ROUNDS: usize = 10;

/// What the process may have more afterwards.
const MEMORY_MAX: f64 = 16.0 * 1024.0 * 1024.0;

/// Sends a body again and again; how long the quickest answer took, which must have this status.
async fn quickest(server: &Server, status: u16, body: impl Fn() -> Body) -> Duration {
    let url = server.url("/v1/projects/demo/messages:send");
    let mut quickest = Duration::MAX;
    for _ in 0..ROUNDS {
        let request = server.http().post(&url).bearer_auth(server.service_token());
        let request = request.header("Content-Type", "application/json");
        let started = Instant::now();
        // A server that has seen enough may close while the rest is still on its way.
        if let Ok(answer) = request.body(body()).send().await {
            assert_eq!(answer.status().as_u16(), status);
            quickest = quickest.min(started.elapsed());
        }
    }
    quickest
}

/// The same for a body that does not say how long it is: the byte beyond the limit is one too many.
async fn without_a_length(server: &Server, body: &[u8]) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..ROUNDS {
        let stream = TcpStream::connect(server.listen()).await;
        let (mut from, mut to) = stream.expect("a connection").into_split();
        let head = format!(
            "POST /v1/projects/demo/messages:send HTTP/1.1\r\nHost: herald\r\n\
             Authorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            server.service_token()
        );
        let write = async {
            to.write_all(head.as_bytes()).await?;
            for piece in body.chunks(16 * 1024) {
                to.write_all(format!("{:x}\r\n", piece.len()).as_bytes())
                    .await?;
                to.write_all(piece).await?;
                to.write_all(b"\r\n").await?;
            }
            // Nothing more is said, so it is the server that ends this.
            std::future::pending::<std::io::Result<()>>().await
        };
        let read = async {
            let mut status = [0; 12];
            from.read_exact(&mut status).await.map(|_| status)
        };
        let started = Instant::now();
        // The answer may be lost when the server closes while bytes are on their way.
        let answer = soon("an end", async {
            tokio::pin!(read);
            tokio::select! {
                answer = &mut read => answer,
                _ = write => read.await,
            }
        });
        if let Ok(status) = answer.await {
            assert_eq!(&status, b"HTTP/1.1 413");
            quickest = quickest.min(started.elapsed());
        }
    }
    quickest
}

#[tokio::test]
async fn deep_large_and_bracketed_bodies_cost_nothing() {
    const DEPTH: usize = 100_000;
    let server = Server::start().await;
    let resident = "process_resident_memory_bytes";
    let before = server.metric(resident).await;
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}0{}", open.repeat(depth), close.repeat(depth))
    };
    let message = |member: String| format!(r#"{{"message":{{"token":"t",{member}}}}}"#);
    let condition = |depth: usize| {
        let condition = nested("(", ")", depth).replace('0', "'a' in topics");
        format!(r#"{{"message":{{"condition":"{condition}"}}}}"#)
    };
    let large = " ".repeat(4 << 20);
    for (what, status, body) in [
        ("lists, beyond the limit", 413, nested("[", "]", DEPTH)),
        (
            "objects, beyond the limit",
            413,
            message(format!(r#""data":{}"#, nested(r#"{"a":"#, "}", DEPTH))),
        ),
        // As deep as fits.
        ("lists", 400, nested("[", "]", 32_000)),
        ("lists without an end", 400, "[".repeat(65_000)),
        (
            "objects",
            400,
            message(format!(
                r#""apns":{{"payload":{}}}"#,
                nested(r#"{"a":"#, "}", 10_000)
            )),
        ),
        ("4 MB", 413, large.clone()),
        // One that is right, however many brackets it has.
        ("a condition", 200, condition(10_000)),
        (
            "a condition without an end",
            400,
            format!(r#"{{"message":{{"condition":"{}"}}}}"#, "!(".repeat(30_000)),
        ),
    ] {
        let took = quickest(&server, status, || body.clone().into()).await;
        println!("{what}: {took:?}");
        assert!(took < TIME_MAX, "{what} took {took:?}");
    }
    let took = without_a_length(&server, large.as_bytes()).await;
    assert!(took < TIME_MAX, "4 MB of unknown length took {took:?}");
    let grown = server.metric(resident).await - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes more than before");
}
