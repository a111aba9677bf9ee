//! A partition's publish queue. One batch is in flight at a time, so the order holds through every
//! retry.

use std::{borrow::Cow, collections::VecDeque, sync::Arc, time::Duration};

use actix::SpawnHandle;
use fanfare_core::{
    cursor::{Cursor, Epoch},
    error::PublishError,
    fan_out::FannedOut,
    log::{Acknowledged, Acknowledgements, Append, AppendEvent, AppendFanOut},
    policy::Policies,
    publish::Published,
};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, aio::ConnectionLike};
use tokio::time::Instant;

use crate::{
    publish_path::PublishPath,
    script::{self, PublishCall, ScriptPublish},
    settings::BridgeSettings,
};

/// The first word of the script's error for a partition without a secret.
const NOT_JOINED: &str = "FANFARE";

/// Events in one batch: they keep Redis busy for about a millisecond.
const MAX_BATCH_EVENTS: usize = 128;

/// Bytes of data in one batch. A single larger event goes alone.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// The publishes of one partition, in order. Publish permits bound their number.
#[derive(Default)]
pub(super) struct PublishQueue {
    pub waiting: VecDeque<Append>,
    /// A batch is in flight or waits for its retry.
    pub is_busy: bool,
    /// The access to the node's link; `None` while the link is down.
    pub path: Option<PublishPath>,
    /// The last new event confirmed by each server. With the next link, the replica checks that the
    /// log still has them.
    pub acknowledged: Acknowledgements,
    /// The next known end of a key, and its timer.
    pub end_timer: Option<(Instant, SpawnHandle)>,
}

/// The publishes of one batch. A fan-out is always a batch of its own.
enum BatchContents {
    Publishes(Vec<AppendEvent>),
    FanOut(AppendFanOut),
}

/// One script call, with the replies of its publishers.
pub(super) struct PublishBatch {
    contents: BatchContents,
    /// The time of the first attempt.
    pub began: Instant,
}

/// The outcome of one attempt.
pub(super) enum BatchOutcome {
    /// Redis ran the script. With the last new event; `None` if all ids were known.
    Done(Option<Acknowledged>),
    /// Redis has not run the script. A retry may succeed; no publisher is answered yet.
    NotYet(PublishBatch, RedisError),
    /// The connection failed, or Redis refused the call. All publishers are answered.
    Failed(RedisError),
}

impl PublishQueue {
    /// Takes the next batch and marks the queue busy. `None` while a batch is in flight, while the
    /// link is down, or without waiting publishes.
    pub fn next(&mut self) -> Option<(PublishBatch, PublishPath)> {
        if self.is_busy || self.waiting.is_empty() {
            return None;
        }
        let path = self.path.clone()?;
        self.is_busy = true;
        let contents = match self.waiting.pop_front()? {
            Append::FanOut(fan_out) => BatchContents::FanOut(fan_out),
            Append::Event(first) => BatchContents::Publishes(self.publishes_from(first)),
        };
        Some((PublishBatch { contents, began: Instant::now() }, path))
    }

    /// Joins to a publish the next ones, up to the bounds of a batch. A fan-out ends the batch.
    fn publishes_from(&mut self, first: AppendEvent) -> Vec<AppendEvent> {
        let mut bytes = first.event.event().data.as_str().len();
        let mut publishes = vec![first];
        while publishes.len() < MAX_BATCH_EVENTS
            && let Some(Append::Event(publish)) = self.waiting.pop_front_if(|next| match next {
                Append::Event(publish) => {
                    bytes += publish.event.event().data.as_str().len();
                    bytes <= MAX_BATCH_BYTES
                }
                Append::FanOut(_) => false,
            })
        {
            publishes.push(publish);
        }
        publishes
    }

    /// Refuses all waiting publishes as `bridge_down`.
    pub fn refuse(&mut self) {
        for event in self.waiting.drain(..) {
            let contents = match event {
                Append::Event(publish) => BatchContents::Publishes(vec![publish]),
                Append::FanOut(fan_out) => BatchContents::FanOut(fan_out),
            };
            contents.refuse(&PublishError::BridgeDown);
        }
    }
}

impl BatchContents {
    fn refuse(self, error: &PublishError) {
        match self {
            Self::Publishes(publishes) => {
                publishes.into_iter().for_each(|publish| publish.answer.send(Err(error.clone())))
            }
            Self::FanOut(fan_out) => {
                fan_out.answer.send(Err(error.clone()));
            }
        }
    }

    fn command(&self, call: &PublishCall<'_>, policies: &Policies) -> Cmd {
        match self {
            Self::FanOut(AppendFanOut { fan_out, topics, .. }) => {
                call.fan_out(fan_out, topics, policies)
            }
            Self::Publishes(publishes) => {
                let events: Vec<ScriptPublish<'_>> = publishes
                    .iter()
                    .map(|publish| ScriptPublish {
                        topic: &publish.topic,
                        event: match publish.event.deletion(&publish.topic) {
                            Some(deletion) => Cow::Owned(deletion),
                            None => Cow::Borrowed(publish.event.event()),
                        },
                        receivers: publish.receivers,
                        policy: policies.of(publish.topic.as_str()),
                    })
                    .collect();
                call.command(&events)
            }
        }
    }
}

impl PublishBatch {
    /// The shortest time to live of its keys.
    pub fn shortest_ttl(&self) -> Option<Duration> {
        match &self.contents {
            BatchContents::Publishes(publishes) => {
                publishes.iter().filter_map(|publish| publish.event.event().ttl).min()
            }
            BatchContents::FanOut(_) => None,
        }
    }

    /// Answers every publisher with this error.
    pub fn refuse(self, error: &PublishError) {
        self.contents.refuse(error);
    }

    /// Calls the script and answers every publisher, except on [`BatchOutcome::NotYet`].
    pub async fn publish(
        self,
        mut path: PublishPath,
        partition: u16,
        settings: Arc<BridgeSettings>,
    ) -> BatchOutcome {
        let names = settings.names(partition);
        let call = settings.publish_call(&path.sha, &path.server, partition, &names);
        let command = self.contents.command(&call, &settings.policies);
        let mut answer = path.connection.req_packed_command(&command).await;
        if is_kind(&answer, ServerErrorKind::NoScript) {
            // Redis has lost the script, as after SCRIPT FLUSH.
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script::PUBLISH);
            answer = match path.connection.req_packed_command(&load).await {
                Ok(_) => path.connection.req_packed_command(&command).await,
                Err(error) => Err(error),
            };
        }
        let mut done = answer.and_then(Value::extract_error);
        if done.as_ref().is_err_and(|error| error.code() == Some(NOT_JOINED)) {
            // Redis was emptied. The link is subscribed to one control channel.
            let join = settings.join_call(partition, 1);
            let joined = path.connection.req_packed_command(&join).await;
            done = match joined.and_then(Value::extract_error) {
                Ok(_) => path.connection.req_packed_command(&command).await,
                Err(error) => Err(error),
            };
            done = done.and_then(Value::extract_error);
        }
        match done.and_then(|answer| self.contents.read(answer)) {
            Ok(done) => {
                let (epoch, last) = done.last();
                // The script may have begun a new epoch. The links then give it to all partitions.
                settings.epochs.note(partition, epoch, &[], last.unwrap_or_default());
                let server = path.server.to_string();
                self.contents.answer(partition, done, &settings);
                BatchOutcome::Done(last.map(|sequence| Acknowledged { epoch, sequence, server }))
            }
            Err(error) if is_temporary(&error) => BatchOutcome::NotYet(self, error),
            Err(error) => {
                // A refusal came before the first write: the publisher may retry. After any other
                // error the events may be stored, so the answer must leave this open.
                let refusal = match is_refused(&error) {
                    true => PublishError::BridgeDown,
                    false => PublishError::Unconfirmed,
                };
                self.refuse(&refusal);
                BatchOutcome::Failed(error)
            }
        }
    }
}

/// The script's answer to a batch.
enum BatchAnswer {
    Publishes(Epoch, Vec<script::PublishedEvent>),
    /// With the last sequence.
    FanOut(Epoch, FannedOut, u64),
}

impl BatchAnswer {
    /// The epoch, and the last sequence of a new event. Repeated ids give earlier sequences.
    fn last(&self) -> (Epoch, Option<u64>) {
        match self {
            Self::Publishes(epoch, events) => {
                let new = events.iter().filter(|event| event.is_new);
                (*epoch, new.map(|event| event.sequence).max())
            }
            Self::FanOut(epoch, fanned_out, last) => {
                (*epoch, (fanned_out.new > 0).then_some(*last))
            }
        }
    }
}

impl BatchContents {
    fn read(&self, answer: Value) -> Result<BatchAnswer, RedisError> {
        match self {
            Self::Publishes(_) => {
                let (epoch, events) = script::published(answer)?;
                Ok(BatchAnswer::Publishes(epoch, events))
            }
            Self::FanOut(_) => {
                let (epoch, fanned_out, last) = script::fanned_out(answer)?;
                Ok(BatchAnswer::FanOut(epoch, fanned_out, last))
            }
        }
    }

    /// Answers every publisher with its result.
    fn answer(self, partition: u16, done: BatchAnswer, settings: &BridgeSettings) {
        let published = &settings.published;
        match (self, done) {
            (Self::Publishes(publishes), BatchAnswer::Publishes(epoch, events)) => {
                for (publish, event) in publishes.into_iter().zip(events) {
                    published.count_published(event.is_new.into());
                    let answer = Published {
                        event_id: Cursor::of_event(epoch, event.unix_ms, partition, event.sequence)
                            .to_string(),
                        topic: publish.topic.as_str().to_owned(),
                        partition,
                        sequence: event.sequence,
                        receivers: event.receivers,
                    };
                    publish.answer.send(Ok(answer));
                }
            }
            (Self::FanOut(fan_out), BatchAnswer::FanOut(_, fanned_out, _)) => {
                published.count_published(fanned_out.new as u64);
                fan_out.answer.send(Ok(fanned_out));
            }
            // `read` gives each batch an answer of its own kind.
            (Self::Publishes(_), BatchAnswer::FanOut(..))
            | (Self::FanOut(_), BatchAnswer::Publishes(..)) => {}
        }
    }
}

fn is_kind(answer: &Result<Value, RedisError>, wanted: ServerErrorKind) -> bool {
    match answer {
        Ok(Value::ServerError(error)) => error.kind() == Some(wanted),
        Err(error) => error.kind() == ErrorKind::Server(wanted),
        Ok(_) => false,
    }
}

/// Whether Redis has not run the script, and a retry may succeed on this node or another.
fn is_temporary(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::NoScript
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::BusyLoading
        )
    )
}

/// Whether Redis refused the script. These errors come before the first write.
fn is_refused(error: &RedisError) -> bool {
    let codes =
        [NOT_JOINED, "OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOAUTH", "NOPERM", "WRONGPASS"];
    error.code().is_some_and(|code| codes.contains(&code))
}
