//! A partition's way of publishing: batches, one at a time, so that order holds whatever
//! has to be tried again.

use std::{collections::VecDeque, sync::Arc, sync::atomic::Ordering};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, aio::ConnectionLike};
use tokio::time::Instant;

use super::{
    Settings,
    link::PublishPath,
    script::{self, Names, Publish},
};
use crate::{
    actors::partition::RelayedPublish,
    domain::{
        cursor::{Cursor, Epoch},
        relay::Acknowledged,
    },
    error::PublishError,
    hub::Published,
};

/// Events of one call: it keeps Redis busy for about a millisecond.
const MAX_BATCH_EVENTS: usize = 128;

/// Bytes of the events of one call, if it is more than one.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A partition's publishes.
#[derive(Default)]
pub(super) struct Lane {
    pub queue: VecDeque<RelayedPublish>,
    pub is_busy: bool,
    /// Where they go; none while there is no link.
    pub path: Option<PublishPath>,
    /// The last publish that was answered.
    pub acknowledged: Option<Acknowledged>,
}

/// Publishes of one call.
pub(super) struct Batch {
    pub publishes: Vec<RelayedPublish>,
    /// When the first attempt was made.
    pub began: Instant,
}

/// What became of a call.
pub(super) enum Outcome {
    /// The last of it, unless all were repeated.
    Done(Option<Acknowledged>),
    /// Redis has not taken it, and may soon.
    NotYet(Batch, RedisError),
    /// The connection failed, or Redis refused it for a reason of its own.
    Failed(RedisError),
}

impl Lane {
    /// The next batch, if there is one and none is under way.
    pub fn next(&mut self) -> Option<(Batch, PublishPath)> {
        if self.is_busy || self.queue.is_empty() {
            return None;
        }
        let path = self.path.clone()?;
        let mut bytes = 0;
        let fits = |publish: &&RelayedPublish| {
            bytes += publish.event.data.as_str().len();
            bytes <= MAX_BATCH_BYTES
        };
        let count = self.queue.iter().take(MAX_BATCH_EVENTS).take_while(fits).count().max(1);
        self.is_busy = true;
        let publishes = self.queue.drain(..count).collect();
        Some((Batch { publishes, began: Instant::now() }, path))
    }

    /// Refuses everything that waits.
    pub fn refuse(&mut self) {
        refuse(self.queue.drain(..), &PublishError::BridgeDown);
    }
}

impl Batch {
    /// Refuses all of it.
    pub fn refuse(self, error: &PublishError) {
        refuse(self.publishes.into_iter(), error);
    }

    /// Makes the call and answers every publisher, unless it is to be made again.
    pub async fn publish(
        self,
        mut path: PublishPath,
        partition: u16,
        settings: Arc<Settings>,
    ) -> Outcome {
        let names = Names::new(&settings.prefix, partition);
        let events: Vec<Publish<'_>> = self
            .publishes
            .iter()
            .map(|publish| Publish {
                topic: &publish.topic,
                event: &publish.event,
                receivers: publish.receivers,
                policy: settings.policies.of(publish.topic.as_str()),
            })
            .collect();
        let call = settings.publish_call(&path.sha, &path.server, &names);
        let command = call.command(&events);
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
        match answer.and_then(Value::extract_error).and_then(script::published) {
            Ok((epoch, events)) => {
                settings.epochs.note(partition, epoch.number());
                let server = path.server.to_string();
                let last = events.iter().filter(|event| event.is_new).map(|event| event.sequence);
                let last = last.max().map(|sequence| Acknowledged { epoch, sequence, server });
                self.answer(partition, epoch, &events, &settings);
                Outcome::Done(last)
            }
            Err(error) if is_temporary(&error) => Outcome::NotYet(self, error),
            Err(error) => {
                let refusal = match is_refused(&error) {
                    true => PublishError::BridgeDown,
                    false => PublishError::Unconfirmed,
                };
                self.refuse(&refusal);
                Outcome::Failed(error)
            }
        }
    }

    fn answer(
        self,
        partition: u16,
        epoch: Epoch,
        events: &[script::PublishedEvent],
        settings: &Settings,
    ) {
        for (publish, event) in self.publishes.into_iter().zip(events) {
            if event.is_new {
                settings.metrics.published.fetch_add(1, Ordering::Relaxed);
            }
            let published = Published {
                event_id: Cursor::of_event(epoch, partition, event.sequence).to_string(),
                topic: publish.topic.as_str().to_owned(),
                partition,
                sequence: event.sequence,
                receivers: event.receivers,
            };
            // The publisher may have gone; then nobody wants to know.
            let _ = publish.answer.send(Ok(published));
        }
    }
}

fn refuse(publishes: impl Iterator<Item = RelayedPublish>, error: &PublishError) {
    for publish in publishes {
        let _ = publish.answer.send(Err(error.clone()));
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

/// Whether Redis has not run the script: its errors for that come before the first write.
fn is_refused(error: &RedisError) -> bool {
    let codes = ["OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOAUTH", "NOPERM", "WRONGPASS"];
    error.code().is_some_and(|code| codes.contains(&code))
}
