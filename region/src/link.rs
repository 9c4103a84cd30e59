//! A link in front of one node of a store: whoever wants the node comes through here, so that a test
//! can cut replication, or clients, or one of the clients, and nothing else.
//!
//! A cut is a black hole as a broken network makes it: connections stay open, nothing is forwarded,
//! not even an end, and what was on its way comes when the cut is healed. Who comes is told by his
//! address: Redis nodes bind their own when they connect, and on this port they only want to
//! replicate; Herald nodes do if they are made to. What nodes of a store say among each other does
//! not lead through links, replication of Redis apart, so they go on seeing each other.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use crate::background;
use crate::waiting::PAUSE;

/// Connections of one link at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;

/// What one direction of a connection holds at most.
const BUFFER_BYTES: usize = 16 * 1024;

/// What is cut of all the links of a store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cuts {
    /// Nodes whose replication is cut, whichever side they are on.
    pub replication_of: BTreeSet<Ipv4Addr>,
    /// Nodes whose clients are cut.
    pub clients_of: BTreeSet<Ipv4Addr>,
    /// Ways that are cut: of a client, to a node.
    pub ways: BTreeSet<(IpAddr, Ipv4Addr)>,
    /// How long bytes of clients take, each way.
    pub client_delay: Duration,
}

/// Whose bytes a connection carries.
#[derive(Debug, Clone, Copy)]
enum Traffic {
    Client {
        client: IpAddr,
        node: Ipv4Addr,
    },
    Replication {
        replica: Ipv4Addr,
        primary: Ipv4Addr,
    },
}

impl Cuts {
    fn concern(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Client { client, node } => {
                self.clients_of.contains(&node) || self.ways.contains(&(client, node))
            }
            Traffic::Replication { replica, primary } => [replica, primary]
                .iter()
                .any(|node| self.replication_of.contains(node)),
        }
    }
}

/// The way to one node.
#[derive(Debug)]
pub(crate) struct Link {
    front: SocketAddrV4,
    back: SocketAddrV4,
    nodes: Arc<BTreeSet<Ipv4Addr>>,
    cuts: watch::Receiver<Cuts>,
    door: Mutex<Option<AbortHandle>>,
}

/// What decides whether bytes of one connection go on.
#[derive(Clone)]
struct Gate {
    traffic: Traffic,
    cuts: watch::Receiver<Cuts>,
}

impl Link {
    /// A link from `front`, by whose address the node is known, to `back`, where it listens; shut as
    /// yet. Who comes from one of `nodes` wants to replicate. Connections end when the sender of
    /// `cuts` is gone.
    pub fn new(
        front: SocketAddrV4,
        back: SocketAddrV4,
        nodes: Arc<BTreeSet<Ipv4Addr>>,
        cuts: watch::Receiver<Cuts>,
    ) -> Self {
        Self {
            front,
            back,
            nodes,
            cuts,
            door: Mutex::new(None),
        }
    }

    /// Listens, if it does not yet.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn open(&self) -> anyhow::Result<()> {
        if self.door().is_some() {
            return Ok(());
        }
        let front = self.front;
        let listener = background::there(async move { TcpListener::bind(front).await })
            .await?
            .with_context(|| format!("no link at {front}"))?;
        let way = (*front.ip(), self.back);
        let nodes = Arc::clone(&self.nodes);
        let cuts = self.cuts.clone();
        let door = background::runtime()?.spawn(accept(listener, way, nodes, cuts));
        self.replace_door(Some(door.abort_handle()));
        Ok(())
    }

    /// Refuses new connections, as a machine does on which nothing listens. Those that are there end
    /// when the node's side does, which a cut hides from clients.
    pub fn shut(&self) {
        self.replace_door(None);
    }

    fn replace_door(&self, new: Option<AbortHandle>) {
        if let Some(old) = std::mem::replace(&mut *self.door(), new) {
            old.abort();
        }
    }

    fn door(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shut();
    }
}

async fn accept(
    listener: TcpListener,
    (node, back): (Ipv4Addr, SocketAddrV4),
    nodes: Arc<BTreeSet<Ipv4Addr>>,
    cuts: watch::Receiver<Cuts>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((client, peer)) = listener.accept().await else {
            // No file descriptor is free; whoever has connected waits.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let traffic = match peer.ip() {
            IpAddr::V4(replica) if nodes.contains(&replica) => Traffic::Replication {
                replica,
                primary: node,
            },
            client => Traffic::Client { client, node },
        };
        let cuts = cuts.clone();
        tokio::spawn(async move {
            // Both sides learn of an error by the end of their connection.
            let _ = connect(client, back, Gate { traffic, cuts }).await;
            drop(permit);
        });
    }
}

async fn connect(client: TcpStream, back: SocketAddrV4, mut gate: Gate) -> io::Result<()> {
    gate.until_open().await?;
    let node = TcpStream::connect(back).await?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_node, to_node) = node.into_split();
    tokio::try_join!(
        carry(from_client, to_node, gate.clone()),
        carry(from_node, to_client, gate),
    )?;
    Ok(())
}

/// One direction of a connection, to its end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: Gate) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        gate.until_open().await?;
        let mut cut = gate.clone();
        let read = tokio::select! {
            biased;
            is_cut = cut.until_cut() => {
                is_cut?;
                continue;
            }
            read = from.read(&mut buffer) => read,
        };
        // The cut may have come between: then this is on its way until it is healed, and if it is
        // an end, the other side does not hear of it before.
        gate.until_open().await?;
        let bytes = buffer.get(..read?).unwrap_or_default();
        tokio::time::sleep(gate.delay()).await;
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(bytes).await?;
    }
}

impl Gate {
    fn delay(&self) -> Duration {
        match self.traffic {
            Traffic::Client { .. } => self.cuts.borrow().client_delay,
            Traffic::Replication { .. } => Duration::ZERO,
        }
    }

    async fn until_open(&mut self) -> io::Result<()> {
        self.until(false).await
    }

    async fn until_cut(&mut self) -> io::Result<()> {
        self.until(true).await
    }

    async fn until(&mut self, is_cut: bool) -> io::Result<()> {
        let traffic = self.traffic;
        let change = self.cuts.wait_for(|cuts| cuts.concern(traffic) == is_cut);
        change
            .await
            .map(|_| ())
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpSocket;
    use tokio::time::timeout;

    use super::*;
    use crate::place::Place;

    /// Long enough for bytes to cross two local sockets, if anything lets them.
    const A_WHILE: Duration = Duration::from_millis(200);

    struct Scene {
        cuts: watch::Sender<Cuts>,
        link: Link,
        front: SocketAddrV4,
        replica: Ipv4Addr,
        primary: Ipv4Addr,
        place: Place,
    }

    impl Scene {
        async fn new() -> Self {
            let place = Place::temporary().expect("a place");
            let (primary, replica) = (place.address(2), place.address(3));
            let echo = TcpListener::bind((primary, 0)).await.expect("a listener");
            let port = echo.local_addr().expect("an address").port();
            let back = SocketAddrV4::new(primary, port);
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = echo.accept().await {
                    tokio::spawn(async move {
                        let (mut from, mut to) = stream.split();
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                    });
                }
            });
            let front = SocketAddrV4::new(primary, 17_900);
            let (cuts, receiver) = watch::channel(Cuts::default());
            let nodes = Arc::new(BTreeSet::from([primary, replica]));
            let link = Link::new(front, back, nodes, receiver);
            link.open().await.expect("open");
            Self {
                cuts,
                link,
                front,
                replica,
                primary,
                place,
            }
        }

        async fn client(&self) -> TcpStream {
            TcpStream::connect(self.front).await.expect("connected")
        }

        async fn replication(&self) -> TcpStream {
            self.from(self.replica).await
        }

        async fn from(&self, address: Ipv4Addr) -> TcpStream {
            let socket = TcpSocket::new_v4().expect("a socket");
            let own = SocketAddr::from((address, 0));
            socket.bind(own).expect("bound");
            socket.connect(self.front.into()).await.expect("connected")
        }
    }

    async fn echoes(stream: &mut TcpStream) -> bool {
        stream.write_all(b"x").await.expect("written");
        comes_back(stream).await
    }

    async fn comes_back(stream: &mut TcpStream) -> bool {
        timeout(A_WHILE, stream.read_u8()).await.is_ok_and(|read| {
            read.expect("still open");
            true
        })
    }

    #[tokio::test]
    async fn a_cut_holds_back_one_kind_and_loses_nothing() {
        let scene = Scene::new().await;
        let (mut client, mut replication) = (scene.client().await, scene.replication().await);
        assert!(echoes(&mut client).await && echoes(&mut replication).await);
        for node in [scene.primary, scene.replica] {
            scene.cuts.send_replace(Cuts {
                replication_of: BTreeSet::from([node]),
                ..Cuts::default()
            });
            let mut newcomer = scene.replication().await;
            assert!(!echoes(&mut replication).await && !echoes(&mut newcomer).await);
            assert!(echoes(&mut client).await);
            scene.cuts.send_replace(Cuts::default());
            assert!(comes_back(&mut replication).await && comes_back(&mut newcomer).await);
        }
        scene.cuts.send_replace(Cuts {
            clients_of: BTreeSet::from([scene.replica]),
            ..Cuts::default()
        });
        assert!(echoes(&mut client).await, "another node's clients are cut");
        scene.cuts.send_replace(Cuts {
            clients_of: BTreeSet::from([scene.primary]),
            ..Cuts::default()
        });
        assert!(echoes(&mut replication).await);
        assert!(!echoes(&mut client).await);
    }

    #[tokio::test]
    async fn a_way_is_one_clients_to_one_node() {
        let scene = Scene::new().await;
        let [here, there] = [scene.place.address(101), scene.place.address(102)];
        let (mut cut, mut other) = (scene.from(here).await, scene.from(there).await);
        let cut_ways = |ways: &[(Ipv4Addr, Ipv4Addr)]| {
            let ways = ways.iter().map(|(from, to)| (IpAddr::V4(*from), *to));
            scene.cuts.send_replace(Cuts {
                ways: ways.collect(),
                ..Cuts::default()
            });
        };
        cut_ways(&[(here, scene.replica)]);
        assert!(echoes(&mut cut).await, "its way to another node is cut");
        cut_ways(&[(here, scene.primary)]);
        let mut newcomer = scene.from(here).await;
        assert!(!echoes(&mut cut).await && !echoes(&mut newcomer).await);
        assert!(echoes(&mut other).await);
        cut_ways(&[]);
        assert!(comes_back(&mut cut).await && comes_back(&mut newcomer).await);
    }

    #[tokio::test]
    async fn a_slow_link_holds_back_clients_each_way_for_a_while() {
        let scene = Scene::new().await;
        let mut client = scene.client().await;
        let delay = A_WHILE / 4;
        scene.cuts.send_replace(Cuts {
            client_delay: delay,
            ..Cuts::default()
        });
        let begun = std::time::Instant::now();
        client.write_all(b"x").await.expect("written");
        client.read_u8().await.expect("it comes back");
        assert!(begun.elapsed() >= 2 * delay, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_link_that_is_shut_refuses_and_one_that_is_gone_ends_everything() {
        let scene = Scene::new().await;
        let mut client = scene.client().await;
        assert!(echoes(&mut client).await);
        scene.link.shut();
        let refused = async || {
            let connected = TcpStream::connect(scene.front).await;
            anyhow::ensure!(connected.is_err(), "accepted");
            Ok(())
        };
        let limit = Duration::from_secs(10);
        crate::waiting::until("refused", limit, refused)
            .await
            .expect("refused");
        assert!(echoes(&mut client).await);
        drop(scene);
        let end = timeout(Duration::from_secs(10), client.read_u8()).await;
        assert!(end.expect("an end").is_err());
    }
}
