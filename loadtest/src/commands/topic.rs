//! `swarm topic`: subscribes many tokens to a topic, sends to it, and watches what that costs: time,
//! memory, and the sends to single tokens that go on beside it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use crate::clock::monotonic_ns;
use crate::contenders::Service;
use crate::crowd::{Crowd, as_sender};
use crate::http::Caller;
use crate::options::{parse_duration, parse_rate};
use crate::pacing::{Schedule, due_in};
use crate::progress::Stage;
use crate::register::register_some;
use crate::report::RunResult;
use crate::sender::{SendTally, send_on_schedule};
use crate::target::{FanOutFacts, Operator, Target, TargetOptions};
use crate::verdict::LAG_MS_MAX;

/// How often the server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Connections of the sends beside it.
const SENDERS: usize = 16;

/// Tokens of the sends beside it.
const BYSTANDERS: u32 = 100;

/// A little time for everything to be ready.
const HEAD_START_NS: u64 = 20_000_000;

/// Flags of `swarm topic`.
#[derive(Debug, Args)]
pub struct TopicOptions {
    #[command(flatten)]
    target: TargetOptions,
    /// Tokens on the topic.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    tokens: u64,
    /// Sends to single tokens a second, before and beside the send to the topic.
    #[arg(long, default_value_t = 200.0, value_parser = parse_rate)]
    rate: f64,
    /// How long such sends go on before it, to know what they take without it.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    before: Duration,
    /// Bytes of data in the push, keys and values.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=4_096))]
    payload: u16,
    /// Gives up after this long.
    #[arg(long, default_value = "60m", value_parser = parse_duration)]
    patience: Duration,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When the server cannot be reached, or refuses.
pub async fn run(options: TopicOptions) -> anyhow::Result<ExitCode> {
    let (target, mut operator) = options.target.resolve().await?;
    let outcome = measure(&options, &target, &mut operator).await;
    operator.clean_up().await;
    let result = outcome?;
    result.publish(options.json.as_deref())?;
    Ok(result.exit_code())
}

async fn measure(
    options: &TopicOptions,
    target: &Target,
    operator: &mut Operator,
) -> anyhow::Result<RunResult> {
    let topic = format!("swarm-{:08x}", rand::random::<u32>());
    let empty = operator.process_facts().await?.rss_bytes;
    let stage = RefCell::new(Stage::begin("subscribe", options.tokens));
    let shown = |done| stage.borrow_mut().at(done, "");
    let crowd = Crowd::gather(target, &topic, options.tokens, shown).await?;
    stage.into_inner().end(options.tokens, "");
    let subscribed = operator.process_facts().await?.rss_bytes;

    let bystanders = bystanders(target).await?;
    let alone = RefCell::new(SendTally::new());
    let sends = due_in(options.rate, options.before);
    send_beside(options, target, &bystanders, sends, &alone).await?;

    let beside = RefCell::new(SendTally::new());
    let sending = send_beside(options, target, &bystanders, u64::MAX, &beside);
    let watching = fan_out(options, target, operator, &topic);
    let watched = tokio::select! {
        sent = sending => anyhow::bail!("the sends beside it ended: {sent:?}"),
        watched = watching => watched?,
    };
    let found = crowd.look_for(target, &watched.message_id).await?;

    let (alone, beside) = (alone.into_inner(), beside.into_inner());
    let seconds = watched.took.as_secs_f64();
    let mut result = RunResult {
        command: "topic".to_owned(),
        sent: Some(beside.ledger.sent()),
        accepted: Some(beside.ledger.accepted()),
        refused: Some(beside.ledger.refused()),
        lost: Some(found.lost),
        duplicated: Some(found.duplicated),
        topic_tokens: Some(options.tokens),
        topic_copies: Some(watched.copies),
        topic_seconds: Some(seconds),
        topic_copies_per_s: u32::try_from(watched.copies)
            .ok()
            .map(|copies| f64::from(copies) / seconds),
        server_rss_bytes: Some(watched.rss_peak),
        server_rss_points: Some(vec![(0, empty), (options.tokens, subscribed)]),
        alone_send_ms_p50: alone.latency.percentiles().map(|ms| ms.p50),
        alone_send_ms_p99: alone.latency.percentiles().map(|ms| ms.p99),
        swarm_lag_ms_p99: beside.lag.percentiles().map(|lag| lag.p99),
        first_trouble: alone.first_trouble.or(beside.first_trouble),
        ..RunResult::default()
    };
    result.set_send_latency(beside.latency.percentiles());
    let lag_ms = result.swarm_lag_ms_p99.unwrap_or_default();
    result.void_if(lag_ms > LAG_MS_MAX, || {
        format!("the swarm did not keep its schedule: it was {lag_ms} ms late")
    });
    result.void_if(!watched.is_finished, || "it did not end in time".to_owned());
    Ok(result)
}

/// What was seen of a send to a topic.
struct Watched {
    message_id: String,
    took: Duration,
    copies: u64,
    rss_peak: u64,
    is_finished: bool,
}

async fn fan_out(
    options: &TopicOptions,
    target: &Target,
    operator: &mut Operator,
    topic: &str,
) -> anyhow::Result<Watched> {
    let before = operator.fan_out_facts().await?;
    let begun = Instant::now();
    let message_id = send_to(target, topic, options.payload).await?;
    let mut stage = Stage::begin("fan out", options.tokens);
    let mut rss_peak = 0;
    loop {
        let FanOutFacts {
            copies,
            unfinished,
            rss_bytes,
        } = operator.fan_out_facts().await?;
        rss_peak = rss_peak.max(rss_bytes);
        let copies = copies.saturating_sub(before.copies);
        stage.at(copies, "copies");
        let is_finished = unfinished == 0;
        if is_finished || begun.elapsed() >= options.patience {
            stage.end(copies, "copies");
            return Ok(Watched {
                message_id,
                took: begun.elapsed(),
                copies,
                rss_peak,
                is_finished,
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn send_to(target: &Target, topic: &str, payload: u16) -> anyhow::Result<String> {
    let path = format!("/v1/projects/{}/messages:send", target.project_id);
    let text = "x".repeat(usize::from(payload).saturating_sub("pad".len()));
    let body = json!({"message": {"topic": topic, "data": {"pad": text}}});
    let mut caller = Caller::new(target.server, None);
    let answer = as_sender(target, &mut caller, &path, &body).await?;
    let name = answer["name"]
        .as_str()
        .context("an answer without a name")?;
    let message_id = name.rsplit('/').next().unwrap_or_default();
    Ok(message_id.to_owned())
}

async fn bystanders(target: &Target) -> anyhow::Result<Vec<String>> {
    let devices = register_some(target, None, BYSTANDERS).await;
    let tokens = devices
        .into_iter()
        .map(|device| device.map(|device| device.token));
    tokens.collect()
}

async fn send_beside(
    options: &TopicOptions,
    target: &Target,
    tokens: &[String],
    total: u64,
    tally: &RefCell<SendTally>,
) -> anyhow::Result<()> {
    let service = Service::Herald(target.clone());
    let schedule = Schedule::new(monotonic_ns() + HEAD_START_NS, options.rate, total);
    let payload = options.payload.into();
    send_on_schedule(&service, payload, tokens, schedule, SENDERS, tally).await
}
