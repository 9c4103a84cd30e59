//! The senders of a simulation: at fixed times, straight into the node.

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use herald::actors::{AppendError, Node, Outgoing, Sent};
use herald::push::{MessageId, NewPush};

use super::population::Population;
use crate::clock::monotonic_ns;
use crate::ledger::Outcome;
use crate::pacing::{PreciseTimer, Schedule};
use crate::sender::SendTally;

/// Sends at a time; one that is due beyond them waits, and its latency counts the wait.
const SENDING_MAX: usize = 1_024;

/// A day: none of these pushes expires.
const TTL_MS: u64 = 24 * 60 * 60 * 1_000;

/// How one send ended.
struct Ended {
    number: u64,
    at_ns: u64,
    outcome: Result<Sent, AppendError>,
}

/// Sends one push at each moment of the schedule. `on_progress` hears how many are sent.
///
/// # Errors
/// When the kernel has no timer.
pub async fn send_all(
    node: &Node,
    population: Population,
    schedule: Schedule,
    payload: usize,
    tally: &mut SendTally,
    mut on_progress: impl FnMut(u64),
) -> anyhow::Result<()> {
    let timer = PreciseTimer::new().context("cannot make a timer")?;
    let mut sending = FuturesUnordered::new();
    let mut begun = 0;
    let mut is_free = true;
    while begun < schedule.total() || !sending.is_empty() {
        let now_ns = monotonic_ns();
        let due = schedule.due(now_ns);
        if begun < due && is_free {
            tally.lag.record_ns(now_ns - schedule.at(begun));
        }
        while begun < due && sending.len() < SENDING_MAX {
            let (number, at_ns) = (tally.ledger.begin(), schedule.at(begun));
            sending.push(send(node, population, number, at_ns, payload));
            begun += 1;
        }
        on_progress(begun);
        // A send that waits for others to end is late by the server's doing, not by the swarm's.
        is_free = sending.len() < SENDING_MAX;
        let may_begin = is_free && begun < schedule.total();
        tokio::select! {
            Some(ended) = sending.next(), if !sending.is_empty() => settle(tally, ended),
            rung = timer.until(schedule.at(begun)), if may_begin => rung?,
        }
    }
    Ok(())
}

async fn send(
    node: &Node,
    population: Population,
    number: u64,
    at_ns: u64,
    payload: usize,
) -> Ended {
    let now = node.clock().now();
    let message = format!(
        r#"{{"data":{{"send":"{number}","at":"{at_ns}","pad":"{:x<payload$}"}}}}"#,
        ""
    );
    let push = NewPush {
        address: population.address(population.receiver(number), now),
        message_id: MessageId::generate(now),
        accepted_at: now,
        expires_at: now + TTL_MS,
        collapse_key: None,
        idempotency: None,
        is_copy: false,
        message: message.into(),
    };
    Ended {
        number,
        at_ns,
        outcome: node.send(Outgoing::ToOne(push)).await,
    }
}

fn settle(tally: &mut SendTally, ended: Ended) {
    let latency_ns = monotonic_ns().saturating_sub(ended.at_ns);
    tally.latency.record_ns(latency_ns);
    let trouble = match &ended.outcome {
        Ok(Sent::Stored(_)) => None,
        Ok(Sent::Unregistered) => Some("unregistered".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    tally.settle(ended.number, meaning(&ended.outcome), trouble);
}

fn meaning(outcome: &Result<Sent, AppendError>) -> Outcome {
    match outcome {
        Ok(Sent::Stored(_)) => Outcome::Accepted,
        Ok(Sent::Unregistered)
        | Err(AppendError::TokenBusy | AppendError::NodeBusy | AppendError::FanOutsBusy) => {
            Outcome::Refused
        }
        Err(AppendError::TimedOut) => Outcome::Unknown,
        Err(AppendError::Store(error)) if error.is_certainly_not_applied() => Outcome::Refused,
        Err(AppendError::Store(_)) => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use herald::store::StoreError;

    use super::*;

    #[test]
    fn outcomes_mean_what_they_say() {
        assert_eq!(meaning(&Ok(Sent::Unregistered)), Outcome::Refused);
        assert_eq!(meaning(&Err(AppendError::NodeBusy)), Outcome::Refused);
        assert_eq!(meaning(&Err(AppendError::TimedOut)), Outcome::Unknown);
        let full = AppendError::Store(StoreError::Full);
        assert_eq!(meaning(&Err(full)), Outcome::Refused);
        let lost = AppendError::Store(StoreError::OutcomeUnknown("x"));
        assert_eq!(meaning(&Err(lost)), Outcome::Unknown);
    }
}
