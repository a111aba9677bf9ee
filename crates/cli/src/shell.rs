//! `fanfare completions` and `fanfare man`: files for shells and for `man`, from the definition of the
//! options.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, CliError};

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell; the script is printed
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Directory for a page of each command; without it, the page of `fanfare` is printed
    directory: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "fanfare", &mut script);
    print(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<(), CliError> {
    if let Some(directory) = &args.directory {
        let failed = |error| CliError::Failed(format!("{}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(failed)?;
        return clap_mangen::generate_to(command(), directory).map_err(failed);
    }
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command()).render(&mut page);
    rendered.map_err(|error| CliError::Failed(error.to_string()))?;
    print(&page)
}

fn command() -> Command {
    Arguments::command().name("fanfare")
}

fn print(bytes: &[u8]) -> Result<(), CliError> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}
