//! What is asked of `fanfare bench`, and whether it makes sense: [`Settings`] holds.

use std::time::Duration;

use http::Uri;

use super::{mark::MIN_PAYLOAD_BYTES, reader::Greeting, topics::TopicNames};
use crate::{
    BenchError,
    hub_address::{HubArgs, authorization, base_url},
};

/// Longest run: the marks of the events have room for its times.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// A stream's topics are in its URL, which servers take to some 60 KB.
const MAX_TOPICS_PER_STREAM: u32 = 1000;

/// As many as fit between the ports of all addresses that streams are opened from.
const MAX_STREAMS: usize = 1_000_000;

/// Events of a topic that a stream may miss: more than hubs keep.
const MAX_MISSED_EVENTS: u64 = 1_000_000;

const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// StreamsReport to open
    #[arg(long, value_name = "N", default_value_t = 1000)]
    streams: usize,
    /// Events a second, over all topics; 0 is as fast as they are answered and delivered
    #[arg(long, value_name = "EVENTS", default_value_t = 10.0)]
    rate: f64,
    /// How long is measured
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long is published before that, checked but not measured
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Bytes of each event's data
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload: usize,
    /// TopicNames to publish to, in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics: u32,
    /// TopicNames of each stream
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics_per_stream: u32,
    /// Instead of publishing at a rate, a reconnect storm: all streams are cut (RST) after their
    /// first event, EVENTS are published to each topic, and all streams come back at once with
    /// Last-Event-ID; measured is until they are open and have what they missed
    #[arg(
        long,
        value_name = "EVENTS",
        value_parser = clap::value_parser!(u64).range(1..=MAX_MISSED_EVENTS),
        conflicts_with_all = ["rate", "duration", "warmup"]
    )]
    reconnect: Option<u64>,
    /// Further streams that are never read and count in nothing; how many of them the server
    /// has ended by the end of the run is told
    #[arg(long, value_name = "N", default_value_t = 0)]
    stalled: usize,
    /// The topics are named PREFIX:0, PREFIX:1 and so on
    #[arg(long, value_name = "PREFIX", default_value = "bench")]
    topic: String,
    /// Connections that publish; a topic is always published over the same
    #[arg(long, value_name = "N", default_value_t = 4)]
    publishers: u32,
    /// Threads that read streams; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// The server's process; may be repeated [default: whoever listens at the address here]
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// StreamsReport of another hub: its URL with {topic} or {topics}, a list with commas
    #[arg(long, value_name = "URL")]
    stream_url: Option<String>,
    /// PublishSettings to another hub, an event a POST: its URL, where {topic} may stand
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,
    /// What is posted to --publish-url, where {topic} and {data} may stand
    #[arg(long, value_name = "TEXT", default_value = "{data}", requires = "publish_url")]
    publish_body: String,
    /// Content type of --publish-body
    #[arg(long, value_name = "TYPE", default_value = "text/plain", requires = "publish_url")]
    publish_type: String,
    #[command(flatten)]
    hub: HubArgs,
}

/// A run that can be tried.
#[derive(Debug)]
pub(super) struct BenchSettings {
    pub stream_count: usize,
    /// None is as fast as it goes.
    pub events_per_second: Option<f64>,
    pub duration: Duration,
    pub warmup: Duration,
    /// Events of each topic to miss in a reconnect storm, which takes the place of the above.
    pub reconnect: Option<u64>,
    /// StreamsReport that are not read, on top of the others.
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
    /// Where a fanfare hub counts what it conflates; none of another hub.
    pub stats: Option<PublishEndpoint>,
    /// A header line, or nothing.
    pub authorization: String,
}

/// How events are published.
#[derive(Debug)]
pub(super) struct PublishSettings {
    pub place: PublishEndpoint,
    pub body: String,
    pub content_type: String,
    /// Whether one request takes many events, a line each.
    pub takes_lines: bool,
}

/// An `http://` URL in its parts; the path may hold `{topic}` and `{topics}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishEndpoint {
    pub host: String,
    pub port: u16,
    /// As the `Host` header has it.
    pub authority: String,
    pub path: String,
}

impl BenchArgs {
    /// # Errors
    /// Every problem, a line each.
    pub(super) fn settings(self) -> Result<BenchSettings, BenchError> {
        let mut problems = self.problems();
        let mut collect =
            |result: Result<PublishEndpoint, String>| result.map_err(|it| problems.push(it));
        let base = base_url(&self.hub.url).map_err(|error| error.to_string());
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
            (self.stalled <= MAX_STREAMS, format!("--stalled: {MAX_STREAMS} at most")),
            (self.rate.is_finite() && self.rate >= 0.0, "--rate: 0 or more".to_owned()),
            (
                !self.duration.is_zero()
                    && self.duration.saturating_add(self.warmup) <= MAX_DURATION,
                "--duration: more than 0, and with --warmup a day at most".to_owned(),
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
                format!("--topics-per-stream: 1 to --topics, and {MAX_TOPICS_PER_STREAM} at most"),
            ),
            (
                is_name,
                "--topic: letters, digits, `:`, `_`, `.` and `-`, no empty segment".to_owned(),
            ),
            ((1..=1000).contains(&self.publishers), "--publishers: 1 to 1000".to_owned()),
            (self.threads <= 1000, "--threads: 1000 at most".to_owned()),
            (
                self.publish_type.bytes().all(|byte| (b' '..0x7f).contains(&byte)),
                "--publish-type: printable ASCII".to_owned(),
            ),
            (
                self.publish_url.is_none() || self.publish_body.contains("{data}"),
                "--publish-body: {data} has to stand in it".to_owned(),
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
        let uri: Uri = sample.parse().map_err(|_| problem("this is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(problem("the address has to begin with http://"));
        }
        let rest = url.strip_prefix("http://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() || authority.contains(['{', '@']) {
            return Err(problem("the address has no host, or a placeholder or user in it"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authority: authority.to_owned(),
            path,
        })
    }

    /// The path, with these topics' names in it.
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
