//! One server process with its data directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::device::{Credential, Socket};

/// What a server is started with.
#[derive(Default)]
pub struct ServerOptions {
    /// Environment settings, such as `("HERALD_SOCKET__PING_INTERVAL_MS", "200")`.
    pub settings: Vec<(&'static str, String)>,
}

impl ServerOptions {
    fn tls_chain(&self) -> Option<&str> {
        let mut settings = self.settings.iter();
        settings.find_map(|(name, value)| (*name == "HERALD_TLS__CERT").then_some(value.as_str()))
    }

    /// Whom a client trusts: the server's chain ends with its authority.
    fn certificates(&self) -> Vec<reqwest::Certificate> {
        let Some(chain) = self.tls_chain() else {
            return Vec::new();
        };
        let chain = std::fs::read(chain).expect("a certificate chain");
        reqwest::Certificate::from_pem_bundle(&chain).expect("certificates")
    }
}

/// A running server on free ports. Killed when dropped.
pub struct Server {
    process: Child,
    data: TempDir,
    options: ServerOptions,
    dev: Value,
    /// When the development file of the last run was written.
    dev_modified: Option<SystemTime>,
    http: reqwest::Client,
}

impl Server {
    /// A development server with default settings.
    pub async fn start() -> Self {
        Self::with(ServerOptions::default()).await
    }

    /// A development server with these settings.
    pub async fn with(options: ServerOptions) -> Self {
        // The second call of a test process finds the provider installed: that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = tempfile::tempdir().expect("a data directory");
        let process = spawn(data.path(), &options);
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(options.certificates())
            .build()
            .expect("a client");
        let mut server = Self {
            process,
            data,
            options,
            dev: Value::Null,
            dev_modified: None,
            http,
        };
        server.wait_until_up().await;
        server
    }

    async fn wait_until_up(&mut self) {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                panic!("the server ended at start with {status}: {}", self.log());
            }
            let dev = self.data.path().join("dev.json");
            // The file of an earlier run names ports that another test's server may have by now.
            let is_new = modified(&dev).is_some_and(|at| Some(at) != self.dev_modified);
            self.dev = is_new
                .then(|| read_json(&dev))
                .flatten()
                .unwrap_or(Value::Null);
            if self.dev != Value::Null && self.is_ready().await {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the server does not start: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let url = self.admin_url("/readyz");
        matches!(self.http.get(url).send().await, Ok(answer) if answer.status().is_success())
    }

    /// Kills the process with SIGKILL and starts another on the same data.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    /// Starts another process on the same data.
    pub async fn start_again(&mut self) {
        self.dev_modified = modified(&self.data.path().join("dev.json"));
        self.process = spawn(self.data.path(), &self.options);
        self.wait_until_up().await;
    }

    /// Sends SIGTERM and returns at once.
    pub fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).expect("signalled");
    }

    /// Waits for the process to end.
    pub async fn exit_status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"))
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Everything the process has written to standard error, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("stderr.log")).unwrap_or_default()
    }

    /// Address and port of the public listener.
    pub fn listen(&self) -> String {
        self.text("listen")
    }

    /// URL of a public path.
    pub fn url(&self, path: &str) -> String {
        let scheme = match self.options.tls_chain() {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}{path}", self.listen())
    }

    /// URL of a path on the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.text("admin_listen"))
    }

    /// The development project's service token.
    pub fn service_token(&self) -> String {
        self.text("service_token")
    }

    /// The admin token.
    pub fn admin_token(&self) -> String {
        self.text("admin_token")
    }

    /// The HTTP client of this test.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn text(&self, key: &str) -> String {
        self.dev[key]
            .as_str()
            .expect("a text in dev.json")
            .to_owned()
    }

    // --- Senders -----------------------------------------------------------------------------

    /// Sends a body to the development project; status and JSON answer.
    pub async fn send(&self, body: &Value) -> (u16, Value) {
        let url = self.url("/v1/projects/demo/messages:send");
        let request = self
            .http
            .post(url)
            .bearer_auth(self.service_token())
            .json(body);
        answer(request).await
    }

    /// Sends a data message that must be accepted; its message id.
    pub async fn push(&self, token: &str, text: &str) -> String {
        let body = json!({"message": {"token": token, "data": {"text": text}}});
        let (status, answer) = self.send(&body).await;
        assert_eq!(status, 200, "{answer}");
        let name = answer["name"].as_str().expect("a name");
        name.rsplit('/').next().expect("a message id").to_owned()
    }

    // --- Devices -----------------------------------------------------------------------------

    /// A new device.
    pub async fn device(&self) -> Credential {
        let (status, answer) =
            answer(self.http.post(self.url("/v1/devices")).json(&json!({}))).await;
        assert_eq!(status, 200, "{answer}");
        Credential {
            id: answer["device_id"].as_str().expect("an id").to_owned(),
            secret: answer["device_secret"]
                .as_str()
                .expect("a secret")
                .to_owned(),
        }
    }

    /// A new push token of the development project on a device.
    pub async fn token(&self, device: &Credential) -> String {
        let body = json!({
            "package_name": self.dev["package_name"],
            "cert_sha256": self.dev["cert_sha256"][0],
        });
        let url = self.url("/v1/projects/demo/tokens");
        let request = self
            .http
            .post(url)
            .header("Authorization", device.header())
            .json(&body);
        let (status, answer) = answer(request).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Polls; status and JSON answer.
    pub async fn poll(&self, device: &Credential, requests: Value) -> (u16, Value) {
        let url = self.url("/v1/projects/messages:get");
        let body = json!({"requests": requests});
        let request = self
            .http
            .post(url)
            .header("Authorization", device.header())
            .json(&body);
        answer(request).await
    }

    /// Polls one token of the development project; its entry.
    pub async fn poll_token(&self, device: &Credential, token: &str, min_syn: u64) -> Value {
        let request =
            json!([{"project_id": "demo", "token": token, "min_syn": min_syn, "limit": 1000}]);
        let (status, mut answer) = self.poll(device, request).await;
        assert_eq!(status, 200, "{answer}");
        answer["by_token"][0].take()
    }

    /// Opens a socket, without a hello.
    pub async fn connect(&self) -> Socket {
        Socket::connect(&format!("ws://{}/v1/connect", self.listen())).await
    }

    /// Opens a socket and says hello for these tokens; the socket and the welcome.
    pub async fn hello(&self, device: &Credential, tokens: &[(&str, u64)]) -> (Socket, Value) {
        let mut socket = self.connect().await;
        socket.hello(device, tokens).await;
        let welcome = socket.frame().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (socket, welcome)
    }

    // --- Operators ---------------------------------------------------------------------------

    /// Calls the admin API; status and JSON answer (null when there is no body).
    pub async fn admin(&self, method: reqwest::Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self
            .http
            .request(method, self.admin_url(path))
            .bearer_auth(self.admin_token());
        answer(if body.is_null() {
            request
        } else {
            request.json(body)
        })
        .await
    }

    /// The value of a metric, named with its labels as in the text format.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self
            .http
            .get(self.admin_url("/metrics"))
            .send()
            .await
            .expect("metrics");
        let text = text.text().await.expect("a text");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}"))
            .parse()
            .expect("a number")
    }

    /// Asks for a metric until it has this value.
    pub async fn metric_becomes(&self, name: &str, value: f64) {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            let now = self.metric(name).await;
            if (now - value).abs() < 0.5 {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {now}, not {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

/// Sends a request that must get an answer; status and JSON (null when there is no body).
pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = super::soon("an answer", request.send())
        .await
        .expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn spawn(data: &Path, options: &ServerOptions) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(data.join("stderr.log"));
    Command::new(binary())
        .args([
            "serve",
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .arg("--data")
        .arg(data)
        .envs(options.settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log file"))
        .spawn()
        .expect("the server starts")
}

/// The binary under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_herald"))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
