//! `fanfare plan`: the number of servers for a number of connections, and the resources of each.
//! `capacity` owns the arithmetic, `constants` the measured costs.

mod capacity;
mod constants;

use std::{io::Write, time::Duration};

use bytesize::ByteSize;
use serde_json::json;

use self::capacity::{Bound, CapacityPlan, Constants, PlanInput};
use super::CliError;

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// Streams open at once, like 100000, 100k or 1.5M
    #[arg(long, value_name = "N", value_parser = count)]
    connections: u64,
    /// Events per second of each topic of a stream
    #[arg(long, value_name = "EVENTS")]
    rate: f64,
    /// Topics of each stream
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics_per_connection: u64,
    /// Bytes of each event's data
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload: u64,
    /// Cores of a server
    #[arg(long, value_name = "N", default_value_t = 4)]
    cores: u64,
    /// Memory of a server
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    memory: ByteSize,
    /// Open files of a server's process; systemd allows as many
    #[arg(long, value_name = "N", default_value_t = 524_288)]
    open_files: u64,
    /// History of a server (`history.max_bytes`)
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    history: ByteSize,
    /// The topics' tick (`delivery.tick`); 0s if each event leaves at once
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    tick: Duration,
    /// Time between two heartbeats of a quiet stream (`stream.heartbeat`)
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,
    /// Memory of a stream, measured by `fanfare bench` [default: as printed]
    #[arg(long, value_name = "SIZE")]
    bytes_per_stream: Option<ByteSize>,
    /// CPU of a delivery in microseconds, measured by `fanfare bench` [default: as printed]
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_per_delivery: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Calculates the plan and prints it.
///
/// # Errors
/// Invalid options, too small servers, or a closed standard output.
pub(crate) fn run(args: &PlanArgs) -> Result<(), CliError> {
    let problems = args.problems();
    if !problems.is_empty() {
        return Err(CliError::Usage(problems.join("\n")));
    }
    let (wanted, constants) = (args.wanted(), args.constants());
    let plan = wanted.plan(&constants).map_err(|error| CliError::Usage(error.to_string()))?;
    let text = if args.json {
        let source = constants::SOURCE;
        format!(
            "{}\n",
            json!({"wanted": wanted, "plan": plan, "constants": constants, "source": source})
        )
    } else {
        table(&rows(&wanted, &plan)) + "\nbased on:\n\n" + &table(&constant_rows(&constants, args))
    };
    let failed = |error| CliError::Failed(format!("standard output: {error}"));
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

impl PlanArgs {
    fn problems(&self) -> Vec<&'static str> {
        let is_count = |number: f64| number.is_finite() && number >= 0.0;
        let most = 1_000_000_000_000;
        let checks = [
            ((1..=most).contains(&self.connections), "--connections: 1 or more, at most 10^12"),
            (is_count(self.rate), "--rate: 0 or more"),
            (
                (1..=1_000_000).contains(&self.topics_per_connection),
                "--topics-per-connection: 1 to 1000000",
            ),
            (self.payload <= most, "--payload: at most 10^12 bytes"),
            ((1..=100_000).contains(&self.cores), "--cores: 1 to 100000"),
            (self.memory.as_u64() <= most * 1000, "--memory: at most 10^15 bytes"),
            (self.history.as_u64() <= most * 1000, "--history: at most 10^15 bytes"),
            (
                self.bytes_per_stream.is_none_or(|size| (1..=most).contains(&size.as_u64())),
                "--bytes-per-stream: 1 to 10^12 bytes",
            ),
            (
                self.cpu_per_delivery.is_none_or(|micros| is_count(micros) && micros > 0.0),
                "--cpu-per-delivery: more than 0",
            ),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, problem)| problem).collect()
    }

    fn wanted(&self) -> PlanInput {
        PlanInput {
            connections: self.connections,
            rate: self.rate,
            topics_per_connection: self.topics_per_connection,
            payload_bytes: self.payload,
            cores: self.cores,
            memory_bytes: self.memory.as_u64(),
            open_files: self.open_files,
            history_bytes: self.history.as_u64(),
            tick_seconds: self.tick.as_secs_f64(),
            heartbeat_seconds: self.heartbeat.as_secs_f64(),
        }
    }

    fn constants(&self) -> Constants {
        let mut constants = Constants::default();
        if let Some(size) = self.bytes_per_stream {
            constants.bytes_per_stream = size.as_u64();
        }
        if let Some(micros) = self.cpu_per_delivery {
            constants.cpu_micros_per_delivery = [micros; 2];
        }
        constants
    }
}

fn rows(wanted: &PlanInput, plan: &CapacityPlan) -> Vec<(&'static str, String)> {
    let decided_by = match plan.decided_by {
        Bound::Cores => "cores",
        Bound::Memory => "memory",
        Bound::OpenFiles => "open files",
    };
    let memory = ByteSize(plan.memory_bytes_per_server);
    vec![
        ("servers", format!("{} (limited by {decided_by})", plan.servers)),
        (
            "connections a server",
            format!("{} of {}", plan.connections_per_server, wanted.connections),
        ),
        ("open files a server", plan.open_files_per_server.to_string()),
        ("memory a server", format!("{memory} of {}", ByteSize(wanted.memory_bytes))),
        ("cores a server, in use", format!("{:.2} of {}", plan.cores_per_server, wanted.cores)),
        ("deliveries a second", format!("{:.0}", plan.deliveries_per_second)),
        ("writes a second", format!("{:.0}", plan.writes_per_second)),
        ("bandwidth", bandwidth(plan.bits_per_second)),
        ("bandwidth a server", bandwidth(plan.bits_per_second_per_server)),
    ]
}

fn constant_rows(constants: &Constants, args: &PlanArgs) -> Vec<(&'static str, String)> {
    let [few, many] = constants.cpu_micros_per_delivery;
    let cpu = if args.cpu_per_delivery.is_some() {
        format!("{many} µs (--cpu-per-delivery)")
    } else {
        format!("{few} µs up to {} streams a server, else {many} µs", constants.few_streams)
    };
    let memory = ByteSize(constants.bytes_per_stream);
    let given = if args.bytes_per_stream.is_some() { " (--bytes-per-stream)" } else { "" };
    vec![
        ("memory a stream", format!("{memory}{given}")),
        ("memory a further topic", format!("{} bytes", constants.bytes_per_further_topic)),
        ("memory a server", format!("{}, and its history", ByteSize(constants.bytes_per_server))),
        ("CPU a delivery", cpu),
        (
            "CPU an idle stream",
            format!("{} µs a second", constants.cpu_micros_per_idle_stream_second),
        ),
        (
            "planned for",
            format!(
                "{:.0} % of the cores, {:.0} % of the memory",
                constants.cpu_share * 100.0,
                constants.memory_share * 100.0
            ),
        ),
        (
            "protocol overhead",
            format!(
                "SSE {} bytes an event; HTTP {} a write; TCP, IP and Ethernet {} a packet",
                constants::SSE_BYTES_PER_EVENT,
                constants::HTTP_BYTES_PER_WRITE,
                constants::NETWORK_BYTES_PER_PACKET
            ),
        ),
        ("from", constants::SOURCE.to_owned()),
    ]
}

/// A number with `_` between its digits, and with `k`, `M` or `G` for thousands.
fn count(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    let (number, unit) = match digits.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']) {
        number if digits.len() - number.len() <= 1 => {
            (number, digits[number.len()..].to_lowercase())
        }
        _ => (digits.as_str(), String::new()),
    };
    let factor: u64 = match unit.as_str() {
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => 1,
    };
    let whole = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let scaled = || {
        let number: f64 = number.parse().ok()?;
        let scaled = number * factor as f64;
        (factor > 1 && scaled.fract() == 0.0 && (0.0..1e15).contains(&scaled))
            .then_some(scaled as u64)
    };
    whole.or_else(scaled).ok_or_else(|| "expected a number like 100000, 100k or 1.5M".to_owned())
}

fn bandwidth(bits_per_second: f64) -> String {
    match bits_per_second {
        bits if bits >= 1e9 => format!("{:.2} Gbit/s", bits / 1e9),
        bits => format!("{:.2} Mbit/s", bits / 1e6),
    }
}

fn table(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<24} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_units() {
        for (text, number) in [
            ("7", 7),
            ("100k", 100_000),
            ("1.5M", 1_500_000),
            ("2G", 2_000_000_000),
            ("1_000", 1000),
        ] {
            assert_eq!(count(text), Ok(number), "{text}");
        }
        for text in ["", "k", "1.5", "1.2345k", "-1", "1kk", "1e99G", "inf", "NaNk", "ten"] {
            assert!(count(text).is_err(), "{text}");
        }
    }
}
