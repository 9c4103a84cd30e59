//! The HTTP calls of a device: register, mint and delete tokens, poll.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response, Url};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::SdkError;
use crate::proof;
use crate::state::Credential;
use crate::tls;

/// A call that takes longer than this has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer that is read: four times what the server means to send at most.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One token's part of a poll.
#[derive(Debug, Clone, Serialize)]
pub struct PollRequest {
    /// The token's project.
    pub project_id: String,
    /// The push token.
    pub token: String,
    /// Smallest syn wanted; everything below it counts as acknowledged.
    pub min_syn: u64,
    /// At most this many messages, 1 to 1000.
    pub limit: u32,
}

/// One token's part of the answer to a poll.
#[derive(Debug, Clone, Deserialize)]
pub struct PollEntry {
    /// The token's project.
    pub project_id: String,
    /// The push token.
    pub token: String,
    /// What is waiting, in syn order.
    #[serde(default)]
    pub messages: Vec<PolledMessage>,
    /// More is waiting.
    #[serde(default)]
    pub partial_content: bool,
    /// Pushes up to here were dropped because too many were waiting.
    pub deleted_up_to: Option<u64>,
    /// Why this entry was not served.
    pub error: Option<PollFailure>,
}

/// A push in a poll's answer.
#[derive(Debug, Clone, Deserialize)]
pub struct PolledMessage {
    /// Its number.
    pub syn: u64,
    /// Names the push over every redelivery.
    pub message_id: String,
    /// When the server accepted it, milliseconds since 1970.
    pub time: u64,
    /// The message as it was sent, without its target.
    pub message: Box<RawValue>,
}

/// Why one entry of a poll was not served.
#[derive(Debug, Clone, Deserialize)]
pub struct PollFailure {
    /// What the HTTP status would be.
    pub code: u16,
    /// A google.rpc code.
    pub status: String,
}

#[derive(Serialize)]
struct MintRequest<'a> {
    package_name: &'a str,
    cert_sha256: &'a str,
}

#[derive(Deserialize)]
struct Minted {
    token: String,
}

#[derive(Serialize)]
struct Poll<'a> {
    requests: &'a [PollRequest],
}

#[derive(Deserialize)]
struct Polled {
    by_token: Vec<PollEntry>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    status: String,
    message: String,
    #[serde(default)]
    details: Vec<ErrorDetail>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(rename = "@type")]
    kind: String,
    challenge: Option<String>,
    bits: Option<u32>,
}

const PROOF_DETAIL: &str = "type.googleapis.com/herald.v1.ProofOfWork";

/// A refusal, and the work that would lift it.
struct Refusal {
    error: SdkError,
    challenge: Option<(String, u32)>,
}

/// A server's device API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    base: Url,
    http: reqwest::Client,
    tls: ClientConfig,
}

impl Api {
    /// The server at `url`, trusting the public certificate authorities.
    ///
    /// # Errors
    /// When `url` is no http or https address.
    pub fn new(url: &str) -> Result<Self, SdkError> {
        Self::with_tls(url, tls::public_roots()?)
    }

    /// The server at `url`, with a TLS configuration of the app's own (a private authority, pins).
    ///
    /// # Errors
    /// When `url` is no http or https address.
    pub fn with_tls(url: &str, tls: ClientConfig) -> Result<Self, SdkError> {
        let base = Url::parse(url)
            .ok()
            .filter(|base| matches!(base.scheme(), "http" | "https") && base.has_host())
            .ok_or_else(|| SdkError::BadUrl(url.to_owned()))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SdkError::Unreachable(error.to_string()))?;
        Ok(Self { base, http, tls })
    }

    /// Makes a new device, doing the work the server asks for if it is busy.
    ///
    /// # Errors
    /// See [`SdkError`].
    pub async fn register(&self) -> Result<Credential, SdkError> {
        let challenge = match self.try_register(None).await {
            Ok(credential) => return Ok(credential),
            Err(refusal) => refusal.challenge.ok_or(refusal.error)?,
        };
        let (challenge, bits) = challenge;
        if bits > proof::PROOF_BITS_MAX {
            return Err(SdkError::ProofTooHard(bits));
        }
        let proof = tokio::task::spawn_blocking(move || proof::solve(&challenge, bits))
            .await
            .map_err(|error| SdkError::BadAnswer(error.to_string()))?;
        self.try_register(Some(&proof))
            .await
            .map_err(|refusal| refusal.error)
    }

    /// Mints a push token for one app of one project on this device.
    ///
    /// # Errors
    /// See [`SdkError`]; 403 when package or fingerprint are not the project's.
    pub async fn mint_token(
        &self,
        credential: &Credential,
        project_id: &str,
        package_name: &str,
        cert_sha256: &str,
    ) -> Result<String, SdkError> {
        let url = self.url(&["v1", "projects", project_id, "tokens"])?;
        let body = MintRequest {
            package_name,
            cert_sha256,
        };
        let answer = self
            .call(Method::POST, url, credential, Some(&body))
            .await?;
        let minted: Minted = read_json(answer).await?;
        Ok(minted.token)
    }

    /// Ends a token for everyone, for ever.
    ///
    /// # Errors
    /// See [`SdkError`].
    pub async fn delete_token(
        &self,
        credential: &Credential,
        project_id: &str,
        token: &str,
    ) -> Result<(), SdkError> {
        let url = self.url(&["v1", "projects", project_id, "tokens", token])?;
        self.call(Method::DELETE, url, credential, None::<&()>)
            .await
            .map(drop)
    }

    /// Fetches what is waiting, one entry for each request, in order.
    ///
    /// # Errors
    /// See [`SdkError`]. A fault of one entry is in that entry.
    pub async fn poll(
        &self,
        credential: &Credential,
        requests: &[PollRequest],
    ) -> Result<Vec<PollEntry>, SdkError> {
        let url = self.url(&["v1", "projects", "messages:get"])?;
        let body = Poll { requests };
        let answer = self
            .call(Method::POST, url, credential, Some(&body))
            .await?;
        let polled: Polled = read_json(answer).await?;
        Ok(polled.by_token)
    }

    /// The address of the device socket.
    pub(crate) fn socket_url(&self) -> Result<Url, SdkError> {
        let mut url = self.base.clone();
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme)
            .map_err(|()| SdkError::BadUrl(self.base.to_string()))?;
        let prefix = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{prefix}{}", herald_protocol::CONNECT_PATH));
        Ok(url)
    }

    pub(crate) fn tls(&self) -> ClientConfig {
        self.tls.clone()
    }

    async fn try_register(&self, proof: Option<&str>) -> Result<Credential, Refusal> {
        let plain = |error| Refusal {
            error,
            challenge: None,
        };
        let url = self.url(&["v1", "devices"]).map_err(plain)?;
        let mut request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .body("{}");
        if let Some(proof) = proof {
            request = request.header("Herald-Proof", proof);
        }
        let answer = request.send().await.map_err(|e| plain(unreachable(&e)))?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        read_json(answer).await.map_err(plain)
    }

    async fn call<T: Serialize + ?Sized>(
        &self,
        method: Method,
        url: Url,
        credential: &Credential,
        body: Option<&T>,
    ) -> Result<Response, SdkError> {
        let device = format!(
            "Device {}.{}",
            credential.device_id, credential.device_secret
        );
        let mut request = self.http.request(method, url).header(AUTHORIZATION, device);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| unreachable(&error))?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(refusal(answer).await.error)
        }
    }

    fn url(&self, segments: &[&str]) -> Result<Url, SdkError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| SdkError::BadUrl(self.base.to_string()))?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }
}

async fn refusal(answer: Response) -> Refusal {
    let code = answer.status().as_u16();
    let retry_after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let told: Option<ErrorAnswer> = read_json(answer).await.ok();
    let (status, message, details) = told.map_or_else(Default::default, |told| {
        (told.error.status, told.error.message, told.error.details)
    });
    let challenge = details
        .into_iter()
        .find(|detail| detail.kind == PROOF_DETAIL)
        .and_then(|detail| Some((detail.challenge?, detail.bits?)));
    Refusal {
        error: SdkError::Refused {
            code,
            status,
            message,
            retry_after,
        },
        challenge,
    }
}

async fn read_json<T: DeserializeOwned>(mut answer: Response) -> Result<T, SdkError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(SdkError::BadAnswer("it is too long".into()));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| SdkError::BadAnswer(error.to_string()))
}

/// The error with its causes: reqwest's own text stops before the interesting part.
fn unreachable(error: &reqwest::Error) -> SdkError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    SdkError::Unreachable(text)
}
