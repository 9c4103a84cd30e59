//! Many tokens on one topic: minted and subscribed a thousand at a time, and not kept, except for a
//! sample that is looked at in the end.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Caller, write_request};
use crate::register::{Identity, mint, register_some};
use crate::target::Target;

/// Tokens subscribed by one call: the most that one may name.
const BATCH: u64 = 1_000;

/// Connections that work side by side.
const WORKERS: usize = 16;

/// Of so many tokens one is in the sample.
const SAMPLED_OF: u64 = 1_000;

/// Tokens that are subscribed, and those of them that are looked at.
pub struct Crowd {
    /// The device that they are all on.
    device: Identity,
    sample: Vec<String>,
}

/// What the sample has got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Tokens without a copy.
    pub lost: u64,
    /// Copies beyond the first of a token.
    pub duplicated: u64,
}

impl Crowd {
    /// Mints `count` tokens and subscribes them to a topic. `shown` hears how many there are.
    ///
    /// # Errors
    /// When the server refuses one of them.
    pub async fn gather(
        target: &Target,
        topic: &str,
        count: u64,
        shown: impl Fn(u64),
    ) -> anyhow::Result<Self> {
        let device = register_some(target, None, 1).await.pop();
        let device = device.context("no device")??;
        let (next, done) = (Cell::new(0), Cell::new(0));
        let sample = RefCell::new(Vec::new());
        let worker = async || {
            let mut caller = Caller::new(target.server, None);
            while next.get() < count {
                let (first, size) = (next.get(), BATCH.min(count - next.get()));
                next.set(first + size);
                let mut tokens = Vec::new();
                for number in first..first + size {
                    let token = mint(target, &mut caller, &device).await?;
                    if number % SAMPLED_OF == 0 {
                        sample.borrow_mut().push(token.clone());
                    }
                    tokens.push(token);
                }
                subscribe(target, &mut caller, topic, &tokens).await?;
                done.set(done.get() + size);
                shown(done.get());
            }
            anyhow::Ok(())
        };
        try_join_all((0..WORKERS).map(|_| worker())).await?;
        let sample = sample.into_inner();
        Ok(Self { device, sample })
    }

    /// Looks at the sample: each token must have the message once.
    ///
    /// # Errors
    /// When the server refuses a poll.
    pub async fn look_for(&self, target: &Target, message_id: &str) -> anyhow::Result<Found> {
        let mut caller = Caller::new(target.server, None);
        let mut found = Found::default();
        for token in &self.sample {
            let page = poll(target, &mut caller, &self.device, token).await?;
            let copies = page.iter().filter(|id| id.as_str() == message_id).count() as u64;
            found.lost += u64::from(copies == 0);
            found.duplicated += copies.saturating_sub(1);
        }
        Ok(found)
    }
}

async fn subscribe(
    target: &Target,
    caller: &mut Caller,
    topic: &str,
    tokens: &[String],
) -> anyhow::Result<()> {
    let body = json!({"to": format!("/topics/{topic}"), "registration_tokens": tokens});
    let answer = as_sender(target, caller, "/iid/v1:batchAdd", &body).await?;
    let results = answer["results"].as_array().context("no results")?;
    let refused = results.iter().find(|result| **result != json!({}));
    ensure!(refused.is_none(), "a token was not subscribed: {refused:?}");
    Ok(())
}

/// Posts as the project's sender.
///
/// # Errors
/// When there is no answer with 200.
pub async fn as_sender(
    target: &Target,
    caller: &mut Caller,
    path: &str,
    body: &Value,
) -> anyhow::Result<Value> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\n",
        target.host, target.service_token
    );
    call(caller, &head, body)
        .await
        .with_context(|| path.to_owned())
}

async fn poll(
    target: &Target,
    caller: &mut Caller,
    device: &Identity,
    token: &str,
) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Message {
        message_id: String,
    }
    let head = format!(
        "POST /v1/projects/messages:get HTTP/1.1\r\nhost: {}\r\n\
         authorization: Device {}.{}\r\ncontent-type: application/json\r\n",
        target.host, device.device_id, device.device_secret
    );
    let body = json!({"requests": [{"project_id": target.project_id, "token": token}]});
    let mut answer = call(caller, &head, &body).await.context("a poll")?;
    let messages = answer["by_token"][0]["messages"].take();
    let messages: Vec<Message> = serde_json::from_value(messages).context("no messages")?;
    Ok(messages.into_iter().map(|it| it.message_id).collect())
}

async fn call(caller: &mut Caller, head: &str, body: &Value) -> anyhow::Result<Value> {
    let mut request = Vec::new();
    write_request(&mut request, head, body.to_string().as_bytes());
    let answer = caller.call(&request).await?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200, "HTTP {}: {text}", answer.status);
    serde_json::from_str(&text).context("the answer cannot be read")
}
