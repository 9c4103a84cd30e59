//! Frames of devices: what becomes of good ones, of bad ones, and of bytes that are none.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::hostile_tests::{Change, changed, changes, thriftily};

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn read_all(bytes: &[u8]) -> Result<Vec<Incoming>, CloseReason> {
    let (mut framing, mut input) = (Framing::default(), BytesMut::from(bytes));
    let mut messages = Vec::new();
    while let Some(message) = framing.read(&mut input)? {
        messages.push(message);
    }
    Ok(messages)
}

#[test]
fn a_frame_that_declares_too_much_is_refused_at_its_header() {
    let mut header = vec![0x81, 0x80 | 127];
    header.extend((1_u64 << 33).to_be_bytes());
    assert_eq!(read_all(&header), Err(CloseReason::TooBig));
    let mut header = vec![0x81, 0x80 | 126];
    header.extend((DEVICE_MESSAGE_BYTES_MAX as u16 + 1).to_be_bytes());
    assert_eq!(read_all(&header), Err(CloseReason::TooBig));
}

#[test]
fn the_largest_message_passes_whole_or_in_fragments() {
    let text = vec![b'x'; DEVICE_MESSAGE_BYTES_MAX];
    let whole = String::from_utf8(text.clone()).expect("ascii");
    assert_eq!(
        read_all(&masked(0x81, &text)),
        Ok(vec![Incoming::Text(whole.clone())])
    );
    let (one, two) = text.split_at(100);
    let fragments = [masked(0x01, one), masked(0x89, b"hi"), masked(0x80, two)].concat();
    let ping = Incoming::Ping(Bytes::from_static(b"hi"));
    assert_eq!(read_all(&fragments), Ok(vec![ping, Incoming::Text(whole)]));
    let over = [masked(0x01, &text), masked(0x80, b"x")].concat();
    assert_eq!(read_all(&over), Err(CloseReason::TooBig));
}

#[test]
fn faults_have_their_close_reasons() {
    assert_eq!(read_all(&masked(0x82, b"x")), Err(CloseReason::Binary));
    assert_eq!(read_all(&masked(0x81, &[0xff])), Err(CloseReason::BadUtf8));
    let broken = Err(BROKEN);
    assert_eq!(
        read_all(&masked(0x80, b"x")),
        broken,
        "a continuation of nothing"
    );
    assert_eq!(read_all(&masked(0x83, b"x")), broken, "an unknown opcode");
    assert_eq!(read_all(&[0x81, 0x01, b'x']), broken, "not masked");
    let many = [masked(0x01, b""), masked(0x00, b"").repeat(20)].concat();
    assert!(matches!(read_all(&many), Err(CloseReason::RulesBroken(_))));
}

#[test]
fn messages_come_whole_whatever_the_chunks() {
    let bytes = [
        masked(0x81, b"{\"a\":1}"),
        masked(0x89, b"p"),
        masked(0x88, b""),
    ]
    .concat();
    let (mut framing, mut input) = (Framing::default(), BytesMut::new());
    let mut messages = Vec::new();
    for byte in bytes {
        input.extend([byte]);
        messages.extend(framing.read(&mut input).expect("well formed"));
    }
    let ping = Incoming::Ping(Bytes::from_static(b"p"));
    assert_eq!(
        messages,
        [Incoming::Text("{\"a\":1}".into()), ping, Incoming::Close]
    );
}

// --- Any bytes at all ------------------------------------------------------------------------

/// What RFC 6455 and the contract make of a connection's bytes, said a second time.
fn expected(mut input: &[u8]) -> (Vec<Incoming>, Option<CloseReason>) {
    let (mut messages, mut partial) = (Vec::new(), None::<(Vec<u8>, usize)>);
    loop {
        let Some((frame, rest)) = next_frame(input) else {
            return (messages, None);
        };
        input = rest;
        match frame.and_then(|(first, payload)| meaning(first, payload, &mut partial)) {
            Ok(message) => messages.extend(message),
            Err(reason) => return (messages, Some(reason)),
        }
    }
}

type FirstByteAndPayload = (u8, Vec<u8>);

/// `None` when more bytes are needed.
fn next_frame(input: &[u8]) -> Option<(Result<FirstByteAndPayload, CloseReason>, &[u8])> {
    let (&[first, second], rest) = input.split_first_chunk()?;
    let is_control = first & 0x08 != 0;
    let is_known = matches!(first & 0x7f, 0x00..=0x02 | 0x08..=0x0a);
    let is_bad_control = is_control && (first & 0x80 == 0 || second & 0x7f > 125);
    if !is_known || second & 0x80 == 0 || is_bad_control {
        return Some((Err(BROKEN), rest));
    }
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length), rest)
        }
        length => (u64::from(length), rest),
    };
    if length > 16_384 {
        return Some((Err(CloseReason::TooBig), rest));
    }
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(length as usize)?;
    let mask = mask.iter().cycle();
    let payload = payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask);
    Some((Ok((first, payload.collect())), rest))
}

fn meaning(
    first: u8,
    payload: Vec<u8>,
    partial: &mut Option<(Vec<u8>, usize)>,
) -> Result<Option<Incoming>, CloseReason> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| CloseReason::BadUtf8);
    let (opcode, is_final) = (first & 0x0f, first & 0x80 != 0);
    match (opcode, is_final) {
        (8, _) => {
            let is_good = match payload.split_first_chunk::<2>() {
                None => payload.is_empty(),
                Some((code, reason)) => {
                    let code = u16::from_be_bytes(*code);
                    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
                        && std::str::from_utf8(reason).is_ok()
                }
            };
            return is_good.then_some(Some(Incoming::Close)).ok_or(BROKEN);
        }
        (9, _) => return Ok(Some(Incoming::Ping(payload.into()))),
        (10, _) => return Ok(Some(Incoming::Pong)),
        // A new message in the middle of another, or the rest of none.
        (1 | 2, _) if partial.is_some() => return Err(BROKEN),
        (0, _) if partial.is_none() => return Err(BROKEN),
        (2, _) => return Err(CloseReason::Binary),
        (1, true) => return text(payload).map(Incoming::Text).map(Some),
        _ => {}
    }
    let (whole, fragments) = partial.get_or_insert_default();
    *fragments += 1;
    if whole.len() + payload.len() > 16_384 {
        return Err(CloseReason::TooBig);
    }
    if *fragments > 16 {
        let what = "a message of too many fragments".to_owned();
        return Err(CloseReason::RulesBroken(what));
    }
    whole.extend(payload);
    if !is_final {
        return Ok(None);
    }
    let (whole, _) = partial.take().unwrap_or_default();
    text(whole).map(Incoming::Text).map(Some)
}

/// What the framing makes of the bytes when they come in pieces of these lengths, and the rest at
/// once.
fn found(bytes: &[u8], pieces: &[usize]) -> (Vec<Incoming>, Option<CloseReason>) {
    let (mut framing, mut input) = (Framing::default(), BytesMut::new());
    let (mut messages, mut rest) = (Vec::new(), bytes);
    for piece in pieces.iter().copied().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        rest = later;
        input.extend_from_slice(now);
        loop {
            match framing.read(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(reason) => return (messages, Some(reason)),
            }
        }
        let held = input.len() + framing.partial.as_ref().map_or(0, |it| it.text.len());
        assert!(held <= 2 * DEVICE_MESSAGE_BYTES_MAX + 14, "{held} are held");
    }
    (messages, None)
}

/// A frame as somebody writes it who knows the rules and keeps most of them.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => proptest::sample::select(vec![0x81_u8, 0x01, 0x00, 0x80, 0x89, 0x8a]),
        1 => proptest::sample::select(vec![0x88_u8, 0x82, 0x02]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        6 => vec(proptest::char::range(' ', '~').prop_map(|letter| letter as u8), 0..40),
        2 => vec(any::<u8>(), 0..140),
        1 => (1_000..17_000_usize).prop_map(|length| vec![b'x'; length]),
        1 => (900..5_100_u16).prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    // The shortest form of a length is the usual one; the others are read, too.
    let form = prop_oneof![6 => Just(0_u8), 1 => Just(126), 1 => Just(127)];
    (first, payload, form, any::<[u8; 4]>()).prop_map(|(first, payload, form, mask)| {
        let mut frame = vec![first];
        match (form, payload.len()) {
            (0, short @ 0..126) => frame.push(0x80 | short as u8),
            (0 | 126, medium) => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            (_, long) => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        frame
    })
}

/// Frames one after another, most of them untouched.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let untouched = Just(Vec::<Change>::new());
    let touched = prop_oneof![2 => untouched, 1 => changes()];
    (vec(frame(), 0..12), touched).prop_map(|(frames, changes)| changed(frames.concat(), &changes))
}

proptest! {
    #[test]
    fn frames_mean_the_same_whatever_their_pieces(
        bytes in stream(),
        pieces in vec(1..400_usize, 0..12),
    ) {
        prop_assert_eq!(found(&bytes, &pieces), expected(&bytes));
    }

    #[test]
    fn bytes_that_are_no_frames_are_judged_all_the_same(
        bytes in vec(any::<u8>(), 0..60),
        pieces in vec(1..9_usize, 0..9),
    ) {
        prop_assert_eq!(found(&bytes, &pieces), expected(&bytes));
    }

    #[test]
    fn a_header_costs_no_more_memory_than_a_message(header in any::<[u8; 14]>(), length in 0..14_usize) {
        let bytes = &header[..length];
        // Room for one message that is still to come.
        let mut allowance = vec![0; DEVICE_MESSAGE_BYTES_MAX];
        allowance[..length].copy_from_slice(bytes);
        thriftily(&allowance, |_| found(bytes, &[]));
    }
}

#[test]
fn a_ping_in_fragments_or_too_long_is_refused_at_its_header() {
    for header in [[0x09, 0x80], [0x08, 0x81], [0x89, 0x80 | 126], [0x8a, 0xff]] {
        assert_eq!(read_all(&header), Err(BROKEN), "{header:02x?}");
    }
}
