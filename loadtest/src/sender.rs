//! The sending side: HTTP requests over kept connections, at fixed times or as fast as they go.

use std::cell::{Cell, RefCell};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use crate::clock::monotonic_ns;
use crate::http::{Caller, write_request};
use crate::latency::Latencies;
use crate::ledger::{Ledger, Outcome};
use crate::pacing::{PreciseTimer, Schedule};
use crate::target::Target;

/// Sends in a row that found no server: more would only find none again.
const UNREACHABLE_MAX: u32 = 200;

/// Writes send requests.
pub struct Letter {
    head: String,
    payload_bytes: usize,
}

/// What the senders of a run have seen.
pub struct SendTally {
    /// Every send and its outcome.
    pub ledger: Ledger,
    /// From the intended time of each answered send to its answer.
    pub latency: Latencies,
    /// How late the swarm itself was at handing sends to its senders.
    pub lag: Latencies,
    /// What the first send that was not accepted was told.
    pub first_trouble: Option<String>,
    unreachable: u32,
    finished: bool,
}

impl Letter {
    /// Letters to the target's project, each with `payload_bytes` of data if its own three keys
    /// take no more.
    pub fn new(target: &Target, payload_bytes: usize) -> Self {
        let head = format!(
            "POST /v1/projects/{}/messages:send HTTP/1.1\r\nhost: {}\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n",
            target.project_id, target.host, target.service_token
        );
        Self {
            head,
            payload_bytes,
        }
    }

    /// Replaces `out` with the request for send `number`, meant for `at_ns`.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        token: &str,
        number: u64,
        at_ns: u64,
        validate_only: bool,
    ) {
        out.clear();
        let keys_and_values = "sendatpad".len() + digits(number) + digits(at_ns);
        let pad = self.payload_bytes.saturating_sub(keys_and_values);
        let validate_only = if validate_only {
            r#""validate_only":true,"#
        } else {
            ""
        };
        let body = format!(
            r#"{{{validate_only}"message":{{"token":"{token}","data":{{"send":"{number}","at":"{at_ns}","pad":"{:x<pad$}"}}}}}}"#,
            ""
        );
        write_request(out, &self.head, body.as_bytes());
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

impl SendTally {
    /// Nothing sent yet.
    pub fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            latency: Latencies::new(),
            lag: Latencies::new(),
            first_trouble: None,
            unreachable: 0,
            finished: false,
        }
    }

    /// Whether there is no server left to send to.
    fn is_hopeless(&self) -> bool {
        self.unreachable >= UNREACHABLE_MAX
    }

    /// From now on no send begins.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    fn is_over(&self) -> bool {
        self.finished || self.is_hopeless()
    }

    /// Send `number` is over; `trouble` says what its sender was told instead of a yes.
    pub fn settle(&mut self, number: u64, outcome: Outcome, trouble: Option<String>) {
        self.ledger.settle(number, outcome);
        if self.first_trouble.is_none() {
            self.first_trouble = trouble;
        }
    }

    fn note_reachable(&mut self, reachable: bool) {
        self.unreachable = if reachable { 0 } else { self.unreachable + 1 };
    }
}

/// Sends one push at each moment of the schedule, to the tokens in turn, over `senders`
/// connections. A send that finds all of them busy waits, and its latency counts the wait.
///
/// # Errors
/// When the kernel has no timer.
pub async fn send_on_schedule(
    target: &Target,
    letter: &Letter,
    tokens: &[String],
    schedule: Schedule,
    senders: usize,
    tally: &RefCell<SendTally>,
) -> anyhow::Result<()> {
    let permits = Semaphore::new(0);
    let next = Cell::new(0);
    let run = Run {
        letter,
        tokens,
        schedule,
        next: &next,
        tally,
    };
    let all_senders = try_join_all((0..senders).map(|_| run.send(target, &permits)));
    let paced = pace(schedule, senders, &permits, tally);
    let (sent, paced) = tokio::join!(all_senders, paced);
    sent?;
    paced
}

/// Lets sends go at their times, then lets every sender find that none are left.
async fn pace(
    schedule: Schedule,
    senders: usize,
    permits: &Semaphore,
    tally: &RefCell<SendTally>,
) -> anyhow::Result<()> {
    let timer = PreciseTimer::new().context("cannot make a timer")?;
    let mut released = 0;
    while released < schedule.total() && !tally.borrow().is_over() {
        let now_ns = monotonic_ns();
        let due = schedule.due(now_ns);
        if due > released {
            let lag_ns = now_ns - schedule.at(released);
            tally.borrow_mut().lag.record_ns(lag_ns);
            permits.add_permits(usize::try_from(due - released)?);
            released = due;
            tokio::task::yield_now().await;
        } else {
            timer.until(schedule.at(released)).await?;
        }
    }
    permits.add_permits(senders);
    Ok(())
}

/// What all senders of a run share.
#[derive(Clone, Copy)]
struct Run<'a> {
    letter: &'a Letter,
    tokens: &'a [String],
    schedule: Schedule,
    next: &'a Cell<u64>,
    tally: &'a RefCell<SendTally>,
}

impl Run<'_> {
    /// One sender: takes the next send when one is due, until none are left.
    async fn send(self, target: &Target, permits: &Semaphore) -> anyhow::Result<()> {
        let mut caller = Caller::new(target.server, None);
        let mut request = Vec::new();
        loop {
            permits.acquire().await?.forget();
            let index = self.next.get();
            if index >= self.schedule.total() || self.tally.borrow().is_over() {
                return Ok(());
            }
            self.next.set(index + 1);
            let Some(token) = pick(self.tokens, index) else {
                return Ok(());
            };
            let at_ns = self.schedule.at(index);
            let number = self.tally.borrow_mut().ledger.begin();
            self.letter.write(&mut request, token, number, at_ns, false);
            send_one(&mut caller, &request, number, at_ns, self.tally).await;
        }
    }
}

async fn send_one(
    caller: &mut Caller,
    request: &[u8],
    number: u64,
    at_ns: u64,
    tally: &RefCell<SendTally>,
) {
    use crate::http::CallError;
    let answer = caller.call(request).await;
    let mut tally = tally.borrow_mut();
    tally.note_reachable(!matches!(answer, Err(CallError::Unreachable(_))));
    match answer {
        Ok(answer) => {
            tally
                .latency
                .record_ns(monotonic_ns().saturating_sub(at_ns));
            let outcome = outcome_of(answer.status);
            let trouble = (outcome != Outcome::Accepted).then(|| {
                let body = String::from_utf8_lossy(&answer.body);
                format!("HTTP {}: {body}", answer.status)
            });
            tally.settle(number, outcome, trouble);
        }
        Err(error @ CallError::Unreachable(_)) => {
            tally.settle(number, Outcome::Refused, Some(error.to_string()));
        }
        Err(error @ CallError::Broken(_)) => {
            tally.settle(number, Outcome::Unknown, Some(error.to_string()));
        }
    }
}

/// What an answer says of the push (the contract's table of answers).
fn outcome_of(status: u16) -> Outcome {
    match status {
        200 => Outcome::Accepted,
        400..=499 | 503 => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

/// Tokens in turn; `None` when there are none.
pub fn pick(tokens: &[String], index: u64) -> Option<&str> {
    let place = index.checked_rem(tokens.len() as u64)?;
    let place = usize::try_from(place).ok()?;
    tokens.get(place).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            server: "127.0.0.1:1".parse().expect("an address"),
            host: "h".into(),
            project_id: "demo".into(),
            package_name: "p".into(),
            cert_sha256: "c".into(),
            service_token: "s".into(),
        }
    }

    #[test]
    fn a_letter_has_the_payload_that_was_asked_for() {
        for (payload, number, at_ns) in [(200, 0, 0), (4_096, 123, u64::MAX), (0, 10, 99)] {
            let mut request = Vec::new();
            let letter = Letter::new(&target(), payload);
            letter.write(&mut request, "tok", number, at_ns, payload == 0);
            let text = String::from_utf8(request).expect("is text");
            let (head, body) = text.split_once("\r\n\r\n").expect("has a body");
            assert!(head.contains(&format!("content-length: {}", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).expect("is JSON");
            assert_eq!(
                body["validate_only"].as_bool(),
                (payload == 0).then_some(true)
            );
            let data = body["message"]["data"].as_object().expect("has data");
            let bytes: usize = data
                .iter()
                .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
                .sum();
            assert_eq!(bytes, payload.max("sendatpad".len() + 4));
        }
    }

    #[test]
    fn answers_mean_what_the_contract_says() {
        assert_eq!(outcome_of(200), Outcome::Accepted);
        for status in [400, 404, 429, 503] {
            assert_eq!(outcome_of(status), Outcome::Refused);
        }
        for status in [500, 502, 504] {
            assert_eq!(outcome_of(status), Outcome::Unknown);
        }
    }

    #[tokio::test]
    async fn sends_to_no_server_are_refused_and_given_up() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let target = Target {
            server: closed.local_addr().expect("an address"),
            ..target()
        };
        drop(closed);
        let tally = RefCell::new(SendTally::new());
        let letter = Letter::new(&target, 100);
        let schedule = Schedule::new(monotonic_ns(), 100_000.0, 10_000);
        send_on_schedule(&target, &letter, &["t".to_owned()], schedule, 4, &tally)
            .await
            .expect("has a timer");
        let tally = tally.into_inner();
        assert!(tally.is_hopeless());
        assert_eq!(tally.ledger.refused(), tally.ledger.sent());
        assert!(tally.ledger.sent() < 1_000);
        assert!(tally.first_trouble.is_some());
    }
}
