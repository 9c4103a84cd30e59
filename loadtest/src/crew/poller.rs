//! A device of the swarm without a socket: it polls, and acknowledges with its next poll.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::tally::Crew;
use crate::arrivals::Place;
use crate::clock::monotonic_ns;
use crate::contenders::MessageView;
use crate::habit::around;
use crate::http::{Caller, write_request};
use crate::register::Identity;
use crate::target::Target;

/// How often a device polls once everybody is good: the run waits for it.
const CALM_EVERY: Duration = Duration::from_millis(500);

/// Messages asked for at a time.
const LIMIT: u32 = 100;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    by_token: Vec<Page<'a>>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, default)]
    messages: Vec<Polled<'a>>,
    #[serde(default)]
    partial_content: bool,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Polled<'a> {
    syn: u64,
    #[serde(borrow)]
    message: MessageView<'a>,
}

/// A device that polls.
pub struct Poller {
    identity: Identity,
    place: Place,
    every_ms: u64,
    caller: Caller,
}

impl Poller {
    pub fn new(crew: &Crew, identity: Identity, every_ms: u64) -> Self {
        Self {
            identity,
            place: Place::default(),
            every_ms,
            caller: Caller::new(crew.service.address(), crew.next_source()),
        }
    }

    /// Polls for as long as the process lives.
    pub async fn poll(mut self, crew: Rc<Crew>) {
        let mut standing = crew.standing.subscribe();
        loop {
            let is_more = self.ask(&crew).await.unwrap_or_else(|error| {
                let mut tally = crew.tally.borrow_mut();
                tally.disconnect_reason = Some(format!("a poll failed: {error:#}"));
                false
            });
            if is_more {
                continue;
            }
            if standing.borrow().calm {
                sleep(CALM_EVERY).await;
                continue;
            }
            tokio::select! {
                () = sleep(around(self.every_ms)) => {}
                _ = standing.wait_for(|standing| standing.calm) => {}
            }
        }
    }

    /// One poll; true when more is waiting.
    async fn ask(&mut self, crew: &Crew) -> anyhow::Result<bool> {
        let request = self.request(crew.service.target()?);
        let answer = self.caller.call(&request).await?;
        let text = std::str::from_utf8(&answer.body).context("the answer is not text")?;
        ensure!(answer.status == 200, "HTTP {}: {text}", answer.status);
        let answer: Answer<'_> = serde_json::from_str(text).context("the answer is broken")?;
        let mut tally = crew.tally.borrow_mut();
        tally.polls += 1;
        let now_ns = monotonic_ns();
        let mut is_more = false;
        for page in answer.by_token {
            ensure!(page.error.is_none(), "refused: {:?}", page.error);
            is_more |= page.partial_content;
            for Polled { syn, message } in page.messages {
                tally
                    .on_push(&mut self.place, Some(syn), &message.data, now_ns)
                    .map_err(anyhow::Error::msg)?;
                tally.acked += 1;
            }
        }
        // The next poll says so; nothing is shown again below its `min_syn`.
        self.place.acknowledge();
        Ok(is_more)
    }

    fn request(&mut self, target: &Target) -> Vec<u8> {
        let Identity {
            device_id,
            device_secret,
            token,
        } = &self.identity;
        let head = format!(
            "POST /v1/projects/messages:get HTTP/1.1\r\nhost: {}\r\n\
             authorization: Device {device_id}.{device_secret}\r\ncontent-type: application/json\r\n",
            target.host
        );
        let body = json!({"requests": [{
            "project_id": target.project_id,
            "token": token,
            "min_syn": self.place.reconnect(),
            "limit": LIMIT,
        }]});
        let mut request = Vec::new();
        write_request(&mut request, &head, body.to_string().as_bytes());
        request
    }
}
