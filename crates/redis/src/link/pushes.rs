//! Pushes of a link: events, instance RPC, probes and disconnects.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fanfare_core::log::LogUpdate;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use crate::{
    link::NodeLink,
    message,
    messages::{CallAnswered, CallReceived},
    publish_path::LinkError,
    script,
    signature::MessageKind,
};

/// Bound on the bytes of queued pushes. Above it the link ends and catches up later: a catch-up
/// needs no more memory than the log's events.
const MAX_PUSHED_BYTES: usize = 64 * 1024 * 1024;

/// Memory of a push or a read event beside its bytes.
pub(super) const PUSH_OVERHEAD_BYTES: usize = 200;

/// The message of the channel `control` for a recorded loss of a server's last events.
pub(super) const TAIL_LOST: &str = "lost";

/// A push of the connection. `Overflow` stands for a push dropped at [`MAX_PUSHED_BYTES`].
pub(super) enum LinkPush {
    Message { channel: Vec<u8>, payload: Vec<u8> },
    Unsubscribed { channel: Vec<u8> },
    Disconnected,
    Overflow,
}

impl NodeLink {
    /// Takes up to `max_count` queued pushes, without waiting.
    pub(super) fn take_pushes(&mut self, max_count: usize) -> Result<(), LinkError> {
        for _ in 0..max_count {
            match self.pushes.try_recv() {
                Ok(push) => self.take_push(push)?,
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    return Err(LinkError::Disconnected);
                }
            }
        }
        Ok(())
    }

    /// Turns a push into an update, a message to the bridge, or the end of a probe. Skips and logs
    /// invalid events.
    ///
    /// # Errors
    /// Pushes may be missing from here on. The link ends, and the replicas catch up.
    pub(super) fn take_push(&mut self, push: LinkPush) -> Result<(), LinkError> {
        let (channel, payload) = match push {
            LinkPush::Message { channel, payload } => (channel, payload),
            LinkPush::Unsubscribed { channel } if self.leaving.remove(&channel) => return Ok(()),
            // Not requested: the channel's slot has moved to another node.
            LinkPush::Unsubscribed { .. } => return Err(LinkError::ChannelMoved),
            LinkPush::Disconnected => return Err(LinkError::Disconnected),
            LinkPush::Overflow => return Err(LinkError::Overflow),
        };
        let bytes = channel.len() + payload.len() + PUSH_OVERHEAD_BYTES;
        self.pushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let channel = String::from_utf8_lossy(&channel);
        if *channel == *self.probe_channel {
            let is_own = |(_, nonce): &mut (_, String)| nonce.as_bytes() == payload;
            if let Some((sent, _)) = self.probe_sent.take_if(is_own) {
                self.spec.settings.status.note_lag(sent.elapsed());
            }
            return Ok(());
        }
        let settings = &self.spec.settings;
        let database = settings.target.database();
        let parts = script::channel_parts(&settings.prefix, database, &channel);
        let Some((partition, name)) = parts else { return Ok(()) };
        let kind = match name {
            "control" => MessageKind::Call,
            "fanout" => MessageKind::FanOut,
            "announced" => MessageKind::Announcement,
            name if name.starts_with("answers:") => MessageKind::Answer,
            _ => MessageKind::Event,
        };
        let secret = self.secrets.get(&partition);
        let Some(payload) = secret.and_then(|secret| secret.open(kind, &payload)) else {
            self.reject(partition, &channel);
            return Ok(());
        };
        let news = match name {
            // The answer of a catch-up names the loss.
            "control" if payload == TAIL_LOST.as_bytes() => Ok(Some(LogUpdate::PushesMissing)),
            "control" => {
                self.on_call(partition, payload);
                Ok(None)
            }
            answers if answers.starts_with("answers:") => {
                self.on_answer(payload);
                Ok(None)
            }
            "announced" => message::parse_announcement(payload)
                .map(|(first, topics)| Some(LogUpdate::Announced { first, topics })),
            "fanout" => message::parse_fan_out(payload, &self.clock)
                .map(|all| Some(LogUpdate::FannedOut(all))),
            _ => message::parse(payload, &self.clock).map(|event| Some(LogUpdate::Event(event))),
        };
        let news = news.unwrap_or_else(|error| {
            tracing::error!(channel = &*channel, %error, "event skipped");
            None
        });
        match &news {
            Some(LogUpdate::Event(event)) => {
                self.note_push(partition, event.epoch, event.sequence);
            }
            Some(LogUpdate::FannedOut(events)) => events
                .iter()
                .for_each(|event| self.note_push(partition, event.epoch, event.sequence)),
            _ => {}
        }
        self.news.entry(partition).or_default().extend(news);
        Ok(())
    }

    /// Skips a push without a valid signature. Only the first one is in the log; the metric counts
    /// all.
    fn reject(&mut self, partition: u16, channel: &str) {
        let count = self.spec.settings.status.rejected.fetch_add(1, Ordering::Relaxed);
        if count == 0 {
            tracing::warn!(channel, "message without a valid signature skipped");
        }
        if self.names.contains_key(&partition) {
            self.to_join.insert(partition);
        }
    }

    /// Passes on `call <question> <instance> <call>` of any instance. Ignores other texts.
    fn on_call(&self, partition: u16, payload: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(payload).ok()?.strip_prefix("call ")?;
        let mut words = text.splitn(3, ' ');
        let (question, instance) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let call = serde_json::from_str(words.next()?).ok()?;
        // Past the bridge's mailbox bound: every caller has a bounded number of calls in flight.
        self.spec.bridge.call_received.do_send(CallReceived {
            partition,
            question,
            instance,
            call,
        });
        Some(())
    }

    /// Passes on `answer <question> <answer>` of any instance to this one. Ignores other texts.
    fn on_answer(&self, payload: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(payload).ok()?.strip_prefix("answer ")?;
        let (question, answer) = text.split_once(' ')?;
        let (question, answer) = (question.parse().ok()?, serde_json::from_str(answer).ok()?);
        self.spec.bridge.call_answered.do_send(CallAnswered { question, answer });
        Some(())
    }
}

/// The connection calls this for every push it reads. The call must not wait, so a byte count
/// bounds the queue.
pub(super) fn push_sender(
    sender: mpsc::UnboundedSender<LinkPush>,
    pushed_bytes: Arc<AtomicUsize>,
) -> impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static {
    move |push| {
        let mut parts = push.data.into_iter();
        let mut bytes = || match parts.next() {
            Some(Value::BulkString(bytes)) => bytes,
            _ => Vec::new(),
        };
        let push = match push.kind {
            PushKind::SMessage | PushKind::Message => {
                let (channel, payload) = (bytes(), bytes());
                let size = channel.len() + payload.len() + PUSH_OVERHEAD_BYTES;
                if pushed_bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_PUSHED_BYTES {
                    LinkPush::Overflow
                } else {
                    LinkPush::Message { channel, payload }
                }
            }
            PushKind::SUnsubscribe => LinkPush::Unsubscribed { channel: bytes() },
            PushKind::Disconnection => LinkPush::Disconnected,
            _ => return Ok(()),
        };
        sender.send(push).map_err(|_| ())
    }
}
