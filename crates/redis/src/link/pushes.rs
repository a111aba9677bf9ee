//! Pushes of a link: events, control messages, and disconnects.

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
};

/// Bound on pushed bytes not yet applied. Past it the link ends and catches up later, which takes
/// no more memory than the log's events.
const MAX_PUSHED_BYTES: usize = 64 * 1024 * 1024;

/// Memory of a push beside its bytes.
pub(super) const PUSH_OVERHEAD_BYTES: usize = 200;

/// A push of the connection.
pub(super) enum LinkPush {
    Message { channel: Vec<u8>, payload: Vec<u8> },
    Unsubscribed { channel: Vec<u8> },
    Disconnected,
    Overflow,
}

impl NodeLink {
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

    pub(super) fn take_push(&mut self, push: LinkPush) -> Result<(), LinkError> {
        let (channel, payload) = match push {
            LinkPush::Message { channel, payload } => (channel, payload),
            LinkPush::Unsubscribed { channel } if self.leaving.remove(&channel) => return Ok(()),
            LinkPush::Unsubscribed { .. } => return Err(LinkError::ChannelMoved),
            LinkPush::Disconnected => return Err(LinkError::Disconnected),
            LinkPush::Overflow => return Err(LinkError::Overflow),
        };
        let bytes = channel.len() + payload.len() + PUSH_OVERHEAD_BYTES;
        self.pushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let channel = String::from_utf8_lossy(&channel);
        if *channel == *self.probe_channel {
            if let Some(sent) = self.probe_sent.take() {
                self.spec.settings.status.note_lag(sent.elapsed());
            }
            return Ok(());
        }
        let Some((partition, name)) = script::channel_parts(&self.spec.settings.prefix, &channel)
        else {
            return Ok(());
        };
        let news = match name {
            "control" => {
                self.on_call(partition, &payload);
                Ok(None)
            }
            answers if answers.starts_with("answers:") => {
                self.on_answer(&payload);
                Ok(None)
            }
            "fanout" => message::parse_fan_out(&payload, &self.clock)
                .map(|all| Some(LogUpdate::FannedOut(all))),
            _ => message::parse(&payload, &self.clock).map(|event| Some(LogUpdate::Event(event))),
        };
        let news = news.unwrap_or_else(|error| {
            tracing::error!(channel = &*channel, %error, "event passed over");
            None
        });
        self.news.entry(partition).or_default().extend(news);
        Ok(())
    }

    /// `call <question> <instance> <call>` of any instance.
    fn on_call(&self, partition: u16, payload: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(payload).ok()?.strip_prefix("call ")?;
        let mut words = text.splitn(3, ' ');
        let (question, instance) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let call = serde_json::from_str(words.next()?).ok()?;
        // Every caller has a bounded number of calls in flight.
        self.spec.bridge.call_received.do_send(CallReceived {
            partition,
            question,
            instance,
            call,
        });
        Some(())
    }

    /// `answer <question> <answer>` of any instance to this one.
    fn on_answer(&self, payload: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(payload).ok()?.strip_prefix("answer ")?;
        let (question, answer) = text.split_once(' ')?;
        let (question, answer) = (question.parse().ok()?, serde_json::from_str(answer).ok()?);
        self.spec.bridge.call_answered.do_send(CallAnswered { question, answer });
        Some(())
    }
}

/// Takes pushes as the connection reads them. It cannot wait, so it counts.
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
