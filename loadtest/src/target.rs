//! The server under load: where it is, which project to use, and what its operator's listener
//! says of it.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::http::{Caller, write_request};

/// How to find the server.
#[derive(Debug, Clone, Args)]
pub struct TargetOptions {
    /// The file that `herald serve --dev` writes; its project is used.
    #[arg(long, value_name = "FILE", required_unless_present = "url", conflicts_with_all = ["url", "admin_url", "admin_token"])]
    dev_json: Option<PathBuf>,
    /// The server's public address; a project is made for the run and deleted after it.
    #[arg(long, requires_all = ["admin_url", "admin_token"])]
    url: Option<String>,
    /// The server's operator address.
    #[arg(long, requires = "url")]
    admin_url: Option<String>,
    /// The operator's secret.
    #[arg(long, env = "HERALD_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
}

/// The app that the swarm's devices run, and where. Children get it over their pipe, never on
/// their command line: it holds secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// The public listener.
    pub server: SocketAddr,
    /// Its name for the Host header.
    pub host: String,
    /// The project.
    pub project_id: String,
    /// Its app.
    pub package_name: String,
    /// The app's fingerprint.
    pub cert_sha256: String,
    /// Its sender's secret.
    pub service_token: String,
}

#[derive(Deserialize)]
struct DevFile {
    project_id: String,
    package_name: String,
    cert_sha256: Vec<String>,
    service_token: String,
    admin_token: String,
    listen: String,
    admin_listen: String,
}

#[derive(Deserialize)]
struct NewServiceToken {
    token: String,
}

/// A fingerprint for projects that the swarm makes: any will do.
const SWARM_CERT: &str = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF";
const SWARM_PACKAGE: &str = "com.example.swarm";

#[cfg(test)]
impl Target {
    /// An app of no server.
    pub fn of_nobody() -> Self {
        Self {
            server: SocketAddr::from(([127, 0, 0, 1], 1)),
            host: "h".into(),
            project_id: "demo".into(),
            package_name: "p".into(),
            cert_sha256: "c".into(),
            service_token: "s".into(),
        }
    }
}

/// What the operator's listener said of the server's process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessFacts {
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// When it started, in seconds since 1970.
    pub started_at: f64,
}

/// What it said of pushes to topics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FanOutFacts {
    /// Copies stored so far.
    pub copies: u64,
    /// Such pushes that are not finished.
    pub unfinished: u64,
    /// Resident memory of the server, in bytes.
    pub rss_bytes: u64,
}

/// The operator's side of the server.
pub struct Operator {
    caller: Caller,
    host: String,
    token: String,
    /// To be deleted after the run.
    made_project: Option<String>,
}

impl TargetOptions {
    /// Finds the server and a project to use.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn resolve(&self) -> anyhow::Result<(Target, Operator)> {
        if let Some(path) = &self.dev_json {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            return from_dev_file(&text).with_context(|| format!("in {}", path.display()));
        }
        let (Some(url), Some(admin_url), Some(token)) =
            (&self.url, &self.admin_url, &self.admin_token)
        else {
            bail!("either --dev-json, or --url with --admin-url and --admin-token");
        };
        let (server, host) = parse_address(url)?;
        let mut operator = Operator::new(admin_url, token.clone())?;
        let (project_id, service_token) = operator.make_project().await?;
        let target = Target {
            server,
            host,
            project_id,
            package_name: SWARM_PACKAGE.to_owned(),
            cert_sha256: SWARM_CERT.to_owned(),
            service_token,
        };
        Ok((target, operator))
    }
}

/// Server and project of a file that `herald serve --dev` wrote.
///
/// # Errors
/// When it is none.
pub fn from_dev_file(text: &str) -> anyhow::Result<(Target, Operator)> {
    let dev: DevFile =
        serde_json::from_str(text).context("this is no development file of herald")?;
    let (server, host) = parse_address(&dev.listen)?;
    let operator = Operator::new(&dev.admin_listen, dev.admin_token)?;
    let cert = dev.cert_sha256.into_iter().next();
    let target = Target {
        server,
        host,
        project_id: dev.project_id,
        package_name: dev.package_name,
        cert_sha256: cert.context("\"cert_sha256\" is empty")?,
        service_token: dev.service_token,
    };
    Ok((target, operator))
}

/// Reads `http://host:port` or `host:port`.
fn parse_address(text: &str) -> anyhow::Result<(SocketAddr, String)> {
    ensure!(
        !text.starts_with("https://"),
        "{text}: the swarm speaks plain HTTP only"
    );
    let plain = text.strip_prefix("http://").unwrap_or(text);
    let host = plain.trim_end_matches('/').to_owned();
    let with_port = if host.parse::<SocketAddr>().is_ok() || host.contains(':') {
        host.clone()
    } else {
        format!("{host}:80")
    };
    let mut addresses = with_port
        .to_socket_addrs()
        .with_context(|| format!("{text} is no address"))?;
    let mut server = addresses
        .next()
        .with_context(|| format!("{text} has no address"))?;
    if server.ip().is_unspecified() {
        server.set_ip(match server {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok((server, host))
}

impl Operator {
    fn new(address: &str, token: String) -> anyhow::Result<Self> {
        let (server, host) = parse_address(address)?;
        Ok(Self {
            caller: Caller::new(server, None),
            host,
            token,
            made_project: None,
        })
    }

    /// The listener's address, for callers of its own.
    pub fn address(&self) -> (Caller, &str) {
        (self.caller.another(), &self.host)
    }

    /// Resident memory and start of the server's process.
    ///
    /// # Errors
    /// When the metrics cannot be had.
    pub async fn process_facts(&mut self) -> anyhow::Result<ProcessFacts> {
        let body = self.call("GET", "/metrics", b"").await?;
        let text = String::from_utf8(body).context("the metrics are not text")?;
        read_process_facts(&text)
    }

    /// What the operator's listener says of pushes to topics now.
    ///
    /// # Errors
    /// When the metrics cannot be had.
    pub async fn fan_out_facts(&mut self) -> anyhow::Result<FanOutFacts> {
        let body = self.call("GET", "/metrics", b"").await?;
        let text = String::from_utf8(body).context("the metrics are not text")?;
        read_fan_out_facts(&text)
    }

    /// Whether the server is alive, and still the process that started at `started_at`.
    pub async fn is_alive_since(&mut self, started_at: f64) -> bool {
        self.process_facts()
            .await
            .is_ok_and(|facts| facts.started_at.total_cmp(&started_at).is_eq())
    }

    /// Deletes the project that was made for the run, if one was.
    pub async fn clean_up(&mut self) {
        if let Some(project_id) = self.made_project.take() {
            let path = format!("/admin/v1/projects/{project_id}");
            if let Err(error) = self.call("DELETE", &path, b"").await {
                eprintln!("swarm: project {project_id} is left behind: {error:#}");
            }
        }
    }

    async fn make_project(&mut self) -> anyhow::Result<(String, String)> {
        let project_id = format!("swarm-{:08x}", rand::random::<u32>());
        let project = json!({
            "project_id": project_id,
            "name": "Swarm",
            "package_name": SWARM_PACKAGE,
            "cert_sha256": [SWARM_CERT],
        });
        self.call("POST", "/admin/v1/projects", project.to_string().as_bytes())
            .await?;
        self.made_project = Some(project_id.clone());
        let path = format!("/admin/v1/projects/{project_id}/service-tokens");
        let answer = self.call("POST", &path, b"{\"name\":\"swarm\"}").await?;
        let made: NewServiceToken =
            serde_json::from_slice(&answer).context("the new service token cannot be read")?;
        Ok((project_id, made.token))
    }

    async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\n",
            self.host, self.token
        );
        let mut request = Vec::new();
        write_request(&mut request, &head, body);
        // Calls are minutes apart: a kept connection would be closed by then.
        let answer = self
            .caller
            .another()
            .call(&request)
            .await
            .with_context(|| format!("{method} {path}"))?;
        ensure!(
            (200..300).contains(&answer.status),
            "{method} {path}: HTTP {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        Ok(answer.body)
    }
}

fn read_process_facts(metrics: &str) -> anyhow::Result<ProcessFacts> {
    Ok(ProcessFacts {
        rss_bytes: whole(read_gauge(metrics, "process_resident_memory_bytes")?),
        started_at: read_gauge(metrics, "process_start_time_seconds")?,
    })
}

fn read_fan_out_facts(metrics: &str) -> anyhow::Result<FanOutFacts> {
    let copies = "herald_fan_out_copies_total{result=\"stored\"}";
    Ok(FanOutFacts {
        copies: whole(read_gauge(metrics, copies)?),
        unfinished: whole(read_gauge(metrics, "herald_fan_outs_unfinished")?),
        rss_bytes: whole(read_gauge(metrics, "process_resident_memory_bytes")?),
    })
}

fn read_gauge(metrics: &str, name: &str) -> anyhow::Result<f64> {
    metrics
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .find(|(series, _)| *series == name)
        .and_then(|(_, value)| value.trim().parse::<f64>().ok())
        .with_context(|| format!("the metrics have no {name}"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "memory and counts are whole, positive numbers"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_file_names_server_and_project() {
        let text = r#"{"project_id":"demo","package_name":"com.example.app","cert_sha256":["91:AC"],
            "service_token":"s","admin_token":"a","listen":"0.0.0.0:8080","admin_listen":"127.0.0.1:8081"}"#;
        let (target, _) = from_dev_file(text).expect("is one");
        assert_eq!(target.server.to_string(), "127.0.0.1:8080");
        assert_eq!(target.service_token, "s");
        assert!(from_dev_file("{}").is_err());
    }

    #[test]
    fn addresses_come_with_and_without_scheme() {
        let parse = |text| parse_address(text).map(|(server, _)| server.to_string());
        assert_eq!(
            parse("http://127.0.0.1:81/").expect("is one"),
            "127.0.0.1:81"
        );
        assert_eq!(parse("127.0.0.1").expect("is one"), "127.0.0.1:80");
        assert_eq!(parse("[::]:81").expect("is one"), "[::1]:81");
        assert!(parse("https://127.0.0.1:81").is_err());
        assert!(parse("no such thing:x").is_err());
    }

    #[test]
    fn facts_come_from_the_metrics() {
        let metrics = "# HELP process_resident_memory_bytes x\nprocess_resident_memory_bytes 1048576\n\
                       process_start_time_seconds 1.7e9\n";
        let facts = read_process_facts(metrics).expect("are there");
        assert_eq!(facts.rss_bytes, 1_048_576);
        assert!(read_process_facts("nothing 1\n").is_err());
    }
}
