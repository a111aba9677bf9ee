//! A partition's publish queue: batches, one at a time, so order holds across retries.

use std::{collections::VecDeque, sync::Arc};

use fanfare_core::{
    cursor::{Cursor, Epoch},
    error::PublishError,
    fan_out::FannedOut,
    log::{Acknowledged, Append, AppendEvent, AppendFanOut},
    policy::Policies,
    publish::Published,
};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, aio::ConnectionLike};
use tokio::time::Instant;

use crate::{
    publish_path::PublishPath,
    script::{self, Names, PublishCall, ScriptPublish},
    settings::BridgeSettings,
};

/// Events of one call: it keeps Redis busy for about a millisecond.
const MAX_BATCH_EVENTS: usize = 128;

/// Bytes of the events of one call, if it is more than one.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A partition's publishes.
#[derive(Default)]
pub(super) struct PublishQueue {
    pub waiting: VecDeque<Append>,
    pub is_busy: bool,
    /// The link for publishes; none while there is none.
    pub path: Option<PublishPath>,
    /// The last answered publish.
    pub acknowledged: Option<Acknowledged>,
}

/// The content of one call.
enum BatchContents {
    Publishes(Vec<AppendEvent>),
    FanOut(AppendFanOut),
}

/// A call.
pub(super) struct PublishBatch {
    contents: BatchContents,
    /// When the first attempt was made.
    pub began: Instant,
}

/// The outcome of a call.
pub(super) enum BatchOutcome {
    /// The last of it, unless all were repeated.
    Done(Option<Acknowledged>),
    /// Redis has not taken it, and may soon.
    NotYet(PublishBatch, RedisError),
    /// The connection failed, or Redis refused it for a reason of its own.
    Failed(RedisError),
}

impl PublishQueue {
    /// The next batch, if there is one and none is under way.
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

    /// A publish, and the following ones fitting into the same call.
    fn publishes_from(&mut self, first: AppendEvent) -> Vec<AppendEvent> {
        let mut bytes = first.event.data.as_str().len();
        let mut publishes = vec![first];
        while publishes.len() < MAX_BATCH_EVENTS
            && let Some(Append::Event(publish)) = self.waiting.pop_front_if(|next| match next {
                Append::Event(publish) => {
                    bytes += publish.event.data.as_str().len();
                    bytes <= MAX_BATCH_BYTES
                }
                Append::FanOut(_) => false,
            })
        {
            publishes.push(publish);
        }
        publishes
    }

    /// Refuses all waiting publishes.
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
                        event: &publish.event,
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
    /// Refuses all of it.
    pub fn refuse(self, error: &PublishError) {
        self.contents.refuse(error);
    }

    /// Makes the call and answers every publisher, unless it is to be made again.
    pub async fn publish(
        self,
        mut path: PublishPath,
        partition: u16,
        settings: Arc<BridgeSettings>,
    ) -> BatchOutcome {
        let names = Names::new(&settings.prefix, partition);
        let call = settings.publish_call(&path.sha, &path.server, &names);
        let command = self.contents.command(&call, &settings.policies);
        let mut answer = path.connection.req_packed_command(&command).await;
        if is_kind(&answer, ServerErrorKind::NoScript) {
            // Redis has forgotten it, as after SCRIPT FLUSH.
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script::PUBLISH);
            answer = match path.connection.req_packed_command(&load).await {
                Ok(_) => path.connection.req_packed_command(&command).await,
                Err(error) => Err(error),
            };
        }
        let done = answer.and_then(Value::extract_error);
        match done.and_then(|answer| self.contents.read(answer)) {
            Ok(done) => {
                let (epoch, last) = done.last();
                settings.epochs.note(partition, epoch.number());
                let server = path.server.to_string();
                self.contents.answer(partition, done, &settings);
                BatchOutcome::Done(last.map(|sequence| Acknowledged { epoch, sequence, server }))
            }
            Err(error) if is_temporary(&error) => BatchOutcome::NotYet(self, error),
            Err(error) => {
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

/// The answer of Redis.
enum BatchAnswer {
    Publishes(Epoch, Vec<script::PublishedEvent>),
    FanOut(Epoch, FannedOut, u64),
}

impl BatchAnswer {
    /// The epoch, and the last sequence that is new.
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

    /// Answers every publisher.
    fn answer(self, partition: u16, done: BatchAnswer, settings: &BridgeSettings) {
        let published = &settings.published;
        match (self, done) {
            (Self::Publishes(publishes), BatchAnswer::Publishes(epoch, events)) => {
                for (publish, event) in publishes.into_iter().zip(events) {
                    published.count_published(event.is_new.into());
                    let answer = Published {
                        event_id: Cursor::of_event(epoch, partition, event.sequence).to_string(),
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
            // Each batch is read by its own kind.
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

/// Whether Redis has not run the script and may do so in a moment, here or elsewhere.
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

/// Whether Redis refused to run the script: these errors come before the first write.
fn is_refused(error: &RedisError) -> bool {
    let codes = ["OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOAUTH", "NOPERM", "WRONGPASS"];
    error.code().is_some_and(|code| codes.contains(&code))
}
