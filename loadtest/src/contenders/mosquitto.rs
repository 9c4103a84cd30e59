//! Mosquitto: MQTT 3.1.1 over TCP. Each recipient subscribes to a topic of its own with QoS 1, and
//! a publish with QoS 1 is over with its PUBACK, which is given from memory.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{bail, ensure};

use super::connection::Line;
use super::{Answered, Connection, Heard, Hearing, Pushed, Running, Service, read_data};
use crate::http::CallError;

/// The broker's program.
pub const PROGRAM: &str = "mosquitto";

/// Kinds of packets: the upper half of a packet's first byte.
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// The first bytes of packets with their flags.
const CONNECT_BYTE: u8 = 0x10;
const PUBLISH_QOS_1_BYTE: u8 = 0x32;
const PUBACK_BYTE: u8 = 0x40;
const SUBSCRIBE_BYTE: u8 = 0x82;

const QOS_1: u8 = 1;
const CLEAN_SESSION: u8 = 2;
const LEVEL_3_1_1: u8 = 4;

/// Starts a broker that keeps everything in memory and lets everybody in.
pub async fn start(scratch: &Path) -> anyhow::Result<Running> {
    let mut running = Running::prepare(scratch)?;
    let server = running.free_address()?;
    let file = running.write_file(
        "mosquitto.conf",
        &format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
             log_dest stderr\nlog_type error\nlog_type warning\n",
            server.port(),
            server.ip()
        ),
    )?;
    running.spawn(PROGRAM, |command| {
        command.arg("-c").arg(file);
    })?;
    running
        .until_ready(async || connect(server).await.map(drop))
        .await?;
    running.open(Service::Mosquitto(server), None);
    Ok(running)
}

async fn connect(server: SocketAddr) -> anyhow::Result<Connection> {
    let mut connection = Connection::open(server, None).await?;
    greet(&mut connection).await?;
    Ok(connection)
}

async fn greet(connection: &mut Connection) -> anyhow::Result<()> {
    let mut connect = Vec::new();
    // No keep-alive, no name: the broker makes one up.
    write_packet(
        &mut connect,
        CONNECT_BYTE,
        &[
            &text("MQTT")[..],
            &[LEVEL_3_1_1, CLEAN_SESSION, 0, 0],
            &text(""),
        ],
    );
    connection
        .ask(&connect, |bytes| answer(bytes, CONNACK))
        .await
}

/// Introduces a recipient and subscribes it to its topic.
pub async fn subscribe(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    greet(connection).await?;
    let mut subscribe = Vec::new();
    let id = 1_u16.to_be_bytes();
    write_packet(
        &mut subscribe,
        SUBSCRIBE_BYTE,
        &[&id, &text(&topic(name)), &[QOS_1]],
    );
    connection
        .ask(&subscribe, |bytes| answer(bytes, SUBACK))
        .await
}

fn topic(name: &str) -> String {
    format!("push/{name}")
}

/// See [`Service::hear`].
pub fn hear<'a>(bytes: &'a [u8], reply: &mut Vec<u8>, pushed: Pushed<'_, 'a>) -> Hearing<'a> {
    let Some(packet) = read_packet(bytes).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    if packet.kind == PUBLISH {
        let (id, payload) = packet.publish().ok_or("a publish is cut short")?;
        pushed(None, read_data(payload)?);
        write_packet(reply, PUBACK_BYTE, &[id]);
    }
    Ok(Some(Heard {
        taken: packet.taken,
        goodbye: None,
    }))
}

/// One publisher.
pub struct Publisher {
    server: SocketAddr,
    line: Line,
    packet: Vec<u8>,
}

impl Publisher {
    /// See [`Service::publisher`].
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            line: Line::default(),
            packet: Vec::new(),
        }
    }

    /// See [`super::Publisher::publish`].
    pub async fn publish(&mut self, to: &str, data: &str) -> Result<Answered, CallError> {
        self.packet.clear();
        let id = 1_u16.to_be_bytes();
        write_packet(
            &mut self.packet,
            PUBLISH_QOS_1_BYTE,
            &[&text(&topic(to)), &id, data.as_bytes()],
        );
        let take = |bytes: &[u8]| answer(bytes, PUBACK);
        self.line
            .ask(async || connect(self.server).await, &self.packet, take)
            .await?;
        Ok(Answered::yes())
    }
}

/// A string as MQTT writes it: its length first.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn write_packet(out: &mut Vec<u8>, first: u8, parts: &[&[u8]]) {
    out.push(first);
    let mut length = parts.iter().map(|part| part.len()).sum::<usize>();
    loop {
        let low = u8::try_from(length % 128).unwrap_or(0);
        length /= 128;
        out.push(if length > 0 { low | 128 } else { low });
        if length == 0 {
            break;
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

struct Packet<'a> {
    kind: u8,
    flags: u8,
    body: &'a [u8],
    taken: usize,
}

impl<'a> Packet<'a> {
    /// Id and payload of a publish with QoS 1.
    fn publish(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (length, rest) = self.body.split_first_chunk::<2>()?;
        let rest = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
        let is_qos_1 = self.flags >> 1 & 3 == QOS_1;
        rest.split_at_checked(2).filter(|_| is_qos_1)
    }
}

/// The packet at the front; `None` when more must come.
fn read_packet(bytes: &[u8]) -> anyhow::Result<Option<Packet<'_>>> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut length = 0;
    // The length has four bytes at most, seven bits in each.
    for (place, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 127) << (7 * place);
        if byte & 128 == 0 {
            let start = place + 2;
            let body = bytes.get(start..start + length);
            return Ok(body.map(|body| Packet {
                kind: first >> 4,
                flags: first & 15,
                body,
                taken: start + length,
            }));
        }
    }
    ensure!(rest.len() < 4, "a packet's length is broken");
    Ok(None)
}

/// The answer of a kind that is waited for; its last byte is a code, and all but QoS 1 granted is 0.
fn answer(bytes: &[u8], kind: u8) -> anyhow::Result<Option<((), usize)>> {
    let Some(packet) = read_packet(bytes)? else {
        return Ok(None);
    };
    let good = match kind {
        SUBACK => Some(&QOS_1),
        CONNACK => Some(&0),
        _ => packet.body.last(),
    };
    if packet.kind != kind || packet.body.last() != good {
        bail!("the broker refused: {} {:?}", packet.kind, packet.body);
    }
    Ok(Some(((), packet.taken)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::data;

    #[test]
    fn packets_of_any_length_are_read_whole_or_not_at_all() {
        for length in [0, 1, 127, 128, 16_383, 16_384] {
            let (mut bytes, body) = (Vec::new(), vec![7; length]);
            write_packet(&mut bytes, PUBACK_BYTE, &[&body]);
            let packet = read_packet(&bytes).expect("good").expect("whole");
            assert_eq!((packet.kind, packet.body), (PUBACK, &body[..]));
            assert_eq!(packet.taken, bytes.len());
            for cut in [0, 1, bytes.len() - 1] {
                assert!(read_packet(&bytes[..cut]).expect("good").is_none());
            }
        }
        assert!(read_packet(&[0x30, 128, 128, 128, 128, 1]).is_err());
    }

    #[test]
    fn a_publish_is_heard_and_acknowledged() {
        let mut bytes = Vec::new();
        let data = data(7, 9, 50);
        write_packet(
            &mut bytes,
            PUBLISH_QOS_1_BYTE,
            &[&text("push/a"), &[1, 2], data.as_bytes()],
        );
        let (mut reply, mut heard) = (Vec::new(), Vec::new());
        let taken = hear(&bytes, &mut reply, &mut |_, data| {
            heard.push(data.numbers())
        });
        let taken = taken.expect("good").expect("whole").taken;
        assert_eq!((taken, &heard[..]), (bytes.len(), &[Some((7, 9))][..]));
        assert_eq!(reply, [PUBACK_BYTE, 2, 1, 2]);
    }

    #[test]
    fn refusals_are_told_from_answers() {
        assert!(matches!(
            answer(&[0x20, 2, 0, 0], CONNACK),
            Ok(Some(((), 4)))
        ));
        assert!(answer(&[0x20, 2, 0, 5], CONNACK).is_err());
        assert!(answer(&[0x90, 3, 0, 1, 0x80], SUBACK).is_err());
        assert!(matches!(answer(&[0x90, 3, 0], SUBACK), Ok(None)));
    }
}
