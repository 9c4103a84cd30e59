//! The swarm: Herald's load tool. It holds sockets in child processes, sends over HTTP, and
//! accounts for every push. Beyond the sockets of this world it simulates sessions.

mod arrivals;
mod bench;
mod clock;
mod commands;
mod contenders;
mod crew;
mod crowd;
mod fleet;
mod habit;
mod http;
mod latency;
mod ledger;
mod load;
mod memory;
mod options;
mod pacing;
mod part;
mod pipe;
mod progress;
mod register;
mod report;
mod scenario;
mod sender;
mod simulation;
mod target;
mod verdict;
mod websocket;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime;
use tokio::task::LocalSet;

use commands::{
    bench as bench_command, hold, merge, mix, push, ratio, simulate, storm, topic, wake,
};

/// The server's allocator: `simulate` weighs the server's own actors in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The server cannot be reached, or the swarm itself failed.
const EXIT_FAILED: u8 = 2;

#[derive(Parser)]
#[command(name = "swarm", version, about = "Herald's load tool")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Networked(Networked),
    /// Runs the server's own sessions in this process, over streams in memory.
    Simulate(simulate::SimulateOptions),
    /// Puts the results of all parts of a run together.
    Merge(merge::MergeOptions),
}

/// The commands that put load on a server.
#[derive(Subcommand)]
enum Networked {
    /// Connects many sockets, lets them be, and weighs the server.
    Hold(hold::HoldOptions),
    /// Sends at a steady rate to connected devices and accounts for every push.
    Push(push::PushOptions),
    /// Cuts all sockets at once and watches them come back while sends go on.
    Storm(storm::StormOptions),
    /// Devices of every kind at once, as a scenario file has them.
    Mix(mix::MixOptions),
    /// Compares the speed of two kinds of calls.
    Ratio(ratio::RatioOptions),
    /// Subscribes many tokens to a topic, sends to it, and watches what that costs.
    Topic(topic::TopicOptions),
    /// Does the same work on several servers that it starts itself, and shows them side by side.
    Bench(bench_command::BenchOptions),
    /// Compares the latency of pushes to parked and to awake sessions.
    Wake(wake::WakeOptions),
    /// A child process; takes its orders from standard input.
    #[command(name = fleet::CREW_COMMAND, hide = true)]
    Crew,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Networked(command) => runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| LocalSet::new().block_on(&runtime, run(command))),
        // The server's actors bring a runtime of their own kind.
        Command::Simulate(options) => simulate::run(&options),
        Command::Merge(options) => merge::run(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("swarm: {error:#}");
        ExitCode::from(EXIT_FAILED)
    })
}

async fn run(command: Networked) -> anyhow::Result<ExitCode> {
    match command {
        Networked::Hold(options) => hold::run(options).await,
        Networked::Push(options) => push::run(options).await,
        Networked::Storm(options) => storm::run(options).await,
        Networked::Mix(options) => mix::run(options).await,
        Networked::Ratio(options) => ratio::run(options).await,
        Networked::Topic(options) => topic::run(options).await,
        Networked::Wake(options) => wake::run(options).await,
        Networked::Bench(options) => bench_command::run(options).await,
        Networked::Crew => crew::run().await.map(|()| ExitCode::SUCCESS),
    }
}
