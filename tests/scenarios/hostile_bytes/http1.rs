//! Hostile HTTP/1.1: slow, endless, too large, of two minds about where a request ends, and bodies
//! that are no fun to read.

use super::attack::End::{Answer, Cut};
use super::attack::Speech::{Deaf, Drip, Forever, Once};
use super::attack::{Case, case};
use crate::harness::Door;

/// A second request, in the body of the first by one reading, and behind it by another.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: herald\r\n\r\n";

fn send(door: &Door, headers: &str, rest: impl AsRef<[u8]>) -> Vec<u8> {
    let head = format!(
        "POST /v1/projects/demo/messages:send HTTP/1.1\r\nHost: herald\r\n\
         Authorization: Bearer {}\r\n{headers}\r\n",
        door.service_token()
    );
    [head.as_bytes(), rest.as_ref()].concat()
}

fn chunked(door: &Door, rest: impl AsRef<[u8]>) -> Vec<u8> {
    send(door, "Transfer-Encoding: chunked\r\n", rest)
}

/// All of them.
pub fn cases(door: &Door) -> Vec<Case> {
    let mut cases = slow(door);
    cases.extend(endless(door));
    cases.extend(smuggling(door));
    cases.extend(bodies(door));
    cases
}

fn slow(door: &Door) -> Vec<Case> {
    let slow_body = send(door, "Content-Length: 5000\r\n", "");
    vec![
        case("says nothing", Once(Vec::new()), Cut),
        case(
            "drips its headers",
            Drip(b"GET /nowhere HTTP/1.1\r\nHost: herald\r\nA: bbbbbbbbbbbbbbbbbbbb".repeat(9)),
            Answer(408),
        ),
        case(
            "never sends its body",
            Once(send(door, "Content-Length: 9\r\n", "{")),
            Answer(408),
        ),
        case(
            "sends no end of its body",
            Once(chunked(door, "1\r\n{\r\n")),
            Answer(408),
        ),
        case(
            "sends half a chunk of 2^64 - 1 bytes",
            Once(chunked(door, "ffffffffffffffff\r\n{}")),
            Answer(408),
        ),
        case(
            "drips its body",
            Forever(slow_body, b"{".to_vec()),
            Answer(408),
        ),
        case(
            "asks and asks, and reads no answer",
            Deaf(Vec::new(), SMUGGLED.repeat(50).into_bytes()),
            Cut,
        ),
    ]
}

fn endless(door: &Door) -> Vec<Case> {
    let large = b"4000\r\n".iter().copied();
    let large: Vec<u8> = large.chain([b'x'; 0x4000]).chain(*b"\r\n").collect();
    let stranger = |path: &str| {
        let head = "HTTP/1.1\r\nHost: herald\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("POST {path} {head}").into_bytes()
    };
    let get = || b"GET /nowhere HTTP/1.1\r\nHost: herald\r\n".to_vec();
    let many_headers = [get(), b"a: b\r\n".repeat(200), b"\r\n".to_vec()].concat();
    let long_path = format!(
        "GET /{} HTTP/1.1\r\nHost: herald\r\n\r\n",
        "a".repeat(100_000)
    );
    vec![
        case(
            "a body of 99 GB",
            Forever(
                send(door, "Content-Length: 99999999999\r\n", ""),
                vec![b'x'; 16_384],
            ),
            Answer(413),
        ),
        case(
            "a body of 2^64 bytes",
            Once(send(door, "Content-Length: 18446744073709551616\r\n", "{}")),
            Answer(400),
        ),
        case(
            "chunks without an end",
            Forever(chunked(door, ""), large.clone()),
            Answer(413),
        ),
        case(
            "small chunks without an end",
            Forever(chunked(door, ""), b"1\r\nx\r\n".repeat(2_000)),
            Answer(413),
        ),
        case(
            "a chunk's extension without an end",
            Forever(chunked(door, "1;"), vec![b'a'; 16_384]),
            Answer(408),
        ),
        case(
            "trailers without an end",
            Forever(chunked(door, "0\r\n"), b"a: b\r\n".repeat(1_000)),
            Answer(408),
        ),
        case(
            "a body without an end of a stranger",
            Forever(stranger("/v1/projects/demo/messages:send"), large.clone()),
            Answer(401),
        ),
        case(
            "a body without an end for nobody",
            Forever(stranger("/nowhere"), large),
            Answer(404),
        ),
        case("200 headers", Once(many_headers), Answer(431)),
        case(
            "headers without an end",
            Forever(get(), b"a: b\r\n".repeat(500)),
            Answer(431),
        ),
        case(
            "a header without an end",
            Forever([get(), b"a: ".to_vec()].concat(), vec![b'b'; 16_384]),
            Answer(431),
        ),
        case(
            "a path without an end",
            Forever(b"GET /".to_vec(), vec![b'a'; 16_384]),
            Answer(431),
        ),
        case(
            "a path of 100 kB",
            Once(long_path.into_bytes()),
            Answer(400),
        ),
    ]
}

/// Requests that a proxy might read in another way. One answer, and no second request.
fn smuggling(door: &Door) -> Vec<Case> {
    let with = |what, headers: &str, body: &str| {
        let request = send(door, headers, format!("{body}{SMUGGLED}"));
        case(what, Once(request), Answer(400))
    };
    let nowhere = |what, rest: &str| {
        let request = format!("GET /nowhere HTTP/1.1\r\nHost: herald\r\n{rest}{SMUGGLED}");
        case(what, Once(request.into_bytes()), Answer(400))
    };
    let te = "Transfer-Encoding: chunked\r\n";
    let end = "0\r\n\r\n";
    let token = door.service_token();
    let old = format!(
        "POST /v1/projects/demo/messages:send HTTP/1.0\r\nAuthorization: Bearer {token}\r\n{te}\r\n\
         {end}{SMUGGLED}"
    );
    let nonsense = (0..=255).cycle().take(600).collect();
    vec![
        with(
            "a length and chunks",
            &format!("Content-Length: 4\r\n{te}"),
            end,
        ),
        with(
            "chunks and a length",
            &format!("{te}Content-Length: 4\r\n"),
            end,
        ),
        with(
            "two lengths",
            "Content-Length: 2\r\nContent-Length: 40\r\n",
            "{}",
        ),
        with("a list of lengths", "Content-Length: 2, 2\r\n", "{}"),
        with("a length with a sign", "Content-Length: +2\r\n", "{}"),
        with("a length below zero", "Content-Length: -1\r\n", "{}"),
        with("a length in hex", "Content-Length: 0x2\r\n", "{}"),
        with("a length in two words", "Content-Length: 2 2\r\n", "{}"),
        with("a blank before the colon", "Content-Length : 2\r\n", "{}"),
        with(
            "chunks, with a blank",
            "Transfer-Encoding : chunked\r\n",
            end,
        ),
        with(
            "an encoding like chunked",
            "Transfer-Encoding: xchunked\r\n",
            end,
        ),
        with(
            "an encoding behind a tab",
            "Transfer-Encoding:\x0bchunked\r\n",
            end,
        ),
        with(
            "chunks that are not last",
            "Transfer-Encoding: chunked, identity\r\n",
            end,
        ),
        with(
            "gzip in chunks",
            "Transfer-Encoding: gzip, chunked\r\n",
            end,
        ),
        with(
            "two encodings",
            &format!("{te}Transfer-Encoding: identity\r\n"),
            end,
        ),
        with("a chunk's size in letters", te, "zz\r\n{}\r\n0\r\n\r\n"),
        with(
            "a chunk's size of 68 bits",
            te,
            "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        ),
        with("a chunk's size below zero", te, "-2\r\n{}\r\n0\r\n\r\n"),
        with("a chunk's size with 0x", te, "0x2\r\n{}\r\n0\r\n\r\n"),
        with("a chunk that ends late", te, "2\r\n{}xx\r\n0\r\n\r\n"),
        with("chunks with bare line feeds", te, "2\n{}\n0\n\n"),
        nowhere("a folded header", "A: b\r\n c\r\n\r\n"),
        nowhere("a bare carriage return", "A: b\rc: d\r\n\r\n"),
        nowhere("a zero byte", "A: b\0c\r\n\r\n"),
        nowhere("two hosts", "Host: other\r\n\r\n"),
        case("chunks in HTTP/1.0", Once(old.into_bytes()), Answer(400)),
        case(
            "HTTP/9.9",
            Once(b"GET / HTTP/9.9\r\nHost: h\r\n\r\n".to_vec()),
            Answer(400),
        ),
        case("every byte there is", Once(nonsense), Answer(400)),
        case("half an HTTP/2", Once(b"PRI * HT".to_vec()), Cut),
    ]
}

/// Bodies that cost their reader, or that no two readers read alike.
fn bodies(door: &Door) -> Vec<Case> {
    let answered = |status, what, headers: &str, body: Vec<u8>| {
        let headers = format!("Content-Length: {}\r\n{headers}", body.len());
        case(what, Once(send(door, &headers, body)), Answer(status))
    };
    let body = |what, headers: &str, body| answered(400, what, headers, body);
    let message = |member: &str| format!(r#"{{"message":{{"topic":"t",{member}}}}}"#).into_bytes();
    let mut bomb = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    // Deflate's way to say the same byte some hundred times, again and again.
    bomb.extend(b"\xec\xc1\x01\x01\0\0\0\x80\x90\xfe\xaf\xee\x08\n".repeat(1_000));
    let count = format!(
        r#""android":{{"notification":{{"notification_count":{}}}}}"#,
        "9".repeat(60_000)
    );
    let repeated = [r#""priority":"high""#; 3_000].join(",");
    let repeated = format!(r#""android":{{{repeated}}}"#);
    let exponent = r#""android":{"notification":{"notification_count":1e999999999}}"#;
    vec![
        body("a compressed bomb", "Content-Encoding: gzip\r\n", bomb),
        body("a number of 60,000 digits", "", message(&count)),
        body("a number beyond all", "", message(exponent)),
        body("lists, 60,000 deep", "", vec![b'['; 60_000]),
        answered(
            // Of a field that comes again the last one counts.
            200,
            "a key three thousand times",
            "",
            message(&repeated),
        ),
        body("half a surrogate", "", message(r#""data":{"a":"\ud800"}"#)),
        body(
            "bytes that are no text",
            "",
            message("\"data\":{\"a\":\"?\"}")
                .iter()
                .map(|byte| if *byte == b'?' { 0xff } else { *byte })
                .collect(),
        ),
        body(
            "a zero byte in JSON",
            "",
            message("\"data\":{\"a\":\"\0\"}"),
        ),
    ]
}
