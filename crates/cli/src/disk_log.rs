//! `fanfare log`: checks, shows and copies a log on disk, also one in use.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use fanfare_core::cursor::Epoch;
use fanfare_log::{Checked, CopyError, Damage, OpenError};

use super::CliError;

#[derive(Debug, Args)]
pub(crate) struct DiskLogArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Verifies every record. Exits with 1 if the log is damaged. Changes nothing.
    Check { directory: PathBuf },
    /// Shows size, records and sequences of each partition.
    Stats { directory: PathBuf },
    /// Copies the log up to this moment to a new or empty directory, also beside a running hub.
    Copy { directory: PathBuf, target: PathBuf },
}

pub(crate) fn run(arguments: &DiskLogArgs) -> Result<(), CliError> {
    match &arguments.action {
        Action::Check { directory } => check(directory),
        Action::Stats { directory } => stats(directory),
        Action::Copy { directory, target } => copy(directory, target),
    }
}

fn check(directory: &Path) -> Result<(), CliError> {
    let checked = read(directory)?;
    print!("{}", summary(&checked));
    for damage in &checked.damage {
        println!("{}", damage_line(damage));
    }
    match checked.damage.len() {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 damaged place".to_owned())),
        count => Err(CliError::Failed(format!("{count} damaged places"))),
    }
}

fn stats(directory: &Path) -> Result<(), CliError> {
    let checked = read(directory)?;
    print!("{}", summary(&checked));
    println!("{:<16} {:>12} {:>12} {:>20}", "", "records", "size", "last sequence");
    for (lane, figures) in &checked.lanes {
        let (lane, size) = (lane.to_string(), size(figures.bytes));
        let (count, last) = (figures.record_count, figures.last_sequence);
        println!("{lane:<16} {count:>12} {size:>12} {last:>20}");
    }
    Ok(())
}

fn copy(directory: &Path, target: &Path) -> Result<(), CliError> {
    let copied = fanfare_log::copy(directory, target).map_err(|error| match error {
        CopyError::Failed { .. } => CliError::Failed(error.to_string()),
        CopyError::Source(error) => of_open(&error),
        CopyError::TargetNotEmpty { .. } => CliError::Usage(error.to_string()),
    })?;
    println!("copied {} segments, {}", copied.segment_count, size(copied.bytes));
    Ok(())
}

fn read(directory: &Path) -> Result<Checked, CliError> {
    fanfare_log::check(directory).map_err(|error| of_open(&error))
}

fn of_open(error: &OpenError) -> CliError {
    CliError::Usage(error.to_string())
}

fn summary(checked: &Checked) -> String {
    let stop = match checked.was_stopped_cleanly {
        true => "stopped in order",
        false => "in use, or not stopped in order",
    };
    let mut text = format!(
        "epoch {}, {} partitions, {stop}\n{} segments, {}, {} records\n",
        Epoch::new(checked.epoch),
        checked.partition_count,
        checked.segments.len(),
        size(checked.bytes()),
        checked.record_count(),
    );
    if checked.torn_bytes > 0 {
        text += &format!("an incomplete end of {} bytes: no damage\n", checked.torn_bytes);
    }
    text
}

fn damage_line(damage: &Damage) -> String {
    let Damage { segment, offset, bytes, .. } = damage;
    if *bytes == 0 {
        return format!("damaged: segment {segment} is missing");
    }
    let place = format!("damaged: segment {segment}, {bytes} bytes at {offset}");
    match damage.lane.zip(damage.sequence) {
        Some((lane, sequence)) => format!("{place}: {lane}, sequence {sequence}"),
        None => place,
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}
