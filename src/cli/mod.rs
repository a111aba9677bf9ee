//! The `fanfare` command: what it can do, and how it ends. A file a subcommand.

mod demo;
mod listen;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Realtime hub: pushes Server-Sent Events to very many connections.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    /// Without one, `serve`.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the hub.
    Serve(serve::ServeArgs),
}

/// How a command failed: 1 while it ran, 2 for bad usage or configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::from(1),
        }
    }
}

/// Runs the command of this process and says how it ended.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let result = actix_web::rt::System::new().block_on(async {
        match command.unwrap_or(Command::Serve(serve::ServeArgs::default())) {
            Command::Serve(arguments) => serve::run(arguments).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    }
}
