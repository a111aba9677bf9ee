//! Ranges of values, alone and together. `load` has checked types and units before.

use std::{fmt, ops::RangeInclusive, time::Duration};

use fanfare_core::{
    access::{Rights, parse_user},
    policy::Rate,
    topic::Pattern,
};

use super::{
    Access, Config, ConfigProblems, Cors, Delivery, FanOut, History, HubLimits, Limits, Log,
    Outbox, Poll, Problem, Publish, Redis, Server, Stream, Tls, TopicPolicy, keys::source_problems,
    network::Network,
};

/// Streams of one instance: more than a machine's open files, and sums of it cannot overflow.
const MAX_CONNECTIONS: usize = 10_000_000;

/// Publishes in flight in a partition, and fan-outs of a hub: each is in memory.
const MAX_PENDING: usize = 1_000_000;

/// Bytes of history or of an outbox: 1 PiB, more than a machine's memory.
const MAX_BYTES: usize = 1 << 50;

/// Lower bound of the history in Redis: some events for each of 16 partitions.
const MIN_STORED_BYTES: usize = 1024 * 1024;

const MILLISECOND: Duration = Duration::from_millis(1);
/// Shorter heartbeats and timeouts cost much and detect nothing more.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Long enough for any purpose, and far from overflow when added to a time.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A cursor has a position for every partition, and must stay a short line.
const MAX_PARTITIONS: u16 = 256;
/// Room for one large event and its head.
const MIN_OUTBOX_BYTES: usize = 4 * 1024;
/// Room for one body of any size allowed by default.
const MIN_REQUEST_BYTES: usize = 1024 * 1024;
/// Larger data belongs in a store, and its URL in the event.
const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
/// Smaller segments are many files; larger ones are held long for a few old events.
const SEGMENT_BYTES: RangeInclusive<usize> = 1024 * 1024..=1024 * 1024 * 1024;
/// `listen(2)` takes an `int`.
const MAX_BACKLOG: u32 = i32::MAX as u32;

impl Config {
    /// Checks ranges, and values against each other.
    ///
    /// # Errors
    /// Every problem, with its key. The place is empty: the values may come from code.
    pub fn validate(&self) -> Result<(), ConfigProblems> {
        let problems: Vec<Problem> = self.findings().into_iter().map(Problem::from).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigProblems(problems)) }
    }

    /// The findings of [`Config::validate`], in the order of the sections.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Findings(Vec::new());
        findings.server(&self.server);
        findings.tls(&self.tls);
        findings.cors(&self.cors);
        findings.access(&self.access);
        findings.limits(&self.limits);
        findings.hub(&self.hub);
        findings.stream(&self.stream);
        findings.outbox(&self.outbox);
        findings.poll(&self.poll);
        findings.history(&self.history);
        findings.publish(&self.publish);
        findings.fanout(&self.fanout);
        findings.log(&self.log, &self.redis);
        findings.redis(&self.redis);
        findings.delivery(&self.delivery);
        for (index, policy) in self.topics.iter().enumerate() {
            findings.topic(index, policy);
        }
        findings.0
    }
}

/// An invalid value, alone or beside others.
pub(super) struct Finding {
    /// The keys involved, the likeliest culprit first; never empty.
    pub(super) keys: Vec<String>,
    pub(super) message: String,
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        Self {
            place: String::new(),
            key: finding.keys.into_iter().next().unwrap_or_default(),
            message: finding.message,
        }
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn server(&mut self, server: &Server) {
        self.number("server.workers", server.workers, 0..=1024);
        self.number("server.backlog", server.backlog, 1..=MAX_BACKLOG);
        self.number("server.listeners", server.listeners, 1..=1024);
        self.time("server.keep_alive", server.keep_alive, SECOND..=HOUR);
        for host in &server.hosts {
            let is_name = !host.is_empty() && !host.contains(['/', ' ', '@']);
            let message = format!("must list host names without scheme and port, got {host:?}");
            self.rule(is_name, &["server.hosts"], message);
        }
        self.time("server.drain", server.drain, Duration::ZERO..=HOUR);
    }

    fn tls(&mut self, tls: &Tls) {
        let (has_certificate, has_key) = (!tls.certificate.is_empty(), !tls.key.is_empty());
        let message = "must both be set, or both be empty".to_owned();
        self.rule(has_certificate == has_key, &["tls.certificate", "tls.key"], message);
    }

    fn cors(&mut self, cors: &Cors) {
        self.time("cors.max_age", cors.max_age, Duration::ZERO..=DAY);
        let (is_any, is_alone) = (cors.is_any(), cors.origins.len() == 1);
        let message = "must have \"*\" as its only entry".to_owned();
        self.rule(!is_any || is_alone, &["cors.origins"], message);
        let message =
            "must be false with the origin \"*\": browsers refuse both together".to_owned();
        self.rule(!is_any || !cors.credentials, &["cors.credentials"], message);
        for origin in cors.origins.iter().filter(|origin| *origin != "*") {
            let host = origin.split_once("://").map(|(_, host)| host);
            let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
            let message = format!("must list origins like \"https://app.example\", got {origin:?}");
            self.rule(is_origin, &["cors.origins"], message);
        }
    }

    fn access(&mut self, access: &Access) {
        self.time("access.leeway", access.leeway, Duration::ZERO..=5 * MINUTE);
        self.time("access.ticket_window", access.ticket_window, SECOND..=HOUR);
        self.time("access.renew_before", access.renew_before, Duration::ZERO..=HOUR);
        self.time("access.revocations_kept", access.revocations_kept, MINUTE..=10 * YEAR);
        self.number("access.max_revocations", access.max_revocations, 1..=MAX_CONNECTIONS);
        self.time("access.jwks.refresh", access.jwks.refresh, SECOND..=DAY);
        self.time("access.webhook.timeout", access.webhook.timeout, SHORTEST_WAIT..=MINUTE);
        self.time("access.webhook.grace", access.webhook.grace, Duration::ZERO..=DAY);
        for (number, rule) in (1..).zip(&access.rules) {
            let who = match rule.who.strip_prefix("user:") {
                Some(name) => parse_user(name).is_ok(),
                None => matches!(rule.who.as_str(), "anyone" | "user"),
            };
            let message = format!(
                "rule {number}: `who` must be \"anyone\", \"user\" or \"user:NAME\", got {:?}",
                rule.who
            );
            self.rule(who, &["access.rules"], message);
            if let Err(error) = Rights::try_from(rule.rights()) {
                self.rule(false, &["access.rules"], format!("rule {number}: {error}"));
            }
        }
        for (key, problem) in source_problems(access) {
            self.rule(false, &[key], problem);
        }
    }

    fn limits(&mut self, limits: &Limits) {
        self.number("limits.request_bytes", limits.request_bytes, 0..=MAX_BYTES);
        for proxy in &limits.trusted_proxies {
            let is_network = proxy.parse::<Network>().is_ok();
            let message =
                format!("must list addresses or networks like \"10.0.0.0/8\", got {proxy:?}");
            self.rule(is_network, &["limits.trusted_proxies"], message);
        }
    }

    fn hub(&mut self, hub: &HubLimits) {
        let HubLimits { partitions, threads, .. } = *hub;
        self.rule(
            partitions.is_power_of_two() && partitions <= MAX_PARTITIONS,
            &["hub.partitions"],
            format!("must be a power of two from 1 to {MAX_PARTITIONS}, got {partitions}"),
        );
        // A thread without a partition would have nothing to do.
        self.rule(
            (1..=usize::from(partitions.max(1))).contains(&threads),
            &["hub.threads", "hub.partitions"],
            format!("hub.threads must be from 1 to hub.partitions, got {threads} and {partitions}"),
        );
        self.number("hub.max_connections", hub.max_connections, 1..=MAX_CONNECTIONS);
        self.number("hub.max_request_bytes", hub.max_request_bytes, MIN_REQUEST_BYTES..=MAX_BYTES);
        self.at_least("hub.max_topics_per_stream", hub.max_topics_per_stream, 1);
        self.at_least("hub.max_patterns_per_stream", hub.max_patterns_per_stream, 1);
        self.at_least("hub.max_types_per_stream", hub.max_types_per_stream, 1);
        self.at_least("hub.max_replays", hub.max_replays, 1);
    }

    fn stream(&mut self, stream: &Stream) {
        self.time("stream.heartbeat", stream.heartbeat, SHORTEST_WAIT..=HOUR);
        self.time("stream.retry_min", stream.retry_min, MILLISECOND..=HOUR);
        self.time("stream.retry_max", stream.retry_max, MILLISECOND..=HOUR);
        self.rule(
            stream.retry_min <= stream.retry_max,
            &["stream.retry_min", "stream.retry_max"],
            format!(
                "stream.retry_min must not be more than stream.retry_max, got {} and {}",
                spelt(stream.retry_min),
                spelt(stream.retry_max)
            ),
        );
        self.time("stream.write_timeout", stream.write_timeout, SHORTEST_WAIT..=HOUR);
        if !stream.max_lifetime.is_zero() {
            self.time("stream.max_lifetime", stream.max_lifetime, SHORTEST_WAIT..=YEAR);
        }
        let jitter = stream.max_lifetime_jitter;
        self.time("stream.max_lifetime_jitter", jitter, Duration::ZERO..=YEAR);
        self.rule(
            jitter.is_zero() || !stream.max_lifetime.is_zero(),
            &["stream.max_lifetime_jitter", "stream.max_lifetime"],
            "stream.max_lifetime_jitter needs a stream.max_lifetime, which is \"0s\"".into(),
        );
        self.rate("stream.rate", stream.rate);
        self.at_least("stream.max_batch_events", stream.max_batch_events, 1);
        self.at_least("stream.max_batch_bytes", stream.max_batch_bytes, 1);
    }

    fn outbox(&mut self, outbox: &Outbox) {
        self.number("outbox.max_bytes", outbox.max_bytes, MIN_OUTBOX_BYTES..=MAX_BYTES);
    }

    fn poll(&mut self, poll: &Poll) {
        self.number("poll.max_bytes", poll.max_bytes, MIN_OUTBOX_BYTES..=MAX_BYTES);
    }

    fn history(&mut self, history: &History) {
        self.number("history.max_bytes", history.max_bytes, 0..=MAX_BYTES);
        self.number("history.max_idle_bytes", history.max_idle_bytes, 0..=MAX_BYTES);
        self.time("history.ttl", history.ttl, Duration::ZERO..=YEAR);
    }

    fn publish(&mut self, publish: &Publish) {
        self.number("publish.max_payload", publish.max_payload, 1..=MAX_PAYLOAD_BYTES);
        self.number("publish.max_pending", publish.max_pending, 1..=MAX_PENDING);
        self.number("publish.max_remembered_bytes", publish.max_remembered_bytes, 1..=MAX_BYTES);
        self.time("publish.max_wait", publish.max_wait, Duration::ZERO..=HOUR);
        self.time("publish.max_idle", publish.max_idle, SHORTEST_WAIT..=HOUR);
        let window = publish.idempotency_window;
        self.time("publish.idempotency_window", window, Duration::ZERO..=YEAR);
    }

    fn fanout(&mut self, fanout: &FanOut) {
        self.number("fanout.chunk", fanout.chunk, 1..=65_536);
        self.number("fanout.max_running", fanout.max_running, 1..=1024);
        self.number("fanout.max_pending", fanout.max_pending, 1..=MAX_PENDING);
        self.number("fanout.max_remembered_bytes", fanout.max_remembered_bytes, 1..=MAX_BYTES);
    }

    fn log(&mut self, log: &Log, redis: &Redis) {
        self.time("log.sync_interval", log.sync_interval, MILLISECOND..=HOUR);
        self.number("log.segment_size", log.segment_size, SEGMENT_BYTES);
        self.number("log.max_queue", log.max_queue, MIN_REQUEST_BYTES..=MAX_BYTES);
        let is_alone = !log.is_on() || redis.url.is_empty();
        let message = "log.directory and redis.url exclude each other: a hub has one log";
        self.rule(is_alone, &["log.directory", "redis.url"], message.to_owned());
        let problem = "needs the feature `log` of the crate `fanfare`, missing in this build";
        let is_built = !log.is_on() || cfg!(feature = "log");
        self.rule(is_built, &["log.directory"], problem.to_owned());
    }

    fn redis(&mut self, redis: &Redis) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        let prefix = &redis.prefix;
        self.rule(
            (1..=100).contains(&prefix.len()) && prefix.chars().all(is_plain),
            &["redis.prefix"],
            format!("must be 1 to 100 letters, digits, `_`, `-`, `.` or `:`, got {prefix:?}"),
        );
        if let Some(problem) = redis_url_problem(redis) {
            self.rule(false, &["redis.url"], problem);
        }
        let stored_bytes = redis.max_history_bytes;
        self.number("redis.max_history_bytes", stored_bytes, MIN_STORED_BYTES..=MAX_BYTES);
        self.time("redis.clock_margin", redis.clock_margin, Duration::ZERO..=HOUR);
        self.time("redis.timeout", redis.timeout, SHORTEST_WAIT..=HOUR);
        self.time("redis.probe", redis.probe, SHORTEST_WAIT..=HOUR);
        self.time("redis.interest_grace", redis.interest_grace, Duration::ZERO..=HOUR);
    }

    fn delivery(&mut self, delivery: &Delivery) {
        self.time("delivery.tick", delivery.tick, MILLISECOND..=HOUR);
    }

    fn topic(&mut self, index: usize, policy: &TopicPolicy) {
        let key = |name: &str| format!("topics[{index}].{name}");
        if let Err(error) = Pattern::parse(&policy.pattern) {
            let message = format!("{error}, got {:?}", policy.pattern);
            self.rule(false, &[&key("pattern")], message);
        }
        if let Some(tick) = policy.tick {
            self.time(&key("tick"), tick, MILLISECOND..=HOUR);
        }
        if let Some(ttl) = policy.history.ttl {
            self.time(&key("history.ttl"), ttl, Duration::ZERO..=YEAR);
        }
        if let Some(rate) = policy.rate {
            self.rate(&key("rate"), rate);
        }
    }

    fn rate(&mut self, key: &str, rate: Rate) {
        let burst = format!("{key}.burst");
        let events = format!("{key}.events_per_second");
        let message = format!("{burst} must be at least 1 while {events} is not 0, got 0");
        self.rule(rate.events_per_second == 0 || rate.burst > 0, &[&burst, &events], message);
    }

    fn number<N: PartialOrd + fmt::Display>(
        &mut self,
        key: &str,
        value: N,
        range: RangeInclusive<N>,
    ) {
        let (least, most) = (range.start(), range.end());
        let message = format!("must be from {least} to {most}, got {value}");
        self.rule(range.contains(&value), &[key], message);
    }

    fn at_least(&mut self, key: &str, value: usize, least: usize) {
        self.rule(value >= least, &[key], format!("must be at least {least}, got {value}"));
    }

    fn time(&mut self, key: &str, value: Duration, range: RangeInclusive<Duration>) {
        let message = format!(
            "must be from {} to {}, got {}",
            spelt(*range.start()),
            spelt(*range.end()),
            spelt(value)
        );
        self.rule(range.contains(&value), &[key], message);
    }

    fn rule(&mut self, holds: bool, keys: &[&str], message: String) {
        if !holds {
            let keys = keys.iter().map(|&key| key.into()).collect();
            self.0.push(Finding { keys, message });
        }
    }
}

/// A duration in the form of the file.
fn spelt(duration: Duration) -> String {
    format!("\"{}\"", humantime::format_duration(duration))
}

/// The reason to refuse `redis.url`, if any.
#[cfg(feature = "redis")]
fn redis_url_problem(redis: &Redis) -> Option<String> {
    let is_set = !redis.url.is_empty();
    let target = is_set.then(|| fanfare_redis::Target::parse(&redis.url, &redis.tls_ca))?;
    target.err().map(|error| error.to_string())
}

#[cfg(not(feature = "redis"))]
fn redis_url_problem(redis: &Redis) -> Option<String> {
    let problem = "needs the feature `redis` of the crate `fanfare`, missing in this build";
    (!redis.url.is_empty()).then(|| problem.to_owned())
}
