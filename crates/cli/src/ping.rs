//! `fanfare ping`: the time from a publish to its arrival on a stream, through a running hub.

use std::{
    io::{self, Write},
    time::Duration,
};

use awc::http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{
    CliError,
    client::{HubClient, HubError, HubRequest},
    hub_connection::HubConnection,
    watch::Watch,
};

/// An event later than this is lost.
const MAX_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Topic of the events; its policy decides the latency [default: ping:<random>]
    topic: Option<String>,
    /// Number of events
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Wait between two events
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubConnection,
}

/// Publishes events one by one, and waits for each on a stream.
///
/// # Errors
/// The hub refuses, the stream ends, or an event does not arrive within 10 s.
pub(crate) async fn run(args: PingArgs) -> Result<(), CliError> {
    let failed = |error: HubError| CliError::Failed(error.to_string());
    let client = HubClient::new(&args.hub)?;
    let random = || format!("ping:{:08x}", rand::random::<u32>());
    let topic = args.topic.clone().unwrap_or_else(random);
    let mut watch = Watch::open(&client, std::slice::from_ref(&topic)).await.map_err(failed)?;
    // The first publish must not include a connect.
    let warm = client.send(HubRequest::of(Method::GET, "/health/live")).await.map_err(failed)?;
    warm.read(1024).await.map_err(failed)?;
    let run = rand::random::<u32>();
    let mut times = Vec::new();
    for number in 1..=args.count {
        if number > 1 {
            sleep(args.interval).await;
        }
        let mark = format!("{run:08x}-{number}");
        let received = timeout(MAX_WAIT, exchange(&client, &mut watch, &topic, &mark));
        let Ok(times_of_event) = received.await else {
            return Err(CliError::Failed(format!("event {number} did not arrive in 10 s")));
        };
        let (answered, arrived) = times_of_event.map_err(failed)?;
        times.push(arrived);
        if !args.json {
            let (arrived, answered) = (millis(arrived), millis(answered));
            print(&format!(
                "event {number}: {arrived:.2} ms, publish answered in {answered:.2} ms"
            ))?;
        }
    }
    print(&summary(&topic, times, args.json))
}

/// Publishes one event. Returns the times of the answer and of the event's arrival.
async fn exchange(
    client: &HubClient,
    watch: &mut Watch,
    topic: &str,
    mark: &str,
) -> Result<(Duration, Duration), HubError> {
    let start = Instant::now();
    let body = json!({ "topic": topic, "event": "ping", "data": mark }).to_string().into_bytes();
    let request = HubRequest::post("/events/publish", "application/json", body);
    let publish = async {
        client.send(request).await?.read(64 * 1024).await?;
        Ok::<_, HubError>(start.elapsed())
    };
    let expected = format!("\"{mark}\"");
    let receive = async {
        // Other publishers may use the same topic.
        while !watch.next().await?.iter().any(|event| event.data.get() == expected) {}
        Ok(start.elapsed())
    };
    tokio::try_join!(publish, receive)
}

fn summary(topic: &str, mut times: Vec<Duration>, as_json: bool) -> String {
    times.sort();
    let at = |share: f64| {
        let rank = (share * times.len() as f64).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().map_or(0.0, millis)
    };
    let (min, p50, p95, max) = (at(0.0), at(0.5), at(0.95), at(1.0));
    if as_json {
        let latency = json!({ "min": min, "p50": p50, "p95": p95, "max": max });
        return json!({ "topic": topic, "count": times.len(), "latency_ms": latency }).to_string();
    }
    format!(
        "{} events on {topic}: min {min:.2} ms, p50 {p50:.2} ms, p95 {p95:.2} ms, max {max:.2} ms",
        times.len()
    )
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn print(line: &str) -> Result<(), CliError> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_extremes_and_the_middle() {
        let times = [3, 1, 2].map(Duration::from_millis).to_vec();
        let text = summary("t", times.clone(), false);
        assert_eq!(text, "3 events on t: min 1.00 ms, p50 2.00 ms, p95 3.00 ms, max 3.00 ms");
        assert!(summary("t", times, true).contains(r#""p50":2.0"#));
    }
}
