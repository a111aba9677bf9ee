//! The options of `fanfare bench` and their checks: [`BenchSettings`] is always valid.

use std::time::Duration;

use http::Uri;

use super::{mark::MIN_PAYLOAD_BYTES, reader::Greeting, topics::TopicNames};
use crate::{
    BenchError,
    hub_address::{HubArgs, authorization, base_url},
};

/// Longest run: the shortest payload has room for marks with its times.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// The URL of a stream contains its topics, and servers accept URLs of about 60 KB.
const MAX_TOPICS_PER_STREAM: u32 = 1000;

/// Bounded by the ports of all source addresses.
const MAX_STREAMS: usize = 1_000_000;

/// Most missed events of a topic: more than a hub's history.
const MAX_MISSED_EVENTS: u64 = 1_000_000;

const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Streams to open
    #[arg(long, value_name = "N", default_value_t = 1000)]
    streams: usize,
    /// Events per second over all topics; 0 is as fast as they are answered and delivered
    #[arg(long, value_name = "EVENTS", default_value_t = 10.0)]
    rate: f64,
    /// Measured time
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Publishing before the measured time: checked, not measured
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Bytes of each event's data
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload: usize,
    /// Topics to publish to, in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics: u32,
    /// Topics of each stream
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics_per_stream: u32,
    /// Measure a reconnect storm instead of a rate: cut all streams (RST) after their first event,
    /// publish EVENTS to each topic, reopen all streams at once with Last-Event-ID, and measure
    /// until all are open and have their missed events
    #[arg(
        long,
        value_name = "EVENTS",
        value_parser = clap::value_parser!(u64).range(1..=MAX_MISSED_EVENTS),
        conflicts_with_all = ["rate", "duration", "warmup"]
    )]
    reconnect: Option<u64>,
    /// Further streams, never read and not counted in other figures; the report says how many of
    /// them the server ended
    #[arg(long, value_name = "N", default_value_t = 0)]
    stalled: usize,
    /// The topics are named PREFIX:0, PREFIX:1 and so on
    #[arg(long, value_name = "PREFIX", default_value = "bench")]
    topic: String,
    /// Publishing connections; a topic always uses the same one
    #[arg(long, value_name = "N", default_value_t = 4)]
    publishers: u32,
    /// Threads reading streams; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// The server's process; can be repeated [default: the listener at the address, if local]
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Stream URL of another hub, with {topic}, or with {topics} for a list separated by commas
    #[arg(long, value_name = "URL")]
    stream_url: Option<String>,
    /// Publish URL of another hub, optionally with {topic}; each event is one POST
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,
    /// Body of each POST to --publish-url, with {data} and optionally {topic}
    #[arg(long, value_name = "TEXT", default_value = "{data}", requires = "publish_url")]
    publish_body: String,
    /// Content type of --publish-body
    #[arg(long, value_name = "TYPE", default_value = "text/plain", requires = "publish_url")]
    publish_type: String,
    #[command(flatten)]
    hub: HubArgs,
}

/// The valid settings of a run.
#[derive(Debug)]
pub(super) struct BenchSettings {
    pub stream_count: usize,
    /// None publishes as fast as events are answered and delivered.
    pub events_per_second: Option<f64>,
    pub duration: Duration,
    pub warmup: Duration,
    /// Events of each topic to miss in a reconnect storm. If set, rate, duration and warm-up are
    /// unused.
    pub reconnect: Option<u64>,
    /// Streams never read, in addition to `stream_count`.
    pub stalled_count: usize,
    pub payload_bytes: usize,
    pub topics: TopicNames,
    pub publisher_count: u32,
    pub thread_count: usize,
    pub pids: Vec<u32>,
    pub is_json: bool,
    pub streams: PublishEndpoint,
    pub greeting: Greeting,
    pub publishing: PublishSettings,
    /// The `/stats` of a fanfare hub, with its count of conflated events. None for another hub.
    pub stats: Option<PublishEndpoint>,
    /// The `authorization` header line with its line end, or empty.
    pub authorization: String,
}

/// How events are published.
#[derive(Debug)]
pub(super) struct PublishSettings {
    pub place: PublishEndpoint,
    pub body: String,
    pub content_type: String,
    /// Whether one request carries many events, one per line.
    pub takes_lines: bool,
}

/// The parts of an `http://` URL. The path may contain `{topic}` and `{topics}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishEndpoint {
    pub host: String,
    pub port: u16,
    /// The value of the `Host` header.
    pub authority: String,
    pub path: String,
}

impl BenchArgs {
    /// Checks all options.
    ///
    /// # Errors
    /// All problems, one per line.
    pub(super) fn settings(self) -> Result<BenchSettings, BenchError> {
        let mut problems = self.problems();
        let mut collect =
            |result: Result<PublishEndpoint, String>| result.map_err(|it| problems.push(it));
        let base = base_url(&self.hub.url).map_err(|error| error.to_string());
        let is_plain = |base: &String| !base.starts_with("https:");
        let base = base.and_then(|base| match is_plain(&base) {
            true => Ok(base),
            false => Err(format!("--url {base}: the bench has no TLS; use http://")),
        });
        let at_base =
            |path: &str| PublishEndpoint::parse("--url", &format!("{}{path}", base.clone()?));
        let streams = collect(match &self.stream_url {
            Some(url) => PublishEndpoint::parse("--stream-url", url),
            None => at_base("/events/stream?topics={topics}"),
        });
        let publishing = collect(match &self.publish_url {
            Some(url) => PublishEndpoint::parse("--publish-url", url),
            None => at_base("/events/publish"),
        });
        let authorization = match &self.hub.token {
            Some(token) if !token.is_empty() => authorization(token).map(|value| {
                let value = value.to_str().unwrap_or_default();
                format!("authorization: {value}\r\n")
            }),
            _ => Ok(String::new()),
        };
        let authorization = authorization.map_err(|error| problems.push(error.to_string()));
        problems.dedup();
        let (Ok(streams), Ok(place), Ok(authorization), []) =
            (streams, publishing, authorization, problems.as_slice())
        else {
            return Err(BenchError::Usage(problems.join("\n")));
        };
        let stats = if self.stream_url.is_none() { at_base("/stats").ok() } else { None };
        let takes_lines = self.publish_url.is_none();
        let own_line = r#"{"topic":"{topic}","data":"{data}"}"#.to_owned();
        let body = if takes_lines { own_line } else { self.publish_body };
        let own_type = "application/x-ndjson".to_owned();
        let content_type = if takes_lines { own_type } else { self.publish_type };
        let own_streams = self.stream_url.is_none();
        Ok(BenchSettings {
            stream_count: self.streams,
            events_per_second: Some(self.rate)
                .filter(|rate| *rate > 0.0 && self.reconnect.is_none()),
            duration: self.duration,
            warmup: self.warmup,
            reconnect: self.reconnect,
            stalled_count: self.stalled,
            payload_bytes: self.payload,
            topics: TopicNames {
                prefix: self.topic,
                count: self.topics,
                per_stream: self.topics_per_stream,
            },
            publisher_count: self.publishers.min(self.topics),
            thread_count: thread_count(self.threads),
            pids: self.pid,
            is_json: self.json,
            streams,
            greeting: if own_streams { Greeting::Connected } else { Greeting::Head },
            publishing: PublishSettings { place, body, content_type, takes_lines },
            stats,
            authorization,
        })
    }

    fn problems(&self) -> Vec<String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.-".contains(&byte);
        let is_name = !self.topic.is_empty()
            && self.topic.len() <= 100
            && self.topic.bytes().all(is_plain)
            && self.topic.split(':').all(|segment| !segment.is_empty());
        let checks = [
            ((1..=MAX_STREAMS).contains(&self.streams), format!("--streams: 1 to {MAX_STREAMS}")),
            (self.stalled <= MAX_STREAMS, format!("--stalled: at most {MAX_STREAMS}")),
            (self.rate.is_finite() && self.rate >= 0.0, "--rate: 0 or more".to_owned()),
            (
                !self.duration.is_zero()
                    && self.duration.saturating_add(self.warmup) <= MAX_DURATION,
                "--duration: more than 0, and at most a day together with --warmup".to_owned(),
            ),
            (
                (MIN_PAYLOAD_BYTES..=MAX_PAYLOAD_BYTES).contains(&self.payload),
                format!(
                    "--payload: {MIN_PAYLOAD_BYTES} to {MAX_PAYLOAD_BYTES}; an event carries its \
                     number and its time"
                ),
            ),
            (self.topics > 0, "--topics: 1 or more".to_owned()),
            (
                (1..=self.topics.clamp(1, MAX_TOPICS_PER_STREAM)).contains(&self.topics_per_stream),
                format!("--topics-per-stream: 1 to --topics, at most {MAX_TOPICS_PER_STREAM}"),
            ),
            (
                is_name,
                "--topic: letters, digits, `:`, `_`, `.` and `-`, no empty segment".to_owned(),
            ),
            ((1..=1000).contains(&self.publishers), "--publishers: 1 to 1000".to_owned()),
            (self.threads <= 1000, "--threads: at most 1000".to_owned()),
            (
                self.publish_type.bytes().all(|byte| (b' '..0x7f).contains(&byte)),
                "--publish-type: printable ASCII".to_owned(),
            ),
            (
                self.publish_url.is_none() || self.publish_body.contains("{data}"),
                "--publish-body: must contain {data}".to_owned(),
            ),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, problem)| problem).collect()
    }
}

fn thread_count(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

impl PublishEndpoint {
    fn parse(option: &str, url: &str) -> Result<Self, String> {
        let problem = |what: &str| format!("{option} {url}: {what}");
        let sample = url.replace("{topics}", "t").replace("{topic}", "t");
        let uri: Uri = sample.parse().map_err(|_| problem("invalid URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(problem("the address must begin with http://"));
        }
        let rest = url.strip_prefix("http://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() || authority.contains(['{', '@']) {
            return Err(problem("the host is missing, or contains a placeholder or user name"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authority: authority.to_owned(),
            path,
        })
    }

    /// The path with `{topic}` and `{topics}` replaced by these names.
    pub fn path_of(&self, names: &[String]) -> String {
        let first = names.first().map_or("", String::as_str);
        self.path.replace("{topics}", &names.join(",")).replace("{topic}", first)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn settings(arguments: &[&str]) -> Result<BenchSettings, String> {
        let line = Line::try_parse_from([&["bench"], arguments].concat());
        let settings = line.map_err(|error| error.to_string())?.bench.settings();
        settings.map_err(|error| error.to_string())
    }

    #[test]
    fn without_arguments_a_local_hub_is_measured() {
        let settings = settings(&["--url", "http://127.0.0.1:8080"]).unwrap();
        assert_eq!(settings.stream_count, 1000);
        let path = settings.streams.path_of(&["bench:0".into(), "bench:1".into()]);
        assert_eq!(path, "/events/stream?topics=bench:0,bench:1");
        assert!(settings.publishing.takes_lines && settings.stats.is_some());
    }

    #[test]
    fn other_hubs_are_measured_by_templates() {
        let arguments = [
            "--stream-url=http://[::1]:9/sub/{topic}",
            "--publish-url=http://hub/pub?id={topic}",
            "--publish-body={\"text\":\"{data}\"}",
        ];
        let settings = settings(&arguments).unwrap();
        assert_eq!(settings.streams.path_of(&["bench:0".into()]), "/sub/bench:0");
        assert_eq!((settings.streams.host.as_str(), settings.streams.port), ("::1", 9));
        assert_eq!(settings.publishing.place.port, 80);
        assert!(!settings.publishing.takes_lines && settings.stats.is_none());
        assert_eq!(settings.greeting, Greeting::Head);
    }

    #[test]
    fn every_problem_has_a_line() {
        let error = settings(&["--streams=0", "--payload=3", "--url=https://hub"]).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        for (line, option) in lines.iter().zip(["--streams", "--payload", "--url"]) {
            assert!(line.starts_with(option), "{error}");
        }
    }

    #[test]
    fn a_storm_takes_the_place_of_publishing_at_a_rate() {
        let storm = settings(&["--reconnect=10"]).unwrap();
        assert_eq!((storm.reconnect, storm.events_per_second), (Some(10), None));
        for other in ["--rate=5", "--duration=1s", "--warmup=1s"] {
            let error = settings(&["--reconnect=10", other]).unwrap_err();
            let option = other.split('=').next().unwrap();
            assert!(error.contains("--reconnect") && error.contains(option), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "--rate=-1",
            "--rate=NaN",
            "--duration=0s",
            "--duration=2days",
            "--topics=0",
            "--topics-per-stream=2",
            "--topic=a::b",
            "--topic=a b",
            "--publishers=0",
            "--stream-url=http://{topic}/x",
            "--publish-url=ftp://hub",
            "--publish-body=x",
            "--reconnect=0",
            "--stalled=-1",
        ] {
            assert!(settings(&[bad]).is_err(), "{bad}");
        }
    }
}
