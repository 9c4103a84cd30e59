//! One Herald node of a region.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::place::{Place, check_room};
use crate::server::{Launch, Server};

/// Nodes of a region at most: a network has room for so many.
pub const HERALD_NODES_MAX: usize = 100;

/// The first node's address in its network.
const FIRST_HOST: u8 = 101;

const PUBLIC_PORT: u16 = 17_080;
const ADMIN_PORT: u16 = 17_081;

/// The first node makes the tables, which takes a while on a machine that is busy.
const START_MAX: Duration = Duration::from_secs(120);

/// Longer than any drain.
const END_MAX: Duration = Duration::from_secs(120);

/// The status line is all that counts.
const ANSWER_BYTES_MAX: u64 = 1_024;

/// What all nodes of a region share.
#[derive(Debug, Clone)]
pub struct HeraldOptions {
    /// The `herald` binary.
    pub binary: PathBuf,
    /// The token of the admin listener.
    pub admin_token: String,
    /// Settings as environment variables, such as `HERALD_SOCKET__PING_INTERVAL_MS` and `200`; they
    /// win over what the region sets. Such variables of this process are not passed on.
    pub settings: Vec<(String, String)>,
    /// A library that is loaded into every node and stands between it and its machine. It finds its
    /// orders in the directory that `FAULTY_DISK` names, and the address from which a node is to
    /// call others in `OUTGOING_ADDRESS`.
    pub library: Option<PathBuf>,
}

/// Where a node keeps pushes and tokens.
#[derive(Debug, Clone)]
pub struct Stores {
    /// URLs of Redis nodes.
    pub redis: Vec<String>,
    /// Address and port of CQL nodes.
    pub cql: Vec<String>,
    /// The data centre of those.
    pub datacenter: String,
    /// On how many of them each row is kept.
    pub replication_factor: usize,
}

/// A node that may be running. Killed when dropped.
#[derive(Debug)]
pub struct HeraldNode {
    address: Ipv4Addr,
    /// What the library is told.
    orders: PathBuf,
    server: Server,
    /// Kept for its directory and its address: dropped after the server.
    _place: Place,
}

impl HeraldNode {
    /// Starts a node and waits until it is ready. Numbers begin with 0, each is one node's.
    ///
    /// # Errors
    /// It cannot start, with the end of its log.
    pub async fn start(
        place: &Place,
        number: usize,
        options: &HeraldOptions,
        stores: &Stores,
    ) -> anyhow::Result<Self> {
        check_room("Herald nodes", number + 1, HERALD_NODES_MAX)?;
        let address = place.address(FIRST_HOST + u8::try_from(number)?);
        let directory = place.directory_of(&format!("herald-{number}"))?;
        let file = directory.join("herald.toml");
        std::fs::write(&file, configuration(address, &directory, stores))?;
        let token = ("HERALD_ADMIN_TOKEN", options.admin_token.as_str());
        let settings = options.settings.iter();
        let settings = settings.map(|(name, value)| (name.as_str(), value.as_str()));
        let mut environment: Vec<(OsString, OsString)> = std::iter::once(token)
            .chain(settings)
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let orders = directory.join("orders");
        if let Some(library) = &options.library {
            std::fs::create_dir_all(&orders)?;
            environment.extend([
                ("LD_PRELOAD".into(), library.into()),
                ("FAULTY_DISK".into(), orders.clone().into()),
                ("OUTGOING_ADDRESS".into(), address.to_string().into()),
            ]);
        }
        let server = Server::new(Launch {
            name: format!("Herald node {number}"),
            program: options.binary.clone().into(),
            arguments: vec!["serve".into(), "--config".into(), file.into()],
            environment,
            directory,
        });
        let node = Self {
            address,
            orders,
            server,
            _place: place.clone(),
        };
        node.restart().await?;
        Ok(node)
    }

    /// Starts a node that has ended, on its old address and data, and waits until it is ready.
    ///
    /// # Errors
    /// It runs, or cannot start, with the end of its log.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.server.start().await?;
        self.until_ready(START_MAX).await
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Errors
    /// It does not within `limit`, or the node ends; with the end of its log.
    pub async fn until_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let admin = SocketAddr::from((self.address, ADMIN_PORT));
        let ask = async || ask_readiness(admin).await;
        self.server.until_up(limit, ask).await
    }

    /// Kills the node with SIGKILL, if it runs.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.server.kill()
    }

    /// Sends SIGTERM and waits until the node has drained and ended.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub async fn terminate(&self) -> anyhow::Result<ExitStatus> {
        self.server.terminate(END_MAX).await
    }

    /// Stops the node where it is (SIGSTOP): its sockets stay open and nothing is answered.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.server.pause()
    }

    /// Ends a pause (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.server.resume()
    }

    /// From now on the node's clock is so far from the true one, also after a restart, if it has the
    /// library that does that ([`HeraldOptions::library`]).
    ///
    /// # Errors
    /// The file system's; there is no library.
    pub fn move_clock(&self, by_ms: i64) -> anyhow::Result<()> {
        // Renamed into place: whoever reads it reads all of it.
        let new = self.orders.join("new");
        std::fs::write(&new, by_ms.to_string()).context("a node whose clock cannot be moved")?;
        Ok(std::fs::rename(new, self.orders.join("clock"))?)
    }

    /// Puts the clock right and ends a pause; starts the node if it does not run. It may not be
    /// ready yet.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn mend(&self) -> anyhow::Result<()> {
        if self.orders.exists() {
            self.move_clock(0)?;
        }
        self.server.mend().await.map(drop)
    }

    /// Where it listens, and where it calls from if it has the library that does that.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Address and port of the public listener.
    #[must_use]
    pub fn listen(&self) -> String {
        format!("{}:{PUBLIC_PORT}", self.address)
    }

    /// Address and port of the admin listener.
    #[must_use]
    pub fn admin_listen(&self) -> String {
        format!("{}:{ADMIN_PORT}", self.address)
    }

    /// URL of a path on the public listener.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen())
    }

    /// URL of a path on the admin listener.
    #[must_use]
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin_listen())
    }

    /// The file that takes everything the node writes, over all its runs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    /// The last lines of that.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }

    /// The process, if it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.server.process_id()
    }
}

/// Everybody calls from this machine's one address, and load tools do not pause.
const WITHOUT_LIMITS: &str = "
[limits]
mints_per_minute_per_address = 0
mints_per_minute_per_network = 0

[floods]
free_devices_per_minute_per_address = 0
free_devices_per_minute_per_network = 0
free_devices_per_minute = 0
tokens_per_minute_per_device = 0
tokens_per_minute_per_project = 0
connects_per_minute_per_device = 0
connects_per_minute_per_address = 0
connects_per_minute_per_network = 0
connects_per_second = 0
polls_per_minute_per_device = 0
polls_per_minute_per_address = 0
polls_per_minute_per_network = 0
";

fn configuration(address: Ipv4Addr, directory: &Path, stores: &Stores) -> String {
    let Stores {
        redis,
        cql,
        datacenter,
        replication_factor,
    } = stores;
    // Debug is TOML's way to write these: in double quotes, with the same escapes.
    let data = directory.join("data");
    format!(
        "listen = \"{address}:{PUBLIC_PORT}\"\n\
         admin_listen = \"{address}:{ADMIN_PORT}\"\n\
         data_dir = {data:?}\n\
         \n\
         [store]\n\
         kind = \"cluster\"\n\
         redis = {redis:?}\n\
         scylla = {cql:?}\n\
         keyspace = \"herald\"\n\
         datacenter = {datacenter:?}\n\
         replication_factor = {replication_factor}\n\
         key_prefix = \"herald\"\n\
         {WITHOUT_LIMITS}"
    )
}

/// `GET /readyz`, which must say 200.
async fn ask_readiness(admin: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().context("no answer from /readyz")?;
    ensure!(status.split(' ').nth(1) == Some("200"), "/readyz: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_configuration_names_all_stores() {
        let stores = Stores {
            redis: vec!["redis://a:1".to_owned(), "redis://b:1".to_owned()],
            cql: vec!["c:2".to_owned()],
            datacenter: "datacenter1".to_owned(),
            replication_factor: 1,
        };
        let text = configuration(Ipv4Addr::LOCALHOST, Path::new("/a \"b\""), &stores);
        let stores = text.strip_suffix(WITHOUT_LIMITS).expect("no limits");
        assert_eq!(
            stores,
            r#"listen = "127.0.0.1:17080"
admin_listen = "127.0.0.1:17081"
data_dir = "/a \"b\"/data"

[store]
kind = "cluster"
redis = ["redis://a:1", "redis://b:1"]
scylla = ["c:2"]
keyspace = "herald"
datacenter = "datacenter1"
replication_factor = 1
key_prefix = "herald"
"#
        );
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a listener");
        let admin = listener.local_addr().expect("an address");
        for (status, is_ready) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let answer = async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = vec![0; 1_024];
                let length = stream.read(&mut request).await.expect("a request");
                assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("written");
            };
            let (asked, ()) = tokio::join!(ask_readiness(admin), answer);
            assert_eq!(asked.is_ok(), is_ready, "{asked:?}");
        }
    }
}
