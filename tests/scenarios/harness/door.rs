//! The door of one server: everything that senders, devices and operators do at it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::device::{Credential, Socket};
use super::{PATIENCE, soon};

/// A server that runs, as outsiders see it. It has a development project.
pub struct Door {
    dev: Value,
    http: reqwest::Client,
}

impl Door {
    /// To the server that this development file describes.
    pub fn new(dev: Value) -> Self {
        // The second call of a test process finds the provider installed: that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        Self { dev, http }
    }

    /// Whether the server may take traffic.
    pub async fn is_ready(&self) -> bool {
        let url = self.admin_url("/readyz");
        matches!(self.http.get(url).send().await, Ok(answer) if answer.status().is_success())
    }

    /// Address and port of the public listener.
    pub fn listen(&self) -> String {
        self.text("listen")
    }

    /// URL of a public path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen())
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

    /// Asks for a push token of the development project on a device; status and JSON answer.
    pub async fn try_token(&self, device: &Credential) -> (u16, Value) {
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
        answer(request).await
    }

    /// A new push token of the development project on a device.
    pub async fn token(&self, device: &Credential) -> String {
        let (status, answer) = self.try_token(device).await;
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

    /// Every sample of `/metrics`, by name and labels.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let answer = self.http().get(self.admin_url("/metrics")).send().await;
        let text = answer.expect("metrics").text().await.expect("a text");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
            .collect()
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
        let deadline = Instant::now() + PATIENCE;
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

/// Sends a request that must get an answer; status and JSON (null when there is no body).
pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = soon("an answer", request.send()).await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}
