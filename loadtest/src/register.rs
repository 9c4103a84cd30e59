//! Makes devices: registers them and mints a token each, over one kept connection.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::http::{Caller, write_request};
use crate::target::Target;

/// One device with its only token.
#[derive(Debug)]
pub struct Identity {
    /// Public.
    pub device_id: String,
    /// Secret.
    pub device_secret: String,
    /// The push token.
    pub token: String,
}

impl Identity {
    /// For servers that know of a recipient nothing but its name, and that from itself.
    pub fn of_a_name() -> Self {
        Self {
            device_id: String::new(),
            device_secret: String::new(),
            token: format!("{:016x}", rand::random::<u64>()),
        }
    }
}

#[derive(Deserialize)]
struct Registered {
    device_id: String,
    device_secret: String,
}

#[derive(Deserialize)]
struct Minted {
    token: String,
}

/// Registers `count` devices, one after the other.
pub async fn register_some(
    target: &Target,
    source: Option<IpAddr>,
    count: u32,
) -> Vec<anyhow::Result<Identity>> {
    let mut caller = Caller::new(target.server, source);
    let mut outcomes = Vec::new();
    for _ in 0..count {
        outcomes.push(register(target, &mut caller).await);
    }
    outcomes
}

async fn register(target: &Target, caller: &mut Caller) -> anyhow::Result<Identity> {
    let host = &target.host;
    let head = format!("POST /v1/devices HTTP/1.1\r\nhost: {host}\r\n");
    let device: Registered = post(caller, &head, b"{}").await.context("registering")?;
    let mut identity = Identity {
        device_id: device.device_id,
        device_secret: device.device_secret,
        token: String::new(),
    };
    identity.token = mint(target, caller, &identity).await?;
    Ok(identity)
}

/// Mints one more token on a device.
///
/// # Errors
/// When the server refuses.
pub async fn mint(
    target: &Target,
    caller: &mut Caller,
    device: &Identity,
) -> anyhow::Result<String> {
    let head = format!(
        "POST /v1/projects/{}/tokens HTTP/1.1\r\nhost: {}\r\nauthorization: Device {}.{}\r\n",
        target.project_id, target.host, device.device_id, device.device_secret
    );
    let app = json!({
        "package_name": target.package_name,
        "cert_sha256": target.cert_sha256,
    });
    let minted: Minted = post(caller, &head, app.to_string().as_bytes())
        .await
        .context("minting a token")?;
    Ok(minted.token)
}

async fn post<T: DeserializeOwned>(
    caller: &mut Caller,
    head: &str,
    body: &[u8],
) -> anyhow::Result<T> {
    let mut request = Vec::new();
    let head = format!("{head}content-type: application/json\r\n");
    write_request(&mut request, &head, body);
    let answer = caller.call(&request).await?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200, "HTTP {}: {text}", answer.status);
    serde_json::from_str(&text).context("the answer cannot be read")
}
