//! The `fanfare` command: its subcommands (one file each), its runtime and its exit codes.

#![forbid(unsafe_code)]

mod client;
mod demo;
mod disk_log;
mod follows;
mod hub_connection;
mod logging;
mod ping;
mod plan;
mod progress;
mod publish;
mod serve;
mod shell;
mod tail;
mod terminal;
mod token;
mod top;
mod topics;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fanfare_bench::{BenchArgs, BenchError};
use tikv_jemallocator::Jemalloc;
use tokio::runtime::{Builder, LocalOptions};

use self::logging::LogArgs;

/// Chosen by measurement; see the book (internals, memory).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Realtime hub: pushes Server-Sent Events to very many connections.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// None means `serve`.
    #[command(subcommand)]
    command: Option<Command>,
    /// The options of `serve` also work without its name.
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the hub.
    Serve(serve::ServeArgs),
    /// Publishes one event, or one per line of standard input.
    Publish(publish::PublishArgs),
    /// Follows topics; reconnects and resumes by itself.
    Tail(tail::TailArgs),
    /// Lets a user follow an author.
    Follow(follows::EdgeArgs),
    /// Ends it.
    Unfollow(follows::EdgeArgs),
    /// Delivers an event to all followers of an author.
    Fanout(follows::FanOutArgs),
    /// Shows a hub live: streams, rates, latency, memory, Redis, and the busiest topics.
    Top(top::TopArgs),
    /// Shows the busiest topics, or the state of named ones.
    Topics(topics::TopicsArgs),
    /// Measures the time from a publish to its arrival.
    Ping(ping::PingArgs),
    /// Measures a hub under load: opens streams, publishes, and reports loss, latency and cost.
    Bench(BenchArgs),
    /// Plans capacity: servers, memory, open files and bandwidth for a number of connections.
    Plan(plan::PlanArgs),
    /// Checks, shows or copies a log on disk.
    Log(disk_log::DiskLogArgs),
    /// Signs a token for tests and demos.
    Token(token::TokenArgs),
    /// Prints a script completing this command in a shell.
    Completions(shell::CompletionsArgs),
    /// Writes the manual pages.
    Man(shell::ManArgs),
}

/// How a command failed. Exit code 1: failed while running. Exit code 2: invalid usage or
/// configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Usage(message) => Self::Usage(message),
            BenchError::Failed(message) => Self::Failed(message),
        }
    }
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::from(1),
        }
    }
}

fn main() -> ExitCode {
    let Arguments { command, serve } = Arguments::parse();
    let command = command.unwrap_or(Command::Serve(serve));
    match &command {
        Command::Serve(arguments) => logging::start(&arguments.log, "info,actix=warn"),
        _ => logging::start(&LogArgs::default(), "warn"),
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    }
}

/// Runs without an actix system. Inside one, workers run their tasks in a set of local tasks, and
/// each wake takes a detour through the set. Without one, workers run them directly.
fn run(command: Command) -> Result<(), CliError> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
    runtime.block_on(async {
        match command {
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Publish(arguments) => publish::run(arguments).await,
            Command::Tail(arguments) => tail::run(arguments).await,
            Command::Follow(arguments) => follows::follow(arguments).await,
            Command::Unfollow(arguments) => follows::unfollow(arguments).await,
            Command::Fanout(arguments) => follows::fan_out(arguments).await,
            Command::Top(arguments) => top::run(arguments).await,
            Command::Topics(arguments) => topics::run(arguments).await,
            Command::Ping(arguments) => ping::run(arguments).await,
            Command::Bench(arguments) => Ok(fanfare_bench::run(arguments).await?),
            Command::Plan(arguments) => plan::run(&arguments),
            Command::Log(arguments) => disk_log::run(&arguments),
            Command::Token(arguments) => token::run(arguments),
            Command::Completions(arguments) => shell::completions(&arguments),
            Command::Man(arguments) => shell::man(&arguments),
        }
    })
}
