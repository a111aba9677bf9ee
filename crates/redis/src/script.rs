//! The scripts: the arguments of their calls, and the parsing of their answers.
//!
//! Not here: the format of events inside (`message`).

use std::{borrow::Cow, time::Duration};

use fanfare_core::{
    cursor::{Epoch, IN_ANOTHER_EPOCH},
    event::{Event, EventData},
    fan_out::{FanOutPublish, FannedOut},
    log::{Changed, Era, PartitionHead, TailLoss, TopicRead},
    policy::{Policies, Policy},
    topic::Topic,
};
use redis::{Cmd, RedisError, Value, from_redis_value, from_redis_value_ref};

use crate::{
    clock::{Clock, now},
    message,
};

/// The publish script. A public interface, documented in its head.
pub(super) const PUBLISH: &str = include_str!("publish.lua");

/// The read script, for instances only.
pub(super) const READ: &str = include_str!("read.lua");

/// Topics in a full page of changes: the `LIMIT` in `read.lua`.
const CHANGES_A_PAGE: usize = 4096;

/// Microseconds in a second.
const MICROS: u64 = 1_000_000;

/// An instance's first call of a partition, for instances only.
pub(super) const JOIN: &str = include_str!("join.lua");

/// The names of one partition's keys and channels: `<prefix>:{<partition>}:<name>`. The braces make
/// the partition's number the hash tag, so all names lie in one slot of a Redis Cluster.
#[derive(Debug, Clone)]
pub(super) struct Names {
    base: String,
    channels: String,
}

impl Names {
    pub fn new(prefix: &str, partition: u16, database: i64) -> Self {
        Self { base: format!("{prefix}:{{{partition}}}:"), channels: database_channels(database) }
    }

    /// The first part of all names.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The name of a key.
    pub fn of(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// The name of a channel.
    pub fn channel(&self, name: &str) -> String {
        format!("{}{}{name}", self.base, self.channels)
    }

    /// The first part of a channel's name after the base; see [`database_channels`].
    pub fn database_part(&self) -> &str {
        &self.channels
    }

    fn heads(&self) -> [String; 5] {
        ["seq", "epoch", "lineage", "topics", "evicted"].map(|name| self.of(name))
    }
}

/// The first part of a channel's name after the base. Redis has one set of channels for all its
/// databases, so the name has the database. Database 0 has none, as in earlier versions.
fn database_channels(database: i64) -> String {
    if database == 0 { String::new() } else { format!("@{database}:") }
}

/// Splits a channel into its partition and its name there. `None` for the channel of another
/// program or database.
pub(super) fn channel_parts<'a>(
    prefix: &str,
    database: i64,
    channel: &'a str,
) -> Option<(u16, &'a str)> {
    let rest = channel.strip_prefix(prefix)?.strip_prefix(":{")?;
    let (partition, name) = rest.split_once("}:")?;
    let name = name.strip_prefix(&*database_channels(database))?;
    Some((partition.parse().ok()?, name))
}

/// One event of a publish call.
pub(super) struct ScriptPublish<'a> {
    pub topic: &'a Topic,
    pub event: Cow<'a, Event>,
    pub receivers: usize,
    pub policy: &'a Policy,
}

/// The arguments of a publish call, except its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublishCall<'a> {
    pub sha: &'a str,
    pub names: &'a Names,
    /// The server's `run_id`; empty if the login may not read it.
    pub server: &'a str,
    /// The last known epoch and sequence of the partition. The script begins a later epoch if the
    /// partition has lost its own, or is below the sequence.
    pub known: (u64, u64),
    pub max_topics: usize,
    pub window_ms: u64,
}

impl PublishCall<'_> {
    fn known(&self) -> String {
        let (epoch, sequence) = self.known;
        format!("{epoch} {sequence}")
    }

    /// The call for these events. Without events it ensures the partition's epoch, and fails on a
    /// server without write access.
    pub fn command(&self, events: &[ScriptPublish<'_>]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.sha).arg(5 + 3 * events.len()).arg(&self.names.heads()[..]);
        for ScriptPublish { topic, event, .. } in events {
            let log = self.names.of(&format!("log:{topic}"));
            let seen = match &event.id {
                Some(id) => self.names.of(&format!("seen:{topic} {id}")),
                // Unused, but the number of keys per event is fixed.
                None => log.clone(),
            };
            command.arg(log).arg(self.names.of(&format!("keys:{topic}"))).arg(seen);
        }
        command
            .arg(if events.is_empty() { "3" } else { "instance" })
            .arg(self.server)
            .arg(self.known())
            .arg(self.max_topics);
        for ScriptPublish { topic, event, receivers, policy } in events {
            let (kind, data) = kind_and_data(event);
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            command.arg(topic.as_str()).arg(kind).arg(data);
            command.arg(text(&event.event_type)).arg(text(&event.key)).arg(text(&event.id));
            command.arg(self.window_ms).arg(*receivers).arg(policy.history_events);
            command.arg(policy.history_ttl.as_millis() as u64).arg(policy.conflate.as_str());
            let key_ttl_ms = event.ttl.map_or(0, |ttl| ttl.as_millis() as u64);
            command.arg(text(&event.collapse)).arg(key_ttl_ms);
        }
        command
    }

    /// The call for one event and many topics. All topics are of this partition.
    pub fn fan_out(&self, fan_out: &FanOutPublish, topics: &[Topic], policies: &Policies) -> Cmd {
        let (id, event) = (&fan_out.id, fan_out.event.event());
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.sha).arg(6 + 2 * topics.len()).arg(&self.names.heads()[..]);
        command.arg(match id {
            Some(id) => self.names.of(&format!("fanout:{id}")),
            // Unused, but this place has a key in every call.
            None => self.names.of("seq"),
        });
        for topic in topics {
            command.arg(self.names.of(&format!("log:{topic}")));
            command.arg(self.names.of(&format!("keys:{topic}")));
        }
        command.arg("fanout 2").arg(self.server).arg(self.known()).arg(self.max_topics);
        let (kind, data) = kind_and_data(event);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        command.arg(kind).arg(data).arg(text(&event.event_type)).arg(text(&event.key));
        command.arg(text(&event.collapse));
        command.arg(id.as_deref().unwrap_or_default()).arg(self.window_ms);
        for topic in topics {
            let policy = policies.of(topic.as_str());
            command.arg(topic.as_str()).arg(policy.history_events);
            command.arg(policy.history_ttl.as_millis() as u64).arg(policy.conflate.as_str());
        }
        command
    }
}

fn kind_and_data(event: &Event) -> (&'static str, &str) {
    match &event.data {
        EventData::Json(json) if event.delete => ("gone", json),
        EventData::Text(text) => ("text", text),
        EventData::Json(json) => ("json", json),
    }
}

/// Parses the answer to a call without events: the time to the next end of a key.
pub(super) fn next_end(answer: Value) -> Result<Option<Duration>, RedisError> {
    let mut parts = array(answer)?.into_iter().skip(1);
    let millis: i64 = next(&mut parts)?;
    Ok(u64::try_from(millis).ok().map(Duration::from_millis))
}

/// Parses the answer to a fan-out: the epoch, the result, and the last sequence.
pub(super) fn fanned_out(answer: Value) -> Result<(Epoch, FannedOut, u64), RedisError> {
    let mut parts = array(answer)?.into_iter();
    let epoch: u64 = next(&mut parts)?;
    let (new, online, last) = (next(&mut parts)?, next(&mut parts)?, next(&mut parts)?);
    Ok((Epoch::new(epoch), FannedOut { new, online }, last))
}

/// The script's answer for one event. A known id has the first answer, and `is_new` is false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PublishedEvent {
    pub sequence: u64,
    pub is_new: bool,
    pub receivers: usize,
    /// The time of the publish, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// Parses the answer to a publish call: the epoch, and one answer per event in order.
pub(super) fn published(answer: Value) -> Result<(Epoch, Vec<PublishedEvent>), RedisError> {
    let mut parts = array(answer)?.into_iter();
    let epoch: u64 = next(&mut parts)?;
    let events = parts.map(|event| {
        let (sequence, is_new, receivers, unix_ms): (u64, u8, usize, u64) =
            from_redis_value(event)?;
        Ok(PublishedEvent { sequence, is_new: is_new == 1, receivers, unix_ms })
    });
    Ok((Epoch::new(epoch), events.collect::<Result<_, RedisError>>()?))
}

/// A call of the read script: an operation with its arguments, then the topics to read.
pub(super) fn read_call(sha: &str, names: &Names, logs: &[(Topic, u64)], words: &[String]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(sha).arg(5 + logs.len()).arg(&names.heads()[..]);
    for (topic, _) in logs {
        command.arg(names.of(&format!("log:{topic}")));
    }
    command.arg(words);
    for (topic, after) in logs {
        // The script reads no events after an empty position.
        let after = if *after == u64::MAX { String::new() } else { after.to_string() };
        command.arg(topic.as_str()).arg(after);
    }
    command
}

/// Parses an answer of the read script: the partition's head, the server's clock, and the unparsed
/// result of the operation.
pub(super) fn head(answer: Value) -> Result<(PartitionHead, Clock, Value), RedisError> {
    let mut parts = array(answer)?.into_iter();
    let epoch: String = next(&mut parts)?;
    let sequence: u64 = next(&mut parts)?;
    if sequence >= IN_ANOTHER_EPOCH {
        return Err(unexpected());
    }
    let eras: Vec<String> = next(&mut parts)?;
    let (seconds, micros): (u64, u64) = (next(&mut parts)?, next(&mut parts)?);
    let rest = parts.next().ok_or_else(unexpected)?;
    // The epoch is stored as `<number> <last sequence before it> <earlier numbers>`.
    let numbers = epoch.split_ascii_whitespace().map(str::parse);
    let numbers: Vec<i64> = numbers.collect::<Result<_, _>>().map_err(|_| unexpected())?;
    let [number, began_after, earlier @ ..] = &numbers[..] else { return Err(unexpected()) };
    let lineage = eras.iter().map(|era| self::era(era).ok_or_else(unexpected));
    let head = PartitionHead {
        epoch: Epoch::new(number.unsigned_abs()),
        earlier_epochs: earlier.iter().map(|epoch| Epoch::new(epoch.unsigned_abs())).collect(),
        epoch_began_after: u64::try_from(*began_after).ok(),
        sequence,
        lineage: lineage.collect::<Result<_, RedisError>>()?,
    };
    Ok((head, Clock::new(now(), seconds * MICROS + micros), rest))
}

/// Parses an entry of the lineage: `<run_id> <last sequence before it>`, and for a known loss of its
/// predecessor's events `<last lost sequence> <sequence of the record> <time of the record>`.
fn era(text: &str) -> Option<Era> {
    let (server, numbers) = text.split_once(' ')?;
    let numbers = numbers.split(' ').map(|number| number.parse().ok());
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    let (began_after, lost) = match numbers[..] {
        [began_after] => (began_after, None),
        [began_after, through, recorded_at, recorded_ms] => {
            (began_after, Some(TailLoss { through, recorded_at, recorded_ms }))
        }
        _ => return None,
    };
    Some(Era { server: server.to_owned(), began_after, lost })
}

/// The bytes of the partition's history, from an answer of the read script.
pub(super) fn history_bytes(answer: &Value) -> Option<u64> {
    let Value::Array(parts) = answer else { return None };
    from_redis_value_ref(parts.get(6)?).ok()
}

/// Parses the position of a second.
pub(super) fn located(answer: Value) -> Result<u64, RedisError> {
    let sequence: String = from_redis_value(answer)?;
    sequence.parse().map_err(|_| unexpected())
}

/// Parses a page of changed topics, and the position of the next page. `None` after the last page.
/// Skips invalid topic names.
pub(super) fn changed(answer: Value) -> Result<(Changed, Option<u64>), RedisError> {
    let mut parts = array(answer)?.into_iter();
    // Name and score take turns. The score is the topic's last sequence.
    let mut entries = array(parts.next().ok_or_else(unexpected)?)?.into_iter();
    let forgotten_through = next(&mut parts)?;
    let is_full = entries.len() / 2 >= CHANGES_A_PAGE;
    let mut topics = Vec::with_capacity(entries.len() / 2);
    let mut last_read = 0;
    while let (Some(name), Some(last)) = (entries.next(), entries.next()) {
        let name: Vec<u8> = from_redis_value(name)?;
        let last: f64 = from_redis_value(last)?;
        // Before the check of the name: a page of invalid names would else repeat forever.
        last_read = last as u64;
        let name = std::str::from_utf8(&name).ok();
        topics.extend(name.and_then(|name| Topic::parse(name).ok()).map(|t| (t, last as u64)));
    }
    Ok((Changed { topics, forgotten_through }, is_full.then_some(last_read)))
}

/// Parses a page of topics with their events, each with `true` if the topic is complete. The script
/// stops at its byte limit, so the page may lack the last topics of `asked`. Skips and logs invalid
/// events.
pub(super) fn read(
    answer: Value,
    asked: &[(Topic, u64)],
    clock: &Clock,
) -> Result<Vec<(TopicRead, bool)>, RedisError> {
    let answers = array(answer)?;
    let reads = answers.into_iter().zip(asked).map(|(answer, (topic, after))| {
        let mut parts = array(answer)?.into_iter();
        let last: f64 = next(&mut parts)?;
        let evicted_through = next(&mut parts)?;
        let is_whole: u8 = next(&mut parts)?;
        let messages = array(parts.next().ok_or_else(unexpected)?)?;
        let mut events = Vec::with_capacity(messages.len());
        for message in messages {
            let Value::BulkString(message) = message else { return Err(unexpected()) };
            match message::parse(&message, clock) {
                Ok(event) => events.push(event),
                Err(error) => tracing::error!(topic = topic.as_str(), %error, "event skipped"),
            }
        }
        let last = last as u64;
        let (topic, after) = (topic.clone(), *after);
        Ok((TopicRead { topic, after, last, evicted_through, events }, is_whole == 1))
    });
    reads.collect()
}

/// Parses a page of a bounded read: its end, `u64::MAX` for a whole one, and its topics.
pub(super) fn oldest(
    answer: Value,
    asked: &[(Topic, u64)],
    clock: &Clock,
) -> Result<(u64, Vec<TopicRead>), RedisError> {
    let mut parts = array(answer)?.into_iter();
    let through: String = next(&mut parts)?;
    let through = match through.as_str() {
        "" => u64::MAX,
        number => number.parse().map_err(|_| unexpected())?,
    };
    let reads = read(parts.next().ok_or_else(unexpected)?, asked, clock)?;
    let reads = reads.into_iter().map(|(read, has_all)| match has_all {
        true => read,
        // All its events are past the end, and none of this range is lost by number.
        false => TopicRead { last: read.after.max(read.evicted_through), ..read },
    });
    Ok((through, reads.collect()))
}

fn array(value: Value) -> Result<Vec<Value>, RedisError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(unexpected()),
    }
}

fn next<T: redis::FromRedisValue>(
    parts: &mut impl Iterator<Item = Value>,
) -> Result<T, RedisError> {
    Ok(from_redis_value(parts.next().ok_or_else(unexpected)?)?)
}

pub(super) fn unexpected() -> RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "unexpected answer of a script").into()
}
