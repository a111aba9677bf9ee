//! `fanfare topics`: the busiest topics, or the state of named ones.

use std::{
    io::{self, Write},
    time::Duration,
};

use awc::http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval, timeout_at};

use super::{
    CliError,
    client::{HubClient, HubError, HubRequest},
    hub_connection::HubConnection,
    progress,
    watch::{TopicCounts, Watch},
};

#[derive(Debug, clap::Args)]
pub(crate) struct TopicsArgs {
    /// Topics, or patterns of topics [default: **]
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Time of counting the events of patterns
    #[arg(long = "for", value_name = "DURATION", default_value = "3s")]
    #[arg(value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Most topics shown
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 20)]
    count: usize,
    /// Print one JSON object per topic
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubConnection,
}

/// A printed topic.
#[derive(Debug, Serialize)]
struct TopicRow {
    topic: String,
    /// None for a named topic: its events are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second: Option<f64>,
    subscribers: u64,
    sequence: u64,
}

/// Prints each named topic, and the busiest topics of the patterns.
pub(crate) async fn run(args: TopicsArgs) -> Result<(), CliError> {
    let client = HubClient::new(&args.hub)?;
    let (mut patterns, names): (Vec<String>, Vec<String>) =
        args.topics.iter().cloned().partition(|topic| topic.contains('*'));
    if args.topics.is_empty() {
        patterns.push("**".to_owned());
    }
    let mut found: Vec<(String, Option<f64>)> =
        names.into_iter().map(|name| (name, None)).collect();
    if !patterns.is_empty() {
        let busiest = count(&client, &patterns, &args).await.map_err(failed)?;
        found.extend(busiest.into_iter().map(|(topic, rate)| (topic, Some(rate))));
    }
    let mut rows = Vec::new();
    for (topic, rate) in found {
        rows.push(row(&client, topic, rate).await.map_err(failed)?);
    }
    print(&rows, args.json).or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(CliError::Failed(format!("standard output: {error}"))),
    })
}

/// Counts the events of these patterns for a while.
async fn count(
    client: &HubClient,
    patterns: &[String],
    args: &TopicsArgs,
) -> Result<Vec<(String, f64)>, HubError> {
    let mut watch = Watch::open(client, patterns).await?;
    let mut counts = TopicCounts::default();
    let bar = progress::bar(args.duration.as_secs().max(1), "s, counting events");
    let (end, mut seconds) = (Instant::now() + args.duration, interval(Duration::from_secs(1)));
    seconds.tick().await;
    loop {
        tokio::select! {
            _ = seconds.tick() => bar.inc(1),
            events = timeout_at(end, watch.next()) => match events {
                Ok(events) => counts.add(events?),
                Err(_) => break,
            },
        }
    }
    bar.finish_and_clear();
    Ok(counts.busiest(args.duration, args.count))
}

async fn row(client: &HubClient, topic: String, rate: Option<f64>) -> Result<TopicRow, HubError> {
    #[derive(Deserialize)]
    struct TopicAnswer {
        subscribers: u64,
        sequence: u64,
    }
    let path = format!("/events/topics/{}", utf8_percent_encode(&topic, NON_ALPHANUMERIC));
    let TopicAnswer { subscribers, sequence } =
        client.json(HubRequest::of(Method::GET, path)).await?;
    Ok(TopicRow { topic, events_per_second: rate, subscribers, sequence })
}

fn print(rows: &[TopicRow], as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        for row in rows {
            serde_json::to_writer(&mut out, row)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    writeln!(out, "{:>10}  {:>11}  {:>10}  topic", "events/s", "subscribers", "sequence")?;
    for TopicRow { topic, events_per_second, subscribers, sequence } in rows {
        let rate = events_per_second.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
        writeln!(out, "{rate:>10}  {subscribers:>11}  {sequence:>10}  {topic}")?;
    }
    Ok(())
}

fn failed(error: HubError) -> CliError {
    CliError::Failed(error.to_string())
}
