//! Hostile WebSockets: frames that RFC 6455 forbids, frames that are too much, and texts that are no
//! frames of ours.

use super::attack::End::{Close, Cut};
use super::attack::Speech::{Deaf, Forever, Once};
use super::attack::{Case, case};
use crate::harness::{Credential, Door};

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

const UPGRADE: &[u8] = b"GET /v1/connect HTTP/1.1\r\nHost: herald\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

/// A frame under a mask of zeros that says it is so long.
fn announced(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(0x80 | length as u8),
        126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    announced(first, payload.len() as u64, payload)
}

fn hello(device: &Credential) -> Vec<u8> {
    let hello = serde_json::json!({
        "type": "hello", "device_id": device.id, "device_secret": device.secret, "tokens": [],
    });
    [UPGRADE, &frame(TEXT, hello.to_string())].concat()
}

/// All of them. Each needs a device of its own: a second session of one would end the first.
pub async fn cases(door: &Door) -> Vec<Case> {
    let mut cases = vec![
        case("says no hello", Once(UPGRADE.to_vec()), Close(4001)),
        case(
            "pings before hello, and reads nothing",
            Deaf(UPGRADE.to_vec(), frame(PING, [b'x'; 125]).repeat(100)),
            Cut,
        ),
    ];
    for (what, bytes, code) in forbidden().into_iter().chain(too_much()).chain(texts()) {
        let start = hello(&door.device().await);
        cases.push(case(what, Once([start, bytes].concat()), Close(code)));
    }
    let fragments = [frame(TEXT_BEGINS, "{"), frame(GOES_ON, "").repeat(100)].concat();
    let start = [hello(&door.device().await), fragments].concat();
    let endless = Forever(start, frame(GOES_ON, "").repeat(100));
    cases.push(case("fragments without an end", endless, Close(1008)));
    let start = hello(&door.device().await);
    let flood = Deaf(start, frame(PING, [b'x'; 125]).repeat(100));
    cases.push(case("pings, and reads nothing", flood, Cut));
    cases
}

type Frames = (&'static str, Vec<u8>, u16);

fn forbidden() -> Vec<Frames> {
    let whole_inside = [frame(TEXT_BEGINS, "{"), frame(TEXT, "{}")].concat();
    vec![
        ("a frame without a mask", vec![TEXT, 2, b'{', b'}'], 1002),
        (
            "a frame compressed unasked",
            frame(TEXT | 0x40, "\u{2a}\u{49}"),
            1002,
        ),
        ("a reserved bit", frame(TEXT | 0x10, "{}"), 1002),
        ("an opcode of nothing", frame(0x83, ""), 1002),
        ("a control opcode of nothing", frame(0x8b, ""), 1002),
        ("a ping of 126 bytes", frame(PING, [b'x'; 126]), 1002),
        ("a close of 126 bytes", frame(CLOSE, [b'x'; 126]), 1002),
        ("a ping in fragments", frame(0x09, "x"), 1002),
        ("the rest of nothing", frame(ENDS, "x"), 1002),
        ("a message inside another", whole_inside, 1002),
        ("a close of one byte", frame(CLOSE, [3]), 1002),
        (
            "a close with 1006",
            frame(CLOSE, 1006_u16.to_be_bytes()),
            1002,
        ),
        (
            "a close with 999",
            frame(CLOSE, 999_u16.to_be_bytes()),
            1002,
        ),
        ("a close in no letters", frame(CLOSE, [3, 0xe8, 0xff]), 1002),
    ]
}

fn too_much() -> Vec<Frames> {
    let two_halves = [
        frame(TEXT_BEGINS, [b'x'; 9_000]),
        frame(ENDS, [b'x'; 9_000]),
    ]
    .concat();
    vec![
        ("a message of 20 kB", frame(TEXT, [b'x'; 20_000]), 1009),
        ("two halves of 18 kB", two_halves, 1009),
        ("a frame of 2^63 bytes", announced(TEXT, 1 << 63, b""), 1009),
        (
            "a frame of 2^64 - 1 bytes",
            announced(TEXT, u64::MAX, b"x"),
            1009,
        ),
    ]
}

fn texts() -> Vec<Frames> {
    let twice = format!(r#"{{{}"type":"ping"}}"#, r#""type":"ping","#.repeat(1_000));
    let syn = format!(
        r#"{{"type":"ack","token":"t","syn":{}}}"#,
        "9".repeat(16_000)
    );
    vec![
        ("bytes that are no text", frame(TEXT, [0xff, 0xfe]), 1007),
        ("bytes", frame(BINARY, "{}"), 1003),
        ("no JSON", frame(TEXT, "nonsense"), 1008),
        (
            "half a surrogate",
            frame(TEXT, r#"{"type":"ack","token":"\ud800","syn":1}"#),
            1008,
        ),
        ("lists, 16,000 deep", frame(TEXT, "[".repeat(16_000)), 1008),
        ("a number of 16,000 digits", frame(TEXT, syn), 1008),
        ("a key a thousand times", frame(TEXT, twice), 1008),
    ]
}
