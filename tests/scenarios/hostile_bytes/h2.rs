//! Hostile HTTP/2, frame by frame: floods that ask for nothing, requests that are taken back, and
//! connections that are only held.

use super::attack::End::{Cut, GoAway};
use super::attack::Speech::{Deaf, Forever, Once};
use super::attack::{Case, case};
use crate::harness::Door;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// The server's last word.
pub const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// A kind that nobody has defined.
const UNKNOWN: u8 = 0x77;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Of RFC 9113, section 7.
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    let head = [&length[..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// The preface, empty settings, and these frames.
fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [preface, frame(SETTINGS, 0, 0, b""), frames.concat()].concat()
}

/// A header that is in no table and enters none.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn headers(method: &str, path: &str) -> Vec<u8> {
    [
        literal(":method", method),
        literal(":path", path),
        literal(":scheme", "http"),
        literal(":authority", "herald"),
    ]
    .concat()
}

fn get(stream: u32) -> Vec<u8> {
    let both = END_STREAM | END_HEADERS;
    frame(HEADERS, both, stream, &headers("GET", "/nowhere"))
}

/// All of them.
pub fn cases(door: &Door) -> Vec<Case> {
    let mut cases = held(door);
    cases.extend(floods(door));
    cases.extend(broken());
    cases
}

/// A send whose body is still to come.
fn open_send(door: &Door) -> Vec<u8> {
    let path = "/v1/projects/demo/messages:send";
    let bearer = format!("Bearer {}", door.service_token());
    let block = [headers("POST", path), literal("authorization", &bearer)].concat();
    frame(HEADERS, END_HEADERS, 1, &block)
}

/// Connections on which nothing happens any more. Each is told to go, and does not.
fn held(door: &Door) -> Vec<Case> {
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let gets: Vec<u8> = (0..100).flat_map(|number| get(1 + 2 * number)).collect();
    vec![
        case("is silent", Once(connection(&[])), GoAway(NO_ERROR)),
        case(
            "never sends its body",
            Once(connection(&[open_send(door)])),
            GoAway(NO_ERROR),
        ),
        case(
            "has no window for answers",
            Once(connection(&[no_window, gets])),
            GoAway(NO_ERROR),
        ),
    ]
}

fn floods(door: &Door) -> Vec<Case> {
    let setting = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(1_000);
    let ping = frame(PING, 0, 0, b"hello ho").repeat(1_000);
    let quick_resets: Vec<u8> = (0..5_000)
        .map(|number| 1 + 2 * number)
        .flat_map(|stream| [get(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat())
        .collect();
    let begun = || connection(&[frame(HEADERS, 0, 1, &headers("GET", "/nowhere"))]);
    let more = |payload: &[u8]| frame(CONTINUATION, 0, 1, payload).repeat(100);
    let large = literal("x", &"y".repeat(100)).repeat(150);
    let forever = |what, again: Vec<u8>| case(what, Forever(connection(&[]), again), Cut);
    vec![
        case(
            "takes its requests back",
            Once(connection(&[quick_resets])),
            GoAway(ENHANCE_YOUR_CALM),
        ),
        case(
            "headers in pieces without an end",
            Forever(begun(), more(&literal("a", "b"))),
            Cut,
        ),
        case(
            "headers in empty pieces",
            Forever(begun(), more(b"")),
            GoAway(ENHANCE_YOUR_CALM),
        ),
        case(
            "headers beyond all tables",
            Forever(begun(), frame(CONTINUATION, 0, 1, &large)),
            Cut,
        ),
        case(
            "settings, and reads nothing",
            Deaf(connection(&[]), setting.clone()),
            Cut,
        ),
        case(
            "pings, and reads nothing",
            Deaf(connection(&[]), ping.clone()),
            Cut,
        ),
        forever("settings", setting),
        forever("pings", ping),
        forever(
            "priorities",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(1_000),
        ),
        forever(
            "windows",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(1_000),
        ),
        forever(
            "frames of no kind",
            frame(UNKNOWN, 0, 1, &[0; 1_000]).repeat(100),
        ),
        case(
            "a body of nothing",
            Forever(
                connection(&[open_send(door)]),
                frame(DATA, 0, 1, b"").repeat(1_000),
            ),
            Cut,
        ),
    ]
}

/// What is no HTTP/2.
fn broken() -> Vec<Case> {
    let broken =
        |what, frames: Vec<u8>, code| case(what, Once(connection(&[frames])), GoAway(code));
    let window = |by: u32| frame(WINDOW_UPDATE, 0, 0, &by.to_be_bytes());
    vec![
        broken(
            "a frame of 16 MB",
            vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
            FRAME_SIZE_ERROR,
        ),
        broken(
            "a body of no request",
            frame(DATA, 0, 1, b"x"),
            PROTOCOL_ERROR,
        ),
        broken("a stream of the server's", get(2), PROTOCOL_ERROR),
        broken("a window of 2^31", window(0x7fff_ffff), FLOW_CONTROL_ERROR),
        broken(
            "a ping of three bytes",
            frame(PING, 0, 0, b"abc"),
            PROTOCOL_ERROR,
        ),
        case(
            "no preface after all",
            Once(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
            Cut,
        ),
    ]
}
