//! `herald listen`: a device in the terminal. It prints its token, then every push as it comes,
//! acknowledges it, and comes back after every fault.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use herald_sdk::{Api, Device, DeviceState, Event, Push, SdkError};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{Clock, Millis};

/// The last acknowledgements and the goodbye may take this long after Ctrl-C.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How this client names itself to the server.
const CLIENT: &str = concat!("herald-listen/", env!("CARGO_PKG_VERSION"));

/// Where the server is, and which app of which project to be.
#[derive(Debug, Args)]
pub struct ListenOptions {
    /// The file that `herald serve --dev` writes; stands for the four options below.
    #[arg(long, value_name = "FILE", required_unless_present = "url", conflicts_with_all = ["url", "project", "package", "cert"])]
    dev_json: Option<PathBuf>,
    /// The server's public address, such as `https://push.example.com`.
    #[arg(long, requires_all = ["project", "package", "cert"])]
    url: Option<String>,
    /// The project to receive pushes of.
    #[arg(long, value_name = "ID", requires = "url")]
    project: Option<String>,
    /// The app's package name.
    #[arg(long, value_name = "NAME", requires = "url")]
    package: Option<String>,
    /// SHA-256 fingerprint of the certificate that the app is signed with.
    #[arg(long, value_name = "SHA256", requires = "url")]
    cert: Option<String>,
    /// Keeps the device and its token over restarts; holds a secret. Without it every start is a
    /// new device.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

/// Which app of which project on which server.
#[derive(Debug, PartialEq, Eq)]
struct App {
    url: String,
    project: String,
    package: String,
    cert: String,
}

/// The part of the development file that a device needs.
#[derive(Deserialize)]
struct DevFile {
    project_id: String,
    package_name: String,
    cert_sha256: Vec<String>,
    listen: String,
}

/// Runs until Ctrl-C, SIGTERM, or until nobody reads its output any more.
///
/// # Errors
/// When the options name no usable app, the server refuses the app, or another connection with
/// the same device takes over.
pub async fn run(options: ListenOptions) -> anyhow::Result<()> {
    let state_file = options.state.clone();
    let app = options.into_app()?;
    let mut listener = Listener::start(app, state_file, io::stdout()).await?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let outcome = tokio::select! {
        outcome = listener.listen() => outcome,
        stop = tokio::signal::ctrl_c() => stop.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    };
    listener.stop().await;
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl ListenOptions {
    fn into_app(self) -> anyhow::Result<App> {
        if let Some(path) = self.dev_json {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            return App::from_dev_file(&text).with_context(|| format!("in {}", path.display()));
        }
        let (Some(url), Some(project), Some(package), Some(cert)) =
            (self.url, self.project, self.package, self.cert)
        else {
            bail!("either --dev-json, or --url with --project, --package and --cert");
        };
        Ok(App {
            url,
            project,
            package,
            cert,
        })
    }
}

impl App {
    fn from_dev_file(text: &str) -> anyhow::Result<Self> {
        let dev: DevFile =
            serde_json::from_str(text).context("this is no development file of herald")?;
        let cert = dev.cert_sha256.into_iter().next();
        Ok(Self {
            url: reachable_url(&dev.listen),
            project: dev.project_id,
            package: dev.package_name,
            cert: cert.context("\"cert_sha256\" is empty")?,
        })
    }
}

/// The address a server listens on, as a client may use it.
fn reachable_url(listen: &str) -> String {
    if listen.contains("://") {
        return listen.to_owned();
    }
    let Ok(mut address) = listen.parse::<SocketAddr>() else {
        return format!("http://{listen}");
    };
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

/// A device, and where it writes to.
struct Listener<W> {
    app: App,
    state_file: Option<PathBuf>,
    device: Device,
    out: W,
    clock: Clock,
}

impl<W: Write> Listener<W> {
    async fn start(app: App, state_file: Option<PathBuf>, out: W) -> anyhow::Result<Self> {
        let api = Api::new(&app.url)?;
        let kept = match &state_file {
            Some(path) => DeviceState::load(path)?,
            None => None,
        };
        let state = match kept {
            Some(state) => state,
            None => DeviceState::new(api.register().await?),
        };
        let mut listener = Self {
            app,
            state_file,
            device: Device::new(api, state, CLIENT),
            out,
            clock: Clock::system(),
        };
        listener.ensure_token().await?;
        Ok(listener)
    }

    async fn listen(&mut self) -> anyhow::Result<()> {
        self.announce()?;
        while let Some(event) = self.device.next_event().await {
            self.on_event(event).await?;
        }
        bail!("another connection with this device's credential took over; this one stays away")
    }

    async fn stop(self) {
        // What is not told now is told by the next hello.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.device.close()).await;
    }

    async fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Connected { session } => {
                tracing::info!(session, "connected");
                self.renew_token().await
            }
            Event::Push(push) => self.on_push(&push),
            Event::Deleted { token, up_to_syn } => {
                writeln!(
                    self.out,
                    "deleted: the server dropped pushes up to syn {up_to_syn}, too many were waiting"
                )?;
                self.acknowledge(&token, up_to_syn)
            }
            Event::Unregistered { status, .. } => {
                writeln!(self.out, "unregistered: the token ended ({status})")?;
                self.renew_token().await
            }
            Event::Registered { .. } => {
                writeln!(self.out, "registered: the server wants a new device")?;
                self.renew_token().await
            }
            Event::Disconnected { reason, retry_in } => {
                let retry_ms = retry_in.as_millis();
                tracing::warn!(reason, retry_ms, "disconnected");
                Ok(())
            }
            Event::Replaced => Ok(()),
        }
    }

    fn on_push(&mut self, push: &Push) -> anyhow::Result<()> {
        write_push(&mut self.out, push, self.clock.now())?;
        self.acknowledge(&push.token, push.syn)
    }

    /// Called only once the push is out of this process's hands.
    fn acknowledge(&mut self, token: &str, syn: u64) -> anyhow::Result<()> {
        self.out.flush()?;
        self.device.ack(token, syn);
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        if let Some(path) = &self.state_file {
            self.device.state().save(path)?;
        }
        Ok(())
    }

    fn token(&self) -> Option<String> {
        let tokens = self.device.state().tokens.into_iter();
        tokens
            .filter(|known| known.project_id == self.app.project)
            .map(|known| known.token)
            .next()
    }

    /// Mints the token unless there is one; true when it is new.
    async fn ensure_token(&mut self) -> Result<bool, SdkError> {
        if self.token().is_some() {
            return Ok(false);
        }
        let App {
            project,
            package,
            cert,
            ..
        } = &self.app;
        self.device.mint_token(project, package, cert).await?;
        if let Some(path) = &self.state_file {
            self.device.state().save(path)?;
        }
        Ok(true)
    }

    /// Like [`Self::ensure_token`], but leaves what may pass by itself to the next connection.
    async fn renew_token(&mut self) -> anyhow::Result<()> {
        match self.ensure_token().await {
            Ok(true) => self.announce(),
            Ok(false) => Ok(()),
            Err(SdkError::Unreachable(reason)) => {
                tracing::warn!(reason, "cannot mint a token yet");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn announce(&mut self) -> anyhow::Result<()> {
        if let Some(token) = self.token() {
            writeln!(self.out, "token: {token}")?;
            self.out.flush()?;
        }
        Ok(())
    }
}

/// One block: a line on the push, then its message, indented.
fn write_push(out: &mut impl Write, push: &Push, now: Millis) -> io::Result<()> {
    let age_ms = now.saturating_sub(push.time);
    writeln!(
        out,
        "push: syn {}, message {}, accepted {age_ms} ms ago",
        push.syn, push.message_id
    )?;
    let raw = push.message.get();
    let pretty = serde_json::from_str(raw)
        .and_then(|value: serde_json::Value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| raw.to_owned());
    for line in pretty.lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use futures_util::{SinkExt as _, StreamExt as _};
    use herald_protocol::{DeviceFrame, ServerFrame};
    use herald_sdk::{Credential, TokenState};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: ListenOptions,
    }

    const DEV_FILE: &str = r#"{"project_id":"demo","package_name":"com.example.app",
        "cert_sha256":["91:AC"],"service_token":"s","admin_token":"a",
        "listen":"0.0.0.0:8080","admin_listen":"127.0.0.1:8081"}"#;

    #[test]
    fn the_options_name_one_app_completely() {
        let parse = |line: &str| Line::try_parse_from(line.split(' '));
        assert!(parse("listen --dev-json f --state s").is_ok());
        assert!(parse("listen --url http://h --project p --package n --cert c").is_ok());
        for line in [
            "listen --state s",
            "listen --url http://h --project p",
            "listen --dev-json f --url http://h --project p --package n --cert c",
            "listen --dev-json f --project p",
        ] {
            assert!(parse(line).is_err(), "accepted: {line}");
        }
    }

    #[test]
    fn a_development_file_names_the_app() {
        let app = App::from_dev_file(DEV_FILE).expect("is one");
        assert_eq!(app.url, "http://127.0.0.1:8080");
        assert_eq!((app.project.as_str(), app.cert.as_str()), ("demo", "91:AC"));
        assert!(App::from_dev_file("{}").is_err());
        assert!(App::from_dev_file(&DEV_FILE.replace(r#""91:AC""#, "")).is_err());
        assert_eq!(reachable_url("[::]:80"), "http://[::1]:80");
        assert_eq!(
            reachable_url("https://push.example"),
            "https://push.example"
        );
        assert_eq!(reachable_url("push.example:80"), "http://push.example:80");
    }

    #[test]
    fn a_missing_development_file_is_named() {
        let line = Line::try_parse_from(["listen", "--dev-json", "/nowhere/dev.json"]);
        let error = line
            .expect("parses")
            .options
            .into_app()
            .expect_err("is missing");
        assert!(format!("{error:#}").contains("/nowhere/dev.json"));
    }

    #[tokio::test]
    async fn a_push_is_printed_acknowledged_and_remembered() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("device.json");
        let mut state = DeviceState::new(Credential {
            device_id: "d".into(),
            device_secret: "s".into(),
        });
        state.tokens.push(TokenState {
            project_id: "demo".into(),
            token: "t".into(),
            acked: 0,
        });
        state.save(&path).expect("saves");
        let server = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let app = App {
            url: format!("http://{}", server.local_addr().expect("an address")),
            ..App::from_dev_file(DEV_FILE).expect("is one")
        };

        let serve = async {
            let (stream, _) = server.accept().await.expect("accepts");
            let mut socket = tokio_tungstenite::accept_async(stream)
                .await
                .expect("an upgrade");
            socket.next().await.expect("a hello").expect("no fault");
            let welcome =
                r#"{"type":"welcome","session":"s","time":1,"ping_interval_ms":9000,"tokens":[]}"#;
            let mut push = String::new();
            ServerFrame::write_push(&mut push, "t", 7, "m7", 1, r#"{"data":{"a":"b"}}"#);
            for text in [welcome, &push] {
                socket.send(Message::text(text)).await.expect("writes");
            }
            let ack = socket.next().await.expect("an ack").expect("no fault");
            let ack = DeviceFrame::parse(ack.to_text().expect("is text"));
            assert_eq!(
                ack,
                Ok(DeviceFrame::Ack {
                    token: "t".into(),
                    syn: 7
                })
            );
        };
        let mut out = Vec::new();
        let mut listener = Listener::start(app, Some(path.clone()), &mut out)
            .await
            .expect("starts");
        tokio::select! {
            () = serve => {}
            outcome = listener.listen() => panic!("ended: {outcome:?}"),
        }
        drop(listener);
        let printed = String::from_utf8(out).expect("is text");
        assert!(printed.starts_with("token: t\npush: syn 7, message m7, accepted "));
        assert!(
            printed.ends_with(" ms ago\n  {\n    \"data\": {\n      \"a\": \"b\"\n    }\n  }\n")
        );
        let kept = DeviceState::load(&path).expect("loads").expect("is there");
        assert_eq!(kept.tokens.first().map(|token| token.acked), Some(7));
    }
}
