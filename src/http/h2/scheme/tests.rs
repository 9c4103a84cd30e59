//! Senders with a wrong `:scheme`, whose bytes come in any pieces, before the real `h2`.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::AsyncWriteExt as _;

use super::*;

const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

const END_STREAM: u8 = 0x01;

/// `https:` and `http:` in Huffman's code, as the sender writes them.
const HTTPS: &[u8] = b"\x85\x9d\x29\xad\x17\x3f";
const HTTP: &[u8] = b"\x84\x9d\x29\xae\xe7";

fn through(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
    let mut walker = Walker::default();
    let (mut held, mut out) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    for piece in pieces.iter().copied().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        held.extend_from_slice(now);
        let decided = walker.walk(&mut held);
        out.extend(held.drain(..decided));
        rest = later;
    }
    out.extend(held);
    out
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface, and one request with this field in it.
fn with_field(field: &[u8]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(SETTINGS);
    let block = [&[0x83], field, b"\x84\x41\x01a"].concat();
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    bytes
}

#[test]
fn a_colon_goes_wherever_the_bytes_are_cut() {
    for (wrong, right) in [(HTTPS, &b"\x05https"[..]), (HTTP, b"\x04http")] {
        for name in [0x46, 0x47, 0x06, 0x07, 0x16, 0x17] {
            let sent = with_field(&[&[name], wrong].concat());
            let expected = with_field(&[&[name], right].concat());
            for cut in 0..sent.len() {
                assert_eq!(through(&sent, &[cut]), expected, "cut at {cut}");
            }
            let single = vec![1; sent.len()];
            assert_eq!(through(&sent, &single), expected);
        }
    }
}

#[test]
fn nothing_else_is_touched() {
    for field in [
        // Right ones, in Huffman's code and plain.
        &b"\x46\x84\x9d\x29\xad\x1f"[..],
        b"\x46\x05https",
        b"\x86",
        // `https:` as the value of other fields, by number and by name.
        b"\x44\x85\x9d\x29\xad\x17\x3f",
        b"\x48\x85\x9d\x29\xad\x17\x3f",
        b"\x40\x01a\x85\x9d\x29\xad\x17\x3f",
        b"\x7f\x06\x85\x9d\x29\xad\x17\x3f",
        // Inside a value, behind what looks like a name.
        b"\x40\x01a\x07\x46\x85\x9d\x29\xad\x17\x3f",
        // A place in the table, and a size of it, of more than one byte.
        b"\xff\x46\x46\x05https",
        b"\x3f\x46\x46\x05https",
        // A text of more than any block holds, and no end to its length.
        b"\x40\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x46\x85\x9d\x29\xad\x17\x3f",
        // Longer and shorter texts that begin alike.
        b"\x46\x86\x9d\x29\xad\x17\x3f\x3f",
        b"\x46\x84\x9d\x29\xad\x17",
    ] {
        let sent = with_field(field);
        assert_eq!(through(&sent, &[]), sent, "{field:x?}");
    }
    // In a frame of data, and in padding.
    let mut sent = with_field(b"\x86");
    sent.extend(frame(0, 0, 1, b"\x46\x85\x9d\x29\xad\x17\x3f"));
    let padded = b"\x07\x83\x46\x85\x9d\x29\xad\x17\x3f";
    sent.extend(frame(HEADERS, END_HEADERS | PADDED, 3, padded));
    assert_eq!(through(&sent, &[]), sent);
}

/// A sender that compresses as RFC 7541 lets it, with a table of its own.
#[derive(Default)]
struct Sender {
    /// The newest first.
    table: VecDeque<(String, String)>,
    size_max: usize,
    next_stream: u32,
}

/// One request, and how it is written.
#[derive(Debug, Clone)]
struct Request {
    scheme: &'static str,
    fields: Vec<(u8, u8)>,
    /// The table has this size from here on.
    size_max: Option<usize>,
    padding: Option<u8>,
    has_priority: bool,
    /// Where the block is cut, unless that is in the middle of the scheme.
    cut: Index,
}

impl Sender {
    fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.size_max {
            self.table.pop_back();
        }
    }

    fn field(&mut self, name: &str, value: &str, block: &mut Vec<u8>) {
        let known = self
            .table
            .iter()
            .position(|it| it.0 == name && it.1 == value);
        if let Some(place) = known {
            return number(0x80, 0x7f, place + 62, block);
        }
        match name {
            ":authority" => block.push(0x41),
            ":scheme" => block.push(0x46),
            ":path" => block.push(0x44),
            _ => {
                block.push(0x40);
                number(0, 0x7f, name.len(), block);
                block.extend(name.bytes());
            }
        }
        match value {
            "https:" => block.extend(HTTPS),
            "http:" => block.extend(HTTP),
            _ => {
                number(0, 0x7f, value.len(), block);
                block.extend(value.bytes());
            }
        }
        self.table.push_front((name.to_owned(), value.to_owned()));
        self.resize(self.size_max);
    }

    fn request(&mut self, request: &Request) -> Vec<u8> {
        let mut block = Vec::new();
        if let Some(size_max) = request.size_max {
            self.resize(size_max);
            number(0x20, 0x1f, size_max, &mut block);
        }
        block.push(0x83);
        self.field(":scheme", request.scheme, &mut block);
        let uncut = block.len();
        self.field(":path", "/", &mut block);
        self.field(":authority", "a", &mut block);
        for (name, value) in fields_of(request) {
            self.field(&name, &value, &mut block);
        }
        let cut = uncut + request.cut.index(block.len() + 1 - uncut);
        let (first, second) = block.split_at(cut);
        let mut payload = Vec::new();
        let mut flags = END_STREAM;
        if let Some(padding) = request.padding {
            flags |= PADDED;
            payload.push(padding);
        }
        if request.has_priority {
            flags |= PRIORITY;
            payload.extend([0, 0, 0, 0, 15]);
        }
        payload.extend(first);
        payload.extend(vec![0; usize::from(request.padding.unwrap_or(0))]);
        let stream = self.next_stream * 2 + 1;
        self.next_stream += 1;
        let mut bytes = frame(HEADERS, flags, stream, &payload);
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, second));
        bytes
    }
}

/// RFC 7541, section 5.1.
fn number(pattern: u8, prefix: u8, value: usize, block: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(value) if value < prefix => block.push(pattern | value),
        _ => {
            block.push(pattern | prefix);
            let mut rest = value - usize::from(prefix);
            while rest >= 0x80 {
                block.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
                rest >>= 7;
            }
            block.push(u8::try_from(rest).expect("seven bits"));
        }
    }
}

fn fields_of(request: &Request) -> Vec<(String, String)> {
    let fields = request.fields.iter().enumerate();
    fields
        .map(|(index, (name, value))| {
            let value = "v".repeat(usize::from(*value)) + &index.to_string();
            (format!("x-{index}-{name}"), value)
        })
        .collect()
}

fn request() -> impl Strategy<Value = Request> {
    (
        prop::sample::select(vec!["https:", "http:"]),
        prop::collection::vec((0..3_u8, 0..200_u8), 0..5),
        // Around what one or two entries take: the table of `h2` may keep more of them.
        prop_oneof![
            3 => Just(None),
            1 => prop_oneof![0..200_usize, Just(4096)].prop_map(Some)
        ],
        prop::option::of(any::<u8>()),
        any::<bool>(),
        any::<Index>(),
    )
        .prop_map(
            |(scheme, fields, size_max, padding, has_priority, cut)| Request {
                scheme,
                fields,
                size_max,
                padding,
                has_priority,
                cut,
            },
        )
}

/// Scheme and fields.
type Received = (String, Vec<(String, String)>);

/// What the real `h2` makes of these bytes: scheme and fields of so many requests.
fn received(bytes: &[u8], pieces: &[usize], count: usize) -> Result<Vec<Received>, ::h2::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let write = async move {
            let mut rest = bytes;
            for piece in pieces.iter().copied().chain([usize::MAX]) {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                client.write_all(now).await.expect("written");
                tokio::task::yield_now().await;
                rest = later;
            }
            // Kept open until all is read.
            client
        };
        let read = async move {
            let mut connection = ::h2::server::handshake(MendedScheme::new(server)).await?;
            let (mut requests, mut unanswered) = (Vec::new(), Vec::new());
            while requests.len() < count {
                let accepted = connection.accept().await.expect("a request");
                let (request, respond) = accepted?;
                unanswered.push(respond);
                let text = |value: &::http::HeaderValue| value.to_str().map(str::to_owned);
                let fields = request.headers().iter();
                let fields = fields
                    .map(|(name, value)| (name.to_string(), text(value).expect("visible text")));
                let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
                requests.push((scheme, fields.collect()));
            }
            Ok(requests)
        };
        tokio::join!(read, write).0
    })
}

proptest! {
    /// The sender's table and that of `h2` never disagree on anything that the sender names.
    #[test]
    fn every_request_is_understood(
        requests in prop::collection::vec(request(), 1..12),
        pieces in prop::collection::vec(1..60_usize, 0..40),
    ) {
        let mut sender = Sender { size_max: 4096, ..Sender::default() };
        let mut bytes = PREFACE.to_vec();
        bytes.extend(SETTINGS);
        for request in &requests {
            bytes.extend(sender.request(request));
        }
        let expected: Vec<_> = requests
            .iter()
            .map(|request| {
                let scheme = request.scheme.trim_end_matches(':').to_owned();
                (scheme, fields_of(request))
            })
            .collect();
        let received = received(&bytes, &pieces, requests.len());
        prop_assert_eq!(received.expect("requests"), expected);
    }

    /// Whatever comes in, as much goes out, and the same in whatever pieces it came.
    #[test]
    fn no_bytes_make_it_stumble(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kinds in prop::collection::vec(prop::sample::select(vec![HEADERS, CONTINUATION, 0, 4]), 1..6),
        flags in any::<u8>(),
        pieces in prop::collection::vec(1..20_usize, 0..40),
    ) {
        let mut sent = PREFACE.to_vec();
        for kind in kinds {
            sent.extend(frame(kind, flags, 1, &bytes));
        }
        sent.extend(&bytes);
        let whole = through(&sent, &[]);
        prop_assert_eq!(whole.len(), sent.len());
        prop_assert_eq!(through(&sent, &pieces), whole);
    }
}

#[test]
fn without_mending_the_request_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let refused = runtime.expect("a runtime").block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let sent = with_field(&[&[0x47], HTTPS].concat());
        client.write_all(&sent).await.expect("written");
        client.shutdown().await.expect("shut down");
        let mut connection = ::h2::server::handshake(server).await.expect("a handshake");
        connection
            .accept()
            .await
            .is_none_or(|accepted| accepted.is_err())
    });
    assert!(refused, "h2 is more lenient than it was: this file can go");
}
