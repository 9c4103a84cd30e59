//! The sending side: HTTP requests over kept connections, at fixed times or as fast as they go.

use std::cell::{Cell, RefCell};

use anyhow::Context as _;
use futures_util::future::{join_all, try_join_all};
use tokio::sync::Semaphore;

use crate::clock::monotonic_ns;
use crate::contenders::{Answered, Publisher, Service};
use crate::http::CallError;
use crate::latency::Latencies;
use crate::ledger::{Ledger, Outcome};
use crate::pacing::{PreciseTimer, Schedule};

/// Sends in a row that found no server: more would only find none again.
const UNREACHABLE_MAX: u32 = 200;

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

/// What the swarm writes into a push, as a JSON object: which send it is, when it was meant to be,
/// and padding up to `payload_bytes` of keys and values, if those two take no more.
pub fn data(number: u64, at_ns: u64, payload_bytes: usize) -> String {
    let keys_and_values = "sendatpad".len() + digits(number) + digits(at_ns);
    let pad = payload_bytes.saturating_sub(keys_and_values);
    format!(
        r#"{{"send":"{number}","at":"{at_ns}","pad":"{:x<pad$}"}}"#,
        ""
    )
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

    /// Send `number`, which was meant for `at_ns`, is over.
    fn note(&mut self, number: u64, at_ns: u64, answer: Result<Answered, CallError>) {
        match answer {
            Ok(Answered { outcome, trouble }) => {
                self.unreachable = 0;
                self.latency.record_ns(monotonic_ns().saturating_sub(at_ns));
                self.settle(number, outcome, trouble);
            }
            Err(error @ CallError::Unreachable(_)) => {
                self.unreachable += 1;
                self.settle(number, Outcome::Refused, Some(error.to_string()));
            }
            Err(error @ CallError::Broken(_)) => {
                self.unreachable = 0;
                self.settle(number, Outcome::Unknown, Some(error.to_string()));
            }
        }
    }
}

/// Sends one push at each moment of the schedule, to the tokens in turn, over `senders`
/// connections. A send that finds all of them busy waits, and its latency counts the wait.
///
/// # Errors
/// When the kernel has no timer.
pub async fn send_on_schedule(
    service: &Service,
    payload_bytes: usize,
    tokens: &[String],
    schedule: Schedule,
    senders: usize,
    tally: &RefCell<SendTally>,
) -> anyhow::Result<()> {
    let permits = Semaphore::new(0);
    let next = Cell::new(0);
    let run = Run {
        tokens,
        next: &next,
        tally,
    };
    let publisher = || service.publisher(payload_bytes);
    let all_senders = try_join_all((0..senders).map(|_| run.send(publisher(), schedule, &permits)));
    let paced = pace(schedule, senders, &permits, tally);
    let (sent, paced) = tokio::join!(all_senders, paced);
    sent?;
    paced
}

/// Sends to the tokens in turn over `senders` connections, on each as fast as the answers come, until
/// a moment of the monotonic clock.
pub async fn send_as_fast_as_it_goes(
    service: &Service,
    payload_bytes: usize,
    tokens: &[String],
    until_ns: u64,
    senders: usize,
    tally: &RefCell<SendTally>,
) {
    let next = Cell::new(0);
    let run = Run {
        tokens,
        next: &next,
        tally,
    };
    let publisher = || service.publisher(payload_bytes);
    join_all((0..senders).map(|_| run.send_until(publisher(), until_ns))).await;
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
    tokens: &'a [String],
    next: &'a Cell<u64>,
    tally: &'a RefCell<SendTally>,
}

impl Run<'_> {
    /// One sender: takes the next send when one is due, until none are left.
    async fn send(
        self,
        mut publisher: Publisher,
        schedule: Schedule,
        permits: &Semaphore,
    ) -> anyhow::Result<()> {
        loop {
            permits.acquire().await?.forget();
            let index = self.next.get();
            if index >= schedule.total() || self.tally.borrow().is_over() {
                return Ok(());
            }
            if !self.send_next(&mut publisher, schedule.at(index)).await {
                return Ok(());
            }
        }
    }

    /// One sender: the next send begins when the last is answered, until the moment is there.
    async fn send_until(self, mut publisher: Publisher, until_ns: u64) {
        while monotonic_ns() < until_ns && !self.tally.borrow().is_over() {
            if !self.send_next(&mut publisher, monotonic_ns()).await {
                return;
            }
        }
    }

    /// Sends what was meant for `at_ns`; false when there is nobody to send to.
    async fn send_next(self, publisher: &mut Publisher, at_ns: u64) -> bool {
        let index = self.next.get();
        self.next.set(index + 1);
        let Some(token) = pick(self.tokens, index) else {
            return false;
        };
        let number = self.tally.borrow_mut().ledger.begin();
        let answer = publisher.publish(token, number, at_ns).await;
        self.tally.borrow_mut().note(number, at_ns, answer);
        true
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

    #[tokio::test]
    async fn sends_to_no_server_are_refused_and_given_up() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let service = Service::Nchan(closed.local_addr().expect("an address"));
        drop(closed);
        let tally = RefCell::new(SendTally::new());
        let schedule = Schedule::new(monotonic_ns(), 100_000.0, 10_000);
        send_on_schedule(&service, 100, &["t".to_owned()], schedule, 4, &tally)
            .await
            .expect("has a timer");
        let tally = tally.into_inner();
        assert!(tally.is_hopeless());
        assert_eq!(tally.ledger.refused(), tally.ledger.sent());
        assert!(tally.ledger.sent() < 1_000);
        assert!(tally.first_trouble.is_some());
    }
}
