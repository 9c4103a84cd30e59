//! `herald`: reads the command line and runs what it asks for.

use std::process::ExitCode;

use herald::cli;

/// Gives memory back after a storm of devices, and costs less per small object than the system's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(command) => cli::run(command).into(),
        Err(exit) => exit.into(),
    }
}
